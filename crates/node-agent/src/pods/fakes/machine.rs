//! Processes, modules and probes for tests.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::locked;
use crate::{
    pods::seams::{
        Asking, Cause, Clock, Containers, Image, ImageError, ImageRequest, Images, Later,
        ProbeAction, Prober,
    },
    runtime::{
        Container, ContainerEvent, ContainerId, ContainerSpec, ContainerState, Exit, ModuleKind,
        PodAddress, PodRef, StartError, Usage,
    },
};

struct Machine {
    containers: Vec<Container>,
    calls: Vec<(u64, String)>,
    start_errors: VecDeque<StartError>,
    ready_after: Option<Duration>,
    start_takes: Duration,
    stop_takes: Duration,
    runs: u32,
    used: u64,
}

/// Processes.
pub(crate) struct FakeContainers {
    machine: Mutex<Machine>,
    events: mpsc::UnboundedSender<ContainerEvent>,
    clock: Clock,
    began: Instant,
    volumes: tempfile::TempDir,
}

impl FakeContainers {
    /// A machine on which actors answer after a second and end at once.
    pub(crate) fn new(events: mpsc::UnboundedSender<ContainerEvent>, clock: Clock) -> Arc<Self> {
        Arc::new(FakeContainers {
            machine: Mutex::new(Machine {
                containers: Vec::new(),
                calls: Vec::new(),
                start_errors: VecDeque::new(),
                ready_after: Some(Duration::from_secs(1)),
                start_takes: Duration::ZERO,
                stop_takes: Duration::ZERO,
                runs: 0,
                used: 0,
            }),
            events,
            clock,
            began: Instant::now(),
            volumes: tempfile::tempdir().expect("a folder"),
        })
    }

    /// The processes of `other` run here, under a new agent.
    pub(crate) fn inherit(&self, other: &FakeContainers) {
        let kept = locked(&other.machine).containers.clone();
        let mut machine = locked(&self.machine);
        machine.runs = 100;
        machine.containers = kept;
    }

    fn note(&self, call: String) {
        let at = self.began.elapsed().as_secs();
        locked(&self.machine).calls.push((at, call));
    }

    /// What was asked for, with the second of it.
    pub(crate) fn calls(&self) -> Vec<(u64, String)> {
        locked(&self.machine).calls.clone()
    }

    /// When runs were started.
    pub(crate) fn starts(&self) -> Vec<u64> {
        let calls = self.calls();
        calls.iter().filter(|(_, call)| call.starts_with("start")).map(|(at, _)| *at).collect()
    }

    pub(crate) fn newest(&self, pod: &str) -> Option<Container> {
        let machine = locked(&self.machine);
        machine.containers.iter().rfind(|container| container.spec.pod.name == pod).cloned()
    }

    pub(crate) fn set_ready_after(&self, after: Option<Duration>) {
        locked(&self.machine).ready_after = after;
    }

    pub(crate) fn set_start_takes(&self, time: Duration) {
        locked(&self.machine).start_takes = time;
    }

    pub(crate) fn set_stop_takes(&self, time: Duration) {
        locked(&self.machine).stop_takes = time;
    }

    pub(crate) fn set_used(&self, bytes: u64) {
        locked(&self.machine).used = bytes;
    }

    pub(crate) fn fail_start(&self, error: StartError) {
        locked(&self.machine).start_errors.push_back(error);
    }

    fn ready(&self, id: &ContainerId) {
        let mut machine = locked(&self.machine);
        let found = machine.containers.iter_mut().find(|container| container.id == *id);
        if let Some(container) = found.filter(|one| one.state == ContainerState::Starting) {
            container.state = ContainerState::Running;
            self.events.send(ContainerEvent::Ready(id.clone())).ok();
        }
    }

    /// The process ends.
    pub(crate) fn exit(&self, id: &ContainerId, code: i32, reason: &str) {
        let mut machine = locked(&self.machine);
        let found = machine.containers.iter_mut().find(|container| container.id == *id);
        let alive = |one: &&mut Container| !matches!(one.state, ContainerState::Exited(_));
        if let Some(container) = found.filter(alive) {
            let exit = Exit {
                code,
                reason: reason.into(),
                message: String::new(),
                finished_at: self.clock.now(),
            };
            container.state = ContainerState::Exited(exit.clone());
            self.events.send(ContainerEvent::Exited(id.clone(), exit)).ok();
        }
    }
}

/// So that tasks of the fake can hold it.
pub(crate) struct Machines(pub(crate) Arc<FakeContainers>);

impl Containers for Machines {
    fn containers(&self) -> Vec<Container> {
        locked(&self.0.machine).containers.clone()
    }

    fn address<'a>(&'a self, pod: &'a PodRef) -> Later<'a, Result<PodAddress, Cause>> {
        Box::pin(async move {
            let last =
                pod.uid.bytes().fold(1u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
            Ok(PodAddress { ip: Ipv4Addr::new(10, 244, 1, last).into(), shared_with_node: false })
        })
    }

    fn release_address<'a>(&'a self, pod: &'a PodRef) -> Later<'a, ()> {
        Box::pin(async move { self.0.note(format!("release {}", pod.name)) })
    }

    fn start(&self, spec: ContainerSpec) -> Later<'_, Result<Container, StartError>> {
        Box::pin(async move {
            let takes = locked(&self.0.machine).start_takes;
            sleep(takes).await;
            self.0.note(format!("start {} {}", spec.pod.name, spec.attempt));
            let mut machine = locked(&self.0.machine);
            if let Some(error) = machine.start_errors.pop_front() {
                return Err(error);
            }
            machine.runs += 1;
            let container = Container {
                id: ContainerId(format!("run-{}", machine.runs)),
                pid: machine.runs,
                started_at: self.0.clock.now(),
                state: match spec.kind {
                    ModuleKind::Actor => ContainerState::Starting,
                    ModuleKind::Command => ContainerState::Running,
                },
                spec,
            };
            machine.containers.push(container.clone());
            if let Some(after) = machine.ready_after {
                let (fake, id) = (self.0.clone(), container.id.clone());
                tokio::spawn(async move {
                    sleep(after).await;
                    fake.ready(&id);
                });
            }
            Ok(container)
        })
    }

