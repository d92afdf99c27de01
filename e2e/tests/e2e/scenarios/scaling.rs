//! More pods and fewer, under load.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};

use crate::{
    load::Load,
    runner::Outcome,
    wait::{SOON, until},
    workload::{Actor, Namespace, deployment},
    world::World,
};

/// 1 → 6 → 2 while clients send picture after picture, each on a new connection.
pub async fn under_load(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("scaling").await?;
    space.apply(deployment(&Actor { image: &world.modules.digits, ..Actor::default() })).await?;
    space.rolled_out("digits", 1, SOON).await?;
    let address = space.service(&world, "digits", 1).await?;

    let load = Load::start(address, &world.modules.seven, 4, Duration::from_millis(20));
    for replicas in [6_u8, 2] {
        space.kubectl(&["scale", "deployment/digits", &format!("--replicas={replicas}")]).await?;
        space.rolled_out("digits", replicas.into(), SOON).await?;
        gone_down_to(&space, replicas.into()).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    load.answered(200).await?;
    let report = load.stop().await;
    eprintln!("measured: scaling 1, 6, 2 under load: {report}");
    report.flawless(200).context("while scaling")?;
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// Deleted pods are gone, too: their last requests are part of the promise.
async fn gone_down_to(space: &Namespace, pods: usize) -> Result<()> {
    until("deleted pods gone", SOON, async || {
        let left = space.pods("digits").await?.len();
        anyhow::ensure!(left == pods, "{left} pods are left");
        Ok(())
    })
    .await
}
