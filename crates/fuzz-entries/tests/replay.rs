//! Replays the corpora of `fuzz/corpus` and seeded mutations of them: what cargo-fuzz found once,
//! and what it would find first, is looked for in every test run.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fuzz_entries::{Mutator, TARGETS, Target, seeds};

/// Mutations of each file of a corpus.
const MUTATIONS: usize = 1000;
// Far above what any input of a corpus takes, and far below a hang.
const AT_MOST: Duration = Duration::from_secs(10);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The committed inputs of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(root().join("corpus").join(target))
        .unwrap_or_else(|error| panic!("no corpus of {target}: {error}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}

/// Runs one input; a panic shows which one it was, with the bytes to keep.
fn run(target: &Target, name: &str, bytes: &[u8]) -> bool {
    let begun = Instant::now();
    let result = std::panic::catch_unwind(|| (target.run)(bytes));
    let accepted = result.unwrap_or_else(|_| {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-fault", target.name));
        fs::write(&kept, bytes).unwrap();
        panic!("{} fails on {name}; the input is in {}", target.name, kept.display())
    });
    assert!(begun.elapsed() < AT_MOST, "{} takes {:?} on {name}", target.name, begun.elapsed());
    accepted
}

#[test]
fn the_committed_corpora_are_those_that_the_repository_writes() {
    for target in TARGETS {
        let committed = corpus(target.name);
        for seed in seeds(target.name) {
            let file = committed.iter().find(|(name, _)| name == seed.name);
            let same = file.is_some_and(|(_, bytes)| *bytes == seed.bytes);
            assert!(
                same,
                "{}/{}: cargo run -p fuzz-entries --example write_corpora",
                target.name, seed.name
            );
        }
    }
}

#[test]
fn sound_seeds_are_accepted_and_the_others_refused() {
    for target in TARGETS {
        let seeds = seeds(target.name);
        for seed in &seeds {
            assert_eq!(
                run(&target, seed.name, &seed.bytes),
                seed.sound,
                "{}/{}",
                target.name,
                seed.name
            );
        }
        let sound = seeds.iter().filter(|seed| seed.sound).count();
        assert!(sound > 0 && sound < seeds.len(), "{} needs both kinds", target.name);
    }
}

#[test]
fn every_corpus_is_replayed_with_mutations() {
    for target in TARGETS {
        let corpus = corpus(target.name);
        let mut mutator = Mutator::new(19);
        let (mut accepted, mut refused) = (0, 0);
        let mut count = |was: bool| if was { accepted += 1 } else { refused += 1 };
        for (index, (name, bytes)) in corpus.iter().enumerate() {
            count(run(&target, name, bytes));
            let (_, other) = &corpus[(index + 1) % corpus.len()];
            for round in 0..MUTATIONS {
                let mutated = mutator.mutate(bytes, other);
                count(run(&target, &format!("{name}, mutation {round}"), &mutated));
            }
        }
        // Refused ones show that mutations bite, accepted ones that they do not only bite.
        let both = refused > corpus.len() && accepted > 0;
        assert!(both, "{}: {accepted} accepted, {refused} refused", target.name);
        eprintln!("{}: {accepted} accepted, {refused} refused", target.name);
    }
}

#[test]
fn every_target_has_its_fuzz_target() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let name = target.name;
        let file = root().join("fuzz_targets").join(format!("{name}.rs"));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(&format!("fuzz_entries::{name}(data)")), "{}", file.display());
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}
