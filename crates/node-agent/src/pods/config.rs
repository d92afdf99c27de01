//! What the node's configuration says about pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use claims::{ActorKey, IssuerKey, Policy};
use serde::Deserialize;

use super::Capacity;
use crate::runtime;

/// What the node's configuration says about pods.
#[derive(Debug, Clone)]
pub struct PodsConfig {
    /// The node's InternalIP: `hostIP` of every pod, and where host ports listen.
    pub node_ip: IpAddr,
    /// What pods may ask for together; the node's `allocatable`.
    pub allocatable: Capacity,
    /// Whose modules run here.
    pub trust: Trust,
    /// How much the cache of modules may hold before unused ones are dropped, in bytes.
    pub image_budget_bytes: u64,
    /// How long a module may take from its start to its first answer before it counts as failed.
    pub start_timeout: Duration,
}

impl PodsConfig {
    /// A node at `node_ip` that trusts nobody yet.
    pub fn new(node_ip: IpAddr, allocatable: Capacity) -> Self {
        PodsConfig {
            node_ip,
            allocatable,
            trust: Trust::default(),
            // A hundred models of the size of MobileNetV2.
            image_budget_bytes: 2 << 30,
            // The largest model that was seen, cold, on a busy machine: under a minute.
            start_timeout: Duration::from_secs(300),
        }
    }
}

/// Whose modules run here. It comes from the node's configuration alone: never from a pod, and a
/// node may not read Namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    /// Issuers trusted in every namespace that `namespaces` does not narrow.
    pub issuers: BTreeSet<IssuerKey>,
    /// Namespaces in which only some of `issuers` are trusted. A key that is not among `issuers`
    /// is not trusted by standing here.
    pub namespaces: BTreeMap<String, BTreeSet<IssuerKey>>,
    /// Actors that may not run any more.
    pub revoked_subjects: BTreeSet<ActorKey>,
    /// Statements (`jti`) that do not hold any more.
    pub revoked_tokens: BTreeSet<String>,
    /// The least revision per actor.
    pub minimum_revisions: BTreeMap<ActorKey, i32>,
    /// Refuse claims that never expire.
    pub require_expiry: bool,
    /// Capabilities that modules may claim; `None` for any.
    pub allowed_capabilities: Option<BTreeSet<String>>,
}

impl Trust {
    /// The issuers trusted in `namespace`.
    pub fn issuers_in(&self, namespace: &str) -> BTreeSet<IssuerKey> {
        match self.namespaces.get(namespace) {
            Some(narrowed) => narrowed.intersection(&self.issuers).copied().collect(),
            None => self.issuers.clone(),
        }
    }

    /// What a module must satisfy to run in `namespace` at `now`. No pod and no namespace can
    /// make it let unsigned modules in.
    pub fn policy(&self, namespace: &str, now: SystemTime) -> Policy {
        Policy {
            trusted_issuers: self.issuers_in(namespace),
            revoked_subjects: self.revoked_subjects.clone(),
            revoked_tokens: self.revoked_tokens.clone(),
            minimum_revisions: self.minimum_revisions.clone(),
            require_exp: self.require_expiry,
            allowed_capabilities: self.allowed_capabilities.clone(),
            ..Policy::at(now.into())
        }
    }

    /// The same for the pod's process, which verifies once more.
    pub fn for_process(&self, namespace: &str) -> runtime::Trust {
        let actors = |keys: &BTreeSet<ActorKey>| keys.iter().map(ToString::to_string).collect();
        let revisions = self.minimum_revisions.iter();
        runtime::Trust {
            issuers: self.issuers_in(namespace).iter().map(ToString::to_string).collect(),
            require_expiry: self.require_expiry,
            revoked_subjects: actors(&self.revoked_subjects),
            revoked_tokens: self.revoked_tokens.clone(),
            minimum_revisions: revisions.map(|(key, least)| (key.to_string(), *least)).collect(),
            allowed_capabilities: self.allowed_capabilities.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claims::Seed;

    fn issuer(byte: u8) -> IssuerKey {
        let seed = Seed::issuer([byte; 32].into());
        claims::IssuerKeyPair::from_seed(&seed).expect("an issuer's seed").public()
    }

    #[test]
    fn a_namespace_narrows_trust_and_never_widens_it() {
        let trust = Trust {
            issuers: [issuer(1), issuer(2)].into(),
            namespaces: [("team".to_owned(), [issuer(2), issuer(3)].into())].into(),
            ..Trust::default()
        };
        assert_eq!(trust.issuers_in("default"), [issuer(1), issuer(2)].into());
        assert_eq!(trust.issuers_in("team"), [issuer(2)].into());
        assert!(!trust.policy("team", SystemTime::now()).dangerously_allow_unsigned);
    }
}
