//! `graphlet graph`: runs WASM graphs, tensors in and tensors out.

mod tensors;

use std::{
    fs,
    io::{Read as _, Write as _, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use claims::{MAX_MODULE_BYTES, ModuleError, VerifiedModule};
use model_spec::{ModelSpec, parse_labels};
use npy::{write_npy, write_npz};
use serde::Serialize;
use tensor::Tensor;
use wasm_runtime::{Description, GraphExecutor, GraphOptions, Limits};

use self::tensors::{first_values, is, read_inputs};
use crate::{
    exit::Usage,
    files::{printable, read_large_module},
    serve::{code_cache, refused, verified},
    units::parse_size,
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
    /// Print one line of JSON: the class, outputs, milliseconds of loading and of the median run,
    /// and the bytes of memory
    #[arg(long)]
    json: bool,
    /// Linear memory of the graph, weights and all
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = parse_size)]
    memory: u64,
    /// Run this often, and print the median time of a run on stderr
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    repeat: Option<u32>,
    /// Run a module that nobody has signed, also one that is too large to be signed. Whoever made
    /// it can run code here
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
    let module = Module::of(args)?;
    let context = || format!("cannot run {}", args.graph.display());
    let memory_bytes = usize::try_from(args.memory).unwrap_or(usize::MAX);
    let options = GraphOptions {
        cache_dir: Some(code_cache()?),
        limits: Limits { memory_bytes, ..Limits::default() },
        ..GraphOptions::default()
    };
    let mut graph = GraphExecutor::new(&options).with_context(context)?;
    let begun = Instant::now();
    graph.instantiate(module.bytes()).with_context(context)?;
    let loaded = begun.elapsed();
    drop(module);
    let (label, ran) = match &args.image {
        Some(image) => classify(args, &mut graph, image)?,
        None => (None, compute(args, &mut graph)?),
    };
    tell(args, &mut graph, label, loaded, ran)?;
    Ok(ExitCode::SUCCESS)
}

/// A module that this user lets run.
enum Module {
    /// Its claims hold, or it has none and that was allowed.
    Verified(Box<VerifiedModule>),
    /// Larger than what can have claims.
    Large(Vec<u8>),
}

impl Module {
    /// Reads the module. One that is too large to be signed is read when unsigned ones are allowed
    /// and the graph may have as much memory.
    fn of(args: &RunArgs) -> Result<Self> {
        let path = &args.graph;
        let context = || format!("cannot read {}", path.display());
        let size = fs::metadata(path).with_context(context)?.len();
        if size <= MAX_MODULE_BYTES as u64 {
            let verified = verified(path, args.dangerously_allow_unsigned)?;
            return Ok(Module::Verified(Box::new(verified)));
        }
        if !args.dangerously_allow_unsigned {
            let bytes = usize::try_from(size).unwrap_or(usize::MAX);
            return Err(refused(path, ModuleError::TooLarge { bytes }.into()));
        }
        let too_large = || {
            let (path, memory) = (path.display(), args.memory);
            Usage::new(format!("{path} has {size} bytes; a graph here has {memory} for everything"))
                .hint("--memory 2GiB")
        };
        if size > args.memory {
            return Err(too_large().into());
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(path).with_context(context)?;
        // It may have grown meanwhile.
        file.take(args.memory.saturating_add(1)).read_to_end(&mut bytes).with_context(context)?;
        if bytes.len() as u64 > args.memory {
            return Err(too_large().into());
        }
        Ok(Module::Large(bytes))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Module::Verified(module) => module.bytes(),
            Module::Large(bytes) => bytes,
        }
    }
}

