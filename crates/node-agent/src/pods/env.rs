//! The environment of a container: `env`, `envFrom`, `valueFrom` and `$(VAR)`.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use k8s_openapi::{
    ByteString,
    api::core::v1::{Container, EnvVarSource, Pod, ResourceFieldSelector},
};

use super::{
    Capacity,
    expand::expand,
    resources,
    seams::{Cluster, ClusterError},
};

/// A setting cannot be had; the container waits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingError {
    /// A ConfigMap or Secret that must be there is not.
    #[error("{kind} {name:?} not found")]
    Missing {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It is there, and the key is not.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// The API server did not give it.
    #[error("{kind} {name:?} cannot be read: {source}")]
    Unreadable {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: ClusterError,
    },
    /// The pod asks for something that makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl Source {
    fn resource(self) -> &'static str {
        match self {
            Source::ConfigMap => "configmap",
            Source::Secret => "secret",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Source::ConfigMap => "ConfigMap",
            Source::Secret => "Secret",
        }
    }
}

type Data = BTreeMap<String, Vec<u8>>;

/// The ConfigMaps and Secrets that a start needs, each read once.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    namespace: String,
    found: HashMap<(Source, String), Result<Data, ClusterError>>,
}

impl Sources {
    /// Reads each of `wanted`.
    pub(crate) async fn read(
        cluster: &dyn Cluster,
        namespace: &str,
        wanted: Vec<(Source, String)>,
    ) -> Self {
        let mut sources = Sources { namespace: namespace.to_owned(), found: HashMap::new() };
        for (source, name) in wanted {
            if sources.found.contains_key(&(source, name.clone())) {
                continue;
            }
            let data = match source {
                Source::ConfigMap => cluster.config_map(namespace, &name).await.map(|map| {
                    let text = map.data.unwrap_or_default();
                    let bytes = map.binary_data.unwrap_or_default();
                    text.into_iter()
                        .map(|(key, value)| (key, value.into_bytes()))
                        .chain(bytes.into_iter().map(|(key, ByteString(value))| (key, value)))
                        .collect()
                }),
                Source::Secret => cluster.secret(namespace, &name).await.map(|secret| {
                    let data = secret.data.unwrap_or_default();
                    data.into_iter().map(|(key, ByteString(value))| (key, value)).collect()
                }),
            };
            sources.found.insert((source, name), data);
        }
        sources
    }

    /// What is in one; `None` when it is optional and not there.
    pub(crate) fn data(
        &self,
        source: Source,
        name: &str,
        optional: bool,
    ) -> Result<Option<&Data>, SettingError> {
        match self.found.get(&(source, name.to_owned())) {
            Some(Ok(data)) => Ok(Some(data)),
            Some(Err(ClusterError::NotFound)) | None if optional => Ok(None),
            Some(Err(ClusterError::NotFound)) | None => {
                Err(SettingError::Missing { kind: source.resource(), name: name.to_owned() })
            }
            Some(Err(error)) => Err(SettingError::Unreadable {
                kind: source.resource(),
                name: name.to_owned(),
                source: error.clone(),
            }),
        }
    }

    /// The error of a key that is not there.
    pub(crate) fn no_key(&self, source: Source, name: &str, key: &str) -> SettingError {
        SettingError::Key {
            kind: source.kind(),
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            key: key.to_owned(),
        }
    }

    fn value(
        &self,
        source: Source,
        name: &str,
        key: &str,
        optional: bool,
    ) -> Result<Option<String>, SettingError> {
        let Some(data) = self.data(source, name, optional)? else { return Ok(None) };
        match data.get(key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if optional => Ok(None),
            None => Err(self.no_key(source, name, key)),
        }
    }
}

/// What a container's environment refers to.
pub(crate) fn references(container: &Container) -> Vec<(Source, String)> {
    let from = container.env_from.iter().flatten().flat_map(|from| {
        let map = from.config_map_ref.as_ref().map(|r| (Source::ConfigMap, r.name.clone()));
        map.into_iter().chain(from.secret_ref.as_ref().map(|r| (Source::Secret, r.name.clone())))
    });
    let single = container.env.iter().flatten().filter_map(|var| var.value_from.as_ref());
    let single = single.flat_map(|from| {
        let map = from.config_map_key_ref.as_ref().map(|r| (Source::ConfigMap, r.name.clone()));
        map.into_iter()
            .chain(from.secret_key_ref.as_ref().map(|r| (Source::Secret, r.name.clone())))
    });
    from.chain(single).collect()
}

/// What `fieldRef` and `resourceFieldRef` can say about the pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// The pod's address.
    pub pod_ip: Option<IpAddr>,
    /// The node's.
    pub host_ip: IpAddr,
    /// What a missing limit stands for.
    pub allocatable: Capacity,
}

