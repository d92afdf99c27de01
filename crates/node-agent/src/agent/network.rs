//! Where pods' addresses come from: the podCIDR that the cluster gives the node, a range given by
//! hand, or the node's own address.

use std::{fs, path::Path, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Node;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tracing::warn;

use crate::{
    identity::{Notice, write_private},
    options::Network,
    runtime::{Cidr, Runtime, RuntimeError},
};

/// How long the node waits for a podCIDR before it goes on without.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between attempts to make a range bindable.
const RETRY: Duration = Duration::from_secs(10);

/// Where the choice is kept, in the state folder.
const FILE: &str = "network";
/// What stands there for the node's own address.
const NODE_IP: &str = "node-ip";

/// What was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The cluster's range.
    PodCidr(Cidr),
    /// The range given by hand.
    Given(Cidr),
    /// The node's own address.
    NodeIp,
}

/// What was chosen when the agent ran last, so that its pods need not wait for the API server.
pub(super) fn recall(state_dir: &Path, mode: Network) -> Option<Choice> {
    let text = fs::read_to_string(state_dir.join(FILE)).ok()?;
    match (text.trim(), mode) {
        (_, Network::NodeIp) => Some(Choice::NodeIp),
        (NODE_IP, Network::Auto) => Some(Choice::NodeIp),
        (text, _) => text.parse().ok().map(Choice::PodCidr),
    }
}

/// Keeps the choice for [`recall`].
fn remember(state_dir: &Path, choice: Choice) {
    let text = match choice {
        Choice::PodCidr(cidr) | Choice::Given(cidr) => cidr.to_string(),
        Choice::NodeIp => NODE_IP.to_owned(),
    };
    if let Err(error) = write_private(&state_dir.join(FILE), text.as_bytes()) {
        warn!(error = &error as &dyn std::error::Error, "The range of pods' addresses is not kept");
    }
}

/// Waits for the Node's podCIDR, as long as the mode allows.
pub(super) async fn choose(
    mode: Network,
    given: Option<Cidr>,
    node: watch::Receiver<Option<Arc<Node>>>,
) -> Choice {
    let found = match mode {
        Network::NodeIp => None,
        Network::PodCidr => Some(pod_cidr(node).await),
        Network::Auto => timeout(PATIENCE, pod_cidr(node)).await.ok(),
    };
    match (found, given) {
        (Some(cidr), _) => Choice::PodCidr(cidr),
        (None, Some(cidr)) if mode != Network::NodeIp => Choice::Given(cidr),
        (None, _) => Choice::NodeIp,
    }
}

/// Waits until the Node has another range than `known`: one that comes late, or, with a Node that
/// was made again, a new one.
pub(super) async fn changed(known: Choice, node: watch::Receiver<Option<Arc<Node>>>) -> Choice {
    let known = match known {
        Choice::PodCidr(cidr) => Some(cidr),
        Choice::Given(_) | Choice::NodeIp => None,
    };
    Choice::PodCidr(cidr_where(node, |cidr| Some(cidr) != known).await)
}

/// The first range of the Node that pods here can have.
async fn pod_cidr(node: watch::Receiver<Option<Arc<Node>>>) -> Cidr {
    cidr_where(node, |_| true).await
}

