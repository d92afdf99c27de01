//! `graphlet tune`: times the ways in which a model's layers can be computed, and writes down the
//! fastest.

use std::{
    collections::BTreeMap,
    fs,
    io::{IsTerminal as _, Write as _, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, bail};
use builder::{
    BuildOptions, EngineId, EngineLog, GuestKind, Home, Silent, TuningLog, read_model, tuning_path,
};
use claims::{Policy, Timestamp, verify};
use host::Host;

use crate::{
    paths,
    profiler::Profiler,
    tuner::{self, Bench, Choices, Offers, Outcome, Step},
    units::{parse_duration, show_duration},
};

use super::build::Simd;

/// Find the fastest way to compute each layer of a model, by timing
///
/// Builds the model with the default kernels and with each other variant that there is (direct or
/// Winograd's convolution, other loops for what TVM compiles), runs the modules in turns inside
/// the sandbox, and writes what it found to a tuning log, which `graphlet build` uses. Ctrl-C
/// keeps what is measured; the next run goes on from there.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model's description (docs/model-toml.md)
    #[arg(value_name = "MODEL.toml")]
    spec: PathBuf,
    /// The tuning log, which is added to [default: what the model.toml names, else tuning.json
    /// beside it]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Time each variant this often, in turns with the default
    #[arg(long, value_name = "TIMES", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// Stop after this time, with what is measured until then
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    time: Option<Duration>,
    /// Vector instructions the modules may use, over the model.toml's
    #[arg(long, value_enum)]
    simd: Option<Simd>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let begun = Instant::now();
    let home = Home::find(paths::cache_dir()?)?;
    let (spec, ..) = read_model(&home, &args.spec)?;
    let simd = args.simd.map_or(spec.compile.simd, Simd::level);
    let path = match &args.output {
        Some(path) => path.clone(),
        None => tuning_path(spec.compile.tuning.as_deref(), &args.spec),
    };
    super::folder_of(&path)?;
    let engine = EngineId::current(simd, &processor());
    let mut log = TuningLog::load(&path)?.unwrap_or_default();
    let mut part = take_part(&mut log, engine);
    let (height, width) = spec.input.height_width();
    let mut timing = Timing {
        options: BuildOptions {
            spec: args.spec.clone(),
            kind: GuestKind::Actor,
            simd: Some(simd),
            artifacts: None,
        },
        home,
        // Modules of one run are of no use to the next: nothing is put into the code cache.
        host: Host::builder().build()?,
        picture: noise(width, height),
        interrupted: interrupted()?,
        until: args.time.map(|time| begun + time),
        log,
        path,
        line: stderr().is_terminal(),
    };
    let outcome = tuner::tune(&mut timing, &mut part, args.rounds)?;
    timing.end_line();
    report(&timing, &part, outcome, begun.elapsed())
}

/// Takes the part that this engine and processor measured out of the log, or makes one; parts at
/// this SIMD level of other engines can never be used again, and leave it.
fn take_part(log: &mut TuningLog, engine: EngineId) -> EngineLog {
    let known = log.engines.iter().position(|part| part.engine == engine);
    let part = known.map(|at| log.engines.remove(at));
    log.engines.retain(|part| {
        let same_engine =
            part.engine.wasmtime == engine.wasmtime && part.engine.kernels == engine.kernels;
        same_engine || part.engine.simd != engine.simd
    });
    part.unwrap_or(EngineLog { engine, layers: BTreeMap::new() })
}

/// Real modules and a real clock.
struct Timing {
    home: Home,
    options: BuildOptions,
    host: Host,
    picture: Vec<u8>,
    interrupted: Arc<AtomicBool>,
    until: Option<Instant>,
    /// All parts but the one that is measured.
    log: TuningLog,
    path: PathBuf,
    /// Whether progress may be written over.
    line: bool,
}

impl Bench for Timing {
    type Module = Profiler;

    fn build(&mut self, choices: &Choices) -> Result<(Profiler, Offers)> {
        let built = builder::build_with_choices(&self.home, &self.options, choices, &mut Silent)
            // Ctrl-C reaches the compiler as well; what it says then is of no use.
            .map_err(|error| match self.interrupted.load(Ordering::Relaxed) {
                true => anyhow!("interrupted while a module was built"),
                false => error.into(),
            })?;
        let offers = Offers::of(&built.report)?;
        let mut policy = Policy::at(Timestamp::from(SystemTime::now()));
        // Built by this process a moment ago.
        policy.dangerously_allow_unsigned = true;
        let module = verify(built.module, &policy)?;
        let profiler = Profiler::start(&self.host, &module, &self.options.spec)?;
        if profiler.layers().len() != offers.nodes.len() {
            bail!("the compiler's report lists other nodes than the module");
        }
        Ok((profiler, offers))
    }

    fn time(&mut self, module: &mut Profiler) -> Result<Vec<f64>> {
        let round = module.round(&self.picture, false)?;
        Ok(round.nodes.iter().map(|took| took.as_secs_f64() * 1e6).collect())
    }