    fn drain<'a>(&'a self, id: &'a ContainerId) -> Later<'a, ()> {
        Box::pin(async move { self.0.note(format!("drain {}", id.0)) })
    }

    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> Later<'a, ()> {
        Box::pin(async move {
            self.0.note(format!("stop {} {}", id.0, grace.as_secs()));
            let takes = locked(&self.0.machine).stop_takes;
            let (fake, id) = (self.0.clone(), id.clone());
            tokio::spawn(async move {
                sleep(takes.min(grace)).await;
                let killed = takes > grace;
                fake.exit(
                    &id,
                    if killed { 137 } else { 0 },
                    if killed { "Error" } else { "Completed" },
                );
            });
        })
    }

    fn kill<'a>(&'a self, id: &'a ContainerId) -> Later<'a, ()> {
        Box::pin(async move {
            self.0.note(format!("kill {}", id.0));
            self.0.exit(id, 137, "Error");
        })
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> Later<'a, ()> {
        Box::pin(async move {
            self.0.note(format!("remove {}", id.0));
            locked(&self.0.machine).containers.retain(|container| container.id != *id);
        })
    }

    fn remove_pod<'a>(&'a self, pod: &'a PodRef) -> Later<'a, ()> {
        Box::pin(async move {
            self.0.note(format!("remove_pod {}", pod.name));
            locked(&self.0.machine).containers.retain(|container| container.spec.pod != *pod);
        })
    }

    fn retain_pods(&self, uids: BTreeSet<String>) -> Later<'_, ()> {
        Box::pin(async move {
            locked(&self.0.machine)
                .containers
                .retain(|container| uids.contains(&container.spec.pod.uid));
        })
    }

    fn usage(&self, _id: &ContainerId) -> Option<Usage> {
        let used = locked(&self.0.machine).used;
        Some(Usage { working_set_bytes: used, ..Usage::default() })
    }

    fn volume_dir(&self, pod: &PodRef, name: &str) -> PathBuf {
        self.0.volumes.path().join(&pod.uid).join(name)
    }
}

/// Modules.
pub(crate) struct FakeImages {
    answers: Mutex<HashMap<String, Result<ModuleKind, ImageError>>>,
    takes: Mutex<Duration>,
    asked: Mutex<Vec<u64>>,
    began: Instant,
}

impl FakeImages {
    /// Every reference is an actor, fetched at once.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(FakeImages {
            answers: Mutex::default(),
            takes: Mutex::new(Duration::ZERO),
            asked: Mutex::default(),
            began: Instant::now(),
        })
    }

    pub(crate) fn set(&self, reference: &str, answer: Result<ModuleKind, ImageError>) {
        locked(&self.answers).insert(reference.into(), answer);
    }

    pub(crate) fn set_takes(&self, time: Duration) {
        *locked(&self.takes) = time;
    }

    /// When it was asked for.
    pub(crate) fn asked(&self) -> Vec<u64> {
        locked(&self.asked).clone()
    }
}

impl Images for FakeImages {
    fn fetch(&self, request: ImageRequest, asking: Asking) -> Later<'_, Result<Image, ImageError>> {
        Box::pin(async move {
            locked(&self.asked).push(self.began.elapsed().as_secs());
            asking();
            let takes = *locked(&self.takes);
            sleep(takes).await;
            let answer = locked(&self.answers).get(&request.reference).cloned();
            let kind = answer.unwrap_or(Ok(ModuleKind::Actor))?;
            let (repository, tag) = request.reference.rsplit_once(':').expect("a tag");
            Ok(Image {
                path: "/modules/m".into(),
                digest: format!("sha256:{tag}"),
                image_id: format!("{repository}@sha256:manifest-{tag}"),
                size: 1000,
                kind,
                was_present: false,
            })
        })
    }

    fn image_id<'a>(&'a self, reference: &'a str, _digest: &'a str) -> Later<'a, Option<String>> {
        Box::pin(async move { Some(format!("from-cache:{reference}")) })
    }

    fn collect_garbage(&self, _digests: Vec<String>, _budget: u64) -> Later<'_, ()> {
        Box::pin(async {})
    }
}

/// Probes, by path.
pub(crate) struct FakeProber {
    answers: Mutex<HashMap<String, Result<(), String>>>,
    asked: Mutex<Vec<String>>,
}

impl FakeProber {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(FakeProber { answers: Mutex::default(), asked: Mutex::default() })
    }

    pub(crate) fn set(&self, path: &str, answer: Result<(), String>) {
        locked(&self.answers).insert(path.into(), answer);
    }

    pub(crate) fn asked(&self, path: &str) -> usize {
        locked(&self.asked).iter().filter(|asked| *asked == path).count()
    }
}

impl Prober for FakeProber {
    fn probe<'a>(
        &'a self,
        action: &'a ProbeAction,
        _timeout: Duration,
    ) -> Later<'a, Result<(), String>> {
        Box::pin(async move {
            let path = match action {
                ProbeAction::Http { path, .. } => path.clone(),
                ProbeAction::Tcp { address } => address.to_string(),
            };
            locked(&self.asked).push(path.clone());
            locked(&self.answers).get(&path).cloned().unwrap_or(Ok(()))
        })
    }
}
