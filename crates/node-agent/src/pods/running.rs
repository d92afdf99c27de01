//! A run of a container: from its start, through its probes, to its end.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};

use super::{
    events::Severity,
    probes::{self, ProbeKind, ProbeNews, ProbeSpec, Probes},
    seams::Later,
    worker::{Interrupt, Worker, at},
};
use crate::runtime::{Container, ContainerEvent, ContainerId, ContainerState, Exit, ModuleKind};

/// How long a pod goes on accepting connections after it was deleted: until every node has heard
/// that it is no longer an endpoint.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
/// What is left for the process when a preStop hook has used up the grace, as with the kubelet.
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// How long the runtime may take to say that a killed process has ended.
const KILL_MARGIN: Duration = Duration::from_secs(5);

/// One run.
#[derive(Debug)]
pub(crate) struct Run {
    /// Its name.
    pub id: ContainerId,
    /// When it began.
    pub began: Instant,
    /// Its probes.
    pub probes: Probes,
    kind: ModuleKind,
    /// Whether requests may have come.
    served: bool,
    /// The runtime says that it answers.
    answers: bool,
    /// The startup probe has succeeded, or there is none.
    started: bool,
    /// The readiness probe's verdict; true where there is none.
    healthy: bool,
    exit: Option<Exit>,
    open: watch::Sender<bool>,
    news: mpsc::UnboundedReceiver<ProbeNews>,
    start_limit: Instant,
}

impl Run {
    /// A run that was started now, or taken over with what the report says of it.
    pub(super) fn new(worker: &Worker, container: &Container, specs: Vec<ProbeSpec>) -> Self {
        let shared = &worker.shared;
        let age = shared.world.clock.now().duration_since(container.started_at).unwrap_or_default();
        let now = Instant::now();
        let began = now.checked_sub(age).unwrap_or(now);
        let (ready, started) = (worker.report.ready, worker.report.started);
        let has = |kind| specs.iter().any(|spec: &ProbeSpec| spec.kind == kind);
        let started = started || !has(ProbeKind::Startup);
        let healthy = ready || !has(ProbeKind::Readiness);
        let specs = specs
            .into_iter()
            .filter(|spec| !(started && spec.kind == ProbeKind::Startup))
            .collect();
        let (sender, news) = mpsc::unbounded_channel();
        let (open, opened) = watch::channel(false);
        let probes = Probes::start(&shared.world.prober, specs, began, &opened, ready, &sender);
        Run {
            id: container.id.clone(),
            began,
            probes,
            kind: container.spec.kind,
            served: ready,
            answers: container.state == ContainerState::Running,
            started,
            healthy,
            exit: match &container.state {
                ContainerState::Exited(exit) => Some(exit.clone()),
                _ => None,
            },
            open,
            news,
            start_limit: now + shared.config.start_timeout,
        }
    }

    /// A run that was here before the agent.
    pub(super) fn adopted(worker: &Worker, container: &Container) -> Self {
        let address = container.spec.listen.first();
        let specs =
            address.and_then(|address| probes::specs(&worker.container(), address.ip()).ok());
        Run::new(worker, container, specs.unwrap_or_default())
    }

    /// What the runtime says.
    pub(super) fn hear(&mut self, event: ContainerEvent) {
        match event {
            ContainerEvent::Ready(id) if id == self.id => self.answers = true,
            ContainerEvent::Exited(id, exit) if id == self.id => self.exit = Some(exit),
            _ => {}
        }
    }
}

impl Worker {
    /// Watches over the run until it ends.
    pub(super) async fn supervise(&mut self) -> Result<Exit, Interrupt> {
        loop {
            if let Some(exit) = self.run.as_ref().and_then(|run| run.exit.clone()) {
                return Ok(exit);
            }
            self.refresh();
            if let Some(interrupt) = self.interrupted() {
                return Err(interrupt);
            }
            let deadline = self.deadline();
            let (inbox, run) = self.inbox_and_run();
            let Some(run) = run else { return Ok(self.unknown_exit()) };
            let too_slow = (!run.answers).then_some(run.start_limit);
            let news = tokio::select! {
                biased;
                input = inbox.recv() => {
                    self.take(input);
                    continue;
                }
                () = at(deadline) => return Err(Interrupt::DeadlineExceeded),
                () = at(too_slow) => {
                    let after = self.shared.config.start_timeout.as_secs();
                    let name = self.container().name;
                    let message = format!(
                        "Container {name} has not answered within {after} s, will be restarted"
                    );
                    self.event(Severity::Warning, "Killing", message);
                    return self.halt(self.grace(), false).await;
                }
                Some(news) = run.news.recv() => news,
            };
            if let Some(exit) = self.probed(news).await? {
                return Ok(exit);
            }
        }
    }

    /// What a probe's news mean. Some when the run has ended by it.
    async fn probed(&mut self, news: ProbeNews) -> Result<Option<Exit>, Interrupt> {
        match news {
            ProbeNews::Started => {
                if let Some(run) = &mut self.run {
                    run.started = true;
                }
            }
            ProbeNews::Ready(ready) => {
                if let Some(run) = &mut self.run {
                    run.healthy = ready;
                }
            }
            ProbeNews::Unhealthy { kind, message } => {
                let message = format!("{} probe failed: {message}", kind.name());
                self.event(Severity::Warning, "Unhealthy", message);
            }
            ProbeNews::Restart { kind, grace } => {
                let (name, kind) = (self.container().name, kind.name().to_lowercase());
                let message = format!("Container {name} failed {kind} probe, will be restarted");
                self.event(Severity::Normal, "Killing", message);
                let grace = grace.unwrap_or_else(|| self.grace());
                return self.halt(grace, false).await.map(Some);
            }
        }
        Ok(None)
    }

