//! `graphlet graph`: runs WASM graphs, tensors in and tensors out.

use std::{
    fs,
    io::{Write as _, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, bail};
use model_spec::{ModelSpec, parse_labels};
use npy::{read_npy, read_npz, write_npy, write_npz};
use tensor::{DType, Tensor, TensorView};
use wasm_runtime::{Description, GraphExecutor, GraphOptions, TensorInfo};

use crate::{
    exit::Usage,
    files::{printable, read_module},
    serve::{code_cache, verified},
};

/// Run WASM graphs: tensors or a picture in, tensors or a label out
///
/// `graphlet build --as graph` makes them.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Run(RunArgs),
    Inspect(InspectArgs),
}

/// Run a WASM graph on a picture or on tensors
///
/// With a picture, prints its size, the size that the model reads, and the best class. With
/// tensors (.npy files in the order of the graph's inputs, or NAME=FILE.npy, or one .npz by their
/// names), prints the outputs or writes them to a file.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The WASM graph, signed as all modules are
    #[arg(short = 'g', long = "wasm-graph-file", value_name = "MODULE")]
    graph: PathBuf,
    /// The picture: JPEG, PNG, WebP, GIF, BMP
    #[arg(short = 'i', long = "input-data-file", value_name = "IMAGE", conflicts_with = "inputs")]
    image: Option<PathBuf>,
    /// Names of the classes, one a line. Default: those that the graph carries
    #[arg(short = 'l', long = "label-class-file", value_name = "FILE", requires = "image")]
    labels: Option<PathBuf>,
    /// The graph's inputs as files of NumPy
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "image")]
    inputs: Vec<String>,
    /// Where to write the outputs: a .npz, or a .npy for the only one. Default: print them
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    outputs: Option<PathBuf>,
    /// Run this often, and print the median time of a run on stderr
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    repeat: Option<u32>,
    /// Run a module that nobody has signed. Whoever made it can run code here
    #[arg(long)]
    dangerously_allow_unsigned: bool,
}

/// Show what a WASM graph reads and gives, without running it
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The WASM graph
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// Print the description as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => run_graph(args),
        Command::Inspect(args) => inspect(args),
    }
}

