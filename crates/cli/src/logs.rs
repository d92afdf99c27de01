//! Log lines on stderr, as text for people or JSON for machines.

use std::{
    env,
    io::{IsTerminal as _, stderr},
};

use anyhow::Result;
use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, fmt};

use crate::exit::Usage;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging for the whole process.
///
/// # Errors
/// [`Usage`] when the filter cannot be understood.
pub fn start(filter: &str, format: LogFormat) -> Result<()> {
    let filter = EnvFilter::builder().parse(filter).map_err(|error| {
        Usage::new(format!("--log: {error}"))
            .hint("a level (error, warn, info, debug, trace), or target=level pairs")
    })?;
    let logger = fmt().with_env_filter(filter).with_writer(stderr).with_ansi(colour());
    match format {
        LogFormat::Text => logger.with_target(false).init(),
        LogFormat::Json => logger.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Whether log lines may have colours: on a terminal, unless `NO_COLOR` is set and not empty
/// (<https://no-color.org>).
fn colour() -> bool {
    stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
