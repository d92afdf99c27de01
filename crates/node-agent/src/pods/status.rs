//! From what a worker knows to the status that the API server gets.

use std::net::IpAddr;

use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, PodCondition, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::{Value, json};

use super::{resources, seams::PodObject};

/// Where a pod is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its container has never run.
    Pending,
    /// It runs, or will again.
    Running,
    /// It ended well and stays so.
    Succeeded,
    /// It ended and stays so.
    Failed,
}

impl Phase {
    /// As the API spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }

    /// Whether nothing follows.
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Exit code.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`.
    pub reason: String,
    /// The last thing it said.
    pub message: String,
    /// From when.
    pub started_at: Option<Timestamp>,
    /// Until when.
    pub finished_at: Option<Timestamp>,
    /// `graphlet://…`.
    pub container_id: Option<String>,
}

/// Where the container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Not running, and why.
    Waiting {
        /// One word.
        reason: String,
        /// A sentence.
        message: String,
    },
    /// Running.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// Ended.
    Terminated(Ended),
}

/// All that a worker knows of its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// Phase.
    pub phase: Phase,
    /// Reason and message of the pod itself: `Evicted`, `DeadlineExceeded`.
    pub reason: Option<(String, String)>,
    /// When this agent first saw it.
    pub start_time: Timestamp,
    /// Its address.
    pub pod_ip: Option<IpAddr>,
    /// The node's.
    pub host_ip: IpAddr,
    /// The container.
    pub state: State,
    /// The run before.
    pub last: Option<Ended>,
    /// Answers requests.
    pub ready: bool,
    /// Its start is over.
    pub started: bool,
    /// Restarts.
    pub restarts: u32,
    /// `graphlet://…` of the newest run.
    pub container_id: Option<String>,
    /// `<repository>@<manifest digest>` of the newest run.
    pub image_id: String,
    /// Why the node takes it down, for the condition DisruptionTarget.
    pub disruption: Option<String>,
}

impl Report {
    /// What is known of a pod that was just seen.
    pub(crate) fn new(start_time: Timestamp, host_ip: IpAddr) -> Self {
        Report {
            phase: Phase::Pending,
            reason: None,
            start_time,
            pod_ip: None,
            host_ip,
            state: State::Waiting { reason: "ContainerCreating".into(), message: String::new() },
            last: None,
            ready: false,
            started: false,
            restarts: 0,
            container_id: None,
            image_id: String::new(),
            disruption: None,
        }
    }
}

/// The status, with `previous` for the times of conditions that have not changed.
pub(crate) fn build(
    object: &PodObject,
    report: &Report,
    previous: &[PodCondition],
    now: Timestamp,
) -> PodStatus {
    let pod = &object.pod;
    let spec = pod.spec.clone().unwrap_or_default();
    // A loopback address would stop every update of the Service's endpoints.
    let routable = |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified();
    let pod_ip = report.pod_ip.filter(routable).map(|ip| ip.to_string());
    let host_ip = Some(report.host_ip).filter(routable).map(|ip| ip.to_string());
    PodStatus {
        phase: Some(report.phase.name().into()),
        reason: report.reason.as_ref().map(|(reason, _)| reason.clone()),
        message: report.reason.as_ref().map(|(_, message)| message.clone()),
        conditions: Some(conditions(object, report, previous, now)),
        container_statuses: Some(container_statuses(object, report)),
        host_ips: host_ip.clone().map(|ip| vec![HostIP { ip }]),
        host_ip,
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        // It never changes, and the API server has set it at creation.
        qos_class: pod
            .status
            .as_ref()
            .and_then(|status| status.qos_class.clone())
            .or_else(|| Some(resources::qos_class(&spec).name().into())),
        start_time: Some(Time(report.start_time)),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

fn container_statuses(object: &PodObject, report: &Report) -> Vec<ContainerStatus> {
    let spec = object.pod.spec.as_ref();
    let containers = spec.into_iter().flat_map(|spec| &spec.containers);
    let running = matches!(report.state, State::Running { .. });
    containers
        .map(|container| ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            image_id: report.image_id.clone(),
            container_id: report.container_id.clone(),
            state: Some(state(&report.state)),
            // The API shows an empty one where there was none.
            last_state: Some(report.last.as_ref().map(terminated).unwrap_or_default()),
            ready: report.ready && running,
            started: Some(report.started && running),
            restart_count: i32::try_from(report.restarts).unwrap_or(i32::MAX),
            resources: container.resources.clone().filter(|_| running),
            ..ContainerStatus::default()
        })
        .collect()
}

fn state(state: &State) -> ContainerState {
    match state {
        State::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason.clone()),
                message: Some(message.clone()).filter(|message| !message.is_empty()),
            }),
            ..ContainerState::default()
        },
        State::Running { since } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
            ..ContainerState::default()
        },
        State::Terminated(ended) => terminated(ended),
    }
}

