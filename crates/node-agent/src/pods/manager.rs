//! Gives each pod of this node its worker, and carries news to them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::{
    PodsConfig,
    board::Board,
    cluster::KubeCluster,
    containers::RuntimeContainers,
    events::Recorder,
    eviction::{self, Candidate, Pressure},
    images::StoreImages,
    ledger::Ledger,
    probe_io::SocketProber,
    seams::{Clock, PodNews, PodObject, World},
    worker::{Input, Shared, Worker},
};
use crate::{
    identity::Api,
    runtime::{ContainerEvent, PodRef, Runtime},
};

/// From one eviction to the next, so that the first can show its effect.
const EVICTION_PERIOD: Duration = Duration::from_secs(10);
/// How often modules that nobody uses are looked for.
const GARBAGE_PERIOD: Duration = Duration::from_secs(300);
/// How long workers may take to leave when the agent stops.
const LEAVE: Duration = Duration::from_secs(5);

/// The pods of this node. Clones are the same manager.
#[derive(Clone)]
pub struct PodManager {
    inner: Arc<Inner>,
}

struct Inner {
    world: World,
    config: Arc<PodsConfig>,
    node_name: String,
    board: Board,
    pressure: watch::Sender<Needs>,
    memory_pressure: watch::Sender<bool>,
}

/// What the node has too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Needs {
    memory: bool,
    disk: bool,
}

/// The workers and what reaches them.
struct Crew {
    shared: Shared,
    inboxes: HashMap<String, mpsc::UnboundedSender<Input>>,
    workers: JoinSet<()>,
    uids: HashMap<Id, String>,
}

impl PodManager {
    /// A manager of the pods that `api` shows, whose processes `runtime` runs and whose modules
    /// come from `images`. Nothing happens before [`PodManager::run`].
    pub fn new(api: Api, runtime: Runtime, images: registry::Store, config: PodsConfig) -> Self {
        let node_name = api.node_name().to_owned();
        let world = World {
            containers: Arc::new(RuntimeContainers(runtime)),
            images: Arc::new(StoreImages::new(images)),
            cluster: Arc::new(KubeCluster::new(api)),
            prober: Arc::new(SocketProber),
            clock: Clock::system(),
        };
        Self::with(world, node_name, config)
    }

    /// The same in any world.
    pub(crate) fn with(world: World, node_name: String, config: PodsConfig) -> Self {
        let inner = Inner {
            world,
            config: Arc::new(config),
            node_name,
            board: Board::default(),
            pressure: watch::Sender::default(),
            memory_pressure: watch::Sender::default(),
        };
        PodManager { inner: Arc::new(inner) }
    }

    /// All pods here with their newest status.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.inner.board.pods()
    }

    /// Says what the node has too little of at this moment. While it is so, a pod is evicted
    /// every ten seconds, and pods that request nothing do not start; so what is told here is the
    /// measurement, not the node's condition, which is held for some minutes.
    pub fn set_pressure(&self, memory: bool, disk: bool) {
        let needs = Needs { memory, disk };
        self.inner.pressure.send_if_modified(|now| std::mem::replace(now, needs) != needs);
        self.inner.memory_pressure.send_if_modified(|now| std::mem::replace(now, memory) != memory);
    }

    /// Looks after the pods until `stop` says so (or is dropped). Pods go on running then.
    pub async fn run(
        self,
        mut events: mpsc::UnboundedReceiver<ContainerEvent>,
        mut stop: watch::Receiver<bool>,
    ) {
        let Inner { world, config, node_name, board, .. } = &*self.inner;
        let recorder =
            Recorder::start(world.cluster.clone(), world.clock.clone(), node_name.clone());
        let mut crew = Crew {
            shared: Shared {
                world: world.clone(),
                config: config.clone(),
                ledger: Ledger::new(config.allocatable),
                events: recorder,
                board: board.clone(),
                memory_pressure: self.inner.memory_pressure.subscribe(),
            },
            inboxes: HashMap::new(),
            workers: JoinSet::new(),
            uids: HashMap::new(),
        };
        let mut news = world.cluster.watch();
        let mut pressure = self.inner.pressure.subscribe();
        let mut evictions = interval(EVICTION_PERIOD);
        evictions.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut garbage = interval(GARBAGE_PERIOD);
        garbage.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cleaned = false;
        let mut listed = false;
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::pin!(stopped);
        loop {
            let needs = *pressure.borrow_and_update();
            tokio::select! {
                () = &mut stopped => break,
                Some(event) = events.recv() => crew.container(event),
                some = news.recv() => match some {
                    Some(news) => {
                        if let (false, PodNews::All(objects)) = (listed, &news) {
                            // Before any pod of the list is touched: what the agent before left
                            // of pods that are gone from the API.
                            listed = true;
                            let uids = objects.iter().filter_map(|one| one.pod.metadata.uid.clone());
                            world.containers.retain_pods(uids.collect()).await;
                        }
                        crew.news(news);
                    }
                    None => {
                        error!("The watch of pods has ended");
                        break;
                    }
                },
                Some(ended) = crew.workers.join_next_with_id() => crew.ended(ended),
                _ = pressure.changed() => {}
                _ = evictions.tick(), if needs != Needs::default() => {
                    if needs.memory {
                        crew.evict(Pressure::Memory);
                    } else if cleaned {
                        crew.evict(Pressure::Disk);
                    } else {
                        // Unused modules go before pods do.
                        crew.collect_garbage(0);
                        cleaned = true;
                    }
                }
                _ = garbage.tick() => {
                    cleaned = false;
                    crew.collect_garbage(config.image_budget_bytes);
                }
            }
        }
        crew.leave().await;
    }
}

