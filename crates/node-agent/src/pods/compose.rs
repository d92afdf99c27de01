//! From what a pod asks to what the runtime starts: ports, arguments, limits, and what a kind of
//! module cannot do.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::{
    PodsConfig,
    env::SettingError,
    expand::expand,
    probes::ProbeSpec,
    resources,
    seams::{Image, PullPolicy},
};
use crate::runtime::{ContainerSpec, ModuleKind, Mount, PodRef};

/// The port of an actor that names none.
const DEFAULT_PORT: u16 = 8080;
/// The value that sets an actor's port.
const PORT: &str = "PORT";
/// The value that sets how many instances an actor has.
const INSTANCES: &str = "GRAPHLET_INSTANCES";
const ISOLATION: &str = "GRAPHLET_ISOLATION";

/// `imagePullPolicy`, with the API's default.
pub(crate) fn pull_policy(given: Option<&str>, reference: &str) -> PullPolicy {
    match given {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some(_) => PullPolicy::IfNotPresent,
        None => {
            let name = reference.rsplit('/').next().unwrap_or_default();
            let latest = name.ends_with(":latest") || !name.contains([':', '@']);
            if latest { PullPolicy::Always } else { PullPolicy::IfNotPresent }
        }
    }
}

/// What becomes of a pod's wishes in a start.
pub(crate) struct Composition<'a> {
    /// Whose container it is.
    pub pod: &'a PodRef,
    /// The pod's spec.
    pub spec: &'a PodSpec,
    /// The container in it.
    pub container: &'a Container,
    /// The node's configuration.
    pub config: &'a PodsConfig,
    /// The pod's address.
    pub address: IpAddr,
    /// Number of the run.
    pub attempt: u32,
}

