//! A world for tests: an API server, processes, modules and probes that do what a test says, in
//! virtual time.

mod api;
mod machine;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

pub(crate) use api::FakeCluster;
pub(crate) use machine::{FakeContainers, FakeImages, FakeProber, Machines};

use super::{
    Capacity, PodManager, PodsConfig,
    seams::{Clock, World},
};
use crate::runtime::{ContainerEvent, PodRef};

pub(crate) fn pod_ref(name: &str) -> PodRef {
    PodRef { namespace: "ns".into(), name: name.into(), uid: format!("uid-{name}") }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with it")
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
        let containers = FakeContainers::new(sender, clock.clone());
        let images = FakeImages::new();
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
        next.cluster.forget_watchers();
        next.containers.inherit(&self.containers);
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
