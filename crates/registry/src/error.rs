//! What goes wrong between here and a registry, each with its kind and what would help.

use std::{error::Error, io, path::PathBuf, sync::Arc, time::Duration};

use crate::reference::{Digest, ReferenceError};

/// A cause that several waiting pulls share.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// What sort of failure it is, for a status or a decision to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The name is none: no attempt can succeed (`InvalidImageName`).
    InvalidName,
    /// Only what is here may be used, and it is not here (`ErrImageNeverPull`).
    NeverPull,
    /// The registry does not have it.
    NotFound,
    /// Credentials are missing, wrong, or do not suffice.
    Unauthorized,
    /// The registry cannot be reached, or the connection broke.
    Unreachable,
    /// The registry's certificate does not hold.
    Tls,
    /// It took too long.
    Timeout,
    /// The registry answered with a failure of its own (5xx, 429, or what nobody expects).
    Registry,
    /// What answers is no registry.
    NotARegistry,
    /// More bytes than a module may have.
    TooLarge,
    /// Fewer bytes than the manifest says.
    Truncated,
    /// The bytes are not those that were named.
    WrongDigest,
    /// The artifact is no module.
    WrongMediaType,
    /// The local disk failed.
    Storage,
}

/// A conversation with a registry failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// 401 or 403.
    #[error("{host} refuses {repository} to {who}{}", said(.message))]
    Unauthorized {
        /// The registry.
        host: String,
        /// What was asked for.
        repository: String,
        /// `anonymous` or the user that was named.
        who: String,
        /// What the registry said, or nothing.
        message: String,
    },
    /// 404.
    #[error("{host} has no {what}{}", said(.message))]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// What the registry said, or nothing.
        message: String,
    },
    /// No connection, or it broke.
    #[error("{host} cannot be reached")]
    Unreachable {
        /// The registry.
        host: String,
        /// Whether something refused the connection at once: a wrong port, or nothing running.
        refused: bool,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The TLS handshake failed.
    #[error("no trusted connection to {host}")]
    Tls {
        /// The registry.
        host: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// Nothing came for too long.
    #[error("{host} did not answer within {} s", .after.as_secs_f32())]
    Timeout {
        /// The registry.
        host: String,
        /// How long was waited.
        after: Duration,
    },
    /// What answers does not speak the registry protocol.
    #[error("{host} does not answer as a registry: {found}")]
    NotARegistry {
        /// The host.
        host: String,
        /// What came instead.
        found: String,
    },
    /// The registry sends its callers in circles, or somewhere they must not go.
    #[error("{host} redirects {reason}")]
    Redirect {
        /// The registry.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another status.
    #[error("{host} answers {status}{}", said(.message))]
    Status {
        /// The registry.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What the registry said, or nothing.
        message: String,
    },
    /// A small document has more bytes than such a document may have.
    #[error("{host} sends a {what} of more than {limit} bytes")]
    Oversized {
        /// The registry.
        host: String,
        /// Manifest, token or error.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// This side is not able to: no certificates, no such proxy.
    #[error("cannot make an HTTP client")]
    Client {
        /// Why.
        #[source]
        source: Cause,
    },
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl RegistryError {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RegistryError::Unauthorized { .. } => ErrorKind::Unauthorized,
            RegistryError::NotFound { .. } => ErrorKind::NotFound,
            RegistryError::Unreachable { .. } => ErrorKind::Unreachable,
            RegistryError::Tls { .. } => ErrorKind::Tls,
            RegistryError::Timeout { .. } => ErrorKind::Timeout,
            RegistryError::NotARegistry { .. } | RegistryError::Redirect { .. } => {
                ErrorKind::NotARegistry
            }
            RegistryError::Status { .. } | RegistryError::Client { .. } => ErrorKind::Registry,
            RegistryError::Oversized { .. } => ErrorKind::TooLarge,
        }
    }

    /// Whether the same request may well succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            RegistryError::Status { status, .. } => *status == 429 || *status >= 500,
            RegistryError::Unreachable { refused, .. } => !refused,
            _ => false,
        }
    }

    /// What would help, as one line.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            RegistryError::Unauthorized { host, who, .. } if who == ANONYMOUS => {
                format!("docker login {host}   (on Kubernetes: an imagePullSecret)")
            }
            RegistryError::Unauthorized { host, who, .. } => {
                format!("is {who} allowed to do that? docker login {host} names another user")
            }
            RegistryError::NotFound { .. } => "check the repository's name and the tag".into(),
            RegistryError::Unreachable { host, refused: true, .. } => {
                format!("is a registry running at {host}?")
            }
            RegistryError::Unreachable { .. } => "check the host's name and the network".into(),
            RegistryError::Tls { host, .. } => format!(
                "--registry-ca FILE for a certificate authority of your own; --plain-http {host} \
                 for a registry without TLS"
            ),
            RegistryError::Timeout { .. } => "check the network, or a proxy on the way".into(),
            RegistryError::NotARegistry { host, .. } => {
                format!("does {host} need another port or a path in front of the name?")
            }
            RegistryError::Status { status: 429, .. } => {
                "the registry limits its callers: wait".into()
            }
            RegistryError::Client { .. } => {
                "are certificate authorities installed? (package ca-certificates)".into()
            }
            _ => return None,
        })
    }
}

