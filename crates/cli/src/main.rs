//! The `graphlet` command: arguments, wiring, exit codes.

/// A line on stderr. Where nobody reads it any more (`graphlet build … 2>&1 | head`) it is lost, and
/// the work goes on; `eprintln!` would panic.
macro_rules! tell {
    ($($text:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{}\n", format_args!($($text)*)));
    }};
}

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
