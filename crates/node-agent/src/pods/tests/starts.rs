//! From bound to ready, and everything that stands in the way.

use serde_json::{Value, json};

use crate::{
    pods::{
        fakes::{Node, condition, names, spec, waiting},
        seams::ImageError,
    },
    runtime::{ModuleKind, StartError},
};

fn actor() -> Value {
    spec(json!({ "ports": [{ "name": "http", "containerPort": 8080 }] }))
}

#[tokio::test(start_paused = true)]
async fn a_pod_becomes_ready_when_its_model_has_answered_once() {
    let node = Node::running();
    node.cluster.create("p", actor());
    node.until("p", |status| status["phase"] == "Running").await;
    let status = node.cluster.status("p");
    assert_eq!(condition(&status, "Ready"), "False", "the process runs, the model is loading");
    assert_eq!(status["containerStatuses"][0]["started"], false);
    assert_eq!(node.until_ready("p").await, 1);
    let status = node.cluster.status("p");
    for kind in ["PodScheduled", "Initialized", "PodReadyToStartContainers", "ContainersReady"] {
        assert_eq!(condition(&status, kind), "True", "{kind}");
    }
    let container = &status["containerStatuses"][0];
    assert_eq!(container["containerID"], "graphlet://run-1");
    assert_eq!(container["imageID"], "r/m@sha256:manifest-v1");
    assert_eq!((&container["ready"], &container["started"]), (&json!(true), &json!(true)));
    assert_eq!(container["restartCount"], 0);
    assert!(container["state"]["running"]["startedAt"].is_string());
    assert!(status["podIP"].as_str().is_some_and(|ip| ip.starts_with("10.244.1.")), "{status}");
    assert_eq!(status["podIPs"], json!([{ "ip": status["podIP"] }]));
    assert_eq!(
        (&status["hostIP"], &status["observedGeneration"]),
        (&json!("192.168.0.2"), &json!(1))
    );
    assert_eq!(node.cluster.reasons("p"), ["Pulling", "Pulled", "Created", "Started"]);
    let started = node.containers.newest("p").expect("a container");
    assert_eq!(started.spec.listen[0].port(), 8080);
    assert_eq!(started.spec.kind, ModuleKind::Actor);
    assert_eq!(names(&node.manager.pods()), ["p".to_owned()].into());
    let writes = node.cluster.statuses("p").len();
    node.pass(3600).await;
    assert_eq!(node.cluster.statuses("p").len(), writes, "nothing changed, nothing written");
}

#[tokio::test(start_paused = true)]
async fn a_refused_pod_waits_with_one_event_and_one_status_for_ever() {
    let node = Node::running();
    let mut refused = actor();
    refused["initContainers"] = json!([{ "name": "init", "image": "busybox" }]);
    refused["hostNetwork"] = json!(true);
    node.cluster.create("p", refused);
    node.pass(7200).await;
    let status = node.cluster.status("p");
    assert_eq!(status["phase"], "Pending");
    assert_eq!(waiting(&status), "UnsupportedPodSpec");
    let message = status["containerStatuses"][0]["state"]["waiting"]["message"].as_str();
    let message = message.expect("a message");
    assert!(
        message.contains("spec.initContainers:") && message.contains("spec.hostNetwork:"),
        "{message}"
    );
    assert_eq!(node.cluster.statuses("p").len(), 1);
    let events = node.cluster.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((&*events[0].reason, events[0].count), ("UnsupportedPodSpec", 1));
    assert!(node.containers.calls().is_empty(), "nothing was started");
    let node = node.restarted();
    node.pass(600).await;
    assert_eq!(node.cluster.statuses("p").len(), 1, "a new agent has nothing to add");
    assert_eq!(node.cluster.events().len(), 1);
    node.cluster.delete_pod("p", 30);
    node.until_gone("p").await;
}

#[tokio::test(start_paused = true)]
async fn pulls_back_off_from_ten_seconds_to_five_minutes() {
    let node = Node::running();
    node.images.set("r/m:v1", Err(ImageError::Pull("401 unauthorized".into())));
    node.cluster.create("p", actor());
    node.until_waiting("p", "ErrImagePull").await;
    assert_eq!(node.until_waiting("p", "ImagePullBackOff").await, 2);
    node.pass(1000).await;
    assert_eq!(node.images.asked(), [0, 10, 30, 70, 150, 310, 610, 910]);
    assert_eq!(node.cluster.status("p")["phase"], "Pending");
    let failed = node.cluster.events().into_iter().find(|event| event.reason == "Failed");
    assert_eq!(
        failed.expect("an event").message,
        "Failed to pull image \"r/m:v1\": 401 unauthorized"
    );
    node.images.set("r/m:v1", Ok(ModuleKind::Actor));
    assert_eq!(node.until_ready("p").await, 1211);
}

