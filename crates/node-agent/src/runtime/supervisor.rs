//! The runtime as the rest of the agent sees it: opening and adopting, and everything that can be
//! asked of a container. Starting one stands in [`super::start`], noticing its end in
//! [`super::watch`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustix::process::Signal;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::{
    Cidr, Container, ContainerEvent, ContainerId, ContainerSpec, ContainerState, LogError,
    LogOptions, LogStream, ModuleKind, PodAddress, PodRef, RuntimeConfig, RuntimeError, StartError,
    Usage,
    addresses::{Addresses, Network},
    code::{CodeStore, Places, Program},
    limits::{self, Cgroups},
    logs::{self, Reader},
    netlink,
    process::{Memory, Process},
    run_dir::{RunDir, gone_is_fine},
    watch,
};

/// The node's containers. Clones are the same runtime; dropping the last one leaves the processes
/// running, to be adopted by the next.
#[derive(Clone)]
pub struct Runtime {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) config: RuntimeConfig,
    /// Pods run as users of their own; only root can do that.
    pub(super) is_root: bool,
    pub(super) cgroups: Option<Cgroups>,
    pub(super) code: CodeStore,
    pub(super) events: mpsc::UnboundedSender<ContainerEvent>,
    pub(super) runs: Mutex<HashMap<ContainerId, Run>>,
    addresses: Mutex<Addresses>,
    /// Pods of which a container is being started, and whether they have been removed since.
    pub(super) starting: Mutex<Vec<(String, Arc<AtomicBool>)>>,
}

/// One run of a container.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) container: Container,
    pub(super) dir: RunDir,
    pub(super) process: Process,
}

/// Runs whose logs are kept: the newest, and the one before for `kubectl logs --previous`.
const LOGS_KEPT: usize = 2;

/// How long a process that was killed may take to go: the kernel has to free its memory.
const GONE: Duration = Duration::from_secs(20);

impl Runtime {
    /// Opens the state folder and adopts what runs. Those that ended meanwhile are told as
    /// [`ContainerEvent::Exited`].
    ///
    /// # Errors
    /// [`RuntimeError`] when the state folder or the `graphlet` command cannot be used.
    pub async fn open(
        config: RuntimeConfig,
    ) -> Result<(Self, mpsc::UnboundedReceiver<ContainerEvent>), RuntimeError> {
        let (events, receiver) = mpsc::unbounded_channel();
        let cidr = config.pod_cidr;
        let opened = tokio::task::spawn_blocking(move || Inner::open(config, events)).await;
        let inner = opened.map_err(|error| RuntimeError::State {
            action: "open",
            path: PathBuf::new(),
            source: io::Error::other(error),
        })??;
        let runtime = Self { inner: Arc::new(inner) };
        if let Some(cidr) = cidr {
            runtime.set_pod_cidr(cidr).await?;
        }
        watch::adopt(&runtime.inner)?;
        Ok((runtime, receiver))
    }

    /// Gives pods addresses of this range from now on, and makes it bindable on this machine.
    /// Pods that have an address keep it.
    ///
    /// # Errors
    /// [`RuntimeError::Route`].
    pub async fn set_pod_cidr(&self, cidr: Cidr) -> Result<(), RuntimeError> {
        let route = tokio::task::spawn_blocking(move || netlink::add_local_route(cidr)).await;
        route
            .map_err(io::Error::other)
            .and_then(|added| added)
            .map_err(|source| RuntimeError::Route { cidr, source })?;
        self.inner.addresses().set_network(Network::Pods(cidr));
        info!(%cidr, "Pods get addresses of their own");
        Ok(())
    }

    /// Gives pods the node's own address from now on.
    pub async fn use_node_ip(&self) {
        let ip = self.inner.config.node_ip;
        self.inner.addresses().set_network(Network::Node(ip));
        info!(%ip, "Pods share the node's address");
    }

    /// All containers, running and ended, until they are removed.
    pub fn containers(&self) -> Vec<Container> {
        let mut all: Vec<_> = self.inner.runs().values().map(|run| run.container.clone()).collect();
        all.sort_by_key(|container| container.started_at);
        all
    }

    /// One container.
    pub fn container(&self, id: &ContainerId) -> Option<Container> {
        self.inner.runs().get(id).map(|run| run.container.clone())
    }

    /// The pod's address: the same one for the same pod uid, also after a restart of the agent.
    ///
    /// # Errors
    /// [`RuntimeError`] when there is none.
    pub async fn address(&self, pod: &PodRef) -> Result<PodAddress, RuntimeError> {
        self.inner.addresses().address(&pod.uid, SystemTime::now())
    }

    /// Takes the pod's address back.
    pub async fn release_address(&self, pod: &PodRef) {
        let released = self.inner.addresses().release_address(&pod.uid, SystemTime::now());
        if let Err(error) = released {
            warn!(pod = %pod.name, %error, "Address was not released");
        }
    }

