//! The agent: its parts wired together, from the command line to the last pod.

mod network;
mod setup;

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures_util::Stream;
use k8s_openapi::api::core::v1::Pod;
use registry::{Store, StoreOptions};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    config::{ConfigError, ConfigFile},
    identity::{ClusterError, IdentityError, Membership, Notice, create_private_dir},
    node::{
        Machine, NodeDescription, NodeKeeper, NodeView, Readiness, Readings, address, post_all,
    },
    options::{Network, RunOptions},
    pods::{Capacity, PodManager, PodsConfig},
    runtime::{
        Container, ContainerId, ContainerState, LogError, LogOptions, PodRef, Runtime,
        RuntimeConfig, Usage as PodUsage,
    },
    server::{Backend, Server},
};

/// How long the node's last words to the API server may take.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How long pods that end with the agent may take; the DaemonSet gives its pod 60 s.
const LAST_GRACE: Duration = Duration::from_secs(20);
/// What ends afterwards is killed, and waited for this long.
const LAST_KILL: Duration = Duration::from_secs(5);
/// How long the agent's own tasks may take to end.
const TASKS_END: Duration = Duration::from_secs(8);

/// A mistake on the command line or in the configuration: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Usage {
    message: String,
    hint: Option<String>,
}

impl Usage {
    /// A mistake, in one sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Usage { message: message.into(), hint: None }
    }

    /// What would mend it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Whether an error is the user's to mend.
pub fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<Usage>()
        || error.is::<ConfigError>()
        || error.is::<address::NoAddress>()
        || matches!(error.downcast_ref(), Some(IdentityError::NoCredentials))
        || matches!(
            error.downcast_ref(),
            Some(IdentityError::Cluster(
                ClusterError::Kubeconfig { .. } | ClusterError::Insecure { .. }
            ))
        )
}

/// The one thing that would help.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(usage) = error.downcast_ref::<Usage>() {
        return usage.hint.clone();
    }
    matches!(error.downcast_ref(), Some(IdentityError::NoCredentials)).then(|| {
        "make a bootstrap kubeconfig with `graphlet node bootstrap` and give it with --bootstrap-kubeconfig".into()
    })
}

/// Runs the agent until it is told to end.
///
/// # Errors
/// What a person must mend: configuration, credentials, a port that is taken, a node that the API
/// server refuses.
pub async fn run(options: RunOptions) -> Result<()> {
    let stop = stop_signal()?;
    tokio::select! {
        // Whatever it waits for, a token or an API server: asked to end, it ends.
        started = start(&options) => started?.serve(stop).await,
        () = stopped(stop.clone()) => Ok(()),
    }
}

/// Everything running.
struct Agent {
    node: tokio::task::JoinHandle<crate::node::NodeError>,
    readiness: watch::Sender<Readiness>,
    view: NodeView,
    runtime: Runtime,
    pods: PodManager,
    tasks: JoinSet<()>,
    stop_tasks: watch::Sender<bool>,
    adopt: bool,
    _lock: std::fs::File,
}

