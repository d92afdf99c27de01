//! Whether a pod can run here at all: the walk over its spec with [`POD_SPEC_FIELDS`] and the few
//! rules that a table cannot hold.
//!
//! [`POD_SPEC_FIELDS`]: super::POD_SPEC_FIELDS

use k8s_openapi::api::core::v1::{Pod, PodSpec, Volume};
use serde_json::Value;

use super::{
    fields::{self, Class, Values},
    seams::PodObject,
};

/// Waiting reason of a pod that asks for what is not done here.
pub(crate) const UNSUPPORTED: &str = "UnsupportedPodSpec";
/// Waiting reason of a DaemonSet's pod that tolerates everything and was not meant for this node.
pub(crate) const NOT_MEANT: &str = "NotForThisNode";
/// Further links of an actor; not carried out.
const LINKS_ANNOTATION: &str = "graphlet.dev/links";
/// The node label that says a pod was meant for WebAssembly, and its values' beginning.
const ARCH_LABEL: &str = "kubernetes.io/arch";
const WASM: &str = "wasm32";
/// The RuntimeClass that does the same.
const RUNTIME_CLASS: &str = "graphlet";
/// As many reasons as fit into one message that a person reads.
const MAX_REASONS: usize = 8;

/// A pod does not run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The waiting reason, and the reason of the event.
    pub reason: &'static str,
    /// What is refused, field by field.
    pub message: String,
    /// Whether anybody has to do something about it.
    pub quiet: bool,
}

/// Looks at everything a pod asks.
pub(crate) fn admit(object: &PodObject) -> Result<(), Refusal> {
    let Some(spec) = &object.pod.spec else {
        return Err(unsupported(vec!["spec: missing".into()]));
    };
    if stray_daemon(&object.pod, spec) {
        return Err(Refusal {
            reason: NOT_MEANT,
            message:
                "this node runs WebAssembly modules only; the DaemonSet tolerates every taint \
                      and comes to every node"
                    .into(),
            quiet: true,
        });
    }
    let mut found = Vec::new();
    if spec.containers.len() > 1 {
        found.push(format!(
            "spec.containers: {} of them, a pod here is one module",
            spec.containers.len()
        ));
    }
    walk(&object.spec, "", "spec", &mut found);
    for volume in spec.volumes.iter().flatten() {
        if volume.projected.is_some() && !is_api_access(volume) {
            found.push(format!(
                "spec.volumes[{}].projected: volumes are ConfigMaps and Secrets",
                volume.name
            ));
        }
    }
    if object.pod.metadata.annotations.iter().flatten().any(|(key, _)| key == LINKS_ANNOTATION) {
        found.push(format!(
            "annotation {LINKS_ANNOTATION}: an actor is linked to the HTTP server and to logging only"
        ));
    }
    if found.is_empty() { Ok(()) } else { Err(unsupported(found)) }
}

fn unsupported(mut found: Vec<String>) -> Refusal {
    let more = found.len().saturating_sub(MAX_REASONS);
    found.truncate(MAX_REASONS);
    let mut message = format!("this node does not support {}", found.join("; "));
    if more > 0 {
        message.push_str(&format!("; and {more} more"));
    }
    Refusal { reason: UNSUPPORTED, message, quiet: false }
}

/// The volume that admission adds to every pod, and which nothing here mounts: a token, the
/// cluster's certificate, the namespace.
pub(crate) fn is_api_access(volume: &Volume) -> bool {
    volume.name.starts_with("kube-api-access-")
        && volume.projected.as_ref().is_some_and(|projected| {
            projected.sources.iter().flatten().all(|source| {
                source.secret.is_none()
                    && source.cluster_trust_bundle.is_none()
                    && source.config_map.as_ref().is_none_or(|map| map.name == "kube-root-ca.crt")
            })
        })
}

/// kube-proxy, kindnet and their like: a DaemonSet whose pods tolerate everything, and which does
/// not ask for a WebAssembly node.
fn stray_daemon(pod: &Pod, spec: &PodSpec) -> bool {
    let daemon = pod
        .metadata
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.kind == "DaemonSet" && owner.controller == Some(true));
    let tolerates_all = spec.tolerations.iter().flatten().any(|toleration| {
        toleration.operator.as_deref() == Some("Exists")
            && toleration.key.as_deref().is_none_or(str::is_empty)
    });
    let selected = spec.runtime_class_name.as_deref() == Some(RUNTIME_CLASS)
        || spec
            .node_selector
            .iter()
            .flatten()
            .any(|(key, value)| key == ARCH_LABEL && value.starts_with(WASM));
    daemon && tolerates_all && !selected
}

