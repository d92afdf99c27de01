//! The WASI side: the entry that wasi-libc's `crt1-command.o` calls, and the linked classifier.

use std::{
    env,
    error::Error,
    io::{self, Write},
    iter,
};

use classifier::{Classifier, ClassifyError};

use crate::{Answer, FAILED, run};

/// What `_start` calls once the constructors have run.
///
/// rustc gives this name to the `main` of a program that it links itself; this library is linked
/// by rust-lld, with another model each time.
#[expect(unsafe_code, reason = "crt1-command.o finds its entry by this symbol")]
// SAFETY: nothing else in the module defines `__main_void`; wasi-libc's own definition lies in an
// archive, from which it is not taken when the symbol is defined already.
#[unsafe(no_mangle)]
extern "C" fn __main_void() -> i32 {
    let arguments: Vec<_> =
        env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let code = run(&arguments, &mut out, &mut err, classify);
    match code.and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => code,
        // Nobody reads any more.
        Err(_) => FAILED,
    }
}

fn classify(bytes: &[u8]) -> Result<Answer, String> {
    let mut classifier = Classifier::linked().map_err(|error| chain(&error))?;
    best(&mut classifier, bytes)
        .map_err(|error| chain(&error))?
        .ok_or_else(|| "the model has no finite answer".into())
}

/// The answer with the best class, unless the model has no finite answer.
fn best(classifier: &mut Classifier, bytes: &[u8]) -> Result<Option<Answer>, ClassifyError> {
    let picture = classifier.decode(bytes)?;
    classifier.preprocess(&picture)?;
    classifier.infer()?;
    let (height, width) = classifier.spec().input.height_width();
    let found = classifier.top_k(&classifier.scores(), 1);
    let best = found.first().filter(|best| best.score.is_finite());
    Ok(best.map(|best| Answer {
        original: (picture.width(), picture.height()),
        resized: (width as u32, height as u32),
        label: best.label.to_owned(),
    }))
}

/// An error with its causes, in one line.
fn chain(error: &dyn Error) -> String {
    iter::successors(error.source(), |&cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
