//! What the node and its pods use: `/stats/summary`, and `/metrics/resource` for metrics-server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chrono::{DateTime, SecondsFormat, Utc};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::text::Text;
use crate::{
    node::Readings,
    runtime::{Container, ContainerId, ContainerState, PodRef, Usage},
};

/// A rate over less time than this says little.
const SHORTEST_WINDOW: Duration = Duration::from_secs(5);

/// One pod with what it uses now.
#[derive(Debug, Clone)]
pub(super) struct PodUsage {
    pub(super) pod: PodRef,
    pub(super) started: SystemTime,
    pub(super) containers: Vec<ContainerUsage>,
}

#[derive(Debug, Clone)]
pub(super) struct ContainerUsage {
    pub(super) id: ContainerId,
    pub(super) name: String,
    pub(super) started: SystemTime,
    pub(super) memory_limit_bytes: Option<u64>,
    pub(super) usage: Usage,
}

/// Running containers with their usage, by pod. A pod that the API server has forgotten still
/// counts while it runs.
pub(super) fn by_pod(
    pods: &[Arc<Pod>],
    containers: Vec<Container>,
    usage: impl Fn(&ContainerId) -> Option<Usage>,
) -> Vec<PodUsage> {
    let mut found: Vec<PodUsage> = Vec::new();
    for container in containers {
        if matches!(container.state, ContainerState::Exited(_)) {
            continue;
        }
        let Some(usage) = usage(&container.id) else { continue };
        let one = ContainerUsage {
            id: container.id,
            name: container.spec.container,
            started: container.started_at,
            memory_limit_bytes: container.spec.memory_bytes,
            usage,
        };
        match found.iter_mut().find(|known| known.pod.uid == container.spec.pod.uid) {
            Some(known) => known.containers.push(one),
            None => found.push(PodUsage {
                started: started(pods, &container.spec.pod).unwrap_or(container.started_at),
                pod: container.spec.pod,
                containers: vec![one],
            }),
        }
    }
    found
}

fn started(pods: &[Arc<Pod>], wanted: &PodRef) -> Option<SystemTime> {
    let pod = pods.iter().find(|pod| pod.metadata.uid.as_deref() == Some(wanted.uid.as_str()))?;
    let time = pod.status.as_ref()?.start_time.as_ref()?;
    Some(time.0.into())
}

/// Processor rates, from one reading to the next.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<Option<ContainerId>, Sample>>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    taken: Instant,
    used: Duration,
    nanocores: Option<u64>,
}

impl Rates {
    /// The rate of a container, or of the node, in billionths of a core, after a new reading.
    fn observe(&self, whose: Option<&ContainerId>, used: Duration) -> Option<u64> {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let first = Sample { taken: now, used, nanocores: None };
        let sample = samples.entry(whose.cloned()).or_insert(first);
        let window = now.duration_since(sample.taken);
        if window >= SHORTEST_WINDOW {
            let rate = used.saturating_sub(sample.used).as_secs_f64() / window.as_secs_f64();
            *sample = Sample { taken: now, used, nanocores: Some((rate * 1e9) as u64) };
        }
        sample.nanocores
    }

    /// Takes a reading of everything, and forgets what is gone.
    pub(super) fn sample(&self, node: &Readings, pods: &[PodUsage]) {
        self.observe(None, node.cpu_used);
        let running: Vec<_> = pods.iter().flat_map(|pod| &pod.containers).collect();
        for container in &running {
            self.observe(Some(&container.id), container.usage.cpu);
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|whose, _| match whose {
            Some(id) => running.iter().any(|container| container.id == *id),
            None => true,
        });
    }
}

