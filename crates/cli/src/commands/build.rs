//! `graphlet build`: `model.toml` and its ONNX file to a signed module.

mod operator;

use std::{
    collections::BTreeMap,
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

use anyhow::Result;
use builder::{BuildOptions, GuestKind, Home, OperatorOptions, TensorOptions};
use claims::{Digest, SignError};
use clap::ValueEnum;
use model_spec::SimdLevel;

use operator::OperatorArgs;

use super::sign::{SigningOptions, sign_module};
use crate::{exit::Usage, paths, progress::Display};

/// Compile a model and sign the module
///
/// Reads MODEL.toml and the ONNX file that it names, compiles both with TVM, links them with the
/// guest and signs the result. `--as graph` takes an ONNX file alone too, with inputs and outputs of
/// any number and type. `--as operator` takes the name of an ONNX operator with its inputs and
/// attributes, or an ONNX file with one node. The first build of a kind and SIMD level compiles the
/// guest too, a minute or two; later ones only link.
///
/// Prints the digest of the file, which is signed unless it is a component or --unsigned is given.
/// With SOURCE_DATE_EPOCH set, the same files, keys and options give the same bytes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model's description (docs/model-toml.md); for a graph, an ONNX file too; for an operator,
    /// its name
    #[arg(value_name = "MODEL.toml")]
    spec: PathBuf,
    /// Where to write the module
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
    /// Write the graph without claims, which a module of more than 256 MiB cannot have: nothing but
    /// `graph run --dangerously-allow-unsigned` takes it
    #[arg(long)]
    unsigned: bool,
    /// What the operator is given
    #[command(flatten)]
    operator: OperatorArgs,
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
    /// A WASM graph of one ONNX operator
    Operator,
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
    if args.kind == Kind::Component && args.signing.is_given() {
        return Err(Usage::new("a component carries no claims: hosts of components read none")
            .hint("docs/component.md says how a component is trusted")
            .into());
    }
    if args.unsigned {
        check_unsigned(args)?;
    }
    args.signing.check()?;
    let is_onnx = args.spec.extension().is_some_and(|extension| extension == "onnx");
    if args.operator.is_given() && (args.kind != Kind::Operator || is_onnx) {
        let message =
            "--input, --attribute, --opset, --output-count and --domain tell of an operator";
        return Err(Usage::new(message)
            .hint("graphlet build Softmax --as operator --input f32[1,1000] -o softmax.wasm")
            .into());
    }
    let home = Home::find(paths::cache_dir()?)?;
    let kind = match args.kind {
        _ if is_onnx => return build_onnx(args, &home, begun),
        Kind::Operator => return build_onnx(args, &home, begun),
        Kind::Actor => GuestKind::Actor,
        Kind::Wasi => GuestKind::Wasi,
        Kind::Component => GuestKind::Component,
        Kind::Graph => GuestKind::Graph,
    };
    if !args.shapes.is_empty() {
        return Err(Usage::new("--shape is for ONNX files; a model.toml has input.shape").into());
    }
    let options = BuildOptions {
        spec: args.spec.clone(),
        kind,
        simd: args.simd.map(Simd::level),
        artifacts: args.artifacts.clone(),
    };
    let mut display = Display::new(args.quiet);
    let built = builder::build(&home, &options, &mut display)?;
    display.finish();
    let model = &built.spec.model;
    let signed = signed(args, built.module, &model.name, Some(&model.version))?;
    super::write_whole(&args.output, &signed)?;
    if !args.quiet {
        tell!(
            "wrote {}: {:.1} MB ({:.1} MB of weights), {:.1} s",
            args.output.display(),
            signed.len() as f64 / 1e6,
            built.card.sizes.params as f64 / 1e6,
            begun.elapsed().as_secs_f64()
        );
        let file = args.output.display();
        match args.kind {
            Kind::Actor => tell!("next: graphlet run {file}"),
            Kind::Wasi => tell!("next: wasmtime run --dir . {file} PICTURE"),
            Kind::Component => {
                tell!("a component carries no claims: trust it by its digest");
                tell!("next: wasmtime serve {file}");
            }
            Kind::Graph | Kind::Operator => {
                let allowed = if args.unsigned { " --dangerously-allow-unsigned" } else { "" };
                tell!("next: graphlet graph run -g {file} -i PICTURE{allowed}");
            }
        }
    }
    writeln!(stdout(), "{}", Digest::of(&signed))?;
    Ok(ExitCode::SUCCESS)
}

