//! `graphlet-node`: the node agent, which `graphlet node` starts.

use std::{
    io::{IsTerminal as _, Write as _, stderr, stdout},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use node_agent::{
    agent, identity,
    options::{BootstrapOptions, Cli, Command, LogFormat, RunOptions},
    runtime::shim,
};
use tracing_subscriber::{EnvFilter, fmt};

/// Exit code for wrong usage or configuration.
const USAGE: u8 = 2;
/// What is not logged unless it is asked for.
const QUIET: &str = "kube_client::client::builder=off";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        // No threads, no TLS, no logs: there is one of these for each pod.
        Some(Command::Shim) => return shim::main(),
        Some(Command::Bootstrap(options)) => bootstrap(&options),
        Some(Command::Run(options)) => run(*options),
        None => run(cli.run),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    let chain: Vec<_> = error.chain().map(ToString::to_string).collect();
    eprintln!("error: {}", chain.join(": "));
    if let Some(hint) = agent::hint(&error) {
        eprintln!("hint: {hint}");
    }
    if agent::is_usage(&error) { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}

fn run(options: RunOptions) -> Result<()> {
    start_logs(&options.log, options.log_format)?;
    runtime()?.block_on(agent::run(options))
}

fn bootstrap(options: &BootstrapOptions) -> Result<()> {
    let made = runtime()?.block_on(identity::bootstrap_kubeconfig(&identity::TokenOptions {
        kubeconfig: options.kubeconfig.clone(),
        group: options.group.clone(),
        lifetime: options.ttl,
        server: options.server.clone(),
    }))?;
    let written = match &options.output {
        Some(path) => identity::write_private(path, made.text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display())),
        None => stdout()
            .lock()
            .write_all(made.text.as_bytes())
            .context("cannot write to standard output"),
    };
    written?;
    let until = made.expires.format("%H:%M:%S UTC");
    let place = options
        .output
        .as_ref()
        .map_or_else(|| "the kubeconfig above".to_owned(), |path| path.display().to_string());
    eprintln!("{place} lets a node join until {until} (Secret kube-system/{})", made.secret_name);
    if made.group_may_ask == Some(false) {
        eprintln!(
            "hint: no ClusterRoleBinding gives {} the role system:node-bootstrapper; manifests/ has one",
            options.group
        );
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    // Both TLS stacks of the agent take it from here; a second call finds the first one's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("graphlet-node")
        .build()
        .context("no threads can be started")
}

fn start_logs(filter: &str, format: LogFormat) -> Result<()> {
    // The Kubernetes client tells each failed call as an error, and so does whoever made the call,
    // in words. Directives that come later, the user's, count more.
    let filter = EnvFilter::builder()
        .parse(format!("{QUIET},{filter}"))
        .map_err(|error| agent::Usage::new(format!("--log: {error}")))?;
    let colour =
        stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let logger = fmt().with_env_filter(filter).with_writer(stderr).with_ansi(colour);
    match format {
        LogFormat::Text => logger.with_target(false).init(),
        LogFormat::Json => logger.json().flatten_event(true).init(),
    }
    Ok(())
}