/// The environment, and the names in `envFrom` that cannot be names of variables.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    facts: &Facts,
) -> Result<(BTreeMap<String, String>, Vec<String>), SettingError> {
    let mut env = BTreeMap::new();
    let mut skipped = Vec::new();
    for from in container.env_from.iter().flatten() {
        let references = [
            from.config_map_ref.as_ref().map(|r| (Source::ConfigMap, &r.name, r.optional)),
            from.secret_ref.as_ref().map(|r| (Source::Secret, &r.name, r.optional)),
        ];
        for (source, name, optional) in references.into_iter().flatten() {
            let data = sources.data(source, name, optional == Some(true))?;
            for (key, value) in data.into_iter().flatten() {
                let name = format!("{}{key}", from.prefix.as_deref().unwrap_or_default());
                if is_variable_name(&name) {
                    env.insert(name, String::from_utf8_lossy(value).into_owned());
                } else {
                    skipped.push(name);
                }
            }
        }
    }
    for var in container.env.iter().flatten() {
        let plain = var.value.as_deref().filter(|value| !value.is_empty());
        let value = match (plain, &var.value_from) {
            (Some(text), _) => Some(expand(text, |name| env.get(name).map(String::as_str))),
            (None, Some(from)) => value_from(from, pod, container, sources, facts)?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.insert(var.name.clone(), value);
        }
    }
    Ok((env, skipped))
}

/// Printable ASCII without `=`, as Kubernetes allows since 1.32.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}

fn value_from(
    from: &EnvVarSource,
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    facts: &Facts,
) -> Result<Option<String>, SettingError> {
    if let Some(key) = &from.config_map_key_ref {
        let optional = key.optional == Some(true);
        sources.value(Source::ConfigMap, &key.name, &key.key, optional)
    } else if let Some(key) = &from.secret_key_ref {
        sources.value(Source::Secret, &key.name, &key.key, key.optional == Some(true))
    } else if let Some(field) = &from.field_ref {
        field_value(&field.field_path, pod, facts).map(Some)
    } else if let Some(resource) = &from.resource_field_ref {
        resource_value(resource, container, facts).map(Some)
    } else {
        Err(SettingError::Invalid("a valueFrom that names no source".into()))
    }
}

fn field_value(path: &str, pod: &Pod, facts: &Facts) -> Result<String, SettingError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = path
        .strip_suffix("']")
        .and_then(|path| path.strip_prefix("metadata."))
        .and_then(|path| path.split_once("['"))
    {
        let map = match map {
            "labels" => &meta.labels,
            "annotations" => &meta.annotations,
            _ => return Err(SettingError::Invalid(format!("unsupported fieldPath: {path}"))),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let address = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => {
            spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()
        }
        "status.podIP" | "status.podIPs" => address(facts.pod_ip),
        "status.hostIP" | "status.hostIPs" => address(Some(facts.host_ip)),
        _ => return Err(SettingError::Invalid(format!("unsupported fieldPath: {path}"))),
    })
}

