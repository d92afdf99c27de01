//! How a pod's life ends: deleted in peace, by force, evicted, or out of time.

use std::{convert::Infallible, future::Future, pin::pin, time::Duration};

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{
    events::Severity,
    seams::ClusterError,
    status::{Ended, Phase, State},
    worker::{Interrupt, Worker},
};

/// Waits between tries of the last DELETE.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// How long to wait for the watch to say what the DELETE has done.
const FAREWELL: Duration = Duration::from_secs(30);
/// An evicted pod has no longer than this, however much it asked for: the node is short.
const EVICTION_GRACE: Duration = Duration::from_secs(30);

impl Worker {
    /// Carries an interrupt out. Some when another one came in between.
    pub(super) async fn end(&mut self, interrupt: Interrupt) -> Option<Interrupt> {
        let ended = match interrupt {
            Interrupt::AgentStops => return None,
            Interrupt::Gone => {
                self.vanish().await;
                return None;
            }
            Interrupt::Deleted => self.terminate().await,
            Interrupt::Evicted(message) => {
                self.report.disruption = Some(message.clone());
                let grace = self.grace().min(EVICTION_GRACE);
                self.fail("Evicted", message, grace).await.map(|never| match never {})
            }
            Interrupt::DeadlineExceeded => {
                let message = "Pod was active on the node longer than the specified deadline";
                let grace = self.grace();
                let failed = self.fail("DeadlineExceeded", message.into(), grace).await;
                failed.map(|never| match never {})
            }
            // A life goes on by itself with another definition; here it has ended already.
            Interrupt::Redefined => return None,
        };
        ended.err()
    }

    /// Deleted: unready, drained, stopped, a terminal phase, and only then out of the API.
    async fn terminate(&mut self) -> Result<(), Interrupt> {
        self.clear_interrupt();
        self.settle_start().await;
        let grace = self.deletion_grace().unwrap_or_else(|| self.grace());
        if self.run.is_some() {
            let message = format!("Stopping container {}", self.container().name);
            self.event(Severity::Normal, "Killing", message);
            let exit = self.halt(grace, true).await?;
            self.record_exit(&exit);
            self.run = None;
        }
        self.close();
        self.publish();
        let flushed = self.flushed();
        self.unless_gone(flushed).await?;
        self.shared.world.containers.remove_pod(&self.pod).await;
        self.shared.ledger.free(&self.pod.uid);
        self.delete().await?;
        info!("Pod deleted");
        // Until the watch says so too, this worker keeps another one from starting.
        let farewell = self.unless_gone(std::future::pending::<()>());
        let _ = timeout(FAREWELL, farewell).await;
        Ok(())
    }

    /// The pod's phase becomes a terminal one, if it is not yet.
    fn close(&mut self) {
        if self.report.phase.is_terminal() {
            return;
        }
        if !matches!(self.report.state, State::Terminated(_)) {
            // As the kubelet does with containers that never ran.
            self.leave_state(State::Terminated(Ended {
                code: 137,
                reason: "ContainerStatusUnknown".into(),
                message: "the container was not running when the pod ended".into(),
                started_at: None,
                finished_at: None,
                container_id: None,
            }));
        }
        let well = matches!(&self.report.state, State::Terminated(ended) if ended.code == 0);
        self.report.phase = if well { Phase::Succeeded } else { Phase::Failed };
    }

    /// The last word to the API server.
    async fn delete(&mut self) -> Result<(), Interrupt> {
        let mut retry = FIRST_RETRY;
        loop {
            let (cluster, pod) = (self.shared.world.cluster.clone(), self.pod.clone());
            let deleted = self.unless_gone(async move { cluster.delete(&pod).await });
            match deleted.await? {
                Ok(()) | Err(ClusterError::NotFound | ClusterError::Replaced) => return Ok(()),
                Err(error) => {
                    warn!(%error, "Pod not deleted yet");
                    self.unless_gone(sleep(retry)).await?;
                    retry = (retry * 2).min(LONGEST_RETRY);
                }
            }
        }
    }

    /// Ends the pod as Failed, and then waits until somebody deletes it.
    async fn fail(
        &mut self,
        reason: &str,
        message: String,
        grace: Duration,
    ) -> Result<Infallible, Interrupt> {
        self.clear_interrupt();
        info!(reason, detail = message, "Pod ended by the node");
        self.shared.events.record(&self.pod, None, Severity::Warning, reason, message.clone());
        self.settle_start().await;
        if self.run.is_some() {
            let text = format!("Stopping container {}", self.container().name);
            self.event(Severity::Normal, "Killing", text);
            let exit = self.halt(grace, false).await?;
            self.record_exit(&exit);
        }
        self.close();
        self.report.phase = Phase::Failed;
        self.report.reason = Some((reason.to_owned(), message));
        self.finished().await
    }

    /// Gone from the API: nobody waits for anything any more, and its address may be needed.
    async fn vanish(&mut self) {
        self.settle_start().await;
        if let Some(run) = &mut self.run {
            run.probes.stop();
            self.shared.world.containers.kill(&run.id).await;
        }
        self.shared.world.containers.remove_pod(&self.pod).await;
        info!("Pod is gone from the API, its processes are ended");
    }

    /// A start that was interrupted comes to its end, and what it started too.
    pub(super) async fn settle_start(&mut self) {
        let Some(starting) = self.starting.take() else { return };
        if let Ok(Ok(container)) = starting.await {
            let containers = self.shared.world.containers.clone();
            containers.kill(&container.id).await;
            containers.remove(&container.id).await;
        }
    }

    /// Waits for `work`; only a pod that is gone, or the agent's own end, comes between.
    async fn unless_gone<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Interrupt> {
        let mut work = pin!(work);
        loop {
            if let Some(end @ (Interrupt::Gone | Interrupt::AgentStops)) = self.interrupted() {
                return Err(end);
            }
            tokio::select! {
                biased;
                () = self.next_input() => {}
                done = &mut work => return Ok(done),
            }
        }
    }
}
