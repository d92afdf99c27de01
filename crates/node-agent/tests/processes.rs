//! Pods as real processes: started, adopted, limited, drained, stopped, killed and removed.
#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod support;

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use node_agent::runtime::{
    Cidr, Container, ContainerEvent, ContainerSpec, ContainerState, LogError, LogOptions,
    ModuleKind, Mount, StartError, Trust,
};
use support::{Node, SOON, command, freed, lives, post, reader, status};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

#[tokio::test]
async fn an_actor_becomes_ready_and_answers_without_any_privilege() {
    let Some(mut node) = Node::new().await else { return };
    let spec = node.actor("plain");
    let address = spec.listen[0];
    let container = node.ready(spec).await;
    let answer = post(address, "x").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nx"), "{answer}");
    assert_eq!(node.runtime.containers()[0].state, ContainerState::Running);

    let pid = container.pid;
    let status = status(pid);
    for (name, expected) in [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("Groups", ""),
        ("Umask", "0077"),
    ] {
        assert_eq!(status[name], expected, "{name}");
    }
    let uids: Vec<u32> = status["Uid"].split(' ').map(|uid| uid.parse().unwrap()).collect();
    assert!(uids.iter().all(|uid| *uid == uids[0] && *uid >= 2_000_000_000), "{uids:?}");
    assert_eq!(status["Uid"], status["Gid"]);
    assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    let open: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let files: Vec<_> = open.iter().filter(|target| target.starts_with('/')).collect();
    assert!(
        files.iter().all(|file| file.ends_with(".code")),
        "only its compiled code, which it shares: {open:?}"
    );
    let usage = node.runtime.usage(&container.id).unwrap();
    assert!(usage.working_set_bytes > 1 << 20 && usage.rss_bytes > usage.working_set_bytes);
    node.runtime.remove_pod(&container.spec.pod).await;
    assert!(!lives(pid));
    assert_eq!(node.runtime.usage(&container.id), None);
    assert!(post(address, "x").await.is_err());
}

#[tokio::test]
async fn a_second_pod_of_a_model_starts_without_compiling_and_as_another_user() {
    let Some(mut node) = Node::new().await else { return };
    let first = node.ready(node.actor("first")).await;
    let code = || fs::read_dir(node.folder.path().join("state/code")).unwrap().count();
    assert_eq!(code(), 1);
    let second = {
        let spec = node.actor("second");
        node.ready(spec).await
    };
    assert_eq!(fs::read_dir(node.folder.path().join("state/code")).unwrap().count(), 1);
    let maps = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let line = text.lines().find(|line| line.ends_with(".code")).map(str::to_owned);
        line.and_then(|line| line.split_whitespace().nth(4).map(str::to_owned))
    };
    let inode = maps(first.pid);
    assert!(inode.is_some() && inode == maps(second.pid), "both map one file");
    assert_ne!(status(first.pid)["Uid"], status(second.pid)["Uid"]);
    for container in [first, second] {
        node.runtime.remove_pod(&container.spec.pod).await;
    }
}

#[tokio::test]
async fn pods_outlive_the_agent_and_are_found_by_the_next_one() {
    let Some(mut node) = Node::new().await else { return };
    let spec = node.actor("kept");
    let address = spec.listen[0];
    let kept = node.ready(spec).await;
    let short = node.runtime.start(node.actor("short")).await.unwrap();
    let mut node = {
        let Node { runtime, events, folder } = node;
        drop((runtime, events));
        assert!(post(address, "x").await.unwrap().ends_with('x'), "nobody supervises it now");
        // It ends while no agent looks.
        Command::new("kill").args(["-9", &short.pid.to_string()]).status().unwrap();
        while lives(short.pid) {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(200)).await;
        Node::open(folder).await
    };
    match node.event().await {
        ContainerEvent::Exited(id, exit) => assert_eq!((id, exit.code), (short.id.clone(), 137)),
        other => panic!("{other:?}"),
    }
    let found = node.runtime.container(&kept.id).unwrap();
    assert_eq!((found.pid, &found.state), (kept.pid, &ContainerState::Running));
    assert_eq!(found.started_at, kept.started_at);
    assert!(post(address, "y").await.unwrap().ends_with('y'));
    assert!(node.log(&kept).await.contains("Ready"));
    // What was told once is not told again.
    let mut node = node.restarted().await;
    node.runtime.stop(&kept.id, SOON).await;
    let exit = node.exit(&kept.id).await;
    assert_eq!((exit.code, exit.reason.as_str()), (0, "Completed"), "{exit:?}");
    assert!(matches!(node.runtime.container(&short.id).unwrap().state, ContainerState::Exited(_)));
}

