//! Starting one run of a container.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use pod_settings::{Order, Settings, channel};
use tracing::info;

use super::{
    Container, ContainerId, ContainerSpec, ContainerState, ModuleKind, StartError,
    code::not_launched,
    limits::{self, Limits},
    listen::bind_all,
    logs,
    run_dir::{Record, RunDir},
    shim::{self, Plan},
    supervisor::{Inner, Run, is_plain},
    watch,
};

/// Memory of a pod's process beside its instances and the bodies of requests: the program and its
/// threads. Measured: 2.2 MiB at rest with the default model, its activations included.
const PROCESS_BYTES: u64 = 8 << 20;

/// Bodies of requests that may be held at once, as a part of the limit; each is held twice while
/// it is handed to an instance.
const BODIES_PART: u64 = 8;
const LEAST_BODIES_BYTES: u64 = 4 << 20;

/// What one instance should be able to have, when nobody says how many there are to be.
const COMFORTABLE_BYTES: u64 = 64 << 20;

/// The least that an instance is given, one page: a limit below the overhead ends as OOMKilled.
const LEAST_BYTES: u64 = 64 << 10;

/// Threads of a pod's process that compute beside its instances: those that move bytes.
const OTHER_THREADS: u16 = 2;

/// Longest time until a shim has started its process; nothing is loaded in it.
const LAUNCH: Duration = Duration::from_secs(30);

pub(super) async fn start(
    inner: &Arc<Inner>,
    spec: ContainerSpec,
) -> Result<Container, StartError> {
    for name in [&spec.pod.namespace, &spec.pod.name, &spec.pod.uid, &spec.container] {
        if !is_plain(name) {
            let what = format!("`{name}` is no name of a pod or container");
            return Err(StartError::System { what, source: io::ErrorKind::InvalidInput.into() });
        }
    }
    let code = inner.code.get(&spec.module, &spec.digest, spec.kind, &spec.trust).await?;
    let listeners = bind_all(&spec.listen)?;
    let uid = match inner.is_root {
        true => Some(inner.addresses().uid(&spec.pod.uid).map_err(|error| StartError::System {
            what: "no user id for the pod".into(),
            source: io::Error::other(error),
        })?),
        false => None,
    };
    let id = new_id().map_err(system("no entropy for a container's name"))?;
    let starting = Starting { inner: Arc::clone(inner), id, spec, uid };
    let launched = tokio::task::spawn_blocking(move || starting.launch(code, listeners)).await;
    let (run, child) = launched.map_err(|error| StartError::System {
        what: "starting was interrupted".into(),
        source: io::Error::other(error),
    })??;
    let container = run.container.clone();
    info!(
        pod = %container.spec.pod.name,
        container = %container.id.0,
        pid = container.pid,
        attempt = container.spec.attempt,
        "Container started"
    );
    inner.runs().insert(container.id.clone(), run);
    watch::begin(inner, container.id.clone(), Some(child)).map_err(system("cannot be watched"))?;
    Ok(container)
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what: what.into(), source }
}