/// The module with its claims, if it is to have any.
fn signed(args: &Args, module: Vec<u8>, name: &str, version: Option<&str>) -> Result<Vec<u8>> {
    if args.unsigned || args.kind == Kind::Component {
        return Ok(module);
    }
    sign_module(&module, name, version, &args.signing, args.quiet).map_err(|error| match error
        .downcast_ref::<SignError>(
    ) {
        Some(SignError::TooLarge { .. }) if is_graph(args.kind) => {
            Usage::new(error).hint("--unsigned writes it without claims").into()
        }
        _ => error,
    })
}

fn is_graph(kind: Kind) -> bool {
    matches!(kind, Kind::Graph | Kind::Operator)
}

/// Only graphs go without claims; a host of actors runs none that has none.
fn check_unsigned(args: &Args) -> Result<()> {
    if !is_graph(args.kind) {
        return Err(Usage::new("--unsigned is for --as graph and --as operator").into());
    }
    if args.signing.is_given() {
        return Err(Usage::new("--unsigned leaves out what the other options would say").into());
    }
    Ok(())
}

/// Builds a WASM graph of an ONNX file alone or of one operator; it is called after either.
fn build_onnx(args: &Args, home: &Home, begun: Instant) -> Result<ExitCode> {
    let mut display = Display::new(args.quiet);
    let is_onnx = args.spec.extension().is_some_and(|extension| extension == "onnx");
    let (name, built) = match args.kind {
        Kind::Operator if !is_onnx => {
            let name = args.spec.to_string_lossy().into_owned();
            if !args.shapes.is_empty() {
                return Err(Usage::new("--shape is for ONNX files; an operator has --input").into());
            }
            let options = OperatorOptions {
                operator: args.operator.operator(&name)?,
                simd: args.simd.map(Simd::level),
                artifacts: args.artifacts.clone(),
            };
            let built = builder::build_operator(home, &options, &mut display)?;
            (name, built)
        }
        Kind::Graph | Kind::Operator => {
            let name = args.spec.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let options = tensor_options(args, &name)?;
            if args.kind == Kind::Operator {
                only_one_node(home, args)?;
            }
            (name, builder::build_tensors(home, &options, &mut display)?)
        }
        _ => {
            return Err(Usage::new(format!("{} is no model.toml", args.spec.display()))
                .hint("`graphlet init` writes one of it; `--as graph` takes an ONNX file")
                .into());
        }
    };
    display.finish();
    let signed = signed(args, built.module, &name, None)?;
    super::write_whole(&args.output, &signed)?;
    if !args.quiet {
        let (file, took) = (args.output.display(), begun.elapsed().as_secs_f64());
        let (size, weights) = (signed.len() as f64 / 1e6, built.params as f64 / 1e6);
        tell!("wrote {file}: {size:.1} MB ({weights:.1} MB of weights), {took:.1} s");
        tell!("next: graphlet graph inspect {file}");
    }
    writeln!(stdout(), "{}", Digest::of(&signed))?;
    Ok(ExitCode::SUCCESS)
}

/// An operator's file holds nothing else than it, but for constants.
fn only_one_node(home: &Home, args: &Args) -> Result<()> {
    let facts = builder::compiler::facts(home, &args.spec)?;
    let computing = facts.operators.iter().filter(|(name, _)| *name != "Constant");
    match computing.map(|(_, count)| count).sum::<usize>() {
        1 => Ok(()),
        nodes => Err(Usage::new(format!("{} has {nodes} nodes, not one", args.spec.display()))
            .hint("`--as graph` takes any number of them")
            .into()),
    }
}

fn tensor_options(args: &Args, name: &str) -> Result<TensorOptions> {
    let mut shapes = BTreeMap::new();
    for (name, extents) in &args.shapes {
        if shapes.insert(name.clone(), extents.clone()).is_some() {
            return Err(Usage::new(format!("--shape {name} is given twice")).into());
        }
    }
    Ok(TensorOptions {
        onnx: args.spec.clone(),
        name: name.to_owned(),
        shapes,
        simd: args.simd.map(Simd::level),
        artifacts: args.artifacts.clone(),
        ..TensorOptions::default()
    })
}
