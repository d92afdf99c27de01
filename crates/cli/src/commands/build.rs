//! `graphlet build`: `model.toml` and its ONNX file to a signed module.

use std::{
    collections::BTreeMap,
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

use anyhow::Result;
use builder::{BuildOptions, GuestKind, Home, TensorOptions};
use claims::Digest;
use clap::ValueEnum;
use model_spec::SimdLevel;

use super::sign::{SigningOptions, sign_module};
use crate::{exit::Usage, paths, progress::Display};

/// Compile a model and sign the module
///
/// Reads MODEL.toml and the ONNX file that it names, compiles both with TVM, links them with the
/// guest and signs the result. `--as graph` takes an ONNX file alone too, with inputs and outputs of
/// any number and type. The first build of a kind and SIMD level compiles the guest too,
/// a minute or two; later ones only link.
///
/// Prints the digest of the signed file. With SOURCE_DATE_EPOCH set, the same files, keys and
/// options give the same bytes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model's description (docs/model-toml.md); for a graph, an ONNX file too
    #[arg(value_name = "MODEL.toml")]
    spec: PathBuf,
    /// Where to write the signed module
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What the module is to its host
    #[arg(long = "as", value_enum, default_value_t = Kind::Actor)]
    kind: Kind,
    /// Shape of an input that the ONNX file leaves open; may be repeated
    #[arg(long = "shape", value_name = "INPUT=EXTENTS", value_parser = parse_shape)]
    shapes: Vec<(String, Vec<u32>)>,
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
    /// A wasi:http component, for `wasmtime serve`, Spin and wasmCloud
    Component,
    /// A WASM graph, tensors in and tensors out: `graphlet graph run`
    Graph,
}

/// Vector instructions, as the command line spells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Simd {
    /// Plain WebAssembly
    None,
    /// 128-bit SIMD
    Simd128,
    /// 128-bit and relaxed SIMD: the fastest
    Relaxed,
}

impl Simd {
    /// The same as a spec has it.
    pub fn level(self) -> SimdLevel {
        match self {
            Simd::None => SimdLevel::None,
            Simd::Simd128 => SimdLevel::Simd128,
            Simd::Relaxed => SimdLevel::Relaxed,
        }
    }
}

/// Reads `data=1,3,224,224`; `data=` is a scalar.
fn parse_shape(text: &str) -> Result<(String, Vec<u32>), String> {
    let (name, extents) = text.rsplit_once('=').ok_or("expected INPUT=EXTENTS")?;
    if extents.is_empty() {
        return Ok((name.to_owned(), Vec::new()));
    }
    let extents = extents.split(',').map(|extent| extent.trim().parse::<u32>());
    let extents = extents.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    Ok((name.to_owned(), extents))
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let begun = Instant::now();
    // What can be wrong with the arguments shows before the long work.
    super::folder_of(&args.output)?;
    args.signing.check()?;
    let home = Home::find(paths::cache_dir()?)?;
    if args.spec.extension().is_some_and(|extension| extension == "onnx") {
        return build_onnx(args, &home, begun);
    }
    if !args.shapes.is_empty() {
        return Err(Usage::new("--shape is for ONNX files; a model.toml has input.shape").into());
    }
    let options = BuildOptions {
        spec: args.spec.clone(),
        kind: match args.kind {
            Kind::Actor => GuestKind::Actor,
            Kind::Wasi => GuestKind::Wasi,
            Kind::Component => GuestKind::Component,
            Kind::Graph => GuestKind::Graph,
        },
        simd: args.simd.map(Simd::level),
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
            Kind::Component => eprintln!("next: wasmtime serve -S cli {file}"),
            Kind::Graph => eprintln!("next: graphlet graph run -g {file} -i PICTURE"),
        }
    }
    writeln!(stdout(), "{}", Digest::of(&signed))?;
    Ok(ExitCode::SUCCESS)
}

/// Builds a WASM graph of an ONNX file alone; it is called after the file.
fn build_onnx(args: &Args, home: &Home, begun: Instant) -> Result<ExitCode> {
    if args.kind != Kind::Graph {
        return Err(Usage::new(format!("{} is no model.toml", args.spec.display()))
            .hint("`graphlet init` writes one of it; `--as graph` takes an ONNX file")
            .into());
    }
    let stem = args.spec.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut shapes = BTreeMap::new();
    for (name, extents) in &args.shapes {
        if shapes.insert(name.clone(), extents.clone()).is_some() {
            return Err(Usage::new(format!("--shape {name} is given twice")).into());
        }
    }
    let options = TensorOptions {
        onnx: args.spec.clone(),
        name: stem.clone(),
        shapes,
        simd: args.simd.map(Simd::level),
        artifacts: args.artifacts.clone(),
        ..TensorOptions::default()
    };
    let mut display = Display::new(args.quiet);
    let built = builder::build_tensors(home, &options, &mut display)?;
    display.finish();
    let signed = sign_module(&built.module, &stem, None, &args.signing)?;
    super::write_whole(&args.output, &signed)?;
    if !args.quiet {
        let (file, took) = (args.output.display(), begun.elapsed().as_secs_f64());
        let (size, weights) = (signed.len() as f64 / 1e6, built.params as f64 / 1e6);
        eprintln!("wrote {file}: {size:.1} MB ({weights:.1} MB of weights), {took:.1} s");
        eprintln!("next: graphlet graph inspect {file}");
    }
    writeln!(stdout(), "{}", Digest::of(&signed))?;
    Ok(ExitCode::SUCCESS)
}
