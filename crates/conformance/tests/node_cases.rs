//! ONNX's node cases, as far as every test run takes them; `make conformance` runs all.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::{fs, num::NonZero, thread};

use conformance::{
    home,
    nodes::{self, Depth, Known, Summary},
};

// One case of so many is run.
const SAMPLE: usize = 24;

fn surprises(depth: Depth, every: usize) -> Summary {
    let home = home().unwrap();
    let all = nodes::names(&home).unwrap();
    let known = home.root().join("crates/conformance/node_cases.txt");
    let known = Known::parse(&fs::read_to_string(known).unwrap()).unwrap();
    let cases: Vec<String> = all.iter().step_by(every).cloned().collect();
    let jobs = thread::available_parallelism().map_or(1, NonZero::get);
    let verdicts = nodes::run(&home, &cases, depth, jobs, |_, _| Ok(())).unwrap();
    assert_eq!(verdicts.len(), cases.len());
    let found: Vec<String> =
        known.surprises(&verdicts, &all, depth).iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    Summary::of(&verdicts)
}

#[test]
fn every_case_is_imported_or_refused_as_the_list_says() {
    let summary = surprises(Depth::Import, 1);
    println!("measured: of {} node cases {} are imported", summary.cases, summary.passed);
    assert!(summary.cases >= 1_765 && summary.passed >= 1_300, "{summary:?}");
}

#[test]
fn a_sample_of_the_cases_passes_in_the_sandbox_or_is_refused_as_the_list_says() {
    let summary = surprises(Depth::Run, SAMPLE);
    println!("measured: of {} node cases {} pass", summary.cases, summary.passed);
    assert!(summary.passed * 2 > summary.cases, "{summary:?}");
}
