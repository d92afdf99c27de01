//! `graphlet profile`: where a model's time goes, layer by layer.

use std::{
    fmt::Write as _,
    fs,
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use builder::Layer;
use serde::Serialize;

use crate::{
    card::Card,
    ceiling::Ceiling,
    files::printable,
    profiler::{Profiler, Round, Whole},
    serve::{host, verified},
};

/// Show where a model's time goes, layer by layer
///
/// Runs the module as `graphlet classify` does, verified, in the sandbox, with its deadline, and
/// one kernel call after the other with a mark between them. Prints for each layer the median
/// time, its rate beside the best that this core's 128-bit multiply-adds can do, and its time when
/// it runs at once again, with weights and tensors in the caches.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The signed module, an actor
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// A picture file: JPEG, PNG, WebP, GIF, BMP
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Time every layer this often and print medians
    #[arg(long, value_name = "TIMES", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeat: u32,
    /// Print the COUNT slowest layers only, the slowest first
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Run a module that nobody has signed. Whoever made it can run code here
    #[arg(long)]
    dangerously_allow_unsigned: bool,
}

// The first runs touch memory and fill caches; they are not counted.
const WARM_UPS: u32 = 2;

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let module = verified(&args.module, args.dangerously_allow_unsigned)?;
    let image = fs::read(&args.image)
        .with_context(|| format!("{} cannot be read", args.image.display()))?;
    let mut profiler = Profiler::start(&host()?.build()?, &module, &args.module)?;
    let mut ceiling = Ceiling::new()?;
    let mut samples = Samples::default();
    for round in 0..WARM_UPS + args.repeat {
        // Side by side in time, so that a ratio survives what else the machine does.
        let speed = ceiling.measure()?;
        let whole = profiler.whole(&image).with_context(|| args.image.display().to_string())?;
        let once = profiler.round(&image, false)?;
        let twice = profiler.round(&image, true)?;
        if round >= WARM_UPS {
            samples.ceilings.push(speed);
            samples.wholes.push(whole);
            samples.rounds.push((once, twice));
        }
    }
    let card = Card::of(module.bytes()).ok().flatten();
    let model = card.map(|card| (card.spec.model.name, card.spec.model.version));
    let mut profile = Profile::of(profiler.layers(), samples, model);
    if let Some(top) = args.top {
        profile.layers.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        profile.layers.truncate(top as usize);
    }
    let mut out = stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &profile)?;
        writeln!(out)?;
    } else {
        out.write_all(profile.to_text().as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Default)]
struct Samples {
    /// Multiply-accumulates a second.
    ceilings: Vec<f64>,
    wholes: Vec<Whole>,
    /// Each node once, and each node twice.
    rounds: Vec<(Round, Round)>,
}

/// What was measured; times are medians.
#[derive(Debug, Serialize)]
struct Profile {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    repeat: usize,
    /// This core's best, 10^9 multiply-accumulates a second.
    ceiling_gmacs: f64,
    /// What one mark costs, microseconds; taken off every layer's time.
    mark_us: f64,
    layers: Vec<Row>,
    classes: Vec<ClassRow>,
    whole: WholeRow,
}

#[derive(Debug, Serialize)]
struct Row {
    /// Place in the order of execution, from 1.
    index: usize,
    #[serde(flatten)]
    layer: Layer,
    ms: f64,
    min_ms: f64,
    /// Run at once again: what it takes with everything in the caches.
    again_ms: f64,
    #[serde(flatten)]
    rate: Rate,
}

#[derive(Debug, Serialize)]
struct ClassRow {
    class: String,
    layers: usize,
    macs: u64,
    ms: f64,
    again_ms: f64,
    #[serde(flatten)]
    rate: Rate,
}

#[derive(Debug, Serialize)]
struct Rate {
    /// Part of the layers' time, 0 to 1.
    time_share: f64,
    /// 10^9 multiply-accumulates a second; none for layers without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    gmacs: Option<f64>,
    /// The same as a part of the ceiling; Winograd's method may pass 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    ceiling_share: Option<f64>,
}

/// A request without marks between its layers, and what the layers add up to.
#[derive(Debug, Serialize)]
struct WholeRow {
    layers_ms: f64,
    infer_ms: f64,
    decode_ms: f64,
    preprocess_ms: f64,
    /// Messages, routing, probabilities, the answer.
    rest_ms: f64,
    total_ms: f64,
}

