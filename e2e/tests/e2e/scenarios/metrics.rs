//! What `kubectl top` shows, and what the autoscaler makes of it.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail, ensure};
use serde_json::json;

use crate::{
    kubectl::kubectl,
    load::Load,
    runner::Outcome,
    wait::until,
    workload::{Actor, Namespace, deployment},
    world::World,
};

/// One pod works, its use is seen by metrics-server, and the autoscaler adds another.
pub async fn autoscaler(world: Arc<World>) -> Result<Outcome> {
    if world.setting.control_plane.is_none()
        && kubectl(&["get", "apiservice", "v1beta1.metrics.k8s.io"]).await.is_err()
    {
        return Ok(Outcome::Skipped("the cluster has no metrics-server".to_owned()));
    }
    let space = Namespace::new("autoscaler").await?;
    let actor = Actor {
        image: &world.modules.digits,
        container: json!({"resources": {
            "requests": {"cpu": "50m"}, "limits": {"cpu": "400m"},
        }}),
        ..Actor::default()
    };
    let mut objects = deployment(&actor);
    // The autoscaler owns the number.
    objects[0]["spec"].as_object_mut().map(|spec| spec.remove("replicas"));
    objects.push(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "digits"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits"},
            "minReplicas": 1, "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 100},
            }}],
        },
    }));
    space.apply(objects).await?;
    let address = space.service(&world, "digits", 1).await?;
    let load = Load::start(address, &world.modules.seven, 4, Duration::from_millis(1));

    let scaled = until("more than one ready pod", Duration::from_secs(150), async || {
        let deployment = space.get(&["deployment", "digits"]).await?;
        let ready = deployment["status"]["readyReplicas"].as_u64().unwrap_or(0);
        if ready < 2 {
            let autoscaler = space.get(&["hpa", "digits"]).await?;
            bail!("{ready} ready; autoscaler: {}", autoscaler["status"]);
        }
        Ok(ready)
    })
    .await;
    let pods = space.kubectl(&["top", "pods", "--no-headers"]).await;
    let nodes = kubectl(&["top", "nodes", "--no-headers"]).await;
    let enough = load.answered(100).await;
    let report = load.stop().await;
    scaled?;
    enough?;
    report.flawless(100)?;

    // NAME CPU(cores) MEMORY(bytes)
    let pods = pods?;
    let busy = pods.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str, unit: &str| word.strip_suffix(unit)?.parse::<u64>().ok();
        matches!(words[..], [_, cpu, memory]
            if number(cpu, "m") > Some(20) && number(memory, "Mi") > Some(1))
    });
    ensure!(busy, "top pods: {pods}");
    let nodes = nodes?;
    for agent in &world.agents {
        ensure!(nodes.contains(&agent.name), "top nodes: {nodes}");
    }
    space.delete().await?;
    Ok(Outcome::Passed)
}