/// The body of `/stats/summary` (kubelet's stats/v1alpha1).
pub(super) fn summary(
    node_name: &str,
    node_started: SystemTime,
    node: &Readings,
    pods: &[PodUsage],
    rates: &Rates,
    now: SystemTime,
) -> Value {
    let time = rfc3339(now);
    let cpu = |used: Duration, rate: Option<u64>| {
        let mut cpu = json!({ "time": time, "usageCoreNanoSeconds": nanoseconds(used) });
        if let Some(rate) = rate {
            cpu["usageNanoCores"] = rate.into();
        }
        cpu
    };
    let memory = |usage: &Usage, limit: Option<u64>| {
        let mut memory = json!({
            "time": time,
            "usageBytes": usage.rss_bytes,
            "workingSetBytes": usage.working_set_bytes,
            "rssBytes": usage.rss_bytes,
        });
        if let Some(limit) = limit {
            memory["availableBytes"] = limit.saturating_sub(usage.working_set_bytes).into();
        }
        memory
    };
    let disk = json!({
        "time": time,
        "capacityBytes": node.disk_bytes,
        "availableBytes": node.disk_available_bytes,
        "usedBytes": node.disk_bytes.saturating_sub(node.disk_available_bytes),
        "inodes": node.inodes,
        "inodesFree": node.inodes_free,
        "inodesUsed": node.inodes.saturating_sub(node.inodes_free),
    });
    let pods: Vec<_> = pods
        .iter()
        .map(|pod| {
            let each: Vec<_> = pod
                .containers
                .iter()
                .map(|one| (one, rates.observe(Some(&one.id), one.usage.cpu)))
                .collect();
            let rate = each.iter().map(|(_, rate)| *rate).sum();
            let total = total(pod);
            json!({
                "podRef": {
                    "name": pod.pod.name, "namespace": pod.pod.namespace, "uid": pod.pod.uid,
                },
                "startTime": rfc3339(pod.started),
                "containers": each.iter().map(|(one, rate)| json!({
                    "name": one.name,
                    "startTime": rfc3339(one.started),
                    "cpu": cpu(one.usage.cpu, *rate),
                    "memory": memory(&one.usage, one.memory_limit_bytes),
                })).collect::<Vec<_>>(),
                "cpu": cpu(total.cpu, rate),
                "memory": memory(&total, None),
            })
        })
        .collect();
    json!({
        "node": {
            "nodeName": node_name,
            "startTime": rfc3339(node_started),
            "cpu": cpu(node.cpu_used, rates.observe(None, node.cpu_used)),
            "memory": {
                "time": time,
                "availableBytes": node.memory_available_bytes,
                "usageBytes": node.working_set_bytes(),
                "workingSetBytes": node.working_set_bytes(),
            },
            "fs": disk,
            "runtime": { "imageFs": disk },
            "rlimit": { "time": time, "maxpid": node.threads_max, "curproc": node.threads },
        },
        "pods": pods,
    })
}

/// The body of `/metrics/resource`, under the names that metrics-server and others read.
pub(super) fn resource_metrics(node: &Readings, pods: &[PodUsage], now: SystemTime) -> String {
    let at = Some(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis());
    let mut text = Text::default();
    text.family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Processor time used by the node, core-seconds",
    );
    text.sample_at(&[], node.cpu_used.as_secs_f64(), at);
    text.family("node_memory_working_set_bytes", "gauge", "Working set of the node");
    text.sample_at(&[], node.working_set_bytes() as f64, at);
    let of_container = |text: &mut Text, value: fn(&ContainerUsage) -> f64, at| {
        for pod in pods {
            for one in &pod.containers {
                let labels = [
                    ("container", one.name.as_str()),
                    ("namespace", &pod.pod.namespace),
                    ("pod", &pod.pod.name),
                ];
                text.sample_at(&labels, value(one), at);
            }
        }
    };
    text.family(
        "container_start_time_seconds",
        "gauge",
        "Start of the container, seconds since 1970",
    );
    of_container(&mut text, |one| seconds(one.started), None);
    text.family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Processor time used by the container, core-seconds",
    );
    of_container(&mut text, |one| one.usage.cpu.as_secs_f64(), at);
    text.family("container_memory_working_set_bytes", "gauge", "Working set of the container");
    of_container(&mut text, |one| one.usage.working_set_bytes as f64, at);
    let of_pod = |text: &mut Text, value: fn(&Usage) -> f64| {
        for pod in pods {
            let labels = [("namespace", pod.pod.namespace.as_str()), ("pod", &pod.pod.name)];
            text.sample_at(&labels, value(&total(pod)), at);
        }
    };
    text.family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "Processor time used by the pod, core-seconds",
    );
    of_pod(&mut text, |usage| usage.cpu.as_secs_f64());
    text.family("pod_memory_working_set_bytes", "gauge", "Working set of the pod");
    of_pod(&mut text, |usage| usage.working_set_bytes as f64);
    for name in ["scrape_error", "resource_scrape_error"] {
        text.family(name, "gauge", "1 if the usage could not be read");
        text.sample_at(&[], 0.0, None);
    }
    text.finish()
}

