//! `kubectl logs` with every option, and what `describe` shows.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail, ensure};
use serde_json::json;
use tokio::process::Command;

use crate::{
    kubectl,
    runner::Outcome,
    wait::{SOON, until},
    workload::{Actor, Namespace, pod, text},
    world::World,
};

/// A WASI command says one line; it is run again and again, and each run has a log of its own.
pub async fn every_option(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("logs").await?;
    let root = &world.setting.root;
    space
        .kubectl(&[
            "create",
            "configmap",
            "pictures",
            &format!("--from-file=7.png={}", root.join("models/digits/samples/7.png").display()),
            &format!("--from-file=3.png={}", root.join("models/digits/samples/3.png").display()),
        ])
        .await?;
    let speaker = Actor {
        app: "speaker",
        image: &world.modules.command,
        pod: json!({
            "restartPolicy": "Always",
            "volumes": [{"name": "pictures", "configMap": {"name": "pictures"}}],
        }),
        container: json!({
            "args": ["/pictures/7.png", "/pictures/3.png"],
            "env": null, "ports": null, "readinessProbe": null,
            "volumeMounts": [{"name": "pictures", "mountPath": "/pictures", "readOnly": true}],
        }),
        ..Actor::default()
    };
    // Asked for before the pod is there: followed from its first line to its last.
    space.apply(vec![pod(&speaker)]).await?;
    let all = until("the log of the first run", SOON, async || {
        let log = space.kubectl(&["logs", "speaker"]).await?;
        if log.lines().count() < 2 { bail!("log: {log:?}") } else { Ok(log) }
    })
    .await?;
    let lines: Vec<&str> = all.lines().collect();
    ensure!(lines[0].contains('7') && lines[1].contains('3'), "log: {all:?}");

    let tail = space.kubectl(&["logs", "speaker", "--tail=1"]).await?;
    ensure!(tail.lines().count() == 1 && tail.trim() == *lines.last().unwrap_or(&""), "{tail:?}");
    let stamped = space.kubectl(&["logs", "speaker", "--timestamps", "--tail=1"]).await?;
    let stamp = stamped.split(' ').next().unwrap_or_default();
    ensure!(stamp.parse::<k8s_openapi::jiff::Timestamp>().is_ok(), "timestamps: {stamped:?}");
    let bytes = space.kubectl(&["logs", "speaker", "--limit-bytes=3"]).await?;
    ensure!(bytes.len() == 3 && all.starts_with(&bytes), "limit-bytes: {bytes:?}");
    let late = space.kubectl(&["logs", "speaker", "--since-time=2099-01-01T00:00:00Z"]).await?;
    ensure!(late.is_empty(), "nothing is said after 2099: {late:?}");

    until("a second run", Duration::from_secs(90), async || {
        let it = space.get(&["pod", "speaker"]).await?;
        let restarts = it["status"]["containerStatuses"][0]["restartCount"].as_u64();
        if restarts < Some(1) { bail!("restarts: {restarts:?}") } else { Ok(()) }
    })
    .await?;
    let previous = space.kubectl(&["logs", "speaker", "--previous"]).await?;
    ensure!(previous.lines().count() >= 2, "previous: {previous:?}");
    followed(&world, &space).await?;
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// `logs -f` of an actor shows what it says from now on, and ends when the pod does.
async fn followed(world: &World, space: &Namespace) -> Result<()> {
    let actor = Actor {
        app: "followed",
        image: &world.modules.digits,
        pod: json!({"terminationGracePeriodSeconds": 6}),
        ..Actor::default()
    };
    space.apply(vec![pod(&actor)]).await?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/followed", "--timeout=60s"]).await?;
    let before = space.kubectl(&["logs", "followed"]).await?;
    let mut follow = Command::new("kubectl");
    follow.args(["-n", &space.name, "logs", "-f", "followed"]);
    let following = tokio::spawn(async move { kubectl::run(&mut follow, "").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    space.kubectl(&["delete", "pod", "followed"]).await?;
    let seen = tokio::time::timeout(SOON, following).await???;
    ensure!(seen.stdout.starts_with(&before), "followed: {:?}, before: {before:?}", seen.stdout);
    ensure!(
        seen.stdout.len() > before.len(),
        "the actor says that it stops, and that is not in what was followed: {:?}",
        seen.stdout
    );
    Ok(())
}

/// Events of a usual start, in the words that kubelets use.
pub async fn described(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("describe").await?;
    let actor = Actor {
        image: &world.modules.digits,
        container: json!({"imagePullPolicy": "Always"}),
        ..Actor::default()
    };
    space.apply(vec![pod(&actor)]).await?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/digits", "--timeout=60s"]).await?;
    let described = until("the events in describe", SOON, async || {
        let text = space.kubectl(&["describe", "pod", "digits"]).await?;
        for reason in ["Scheduled", "Pulling", "Pulled", "Started"] {
            ensure!(text.contains(reason), "no {reason} in:\n{text}");
        }
        Ok(text)
    })
    .await?;
    ensure!(described.contains("edge-"), "the events say which node: {described}");
    let pod = space.get(&["pod", "digits"]).await?;
    ensure!(described.contains(&text(&pod["status"]["podIP"])), "{described}");

    space.kubectl(&["delete", "pod", "digits", "--wait=false"]).await?;
    until("the Killing event", SOON, async || {
        let events = space.events("digits").await?;
        ensure!(events.iter().any(|event| event.starts_with("Killing")), "events: {events:?}");
        Ok(())
    })
    .await?;
    space.delete().await?;
    Ok(Outcome::Passed)
}
