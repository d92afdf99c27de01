//! A guest that resizes made-up pictures: its exit status is how many differ from Pillow's.

#![allow(clippy::unwrap_used, dead_code, reason = "a part of a test")]

use std::process::ExitCode;

#[path = "../common/resizes.rs"]
mod resizes;

fn main() -> ExitCode {
    let wrong = resizes::wrong_resizes(include_str!("../../testdata/resize.txt"));
    ExitCode::from(wrong.len().min(255) as u8)
}
