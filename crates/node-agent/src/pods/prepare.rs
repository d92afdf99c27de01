//! Everything between an admitted pod and a running container: address, settings, module, start;
//! and what happens when one of them cannot be had.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Container, PodSpec};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::{
    PodsConfig,
    backoff::Backoff,
    env::{self, Facts, SettingError, Source, Sources},
    events::Severity,
    expand::expand,
    probes::{self, ProbeSpec},
    resources,
    running::Run,
    seams::{DockerConfig, Image, ImageError, ImageRequest, PullPolicy, whole_seconds},
    status::{Phase, State},
    volumes,
    worker::{Interrupt, Worker},
};
use crate::runtime::{ContainerSpec, ModuleKind, Mount, PodAddress, PodRef, StartError};

/// How long `ErrImagePull` is shown before it becomes `ImagePullBackOff`.
const FRESH_ERROR: Duration = Duration::from_secs(2);
/// How often settings are looked for again.
const SETTINGS_RETRY: Duration = Duration::from_secs(10);
/// How often an address is asked for again.
const ADDRESS_RETRY: Duration = Duration::from_secs(5);
/// The port of an actor that names none.
const DEFAULT_PORT: u16 = 8080;
/// The value that sets an actor's port.
const PORT: &str = "PORT";
/// The value that sets how many instances an actor has.
const INSTANCES: &str = "GRAPHLET_INSTANCES";

/// Why a container does not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    /// The waiting reason.
    reason: &'static str,
    /// What is wrong.
    message: String,
    /// Reason of the event.
    event: &'static str,
    /// Whether the event is sent again at each try.
    each_time: bool,
    /// When to try again.
    retry: Retry,
    /// What is shown while waiting, when that is something else.
    settled: Option<(&'static str, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// 10 s, doubling to 300 s.
    BackOff,
    /// Always after so long.
    After(Duration),
    /// Only when the pod changes.
    Never,
}

impl Trouble {
    fn setting(error: &SettingError) -> Self {
        Trouble {
            reason: "CreateContainerConfigError",
            message: error.to_string(),
            event: "Failed",
            each_time: false,
            retry: Retry::After(SETTINGS_RETRY),
            settled: None,
        }
    }

    fn mount(volume: &str, message: &str) -> Self {
        Trouble {
            reason: "CreateContainerConfigError",
            message: format!("MountVolume.SetUp failed for volume {volume:?} : {message}"),
            event: "FailedMount",
            each_time: false,
            retry: Retry::After(SETTINGS_RETRY),
            settled: None,
        }
    }

    fn image(reference: &str, error: &ImageError) -> Self {
        let plain = |reason, event, message, retry| Trouble {
            reason,
            message,
            event,
            each_time: false,
            retry,
            settled: None,
        };
        match error {
            ImageError::InvalidName(_) => {
                let message = format!("Failed to read image name {reference:?}: {error}");
                plain("InvalidImageName", "InspectFailed", message, Retry::Never)
            }
            ImageError::NeverPull => {
                let message = format!(
                    "Container image {reference:?} is not present with pull policy of Never"
                );
                plain("ErrImageNeverPull", "ErrImageNeverPull", message, Retry::BackOff)
            }
            ImageError::Untrusted(why) => {
                let message = format!("module {reference:?} is refused: {why}");
                plain(
                    "SignatureValidationFailed",
                    "SignatureValidationFailed",
                    message,
                    Retry::BackOff,
                )
            }
            ImageError::Unusable(why) => {
                let message = format!("module {reference:?} cannot run: {why}");
                plain("CreateContainerError", "Failed", message, Retry::BackOff)
            }
            ImageError::Pull(why) => {
                let message = format!("Failed to pull image {reference:?}: {why}");
                let back_off = format!("Back-off pulling image {reference:?}: {why}");
                Trouble {
                    each_time: true,
                    settled: Some(("ImagePullBackOff", back_off)),
                    ..plain("ErrImagePull", "Failed", message, Retry::BackOff)
                }
            }
        }
    }

