//! Tuning logs: which variant of a kernel, or which loops, a layer's shape takes, as
//! `graphlet tune` has measured it, and which of that is good for this build.
//!
//! A log holds a part for each engine that was measured with. What was measured with another
//! wasmtime, other kernels or another SIMD level says nothing about this build: it is reported and
//! not used. The processor is written down for the reader; a module is not built for one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use model_spec::SimdLevel;
use serde::{Deserialize, Serialize};

use crate::BuildError;

/// Name of the log that is found beside a `model.toml`.
pub const TUNING_FILE: &str = "tuning.json";

/// The form of log that this version reads and writes.
const FORMAT: u32 = 1;

/// Release line of the engine that kernels are measured in. Code generation changes with it;
/// within one, releases are repairs.
pub const WASMTIME: &str = "48";

/// Counts up when kernels of `crates/operators` are added or become so much faster or slower that
/// measurements made before should not decide any more.
pub const KERNELS: u32 = 2;

/// A tuning log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuningLog {
    format: u32,
    /// What was measured, by engine. Where two are good for a build, the later one decides.
    pub engines: Vec<EngineLog>,
}

/// What was measured with one engine on one processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineLog {
    /// Which engine.
    pub engine: EngineId,
    /// The layers that can be computed in several ways, by name.
    pub layers: BTreeMap<String, LayerLog>,
}

/// What a measurement depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineId {
    /// wasmtime's release line.
    pub wasmtime: String,
    /// Generation of the operator library.
    pub kernels: u32,
    /// SIMD level, as `model.toml` spells it.
    pub simd: String,
    /// The processor's name.
    pub processor: String,
}

/// One layer's measurements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerLog {
    /// The variant to be used.
    pub choice: String,
    /// The variant that is used without a log, and that the others are compared with.
    pub default: String,
    /// What was compared with it.
    #[serde(default)]
    pub tried: BTreeMap<String, Trial>,
}

/// One variant beside the default, measured in turns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Median over the rounds of the variant's time over the default's.
    pub ratio: f64,
    /// Median time of all the model's layers of this shape, microseconds.
    pub us: f64,
    /// The same with the default.
    pub default_us: f64,
    /// Number of rounds.
    pub rounds: u32,
}

/// A log cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuningError {
    /// There is none.
    #[error("the tuning log is not there")]
    Absent,
    /// It cannot be read.
    #[error("the tuning log cannot be read")]
    Read(#[source] io::Error),
    /// It is not the JSON that it should be.
    #[error("malformed tuning log")]
    Json(#[source] serde_json::Error),
    /// It was written by another version.
    #[error("tuning logs of format {0} are not known, only of format {FORMAT}")]
    Format(u32),
}

/// A choice of a log that this build does not use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// The layer.
    pub layer: String,
    /// What the log chooses for it.
    pub choice: String,
    /// Why that is not used.
    pub reason: String,
}

/// What a log says about one build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Choices by layer.
    pub choices: BTreeMap<String, String>,
    /// What is not used.
    pub unused: Vec<Unused>,
}

impl Default for TuningLog {
    fn default() -> Self {
        TuningLog { format: FORMAT, engines: Vec::new() }
    }
}

impl TuningLog {
    /// Reads a log.
    ///
    /// # Errors
    /// [`TuningError::Json`] and [`TuningError::Format`].
    pub fn parse(text: &[u8]) -> Result<Self, TuningError> {
        let log: TuningLog = serde_json::from_slice(text).map_err(|error| {
            // A later format may have other fields, and its number says more than that.
            match serde_json::from_slice::<FormatOnly>(text) {
                Ok(FormatOnly { format }) if format != FORMAT => TuningError::Format(format),
                _ => TuningError::Json(error),
            }
        })?;
        if log.format == FORMAT { Ok(log) } else { Err(TuningError::Format(log.format)) }
    }

    /// Reads a file; `None` when there is none.
    ///
    /// # Errors
    /// [`BuildError::Tuning`].
    pub fn load(path: &Path) -> Result<Option<Self>, BuildError> {
        let error = |source| BuildError::Tuning { path: path.to_path_buf(), source };
        match fs::read(path) {
            Ok(bytes) => Self::parse(&bytes).map(Some).map_err(error),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(error(TuningError::Read(source))),
        }
    }

    /// The file's content: JSON that people can read and compare, ended by a line break.
    pub fn to_json(&self) -> String {
        // Keys are strings and numbers are finite, which is all that can fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// What is good for a build at `simd`.
    pub fn select(&self, simd: SimdLevel) -> Selection {
        let mut selection = Selection::default();
        for part in &self.engines {
            let reason = part.engine.unfit(simd);
            for (layer, log) in &part.layers {
                match &reason {
                    None => {
                        selection.choices.insert(layer.clone(), log.choice.clone());
                    }
                    Some(reason) => selection.unused.push(Unused {
                        layer: layer.clone(),
                        choice: log.choice.clone(),
                        reason: reason.clone(),
                    }),
                }
            }
        }
        // What another part of the log decides needs no mention.
        let decided: BTreeSet<&String> = selection.choices.keys().collect();
        selection.unused.retain(|unused| !decided.contains(&unused.layer));
        selection
    }
}

impl EngineId {
    /// This program's engine, on a processor of this name.
    pub fn current(simd: SimdLevel, processor: &str) -> Self {
        EngineId {
            wasmtime: WASMTIME.to_owned(),
            kernels: KERNELS,
            simd: simd.as_str().to_owned(),
            processor: processor.to_owned(),
        }
    }

