//! A world for tests: an API server, processes, modules and probes that do what a test says, in
//! virtual time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    Capacity, PodManager, PodsConfig,
    seams::{
        Asking, Cause, Clock, Cluster, ClusterError, Containers, Image, ImageError, ImageRequest,
        Images, Later, PodNews, PodObject, ProbeAction, Prober, World,
    },
};
use crate::runtime::{
    Container, ContainerEvent, ContainerId, ContainerSpec, ContainerState, Exit, ModuleKind,
    PodAddress, PodRef, StartError, Usage,
};

pub(crate) fn pod_ref(name: &str) -> PodRef {
    PodRef { namespace: "ns".into(), name: name.into(), uid: format!("uid-{name}") }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with it")
}

/// An event as a test looks at it.
#[derive(Debug, Clone)]
pub(crate) struct SeenEvent {
    pub name: String,
    pub pod: String,
    pub reason: String,
    pub message: String,
    pub count: i32,
}

#[derive(Default)]
struct Api {
    pods: BTreeMap<String, Value>,
    watchers: Vec<mpsc::Sender<PodNews>>,
    away: bool,
    statuses: Vec<(String, Value)>,
    events: Vec<SeenEvent>,
    config_maps: HashMap<String, ConfigMap>,
    secrets: HashMap<String, Secret>,
    version: u64,
}

/// An API server.
pub(crate) struct FakeCluster(Mutex<Api>);

impl FakeCluster {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(FakeCluster(Mutex::default()))
    }

    fn object(value: &Value) -> PodObject {
        let pod: Pod = serde_json::from_value(value.clone()).expect("a pod");
        PodObject { pod, spec: value["spec"].clone() }
    }

    fn announce(api: &Api, news: &PodNews) {
        if !api.away {
            for watcher in &api.watchers {
                watcher.try_send(news.clone()).expect("room for news");
            }
        }
    }

    /// The pod has changed: a new version, of which watchers hear.
    fn announce_pod(api: &mut Api, name: &str) {
        api.version += 1;
        let pod = api.pods.get_mut(name).expect("the pod");
        pod["metadata"]["resourceVersion"] = json!(api.version.to_string());
        let object = Self::object(pod);
        Self::announce(api, &PodNews::Changed(Box::new(object)));
    }

    /// Somebody creates a pod that is bound to this node.
    pub(crate) fn create(&self, name: &str, spec: Value) {
        let mut api = locked(&self.0);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1 },
            "spec": spec,
            "status": { "phase": "Pending", "qosClass": "BestEffort", "conditions": [
                { "type": "PodScheduled", "status": "True", "lastTransitionTime": "2027-01-01T00:00:00Z" }
            ] }
        });
        api.pods.insert(name.into(), pod);
        Self::announce_pod(&mut api, name);
    }

    /// Somebody changes a pod.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut api = locked(&self.0);
        change(api.pods.get_mut(name).expect("the pod"));
        Self::announce_pod(&mut api, name);
    }

    /// `kubectl delete pod --grace-period`.
    pub(crate) fn delete_pod(&self, name: &str, grace: u64) {
        self.edit(name, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2027-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        });
    }

    /// `kubectl delete pod --force`.
    pub(crate) fn force_delete(&self, name: &str) {
        let mut api = locked(&self.0);
        api.pods.remove(name).expect("the pod");
        Self::announce(&api, &PodNews::Gone { uid: format!("uid-{name}") });
    }

    /// The server cannot be reached, or is back.
    pub(crate) fn set_away(&self, away: bool) {
        let mut api = locked(&self.0);
        api.away = away;
        let all = api.pods.values().map(Self::object).collect();
        Self::announce(&api, &PodNews::All(all));
    }

    pub(crate) fn put_config_map(&self, name: &str, data: Value) {
        let map = serde_json::from_value(json!({ "data": data })).expect("a ConfigMap");
        locked(&self.0).config_maps.insert(name.into(), map);
    }

    /// Statuses that were written, without what the patch does around them.
    pub(crate) fn statuses(&self, name: &str) -> Vec<Value> {
        let api = locked(&self.0);
        api.statuses.iter().filter(|(pod, _)| pod == name).map(|(_, s)| s.clone()).collect()
    }

    pub(crate) fn events(&self) -> Vec<SeenEvent> {
        locked(&self.0).events.clone()
    }

    /// Reasons of a pod's events in order.
    pub(crate) fn reasons(&self, pod: &str) -> Vec<String> {
        self.events().into_iter().filter(|e| e.pod == pod).map(|event| event.reason).collect()
    }

    /// The status as it stands.
    pub(crate) fn status(&self, name: &str) -> Value {
        locked(&self.0).pods.get(name).map(|pod| pod["status"].clone()).unwrap_or_default()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        locked(&self.0).pods.contains_key(name)
    }

    fn here(&self) -> Result<MutexGuard<'_, Api>, ClusterError> {
        let api = locked(&self.0);
        if api.away { Err(ClusterError::Unreachable("no route to host".into())) } else { Ok(api) }
    }
}

