//! Runs ONNX's node cases in the sandbox and compares what happens with the list of what is known
//! not to pass; `make conformance`.

use std::{
    collections::BTreeMap, fs, num::NonZero, path::PathBuf, process::ExitCode, thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use conformance::{
    home,
    nodes::{self, Depth, Known, Outcome, Progress, Summary, Verdict},
};

/// Compiles each of ONNX's node cases, runs it in the sandbox and compares its outputs.
#[derive(Parser)]
struct Arguments {
    /// Only cases whose name contains one of these words
    words: Vec<String>,
    /// Write the list of what does not pass and the table in docs/operators.md
    #[arg(long, conflicts_with_all = ["words", "import"])]
    write: bool,
    /// Stop after the import of each case: nothing is built
    #[arg(long)]
    import: bool,
    /// Forget what a run that was stopped found
    #[arg(long)]
    anew: bool,
    /// Print what became of every case
    #[arg(long)]
    verbose: bool,
    /// How many cases at once [default: as many as there are processors]
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<usize>,
}

#[allow(clippy::print_stdout, reason = "what a command answers")]
fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let home = home()?;
    let all = nodes::names(&home)?;
    let chosen = |name: &&String| {
        arguments.words.is_empty() || arguments.words.iter().any(|word| name.contains(word))
    };
    let cases: Vec<String> = all.iter().filter(chosen).cloned().collect();
    ensure!(!cases.is_empty(), "no case has such a name");
    let depth = if arguments.import { Depth::Import } else { Depth::Run };
    let jobs =
        arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));

    let kept = (arguments.words.is_empty() && depth == Depth::Run)
        .then(|| Progress::open(&home, arguments.anew))
        .transpose()?;
    let mut verdicts = kept.as_ref().map_or_else(Vec::new, |kept| kept.known().to_vec());
    if !verdicts.is_empty() {
        eprintln!("{} cases are known from a run before (--anew runs them again)", verdicts.len());
    }
    let cases: Vec<String> =
        cases.into_iter().filter(|case| verdicts.iter().all(|known| known.case != *case)).collect();
    let total = cases.len();
    verdicts.extend(nodes::run(&home, &cases, depth, jobs, |done, verdict| {
        if arguments.verbose {
            eprintln!("{done}/{total} {} {:?}", verdict.case, verdict.outcome);
        } else if done % 100 == 0 || done == total {
            eprintln!("{done} of {total} cases, {} s", begun.elapsed().as_secs());
        }
        kept.as_ref().map_or(Ok(()), |kept| kept.keep(verdict))
    })?);
    verdicts.sort_by(|a, b| a.case.cmp(&b.case));

    let list = home.root().join("crates/conformance/node_cases.txt");
    let surprises = if arguments.write {
        write(&list, &home.root().join("docs/operators.md"), &verdicts)?;
        Known::parse(&Known::text(&verdicts))?.surprises(&verdicts, &all, depth)
    } else {
        let text =
            fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        Known::parse(&text)?.surprises(&verdicts, &all, depth)
    };
    for surprise in &surprises {
        println!("{surprise}");
    }
    print_summary(&verdicts, depth);
    println!("node cases: {} surprises; {} s", surprises.len(), begun.elapsed().as_secs());
    Ok(if surprises.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(list: &PathBuf, document: &PathBuf, verdicts: &[Verdict]) -> Result<()> {
    let put = |path: &PathBuf, text: String| {
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    put(list, Known::text(verdicts))?;
    let before = fs::read_to_string(document)
        .with_context(|| format!("cannot read {}", document.display()))?;
    put(document, nodes::insert(&before, &nodes::table(verdicts))?)
}

#[allow(clippy::print_stdout, reason = "what a command answers")]
fn print_summary(verdicts: &[Verdict], depth: Depth) {
    let Summary { cases, passed, no_kernel, refused, failed } = Summary::of(verdicts);
    let good = if depth == Depth::Run { "passed" } else { "imported" };
    println!(
        "node cases: {cases}: {passed} {good}, {no_kernel} leave no kernel to run, {refused} \
         refused, {failed} wrong or broken"
    );
    let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sizes = Vec::new();
    for verdict in verdicts {
        match &verdict.outcome {
            Outcome::Refused { code, .. } => *codes.entry(code).or_default() += 1,
            Outcome::Passed { module_bytes } => sizes.push(*module_bytes),
            _ => {}
        }
    }
    for (code, count) in codes {
        println!("node cases: {count} refused for {code}");
    }
    sizes.sort_unstable();
    if let (Some(least), Some(most)) = (sizes.first(), sizes.last()) {
        let median = sizes[sizes.len() / 2];
        println!("node cases: modules of {least} to {most} bytes, half of them up to {median}");
    }
}