fn terminated(ended: &Ended) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: ended.code,
            reason: Some(ended.reason.clone()),
            message: Some(ended.message.clone()).filter(|message| !message.is_empty()),
            started_at: ended.started_at.map(Time),
            finished_at: ended.finished_at.map(Time),
            container_id: ended.container_id.clone(),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

/// What the API says of an ended run; for taking a pod over.
pub(crate) fn ended(state: &ContainerState) -> Option<Ended> {
    let terminated = state.terminated.as_ref()?;
    Some(Ended {
        code: terminated.exit_code,
        reason: terminated.reason.clone().unwrap_or_default(),
        message: terminated.message.clone().unwrap_or_default(),
        started_at: terminated.started_at.as_ref().map(|time| time.0),
        finished_at: terminated.finished_at.as_ref().map(|time| time.0),
        container_id: terminated.container_id.clone(),
    })
}

type Verdict = Result<(), (&'static str, String)>;

fn conditions(
    object: &PodObject,
    report: &Report,
    previous: &[PodCondition],
    now: Timestamp,
) -> Vec<PodCondition> {
    let spec = object.pod.spec.clone().unwrap_or_default();
    let names: Vec<&str> = spec.containers.iter().map(|container| &*container.name).collect();
    let containers_ready: Verdict = match report.phase {
        Phase::Succeeded => Err(("PodCompleted", String::new())),
        Phase::Failed => Err(("PodFailed", String::new())),
        _ if report.ready && matches!(report.state, State::Running { .. }) => Ok(()),
        _ => {
            let message = format!("containers with unready status: [{}]", names.join(" "));
            Err(("ContainersNotReady", message))
        }
    };
    let ready = containers_ready.clone().and_then(|()| {
        let seen = object.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        for gate in spec.readiness_gates.iter().flatten() {
            let found = seen.into_iter().flatten().find(|seen| seen.type_ == gate.condition_type);
            let wrong = match found {
                Some(condition) if condition.status == "True" => continue,
                Some(condition) => format!("has status {:?}", condition.status),
                None => "does not exist".into(),
            };
            let message = format!(
                "the condition {:?} of the pod's readiness gate {wrong}",
                gate.condition_type
            );
            return Err(("ReadinessGatesNotReady", message));
        }
        Ok(())
    });
    let initialized: Verdict = match &spec.init_containers {
        Some(init) if !init.is_empty() => {
            let names: Vec<&str> = init.iter().map(|container| &*container.name).collect();
            let message = format!("containers with incomplete status: [{}]", names.join(" "));
            Err(("ContainersNotInitialized", message))
        }
        _ => Ok(()),
    };
    let sandbox: Verdict = if report.pod_ip.is_some() && !report.phase.is_terminal() {
        Ok(())
    } else {
        Err(("", String::new()))
    };
    let mut all = vec![
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Ok(())),
    ]
    .into_iter()
    .map(|(kind, verdict)| condition(kind, verdict, previous, now))
    .collect::<Vec<_>>();
    if let Some(message) = &report.disruption {
        let mut disrupted = condition("DisruptionTarget", Ok(()), previous, now);
        disrupted.reason = Some("TerminationByKubelet".into());
        disrupted.message = Some(message.clone());
        all.push(disrupted);
    }
    all
}

fn condition(
    kind: &str,
    verdict: Verdict,
    previous: &[PodCondition],
    now: Timestamp,
) -> PodCondition {
    let status = if verdict.is_ok() { "True" } else { "False" };
    let (reason, message) = verdict.err().unwrap_or_default();
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let before = previous.iter().find(|one| one.type_ == kind && one.status == status);
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: some(reason),
        message: some(&message),
        last_transition_time: before
            .and_then(|one| one.last_transition_time.clone())
            .or(Some(Time(now))),
        ..PodCondition::default()
    }
}

/// The body of the PATCH (strategic merge): only what this agent owns, gone fields as `null`, and
/// lists of addresses replaced, because they would be merged by address.
pub(crate) fn patch(uid: &str, status: &PodStatus) -> Value {
    let mut body = serde_json::to_value(status).unwrap_or_default();
    for name in ["reason", "message", "podIP", "podIPs", "hostIP", "hostIPs"] {
        if body[name].is_null() {
            body[name] = Value::Null;
        } else if let Some(list) = body[name].as_array_mut() {
            list.insert(0, json!({ "$patch": "replace" }));
        }
    }
    for condition in body["conditions"].as_array_mut().into_iter().flatten() {
        for name in ["reason", "message"] {
            if condition[name].is_null() {
                condition[name] = Value::Null;
            }
        }
    }
    json!({ "metadata": { "uid": uid }, "status": body })
}