    /// Starts a container: compiles the module if need be, binds its addresses, starts its
    /// process. [`ContainerEvent::Ready`] follows, or [`ContainerEvent::Exited`].
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    ///
    /// Dropping the future does not undo the start: the container is among
    /// [`Runtime::containers`] when it has begun. Removing the pod ends a start under way.
    pub async fn start(&self, spec: ContainerSpec) -> Result<Container, StartError> {
        let runtime = self.clone();
        // On its own, so that whoever gives up waiting leaves no process behind that nobody knows.
        let started = tokio::spawn(async move { runtime.start_to_the_end(spec).await }).await;
        started.map_err(|error| StartError::System {
            what: "starting was interrupted".into(),
            source: io::Error::other(error),
        })?
    }

    async fn start_to_the_end(&self, spec: ContainerSpec) -> Result<Container, StartError> {
        let pod = spec.pod.clone();
        let removed = Arc::new(AtomicBool::new(false));
        self.inner.starting().push((pod.uid.clone(), Arc::clone(&removed)));
        let started = super::start::start(&self.inner, spec).await;
        self.inner.starting().retain(|(_, other)| !Arc::ptr_eq(other, &removed));
        if removed.load(Ordering::SeqCst) {
            self.remove_pod(&pod).await;
            let source = io::ErrorKind::Interrupted.into();
            return Err(StartError::System {
                what: "the pod was removed meanwhile".into(),
                source,
            });
        }
        started
    }

    /// Goes on answering, but closes each connection after its answer. An actor that is not ready
    /// yet has no connections to close.
    pub async fn drain(&self, id: &ContainerId) {
        let Some(run) = self.inner.run(id) else { return };
        let ready = run.container.state == ContainerState::Running;
        // A process that does not listen for this signal yet would end.
        if ready && run.container.spec.kind == ModuleKind::Actor {
            run.process.signal(Signal::USR1);
        }
    }

