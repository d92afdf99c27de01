//! What the whole must do, one file per idea.

mod adoption;
mod capacity;
mod certificates;
mod churn;
mod cpu;
mod drain;
mod examples;
mod faults;
mod joining;
mod kubelet_port;
mod logs;
mod manifests;
mod measures;
mod metrics;
mod outage;
mod refusals;
mod restarts;
mod rollout;
mod scaling;

use crate::runner::{Phase, Scenario};

/// A scenario of an async function that takes the world.
macro_rules! scenario {
    ($phase:ident, $name:literal, $function:path) => {
        Scenario { name: $name, phase: Phase::$phase, run: |world| Box::pin($function(world)) }
    };
}

/// All of them, in the order in which they begin.
pub fn all() -> Vec<Scenario> {
    vec![
        scenario!(First, "two nodes join with a one-hour token and become Ready", joining::ready),
        scenario!(
            First,
            "manifests/ is what deploy/base says, and applies at once",
            manifests::apply
        ),
        scenario!(First, "a pod's way from bound to Ready, measured", measures::bound_to_ready),
        scenario!(
            Together,
            "the autoscaler adds pods under load, and top shows what they use",
            metrics::autoscaler
        ),
        scenario!(
            Together,
            "the label comes through the ClusterIP and through the API server's proxy",
            manifests::serve
        ),
        scenario!(
            Together,
            "from one pod to six and back to two no request fails",
            scaling::under_load
        ),
        scenario!(
            Together,
            "a rolling update to another model answers every request",
            rollout::to_another_model
        ),
        scenario!(
            Together,
            "a pod that is not ready gets no traffic, and the rollout waits",
            rollout::readiness_holds
        ),
        scenario!(
            Together,
            "logs follow, tail, stamp, and show the run before",
            logs::every_option
        ),
        scenario!(Together, "describe shows what happened to a pod", logs::described),
        scenario!(
            Together,
            "a failing liveness probe restarts the container in its pod",
            restarts::liveness
        ),
        scenario!(Together, "a pod over its memory limit is OOMKilled", restarts::out_of_memory),
        scenario!(Together, "a 200m pod is held to a quarter of a core", cpu::limited),
        scenario!(
            Together,
            "unsigned, tampered and wrongly issued modules wait, refused",
            refusals::signatures
        ),
        scenario!(
            Together,
            "what a module cannot do is refused by name, once, and waits",
            refusals::by_name
        ),
        scenario!(
            Together,
            "a pod waits for its ConfigMap and starts when it is there",
            refusals::missing_config
        ),
        scenario!(
            Together,
            "a DaemonSet pod that tolerates everything waits and is not replaced",
            refusals::tolerates_everything
        ),
        scenario!(
            Together,
            "an image that is not there backs off, and starts once it is pushed",
            faults::missing_image
        ),
        scenario!(
            Together,
            "a pod deleted while it pulls is gone soon",
            faults::deleted_while_pulling
        ),
        scenario!(Together, "a taken port waits, and starts once it is free", faults::taken_port),
        scenario!(Together, "a forced deletion frees the address", faults::forced_deletion),
        scenario!(
            Together,
            "the kubelet's port lets nobody in and says what it cannot do",
            kubelet_port::guarded
        ),
        scenario!(
            Together,
            "the example Job names the picture, and fails as Jobs do",
            examples::job
        ),
        scenario!(
            Together,
            "a pod as Krustlet wrote it answers on its hostPort",
            examples::krustlet
        ),
        scenario!(
            Alone,
            "a drain moves pods to the other node without a failed request",
            drain::moves
        ),
        scenario!(Alone, "pods come and go, and nothing of them stays", churn::come_and_go),
        scenario!(
            Alone,
            "an agent killed and started again adopts its pods as they are",
            adoption::killed
        ),
        scenario!(Alone, "how much a node holds and answers, measured", capacity::of_a_node),
        scenario!(
            Quiet,
            "certificates were renewed three times and nobody was turned away",
            certificates::renewed
        ),
        scenario!(Quiet, "what a node asks of the API server, measured", measures::api_load),
        scenario!(
            Last,
            "pods serve on while the control plane is away, and nothing starts twice",
            outage::away_and_back
        ),
    ]
}