fn total(pod: &PodUsage) -> Usage {
    pod.containers.iter().fold(Usage::default(), |sum, one| Usage {
        cpu: sum.cpu + one.usage.cpu,
        working_set_bytes: sum.working_set_bytes + one.usage.working_set_bytes,
        rss_bytes: sum.rss_bytes + one.usage.rss_bytes,
    })
}

fn rfc3339(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::runtime::{ContainerSpec, Exit};

    pub(in crate::server) fn container(id: &str, pod: &str, state: ContainerState) -> Container {
        let spec: ContainerSpec = serde_json::from_value(json!({
            "pod": { "namespace": "default", "name": pod, "uid": format!("uid-{pod}") },
            "container": "actor", "attempt": 0, "module": "/m.wasm", "digest": "sha256:0",
            "kind": crate::runtime::ModuleKind::Actor, "env": {}, "args": [], "mounts": [], "listen": [],
            "instances": null, "memory_bytes": 100, "cpu_millis": null,
        }))
        .expect("a spec");
        Container {
            id: ContainerId(id.into()),
            spec,
            pid: 1,
            started_at: UNIX_EPOCH + Duration::from_secs(1_000),
            state,
        }
    }

    pub(in crate::server) fn node() -> Readings {
        Readings {
            cpu_millis: 2000,
            cpu_used: Duration::from_millis(2500),
            memory_bytes: 1000,
            memory_available_bytes: 400,
            disk_bytes: 100,
            disk_available_bytes: 40,
            inodes: 10,
            inodes_free: 4,
            threads_max: 10,
            threads: 3,
        }
    }

    fn usage(_: &ContainerId) -> Option<Usage> {
        Some(Usage { cpu: Duration::from_millis(1500), working_set_bytes: 70, rss_bytes: 90 })
    }

    fn pods() -> Vec<PodUsage> {
        let ended = Exit {
            code: 0,
            reason: "Completed".into(),
            message: String::new(),
            finished_at: UNIX_EPOCH,
        };
        let containers = vec![
            container("a", "digits-1", ContainerState::Running),
            container("b", "digits-2", ContainerState::Exited(ended)),
        ];
        by_pod(&[], containers, usage)
    }

    #[test]
    fn metrics_server_finds_every_name_label_and_time_it_reads() {
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let text = resource_metrics(&node(), &pods(), now);
        for line in [
            "node_cpu_usage_seconds_total 2.5 1700000000123",
            "node_memory_working_set_bytes 600 1700000000123",
            r#"container_cpu_usage_seconds_total{container="actor",namespace="default",pod="digits-1"} 1.5 1700000000123"#,
            r#"container_memory_working_set_bytes{container="actor",namespace="default",pod="digits-1"} 70 1700000000123"#,
            r#"container_start_time_seconds{container="actor",namespace="default",pod="digits-1"} 1000"#,
            r#"pod_cpu_usage_seconds_total{namespace="default",pod="digits-1"} 1.5 1700000000123"#,
            "scrape_error 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\nin\n{text}");
        }
        assert!(!text.contains("digits-2"), "what ended uses nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn the_summary_has_totals_at_once_and_rates_after_a_while() {
        let rates = Rates::default();
        let make = |cpu: u64| {
            let mut node = node();
            node.cpu_used = Duration::from_secs(cpu);
            summary("edge", UNIX_EPOCH, &node, &pods(), &rates, UNIX_EPOCH)
        };
        let first = make(100);
        assert_eq!(first["node"]["cpu"]["usageCoreNanoSeconds"], 100_000_000_000u64);
        assert!(first["node"]["cpu"].get("usageNanoCores").is_none());
        assert_eq!(first["pods"][0]["podRef"]["uid"], "uid-digits-1");
        assert_eq!(first["pods"][0]["containers"][0]["memory"]["availableBytes"], 30);
        tokio::time::advance(Duration::from_secs(10)).await;
        let second = make(115);
        assert_eq!(second["node"]["cpu"]["usageNanoCores"], 1_500_000_000u64);
        assert_eq!(second["pods"][0]["cpu"]["usageNanoCores"], 0);
    }

    #[tokio::test(start_paused = true)]
    async fn rates_of_what_is_gone_are_forgotten() {
        let rates = Rates::default();
        rates.sample(&node(), &pods());
        assert_eq!(rates.0.lock().expect("unpoisoned").len(), 2);
        rates.sample(&node(), &[]);
        assert_eq!(rates.0.lock().expect("unpoisoned").len(), 1);
    }
}
