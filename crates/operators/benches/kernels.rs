//! Prints how fast each class of layer runs under wasmtime, beside the core's own 128-bit FMA
//! loop, and tells when one became slower than the committed figures.
//!
//! ```text
//! cargo bench -p operators --bench kernels -- [relaxed|simd128|scalar] [name part] [flags]
//!   --compare    name the cases whose ratio fell by more than 15 % against benches/ratios.json
//!   --write      measure three times and write benches/ratios.json anew
//!   --unchecked  leave out the comparison of outputs with the reference
//! ```
//!
//! Times are minima of many runs, and a ratio is that of the best of some rounds, each beside a
//! run of the native loop; on a shared machine only the ratios mean anything. `cold` cases go through so many
//! copies of their weights that each is read from memory, as inside a whole model. `--compare`
//! ends with code 1 when a case became slower; it repeats such a case first.
#![expect(clippy::print_stdout, reason = "a report is this program's purpose")]
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "FMA instructions"))]

#[path = "support/classes.rs"]
mod classes;
#[path = "../tests/support/guest.rs"]
mod guest;
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, iter};

use classes::{Class, Weights};
use guest::{Guest, Place, Placed, Running, Variant};
use support::Case;

/// Weights of a cold case take so many bytes together: more than any second-level cache, and most
/// of what is left of a third-level one that others use too.
const COLD_BYTES: usize = 96 << 20;

/// How much slower than committed a case may be.
const SLACK: f64 = 0.15;

/// How often everything is measured before it is written down: a noisy minute then does not show.
const PASSES: usize = 3;

/// Rounds of a case, and how often a case that seems slower is measured again.
const ROUNDS: usize = 3;
const REPEATS: usize = 3;

