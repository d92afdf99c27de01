//! The runtime as the rest of the agent sees it.

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

use super::{
    Cidr, Container, ContainerEvent, ContainerId, ContainerSpec, PodAddress, PodRef, RuntimeConfig,
    RuntimeError, StartError, Usage,
};

/// Which part of a log is wanted, as `kubectl logs` asks for it.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Goes on while the container runs.
    pub follow: bool,
    /// Of the run before.
    pub previous: bool,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only so many lines at the end.
    pub tail_lines: Option<u64>,
    /// Only lines from then on.
    pub since: Option<SystemTime>,
    /// Only so many bytes.
    pub limit_bytes: Option<u64>,
}

/// A log cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// There is no log of such a container.
    #[error("container `{container}` of pod `{pod}` has written no log here")]
    NotFound {
        /// Pod.
        pod: String,
        /// Container.
        container: String,
    },
    /// There was no run before.
    #[error("previous terminated container `{container}` in pod `{pod}` not found")]
    NoPrevious {
        /// Pod.
        pod: String,
        /// Container.
        container: String,
    },
    /// A name that could lead out of the folder of logs.
    #[error("`{0}` is no name of a pod or container")]
    Name(String),
    /// The file could not be read.
    #[error("the log cannot be read")]
    Read(#[source] io::Error),
}

/// Lines of a log as they come.
pub struct LogStream(mpsc::Receiver<io::Result<Bytes>>);

impl Stream for LogStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// The node's containers. Clones are the same runtime; dropping the last one leaves the processes
/// running, to be adopted by the next.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    config: RuntimeConfig,
}

impl Runtime {
    /// Opens the state folder and adopts what runs. Those that ended meanwhile are told as
    /// [`ContainerEvent::Exited`].
    ///
    /// # Errors
    /// [`RuntimeError`] when the state folder cannot be used.
    pub async fn open(
        config: RuntimeConfig,
    ) -> Result<(Self, mpsc::UnboundedReceiver<ContainerEvent>), RuntimeError> {
        let (_events, receiver) = mpsc::unbounded_channel();
        Ok((Self { inner: Arc::new(Inner { config }) }, receiver))
    }

    /// Gives pods addresses of this range from now on, and makes it bindable on this machine.
    ///
    /// # Errors
    /// [`RuntimeError::Route`].
    pub async fn set_pod_cidr(&self, _cidr: Cidr) -> Result<(), RuntimeError> {
        Err(RuntimeError::NoPodNetwork)
    }

    /// Gives pods the node's own address from now on.
    pub async fn use_node_ip(&self) {}

    /// All containers, running and ended, until they are removed.
    pub fn containers(&self) -> Vec<Container> {
        Vec::new()
    }

    /// One container.
    pub fn container(&self, _id: &ContainerId) -> Option<Container> {
        None
    }

    /// The pod's address: the same one for the same pod uid, also after a restart of the agent.
    ///
    /// # Errors
    /// [`RuntimeError`] when there is none.
    pub async fn address(&self, _pod: &PodRef) -> Result<PodAddress, RuntimeError> {
        Err(RuntimeError::NoPodNetwork)
    }

    /// Takes the pod's address back.
    pub async fn release_address(&self, _pod: &PodRef) {}

    /// Starts a container: compiles the module if need be, binds its addresses, starts its
    /// process. [`ContainerEvent::Ready`] follows, or [`ContainerEvent::Exited`].
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(&self, spec: ContainerSpec) -> Result<Container, StartError> {
        Err(StartError::Compile(spec.digest))
    }

    /// Goes on answering, but closes each connection after its answer.
    pub async fn drain(&self, _id: &ContainerId) {}

    /// Asks the process to finish, and kills it after `grace`. Returns at once;
    /// [`ContainerEvent::Exited`] follows.
    pub async fn stop(&self, _id: &ContainerId, _grace: Duration) {}

    /// Kills the process. [`ContainerEvent::Exited`] follows.
    pub async fn kill(&self, _id: &ContainerId) {}

    /// Forgets a container, killing it if it runs. Logs of the newest run and the one before stay
    /// while the pod exists.
    pub async fn remove(&self, _id: &ContainerId) {}

    /// Removes all that there is of a pod: containers, logs, volumes, address.
    pub async fn remove_pod(&self, _pod: &PodRef) {}

    /// What a container uses now; `None` when it does not run.
    pub fn usage(&self, _id: &ContainerId) -> Option<Usage> {
        None
    }

    /// The folder for a volume of the pod. Whoever fills it makes it.
    pub fn volume_dir(&self, pod: &PodRef, name: &str) -> PathBuf {
        self.inner.config.state_dir.join("volumes").join(&pod.uid).join(name)
    }

    /// A container's log, of its newest run or the one before.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn logs(
        &self,
        pod: &PodRef,
        container: &str,
        _options: LogOptions,
    ) -> Result<LogStream, LogError> {
        Err(LogError::NotFound { pod: pod.name.clone(), container: container.to_owned() })
    }
}
