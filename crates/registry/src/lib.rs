//! OCI registries: modules pushed and pulled as artifacts, by digest, into a cache.
//!
//! A [`Store`] is a folder of modules by digest, filled by pulls; [`Registry`] is the way to the
//! registries themselves, with which modules are pushed. Nothing here looks inside a module or
//! trusts one: that is `claims::verify`'s work, on the bytes that came.
//!
//! References, manifests and uploads are `oci-client`'s. What is read from a registry goes
//! through a transport with limits of our own: on a cluster whoever may create a pod
//! chooses the registry, and `oci-client` reads manifests, tokens and error pages to their end,
//! however far that is.

mod artifact;
mod client;
mod credentials;
mod downloads;
mod error;
mod files;
mod helper;
mod options;
mod push;
mod reference;
mod session;
mod store;
mod transport;

pub use artifact::Form;
pub use client::Registry;
pub use credentials::{Credentials, CredentialsError};
pub use error::{Cause, ErrorKind, PullError, PushError, RegistryError, StoreError};
pub use files::{Cached, Freed};
pub use options::{Authority, Mirror, OptionError, RegistryOptions};
pub use push::{PushOptions, Pushed};
pub use reference::{Digest, DigestError, ModuleRef, ReferenceError, Version};
pub use store::{Progress, PullPolicy, Pulled, Store, StoreOptions};
