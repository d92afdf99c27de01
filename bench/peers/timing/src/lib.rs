//! What every Rust peer of the bench shares: its arguments, the timing of its runs, its report.
//!
//! A peer gets a model and the input tensor as files and prints lines of JSON: `first` as soon as
//! its first label is known (the driver stamps that line for the cold start), then `done` with the
//! milliseconds of each timed run. Its last output tensor is written to a file, to be compared.

use std::{
    env, fs,
    io::{Write as _, stdout},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

/// What a peer is told: `--model FILE --input FILE --shape N,C,H,W --runs N --warmup N
/// --output FILE`.
#[derive(Debug)]
pub struct Options {
    /// The ONNX file.
    pub model: PathBuf,
    /// The input tensor's shape, NCHW.
    pub shape: Vec<usize>,
    input: PathBuf,
    output: PathBuf,
    runs: usize,
    warmup: usize,
}

impl Options {
    /// Reads the process's arguments.
    ///
    /// # Errors
    /// An unknown, missing or malformed argument.
    pub fn from_args() -> Result<Self> {
        let mut found = std::collections::BTreeMap::new();
        let mut arguments = env::args().skip(1);
        while let Some(name) = arguments.next() {
            let Some(name) = name.strip_prefix("--").map(str::to_owned) else {
                bail!("`{name}` is not an option");
            };
            let value = arguments.next().with_context(|| format!("--{name} has no value"))?;
            found.insert(name, value);
        }
        let mut take =
            |name: &str| found.remove(name).with_context(|| format!("--{name} is missing"));
        let options = Self {
            model: take("model")?.into(),
            shape: take("shape")?
                .split(',')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .context("--shape takes numbers with commas")?,
            input: take("input")?.into(),
            output: take("output")?.into(),
            runs: take("runs")?.parse().context("--runs takes a number")?,
            warmup: take("warmup")?.parse().context("--warmup takes a number")?,
        };
        ensure!(found.is_empty(), "unknown options: {:?}", found.keys());
        Ok(options)
    }

    /// The input tensor: 32-bit floats, little-endian, as many as the shape says.
    ///
    /// # Errors
    /// When the file cannot be read or has another length.
    pub fn input(&self) -> Result<Vec<f32>> {
        let shown = self.input.display();
        let bytes = fs::read(&self.input).with_context(|| format!("cannot read {shown}"))?;
        let (words, rest) = bytes.as_chunks::<4>();
        let wanted: usize = self.shape.iter().product();
        ensure!(
            rest.is_empty() && words.len() == wanted,
            "{shown} has {} bytes, {:?} needs {}",
            bytes.len(),
            self.shape,
            wanted * 4
        );
        Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }
}

/// Calls `infer` (input tensor in memory to output tensor in memory) as often as asked, and
/// reports.
///
/// # Errors
/// What `infer` gives, and what printing and writing give.
pub fn run(options: &Options, mut infer: impl FnMut() -> Result<Vec<f32>>) -> Result<()> {
    let mut output = infer()?;
    let label =
        output.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |best| best.0);
    let mut out = stdout().lock();
    writeln!(out, "{{\"event\":\"first\",\"label\":{label}}}")?;
    out.flush()?;
    for _ in 0..options.warmup {
        infer()?;
    }
    let mut times = Vec::with_capacity(options.runs);
    for _ in 0..options.runs {
        let begun = Instant::now();
        output = infer()?;
        times.push(format!("{:.4}", begun.elapsed().as_secs_f64() * 1e3));
    }
    let bytes: Vec<u8> = output.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shown = options.output.display();
    fs::write(&options.output, bytes).with_context(|| format!("cannot write {shown}"))?;
    writeln!(out, "{{\"event\":\"done\",\"ms\":[{}]}}", times.join(","))?;
    Ok(())
}
