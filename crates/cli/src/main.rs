//! The `graphlet` command: arguments, wiring, exit codes.

mod card;
mod ceiling;
mod commands;
mod component;
mod exit;
mod files;
mod keys;
mod logs;
mod paths;
mod plan;
mod profiler;
mod progress;
#[cfg(feature = "kubernetes")]
mod registries;
mod serve;
mod shape;
mod trust;
mod tuner;
mod units;

use std::process::ExitCode;

use clap::Parser;

/// Run neural networks inside a WebAssembly sandbox
///
/// A model (ONNX) is compiled into a signed WebAssembly actor, which a host verifies and serves
/// over HTTP.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "graphlet", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    match commands::run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