fn run_graph(args: &RunArgs) -> Result<ExitCode> {
    if let Some(path) = &args.outputs {
        super::folder_of(path)?;
    }
    let module = verified(&args.graph, args.dangerously_allow_unsigned)?;
    let context = || format!("cannot run {}", args.graph.display());
    let options = GraphOptions { cache_dir: Some(code_cache()?), ..GraphOptions::default() };
    let mut graph = GraphExecutor::new(&options).with_context(context)?;
    graph.instantiate(module.bytes()).with_context(context)?;
    match &args.image {
        Some(image) => classify(args, &mut graph, image)?,
        None => compute(args, &mut graph)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A picture to its class, in the words of TVM's own runtime for WASM graphs.
fn classify(args: &RunArgs, graph: &mut GraphExecutor, image: &Path) -> Result<()> {
    let description = graph.description()?;
    let name = args.graph.display();
    let spec = description.spec.clone().ok_or_else(|| {
        Usage::new(format!("{name} does not say how a picture becomes its input"))
            .hint("build it from a model.toml, or give it tensors with --inputs")
    })?;
    let spec: ModelSpec =
        serde_json::from_value(spec).with_context(|| format!("{name}: malformed spec"))?;
    let labels = match &args.labels {
        Some(path) => {
            let bytes =
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let labels = parse_labels(&bytes);
            labels.map_err(|error| Usage::new(format!("{}: {error}", path.display())))?
        }
        None => description.labels.clone(),
    };
    let [input] = &description.inputs[..] else { bail!("{name} reads more than a picture") };
    let input = input.clone();
    let transform =
        classifier::transform(&spec).with_context(|| format!("{name}: impossible spec"))?;
    let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let picture = image_input::decode(&bytes, &image_input::Limits::default())
        .with_context(|| image.display().to_string())?;
    let mut tensor = Tensor::zeros(input.dtype, input.shape.clone())?;
    let values = tensor.as_mut_slice::<f32>();
    transform.apply(&picture, values.with_context(|| format!("{name} reads no pictures"))?)?;
    graph.set_input(&input.name, &tensor)?;
    repeat(args, graph)?;
    let output = graph.get_output(0)?;
    let scores = output.as_slice::<f32>().with_context(|| format!("{name} gives no scores"))?;
    if labels.len() != scores.len() {
        let (labels, classes) = (labels.len(), scores.len());
        return Err(Usage::new(format!("{labels} labels, but {name} knows {classes} classes"))
            .hint("-l FILE names the classes, one a line")
            .into());
    }
    let best = (0..scores.len())
        .filter(|&class| scores[class].is_finite())
        .max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
    let best = best.ok_or_else(|| anyhow!("the model has no finite answer"))?;
    let (height, width) = spec.input.height_width();
    let mut out = stdout().lock();
    writeln!(out, "original image dimensions: {:?}", (picture.width(), picture.height()))?;
    writeln!(out, "resized image dimensions: {:?}", (width, height))?;
    let label = printable(classifier::without_wordnet_id(&labels[best]));
    writeln!(out, "input image belongs to the class `{label}`")?;
    Ok(())
}

/// Tensors to tensors.
fn compute(args: &RunArgs, graph: &mut GraphExecutor) -> Result<()> {
    let description = graph.description()?.clone();
    for (name, tensor) in read_inputs(&args.inputs, &description.inputs)? {
        graph.set_input(&name, &tensor).map_err(Usage::new)?;
    }
    repeat(args, graph)?;
    let outputs = (0..description.outputs.len()).map(|index| graph.get_output(index));
    let outputs: Vec<_> = outputs.collect::<Result<_, _>>()?;
    let names = description.outputs.iter().map(|output| output.name.as_str());
    let Some(path) = &args.outputs else {
        let mut out = stdout().lock();
        for (name, tensor) in names.zip(&outputs) {
            let (dtype, shape) = (tensor.dtype(), tensor.shape());
            let values = first_values(tensor.view());
            writeln!(out, "{}: {dtype} {shape}: {values}", printable(name))?;
        }
        return Ok(());
    };
    let bytes = match (&outputs[..], is(path, "npy")) {
        ([only], true) => write_npy(only.view()),
        (_, true) => {
            return Err(Usage::new(format!("{} outputs do not fit one .npy file", outputs.len()))
                .hint("--outputs FILE.npz holds them all")
                .into());
        }
        (_, false) => {
            let named: Vec<_> = names.zip(outputs.iter().map(Tensor::view)).collect();
            write_npz(&named)?
        }
    };
    super::write_whole(path, &bytes)
}

/// Runs the graph, and tells how long it took when that was asked.
fn repeat(args: &RunArgs, graph: &mut GraphExecutor) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..args.repeat.unwrap_or(1) {
        let begun = Instant::now();
        graph.run()?;
        times.push(begun.elapsed());
    }
    if args.repeat.is_some() {
        times.sort();
        eprintln!("run {:.3} ms", times[times.len() / 2].as_secs_f64() * 1e3);
    }
    Ok(())
}

/// The tensors of the files that were named, each with the input that it is for.
fn read_inputs(files: &[String], inputs: &[TensorInfo]) -> Result<Vec<(String, Tensor<'static>)>> {
    if let [file] = files
        && is(Path::new(file), "npz")
    {
        let bytes = fs::read(file).with_context(|| format!("cannot read {file}"))?;
        return read_npz(&bytes).with_context(|| file.clone());
    }
    let mut unnamed = inputs.iter();
    let mut tensors = Vec::new();
    for file in files {
        // A name may hold anything, so it ends at the last sign before the file's.
        let (name, file) = match file.rsplit_once('=') {
            Some((name, file)) => (name.to_owned(), file),
            None => {
                let next = unnamed.next().ok_or_else(|| {
                    Usage::new(format!("{} files for {} inputs", files.len(), inputs.len()))
                })?;
                (next.name.clone(), file.as_str())
            }
        };
        let bytes = fs::read(file).with_context(|| format!("cannot read {file}"))?;
        let tensor = read_npy(&bytes).with_context(|| file.to_owned())?;
        // NumPy knows no bfloat16; raw pairs of bytes are taken for it above.
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

// As many as fit a line.
const SHOWN_VALUES: usize = 8;

/// The first elements as text.
fn first_values(tensor: TensorView<'_>) -> String {
    macro_rules! values {
        ($type:ty) => {
            tensor.as_slice::<$type>().map(|values| show(values)).unwrap_or_default()
        };
    }
    match tensor.dtype() {
        DType::FLOAT16 => values!(half::f16),
        DType::BFLOAT16 => values!(half::bf16),
        DType::FLOAT32 => values!(f32),
        DType::FLOAT64 => values!(f64),
        DType::INT8 => values!(i8),
        DType::INT16 => values!(i16),
        DType::INT32 => values!(i32),
        DType::INT64 => values!(i64),
        DType::UINT8 => values!(u8),
        DType::UINT16 => values!(u16),
        DType::UINT32 => values!(u32),
        DType::UINT64 => values!(u64),
        DType::BOOL => show(&tensor.as_bytes().iter().map(|&byte| byte != 0).collect::<Vec<_>>()),
        _ => String::new(),
    }
}

fn show<T: std::fmt::Display>(values: &[T]) -> String {
    let shown = values.iter().take(SHOWN_VALUES);
    let mut text = shown.map(ToString::to_string).collect::<Vec<_>>().join(" ");
    if values.len() > SHOWN_VALUES {
        text.push_str(" …");
    }
    text
}

fn inspect(args: &InspectArgs) -> Result<ExitCode> {
    let bytes = read_module(&args.module)?;
    let name = args.module.display();
    let section = claims::custom_section(&bytes, builder::GRAPH_SECTION)
        .with_context(|| name.to_string())?
        .ok_or_else(|| {
            Usage::new(format!("{name} is no WASM graph"))
                .hint(format!("graphlet inspect {name}   (shows what it is)"))
        })?;
    let description = Description::parse(section).with_context(|| name.to_string())?;
    let mut out = stdout().lock();
    if args.json {
        let value: serde_json::Value = serde_json::from_slice(section)?;
        writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Description { name, version, inputs, outputs, .. } = &description;
    writeln!(out, "model    {} {}", printable(name), printable(version))?;
    for (kind, tensors) in [("input", inputs), ("output", outputs)] {
        for tensor in tensors {
            let (name, dtype, shape) = (printable(&tensor.name), tensor.dtype, &tensor.shape);
            writeln!(out, "{kind:<8} {name}: {dtype} {shape}")?;
        }
    }
    if description.spec.is_some() {
        writeln!(out, "pictures yes, {} labels", description.labels.len())?;
    }
    Ok(ExitCode::SUCCESS)
}