/// Who asks when nobody is named.
pub(crate) const ANONYMOUS: &str = "anonymous";

/// A module could not be pulled.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The reference is none.
    #[error(transparent)]
    InvalidName(#[from] ReferenceError),
    /// The policy is never to pull, and the module is not here.
    #[error("{reference} is not here and may not be pulled")]
    NotPresent {
        /// What was asked for.
        reference: String,
    },
    /// The policy is never to pull, and the module is here for others only.
    #[error("{reference} was pulled with other credentials and may not be pulled again")]
    NotYours {
        /// What was asked for.
        reference: String,
    },
    /// The registry, or the way to it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// More bytes than a module may have.
    #[error("{reference} has {bytes} bytes, more than the {limit} that a module may have")]
    TooLarge {
        /// Which module.
        reference: String,
        /// As the manifest says.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The registry sends another number of bytes than its manifest says.
    #[error("{reference} should have {expected} bytes, but {found} came")]
    WrongSize {
        /// Which module.
        reference: String,
        /// As the manifest says.
        expected: u64,
        /// How many came, at least.
        found: u64,
    },
    /// The bytes are not those that were named.
    #[error("the {what} of {reference} should be {expected} but is {found}")]
    WrongDigest {
        /// `manifest` or `module`.
        what: &'static str,
        /// Of which reference.
        reference: String,
        /// The digest that was named.
        expected: Digest,
        /// That of the bytes.
        found: Digest,
    },
    /// The artifact is no module.
    #[error("{reference} is no module: {found}")]
    WrongMediaType {
        /// Which artifact.
        reference: String,
        /// What it is.
        found: String,
    },
    /// The pull as a whole took too long.
    #[error("{reference} was not here after {} s", .after.as_secs_f32())]
    Deadline {
        /// Which module.
        reference: String,
        /// How long was waited.
        after: Duration,
    },
    /// The cache cannot be read or written.
    #[error("{}", .path.display())]
    Storage {
        /// File or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
}

impl PullError {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PullError::InvalidName(_) => ErrorKind::InvalidName,
            PullError::NotPresent { .. } | PullError::NotYours { .. } => ErrorKind::NeverPull,
            PullError::Registry(error) => error.kind(),
            PullError::TooLarge { .. } => ErrorKind::TooLarge,
            PullError::WrongSize { expected, found, .. } if found < expected => {
                ErrorKind::Truncated
            }
            PullError::WrongSize { .. } => ErrorKind::TooLarge,
            PullError::WrongDigest { .. } => ErrorKind::WrongDigest,
            PullError::WrongMediaType { .. } => ErrorKind::WrongMediaType,
            PullError::Deadline { .. } => ErrorKind::Timeout,
            PullError::Storage { .. } => ErrorKind::Storage,
        }
    }

    /// What would help, as one line.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            PullError::InvalidName(_) => NAME_HINT.into(),
            PullError::NotPresent { .. } => "imagePullPolicy: IfNotPresent would pull it".into(),
            PullError::NotYours { .. } => "pull it with these credentials once".into(),
            PullError::Registry(error) => return error.hint(),
            PullError::WrongMediaType { .. } => {
                "graphlet push FILE REFERENCE makes an artifact that can be pulled".into()
            }
            PullError::WrongSize { .. } | PullError::WrongDigest { .. } => {
                "the registry, or a mirror or proxy before it, does not give what was pushed".into()
            }
            PullError::Storage { .. } => "is there room on the disk?".into(),
            PullError::TooLarge { .. } | PullError::Deadline { .. } => return None,
        })
    }

    pub(crate) fn storage(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> PullError {
        let path = path.into();
        move |source| PullError::Storage { path, source: Arc::new(source) }
    }
}

/// A module could not be pushed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The reference is none.
    #[error(transparent)]
    InvalidName(#[from] ReferenceError),
    /// The reference names a digest, which what is pushed decides.
    #[error("{reference} is pinned: a push needs a tag")]
    Pinned {
        /// The reference.
        reference: String,
    },
    /// The bytes are no WebAssembly module.
    #[error("this is no WebAssembly module")]
    NotAModule(#[source] claims::ModuleError),
    /// The registry, or the way to it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The registry says it holds something else than what was sent.
    #[error("{host} says the manifest is {found}, but {expected} was sent")]
    WrongDigest {
        /// The registry.
        host: String,
        /// What was sent.
        expected: Digest,
        /// What it says.
        found: String,
    },
}

impl PushError {
    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PushError::InvalidName(_) | PushError::Pinned { .. } => ErrorKind::InvalidName,
            PushError::NotAModule(_) => ErrorKind::WrongMediaType,
            PushError::Registry(error) => error.kind(),
            PushError::WrongDigest { .. } => ErrorKind::WrongDigest,
        }
    }

    /// What would help, as one line.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            PushError::InvalidName(_) | PushError::Pinned { .. } => NAME_HINT.into(),
            PushError::NotAModule(_) => "graphlet build MODEL.toml -o FILE makes a module".into(),
            PushError::Registry(error) => return error.hint(),
            PushError::WrongDigest { .. } => return None,
        })
    }
}

const NAME_HINT: &str = "names look like registry.example/models/digits:v1";

/// A cache of modules could not be opened or cleaned up.
#[derive(Debug, thiserror::Error)]
#[error("module cache {}", .path.display())]
pub struct StoreError {
    /// File or folder.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}
