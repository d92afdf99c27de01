//! Times of a model's layers, taken from outside: a guest has no clock, so it marks where each
//! node begins and the host stamps the marks. What a mark costs is measured in the same call and
//! taken off.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use builder::{LAYERS_SECTION, Layer};
use claims::VerifiedModule;
use host::Host;
use wire::{ProfileAnswer, ProfileRequest, Request};

use crate::{commands::refusal, exit::Usage, serve::Single, shape::Shape};

/// A module under a stop-watch.
pub struct Profiler {
    actor: Single,
    layers: Vec<Layer>,
}

/// One run of the graph, node by node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// What one mark costs.
    pub mark: Duration,
    /// Each node without its mark.
    pub nodes: Vec<Duration>,
    /// Each node run at once again; empty unless asked for.
    pub again: Vec<Duration>,
}

/// One picture classified as `graphlet classify` does it: no marks between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Decoding the picture.
    pub decode: Duration,
    /// Resizing and normalising it.
    pub preprocess: Duration,
    /// The graph.
    pub infer: Duration,
    /// From handing the message over to having the answer.
    pub total: Duration,
}

impl Profiler {
    /// Starts an instance of an actor that `graphlet build` made.
    ///
    /// # Errors
    /// [`Usage`] for a module that is no such actor; otherwise when it does not start.
    pub fn start(host: &Host, module: &VerifiedModule, path: &Path) -> Result<Self> {
        let layers = layers(module.bytes(), path)?;
        let actor = Single::start_on(host, module)
            .with_context(|| format!("cannot run {}", path.display()))?;
        Ok(Profiler { actor, layers })
    }

    /// The nodes in the order in which they run.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Classifies a picture without marks between nodes.
    ///
    /// # Errors
    /// When the picture cannot be read, or the actor fails.
    pub fn whole(&mut self, image: &[u8]) -> Result<Whole> {
        let request = Request {
            method: "POST".into(),
            path: "/".into(),
            body: image.to_vec(),
            ..Request::default()
        };
        let begun = Instant::now();
        let (response, reply) = self.actor.send(&request)?;
        let total = begun.elapsed();
        if response.status_code != 200 {
            return Err(anyhow!(refusal(&response)));
        }
        let phase = |wanted: &str| {
            let found = reply.phases.iter().find(|(name, _)| name == wanted);
            found.map(|phase| phase.1).context("the actor did not mark its phases")
        };
        Ok(Whole {
            decode: phase(wire::PHASE_DECODE)?,
            preprocess: phase(wire::PHASE_PREPROCESS)?,
            infer: phase(wire::PHASE_INFER)?,
            total,
        })
    }

    /// Runs the graph once, node by node; with `again` each node twice.
    ///
    /// # Errors
    /// When the actor fails, or ran other nodes than the module lists.
    pub fn round(&mut self, image: &[u8], again: bool) -> Result<Round> {
        let request = ProfileRequest { image: image.into(), again };
        let reply = self.actor.call(wire::OP_PROFILE, wire::encode(&request)?)?;
        let answer: ProfileAnswer =
            wire::decode(&reply.body).context("the actor's answer is malformed")?;
        let same = |(node, layer): (&wire::ProfiledNode, &Layer)| {
            node.name == layer.name && node.function == layer.function
        };
        if answer.nodes.len() != self.layers.len()
            || !answer.nodes.iter().zip(&self.layers).all(same)
        {
            bail!("the actor ran other nodes than its section `{LAYERS_SECTION}` lists");
        }
        Round::of(&reply.phases, self.layers.len(), again)
    }
}

impl Round {
    fn of(phases: &[(String, Duration)], nodes: usize, again: bool) -> Result<Self> {
        let durations = |wanted: &str| -> Vec<Duration> {
            phases.iter().filter(|(name, _)| name == wanted).map(|(_, took)| *took).collect()
        };
        let mark = median(durations(wire::PHASE_EMPTY)).context("the actor made no empty marks")?;
        let without_mark = |wanted: &str, expected: usize| -> Result<Vec<Duration>> {
            let marked = durations(wanted);
            if marked.len() != expected {
                bail!("the actor marked {} nodes of {expected}", marked.len());
            }
            Ok(marked.into_iter().map(|took| took.saturating_sub(mark)).collect())
        };
        Ok(Round {
            mark,
            nodes: without_mark(wire::PHASE_NODE, nodes)?,
            again: without_mark(wire::PHASE_AGAIN, if again { nodes } else { 0 })?,
        })
    }
}

/// The median; the upper one of two. `None` of nothing.
fn median(mut durations: Vec<Duration>) -> Option<Duration> {
    durations.sort_unstable();
    durations.get(durations.len() / 2).copied()
}

/// What a module says of its nodes.
fn layers(module: &[u8], path: &Path) -> Result<Vec<Layer>> {
    let shown = path.display();
    let shape = Shape::of(module)?;
    if shape.imports.iter().any(|import| import.module.as_deref() == Some(WASI)) {
        return Err(Usage::new(format!(
            "{shown} is a WASI program: it runs from its beginning to its end, and nobody can \
             look between its layers"
        ))
        .hint("build the model as an actor: graphlet build MODEL.toml -o MODULE")
        .into());
    }
    let Some(section) = claims::custom_section(module, LAYERS_SECTION)? else {
        return Err(Usage::new(format!(
            "{shown} does not list its layers (custom section `{LAYERS_SECTION}`): it is no \
             actor, or was built by an older graphlet"
        ))
        .hint("build it again: graphlet build MODEL.toml -o MODULE")
        .into());
    };
    serde_json::from_slice(section)
        .with_context(|| format!("{shown}: malformed section `{LAYERS_SECTION}`"))
}

/// Module name of the imports of WASI programs.
const WASI: &str = "wasi_snapshot_preview1";

#[cfg(test)]
mod tests {
    use super::*;

    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn phases(of: &[(&str, u64)]) -> Vec<(String, Duration)> {
        of.iter().map(|&(name, micros)| (name.to_owned(), us(micros))).collect()
    }

    #[test]
    fn a_marks_cost_is_taken_off_every_node() {
        let marked = phases(&[
            ("decode", 100),
            ("empty", 1),
            ("empty", 40),
            ("empty", 2),
            ("node", 12),
            ("again", 9),
            ("node", 1),
            ("again", 3),
        ]);
        let expected = Round { mark: us(2), nodes: vec![us(10), us(0)], again: vec![us(7), us(1)] };
        assert_eq!(Round::of(&marked, 2, true).unwrap(), expected);
    }

    #[test]
    fn a_guest_that_marks_otherwise_is_refused() {
        let whole = [("decode", 1), ("empty", 1), ("node", 1)];
        assert!(Round::of(&phases(&whole), 1, false).is_ok());
        assert!(Round::of(&phases(&whole), 2, false).is_err(), "a node is missing");
        assert!(Round::of(&phases(&whole), 1, true).is_err(), "not run again");
        for missing in 1..3 {
            let mut rest = whole.to_vec();
            rest.remove(missing);
            assert!(Round::of(&phases(&rest), 1, false).is_err(), "without {}", whole[missing].0);
        }
    }
}
