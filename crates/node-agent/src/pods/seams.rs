//! What the life of a pod needs of the world, as traits: processes, modules, the cluster, probes
//! and the time. The real ones join [`crate::runtime`], [`registry`] and [`crate::identity`];
//! tests put fakes here and let time run as they like.

use std::{
    collections::BTreeSet,
    fmt,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Event, Pod, Secret},
    jiff::Timestamp,
};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::runtime::{
    Container, ContainerId, ContainerSpec, ModuleKind, PodAddress, PodRef, StartError, Usage,
};

/// A future behind a pointer, so that the traits can be objects.
pub(crate) type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why something of another room failed, where only the text matters here.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A pod as the API server sent it.
#[derive(Debug, Clone)]
pub(crate) struct PodObject {
    /// What our types know of it.
    pub pod: Pod,
    /// Its `spec` as it came, with the fields of newer servers.
    pub spec: Value,
}

impl PodObject {
    /// The object's version. A number since Kubernetes began, and comparable by promise since 1.35.
    pub(crate) fn version(&self) -> Option<u64> {
        self.pod.metadata.resource_version.as_deref()?.parse().ok()
    }
}

/// The processes of pods.
pub(crate) trait Containers: Send + Sync {
    /// Running and exited, until removed.
    fn containers(&self) -> Vec<Container>;
    /// The pod's address; the same answer for the same uid.
    fn address<'a>(&'a self, pod: &'a PodRef) -> Later<'a, Result<PodAddress, Cause>>;
    /// Gives the address back.
    fn release_address<'a>(&'a self, pod: &'a PodRef) -> Later<'a, ()>;
    /// Starts a run.
    fn start(&self, spec: ContainerSpec) -> Later<'_, Result<Container, StartError>>;
    /// Keep accepting, and close each connection after its answer.
    fn drain<'a>(&'a self, id: &'a ContainerId) -> Later<'a, ()>;
    /// SIGTERM, then SIGKILL after `grace`.
    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> Later<'a, ()>;
    /// SIGKILL.
    fn kill<'a>(&'a self, id: &'a ContainerId) -> Later<'a, ()>;
    /// Forgets an ended run; its log stays.
    fn remove<'a>(&'a self, id: &'a ContainerId) -> Later<'a, ()>;
    /// Forgets everything of a pod.
    fn remove_pod<'a>(&'a self, pod: &'a PodRef) -> Later<'a, ()>;
    /// Forgets everything of pods that are not among `uids`, and ends what runs of them.
    fn retain_pods(&self, uids: BTreeSet<String>) -> Later<'_, ()>;
    /// What a container uses now.
    fn usage(&self, id: &ContainerId) -> Option<Usage>;
    /// Where files of a volume belong.
    fn volume_dir(&self, pod: &PodRef, name: &str) -> PathBuf;
}

/// What to fetch.
#[derive(Debug, Clone)]
pub(crate) struct ImageRequest {
    /// The container's `image`.
    pub reference: String,
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// Docker configurations, the contents of pull secrets, in order.
    pub credentials: Vec<DockerConfig>,
    /// Who may have signed it.
    pub trust: claims::Policy,
}

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    /// Ask the registry each time.
    Always,
    /// Ask unless the module is here.
    IfNotPresent,
    /// Never ask.
    Never,
}

/// The contents of a pull secret.
#[derive(Clone)]
pub(crate) enum DockerConfig {
    /// `.dockerconfigjson`.
    Json(Vec<u8>),
    /// `.dockercfg`.
    Legacy(Vec<u8>),
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("DockerConfig(..)")
    }
}

/// A verified module on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// The file.
    pub path: PathBuf,
    /// `sha256:…` of the file.
    pub digest: String,
    /// `<repository>@<manifest digest>`.
    pub image_id: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// Actor or command.
    pub kind: ModuleKind,
    /// Whether it was here already.
    pub was_present: bool,
}

/// Why a module cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageError {
    /// The reference cannot be read.
    #[error("couldn't parse image name: {0}")]
    InvalidName(String),
    /// It is not here and may not be fetched.
    #[error("the module is not on this node and imagePullPolicy is Never")]
    NeverPull,
    /// The registry did not give it.
    #[error("{0}")]
    Pull(String),
    /// It was fetched, and its claims do not hold here.
    #[error("{0}")]
    Untrusted(String),
    /// It was fetched, and is nothing that runs here.
    #[error("{0}")]
    Unusable(String),
}

/// Tells that a registry is asked.
pub(crate) type Asking = Box<dyn Fn() + Send + Sync>;

