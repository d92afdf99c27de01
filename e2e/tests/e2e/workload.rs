//! What scenarios deploy: namespaces, Deployments and Services, and what is known of their pods.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    kubectl::{self, kubectl},
    wait::{SOON, until},
    world::World,
};

/// A namespace of a scenario's own, deleted when the scenario has passed; after a failure it stays
/// to be looked at, for as long as the cluster does.
pub struct Namespace {
    /// Its name.
    pub name: String,
}

impl Namespace {
    /// Makes it, with Pod Security's baseline enforced.
    pub async fn new(name: &str) -> Result<Self> {
        Self::with_level(name, "baseline").await
    }

    /// Makes it with another level of Pod Security.
    pub async fn with_level(name: &str, level: &str) -> Result<Self> {
        let name = format!("e2e-{name}");
        kubectl::apply(&[json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": level}},
        })])
        .await?;
        // Pods are refused until the namespace's ServiceAccount is there.
        until("the default ServiceAccount", SOON, async || {
            kubectl(&["-n", &name, "get", "serviceaccount", "default"]).await
        })
        .await?;
        Ok(Self { name })
    }

    /// Deletes it without waiting.
    pub async fn delete(self) -> Result<()> {
        kubectl(&["delete", "namespace", &self.name, "--wait=false"]).await.map(drop)
    }

    /// `kubectl -n NAMESPACE …`
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        kubectl(&[&["-n", &self.name], arguments].concat()).await
    }

    /// `kubectl -n NAMESPACE get … -o json`
    pub async fn get(&self, arguments: &[&str]) -> Result<Value> {
        kubectl::get(&[&["-n", &self.name], arguments].concat()).await
    }

    /// Applies objects in this namespace.
    pub async fn apply(&self, mut objects: Vec<Value>) -> Result<()> {
        for object in &mut objects {
            object["metadata"]["namespace"] = json!(self.name);
        }
        kubectl::apply(&objects).await
    }

    /// The pods of a Deployment made by [`deployment`], those on their way out included.
    pub async fn pods(&self, app: &str) -> Result<Vec<Value>> {
        let list = self.get(&["pods", "-l", &format!("app={app}")]).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until the Deployment has that many ready pods of its newest revision and no others.
    pub async fn rolled_out(&self, app: &str, replicas: u64, within: Duration) -> Result<()> {
        let result = until(&format!("{app} with {replicas} ready pods"), within, async || {
            let it = self.get(&["deployment", app]).await?;
            let count = |name: &str| it["status"][name].as_u64().unwrap_or(0);
            let (ready, updated, all) =
                (count("readyReplicas"), count("updatedReplicas"), count("replicas"));
            let seen = it["status"]["observedGeneration"] == it["metadata"]["generation"];
            if !seen || ready != replicas || updated != replicas || all != replicas {
                bail!("{ready} ready, {updated} updated, {all} in all");
            }
            Ok(())
        })
        .await;
        match result {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(self.picture(app).await)),
        }
    }

    /// Where a Service of this namespace answers, with its endpoints ready.
    pub async fn service(&self, world: &World, app: &str, endpoints: usize) -> Result<SocketAddr> {
        until(&format!("{endpoints} endpoints of {app}"), SOON, async || {
            let ready = self.ready_endpoints(app).await?;
            if ready.len() < endpoints {
                bail!("ready endpoints: {ready:?}");
            }
            Ok(())
        })
        .await?;
        let service = self.get(&["service", app]).await?;
        let address = world.service_address(&service)?;
        // The endpoints are known; the rules of kube-proxy follow within its sync period.
        until(&format!("an answer of {address}"), SOON, async || {
            crate::load::send(address, "GET", "/v2/health/ready", b"").await
        })
        .await?;
        Ok(address)
    }

    /// Addresses of the endpoints that are ready.
    pub async fn ready_endpoints(&self, app: &str) -> Result<Vec<String>> {
        let slices = self
            .get(&["endpointslices", "-l", &format!("kubernetes.io/service-name={app}")])
            .await?;
        let mut addresses = Vec::new();
        for slice in slices["items"].as_array().into_iter().flatten() {
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                if endpoint["conditions"]["ready"] == json!(true) {
                    addresses.extend(endpoint["addresses"][0].as_str().map(str::to_owned));
                }
            }
        }
        Ok(addresses)
    }

    /// Events of an object, as `REASON: message`.
    pub async fn events(&self, name: &str) -> Result<Vec<String>> {
        let selector = format!("involvedObject.name={name}");
        let list = self.get(&["events", "--field-selector", &selector]).await?;
        Ok(list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|event| format!("{}: {}", text(&event["reason"]), text(&event["message"])))
            .collect())
    }

    /// Waits for an event of an object that begins so: what a status tells may be written first.
    pub async fn event(&self, name: &str, begin: &str) -> Result<()> {
        until(&format!("the event {begin}"), SOON, async || {
            let events = self.events(name).await?;
            if !events.iter().any(|event| event.starts_with(begin)) {
                bail!("events: {events:?}");
            }
            Ok(())
        })
        .await
    }

    /// What a person would look at when pods of `app` are not as they should be.
    pub async fn picture(&self, app: &str) -> String {
        let mut picture = String::from("pods:");
        for pod in self.pods(app).await.unwrap_or_default() {
            let name = text(&pod["metadata"]["name"]);
            picture += &format!("\n        {}", summary(&pod));
            for event in self.events(&name).await.unwrap_or_default().iter().rev().take(4) {
                picture += &format!("\n          {event}");
            }
        }
        picture
    }
}