#[tokio::test]
async fn without_adoption_what_runs_is_killed_and_told() {
    let Some(mut node) = Node::new().await else { return };
    let container = node.ready(node.actor("left")).await;
    let Node { runtime, events, folder } = node;
    drop((runtime, events));
    let mut config = node_agent::runtime::RuntimeConfig::new(
        folder.path().join("state"),
        support::graphlet().unwrap(),
        env!("CARGO_BIN_EXE_graphlet-node"),
        [192, 0, 2, 1].into(),
    );
    config.adopt = false;
    let (runtime, events) = node_agent::runtime::Runtime::open(config).await.unwrap();
    let mut node = Node { runtime, events, folder };
    assert_eq!(node.exit(&container.id).await.code, 137);
    assert!(!lives(container.pid));
}

#[tokio::test]
async fn a_process_that_is_killed_is_told_and_leaves_nothing() {
    // Alone, so that descriptors and children are this test's.
    if !in_a_network_of_its_own("a_process_that_is_killed_is_told_and_leaves_nothing") {
        return;
    }
    let mut node = Node::new().await.unwrap();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for attempt in 0..3 {
        let mut spec = node.actor("killed");
        spec.attempt = attempt;
        let address = spec.listen[0];
        let container = node.ready(spec).await;
        Command::new("kill").args(["-9", &container.pid.to_string()]).status().unwrap();
        let exit = node.exit(&container.id).await;
        assert_eq!((exit.code, exit.reason.as_str()), (137, "Error"));
        assert!(exit.message.to_lowercase().contains("ready"), "the last line: {exit:?}");
        node.runtime.remove(&container.id).await;
        freed(address).await;
    }
    let zombies = support::zombies();
    assert!(zombies.is_empty(), "{zombies:?}");
    assert!(node.runtime.containers().is_empty());
    let folder = node.folder.path().join("state");
    assert_eq!(fs::read_dir(folder.join("runs")).unwrap().count(), 0);
    let logs = folder.join("logs/test_killed_uid-killed/main");
    let mut names: Vec<_> =
        fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["1.log", "2.log"], "of the newest run and the one before");
    node.runtime.remove_pod(&node.actor("killed").pod).await;
    assert_eq!(fs::read_dir(folder.join("logs")).unwrap().count(), 0);
    assert!(open() <= before + 1, "{before} descriptors, then {}", open());
}

