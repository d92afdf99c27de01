//! The Node object: what is said at its creation, and its status.

use std::{collections::BTreeMap, fs, net::IpAddr};

use k8s_openapi::{
    api::core::v1::{
        DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
        NodeStatus, NodeSystemInfo, Taint,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
    jiff::Timestamp,
};
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::{pressure::Shortage, readings::Readings};

/// What stands at `kubernetes.io/arch` and `kubernetes.io/os`, as Krustlet had it: manifests
/// written for its waSCC nodes find this one, and no container image claims to run here.
pub const ARCHITECTURE: &str = "wasm32-wascc";
/// The release whose API the agent speaks. `kubeadm upgrade` and others compare it with the API
/// server's, so it is Kubernetes' number and not ours.
const KUBELET_VERSION: &str = concat!("v1.33.0+graphlet.", env!("CARGO_PKG_VERSION"));
/// The only condition that others read to decide where pods go.
const READY: &str = "Ready";

/// What of the node does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct NodeDescription {
    /// Its name.
    pub name: String,
    /// InternalIP; where port 10250 and host ports listen.
    pub address: IpAddr,
    /// Port of the kubelet's API.
    pub kubelet_port: u16,
    /// How many pods at most.
    pub max_pods: u32,
    /// Labels besides the usual.
    pub labels: BTreeMap<String, String>,
    /// Thousandths of a core that pods may not ask for.
    pub reserved_cpu_millis: u64,
    /// Bytes of memory that pods may not ask for.
    pub reserved_memory_bytes: u64,
}

/// Whether the node takes pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// The agent begins: what the node said before stays said, as its pods may well serve on.
    Starting,
    /// Pods are welcome.
    Ready,
    /// They are not, because of this.
    NotReady(String),
}

impl NodeDescription {
    /// Labels of the node.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let own = [
            ("kubernetes.io/arch", ARCHITECTURE),
            ("kubernetes.io/os", ARCHITECTURE),
            ("kubernetes.io/hostname", &self.name),
            ("type", "krustlet"),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.labels.clone().into_iter().chain(own).collect()
    }

    /// The object of the first POST. It says `Ready=False`: without a Ready condition the node
    /// controller drops the not-ready taint at once, and pods are bound before the agent can run
    /// them.
    pub fn first_object(&self, readings: &Readings) -> Node {
        let now = Time(Timestamp::now());
        let readiness = Readiness::NotReady("the agent begins".into());
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.all_labels()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec { taints: Some(taints()), ..NodeSpec::default() }),
            status: Some(self.status(readings, &readiness, Shortage::default(), None, &now)),
        }
    }

    /// What is true now. `before` is the status that the API server holds, for the times of the
    /// last changes.
    pub fn status(
        &self,
        readings: &Readings,
        readiness: &Readiness,
        shortage: Shortage,
        before: Option<&NodeStatus>,
        now: &Time,
    ) -> NodeStatus {
        let quantities = |cpu_millis: u64, memory: u64| {
            BTreeMap::from([
                ("cpu".to_owned(), Quantity(cpu(cpu_millis))),
                ("memory".to_owned(), Quantity(memory.to_string())),
                ("pods".to_owned(), Quantity(self.max_pods.to_string())),
                ("ephemeral-storage".to_owned(), Quantity(readings.disk_bytes.to_string())),
            ])
        };
        NodeStatus {
            addresses: Some(
                [("InternalIP", self.address.to_string()), ("Hostname", self.name.clone())]
                    .map(|(kind, address)| NodeAddress { type_: kind.into(), address })
                    .into(),
            ),
            capacity: Some(quantities(readings.cpu_millis, readings.memory_bytes)),
            allocatable: Some(quantities(
                self.allocatable_cpu_millis(readings),
                self.allocatable_memory_bytes(readings),
            )),
            conditions: Some(conditions(readiness, shortage, before, now)),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: self.kubelet_port.into() }),
            }),
            node_info: Some(system_info()),
            ..NodeStatus::default()
        }
    }

    /// Thousandths of a core that pods may ask for together.
    pub fn allocatable_cpu_millis(&self, readings: &Readings) -> u64 {
        readings.cpu_millis.saturating_sub(self.reserved_cpu_millis)
    }

    /// Bytes of memory that pods may ask for together.
    pub fn allocatable_memory_bytes(&self, readings: &Readings) -> u64 {
        readings.memory_bytes.saturating_sub(self.reserved_memory_bytes)
    }
}

/// Two taints keep containers away, DaemonSets' among them; the RuntimeClass tolerates both. They
/// are set at creation, as a node may not change its taints later.
pub fn taints() -> Vec<Taint> {
    ["NoSchedule", "NoExecute"]
        .map(|effect| Taint {
            key: "kubernetes.io/arch".into(),
            value: Some(ARCHITECTURE.into()),
            effect: effect.into(),
            time_added: None,
        })
        .into()
}