    /// Why its measurements say nothing about a build at `simd` with this program's engine.
    fn unfit(&self, simd: SimdLevel) -> Option<String> {
        let EngineId { wasmtime, kernels, simd: measured, .. } = self;
        if ![SimdLevel::None, SimdLevel::Simd128, SimdLevel::Relaxed]
            .iter()
            .any(|level| level.as_str() == measured)
        {
            Some(format!("measured at SIMD level `{measured}`, which is unknown here"))
        } else if wasmtime != WASMTIME {
            Some(format!("measured with wasmtime {wasmtime}, this is {WASMTIME}"))
        } else if *kernels != KERNELS {
            Some(format!("measured with kernels of generation {kernels}, these are of {KERNELS}"))
        } else if measured != simd.as_str() {
            Some(format!("measured at SIMD level `{measured}`, this build is `{}`", simd.as_str()))
        } else {
            None
        }
    }
}

/// Where the log of a model lies: what its spec names, else [`TUNING_FILE`] beside it.
pub fn tuning_path(named: Option<&str>, spec: &Path) -> PathBuf {
    spec.parent().unwrap_or(Path::new("")).join(named.unwrap_or(TUNING_FILE))
}

/// The log of a model. One that the spec names must be there.
///
/// # Errors
/// [`BuildError::Tuning`].
pub(crate) fn log_of(named: Option<&str>, spec: &Path) -> Result<Option<TuningLog>, BuildError> {
    let path = tuning_path(named, spec);
    match (TuningLog::load(&path)?, named) {
        (None, Some(_)) => Err(BuildError::Tuning { path, source: TuningError::Absent }),
        (log, _) => Ok(log),
    }
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(engine: EngineId, layer: &str, choice: &str) -> EngineLog {
        let log =
            LayerLog { choice: choice.into(), default: "direct".into(), tried: BTreeMap::new() };
        EngineLog { engine, layers: BTreeMap::from([(layer.to_owned(), log)]) }
    }

    fn current() -> EngineId {
        EngineId::current(SimdLevel::Relaxed, "a processor")
    }

    #[test]
    fn the_log_and_the_lock_file_name_the_same_release_line_of_wasmtime() {
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
        let lock = fs::read_to_string(lock).unwrap();
        let version = lock.split("name = \"wasmtime\"\nversion = \"").nth(1).unwrap();
        assert!(version.starts_with(&format!("{WASMTIME}.")), "{}", &version[..10]);
    }

    #[test]
    fn what_another_engine_measured_is_named_and_not_used() {
        for (engine, words) in [
            (EngineId { wasmtime: "47".into(), ..current() }, "wasmtime 47"),
            (EngineId { kernels: 1, ..current() }, "generation 1, these are of 2"),
            (EngineId { simd: "simd128".into(), ..current() }, "this build is `relaxed`"),
            (EngineId { simd: "avx".into(), ..current() }, "`avx`, which is unknown"),
        ] {
            let log = TuningLog {
                engines: vec![part(engine, "conv 1", "winograd")],
                ..TuningLog::default()
            };
            let selection = log.select(SimdLevel::Relaxed);
            assert!(selection.choices.is_empty(), "{words}");
            let [unused] = &selection.unused[..] else { panic!("{words}: {selection:?}") };
            assert_eq!((unused.layer.as_str(), unused.choice.as_str()), ("conv 1", "winograd"));
            assert!(unused.reason.contains(words), "{}", unused.reason);
        }
    }

    #[test]
    fn another_processor_decides_too_and_the_later_part_last() {
        let other = EngineId { processor: "another".into(), ..current() };
        let stale = EngineId { wasmtime: "1".into(), ..current() };
        let log = TuningLog {
            engines: vec![
                part(stale, "conv 1", "old"),
                part(other, "conv 1", "winograd"),
                part(current(), "conv 1", "direct"),
            ],
            ..TuningLog::default()
        };
        let selection = log.select(SimdLevel::Relaxed);
        assert_eq!(selection.choices, BTreeMap::from([("conv 1".into(), "direct".into())]));
        assert_eq!(selection.unused, [], "decided by a later part");
    }

    #[test]
    fn a_log_survives_the_way_through_its_file() {
        let mut log = TuningLog {
            engines: vec![part(current(), "conv 1", "direct")],
            ..TuningLog::default()
        };
        let trial = Trial { ratio: 0.5, us: 100.0, default_us: 200.0, rounds: 20 };
        let layer = log.engines[0].layers.get_mut("conv 1").unwrap();
        layer.tried.insert("winograd".into(), trial);
        assert_eq!(TuningLog::parse(log.to_json().as_bytes()).unwrap(), log);
    }

    #[test]
    fn what_is_no_log_of_ours_is_told_from_a_later_format() {
        let parse = |text: &str| TuningLog::parse(text.as_bytes()).unwrap_err();
        for text in ["", "[]", "{}", r#"{"format": 1}"#, r#"{"format": 1, "engines": 7}"#] {
            assert!(matches!(parse(text), TuningError::Json(_)), "{text}");
        }
        for text in [r#"{"format": 2, "engines": []}"#, r#"{"format": 2, "machines": {}}"#] {
            assert!(matches!(parse(text), TuningError::Format(2)), "{text}");
        }
    }
}
