//! From a bootstrap token to a node that takes pods.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use serde_json::json;

use crate::{
    kubectl::{self, kubectl},
    runner::Outcome,
    wait::{SOON, until},
    workload::text,
    world::World,
};

/// Both nodes: their labels, taints, addresses, capacity and lease.
pub async fn ready(world: Arc<World>) -> Result<Outcome> {
    for agent in &world.agents {
        let node = agent.ready().await?;
        let labels = &node["metadata"]["labels"];
        ensure!(labels["kubernetes.io/arch"] == "wasm32-wascc", "labels: {labels}");
        ensure!(labels["kubernetes.io/os"] == "wasm32-wascc", "labels: {labels}");
        ensure!(labels["type"] == "krustlet", "labels: {labels}");

        let taints = &node["spec"]["taints"];
        for effect in ["NoSchedule", "NoExecute"] {
            let wanted =
                json!({"key": "kubernetes.io/arch", "value": "wasm32-wascc", "effect": effect});
            ensure!(
                taints.as_array().is_some_and(|taints| taints.contains(&wanted)),
                "taints: {taints}"
            );
        }

        let status = &node["status"];
        let address = json!({"type": "InternalIP", "address": agent.ip.to_string()});
        let addresses = &status["addresses"];
        ensure!(
            addresses.as_array().is_some_and(|all| all.contains(&address)),
            "addresses: {addresses}"
        );
        ensure!(
            status["daemonEndpoints"]["kubeletEndpoint"]["Port"] == json!(agent.port),
            "endpoint: {}",
            status["daemonEndpoints"]
        );
        true_capacity(&text(&status["capacity"]["cpu"]), &text(&status["capacity"]["memory"]))?;

        let lease = until("the lease", SOON, async || {
            kubectl::get(&["-n", "kube-node-lease", "lease", &agent.name]).await
        })
        .await?;
        ensure!(lease["spec"]["leaseDurationSeconds"] == json!(40), "lease: {}", lease["spec"]);
        ensure!(
            lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"],
            "the lease belongs to {}",
            lease["metadata"]["ownerReferences"]
        );
    }
    token_is_short_lived().await?;
    Ok(Outcome::Passed)
}

/// Processors and memory are this machine's.
fn true_capacity(cpu: &str, memory: &str) -> Result<()> {
    let processors = std::thread::available_parallelism()?.get();
    ensure!(cpu == processors.to_string(), "{cpu} processors, but there are {processors}");
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let total: u64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse().ok())
        .unwrap_or_default();
    let reported = memory_kib(memory);
    ensure!(
        reported.is_some_and(|kib| kib.abs_diff(total) <= total / 50),
        "memory {memory}, but there are {total} KiB"
    );
    Ok(())
}

fn memory_kib(quantity: &str) -> Option<u64> {
    match quantity.strip_suffix("Ki") {
        Some(kib) => kib.parse().ok(),
        None => quantity.parse::<u64>().ok().map(|bytes| bytes / 1024),
    }
}

/// No token lasts longer than an hour, and none is in the repository.
async fn token_is_short_lived() -> Result<()> {
    let tokens = kubectl::get(&[
        "-n",
        "kube-system",
        "secrets",
        "--field-selector=type=bootstrap.kubernetes.io/token",
    ])
    .await?;
    let tokens = tokens["items"].as_array().cloned().unwrap_or_default();
    ensure!(!tokens.is_empty(), "no bootstrap token was made");
    for token in tokens {
        let name = text(&token["metadata"]["name"]);
        let expiration = kubectl(&[
            "-n",
            "kube-system",
            "get",
            "secret",
            &name,
            "-o",
            "go-template={{.data.expiration | base64decode}}",
        ])
        .await?;
        let made = text(&token["metadata"]["creationTimestamp"]);
        let (Some(made), Some(ends)) = (seconds(&made), seconds(expiration.trim())) else {
            bail!("{name}: made {made}, ends {expiration:?}");
        };
        ensure!((0..=3601).contains(&(ends - made)), "{name} lasts {} s", ends - made);
    }
    Ok(())
}

/// Seconds since 1970 of a time such as `2026-11-21T14:44:09Z`.
fn seconds(time: &str) -> Option<i64> {
    let time: k8s_openapi::jiff::Timestamp = time.parse().ok()?;
    Some(time.as_second())
}
