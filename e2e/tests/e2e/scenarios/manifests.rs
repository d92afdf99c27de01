//! `kubectl apply -f manifests/`, as typed.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tokio::process::Command;

use crate::{
    kubectl::{self, kubectl},
    load,
    runner::Outcome,
    wait::SOON,
    workload::{Namespace, text},
    world::World,
};

/// The folder is generated, every file of it and of `deploy/` is valid, and one command applies it.
pub async fn apply(world: Arc<World>) -> Result<Outcome> {
    let root = &world.setting.root;
    let mut check = Command::new(root.join("scripts/manifests"));
    let checked = kubectl::run(check.arg("--check"), "").await?;
    ensure!(checked.ok, "{}{}", checked.stdout, checked.stderr);

    // Admission's warnings are in standard error: a manifest that Pod Security's "restricted"
    // would not let in warns.
    let manifests = root.join("manifests");
    let manifests = manifests.to_string_lossy();
    let applied = kubectl::attempt(&["apply", "--validate=strict", "-f", &manifests], "").await?;
    ensure!(applied.ok && applied.stderr.is_empty(), "{}{}", applied.stdout, applied.stderr);
    let again = kubectl(&["apply", "--validate=strict", "-f", &manifests]).await?;
    ensure!(!again.contains("created"), "a second time: {again}");

    // Overlays as the API server sees them. Objects of a namespace that is not there yet cannot
    // be tried: those namespaces are made first.
    for overlay in ["krustlet", "job", "daemonset", "kind"] {
        let folder = root.join("deploy").join(overlay);
        let folder = folder.to_string_lossy();
        let objects = kubectl(&["kustomize", &folder]).await?;
        let spaces: String = objects
            .split("\n---\n")
            .filter(|object| object.contains("kind: Namespace\n"))
            .collect::<Vec<_>>()
            .join("\n---\n");
        let made = kubectl::attempt(&["apply", "--validate=strict", "-f", "-"], &spaces).await?;
        ensure!(made.ok, "deploy/{overlay}: {}", made.stderr);
        kubectl(&["apply", "--validate=strict", "--dry-run=server", "-k", &folder])
            .await
            .with_context(|| format!("deploy/{overlay}"))?;
    }
    Ok(Outcome::Passed)
}

/// What the README promises, seen by a person with curl and kubectl.
pub async fn serve(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace { name: "graphlet".to_owned() };
    // The autoscaler keeps two pods without load.
    let within = SOON;
    space.rolled_out("digits", 2, within).await?;

    // Through kube-proxy. The Service is a ClusterIP, which only our own rules reach from here.
    if world.setting.control_plane.is_some() {
        let service = space.get(&["service", "digits"]).await?;
        let address = world.service_address(&service)?;
        for _ in 0..10 {
            let label = load::classify(address, &world.modules.seven).await?.label()?;
            ensure!(label == "7", "the label is {label:?}");
        }
    }

    // Through the API server's proxy, whose bodies are chunked, without a length.
    let picture = world.setting.root.join("models/digits/samples/7.png");
    let answer = kubectl(&[
        "create",
        "--raw",
        "/api/v1/namespaces/graphlet/services/http:digits:http/proxy/",
        "-f",
        &picture.to_string_lossy(),
    ])
    .await?;
    ensure!(answer.trim() == "\"7\"", "through the API server: {answer:?}");

    let pods = space.get(&["pods", "-l", "app.kubernetes.io/name=digits"]).await?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let status = &pod["status"];
        let container = &status["containerStatuses"][0];
        let id = text(&container["imageID"]);
        ensure!(id.contains("/graphlet/digits@sha256:"), "imageID {id:?}");
        ensure!(text(&container["containerID"]).starts_with("graphlet://"), "{container}");
        ensure!(!text(&status["podIP"]).starts_with("127."), "podIP {}", status["podIP"]);
        ensure!(status["qosClass"] == "Burstable", "QoS {}", status["qosClass"]);
        for kind in ["PodScheduled", "Initialized", "ContainersReady", "Ready"] {
            if crate::agent::condition(pod, kind) != Some("True") {
                bail!("condition {kind} in {}", status["conditions"]);
            }
        }
        ensure!(container["started"] == json!(true), "{container}");
    }
    Ok(Outcome::Passed)
}