async fn cidr_where(
    mut node: watch::Receiver<Option<Arc<Node>>>,
    wanted: impl Fn(Cidr) -> bool,
) -> Cidr {
    loop {
        let found = node.borrow_and_update().as_deref().and_then(cidr_of);
        if let Some(cidr) = found.filter(|cidr| wanted(*cidr)) {
            return cidr;
        }
        if node.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn cidr_of(node: &Node) -> Option<Cidr> {
    let spec = node.spec.as_ref()?;
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    // A dual-stack cluster gives two; the runtime knows IPv4.
    all.filter_map(|text| text.parse().ok()).next()
}

/// Tells the runtime, and people where it is not what they expect. Returns when pods can have
/// addresses.
pub(super) async fn apply(
    choice: Choice,
    mode: Network,
    runtime: &Runtime,
    state_dir: &Path,
    notices: &mpsc::UnboundedSender<Notice>,
) {
    let (cidr, said) = match choice {
        Choice::PodCidr(cidr) => (Some(cidr), None),
        Choice::Given(cidr) => (
            Some(cidr),
            Some((
                "PodCidrGiven",
                format!("the cluster gives this node no podCIDR; pods get addresses of {cidr}"),
            )),
        ),
        Choice::NodeIp if mode == Network::NodeIp => (None, None),
        Choice::NodeIp => (
            None,
            Some((
                "NodeIpMode",
                "the cluster gives this node no podCIDR; pods share its address, one per port"
                    .to_owned(),
            )),
        ),
    };
    if let Some((reason, message)) = said {
        warn!("{message}");
        let _ = notices.send(Notice::warning(reason, message));
    }
    let Some(cidr) = cidr else {
        runtime.use_node_ip().await;
        remember(state_dir, choice);
        return;
    };
    let mut told = false;
    while let Err(error) = runtime.set_pod_cidr(cidr).await {
        warn!(error = &error as &dyn std::error::Error, "Pods can have no addresses yet");
        if !told {
            told = true;
            let _ = notices.send(Notice::warning("PodNetworkFailed", with_cause(&error)));
        }
        tokio::time::sleep(RETRY).await;
    }
    remember(state_dir, choice);
}

fn with_cause(error: &RuntimeError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(cidrs: &[&str]) -> Option<Arc<Node>> {
        let spec = serde_json::json!({ "spec": { "podCIDR": cidrs.first(), "podCIDRs": cidrs } });
        Some(Arc::new(serde_json::from_value(spec).expect("a node")))
    }

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("a range")
    }

    #[tokio::test(start_paused = true)]
    async fn a_range_of_the_cluster_goes_before_one_given_by_hand() {
        let (sender, receiver) = watch::channel(None);
        let chosen = tokio::spawn(choose(Network::Auto, Some(cidr("10.9.0.0/24")), receiver));
        tokio::time::sleep(Duration::from_secs(29)).await;
        sender.send_replace(node(&["fd00::/64", "10.244.3.0/24"]));
        assert_eq!(chosen.await.expect("chosen"), Choice::PodCidr(cidr("10.244.3.0/24")));
    }

    #[tokio::test(start_paused = true)]
    async fn after_thirty_seconds_the_node_goes_on_without() {
        let (_sender, receiver) = watch::channel(node(&[]));
        let given = Some(cidr("10.9.0.0/24"));
        assert_eq!(
            choose(Network::Auto, given, receiver.clone()).await,
            Choice::Given(cidr("10.9.0.0/24"))
        );
        assert_eq!(choose(Network::Auto, None, receiver.clone()).await, Choice::NodeIp);
        assert_eq!(choose(Network::NodeIp, given, receiver.clone()).await, Choice::NodeIp);
        let waits =
            timeout(Duration::from_secs(3600), choose(Network::PodCidr, given, receiver)).await;
        assert!(waits.is_err(), "asked to wait, it waits");
    }

    #[test]
    fn a_restarted_agent_goes_on_with_what_it_had() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let recall = |mode| recall(folder.path(), mode);
        assert_eq!(recall(Network::Auto), None);
        remember(folder.path(), Choice::Given(cidr("10.9.0.0/24")));
        assert_eq!(recall(Network::Auto), Some(Choice::PodCidr(cidr("10.9.0.0/24"))));
        assert_eq!(recall(Network::NodeIp), Some(Choice::NodeIp), "what is asked for now counts");
        remember(folder.path(), Choice::NodeIp);
        assert_eq!(recall(Network::Auto), Some(Choice::NodeIp));
        assert_eq!(recall(Network::PodCidr), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_range_that_changes_or_comes_late_is_noticed() {
        let (sender, receiver) = watch::channel(node(&["10.244.3.0/24"]));
        let known = Choice::PodCidr(cidr("10.244.3.0/24"));
        let late = changed(Choice::NodeIp, receiver.clone()).await;
        assert_eq!(late, known);
        let next = tokio::spawn(changed(known, receiver));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!next.is_finished());
        sender.send_replace(None);
        sender.send_replace(node(&["10.244.5.0/24"]));
        assert_eq!(next.await.expect("noticed"), Choice::PodCidr(cidr("10.244.5.0/24")));
    }
}