async fn start(options: &RunOptions) -> Result<Agent> {
    let mut config = ConfigFile::load(&options.config)?;
    config.merge(options);
    let registries = config.registries(&options.config, &options.registry_mirror)?;
    let client_cas = setup::client_cas(options)?;
    let name = setup::name(options)?;
    let adopt = setup::adopts(options);
    let graphlet = setup::graphlet(options)?;
    let shim = std::env::current_exe().context("this program's own file is unknown")?;
    create_private_dir(&options.state_dir)
        .with_context(|| format!("cannot make {}", options.state_dir.display()))?;
    let lock = setup::lock(&options.state_dir)?;

    let membership = Membership::find(setup::identity(options, &name)).await?;
    let ip = node_ip(options, &membership)?;
    info!(node = name, %ip, version = env!("CARGO_PKG_VERSION"), adopt, "Node agent begins");
    if config.trust.issuers.is_empty() {
        warn!("No issuer is trusted: every module will be refused; see --trusted-issuer");
    }

    // First of all the pods that run already: their limits are the agent's to keep, whether or not
    // the API server is there.
    let mut runtime_config = RuntimeConfig::new(&options.state_dir, graphlet, shim, ip);
    runtime_config.adopt = adopt;
    let recalled = network::recall(&options.state_dir, options.network);
    if let Some(network::Choice::PodCidr(cidr)) = recalled {
        runtime_config.pod_cidr = Some(cidr);
    }
    let (runtime, events) = Runtime::open(runtime_config).await?;
    if recalled == Some(network::Choice::NodeIp) {
        runtime.use_node_ip().await;
    }
    let store_options = StoreOptions { registries, ..StoreOptions::default() };
    let images = Store::open(options.state_dir.join("modules"), store_options)?;

    let (notices, notices_received) = mpsc::unbounded_channel();
    let identity = Arc::new(membership.join(vec![ip], notices.clone()).await?);
    let mut all_cas = identity.cluster.ca_certificates().to_vec();
    all_cas.extend(client_cas);
    let server = Server::bind(ip, options.kubelet_port, &identity, &all_cas).await?;

    let machine = Machine::here(&options.state_dir);
    let description = NodeDescription {
        name,
        address: ip,
        kubelet_port: server.port()?,
        max_pods: options.max_pods,
        labels: options.label_map(),
        reserved_cpu_millis: options.reserved_cpu,
        reserved_memory_bytes: options.reserved_memory,
    };
    let readings = machine.read()?;
    let mut pods_config = PodsConfig::new(ip, capacity(&description, &readings));
    pods_config.trust = config.trust;
    let pods = PodManager::new(identity.api.clone(), runtime.clone(), images, pods_config);

    let (readiness, readiness_seen) = watch::channel(Readiness::Starting);
    let keeper = NodeKeeper::new(
        identity.api.clone(),
        description,
        machine,
        config.eviction,
        notices.clone(),
    );
    let (view, node) = keeper.start(readiness_seen)?;

    let (stop_tasks, stop) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tokio::spawn(post_all(identity.api.clone(), notices_received));
    tokio::spawn(tell_pressure(view.clone(), pods.clone()));
    tokio::spawn(open_network(
        options.clone(),
        view.clone(),
        runtime.clone(),
        readiness.clone(),
        notices,
    ));
    let pods_end = Arc::new(AtomicBool::new(false));
    tasks.spawn({
        let (pods, stop, ended) = (pods.clone(), stop.clone(), Arc::clone(&pods_end));
        let mut network = readiness.subscribe();
        async move {
            if recalled.is_none() {
                // A new node: no pod runs yet, and none can before there are addresses.
                let open = |readiness: &Readiness| *readiness != Readiness::Starting;
                tokio::select! {
                    _ = network.wait_for(open) => {}
                    () = stopped(stop.clone()) => {}
                }
            }
            pods.run(events, stop).await;
            ended.store(true, Ordering::Relaxed);
        }
    });
    let backend = NodeBackend {
        pods: pods.clone(),
        runtime: runtime.clone(),
        view: view.clone(),
        machine: Machine::here(&options.state_dir),
        pods_end,
    };
    tasks.spawn(async move { server.run(&identity, backend, stop).await });
    Ok(Agent { node, readiness, view, runtime, pods, tasks, stop_tasks, adopt, _lock: lock })
}

impl Agent {
    /// Runs until told to end, or until something cannot go on.
    async fn serve(mut self, stop: watch::Receiver<bool>) -> Result<()> {
        let outcome = tokio::select! {
            () = stopped(stop) => Ok(()),
            ended = &mut self.node => match ended {
                Ok(error) => Err(error.into()),
                Err(error) => Err(anyhow::Error::from(error).context("the node's task ended")),
            },
            ended = self.tasks.join_next() => match ended {
                Some(Err(error)) => Err(anyhow::Error::from(error).context("a task ended")),
                _ => Err(anyhow::anyhow!("the pods' task or the kubelet's port ended")),
            },
        };
        self.end().await;
        outcome
    }

    async fn end(mut self) {
        info!(pods_go_on = self.adopt, "Node agent ends");
        if !self.adopt {
            // No new pods, and no requests to those that end; then the pods.
            self.readiness.send_replace(Readiness::NotReady("the agent ends".into()));
            let _ = timeout(LAST_WORDS, not_ready(self.view.clone())).await;
        }
        self.stop_tasks.send_replace(true);
        let ended = timeout(TASKS_END, async { while self.tasks.join_next().await.is_some() {} });
        if ended.await.is_err() {
            warn!("Some of the agent's tasks did not end in time");
        }
        if !self.adopt {
            end_pods(&self.runtime).await;
        }
        drop(self.pods);
    }
}

