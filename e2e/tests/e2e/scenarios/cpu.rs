//! `limits.cpu` is a limit.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    load::Load,
    runner::Outcome,
    wait::{SOON, until},
    workload::{Actor, Namespace, deployment},
    world::World,
};

/// Clients that never pause keep a pod busy; it gets its 200m, and at most a quarter of a core.
pub async fn limited(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("cpu").await?;
    let actor = Actor {
        image: &world.modules.digits,
        container: json!({"resources": {
            "requests": {"cpu": "10m"}, "limits": {"cpu": "200m"},
        }}),
        ..Actor::default()
    };
    space.apply(deployment(&actor)).await?;
    space.rolled_out("digits", 1, SOON).await?;
    let address = space.service(&world, "digits", 1).await?;
    let pod = space.pods("digits").await?.first().cloned().context("no pod")?;

    let load = Load::start(address, &world.modules.seven, 6, Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (from, began) = (cpu_of(&world, &pod).await?, std::time::Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    // On a busy machine it may take longer to get half of its share.
    let used = until("a second of processor time", SOON, async || {
        let (to, took) = (cpu_of(&world, &pod).await?, began.elapsed());
        ensure!(to - from >= 1.0, "{:.2} s in {took:?}", to - from);
        Ok((to, took))
    })
    .await;
    let report = load.stop().await;
    let (to, took) = used?;
    let cores = (to - from) / took.as_secs_f64();
    eprintln!("measured: a 200m pod under full load used {cores:.3} CPU; {report}");
    ensure!(cores <= 0.25, "a 200m pod used {cores:.3} CPU over {} s", took.as_secs());
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// Processor seconds that a pod's process has used, as the node's statistics say.
async fn cpu_of(world: &World, pod: &serde_json::Value) -> Result<f64> {
    let uid = &pod["metadata"]["uid"];
    let node = pod["spec"]["nodeName"].as_str().context("not bound")?;
    let agent = world.agents.iter().find(|agent| agent.name == node).context("another node")?;
    let summary = crate::kubectl::kubectl(&[
        "get",
        "--raw",
        &format!("/api/v1/nodes/{}/proxy/stats/summary", agent.name),
    ])
    .await?;
    let summary: serde_json::Value = serde_json::from_str(&summary)?;
    let stats = summary["pods"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|it| it["podRef"]["uid"] == *uid)
        .with_context(|| format!("the pod is not in {}", summary["pods"]))?;
    let nanoseconds = stats["containers"][0]["cpu"]["usageCoreNanoSeconds"]
        .as_u64()
        .with_context(|| format!("no processor time in {stats}"))?;
    Ok(nanoseconds as f64 / 1e9)
}
