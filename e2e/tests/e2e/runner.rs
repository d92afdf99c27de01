//! Runs scenarios, some beside each other and some alone, and prints each one's name and time.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    scenarios,
    world::{Setting, World},
};

/// When a scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// One after the other, before all else; when one fails, nothing after it makes sense.
    First,
    /// Beside others, in a namespace of its own.
    Together,
    /// Alone, because it disturbs nodes.
    Alone,
    /// Beside each other, with nothing else going on: what the run has shown, and what a cluster
    /// at rest costs.
    Quiet,
    /// Alone and after all else, because it takes the control plane away.
    Last,
}

/// How a scenario ended, when it did not fail.
pub enum Outcome {
    /// As it should.
    Passed,
    /// It did not run, and why.
    Skipped(String),
}

/// A scenario on its way.
pub type Running = Pin<Box<dyn Future<Output = Result<Outcome>> + Send>>;

/// Something that the whole must do.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// A sentence.
    pub name: &'static str,
    /// When it runs.
    pub phase: Phase,
    /// Does it.
    pub run: fn(Arc<World>) -> Running,
}

/// Names them all.
pub fn list(scenarios: &[Scenario]) {
    for scenario in scenarios {
        eprintln!("{:<9} {}", format!("{:?}", scenario.phase), scenario.name);
    }
}

/// Opens the world and gives it to a person: `$SHELL` with everything set.
pub async fn shell() -> ExitCode {
    let world = match Setting::from_environment() {
        Ok(Some(setting)) => World::open(setting).await,
        Ok(None) => Err(anyhow!("scripts/e2e --shell starts this")),
        Err(error) => Err(error),
    };
    let world = match world {
        Ok(world) => world,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!(
        "    kubectl finds the cluster; its nodes' logs are in {}",
        world.setting.work.display()
    );
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "bash".into());
    // On a thread of its own: the world's tasks go on.
    let status = tokio::task::spawn_blocking(|| std::process::Command::new(shell).status()).await;
    world.close().await;
    match status {
        Ok(Ok(_)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Runs what matches `filter`, everything if that is empty; scenarios of the first phase always.
pub async fn run(filter: &[String]) -> ExitCode {
    let began = Instant::now();
    let setting = match Setting::from_environment() {
        Ok(Some(setting)) => setting,
        Ok(None) => {
            eprintln!("    `make e2e` brings a cluster and runs these; nothing to do without one");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(2);
        }
    };
    let world = match World::open(setting).await {
        Ok(world) => Arc::new(world),
        Err(error) => {
            eprintln!("error: the cluster is not usable: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!("    world ready after {:.1} s", began.elapsed().as_secs_f64());
    let disturb = std::env::var("GRAPHLET_E2E_DISTURB").as_deref() != Ok("0");
    let chosen: Vec<Scenario> = scenarios::all()
        .into_iter()
        .filter(|it| disturb || it.phase < Phase::Alone)
        .filter(|it| {
            filter.is_empty()
                || it.phase == Phase::First
                || filter.iter().any(|word| it.name.contains(word.as_str()))
        })
        .collect();
    let mut tally = Tally::default();
    for phase in chosen.iter().map(|it| it.phase).collect::<BTreeSet<_>>() {
        let of_phase = chosen.iter().filter(|it| it.phase == phase).copied();
        let beside = matches!(phase, Phase::Together | Phase::Quiet);
        let width = if beside { BESIDE_EACH_OTHER } else { 1 };
        run_phase(&world, of_phase.collect(), width, &mut tally).await;
        if phase == Phase::First && tally.failed > 0 {
            eprintln!("    nothing else was tried");
            break;
        }
    }
    world.close().await;
    eprintln!(
        "test result: {}. {} passed; {} failed; {} skipped; finished in {:.1} s",
        if tally.failed == 0 { "ok" } else { "FAILED" },
        tally.passed,
        tally.failed,
        tally.skipped,
        began.elapsed().as_secs_f64()
    );
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

async fn run_phase(world: &Arc<World>, scenarios: Vec<Scenario>, width: usize, tally: &mut Tally) {
    let places = Arc::new(Semaphore::new(width));
    let mut running = JoinSet::new();
    for scenario in scenarios {
        let (world, places) = (world.clone(), places.clone());
        running.spawn(async move {
            let _place = places.acquire_owned().await;
            let began = Instant::now();
            // A task of its own, so that a failed assertion ends this scenario and no other.
            let task = tokio::spawn((scenario.run)(world.clone()));
            let stop = task.abort_handle();
            let result = match tokio::time::timeout(LONGEST, task).await {
                Ok(Ok(result)) => result,
                Ok(Err(error)) => Err(anyhow!("{error}")),
                Err(_) => {
                    stop.abort();
                    Err(anyhow!("not done after {} s", LONGEST.as_secs()))
                }
            };
            (scenario.name, began.elapsed(), result.with_context(|| scenario.name))
        });
    }
    while let Some(Ok((name, took, result))) = running.join_next().await {
        let seconds = took.as_secs_f64();
        match result {
            Ok(Outcome::Passed) => {
                tally.passed += 1;
                eprintln!("test {name} ... ok ({seconds:.1} s)");
            }
            Ok(Outcome::Skipped(why)) => {
                tally.skipped += 1;
                eprintln!("skipped: {name}: {why}");
            }
            Err(error) => {
                tally.failed += 1;
                eprintln!("test {name} ... FAILED ({seconds:.1} s)");
                for cause in error.chain().skip(1) {
                    eprintln!("      {cause}");
                }
            }
        }
    }
}

/// Scenarios at once: most of them wait, and the cluster has two nodes on this machine.
const BESIDE_EACH_OTHER: usize = 5;

/// Longest time of one scenario.
const LONGEST: Duration = Duration::from_secs(300);
