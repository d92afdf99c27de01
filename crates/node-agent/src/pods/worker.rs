//! One pod's worker: the line of its life, and what interrupts it.
//!
//! A life is written as it goes: admitted, prepared, running, restarted, finished. Every wait in
//! it goes through [`Worker::until`], where news of the pod come in; what they mean for the life
//! is an [`Interrupt`]. Nothing of one pod happens twice at a time, because its worker is one
//! task.

use std::{
    convert::Infallible,
    future::{Future, pending},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{
    Container, PodCondition, PodSpec, PodStatus, ResourceRequirements,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, info};

use super::{
    PodsConfig,
    admission::{self, Refusal},
    backoff::{Backoff, RESET_AFTER},
    board::Board,
    events::{Recorder, Severity},
    ledger::{Ledger, Shortage},
    resources,
    running::Run,
    seams::{PodObject, World, whole_seconds},
    status::{self, Ended, Phase, Report, State},
    status_writer::StatusWriter,
};
use crate::runtime::{self, ContainerEvent, Exit, PodRef, StartError};

/// News for a worker.
#[derive(Debug)]
pub(crate) enum Input {
    /// The pod as it is now.
    Changed(Box<PodObject>),
    /// The pod is no more in the API.
    Gone,
    /// Its container.
    Container(ContainerEvent),
    /// The node needs what it uses; the text says what there is too little of.
    Evict(String),
}

/// What ends the present part of a pod's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The agent stops; the pod goes on without it.
    AgentStops,
    /// The pod is no more in the API: its processes end at once.
    Gone,
    /// Somebody deleted it: it ends in peace.
    Deleted,
    /// The node needs what it uses.
    Evicted(String),
    /// `activeDeadlineSeconds` are over.
    DeadlineExceeded,
    /// Image or resources are others now.
    Redefined,
}

/// What all workers share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Everything outside.
    pub world: World,
    /// The node's configuration.
    pub config: Arc<PodsConfig>,
    /// What has been promised to pods.
    pub ledger: Ledger,
    /// Where events go.
    pub events: Recorder,
    /// What the rest of the agent sees of the pods.
    pub board: Board,
    /// Whether there is too little memory: pods that ask for nothing do not start then.
    pub memory_pressure: watch::Receiver<bool>,
}

/// What a change of makes a new container.
type Definition = (Option<String>, Option<ResourceRequirements>);

/// A pod's worker.
pub(crate) struct Worker {
    pub(super) shared: Shared,
    inbox: mpsc::UnboundedReceiver<Input>,
    born: Instant,
    age_when_born: Duration,
    pub(super) object: PodObject,
    pub(super) pod: PodRef,
    pub(super) report: Report,
    conditions: Vec<PodCondition>,
    writer: StatusWriter,
    /// The status that this worker has written last.
    written: Option<PodStatus>,
    /// Whether the status is to be written whatever the server shows.
    rewrite: bool,
    /// Whether the pod was let in: what is refused has no deadline, because it never fails.
    admitted: bool,
    interrupt: Option<Interrupt>,
    definition: Definition,
    /// The newest run.
    pub(super) run: Option<Run>,
    /// A start that was interrupted.
    pub(super) starting: Option<JoinHandle<Result<runtime::Container, StartError>>>,
    /// The last trouble that was told in an event.
    pub(super) told: Option<(String, String)>,
    restarts: Backoff,
}

impl Worker {
    /// The worker of a pod that was just seen.
    pub(crate) fn new(
        shared: Shared,
        object: PodObject,
        pod: PodRef,
        inbox: mpsc::UnboundedReceiver<Input>,
    ) -> Self {
        let seen = object.pod.status.clone().unwrap_or_default();
        let start =
            seen.start_time.as_ref().map_or_else(|| shared.world.clock.stamp(), |time| time.0);
        let mut report = Report::new(start, shared.config.node_ip);
        report.pod_ip = seen.pod_ip.as_deref().and_then(|ip| ip.parse().ok());
        let writer = StatusWriter::start(shared.world.cluster.clone(), pod.clone());
        let interrupt =
            object.pod.metadata.deletion_timestamp.is_some().then_some(Interrupt::Deleted);
        let age = shared.world.clock.stamp().as_second().saturating_sub(start.as_second());
        let mut worker = Worker {
            born: Instant::now(),
            age_when_born: Duration::from_secs(u64::try_from(age).unwrap_or(0)),
            inbox,
            pod,
            report,
            conditions: seen.conditions.clone().unwrap_or_default(),
            writer,
            written: None,
            rewrite: false,
            admitted: false,
            interrupt,
            definition: Definition::default(),
            run: None,
            starting: None,
            told: None,
            restarts: Backoff::for_restarts(),
            object,
            shared,
        };
        worker.definition = worker.defined();
        worker
    }

