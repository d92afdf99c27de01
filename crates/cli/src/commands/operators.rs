//! `graphlet operators`: the WASM operator library as a file.

use std::{
    io::{Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use builder::Home;
use claims::Digest;

use super::{
    build::Simd,
    sign::{SigningOptions, sign_module},
};
use crate::{paths, progress::Display};

/// Write the WASM operator library
///
/// Add, Mul, Argmax and EqualCount of float32, int32 and int8 tensors, for any host that runs
/// WebAssembly (docs/operators.md); `wasm-frontend` calls it. Prints the digest of the signed file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write the signed module
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Vector instructions the module may use
    #[arg(long, value_enum, default_value_t = Simd::Simd128)]
    simd: Simd,
    /// Print warnings and errors only
    #[arg(short, long)]
    quiet: bool,
    /// What the claims say
    #[command(flatten)]
    signing: SigningOptions,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    super::folder_of(&args.output)?;
    args.signing.check()?;
    let home = Home::find(paths::cache_dir()?)?;
    let mut display = Display::new(args.quiet);
    let module = builder::build_operators(&home, args.simd.level(), &mut display)?;
    display.finish();
    let version = env!("CARGO_PKG_VERSION");
    let signed = sign_module(&module, "operators", Some(version), &args.signing, args.quiet)?;
    super::write_whole(&args.output, &signed)?;
    if !args.quiet {
        let (file, size) = (args.output.display(), signed.len() as f64 / 1e3);
        tell!("wrote {file}: {size:.0} kB");
        tell!("next: wasm-frontend -c {file} -o Add -i INPUT.json");
    }
    writeln!(stdout(), "{}", Digest::of(&signed))?;
    Ok(ExitCode::SUCCESS)
}
