//! `/containerLogs`: which pod is meant, and why there is no log, in the words that kubectl shows.

use std::sync::Arc;

use http::StatusCode;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tracing::warn;

use super::request::Refusal;
use crate::runtime::{LogError, PodRef};

/// The pod of that name; of two, the one that is not being deleted.
pub(super) fn find<'a>(
    pods: &'a [Arc<Pod>],
    namespace: &str,
    name: &str,
    container: &str,
) -> Result<&'a Pod, Refusal> {
    let not_found = |text| Refusal::new(StatusCode::NOT_FOUND, text);
    let pod = named(pods, namespace, name)
        .min_by_key(|pod| pod.metadata.deletion_timestamp.is_some())
        .ok_or_else(|| not_found(format!("pod {name:?} does not exist")))?;
    let spec = pod.spec.as_ref();
    if spec.is_some_and(|spec| spec.containers.iter().any(|one| one.name == container)) {
        Ok(pod)
    } else {
        Err(not_found(format!("container {container:?} not found in pod {name:?}")))
    }
}

fn named<'a>(pods: &'a [Arc<Pod>], namespace: &str, name: &str) -> impl Iterator<Item = &'a Pod> {
    pods.iter().map(AsRef::as_ref).filter(move |pod: &&Pod| {
        pod.metadata.namespace.as_deref() == Some(namespace)
            && pod.metadata.name.as_deref() == Some(name)
    })
}

/// How the runtime calls it.
pub(super) fn reference(pod: &Pod) -> PodRef {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    PodRef {
        namespace: text(&pod.metadata.namespace),
        name: text(&pod.metadata.name),
        uid: text(&pod.metadata.uid),
    }
}

/// The first port that the pod declares, for a hint.
pub(super) fn first_port(pods: &[Arc<Pod>], namespace: &str, name: &str) -> i32 {
    named(pods, namespace, name)
        .filter_map(|pod| pod.spec.as_ref())
        .flat_map(|spec| &spec.containers)
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| port.container_port)
        .next()
        .unwrap_or(8080)
}

/// Why there is no log: a container that has not started yet says what it waits for, as kubelets
/// do.
pub(super) fn refusal(pod: &Pod, container: &str, previous: bool, error: &LogError) -> Refusal {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    match error {
        LogError::NotFound { .. } if previous => Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("previous terminated container {container:?} in pod {name:?} not found"),
        ),
        LogError::NotFound { .. } => Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("container {container:?} in pod {name:?} {}", state(pod, container)),
        ),
        LogError::NoPrevious { .. } | LogError::Name(_) => {
            Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
        }
        _ => {
            warn!(pod = name, error = error as &dyn std::error::Error, "Log cannot be read");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the log cannot be read")
        }
    }
}

fn state(pod: &Pod, container: &str) -> String {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
    let status: Option<&ContainerStatus> =
        statuses.unwrap_or_default().iter().find(|status| status.name == container);
    let waiting =
        status.and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    match waiting {
        Some("ErrImagePull") => "is waiting to start: image can't be pulled".into(),
        Some("ImagePullBackOff") => "is waiting to start: trying and failing to pull image".into(),
        Some(reason) => format!("is waiting to start: {reason}"),
        None if status.is_some() => "has written no log".into(),
        None => "is not available".into(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::server) fn pod(name: &str, waiting: Option<&str>) -> Arc<Pod> {
        let state = match waiting {
            Some(reason) => json!({ "waiting": { "reason": reason } }),
            None => json!({ "running": {} }),
        };
        let pod = json!({
            "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}") },
            "spec": { "containers": [{ "name": "actor", "ports": [{ "containerPort": 8081 }] }] },
            "status": {
                "phase": "Running",
                "containerStatuses": [{
                    "name": "actor", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                    "state": state,
                }],
            },
        });
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn an_unknown_pod_or_container_is_404() {
        let pods = [pod("digits", None)];
        assert!(find(&pods, "default", "digits", "actor").is_ok());
        for (namespace, name, container) in
            [("other", "digits", "actor"), ("default", "x", "actor"), ("default", "digits", "x")]
        {
            let refusal = find(&pods, namespace, name, container).expect_err("unknown");
            assert_eq!(refusal.status, StatusCode::NOT_FOUND);
        }
        assert_eq!(first_port(&pods, "default", "digits"), 8081);
        assert_eq!(first_port(&pods, "default", "none"), 8080);
    }

    #[test]
    fn a_container_that_waits_says_what_for() {
        let none = LogError::NotFound { pod: "digits".into(), container: "actor".into() };
        for (waiting, expected) in [
            (Some("ContainerCreating"), "waiting to start: ContainerCreating"),
            (Some("ImagePullBackOff"), "trying and failing to pull image"),
            (Some("SignatureValidationFailed"), "waiting to start: SignatureValidationFailed"),
            (None, "has written no log"),
        ] {
            let refusal = refusal(&pod("digits", waiting), "actor", false, &none);
            assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
            assert!(refusal.text.contains(expected), "{}", refusal.text);
        }
        let refusal = refusal(&pod("digits", None), "actor", true, &none);
        assert!(refusal.text.starts_with("previous terminated container"), "{}", refusal.text);
    }
}
