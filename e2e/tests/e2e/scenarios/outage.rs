//! The control plane goes away and comes back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    load::Load,
    runner::Outcome,
    wait::{SOON, until},
    workload::{Actor, Namespace, deployment, text},
    world::World,
};

/// API server, controllers, scheduler and etcd are stopped; clients go on. Afterwards the pods are
/// the same, and what is asked then is done. `GRAPHLET_E2E_OUTAGE` sets the seconds (20).
pub async fn away_and_back(world: Arc<World>) -> Result<Outcome> {
    if world.setting.control_plane.is_none() {
        return Ok(Outcome::Skipped("this control plane is not ours to stop".to_owned()));
    }
    let seconds = std::env::var("GRAPHLET_E2E_OUTAGE").ok().and_then(|it| it.parse().ok());
    let away = Duration::from_secs(seconds.unwrap_or(20));
    let space = Namespace::new("outage").await?;
    let actor = Actor { image: &world.modules.digits, replicas: 2, ..Actor::default() };
    space.apply(deployment(&actor)).await?;
    space.rolled_out("digits", 2, SOON).await?;
    let address = space.service(&world, "digits", 2).await?;
    let before = containers(&space).await?;

    let load = Load::start(address, &world.modules.seven, 2, Duration::from_millis(30));
    let parts = ["etcd", "apiserver", "controller-manager", "scheduler"];
    world.control_plane(&[&["stop"], &parts[..]].concat()).await?;
    tokio::time::sleep(away).await;
    world.control_plane(&[&["start"], &parts[..]].concat()).await?;
    for agent in &world.agents {
        agent.ready().await?;
    }
    // What is asked afterwards is done, and by then the old pods' status has been written again.
    space.kubectl(&["scale", "deployment/digits", "--replicas=3"]).await?;
    space.rolled_out("digits", 3, SOON).await?;
    load.answered(200).await?;
    let report = load.stop().await;
    report
        .flawless(200)
        .with_context(|| format!("{} s without a control plane", away.as_secs()))?;
    let after = until("statuses", SOON, async || containers(&space).await).await?;
    for (pod, container) in &before {
        ensure!(
            after.get(pod) == Some(container),
            "{pod} was {container} and is {:?}",
            after.get(pod)
        );
    }
    ensure!(after.len() == before.len() + 1, "{after:?}");
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// Container and restarts of each pod.
async fn containers(space: &Namespace) -> Result<BTreeMap<String, Value>> {
    Ok(space
        .pods("digits")
        .await?
        .iter()
        .map(|pod| {
            let container = &pod["status"]["containerStatuses"][0];
            (
                text(&pod["metadata"]["name"]),
                serde_json::json!([container["containerID"], container["restartCount"]]),
            )
        })
        .collect())
}