/// Whether the server has this status already: what this agent owns is compared.
pub(crate) fn same(ours: &PodStatus, theirs: &PodStatus) -> bool {
    let owned = |status: &PodStatus| PodStatus {
        conditions: status.conditions.as_ref().map(|conditions| {
            let own = ours.conditions.iter().flatten();
            own.filter_map(|own| conditions.iter().find(|one| one.type_ == own.type_))
                .map(|one| PodCondition {
                    last_probe_time: None,
                    observed_generation: None,
                    ..one.clone()
                })
                .collect()
        }),
        container_statuses: status.container_statuses.as_ref().map(|statuses| {
            let mut statuses = statuses.clone();
            for status in &mut statuses {
                // Servers without in-place resize drop it.
                status.resources = None;
                status.last_state = status.last_state.take().or(Some(ContainerState::default()));
            }
            statuses
        }),
        phase: status.phase.clone(),
        reason: status.reason.clone(),
        message: status.message.clone(),
        host_ip: status.host_ip.clone(),
        pod_ip: status.pod_ip.clone(),
        start_time: status.start_time.clone(),
        ..PodStatus::default()
    };
    owned(ours) == owned(theirs)
}

/// Status of the condition Ready.
pub(crate) fn is_ready(status: &PodStatus) -> bool {
    let conditions = status.conditions.iter().flatten();
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> PodObject {
        let whole = json!({
            "metadata": { "name": "p", "namespace": "d", "uid": "u", "generation": 3 },
            "spec": { "containers": [{ "name": "app", "image": "r/m:v1" }],
                      "readinessGates": [{ "conditionType": "example.com/gate" }] }
        });
        PodObject {
            spec: whole["spec"].clone(),
            pod: serde_json::from_value(whole).expect("a pod"),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn running() -> Report {
        Report {
            phase: Phase::Running,
            pod_ip: Some([10, 244, 1, 5].into()),
            state: State::Running { since: at(5) },
            ready: true,
            started: true,
            container_id: Some("graphlet://1".into()),
            ..Report::new(at(1), [192, 168, 0, 2].into())
        }
    }

    fn ready(status: &PodStatus, kind: &str) -> (String, i64) {
        let found = status.conditions.iter().flatten().find(|one| one.type_ == kind);
        let found = found.expect("the condition");
        let time = found.last_transition_time.as_ref().expect("a time");
        (found.status.clone(), time.0.as_second())
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let mut object = object();
        let first = build(&object, &running(), &[], at(10));
        assert_eq!(ready(&first, "ContainersReady"), ("True".into(), 10));
        assert_eq!(ready(&first, "Ready"), ("False".into(), 10), "the gate is closed");
        let mut seen = first.clone();
        seen.conditions.get_or_insert_default().push(PodCondition {
            type_: "example.com/gate".into(),
            status: "True".into(),
            ..PodCondition::default()
        });
        object.pod.status = Some(seen);
        let second = build(&object, &running(), &first.conditions.expect("some"), at(20));
        assert_eq!(ready(&second, "ContainersReady"), ("True".into(), 10));
        assert_eq!(ready(&second, "Ready"), ("True".into(), 20));
    }

    #[test]
    fn the_patch_replaces_addresses_and_clears_what_is_gone() {
        let status = build(&object(), &running(), &[], at(10));
        let patch = patch("u", &status);
        assert_eq!(patch["metadata"], json!({ "uid": "u" }));
        let status = &patch["status"];
        assert_eq!(status["podIPs"], json!([{ "$patch": "replace" }, { "ip": "10.244.1.5" }]));
        assert_eq!(status["hostIPs"], json!([{ "$patch": "replace" }, { "ip": "192.168.0.2" }]));
        assert_eq!(status["reason"], Value::Null);
        assert!(status.as_object().expect("a map").contains_key("reason"));
        assert_eq!(status["observedGeneration"], 3);
        assert_eq!(status["qosClass"], "BestEffort");
        assert_eq!(status["containerStatuses"][0]["containerID"], "graphlet://1");
        assert_eq!(status["startTime"], "1970-01-01T00:00:01Z");
    }

    #[test]
    fn a_loopback_address_is_never_reported() {
        let report = Report { pod_ip: Some([127, 0, 0, 1].into()), ..running() };
        let status = build(&object(), &report, &[], at(10));
        assert_eq!((status.pod_ip, status.pod_ips), (None, None));
    }

    #[test]
    fn a_status_that_the_server_returns_is_the_same_status() {
        let status = build(&object(), &running(), &[], at(10));
        let mut stored = status.clone();
        stored.observed_generation = None;
        stored.conditions.get_or_insert_default().reverse();
        assert!(same(&status, &stored));
        stored.phase = Some("Pending".into());
        assert!(!same(&status, &stored));
    }
}
