//! `graphlet push`: a module into a registry.

use std::{
    env,
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use claims::{Timestamp, VerifyError, authentic_claims};
use clap::ValueEnum;
use registry::{Form, PushError, PushOptions, Registry};

use crate::{
    exit::{Hinted, Usage},
    files::read_module,
    registries::{Bar, RegistryArgs, block_on, credentials, parse_reference},
    trust::shell_word,
};

/// Push a module to a registry
///
/// Prints the reference that cannot be moved, `HOST/REPOSITORY@sha256:…`: the one to write into
/// manifests. Logins are docker's (`docker login`; DOCKER_CONFIG names another folder than
/// ~/.docker). The same file pushed twice is the same artifact; SOURCE_DATE_EPOCH puts a time
/// into it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The module
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to, such as registry.example/models/digits:v1
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// Form of the artifact
    #[arg(long, value_enum, default_value_t = Format::Cncf)]
    format: Format,
    /// Print warnings and errors only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The CNCF's Wasm artifact: layer application/wasm
    Cncf,
    /// Krustlet's: layer application/vnd.wasm.content.layer.v1+wasm
    Krustlet,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let reference = parse_reference(&args.reference)?;
    let options = PushOptions {
        form: match args.format {
            Format::Cncf => Form::Cncf,
            Format::Krustlet => Form::Krustlet,
        },
        title: args.file.file_name().map(|name| name.to_string_lossy().into_owned()),
        created: source_date()?.map(|time| time.to_string()),
    };
    let registry = Registry::new(args.registry.options()?);
    let credentials = credentials([reference.host()])?;
    let module = read_module(&args.file)?;
    let size = module.len();
    let file = args.file.display();
    match authentic_claims(&module) {
        Ok(_) => {}
        Err(VerifyError::Unsigned) => {
            let word = shell_word(&file.to_string());
            tell!("warning: {file} is not signed; hosts and nodes will refuse it");
            tell!("hint: graphlet sign {word} -o {word}");
        }
        // Whether it is a module at all, the push says.
        Err(VerifyError::Module(_)) => {}
        Err(error) => tell!("warning: {file} will be refused by hosts and nodes: {error}"),
    }

    let bar = Bar::new(args.quiet);
    bar.doing("pushing");
    let progress = |done, total| bar.at(done, total);
    let pushed = block_on(async {
        let push = registry.push(module.into(), &args.reference, &credentials, &options, &progress);
        push.await.map_err(|error| failed(error, &file.to_string()))
    })?;
    drop(bar);
    if !args.quiet {
        let there = if pushed.was_there { ", which was there already" } else { "" };
        tell!("pushed {}: {:.1} MB{there}", pushed.tag, size as f64 / 1e6);
        if let Some(claims) = &pushed.claims {
            tell!("issuer {}; others trust it with: graphlet keys trust {0}", claims.issuer);
        }
    }
    writeln!(stdout(), "{}", pushed.pinned)?;
    Ok(ExitCode::SUCCESS)
}

fn failed(error: PushError, file: &str) -> anyhow::Error {
    let hint = error.hint();
    match error {
        PushError::InvalidName(_) | PushError::Pinned { .. } => {
            Usage::new(error).hint(hint.unwrap_or_default()).into()
        }
        _ => Hinted::new(anyhow::Error::new(error).context(format!("cannot push {file}")), hint)
            .into(),
    }
}

/// `SOURCE_DATE_EPOCH` when it is set (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn source_date() -> Result<Option<Timestamp>> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => match text.parse() {
            Ok(seconds) => Ok(Some(Timestamp(seconds))),
            Err(_) => {
                let text = format!("SOURCE_DATE_EPOCH is {text:?}, not a number of seconds");
                Err(Usage::new(text).into())
            }
        },
        Err(env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(Usage::new(format!("SOURCE_DATE_EPOCH: {error}")).into()),
    }
}
