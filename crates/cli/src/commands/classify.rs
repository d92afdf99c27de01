//! `graphlet classify`: pictures through the sandbox, without HTTP.

use std::{
    collections::BTreeMap,
    fs,
    io::{Write as _, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};
use wire::{Request, Response};

use crate::{
    card::Card,
    exit::Usage,
    serve::{Single, signed},
};

/// Name what pictures show, without HTTP
///
/// Prints one line a picture: its label, or with --top several labels with their scores. A
/// picture that cannot be read is named on stderr, the others are still answered, and the exit
/// code is 1.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The signed module
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// Picture files: JPEG, PNG, WebP, GIF, BMP
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// Print the best COUNT labels with their scores
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    top: Option<u32>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Print the milliseconds of each phase on stderr
    #[arg(long)]
    timings: bool,
    /// Classify each picture this often and print the median timings
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    repeat: u32,
    /// Run a module that nobody has signed. Whoever made it can run code here
    #[arg(long)]
    dangerously_allow_unsigned: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct Scored {
    label: String,
    score: f64,
}

#[derive(Serialize)]
struct Line<'a> {
    image: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<Vec<Scored>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Median milliseconds by phase.
    milliseconds: BTreeMap<String, f64>,
}

// From handing the message over to having the answer.
const TOTAL: &str = "total";

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let module = signed(&args.module, args.dangerously_allow_unsigned)?;
    let classes = match args.top {
        Some(_) => module.custom_section(Card::SECTION).ok().flatten(),
        None => None,
    };
    let mut actor = Single::start_ahead(&args.module, module)?;
    let mut out = stdout().lock();
    let mut failed = false;
    for path in &args.images {
        let name = path.display().to_string();
        let mut milliseconds = BTreeMap::new();
        let answer = classify(&mut actor, path, args, &mut milliseconds);
        // Known since the first answer; a picture that could not be read had none.
        actor.confirm(&args.module)?;
        check_top(args, classes.as_deref())?;
        failed |= answer.is_err();
        if args.json {
            let (classes, error) = match answer {
                Ok(classes) => (Some(classes), None),
                Err(error) => (None, Some(format!("{error:#}"))),
            };
            let line = Line { image: &name, classes, error, milliseconds };
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
            continue;
        }
        match answer {
            Ok(classes) => {
                let prefix =
                    if args.images.len() > 1 { format!("{name}: ") } else { String::new() };
                for class in &classes {
                    match args.top {
                        Some(_) => writeln!(out, "{prefix}{:.4}  {}", class.score, class.label)?,
                        None => writeln!(out, "{prefix}{}", class.label)?,
                    }
                }
            }
            Err(error) => tell!("error: {name}: {error:#}"),
        }
        if args.timings && !milliseconds.is_empty() {
            let phases: Vec<String> =
                in_order(&milliseconds).map(|(phase, ms)| format!("{phase} {ms:.2} ms")).collect();
            tell!("{name}: {}", phases.join(", "));
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Refuses more labels than the model has. A module without a card, or with one of another
/// version, answers for itself.
fn check_top(args: &Args, card: Option<&[u8]>) -> Result<()> {
    let classes = card.and_then(|card| Card::parse(card).ok()).map(|card| card.labels);
    match (args.top, classes) {
        (Some(top), Some(classes)) if u64::from(top) > classes => {
            let name = args.module.display();
            Err(Usage::new(format!("--top {top}: {name} knows {classes} classes"))
                .hint(format!("--top {classes} prints them all"))
                .into())
        }
        _ => Ok(()),
    }
}

/// Phases as a picture goes through them, the total last.
fn in_order(milliseconds: &BTreeMap<String, f64>) -> impl Iterator<Item = (&str, f64)> {
    [wire::PHASE_DECODE, wire::PHASE_PREPROCESS, wire::PHASE_INFER, TOTAL]
        .into_iter()
        .filter_map(|phase| Some((phase, *milliseconds.get(phase)?)))
}

fn classify(
    actor: &mut Single,
    path: &Path,
    args: &Args,
    milliseconds: &mut BTreeMap<String, f64>,
) -> Result<Vec<Scored>> {
    if path.is_dir() {
        return Err(anyhow!("a folder; name the pictures in it, such as {}/*.jpg", path.display()));
    }
    let body = fs::read(path).context("cannot be read")?;
    if body.is_empty() {
        return Err(anyhow!("the file is empty"));
    }
    let request = Request {
        method: "POST".into(),
        path: "/".into(),
        query_string: format!("top_k={}", args.top.unwrap_or(1)),
        body,
        ..Request::default()
    };
    let mut times: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut classes = Vec::new();
    for _ in 0..args.repeat {
        let begun = Instant::now();
        let (response, reply) = actor.send(&request)?;
        let total = (TOTAL.to_owned(), begun.elapsed());
        for (phase, took) in reply.phases.into_iter().chain([total]) {
            times.entry(phase).or_default().push(took.as_secs_f64() * 1e3);
        }
        classes = scores(&response)?;
    }
    for (phase, mut all) in times {
        all.sort_by(f64::total_cmp);
        milliseconds.insert(phase, all[all.len() / 2]);
    }
    Ok(classes)
}

/// The classes of an answer, or what the actor says is wrong.
fn scores(response: &Response) -> Result<Vec<Scored>> {
    if response.status_code == 200 {
        return serde_json::from_slice(&response.body).context("the actor's answer is malformed");
    }
    Err(anyhow!(refusal(response)))
}

/// The sentence of an error answer.
pub fn refusal(response: &Response) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    match serde_json::from_slice::<Refusal>(&response.body) {
        Ok(refusal) => refusal.error,
        Err(_) => format!("the actor answered with status {}", response.status_code),
    }
}
