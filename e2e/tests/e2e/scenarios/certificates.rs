//! Certificates of 90 seconds, over the whole run.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    kubectl::{self, kubectl},
    runner::Outcome,
    wait::until,
    world::World,
};

/// Both certificates of both nodes were renewed three times, and no request of anybody was ever
/// answered with 401.
pub async fn renewed(world: Arc<World>) -> Result<Outcome> {
    let Some(folder) = &world.setting.control_plane else {
        return Ok(Outcome::Skipped("certificates of this cluster last for months".to_owned()));
    };
    if std::env::var("CONTROL_PLANE_SIGNING").as_deref() != Ok("90s") {
        return Ok(Outcome::Skipped("CONTROL_PLANE_SIGNING is not 90s".to_owned()));
    }
    for agent in &world.agents {
        for signer in
            ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"]
        {
            until(&format!("{}: {signer} renewed", agent.name), LONGEST_WAIT, async || {
                let issued = issued(&agent.name, signer).await?;
                // The first serving certificate is no renewal.
                let first = usize::from(signer.ends_with("serving"));
                ensure!(issued >= 3 + first, "issued {issued} times");
                Ok(())
            })
            .await?;
        }
        // The newest serving certificate is verified by the API server on this very call.
        kubectl(&["get", "--raw", &format!("/api/v1/nodes/{}/proxy/healthz", agent.name)]).await?;
    }
    let audit = std::fs::read_to_string(folder.join("logs/audit.log"))?;
    let refused: Vec<&str> = audit.lines().filter(|line| line.contains("\"code\":401")).collect();
    ensure!(refused.is_empty(), "{} answers of 401, such as {}", refused.len(), refused[0]);
    Ok(Outcome::Passed)
}

async fn issued(node: &str, signer: &str) -> Result<usize> {
    let list = kubectl::get(&["csr"]).await?;
    let name = format!("system:node:{node}");
    Ok(list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|it| {
            // The first client certificate was asked for in the token's name: only renewals count.
            let spec = &it["spec"];
            spec["username"] == json!(name)
                && spec["signerName"] == json!(signer)
                && !it["status"]["certificate"].is_null()
        })
        .count())
}

/// Three renewals of 90-second certificates, and some time to spare.
const LONGEST_WAIT: Duration = Duration::from_secs(280);
