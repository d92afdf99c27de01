//! Key files: seeds in a folder that only their owner can enter.
//!
//! `keys/NAME.nk` holds an issuer's seed, `keys/actors/NAME.nk` an actor's, whose public key
//! names that actor in claims. Seeds never reach a log, an argument or another process.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use claims::{ActorKey, IssuerKeyPair, Seed};
use zeroize::Zeroizing;

use crate::{
    exit::Usage,
    files::{create_private_dir, write_private_new},
    paths::config_dir,
    trust,
};

/// The key that signs unless another one is named.
pub const DEFAULT_ISSUER: &str = "issuer";

/// The folder of the user's keys.
///
/// # Errors
/// [`Usage`] when there is no configuration folder.
pub fn folder() -> Result<PathBuf> {
    Ok(config_dir()?.join("keys"))
}

/// The issuer that signs on this machine: made and trusted when it is needed first.
///
/// One that was there before is not trusted by this: somebody may have taken the trust away.
///
/// # Errors
/// When the key cannot be read, made or trusted.
pub fn default_issuer() -> Result<IssuerKeyPair> {
    let path = issuer_path(DEFAULT_ISSUER)?;
    if !path.exists()
        && let Some(pair) = create_issuer(&path)?
    {
        let name = "development issuer of this machine";
        trust::update(|trust| trust.trust(pair.public(), name))?;
        tell!("made a development issuer, {}, and trust it: {}", pair.public(), path.display());
        return Ok(pair);
    }
    read_issuer(&path)
}

/// Where the issuer called `name` is kept.
///
/// # Errors
/// [`Usage`] when the name cannot be that of a file.
pub fn issuer_path(name: &str) -> Result<PathBuf> {
    Ok(folder()?.join(file_name(name)?))
}

/// Makes an issuer's key file; `None` when there is one already.
///
/// # Errors
/// When there is no entropy or the file cannot be written.
pub fn create_issuer(path: &Path) -> Result<Option<IssuerKeyPair>> {
    let seed = Seed::issuer(entropy()?);
    let pair = IssuerKeyPair::from_seed(&seed)?;
    Ok(store(path, &seed)?.then_some(pair))
}

/// Reads an issuer's key file.
///
/// # Errors
/// [`Usage`] when others can read the file or when it holds no issuer's seed.
pub fn read_issuer(path: &Path) -> Result<IssuerKeyPair> {
    IssuerKeyPair::from_seed(&read_seed(path)?)
        .map_err(|error| Usage::new(format!("{}: {error}", path.display())).into())
}

/// The key that names the actor `name` in the claims of this machine's issuers: the same from
/// build to build, made when it is needed first.
///
/// # Errors
/// When the key cannot be read or made, or when the name cannot be that of a file.
pub fn actor_key(name: &str) -> Result<ActorKey> {
    let path = folder()?.join("actors").join(file_name(name)?);
    if !path.exists() {
        // Whoever was first wins; the file is read either way.
        store(&path, &Seed::actor(entropy()?))?;
    }
    read_actor_key(&path)
}

/// The public key of an actor's key file.
///
/// # Errors
/// [`Usage`] when others can read the file or when it holds no actor's seed.
pub fn read_actor_key(path: &Path) -> Result<ActorKey> {
    read_seed(path)?.actor_key().ok_or_else(|| {
        Usage::new(format!("{}: not the seed of an actor (SM…)", path.display())).into()
    })
}