    /// Lives the pod's life to its end.
    pub(crate) async fn run(mut self) {
        let mut interrupt = match self.live().await {
            Ok(never) => match never {},
            Err(interrupt) => interrupt,
        };
        while let Some(next) = self.end(interrupt).await {
            interrupt = next;
        }
        self.shared.ledger.free(&self.pod.uid);
        self.shared.board.remove(&self.pod.uid);
    }

    async fn live(&mut self) -> Result<Infallible, Interrupt> {
        if self.take_over().await {
            return self.finished().await;
        }
        if self.run.is_some() {
            self.shared.ledger.note(&self.pod.uid, resources::requests(&self.spec()));
        } else if let Some(interrupt) = self.interrupted() {
            return Err(interrupt);
        } else {
            self.admitted().await?;
        }
        self.admitted = true;
        loop {
            if self.run.is_none() {
                match self.prepare().await {
                    Err(Interrupt::Redefined) => continue,
                    other => other?,
                }
            }
            match self.supervise().await {
                Ok(exit) => {
                    if !self.restarts_after(exit).await? {
                        return self.finished().await;
                    }
                }
                Err(Interrupt::Redefined) => {
                    self.event(
                        Severity::Normal,
                        "Killing",
                        format!(
                            "Container {} definition changed, will be restarted",
                            self.container().name
                        ),
                    );
                    let exit = self.halt(self.grace(), true).await?;
                    self.record_exit(&exit);
                    self.run = None;
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// Waits until the pod may run here.
    async fn admitted(&mut self) -> Result<(), Interrupt> {
        loop {
            self.definition = self.defined();
            // Before the look at them, so that nothing is missed in between.
            let mut freed = self.shared.ledger.freed();
            let mut pressure = self.shared.memory_pressure.clone();
            pressure.mark_unchanged();
            let refusal = match admission::admit(&self.object) {
                Err(refusal) => refusal,
                Ok(()) => match self.promised() {
                    Ok(()) => return Ok(()),
                    Err(Shortage { reason, message }) => Refusal { reason, message, quiet: false },
                },
            };
            self.refuse(&refusal);
            let waited = self.until(async move {
                tokio::select! {
                    _ = freed.changed() => {}
                    changed = pressure.changed() => if changed.is_err() { pending().await },
                }
            });
            match waited.await {
                Ok(()) | Err(Interrupt::Redefined) => {}
                Err(other) => return Err(other),
            }
        }
    }

    fn promised(&self) -> Result<(), Shortage> {
        let spec = self.spec();
        let asks_nothing = resources::qos_class(&spec) == resources::QosClass::BestEffort;
        if asks_nothing && *self.shared.memory_pressure.borrow() {
            let message = "the node has too little memory for pods that request none".into();
            return Err(Shortage { reason: "MemoryPressure", message });
        }
        self.shared.ledger.promise(&self.pod.uid, resources::requests(&spec))
    }

    /// The pod waits, with one reason, one event, and a status that is written once. It does not
    /// fail: its controller would replace it without end.
    fn refuse(&mut self, refusal: &Refusal) {
        let Refusal { reason, message, quiet } = refusal;
        if *quiet {
            debug!(reason, "Pod refused");
        } else {
            info!(reason, detail = message, "Pod refused");
        }
        let severity = if *quiet { Severity::Normal } else { Severity::Warning };
        self.waiting(reason, message);
        self.tell(severity, reason, reason, message);
        self.publish();
    }

    /// What follows the end of a run: whether there is another one. Returns when it is time.
    async fn restarts_after(&mut self, exit: Exit) -> Result<bool, Interrupt> {
        let lasted = self.run.as_ref().map(|run| run.began.elapsed()).unwrap_or_default();
        self.record_exit(&exit);
        let spec = self.spec();
        let again = match spec.restart_policy.as_deref() {
            Some("Never") => false,
            Some("OnFailure") => exit.code != 0,
            _ => true,
        };
        if !again {
            self.report.phase = if exit.code == 0 { Phase::Succeeded } else { Phase::Failed };
            return Ok(false);
        }
        self.run = None;
        if lasted >= RESET_AFTER {
            self.restarts = Backoff::for_restarts();
        }
        let wait = self.restarts.wait();
        self.publish();
        if wait.is_zero() {
            return Ok(true);
        }
        let container = self.container().name;
        let PodRef { namespace, name, uid } = self.pod.clone();
        self.event(
            Severity::Warning,
            "BackOff",
            format!(
                "Back-off restarting failed container {container} in pod {name}_{namespace}({uid})"
            ),
        );
        self.waiting("CrashLoopBackOff", &format!(
            "back-off {}s restarting failed container={container} pod={name}_{namespace}({uid})",
            wait.as_secs()
        ));
        self.publish();
        match self.until(sleep(wait)).await {
            // A new definition need not wait for the sins of the old one.
            Ok(()) | Err(Interrupt::Redefined) => Ok(true),
            Err(other) => Err(other),
        }
    }

    /// Notes how the run ended; the status is not published yet.
    pub(super) fn record_exit(&mut self, exit: &Exit) {
        let started_at = match self.report.state {
            State::Running { since } => Some(since),
            _ => None,
        };
        info!(code = exit.code, reason = exit.reason, "Container ended");
        self.report.ready = false;
        self.report.started = false;
        self.report.state = State::Terminated(Ended {
            code: exit.code,
            reason: exit.reason.clone(),
            // What a run that ended well said last explains nothing.
            message: if exit.code == 0 { String::new() } else { exit.message.clone() },
            started_at,
            finished_at: Some(whole_seconds(exit.finished_at)),
            container_id: self.report.container_id.clone(),
        });
    }

    /// The pod has reached Succeeded or Failed; what is left is to be deleted some day.
    pub(super) async fn finished(&mut self) -> Result<Infallible, Interrupt> {
        if let Some(run) = &mut self.run {
            run.probes.stop();
        }
        self.report.ready = false;
        self.publish();
        self.shared.ledger.free(&self.pod.uid);
        let flushed = self.writer.flushed();
        let settled = self.until(flushed).await;
        let containers = self.shared.world.containers.clone();
        if settled.is_ok() {
            if let Some(run) = self.run.take() {
                containers.remove(&run.id).await;
            }
            containers.release_address(&self.pod).await;
            self.shared.board.ended(&self.pod.uid);
        }
        settled?;
        self.until(pending::<Infallible>()).await
    }

    /// Waits for `work`, with an ear for news.
    pub(super) async fn until<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Interrupt> {
        let mut work = pin!(work);
        loop {
            if let Some(interrupt) = self.interrupted() {
                return Err(interrupt);
            }
            let deadline = self.deadline();
            tokio::select! {
                biased;
                input = self.inbox.recv() => self.take(input),
                () = at(deadline) => return Err(Interrupt::DeadlineExceeded),
                done = &mut work => return Ok(done),
            }
        }
    }

    /// The next news, for a part of the life that has its own waits.
    pub(super) async fn next_input(&mut self) {
        let input = self.inbox.recv().await;
        self.take(input);
    }

    /// The inbox and the run, to wait for both.
    pub(super) fn inbox_and_run(
        &mut self,
    ) -> (&mut mpsc::UnboundedReceiver<Input>, Option<&mut Run>) {
        (&mut self.inbox, self.run.as_mut())
    }

    /// What the news so far mean for the life.
    pub(super) fn interrupted(&mut self) -> Option<Interrupt> {
        if let Some(interrupt) = &self.interrupt {
            return Some(interrupt.clone());
        }
        let running = !self.report.phase.is_terminal();
        (running && self.defined() != self.definition).then_some(Interrupt::Redefined)
    }

    /// The container is from now on what its definition says now.
    pub(super) fn accept_definition(&mut self) {
        self.definition = self.defined();
    }

    fn defined(&self) -> Definition {
        let container = self.container();
        (container.image, container.resources)
    }

    pub(super) fn take(&mut self, input: Option<Input>) {
        match input {
            None => self.raise(Interrupt::AgentStops),
            Some(Input::Gone) => self.raise(Interrupt::Gone),
            Some(Input::Evict(_)) if self.report.phase.is_terminal() => {}
            Some(Input::Evict(message)) => self.raise(Interrupt::Evicted(message)),
            Some(Input::Container(event)) => {
                if let Some(run) = &mut self.run {
                    run.hear(event);
                }
            }
            Some(Input::Changed(object)) => self.changed(*object),
        }
    }

    fn changed(&mut self, object: PodObject) {
        let count = |object: &PodObject| {
            let spec = object.pod.spec.as_ref();
            spec.and_then(|spec| spec.ephemeral_containers.as_ref()).map_or(0, Vec::len)
        };
        if count(&object) > count(&self.object) && self.run.is_some() {
            let message = "ephemeral containers are not supported: a pod here is one module";
            self.event(Severity::Warning, admission::UNSUPPORTED, message.into());
        }
        self.object = object;
        if self.object.pod.metadata.deletion_timestamp.is_some() {
            self.raise(Interrupt::Deleted);
        }
        // The node controller marks pods unready when the node was silent for long.
        let seen = self.object.pod.status.clone().unwrap_or_default();
        if let Some(written) = &self.written
            && self.report.phase == Phase::Running
            && self.writer.settled().is_some_and(|settled| self.object.version() > Some(settled))
            && status::is_ready(written) != status::is_ready(&seen)
        {
            self.written = None;
            self.rewrite = true;
        }
        if self.run.is_some() {
            self.publish();
        }
    }

    /// Notes an interrupt unless a graver one is noted.
    fn raise(&mut self, interrupt: Interrupt) {
        let gravity = |interrupt: &Interrupt| match interrupt {
            Interrupt::Redefined => 0,
            Interrupt::DeadlineExceeded => 1,
            Interrupt::Evicted(_) => 2,
            Interrupt::Deleted => 3,
            Interrupt::AgentStops => 4,
            Interrupt::Gone => 5,
        };
        if self.interrupt.as_ref().is_none_or(|noted| gravity(noted) < gravity(&interrupt)) {
            self.interrupt = Some(interrupt);
        }
    }

    /// Forgets the interrupt that is being carried out.
    pub(super) fn clear_interrupt(&mut self) {
        self.interrupt = None;
    }

    /// When `activeDeadlineSeconds` are over: counted from when this worker began, so that a jump
    /// of the wall clock ends nothing.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.report.phase.is_terminal() || !self.admitted {
            return None;
        }
        let seconds = self.object.pod.spec.as_ref()?.active_deadline_seconds?;
        let allowed = Duration::from_secs(u64::try_from(seconds).ok()?);
        self.born.checked_add(allowed.saturating_sub(self.age_when_born))
    }

    pub(super) fn spec(&self) -> PodSpec {
        self.object.pod.spec.clone().unwrap_or_default()
    }

    /// The one container; an empty one of a pod that is refused for having none.
    pub(super) fn container(&self) -> Container {
        let spec = self.object.pod.spec.as_ref();
        spec.and_then(|spec| spec.containers.first()).cloned().unwrap_or_default()
    }

    /// `terminationGracePeriodSeconds`.
    pub(super) fn grace(&self) -> Duration {
        let seconds =
            self.object.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
        Duration::from_secs(seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(30))
    }

    /// The container waits; what it was before is its last state.
    pub(super) fn waiting(&mut self, reason: &str, message: &str) {
        let state = State::Waiting { reason: reason.into(), message: message.into() };
        self.leave_state(state);
    }

    /// A new state; an ended run becomes the last state.
    pub(super) fn leave_state(&mut self, state: State) {
        let before = std::mem::replace(&mut self.report.state, state);
        if let State::Terminated(ended) = before {
            self.report.last = Some(ended);
        }
    }

    /// An event of the container.
    pub(super) fn event(&self, severity: Severity, reason: &str, message: String) {
        let name = self.container().name;
        self.shared.events.record(&self.pod, Some(&name), severity, reason, message);
    }

    /// An event about a trouble, once for as long as it stays the same, and not again after a
    /// restart of the agent. `waiting` is the reason that the status shows.
    pub(super) fn tell(&mut self, severity: Severity, event: &str, waiting: &str, message: &str) {
        let trouble = (event.to_owned(), message.to_owned());
        let seen = self.object.pod.status.as_ref().and_then(|status| {
            let container = status.container_statuses.as_ref()?.first()?;
            container.state.as_ref()?.waiting.clone()
        });
        let known = self.told.is_none()
            && seen.is_some_and(|seen| {
                seen.reason.as_deref() == Some(waiting) && seen.message.as_deref() == Some(message)
            });
        if self.told.as_ref() != Some(&trouble) && !known {
            self.event(severity, event, message.to_owned());
        }
        self.told = Some(trouble);
    }

    /// Sends the status to the API server if it says anything new.
    pub(super) fn publish(&mut self) {
        let now = self.shared.world.clock.stamp();
        let status = status::build(&self.object, &self.report, &self.conditions, now);
        self.conditions = status.conditions.clone().unwrap_or_default();
        self.shared.board.show(&self.pod.uid, &self.object, &status);
        let known = match &self.written {
            Some(written) => *written == status,
            // A new agent writes only what the one before has not.
            None => {
                let seen = self.object.pod.status.as_ref();
                !self.rewrite && seen.is_some_and(|seen| status::same(&status, seen))
            }
        };
        if known {
            return;
        }
        self.rewrite = false;
        self.writer.write(status::patch(&self.pod.uid, &status));
        self.written = Some(status);
    }

    /// A future that ends when the status is written.
    pub(super) fn flushed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.writer.flushed()
    }
}

/// Waits until `instant`; for ever when there is none.
pub(super) async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}
