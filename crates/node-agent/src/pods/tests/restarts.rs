//! What happens when a run ends.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    pods::fakes::{Node, condition, spec, waiting},
    runtime::ModuleKind,
};

fn with_policy(policy: &str) -> Value {
    let mut whole = spec(json!({}));
    whole["restartPolicy"] = json!(policy);
    whole
}

/// Ends each run as soon as it has begun, `times` times.
async fn crash(node: &Node, pod: &str, times: usize) {
    for _ in 0..times {
        let limit = node.now() + 1000;
        let id = loop {
            let newest = node.containers.newest(pod);
            let alive = newest
                .filter(|one| !matches!(one.state, crate::runtime::ContainerState::Exited(_)));
            if let Some(container) = alive {
                break container.id;
            }
            assert!(node.now() < limit, "no new run");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        node.containers.exit(&id, 1, "Error");
    }
}

#[tokio::test(start_paused = true)]
async fn crashes_back_off_and_a_long_run_forgives_them() {
    let node = Node::running();
    node.cluster.create("p", with_policy("Always"));
    crash(&node, "p", 8).await;
    assert_eq!(node.containers.starts(), [0, 0, 10, 30, 70, 150, 310, 610]);
    node.until_waiting("p", "CrashLoopBackOff").await;
    let status = node.cluster.status("p");
    let container = &status["containerStatuses"][0];
    assert_eq!((&status["phase"], &container["restartCount"]), (&json!("Running"), &json!(7)));
    let ended = &container["lastState"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(1), &json!("Error")));
    assert_eq!(ended["containerID"], "graphlet://run-8");
    assert!(node.cluster.reasons("p").contains(&"BackOff".to_owned()));
    node.until_ready("p").await;
    assert_eq!(node.containers.starts().last(), Some(&910));
    node.pass(600).await;
    crash(&node, "p", 1).await;
    let at = node.now();
    node.until("p", |status| status["containerStatuses"][0]["restartCount"] == 9).await;
    assert_eq!(node.containers.starts().last(), Some(&at), "restarted at once");
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_as_its_command_does() {
    for (policy, code, phase) in
        [("Never", 0, "Succeeded"), ("Never", 3, "Failed"), ("OnFailure", 0, "Succeeded")]
    {
        let node = Node::running();
        node.images.set("r/m:v1", Ok(ModuleKind::Command));
        node.cluster.create("p", with_policy(policy));
        node.until("p", |status| status["phase"] == "Running").await;
        node.pass(5).await;
        let id = node.containers.newest("p").expect("a run").id;
        node.containers.exit(&id, code, if code == 0 { "Completed" } else { "Error" });
        node.until("p", |status| status["phase"] == phase).await;
        let status = node.cluster.status("p");
        assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], code);
        assert_eq!(condition(&status, "Ready"), "False");
        node.pass(600).await;
        assert_eq!(node.containers.starts().len(), 1, "{policy} {code}");
        assert!(node.containers.calls().iter().any(|(_, call)| call == "release p"));
        assert!(
            !node.containers.calls().iter().any(|(_, call)| call == "remove_pod p"),
            "logs stay"
        );
        node.cluster.delete_pod("p", 30);
        node.until_gone("p").await;
        assert!(node.containers.calls().iter().any(|(_, call)| call == "remove_pod p"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_command_runs_again_on_failure() {
    let node = Node::running();
    node.images.set("r/m:v1", Ok(ModuleKind::Command));
    node.cluster.create("p", with_policy("OnFailure"));
    crash(&node, "p", 2).await;
    node.until_waiting("p", "CrashLoopBackOff").await;
    node.until("p", |status| status["containerStatuses"][0]["restartCount"] == 2).await;
    let id = node.containers.newest("p").expect("a run").id;
    node.containers.exit(&id, 0, "Completed");
    node.until("p", |status| status["phase"] == "Succeeded").await;
}

#[tokio::test(start_paused = true)]
async fn a_run_killed_for_its_memory_says_so() {
    let node = Node::running();
    node.cluster.create("p", with_policy("Always"));
    node.until_ready("p").await;
    let id = node.containers.newest("p").expect("a run").id;
    node.containers.exit(&id, 137, "OOMKilled");
    node.until("p", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    let status = node.cluster.status("p");
    let ended = &status["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)));
}

#[tokio::test(start_paused = true)]
async fn liveness_failure_restarts_with_the_probes_grace() {
    let node = Node::running();
    node.prober.set("/live", Err("HTTP probe failed with statuscode: 500".into()));
    node.containers.set_stop_takes(Duration::from_secs(60));
    node.cluster.create(
        "p",
        spec(json!({
            "livenessProbe": { "httpGet": { "port": 8080, "path": "/live" }, "periodSeconds": 5,
                "failureThreshold": 2, "terminationGracePeriodSeconds": 7 }
        })),
    );
    node.until("p", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    let calls = node.containers.calls();
    // Ready after 1 s, failures at 1 and 6 s, seven seconds of grace.
    assert!(calls.contains(&(6, "stop run-1 7".into())), "{calls:?}");
    assert_eq!(node.containers.starts(), [0, 13]);
    let events = node.cluster.events();
    let killing = events.iter().find(|event| event.reason == "Killing").expect("an event");
    assert_eq!(killing.message, "Container app failed liveness probe, will be restarted");
    assert!(
        events.iter().any(|event| event.reason == "Unhealthy" && event.count == 2),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_that_never_succeeds_restarts_and_gates_the_others() {
    let node = Node::running();
    node.prober.set("/start", Err("no".into()));
    node.cluster.create("p", spec(json!({
        "startupProbe": { "httpGet": { "port": 8080, "path": "/start" }, "periodSeconds": 1, "failureThreshold": 5 },
        "livenessProbe": { "httpGet": { "port": 8080, "path": "/live" }, "periodSeconds": 1 }
    })));
    node.until("p", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(node.prober.asked("/live"), 0);
    node.prober.set("/start", Ok(()));
    node.until_ready("p").await;
    node.pass(5).await;
    assert!(node.prober.asked("/live") > 0);
}

#[tokio::test(start_paused = true)]
async fn another_image_restarts_the_container_in_place() {
    let node = Node::running();
    node.cluster.create("p", with_policy("Always"));
    node.until_ready("p").await;
    node.cluster.edit("p", |pod| pod["spec"]["containers"][0]["image"] = json!("r/m:v2"));
    node.until("p", |status| status["containerStatuses"][0]["imageID"] == "r/m@sha256:manifest-v2")
        .await;
    node.until_ready("p").await;
    let status = node.cluster.status("p");
    let container = &status["containerStatuses"][0];
    assert_eq!((&container["restartCount"], &container["image"]), (&json!(1), &json!("r/m:v2")));
    assert_eq!(node.containers.newest("p").expect("a run").spec.digest, "sha256:v2");
    assert_eq!(waiting(&status), "");
    assert!(node.cluster.reasons("p").contains(&"Killing".to_owned()));
}
