//! Writes the seeds to `fuzz/corpus`, from where cargo-fuzz and the tests read them:
//! `cargo run -p fuzz-entries --example write_corpora`.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for target in fuzz_entries::TARGETS {
        let folder = corpora.join(target.name);
        fs::create_dir_all(&folder)?;
        for seed in fuzz_entries::seeds(target.name) {
            fs::write(folder.join(seed.name), seed.bytes)?;
        }
    }
    Ok(())
}
