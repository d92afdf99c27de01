//! Everything between an admitted pod and a running container: address, settings, module, start;
//! and what happens when one of them cannot be had.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::Container;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::{
    backoff::Backoff,
    compose::{Composition, pull_policy},
    env::{self, Facts, SettingError, Source, Sources},
    events::Severity,
    probes::{self, ProbeSpec},
    running::Run,
    seams::{DockerConfig, Image, ImageRequest, whole_seconds},
    status::{Phase, State},
    trouble::{Retry, Trouble},
    volumes,
    worker::{Interrupt, Worker},
};
use crate::runtime::{Mount, PodAddress};

/// How long `ErrImagePull` is shown before it becomes `ImagePullBackOff`.
const FRESH_ERROR: Duration = Duration::from_secs(2);

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
            Err(error) => return Ok(Err(Trouble::address(&error))),
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
