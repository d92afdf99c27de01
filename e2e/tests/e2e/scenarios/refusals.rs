//! What does not run here, and how a person learns why. A refused pod waits: marked as failed, its
//! controller would replace it without end.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    runner::Outcome,
    wait::{SOON, until},
    workload::{Actor, Namespace, deployment, text},
    world::World,
};

/// Three modules that nobody may run, each as a Deployment that would replace a failed pod.
pub async fn signatures(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("signatures").await?;
    let modules = [
        ("unsigned", &world.modules.unsigned),
        ("tampered", &world.modules.tampered),
        ("foreign", &world.modules.foreign),
    ];
    for (app, image) in modules {
        space.apply(deployment(&Actor { app, image, ..Actor::default() })).await?;
    }
    let mut first = Vec::new();
    for (app, _) in modules {
        let pod = waiting(&space, app, "SignatureValidationFailed").await?;
        first.push(pod["metadata"]["uid"].clone());
    }
    for (app, _) in modules {
        let name = text(&only_pod(&space, app).await?["metadata"]["name"]);
        space.event(&name, "SignatureValidationFailed").await?;
    }
    // Nothing is replaced and nothing is said again and again.
    tokio::time::sleep(Duration::from_secs(8)).await;
    for ((app, _), uid) in modules.into_iter().zip(first) {
        let pods = space.pods(app).await?;
        ensure!(pods.len() == 1 && pods[0]["metadata"]["uid"] == uid, "{app} was replaced");
        ensure!(pods[0]["status"]["phase"] == "Pending", "{app}: {}", pods[0]["status"]["phase"]);
        let name = text(&pods[0]["metadata"]["name"]);
        let events = space.events(&name).await?;
        let refusals = events.iter().filter(|it| it.contains("SignatureValidationFailed")).count();
        ensure!(refusals == 1, "{app}: {events:?}");
    }
    ensure!(space.ready_endpoints("foreign").await?.is_empty(), "a refused module is served");
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// Each asks for one thing that a module cannot have; the reason names it.
pub async fn by_name(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::with_level("refusals", "privileged").await?;
    let other = json!({"name": "other", "image": world.modules.digits});
    let cases: [(&str, Value, Value, &str); 5] = [
        ("init", json!({"initContainers": [other]}), json!({}), "initContainers"),
        (
            "exec",
            json!({}),
            json!({"readinessProbe": {"httpGet": null, "exec": {"command": ["true"]}}}),
            "readinessProbe.exec",
        ),
        ("network", json!({"hostNetwork": true}), json!({"ports": null}), "hostNetwork"),
        (
            "privileged",
            json!({}),
            json!({"securityContext": {"privileged": true}}),
            "securityContext.privileged",
        ),
        ("shell", json!({}), json!({"command": ["/bin/sh"]}), "containers[0].command"),
    ];
    for (app, spec, container, _) in &cases {
        let actor = Actor {
            app,
            image: &world.modules.digits,
            pod: spec.clone(),
            container: container.clone(),
            ..Actor::default()
        };
        space.apply(deployment(&actor)).await?;
    }
    for (app, _, _, field) in &cases {
        let pod = until(&format!("{app} refused"), SOON, async || {
            let pod = only_pod(&space, app).await?;
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            if !text(&waiting["message"]).contains(field) {
                bail!("{}", pod["status"]);
            }
            Ok(pod)
        })
        .await?;
        ensure!(pod["status"]["phase"] == "Pending", "{app}: {}", pod["status"]);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    for (app, _, _, field) in &cases {
        let pod = only_pod(&space, app).await?;
        let events = space.events(&text(&pod["metadata"]["name"])).await?;
        let said = events.iter().filter(|event| event.contains(field)).count();
        ensure!(said == 1, "{app}: {events:?}");
        // Written once: the object does not change any more.
        let writes = pod["metadata"]["resourceVersion"].clone();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let again = only_pod(&space, app).await?;
        ensure!(again["metadata"]["resourceVersion"] == writes, "{app} is written again and again");
    }
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// A mandatory key is missing, then there.
pub async fn missing_config(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("config").await?;
    let actor = Actor {
        image: &world.modules.digits,
        container: json!({"envFrom": [{"configMapRef": {"name": "settings"}}]}),
        ..Actor::default()
    };
    space.apply(deployment(&actor)).await?;
    waiting(&space, "digits", "CreateContainerConfigError").await?;
    space.kubectl(&["create", "configmap", "settings", "--from-literal=A=b"]).await?;
    space.rolled_out("digits", 1, SOON).await?;
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// As kube-proxy and network add-ons do: host network, privileged, every taint tolerated.
pub async fn tolerates_everything(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::with_level("daemonset", "privileged").await?;
    space
        .apply(vec![json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "proxy"},
            "spec": {
                "selector": {"matchLabels": {"app": "proxy"}},
                "template": {
                    "metadata": {"labels": {"app": "proxy"}},
                    "spec": {
                        "hostNetwork": true,
                        "tolerations": [{"operator": "Exists"}],
                        "containers": [{
                            "name": "proxy", "image": "registry.k8s.io/kube-proxy:v1.36.3",
                            "securityContext": {"privileged": true},
                        }],
                    },
                },
            },
        })])
        .await?;
    let nodes = world.agents.len();
    let uids = async || -> Result<Vec<String>> {
        let pods = space.pods("proxy").await?;
        let ours = pods.iter().filter(|pod| text(&pod["spec"]["nodeName"]).starts_with("edge-"));
        let mut uids: Vec<String> = ours
            .map(|pod| {
                let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
                let refused = pod["status"]["phase"] == "Pending" && !waiting["reason"].is_null();
                refused
                    .then(|| text(&pod["metadata"]["uid"]))
                    .with_context(|| format!("not refused: {}", pod["status"]))
            })
            .collect::<Result<_>>()?;
        uids.sort();
        ensure!(uids.len() == nodes, "{} pods on {nodes} nodes", uids.len());
        Ok(uids)
    };
    let before = until("one refused pod a node", SOON, &uids).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    ensure!(uids().await? == before, "the DaemonSet's pods were replaced");
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// The one pod of an app.
async fn only_pod(space: &Namespace, app: &str) -> Result<Value> {
    let mut pods = space.pods(app).await?;
    ensure!(pods.len() == 1, "{app} has {} pods", pods.len());
    pods.pop().context("no pod")
}

/// Waits for a pod that waits for that reason.
async fn waiting(space: &Namespace, app: &str, reason: &str) -> Result<Value> {
    until(&format!("{app} waiting with {reason}"), SOON, async || {
        let pod = only_pod(space, app).await?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        if waiting["reason"] != json!(reason) {
            bail!("{}", crate::workload::summary(&pod));
        }
        Ok(pod)
    })
    .await
}
