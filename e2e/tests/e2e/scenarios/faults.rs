//! Registries, ports and deletions that go wrong.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    load,
    runner::Outcome,
    wait::{SOON, until},
    workload::{Actor, Namespace, pod, pod_address, text},
    world::World,
};

/// 404 from the registry: an error, then back-off; no half file, and a start when it is there.
pub async fn missing_image(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("image").await?;
    let missing = world.modules.digits.replace("digits:v1", "later:v1");
    space.apply(vec![pod(&Actor { image: &missing, ..Actor::default() })]).await?;
    let reasons = async |wanted: &str| {
        until(wanted, SOON, async || {
            let pod = space.get(&["pod", "digits"]).await?;
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            if waiting["reason"] != json!(wanted) { bail!("{waiting}") } else { Ok(()) }
        })
        .await
    };
    reasons("ErrImagePull").await?;
    reasons("ImagePullBackOff").await?;
    world.modules.push_again(&world.setting, "digits", "later").await?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/digits", "--timeout=120s"]).await?;
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// The registry takes the connection and never answers.
pub async fn deleted_while_pulling(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("pulling").await?;
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let image = format!("localhost:{}/graphlet/never:v1", silent.local_addr()?.port());
    space.apply(vec![pod(&Actor { image: &image, ..Actor::default() })]).await?;
    let (_connection, _) = tokio::time::timeout(SOON, silent.accept())
        .await
        .context("the node never asked the registry")??;
    let began = std::time::Instant::now();
    space.kubectl(&["delete", "pod", "digits", "--timeout=30s"]).await?;
    // Its grace is 30 s.
    ensure!(began.elapsed() < Duration::from_secs(25), "it took {:?}", began.elapsed());
    drop(world);
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// Something else listens on the host port; the pod waits for it to go.
pub async fn taken_port(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::with_level("port", "privileged").await?;
    let agent = &world.agents[0];
    let address = SocketAddr::new(agent.ip, 8099);
    let holder = TcpListener::bind(address).await?;
    let actor = Actor {
        image: &world.modules.digits,
        pod: json!({"nodeSelector": {"kubernetes.io/hostname": agent.name}}),
        container: json!({"ports": [{"name": "http", "containerPort": 8080, "hostPort": 8099}]}),
        ..Actor::default()
    };
    space.apply(vec![pod(&actor)]).await?;
    until("a waiting reason that names the address", SOON, async || {
        let pod = space.get(&["pod", "digits"]).await?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        ensure!(text(&waiting["message"]).contains("8099"), "{}", pod["status"]);
        ensure!(pod["status"]["phase"] == "Pending", "{}", pod["status"]["phase"]);
        Ok(())
    })
    .await?;
    drop(holder);
    let within = SOON;
    until("an answer on the host port", within, async || {
        load::classify(address, &world.modules.seven).await?.label()
    })
    .await?;
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// `--force --grace-period=0`: the object goes at once, and soon the process, with its address.
pub async fn forced_deletion(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("forced").await?;
    let actor = Actor { image: &world.modules.digits, ..Actor::default() };
    space.apply(vec![pod(&actor)]).await?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/digits", "--timeout=120s"]).await?;
    let before: Value = space.get(&["pod", "digits"]).await?;
    let address = pod_address(&before)?;
    let answers = world.setting.control_plane.is_some();
    if answers {
        load::classify(address, &world.modules.seven).await?.label()?;
    }
    space.kubectl(&["delete", "pod", "digits", "--force", "--grace-period=0"]).await?;
    if answers {
        until("nobody at the old address", SOON, async || {
            match tokio::net::TcpStream::connect(address).await {
                Ok(_) => bail!("{address} is still taken"),
                Err(_) => Ok(()),
            }
        })
        .await?;
    }
    space.apply(vec![pod(&actor)]).await?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/digits", "--timeout=120s"]).await?;
    space.delete().await?;
    Ok(Outcome::Passed)
}
