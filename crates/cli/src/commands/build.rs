//! `graphlet build`: `model.toml` and its ONNX file to a signed module.

use std::{
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

use anyhow::Result;
use builder::{BuildOptions, GuestKind, Home};
use claims::Digest;
use clap::ValueEnum;
use model_spec::SimdLevel;

use super::sign::{SigningOptions, sign_module};
use crate::{paths, progress::Display};

/// Compile a model and sign the module
///
/// Reads MODEL.toml and the ONNX file that it names, compiles both with TVM, links them with the
/// guest and signs the result. The first build of a kind and SIMD level compiles the guest too,
/// a minute or two; later ones only link.
///
/// Prints the digest of the signed file. With SOURCE_DATE_EPOCH set, the same files, keys and
/// options give the same bytes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model's description (docs/model-toml.md)
    #[arg(value_name = "MODEL.toml")]
    spec: PathBuf,
    /// Where to write the signed module
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What the module is to its host
    #[arg(long = "as", value_enum, default_value_t = Kind::Actor)]
    kind: Kind,
    /// Vector instructions the module may use, over the model.toml's
    #[arg(long, value_enum)]
    simd: Option<Simd>,
    /// Folder that keeps graph.json, graph.params, graph.o, libgraph_wasm32.a and report.json
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
    /// Print warnings and errors only
    #[arg(short, long)]
    quiet: bool,
    /// What the claims say
    #[command(flatten)]
    signing: SigningOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A waSCC actor, for `graphlet run`
    Actor,
    /// A WASI command: `wasmtime run --dir . classify.wasm cat.png`
    Wasi,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Simd {
    /// Plain WebAssembly
    None,
    /// 128-bit SIMD
    Simd128,
    /// 128-bit and relaxed SIMD: the fastest
    Relaxed,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let begun = Instant::now();
    // What can be wrong with the arguments shows before the long work.
    super::folder_of(&args.output)?;
    args.signing.check()?;
    let home = Home::find(paths::cache_dir()?)?;
    let options = BuildOptions {
        spec: args.spec.clone(),
        kind: match args.kind {
            Kind::Actor => GuestKind::Actor,
            Kind::Wasi => GuestKind::Wasi,
        },
        simd: args.simd.map(|simd| match simd {
            Simd::None => SimdLevel::None,
            Simd::Simd128 => SimdLevel::Simd128,
            Simd::Relaxed => SimdLevel::Relaxed,
        }),
        artifacts: args.artifacts.clone(),
    };
    let mut display = Display::new(args.quiet);
    let built = builder::build(&home, &options, &mut display)?;
    display.finish();
    let model = &built.spec.model;
    let signed = sign_module(&built.module, &model.name, Some(&model.version), &args.signing)?;
    super::write_whole(&args.output, &signed)?;
    if !args.quiet {
        eprintln!(
            "wrote {}: {:.1} MB ({:.1} MB of weights), {:.1} s",
            args.output.display(),
            signed.len() as f64 / 1e6,
            built.card.sizes.params as f64 / 1e6,
            begun.elapsed().as_secs_f64()
        );
        let file = args.output.display();
        match args.kind {
            Kind::Actor => eprintln!("next: graphlet run {file}"),
            Kind::Wasi => eprintln!("next: wasmtime run --dir . {file} PICTURE"),
        }
    }
    writeln!(stdout(), "{}", Digest::of(&signed))?;
    Ok(ExitCode::SUCCESS)
}
