//! `graphlet pod`, hidden: the process of a pod, and the one that compiles for pods. The node
//! agent starts both, without privileges and with nothing in the environment; what to do comes
//! over standard input, which is a socket (see the crate `pod-settings`).

mod actor;
mod filter;

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail};
use claims::{Policy, SignedModule, Timestamp, VerifiedModule};
use host::{
    Host,
    command::{self, CommandError, CommandOptions},
};
use pod_settings::{ModuleKind, Order, Report, Settings, Trust, channel};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::{
    files::ModuleFile,
    logs::{self, LogFormat},
};

/// Run the process of a pod (started by the node agent)
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args) -> Result<ExitCode> {
    // A pod without its shim would be nobody's.
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot follow the shim")?;
    if getppid() != parent {
        bail!("the shim is gone");
    }
    // The name of a descriptor is all that the kernel knows of this program otherwise.
    let _ = rustix::thread::set_name(c"graphlet-pod");
    let socket = io::stdin().as_fd().try_clone_to_owned().context("no standard input")?;
    let (order, descriptors) = channel::receive::<Order>(&socket)?;
    let mut descriptors = Descriptors(descriptors.into_iter());
    match order {
        Order::Compile { kind, trust } => compile(kind, &trust, &mut descriptors),
        Order::Run(settings) => {
            let reporter = Reporter { socket: Arc::new(socket) };
            let result = match settings.kind {
                ModuleKind::Actor => actor::run(&settings, &mut descriptors, &reporter),
                ModuleKind::Command => run_command(&settings, &mut descriptors, &reporter),
            };
            if let Err(error) = &result {
                reporter.send(&Report::Failed(format!("{error:#}")));
            }
            result
        }
    }
}

/// Exit code of a process that was killed, or ended itself, for want of memory.
const OUT_OF_MEMORY: u8 = 137;

/// Exit code of a program that trapped: what a shell shows for an abort.
const TRAPPED: u8 = 134;

/// Tells the shim how it goes.
struct Reporter {
    socket: Arc<OwnedFd>,
}

impl Reporter {
    fn send(&self, report: &Report) {
        // Without a shim this process is about to end.
        if let Err(error) = channel::send_line(&self.socket, report) {
            tracing::debug!(%error, "Nobody listens to reports");
        }
    }
}

/// What came with the order, in its order.
struct Descriptors(std::vec::IntoIter<OwnedFd>);

impl Descriptors {
    fn next(&mut self) -> Result<OwnedFd> {
        self.0.next().context("the order names more descriptors than came with it")
    }

    /// Opens the module, whose tokens satisfy the policy that came with it; its bytes are not
    /// hashed yet.
    fn signed(&mut self, trust: &Trust) -> Result<SignedModule> {
        let file = File::from(self.next()?);
        let file = ModuleFile::of(file).context("cannot read the module")?;
        let file = file.context("the module is no file")?;
        claims::open(file, &policy(trust)?).context("the module is refused")
    }

    /// Reads the module and verifies it by the policy that came with it.
    fn module(&mut self, trust: &Trust) -> Result<VerifiedModule> {
        self.signed(trust)?.verified().context("the module is refused")
    }
}

/// The policy that the agent decided on, as of now.
fn policy(trust: &Trust) -> Result<Policy> {
    let issuers = trust.issuers.iter().map(|key| key.parse());
    let revoked = trust.revoked_subjects.iter().map(|key| key.parse());
    let revisions = trust.minimum_revisions.iter().map(|(key, least)| Ok((key.parse()?, *least)));
    Ok(Policy {
        trusted_issuers: issuers.collect::<Result<_, _>>().context("a trusted issuer")?,
        require_exp: trust.require_expiry,
        revoked_subjects: revoked.collect::<Result<_, _>>().context("a revoked actor")?,
        revoked_tokens: trust.revoked_tokens.clone(),
        minimum_revisions: revisions
            .collect::<Result<_, claims::KeyError>>()
            .context("a minimum revision")?,
        allowed_capabilities: trust.allowed_capabilities.clone(),
        ..Policy::at(Timestamp::from(SystemTime::now()))
    })
}

