//! What the node agent tells the process of a pod, and what that tells its shim: the two sides of
//! an inherited descriptor. The agent fills these types in, `graphlet pod` reads them; neither
//! trusts the environment, which is empty.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The descriptor on which a pod's process finds its [`Settings`] as JSON; those behind it are
/// named by the settings.
pub const SETTINGS_FD: i32 = 3;

/// Longest settings, bytes: etcd holds no pod that is larger, with every value written twice.
pub const MAX_SETTINGS_BYTES: u64 = 4 << 20;

/// What a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleKind {
    /// A waSCC actor, served over HTTP.
    Actor,
    /// A WASI command (`_start`), run to its end.
    Command,
}

/// Whose modules may run: decided by the agent, never by a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Trust {
    /// Issuer keys (`A…`) that may sign.
    pub issuers: BTreeSet<String>,
    /// Refuse claims that never expire.
    pub require_expiry: bool,
    /// Actor keys (`M…`) that may not run any more.
    pub revoked_subjects: BTreeSet<String>,
    /// Tokens (`jti`) that do not hold any more.
    pub revoked_tokens: BTreeSet<String>,
    /// The least revision per actor key.
    pub minimum_revisions: BTreeMap<String, i32>,
    /// Capabilities that modules may claim; `None` for any.
    pub allowed_capabilities: Option<BTreeSet<String>>,
}

/// What one process of a pod is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// Actor or command.
    pub kind: ModuleKind,
    /// Whose modules may run.
    pub trust: Trust,
    /// Descriptor of the signed module, open for reading.
    pub module_fd: i32,
    /// Descriptor of its compiled code, a file that only root can write.
    pub code_fd: Option<i32>,
    /// Descriptor on which a [`Report`] is written, a line of JSON each.
    pub report_fd: i32,
    /// Listening sockets on which an actor answers.
    pub listen_fds: Vec<i32>,
    /// The container's environment.
    pub env: BTreeMap<String, String>,
    /// Arguments of a command, without the program's name.
    pub args: Vec<String>,
    /// Folders that a command may read.
    pub mounts: Vec<Mount>,
    /// Actor instances.
    pub instances: u16,
    /// Linear memory of one instance, bytes; `None` for the engine's default.
    pub instance_memory_bytes: Option<u64>,
}

/// A folder that a command may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Mount {
    /// Path inside the guest.
    pub guest: String,
    /// Descriptor of the folder.
    pub fd: i32,
}

/// What a pod's process says of itself on the report descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// The model is loaded and one warm-up inference has returned, or the command begins.
    Ready,
    /// The first instance does not fit into the memory it was given.
    OutOfMemory,
    /// It cannot start; the text says why.
    Failed(String),
}

/// What compile processes are told on [`SETTINGS_FD`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CompileSettings {
    /// Actor or command: their code differs in how it is stopped.
    pub kind: ModuleKind,
    /// Descriptor of the module, open for reading.
    pub module_fd: i32,
    /// Descriptor that the code is written to.
    pub output_fd: i32,
}

/// Settings could not be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// They are no JSON of this form.
    #[error("the settings on descriptor {SETTINGS_FD} are malformed")]
    Json(#[source] serde_json::Error),
    /// Two names for one descriptor, or one that cannot be.
    #[error("the settings name descriptor {0}, which is taken or cannot be")]
    Descriptor(i32),
}

impl Settings {
    /// Reads settings, and checks that each descriptor has one use.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn from_json(json: &[u8]) -> Result<Self, SettingsError> {
        let settings: Self = serde_json::from_slice(json).map_err(SettingsError::Json)?;
        let mut descriptors = vec![settings.module_fd, settings.report_fd];
        descriptors.extend(settings.code_fd);
        descriptors.extend(&settings.listen_fds);
        descriptors.extend(settings.mounts.iter().map(|mount| mount.fd));
        check_descriptors(descriptors)?;
        Ok(settings)
    }
}

impl CompileSettings {
    /// Reads settings, and checks that each descriptor has one use.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn from_json(json: &[u8]) -> Result<Self, SettingsError> {
        let settings: Self = serde_json::from_slice(json).map_err(SettingsError::Json)?;
        check_descriptors(vec![settings.module_fd, settings.output_fd])?;
        Ok(settings)
    }
}

fn check_descriptors(mut descriptors: Vec<i32>) -> Result<(), SettingsError> {
    descriptors.sort_unstable();
    let mut last = SETTINGS_FD;
    for descriptor in descriptors {
        if descriptor <= last {
            return Err(SettingsError::Descriptor(descriptor));
        }
        last = descriptor;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            kind: ModuleKind::Actor,
            trust: Trust { issuers: ["A".to_owned()].into(), ..Trust::default() },
            module_fd: 4,
            code_fd: Some(5),
            report_fd: 6,
            listen_fds: vec![7, 8],
            env: [("PORT".to_owned(), "80".to_owned())].into(),
            args: Vec::new(),
            mounts: vec![Mount { guest: "/etc/config".into(), fd: 9 }],
            instances: 2,
            instance_memory_bytes: Some(1 << 20),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let json = serde_json::to_vec(&settings()).unwrap();
        assert_eq!(Settings::from_json(&json).unwrap(), settings());
        let report = serde_json::to_string(&Report::Failed("no".into())).unwrap();
        assert_eq!(report, r#"{"failed":"no"}"#);
        assert_eq!(serde_json::to_string(&Report::Ready).unwrap(), r#""ready""#);
    }

    #[test]
    fn a_descriptor_has_one_use() {
        for wrong in [-1, 0, 3, 4, 7] {
            let settings = Settings { report_fd: wrong, ..settings() };
            let json = serde_json::to_vec(&settings).unwrap();
            let error = Settings::from_json(&json).unwrap_err();
            assert!(matches!(error, SettingsError::Descriptor(_)), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_misspelt_setting_is_an_error() {
        let json = serde_json::to_string(&settings()).unwrap().replace("kind", "kinds");
        assert!(matches!(Settings::from_json(json.as_bytes()), Err(SettingsError::Json(_))));
    }
}