#[tokio::test(start_paused = true)]
async fn images_that_cannot_be_had_are_told_apart() {
    for (error, reason, tries) in [
        (ImageError::InvalidName("no".into()), "InvalidImageName", 1),
        (ImageError::NeverPull, "ErrImageNeverPull", 4),
        (ImageError::Untrusted("issuer".into()), "SignatureValidationFailed", 4),
        (ImageError::Unusable("no exports".into()), "CreateContainerError", 4),
    ] {
        let node = Node::running();
        node.images.set("r/m:v1", Err(error));
        node.cluster.create("p", actor());
        node.pass(100).await;
        let status = node.cluster.status("p");
        assert_eq!((waiting(&status), status["phase"].as_str()), (reason, Some("Pending")));
        assert_eq!(node.images.asked().len(), tries, "{reason}");
        let events = node.cluster.events();
        let warnings = events.iter().filter(|event| event.reason != "Pulling");
        assert_eq!(warnings.map(|event| event.count).collect::<Vec<_>>(), [1], "{events:?}");
        assert!(node.containers.starts().is_empty(), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_corrected_image_name_is_tried_at_once() {
    let node = Node::running();
    node.images.set("r/m:v1", Err(ImageError::InvalidName("no".into())));
    node.cluster.create("p", actor());
    node.until_waiting("p", "InvalidImageName").await;
    node.pass(500).await;
    node.cluster.edit("p", |pod| pod["spec"]["containers"][0]["image"] = json!("r/m:v2"));
    assert_eq!(node.until_ready("p").await, 501);
    assert_eq!(node.cluster.status("p")["containerStatuses"][0]["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_missing_config_map_blocks_the_start_until_it_is_there() {
    let node = Node::running();
    node.cluster
        .create("p", spec(json!({ "envFrom": [{ "configMapRef": { "name": "settings" } }] })));
    node.until_waiting("p", "CreateContainerConfigError").await;
    node.pass(60).await;
    let status = node.cluster.status("p");
    let message = &status["containerStatuses"][0]["state"]["waiting"]["message"];
    assert_eq!(message, "configmap \"settings\" not found");
    let events = node.cluster.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((&*events[0].reason, events[0].count), ("Failed", 1));
    node.cluster.put_config_map("settings", json!({ "GREETING": "hello" }));
    node.until_ready("p").await;
    let started = node.containers.newest("p").expect("a container");
    assert_eq!(started.spec.env["GREETING"], "hello");
}

#[tokio::test(start_paused = true)]
async fn volumes_become_folders_of_a_command() {
    let node = Node::running();
    node.images.set("r/m:v1", Ok(ModuleKind::Command));
    let mut job = spec(
        json!({ "volumeMounts": [{ "name": "input", "mountPath": "/in" }], "args": ["/in/cat"] }),
    );
    job["volumes"] = json!([{ "name": "input", "configMap": { "name": "pictures" } }]);
    job["restartPolicy"] = json!("Never");
    node.cluster.create("p", job);
    node.until_waiting("p", "CreateContainerConfigError").await;
    assert_eq!(node.cluster.reasons("p"), ["FailedMount"]);
    node.cluster.put_config_map("pictures", json!({ "cat": "meow" }));
    node.until("p", |status| status["phase"] == "Running").await;
    let started = node.containers.newest("p").expect("a container");
    assert_eq!(started.spec.mounts[0].guest, "/in");
    let file = started.spec.mounts[0].host.join("cat");
    assert_eq!(std::fs::read_to_string(file).expect("the file"), "meow");
    assert_eq!(started.spec.args, ["/in/cat"]);
}

#[tokio::test(start_paused = true)]
async fn a_taken_port_is_a_waiting_reason() {
    let node = Node::running();
    let address = "192.168.0.2:80".parse().expect("an address");
    for _ in 0..3 {
        node.containers.fail_start(StartError::AddressTaken { address });
    }
    node.cluster.create("p", actor());
    node.until_waiting("p", "CreateContainerError").await;
    let status = node.cluster.status("p");
    let message = &status["containerStatuses"][0]["state"]["waiting"]["message"];
    assert_eq!(message, "192.168.0.2:80 is taken by another process");
    assert_eq!(node.until_ready("p").await, 31);
    assert_eq!(node.containers.starts(), [0, 10, 20, 30]);
    let failed = node.cluster.events().into_iter().filter(|event| event.reason == "Failed");
    assert_eq!(failed.map(|event| event.count).collect::<Vec<_>>(), [1]);
    assert_eq!(node.cluster.status("p")["containerStatuses"][0]["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_fit_waits_for_room() {
    let node = Node::running();
    let asks = |cpu: &str| spec(json!({ "resources": { "requests": { "cpu": cpu } } }));
    node.cluster.create("first", asks("3"));
    node.until_ready("first").await;
    node.cluster.create("second", asks("2"));
    node.until_waiting("second", "OutOfcpu").await;
    node.pass(600).await;
    assert_eq!(node.cluster.status("second")["phase"], "Pending");
    assert_eq!(node.cluster.statuses("second").len(), 1);
    node.cluster.delete_pod("first", 0);
    node.until_ready("second").await;
}

#[tokio::test(start_paused = true)]
async fn no_more_pods_start_than_the_node_takes() {
    let node = Node::running();
    for number in 0..6 {
        node.cluster.create(&format!("p{number}"), actor());
        node.pass(2).await;
    }
    assert_eq!(waiting(&node.cluster.status("p5")), "OutOfpods");
    assert_eq!(condition(&node.cluster.status("p4"), "Ready"), "True");
}

#[tokio::test(start_paused = true)]
async fn a_readiness_probe_holds_traffic_and_lets_it_flow() {
    let node = Node::running();
    node.prober.set("/ready", Err("HTTP probe failed with statuscode: 503".into()));
    node.cluster.create("p", spec(json!({
        "readinessProbe": { "httpGet": { "port": 8080, "path": "/ready" }, "periodSeconds": 2, "failureThreshold": 2 }
    })));
    node.pass(60).await;
    let status = node.cluster.status("p");
    assert_eq!(
        (condition(&status, "Ready"), condition(&status, "ContainersReady")),
        ("False", "False")
    );
    assert_eq!(status["containerStatuses"][0]["started"], true);
    node.prober.set("/ready", Ok(()));
    node.until_ready("p").await;
    node.prober.set("/ready", Err("HTTP probe failed with statuscode: 503".into()));
    node.until("p", |status| condition(status, "Ready") == "False").await;
    assert_eq!(node.cluster.status("p")["containerStatuses"][0]["restartCount"], 0);
    let unhealthy = node.cluster.events().into_iter().find(|event| event.reason == "Unhealthy");
    let message = unhealthy.expect("an event").message;
    assert_eq!(message, "Readiness probe failed: HTTP probe failed with statuscode: 503");
}

#[tokio::test(start_paused = true)]
async fn what_the_node_controller_marks_unready_is_marked_ready_again() {
    let node = Node::running();
    node.cluster.create("p", actor());
    node.until_ready("p").await;
    node.cluster.edit("p", |pod| {
        for one in pod["status"]["conditions"].as_array_mut().expect("conditions") {
            if one["type"] == "Ready" {
                one["status"] = json!("False");
            }
        }
    });
    node.until_ready("p").await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_never_answers_is_restarted() {
    let node = Node::running();
    node.containers.set_ready_after(None);
    node.cluster.create("p", actor());
    node.pass(299).await;
    assert_eq!(node.containers.starts(), [0]);
    node.until("p", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(node.containers.starts(), [0, 300]);
}

#[tokio::test(start_paused = true)]
async fn a_status_reaches_a_server_that_was_away_and_nothing_starts_twice() {
    let node = Node::running();
    node.cluster.create("p", actor());
    node.until_ready("p").await;
    node.cluster.set_away(true);
    node.pass(300).await;
    let first = node.containers.newest("p").expect("a container").id;
    node.containers.exit(&first, 1, "Error");
    node.pass(120).await;
    assert_eq!(node.containers.starts().len(), 2, "restarts go on without the server");
    assert_eq!(node.cluster.status("p")["containerStatuses"][0]["restartCount"], 0);
    node.cluster.set_away(false);
    let back = node.now();
    let at = node.until("p", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    assert!(at - back <= 10, "after {} s", at - back);
    node.until_ready("p").await;
    node.pass(60).await;
    assert_eq!(node.containers.starts().len(), 2, "no duplicate");
}
