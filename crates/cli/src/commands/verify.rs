//! `graphlet verify`: would this module run here, now?

use std::{
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
    time::SystemTime,
};

use anyhow::Result;
use claims::Timestamp;

use crate::{
    files::{printable, read_module},
    trust::{self, TrustFile},
    units::show_duration,
};

/// Check a module's signature, claims and issuer against the trust file
///
/// Exit code 0: the module would run here. 1: it is refused, and the reason is on stderr with
/// the command that would help.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The module
    #[arg(value_name = "MODULE")]
    module: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let now = Timestamp::from(SystemTime::now());
    let trust = TrustFile::load()?;
    let bytes = read_module(&args.module)?;
    let module = trust::verify_module(&args.module, bytes, &trust.policy(now))?;
    let mut out = stdout().lock();
    writeln!(out, "verified  {}", module.digest())?;
    if let Some(claims) = module.claims() {
        let issuer = trust.issuer_name(claims.issuer).unwrap_or_default();
        writeln!(out, "actor     {}  {}", claims.subject, claims.name.as_deref().unwrap_or(""))?;
        writeln!(out, "issuer    {}  {}", claims.issuer, printable(issuer))?;
        writeln!(out, "may use   {}", claims.capabilities.join(", "))?;
        match claims.expires {
            Some(expires) => {
                writeln!(out, "expires   {expires}, in {}", show_duration(expires.since(now)))?;
            }
            None => writeln!(out, "expires   never")?,
        }
    }
    if module.expires_soon(now) {
        tell!("warning: the claims expire soon; sign the module again before that");
    }
    Ok(ExitCode::SUCCESS)
}
