//! What the agent finds out before it begins: its names, its files, and whether pods outlive it.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::Usage;
use crate::{
    identity::{BootstrapSource, IdentityOptions},
    options::{RunOptions, node_name},
};

/// Where a container finds its ServiceAccount.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// What Kubernetes sets in every container.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// The node's name: as given, else the host's with `-wasm`, so that a kubelet may run beside.
pub(super) fn name(options: &RunOptions) -> Result<String> {
    if let Some(name) = &options.node_name {
        return Ok(name.clone());
    }
    let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    node_name(&format!("{host}-wasm"))
        .map_err(|error| Usage::new(error).hint("give one with --node-name").into())
}

/// Where the node's identity is kept and comes from.
pub(super) fn identity(options: &RunOptions, node_name: &str) -> IdentityOptions {
    let in_cluster = options.in_cluster
        || env::var_os(IN_CLUSTER).is_some() && Path::new(SERVICE_ACCOUNT_TOKEN).exists();
    let bootstrap = match &options.bootstrap_kubeconfig {
        Some(path) => Some(BootstrapSource::Kubeconfig(path.clone())),
        None => in_cluster.then_some(BootstrapSource::ServiceAccount),
    };
    IdentityOptions {
        node_name: node_name.to_owned(),
        pki_dir: options.state_dir.join("pki"),
        kubeconfig: options
            .kubeconfig
            .clone()
            .unwrap_or_else(|| options.state_dir.join("kubeconfig")),
        bootstrap,
    }
}

/// Whether pods outlive the agent. In a container they cannot: its processes end with it.
pub(super) fn adopts(options: &RunOptions) -> bool {
    if options.adopt || options.no_adopt {
        return options.adopt;
    }
    let in_container = env::var_os(IN_CLUSTER).is_some() || std::process::id() == 1;
    !in_container
}

/// The `graphlet` command: as given, else beside this program, else on PATH.
pub(super) fn graphlet(options: &RunOptions) -> Result<PathBuf> {
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join("graphlet")));
    let on_path = env::var_os("PATH").unwrap_or_default();
    let candidates: Vec<PathBuf> = match &options.graphlet {
        Some(path) => vec![path.clone()],
        None => beside
            .into_iter()
            .chain(env::split_paths(&on_path).map(|folder| folder.join("graphlet")))
            .collect(),
    };
    let found = candidates.iter().find(|path| path.is_file());
    let found = found.ok_or_else(|| match &options.graphlet {
        Some(path) => Usage::new(format!("there is no {}", path.display())),
        None => {
            Usage::new("the command graphlet, which pods run, is not beside this one nor on PATH")
                .hint("give it with --graphlet")
        }
    })?;
    found.canonicalize().with_context(|| format!("cannot find {}", found.display()))
}

/// CA certificates (DER) whose client certificates the kubelet's port believes, besides the
/// cluster's.
pub(super) fn client_cas(options: &RunOptions) -> Result<Vec<Vec<u8>>> {
    let Some(path) = &options.client_ca else { return Ok(Vec::new()) };
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let found: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(&text)
        .map(|der| der.map(|der| der.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|error| Usage::new(format!("{}: {error}", path.display())))?;
    if found.is_empty() {
        return Err(Usage::new(format!("{} holds no certificate", path.display())).into());
    }
    Ok(found)
}

/// Takes the state folder for this process; two agents in one folder would run every pod twice.
pub(super) fn lock(state_dir: &Path) -> Result<File> {
    let path = state_dir.join("agent.lock");
    let context = || format!("cannot lock {}", path.display());
    let file = File::create(&path).with_context(context)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(Usage::new(format!("another agent runs in {}", state_dir.display()))
                .hint("give this one a folder of its own with --state-dir")
                .into())
        }
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(context),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::options::Cli;

    fn options(arguments: &[&str]) -> RunOptions {
        let all = ["graphlet-node"].iter().chain(arguments);
        Cli::try_parse_from(all).expect("options").run
    }

    #[test]
    fn a_second_agent_in_one_folder_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = lock(folder.path()).expect("free");
        let error = lock(folder.path()).expect_err("taken");
        assert!(error.to_string().contains("another agent"), "{error}");
        drop(first);
        lock(folder.path()).expect("free again");
    }

    #[test]
    fn names_and_files_follow_from_the_options() {
        let given =
            options(&["--node-name", "edge", "--bootstrap-kubeconfig", "b", "--state-dir", "/s"]);
        assert_eq!(name(&given).expect("a name"), "edge");
        let identity = identity(&given, "edge");
        assert_eq!(identity.kubeconfig, Path::new("/s/kubeconfig"));
        assert_eq!(identity.bootstrap, Some(BootstrapSource::Kubeconfig("b".into())));
        assert!(name(&options(&[])).is_ok_and(|name| name.ends_with("-wasm")));
        assert!(adopts(&options(&["--adopt"])) && !adopts(&options(&["--no-adopt"])));
    }

    #[test]
    fn a_graphlet_that_is_not_there_is_a_mistake_of_usage() {
        let error = graphlet(&options(&["--graphlet", "/nowhere/graphlet"])).expect_err("missing");
        assert!(error.downcast_ref::<Usage>().is_some());
    }
}
