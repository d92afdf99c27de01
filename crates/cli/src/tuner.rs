//! What `graphlet tune` does, apart from building and clocks: which variants are left to be
//! timed, which of them share a build, what a timing says, and what the log keeps.
//!
//! Every variant is timed against the default in the same minutes: a module with the defaults and
//! one with variants take turns, and a variant's figure is the median of its ratios. Layers of one
//! shape are one, their times added up.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use builder::{EngineLog, LayerLog, Trial};
use serde_json::Value;

/// A variant that is not this much faster than the default leaves it in place: the noise of a
/// machine that does other things is of that size.
const WORTH: f64 = 0.97;

/// And one that saves less than this, microseconds, does too: clock and marks are not finer.
const WORTH_US: f64 = 1.0;

/// Rounds that a timing must have when it is cut short; fewer say nothing.
const FEWEST_ROUNDS: u32 = 5;

/// Rounds before the first that counts.
const WARM_UPS: u32 = 2;

/// Variants by layer.
pub type Choices = BTreeMap<String, String>;

/// What a build says of its layers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offers {
    /// What there is to choose from, the default first, by layer.
    pub layers: BTreeMap<String, Vec<String>>,
    /// For each node of the graph, in the order in which they run, its layers.
    pub nodes: Vec<Vec<String>>,
}

/// Builds modules and times their nodes.
pub trait Bench {
    /// A module that can be run.
    type Module;

    /// Builds a module in which these layers take these variants, and the others their defaults.
    fn build(&mut self, choices: &Choices) -> Result<(Self::Module, Offers)>;

    /// Runs a module once: microseconds of each node.
    fn time(&mut self, module: &mut Self::Module) -> Result<Vec<f64>>;

    /// Whether to stop here.
    fn stopped(&self) -> bool;

    /// Tells the user of a step.
    fn tell(&mut self, step: Step);

    /// Keeps what is known.
    fn save(&mut self, log: &EngineLog) -> Result<()>;
}

/// One thing worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The module with the defaults is being built.
    Base,
    /// What there is to do.
    Plan {
        /// Layers that can be computed in several ways.
        layers: usize,
        /// Variants that the log has already.
        known: usize,
        /// Variants left to be timed, and builds that takes.
        left: usize,
        builds: usize,
    },
    /// The module of this build, counted from 1, is being built.
    Build { number: usize, variants: usize },
    /// It has been timed so often.
    Round { number: usize, done: u32, of: u32 },
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Variants that were timed.
    pub timed: usize,
    /// Variants that were not, because it was stopped.
    pub left: usize,
}

impl Offers {
    /// Reads them from the compiler's report.
    ///
    /// # Errors
    /// When the report has no such part.
    pub fn of(report: &Value) -> Result<Self> {
        let words = |value: &Value| -> Option<Vec<String>> {
            value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
        };
        let layers = report["tuning"]["layers"].as_object().and_then(|layers| {
            let offered = |(name, layer): (&String, &Value)| {
                let words = words(&layer["offered"]).filter(|words| !words.is_empty());
                words.map(|words| (name.clone(), words))
            };
            layers.iter().map(offered).collect::<Option<_>>()
        });
        let nodes = report["nodes"].as_array().and_then(|nodes| {
            nodes.iter().map(|node| words(&node["layers"])).collect::<Option<Vec<_>>>()
        });
        let (layers, nodes) = layers.zip(nodes).context("the compiler's report is malformed")?;
        Ok(Offers { layers, nodes })
    }

    fn default_of(&self, layer: &str) -> Option<&str> {
        self.layers.get(layer)?.first().map(String::as_str)
    }

    /// Sum over the nodes that compute `layer`; `None` if none does.
    fn sum(&self, layer: &str, times: &[f64]) -> Option<f64> {
        let of_layer = |(layers, _): &(&Vec<String>, &f64)| layers.iter().any(|l| l == layer);
        let mut found = self.nodes.iter().zip(times).filter(of_layer).map(|(_, time)| *time);
        let first = found.next()?;
        Some(first + found.sum::<f64>())
    }
}

