//! A node agent as a process of this machine: started, killed, started again.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    sync::Mutex,
};

use crate::{
    kubectl,
    wait::until,
    world::{JOINING, Setting},
};

/// One node of the cluster.
pub struct Agent {
    /// Node name.
    pub name: String,
    /// InternalIP.
    pub ip: IpAddr,
    /// The kubelet's port.
    pub port: u16,
    /// Its state.
    pub state: PathBuf,
    program: PathBuf,
    bootstrap: PathBuf,
    trusted: String,
    log: PathBuf,
    process: Mutex<Option<Child>>,
}

impl Agent {
    /// A node that is not started yet.
    pub fn new(setting: &Setting, index: usize, bootstrap: &Path, trusted: &str) -> Self {
        let name = format!("edge-{}", index + 1);
        Self {
            ip: setting.node_ips[index],
            port: 10250 + 10 * index as u16,
            state: setting.work.join(&name),
            log: setting.work.join(format!("{name}.log")),
            program: setting.program("graphlet"),
            bootstrap: bootstrap.to_owned(),
            trusted: trusted.to_owned(),
            process: Mutex::new(None),
            name,
        }
    }

    /// Starts it; it must not run.
    pub async fn start(&self) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .arg("node")
            .arg("--bootstrap-kubeconfig")
            .arg(&self.bootstrap)
            .args(["--node-name", &self.name])
            .args(["--node-ip", &self.ip.to_string()])
            .args(["--port", &self.port.to_string()])
            .arg("--state-dir")
            .arg(&self.state)
            .args(["--trust", &self.trusted])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} node", self.program.display()))?;
        *self.process.lock().await = Some(child);
        Ok(())
    }

    /// SIGKILL, as the kernel's memory killer would: nothing is tidied up.
    pub async fn kill(&self) -> Result<()> {
        let mut process = self.process.lock().await.take().context("it does not run")?;
        process.kill().await.context("kill")
    }

    /// SIGTERM, then SIGKILL after ten seconds.
    pub async fn terminate(&self) {
        let Some(mut process) = self.process.lock().await.take() else { return };
        if let Some(id) = process.id() {
            let _ = kubectl::run(Command::new("kill").arg(id.to_string()), "").await;
        }
        let ten = std::time::Duration::from_secs(10);
        if tokio::time::timeout(ten, process.wait()).await.is_err() {
            let _ = process.kill().await;
        }
    }

    /// Its process id.
    pub async fn pid(&self) -> Option<u32> {
        self.process.lock().await.as_ref().and_then(Child::id)
    }

    /// The Node object.
    pub async fn node(&self) -> Result<Value> {
        kubectl::get(&["node", &self.name]).await
    }

    /// Waits until the node is Ready and takes pods.
    pub async fn ready(&self) -> Result<Value> {
        let ready = until(&format!("{} Ready", self.name), JOINING, async || {
            if let Some(process) = self.process.lock().await.as_mut()
                && let Some(status) = process.try_wait()?
            {
                bail!("the agent ended: {status}");
            }
            let node = self.node().await?;
            if condition(&node, "Ready") != Some("True") {
                bail!("conditions: {}", node["status"]["conditions"]);
            }
            let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
            if taints.iter().any(|taint| taint["key"] == json!("node.kubernetes.io/not-ready")) {
                bail!("taints: {taints:?}");
            }
            Ok(node)
        })
        .await;
        ready.with_context(|| self.last_words())
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(12);
        format!("log of {}:\n        {}", self.name, lines[from..].join("\n        "))
    }
}

/// The status of a condition of a node or pod.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == json!(kind))?["status"]
        .as_str()
}
