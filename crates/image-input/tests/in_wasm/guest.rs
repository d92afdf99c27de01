//! A guest that resizes made-up pictures and decodes JPEGs: its exit status is how many differ from
//! Pillow's, and from what a native build decodes.

#![allow(clippy::unwrap_used, dead_code, reason = "a part of a test")]

use std::process::ExitCode;

#[path = "../common/reductions.rs"]
mod reductions;
#[path = "../common/resizes.rs"]
mod resizes;

fn main() -> ExitCode {
    let wrong = resizes::wrong_resizes(include_str!("../../testdata/resize.txt"));
    let decoded = reductions::wrong_checksums(include_str!("../../testdata/jpeg.txt"));
    ExitCode::from((wrong.len() + decoded.len()).min(255) as u8)
}