    /// Asks the process to finish, and kills it after `grace`. Returns at once;
    /// [`ContainerEvent::Exited`] follows.
    pub async fn stop(&self, id: &ContainerId, grace: Duration) {
        let Some(run) = self.inner.run(id) else { return };
        if matches!(run.container.state, ContainerState::Exited(_)) {
            return;
        }
        if grace.is_zero() {
            return self.kill(id).await;
        }
        run.process.signal(Signal::TERM);
        let inner = Arc::downgrade(&self.inner);
        let id = id.clone();
        tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            let Some(inner) = inner.upgrade() else { return };
            if let Some(run) = inner.run(&id)
                && !matches!(run.container.state, ContainerState::Exited(_))
            {
                info!(container = %id.0, "Grace period is over, the process is killed");
                run.process.signal(Signal::KILL);
            }
        });
    }

    /// Kills the process. [`ContainerEvent::Exited`] follows.
    pub async fn kill(&self, id: &ContainerId) {
        if let Some(run) = self.inner.run(id) {
            run.process.signal(Signal::KILL);
        }
    }

    /// Forgets a container, killing it if it runs. Logs of the newest run and the one before stay
    /// while the pod exists.
    pub async fn remove(&self, id: &ContainerId) {
        let Some(run) = self.inner.run(id) else { return };
        if !matches!(run.container.state, ContainerState::Exited(_)) {
            run.process.signal(Signal::KILL);
            let gone =
                async {
                    while self.inner.run(id).is_some_and(|run| {
                        !matches!(run.container.state, ContainerState::Exited(_))
                    }) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
            if tokio::time::timeout(GONE, gone).await.is_err() {
                warn!(container = %id.0, "Process does not go away, its folder stays");
                return;
            }
        }
        self.inner.runs().remove(id);
        if let Some(cgroup) = self.inner.cgroup_of(id) {
            limits::remove(&cgroup);
        }
        let folder = self.inner.log_folder(&run.container.spec.pod, &run.container.spec.container);
        let removed = tokio::task::spawn_blocking(move || {
            logs::prune(&folder, LOGS_KEPT);
            run.dir.remove()
        });
        if let Ok(Err(error)) = removed.await {
            warn!(container = %id.0, %error, "Folder of a container was not removed");
        }
    }

    /// Removes all that there is of a pod: containers, logs, volumes, address.
    pub async fn remove_pod(&self, pod: &PodRef) {
        for (_, removed) in self.inner.starting().iter().filter(|(uid, _)| *uid == pod.uid) {
            removed.store(true, Ordering::SeqCst);
        }
        let ids: Vec<_> = self
            .containers()
            .into_iter()
            .filter(|container| container.spec.pod.uid == pod.uid)
            .map(|container| container.id)
            .collect();
        for id in ids {
            self.remove(&id).await;
        }
        if !is_plain(&pod.uid) {
            return;
        }
        let folders = [self.inner.pod_log_folder(pod), self.inner.volumes().join(&pod.uid)];
        let removed = tokio::task::spawn_blocking(move || {
            folders.iter().try_for_each(|folder| gone_is_fine(fs::remove_dir_all(folder)))
        });
        if let Ok(Err(error)) = removed.await {
            warn!(pod = %pod.name, %error, "Logs or volumes of a pod were not removed");
        }
        let forgotten = self.inner.addresses().forget(&pod.uid, SystemTime::now());
        if let Err(error) = forgotten {
            warn!(pod = %pod.name, %error, "Address of a pod was not released");
        }
    }

    /// Pods of which something is kept here: an address, a user id.
    pub fn known_pod_uids(&self) -> Vec<String> {
        self.inner.addresses().pods()
    }

    /// Removes all that there is of pods that are not among `uids`: what an agent left that ended
    /// before its pods did. To be called once the pods of this node are known.
    pub async fn retain_pods(&self, uids: &BTreeSet<String>) {
        let strangers: BTreeMap<_, _> = self
            .containers()
            .into_iter()
            .map(|container| container.spec.pod)
            .filter(|pod| !uids.contains(&pod.uid))
            .map(|pod| (pod.uid.clone(), pod))
            .collect();
        for pod in strangers.values() {
            self.remove_pod(pod).await;
        }
        let state = self.inner.config.state_dir.clone();
        let known = uids.clone();
        let swept = tokio::task::spawn_blocking(move || {
            // Logs are named after namespace, pod and uid; neither holds an underscore.
            sweep(&state.join("logs"), |name| {
                name.rsplit('_').next().is_some_and(|uid| known.contains(uid))
            })?;
            sweep(&state.join("volumes"), |name| known.contains(name))
        });
        if let Ok(Err(error)) = swept.await {
            warn!(%error, "Logs or volumes of former pods were not removed");
        }
        let now = SystemTime::now();
        for uid in self.known_pod_uids().iter().filter(|uid| !uids.contains(*uid)) {
            if let Err(error) = self.inner.addresses().forget(uid, now) {
                warn!(pod.uid = %uid, %error, "Address of a former pod was not released");
            }
        }
    }

    /// What a container uses now; `None` when it does not run.
    pub fn usage(&self, id: &ContainerId) -> Option<Usage> {
        let run = self.inner.run(id)?;
        if matches!(run.container.state, ContainerState::Exited(_)) {
            return None;
        }
        let memory = Memory::of(run.process.pid).ok()?;
        let cpu = run.process.cpu().ok()?;
        Some(Usage { cpu, working_set_bytes: memory.limited, rss_bytes: memory.resident })
    }

    /// The folder for a volume of the pod. Whoever fills it makes it.
    pub fn volume_dir(&self, pod: &PodRef, name: &str) -> PathBuf {
        // Names of the API are plain; whatever is not stays inside all the same.
        let plain = |name: &str| match is_plain(name) {
            true => name.to_owned(),
            false => name.bytes().map(|byte| format!("{byte:02x}")).collect(),
        };
        self.inner.volumes().join(plain(&pod.uid)).join(plain(name))
    }

    /// A container's log, of its newest run or the one before.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn logs(
        &self,
        pod: &PodRef,
        container: &str,
        options: LogOptions,
    ) -> Result<LogStream, LogError> {
        for name in [&pod.namespace, &pod.name, &pod.uid, container] {
            if !is_plain(name) {
                return Err(LogError::Name(name.to_owned()));
            }
        }
        let folder = self.inner.log_folder(pod, container);
        let follow = options.follow && !options.previous;
        let opened = tokio::task::spawn_blocking(move || {
            let wanted = usize::from(options.previous);
            let attempts = logs::attempts(&folder);
            let Some(attempt) = attempts.get(wanted).copied() else {
                return Ok(Found::Nothing { is_first: !attempts.is_empty() });
            };
            let reader = Reader::open(&logs::path_of(&folder, attempt), &options)?;
            Ok(Found::Log(attempt, reader))
        })
        .await
        .map_err(io::Error::other)
        .and_then(|opened| opened);
        let (name, container) = (pod.name.clone(), container.to_owned());
        let (attempt, reader) = match opened {
            Ok(Found::Log(attempt, reader)) => (attempt, reader),
            Ok(Found::Nothing { is_first: true }) => {
                return Err(LogError::NoPrevious { pod: name, container });
            }
            Ok(Found::Nothing { is_first: false }) => {
                return Err(LogError::NotFound { pod: name, container });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LogError::NotFound { pod: name, container });
            }
            Err(error) => return Err(LogError::Read(error)),
        };
        let inner = Arc::downgrade(&self.inner);
        let uid = pod.uid.clone();
        let ended = move || {
            let Some(inner) = inner.upgrade() else { return true };
            let runs = inner.runs();
            !runs.values().map(|run| &run.container).any(|run| {
                run.spec.pod.uid == uid
                    && run.spec.container == container
                    && run.spec.attempt == attempt
                    && !matches!(run.state, ContainerState::Exited(_))
            })
        };
        Ok(logs::stream(reader, follow, ended))
    }
}

