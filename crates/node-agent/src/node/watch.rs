//! The node's own object, followed: its podCIDR comes later than it, and others change its status.

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::mpsc;
use tracing::debug;

use crate::identity::Api;

/// Follows the node's own object; `None` says that it is gone. The watch is opened again with each
/// new certificate.
pub(super) fn own_node(api: Api) -> mpsc::UnboundedReceiver<Option<Node>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let renewed = api.renewed();
            tokio::select! {
                () = sender.closed() => return,
                () = renewed => debug!("Watch of the node is opened again"),
                () = follow(&api, &sender) => {}
            }
        }
    });
    receiver
}

async fn follow(api: &Api, sender: &mpsc::UnboundedSender<Option<Node>>) {
    // A node may watch no other: the field selector is what makes this allowed.
    let config = watcher::Config::default().fields(&format!("metadata.name={}", api.node_name()));
    let nodes = kube::Api::<Node>::all(api.client());
    let events = watcher(nodes, config).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut listed = false;
    while let Some(event) = events.next().await {
        let news = match event {
            Ok(watcher::Event::Init) => {
                listed = false;
                continue;
            }
            Ok(watcher::Event::InitApply(node)) => {
                listed = true;
                Some(node)
            }
            Ok(watcher::Event::Apply(node)) => Some(node),
            Ok(watcher::Event::InitDone) if listed => continue,
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => None,
            Err(error) => {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "Watch of the node is interrupted"
                );
                continue;
            }
        };
        if sender.send(news).is_err() {
            return;
        }
    }
}