/// The modules on this node, and how new ones come.
pub(crate) trait Images: Send + Sync {
    /// Fetches, verifies and classifies a module. `asking` is called when the registry has to be
    /// asked, perhaps more than once.
    fn fetch(&self, request: ImageRequest, asking: Asking) -> Later<'_, Result<Image, ImageError>>;
    /// The image's id of a module in the cache whose file has this digest.
    fn image_id<'a>(&'a self, reference: &'a str, digest: &'a str) -> Later<'a, Option<String>>;
    /// Drops modules that none of `digests` names, oldest use first, down to `budget` bytes.
    fn collect_garbage(&self, digests: Vec<String>, budget: u64) -> Later<'_, ()>;
}

/// Why the API server did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClusterError {
    /// There is no such object.
    #[error("not found")]
    NotFound,
    /// It is another object of the same name by now.
    #[error("the object is another one by now")]
    Replaced,
    /// Nothing can be added to the namespace any more: it is being deleted.
    #[error("the namespace is being deleted")]
    NamespaceEnds,
    /// The server understood and refuses: the same request will fail again.
    #[error("{0}")]
    Refused(String),
    /// Try again.
    #[error("{0}")]
    Unreachable(String),
}

/// News of the pods bound to this node.
#[derive(Debug, Clone)]
pub(crate) enum PodNews {
    /// Everything there is, after a start or an error.
    All(Vec<PodObject>),
    /// New or changed.
    Changed(Box<PodObject>),
    /// Gone from the API.
    Gone {
        /// Its uid.
        uid: String,
    },
}

/// The API server.
pub(crate) trait Cluster: Send + Sync {
    /// News without end, over errors and new certificates.
    fn watch(&self) -> mpsc::Receiver<PodNews>;
    /// One PATCH of the status (strategic merge). Returns the object's version after it, where
    /// that is a number.
    fn patch_status<'a>(
        &'a self,
        pod: &'a PodRef,
        patch: Value,
    ) -> Later<'a, Result<Option<u64>, ClusterError>>;
    /// DELETE with grace 0, if the uid is still that one.
    fn delete<'a>(&'a self, pod: &'a PodRef) -> Later<'a, Result<(), ClusterError>>;
    /// A ConfigMap.
    fn config_map<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> Later<'a, Result<ConfigMap, ClusterError>>;
    /// A Secret.
    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> Later<'a, Result<Secret, ClusterError>>;
    /// POST of an event.
    fn create_event(&self, event: Event) -> Later<'_, Result<(), ClusterError>>;
    /// PATCH of an event (merge).
    fn patch_event<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        patch: Value,
    ) -> Later<'a, Result<(), ClusterError>>;
}

/// What one probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProbeAction {
    /// GET; 200 to 399 is a success.
    Http {
        /// Where.
        address: SocketAddr,
        /// Path with query.
        path: String,
        /// In order, names may repeat.
        headers: Vec<(String, String)>,
    },
    /// A connection that opens is a success.
    Tcp {
        /// Where.
        address: SocketAddr,
    },
}

/// Carries probes out.
pub(crate) trait Prober: Send + Sync {
    /// One probe; the error is what a person reads in the event.
    fn probe<'a>(
        &'a self,
        action: &'a ProbeAction,
        timeout: Duration,
    ) -> Later<'a, Result<(), String>>;
}

/// The wall clock, for times that people read. Waiting never depends on it.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The system's.
    pub(crate) fn system() -> Self {
        Clock(Arc::new(SystemTime::now))
    }

    /// One that goes with the runtime's (paused) time.
    #[cfg(test)]
    pub(crate) fn of_runtime() -> Self {
        let began = tokio::time::Instant::now();
        let epoch = std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Clock(Arc::new(move || epoch + began.elapsed()))
    }

    /// Now.
    pub(crate) fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// Now, in whole seconds as the API keeps it.
    pub(crate) fn stamp(&self) -> Timestamp {
        whole_seconds(self.now())
    }
}

/// A time as the API keeps it; the epoch when it is out of range.
pub(crate) fn whole_seconds(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time)
        .ok()
        .and_then(|stamp| Timestamp::from_second(stamp.as_second()).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// All of it together; a cheap clone.
#[derive(Clone)]
pub(crate) struct World {
    /// Processes.
    pub containers: Arc<dyn Containers>,
    /// Modules.
    pub images: Arc<dyn Images>,
    /// API server.
    pub cluster: Arc<dyn Cluster>,
    /// Probes.
    pub prober: Arc<dyn Prober>,
    /// Time.
    pub clock: Clock,
}