/// Times all variants that `log` does not have yet, and keeps each that is timed.
///
/// # Errors
/// When something cannot be built, run or saved.
pub fn tune<B: Bench>(bench: &mut B, log: &mut EngineLog, rounds: u32) -> Result<Outcome> {
    bench.tell(Step::Base);
    let (mut base, offers) = bench.build(&Choices::new())?;
    forget(log, &offers);
    let builds = plan(log, &offers);
    let left: usize = builds.iter().map(BTreeMap::len).sum();
    bench.tell(Step::Plan {
        layers: offers.layers.len(),
        known: log.layers.values().map(|layer| layer.tried.len()).sum(),
        left,
        builds: builds.len(),
    });
    // Also layers of which nothing is known yet are in the log: it says what there is.
    bench.save(log)?;
    let mut outcome = Outcome { timed: 0, left };
    for (number, choices) in builds.iter().enumerate().map(|(index, choices)| (index + 1, choices))
    {
        if bench.stopped() {
            break;
        }
        bench.tell(Step::Build { number, variants: choices.len() });
        let (mut module, other) = match bench.build(choices) {
            // Whoever stops it during a build ends the build, too.
            Err(_) if bench.stopped() => break,
            built => built?,
        };
        for _ in 0..WARM_UPS {
            bench.time(&mut base)?;
            bench.time(&mut module)?;
        }
        let mut samples: BTreeMap<&String, Vec<(f64, f64)>> =
            choices.keys().map(|layer| (layer, Vec::new())).collect();
        let mut done = 0;
        while done < rounds && !bench.stopped() {
            // Who goes first changes, so that nobody profits from what the other leaves behind.
            let (default, variant) = if done % 2 == 0 {
                let default = bench.time(&mut base)?;
                (default, bench.time(&mut module)?)
            } else {
                let variant = bench.time(&mut module)?;
                (bench.time(&mut base)?, variant)
            };
            for (layer, samples) in &mut samples {
                if let Some(pair) = offers.sum(layer, &default).zip(other.sum(layer, &variant)) {
                    samples.push(pair);
                }
            }
            done += 1;
            bench.tell(Step::Round { number, done, of: rounds });
        }
        if done < rounds.min(FEWEST_ROUNDS) {
            break;
        }
        for (layer, variant) in choices {
            let Some(trial) = samples.get(layer).and_then(|samples| trial(samples)) else {
                continue;
            };
            let known = log.layers.get_mut(layer).context("planned from the log")?;
            known.tried.insert(variant.clone(), trial);
            known.choice = choice(known);
            outcome.timed += 1;
            outcome.left -= 1;
        }
        bench.save(log)?;
    }
    Ok(outcome)
}

/// Drops what this model or these kernels do not offer, and enters layers that are new.
fn forget(log: &mut EngineLog, offers: &Offers) {
    log.layers.retain(|layer, known| offers.default_of(layer) == Some(known.default.as_str()));
    for (layer, offered) in &offers.layers {
        let Some(default) = offered.first() else { continue };
        let known = log.layers.entry(layer.clone()).or_insert_with(|| LayerLog {
            choice: default.clone(),
            default: default.clone(),
            tried: BTreeMap::new(),
        });
        known.tried.retain(|variant, _| variant != default && offered.contains(variant));
        known.choice = choice(known);
    }
}

/// The variants that are not known yet, in as few builds as possible: a build takes one variant of
/// a layer, and of layers that share a node one only, as nodes are what can be timed.
fn plan(log: &EngineLog, offers: &Offers) -> Vec<Choices> {
    let mut neighbours: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for layers in &offers.nodes {
        for layer in layers {
            let others = layers.iter().filter(|other| *other != layer).map(String::as_str);
            neighbours.entry(layer).or_default().extend(others);
        }
    }
    let mut builds: Vec<Choices> = Vec::new();
    for (layer, offered) in &offers.layers {
        let near = neighbours.get(layer.as_str());
        for variant in offered.iter().skip(1) {
            if log.layers.get(layer).is_some_and(|known| known.tried.contains_key(variant)) {
                continue;
            }
            let fits = |build: &&mut Choices| {
                !build.contains_key(layer)
                    && near.is_none_or(|near| near.iter().all(|other| !build.contains_key(*other)))
            };
            match builds.iter_mut().find(fits) {
                Some(build) => {
                    build.insert(layer.clone(), variant.clone());
                }
                None => builds.push(Choices::from([(layer.clone(), variant.clone())])),
            }
        }
    }
    builds
}

/// Medians of pairs of the default's time and the variant's.
fn trial(samples: &[(f64, f64)]) -> Option<Trial> {
    let ratios = samples.iter().map(|(default, variant)| variant / default);
    let ratio = median(ratios.filter(|ratio| ratio.is_finite()).collect())?;
    Some(Trial {
        ratio: rounded(ratio, 1e4),
        us: rounded(median(samples.iter().map(|pair| pair.1).collect())?, 10.0),
        default_us: rounded(median(samples.iter().map(|pair| pair.0).collect())?, 10.0),
        rounds: u32::try_from(samples.len()).unwrap_or(u32::MAX),
    })
}