    /// Brings readiness up to date, and publishes it when it has changed.
    fn refresh(&mut self) {
        let Some(run) = &mut self.run else { return };
        let started = run.answers && run.started;
        if started {
            run.open.send_if_modified(|open| !std::mem::replace(open, true));
        }
        let ready = started && run.healthy;
        run.served |= ready;
        if (self.report.started, self.report.ready) != (started, ready) {
            self.report.started = started;
            self.report.ready = ready;
            self.publish();
        }
    }

    /// Ends the run: unready at once; with `drain` it accepts connections for a while yet; then
    /// the preStop hook, SIGTERM, and SIGKILL when `grace` is over.
    ///
    /// # Errors
    /// [`Interrupt::AgentStops`]; the process is left as it is.
    pub(super) async fn halt(&mut self, grace: Duration, drain: bool) -> Result<Exit, Interrupt> {
        let hook = self.pre_stop();
        let Some(run) = &mut self.run else { return Ok(self.unknown_exit()) };
        run.probes.stop();
        let id = run.id.clone();
        let drain = drain && run.served && run.kind == ModuleKind::Actor;
        self.report.ready = false;
        self.publish();
        let containers = self.shared.world.containers.clone();
        let now = Instant::now();
        let mut limit = Limit { grace, deadline: now + grace };
        let mut drained = now;
        if drain {
            containers.drain(&id).await;
            drained = now + DRAIN.min(grace.saturating_sub(LEAST_GRACE));
        }
        let hooked = timeout_at(limit.deadline, hook);
        let quiet = async move {
            // A hook that takes too long is simply over.
            let _ = hooked.await;
            tokio::time::sleep_until(drained).await;
        };
        if let Some(exit) = self.exit_or(quiet, &mut limit).await? {
            return Ok(exit);
        }
        let left = limit.deadline.saturating_duration_since(Instant::now());
        let left = left.max(LEAST_GRACE.min(limit.grace));
        containers.stop(&id, left).await;
        limit.deadline = Instant::now() + left + KILL_MARGIN;
        if let Some(exit) = self.exit_or(std::future::pending(), &mut limit).await? {
            return Ok(exit);
        }
        containers.kill(&id).await;
        let patience = tokio::time::sleep(KILL_MARGIN);
        let mut limit = Limit { grace: KILL_MARGIN, deadline: Instant::now() + KILL_MARGIN };
        let exit = self.exit_or(patience, &mut limit).await?;
        Ok(exit.unwrap_or_else(|| self.unknown_exit()))
    }

    /// Waits for the run's end, but no longer than `work` takes and `limit` allows, which a
    /// shorter grace in a second deletion cuts.
    async fn exit_or(
        &mut self,
        work: impl Future<Output = ()>,
        limit: &mut Limit,
    ) -> Result<Option<Exit>, Interrupt> {
        let mut work = std::pin::pin!(work);
        loop {
            if let Some(exit) = self.run.as_ref().and_then(|run| run.exit.clone()) {
                return Ok(Some(exit));
            }
            match self.interrupted() {
                Some(Interrupt::AgentStops) => return Err(Interrupt::AgentStops),
                Some(Interrupt::Gone) => limit.cut(Duration::ZERO),
                _ => {
                    if let Some(grace) = self.deletion_grace() {
                        limit.cut(grace);
                    }
                }
            }
            if limit.deadline <= Instant::now() {
                return Ok(None);
            }
            tokio::select! {
                biased;
                () = self.next_input() => {}
                () = at(Some(limit.deadline)) => return Ok(None),
                () = &mut work => return Ok(None),
            }
        }
    }

    /// The grace that whoever deleted the pod gave it.
    pub(super) fn deletion_grace(&self) -> Option<Duration> {
        let meta = &self.object.pod.metadata;
        meta.deletion_timestamp.as_ref()?;
        let seconds = u64::try_from(meta.deletion_grace_period_seconds?).unwrap_or(0);
        Some(Duration::from_secs(seconds))
    }

    /// The preStop hook as a future of its own.
    fn pre_stop(&self) -> Later<'static, ()> {
        let container = self.container();
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone());
        let Some(hook) = hook else { return Box::pin(async {}) };
        if let Some(sleep) = hook.sleep {
            let time = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
            return Box::pin(tokio::time::sleep(time));
        }
        let (Some(get), Some(ip)) = (hook.http_get, self.report.pod_ip) else {
            return Box::pin(async {});
        };
        let prober = self.shared.world.prober.clone();
        let (events, pod) = (self.shared.events.clone(), self.pod.clone());
        Box::pin(async move {
            let result = match probes::http_action(&get, &container, ip) {
                // The grace bounds it.
                Ok(action) => prober.probe(&action, Duration::from_secs(24 * 3600)).await,
                Err(error) => Err(error.to_string()),
            };
            if let Err(message) = result {
                let name = Some(container.name.as_str());
                let message = format!("PreStopHook failed: {message}");
                events.record(&pod, name, Severity::Warning, "FailedPreStopHook", message);
            }
        })
    }

    /// What is said of a run whose end nobody saw.
    pub(super) fn unknown_exit(&self) -> Exit {
        Exit {
            code: 137,
            reason: "ContainerStatusUnknown".into(),
            message: "nothing is known of the container's end".into(),
            finished_at: self.shared.world.clock.now(),
        }
    }
}

/// How long an ending may take.
struct Limit {
    grace: Duration,
    deadline: Instant,
}

impl Limit {
    fn cut(&mut self, grace: Duration) {
        if grace < self.grace {
            self.grace = grace;
            self.deadline = self.deadline.min(Instant::now() + grace);
        }
    }
}