    fn start(error: &StartError) -> Self {
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            message = format!("{message}: {source}");
        }
        let conflict = matches!(
            error,
            StartError::AddressTaken { .. } | StartError::AddressUnavailable { .. }
        );
        Trouble {
            reason: "CreateContainerError",
            message,
            event: "Failed",
            each_time: false,
            // An address is free again as soon as whoever holds it ends.
            retry: if conflict { Retry::After(SETTINGS_RETRY) } else { Retry::BackOff },
            settled: None,
        }
    }
}

/// What a start needs besides the module.
struct Settings {
    address: PodAddress,
    env: BTreeMap<String, String>,
    mounts: Vec<Mount>,
    probes: Vec<ProbeSpec>,
}

impl Worker {
    /// Tries until the container runs.
    pub(super) async fn prepare(&mut self) -> Result<(), Interrupt> {
        self.accept_definition();
        self.settle_start().await;
        self.publish();
        let mut backoff = Backoff::for_pulls();
        loop {
            match self.attempt().await? {
                Ok(()) => {
                    self.told = None;
                    return Ok(());
                }
                Err(trouble) => self.sit_out(trouble, &mut backoff).await?,
            }
        }
    }

    /// Shows a trouble and waits until it is worth trying again.
    async fn sit_out(&mut self, trouble: Trouble, backoff: &mut Backoff) -> Result<(), Interrupt> {
        let Trouble { reason, message, event, each_time, retry, settled } = trouble;
        info!(reason, detail = message, "Container waits");
        let tried = Instant::now();
        self.waiting(reason, &message);
        if each_time {
            self.event(Severity::Warning, event, message.clone());
        } else {
            self.tell(Severity::Warning, event, reason, &message);
        }
        self.publish();
        let wait = match retry {
            Retry::BackOff => backoff.wait(),
            Retry::After(wait) => wait,
            Retry::Never => return self.until(std::future::pending()).await,
        };
        if let Some((reason, message)) = settled {
            self.until(sleep(FRESH_ERROR.min(wait))).await?;
            let image = self.container().image.unwrap_or_default();
            self.event(Severity::Normal, "BackOff", format!("Back-off pulling image {image:?}"));
            self.waiting(reason, &message);
            self.publish();
        }
        self.until(sleep(wait.saturating_sub(tried.elapsed()))).await
    }

