//! `graphlet init`: a first `model.toml` from an ONNX file.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use builder::{Home, compiler};
use model_spec::{
    Dimension, InitOptions, OnnxFacts, Preset, from_preprocessor_config, write_model_toml,
};

use crate::{exit::Usage, paths};

/// Write a model.toml for an ONNX file
///
/// Names, shape, layout and what the output's numbers are come from the graph. How pictures are
/// prepared stands in no ONNX file: a preset or a preprocessor_config.json says it, and the file
/// marks it as a guess. docs/adding-a-model.md tells where to look it up.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The ONNX file
    #[arg(value_name = "MODEL.onnx")]
    onnx: PathBuf,
    /// How its pictures are prepared: torchvision, timm, keras or caffe
    #[arg(
        long,
        value_name = "FAMILY",
        default_value = "torchvision",
        conflicts_with = "preprocessor"
    )]
    preset: String,
    /// Take the preprocessing from a Hugging Face preprocessor_config.json
    #[arg(long, value_name = "FILE")]
    preprocessor: Option<PathBuf>,
    /// Labels file, relative to the model.toml
    #[arg(long, value_name = "FILE", default_value = "labels.txt")]
    labels: String,
    /// Input side in pixels where the file leaves it open
    #[arg(long, value_name = "PIXELS", default_value_t = 224, value_parser = clap::value_parser!(u32).range(1..=4096))]
    side: u32,
    /// Where to write; `-` is stdout. Default: model.toml beside the ONNX file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let output = args.output.clone().unwrap_or_else(|| args.onnx.with_file_name("model.toml"));
    let to_stdout = output == Path::new("-");
    if !to_stdout && output.exists() && !args.force {
        return Err(Usage::new(format!("{} is there already", output.display()))
            .hint("--force writes over it, -o names another file")
            .into());
    }
    let home = Home::find(paths::cache_dir()?)?;
    let facts = compiler::facts(&home, &args.onnx)?;
    let side = open_side(&facts).unwrap_or(args.side);
    let (preprocess, preprocess_source) = match &args.preprocessor {
        Some(path) => {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let preprocess = from_preprocessor_config(&text);
            let preprocess = preprocess.with_context(|| path.display().to_string())?;
            (preprocess, "From preprocessor_config.json.".to_owned())
        }
        None => {
            let preset: Preset = args.preset.parse().map_err(Usage::new)?;
            let source = format!(
                "Preset {}: a guess, compare it with how the model was trained.",
                args.preset
            );
            (preset.preprocess(side), source)
        }
    };
    let stem = args.onnx.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let options = InitOptions {
        name: model_name(&stem.unwrap_or_default()),
        onnx: args
            .onnx
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        labels: args.labels.clone(),
        side,
        preprocess,
        preprocess_source,
    };
    let text = write_model_toml(&facts, &options)?;
    if to_stdout {
        std::io::stdout().write_all(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    super::write_whole(&output, text.as_bytes())?;
    tell!("wrote {}", output.display());
    tell!("next: graphlet check {}", output.display());
    Ok(ExitCode::SUCCESS)
}

/// The input's side when the file fixes it: the last extent that is no channel count.
fn open_side(facts: &OnnxFacts) -> Option<u32> {
    let shape = &facts.inputs.first()?.shape;
    shape.iter().rev().find_map(|dimension| match dimension {
        Dimension::Fixed(extent) if *extent > 3 => u32::try_from(*extent).ok(),
        _ => None,
    })
}

/// A file stem as a model name: lower case, anything strange a hyphen.
fn model_name(stem: &str) -> String {
    let name: String = stem
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(63)
        .collect();
    let name = name.trim_start_matches(['.', '_', '-']);
    if name.is_empty() { "model".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_becomes_a_model_name() {
        for (stem, expected) in
            [("ResNet 50 (v1.5)", "resnet-50--v1.5-"), ("_x", "x"), ("é", "model"), ("a.b", "a.b")]
        {
            assert_eq!(model_name(stem), expected);
        }
    }
}
