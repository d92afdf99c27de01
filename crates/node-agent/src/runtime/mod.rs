//! Pods as processes: started under a shim, limited, watched, adopted again after a restart of
//! the agent, and stopped. Nothing here knows Kubernetes; [`crate::pods`] decides, this does.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

mod addresses;
mod code;
mod config;
mod descriptor;
mod limits;
mod listen;
mod log_writer;
mod logs;
mod netlink;
mod process;
mod run_dir;
pub mod shim;
mod start;
mod supervisor;
mod watch;

pub use pod_settings::{ModuleKind, Trust};

pub use self::{
    config::{Cidr, CidrError, RuntimeConfig, RuntimeError},
    logs::{LogError, LogOptions, LogStream},
    supervisor::Runtime,
};

/// Names one run of one container: stable over restarts of the agent, new for every attempt.
/// Kubernetes shows it as `graphlet://ID`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerId(pub String);

/// Whose container it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Pod uid.
    pub uid: String,
}

/// A folder that a WASI command may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Path inside the guest.
    pub guest: String,
    /// Folder on the host, written by the agent from a ConfigMap or Secret.
    pub host: PathBuf,
}

/// One run of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Whose it is.
    pub pod: PodRef,
    /// Container name.
    pub container: String,
    /// 0 for the first run, then counting: names the log file and the run.
    pub attempt: u32,
    /// The verified module, a file that only root can write.
    pub module: PathBuf,
    /// `sha256:…` of that file.
    pub digest: String,
    /// Whose modules this pod may run; its process verifies the module once more by it.
    #[serde(default)]
    pub trust: Trust,
    /// Actor or command; found by the agent from the module's exports.
    pub kind: ModuleKind,
    /// Environment of the container, expanded: the actor's values, or the command's environment.
    pub env: BTreeMap<String, String>,
    /// Arguments of a command, without the program's name.
    pub args: Vec<String>,
    /// Folders of a command.
    pub mounts: Vec<Mount>,
    /// Addresses on which an actor answers: the pod's IP and port, and host ports.
    pub listen: Vec<SocketAddr>,
    /// Actor instances; `None` for the default.
    pub instances: Option<u16>,
    /// Whether each request to an actor has an instance of its own.
    #[serde(default)]
    pub isolated_requests: bool,
    /// `limits.memory` in bytes.
    pub memory_bytes: Option<u64>,
    /// `limits.cpu` in thousandths of a core.
    pub cpu_millis: Option<u64>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ContainerState {
    /// The process runs; an actor has not finished its warm-up inference yet.
    Starting,
    /// An actor answers (warm-up done), or a command runs.
    Running,
    /// The process ended.
    Exited(Exit),
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// `Completed`, `Error` or `OOMKilled`.
    pub reason: String,
    /// The last line of its log, or why it could not start; for `terminated.message`.
    pub message: String,
    /// When it ended.
    pub finished_at: SystemTime,
}

/// What is known of one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// Its name.
    pub id: ContainerId,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// Its process.
    pub pid: u32,
    /// When that began.
    pub started_at: SystemTime,
    /// Where it is.
    pub state: ContainerState,
}

/// Something happened to a container.
#[derive(Debug, Clone, PartialEq)]
pub enum ContainerEvent {
    /// An actor finished its warm-up.
    Ready(ContainerId),
    /// The process ended.
    Exited(ContainerId, Exit),
}

/// What a container uses now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time since the start.
    pub cpu: Duration,
    /// Anonymous and shared memory, bytes: what the limit counts.
    pub working_set_bytes: u64,
    /// Everything resident, bytes.
    pub rss_bytes: u64,
}

/// A container could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Something else holds the address.
    #[error("{address} is taken by another process")]
    AddressTaken {
        /// The address.
        address: SocketAddr,
    },
    /// The address is not this node's.
    #[error("{address} cannot be bound here")]
    AddressUnavailable {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The module does not compile.
    #[error("the module cannot be compiled: {0}")]
    Compile(String),
    /// The system refused something.
    #[error("{what}")]
    System {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// An address for a pod, and how it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodAddress {
    /// The address.
    pub ip: IpAddr,
    /// True in node-IP mode: the address is the node's own.
    pub shared_with_node: bool,
}
