//! Events about the node, as `kubectl describe node` shows them.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::mpsc;
use tracing::debug;

use crate::{
    backoff::Backoff,
    identity::{Api, Notice},
};

/// Name of the agent in events.
const COMPONENT: &str = "graphlet-node";
/// Where events about things without a namespace go.
const NAMESPACE: &str = "default";
/// One call to the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// An event that cannot be posted for about ten minutes is not news any more.
const ATTEMPTS: u32 = 12;

/// Posts notices as events of the node, one after the other, until the senders are gone.
pub async fn post_all(api: Api, mut notices: mpsc::UnboundedReceiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        let event = event(api.node_name(), &notice);
        let mut retry = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for _ in 0..ATTEMPTS {
            let events = kube::Api::<Event>::namespaced(api.client(), NAMESPACE);
            let params = PostParams::default();
            match tokio::time::timeout(CALL_TIMEOUT, events.create(&params, &event)).await {
                Ok(Ok(_)) => break,
                // Refused for good, or there already after an answer that was lost.
                Ok(Err(kube::Error::Api(status)))
                    if matches!(status.code, 400 | 403 | 404 | 409 | 422) =>
                {
                    debug!(
                        reason = notice.reason,
                        code = status.code,
                        "Event of the node is not taken"
                    );
                    break;
                }
                Ok(Err(error)) => {
                    debug!(error = &error as &dyn std::error::Error, "Event of the node waits");
                }
                Err(_) => debug!("Event of the node waits"),
            }
            retry.wait().await;
        }
    }
}

fn event(node: &str, notice: &Notice) -> Event {
    let now = Timestamp::now();
    Event {
        metadata: ObjectMeta {
            // The time makes the name unique, as kubelets do it.
            name: Some(format!("{node}.{:x}", now.as_nanosecond())),
            namespace: Some(NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            kind: Some("Node".into()),
            name: Some(node.into()),
            // Not the object's uid: `kubectl describe node` looks for a kubelet's events by name.
            uid: Some(node.into()),
            ..ObjectReference::default()
        },
        type_: Some(if notice.warning { "Warning" } else { "Normal" }.into()),
        reason: Some(notice.reason.into()),
        message: Some(notice.message.clone()),
        source: Some(EventSource { component: Some(COMPONENT.into()), host: Some(node.into()) }),
        reporting_component: Some(COMPONENT.into()),
        reporting_instance: Some(node.into()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_found_by_describe_and_says_what_happened() {
        let event = event("edge", &Notice::warning("NoPodCidr", "why".into()));
        assert_eq!(event.involved_object.uid.as_deref(), Some("edge"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.reason.as_deref(), Some("NoPodCidr"));
        assert!(event.metadata.name.is_some_and(|name| name.starts_with("edge.")));
    }
}
