//! The whole, from `graphlet push` to a label out of a Service, against a real control plane.
//!
//! Scenarios are in `scenarios/`, one file per idea; [`runner`] runs them and prints names and
//! times; [`world`] is the cluster, its registry and its nodes. `scripts/e2e` starts it all. An
//! argument runs only the scenarios whose name holds it; `--list` names them, `--shell` gives the
//! cluster to a person.

mod agent;
mod approver;
mod kubectl;
mod load;
mod modules;
mod runner;
mod scenarios;
mod wait;
mod workload;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let filter: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let asked = |option: &str| std::env::args().any(|argument| argument == option);
    if asked("--list") {
        runner::list(&scenarios::all());
        return ExitCode::SUCCESS;
    }
    // Two providers of cryptography are in the tree of features; the client needs to be told.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    if asked("--shell") {
        return runtime.block_on(runner::shell());
    }
    runtime.block_on(runner::run(&filter))
}