/// Removes the folders in `folder` whose names nobody wants to keep.
fn sweep(folder: &Path, keep: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(&keep) {
            gone_is_fine(fs::remove_dir_all(entry.path()))?;
        }
    }
    Ok(())
}

/// What there is of a log.
enum Found {
    Log(u32, Reader),
    /// Not the one that is wanted; `is_first` when there is the newest run's.
    Nothing {
        is_first: bool,
    },
}

/// Whether a name can be one part of a path.
pub(super) fn is_plain(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= 253 && name.bytes().all(letter) && !name.starts_with('.')
}

impl Inner {
    fn open(
        config: RuntimeConfig,
        events: mpsc::UnboundedSender<ContainerEvent>,
    ) -> Result<Self, RuntimeError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| RuntimeError::State { action, path, source }
        };
        // Shims work elsewhere.
        let mut config = config;
        for path in [&mut config.state_dir, &mut config.shim] {
            *path = std::path::absolute(&path).map_err(failed("resolve", path))?;
        }
        let state = &config.state_dir;
        let make = |path: &Path, mode| {
            let made = DirBuilder::new().recursive(true).mode(mode).create(path);
            made.map_err(failed("create", path))
        };
        make(state, 0o700)?;
        for name in ["runs", "logs", "volumes"] {
            make(&state.join(name), 0o700)?;
        }
        let empty_dir = state.join("empty");
        make(&empty_dir, 0o555)?;
        let program = Program::open(&config.graphlet).map_err(failed("read", &config.graphlet))?;
        let is_root = rustix::process::geteuid().is_root();
        if !is_root {
            warn!("The agent is not root: pods run as its own user");
        }
        // The first user id is the compilers', whose folders and files are nobody's.
        let mut uids = config.uid_range.clone();
        let compiler = uids.next().filter(|_| is_root);
        if uids.is_empty() && is_root {
            return Err(RuntimeError::UidsExhausted);
        }
        let places = Places {
            folder: &state.join("code"),
            work: &state.join("compiling"),
            empty_dir: &empty_dir,
        };
        let shim = config.shim.clone();
        let code = CodeStore::open(&places, program, shim, compiler, config.compilers)?;
        let addresses = Addresses::open(state.join("addresses.json"), uids)?;
        let cgroups = match Cgroups::of_this_process() {
            Ok(cgroups) => Some(cgroups),
            Err(error) => {
                debug!(%error, "No cgroup is delegated");
                info!("Limits are kept by the pods' shims, because no cgroup can be had");
                None
            }
        };
        Ok(Self {
            is_root,
            cgroups,
            code,
            events,
            runs: Mutex::default(),
            addresses: Mutex::new(addresses),
            starting: Mutex::default(),
            config,
        })
    }

    // No code panics under these locks.
    pub(super) fn runs(&self) -> MutexGuard<'_, HashMap<ContainerId, Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn starting(&self) -> MutexGuard<'_, Vec<(String, Arc<AtomicBool>)>> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn run(&self, id: &ContainerId) -> Option<Run> {
        self.runs().get(id).cloned()
    }

    /// The cgroup of a container that was started in one.
    pub(super) fn cgroup_of(&self, id: &ContainerId) -> Option<PathBuf> {
        self.cgroups.as_ref().map(|cgroups| cgroups.path(&id.0))
    }

    pub(super) fn runs_dir(&self) -> PathBuf {
        self.config.state_dir.join("runs")
    }

    pub(super) fn empty_dir(&self) -> PathBuf {
        self.config.state_dir.join("empty")
    }

    pub(super) fn volumes(&self) -> PathBuf {
        self.config.state_dir.join("volumes")
    }

    fn pod_log_folder(&self, pod: &PodRef) -> PathBuf {
        let name = format!("{}_{}_{}", pod.namespace, pod.name, pod.uid);
        self.config.state_dir.join("logs").join(name)
    }

    pub(super) fn log_folder(&self, pod: &PodRef, container: &str) -> PathBuf {
        self.pod_log_folder(pod).join(container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_not_plain() {
        for name in ["digits", "web-0", "a.b", "6f1c_x"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["", ".", "..", "../x", "a/b", "a\0b", ".hidden", "ä", &"x".repeat(254)] {
            assert!(!is_plain(name), "{name:?}");
        }
    }
}
