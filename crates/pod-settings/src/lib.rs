//! What the node agent tells the process of a pod, and what that tells its shim.
//!
//! A pod's process finds a Unix socket as its standard input. Waiting in it is one [`Order`] with
//! the descriptors that it speaks of ([`channel`]); the process answers there with [`Report`]s,
//! a line of JSON each. So nothing has to be in its environment, which is empty, and it opens
//! nothing by name.

pub mod channel;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// What one process is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Order {
    /// Run a pod's container.
    Run(Box<Settings>),
    /// Compile a module: the first descriptor is the module, the second takes the code.
    Compile {
        /// Actor or command: their code differs in how it is stopped.
        kind: ModuleKind,
        /// Whose modules may be compiled.
        trust: Trust,
    },
}

/// How a container is run. The descriptors come in the order of the fields that count them: the
/// module, the compiled code, the listening sockets, the folders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// Actor or command.
    pub kind: ModuleKind,
    /// Whose modules may run.
    pub trust: Trust,
    /// Whether there is compiled code, a file that only root can write.
    pub has_code: bool,
    /// How many listening sockets there are, on which an actor answers.
    pub listeners: usize,
    /// Paths inside the guest of folders that a command may read.
    pub mounts: Vec<String>,
    /// The container's environment.
    pub env: BTreeMap<String, String>,
    /// Arguments of a command, without the program's name.
    pub args: Vec<String>,
    /// Actor instances.
    pub instances: u16,
    /// Whether each request to an actor has an instance of its own.
    #[serde(default)]
    pub isolated_requests: bool,
    /// What the engine may give one instance, bytes, its module's own data not counted; `None`
    /// for the engine's default.
    pub instance_memory_bytes: Option<u64>,
    /// Most bytes of request bodies held at once; `None` for the HTTP provider's default.
    pub buffered_body_bytes: Option<u64>,
}

impl Settings {
    /// How many descriptors belong to these settings.
    pub fn descriptors(&self) -> usize {
        1 + usize::from(self.has_code) + self.listeners + self.mounts.len()
    }
}

/// What a pod's process says of itself.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            kind: ModuleKind::Actor,
            trust: Trust { issuers: ["A".to_owned()].into(), ..Trust::default() },
            has_code: true,
            listeners: 2,
            mounts: vec!["/etc/config".into()],
            env: [("PORT".to_owned(), "80".to_owned())].into(),
            args: Vec::new(),
            instances: 2,
            isolated_requests: true,
            instance_memory_bytes: Some(1 << 20),
            buffered_body_bytes: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let compile = Order::Compile { kind: ModuleKind::Command, trust: settings().trust };
        for order in [Order::Run(Box::new(settings())), compile] {
            let json = serde_json::to_vec(&order).unwrap();
            assert_eq!(serde_json::from_slice::<Order>(&json).unwrap(), order);
        }
        let report = serde_json::to_string(&Report::Failed("no".into())).unwrap();
        assert_eq!(report, r#"{"failed":"no"}"#);
        assert_eq!(serde_json::to_string(&Report::Ready).unwrap(), r#""ready""#);
        assert_eq!(settings().descriptors(), 5);
    }

    #[test]
    fn a_misspelt_setting_is_an_error() {
        let json = serde_json::to_string(&settings()).unwrap().replace("kind", "kinds");
        assert!(serde_json::from_str::<Settings>(&json).is_err());
    }
}
