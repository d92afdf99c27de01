//! The classifier as a WASI command: `wasmtime run --dir . classify.wasm cat.png`.
//!
//! [`run`] is the whole program as a function of its arguments and streams; `command`, which
//! exists on WebAssembly only, gives it the real ones and the classifier that is linked into the
//! module.

use std::{
    fs::File,
    io::{self, Read, Write},
};

#[cfg(target_arch = "wasm32")]
mod command;

/// Exit code: the image was classified.
pub const DONE: i32 = 0;
/// Exit code: the image could not be read or classified, or the model not be loaded.
pub const FAILED: i32 = 1;
/// Exit code: the arguments were wrong.
pub const WRONG_USAGE: i32 = 2;

const USAGE: &str = "usage: classify.wasm IMAGE";

const HELP: &str = "\
Tells what an image shows.

usage: classify.wasm IMAGE

  IMAGE       a JPEG, PNG, WebP, GIF or BMP file; give its folder to the
              runtime: wasmtime run --dir . classify.wasm cat.png
  -h, --help  this text

Exit codes: 0 done, 1 the image or the model failed, 2 wrong usage.
";

// The same as for a body over HTTP; a file that has more is refused by the decoder, which sees
// one byte too many.
const MAX_IMAGE_BYTES: u64 = 16 * 1024 * 1024;

/// What the program says about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Width and height of the image as decoded.
    pub original: (u32, u32),
    /// Width and height that the model reads.
    pub resized: (u32, u32),
    /// The best class.
    pub label: String,
}

/// Runs the program and returns its exit code.
///
/// `arguments` are without the program's name. `classify` gets the bytes of the image and says
/// what is in it, or, in one line, why it cannot.
///
/// # Errors
/// Only when `out` or `err` cannot be written.
pub fn run(
    arguments: &[String],
    out: &mut dyn Write,
    err: &mut dyn Write,
    classify: impl FnOnce(&[u8]) -> Result<Answer, String>,
) -> io::Result<i32> {
    if arguments.iter().any(|argument| matches!(argument.as_str(), "-h" | "--help")) {
        write!(out, "{HELP}")?;
        return Ok(DONE);
    }
    let path = match arguments {
        [path] if !path.starts_with('-') => path,
        [] => {
            writeln!(err, "no image given; {USAGE}")?;
            return Ok(WRONG_USAGE);
        }
        [option] => {
            writeln!(err, "unknown option `{}`; {USAGE}", one_line(option))?;
            return Ok(WRONG_USAGE);
        }
        _ => {
            writeln!(err, "one image at a time; {USAGE}")?;
            return Ok(WRONG_USAGE);
        }
    };
    match read(path).map_err(|error| error.to_string()).and_then(|bytes| classify(&bytes)) {
        Ok(answer) => {
            writeln!(out, "original image dimensions: {:?}", answer.original)?;
            writeln!(out, "resized image dimensions: {:?}", answer.resized)?;
            writeln!(out, "input image belongs to the class `{}`", answer.label)?;
            Ok(DONE)
        }
        Err(reason) => {
            writeln!(err, "{}: {}", one_line(path), one_line(&reason))?;
            Ok(FAILED)
        }
    }
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_IMAGE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Names of files and words of errors may hold line breaks; a message is one line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn run_with(arguments: &[&str]) -> (i32, String, String) {
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&arguments, &mut out, &mut err, |bytes| match bytes {
            b"cat" => Ok(Answer {
                original: (640, 480),
                resized: (224, 224),
                label: "tabby, tabby cat".into(),
            }),
            _ => Err("not an\nimage".into()),
        });
        (code.unwrap(), String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn file(name: &str, bytes: &[u8]) -> String {
        let path =
            std::env::temp_dir().join(format!("graphlet-wasi-{}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn an_image_gets_exactly_three_lines() {
        let (code, out, err) = run_with(&[&file("cat.png", b"cat")]);
        assert_eq!(
            out,
            "original image dimensions: (640, 480)\n\
             resized image dimensions: (224, 224)\n\
             input image belongs to the class `tabby, tabby cat`\n"
        );
        assert_eq!((code, err.as_str()), (DONE, ""));
    }

    #[test]
    fn a_missing_or_broken_file_gets_one_line_and_code_1() {
        for path in ["/nowhere/at\nall.png", &file("broken.png", b"<html>"), "/"] {
            let (code, out, err) = run_with(&[path]);
            assert_eq!((code, out.as_str()), (FAILED, ""), "{path}");
            assert_eq!(err.lines().count(), 1, "{err}");
            assert!(err.ends_with('\n'));
        }
    }

    #[test]
    fn wrong_arguments_get_the_usage_and_code_2() {
        for arguments in [&[][..], &["a.png", "b.png"], &["--top"], &["-"]] {
            let (code, out, err) = run_with(arguments);
            assert_eq!((code, out.as_str()), (WRONG_USAGE, ""), "{arguments:?}");
            assert!(err.contains(USAGE) && err.lines().count() == 1, "{err}");
        }
    }

    #[test]
    fn help_goes_to_stdout() {
        for argument in ["-h", "--help"] {
            let (code, out, err) = run_with(&["x.png", argument]);
            assert_eq!((code, err.as_str()), (DONE, ""));
            assert!(out.contains(USAGE) && out.contains("Exit codes"));
        }
    }
}
