//! A new agent finds the pods of the one before.

use serde_json::json;

use crate::pods::fakes::{Node, condition, spec};

#[tokio::test(start_paused = true)]
async fn running_containers_are_taken_over_without_a_request_lost() {
    let node = Node::running();
    node.cluster.create(
        "p",
        spec(json!({
            "readinessProbe": { "httpGet": { "port": 8080, "path": "/ready" } }
        })),
    );
    node.until_ready("p").await;
    let first = node.containers.newest("p").expect("a run").id;
    node.containers.exit(&first, 1, "Error");
    node.until("p", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    node.until_ready("p").await;
    let before = node.cluster.status("p");
    let writes = node.cluster.statuses("p").len();

    let node = node.restarted();
    node.pass(60).await;
    assert!(node.containers.starts().is_empty(), "nothing is started again");
    assert_eq!(node.cluster.status("p"), before);
    assert_eq!(node.cluster.statuses("p").len(), writes, "it was ready all the time");

    let id = node.containers.newest("p").expect("a run").id;
    assert_eq!(before["containerStatuses"][0]["containerID"], format!("graphlet://{}", id.0));
    node.containers.exit(&id, 1, "Error");
    node.until("p", |status| status["containerStatuses"][0]["restartCount"] == 2).await;
    node.until_ready("p").await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ended_while_nobody_looked_counts() {
    let node = Node::running();
    node.cluster.create("p", spec(json!({})));
    node.until_ready("p").await;
    let id = node.containers.newest("p").expect("a run").id;
    node.cluster.set_away(true);
    node.containers.exit(&id, 137, "OOMKilled");
    let node = node.restarted();
    node.cluster.set_away(false);
    node.until("p", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    let status = node.cluster.status("p");
    let last = &status["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["reason"], "OOMKilled");
    assert_eq!(node.containers.starts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_died_with_the_agents_own_container_is_started_once_more() {
    let node = Node::running();
    node.cluster.create("p", spec(json!({})));
    node.until_ready("p").await;
    let node = {
        let id = node.containers.newest("p").expect("a run").id;
        let next = Node::idle();
        drop(id);
        let mut next = next;
        next.cluster = node.cluster.clone();
        next.restarted()
    };
    node.until("p", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    node.until_ready("p").await;
    node.pass(600).await;
    assert_eq!(node.containers.starts().len(), 1, "restarted once");
    let status = node.cluster.status("p");
    let last = &status["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(
        (&last["reason"], &last["exitCode"]),
        (&json!("ContainerStatusUnknown"), &json!(137))
    );
}

#[tokio::test(start_paused = true)]
async fn a_finished_pod_stays_finished() {
    let node = Node::running();
    let mut job = spec(json!({}));
    job["restartPolicy"] = json!("Never");
    node.cluster.create("p", job);
    node.until_ready("p").await;
    let id = node.containers.newest("p").expect("a run").id;
    node.containers.exit(&id, 0, "Completed");
    node.until("p", |status| status["phase"] == "Succeeded").await;
    node.pass(1).await;
    let before = node.cluster.status("p");
    let node = node.restarted();
    node.pass(60).await;
    assert_eq!(node.cluster.status("p"), before);
    assert!(node.containers.starts().is_empty());
    node.cluster.delete_pod("p", 30);
    node.until_gone("p").await;
}

#[tokio::test(start_paused = true)]
async fn processes_of_pods_that_vanished_are_ended() {
    let node = Node::running();
    node.cluster.create("p", spec(json!({})));
    node.cluster.create("q", spec(json!({})));
    node.until_ready("p").await;
    node.until_ready("q").await;
    node.cluster.set_away(true);
    node.cluster.force_delete("p");
    let node = node.restarted();
    node.pass(10).await;
    assert!(node.containers.newest("p").is_some(), "without a list nobody is stopped");
    node.cluster.set_away(false);
    node.pass(10).await;
    assert!(node.containers.newest("p").is_none());
    assert!(node.containers.newest("q").is_some());
    assert_eq!(condition(&node.cluster.status("q"), "Ready"), "True");
}

#[tokio::test(start_paused = true)]
async fn pods_go_on_when_the_agent_stops() {
    let mut node = Node::running();
    node.cluster.create("p", spec(json!({})));
    node.until_ready("p").await;
    let before = node.cluster.status("p");
    node.stop().await;
    assert_eq!(node.containers.calls().len(), 1, "only the start: {:?}", node.containers.calls());
    assert_eq!(node.cluster.status("p"), before);
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_the_agent_was_away_ends_in_peace() {
    let node = Node::running();
    node.cluster.create("p", spec(json!({})));
    node.until_ready("p").await;
    node.cluster.set_away(true);
    node.cluster.edit("p", |pod| {
        pod["metadata"]["deletionTimestamp"] = json!("2027-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    });
    let node = node.restarted();
    node.cluster.set_away(false);
    node.until_gone("p").await;
    let calls: Vec<String> = node.containers.calls().into_iter().map(|(_, call)| call).collect();
    assert_eq!(calls, ["drain run-1", "stop run-1 25", "remove_pod p"]);
}