fn new_id() -> io::Result<ContainerId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(ContainerId(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
}

struct Starting {
    inner: Arc<Inner>,
    id: ContainerId,
    spec: ContainerSpec,
    uid: Option<u32>,
}

impl Starting {
    fn launch(
        self,
        code: File,
        listeners: Vec<OwnedFd>,
    ) -> Result<(Run, std::process::Child), StartError> {
        let (dir, lock) = RunDir::create(self.inner.runs_dir().join(&self.id.0))
            .map_err(system("the run's folder cannot be made"))?;
        let launched = self.launch_in(&dir, lock, code, listeners);
        if launched.is_err() {
            if let Some(cgroup) = self.inner.cgroup_of(&self.id) {
                limits::remove(&cgroup);
            }
            // An earlier failure is being told; what is left is found at the next start.
            let _ = dir.remove();
        }
        launched
    }

    fn launch_in(
        &self,
        dir: &RunDir,
        lock: File,
        code: File,
        listeners: Vec<OwnedFd>,
    ) -> Result<(Run, std::process::Child), StartError> {
        let (inner, spec) = (&self.inner, &self.spec);
        let started_at = SystemTime::now();
        let record = Record { id: self.id.clone(), spec: spec.clone(), started_at };
        dir.write_record(&record).map_err(system("the run cannot be recorded"))?;
        let module = File::open(&spec.module).map_err(system("the module cannot be opened"))?;
        let mut folders = Vec::new();
        for mount in &spec.mounts {
            if let Some(uid) = self.uid {
                let _ = let_group_read(&mount.host, uid, 0);
            }
            let folder = File::open(&mount.host).map_err(|source| StartError::System {
                what: format!("the volume at `{}` cannot be opened", mount.guest),
                source,
            })?;
            folders.push(folder);
        }
        let shares = Shares::of(spec);
        let mut limits = Limits {
            memory_bytes: spec.memory_bytes,
            cpu_millis: spec.cpu_millis,
            parallelism: Some(shares.instances.saturating_add(OTHER_THREADS)),
            cgroup: None,
        };
        if let Some(cgroups) = &inner.cgroups {
            let cgroup = cgroups.create(&self.id.0, &limits);
            limits.cgroup = Some(cgroup.map_err(system("the pod's cgroup cannot be made"))?);
        }
        let settings = Settings {
            kind: spec.kind,
            trust: spec.trust.clone(),
            has_code: true,
            listeners: listeners.len(),
            mounts: spec.mounts.iter().map(|mount| mount.guest.clone()).collect(),
            env: spec.env.clone(),
            args: spec.args.clone(),
            instances: shares.instances,
            isolated_requests: spec.isolated_requests,
            instance_memory_bytes: shares.instance_bytes,
            buffered_body_bytes: shares.bodies_bytes,
        };
        let log = inner.log_folder(&spec.pod, &spec.container);
        let plan = Plan {
            run_dir: dir.path().to_owned(),
            log: logs::path_of(&log, spec.attempt),
            empty_dir: inner.empty_dir(),
            uid: self.uid,
            limits,
            timeout: None,
        };
        let mut child = {
            let (ours, theirs) = channel::pair().map_err(system("no socket for the pod"))?;
            let mut descriptors = vec![module.as_fd(), code.as_fd()];
            descriptors.extend(listeners.iter().map(|socket| socket.as_fd()));
            descriptors.extend(folders.iter().map(|folder| folder.as_fd()));
            let order = Order::Run(Box::new(settings));
            channel::send(&ours, &order, &descriptors).map_err(not_launched)?;
            let program = inner.code.program();
            let descriptors = [program, &theirs, &ours, &OwnedFd::from(lock)];
            shim::launch(&inner.config.shim, &plan, descriptors).map_err(not_launched)?
        };
        let processes = wait_for_processes(dir, &mut child)?;
        // A command runs from its first moment; an actor has to load its model.
        let state = match spec.kind {
            ModuleKind::Actor => ContainerState::Starting,
            ModuleKind::Command => ContainerState::Running,
        };
        let container = Container {
            id: self.id.clone(),
            spec: spec.clone(),
            pid: processes.pod.pid,
            started_at,
            state,
        };
        Ok((Run { container, dir: dir.clone(), process: processes.pod }, child))
    }
}

/// Waits until the shim has written whom it has started.
fn wait_for_processes(
    dir: &RunDir,
    shim: &mut std::process::Child,
) -> Result<super::run_dir::Processes, StartError> {
    let end = Instant::now() + LAUNCH;
    loop {
        let ended = shim.try_wait().map_err(system("the shim cannot be waited for"))?;
        if let Ok(processes) = dir.processes() {
            return Ok(processes);
        }
        if ended.is_some() || Instant::now() > end {
            // It may hang: then it must not start anything later.
            let _ = shim.kill();
            let _ = shim.wait();
            let message = match dir.exit() {
                Ok(exit) => exit.message,
                Err(_) => shim::complaint(dir.path())
                    .unwrap_or_else(|| "the process's shim did not start it".into()),
            };
            return Err(StartError::System { what: message, source: io::Error::other("shim") });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How the memory of a pod is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shares {
    instances: u16,
    /// What the engine may give each instance.
    instance_bytes: Option<u64>,
    /// Bodies of requests that may be held at once.
    bodies_bytes: Option<u64>,
}

impl Shares {
    fn of(spec: &ContainerSpec) -> Self {
        let bodies_bytes = spec.memory_bytes.map(|all| (all / BODIES_PART).max(LEAST_BODIES_BYTES));
        let room = spec.memory_bytes.zip(bodies_bytes).map(|(limit, bodies)| {
            limit.saturating_sub(bodies.saturating_mul(2).saturating_add(PROCESS_BYTES))
        });
        let instances = spec.instances.unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
            // More instances than cores only wait for each other.
            let by_cpu = spec.cpu_millis.map_or(cores, |millis| millis.div_ceil(1000)).min(cores);
            let by_memory = room.map_or(u64::MAX, |room| room / COMFORTABLE_BYTES);
            u16::try_from(by_cpu.min(by_memory)).unwrap_or(u16::MAX)
        });
        let instances = instances.max(1);
        let instance_bytes = room.map(|room| (room / u64::from(instances)).max(LEAST_BYTES));
        Self { instances, instance_bytes, bodies_bytes }
    }
}

/// Lets a pod's group read a volume, whatever its files' modes are; nobody else gains anything.
fn let_group_read(path: &Path, gid: u32, depth: u32) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    // ConfigMaps and Secrets are two folders deep, links included.
    if metadata.is_symlink() || depth > 8 {
        return Ok(());
    }
    std::os::unix::fs::chown(path, None, Some(gid))?;
    let added = if metadata.is_dir() { 0o050 } else { 0o040 };
    let mode = metadata.permissions().mode() | added;
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            let_group_read(&entry?.path(), gid, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(
        instances: Option<u16>,
        memory_mib: Option<u64>,
        cpu_millis: Option<u64>,
    ) -> ContainerSpec {
        ContainerSpec {
            pod: super::super::PodRef { namespace: "n".into(), name: "p".into(), uid: "u".into() },
            container: "c".into(),
            attempt: 0,
            module: "/m".into(),
            digest: "sha256:0".into(),
            trust: Default::default(),
            kind: ModuleKind::Actor,
            env: Default::default(),
            args: Vec::new(),
            mounts: Vec::new(),
            listen: Vec::new(),
            instances,
            isolated_requests: false,
            memory_bytes: memory_mib.map(|mib| mib << 20),
            cpu_millis,
        }
    }

    #[test]
    fn instances_share_what_the_limit_leaves() {
        let asked = |instances, memory, cpu| {
            let shares = Shares::of(&spec(instances, memory, cpu));
            let mib = |bytes: u64| bytes >> 20;
            (shares.instances, shares.instance_bytes.map(mib), shares.bodies_bytes.map(mib))
        };
        assert_eq!(asked(Some(4), None, None), (4, None, None));
        assert_eq!(asked(Some(2), Some(96), None), (2, Some(32), Some(12)));
        assert_eq!(asked(Some(0), Some(96), None), (1, Some(64), Some(12)));
        assert_eq!(asked(None, Some(96), Some(8000)), (1, Some(64), Some(12)));
        assert_eq!(asked(None, None, Some(200)), (1, None, None));
        assert_eq!(asked(Some(1), Some(32), None), (1, Some(16), Some(4)));
        let least = Shares::of(&spec(Some(1), Some(1), None));
        assert_eq!(least.instance_bytes, Some(LEAST_BYTES));
    }

    #[test]
    fn a_pods_group_may_read_its_volumes_and_nobody_else_gains() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("..data/key");
        fs::create_dir(folder.path().join("..data")).unwrap();
        fs::write(&secret, "x").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o400)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("..data/key", folder.path().join("key")).unwrap();
        let own = rustix::process::getegid().as_raw();
        let_group_read(folder.path(), own, 0).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&secret), mode(folder.path())), (0o440, 0o750));
    }
}
