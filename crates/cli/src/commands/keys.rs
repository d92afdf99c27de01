//! `graphlet keys`: make keys, and say whose modules may run here.

use std::{
    io::{Write as _, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use claims::{IssuerKey, authentic_claims};

use crate::{
    exit::Usage,
    files::{printable, read_module},
    keys,
    trust::{self, Refused, Revocation, TrustFile},
};

/// Make keys, and say whose modules may run here
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make an issuer's key pair and trust it here; prints the public key
    New(New),
    /// Let modules run that this issuer has signed
    Trust(Trust),
    /// Let modules of this issuer run no more
    Untrust(Untrust),
    /// Let an actor, or what one signature says, run no more, whoever signed it
    Revoke(Revoke),
    /// Take a revocation back
    Unrevoke(Revoke),
    /// Show the keys of this machine, who is trusted and what was revoked
    List(List),
}

/// Arguments of `keys new`.
#[derive(Debug, clap::Args)]
pub struct New {
    /// Name of the key file; `issuer` is the one that signs unless another is named
    #[arg(long, value_name = "NAME", default_value = keys::DEFAULT_ISSUER)]
    name: String,
    /// Do not trust it on this machine
    #[arg(long)]
    no_trust: bool,
}

/// Arguments of `keys trust`.
#[derive(Debug, clap::Args)]
pub struct Trust {
    /// The issuer's public key, `A…`
    #[arg(value_name = "ISSUER", required_unless_present = "module", conflicts_with = "module")]
    #[arg(value_parser = issuer_key)]
    issuer: Option<IssuerKey>,
    /// Trust whoever signed this module; its signature and hash must hold
    #[arg(long, value_name = "MODULE")]
    module: Option<PathBuf>,
    /// What to call the issuer in lists
    #[arg(long, value_name = "NAME", default_value = "")]
    name: String,
}

/// Arguments of `keys untrust`.
#[derive(Debug, clap::Args)]
pub struct Untrust {
    /// The issuer's public key, `A…`
    #[arg(value_name = "ISSUER", value_parser = issuer_key)]
    issuer: IssuerKey,
}

/// Arguments of `keys revoke` and `keys unrevoke`.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// An actor's public key (`M…`: all of its releases) or a token's id (`jti`: one signature),
    /// as `graphlet inspect` shows them
    #[arg(
        value_name = "ACTOR|TOKEN",
        required_unless_present = "module",
        conflicts_with = "module"
    )]
    what: Option<String>,
    /// The token of this module; its signature and hash must hold
    #[arg(long, value_name = "MODULE")]
    module: Option<PathBuf>,
    /// With --module: the actor in all of its releases, not this token alone
    #[arg(long, requires = "module")]
    actor: bool,
}

/// Arguments of `keys list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Print what trust.toml says as JSON, with the same names
    #[arg(long)]
    json: bool,
}

/// An issuer's public key; a module or a key file in its place is told what it is.
fn issuer_key(text: &str) -> Result<IssuerKey, String> {
    text.parse().map_err(|error| match Path::new(text).is_file() {
        true => "a file; an issuer is named by its public key, A…, which `graphlet keys list` and \
                 `graphlet inspect MODULE` show (and `keys trust` takes --module MODULE)"
            .to_owned(),
        false => format!("{error}"),
    })
}

/// Runs the command.
pub fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::New(args) => new(args),
        Command::Trust(args) => trust_issuer(args),
        Command::Untrust(args) => untrust(args),
        Command::Revoke(args) => revoke(args),
        Command::Unrevoke(args) => unrevoke(args),
        Command::List(args) => list(args),
    }
}

fn new(args: &New) -> Result<ExitCode> {
    let path = keys::issuer_path(&args.name)?;
    let Some(pair) = keys::create_issuer(&path)? else {
        return Err(Usage::new(format!("{} is there already", path.display()))
            .hint("--name makes another one")
            .into());
    };
    if !args.no_trust {
        trust::update(|trust| trust.trust(pair.public(), &args.name))?;
    }
    tell!("the secret seed is in {}: keep a copy in a safe place", path.display());
    writeln!(stdout(), "{}", pair.public())?;
    Ok(ExitCode::SUCCESS)
}

