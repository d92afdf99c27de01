//! The agent dies; its pods do not.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    kubectl,
    load::Load,
    runner::Outcome,
    wait::{SOON, until},
    workload::{Actor, Namespace, deployment, pod_address, text},
    world::World,
};

/// `kill -9`, then another start, as systemd does it: the same processes, containers and counts,
/// and no request that failed. What changed meanwhile is caught up with.
pub async fn killed(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("adoption").await?;
    let agent = &world.agents[0];
    let actor = Actor {
        image: &world.modules.digits,
        replicas: 3,
        pod: json!({"nodeSelector": {"kubernetes.io/hostname": agent.name}}),
        ..Actor::default()
    };
    space.apply(deployment(&actor)).await?;
    space.rolled_out("digits", 3, SOON).await?;
    let address = space.service(&world, "digits", 3).await?;
    let before = identities(&space).await?;
    let renewed = lease(&agent.name).await?;

    let load = Load::start(address, &world.modules.seven, 3, Duration::from_millis(20));
    let first = agent.pid().await;
    agent.kill().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    // One of three goes while nobody is there to see it.
    let victim = before.keys().next().cloned().context("no pod")?;
    space.kubectl(&["scale", "deployment/digits", "--replicas=2"]).await?;
    agent.start().await?;
    ensure!(agent.pid().await != first, "the agent is another process");
    until("the lease renewed", SOON, async || {
        ensure!(lease(&agent.name).await? != renewed, "not yet");
        Ok(())
    })
    .await?;
    agent.ready().await?;
    space.rolled_out("digits", 2, SOON).await?;
    let after = until("two pods", SOON, async || {
        let left = identities(&space).await?;
        ensure!(left.len() == 2, "{left:?}");
        Ok(left)
    })
    .await?;
    load.answered(200).await?;
    let report = load.stop().await;
    report.flawless(200).context("while the agent was away")?;
    for (name, identity) in &after {
        ensure!(
            before.get(name) == Some(identity),
            "{name} was {:?} and is {identity:?} (deleted meanwhile: one of {victim})",
            before.get(name)
        );
    }
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// What must not change: container, restarts, start, address, and the process that listens there.
async fn identities(space: &Namespace) -> Result<BTreeMap<String, Value>> {
    let mut identities = BTreeMap::new();
    for pod in space.pods("digits").await? {
        let container = &pod["status"]["containerStatuses"][0];
        let address = pod_address(&pod)?;
        identities.insert(
            text(&pod["metadata"]["name"]),
            json!({
                "container": container["containerID"],
                "restarts": container["restartCount"],
                "since": container["state"]["running"]["startedAt"],
                "address": address.to_string(),
                "process": super::capacity::listener(&address.to_string()).await?,
            }),
        );
    }
    Ok(identities)
}

async fn lease(node: &str) -> Result<Value> {
    Ok(kubectl::get(&["-n", "kube-node-lease", "lease", node]).await?["spec"]["renewTime"].clone())
}
