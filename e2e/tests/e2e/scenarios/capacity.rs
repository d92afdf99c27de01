//! How many pods a node holds, and how much they answer. Only measured, and only when
//! `GRAPHLET_E2E_MEASURE=1` asks for it: it keeps the machine busy.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{
    kubectl,
    load::Load,
    runner::Outcome,
    workload::{Actor, Namespace, deployment, pod_address},
    world::World,
};

/// Memory of one pod more, and requests a second by instances.
pub async fn of_a_node(world: Arc<World>) -> Result<Outcome> {
    if std::env::var("GRAPHLET_E2E_MEASURE").as_deref() != Ok("1") {
        eprintln!("    not measured: how much a node holds (GRAPHLET_E2E_MEASURE=1)");
        return Ok(Outcome::Passed);
    }
    let space = Namespace::new("capacity").await?;
    let models = [
        ("digits", Some(&world.modules.digits), world.modules.seven.clone()),
        (
            "mobilenet",
            world.modules.mobilenet.as_ref(),
            tokio::fs::read(world.setting.shared.join("images/cat.png")).await.unwrap_or_default(),
        ),
    ];
    for (kind, image, picture) in models {
        let Some(image) = image else { continue };
        memory(&world, &space, kind, image, &picture).await.context(kind)?;
        for instances in [1_u16, 2, 4] {
            throughput(&world, &space, kind, image, &picture, instances).await.context(kind)?;
        }
    }
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// Twelve pods of one model on one node, each used, and what each adds.
async fn memory(
    world: &World,
    space: &Namespace,
    kind: &str,
    image: &str,
    picture: &[u8],
) -> Result<()> {
    let app = format!("{kind}-memory");
    let pods = 12;
    let actor = Actor {
        app: &app,
        image,
        replicas: pods,
        pod: json!({"nodeSelector": {"kubernetes.io/hostname": world.agents[0].name}}),
        ..Actor::default()
    };
    space.apply(deployment(&actor)).await?;
    space.rolled_out(&app, pods, Duration::from_secs(120)).await?;
    let mut sizes = Vec::new();
    let running = space.pods(&app).await?;
    for pod in &running {
        for _ in 0..3 {
            crate::load::classify(pod_address(pod)?, picture).await?.label()?;
        }
    }
    for pod in &running {
        sizes.push(proportional_kib(&listener(&pod_address(pod)?.to_string()).await?)?);
    }
    sizes.sort_unstable();
    let each = sizes.iter().sum::<u64>() / sizes.len() as u64;
    let room = 24 * 1024 * 1024 / each;
    eprintln!(
        "measured: {app}: {pods} pods, {:.1} MiB each of proportional memory ({:.1} to {:.1}); \
         24 GiB would hold {room}",
        each as f64 / 1024.0,
        sizes[0] as f64 / 1024.0,
        sizes[sizes.len() - 1] as f64 / 1024.0,
    );
    space.kubectl(&["delete", "deployment", &app, "--wait=true"]).await?;
    Ok(())
}

async fn throughput(
    world: &World,
    space: &Namespace,
    kind: &str,
    image: &str,
    picture: &[u8],
    instances: u16,
) -> Result<()> {
    let app = format!("{kind}-{instances}");
    let actor = Actor {
        app: &app,
        image,
        pod: json!({"nodeSelector": {"kubernetes.io/hostname": world.agents[0].name}}),
        container: json!({
            "env": [{"name": "GRAPHLET_INSTANCES", "value": instances.to_string()}],
            "resources": {"limits": {"cpu": "4", "memory": "2Gi"}},
        }),
        ..Actor::default()
    };
    space.apply(deployment(&actor)).await?;
    space.rolled_out(&app, 1, Duration::from_secs(60)).await?;
    let address = space.service(world, &app, 1).await?;
    let seconds = 5;
    let load = Load::start(address, picture, usize::from(instances) * 2, Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let report = load.stop().await;
    eprintln!(
        "measured: {app}: {:.0} requests a second through the ClusterIP; {report}",
        report.answered() as f64 / seconds as f64
    );
    space.kubectl(&["delete", "deployment", &app, "--wait=true"]).await?;
    Ok(())
}

/// The process that listens on an address, by `ss`.
pub async fn listener(address: &str) -> Result<String> {
    let mut command = tokio::process::Command::new("ss");
    command.args(["-Hltnp", "src", address]);
    let seen = kubectl::run(&mut command, "").await?.stdout;
    let (_, after) = seen
        .split_once("pid=")
        .with_context(|| format!("nobody listens on {address}: {seen:?}"))?;
    Ok(after.chars().take_while(char::is_ascii_digit).collect())
}

/// Memory of a process where what it shares counts in parts.
fn proportional_kib(process: &str) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse().ok())
        .context("no Pss")
}
