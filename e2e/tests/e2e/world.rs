//! The cluster under test: where it is, its registry, its nodes, and what was pushed.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::{
    agent::Agent,
    approver::Approver,
    kubectl::{self, kubectl},
    modules::{self, Modules},
    wait::{SOON, until},
};

/// What the environment says.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The repository.
    pub root: PathBuf,
    /// Models and pictures that are not in the repository (`GRAPHLET_SHARED`).
    pub shared: PathBuf,
    /// Folder with `graphlet` and `graphlet-node` (`GRAPHLET_E2E_BIN`).
    pub programs: PathBuf,
    /// Folder of this run (`GRAPHLET_E2E_DIR`).
    pub work: PathBuf,
    /// Where the developer's keys are: those that nodes trust.
    pub keys: PathBuf,
    /// `host:port` of the registry, as image references name it.
    pub registry: String,
    /// The folder of the control plane, when it is ours to stop and start (`CONTROL_PLANE`).
    pub control_plane: Option<PathBuf>,
    /// Addresses of the two nodes (`GRAPHLET_E2E_NODE_IPS`): both of this machine, both reachable
    /// for the API server.
    pub node_ips: [IpAddr; 2],
}

impl Setting {
    /// `None` unless `scripts/e2e` has set the folder of the run: a `KUBECONFIG` alone may lead to
    /// a cluster that somebody works with.
    pub fn from_environment() -> Result<Option<Self>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the repository is above this crate")?
            .to_owned();
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let Some(work) = path("GRAPHLET_E2E_DIR") else { return Ok(None) };
        path("KUBECONFIG").context("KUBECONFIG is not set")?;
        let ips = std::env::var("GRAPHLET_E2E_NODE_IPS")
            .unwrap_or_else(|_| "192.0.2.11,192.0.2.12".to_owned());
        let ips: Vec<IpAddr> =
            ips.split(',').map(str::parse).collect::<Result<_, _>>().context("node addresses")?;
        Ok(Some(Self {
            shared: path("GRAPHLET_SHARED").unwrap_or_else(|| root.join("../shared")),
            programs: path("GRAPHLET_E2E_BIN").context("GRAPHLET_E2E_BIN is not set")?,
            keys: work.join("keys"),
            registry: std::env::var("GRAPHLET_E2E_REGISTRY")
                .unwrap_or_else(|_| "localhost:5000".to_owned()),
            control_plane: path("CONTROL_PLANE"),
            node_ips: ips.try_into().ok().context("two node addresses are needed")?,
            root,
            work,
        }))
    }

    /// A program of ours.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }
}

/// The cluster under test.
pub struct World {
    /// Where things are.
    pub setting: Setting,
    /// What was pushed.
    pub modules: Modules,
    /// The two nodes.
    pub agents: [Agent; 2],
    /// Approves what nobody approves by itself.
    pub approver: Approver,
    registry: Option<Child>,
}

impl World {
    /// Starts the registry, builds and pushes modules, lets two nodes join.
    pub async fn open(setting: Setting) -> Result<Self> {
        tokio::fs::create_dir_all(&setting.work).await?;
        let registry = start_registry(&setting).await?;
        let modules = Modules::prepare(&setting).await?;
        let issuer = modules::issuer(&setting, &setting.work.join("modules/digits.wasm")).await?;
        join_by_token(&setting).await?;
        let bootstrap = bootstrap_kubeconfig(&setting).await?;
        let approver = Approver::start();
        let agents = [0, 1].map(|index| Agent::new(&setting, index, &bootstrap, &issuer));
        for agent in &agents {
            agent.start().await?;
        }
        Ok(Self { setting, modules, agents, approver, registry })
    }

    /// Ends what was started, in order.
    pub async fn close(&self) {
        for agent in &self.agents {
            agent.terminate().await;
        }
        self.approver.stop();
        if let Some(id) = self.registry.as_ref().and_then(Child::id) {
            let _ = kubectl::run(Command::new("kill").arg(id.to_string()), "").await;
        }
    }

    /// Where a Service (NodePort) answers: its ClusterIP where kube-proxy's rules are ours, else a
    /// port of a node that has them.
    pub fn service_address(&self, service: &Value) -> Result<SocketAddr> {
        let spec = &service["spec"];
        let (ip, port) = if self.setting.control_plane.is_some() {
            (spec["clusterIP"].as_str().unwrap_or_default().to_owned(), &spec["ports"][0]["port"])
        } else {
            let node = std::env::var("GRAPHLET_E2E_PROXY_IP")
                .context("GRAPHLET_E2E_PROXY_IP names a node that runs kube-proxy")?;
            (node, &spec["ports"][0]["nodePort"])
        };
        let ip = ip.parse().with_context(|| format!("address {ip:?}"))?;
        let port = port.as_u64().and_then(|port| port.try_into().ok()).context("no port")?;
        Ok(SocketAddr::new(ip, port))
    }

    /// Stops or starts parts of the control plane.
    pub async fn control_plane(&self, arguments: &[&str]) -> Result<()> {
        let script = self.setting.root.join("scripts/control-plane");
        let output = kubectl::run(Command::new(script).args(arguments), "").await?;
        if !output.ok {
            bail!("control-plane {arguments:?}: {}", output.stderr);
        }
        Ok(())
    }
}

/// What lets nodes join: the manifests' rights and the overlay that approves first certificates.
async fn join_by_token(setting: &Setting) -> Result<()> {
    for folder in ["deploy/joining"] {
        kubectl(&["apply", "-k", &setting.root.join(folder).to_string_lossy()]).await?;
    }
    let rights = setting.root.join("deploy/base/rbac.yaml");
    kubectl(&["apply", "-f", &rights.to_string_lossy()]).await?;
    let class = setting.root.join("deploy/base/runtimeclass.yaml");
    kubectl(&["apply", "-f", &class.to_string_lossy()]).await.map(drop)
}

/// `graphlet node bootstrap`: a kubeconfig with a token of one hour.
async fn bootstrap_kubeconfig(setting: &Setting) -> Result<PathBuf> {
    let file = setting.work.join("bootstrap.kubeconfig");
    let mut command = Command::new(setting.program("graphlet"));
    command.args(["node", "bootstrap", "--output"]).arg(&file);
    let output = kubectl::run(&mut command, "").await?;
    if !output.ok {
        bail!("graphlet node bootstrap: {}", output.stderr.trim());
    }
    Ok(file)
}

/// Debian's `docker-registry` on loopback, unless one answers there already.
async fn start_registry(setting: &Setting) -> Result<Option<Child>> {
    let address = setting.registry.replace("localhost", "127.0.0.1");
    if tokio::net::TcpStream::connect(&address).await.is_ok() {
        return Ok(None);
    }
    let folder = setting.work.join("registry");
    tokio::fs::create_dir_all(&folder).await?;
    // JSON is YAML.
    let config = json!({
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": true}},
        "storage": {"filesystem": {"rootdirectory": folder}, "delete": {"enabled": true}},
        "http": {"addr": address},
    });
    let file = setting.work.join("registry.yml");
    tokio::fs::write(&file, config.to_string()).await?;
    let log = std::fs::File::create(setting.work.join("registry.log"))?;
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("docker-registry (Debian's package of that name)")?;
    until("the registry", SOON, async || {
        Ok(tokio::net::TcpStream::connect(&address).await.map(drop)?)
    })
    .await?;
    Ok(Some(child))
}

/// How long a node may take from its start to Ready.
pub const JOINING: Duration = SOON;
