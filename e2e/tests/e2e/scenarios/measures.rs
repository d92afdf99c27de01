//! What is measured and only printed: no test fails because a machine is slow.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use k8s_openapi::{
    api::{core::v1::Pod, discovery::v1::EndpointSlice},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

use crate::{
    kubectl,
    runner::Outcome,
    wait::{SOON, until},
    workload::{Actor, Namespace, deployment},
    world::World,
};

/// From the scheduler's binding to Ready, for a module that the node has never seen and for one
/// that it knows; and from Ready to the EndpointSlice.
pub async fn bound_to_ready(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("measure").await?;
    let node = &world.agents[0];
    for (kind, image) in
        [("digits", Some(&world.modules.digits)), ("mobilenet", world.modules.mobilenet.as_ref())]
    {
        let Some(image) = image else { continue };
        for state in ["cold", "warm"] {
            let app = format!("{kind}-{state}");
            let actor = Actor {
                app: &app,
                image,
                pod: json!({"nodeSelector": {"kubernetes.io/hostname": node.name}}),
                ..Actor::default()
            };
            let times = one_start(&space, &actor).await.with_context(|| app.clone())?;
            eprintln!(
                "measured: {app}: bound to Ready {} ms, Ready to EndpointSlice {} ms",
                times.ready.as_millis(),
                times.endpoint.as_millis()
            );
        }
    }
    space.delete().await?;
    Ok(Outcome::Passed)
}

struct Times {
    ready: Duration,
    endpoint: Duration,
}

/// Watched as it happens: the times in a status have whole seconds only.
async fn one_start(space: &Namespace, actor: &Actor<'_>) -> Result<Times> {
    let client = Client::try_default().await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &space.name);
    let slices: Api<EndpointSlice> = Api::namespaced(client, &space.name);
    let of_pods = ListParams::default().labels(&format!("app={}", actor.app));
    let of_slices =
        ListParams::default().labels(&format!("kubernetes.io/service-name={}", actor.app));
    let from = pods.list(&of_pods).await?.metadata.resource_version.unwrap_or_default();
    let from_slices = slices.list(&of_slices).await?.metadata.resource_version.unwrap_or_default();
    let label = of_pods.label_selector.unwrap_or_default();
    let slice_label = of_slices.label_selector.unwrap_or_default();

    let endpoint = tokio::spawn(async move {
        let watch = WatchParams::default().labels(&slice_label);
        first(&slices, &watch, &from_slices, |slice: &EndpointSlice| {
            slice
                .endpoints
                .iter()
                .any(|endpoint| endpoint.conditions.as_ref().and_then(|it| it.ready) == Some(true))
        })
        .await
    });
    let pods_again = pods.clone();
    let (label_again, from_again) = (label.clone(), from.clone());
    let bound = tokio::spawn(async move {
        let watch = WatchParams::default().labels(&label_again);
        first(&pods_again, &watch, &from_again, |pod: &Pod| {
            pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
        })
        .await
    });
    let ready = tokio::spawn(async move {
        let watch = WatchParams::default().labels(&label);
        first(&pods, &watch, &from, |pod: &Pod| {
            pod.status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten())
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
        .await
    });
    space.apply(deployment(actor)).await?;
    let (bound, ready, endpoint) = (bound.await??, ready.await??, endpoint.await??);
    Ok(Times { ready: ready.duration_since(bound), endpoint: endpoint.duration_since(ready) })
}

/// When a watch first shows an object that `wanted` likes.
async fn first<K>(
    api: &Api<K>,
    watch: &WatchParams,
    from: &str,
    wanted: impl Fn(&K) -> bool,
) -> Result<std::time::Instant>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    use futures_util::TryStreamExt;
    let mut events = std::pin::pin!(api.watch(watch, from).await?);
    while let Some(event) = events.try_next().await? {
        if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event
            && wanted(&object)
        {
            return Ok(std::time::Instant::now());
        }
    }
    anyhow::bail!("the watch ended")
}

/// Requests of each node, by verb and resource, from the audit log; and what an idle agent costs.
pub async fn api_load(world: Arc<World>) -> Result<Outcome> {
    let Some(folder) = &world.setting.control_plane else {
        return Ok(Outcome::Skipped("the audit log of this cluster is not ours".to_owned()));
    };
    // Nothing happens for a while: what is left is what a node costs by being there.
    let quiet = Duration::from_secs(60);
    let from = Timestamp::now();
    let cpu = processor_time(&world).await?;
    tokio::time::sleep(quiet).await;
    let used = processor_time(&world).await? - cpu;
    let audit = std::fs::read_to_string(folder.join("logs/audit.log"))?;
    let mut requests: BTreeMap<String, usize> = BTreeMap::new();
    for line in audit.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let name = event["user"]["username"].as_str().unwrap_or_default();
        let at = event["requestReceivedTimestamp"].as_str().and_then(|at| at.parse().ok());
        if name != format!("system:node:{}", world.agents[0].name)
            || at.is_none_or(|at: Timestamp| at < from)
        {
            continue;
        }
        let verb = event["verb"].as_str().unwrap_or_default();
        let resource = event["objectRef"]["resource"].as_str().unwrap_or_default();
        *requests.entry(format!("{verb} {resource}")).or_default() += 1;
    }
    let process = world.agents[0].pid().await.context("no agent")?;
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    eprintln!(
        "measured: a node with nothing to do, {} s, certificates of 90 s: {requests:?}; \
         agent: {:.1} ms of processor a second, {}",
        quiet.as_secs(),
        used * 1000.0 / quiet.as_secs_f64(),
        resident.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    until("the node still Ready", SOON, async || {
        kubectl::get(&["node", &world.agents[0].name]).await
    })
    .await?;
    Ok(Outcome::Passed)
}

/// Processor seconds of the first agent's own process.
async fn processor_time(world: &World) -> Result<f64> {
    let process = world.agents[0].pid().await.context("no agent")?;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}
