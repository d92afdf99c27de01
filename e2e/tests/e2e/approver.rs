//! Approves the serving certificates that nodes ask for, which no controller does. In a cluster
//! this is a person with `kubectl certificate approve`; here it is that command in a loop.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use crate::kubectl::{self, kubectl};

/// The loop.
pub struct Approver(JoinHandle<()>);

impl Approver {
    /// Starts it.
    pub fn start() -> Self {
        Self(tokio::spawn(async {
            loop {
                // The API server may be away: the next turn asks again.
                if let Ok(names) = pending().await {
                    for name in names {
                        let _ = kubectl(&["certificate", "approve", &name]).await;
                    }
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }))
    }

    /// Ends it.
    pub fn stop(&self) {
        self.0.abort();
    }
}

/// Serving requests of nodes without a decision.
async fn pending() -> anyhow::Result<Vec<String>> {
    let list = kubectl::get(&["csr"]).await?;
    Ok(list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|it| {
            it["spec"]["signerName"] == json!("kubernetes.io/kubelet-serving")
                && it["spec"]["username"].as_str().is_some_and(|it| it.starts_with("system:node:"))
                && it["status"]["conditions"].as_array().is_none_or(Vec::is_empty)
        })
        .filter_map(|it| it["metadata"]["name"].as_str().map(str::to_owned))
        .collect())
}
