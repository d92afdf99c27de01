//! The API server behind the seam.

use std::{collections::HashMap, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Event as CoreEvent, Pod, Secret};
use kube::{
    Client, Error,
    api::{
        Api as KubeApi, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams,
    },
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};
use tracing::{debug, warn};

use super::seams::{Cluster, ClusterError, Later, PodNews, PodObject};
use crate::{identity::Api, runtime::PodRef};

/// Longest wait for one answer. A server that does not answer at all is away.
const CALL: Duration = Duration::from_secs(10);
/// News that wait for the manager.
const QUEUE: usize = 64;

/// The API server.
pub(crate) struct KubeCluster {
    api: Api,
}

impl KubeCluster {
    /// By way of the node's identity.
    pub(crate) fn new(api: Api) -> Self {
        KubeCluster { api }
    }

    fn pods(&self, namespace: &str) -> KubeApi<Pod> {
        KubeApi::namespaced(self.api.client(), namespace)
    }
}

/// One call, in bounded time.
async fn call<T>(work: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
    match timeout(CALL, work).await {
        Ok(result) => result.map_err(|error| cluster_error(&error)),
        Err(_) => {
            let seconds = CALL.as_secs();
            Err(ClusterError::Unreachable(format!("no answer within {seconds} s")))
        }
    }
}

fn cluster_error(error: &Error) -> ClusterError {
    match error {
        Error::Api(status) => match status.code {
            404 => ClusterError::NotFound,
            // A precondition on the uid that does not hold, in a DELETE and in a PATCH.
            409 => ClusterError::Replaced,
            // Being asked to slow down, a certificate that is just being renewed, a server in
            // trouble: all pass.
            401 | 429 | 500..=599 => ClusterError::Unreachable(status.message.clone()),
            403 if has_cause(status, NAMESPACE_TERMINATING) => ClusterError::NamespaceEnds,
            _ => ClusterError::Refused(status.message.clone()),
        },
        other => {
            let mut text = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(inner) = cause {
                let inner_text = inner.to_string();
                if !text.contains(&inner_text) {
                    text = format!("{text}: {inner_text}");
                }
                cause = inner.source();
            }
            ClusterError::Unreachable(text)
        }
    }
}

/// The cause the API server's namespace-lifecycle admission gives for what nothing can be added to.
const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";

fn has_cause(status: &kube::core::Status, reason: &str) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == reason)
}

impl Cluster for KubeCluster {
    fn watch(&self) -> mpsc::Receiver<PodNews> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let api = self.api.clone();
        tokio::spawn(async move {
            loop {
                let renewed = api.renewed();
                tokio::select! {
                    () = follow(api.client(), api.node_name(), &sender) => return,
                    // A connection keeps the certificate that it was opened with.
                    () = renewed => debug!("New certificate: the watch of pods is opened again"),
                }
            }
        });
        receiver
    }

    fn patch_status<'a>(
        &'a self,
        pod: &'a PodRef,
        patch: Value,
    ) -> Later<'a, Result<Option<u64>, ClusterError>> {
        Box::pin(async move {
            let pods = self.pods(&pod.namespace);
            let patch = Patch::Strategic(patch);
            let params = PatchParams::default();
            let patched = call(pods.patch_status(&pod.name, &params, &patch)).await?;
            Ok(patched.metadata.resource_version.and_then(|version| version.parse().ok()))
        })
    }

    fn delete<'a>(&'a self, pod: &'a PodRef) -> Later<'a, Result<(), ClusterError>> {
        Box::pin(async move {
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(kube::api::Preconditions {
                    uid: Some(pod.uid.clone()),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            call(self.pods(&pod.namespace).delete(&pod.name, &params)).await.map(drop)
        })
    }

    fn config_map<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> Later<'a, Result<ConfigMap, ClusterError>> {
        Box::pin(async move {
            let maps: KubeApi<ConfigMap> = KubeApi::namespaced(self.api.client(), namespace);
            call(maps.get(name)).await
        })
    }

    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> Later<'a, Result<Secret, ClusterError>> {
        Box::pin(async move {
            let secrets: KubeApi<Secret> = KubeApi::namespaced(self.api.client(), namespace);
            call(secrets.get(name)).await
        })
    }

    fn create_event(&self, event: CoreEvent) -> Later<'_, Result<(), ClusterError>> {
        Box::pin(async move {
            let namespace = event.metadata.namespace.clone().unwrap_or_default();
            let events: KubeApi<CoreEvent> = KubeApi::namespaced(self.api.client(), &namespace);
            call(events.create(&PostParams::default(), &event)).await.map(drop)
        })
    }

    fn patch_event<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        patch: Value,
    ) -> Later<'a, Result<(), ClusterError>> {
        Box::pin(async move {
            let events: KubeApi<CoreEvent> = KubeApi::namespaced(self.api.client(), namespace);
            let patch = Patch::Merge(patch);
            call(events.patch(name, &PatchParams::default(), &patch)).await.map(drop)
        })
    }
}

