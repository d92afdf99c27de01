//! The Node object and its lease: created or adopted, kept true, made again when somebody deletes
//! it.

pub mod address;
mod events;
mod lease;
mod object;
mod pressure;
mod readings;
mod watch;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, NodeStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::{
    sync::{mpsc, watch as channel},
    time::{Instant, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    backoff::Backoff,
    identity::{Api, Notice},
};

pub use events::post_all;
pub use object::{ARCHITECTURE, NodeDescription, Readiness};
pub use pressure::{Shortage, Thresholds};
pub use readings::{Machine, ReadingError, Readings};

use pressure::Pressure;

/// How often the machine is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// The status is sent when something changed, and this often when nothing did.
const REPORT: Duration = Duration::from_secs(5 * 60);
/// One call to the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// The node cannot be registered, and trying again will not help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Another kind of node has the name.
    #[error(
        "there is a node `{name}` already, and it is not one of graphlet's: give this one another name with --node-name"
    )]
    Foreign {
        /// The name.
        name: String,
    },
    /// The API server does not want such a node.
    #[error("the API server refuses the node `{name}`")]
    Refused {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The machine cannot be read.
    #[error(transparent)]
    Reading(#[from] ReadingError),
}

/// The Node of this agent.
pub struct NodeKeeper {
    api: Api,
    description: NodeDescription,
    machine: Machine,
    thresholds: Thresholds,
    notices: mpsc::UnboundedSender<Notice>,
}

/// What the rest of the agent sees of its node.
#[derive(Clone)]
pub struct NodeView {
    /// The object as the API server last told it; `None` before, and while it is deleted.
    pub object: channel::Receiver<Option<Arc<Node>>>,
    /// What is short on the machine by the last look; the node's conditions remember longer.
    pub shortage: channel::Receiver<Shortage>,
    /// The last look at the machine.
    pub readings: channel::Receiver<Readings>,
}

impl NodeKeeper {
    /// Keeps the node that `description` describes.
    pub fn new(
        api: Api,
        description: NodeDescription,
        machine: Machine,
        thresholds: Thresholds,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Self {
        NodeKeeper { api, description, machine, thresholds, notices }
    }

    /// Starts to keep the Node, its status and its lease, in tasks that end with the runtime. An
    /// API server that is away is waited for.
    ///
    /// # Errors
    /// [`ReadingError`] when the machine cannot be read.
    pub fn start(
        self,
        readiness: channel::Receiver<Readiness>,
    ) -> Result<(NodeView, tokio::task::JoinHandle<NodeError>), ReadingError> {
        let readings = self.machine.read()?;
        let (object_sender, object) = channel::channel(None);
        let (shortage_sender, shortage) = channel::channel(Shortage::default());
        let (readings_sender, readings) = channel::channel(readings);
        let (uid_sender, uid) = channel::channel(None);
        tokio::spawn(lease::keep(self.api.clone(), uid));
        let seen = Seen { object: object_sender, uid: uid_sender };
        let task = tokio::spawn(self.keep(readiness, seen, shortage_sender, readings_sender));
        Ok((NodeView { object, shortage, readings }, task))
    }

    /// Ends only with a node that cannot be.
    async fn keep(
        self,
        mut readiness: channel::Receiver<Readiness>,
        seen: Seen,
        shortages: channel::Sender<Shortage>,
        readings: channel::Sender<Readings>,
    ) -> NodeError {
        let mut pressure = Pressure::new(self.thresholds);
        if let Err(error) = self.register(&seen).await {
            return error;
        }
        let mut changes = watch::own_node(self.api.clone());
        let mut reported: Option<Instant> = None;
        let mut retry = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        let mut next_look = LOOK;
        loop {
            match self.machine.read() {
                Ok(now) => {
                    readings.send_replace(now);
                }
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "The machine cannot be read");
                }
            }
            let now = readings.borrow().clone();
            let (measured, shortage) = pressure.observe(&now);
            shortages.send_if_modified(|held| std::mem::replace(held, measured) != measured);
            let wanted = readiness.borrow_and_update().clone();
            match self.report(&seen, &now, &wanted, shortage, &mut reported).await {
                Ok(()) => {
                    retry.reset();
                    next_look = LOOK;
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    seen.set(None);
                }
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "Node status cannot be sent");
                    next_look = retry.next_wait().min(LOOK);
                }
            }
            if seen.object.borrow().is_none() {
                warn!(node = self.description.name, "The Node was deleted; it is made again");
                reported = None;
                if let Err(error) = self.register(&seen).await {
                    return error;
                }
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(next_look) => {}
                Ok(()) = readiness.changed() => {}
                Some(node) = changes.recv() => seen.set(node.map(Arc::new)),
            }
        }
    }

    /// Makes the Node, or takes over the one that is there.
    async fn register(&self, seen: &Seen) -> Result<(), NodeError> {
        let name = &self.description.name;
        let mut retry = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            let object = self.description.first_object(&self.machine.read()?);
            match timeout(CALL_TIMEOUT, self.create_or_adopt(&object)).await {
                Ok(Ok(node)) => {
                    if object::is_foreign(&node) {
                        return Err(NodeError::Foreign { name: name.clone() });
                    }
                    seen.set(Some(Arc::new(node)));
                    return Ok(());
                }
                // A label that a node may not have, a name that is none.
                Ok(Err(error @ kube::Error::Api(_))) if refused_for_good(&error) => {
                    return Err(NodeError::Refused { name: name.clone(), source: Box::new(error) });
                }
                Ok(Err(error)) => warn!(
                    error = &error as &dyn std::error::Error,
                    "The node cannot be registered yet"
                ),
                Err(_) => {
                    warn!("The node cannot be registered yet: the API server does not answer");
                }
            }
            retry.wait().await;
        }
    }

    async fn create_or_adopt(&self, object: &Node) -> Result<Node, kube::Error> {
        let nodes = kube::Api::<Node>::all(self.api.client());
        let name = &self.description.name;
        match nodes.create(&PostParams::default(), object).await {
            Ok(node) => {
                info!(node = name, address = %self.description.address, "Node registered");
                Ok(node)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let node = nodes.get(name).await?;
                if object::is_foreign(&node) {
                    return Ok(node);
                }
                self.complain_of_taints(&node);
                info!(node = name, "Node taken over");
                let labels = json!({ "metadata": { "labels": self.description.all_labels() } });
                nodes.patch(name, &PatchParams::default(), &Patch::Merge(labels)).await
            }
            Err(error) => Err(error),
        }
    }

    /// A node may not change its taints, so somebody else has to.
    fn complain_of_taints(&self, node: &Node) {
        let missing = object::missing_taints(node);
        if missing.is_empty() {
            return;
        }
        let taints: Vec<_> = missing
            .iter()
            .map(|taint| format!("{}={ARCHITECTURE}:{}", taint.key, taint.effect))
            .collect();
        let command = format!("kubectl taint node {} {}", self.description.name, taints.join(" "));
        warn!("The Node lacks taints, so containers may be sent here: {command}");
        let message = format!("containers may be sent here: {command}");
        let _ = self.notices.send(Notice::warning("TaintMissing", message));
    }

    /// Sends the status if the API server holds another, or has not heard of it for long.
    async fn report(
        &self,
        seen: &Seen,
        readings: &Readings,
        readiness: &Readiness,
        shortage: Shortage,
        reported: &mut Option<Instant>,
    ) -> Result<(), kube::Error> {
        let held = seen.object.borrow().clone();
        let Some(held) = held else { return Ok(()) };
        let held = held.status.clone().unwrap_or_else(NodeStatus::default);
        let now = Time(Timestamp::now());
        let wanted = self.description.status(readings, readiness, shortage, Some(&held), &now);
        let due = reported.is_none_or(|reported| reported.elapsed() >= REPORT);
        if !due && object::says_the_same(&held, &wanted) {
            return Ok(());
        }
        let nodes = kube::Api::<Node>::all(self.api.client());
        let patch = Patch::Strategic(object::status_patch(&wanted));
        let params = PatchParams::default();
        let call = nodes.patch_status(&self.description.name, &params, &patch);
        let Ok(answer) = timeout(CALL_TIMEOUT, call).await else {
            debug!("The API server does not take the node's status");
            return Ok(());
        };
        let node = answer?;
        *reported = Some(Instant::now());
        seen.set(Some(Arc::new(node)));
        Ok(())
    }
}

fn refused_for_good(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422))
}

/// Where the newest Node goes.
struct Seen {
    object: channel::Sender<Option<Arc<Node>>>,
    uid: channel::Sender<Option<String>>,
}

impl Seen {
    fn set(&self, node: Option<Arc<Node>>) {
        let uid = node.as_ref().and_then(|node| node.metadata.uid.clone());
        self.uid.send_if_modified(|held| {
            let changed = *held != uid;
            *held = uid;
            changed
        });
        self.object.send_replace(node);
    }
}
