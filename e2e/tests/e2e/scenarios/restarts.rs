//! Containers that end, and start again.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use serde_json::json;

use crate::{
    runner::Outcome,
    wait::{SOON, until},
    workload::{Actor, Namespace, pod, text},
    world::World,
};

/// The pod stays: same name, uid and address; its container is another run.
pub async fn liveness(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("liveness").await?;
    let actor = Actor {
        image: &world.modules.digits,
        pod: json!({"terminationGracePeriodSeconds": 2}),
        container: json!({"livenessProbe": {
            "httpGet": {"path": "/v1/none", "port": "http"},
            "periodSeconds": 1, "failureThreshold": 3, "initialDelaySeconds": 3,
        }}),
        ..Actor::default()
    };
    space.apply(vec![pod(&actor)]).await?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/digits", "--timeout=120s"]).await?;
    let before = space.get(&["pod", "digits"]).await?;
    let after = until("a restart", SOON, async || {
        let pod = space.get(&["pod", "digits"]).await?;
        let container = &pod["status"]["containerStatuses"][0];
        if container["restartCount"].as_u64() < Some(1) || container["state"]["running"].is_null() {
            bail!("{container}");
        }
        Ok(pod)
    })
    .await?;
    for field in ["/metadata/uid", "/status/podIP"] {
        ensure!(
            before.pointer(field) == after.pointer(field),
            "{field}: {:?}, then {:?}",
            before.pointer(field),
            after.pointer(field)
        );
    }
    let id = "/status/containerStatuses/0/containerID";
    ensure!(before.pointer(id) != after.pointer(id), "{:?} ran twice", after.pointer(id));
    for wanted in ["Unhealthy: Liveness probe failed", "Killing"] {
        space.event("digits", wanted).await?;
    }
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// The first instance does not fit: 137, and back-off instead of a quick circle.
pub async fn out_of_memory(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("memory").await?;
    let actor = Actor {
        image: &world.modules.digits,
        container: json!({"resources": {
            "requests": {"memory": "1Mi"}, "limits": {"memory": "2Mi"},
        }}),
        ..Actor::default()
    };
    space.apply(vec![pod(&actor)]).await?;
    let within = SOON;
    let last = until("OOMKilled, then back-off", within, async || {
        let pod = space.get(&["pod", "digits"]).await?;
        let container = &pod["status"]["containerStatuses"][0];
        let last = &container["lastState"]["terminated"];
        if text(&container["state"]["waiting"]["reason"]) != "CrashLoopBackOff" {
            bail!("{container}");
        }
        Ok(last.clone())
    })
    .await?;
    ensure!(last["reason"] == "OOMKilled" && last["exitCode"] == 137, "{last}");
    space.delete().await?;
    Ok(Outcome::Passed)
}
