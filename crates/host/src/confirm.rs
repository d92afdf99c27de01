//! Work that begins before a module's file has been hashed.
//!
//! What a module's issuer signs is a hash. Code that this machine compiled earlier, from a verified
//! module with that hash, is what the issuer allows to run, whatever the file in hand turns out to
//! be; so it is mapped and entered at once. Whether the file is that module is found out
//! meanwhile, and until then nothing that the guest answers leaves the host.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use claims::{Digest, SignedModule, VerifyError};
use engine::{CacheError, UncheckedData};
use tracing::warn;

/// Why nothing that ran may be believed.
#[derive(Debug)]
pub(crate) enum Unconfirmed {
    /// The file is another module than its tokens speak of.
    Module(VerifyError),
    /// The weights in the cache are damaged; the module itself may be good.
    Code,
}

/// Hashes a file, and checks the weights that are mapped, on two threads.
pub(crate) struct Confirmation {
    hashing: JoinHandle<Result<Digest, VerifyError>>,
    checking: JoinHandle<Result<(), CacheError>>,
}

impl Confirmation {
    /// Begins; `None` when no thread can be had.
    pub(crate) fn start(module: &Arc<SignedModule>, data: UncheckedData) -> Option<Self> {
        let module = Arc::clone(module);
        let spawn = |name: &str| thread::Builder::new().name(name.into());
        let checking = spawn("weights").spawn(move || data.check()).ok()?;
        let hashing = spawn("hash").spawn(move || module.confirm()).ok()?;
        Some(Self { hashing, checking })
    }

    /// Waits for both.
    pub(crate) fn wait(self) -> Result<Digest, Unconfirmed> {
        // A thread that panicked has confirmed nothing.
        let hashed = self.hashing.join();
        let digest = hashed.unwrap_or(Err(VerifyError::Changed)).map_err(Unconfirmed::Module)?;
        match self.checking.join() {
            Ok(Ok(())) => Ok(digest),
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "Cached code is not usable, compiling again");
                Err(Unconfirmed::Code)
            }
            Err(_) => Err(Unconfirmed::Code),
        }
    }
}