impl Profile {
    fn of(layers: &[Layer], samples: Samples, model: Option<(String, String)>) -> Self {
        let ceiling = middle(samples.ceilings) / 1e9;
        let times = |pick: &dyn Fn(&(Round, Round)) -> Duration| -> Vec<f64> {
            samples.rounds.iter().map(|pair| milliseconds(pick(pair))).collect()
        };
        let once: Vec<f64> = (0..layers.len()).map(|i| middle(times(&|p| p.0.nodes[i]))).collect();
        let sum: f64 = once.iter().sum();
        let rate = |macs: u64, ms: f64| {
            let gmacs = (macs > 0 && ms > 0.0).then(|| macs as f64 / ms / 1e6);
            let ceiling_share = gmacs.map(|gmacs| gmacs / ceiling);
            Rate { time_share: if sum > 0.0 { ms / sum } else { 0.0 }, gmacs, ceiling_share }
        };
        let rows: Vec<Row> = layers
            .iter()
            .zip(&once)
            .enumerate()
            .map(|(i, (layer, &ms))| Row {
                index: i + 1,
                layer: layer.clone(),
                ms,
                min_ms: times(&|p| p.0.nodes[i]).into_iter().fold(f64::INFINITY, f64::min),
                again_ms: middle(times(&|p| p.1.again[i])),
                rate: rate(layer.macs, ms),
            })
            .collect();
        let mut classes: Vec<ClassRow> = Vec::new();
        for row in &rows {
            let known = classes.iter().position(|class| class.class == row.layer.class);
            let at = known.unwrap_or_else(|| {
                let class = row.layer.class.clone();
                let rate = rate(0, 0.0);
                classes.push(ClassRow { class, layers: 0, macs: 0, ms: 0.0, again_ms: 0.0, rate });
                classes.len() - 1
            });
            let class = &mut classes[at];
            class.layers += 1;
            class.macs += row.layer.macs;
            class.ms += row.ms;
            class.again_ms += row.again_ms;
        }
        for class in &mut classes {
            class.rate = rate(class.macs, class.ms);
        }
        classes.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        let whole = |pick: fn(&Whole) -> Duration| {
            middle(samples.wholes.iter().map(|whole| milliseconds(pick(whole))).collect())
        };
        let (model, version) = model.unzip();
        Profile {
            model,
            version,
            repeat: samples.rounds.len(),
            ceiling_gmacs: ceiling,
            mark_us: middle(times(&|p| p.0.mark)) * 1e3,
            layers: rows,
            classes,
            whole: WholeRow {
                layers_ms: sum,
                infer_ms: whole(|whole| whole.infer),
                decode_ms: whole(|whole| whole.decode),
                preprocess_ms: whole(|whole| whole.preprocess),
                rest_ms: whole(|whole| {
                    whole.total.saturating_sub(whole.decode + whole.preprocess + whole.infer)
                }),
                total_ms: whole(|whole| whole.total),
            },
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        let model = match (&self.model, &self.version) {
            (Some(model), Some(version)) => format!("{model} {version}: "),
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "{model}medians of {} runs; ceiling {:.1} GMAC/s (this core's 128-bit multiply-adds)\n",
            self.repeat, self.ceiling_gmacs
        );
        let layers = self.layers.iter().map(|row| {
            let mut cells = vec![row.index.to_string(), row.layer.name.clone()];
            cells.extend([row.layer.class.clone(), extents(&row.layer.shape)]);
            let bytes = row.layer.read_bytes + row.layer.weight_bytes + row.layer.written_bytes;
            cells.extend([millions(row.layer.macs), format!("{:.2}", bytes as f64 / 1e6)]);
            cells.extend(row.rate.cells(row.ms, row.again_ms));
            cells
        });
        let head = ["#", "layer", "kernel", "output", "MMAC", "MB"];
        table(&mut text, &head, 1..4, layers);
        let classes = self.classes.iter().map(|row| {
            let mut cells = vec![row.class.clone(), row.layers.to_string(), millions(row.macs)];
            cells.extend(row.rate.cells(row.ms, row.again_ms));
            cells
        });
        text.push('\n');
        table(&mut text, &["kernel", "layers", "MMAC"], 0..1, classes);
        let whole = &self.whole;
        let beside =
            if whole.layers_ms > 0.0 { whole.infer_ms / whole.layers_ms - 1.0 } else { 0.0 };
        let _ = writeln!(
            text,
            "\nsum of all layers {:.3} ms; the graph without marks {:.3} ms ({:+.1} %)\n\
             outside the graph: decode {:.3} ms, preprocess {:.3} ms, the rest {:.3} ms; whole \
             request {:.3} ms\na mark between two layers costs {:.2} us, which is taken off",
            whole.layers_ms,
            whole.infer_ms,
            beside * 100.0,
            whole.decode_ms,
            whole.preprocess_ms,
            whole.rest_ms,
            whole.total_ms,
            self.mark_us
        );
        text
    }
}

// The columns that both tables end with.
const RATE_HEAD: [&str; 5] = ["ms", "share", "GMAC/s", "ceiling", "again"];

impl Rate {
    fn cells(&self, ms: f64, again_ms: f64) -> [String; 5] {
        [
            format!("{ms:.3}"),
            format!("{:.1} %", self.time_share * 100.0),
            self.gmacs.map(|gmacs| format!("{gmacs:.1}")).unwrap_or_default(),
            self.ceiling_share.map(|part| format!("{:.0} %", part * 100.0)).unwrap_or_default(),
            format!("{again_ms:.3}"),
        ]
    }
}

/// Columns as wide as their widest cell; those of `words` to the left, numbers to the right.
fn table(
    text: &mut String,
    head: &[&str],
    words: std::ops::Range<usize>,
    rows: impl Iterator<Item = Vec<String>>,
) {
    let head = head.iter().chain(&RATE_HEAD).map(|&word| word.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(rows)
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let _ = match words.contains(&column) {
                true => write!(line, "{cell:<width$}  "),
                false => write!(line, "{cell:>width$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn extents(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

fn millions(macs: u64) -> String {
    if macs == 0 { String::new() } else { format!("{:.2}", macs as f64 / 1e6) }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The median; the upper one of two. 0 of nothing.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, class: &str, macs: u64) -> Layer {
        Layer {
            name: name.into(),
            function: name.into(),
            kernels: Vec::new(),
            class: class.into(),
            macs,
            shape: vec![1, 2, 3],
            read_bytes: 1_000_000,
            weight_bytes: 500_000,
            written_bytes: 0,
        }
    }

    fn round(nodes: [u64; 3], again: [u64; 3]) -> (Round, Round) {
        let times = |of: [u64; 3]| of.map(Duration::from_millis).to_vec();
        let mark = Duration::from_micros(2);
        let once = Round { mark, nodes: times(nodes), again: Vec::new() };
        (once, Round { mark, nodes: times(nodes), again: times(again) })
    }

    fn profile() -> Profile {
        let layers = [
            layer("first", "conv2d 1x1", 20_000_000),
            layer("second", "tvm relu", 0),
            layer("third", "conv2d 1x1", 20_000_000),
        ];
        let ms = Duration::from_millis;
        let whole = Whole { decode: ms(2), preprocess: ms(1), infer: ms(8), total: ms(12) };
        let samples = Samples {
            ceilings: vec![1e9, 20e9, 40e9],
            wholes: vec![whole],
            rounds: vec![
                round([9, 2, 5], [1, 1, 1]),
                round([1, 2, 5], [1, 1, 1]),
                round([2, 1, 4], [2, 2, 2]),
            ],
        };
        Profile::of(&layers, samples, Some(("tiny".into(), "1".into())))
    }

    #[test]
    fn times_are_medians_and_rates_are_parts_of_the_ceiling() {
        let profile = profile();
        let ms: Vec<f64> = profile.layers.iter().map(|row| row.ms).collect();
        assert_eq!(ms, [2.0, 2.0, 5.0]);
        assert_eq!(profile.layers[0].min_ms, 1.0);
        assert_eq!(profile.layers[0].again_ms, 1.0);
        assert_eq!(profile.ceiling_gmacs, 20.0);
        let rate = &profile.layers[0].rate;
        assert_eq!((rate.gmacs, rate.ceiling_share), (Some(10.0), Some(0.5)));
        assert_eq!(profile.layers[1].rate.gmacs, None);
        let classes: Vec<_> =
            profile.classes.iter().map(|row| (row.class.as_str(), row.layers, row.ms)).collect();
        assert_eq!(classes, [("conv2d 1x1", 2, 7.0), ("tvm relu", 1, 2.0)]);
        let whole = &profile.whole;
        assert_eq!((whole.layers_ms, whole.infer_ms, whole.rest_ms), (9.0, 8.0, 1.0));
    }

    #[test]
    fn the_table_lists_layers_as_they_run_and_then_their_classes() {
        let text = profile().to_text();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(text.starts_with("tiny 1: medians of 3 runs; ceiling 20.0 GMAC/s"), "{text}");
        let first = [
            "1", "first", "conv2d", "1x1", "1x2x3", "20.00", "1.50", "2.000", "22.2", "%", "10.0",
            "50", "%", "1.000",
        ];
        assert_eq!(lines[3], first, "{text}");
        assert_eq!(lines[4][..3], ["2", "second", "tvm"], "{text}");
        assert_eq!(lines[8][..4], ["conv2d", "1x1", "2", "40.00"], "{text}");
        assert!(text.contains("the graph without marks 8.000 ms (-11.1 %)"), "{text}");
    }
}
