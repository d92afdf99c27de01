//! `graphlet sign`: put claims into a module. `graphlet build` signs through here, too.

use std::{
    env,
    io::{Write as _, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use claims::{
    ActorKey, Digest, HTTP_SERVER, LOGGING, Sections, Statement, Timestamp, authentic_claims,
};

use crate::{
    card::Card,
    exit::Usage,
    files::{printable, read_module},
    keys,
    units::parse_duration,
};

/// Sign a module, replacing claims that it carries already
///
/// Prints the digest of the signed file. With SOURCE_DATE_EPOCH set, the same module, key and
/// options give the same bytes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The module
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// Where to write the signed module; may be the same file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Name of the actor. Default: the model's name, else the file's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    options: SigningOptions,
}

/// What the claims say besides name and version; the same for `sign` and `build`.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct SigningOptions {
    /// Key file of the issuer. Default: the development issuer, made and trusted on first use
    #[arg(long, value_name = "KEYFILE")]
    pub issuer: Option<PathBuf>,
    /// The actor's public key `M…`, or its key file. Default: a key kept per name
    #[arg(long, value_name = "KEY")]
    pub subject: Option<String>,
    /// How long the claims hold, such as 90d. Default: for ever
    #[arg(long, value_name = "DURATION", value_parser = parse_expiry)]
    pub expires: Option<Duration>,
    /// Capability that the actor may be linked to; may be repeated [default: wascc:http_server,
    /// wascc:logging]
    #[arg(long = "cap", value_name = "CAPABILITY")]
    pub capabilities: Vec<String>,
    /// A number that grows from release to release
    #[arg(long, value_name = "NUMBER")]
    pub revision: Option<i32>,
    /// Free word; may be repeated
    #[arg(long = "tag", value_name = "WORD")]
    pub tags: Vec<String>,
}

impl SigningOptions {
    /// Whether any of them was named.
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// Reads the keys that are named, so that a slip shows before a build.
    pub fn check(&self) -> Result<()> {
        if let Some(path) = &self.issuer {
            keys::read_issuer(path)?;
        }
        if let Some(text) = &self.subject {
            subject(Some(text), "")?;
        }
        Ok(())
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let bytes = read_module(&args.module)?;
    let card = Card::of(&bytes).ok().flatten();
    let name = match (&args.name, &card) {
        (Some(name), _) => name.clone(),
        (None, Some(card)) => card.spec.model.name.clone(),
        (None, None) => stem(&args.module),
    };
    let version = card.map(|card| card.spec.model.version);
    let signed = sign_module(&bytes, &name, version.as_deref(), &args.options, false)
        .with_context(|| format!("cannot sign {}", args.module.display()))?;
    super::write_whole(&args.output, &signed)?;
    writeln!(stdout(), "{}", Digest::of(&signed))?;
    Ok(ExitCode::SUCCESS)
}

/// Signs a module as `options` say and, unless it is to be `quiet`, tells on stderr as whom and by
/// whom.
///
/// # Errors
/// When a key cannot be had, or when module or claims are not acceptable.
pub fn sign_module(
    module: &[u8],
    name: &str,
    version: Option<&str>,
    options: &SigningOptions,
    quiet: bool,
) -> Result<Vec<u8>> {
    let issued_at = issued_at()?;
    // What is no module at all shall not leave a key behind.
    Sections::of(module)?.try_for_each(|section| section.map(drop))?;
    let issuer = match &options.issuer {
        Some(path) => keys::read_issuer(path)?,
        None => keys::default_issuer()?,
    };
    let capabilities = match &options.capabilities[..] {
        [] => vec![HTTP_SERVER.to_owned(), LOGGING.to_owned()],
        named => named.to_vec(),
    };
    let statement = Statement {
        subject: subject(options.subject.as_deref(), name)?,
        name: name.to_owned(),
        version: version.map(str::to_owned),
        revision: options.revision,
        tags: options.tags.clone(),
        capabilities,
        issued_at,
        valid_for: options.expires,
        not_before: None,
    };
    let signed = claims::sign(module, &issuer, &statement)?;
    let claims = authentic_claims(&signed)?;
    let until = match claims.expires {
        Some(expires) => format!("until {expires}"),
        None => "for ever".into(),
    };
    if !quiet {
        tell!("signed {} as {} by {}, {until}", printable(name), claims.subject, claims.issuer);
    }
    if claims.expires.is_some_and(|expires| expires <= Timestamp::from(SystemTime::now())) {
        tell!("warning: counted from SOURCE_DATE_EPOCH, these claims have expired already");
    }
    Ok(signed)
}

fn subject(given: Option<&str>, name: &str) -> Result<ActorKey> {
    match given {
        None => keys::actor_key(name),
        Some(text) if Path::new(text).is_file() => keys::read_actor_key(Path::new(text)),
        Some(text) => ActorKey::from_str(text).map_err(|error| {
            Usage::new(format!("--subject: neither a key file nor a key: {error}")).into()
        }),
    }
}

/// `SOURCE_DATE_EPOCH` when it is set (<https://reproducible-builds.org/specs/source-date-epoch/>),
/// else now.
fn issued_at() -> Result<Timestamp> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().map(Timestamp).map_err(|_| {
            Usage::new(format!("SOURCE_DATE_EPOCH is {text:?}, not a number of seconds")).into()
        }),
        Err(env::VarError::NotPresent) => Ok(SystemTime::now().into()),
        Err(error) => Err(Usage::new(format!("SOURCE_DATE_EPOCH: {error}")).into()),
    }
}

// A token that is expired when it is made is a slip of the hand.
fn parse_expiry(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        duration if duration < Duration::from_secs(1) => Err("at least a second".into()),
        duration => Ok(duration),
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}
