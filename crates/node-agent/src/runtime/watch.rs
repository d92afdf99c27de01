//! Noticing that containers become ready and end, and finding those of an earlier agent again.

use std::{
    io,
    os::fd::OwnedFd,
    process::Child,
    sync::{Arc, Weak},
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, waitpid};
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};

use super::{
    Container, ContainerEvent, ContainerId, ContainerState, Exit, ModuleKind, RuntimeError,
    descriptor::register,
    run_dir::{Processes, Record, RunDir},
    shim,
    supervisor::{Inner, Run},
};

// Between two looks for the sign of readiness, while there is none.
const LOOK: Duration = Duration::from_millis(20);

// A shim that holds its lock writes what it has started within that time.
const WRITTEN: Duration = Duration::from_secs(5);

/// Watches a run to its end.
pub(super) fn begin(inner: &Arc<Inner>, id: ContainerId, child: Option<Child>) -> io::Result<()> {
    let run = inner.run(&id).ok_or(io::ErrorKind::NotFound)?;
    let shim = match &child {
        Some(child) => pid(child.id()).and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?)),
        None => run.dir.processes().and_then(|processes| {
            processes.shim.open().ok_or_else(|| io::ErrorKind::NotFound.into())
        }),
    };
    // One that has ended already is told at once.
    let shim = shim.ok().map(register).transpose()?;
    let pid = match &child {
        Some(child) => Some(child.id()),
        None => run.dir.processes().ok().map(|processes| processes.shim.pid),
    };
    tokio::spawn(watch(Arc::downgrade(inner), run, shim, pid));
    Ok(())
}

fn pid(number: u32) -> io::Result<Pid> {
    let number = i32::try_from(number).ok().and_then(Pid::from_raw);
    number.ok_or_else(|| io::ErrorKind::NotFound.into())
}

async fn watch(
    inner: Weak<Inner>,
    run: Run,
    shim: Option<AsyncFd<OwnedFd>>,
    shim_pid: Option<u32>,
) {
    let Container { id, spec, .. } = &run.container;
    let mut starting = run.container.state == ContainerState::Starting;
    let ended = async {
        if let Some(shim) = &shim {
            // A process descriptor is readable when the process has ended.
            let _ = shim.readable().await;
        }
    };
    tokio::pin!(ended);
    loop {
        tokio::select! {
            () = &mut ended => break,
            () = tokio::time::sleep(LOOK), if starting => {
                if run.dir.is_ready() {
                    starting = false;
                    let Some(inner) = inner.upgrade() else { continue };
                    inner.ready(id);
                }
            }
        }
    }
    if let Some(pid) = shim_pid.and_then(|number| pid(number).ok()) {
        // It is this process's child, unless an earlier agent started it: then it is init's.
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
    let Some(inner) = inner.upgrade() else { return };
    if starting && run.dir.is_ready() && spec.kind == ModuleKind::Actor {
        inner.ready(id);
    }
    let exit = run.dir.exit().unwrap_or_else(|_| without_shim(&run.dir));
    inner.ended(&run, exit);
}

/// The end of a run whose shim did not live to see it; the kernel has ended the process with it.
fn without_shim(dir: &RunDir) -> Exit {
    if let Ok(processes) = dir.processes() {
        processes.pod.signal(Signal::KILL);
    }
    let exit = Exit {
        code: shim::KILLED,
        reason: "Error".into(),
        message: "the process and its shim were killed".into(),
        finished_at: SystemTime::now(),
    };
    if let Err(error) = dir.write_exit(&exit) {
        warn!(%error, "End of a container was not recorded");
    }
    exit
}

impl Inner {
    fn ready(&self, id: &ContainerId) {
        if let Some(run) = self.runs().get_mut(id) {
            run.container.state = ContainerState::Running;
        }
        // Nobody listens when the agent is about to end.
        let _ = self.events.send(ContainerEvent::Ready(id.clone()));
    }

    fn ended(&self, run: &Run, exit: Exit) {
        let id = &run.container.id;
        info!(
            pod = %run.container.spec.pod.name,
            container = %id.0,
            code = exit.code,
            reason = %exit.reason,
            "Container ended"
        );
        if let Some(run) = self.runs().get_mut(id) {
            run.container.state = ContainerState::Exited(exit.clone());
        }
        if let Some(cgroup) = self.cgroup_of(id) {
            super::limits::remove(&cgroup);
        }
        let told = self.events.send(ContainerEvent::Exited(id.clone(), exit)).is_ok();
        if told && let Err(error) = run.dir.set_told() {
            warn!(%error, "End of a container was not marked as told");
        }
    }
}

/// Finds the runs of an earlier agent.
pub(super) fn adopt(inner: &Arc<Inner>) -> Result<(), RuntimeError> {
    let folder = inner.runs_dir();
    let failed = |source| RuntimeError::State { action: "read", path: folder.clone(), source };
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let dir = RunDir::at(entry.map_err(failed)?.path());
        let Ok(record) = dir.record() else {
            // An agent that was killed before it had started anything.
            if !dir.is_locked() {
                let _ = dir.remove();
            }
            continue;
        };
        adopt_one(inner, dir, record).map_err(failed)?;
    }
    Ok(())
}

fn adopt_one(inner: &Arc<Inner>, dir: RunDir, record: Record) -> io::Result<()> {
    let processes = processes(&dir);
    let Some(processes) = processes else {
        // Nothing was started, and nothing will be.
        let _ = dir.remove();
        return Ok(());
    };
    let runs_on = dir.exit().is_err() && dir.is_locked();
    let mut exit = dir.exit().ok();
    if runs_on && !inner.config.adopt {
        processes.pod.signal(Signal::KILL);
    } else if !runs_on && exit.is_none() {
        exit = Some(without_shim(&dir));
    }
    let state = match &exit {
        Some(exit) => ContainerState::Exited(exit.clone()),
        None if dir.is_ready() || record.spec.kind == ModuleKind::Command => {
            ContainerState::Running
        }
        None => ContainerState::Starting,
    };
    let id = record.id.clone();
    info!(
        pod = %record.spec.pod.name,
        container = %id.0,
        pid = processes.pod.pid,
        running = exit.is_none(),
        "Container of an earlier agent found"
    );
    let container = Container {
        id: id.clone(),
        spec: record.spec,
        pid: processes.pod.pid,
        started_at: record.started_at,
        state,
    };
    let told = dir.is_told();
    let run = Run { container, dir, process: processes.pod };
    inner.runs().insert(id.clone(), run.clone());
    match exit {
        Some(exit) if !told => inner.ended(&run, exit),
        Some(_) => {}
        None => begin(inner, id, None)?,
    }
    Ok(())
}

/// Who runs it; waits for a shim that has begun and not written it yet.
fn processes(dir: &RunDir) -> Option<Processes> {
    let end = Instant::now() + WRITTEN;
    loop {
        let locked = dir.is_locked();
        if let Ok(processes) = dir.processes() {
            return Some(processes);
        }
        if !locked || Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