/// The user's issuers: name and key, or why it cannot be read.
///
/// # Errors
/// When the folder cannot be read.
pub fn issuers() -> Result<Vec<(String, Result<IssuerKeyPair>)>> {
    let folder = folder()?;
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", folder.display()));
        }
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        if let Some(name) = name.filter(|_| path.extension().is_some_and(|end| end == "nk")) {
            found.push((name, read_issuer(&path)));
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

fn store(path: &Path, seed: &Seed) -> Result<bool> {
    create_private_dir(crate::files::parent(path))?;
    let mut text = Zeroizing::new(Vec::with_capacity(SEED_LINE_BYTES));
    text.extend_from_slice(seed.to_text().as_bytes());
    text.push(b'\n');
    write_private_new(path, &text)
}

fn read_seed(path: &Path) -> Result<Seed> {
    let shown = path.display();
    let context = || format!("cannot read {shown}");
    let mut file = File::open(path).with_context(context)?;
    let metadata = file.metadata().with_context(context)?;
    if metadata.is_dir() {
        return Err(Usage::new(format!("{shown} is a folder, not a key file"))
            .hint("graphlet keys list   (shows the keys of this machine)")
            .into());
    }
    // One buffer of fixed size, so that no part of the seed stays behind when it grows.
    let mut buffer = Zeroizing::new([0; MAX_KEY_FILE_BYTES]);
    let mut length = 0;
    loop {
        match file.read(&mut buffer[length..]).with_context(context)? {
            0 => break,
            count => length += count,
        }
    }
    let text = std::str::from_utf8(&buffer[..length]).unwrap_or_default();
    let seed =
        Seed::parse(text).map_err(|error| Usage::new(format!("{shown} holds no key: {error}")))?;
    // Asked of keys only: whoever took another file for one needs no advice on its rights.
    trust::ours(path, metadata.uid())?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Usage::new(format!("others can read the key {shown} (mode {mode:04o})"))
            .hint(format!("chmod 600 {}", trust::shell_word(&shown.to_string())))
            .into());
    }
    Ok(seed)
}

fn entropy() -> Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).context("the system gives no random numbers")?;
    Ok(bytes)
}

/// `NAME.nk`, for names that stay in their folder.
fn file_name(name: &str) -> Result<String> {
    let good = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !good {
        return Err(Usage::new(format!(
            "{name:?} cannot name a key file: at most 63 letters, digits, `.`, `_` and `-`, the first a letter or digit"
        ))
        .into());
    }
    Ok(format!("{name}.nk"))
}

// 58 characters and a line feed.
const SEED_LINE_BYTES: usize = 59;
// Longer files hold no seed; what is cut off makes them fail the length check.
const MAX_KEY_FILE_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/team.nk");
        let made = create_issuer(&path).unwrap().unwrap();
        assert!(create_issuer(&path).unwrap().is_none());
        assert_eq!(read_issuer(&path).unwrap().public(), made.public());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(read_actor_key(&path).is_err());
    }

    #[test]
    fn a_key_that_others_can_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("team.nk");
        create_issuer(&path).unwrap().unwrap();
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let usage = read_issuer(&path).unwrap_err().downcast::<Usage>().unwrap();
            assert!(usage.hint_text().unwrap().starts_with("chmod 600 "));
        }
    }

    #[test]
    fn what_is_no_seed_is_refused_without_being_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("team.nk");
        for text in ["", "SAAPN4W3", &"S".repeat(10_000), "\u{ff}"] {
            crate::files::write_private(&path, text.as_bytes()).unwrap();
            let error = format!("{:#}", read_issuer(&path).unwrap_err());
            assert!(!error.contains("SAAPN4W3"), "{error}");
        }
    }

    #[test]
    fn what_is_no_key_gets_no_advice_on_its_rights() {
        let folder = tempfile::tempdir().unwrap();
        let picture = folder.path().join("cat.png");
        fs::write(&picture, b"\x89PNG").unwrap();
        fs::set_permissions(&picture, Permissions::from_mode(0o644)).unwrap();
        for (path, words) in [(picture.as_path(), "holds no key"), (folder.path(), "is a folder")] {
            let usage = read_issuer(path).unwrap_err().downcast::<Usage>().unwrap();
            assert!(usage.to_string().contains(words), "{usage}");
            assert!(!usage.hint_text().unwrap_or_default().contains("chmod"), "{usage}");
        }
    }

    #[test]
    fn names_stay_in_their_folder() {
        for (name, good) in [
            ("issuer", true),
            ("team-2.a_b", true),
            ("", false),
            (".hidden", false),
            ("..", false),
            ("a/b", false),
            ("a\0b", false),
            ("a b", false),
        ] {
            assert_eq!(file_name(name).is_ok(), good, "{name:?}");
        }
    }
}