    fn stopped(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
            || self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn tell(&mut self, step: Step) {
        match step {
            Step::Base => self.say("building the model with its defaults"),
            Step::Plan { layers, known, left, builds } => self.say(&format!(
                "{layers} layers can be computed in several ways: {known} variants are known, \
                 {left} are left, in {builds} builds"
            )),
            Step::Build { number, variants } => {
                self.say(&format!("build {number}: {variants} variants"));
            }
            Step::Round { number, done, of } if self.line => {
                eprint!("\rbuild {number}: timed {done} of {of} times");
                if done == of {
                    tell!("");
                }
            }
            Step::Round { number, done, of } if done == of => {
                self.say(&format!("build {number}: timed {done} times"));
            }
            Step::Round { .. } => {}
        }
    }

    fn save(&mut self, part: &EngineLog) -> Result<()> {
        let mut log = self.log.clone();
        // The last part decides where several are good for a build.
        log.engines.push(part.clone());
        super::write_whole(&self.path, log.to_json().as_bytes())
    }
}

impl Timing {
    fn say(&self, text: &str) {
        tell!("{text}");
    }

    fn end_line(&self) {
        if self.line && self.stopped() {
            tell!("");
        }
    }
}

/// What was found, on stdout: layer, choice, and how the variants compare with the default.
fn report(timing: &Timing, part: &EngineLog, outcome: Outcome, took: Duration) -> Result<ExitCode> {
    let mut out = stdout().lock();
    for (name, layer) in &part.layers {
        let tried: Vec<String> = layer
            .tried
            .iter()
            .map(|(variant, trial)| format!("{variant} {:.2}", trial.ratio))
            .collect();
        let default = &layer.default;
        writeln!(out, "{}  {name}  ({default} 1, {})", layer.choice, tried.join(", "))?;
    }
    let path = timing.path.display();
    tell!("wrote {path}: {} variants timed in {}", outcome.timed, show_duration(took));
    if outcome.left > 0 {
        let interrupted = timing.interrupted.load(Ordering::Relaxed);
        let why = if interrupted { "interrupted" } else { "out of time" };
        tell!("{why}: {} variants are left; run the command again to go on", outcome.left);
        return Ok(if interrupted { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    Ok(ExitCode::SUCCESS)
}

/// A flag that Ctrl-C sets; a second Ctrl-C ends the process at once.
fn interrupted() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for signals")?;
    let seen = Arc::clone(&flag);
    let (ready, wait) = std::sync::mpsc::channel();
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut signals = match signal(SignalKind::interrupt()) {
                Ok(signals) => signals,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            signals.recv().await;
            seen.store(true, Ordering::Relaxed);
            tell!("\nstopping; what is measured is kept");
            signals.recv().await;
            std::process::exit(1);
        });
    })?;
    wait.recv().context("cannot wait for signals")?.context("cannot wait for signals")?;
    Ok(flag)
}

/// The processor's name, as far as the system tells it.
fn processor() -> String {
    let known = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = known.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// A picture in which no two neighbours are alike, as BMP with rows padded to four bytes; always
/// the same.
fn noise(width: usize, height: usize) -> Vec<u8> {
    let row = (width * 3).next_multiple_of(4);
    let (header, size) = (54, row * height);
    let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = b"BM".to_vec();
    for value in [header + size, 0, header, 40, width, height, 1 | 24 << 16, 0, size, 0, 0, 0, 0] {
        bytes.extend_from_slice(&word(value));
    }
    let mut state = 1_u32;
    bytes.extend((0..size).map(|_| {
        // Knuth's multiplicative congruential generator; its upper bits are the random ones.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    }));
    bytes
}

#[cfg(test)]
mod tests {
    use model_spec::SimdLevel;

    use super::*;

    #[test]
    fn the_picture_is_one_and_always_the_same() {
        for (width, height) in [(1, 1), (3, 2), (224, 224)] {
            let picture = noise(width, height);
            assert_eq!(picture, noise(width, height));
            let read = image_input::decode(&picture, &image_input::Limits::default()).unwrap();
            assert_eq!((read.width() as usize, read.height() as usize), (width, height));
        }
    }

    #[test]
    fn parts_that_can_never_be_used_again_leave_the_log() {
        let engine = |wasmtime: &str, simd: &str, processor: &str| EngineId {
            wasmtime: wasmtime.into(),
            simd: simd.into(),
            ..EngineId::current(SimdLevel::Relaxed, processor)
        };
        let current = EngineId::current(SimdLevel::Relaxed, "this");
        let parts = [
            engine("1", "relaxed", "this"),
            engine("1", "simd128", "this"),
            current.clone(),
            EngineId::current(SimdLevel::Relaxed, "other"),
        ];
        let mut log = TuningLog::default();
        log.engines
            .extend(parts.clone().map(|engine| EngineLog { engine, layers: BTreeMap::new() }));
        assert_eq!(take_part(&mut log, current.clone()).engine, current);
        let left: Vec<_> = log.engines.iter().map(|part| part.engine.clone()).collect();
        assert_eq!(left, [parts[1].clone(), parts[3].clone()]);
    }
}