impl Composition<'_> {
    /// What the runtime is to start, of a module of that kind with that environment.
    ///
    /// # Errors
    /// What makes no sense for such a module, by name.
    pub(crate) fn compose(
        &self,
        image: &Image,
        mut env: BTreeMap<String, String>,
        mounts: Vec<Mount>,
        probes: &[ProbeSpec],
    ) -> Result<ContainerSpec, SettingError> {
        let container = self.container;
        let invalid = |message: String| Err(SettingError::Invalid(message));
        let (mut instances, mut isolated_requests) = (None, false);
        let (mut listen, mut args) = (Vec::new(), Vec::new());
        match image.kind {
            ModuleKind::Actor => {
                if container.args.as_ref().is_some_and(|args| !args.is_empty()) {
                    return invalid(
                        "args are for WASI commands; an actor takes its values from env".into(),
                    );
                }
                if let Some(mount) = mounts.first() {
                    return invalid(format!(
                        "volumeMount {} is for WASI commands; an actor has no files",
                        mount.guest
                    ));
                }
                if let Some(value) = env.remove(INSTANCES) {
                    match value.parse::<u16>() {
                        Ok(number) if number > 0 => instances = Some(number),
                        _ => {
                            return invalid(format!(
                                "{INSTANCES}={value:?} is no number from 1 to 65535"
                            ));
                        }
                    }
                }
                if let Some(value) = env.remove(ISOLATION) {
                    isolated_requests = match value.as_str() {
                        "request" => true,
                        "pooled" => false,
                        _ => {
                            return invalid(format!(
                                "{ISOLATION}={value:?} is neither pooled nor request"
                            ));
                        }
                    };
                }
                let port = self.port(&env)?;
                env.insert(PORT.into(), port.to_string());
                listen = self.listen(port)?;
            }
            ModuleKind::Command => {
                if let Some(probe) = probes.first() {
                    return invalid(format!(
                        "a WASI command serves no port, so its {} probe cannot succeed",
                        probe.kind.name().to_lowercase()
                    ));
                }
                let lookup = |name: &str| env.get(name).map(String::as_str);
                args = container.args.iter().flatten().map(|arg| expand(arg, lookup)).collect();
                let name = self.spec.hostname.as_ref().unwrap_or(&self.pod.name);
                env.entry("HOSTNAME".into()).or_insert_with(|| name.clone());
            }
        }
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        Ok(ContainerSpec {
            pod: self.pod.clone(),
            container: container.name.clone(),
            attempt: self.attempt,
            module: image.path.clone(),
            digest: image.digest.clone(),
            kind: image.kind,
            trust: self.config.trust.for_process(&self.pod.namespace),
            env,
            args,
            mounts,
            listen,
            instances,
            isolated_requests,
            memory_bytes: resources::memory_bytes(limits).filter(|bytes| *bytes > 0),
            cpu_millis: resources::cpu_millis(limits).filter(|millis| *millis > 0),
        })
    }

    /// `PORT`, or the first containerPort, or 8080.
    fn port(&self, env: &BTreeMap<String, String>) -> Result<u16, SettingError> {
        let first = self.container.ports.iter().flatten().next();
        let text = match (env.get(PORT), first) {
            (Some(text), _) => text.clone(),
            (None, Some(port)) => port.container_port.to_string(),
            (None, None) => return Ok(DEFAULT_PORT),
        };
        match text.trim().parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(SettingError::Invalid(format!("{PORT}={text:?} is no port"))),
        }
    }

    /// The pod's address, and the node's for host ports.
    fn listen(&self, port: u16) -> Result<Vec<SocketAddr>, SettingError> {
        let mut listen = vec![SocketAddr::new(self.address, port)];
        for exposed in self.container.ports.iter().flatten() {
            let Some(host_port) = exposed.host_port.filter(|port| *port != 0) else { continue };
            if exposed.container_port != i32::from(port) {
                return Err(SettingError::Invalid(format!(
                    "hostPort {host_port} leads to port {}, but the actor answers on {port}",
                    exposed.container_port
                )));
            }
            let host_port = u16::try_from(host_port)
                .map_err(|_| SettingError::Invalid(format!("hostPort {host_port} is no port")))?;
            let given = exposed.host_ip.as_deref().filter(|ip| !ip.is_empty());
            let ip = match given.map(str::parse::<IpAddr>) {
                None => self.config.node_ip,
                Some(Ok(ip)) if ip.is_unspecified() => self.config.node_ip,
                Some(Ok(ip)) => ip,
                Some(Err(_)) => {
                    let text = given.unwrap_or_default();
                    return Err(SettingError::Invalid(format!("hostIP {text:?} is no address")));
                }
            };
            listen.push(SocketAddr::new(ip, host_port));
        }
        let mut seen = BTreeSet::new();
        listen.retain(|address| seen.insert(*address));
        Ok(listen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::probes;
    use serde_json::json;

    fn composed(
        kind: ModuleKind,
        container: serde_json::Value,
        env: &[(&str, &str)],
    ) -> Result<ContainerSpec, String> {
        let mut whole = container;
        whole["name"] = json!("app");
        let container: Container = serde_json::from_value(whole).expect("a container");
        let capacity = crate::pods::Capacity { cpu_millis: 4000, memory_bytes: 1 << 30, pods: 10 };
        let config = PodsConfig::new([192, 168, 0, 2].into(), capacity);
        let pod = PodRef { namespace: "ns".into(), name: "p".into(), uid: "u".into() };
        let image = Image {
            path: "/m".into(),
            digest: "sha256:0".into(),
            image_id: "r/m@sha256:1".into(),
            size: 1,
            kind,
            was_present: true,
        };
        let address = [10, 244, 1, 5].into();
        let probes = probes::specs(&container, address).expect("probes");
        let env = env.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Composition {
            pod: &pod,
            spec: &PodSpec::default(),
            container: &container,
            config: &config,
            address,
            attempt: 0,
        }
        .compose(&image, env, Vec::new(), &probes)
        .map_err(|error| error.to_string())
    }

    fn listens(spec: &ContainerSpec) -> Vec<String> {
        spec.listen.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_actors_port_comes_from_env_then_from_its_ports() {
        let ports = json!({ "ports": [{ "containerPort": 9000 }] });
        for (container, env, port) in [
            (json!({}), vec![], 8080),
            (ports.clone(), vec![], 9000),
            (ports, vec![("PORT", "7000")], 7000),
        ] {
            let spec = composed(ModuleKind::Actor, container, &env).expect("a spec");
            assert_eq!(listens(&spec), [format!("10.244.1.5:{port}")]);
            assert_eq!(spec.env["PORT"], port.to_string());
        }
        assert!(composed(ModuleKind::Actor, json!({}), &[("PORT", "http")]).is_err());
    }

    #[test]
    fn a_host_port_listens_on_the_node_too() {
        let container = json!({ "ports": [{ "containerPort": 8080, "hostPort": 80 }] });
        let spec = composed(ModuleKind::Actor, container.clone(), &[]).expect("a spec");
        assert_eq!(listens(&spec), ["10.244.1.5:8080", "192.168.0.2:80"]);
        let error =
            composed(ModuleKind::Actor, container, &[("PORT", "81")]).expect_err("leads nowhere");
        assert_eq!(error, "hostPort 80 leads to port 8080, but the actor answers on 81");
    }

    #[test]
    fn a_command_gets_arguments_and_no_port() {
        let container = json!({ "args": ["--to", "$(TO)", "$(UNKNOWN)"],
            "resources": { "limits": { "cpu": "200m", "memory": "64Mi" } } });
        let spec = composed(ModuleKind::Command, container, &[("TO", "x")]).expect("a spec");
        assert_eq!(spec.args, ["--to", "x", "$(UNKNOWN)"]);
        assert!(spec.listen.is_empty());
        assert_eq!((spec.cpu_millis, spec.memory_bytes), (Some(200), Some(64 << 20)));
        assert_eq!(spec.env["HOSTNAME"], "p");
    }

    #[test]
    fn what_a_kind_of_module_cannot_do_is_said_by_name() {
        let probe = json!({ "livenessProbe": { "tcpSocket": { "port": 1 } } });
        let error = composed(ModuleKind::Command, probe, &[]).expect_err("a probe");
        assert!(error.contains("liveness probe cannot succeed"), "{error}");
        let error = composed(ModuleKind::Actor, json!({ "args": ["x"] }), &[]).expect_err("args");
        assert!(error.contains("args are for WASI commands"), "{error}");
        let error = composed(ModuleKind::Actor, json!({}), &[("GRAPHLET_INSTANCES", "0")])
            .expect_err("none");
        assert!(error.contains("GRAPHLET_INSTANCES"), "{error}");
        let isolation = |value| composed(ModuleKind::Actor, json!({}), &[(ISOLATION, value)]);
        let spec = isolation("request").expect("a spec");
        assert!(spec.isolated_requests && !spec.env.contains_key(ISOLATION));
        assert!(!isolation("pooled").expect("a spec").isolated_requests);
        let error = isolation("none").expect_err("no such isolation");
        assert_eq!(error, "GRAPHLET_ISOLATION=\"none\" is neither pooled nor request");
    }

    #[test]
    fn a_missing_pull_policy_follows_the_tag() {
        for (reference, policy) in [
            ("r:5000/m", PullPolicy::Always),
            ("r:5000/m:latest", PullPolicy::Always),
            ("r:5000/m:v1", PullPolicy::IfNotPresent),
            ("r/m@sha256:0", PullPolicy::IfNotPresent),
        ] {
            assert_eq!(pull_policy(None, reference), policy, "{reference}");
        }
    }
}