/// Strategic merge as far as a pod's status needs it.
fn merge_status(status: &mut Value, patch: &Value) {
    for (key, value) in patch.as_object().expect("a map") {
        match (key.as_str(), value) {
            (_, Value::Null) => {
                status.as_object_mut().expect("a map").remove(key);
            }
            ("conditions", Value::Array(list)) => {
                for condition in list {
                    let known = status["conditions"].as_array_mut().expect("conditions");
                    match known.iter_mut().find(|one| one["type"] == condition["type"]) {
                        Some(one) => *one = condition.clone(),
                        None => known.push(condition.clone()),
                    }
                }
            }
            ("podIPs" | "hostIPs", Value::Array(list)) => {
                assert_eq!(list[0], json!({ "$patch": "replace" }));
                status[key] = json!(list[1..]);
            }
            _ => status[key] = value.clone(),
        }
    }
}

impl Cluster for FakeCluster {
    fn watch(&self) -> mpsc::Receiver<PodNews> {
        let (sender, receiver) = mpsc::channel(1024);
        let mut api = locked(&self.0);
        if !api.away {
            let all = api.pods.values().map(Self::object).collect();
            sender.try_send(PodNews::All(all)).expect("room for news");
        }
        api.watchers.push(sender);
        receiver
    }

    fn patch_status<'a>(
        &'a self,
        pod: &'a PodRef,
        patch: Value,
    ) -> Later<'a, Result<Option<u64>, ClusterError>> {
        Box::pin(async move {
            let mut api = self.here()?;
            api.statuses.push((pod.name.clone(), patch["status"].clone()));
            let Some(stored) = api.pods.get_mut(&pod.name) else {
                return Err(ClusterError::NotFound);
            };
            if patch["metadata"].get("uid").is_some_and(|uid| *uid != stored["metadata"]["uid"]) {
                return Err(ClusterError::Replaced);
            }
            if let Some(change) = patch.get("status") {
                merge_status(&mut stored["status"], change);
            }
            Self::announce_pod(&mut api, &pod.name);
            Ok(Some(api.version))
        })
    }

    fn delete<'a>(&'a self, pod: &'a PodRef) -> Later<'a, Result<(), ClusterError>> {
        Box::pin(async move {
            let mut api = self.here()?;
            match api.pods.get(&pod.name) {
                None => Err(ClusterError::NotFound),
                Some(stored) if stored["metadata"]["uid"] != *pod.uid => {
                    Err(ClusterError::Replaced)
                }
                Some(_) => {
                    api.pods.remove(&pod.name);
                    Self::announce(&api, &PodNews::Gone { uid: pod.uid.clone() });
                    Ok(())
                }
            }
        })
    }

    fn config_map<'a>(
        &'a self,
        _namespace: &'a str,
        name: &'a str,
    ) -> Later<'a, Result<ConfigMap, ClusterError>> {
        Box::pin(async move {
            self.here()?.config_maps.get(name).cloned().ok_or(ClusterError::NotFound)
        })
    }

    fn secret<'a>(
        &'a self,
        _namespace: &'a str,
        name: &'a str,
    ) -> Later<'a, Result<Secret, ClusterError>> {
        Box::pin(
            async move { self.here()?.secrets.get(name).cloned().ok_or(ClusterError::NotFound) },
        )
    }

    fn create_event(&self, event: Event) -> Later<'_, Result<(), ClusterError>> {
        Box::pin(async move {
            self.here()?.events.push(SeenEvent {
                name: event.metadata.name.unwrap_or_default(),
                pod: event.involved_object.name.unwrap_or_default(),
                reason: event.reason.unwrap_or_default(),
                message: event.message.unwrap_or_default(),
                count: event.count.unwrap_or_default(),
            });
            Ok(())
        })
    }

    fn patch_event<'a>(
        &'a self,
        _namespace: &'a str,
        name: &'a str,
        patch: Value,
    ) -> Later<'a, Result<(), ClusterError>> {
        Box::pin(async move {
            let mut api = self.here()?;
            let event = api.events.iter_mut().find(|event| event.name == name);
            let event = event.ok_or(ClusterError::NotFound)?;
            event.count = patch["count"].as_i64().and_then(|n| n.try_into().ok()).expect("a count");
            Ok(())
        })
    }
}

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

/// A node with everything faked.
pub(crate) struct Node {
    pub cluster: Arc<FakeCluster>,
    pub containers: Arc<FakeContainers>,
    pub images: Arc<FakeImages>,
    pub prober: Arc<FakeProber>,
    pub began: Instant,
    pub manager: PodManager,
    stop: watch::Sender<bool>,
    events: Option<mpsc::UnboundedReceiver<ContainerEvent>>,
    task: Option<tokio::task::JoinHandle<()>>,
    clock: Clock,
}

impl Node {
    /// A node that runs.
    pub(crate) fn running() -> Self {
        let mut node = Node::idle();
        node.start();
        node
    }