/// Which of [`taints`] a node lacks.
pub fn missing_taints(node: &Node) -> Vec<Taint> {
    let present = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints()
        .into_iter()
        .filter(|wanted| {
            !present.iter().any(|taint| {
                (&taint.key, &taint.value, &taint.effect)
                    == (&wanted.key, &wanted.value, &wanted.effect)
            })
        })
        .collect()
}

/// A node of that name that says it is something else: a real kubelet's, say.
pub fn is_foreign(node: &Node) -> bool {
    let label = node.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/arch"));
    label.is_some_and(|architecture| architecture != ARCHITECTURE)
}

fn cpu(millis: u64) -> String {
    if millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{millis}m") }
}

fn conditions(
    readiness: &Readiness,
    shortage: Shortage,
    before: Option<&NodeStatus>,
    now: &Time,
) -> Vec<NodeCondition> {
    let before = before.and_then(|before| before.conditions.as_deref()).unwrap_or_default();
    let previous = |kind: &str| before.iter().find(|condition| condition.type_ == kind);
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let unchanged = previous(kind).filter(|previous| previous.status == status);
        NodeCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(
                unchanged
                    .and_then(|previous| previous.last_transition_time.clone())
                    .unwrap_or_else(|| now.clone()),
            ),
        }
    };
    let short = |kind: &str, short: bool, reasons: [&str; 2], messages: [&str; 2]| {
        let status = if short { "True" } else { "False" };
        condition(kind, status, reasons[usize::from(short)], messages[usize::from(short)])
    };
    let ready = match readiness {
        Readiness::Ready => condition(READY, "True", "KubeletReady", "the agent runs pods"),
        Readiness::NotReady(why) => condition(READY, "False", "KubeletNotReady", why),
        Readiness::Starting => match previous(READY).filter(|ready| ready.status != "Unknown") {
            Some(ready) => {
                NodeCondition { last_heartbeat_time: Some(now.clone()), ..ready.clone() }
            }
            None => condition(READY, "False", "KubeletNotReady", "the agent begins"),
        },
    };
    vec![
        short(
            "MemoryPressure",
            shortage.memory,
            ["KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"],
            ["there is enough memory", "memory runs short"],
        ),
        short(
            "DiskPressure",
            shortage.disk,
            ["KubeletHasNoDiskPressure", "KubeletHasDiskPressure"],
            ["there is enough disk space", "disk space or files run short"],
        ),
        short(
            "PIDPressure",
            shortage.threads,
            ["KubeletHasSufficientPID", "KubeletHasInsufficientPID"],
            ["there are enough threads", "threads run short"],
        ),
        ready,
    ]
}

/// Whether the API server holds this status already, apart from the times of the heartbeats.
pub fn says_the_same(held: &NodeStatus, wanted: &NodeStatus) -> bool {
    let conditions = |status: &NodeStatus| {
        status
            .conditions
            .iter()
            .flatten()
            .map(|condition| {
                let NodeCondition { type_, status, reason, message, .. } = condition.clone();
                (type_, (status, reason, message))
            })
            .collect::<BTreeMap<_, _>>()
    };
    let held_conditions = conditions(held);
    // Others may add conditions of their own.
    conditions(wanted).iter().all(|(kind, wanted)| held_conditions.get(kind) == Some(wanted))
        && held.addresses == wanted.addresses
        && held.capacity == wanted.capacity
        && held.allocatable == wanted.allocatable
        && held.daemon_endpoints == wanted.daemon_endpoints
        && held.node_info.as_ref().map(|info| (&info.boot_id, &info.kubelet_version))
            == wanted.node_info.as_ref().map(|info| (&info.boot_id, &info.kubelet_version))
}

/// The body of a strategic merge patch of nodes/status. Addresses are merged by their type, so an
/// old one would stay unless the list is replaced.
pub fn status_patch(status: &NodeStatus) -> Value {
    let mut status = json!(status);
    if let Some(addresses) = status.get_mut("addresses").and_then(Value::as_array_mut) {
        addresses.insert(0, json!({"$patch": "replace"}));
    }
    json!({ "status": status })
}