/// Lists and watches with one client; ends when nobody listens any more.
async fn follow(client: Client, node_name: &str, sender: &mpsc::Sender<PodNews>) {
    let pods = KubeApi::<DynamicObject>::all_with(client, &ApiResource::erase::<Pod>(&()));
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
    let mut stream = std::pin::pin!(watcher::watcher(pods, config).default_backoff());
    let mut listed: HashMap<String, PodObject> = HashMap::new();
    while let Some(event) = stream.next().await {
        let news = match event {
            Ok(Event::Apply(object)) => typed(object).map(|pod| PodNews::Changed(Box::new(pod))),
            Ok(Event::Delete(object)) => object.metadata.uid.map(|uid| PodNews::Gone { uid }),
            Ok(Event::Init) => {
                listed.clear();
                None
            }
            Ok(Event::InitApply(object)) => {
                if let Some(pod) = typed(object)
                    && let Some(uid) = pod.pod.metadata.uid.clone()
                {
                    listed.insert(uid, pod);
                }
                None
            }
            Ok(Event::InitDone) => Some(PodNews::All(listed.drain().map(|(_, pod)| pod).collect())),
            Err(error) => {
                warn!(%error, "The watch of pods is interrupted");
                None
            }
        };
        if let Some(news) = news
            && sender.send(news).await.is_err()
        {
            return;
        }
    }
}

/// A pod with what our types know of it, and its spec as it came.
fn typed(object: DynamicObject) -> Option<PodObject> {
    let DynamicObject { mut metadata, data, .. } = object;
    metadata.managed_fields = None;
    let name = metadata.name.clone();
    let read = || -> serde_json::Result<PodObject> {
        let member = |name: &str| data.get(name).cloned().unwrap_or(Value::Null);
        let pod = Pod {
            metadata,
            spec: serde_json::from_value(member("spec"))?,
            status: serde_json::from_value(member("status"))?,
        };
        Ok(PodObject { pod, spec: member("spec") })
    };
    match read() {
        Ok(pod) => Some(pod),
        Err(error) => {
            warn!(pod.name = name, %error, "A pod cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_keeps_the_fields_that_our_types_do_not_know() {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "p", "uid": "u", "managedFields": [{ "manager": "m" }] },
            "spec": { "containers": [{ "name": "app" }], "fromTheFuture": true }
        }))
        .expect("an object");
        let pod = typed(object).expect("a pod");
        assert_eq!(pod.spec["fromTheFuture"], json!(true));
        assert_eq!(pod.pod.metadata.managed_fields, None);
        assert_eq!(pod.pod.status, None);
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        let error = |code| {
            let status =
                json!({ "status": "Failure", "message": "m", "reason": "r", "code": code });
            let status = serde_json::from_value(status).expect("a status");
            cluster_error(&Error::Api(status))
        };
        assert_eq!(error(404), ClusterError::NotFound);
        assert_eq!(error(409), ClusterError::Replaced);
        assert_eq!(error(403), ClusterError::Refused("m".into()));
        for code in [401, 429, 500, 503, 504] {
            assert_eq!(error(code), ClusterError::Unreachable("m".into()), "code {code}");
        }
    }

    #[test]
    fn a_namespace_that_ends_is_told_from_a_refusal() {
        let status = serde_json::from_value(json!({
            "status": "Failure", "code": 403, "reason": "Forbidden",
            "message": "unable to create new content in namespace n because it is being terminated",
            "details": { "causes": [{ "reason": "NamespaceTerminating", "field": "metadata.namespace" }] }
        }))
        .expect("a status");
        assert_eq!(cluster_error(&Error::Api(status)), ClusterError::NamespaceEnds);
    }
}
