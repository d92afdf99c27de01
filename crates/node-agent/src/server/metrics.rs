//! The agent's own metrics. All their names stand here.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;

use super::text::Text;
use crate::runtime::{Container, ContainerState};

/// Requests answered, by what was asked and the status.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<BTreeMap<(&'static str, u16), u64>>);

impl Counters {
    pub(super) fn count(&self, route: &'static str, status: StatusCode) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((route, status.as_u16())).or_default() += 1;
    }
}

/// The body of `/metrics`.
pub(super) fn page(
    counters: &Counters,
    pods: &[Arc<Pod>],
    containers: &[Container],
    started: SystemTime,
) -> String {
    let mut text = Text::default();
    text.family("graphlet_node_info", "gauge", "The agent's version");
    text.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);

    text.family("graphlet_node_pods", "gauge", "Pods of this node by phase");
    let mut phases: BTreeMap<&str, u64> =
        ["Pending", "Running", "Succeeded", "Failed"].map(|phase| (phase, 0)).into();
    for pod in pods {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        *phases.entry(phase.unwrap_or("Pending")).or_default() += 1;
    }
    for (phase, count) in phases {
        text.sample(&[("phase", phase)], count as f64);
    }

    text.family("graphlet_node_containers", "gauge", "Containers of this node by state");
    let count = |wanted: fn(&ContainerState) -> bool| {
        containers.iter().filter(|container| wanted(&container.state)).count() as f64
    };
    text.sample(&[("state", "starting")], count(|state| matches!(state, ContainerState::Starting)));
    text.sample(&[("state", "running")], count(|state| matches!(state, ContainerState::Running)));
    text.sample(&[("state", "exited")], count(|state| matches!(state, ContainerState::Exited(_))));

    text.family("graphlet_node_requests_total", "counter", "Requests at the kubelet's port");
    for ((route, status), count) in counters.0.lock().unwrap_or_else(PoisonError::into_inner).iter()
    {
        text.sample(&[("route", route), ("status", &status.to_string())], *count as f64);
    }

    text.family("process_start_time_seconds", "gauge", "Start of the agent, seconds since 1970");
    text.sample(&[], started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    if let Some((cpu_seconds, threads)) = own_times() {
        text.family("process_cpu_seconds_total", "counter", "Processor time of the agent itself");
        text.sample(&[], cpu_seconds);
        text.family("process_threads", "gauge", "Threads of the agent");
        text.sample(&[], threads);
    }
    if let Some(bytes) = own_memory() {
        text.family(
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory of the agent itself",
        );
        text.sample(&[], bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        text.family("process_open_fds", "gauge", "Open file descriptors of the agent");
        text.sample(&[], open.count() as f64);
    }
    text.finish()
}

/// Processor seconds and threads of this process. Fields are counted behind the command's name,
/// which may hold anything.
fn own_times() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // proc(5): utime is field 14, stime 15, num_threads 20; the first behind the name is 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(((field(14)? + field(15)?) / 100.0, field(20)?))
}

fn own_memory() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::{super::logs::tests::pod, *};

    #[test]
    fn the_page_counts_pods_requests_and_the_agent_itself() {
        let counters = Counters::default();
        counters.count("pods", StatusCode::OK);
        counters.count("pods", StatusCode::OK);
        counters.count("refused", StatusCode::UNAUTHORIZED);
        let page = page(&counters, &[pod("a", None)], &[], UNIX_EPOCH);
        for line in [
            r#"graphlet_node_pods{phase="Running"} 1"#,
            r#"graphlet_node_pods{phase="Failed"} 0"#,
            r#"graphlet_node_requests_total{route="pods",status="200"} 2"#,
            r#"graphlet_node_requests_total{route="refused",status="401"} 1"#,
        ] {
            assert!(page.lines().any(|have| have == line), "{line}\nin\n{page}");
        }
        let (cpu_seconds, threads) = own_times().expect("this process");
        assert!(cpu_seconds >= 0.0 && threads >= 1.0);
        assert!(own_memory().expect("this process") > 0.0);
    }
}
