//! A verified module that is a program: WASI preview 1, `_start`, arguments, folders to read, an
//! exit code.

use std::{
    collections::BTreeMap,
    fs::File,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use claims::VerifiedModule;
use engine::{
    CompileError, Engine, EngineError, EngineOptions, Guest, Interruption, Limits, Sandbox, Stop,
    wasmtime::{self, InstancePre, Linker},
};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder, p1::WasiP1Ctx};

use crate::limits;

/// What a program is given.
#[derive(Debug, Clone)]
pub struct CommandOptions {
    /// Its arguments; the first is its own name.
    pub args: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Folders that it may read, and under which names it knows them.
    pub folders: Vec<(PathBuf, String)>,
    /// Linear memory, bytes.
    pub memory_bytes: usize,
    /// Code that [`precompile`] made in another process.
    pub code: Option<Arc<File>>,
}

impl Default for CommandOptions {
    fn default() -> Self {
        Self {
            args: Vec::new(),
            env: BTreeMap::new(),
            folders: Vec::new(),
            memory_bytes: limits::MEMORY_BYTES,
            code: None,
        }
    }
}

/// A program could not be run, or did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no engine on this machine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The module is malformed or uses what guests may not use.
    #[error(transparent)]
    Module(#[from] CompileError),
    /// It imports something else than WASI preview 1, or has no `_start`.
    #[error("the module is no WASI command")]
    Link(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A folder that it was to read is not there.
    #[error("the folder `{guest}` cannot be opened")]
    Folder {
        /// Its name in the guest.
        guest: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It needs more memory than it may have.
    #[error("the program ran out of memory")]
    OutOfMemory,
    /// It trapped.
    #[error("the program was ended: {0}")]
    Stopped(String),
}

/// A program with all that it was given, ready to begin.
pub struct Command {
    engine: Engine,
    pre: InstancePre<Guest<WasiP1Ctx>>,
    wasi: WasiP1Ctx,
    limits: Limits,
}

/// Compiles a program for a process that is handed the code ([`CommandOptions::code`]).
///
/// # Errors
/// [`CommandError`] when the module is malformed or uses what guests may not use.
pub fn precompile(module: &VerifiedModule) -> Result<Vec<u8>, CommandError> {
    Ok(engine(None)?.precompile(module.bytes(), module.code_hash().as_bytes())?)
}

/// A program runs as long as it likes: who started it stops the process.
fn engine(code: Option<Arc<File>>) -> Result<Engine, EngineError> {
    let interruption = Some(Interruption::Never);
    Engine::new(&EngineOptions { interruption, code, ..EngineOptions::default() })
}

impl Command {
    /// Compiles the program and opens its folders. It sees this process's standard output and
    /// error, nothing on standard input, no network, and no variable of this process.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn new(module: &VerifiedModule, options: &CommandOptions) -> Result<Self, CommandError> {
        let engine = engine(options.code.clone())?;
        let compiled = engine.compile(module.bytes(), module.code_hash().as_bytes())?;
        let link = |error: wasmtime::Error| CommandError::Link(error.into());
        let mut linker = Linker::<Guest<WasiP1Ctx>>::new(engine.wasmtime());
        wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |guest| &mut guest.data)
            .map_err(link)?;
        let pre = linker.instantiate_pre(&compiled.module).map_err(link)?;
        if compiled.module.get_export(START).is_none() {
            return Err(CommandError::Link("it does not export `_start`".into()));
        }
        let mut wasi = WasiCtxBuilder::new();
        wasi.inherit_stdout().inherit_stderr().args(&options.args);
        for (name, value) in &options.env {
            wasi.env(name, value);
        }
        for (host, guest) in &options.folders {
            wasi.preopened_dir(host, guest, FsPerms::ReadOnly).map_err(|error| {
                CommandError::Folder { guest: guest.clone(), source: error.into() }
            })?;
        }
        let limits =
            Limits { memory_bytes: options.memory_bytes, table_elements: limits::TABLE_ELEMENTS };
        Ok(Self { engine, pre, wasi: wasi.build_p1(), limits })
    }

    /// Runs the program on the caller's thread, which needs 2 MiB of stack and must not be one of
    /// an asynchronous runtime's own; gives its exit code. Where the caller has entered a
    /// multi-threaded tokio runtime with I/O and time, that one is used.
    ///
    /// # Errors
    /// [`CommandError::OutOfMemory`], or [`CommandError::Stopped`] when it trapped.
    pub fn run(self) -> Result<i32, CommandError> {
        // Nothing looks at it: the engine does not interrupt.
        let never = Instant::now() + FOREVER;
        let ended = |stop: Stop| match stop {
            Stop::OutOfMemory => CommandError::OutOfMemory,
            Stop::Host(error) => CommandError::Stopped(format!("{error:#}")),
            stop => CommandError::Stopped(stop.explanation()),
        };
        let mut sandbox =
            Sandbox::new(&self.engine, &self.pre, self.limits, self.wasi, never).map_err(ended)?;
        let result = sandbox.enter(never, |mut store, instance| {
            instance.get_typed_func::<(), ()>(&mut store, START)?.call(store, ())
        });
        match result {
            Ok(()) => Ok(0),
            Err(Stop::Host(error)) => match error.downcast_ref::<I32Exit>() {
                Some(exit) => Ok(exit.0),
                None => Err(ended(Stop::Host(error))),
            },
            Err(stop) => Err(ended(stop)),
        }
    }
}

const START: &str = "_start";

const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use claims::Policy;

    use super::*;

    fn command(text: &str, options: &CommandOptions) -> Result<Command, CommandError> {
        let mut policy = Policy::at(crate::identity::now());
        policy.dangerously_allow_unsigned = true;
        let module = claims::verify(wat::parse_str(text).unwrap(), &policy).unwrap();
        Command::new(&module, options)
    }

    fn run(text: &str) -> Result<i32, CommandError> {
        command(text, &CommandOptions::default())?.run()
    }

    #[test]
    fn a_programs_exit_code_is_told() {
        let exits = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 7))))"#;
        assert_eq!(run(exits).unwrap(), 7);
        let returns = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
        assert_eq!(run(returns).unwrap(), 0);
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for text in [
            r#"(module (memory (export "memory") 1))"#,
            r#"(module (import "wapc" "__console_log" (func (param i32 i32)))
                (memory (export "memory") 1) (func (export "_start")))"#,
        ] {
            assert!(matches!(run(text), Err(CommandError::Link(_))), "{text}");
        }
    }

    #[test]
    fn traps_and_want_of_memory_are_told_apart() {
        let traps = r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#;
        assert!(matches!(run(traps), Err(CommandError::Stopped(_))));
        // 1 GiB, twice what it may have; then, as allocators do, it gives up.
        let hungry = r#"(module (memory (export "memory") 1) (func (export "_start")
            (if (i32.eq (memory.grow (i32.const 16384)) (i32.const -1)) (then unreachable))))"#;
        assert!(matches!(run(hungry), Err(CommandError::OutOfMemory)));
        let large = r#"(module (memory (export "memory") 16384) (func (export "_start")))"#;
        assert!(matches!(run(large), Err(CommandError::OutOfMemory)));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let text = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
        let folders = vec![(PathBuf::from("/no/such/folder"), "/etc/config".to_owned())];
        let error = command(text, &CommandOptions { folders, ..Default::default() }).err().unwrap();
        assert!(error.to_string().contains("/etc/config"), "{error}");
    }
}