/// Returns when the API server knows that the node is not ready.
async fn not_ready(mut view: NodeView) {
    let told = |node: &Option<Arc<k8s_openapi::api::core::v1::Node>>| {
        let conditions = node.as_ref().and_then(|node| node.status.as_ref()?.conditions.as_ref());
        conditions.is_none_or(|conditions| {
            conditions.iter().any(|one| one.type_ == "Ready" && one.status != "True")
        })
    };
    let _ = view.object.wait_for(told).await;
}

/// Ends every pod: asked first, killed when it takes too long.
async fn end_pods(runtime: &Runtime) {
    let running = || -> Vec<ContainerId> {
        let running = |container: &Container| !matches!(container.state, ContainerState::Exited(_));
        runtime.containers().into_iter().filter(running).map(|container| container.id).collect()
    };
    let gone = async || {
        while !running().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let all = running();
    info!(pods = all.len(), "Pods end with the agent");
    for id in &all {
        runtime.stop(id, LAST_GRACE).await;
    }
    if timeout(LAST_GRACE + LAST_KILL, gone()).await.is_err() {
        for id in running() {
            runtime.kill(&id).await;
        }
        let _ = timeout(LAST_KILL, gone()).await;
    }
}

fn node_ip(options: &RunOptions, membership: &Membership) -> Result<IpAddr> {
    let (host, port) = membership.cluster().host_and_port();
    match options.node_ip {
        Some(ip) if address::usable(ip) => Ok(ip),
        Some(ip) => {
            bail!(Usage::new(format!("{ip} cannot be a node's address: others cannot reach it")))
        }
        None => Ok(address::towards(&host, port)?),
    }
}

fn capacity(description: &NodeDescription, readings: &Readings) -> Capacity {
    Capacity {
        cpu_millis: description.allocatable_cpu_millis(readings),
        memory_bytes: description.allocatable_memory_bytes(readings),
        pods: description.max_pods as usize,
    }
}

/// Finds out where pods' addresses come from; then the node is ready.
async fn open_network(
    options: RunOptions,
    view: NodeView,
    runtime: Runtime,
    readiness: watch::Sender<Readiness>,
    notices: mpsc::UnboundedSender<Notice>,
) {
    // Patience begins when there is a Node that could have a podCIDR.
    let mut registered = view.object.clone();
    if registered.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let unenforced = "NetworkPolicies do nothing on this node: pods answer whoever reaches them";
    let _ = notices.send(Notice::normal("NetworkPolicyUnenforced", unenforced.into()));
    let mut choice = network::choose(options.network, options.pod_cidr, view.object.clone()).await;
    loop {
        network::apply(choice, options.network, &runtime, &options.state_dir, &notices).await;
        readiness.send_replace(Readiness::Ready);
        if options.network == Network::NodeIp {
            return;
        }
        choice = network::changed(choice, view.object.clone()).await;
    }
}

/// Passes on what is short, for as long as the agent runs.
async fn tell_pressure(mut view: NodeView, pods: PodManager) {
    loop {
        let shortage = *view.shortage.borrow_and_update();
        pods.set_pressure(shortage.memory, shortage.disk);
        if view.shortage.changed().await.is_err() {
            return;
        }
    }
}

/// Turns true at SIGTERM or SIGINT.
fn stop_signal() -> Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).context("no signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no signals")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        sender.send_replace(true);
        sender.closed().await;
    });
    Ok(receiver)
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What the kubelet's port shows.
struct NodeBackend {
    pods: PodManager,
    runtime: Runtime,
    view: NodeView,
    machine: Machine,
    pods_end: Arc<AtomicBool>,
}

impl Backend for NodeBackend {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.pods()
    }

    fn containers(&self) -> Vec<Container> {
        self.runtime.containers()
    }

    fn usage(&self, id: &ContainerId) -> Option<PodUsage> {
        self.runtime.usage(id)
    }

    fn readings(&self) -> Readings {
        // A fresh look: rates are made of these numbers and the moment they are asked for.
        self.machine.read().unwrap_or_else(|_| self.view.readings.borrow().clone())
    }

    fn fault(&self) -> Option<String> {
        self.pods_end.load(Ordering::Relaxed).then(|| "pods are not looked after".into())
    }

    async fn logs(
        &self,
        pod: &PodRef,
        container: &str,
        options: LogOptions,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, LogError> {
        self.runtime.logs(pod, container, options).await
    }
}