impl Crew {
    fn news(&mut self, news: PodNews) {
        match news {
            PodNews::Changed(object) => self.changed(object),
            PodNews::Gone { uid } => self.send(&uid, Input::Gone),
            PodNews::All(objects) => {
                let mut seen = HashSet::new();
                for object in objects {
                    seen.extend(object.pod.metadata.uid.clone());
                    self.changed(Box::new(object));
                }
                let gone: Vec<String> =
                    self.inboxes.keys().filter(|uid| !seen.contains(*uid)).cloned().collect();
                for uid in gone {
                    self.send(&uid, Input::Gone);
                }
            }
        }
    }

    fn changed(&mut self, object: Box<PodObject>) {
        let meta = &object.pod.metadata;
        let (Some(namespace), Some(name), Some(uid)) =
            (meta.namespace.clone(), meta.name.clone(), meta.uid.clone())
        else {
            return;
        };
        if let Some(inbox) = self.inboxes.get(&uid) {
            // One that has just ended is told again by the next list.
            let _ = inbox.send(Input::Changed(object));
            return;
        }
        let (inbox, inputs) = mpsc::unbounded_channel();
        let span = info_span!("pod", namespace = %namespace, name = %name);
        let pod = PodRef { namespace, name, uid: uid.clone() };
        let worker = Worker::new(self.shared.clone(), *object, pod, inputs);
        let task = self.workers.spawn(worker.run().instrument(span));
        self.uids.insert(task.id(), uid.clone());
        self.inboxes.insert(uid, inbox);
    }

    fn container(&self, event: ContainerEvent) {
        let id = match &event {
            ContainerEvent::Ready(id) | ContainerEvent::Exited(id, _) => id,
        };
        let all = self.shared.world.containers.containers();
        if let Some(container) = all.iter().find(|container| container.id == *id) {
            self.send(&container.spec.pod.uid, Input::Container(event));
        }
    }

    fn send(&self, uid: &str, input: Input) {
        if let Some(inbox) = self.inboxes.get(uid) {
            let _ = inbox.send(input);
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let uid = self.uids.remove(&id);
        if let Some(uid) = &uid {
            self.inboxes.remove(uid);
        }
        if let Err(error) = ended {
            error!(%error, pod.uid = uid.unwrap_or_default(), "A pod's worker broke off");
        }
    }

    fn evict(&self, pressure: Pressure) {
        let containers = &self.shared.world.containers;
        let candidates = self.shared.board.running().into_iter().filter_map(|(pod, id)| {
            let used = containers.usage(&id).map_or(0, |usage| usage.working_set_bytes);
            Candidate::new(&pod, used)
        });
        match eviction::victim(candidates.collect(), pressure) {
            Some(victim) => {
                let message = eviction::message(&victim, pressure);
                info!(pod.uid = victim.uid, detail = message, "Pod evicted");
                self.send(&victim.uid, Input::Evict(message));
            }
            None => debug!(?pressure, "No pod can be evicted"),
        }
    }

    fn collect_garbage(&self, budget: u64) {
        let images = self.shared.world.images.clone();
        let digests = self.shared.board.digests();
        tokio::spawn(async move { images.collect_garbage(digests, budget).await });
    }

    /// The agent stops: workers end, pods go on.
    async fn leave(mut self) {
        self.inboxes.clear();
        let all = async { while self.workers.join_next().await.is_some() {} };
        if timeout(LEAVE, all).await.is_err() {
            warn!("Some pods were in the middle of something when the agent stopped");
        }
    }
}