/// Compares what stands in `value` with the table. `path` is the table's, `shown` what a person
/// reads.
fn walk(value: &Value, path: &str, shown: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let dot = if path.is_empty() { "" } else { "." };
                visit(inner, &format!("{path}{dot}{key}"), &format!("{shown}.{key}"), found);
            }
        }
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                walk(inner, &format!("{path}[]"), &format!("{shown}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// One field.
fn visit(value: &Value, path: &str, shown: &str, found: &mut Vec<String>) {
    if is_nothing(value) {
        return;
    }
    let Some(field) = fields::field(path) else {
        found.push(format!("{shown}: not known here"));
        return;
    };
    let accepted = match field.values {
        Values::Any => field.class != Class::Refused,
        Values::Only(accepted) => accepted.contains(&plain(value).as_str()),
        Values::NotZero => value.as_i64() != Some(0),
    };
    if !accepted {
        let asked = match value {
            Value::Array(_) | Value::Object(_) => String::new(),
            _ if field.class == Class::Refused => String::new(),
            _ => format!(" {}", plain(value)),
        };
        found.push(format!("{shown}{asked}: {}", field.note));
    } else if fields::has_inner(path) {
        walk(value, path, shown, found);
    }
}

/// Whether a field asks for nothing. An object counts even when it is empty: `emptyDir: {}`.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: Value) -> PodObject {
        let whole = json!({ "metadata": { "name": "p", "namespace": "d" }, "spec": spec });
        PodObject { pod: serde_json::from_value(whole).expect("a pod"), spec }
    }

    fn plain_pod() -> Value {
        json!({ "containers": [{ "name": "app", "image": "r/m:v1" }] })
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut spec = plain_pod();
        let mut place = &mut spec;
        for part in pointer.split('.') {
            place = match part.parse::<usize>() {
                Ok(index) => &mut place[index],
                Err(_) => &mut place[part],
            };
        }
        *place = value;
        spec
    }

    #[test]
    fn what_admission_adds_and_the_sandbox_keeps_is_accepted() {
        let spec = json!({
            "containers": [{
                "name": "app", "image": "localhost:5000/graphlet/digits:v1",
                "imagePullPolicy": "IfNotPresent",
                "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }],
                "resources": { "limits": { "cpu": "1", "memory": "256Mi" }, "requests": { "cpu": "100m" } },
                "readinessProbe": { "httpGet": { "path": "/healthz", "port": "http", "scheme": "HTTP" },
                    "timeoutSeconds": 1, "periodSeconds": 2, "successThreshold": 1, "failureThreshold": 3 },
                "livenessProbe": { "tcpSocket": { "port": 8080 } },
                "securityContext": { "allowPrivilegeEscalation": false, "runAsNonRoot": true, "privileged": false,
                    "runAsUser": 1000, "capabilities": { "drop": ["ALL"], "add": [] },
                    "readOnlyRootFilesystem": true, "seccompProfile": { "type": "RuntimeDefault" } },
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "volumeMounts": [{ "name": "kube-api-access-x", "readOnly": true,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }],
                "lifecycle": { "preStop": { "sleep": { "seconds": 2 } } }
            }],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "hostNetwork": false,
            "nodeName": "wasm-1", "preemptionPolicy": "PreemptLowerPriority", "priority": 0,
            "restartPolicy": "Always", "runtimeClassName": "graphlet", "schedulerName": "default-scheduler",
            "securityContext": {}, "serviceAccount": "default", "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 30,
            "tolerations": [{ "key": "a", "operator": "Exists" }],
            "nodeSelector": { "kubernetes.io/arch": "wasm32-wascc" },
            "volumes": [{ "name": "kube-api-access-x", "projected": { "defaultMode": 420, "sources": [
                { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                { "configMap": { "items": [{ "key": "ca.crt", "path": "ca.crt" }], "name": "kube-root-ca.crt" } },
                { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "fieldPath": "metadata.namespace" } }] } }
            ] } }]
        });
        assert_eq!(admit(&pod(spec)), Ok(()));
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (place, value, named) in [
            ("initContainers", json!([{ "name": "i", "image": "x" }]), "spec.initContainers:"),
            (
                "ephemeralContainers",
                json!([{ "name": "i", "image": "x" }]),
                "spec.ephemeralContainers:",
            ),
            ("hostNetwork", json!(true), "spec.hostNetwork:"),
            ("hostPID", json!(true), "spec.hostPID:"),
            ("hostIPC", json!(true), "spec.hostIPC:"),
            ("shareProcessNamespace", json!(true), "spec.shareProcessNamespace:"),
            ("os", json!({ "name": "linux" }), "spec.os:"),
            ("containers.0.command", json!(["sh"]), "spec.containers[0].command:"),
            ("containers.0.workingDir", json!("/x"), "spec.containers[0].workingDir:"),
            ("containers.0.tty", json!(true), "spec.containers[0].tty:"),
            (
                "containers.0.securityContext",
                json!({ "privileged": true }),
                "securityContext.privileged:",
            ),
            (
                "containers.0.securityContext",
                json!({ "capabilities": { "add": ["NET_ADMIN"] } }),
                "capabilities.add:",
            ),
            ("containers.0.securityContext", json!({ "runAsUser": 0 }), "runAsUser 0:"),
            (
                "containers.0.securityContext",
                json!({ "seccompProfile": { "type": "Unconfined" } }),
                "seccompProfile.type Unconfined:",
            ),
            (
                "containers.0.livenessProbe",
                json!({ "exec": { "command": ["x"] } }),
                "livenessProbe.exec:",
            ),
            ("containers.0.startupProbe", json!({ "grpc": { "port": 1 } }), "startupProbe.grpc:"),
            (
                "containers.0.readinessProbe",
                json!({ "httpGet": { "port": 1, "host": "10.0.0.1" } }),
                "readinessProbe.httpGet.host:",
            ),
            (
                "containers.0.readinessProbe",
                json!({ "httpGet": { "port": 1, "scheme": "HTTPS" } }),
                "readinessProbe.httpGet.scheme HTTPS:",
            ),
            (
                "containers.0.lifecycle",
                json!({ "postStart": { "sleep": { "seconds": 1 } } }),
                "lifecycle.postStart:",
            ),
            (
                "containers.0.lifecycle",
                json!({ "preStop": { "exec": { "command": ["x"] } } }),
                "preStop.exec:",
            ),
            (
                "containers.0.ports",
                json!([{ "containerPort": 53, "protocol": "UDP" }]),
                "ports[0].protocol UDP:",
            ),
            (
                "containers.0.resources",
                json!({ "limits": { "nvidia.com/gpu": "1" } }),
                "limits.nvidia.com/gpu: not known",
            ),
            ("volumes", json!([{ "name": "v", "emptyDir": {} }]), "volumes[0].emptyDir:"),
            (
                "volumes",
                json!([{ "name": "v", "hostPath": { "path": "/" } }]),
                "volumes[0].hostPath:",
            ),
            (
                "volumes",
                json!([{ "name": "v", "projected": { "sources": [] } }]),
                "volumes[v].projected:",
            ),
            (
                "inventedInANewerRelease",
                json!({ "x": 1 }),
                "spec.inventedInANewerRelease: not known",
            ),
        ] {
            let refusal = admit(&pod(with(place, value.clone()))).expect_err(place);
            assert_eq!(refusal.reason, UNSUPPORTED);
            assert!(refusal.message.contains(named), "{place} = {value}: {}", refusal.message);
        }
    }

    #[test]
    fn a_second_container_is_refused() {
        let spec = json!({ "containers": [{ "name": "a" }, { "name": "b" }] });
        let refusal = admit(&pod(spec)).expect_err("two containers");
        assert!(refusal.message.contains("spec.containers: 2 of them"), "{}", refusal.message);
    }

    #[test]
    fn a_secret_cannot_hide_in_the_volume_that_admission_adds() {
        let spec = with(
            "volumes",
            json!([{ "name": "kube-api-access-x", "projected": { "sources": [{ "secret": { "name": "s" } }] } }]),
        );
        assert!(admit(&pod(spec)).is_err());
    }

    #[test]
    fn a_daemon_that_tolerates_everything_is_refused_quietly_unless_it_chose_this_node() {
        let mut spec = with("tolerations", json!([{ "operator": "Exists" }]));
        let daemon = |spec: &Value| {
            let mut object = pod(spec.clone());
            object.pod.metadata.owner_references = Some(vec![
                serde_json::from_value(json!({ "apiVersion": "apps/v1", "kind": "DaemonSet",
                    "name": "kube-proxy", "uid": "1", "controller": true }))
                .expect("an owner"),
            ]);
            object
        };
        let refusal = admit(&daemon(&spec)).expect_err("a stray daemon");
        assert_eq!((refusal.reason, refusal.quiet), (NOT_MEANT, true));
        assert_eq!(admit(&pod(spec.clone())), Ok(()), "not a DaemonSet's");
        spec["runtimeClassName"] = json!("graphlet");
        assert_eq!(admit(&daemon(&spec)), Ok(()));
    }
}
