//! A node is taken out of service.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    kubectl::kubectl,
    load::Load,
    runner::Outcome,
    wait::{SOON, until},
    workload::{Actor, Namespace, deployment, text},
    world::World,
};

/// `kubectl drain` takes one pod at a time; the next is ready elsewhere before the one after goes.
pub async fn moves(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("drain").await?;
    let [first, second] = &world.agents;
    let spread = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": APP}},
    }]);
    let mut objects = deployment(&Actor {
        app: APP,
        image: &world.modules.digits,
        replicas: 4,
        pod: json!({"topologySpreadConstraints": spread}),
        ..Actor::default()
    });
    objects.push(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": APP},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": APP}}},
    }));
    space.apply(objects).await?;
    space.rolled_out(APP, 4, SOON).await?;
    let before = nodes_of(&space).await?;
    ensure!(before.contains(&first.name), "no pod on {} to move: {before:?}", first.name);
    let address = space.service(&world, APP, 4).await?;

    let load = Load::start(address, &world.modules.seven, 3, Duration::from_millis(20));
    let selector = format!("--pod-selector=app={APP}");
    let drained =
        kubectl(&["drain", &first.name, "--ignore-daemonsets", &selector, "--timeout=120s"]).await;
    let moved = until("all pods on the other node", SOON, async || {
        let nodes = nodes_of(&space).await?;
        ensure!(nodes.iter().all(|node| *node == second.name) && nodes.len() == 4, "{nodes:?}");
        Ok(())
    })
    .await;
    let steady = space.rolled_out(APP, 4, SOON).await;
    let enough = load.answered(200).await;
    let report = load.stop().await;
    kubectl(&["uncordon", &first.name]).await?;
    drained?;
    moved?;
    steady?;
    enough?;
    report.flawless(200).context("while draining")?;
    space.delete().await?;
    Ok(Outcome::Passed)
}

async fn nodes_of(space: &Namespace) -> Result<Vec<String>> {
    let pods = space.pods(APP).await?;
    Ok(pods.iter().map(|pod| text(&pod["spec"]["nodeName"])).collect())
}

/// Nobody else's name: a drain looks into all namespaces, and what scenarios before this one left
/// may still be on its way out.
const APP: &str = "drained";