/// The fastest variant, if it is worth it.
fn choice(layer: &LayerLog) -> String {
    let fastest = layer.tried.iter().min_by(|a, b| a.1.ratio.total_cmp(&b.1.ratio));
    match fastest {
        Some((variant, trial))
            if trial.ratio < WORTH && trial.default_us - trial.us >= WORTH_US =>
        {
            variant.clone()
        }
        _ => layer.default.clone(),
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

#[cfg(test)]
mod tests {
    use builder::EngineId;
    use model_spec::SimdLevel;

    use super::*;

    /// A machine with a clock that says what the test wants: each variant's microseconds.
    struct Fake {
        costs: BTreeMap<(&'static str, &'static str), f64>,
        offers: Offers,
        builds: Vec<Choices>,
        saved: Vec<EngineLog>,
        /// Calls of `time` after which it is stopped.
        patience: usize,
        timed: usize,
        steps: Vec<Step>,
    }

    impl Bench for Fake {
        type Module = Choices;

        fn build(&mut self, choices: &Choices) -> Result<(Choices, Offers)> {
            self.builds.push(choices.clone());
            Ok((choices.clone(), self.offers.clone()))
        }

        fn time(&mut self, module: &mut Choices) -> Result<Vec<f64>> {
            self.timed += 1;
            let cost = |layer: &String| {
                let default = &self.offers.layers[layer][0];
                let variant = module.get(layer).unwrap_or(default);
                let known = self.costs.iter().find(|(key, _)| key.0 == layer && key.1 == variant);
                // The machine gets slower and slower, for all alike.
                known.map_or(1.0, |(_, cost)| *cost) * (1.0 + self.timed as f64 / 50.0)
            };
            Ok(self.offers.nodes.iter().map(|layers| layers.iter().map(cost).sum()).collect())
        }

        fn stopped(&self) -> bool {
            self.timed >= self.patience
        }

        fn tell(&mut self, step: Step) {
            self.steps.push(step);
        }

        fn save(&mut self, log: &EngineLog) -> Result<()> {
            self.saved.push(log.clone());
            Ok(())
        }
    }

    fn offers(layers: &[(&str, &[&str])], nodes: &[&[&str]]) -> Offers {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Offers {
            layers: layers.iter().map(|(name, offered)| ((*name).into(), words(offered))).collect(),
            nodes: nodes.iter().map(|layers| words(layers)).collect(),
        }
    }

    fn fake() -> Fake {
        Fake {
            costs: BTreeMap::from([
                (("a", "direct"), 100.0),
                (("a", "winograd"), 60.0),
                (("b", "direct"), 100.0),
                (("b", "winograd"), 98.0),
                (("c", "fused"), 10.0),
                (("c", "wide"), 9.0),
                (("c", "plain"), 8.0),
                (("d", "fused"), 0.5),
                (("d", "plain"), 0.2),
            ]),
            offers: offers(
                &[
                    ("a", &["direct", "winograd"]),
                    ("b", &["direct", "winograd"]),
                    ("c", &["fused", "plain", "wide"]),
                    ("d", &["fused", "plain"]),
                ],
                &[&["a"], &[], &["a"], &["b"], &["c"], &["d"]],
            ),
            builds: Vec::new(),
            saved: Vec::new(),
            patience: usize::MAX,
            timed: 0,
            steps: Vec::new(),
        }
    }

    fn empty() -> EngineLog {
        let engine = EngineId::current(SimdLevel::Relaxed, "a processor");
        EngineLog { engine, layers: BTreeMap::new() }
    }

    fn chosen(log: &EngineLog) -> Vec<(&str, &str)> {
        log.layers.iter().map(|(name, layer)| (name.as_str(), layer.choice.as_str())).collect()
    }

    #[test]
    fn the_fastest_variant_is_chosen_unless_noise_could_be_the_reason() {
        let (mut bench, mut log) = (fake(), empty());
        let outcome = tune(&mut bench, &mut log, 10).unwrap();
        assert_eq!(outcome, Outcome { timed: 5, left: 0 });
        let expected = [("a", "winograd"), ("b", "direct"), ("c", "plain"), ("d", "fused")];
        assert_eq!(chosen(&log), expected);
        let trial = &log.layers["a"].tried["winograd"];
        assert_eq!(trial.rounds, 10);
        // The clock drifts by 2 % a run, and still the ratio is right to a few parts in a hundred.
        assert!((trial.ratio - 0.6).abs() < 0.03, "{trial:?}");
        assert!(trial.default_us > 200.0, "both nodes of the shape: {trial:?}");
        assert_eq!(bench.saved.last(), Some(&log));
    }

    #[test]
    fn variants_share_builds_but_not_layers_or_nodes() {
        let offers = offers(
            &[("a", &["x", "y"]), ("b", &["x", "y", "z"]), ("c", &["x", "y"])],
            &[&["a", "b"], &["c"]],
        );
        let mut log = empty();
        forget(&mut log, &offers);
        let builds = plan(&log, &offers);
        let shown: Vec<Vec<(&str, &str)>> = builds
            .iter()
            .map(|build| build.iter().map(|(l, v)| (l.as_str(), v.as_str())).collect())
            .collect();
        assert_eq!(shown, [vec![("a", "y"), ("c", "y")], vec![("b", "y")], vec![("b", "z")]]);
    }

    #[test]
    fn what_was_measured_before_a_stop_is_kept_and_not_measured_again() {
        let (mut bench, mut log) = (fake(), empty());
        // Warming up and ten rounds of two runs each for the first build, and some of the second.
        bench.patience = 30;
        let outcome = tune(&mut bench, &mut log, 10).unwrap();
        assert_eq!(outcome, Outcome { timed: 4, left: 1 });
        let kept = bench.saved.last().unwrap().clone();
        assert!(kept.layers["c"].tried.contains_key("plain"));
        assert!(!kept.layers["c"].tried.contains_key("wide"));

        let (mut again, mut resumed) = (fake(), kept.clone());
        let outcome = tune(&mut again, &mut resumed, 10).unwrap();
        assert_eq!(outcome, Outcome { timed: 1, left: 0 });
        let wide = Choices::from([("c".to_owned(), "wide".to_owned())]);
        assert_eq!(again.builds, [Choices::new(), wide], "the rest, and what it is compared with");
        assert_eq!(resumed.layers["a"], kept.layers["a"]);
        let plan = Step::Plan { layers: 4, known: 4, left: 1, builds: 1 };
        assert!(again.steps.contains(&plan), "{:?}", again.steps);

        let mut third = fake();
        assert_eq!(tune(&mut third, &mut resumed, 10).unwrap(), Outcome { timed: 0, left: 0 });
        assert_eq!(third.timed, 0, "nothing is left");
    }

    #[test]
    fn a_timing_cut_short_counts_only_with_enough_rounds() {
        // The first build is warmed up by four runs.
        for (rounds_before, timed) in [(FEWEST_ROUNDS - 1, 0), (FEWEST_ROUNDS, 4)] {
            let (mut bench, mut log) = (fake(), empty());
            bench.patience = 4 + 2 * rounds_before as usize;
            let outcome = tune(&mut bench, &mut log, 100).unwrap();
            assert_eq!(outcome, Outcome { timed, left: 5 - timed }, "{rounds_before} rounds");
            let rounds: BTreeSet<u32> = log
                .layers
                .values()
                .flat_map(|layer| layer.tried.values().map(|trial| trial.rounds))
                .collect();
            assert!(rounds.is_subset(&BTreeSet::from([FEWEST_ROUNDS])), "{rounds:?}");
        }
    }

    #[test]
    fn what_is_not_offered_any_more_leaves_the_log() {
        let (mut bench, mut log) = (fake(), empty());
        tune(&mut bench, &mut log, 10).unwrap();
        let mut later = fake();
        // Another default for `a`, a variant of `c` gone, `b` without a choice.
        later.offers = offers(
            &[("a", &["winograd", "direct"]), ("c", &["fused", "wide"])],
            &[&["a"], &["a"], &["c"]],
        );
        tune(&mut later, &mut log, 10).unwrap();
        assert_eq!(chosen(&log), [("a", "winograd"), ("c", "wide")]);
        assert_eq!(log.layers["a"].default, "winograd");
        let tried: Vec<_> = log.layers["c"].tried.keys().collect();
        assert_eq!(tried, ["wide"]);
    }

    #[test]
    fn offers_are_read_from_the_compilers_report() {
        let report = serde_json::json!({
            "nodes": [{"layers": ["a"]}, {"layers": []}],
            "tuning": {"layers": {"a": {"choice": "x", "offered": ["x", "y"]}}, "unknown": []},
        });
        let expected = offers(&[("a", &["x", "y"])], &[&["a"], &[]]);
        assert_eq!(Offers::of(&report).unwrap(), expected);
        for broken in [
            serde_json::json!({}),
            serde_json::json!({"nodes": [], "tuning": {"layers": {"a": {"offered": []}}}}),
            serde_json::json!({"nodes": [{}], "tuning": {"layers": {}}}),
        ] {
            assert!(Offers::of(&broken).is_err(), "{broken}");
        }
    }
}
