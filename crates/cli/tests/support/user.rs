//! Somebody who types commands, with a folder for files and a configuration folder.

use std::{
    env, fs,
    io::Read,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Built, SOON, guests::scripted_guest, root};

// The first build of a guest library compiles the standard library, too, and waits for its turn.
const BUILD_TIME: Duration = Duration::from_secs(900);

/// How a command ended.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A user with folders that nobody else uses.
pub struct User {
    folder: tempfile::TempDir,
}

impl User {
    /// A user without keys, who trusts nobody.
    pub fn new() -> Self {
        User { folder: tempfile::tempdir().unwrap() }
    }

    /// A user with a built module as `NAME` who trusts its issuer.
    pub fn with_module(built: &Built, name: &str) -> Self {
        let user = Self::new();
        user.write(name, built.bytes());
        user.done(&format!("keys trust {}", built.issuer));
        user
    }

    /// A user with an actor of their own, as [`scripted_guest`] makes it.
    pub fn with_scripted_guest(name: &str) -> Self {
        let user = Self::new();
        user.write(name, scripted_guest());
        user.done(&format!("sign {name} -o {name}"));
        user
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of this user's.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.file(name), content).unwrap();
        self.file(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Names of what lies in this user's folder, but for the configuration.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "config")
            .collect();
        names.sort();
        names
    }

    pub fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.file(name)).unwrap().permissions().mode() & 0o7777
    }

    /// The command with words split at spaces, in this user's folder; nothing of the caller's
    /// environment reaches it. Compiled code is kept for all tests together.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_graphlet"));
        command
            .args(line.split_whitespace())
            .current_dir(&self.folder)
            .env_clear()
            .env("GRAPHLET_CONFIG_DIR", self.file("config"))
            .env("GRAPHLET_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"))
            .stdin(Stdio::null());
        command
    }

    /// As [`User::command`], for what calls the compiler: with the caller's tools and caches.
    pub fn building(&self, line: &str) -> Command {
        let mut command = self.command(line);
        command.envs(env::vars_os().filter(|(name, _)| {
            !["GRAPHLET_CONFIG_DIR", "SOURCE_DATE_EPOCH"].iter().any(|own| name == own)
        }));
        if env::var_os("GRAPHLET_CACHE_DIR").is_none() {
            command.env_remove("GRAPHLET_CACHE_DIR");
        }
        command.env("GRAPHLET_HOME", root());
        command
    }

    #[track_caller]
    pub fn run(&self, line: &str) -> Run {
        self.run_with(line, &[])
    }

    #[track_caller]
    pub fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Run {
        let mut command = self.command(line);
        command.envs(variables.iter().copied());
        self.finish(command)
    }

    /// Runs a command to its end, and asserts what holds for every run.
    #[track_caller]
    pub fn finish(&self, mut command: Command) -> Run {
        let shown = format!("{command:?}");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = gather(child.stdout.take().unwrap());
        let stderr = gather(child.stderr.take().unwrap());
        // A server that should have refused its module must not be waited for that long.
        let builds = command.get_envs().any(|(name, _)| name == "GRAPHLET_HOME");
        let patience = if builds { BUILD_TIME } else { SOON };
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if begin.elapsed() > patience {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            thread::sleep(Duration::from_millis(2));
        };
        let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
        let status = status.unwrap_or_else(|| panic!("does not end: {shown}: {stderr}"));
        let code = status.code().unwrap_or_else(|| panic!("killed by a signal: {shown}: {stderr}"));
        let run = Run { code, stdout, stderr };
        assert_ne!(code, 101, "panicked: {shown}: {}", run.stderr);
        for seed in self.seeds() {
            assert!(!run.stdout.contains(&seed), "seed on stdout: {shown}");
            assert!(!run.stderr.contains(&seed), "seed on stderr: {shown}");
        }
        run
    }

    /// Runs a line that must be carried out, and gives its stdout.
    #[track_caller]
    pub fn done(&self, line: &str) -> String {
        let run = self.run(line);
        assert_eq!(run.code, 0, "{line}: {}", run.stderr);
        run.stdout.trim_end().to_owned()
    }

    /// Runs a line that must be refused with this exit code and these words on stderr.
    #[track_caller]
    pub fn refused(&self, line: &str, code: i32, words: &[&str]) -> String {
        self.refuses(self.command(line), code, words)
    }

    /// As [`User::refused`], for any command.
    #[track_caller]
    pub fn refuses(&self, command: Command, code: i32, words: &[&str]) -> String {
        let shown = format!("{command:?}");
        let run = self.finish(command);
        assert_eq!(run.code, code, "{shown}: {}{}", run.stdout, run.stderr);
        assert_eq!(run.stdout, "", "{shown}");
        for word in words {
            assert!(run.stderr.contains(word), "{shown}: {word:?} is not in {}", run.stderr);
        }
        run.stderr
    }

    pub fn seeds(&self) -> Vec<String> {
        let mut seeds = Vec::new();
        for folder in ["config/keys", "config/keys/actors"] {
            for entry in fs::read_dir(self.file(folder)).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    seeds.push(fs::read_to_string(path).unwrap().trim().to_owned());
                }
            }
        }
        seeds
    }

    #[track_caller]
    pub fn inspect(&self, name: &str) -> Value {
        serde_json::from_str(&self.done(&format!("inspect {name} --json"))).unwrap()
    }
}

fn gather(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}
