//! The configuration file of the node: whose modules run here, how registries are reached, when
//! the node is short of something.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{ErrorKind, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use registry::{Authority, Mirror, RegistryOptions};
use serde::Deserialize;

use crate::{node::Thresholds, options::RunOptions, pods::Trust};

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    /// Whose modules run here.
    pub trust: Trust,
    /// How registries are reached.
    pub registry: RegistryFile,
    /// When the node is short of something.
    pub eviction: Thresholds,
}

/// How registries are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryFile {
    /// `HOST=URL`: what HOST has is asked for at URL first.
    pub mirrors: Vec<String>,
    /// `HOST[:PORT]` of registries without TLS.
    pub plain_http: BTreeSet<String>,
    /// PEM files with certificate authorities.
    pub ca_files: Vec<PathBuf>,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others could have written it, and whoever writes it decides what runs here.
    #[error("{path} can be written by others than root and the agent's user (mode {mode:o})")]
    Writable {
        /// Which.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// Mistakes in it, all together.
    #[error("{path}: {}", mistakes.join("; "))]
    Mistakes {
        /// Which.
        path: String,
        /// What is wrong.
        mistakes: Vec<String>,
    },
}

impl ConfigFile {
    /// Reads the file; one that is not there says nothing.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let read = |source| ConfigError::Read { path: shown.clone(), source };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(read(error)),
        };
        // Of the open file, not of the name: that could be exchanged in between.
        let facts = file.metadata().map_err(read)?;
        let mode = facts.mode() & 0o7777;
        let ours = [0, rustix::process::geteuid().as_raw()].contains(&facts.uid());
        if mode & 0o022 != 0 || !ours {
            return Err(ConfigError::Writable { path: shown, mode });
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(read)?;
        toml::from_str(&text).map_err(|error| ConfigError::Mistakes {
            path: shown.clone(),
            mistakes: vec![error.to_string().trim_end().to_owned()],
        })
    }

    /// Adds what the command line says.
    pub fn merge(&mut self, options: &RunOptions) {
        self.trust.issuers.extend(&options.trusted_issuer);
        self.registry.plain_http.extend(options.registry_plain_http.iter().cloned());
        self.registry.ca_files.extend(options.registry_ca.iter().cloned());
    }

    /// How registries are reached, with the files read. Mirrors of the command line come first.
    ///
    /// # Errors
    /// [`ConfigError::Mistakes`], all of them; `path` is named in it.
    pub fn registries(
        &self,
        path: &Path,
        mirrors: &[Mirror],
    ) -> Result<RegistryOptions, ConfigError> {
        let mut mistakes = Vec::new();
        let mut options = RegistryOptions {
            plain_http: self.registry.plain_http.clone(),
            mirrors: mirrors.to_vec(),
            ..RegistryOptions::default()
        };
        for text in &self.registry.mirrors {
            match text.parse() {
                Ok(mirror) => options.mirrors.push(mirror),
                Err(error) => mistakes.push(error.to_string()),
            }
        }
        for file in &self.registry.ca_files {
            let authority = fs::read(file)
                .map_err(|error| error.to_string())
                .and_then(|pem| Authority::from_pem(&pem).map_err(|error| error.to_string()));
            match authority {
                Ok(authority) => options.authorities.push(authority),
                Err(error) => mistakes.push(format!("{}: {error}", file.display())),
            }
        }
        if mistakes.is_empty() {
            Ok(options)
        } else {
            Err(ConfigError::Mistakes { path: path.display().to_string(), mistakes })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn load(text: &str) -> Result<ConfigFile, ConfigError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("node.toml");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("set");
        ConfigFile::load(&path)
    }

    fn issuer() -> String {
        let seed = claims::Seed::issuer([7; 32].into());
        claims::IssuerKeyPair::from_seed(&seed).expect("an issuer").public().to_string()
    }

    #[test]
    fn a_file_says_whom_to_trust_where_and_how_to_reach_registries() {
        let key = issuer();
        let config = load(&format!(
            "[trust]\nissuers = [\"{key}\"]\n[trust.namespaces]\nteam = [\"{key}\"]\n\
             [registry]\nmirrors = [\"docker.io=http://mirror.lan:5000\"]\nplain_http = [\"r.lan\"]\n\
             [eviction]\nmemory_bytes = 1000\n"
        ))
        .expect("a configuration");
        assert_eq!(config.trust.issuers.len(), 1);
        assert_eq!(config.trust.namespaces["team"].len(), 1);
        assert_eq!(config.eviction.memory_bytes, 1000);
        assert_eq!(config.eviction.disk_percent, 10);
        let registries = config.registries(Path::new("x"), &[]).expect("registries");
        assert_eq!(registries.mirrors[0].host, "docker.io");
        assert!(registries.plain_http.contains("r.lan"));
    }

    #[test]
    fn no_file_trusts_nobody() {
        let config = ConfigFile::load(Path::new("/nowhere/node.toml")).expect("nothing");
        assert_eq!(config, ConfigFile::default());
        assert!(config.trust.issuers.is_empty());
        assert_eq!(load("").expect("nothing"), ConfigFile::default());
    }

    #[test]
    fn mistakes_are_named_and_told_together() {
        for (text, part) in [
            ("[trust]\nissuers = [\"nobody\"]", "nobody"),
            ("[trust]\nissuer = []", "issuer"),
            ("[registry]\nmirror = []", "mirror"),
            ("nonsense", "node.toml"),
        ] {
            let error = load(text).expect_err("refused").to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
        let config = load("[registry]\nmirrors = [\"x\"]\nca_files = [\"/nowhere/ca.pem\"]")
            .expect("a configuration");
        let error = config.registries(Path::new("node.toml"), &[]).expect_err("refused");
        assert!(matches!(&error, ConfigError::Mistakes { mistakes, .. } if mistakes.len() == 2));
    }

    #[test]
    fn a_file_that_others_can_write_is_not_believed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("node.toml");
        fs::write(&path, "").expect("written");
        for (mode, good) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
            assert_eq!(ConfigFile::load(&path).is_ok(), good, "mode {mode:o}");
        }
    }
}
