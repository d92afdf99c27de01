//! Modules to running actors: what `run`, `classify` and `check --images` share.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use claims::{SignedModule, Timestamp, VerifiedModule, VerifyError};
use host::{Host, HostBuilder, Instance, LoadError, LoadOptions, provider::Reply};
use wire::{OP_HANDLE_REQUEST, Request, Response};

use crate::{
    files::{ModuleFile, read_module},
    paths,
    trust::{self, Refused, TrustFile},
};

/// Reads a module and verifies it by this user's trust file.
///
/// # Errors
/// When it cannot be read or is refused; the hint names the command that would help.
pub fn verified(path: &Path, allow_unsigned: bool) -> Result<VerifiedModule> {
    let mut policy = TrustFile::load()?.policy(Timestamp::from(SystemTime::now()));
    policy.dangerously_allow_unsigned |= allow_unsigned;
    trust::verify_module(path, read_module(path)?, &policy).map_err(Into::into)
}

/// Opens a module whose tokens this user's trust file lets pass; its bytes are not hashed yet.
///
/// # Errors
/// As [`verified`], but for a file that is not what its tokens speak of.
pub fn signed(path: &Path, allow_unsigned: bool) -> Result<SignedModule> {
    let mut policy = TrustFile::load()?.policy(Timestamp::from(SystemTime::now()));
    policy.dangerously_allow_unsigned |= allow_unsigned;
    let context = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(context)?;
    let opened = match ModuleFile::of(file).with_context(context)? {
        Some(file) => claims::open(file, &policy),
        None => claims::open(read_module(path)?, &policy),
    };
    opened.map_err(|source| refused(path, source))
}

/// What a module's refusal is to the user, whenever it shows.
pub fn refused(path: &Path, source: VerifyError) -> anyhow::Error {
    Refused { path: path.to_owned(), source }.into()
}

/// As [`refused`], of a module that was to be loaded.
pub fn not_loaded(path: &Path, error: LoadError) -> anyhow::Error {
    match error {
        LoadError::Refused(source) => refused(path, source),
        error => anyhow::Error::new(error).context(format!("cannot run {}", path.display())),
    }
}

/// A host that keeps compiled code in this user's cache.
///
/// # Errors
/// When there is no cache folder.
pub fn host() -> Result<HostBuilder> {
    Ok(Host::builder().cache_dir(code_cache()?))
}

/// Where compiled code is kept.
///
/// # Errors
/// When there is no cache folder.
pub fn code_cache() -> Result<PathBuf> {
    Ok(paths::cache_dir()?.join("code"))
}

/// A request whose answer does not matter: the smallest picture, so that the first real one
/// finds everything touched.
///
/// # Errors
/// None in practice: the message is small and well-formed.
pub fn warm_up() -> Result<(String, Vec<u8>)> {
    let request =
        Request { method: "POST".into(), path: "/".into(), body: pixel(), ..Request::default() };
    Ok((OP_HANDLE_REQUEST.to_owned(), wire::encode(&request)?))
}

/// One white pixel as BMP: a file header, BITMAPINFOHEADER, and a row padded to four bytes.
fn pixel() -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    for word in [58_u32, 0, 54, 40, 1, 1, 1 | 24 << 16, 0, 4, 0, 0, 0, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&[255, 255, 255, 0]);
    bytes
}

/// One instance of an actor, called without HTTP.
pub struct Single {
    instance: Instance,
    call_time: Duration,
}

impl Single {
    /// Starts an instance with its model loaded.
    ///
    /// # Errors
    /// When the module is no actor, or does not start.
    pub fn start(module: &VerifiedModule) -> Result<Self> {
        Self::start_on(&host()?.build()?, module)
    }

    /// As [`Single::start`], of a module whose bytes are hashed while the instance works: its
    /// first answer waits for that.
    ///
    /// # Errors
    /// As [`Single::start`]; of a file that is not what its tokens speak of, here or in
    /// [`Single::confirm`].
    pub fn start_ahead(path: &Path, module: SignedModule) -> Result<Self> {
        let options = LoadOptions::default();
        let host = host()?.build()?;
        let instance = host.instance_ahead(module, &options);
        let instance = instance.map_err(|error| not_loaded(path, error))?;
        Ok(Single { instance, call_time: options.call_time })
    }

    /// Waits until it is known that the module's file is what its tokens speak of.
    ///
    /// # Errors
    /// When it is not.
    pub fn confirm(&mut self, path: &Path) -> Result<()> {
        self.instance.confirm().map_err(|error| not_loaded(path, error))
    }

    /// As [`Single::start`], on a host of the caller's.
    ///
    /// # Errors
    /// As [`Single::start`].
    pub fn start_on(host: &Host, module: &VerifiedModule) -> Result<Self> {
        let options = LoadOptions::default();
        let instance = host.instance(module, &options)?;
        Ok(Single { instance, call_time: options.call_time })
    }

    /// Sends one request; the reply carries the phases that the guest marked.
    ///
    /// # Errors
    /// When the actor traps or passes its deadline.
    pub fn send(&mut self, request: &Request) -> Result<(Response, Reply)> {
        let reply = self.call(OP_HANDLE_REQUEST, wire::encode(request)?)?;
        let response = wire::decode(&reply.body).context("the actor's answer is malformed")?;
        Ok((response, reply))
    }

    /// Sends one message of any operation.
    ///
    /// # Errors
    /// When the actor refuses it, traps or passes its deadline.
    pub fn call(&mut self, operation: &str, message: Vec<u8>) -> Result<Reply> {
        let deadline = Instant::now() + self.call_time;
        Ok(self.instance.call(operation, message, deadline)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_picture_is_one_white_pixel() {
        let picture = image_input::decode(&pixel(), &image_input::Limits::default()).unwrap();
        assert_eq!((picture.width(), picture.height()), (1, 1));
        assert_eq!(picture.pixels(), [255, 255, 255]);
    }
}
