//! The examples in `deploy/`, as typed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    kubectl::kubectl,
    load,
    runner::Outcome,
    wait::until,
    workload::{Actor, Namespace, deployment, text},
    world::World,
};

/// `kubectl apply -k deploy/job`; then one whose picture is not there.
pub async fn job(world: Arc<World>) -> Result<Outcome> {
    let folder = world.setting.root.join("deploy/job");
    kubectl(&["apply", "-k", &folder.to_string_lossy()]).await?;
    let space = Namespace { name: "graphlet-job".to_owned() };
    space.kubectl(&["wait", "--for=condition=Complete", "job/classify", "--timeout=120s"]).await?;
    let log = space.kubectl(&["logs", "job/classify"]).await?;
    ensure!(log.contains('7'), "the Job says {log:?}");
    let pods = space.get(&["pods", "-l", "job-name=classify"]).await?;
    let status = &pods["items"][0]["status"];
    ensure!(status["phase"] == "Succeeded", "{status}");
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    ensure!(ended["exitCode"] == 0 && ended["reason"] == "Completed", "{ended}");

    // The same with another argument: an exit code, a failed pod, and a Job that gives up.
    let mut failing = space.get(&["job", "classify"]).await?;
    let container = failing["spec"]["template"]["spec"]["containers"][0].take();
    let mut pod = failing["spec"]["template"]["spec"].take();
    pod["containers"] = json!([container]);
    pod["containers"][0]["args"] = json!(["/pictures/none.png"]);
    let labels = json!({"app": "none"});
    space
        .apply(vec![json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "none"},
            "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}},
        })])
        .await?;
    space.kubectl(&["wait", "--for=condition=Failed", "job/none", "--timeout=120s"]).await?;
    let pods = space.get(&["pods", "-l", "app=none"]).await?;
    let status = &pods["items"][0]["status"];
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    ensure!(status["phase"] == "Failed" && ended["reason"] == "Error", "{status}");
    ensure!(ended["exitCode"] != 0, "{ended}");
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// `kubectl apply -k deploy/krustlet`: no RuntimeClass, a hostPort.
pub async fn krustlet(world: Arc<World>) -> Result<Outcome> {
    let folder = world.setting.root.join("deploy/krustlet");
    kubectl(&["apply", "-k", &folder.to_string_lossy()]).await?;
    let space = Namespace { name: "graphlet-krustlet".to_owned() };
    space.kubectl(&["wait", "--for=condition=Ready", "pod/digits", "--timeout=120s"]).await?;
    let pod = space.get(&["pod", "digits"]).await?;
    let ip = text(&pod["status"]["hostIP"]).parse().context("hostIP")?;
    let label = load::classify(SocketAddr::new(ip, 8088), &world.modules.seven).await?.label()?;
    ensure!(label == "7", "the label is {label:?}");
    space.delete().await?;
    mobilenet(&world).await
}

/// The photograph of the README, where the shared models are here.
async fn mobilenet(world: &World) -> Result<Outcome> {
    let Some(image) = &world.modules.mobilenet else {
        return Ok(Outcome::Skipped("MobileNetV2: the shared models are absent".to_owned()));
    };
    let space = Namespace::new("mobilenet").await?;
    let within = Duration::from_secs(120);
    let limits = json!({"resources": {"limits": {"cpu": "2", "memory": "512Mi"}}});
    space.apply(deployment(&Actor { image, container: limits, ..Actor::default() })).await?;
    space.rolled_out("digits", 1, within).await?;
    let address = space.service(world, "digits", 1).await?;
    let cat = tokio::fs::read(world.setting.shared.join("images/cat.png")).await?;
    let label =
        until("a label", within, async || load::classify(address, &cat).await?.label()).await?;
    ensure!(label == "tabby, tabby cat", "the label is {label:?}");
    space.delete().await?;
    Ok(Outcome::Passed)
}