/// Compiles a module; the code goes to the second descriptor, errors to standard error.
fn compile(kind: ModuleKind, trust: &Trust, descriptors: &mut Descriptors) -> Result<ExitCode> {
    let module = descriptors.module(trust)?;
    let mut output = File::from(descriptors.next()?);
    filter::apply(filter::Files::None)?;
    let code = match kind {
        ModuleKind::Actor => Host::builder().build()?.precompile(&module)?,
        ModuleKind::Command => command::precompile(&module)?,
    };
    output.write_all(&code).context("the compiled code cannot be handed over")?;
    Ok(ExitCode::SUCCESS)
}

fn run_command(
    settings: &Settings,
    descriptors: &mut Descriptors,
    reporter: &Reporter,
) -> Result<ExitCode> {
    logs::start("warn", LogFormat::Text)?;
    let module = descriptors.module(&settings.trust)?;
    let code = match settings.has_code {
        true => Some(Arc::new(File::from(descriptors.next()?))),
        false => None,
    };
    let mut args = vec![PROGRAM_NAME.to_owned()];
    args.extend(settings.args.iter().cloned());
    let mut options =
        CommandOptions { args, env: settings.env.clone(), code, ..CommandOptions::default() };
    for _ in 0..settings.listeners {
        // A program has no use for them.
        drop(descriptors.next()?);
    }
    let mut folders = Vec::new();
    for guest in &settings.mounts {
        let folder = descriptors.next()?;
        // The folder itself: whatever is above it may be closed to this user.
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        options.folders.push((path, guest.clone()));
        folders.push(folder);
    }
    if let Some(bytes) = settings.instance_memory_bytes {
        let bytes = bytes.saturating_add(module.bytes().len() as u64);
        options.memory_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    let command = command::Command::new(&module, &options)?;
    drop((module, folders, options));
    // WASI's calls are made on this runtime; one that they made themselves would need sockets.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("no threads for the program's calls")?;
    let _entered = runtime.enter();
    filter::apply(filter::Files::Readable)?;
    reporter.send(&Report::Ready);
    match command.run() {
        Ok(code) => Ok(ExitCode::from(exit_code(code))),
        Err(CommandError::OutOfMemory) => {
            reporter.send(&Report::OutOfMemory);
            tell!("error: the program needs more memory than its limit leaves it");
            Ok(ExitCode::from(OUT_OF_MEMORY))
        }
        Err(error) => {
            tell!("error: {error}");
            Ok(ExitCode::from(TRAPPED))
        }
    }
}

// What the program finds as its own name; the module's file has none that means something.
const PROGRAM_NAME: &str = "main.wasm";

/// A process's exit code has eight bits; a failure must not become a success for want of them.
fn exit_code(code: i32) -> u8 {
    match u8::try_from(code & 0xff) {
        Ok(0) if code != 0 => u8::MAX,
        Ok(code) => code,
        Err(_) => u8::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_stays_one_in_eight_bits() {
        for (code, expected) in [(0, 0), (1, 1), (255, 255), (256, 255), (-1, 255), (257, 1)] {
            assert_eq!(exit_code(code), expected, "{code}");
        }
    }

    #[test]
    fn the_agents_trust_becomes_the_policy_and_never_allows_the_unsigned() {
        let issuer = "ACODERUVFFAWZQDSS6SBIACUA5O6SXF7HJ3YTYXBALHZP3P7R4BUO4J2";
        let trust = Trust {
            issuers: [issuer.to_owned()].into(),
            require_expiry: true,
            revoked_tokens: ["T".to_owned()].into(),
            allowed_capabilities: Some(["wascc:logging".to_owned()].into()),
            ..Trust::default()
        };
        let made = policy(&trust).unwrap();
        assert!(made.trusted_issuers.contains(&issuer.parse().unwrap()));
        assert!(made.require_exp && !made.dangerously_allow_unsigned);
        assert!(made.revoked_tokens.contains("T"));
        assert!(made.allowed_capabilities.unwrap().contains("wascc:logging"));
        let wrong = Trust { issuers: ["nobody".to_owned()].into(), ..Trust::default() };
        assert!(policy(&wrong).is_err());
    }
}