/// A pod in one line.
pub fn summary(pod: &Value) -> String {
    let container = &pod["status"]["containerStatuses"][0];
    format!(
        "{} on {} {} ip {} ready {} restarts {} state {} last {}{}",
        text(&pod["metadata"]["name"]),
        text(&pod["spec"]["nodeName"]),
        text(&pod["status"]["phase"]),
        text(&pod["status"]["podIP"]),
        container["ready"],
        container["restartCount"],
        container["state"],
        container["lastState"],
        if pod["metadata"]["deletionTimestamp"].is_null() { "" } else { " deleting" },
    )
}

/// The text in a value, or nothing.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a Deployment of an actor is made of.
pub struct Actor<'a> {
    /// Its name, and the value of the label `app`.
    pub app: &'a str,
    /// The module.
    pub image: &'a str,
    /// How many.
    pub replicas: u64,
    /// Merged over the pod's spec.
    pub pod: Value,
    /// Merged over the container.
    pub container: Value,
}

impl Default for Actor<'_> {
    fn default() -> Self {
        Self { app: "digits", image: "", replicas: 1, pod: json!({}), container: json!({}) }
    }
}

/// A Deployment with quick probes, and its Service on port 80.
pub fn deployment(actor: &Actor<'_>) -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": actor.app},
            "spec": {
                "replicas": actor.replicas,
                "selector": {"matchLabels": {"app": actor.app}},
                "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {"metadata": {"labels": {"app": actor.app}}, "spec": pod_spec(actor)},
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": actor.app},
            "spec": {
                "type": "NodePort", "selector": {"app": actor.app},
                "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            },
        }),
    ]
}

/// A pod that no controller owns.
pub fn pod(actor: &Actor<'_>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": actor.app, "labels": {"app": actor.app}},
        "spec": pod_spec(actor),
    })
}

fn pod_spec(actor: &Actor<'_>) -> Value {
    let mut container = json!({
        "name": "actor",
        "image": actor.image,
        "env": [{"name": "GRAPHLET_INSTANCES", "value": "1"}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": "http"}, "periodSeconds": 1},
        "resources": {
            "requests": {"cpu": "20m", "memory": "32Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        },
    });
    merge(&mut container, &actor.container);
    let mut spec = json!({
        "runtimeClassName": "graphlet",
        "automountServiceAccountToken": false,
        "containers": [container],
    });
    merge(&mut spec, &actor.pod);
    spec
}

/// JSON merge (RFC 7386).
pub fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// `pod.status.podIP` with the actor's port.
pub fn pod_address(pod: &Value) -> Result<SocketAddr> {
    let ip = text(&pod["status"]["podIP"]);
    format!("{ip}:8080").parse().with_context(|| format!("podIP {ip:?}"))
}
