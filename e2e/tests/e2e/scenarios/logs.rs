//! `kubectl logs` with every option, and what `describe` shows.

use std::{process::Stdio, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tokio::{io::AsyncReadExt, process::Command};

use crate::{
    kubectl,
    runner::Outcome,
    wait::{SOON, until},
    workload::{Actor, Namespace, pod, text},
    world::World,
};

/// A WASI command says one line and ends, and each run has a log of its own; an actor says several
/// and goes on.
pub async fn every_option(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("logs").await?;
    let picture = world.setting.root.join("models/digits/samples/7.png");
    let picture = format!("--from-file=7.png={}", picture.display());
    space.kubectl(&["create", "configmap", "pictures", &picture]).await?;
    let speaker = Actor {
        app: "speaker",
        image: &world.modules.command,
        pod: json!({
            "restartPolicy": "Always",
            "volumes": [{"name": "pictures", "configMap": {"name": "pictures"}}],
        }),
        container: json!({
            "args": ["/pictures/7.png"],
            "env": null, "ports": null, "readinessProbe": null,
            "volumeMounts": [{"name": "pictures", "mountPath": "/pictures", "readOnly": true}],
        }),
        ..Actor::default()
    };
    space.apply(vec![pod(&speaker)]).await?;
    let first = until("the log of the first run", SOON, async || {
        let log = space.kubectl(&["logs", "speaker"]).await?;
        if log.is_empty() { bail!("nothing yet") } else { Ok(log) }
    })
    .await?;
    ensure!(first.contains('7'), "log: {first:?}");
    options(&world, &space).await?;

    until("a second run", SOON, async || {
        let it = space.get(&["pod", "speaker"]).await?;
        let restarts = it["status"]["containerStatuses"][0]["restartCount"].as_u64();
        if restarts < Some(1) { bail!("restarts: {restarts:?}") } else { Ok(()) }
    })
    .await?;
    let previous = space.kubectl(&["logs", "speaker", "--previous"]).await?;
    ensure!(previous == first, "previous: {previous:?}, first: {first:?}");
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// `logs` with one option after the other, of an actor; and `logs -f`, which shows what it says
/// from now on and ends when the pod does.
async fn options(world: &World, space: &Namespace) -> Result<()> {
    let actor = Actor {
        app: "actor",
        image: &world.modules.digits,
        pod: json!({"terminationGracePeriodSeconds": 6}),
        ..Actor::default()
    };
    space.apply(vec![pod(&actor)]).await?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/actor", "--timeout=120s"]).await?;
    let all = space.kubectl(&["logs", "actor"]).await?;
    ensure!(all.lines().count() > 2, "log: {all:?}");
    let tail = space.kubectl(&["logs", "actor", "--tail=2"]).await?;
    ensure!(tail.lines().count() == 2 && all.ends_with(&tail), "tail {tail:?} of {all:?}");
    let bytes = space.kubectl(&["logs", "actor", "--limit-bytes=10"]).await?;
    ensure!(bytes.len() == 10 && all.starts_with(&bytes), "limit-bytes: {bytes:?}");
    let stamped = space.kubectl(&["logs", "actor", "--timestamps", "--tail=1"]).await?;
    let stamp = stamped.split(' ').next().unwrap_or_default();
    ensure!(stamp.parse::<k8s_openapi::jiff::Timestamp>().is_ok(), "timestamps: {stamped:?}");
    let late = space.kubectl(&["logs", "actor", "--since-time=2099-01-01T00:00:00Z"]).await?;
    ensure!(late.is_empty(), "nothing is said after 2099: {late:?}");
    let since = space.kubectl(&["logs", "actor", "--since=1h"]).await?;
    ensure!(since == all, "since an hour ago: {since:?}");
    let none = kubectl::attempt(&["-n", &space.name, "logs", "actor", "--previous"], "").await?;
    ensure!(!none.ok, "there was no run before: {}", none.stdout);

    let mut follow = Command::new("kubectl");
    follow.args(["-n", &space.name, "logs", "-f", "actor"]);
    let mut following =
        follow.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut told = following.stdout.take().context("stdout is a pipe")?;
    // It follows once it has told what was said before.
    let mut seen = vec![0; all.len()];
    tokio::time::timeout(SOON, told.read_exact(&mut seen)).await??;
    space.kubectl(&["delete", "pod", "actor"]).await?;
    tokio::time::timeout(SOON, told.read_to_end(&mut seen)).await??;
    tokio::time::timeout(SOON, following.wait()).await??;
    let seen = String::from_utf8(seen)?;
    ensure!(seen.starts_with(&all), "followed: {seen:?}, before: {all:?}");
    ensure!(
        seen.len() > all.len(),
        "the actor says that it stops, and that is not in what was followed: {seen:?}"
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
    space.kubectl(&["wait", "--for=condition=Ready", "pod/digits", "--timeout=120s"]).await?;
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
    space.event("digits", "Killing").await?;
    space.delete().await?;
    Ok(Outcome::Passed)
}
