//! Which pod goes first when the node has too little memory or disk.

use k8s_openapi::api::core::v1::Pod;

use super::resources::{self, QosClass};

/// Pods of this priority and above keep the cluster alive and are never evicted here.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// A running pod, as eviction sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its uid.
    pub uid: String,
    /// `spec.priority`.
    pub priority: i32,
    /// Class of service.
    pub qos: QosClass,
    /// Memory it uses, bytes.
    pub used: u64,
    /// Memory it requests, bytes.
    pub requested: u64,
}

impl Candidate {
    /// A pod that may be evicted.
    pub(crate) fn new(pod: &Pod, used: u64) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let priority = spec.priority.unwrap_or(0);
        (priority < SYSTEM_CRITICAL && pod.metadata.deletion_timestamp.is_none()).then(|| {
            Candidate {
                uid: pod.metadata.uid.clone().unwrap_or_default(),
                priority,
                qos: resources::qos_class(spec),
                used,
                requested: resources::requests(spec).memory_bytes,
            }
        })
    }

    fn over(&self) -> u64 {
        self.used.saturating_sub(self.requested)
    }
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// Memory.
    Memory,
    /// Disk.
    Disk,
}

/// The pod to evict. Short of memory: those over their request first, then by priority, then the
/// one furthest over it, as the kubelet ranks them; short of disk, of which pods use next to
/// nothing here, by priority and class of service.
pub(crate) fn victim(mut candidates: Vec<Candidate>, pressure: Pressure) -> Option<Candidate> {
    candidates.sort_by_key(|one| match pressure {
        Pressure::Memory => {
            (one.over() == 0, one.priority, QosClass::BestEffort, u64::MAX - one.over())
        }
        Pressure::Disk => (false, one.priority, one.qos, u64::MAX - one.used),
    });
    candidates.into_iter().next()
}

/// What the evicted pod's status says.
pub(crate) fn message(victim: &Candidate, pressure: Pressure) -> String {
    match pressure {
        Pressure::Memory => format!(
            "The node was low on resource: memory. The container was using {} KiB, request is {} KiB.",
            victim.used / 1024,
            victim.requested / 1024
        ),
        Pressure::Disk => "The node was low on resource: ephemeral-storage.".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32, request: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": name, "uid": name },
            "spec": { "priority": priority, "containers": [{ "name": "app",
                "resources": { "requests": { "memory": request } } }] }
        }))
        .expect("a pod")
    }

    fn first(pods: &[(&str, i32, &str, u64)], pressure: Pressure) -> Option<String> {
        let candidates = pods
            .iter()
            .filter_map(|(name, priority, request, used)| {
                Candidate::new(&pod(name, *priority, request), *used)
            })
            .collect();
        victim(candidates, pressure).map(|victim| victim.uid)
    }

    #[test]
    fn who_uses_more_than_it_asked_for_goes_first_then_the_least_important() {
        for (pods, expected) in [
            (&[("within", 0, "10M", 9_000_000), ("over", 5, "1M", 2_000_000)][..], Some("over")),
            (&[("low", 0, "1M", 2_000_000), ("high", 5, "1M", 9_000_000)], Some("low")),
            (&[("little", 0, "1M", 2_000_000), ("much", 0, "1M", 3_000_000)], Some("much")),
            (&[("critical", SYSTEM_CRITICAL, "0", 9)], None),
        ] {
            let found = first(pods, Pressure::Memory);
            assert_eq!(found.as_deref(), expected, "{pods:?}");
        }
    }

    #[test]
    fn short_of_disk_priority_decides_then_the_class_of_service() {
        let pods = [("burstable", 0, "1M", 9), ("besteffort", 0, "0", 9), ("high", 1, "0", 9)];
        assert_eq!(first(&pods, Pressure::Disk).as_deref(), Some("besteffort"));
    }
}
