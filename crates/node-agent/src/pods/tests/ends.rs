//! How pods end: deleted, forced, evicted, out of time.

use std::time::Duration;

use serde_json::{Value, json};

use crate::pods::fakes::{Node, condition, spec};

async fn ready() -> Node {
    let node = Node::running();
    node.cluster.create("p", spec(json!({})));
    node.until_ready("p").await;
    node
}

fn ended(node: &Node) -> Vec<(u64, String)> {
    let calls = node.containers.calls();
    calls.into_iter().filter(|(_, call)| !call.starts_with("start")).collect()
}

fn calls(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(at, call)| (*at, (*call).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_unready_drained_stopped_terminal_and_gone_in_this_order() {
    let node = ready().await;
    node.containers.set_stop_takes(Duration::from_secs(2));
    node.pass(9).await;
    let writes = node.cluster.statuses("p").len();
    node.cluster.delete_pod("p", 30);
    assert_eq!(node.until_gone("p").await, 17);
    // Accepting for 5 s, then SIGTERM with what is left of 30 s.
    let expected = [(10, "drain run-1"), (15, "stop run-1 25"), (17, "remove_pod p")];
    assert_eq!(ended(&node), calls(&expected));
    let statuses = &node.cluster.statuses("p")[writes..];
    let seen: Vec<_> = statuses
        .iter()
        .map(|status| (status["phase"].as_str().expect("a phase"), condition(status, "Ready")))
        .collect();
    assert_eq!(seen, [("Running", "False"), ("Succeeded", "False")]);
    assert!(statuses[1]["containerStatuses"][0]["state"]["terminated"].is_object());
    assert!(node.cluster.reasons("p").contains(&"Killing".to_owned()));
    node.pass(1).await;
    assert!(node.manager.pods().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_short_grace_holds_the_drain_too() {
    let node = ready().await;
    node.containers.set_stop_takes(Duration::from_secs(60));
    node.cluster.delete_pod("p", 3);
    assert_eq!(node.until_gone("p").await, 4);
    assert_eq!(
        ended(&node),
        calls(&[(1, "drain run-1"), (2, "stop run-1 2"), (4, "remove_pod p")])
    );
    assert_eq!(node.cluster.statuses("p").last().expect("a status")["phase"], "Failed");
}

#[tokio::test(start_paused = true)]
async fn a_second_deletion_shortens_the_grace() {
    let node = ready().await;
    node.containers.set_stop_takes(Duration::from_secs(600));
    node.cluster.delete_pod("p", 300);
    node.pass(20).await;
    node.cluster.delete_pod("p", 1);
    let gone = node.until_gone("p").await;
    assert!(gone <= 24, "gone after {gone} s");
    assert!(ended(&node).iter().any(|(_, call)| call == "kill run-1"), "{:?}", ended(&node));
}

#[tokio::test(start_paused = true)]
async fn a_forced_deletion_frees_everything_at_once() {
    let node = ready().await;
    node.cluster.force_delete("p");
    node.pass(1).await;
    assert_eq!(ended(&node), calls(&[(1, "kill run-1"), (1, "remove_pod p")]));
    assert!(node.manager.pods().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_forced_deletion_cuts_a_slow_one() {
    let node = ready().await;
    node.containers.set_stop_takes(Duration::from_secs(600));
    node.cluster.delete_pod("p", 300);
    node.pass(50).await;
    node.cluster.force_delete("p");
    node.pass(1).await;
    let last = ended(&node);
    assert!(last.ends_with(&calls(&[(51, "remove_pod p")])), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_pulling_never_starts() {
    let node = Node::running();
    node.images.set_takes(Duration::from_secs(600));
    node.cluster.create("p", spec(json!({})));
    node.pass(5).await;
    node.cluster.delete_pod("p", 30);
    assert_eq!(node.until_gone("p").await, 5);
    node.pass(1000).await;
    assert!(node.containers.starts().is_empty());
    assert_eq!(node.cluster.statuses("p").last().expect("a status")["phase"], "Failed");
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_starting_leaves_no_process() {
    let node = Node::running();
    node.containers.set_start_takes(Duration::from_secs(20));
    node.cluster.create("p", spec(json!({})));
    node.pass(5).await;
    node.cluster.delete_pod("p", 30);
    node.until_gone("p").await;
    let expected = [(20, "kill run-1"), (20, "remove run-1"), (20, "remove_pod p")];
    assert_eq!(ended(&node), calls(&expected));
}

#[tokio::test(start_paused = true)]
async fn the_pre_stop_hook_comes_before_sigterm() {
    let node = Node::running();
    node.cluster
        .create("p", spec(json!({ "lifecycle": { "preStop": { "sleep": { "seconds": 8 } } } })));
    node.until_ready("p").await;
    node.cluster.delete_pod("p", 30);
    node.until_gone("p").await;
    assert_eq!(
        ended(&node),
        calls(&[(1, "drain run-1"), (9, "stop run-1 22"), (9, "remove_pod p")])
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_delete_is_tried_until_the_server_is_back() {
    let node = ready().await;
    node.cluster.delete_pod("p", 30);
    node.pass(1).await;
    node.cluster.set_away(true);
    node.pass(300).await;
    assert!(node.cluster.has("p"));
    assert!(ended(&node).iter().any(|(_, call)| call == "stop run-1 25"), "stopped all the same");
    node.cluster.set_away(false);
    node.pass(25).await;
    assert!(!node.cluster.has("p"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_failed_when_its_deadline_is_over() {
    let node = Node::running();
    let mut whole: Value = spec(json!({}));
    whole["activeDeadlineSeconds"] = json!(100);
    node.cluster.create("p", whole);
    node.until_ready("p").await;
    let at = node.until("p", |status| status["phase"] == "Failed").await;
    assert_eq!(at, 100);
    let status = node.cluster.status("p");
    assert_eq!(status["reason"], "DeadlineExceeded");
    node.pass(600).await;
    assert_eq!(node.containers.starts().len(), 1);
    node.cluster.delete_pod("p", 30);
    node.until_gone("p").await;
}

#[tokio::test(start_paused = true)]
async fn under_memory_pressure_the_pod_furthest_over_its_request_goes() {
    let node = Node::running();
    node.containers.set_used(200 << 20);
    let asks = |memory: &str| spec(json!({ "resources": { "requests": { "memory": memory } } }));
    node.cluster.create("modest", asks("256Mi"));
    node.cluster.create("greedy", asks("100Mi"));
    node.until_ready("modest").await;
    node.until_ready("greedy").await;
    node.manager.set_pressure(true, false);
    node.until("greedy", |status| status["phase"] == "Failed").await;
    let status = node.cluster.status("greedy");
    assert_eq!(status["reason"], "Evicted");
    assert_eq!(condition(&status, "DisruptionTarget"), "True");
    assert!(node.cluster.reasons("greedy").contains(&"Evicted".to_owned()));
    node.cluster.create("besteffort", spec(json!({})));
    node.until_waiting("besteffort", "MemoryPressure").await;
    node.manager.set_pressure(false, false);
    node.until_ready("besteffort").await;
    assert_eq!(node.cluster.status("modest")["phase"], "Running");
}
