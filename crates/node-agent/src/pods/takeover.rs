//! What a new agent finds of a pod: its container running, ended, or gone.

use k8s_openapi::{api::core::v1::ContainerStatus, apimachinery::pkg::apis::meta::v1::Time};
use tracing::info;

use super::{
    running::Run,
    seams::whole_seconds,
    status::{self, Phase, State},
    worker::Worker,
};
use crate::runtime::{Container, ContainerState, Exit};

impl Worker {
    /// Finds what is left of this pod from before the agent started. True when nothing follows.
    pub(super) async fn take_over(&mut self) -> bool {
        let seen = self.object.pod.status.clone().unwrap_or_default();
        let shown = seen.container_statuses.iter().flatten().next().cloned().unwrap_or_default();
        self.report.restarts = u32::try_from(shown.restart_count).unwrap_or(0);
        self.report.last = shown.last_state.as_ref().and_then(status::ended);
        self.report.container_id = shown.container_id.clone();
        self.report.image_id = shown.image_id.clone();
        let known = shown.state.clone().unwrap_or_default();
        match seen.phase.as_deref() {
            Some("Succeeded") => self.report.phase = Phase::Succeeded,
            Some("Failed") => self.report.phase = Phase::Failed,
            Some("Running") => self.report.phase = Phase::Running,
            _ => {}
        }
        if let (Some(reason), true) = (seen.reason.clone(), self.report.phase.is_terminal()) {
            self.report.reason = Some((reason, seen.message.clone().unwrap_or_default()));
        }
        let mut left = self.shared.world.containers.containers();
        left.retain(|container| container.spec.pod.uid == self.pod.uid);
        left.sort_by_key(|container| container.spec.attempt);
        if self.report.phase.is_terminal() {
            // Its end was told, and the agent was killed before it was carried out.
            for container in left.drain(..) {
                self.shared.world.containers.kill(&container.id).await;
                self.shared.world.containers.remove(&container.id).await;
            }
        }
        let Some(newest) = left.pop() else {
            if let Some(ended) = status::ended(&known) {
                self.report.state = State::Terminated(ended);
            } else if let Some(waiting) = &known.waiting {
                let reason = waiting.reason.clone().unwrap_or_default();
                let message = waiting.message.clone().unwrap_or_default();
                self.report.state = State::Waiting { reason, message };
            } else if let Some(running) = &known.running {
                let since =
                    running.started_at.as_ref().map_or(self.report.start_time, |Time(t)| *t);
                self.report.state = State::Running { since };
                return self.lost().await;
            }
            return self.report.phase.is_terminal();
        };
        for older in left {
            self.shared.world.containers.remove(&older.id).await;
        }
        self.adopt(newest, &shown).await;
        false
    }

    /// The API says that the container runs, and it does not: it ended with the agent's own
    /// container. True when nothing follows.
    async fn lost(&mut self) -> bool {
        let exit = Exit {
            code: 137,
            reason: "ContainerStatusUnknown".into(),
            message: "the container ended while the node agent was away".into(),
            finished_at: self.shared.world.clock.now(),
        };
        self.record_exit(&exit);
        if self.spec().restart_policy.as_deref() == Some("Never") {
            self.report.phase = Phase::Failed;
            return true;
        }
        false
    }

    /// A container that was here before this agent becomes this pod's run.
    async fn adopt(&mut self, container: Container, shown: &ContainerStatus) {
        let id = format!("graphlet://{}", container.id.0);
        let same = shown.container_id.as_deref() == Some(&id);
        let spec = &container.spec;
        self.report.restarts = spec.attempt;
        self.report.phase = Phase::Running;
        self.report.state = State::Running { since: whole_seconds(container.started_at) };
        self.report.container_id = Some(id);
        if !same {
            let image = self.container().image.unwrap_or_default();
            let images = self.shared.world.images.clone();
            self.report.image_id = images.image_id(&image, &spec.digest).await.unwrap_or_default();
        }
        if let Some(ip) = spec.listen.first() {
            self.report.pod_ip = Some(ip.ip());
        }
        let answers = container.state == ContainerState::Running;
        self.report.started = same && shown.started == Some(true);
        self.report.ready = same && shown.ready && answers;
        info!(container.id = %container.id.0, pid = container.pid, "Container taken over");
        self.shared.board.runs(&self.pod.uid, &container.id, &spec.digest);
        let run = Run::adopted(self, &container);
        self.run = Some(run);
        if !matches!(container.state, ContainerState::Exited(_)) {
            self.publish();
        }
    }
}