#[tokio::test]
async fn a_shim_that_is_killed_takes_its_pod_along() {
    let Some(mut node) = Node::new().await else { return };
    let container = node.ready(node.actor("orphan")).await;
    let shim = status(container.pid)["PPid"].clone();
    Command::new("kill").args(["-9", &shim]).status().unwrap();
    let exit = node.exit(&container.id).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "Error"), "{exit:?}");
    let gone = async {
        while lives(container.pid) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn an_instance_that_wants_too_much_is_refused_and_the_pod_lives() {
    let Some(mut node) = Node::new().await else { return };
    let mut spec = node.actor("hungry");
    spec.memory_bytes = Some(96 << 20);
    let address = spec.listen[0];
    let container = node.ready(spec).await;
    let answer = post(address, "H").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(post(address, "x").await.unwrap().ends_with('x'));
    assert!(lives(container.pid));
    node.runtime.remove_pod(&container.spec.pod).await;
}

#[tokio::test]
async fn a_pod_that_does_not_fit_its_limit_is_oom_killed() {
    let Some(mut node) = Node::new().await else { return };
    let mut spec = node.actor("small");
    // Less than the process itself needs: whoever sees it first ends it.
    spec.memory_bytes = Some(1 << 20);
    let container = node.runtime.start(spec).await.unwrap();
    let exit = node.exit(&container.id).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"), "{exit:?}");
    // And one whose first instance does not fit, though the process would.
    let mut spec = node.actor("large");
    spec.memory_bytes = Some(16 << 20);
    let container = node.runtime.start(spec).await.unwrap();
    let exit = node.exit(&container.id).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"), "{exit:?}");
}

#[tokio::test]
async fn a_fifth_of_a_core_is_all_that_200m_get() {
    let Some(mut node) = Node::new().await else { return };
    let mut spec = node.actor("slow");
    spec.cpu_millis = Some(200);
    spec.env.insert("CALL_TIMEOUT".into(), "2m".into());
    let address = spec.listen[0];
    let container = node.ready(spec).await;
    let used = || node.runtime.usage(&container.id).unwrap().cpu;
    // It computes all the time, and would use a core.
    let endless = tokio::spawn(post(address, "E"));
    sleep(Duration::from_secs(1)).await;
    let (begin, before) = (Instant::now(), used());
    sleep(Duration::from_secs(10)).await;
    // More than nothing; on a busy machine it may take longer to get a quarter of its share.
    while used() - before < Duration::from_millis(500) {
        assert!(begin.elapsed() < SOON, "{:?} in {:?}", used() - before, begin.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    let share = (used() - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    assert!(share <= 0.25, "{share} of a core");
    node.runtime.kill(&container.id).await;
    assert_eq!(node.exit(&container.id).await.code, 137, "although it may be stopped just now");
    assert!(endless.await.unwrap().map_or(true, |answer| answer.is_empty()));
}

#[tokio::test]
async fn an_address_that_is_taken_or_not_ours_is_told() {
    let Some(node) = Node::new().await else { return };
    let spec = node.actor("taken");
    let _other = std::net::TcpListener::bind(spec.listen[0]).unwrap();
    let error = node.runtime.start(spec.clone()).await.unwrap_err();
    assert!(
        matches!(error, StartError::AddressTaken { address } if address == spec.listen[0]),
        "{error}"
    );
    let foreign: SocketAddr = "192.0.2.7:80".parse().unwrap();
    let mut spec = spec;
    spec.listen = vec![foreign];
    let error = node.runtime.start(spec).await.unwrap_err();
    assert!(matches!(error, StartError::AddressUnavailable { .. }), "{error}");
    assert!(node.runtime.containers().is_empty());
    assert_eq!(fs::read_dir(node.folder.path().join("state/runs")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_module_that_the_pod_may_not_run_is_refused() {
    let Some(node) = Node::new().await else { return };
    let mut spec = node.actor("untrusted");
    spec.trust = Trust::default();
    let error = node.runtime.start(spec).await.unwrap_err();
    assert!(matches!(&error, StartError::Compile(why) if why.contains("refused")), "{error}");
    let no_memory = node.spec(ModuleKind::Actor, "(module)", "nothing");
    let error = node.runtime.start(no_memory).await.unwrap_err();
    assert!(matches!(&error, StartError::Compile(why) if why.contains("memory")), "{error}");
    let text = r#"(module (memory (export "memory") 1))"#;
    let no_actor = node.spec(ModuleKind::Actor, text, "nothing");
    let mut node = node;
    let container = node.runtime.start(no_actor).await.unwrap();
    let exit = node.exit(&container.id).await;
    assert_eq!((exit.code, exit.reason.as_str()), (1, "Error"));
    assert!(exit.message.contains("__guest_call"), "what is missing: {exit:?}");
}

#[tokio::test]
async fn a_stop_lets_the_request_in_flight_finish() {
    let Some(mut node) = Node::new().await else { return };
    let mut spec = node.actor("stopped");
    spec.env.insert("CALL_TIMEOUT".into(), "60s".into());
    let address = spec.listen[0];
    let container = node.ready(spec).await;
    let long = tokio::spawn(post(address, "L"));
    node.computing(&container.id).await;
    node.runtime.stop(&container.id, SOON).await;
    let answer = long.await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with('L'), "{answer}");
    let exit = node.exit(&container.id).await;
    assert_eq!((exit.code, exit.reason.as_str()), (0, "Completed"), "{exit:?}");
}

#[tokio::test]
async fn a_stop_ends_with_a_kill_when_the_grace_is_over() {
    let Some(mut node) = Node::new().await else { return };
    let mut spec = node.actor("stubborn");
    spec.env.insert("CALL_TIMEOUT".into(), "10m".into());
    let address = spec.listen[0];
    let container = node.ready(spec).await;
    let endless = tokio::spawn(post(address, "E"));
    node.computing(&container.id).await;
    let begin = Instant::now();
    node.runtime.stop(&container.id, Duration::from_secs(1)).await;
    let exit = node.exit(&container.id).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "Error"));
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert!(endless.await.unwrap().map_or(true, |answer| answer.is_empty()));
}

#[tokio::test]
async fn while_it_drains_a_pod_answers_and_closes() {
    let Some(mut node) = Node::new().await else { return };
    let spec = node.actor("draining");
    let address = spec.listen[0];
    let container = node.ready(spec).await;
    let mut kept = TcpStream::connect(address).await.unwrap();
    let request = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx";
    let mut buffer = [0; 4096];
    kept.write_all(request).await.unwrap();
    let count = kept.read(&mut buffer).await.unwrap();
    let first = String::from_utf8_lossy(&buffer[..count]).to_lowercase();
    assert!(first.starts_with("http/1.1 200") && !first.contains("connection: close"), "{first}");
    node.runtime.drain(&container.id).await;
    // The signal is on its way.
    let drained = async {
        while !node.log(&container).await.contains("Draining") {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, drained).await.unwrap();
    kept.write_all(request).await.unwrap();
    let mut rest = String::new();
    timeout(SOON, kept.read_to_string(&mut rest)).await.unwrap().unwrap();
    let rest = rest.to_lowercase();
    assert!(rest.starts_with("http/1.1 200") && rest.contains("connection: close"), "{rest}");
    assert!(post(address, "y").await.unwrap().ends_with('y'), "new connections are taken");
    node.runtime.remove_pod(&container.spec.pod).await;
}

#[tokio::test]
async fn a_command_runs_to_its_end_and_its_log_is_kept() {
    let Some(mut node) = Node::new().await else { return };
    let mut spec = node.spec(ModuleKind::Command, &command("one\ntwo\n", 0), "job");
    let first = node.runtime.start(spec.clone()).await.unwrap();
    let exit = node.exit(&first.id).await;
    assert_eq!((exit.code, exit.reason.as_str()), (0, "Completed"), "{exit:?}");
    assert_eq!(exit.message, "two");
    assert_eq!(node.log(&first).await, "one\ntwo\n");
    let previous = LogOptions { previous: true, ..LogOptions::default() };
    let missing = node.runtime.logs(&spec.pod, "main", previous.clone()).await;
    assert!(matches!(missing, Err(LogError::NoPrevious { .. })));

    spec = ContainerSpec {
        attempt: 1,
        ..node.spec(ModuleKind::Command, &command("three\n", 3), "job")
    };
    let second = node.runtime.start(spec.clone()).await.unwrap();
    // A follower ends with the container.
    let follow = LogOptions { follow: true, ..LogOptions::default() };
    let followed = timeout(SOON, node.log_with(&spec, follow)).await.unwrap();
    assert_eq!(followed, "three\n");
    let exit = node.exit(&second.id).await;
    assert_eq!((exit.code, exit.reason.as_str()), (3, "Error"));
    assert_eq!(node.log_with(&spec, previous).await, "one\ntwo\n");
    let outside = node.runtime.logs(&spec.pod, "../main", LogOptions::default()).await;
    assert!(matches!(outside, Err(LogError::Name(_))));
    let nothing = node.runtime.logs(&spec.pod, "other", LogOptions::default()).await;
    assert!(matches!(nothing, Err(LogError::NotFound { .. })));
}

#[tokio::test]
async fn a_command_reads_its_volumes_even_if_only_root_may() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(mut node) = Node::new().await else { return };
    let mut spec = node.spec(ModuleKind::Command, reader(), "reader");
    let folder = node.runtime.volume_dir(&spec.pod, "config");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("greeting");
    fs::write(&file, "good morning\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    spec.mounts.push(Mount { guest: "/etc/config".into(), host: folder.clone() });
    let container = node.runtime.start(spec).await.unwrap();
    let exit = node.exit(&container.id).await;
    assert_eq!((exit.code, exit.message.as_str()), (0, "good morning"), "{exit:?}");
    node.runtime.remove_pod(&container.spec.pod).await;
    assert!(!folder.exists());
}

/// Waits until a start has begun, not until it has ended: this one thread turns to it, and its end
/// takes a process that compiles the module.
async fn begun(starting: &JoinHandle<Result<Container, StartError>>) {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!starting.is_finished());
}

#[tokio::test]
async fn a_pod_that_is_removed_while_it_starts_leaves_nothing() {
    let Some(node) = Node::new().await else { return };
    let spec = node.actor("fleeting");
    let (pod, address) = (spec.pod.clone(), spec.listen[0]);
    let runtime = node.runtime.clone();
    let starting = tokio::spawn(async move { runtime.start(spec).await });
    begun(&starting).await;
    node.runtime.remove_pod(&pod).await;
    assert!(matches!(starting.await.unwrap(), Err(StartError::System { .. })));
    assert!(node.runtime.containers().is_empty() && node.runtime.known_pod_uids().is_empty());
    freed(address).await;
    assert_eq!(fs::read_dir(node.folder.path().join("state/runs")).unwrap().count(), 0);
}

#[tokio::test]
async fn whoever_gives_up_waiting_for_a_start_leaves_a_container_that_is_known() {
    let Some(mut node) = Node::new().await else { return };
    let runtime = node.runtime.clone();
    let spec = node.actor("abandoned");
    let starting = tokio::spawn(async move { runtime.start(spec).await });
    begun(&starting).await;
    starting.abort();
    assert!(matches!(node.event().await, ContainerEvent::Ready(_)));
    let found = node.runtime.containers().remove(0);
    node.runtime.remove_pod(&found.spec.pod).await;
    assert!(!lives(found.pid));
}

#[tokio::test]
async fn what_former_pods_left_is_swept() {
    let Some(mut node) = Node::new().await else { return };
    let (kept, gone) = (node.ready(node.actor("kept")).await, node.actor("gone"));
    let gone = node.ready(gone).await;
    node.runtime.use_node_ip().await;
    node.runtime.address(&node.actor("refused").pod).await.unwrap();
    let state = node.folder.path().join("state");
    fs::create_dir_all(state.join("logs/test_former_uid-former/main")).unwrap();
    fs::create_dir_all(state.join("volumes/uid-former/config")).unwrap();
    node.runtime.retain_pods(&[kept.spec.pod.uid.clone()].into()).await;
    assert!(lives(kept.pid) && !lives(gone.pid));
    assert_eq!(node.runtime.known_pod_uids(), ["uid-kept"]);
    let names = |name| {
        let entries = fs::read_dir(state.join(name)).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    assert_eq!(names("logs"), ["test_kept_uid-kept"]);
    assert_eq!(names("volumes").len(), 0);
    node.runtime.remove_pod(&kept.spec.pod).await;
}

/// Runs one test of this file again in a network namespace of its own; true in there.
fn in_a_network_of_its_own(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if support::graphlet().is_none() {
        return false;
    }
    let ran = Command::new("unshare")
        .args(["-n", "sh", "-c", "ip link set lo up && exec \"$0\" --exact --nocapture \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && text.contains("1 passed"), "{text}");
    false
}

const INSIDE: &str = "GRAPHLET_TEST_NETWORK";

#[tokio::test]
async fn pods_have_addresses_of_their_own_on_which_all_may_have_port_80() {
    let name = "pods_have_addresses_of_their_own_on_which_all_may_have_port_80";
    if !in_a_network_of_its_own(name) {
        return;
    }
    let mut node = Node::new().await.unwrap();
    let cidr: Cidr = "10.244.3.0/24".parse().unwrap();
    let pod = node.actor("a").pod;
    assert!(node.runtime.address(&pod).await.is_err(), "not before there is a range");
    node.runtime.set_pod_cidr(cidr).await.unwrap();
    node.runtime.set_pod_cidr(cidr).await.unwrap();
    let mut addresses = Vec::new();
    for name in ["a", "b"] {
        let mut spec = node.actor(name);
        let found = node.runtime.address(&spec.pod).await.unwrap();
        assert!(!found.shared_with_node);
        let address = SocketAddr::new(found.ip, 80);
        spec.listen = vec![address];
        node.ready(spec).await;
        addresses.push(address);
        assert!(post(address, name).await.unwrap().ends_with(name));
    }
    assert_ne!(addresses[0], addresses[1]);
    let mut node = node.restarted().await;
    assert_eq!(node.runtime.address(&pod).await.unwrap().ip, addresses[0].ip());
    let kept = node.runtime.containers();
    assert_eq!(kept.len(), 2);
    node.runtime.remove_pod(&pod).await;
    assert_eq!(node.runtime.known_pod_uids(), ["uid-b"]);
    node.runtime.set_pod_cidr(cidr).await.unwrap();
    let next = node.runtime.address(&node.actor("c").pod).await.unwrap();
    assert!(!addresses.contains(&SocketAddr::new(next.ip, 80)), "it rests for a while");
    node.runtime.remove_pod(&kept[1].spec.pod).await;
    let _ = node.exit(&kept[1].id).await;
}

#[tokio::test]
async fn in_node_ip_mode_pods_share_the_nodes_address() {
    let Some(node) = Node::new().await else { return };
    node.runtime.use_node_ip().await;
    let pod = node.actor("n").pod;
    let address = node.runtime.address(&pod).await.unwrap();
    assert!(address.shared_with_node && address.ip.to_string() == "192.0.2.1");
    node.runtime.release_address(&pod).await;
}
