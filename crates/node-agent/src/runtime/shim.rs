//! The process between agent and pod: starts the pod's process without privileges, keeps its log
//! and its limits, and writes on disk how it ended. It outlives the agent; the pod does not
//! outlive it.
//!
//! One thread and no runtime: there is one of these for each pod.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, ExitCode, Stdio},
    time::{Duration, Instant, SystemTime},
};

use pod_settings::{
    Report,
    channel::{self, ChannelError, Lines},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl},
    process::{Resource, Rlimit, Signal, setrlimit, setsid, umask},
    thread::{
        CapabilitySet, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_no_new_privs,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    Exit,
    descriptor::close_others_on_exec,
    limits::{self, Limits, Meter, Verdict},
    log_writer::{LogWriter, MAX_FILE_BYTES, Source},
    process::Process,
    run_dir::{Processes, RunDir},
};

/// What a shim is told, with four descriptors: the `graphlet` command, the two ends of the pod's
/// channel (the pod's first), and the run's lock.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The run's folder.
    pub(crate) run_dir: PathBuf,
    /// The container's log.
    pub(crate) log: PathBuf,
    /// An empty folder, which becomes the pod's own.
    pub(crate) empty_dir: PathBuf,
    /// User and group of the pod; `None` leaves the shim's, which is not root then.
    pub(crate) uid: Option<u32>,
    pub(crate) limits: Limits,
    /// After which the process is killed.
    pub(crate) timeout: Option<Duration>,
}

/// Starts a shim. It holds what `descriptors` are when this returns.
pub(crate) fn launch(
    command: &Path,
    plan: &Plan,
    descriptors: [&OwnedFd; 4],
) -> Result<Child, ChannelError> {
    let (ours, theirs) = channel::pair()?;
    channel::send(&ours, plan, &descriptors.map(AsFd::as_fd))?;
    let errors = File::create(plan.run_dir.join(COMPLAINTS))?;
    let child = Command::new(command)
        .arg("shim")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::from(errors))
        .spawn()?;
    Ok(child)
}

/// What a shim said when it could not write anything else.
pub(crate) fn complaint(run_dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(run_dir.join(COMPLAINTS)).ok()?;
    let line = text.lines().rfind(|line| !line.trim().is_empty())?;
    Some(line.trim_start_matches("error: ").to_owned())
}

const COMPLAINTS: &str = "shim.log";

