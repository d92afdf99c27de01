//! The node's heartbeat: one lease, renewed every ten seconds.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference},
    jiff::Timestamp,
};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use crate::{backoff::Backoff, identity::Api};

/// Namespace of all nodes' leases.
const NAMESPACE: &str = "kube-node-lease";
/// How long a lease lasts.
const LEASE_SECONDS: i32 = 40;
/// A lease lasts 40 s; renewing at a quarter of that survives two lost calls.
const RENEWAL: Duration = Duration::from_secs(10);
/// One call: an API server that hangs must not take the whole lease.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Between attempts.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Renews the lease for ever. `node_uid` is the Node's uid, once there is one; the lease goes when
/// the Node goes. Time here is the monotonic clock's, so a wall clock that is set does no harm.
pub async fn keep(api: Api, mut node_uid: watch::Receiver<Option<String>>) {
    let mut tick = interval(RENEWAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing_since: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            // A new Node has no lease, and its controller is waiting for one.
            Ok(()) = node_uid.changed() => tick.reset(),
        }
        let Some(uid) = node_uid.borrow_and_update().clone() else { continue };
        let mut retry = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            let error = match timeout(CALL_TIMEOUT, renew(&api, &uid)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".into(),
            };
            if failing_since.is_none() {
                failing_since = Some(Instant::now());
                warn!(error, "Node lease cannot be renewed");
            }
            if node_uid.has_changed().unwrap_or(false) {
                break;
            }
            retry.wait().await;
        }
        // A Node that was exchanged meanwhile gets its lease at the next turn.
        if let Some(since) = failing_since.take() {
            info!(after_s = since.elapsed().as_secs(), "Node lease is renewed again");
        }
    }
}

async fn renew(api: &Api, node_uid: &str) -> Result<(), kube::Error> {
    let leases = kube::Api::<Lease>::namespaced(api.client(), NAMESPACE);
    let lease = lease(api.node_name(), node_uid);
    let patch = json!({
        "metadata": { "ownerReferences": lease.metadata.owner_references },
        "spec": lease.spec,
    });
    match leases.patch(api.node_name(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            leases.create(&PostParams::default(), &lease).await.map(|_| ())
        }
        other => other.map(|_| ()),
    }
}

fn lease(node: &str, node_uid: &str) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(node.into()),
            namespace: Some(NAMESPACE.into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: node.into(),
                uid: node_uid.into(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.into()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_named_held_and_owned_by_its_node() {
        let lease = lease("edge", "uid-1");
        let owner = &lease.metadata.owner_references.expect("an owner")[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Node", "uid-1"));
        let spec = lease.spec.expect("a spec");
        assert_eq!(spec.lease_duration_seconds, Some(40));
        assert_eq!(spec.holder_identity.as_deref(), Some("edge"));
    }
}
