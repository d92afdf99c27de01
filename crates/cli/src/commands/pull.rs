//! `graphlet pull`: a module out of a registry.

use std::{
    fs,
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use claims::authentic_claims;
use registry::{Mirror, Progress, PullError, PullPolicy, Store, StoreOptions};

use crate::{
    exit::{Hinted, Usage},
    files::printable,
    paths,
    registries::{Bar, RegistryArgs, block_on, credentials, parse_reference},
    trust::{TrustFile, shell_word},
};

/// Pull a module from a registry
///
/// Checks that the bytes are those that the registry's manifest names, and nothing about who
/// signed them: `graphlet run` and `graphlet verify` do. Prints the reference that cannot be
/// moved, `HOST/REPOSITORY@sha256:…`. Logins are docker's (`docker login`; DOCKER_CONFIG names
/// another folder than ~/.docker).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where from, such as registry.example/models/digits:v1, or …@sha256:…
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// Where to write the module
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Ask URL for modules of HOST first, such as docker.io=http://10.0.0.1:5000; may be repeated
    #[arg(long = "registry-mirror", value_name = "HOST=URL")]
    mirrors: Vec<Mirror>,
    /// Print warnings and errors only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    // What can be wrong with the arguments shows before the work.
    super::folder_of(&args.output)?;
    let reference = parse_reference(&args.reference)?;
    let mut registries = args.registry.options()?;
    registries.mirrors = args.mirrors.clone();
    let mirrors = args.mirrors.iter().filter(|mirror| mirror.host == reference.host());
    let hosts: Vec<String> = mirrors.map(Mirror::address).collect();
    let credentials = credentials(hosts.iter().map(String::as_str).chain([reference.host()]))?;
    let options = StoreOptions { registries, ..StoreOptions::default() };
    let store = Store::open(paths::cache_dir()?.join("modules"), options)?;

    let bar = Bar::new(args.quiet);
    let progress = |progress| match progress {
        Progress::Downloading { done, total } => {
            bar.doing("pulling");
            bar.at(done, total);
        }
        _ => bar.doing("resolving"),
    };
    let pulled = block_on(async {
        let pull = store.pull(&args.reference, PullPolicy::Always, &credentials, &progress);
        pull.await.map_err(|error| failed(error, &args.reference))
    })?;
    drop(bar);
    let context = || format!("cannot read {}", pulled.path.display());
    let module = fs::read(&pulled.path).with_context(context)?;
    super::write_whole(&args.output, &module)?;
    store.collect_garbage(&[pulled.digest], CACHE_BYTES)?;
    if !args.quiet {
        let kept = if pulled.was_here { ", which was in the cache" } else { "" };
        let megabytes = pulled.size as f64 / 1e6;
        tell!("wrote {}: {megabytes:.1} MB{kept}", args.output.display());
        tell_issuer(&module, &args.output.display().to_string());
    }
    writeln!(stdout(), "{}", pulled.reference)?;
    Ok(ExitCode::SUCCESS)
}

/// Who says what about it, and what makes it run here.
fn tell_issuer(module: &[u8], file: &str) {
    let file = shell_word(file);
    let claims = match authentic_claims(module) {
        Ok(claims) => claims,
        Err(error) => {
            tell!("warning: it would be refused here: {error}");
            return;
        }
    };
    let issuer = claims.issuer;
    tell!("actor  {}  {}", claims.subject, printable(claims.name.as_deref().unwrap_or("")));
    // A trust file that cannot be read is `verify`'s to tell.
    let trust = TrustFile::load().unwrap_or_default();
    match trust.issuer_name(issuer) {
        Some(name) => {
            tell!("issuer {issuer}  {}", printable(name));
            tell!("next: graphlet verify {file}");
        }
        None => {
            tell!("issuer {issuer}, who is not trusted here");
            tell!("hint: graphlet keys trust {issuer}   (if you know whose key that is)");
        }
    }
}

fn failed(error: PullError, reference: &str) -> anyhow::Error {
    let hint = error.hint();
    match error {
        PullError::InvalidName(_) => Usage::new(error).hint(hint.unwrap_or_default()).into(),
        _ => {
            let error = anyhow::Error::new(error).context(format!("cannot pull {reference}"));
            Hinted::new(error, hint).into()
        }
    }
}

/// What is kept of earlier pulls.
const CACHE_BYTES: u64 = 1 << 30;