    /// A node whose agent has not started yet.
    pub(crate) fn idle() -> Self {
        let began = Instant::now();
        let clock = Clock::of_runtime();
        let (sender, events) = mpsc::unbounded_channel();
        let containers = Arc::new(FakeContainers {
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
            events: sender,
            clock: clock.clone(),
            began,
            volumes: tempfile::tempdir().expect("a folder"),
        });
        let images = Arc::new(FakeImages {
            answers: Mutex::default(),
            takes: Mutex::new(Duration::ZERO),
            asked: Mutex::default(),
            began,
        });
        let cluster = FakeCluster::new();
        let prober = FakeProber::new();
        let manager = Self::manager(&cluster, &containers, &images, &prober, &clock);
        let stop = watch::Sender::new(false);
        let events = Some(events);
        Node {
            cluster,
            containers,
            images,
            prober,
            began,
            manager,
            stop,
            events,
            task: None,
            clock,
        }
    }

    fn manager(
        cluster: &Arc<FakeCluster>,
        containers: &Arc<FakeContainers>,
        images: &Arc<FakeImages>,
        prober: &Arc<FakeProber>,
        clock: &Clock,
    ) -> PodManager {
        let world = World {
            containers: Arc::new(Machines(containers.clone())),
            images: images.clone(),
            cluster: cluster.clone(),
            prober: prober.clone(),
            clock: clock.clone(),
        };
        let capacity = Capacity { cpu_millis: 4000, memory_bytes: 1 << 30, pods: 5 };
        PodManager::with(world, "wasm-1".into(), PodsConfig::new([192, 168, 0, 2].into(), capacity))
    }

    /// The agent starts.
    pub(crate) fn start(&mut self) {
        let events = self.events.take().expect("not started yet");
        let run = self.manager.clone().run(events, self.stop.subscribe());
        self.task = Some(tokio::spawn(run));
    }

    /// The agent stops, in peace.
    pub(crate) async fn stop(&mut self) {
        self.stop.send_replace(true);
        self.task.take().expect("it runs").await.expect("no panic");
    }

    /// The machine and the API server under a new agent, as after `kill -9`.
    pub(crate) fn restarted(self) -> Self {
        if let Some(task) = &self.task {
            task.abort();
        }
        let mut next = Node::idle();
        next.cluster = self.cluster;
        locked(&next.cluster.0).watchers.clear();
        let kept = locked(&self.containers.machine).containers.clone();
        let mut machine = locked(&next.containers.machine);
        machine.runs = 100;
        machine.containers = kept;
        drop(machine);
        next.manager =
            Self::manager(&next.cluster, &next.containers, &next.images, &next.prober, &next.clock);
        next.start();
        next
    }

    /// Seconds since the node was made.
    pub(crate) fn now(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Waits until a pod's status satisfies something; the second of it.
    pub(crate) async fn until(&self, pod: &str, mut condition: impl FnMut(&Value) -> bool) -> u64 {
        let limit = Instant::now() + Duration::from_secs(7200);
        loop {
            let status = self.cluster.status(pod);
            if condition(&status) {
                return self.now();
            }
            assert!(Instant::now() < limit, "status of {pod} stays {status:#}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the container waits for this reason.
    pub(crate) async fn until_waiting(&self, pod: &str, reason: &str) -> u64 {
        self.until(pod, |status| waiting(status) == reason).await
    }

    /// Waits until the pod is ready.
    pub(crate) async fn until_ready(&self, pod: &str) -> u64 {
        self.until(pod, |status| condition(status, "Ready") == "True").await
    }

    /// Waits until the pod is gone from the API.
    pub(crate) async fn until_gone(&self, pod: &str) -> u64 {
        let limit = Instant::now() + Duration::from_secs(7200);
        while self.cluster.has(pod) {
            assert!(Instant::now() < limit, "{pod} stays: {:#}", self.cluster.status(pod));
            sleep(Duration::from_millis(100)).await;
        }
        self.now()
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }
}

pub(crate) fn waiting(status: &Value) -> &str {
    status["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

pub(crate) fn condition<'v>(status: &'v Value, kind: &str) -> &'v str {
    let conditions = status["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|one| one["type"] == kind);
    found.and_then(|one| one["status"].as_str()).unwrap_or_default()
}

/// A pod's spec with one container, of which `container` says more.
pub(crate) fn spec(container: Value) -> Value {
    let mut whole = json!({ "name": "app", "image": "r/m:v1", "imagePullPolicy": "IfNotPresent" });
    for (key, value) in container.as_object().expect("a map") {
        whole[key] = value.clone();
    }
    json!({ "containers": [whole], "restartPolicy": "Always", "nodeName": "wasm-1",
            "terminationGracePeriodSeconds": 30 })
}

/// The names of the pods in `pods`.
pub(crate) fn names(pods: &[Arc<Pod>]) -> HashSet<String> {
    pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect()
}