fn resource_value(
    field: &ResourceFieldSelector,
    container: &Container,
    facts: &Facts,
) -> Result<String, SettingError> {
    if field.container_name.as_ref().is_some_and(|name| *name != container.name) {
        let name = field.container_name.as_deref().unwrap_or_default();
        return Err(SettingError::Invalid(format!("there is no container {name:?} in this pod")));
    }
    let asked = container.resources.as_ref();
    let limits = asked.and_then(|asked| asked.limits.as_ref());
    let requests = asked.and_then(|asked| asked.requests.as_ref());
    let allocatable = |name: &str| match name {
        "cpu" => u128::from(facts.allocatable.cpu_millis),
        "memory" => u128::from(facts.allocatable.memory_bytes) * 1000,
        _ => 0,
    };
    let unsupported =
        || SettingError::Invalid(format!("unsupported container resource: {}", field.resource));
    let (list, name) = field.resource.split_once('.').ok_or_else(unsupported)?;
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") {
        return Err(unsupported());
    }
    let thousandths = match list {
        "limits" => resources::amount(limits, name).unwrap_or_else(|| allocatable(name)),
        "requests" => resources::amount(requests, name)
            .or(resources::amount(limits, name))
            .unwrap_or_default(),
        _ => return Err(unsupported()),
    };
    let divisor = match &field.divisor {
        Some(divisor) => match resources::millis(&divisor.0) {
            // The API server writes "0" where none was given.
            Some(0) => 1000,
            Some(divisor) if divisor > 0 => divisor.unsigned_abs(),
            _ => {
                return Err(SettingError::Invalid(format!("divisor {} is no quantity", divisor.0)));
            }
        },
        None => 1000,
    };
    Ok(thousandths.div_ceil(divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resolve(container: serde_json::Value) -> Result<BTreeMap<String, String>, SettingError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u", "labels": { "app": "x" } },
            "spec": { "containers": [], "nodeName": "n", "serviceAccountName": "sa" }
        }))
        .expect("a pod");
        let mut container = container;
        container["name"] = json!("app");
        let container: Container = serde_json::from_value(container).expect("a container");
        let mut sources = Sources { namespace: "ns".into(), ..Sources::default() };
        let data: Data = [("a".to_owned(), b"1".to_vec()), ("b=".to_owned(), vec![])].into();
        sources.found.insert((Source::ConfigMap, "map".into()), Ok(data));
        let data: Data = [("key".to_owned(), b"s3cret".to_vec())].into();
        sources.found.insert((Source::Secret, "secret".into()), Ok(data));
        sources.found.insert((Source::ConfigMap, "gone".into()), Err(ClusterError::NotFound));
        let down = ClusterError::Unreachable("timeout".into());
        sources.found.insert((Source::Secret, "down".into()), Err(down));
        let facts = Facts {
            pod_ip: Some([10, 244, 1, 5].into()),
            host_ip: [192, 168, 0, 2].into(),
            allocatable: Capacity { cpu_millis: 3500, memory_bytes: 1 << 30, pods: 10 },
        };
        environment(&pod, &container, &sources, &facts).map(|(env, _)| env)
    }

    #[test]
    fn variables_come_from_everywhere_a_kubelet_takes_them() {
        let env = resolve(json!({
            "envFrom": [
                { "prefix": "P_", "configMapRef": { "name": "map" } },
                { "secretRef": { "name": "secret" } },
                { "configMapRef": { "name": "gone", "optional": true } }
            ],
            "resources": { "limits": { "cpu": "1500m", "memory": "64Mi" } },
            "env": [
                { "name": "PLAIN", "value": "x" },
                { "name": "REF", "value": "$(PLAIN)-$(P_a)-$(LATER)-$$(PLAIN)" },
                { "name": "LATER", "value": "z" },
                { "name": "key", "value": "over" },
                { "name": "EMPTY" },
                { "name": "MAP", "valueFrom": { "configMapKeyRef": { "name": "map", "key": "a" } } },
                { "name": "NOT", "valueFrom": { "configMapKeyRef": { "name": "map", "key": "q", "optional": true } } },
                { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                { "name": "LABEL", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
                { "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
                { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
                { "name": "CPU_M", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "divisor": "1m" } } },
                { "name": "MEM", "valueFrom": { "resourceFieldRef": { "resource": "requests.memory", "divisor": "1Mi" } } }
            ]
        }))
        .expect("an environment");
        let expected = [
            ("P_a", "1"),
            ("key", "over"),
            ("PLAIN", "x"),
            ("REF", "x-1-$(LATER)-$(PLAIN)"),
            ("LATER", "z"),
            ("EMPTY", ""),
            ("MAP", "1"),
            ("IP", "10.244.1.5"),
            ("LABEL", "x"),
            ("NODE", "n"),
            ("CPU", "2"),
            ("CPU_M", "1500"),
            ("MEM", "64"),
        ];
        let expected: BTreeMap<String, String> =
            expected.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        assert_eq!(env, expected);
    }

    #[test]
    fn what_must_be_there_and_is_not_stops_the_start() {
        let from = |source: serde_json::Value| {
            resolve(json!({ "env": [{ "name": "A", "valueFrom": source }] }))
                .expect_err("no environment")
                .to_string()
        };
        for (source, message) in [
            (
                json!({ "configMapKeyRef": { "name": "gone", "key": "a" } }),
                "configmap \"gone\" not found",
            ),
            (
                json!({ "secretKeyRef": { "name": "never-read", "key": "a" } }),
                "secret \"never-read\" not found",
            ),
            (
                json!({ "configMapKeyRef": { "name": "map", "key": "q" } }),
                "couldn't find key q in ConfigMap ns/map",
            ),
            (
                json!({ "secretKeyRef": { "name": "down", "key": "a", "optional": true } }),
                "secret \"down\" cannot be read: timeout",
            ),
            (
                json!({ "fieldRef": { "fieldPath": "spec.tolerations" } }),
                "unsupported fieldPath: spec.tolerations",
            ),
            (
                json!({ "resourceFieldRef": { "resource": "limits.gpu" } }),
                "unsupported container resource: limits.gpu",
            ),
        ] {
            assert_eq!(from(source), message);
        }
    }

    #[test]
    fn a_missing_limit_stands_for_what_the_node_has() {
        let env = resolve(json!({ "env": [
            { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "divisor": "0" } } },
            { "name": "MEM", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Gi" } } },
            { "name": "ASK", "valueFrom": { "resourceFieldRef": { "resource": "requests.cpu" } } }
        ] }))
        .expect("an environment");
        assert_eq!((&*env["CPU"], &*env["MEM"], &*env["ASK"]), ("4", "1", "0"));
    }
}