/// Time for the runs of one round.
const ROUND: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let flag = |name: &str| words.iter().any(|word| word == name);
    let mut plain = words.iter().filter(|word| !word.starts_with("--")).peekable();
    let variant = match plain.peek().map(|word| word.as_str()) {
        Some("simd128") => Variant::Simd128,
        Some("scalar") => Variant::Scalar,
        _ => Variant::Relaxed,
    };
    plain.next_if(|word| ["relaxed", "simd128", "scalar"].contains(&word.as_str()));
    let part = plain.next().map_or("", String::as_str);
    let Some(file) = guest::build(variant) else {
        println!("skipped: no toolchain here builds for wasm32-unknown-unknown");
        return ExitCode::SUCCESS;
    };
    let mut bench = Bench { guest: Guest::load(&file), checked: !flag("--unchecked") };
    let mut measured = BTreeMap::new();
    for _ in 0..if flag("--write") { PASSES } else { 1 } {
        for class in classes::all().into_iter().filter(|class| class.name.contains(part)) {
            bench.class(&class, &mut measured);
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/ratios.json");
    if flag("--write") {
        fs::write(&path, to_json(&measured)).expect("benches/ratios.json can be written");
    }
    if flag("--compare") {
        let text = fs::read_to_string(&path).expect("benches/ratios.json is committed");
        let slower = bench.slower(&from_json(&text), &measured);
        if !slower.is_empty() {
            println!("slower than benches/ratios.json by more than {:.0} %:", SLACK * 100.0);
            slower.iter().for_each(|line| println!("  {line}"));
            return ExitCode::FAILURE;
        }
        println!("no kernel is slower than benches/ratios.json says");
    }
    ExitCode::SUCCESS
}

/// What the cases run in.
struct Bench {
    guest: Guest,
    checked: bool,
}

/// The best of some rounds, of the kernel and of the native loop each: a disturbed native loop must
/// not make a kernel look fast.
#[derive(Clone, Copy)]
struct Figure {
    /// Multiply-adds a second, in thousand millions.
    rate: f64,
    native: f64,
}

impl Figure {
    fn best(self, other: Self) -> Self {
        Self { rate: self.rate.max(other.rate), native: self.native.max(other.native) }
    }

    fn ratio(self) -> f64 {
        self.rate / self.native
    }
}

impl Bench {
    /// Measures and prints a class.
    fn class(&mut self, class: &Class, measured: &mut BTreeMap<String, Figure>) {
        let (mut work, mut seconds, mut native) = (0.0, 0.0, 0.0);
        for case in &class.cases {
            let figure = self.measure(case, class.weights);
            let name = name(class, case);
            let (rate, ratio) = (figure.rate, figure.ratio());
            let own = case.work() / rate / 1e9;
            println!("{name:64} {:8.3} ms {rate:6.1} G/s {ratio:5.2}", own * 1e3);
            let best = measured.entry(name).or_insert(figure);
            *best = best.best(figure);
            work += case.work();
            seconds += own;
            native += case.work() / ratio;
        }
        let rate = work / seconds / 1e9;
        let title = format!("{} all", class.name);
        println!("{title:64} {:8.3} ms {rate:6.1} G/s {:5.2}\n", seconds * 1e3, work / native);
    }

    fn measure(&mut self, case: &Case, weights: Weights) -> Figure {
        let call = case.prepare(1);
        let mut running = self.guest.start();
        let first = running.prepare(&call, Place::Aligned, 4);
        assert_eq!(running.call(&first), Ok(0), "{case:?}");
        if self.checked {
            call.check(&running.output(&first)).expect("the reference's result");
        }
        let copies = match weights {
            Weights::Warm => 1,
            Weights::Cold => COLD_BYTES.div_ceil(call.weights.len() * 4),
        };
        let mut calls = vec![first];
        for _ in 1..copies {
            let other = running.with_other_weights(&calls[0], &call);
            calls.push(other);
        }
        let rounds = iter::repeat_with(|| {
            let native = native_peak();
            let seconds = shortest(&mut running, &calls, weights);
            Figure { rate: case.work() / seconds / 1e9, native }
        });
        rounds.take(ROUNDS).reduce(Figure::best).expect("there are some rounds")
    }

    /// Lines about the cases that are slower than they were, measured again before they are named.
    fn slower(
        &mut self,
        committed: &BTreeMap<String, f64>,
        measured: &BTreeMap<String, Figure>,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for class in classes::all() {
            for case in &class.cases {
                let name = name(&class, case);
                let (Some(was), Some(now)) = (committed.get(&name), measured.get(&name)) else {
                    continue;
                };
                let (mut now, mut repeats) = (*now, 0);
                while now.ratio() < was * (1.0 - SLACK) && repeats < REPEATS {
                    now = now.best(self.measure(case, class.weights));
                    repeats += 1;
                }
                if now.ratio() < was * (1.0 - SLACK) {
                    lines.push(format!("{name}: {:.3} instead of {was:.3}", now.ratio()));
                }
            }
        }
        lines
    }
}

/// What a case is called in the report and in the committed file.
fn name(class: &Class, case: &Case) -> String {
    format!("{} {}", class.name, classes::describe(case))
}

/// Seconds of the shortest of many calls; of cold ones the mean of a whole round, since each reads
/// other weights.
fn shortest(running: &mut Running, calls: &[Placed], weights: Weights) -> f64 {
    let begin = Instant::now();
    let mut best = f64::MAX;
    let mut runs = 0;
    while runs < 2 || (runs < 300 && begin.elapsed() < ROUND) {
        let start = Instant::now();
        for call in calls {
            assert_eq!(running.call(call), Ok(0));
        }
        best = best.min(start.elapsed().as_secs_f64() / calls.len() as f64);
        runs += match weights {
            Weights::Warm => 1,
            // Going through all the copies once is many runs.
            Weights::Cold => 100,
        };
    }
    best
}

/// Multiply-adds a second, in thousand millions, that the core does in 128-bit FMA.
#[cfg(target_arch = "x86_64")]
fn native_peak() -> f64 {
    use std::arch::x86_64::{_mm_fmadd_ps, _mm_set1_ps};
    use std::hint::black_box;

    const TURNS: u32 = 1 << 17;

    #[target_feature(enable = "fma")]
    fn turns() {
        let factor = black_box(_mm_set1_ps(0.5));
        let mut sums = black_box([_mm_set1_ps(1.0); 12]);
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm_fmadd_ps(factor, factor, *sum);
            }
        }
        black_box(sums);
    }

    if !std::is_x86_feature_detected!("fma") {
        return f64::INFINITY;
    }
    let runs = (0..60).map(|_| {
        let start = Instant::now();
        // SAFETY: the CPU has FMA, as tested above.
        unsafe { turns() };
        start.elapsed().as_secs_f64()
    });
    f64::from(TURNS) * 12.0 * 4.0 / runs.fold(f64::MAX, f64::min) / 1e9
}

#[cfg(not(target_arch = "x86_64"))]
fn native_peak() -> f64 {
    f64::INFINITY
}

/// One line for each case, so that a change shows as a change of lines.
fn to_json(figures: &BTreeMap<String, Figure>) -> String {
    let lines: Vec<String> =
        figures.iter().map(|(name, best)| format!("  \"{name}\": {:.4}", best.ratio())).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

/// Reads what [`to_json`] writes.
fn from_json(text: &str) -> BTreeMap<String, f64> {
    let pair = |line: &str| {
        let (name, ratio) = line.trim().trim_end_matches(',').rsplit_once(": ")?;
        Some((name.trim_matches('"').to_owned(), ratio.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}