    /// One try.
    async fn attempt(&mut self) -> Result<Result<(), Trouble>, Interrupt> {
        let container = self.container();
        let settings = match self.settings(&container).await? {
            Ok(settings) => settings,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let image = match self.image(&container).await? {
            Ok(image) => image,
            Err(trouble) => return Ok(Err(trouble)),
        };
        self.start(&container, settings, image).await
    }

    /// Address, environment, volumes, probes.
    async fn settings(
        &mut self,
        container: &Container,
    ) -> Result<Result<Settings, Trouble>, Interrupt> {
        let (containers, pod) = (self.shared.world.containers.clone(), self.pod.clone());
        let address = self.until(async move { containers.address(&pod).await }).await?;
        let address = match address {
            Ok(address) => address,
            Err(error) => {
                return Ok(Err(Trouble {
                    reason: "ContainerCreating",
                    message: format!("no address for the pod: {error}"),
                    event: "FailedCreatePodSandBox",
                    each_time: false,
                    retry: Retry::After(ADDRESS_RETRY),
                    settled: None,
                }));
            }
        };
        if self.report.pod_ip != Some(address.ip) {
            self.report.pod_ip = Some(address.ip);
            self.publish();
        }
        let spec = self.spec();
        let mounted = match volumes::mounted(&spec, container) {
            Ok(mounted) => mounted,
            Err(error) => return Ok(Err(Trouble::setting(&error))),
        };
        let mut wanted = env::references(container);
        wanted.extend(mounted.iter().filter_map(|(volume, _)| volumes::reference(volume)));
        let (cluster, namespace) = (self.shared.world.cluster.clone(), self.pod.namespace.clone());
        let sources =
            self.until(async move { Sources::read(&*cluster, &namespace, wanted).await }).await?;
        let mut mounts = Vec::new();
        for (volume, path) in mounted {
            let written = match volumes::files(volume, &sources) {
                Ok(files) => self.write_volume(&volume.name, files).await?,
                Err(error) => Err(error.to_string()),
            };
            match written {
                Ok(host) => mounts.push(Mount { guest: path.to_owned(), host }),
                Err(message) => return Ok(Err(Trouble::mount(&volume.name, &message))),
            }
        }
        let facts = Facts {
            pod_ip: Some(address.ip),
            host_ip: self.shared.config.node_ip,
            allocatable: self.shared.config.allocatable,
        };
        let probes = probes::specs(container, address.ip);
        let env = env::environment(&self.object.pod, container, &sources, &facts);
        Ok(match (env, probes) {
            (Ok((env, skipped)), Ok(probes)) => {
                if !skipped.is_empty() {
                    let message =
                        format!("Keys {skipped:?} are no names of variables and are skipped");
                    self.event(Severity::Warning, "InvalidEnvironmentVariableNames", message);
                }
                Ok(Settings { address, env, mounts, probes })
            }
            (Err(error), _) | (_, Err(error)) => Err(Trouble::setting(&error)),
        })
    }

    async fn write_volume(
        &mut self,
        name: &str,
        files: BTreeMap<PathBuf, Vec<u8>>,
    ) -> Result<Result<PathBuf, String>, Interrupt> {
        let dir = self.shared.world.containers.volume_dir(&self.pod, name);
        let task = tokio::task::spawn_blocking(move || {
            volumes::write(&dir, &files).map(|()| dir).map_err(|error| error.to_string())
        });
        Ok(match self.until(task).await? {
            Ok(written) => written,
            Err(error) => Err(error.to_string()),
        })
    }

    /// The verified module.
    async fn image(&mut self, container: &Container) -> Result<Result<Image, Trouble>, Interrupt> {
        let reference = container.image.clone().unwrap_or_default();
        let credentials = self.pull_secrets().await?;
        let (config, clock) = (self.shared.config.clone(), self.shared.world.clock.clone());
        let request = ImageRequest {
            policy: pull_policy(container.image_pull_policy.as_deref(), &reference),
            trust: config.trust.policy(&self.pod.namespace, clock.now()),
            reference: reference.clone(),
            credentials,
        };
        let (events, pod, name) =
            (self.shared.events.clone(), self.pod.clone(), container.name.clone());
        let message = format!("Pulling image {reference:?}");
        let asked = std::sync::atomic::AtomicBool::new(false);
        let asking = Box::new(move || {
            if !asked.swap(true, std::sync::atomic::Ordering::Relaxed) {
                events.record(&pod, Some(&name), Severity::Normal, "Pulling", message.clone());
            }
        });
        let images = self.shared.world.images.clone();
        let began = Instant::now();
        let fetched = self.until(async move { images.fetch(request, asking).await }).await?;
        Ok(match fetched {
            Ok(image) => {
                let message = if image.was_present {
                    format!("Container image {reference:?} already present on machine")
                } else {
                    format!(
                        "Successfully pulled image {reference:?} in {:.3?}. Image size: {} bytes.",
                        began.elapsed(),
                        image.size
                    )
                };
                self.event(Severity::Normal, "Pulled", message);
                Ok(image)
            }
            Err(error) => Err(Trouble::image(&reference, &error)),
        })
    }

    /// What the pull secrets hold. One that cannot be read is told of, and does not stop the pull.
    async fn pull_secrets(&mut self) -> Result<Vec<DockerConfig>, Interrupt> {
        let spec = self.spec();
        let names: Vec<String> =
            spec.image_pull_secrets.into_iter().flatten().map(|secret| secret.name).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = names.iter().map(|name| (Source::Secret, name.clone())).collect();
        let (cluster, namespace) = (self.shared.world.cluster.clone(), self.pod.namespace.clone());
        let sources =
            self.until(async move { Sources::read(&*cluster, &namespace, wanted).await }).await?;
        let mut configs = Vec::new();
        let mut missing = Vec::new();
        for name in names {
            let data = sources.data(Source::Secret, &name, false).ok().flatten();
            let json = data.and_then(|data| data.get(".dockerconfigjson"));
            let legacy = data.and_then(|data| data.get(".dockercfg"));
            match (json, legacy) {
                (Some(json), _) => configs.push(DockerConfig::Json(json.clone())),
                (None, Some(legacy)) => configs.push(DockerConfig::Legacy(legacy.clone())),
                (None, None) => missing.push(name),
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may \
                 not succeed.",
                missing.join(", ")
            );
            self.event(Severity::Warning, "FailedToRetrieveImagePullSecret", message);
        }
        Ok(configs)
    }

    async fn start(
        &mut self,
        container: &Container,
        settings: Settings,
        image: Image,
    ) -> Result<Result<(), Trouble>, Interrupt> {
        let ran_before =
            self.report.last.is_some() || matches!(self.report.state, State::Terminated(_));
        let attempt = self.report.restarts + u32::from(ran_before);
        let Settings { address, env, mounts, probes } = settings;
        let request = Composition {
            pod: &self.pod,
            spec: &self.spec(),
            container,
            config: &self.shared.config,
            address: address.ip,
            attempt,
        };
        let spec = match request.compose(&image, env, mounts, &probes) {
            Ok(spec) => spec,
            Err(error) => return Ok(Err(Trouble::setting(&error))),
        };
        let containers = self.shared.world.containers.clone();
        // Not to be cut in the middle: what was begun is ended by `settle_start`.
        let mut starting = tokio::spawn(async move { containers.start(spec).await });
        let started = match self.until(&mut starting).await {
            Ok(started) => started,
            Err(interrupt) => {
                self.starting = Some(starting);
                return Err(interrupt);
            }
        };
        let started = match started {
            Ok(Ok(started)) => started,
            Ok(Err(error)) => return Ok(Err(Trouble::start(&error))),
            Err(join) => {
                let error = SettingError::Invalid(format!("the start was lost: {join}"));
                return Ok(Err(Trouble::setting(&error)));
            }
        };
        info!(container.id = %started.id.0, pid = started.pid, attempt, "Container started");
        self.event(Severity::Normal, "Created", format!("Created container: {}", container.name));
        self.event(Severity::Normal, "Started", format!("Started container {}", container.name));
        let previous = self.forget_earlier_runs(&started.id.0);
        self.leave_state(State::Running { since: whole_seconds(started.started_at) });
        self.report.phase = Phase::Running;
        self.report.restarts = attempt;
        self.report.ready = false;
        self.report.started = false;
        self.report.container_id = Some(format!("graphlet://{}", started.id.0));
        self.report.image_id = image.image_id;
        self.shared.board.runs(&self.pod.uid, &started.id, &image.digest);
        // Its state may have changed since `start` returned; events that came before this line
        // found no run.
        let now = self.shared.world.containers.containers();
        let newest = now.into_iter().find(|one| one.id == started.id).unwrap_or(started);
        self.run = Some(Run::new(self, &newest, probes));
        self.publish();
        for id in previous {
            self.shared.world.containers.remove(&id).await;
        }
        Ok(Ok(()))
    }

    /// Runs of this pod that ended before the one that has just started.
    fn forget_earlier_runs(&self, newest: &str) -> Vec<crate::runtime::ContainerId> {
        let all = self.shared.world.containers.containers();
        all.into_iter()
            .filter(|one| one.spec.pod.uid == self.pod.uid && one.id.0 != newest)
            .map(|one| one.id)
            .collect()
    }
}

/// `imagePullPolicy`, with the API's default.
fn pull_policy(given: Option<&str>, reference: &str) -> PullPolicy {
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
struct Composition<'a> {
    pod: &'a PodRef,
    spec: &'a PodSpec,
    container: &'a Container,
    config: &'a PodsConfig,
    address: IpAddr,
    attempt: u32,
}

impl Composition<'_> {
    fn compose(
        &self,
        image: &Image,
        mut env: BTreeMap<String, String>,
        mounts: Vec<Mount>,
        probes: &[ProbeSpec],
    ) -> Result<ContainerSpec, SettingError> {
        let container = self.container;
        let invalid = |message: String| Err(SettingError::Invalid(message));
        let mut instances = None;
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
    use serde_json::json;

    fn composed(
        kind: ModuleKind,
        container: serde_json::Value,
        env: &[(&str, &str)],
    ) -> Result<ContainerSpec, String> {
        let mut whole = container;
        whole["name"] = json!("app");
        let container: Container = serde_json::from_value(whole).expect("a container");
        let capacity = super::super::Capacity { cpu_millis: 4000, memory_bytes: 1 << 30, pods: 10 };
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