/// The shim's own `main`; the program's arguments say nothing, all comes over standard input.
pub fn main() -> ExitCode {
    // What is sent to the agent's terminal or group is not meant for pods.
    let _ = setsid();
    let _ = rustix::thread::set_name(c"graphlet-shim");
    let told = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(ChannelError::Io)
        .and_then(channel::receive::<Plan>);
    let (plan, descriptors) = match told {
        Ok(told) => told,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let dir = RunDir::at(&plan.run_dir);
    let exit = match <[OwnedFd; 4]>::try_from(descriptors) {
        Ok(descriptors) => run(&plan, &dir, descriptors),
        Err(_) => Err(io::Error::other("the plan came without its descriptors")),
    };
    let exit = exit.unwrap_or_else(|error| Exit {
        code: CANNOT_START,
        reason: "StartError".into(),
        message: format!("the process could not be started: {error}"),
        finished_at: SystemTime::now(),
    });
    if let Err(error) = dir.write_exit(&exit) {
        eprintln!("error: the exit status could not be written: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What container engines answer when a process cannot be started.
pub(crate) const CANNOT_START: i32 = 128;

fn run(plan: &Plan, dir: &RunDir, descriptors: [OwnedFd; 4]) -> io::Result<Exit> {
    let [command, theirs, ours, _lock] = descriptors;
    let log = LogWriter::open(&plan.log, MAX_FILE_BYTES)?;
    // Its child stays there: it could not enter by itself.
    std::env::set_current_dir(&plan.empty_dir)?;
    // Whoever started the agent may have left it something open.
    close_others_on_exec()?;
    restrict(plan.uid.is_some())?;
    let mut child = start(plan.uid, &command, theirs)?;
    drop(command);
    let pod = Process::of(child.id());
    let ready = pod.and_then(|pod| {
        if let Some(cgroup) = &plan.limits.cgroup {
            limits::enter(cgroup, pod.pid)?;
        }
        let shim = Process::of(std::process::id())?;
        dir.write_processes(&Processes { shim, pod: pod.clone() })?;
        Ok(pod)
    });
    let pod = match ready {
        Ok(pod) => pod,
        // It has ended already, which is told below; or it must not run unknown.
        Err(error) => {
            let _ = child.kill();
            let status = child.wait()?;
            return Err(io::Error::other(format!("{error} ({status})")));
        }
    };
    let streams = Streams::of(&mut child, ours)?;
    let watch = Watch {
        dir,
        pod,
        log,
        meter: Meter::new(&plan.limits, Instant::now()),
        deadline: plan.timeout.map(|timeout| Instant::now() + timeout),
        killed: None,
        failure: None,
    };
    watch.until_it_ends(child, streams, plan.limits.cgroup.as_deref())
}

/// Takes from this process, and so from its child, what neither needs.
fn restrict(is_root: bool) -> io::Result<()> {
    set_no_new_privs(true)?;
    if is_root {
        // A child with another user id has no capabilities, and these could not come back either.
        for (_, capability) in CapabilitySet::all().iter_names() {
            match remove_capability_from_bounding_set(capability) {
                // Capabilities that this kernel does not know.
                Err(rustix::io::Errno::INVAL) => {}
                removed => removed?,
            }
        }
        clear_ambient_capability_set()?;
    }
    let limit = |resource, most| {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit)
    };
    limit(Resource::Core, 0)?;
    // Never above what this process has: only the privileged may raise it.
    let files = rustix::process::getrlimit(Resource::Nofile).maximum;
    limit(Resource::Nofile, files.map_or(MAX_FILES, |files| files.min(MAX_FILES)))?;
    if is_root {
        limit(Resource::Nproc, MAX_THREADS)?;
    }
    umask(Mode::RWXG | Mode::RWXO);
    Ok(())
}

// Connections of an HTTP server (1,024, and those being refused) three times over.
const MAX_FILES: u64 = 4096;

// Instances and their compilers. Counts per user id, and each pod has its own.
const MAX_THREADS: u64 = 2048;

fn start(uid: Option<u32>, program: &OwnedFd, channel: OwnedFd) -> io::Result<Child> {
    // By its descriptor: the folders above the program may be closed to the pod's user.
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command
        .arg0("graphlet")
        .arg("pod")
        .env_clear()
        .process_group(0)
        .stdin(Stdio::from(channel))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(uid) = uid {
        // Root's other groups are dropped with the user.
        command.gid(uid).uid(uid);
    }
    command.spawn()
}

/// What comes from the process.
struct Streams {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    reports: Option<File>,
    lines: Lines,
}

impl Streams {
    fn of(child: &mut Child, reports: OwnedFd) -> io::Result<Self> {
        let streams = Self {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            reports: Some(File::from(reports)),
            lines: Lines::default(),
        };
        for open in streams.open() {
            fcntl_setfl(open, fcntl_getfl(open)? | OFlags::NONBLOCK)?;
        }
        Ok(streams)
    }

    fn open(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let stdout = self.stdout.as_ref().map(AsFd::as_fd);
        let stderr = self.stderr.as_ref().map(AsFd::as_fd);
        let reports = self.reports.as_ref().map(AsFd::as_fd);
        [stdout, stderr, reports].into_iter().flatten()
    }

    /// Waits until there is something to read, the process has ended (which is told), or
    /// `timeout` has passed.
    fn wait(&self, process: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
        let wanted = std::iter::once(process).chain(self.open());
        let mut wanted: Vec<_> =
            wanted.map(|open| PollFd::from_borrowed_fd(open, PollFlags::IN)).collect();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match poll(&mut wanted, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(wanted.first().is_some_and(|process| !process.revents().is_empty()))
    }
}

/// Moves what there is from a stream to the log; a stream that has ended is closed.
fn copy<S: Read>(stream: &mut Option<S>, source: Source, log: &mut LogWriter) {
    let mut buffer = [0; 64 << 10];
    // Not for ever: a flood must not keep the shim from its limits.
    for _ in 0..16 {
        let Some(open) = stream else { return };
        match open.read(&mut buffer) {
            Ok(0) => *stream = None,
            Ok(count) => log.write(source, &buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => *stream = None,
        }
    }
}

struct Watch<'a> {
    dir: &'a RunDir,
    pod: Process,
    log: LogWriter,
    meter: Meter,
    deadline: Option<Instant>,
    /// Why this shim has killed it.
    killed: Option<Killed>,
    /// What it said of its own end.
    failure: Option<Report>,
}

enum Killed {
    Memory(String),
    Timeout,
}

impl Watch<'_> {
    fn until_it_ends(
        mut self,
        mut child: Child,
        mut streams: Streams,
        cgroup: Option<&Path>,
    ) -> io::Result<Exit> {
        if let Some(process) = self.pod.open() {
            loop {
                let timeout = self.keep_limits();
                let ended = streams.wait(process.as_fd(), timeout)?;
                self.take(&mut streams);
                if ended {
                    break;
                }
            }
        }
        let status = child.wait()?;
        // What it wrote last, as far as pipes hold anything.
        self.take(&mut streams);
        let last_line = self.log.finish();
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        let code = code.unwrap_or(CANNOT_START);
        let by_kernel = cgroup.is_some_and(limits::was_out_of_memory);
        let (code, reason, message) = match (self.killed, self.failure) {
            (Some(Killed::Memory(message)), _) => (KILLED, OUT_OF_MEMORY, message),
            (_, Some(Report::OutOfMemory)) => (KILLED, OUT_OF_MEMORY, last_line),
            _ if by_kernel => (KILLED, OUT_OF_MEMORY, last_line),
            (Some(Killed::Timeout), _) => (KILLED, "Error", "it took too long".into()),
            (None, Some(Report::Failed(message))) => {
                (code, "Error", message.chars().take(MAX_MESSAGE_CHARS).collect())
            }
            (None, _) if code == 0 => (code, "Completed", last_line),
            (None, _) => (code, "Error", last_line),
        };
        Ok(Exit { code, reason: reason.into(), message, finished_at: SystemTime::now() })
    }

    /// Looks whether the process keeps its limits, and tells when to look again.
    fn keep_limits(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.kill(Killed::Timeout);
        }
        match self.meter.look(&self.pod, now) {
            Verdict::Fine => {}
            Verdict::Pause => {
                self.pod.signal(Signal::STOP);
            }
            Verdict::Resume => {
                self.pod.signal(Signal::CONT);
            }
            Verdict::TooMuchMemory(used) => self.kill(Killed::Memory(format!(
                "the process holds {} MiB, more than its memory limit",
                used >> 20
            ))),
        }
        let next = self.meter.next(now).into_iter().chain(self.deadline).min()?;
        // A deadline that has passed is waited for no longer than the kernel takes to kill.
        Some(next.saturating_duration_since(now).max(Duration::from_millis(1)))
    }

    fn kill(&mut self, reason: Killed) {
        if self.killed.is_none() {
            self.killed = Some(reason);
        }
        self.pod.signal(Signal::KILL);
    }

    fn take(&mut self, streams: &mut Streams) {
        copy(&mut streams.stdout, Source::Stdout, &mut self.log);
        copy(&mut streams.stderr, Source::Stderr, &mut self.log);
        let Some(from) = &streams.reports else { return };
        for report in streams.lines.read::<Report>(from).unwrap_or_default() {
            match report {
                Report::Ready => {
                    if let Err(error) = self.dir.set_ready() {
                        eprintln!("error: readiness could not be written: {error}");
                    }
                }
                report => self.failure = Some(report),
            }
        }
    }
}

// The API takes 4,096 bytes of a message.
const MAX_MESSAGE_CHARS: usize = 1000;

/// As a shell shows a process that was killed.
pub(crate) const KILLED: i32 = 137;

pub(crate) const OUT_OF_MEMORY: &str = "OOMKilled";
