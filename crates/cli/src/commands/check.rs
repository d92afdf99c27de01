//! `graphlet check`: what a model needs and costs, before and after it is built.

use std::{
    fmt::Write as _,
    io::{Write as _, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use builder::{Home, compiler};
use model_spec::ModelSpec;
use serde::Deserialize;
use serde_json::{Value, json};

use super::compare::{self, Comparison};
use crate::{paths, units::show_count};

/// Check a model.toml against its ONNX file, and a built model against onnxruntime
///
/// Without --images nothing is built: the spec is held against the file, and operators,
/// multiply-adds, what is unsupported and what would run in slow loops are printed.
///
/// With --images the model is built too, in memory, and every picture of the folder goes through
/// the sandbox and through onnxruntime. A picture whose file or folder is called like a label
/// (`tabby.jpg`, `goldfish/1.png`) counts for top-1 and top-5.
///
/// Exit code 1: something is unsupported, or numbers differ from onnxruntime's.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model's description (docs/model-toml.md)
    #[arg(value_name = "MODEL.toml")]
    spec: PathBuf,
    /// Pictures to compare on
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The compiler's answer, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Report {
    operators: std::collections::BTreeMap<String, usize>,
    params: u64,
    macs: u64,
    unsupported: Vec<Value>,
    kernels: std::collections::BTreeMap<String, usize>,
    fallbacks: Vec<Fallback>,
}

#[derive(Debug, Deserialize)]
struct Fallback {
    node: String,
    operator: String,
    macs: u64,
    share: f64,
    reason: String,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let home = Home::find(paths::cache_dir()?)?;
    let (spec, onnx, labels) = builder::read_model(&home, &args.spec)?;
    let answer = compiler::check(&home, &spec, &onnx)?;
    let report: Report = serde_json::from_value(answer.clone())?;
    let supported = report.unsupported.is_empty();
    if !args.json {
        print(&before(&spec, labels.len(), &report))?;
    }
    let comparison = match &args.images {
        Some(images) if supported => {
            Some(compare::with_onnxruntime(&home, &args.spec, &spec, &onnx, &labels, images)?)
        }
        _ => None,
    };
    if args.json {
        let whole = json!({"check": answer, "comparison": comparison});
        print(&format!("{}\n", serde_json::to_string_pretty(&whole)?))?;
    } else if let Some(comparison) = &comparison {
        print(&after(comparison))?;
    }
    let agrees = comparison.as_ref().is_none_or(Comparison::agrees);
    Ok(if supported && agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(text: &str) -> Result<()> {
    Ok(stdout().write_all(text.as_bytes())?)
}

fn before(spec: &ModelSpec, labels: usize, report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |content: String| {
        let _ = writeln!(text, "{content}");
    };
    line(format!("{} {}: the spec agrees with its ONNX file", spec.model.name, spec.model.version));
    line(format!("input         {:?} {}", spec.input.shape, spec.preprocess.channels.as_str()));
    line(format!("labels        {labels}"));
    let megabytes = report.params as f64 * 4.0 / 1e6;
    line(format!("weights       {}, {megabytes:.1} MB", show_count(report.params)));
    // Behind an unsupported operator shapes are not known, and nothing can be counted.
    let counted = report.macs > 0 || report.unsupported.is_empty();
    if counted {
        line(format!("multiply-adds {:.1} million a picture", report.macs as f64 / 1e6));
    }
    let operators: Vec<String> =
        report.operators.iter().map(|(name, count)| format!("{name} {count}")).collect();
    line(format!("operators     {}", operators.join(", ")));
    let kernels: Vec<String> =
        report.kernels.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if counted {
        line(format!("kernels       {}", kernels.join(", ")));
    }
    if report.unsupported.is_empty() {
        line("unsupported   none".to_owned());
    }
    for entry in &report.unsupported {
        let words: Vec<&str> = ["operator", "node", "reason", "message"]
            .into_iter()
            .filter_map(|key| entry[key].as_str())
            .collect();
        let words = if words.is_empty() { entry.to_string() } else { words.join("  ") };
        line(format!("unsupported   {words}"));
    }
    if counted && report.fallbacks.is_empty() {
        line("slow loops    none".to_owned());
    }
    for fallback in &report.fallbacks {
        line(format!(
            "slow loops    {} `{}`: {:.1} million multiply-adds, {:.1} % of the model: {}",
            fallback.operator,
            fallback.node,
            fallback.macs as f64 / 1e6,
            fallback.share * 100.0,
            fallback.reason
        ));
    }
    text
}

fn after(comparison: &Comparison) -> String {
    let mut text = String::from("\n");
    let rows: Vec<[String; 3]> = comparison
        .pictures
        .iter()
        .map(|p| {
            [
                p.picture.clone(),
                format!("{} {:.3}", short(&p.label), p.score),
                format!("{} {:.3}", short(&p.reference_label), p.reference_score),
            ]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for ([name, ours, theirs], picture) in rows.iter().zip(&comparison.pictures) {
        let _ = writeln!(
            text,
            "{name:0$}  {ours:1$}  onnxruntime {theirs:2$}  difference {3:.1e}{4}",
            widths[0],
            widths[1],
            widths[2],
            picture.difference,
            if picture.agrees { "" } else { "  DISAGREES" }
        );
    }
    let _ = writeln!(
        text,
        "same label as onnxruntime: {} of {}; largest difference {:.1e} (output {})",
        comparison.same_label,
        comparison.pictures.len(),
        comparison.largest_difference,
        comparison.output
    );
    if comparison.named > 0 {
        let _ = writeln!(
            text,
            "of {} pictures named like a label: top-1 {}, top-5 {}",
            comparison.named, comparison.top1, comparison.top5
        );
    }
    text
}

/// The first of a label's synonyms: ImageNet's lists fill a line.
fn short(label: &str) -> &str {
    label.split(',').next().unwrap_or(label)
}

/// The parts of a path that may name a label: the folder it lies in, and its stem.
pub(crate) fn names_label(picture: &Path, label: &str) -> bool {
    let folder = picture.parent().and_then(Path::file_name);
    let stem = picture.file_stem();
    // `tabby, tabby cat`: any of the synonyms.
    let synonyms: Vec<String> = label.split(',').map(plain).collect();
    [folder, stem]
        .into_iter()
        .flatten()
        .map(|name| plain(&name.to_string_lossy()))
        .any(|name| synonyms.contains(&name))
}

/// Lower case, words by single spaces, without a trailing number (`cat_2`).
fn plain(text: &str) -> String {
    let words: Vec<String> = text
        .to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    match words.as_slice() {
        [rest @ .., last] if !rest.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) => {
            rest.join(" ")
        }
        words => words.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_named_by_its_stem_or_its_folder() {
        for (path, label, expected) in [
            ("golden_retriever.jpg", "golden retriever", true),
            ("pictures/tabby-2.png", "tabby, tabby cat", true),
            ("goldfish/1.png", "goldfish, Carassius auratus", true),
            ("cat.png", "tabby, tabby cat", false),
            ("7.png", "7", true),
        ] {
            assert_eq!(names_label(Path::new(path), label), expected, "{path} {label}");
        }
    }
}
