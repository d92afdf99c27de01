//! Many pods come and go; nothing of them stays.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    agent::Agent,
    runner::Outcome,
    wait::{SOON, until},
    workload::{Actor, Namespace, deployment},
    world::World,
};

/// Waves of pods on one node; `GRAPHLET_E2E_WAVES` sets how many (2, of 15 pods each).
pub async fn come_and_go(world: Arc<World>) -> Result<Outcome> {
    let waves = std::env::var("GRAPHLET_E2E_WAVES").ok().and_then(|it| it.parse().ok());
    let space = Namespace::new("churn").await?;
    let agent = &world.agents[1];
    let actor = Actor {
        image: &world.modules.digits,
        replicas: 0,
        pod: json!({
            "nodeSelector": {"kubernetes.io/hostname": agent.name},
            "terminationGracePeriodSeconds": 1,
        }),
        ..Actor::default()
    };
    space.apply(deployment(&actor)).await?;
    // The first wave leaves what is kept on purpose: connections, a compiled module.
    wave(&space).await?;
    let before = held(agent).await?;
    for _ in 0..waves.unwrap_or(2) {
        wave(&space).await?;
    }
    let after = until("nothing held for pods that are gone", SOON, async || {
        let now = held(agent).await?;
        ensure!(
            now.descriptors <= before.descriptors + SLACK
                && now.threads <= before.threads + SLACK
                && now.children == before.children,
            "{now:?} after {before:?}"
        );
        Ok(now)
    })
    .await?;
    eprintln!("measured: {} pods later: {before:?}, then {after:?}", 15 * waves.unwrap_or(2));
    space.delete().await?;
    Ok(Outcome::Passed)
}

async fn wave(space: &Namespace) -> Result<()> {
    space.kubectl(&["scale", "deployment/digits", "--replicas=15"]).await?;
    space.rolled_out("digits", 15, SOON).await?;
    space.kubectl(&["scale", "deployment/digits", "--replicas=0"]).await?;
    until("all gone", SOON, async || {
        let left = space.pods("digits").await?.len();
        ensure!(left == 0, "{left} pods are left");
        Ok(())
    })
    .await
}

#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    threads: usize,
    /// Runs in the state folder: shims, sockets, logs.
    children: usize,
}

/// What the agent holds now.
async fn held(agent: &Agent) -> Result<Held> {
    let process = agent.pid().await.context("no agent")?;
    let count = |path: String| Ok::<_, std::io::Error>(std::fs::read_dir(path)?.count());
    Ok(Held {
        descriptors: count(format!("/proc/{process}/fd"))?,
        threads: count(format!("/proc/{process}/task"))?,
        children: std::fs::read_dir(agent.state.join("runs")).map_or(0, Iterator::count),
    })
}

/// A connection to the API server, a blocking thread that has not ended yet.
const SLACK: usize = 8;
