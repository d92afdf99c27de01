//! From one model to another.

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

/// `7` becomes `seven`, without a request unanswered.
pub async fn to_another_model(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("rollout").await?;
    let actor = Actor { image: &world.modules.digits, replicas: 2, ..Actor::default() };
    space.apply(deployment(&actor)).await?;
    space.rolled_out("digits", 2, SOON).await?;
    let address = space.service(&world, "digits", 2).await?;

    let load = Load::start(address, &world.modules.seven, 3, Duration::from_millis(20));
    load.answered(10).await?;
    space.apply(deployment(&Actor { image: &world.modules.words, ..actor })).await?;
    space.rolled_out("digits", 2, SOON).await?;
    // The old pods' addresses leave kube-proxy's rules a moment after they leave the Service.
    let only_new = until("answers of the new model alone", SOON, async || {
        let before = load.so_far();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let count = |report: &crate::load::Report, label: &str| {
            report.labels.get(label).copied().unwrap_or(0)
        };
        let after = load.so_far();
        ensure!(count(&after, "7") == count(&before, "7"), "the old model still answers");
        ensure!(count(&after, "seven") > count(&before, "seven"), "the new one does not");
        Ok(())
    })
    .await;
    let enough = load.answered(100).await;
    let report = load.stop().await;
    enough?;
    only_new.with_context(|| report.to_string())?;
    report.flawless(100).context("while rolling out")?;
    ensure!(
        report.labels.keys().all(|label| label == "7" || label == "seven"),
        "labels: {:?}",
        report.labels
    );
    ensure!(report.labels.contains_key("7"), "the old model never answered: {report}");
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// The new pods run, but their readiness probe fails: the old ones go on, and nothing reaches the
/// new ones.
pub async fn readiness_holds(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("readiness").await?;
    let actor = Actor { image: &world.modules.digits, replicas: 2, ..Actor::default() };
    space.apply(deployment(&actor)).await?;
    space.rolled_out("digits", 2, SOON).await?;
    let address = space.service(&world, "digits", 2).await?;

    let load = Load::start(address, &world.modules.seven, 2, Duration::from_millis(20));
    let never = json!({"readinessProbe": {"httpGet": {"path": "/v1/none", "port": "http"}, "periodSeconds": 1}});
    space
        .apply(deployment(&Actor { image: &world.modules.words, container: never, ..actor }))
        .await?;
    let started = until("a pod of the new model that runs", SOON, async || {
        let pods = space.pods("digits").await?;
        let new = pods.iter().find(|pod| {
            pod["spec"]["containers"][0]["image"] == json!(world.modules.words)
                && !pod["status"]["containerStatuses"][0]["state"]["running"].is_null()
        });
        new.cloned().context("there is none yet")
    })
    .await?;
    let name = started["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    space.event(&name, "Unhealthy: Readiness probe failed").await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    load.answered(50).await?;
    let pod = space.get(&["pod", &name]).await?;
    let report = load.stop().await;
    ensure!(crate::agent::condition(&pod, "Ready") == Some("False"), "{}", pod["status"]);
    ensure!(space.ready_endpoints("digits").await?.len() == 2, "the old pods serve on");
    report.flawless(50).context("while a rollout waits")?;
    ensure!(!report.labels.contains_key("seven"), "traffic to a pod that is not ready: {report}");

    // And a person takes it back.
    space.kubectl(&["rollout", "undo", "deployment/digits"]).await?;
    space.rolled_out("digits", 2, SOON).await?;
    space.delete().await?;
    Ok(Outcome::Passed)
}