fn trust_issuer(args: &Trust) -> Result<ExitCode> {
    let issuer = match (&args.issuer, &args.module) {
        (Some(issuer), _) => *issuer,
        (None, Some(path)) => {
            authentic_claims(&read_module(path)?)
                .map_err(|source| Refused { path: path.clone(), source })?
                .issuer
        }
        (None, None) => return Err(Usage::new("name an issuer, or a module with --module").into()),
    };
    let added = trust::update(|trust| trust.trust(issuer, &args.name))?;
    tell!("{}", if added { "trusted from now on" } else { "was trusted already" });
    writeln!(stdout(), "{issuer}")?;
    Ok(ExitCode::SUCCESS)
}

fn untrust(args: &Untrust) -> Result<ExitCode> {
    if trust::update(|trust| trust.untrust(args.issuer))? {
        tell!("{} is trusted no more", args.issuer);
        return Ok(ExitCode::SUCCESS);
    }
    Err(Usage::new(format!("{} was not trusted", args.issuer)).hint("graphlet keys list").into())
}

fn revoke(args: &Revoke) -> Result<ExitCode> {
    let what = args.target()?;
    let added = trust::update(|trust| trust.revoke(&what))?;
    let since = if added { "from now on" } else { "already" };
    tell!("revoked {since}: {}", shown(&what));
    Ok(ExitCode::SUCCESS)
}

fn unrevoke(args: &Revoke) -> Result<ExitCode> {
    let what = args.target()?;
    if trust::update(|trust| trust.unrevoke(&what))? {
        tell!("revoked no more: {}", shown(&what));
        return Ok(ExitCode::SUCCESS);
    }
    Err(Usage::new(format!("{} was not revoked", shown(&what))).hint("graphlet keys list").into())
}

impl Revoke {
    /// What is meant, by its name or by a module.
    fn target(&self) -> Result<Revocation> {
        match (&self.what, &self.module) {
            (Some(what), _) => Ok(Revocation::parse(what)?),
            (None, Some(path)) => {
                let claims = authentic_claims(&read_module(path)?)
                    .map_err(|source| Refused { path: path.clone(), source })?;
                Ok(match self.actor {
                    true => Revocation::Actor(claims.subject),
                    false => Revocation::Token(claims.id),
                })
            }
            (None, None) => {
                Err(Usage::new("name an actor or a token, or a module with --module").into())
            }
        }
    }
}

fn shown(what: &Revocation) -> String {
    match what {
        Revocation::Actor(subject) => format!("actor {subject}"),
        Revocation::Token(id) => format!("token {}", printable(id)),
    }
}

fn list(args: &List) -> Result<ExitCode> {
    let trust = TrustFile::load()?;
    let mut out = stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&trust)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "trusted issuers ({})", trust::path()?.display())?;
    for issuer in &trust.issuers {
        writeln!(out, "  {}  {}", issuer.key, printable(&issuer.name))?;
    }
    if trust.issuers.is_empty() {
        writeln!(out, "  nobody: no module runs here")?;
    }
    writeln!(out, "keys that can sign ({})", keys::folder()?.display())?;
    for (name, key) in keys::issuers()? {
        match key {
            Ok(pair) => {
                let trusted = trust.issuer_name(pair.public()).is_some();
                let note = if trusted { "" } else { "  (not trusted here)" };
                writeln!(out, "  {}  {}{note}", pair.public(), printable(&name))?;
            }
            Err(error) => writeln!(out, "  {}: {error:#}", printable(&name))?,
        }
    }
    for subject in &trust.revoked.subjects {
        writeln!(out, "revoked actor  {subject}")?;
    }
    for token in &trust.revoked.tokens {
        writeln!(out, "revoked token  {}", printable(token))?;
    }
    for (subject, minimum) in &trust.minimum_revisions {
        writeln!(out, "at least revision {minimum}  {subject}")?;
    }
    if trust.require_expiry {
        writeln!(out, "claims must have an expiry")?;
    }
    if let Some(allowed) = &trust.allowed_capabilities {
        let allowed: Vec<_> = allowed.iter().map(|name| printable(name)).collect();
        writeln!(out, "allowed capabilities  {}", allowed.join(", "))?;
    }
    Ok(ExitCode::SUCCESS)
}