/// A picture to its class, in the words of TVM's own runtime for WASM graphs; gives the class and
/// the time of a run.
fn classify(
    args: &RunArgs,
    graph: &mut GraphExecutor,
    image: &Path,
) -> Result<(Option<String>, Duration)> {
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
    let ran = repeat(args, graph)?;
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
    let label = classifier::without_wordnet_id(&labels[best]).to_owned();
    if args.json {
        return Ok((Some(label), ran));
    }
    let (height, width) = spec.input.height_width();
    let mut out = stdout().lock();
    writeln!(out, "original image dimensions: {:?}", (picture.width(), picture.height()))?;
    writeln!(out, "resized image dimensions: {:?}", (width, height))?;
    writeln!(out, "input image belongs to the class `{}`", printable(&label))?;
    Ok((Some(label), ran))
}

/// Tensors to tensors; gives the time of a run.
fn compute(args: &RunArgs, graph: &mut GraphExecutor) -> Result<Duration> {
    let description = graph.description()?.clone();
    let given = read_inputs(&args.inputs, &description.inputs)?;
    for (name, tensor) in &given {
        graph.set_input(name, tensor).map_err(Usage::new)?;
    }
    if let Some(input) = description.inputs.iter().find(|i| given.iter().all(|g| g.0 != i.name)) {
        return Err(Usage::new(format!("no file for the input `{}`", input.name)).into());
    }
    let ran = repeat(args, graph)?;
    let outputs = (0..description.outputs.len()).map(|index| graph.get_output(index));
    let outputs: Vec<_> = outputs.collect::<Result<_, _>>()?;
    let names = description.outputs.iter().map(|output| output.name.as_str());
    let Some(path) = &args.outputs else {
        if args.json {
            return Ok(ran);
        }
        let mut out = stdout().lock();
        for (name, tensor) in names.zip(&outputs) {
            let (dtype, shape) = (tensor.dtype(), tensor.shape());
            let values = first_values(tensor.view());
            writeln!(out, "{}: {dtype} {shape}: {values}", printable(name))?;
        }
        return Ok(ran);
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
    super::write_whole(path, &bytes)?;
    Ok(ran)
}

/// Runs the graph as often as was asked; the median time of a run.
fn repeat(args: &RunArgs, graph: &mut GraphExecutor) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..args.repeat.unwrap_or(1) {
        let begun = Instant::now();
        graph.run()?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// What `--json` prints of a run.
#[derive(Serialize)]
struct Line<'a> {
    /// The class, of a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    outputs: Vec<OutputLine<'a>>,
    milliseconds: Milliseconds,
    /// Linear memory, weights and all.
    memory_bytes: usize,
}

#[derive(Serialize)]
struct OutputLine<'a> {
    name: &'a str,
    dtype: String,
    shape: &'a [usize],
}

#[derive(Serialize)]
struct Milliseconds {
    /// From the module's bytes to the graph that waits for its inputs: code from the cache or
    /// compiled, an instance, its description.
    load: f64,
    /// The median run.
    run: f64,
}

/// Tells how long it took, as was asked: a line of JSON, or one on stderr.
fn tell(
    args: &RunArgs,
    graph: &mut GraphExecutor,
    label: Option<String>,
    loaded: Duration,
    ran: Duration,
) -> Result<()> {
    let ms = |took: Duration| (took.as_secs_f64() * 1e6).round() / 1e3;
    if !args.json {
        if args.repeat.is_some() {
            tell!("run {:.3} ms", ms(ran));
        }
        return Ok(());
    }
    let memory_bytes = graph.memory_bytes();
    let outputs = graph.description()?.outputs.iter().map(|output| OutputLine {
        name: &output.name,
        dtype: output.dtype.to_string(),
        shape: output.shape.extents(),
    });
    let milliseconds = Milliseconds { load: ms(loaded), run: ms(ran) };
    let line = Line { label, outputs: outputs.collect(), milliseconds, memory_bytes };
    writeln!(stdout(), "{}", serde_json::to_string(&line)?)?;
    Ok(())
}

fn inspect(args: &InspectArgs) -> Result<ExitCode> {
    let bytes = read_large_module(&args.module)?;
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
