//! The port that the API server calls: who may, and what it answers.

use std::sync::Arc;

use anyhow::{Result, ensure};
use tokio::process::Command;

use crate::{
    kubectl::{self, kubectl},
    runner::Outcome,
    workload::{Actor, Namespace, pod},
    world::World,
};

/// Nobody without a certificate or token, nobody with the wrong one; and plain words for what a
/// module has not.
pub async fn guarded(world: Arc<World>) -> Result<Outcome> {
    let space = Namespace::new("port10250").await?;
    space.apply(vec![pod(&Actor { image: &world.modules.digits, ..Actor::default() })]).await?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/digits", "--timeout=120s"]).await?;
    let bound = space.get(&["pod", "digits"]).await?;
    let node = bound["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();

    let agent = &world.agents[0];
    let base = format!("https://{}:{}", agent.ip, agent.port);
    for path in ["/pods", "/stats/summary", "/metrics/resource", "/containerLogs/a/b/c"] {
        let status = status_of(&format!("{base}{path}"), None).await?;
        ensure!(status == "401", "{path} without a token: {status}");
        let status = status_of(&format!("{base}{path}"), Some("no-such-token")).await?;
        ensure!(status == "401", "{path} with a wrong token: {status}");
    }
    // A ServiceAccount that exists, and may not.
    let token = space.kubectl(&["create", "token", "default"]).await?;
    let status = status_of(&format!("{base}/pods"), Some(token.trim())).await?;
    ensure!(status == "403", "a ServiceAccount without the right: {status}");

    let pods = kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/pods")]).await?;
    ensure!(pods.contains("\"digits\""), "/pods: {pods}");
    let metrics =
        kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/metrics/resource")]).await?;
    ensure!(metrics.contains("container_cpu_usage_seconds_total"), "{metrics}");
    let path = format!("/api/v1/nodes/{node}/proxy/containerLogs/..%2F..%2Fetc/passwd/x");
    let logs = kubectl::attempt(&["get", "--raw", &path], "").await?;
    ensure!(!logs.ok && !logs.stdout.contains("root:"), "{}", logs.stdout);

    let executed = kubectl::attempt(&["-n", &space.name, "exec", "digits", "--", "ls"], "").await?;
    ensure!(!executed.ok, "exec: {}", executed.stdout);
    space.delete().await?;
    Ok(Outcome::Passed)
}

/// The status code, the certificate unchecked: it is the client that is tested here.
async fn status_of(url: &str, token: Option<&str>) -> Result<String> {
    let mut command = Command::new("curl");
    command.args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10", url]);
    if let Some(token) = token {
        command.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    Ok(kubectl::run(&mut command, "").await?.stdout)
}