fn system_info() -> NodeSystemInfo {
    let line = |path: &str| {
        fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    let uname = rustix::system::uname();
    let release = line("/etc/os-release");
    let os_image = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .unwrap_or_else(|| "Linux".into());
    NodeSystemInfo {
        architecture: ARCHITECTURE.into(),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: concat!("graphlet://", env!("CARGO_PKG_VERSION")).into(),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.into(),
        machine_id: line("/etc/machine-id"),
        operating_system: "linux".into(),
        os_image,
        swap: None,
        system_uuid: line("/sys/class/dmi/id/product_uuid"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn description() -> NodeDescription {
        NodeDescription {
            name: "edge-wasm".into(),
            address: IpAddr::from([10, 1, 2, 3]),
            kubelet_port: 10350,
            max_pods: 50,
            labels: [("zone".to_owned(), "attic".to_owned())].into(),
            reserved_cpu_millis: 500,
            reserved_memory_bytes: 1 << 30,
        }
    }

    fn readings() -> Readings {
        Readings {
            cpu_millis: 2000,
            cpu_used: Duration::ZERO,
            memory_bytes: 8 << 30,
            memory_available_bytes: 4 << 30,
            disk_bytes: 1 << 40,
            disk_available_bytes: 1 << 39,
            inodes: 0,
            inodes_free: 0,
            threads_max: 100,
            threads: 1,
        }
    }

    fn at(seconds: i64) -> Time {
        Time(Timestamp::from_second(seconds).expect("a time"))
    }

    fn status(readiness: &Readiness, before: Option<&NodeStatus>, seconds: i64) -> NodeStatus {
        description().status(&readings(), readiness, Shortage::default(), before, &at(seconds))
    }

    fn ready(status: &NodeStatus) -> NodeCondition {
        let conditions = status.conditions.as_ref().expect("conditions");
        conditions.iter().find(|condition| condition.type_ == "Ready").expect("Ready").clone()
    }

    #[test]
    fn the_first_object_has_taints_labels_and_says_not_ready() {
        let node = description().first_object(&readings());
        assert!(missing_taints(&node).is_empty());
        assert!(!is_foreign(&node));
        let labels = node.metadata.labels.clone().expect("labels");
        assert_eq!(labels["kubernetes.io/os"], "wasm32-wascc");
        assert_eq!(labels["type"], "krustlet");
        assert_eq!(labels["zone"], "attic");
        assert_eq!(ready(node.status.as_ref().expect("a status")).status, "False");
    }

    #[test]
    fn capacity_is_the_machine_and_allocatable_what_is_not_reserved() {
        let status = status(&Readiness::Ready, None, 1);
        let (capacity, allocatable) =
            (status.capacity.expect("capacity"), status.allocatable.expect("allocatable"));
        assert_eq!((capacity["cpu"].0.as_str(), allocatable["cpu"].0.as_str()), ("2", "1500m"));
        assert_eq!(capacity["memory"].0, (8u64 << 30).to_string());
        assert_eq!(allocatable["memory"].0, (7u64 << 30).to_string());
        assert_eq!(allocatable["pods"].0, "50");
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let first = status(&Readiness::Ready, None, 100);
        let second = status(&Readiness::Ready, Some(&first), 200);
        assert_eq!(ready(&second).last_transition_time, Some(at(100)));
        assert_eq!(ready(&second).last_heartbeat_time, Some(at(200)));
        let third = status(&Readiness::NotReady("why".into()), Some(&second), 300);
        assert_eq!(ready(&third).last_transition_time, Some(at(300)));
    }

    #[test]
    fn an_agent_that_begins_takes_nothing_back_that_the_node_said() {
        let before = status(&Readiness::Ready, None, 100);
        assert_eq!(ready(&status(&Readiness::Starting, Some(&before), 200)).status, "True");
        assert_eq!(ready(&status(&Readiness::Starting, None, 200)).status, "False");
        let mut unknown = before;
        for condition in unknown.conditions.iter_mut().flatten() {
            condition.status = "Unknown".into();
        }
        assert_eq!(ready(&status(&Readiness::Starting, Some(&unknown), 200)).status, "False");
    }

    #[test]
    fn a_heartbeat_is_no_change_and_everything_else_is() {
        let held = status(&Readiness::Ready, None, 100);
        let wanted = status(&Readiness::Ready, Some(&held), 200);
        assert!(says_the_same(&held, &wanted));
        assert!(!says_the_same(&held, &status(&Readiness::NotReady("x".into()), None, 200)));
        let mut other = wanted.clone();
        other.addresses.as_mut().expect("addresses")[0].address = "10.1.2.4".into();
        assert!(!says_the_same(&held, &other));
        let mut more = held;
        let network =
            NodeCondition { type_: "NetworkUnavailable".into(), ..NodeCondition::default() };
        more.conditions.as_mut().expect("conditions").push(network);
        assert!(says_the_same(&more, &wanted), "others' conditions are theirs");
    }

    #[test]
    fn a_patch_replaces_addresses_instead_of_merging_them() {
        let patch = status_patch(&status(&Readiness::Ready, None, 1));
        assert_eq!(patch["status"]["addresses"][0], json!({"$patch": "replace"}));
        assert_eq!(patch["status"]["addresses"][1]["address"], "10.1.2.3");
    }

    #[test]
    fn a_kubelets_node_of_the_same_name_is_foreign() {
        let mut node = description().first_object(&readings());
        let labels = node.metadata.labels.as_mut().expect("labels");
        labels.insert("kubernetes.io/arch".into(), "amd64".into());
        assert!(is_foreign(&node));
        node.spec = None;
        assert_eq!(missing_taints(&node).len(), 2);
    }
}
