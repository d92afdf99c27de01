//! The seam between the host and capability providers: what a provider may ask of an actor, and
//! what the host asks of a provider.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// A boxed future that may cross threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who an actor is; from its verified claims (or, for an unsigned module that a loud flag let
/// in, from its digest).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorIdentity {
    /// The claims' name.
    pub name: String,
    /// The subject key (`M…`).
    pub subject: String,
    /// The issuer key (`A…`); `None` for an unsigned module.
    pub issuer: Option<String>,
    /// Of the whole module file.
    pub digest: FileDigest,
    /// Model name and version from the model card, as metrics and the admin port show them.
    pub model: String,
    /// Model version.
    pub version: String,
}

/// `sha256:` and the hex digest of a whole module file. Instances may begin before the file has
/// been hashed; it is known, to all clones, before anyone else sees the actor.
#[derive(Debug, Clone, Default)]
pub struct FileDigest(Arc<OnceLock<String>>);

impl FileDigest {
    /// The text; empty while it is not known.
    pub fn as_str(&self) -> &str {
        self.0.get().map_or("", String::as_str)
    }

    /// Makes it known, once.
    pub(crate) fn set(&self, digest: String) {
        self.0.get_or_init(|| digest);
    }
}

impl<T: Into<String>> From<T> for FileDigest {
    fn from(digest: T) -> Self {
        Self(Arc::new(OnceLock::from(digest.into())))
    }
}

impl fmt::Display for FileDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl PartialEq for FileDigest {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for FileDigest {}

/// Whether an actor can take requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorState {
    /// Compiling or loading the model.
    Starting,
    /// At least one instance has loaded the model.
    Running,
    /// The claims expired or were revoked while it ran: no traffic.
    Refused,
    /// Draining or stopped.
    Stopping,
}

/// A snapshot of an actor for readiness and metrics.
#[derive(Debug, Clone)]
pub struct ActorStatus {
    /// Whether it takes requests.
    pub state: ActorState,
    /// Instances ready for a request.
    pub idle_instances: usize,
    /// Instances in a request.
    pub busy_instances: usize,
    /// Instances being (re)created.
    pub starting_instances: usize,
    /// Requests waiting for an instance.
    pub queue_depth: usize,
    /// Linear memory per instance, bytes.
    pub instance_memory_bytes: Vec<u64>,
    /// Traps since the start, by reason (`deadline`, `out_of_memory`, `unreachable`, …).
    pub traps: BTreeMap<&'static str, u64>,
    /// Seconds until the claims expire; `None` without an expiry.
    pub claims_expire_in: Option<Duration>,
    /// True when the module runs without an accepted signature.
    pub unsigned: bool,
}

/// What an actor answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The guest's response bytes.
    pub body: Vec<u8>,
    /// Phases that the guest marked, in order, with their durations (`decode`, `preprocess`,
    /// `infer`). Empty for a guest that marks none.
    pub phases: Vec<(String, Duration)>,
    /// Time spent waiting for an instance.
    pub queued: Duration,
}

/// Why an actor did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The bounded queue is full.
    #[error("all instances are busy and {waiting} requests wait already")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The deadline passed, in the queue or inside the guest.
    #[error("the call did not finish within its deadline")]
    Deadline,
    /// The guest trapped; the instance was thrown away.
    #[error("the actor trapped: {reason}")]
    Trap {
        /// Stable reason, as in [`ActorStatus::traps`].
        reason: &'static str,
    },
    /// The guest needed more memory than its limit; the instance was thrown away.
    #[error("the actor ran out of memory")]
    OutOfMemory,
    /// The guest answered with an error of its own (waPC `__guest_error`).
    #[error("the actor failed: {0}")]
    Guest(String),
    /// The claims are no longer good.
    #[error("the actor's claims are no longer accepted: {0}")]
    Refused(String),
    /// The host is shutting down.
    #[error("the host is stopping")]
    Stopping,
}

/// An actor as providers see it.
pub trait ActorService: Send + Sync {
    /// Who it is.
    fn identity(&self) -> &ActorIdentity;

    /// A snapshot for readiness and metrics.
    fn status(&self) -> ActorStatus;

    /// Sends one message and waits for the answer, at most until `deadline`.
    ///
    /// Dropping the future gives the queue slot back; a guest already inside the call is left to
    /// finish or to meet its deadline, and its answer is dropped.
    ///
    /// # Errors
    /// [`CallError`]; the actor itself stays usable.
    fn call<'a>(
        &'a self,
        operation: &'a str,
        message: Vec<u8>,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Reply, CallError>>;
}

/// An actor that several parties hold.
pub type ActorHandle = Arc<dyn ActorService>;

/// One actor joined to one provider, with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The capability, such as `wascc:http_server`.
    pub capability: String,
    /// Name of the binding; `default` unless a manifest says otherwise.
    pub binding: String,
    /// Values such as `PORT`.
    pub values: BTreeMap<String, String>,
}

/// A provider could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// A link value is missing or malformed.
    #[error("link value `{key}`: {reason}")]
    Value {
        /// Which value.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The provider does not know this operation.
    #[error("operation `{0}` is not one this provider handles")]
    UnknownOperation(String),
    /// A resource could not be had (a port in use, say).
    #[error("{what}")]
    Resource {
        /// What was wanted.
        what: String,
        /// Why it could not be had.
        #[source]
        source: std::io::Error,
    },
}

/// Host-side code that gives actors one capability.
pub trait CapabilityProvider: Send + Sync {
    /// The capability's name, such as `wascc:http_server`.
    fn capability(&self) -> &'static str;

    /// Joins an actor: from here on the provider may call it. Returns when the link works (an
    /// HTTP provider: when its port is bound).
    ///
    /// # Errors
    /// [`ProviderError`] when the link cannot be made; nothing is left behind.
    fn link<'a>(
        &'a self,
        actor: ActorHandle,
        link: &'a Link,
    ) -> BoxFuture<'a, Result<(), ProviderError>>;

    /// Handles a message from a linked actor. Called on the instance's own thread: may block
    /// briefly, must not panic.
    ///
    /// # Errors
    /// [`ProviderError`]; the guest sees its text.
    fn handle(
        &self,
        actor: &ActorIdentity,
        operation: &str,
        message: &[u8],
    ) -> Result<Vec<u8>, ProviderError>;

    /// Stops taking new work for all actors, waits for what runs (at most `grace`), and leaves.
    fn stop(&self, grace: Duration) -> BoxFuture<'_, ()>;
}
