//! `graphlet inspect`: everything a module says about itself, and whether it would run here.

use std::{
    fmt::Write as _,
    io::{Write as _, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use claims::{Claims, Digest, Sections, Timestamp, VerifyError, authentic_claims, verify};
use model_spec::SimdLevel;
use serde::Serialize;

use crate::{
    card::Card,
    component::Component,
    files::{printable, read_large_module},
    plan::Plan,
    shape::{Entry, Memory, Shape},
    trust::{self, TrustFile},
    units::{show_count, show_duration},
};

/// Show a module's claims, verdict, model card, sizes, SIMD level, memory plan, imports and exports
///
/// The exit code says only whether the file could be read; `graphlet verify` judges.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The module
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let bytes = read_large_module(&args.module)?;
    let now = Timestamp::from(SystemTime::now());
    let report = Report::of(&args.module, &bytes, &TrustFile::load()?, now)
        .with_context(|| format!("cannot inspect {}", args.module.display()))?;
    let mut out = stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        out.write_all(report.to_text(now).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Serialize)]
struct Report {
    file: String,
    bytes: u64,
    digest: String,
    /// `module` or `component`.
    kind: &'static str,
    verdict: Verdict,
    /// Only claims whose signature and hash hold are shown.
    claims: Option<ShownClaims>,
    model: Option<Card>,
    /// Why there is a model card that is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_error: Option<String>,
    simd: SimdLevel,
    memory: Vec<Memory>,
    /// Where an instance's memory goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Plan>,
    sections: Vec<SectionSize>,
    imports: Vec<Entry>,
    exports: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Verdict {
    verified: bool,
    /// Stable word of the refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShownClaims {
    name: Option<String>,
    version: Option<String>,
    revision: Option<i32>,
    subject: String,
    issuer: String,
    issuer_trusted: bool,
    issuer_name: Option<String>,
    capabilities: Vec<String>,
    tags: Vec<String>,
    id: String,
    issued_at: Timestamp,
    not_before: Option<Timestamp>,
    expires: Option<Timestamp>,
    hash: String,
}

#[derive(Debug, Serialize)]
struct SectionSize {
    name: String,
    bytes: usize,
}

impl Report {
    fn of(path: &Path, bytes: &[u8], trust: &TrustFile, now: Timestamp) -> Result<Self> {
        let component = Component::is_one(bytes).then(|| Component::of(bytes)).transpose()?;
        let (sections, shape) = match &component {
            Some(component) => {
                let sections = component.sections.iter();
                let size = |(name, bytes): &(String, usize)| SectionSize {
                    name: name.clone(),
                    bytes: *bytes,
                };
                let inside = Shape::of(component.module.unwrap_or(EMPTY_MODULE))?;
                let (imports, exports) = (component.imports.clone(), component.exports.clone());
                (sections.map(size).collect(), Shape { imports, exports, ..inside })
            }
            None => (sections_of(bytes)?, Shape::of(bytes)?),
        };
        let verdict = match verify(bytes, &trust.policy(now)) {
            Ok(_) => Verdict { verified: true, code: None, reason: None, hint: None },
            Err(error) => Verdict {
                verified: false,
                code: Some(error.code()),
                reason: Some(reason(&error)),
                hint: Some(trust::hint(&error, path)),
            },
        };
        let card = match &component {
            Some(component) => component.custom_section(Card::SECTION).map(Card::parse).transpose(),
            None => Card::of(bytes),
        };
        let (model, model_error) = match card {
            Ok(card) => (card, None),
            Err(error) => (None, Some(format!("{:#}", anyhow::Error::from(error)))),
        };
        let module = component.as_ref().map_or(bytes, |found| found.module.unwrap_or(EMPTY_MODULE));
        let plan = Plan::of(module, model.as_ref())?;
        Ok(Report {
            file: path.display().to_string(),
            bytes: bytes.len() as u64,
            digest: Digest::of(bytes).to_string(),
            kind: if component.is_some() { "component" } else { "module" },
            verdict,
            claims: authentic_claims(bytes).ok().map(|claims| ShownClaims::of(claims, trust)),
            model,
            model_error,
            simd: shape.simd,
            memory: shape.memories,
            plan,
            sections,
            imports: shape.imports,
            exports: shape.exports,
        })
    }

    fn to_text(&self, now: Timestamp) -> String {
        let mut text = Text::default();
        text.line("file", &format!("{}, {} bytes", self.file, show_count(self.bytes)));
        text.line("digest", &self.digest);
        if self.kind == "component" {
            text.line("kind", "component, for wasmtime serve, Spin and wasmCloud");
        }
        match (&self.verdict.reason, self.verdict.code) {
            (Some(reason), Some(code)) => {
                text.line("verdict", &format!("refused ({code}): {reason}"));
            }
            _ => text.line("verdict", "verified: would run here"),
        }
        if let Some(hint) = &self.verdict.hint {
            text.line("hint", hint);
        }
        match &self.claims {
            Some(claims) => claims.write(&mut text, now),
            None if self.kind == "component" => {
                text.line("claims", "none: hosts of components read none");
            }
            None => text.line("claims", "none that hold"),
        }
        if let Some(card) = &self.model {
            write_card(card, &mut text);
        }
        if let Some(error) = &self.model_error {
            text.line("model", error);
        }
        text.line("SIMD", self.simd.as_str());
        for memory in &self.memory {
            let most = match memory.maximum_pages {
                Some(pages) => format!("at most {}", mebibytes(pages)),
                None => "no maximum".into(),
            };
            text.line("memory", &format!("{} at the start, {most}", mebibytes(memory.pages)));
        }
        if let Some(plan) = &self.plan {
            let lines = plan.lines().into_iter();
            text.list(
                "plan",
                lines.map(|(bytes, of)| format!("{:>13} bytes  {of}", show_count(bytes))),
            );
        }
        text.list(
            "sections",
            self.sections.iter().map(|section| {
                format!("{:>13} bytes  {}", show_count(section.bytes as u64), section.name)
            }),
        );
        text.list("imports", self.imports.iter().map(ToString::to_string));
        text.list("exports", self.exports.iter().map(ToString::to_string));
        text.0
    }
}

/// The sections of a core module.
fn sections_of(bytes: &[u8]) -> Result<Vec<SectionSize>> {
    let mut sections = Vec::new();
    for section in Sections::of_any_size(bytes)? {
        let section = section?;
        let name = match section.name {
            Some(name) => format!("custom {name:?}"),
            None => SECTION_NAMES[usize::from(section.id)].to_owned(),
        };
        sections.push(SectionSize { name, bytes: section.span.len() });
    }
    Ok(sections)
}

impl ShownClaims {
    fn of(claims: Claims, trust: &TrustFile) -> Self {
        let name = trust.issuer_name(claims.issuer);
        ShownClaims {
            subject: claims.subject.to_string(),
            issuer: claims.issuer.to_string(),
            issuer_trusted: name.is_some(),
            issuer_name: name.filter(|name| !name.is_empty()).map(str::to_owned),
            name: claims.name,
            version: claims.version,
            revision: claims.revision,
            capabilities: claims.capabilities,
            tags: claims.tags,
            id: claims.id,
            issued_at: claims.issued_at,
            not_before: claims.not_before,
            expires: claims.expires,
            hash: claims.hash.to_string(),
        }
    }

    fn write(&self, text: &mut Text, now: Timestamp) {
        let trusted = match (&self.issuer_name, self.issuer_trusted) {
            (Some(name), _) => format!("trusted: {name}"),
            (None, true) => "trusted".into(),
            (None, false) => "not trusted here".into(),
        };
        text.line("name", self.name.as_deref().unwrap_or("(none)"));
        text.line("actor", &self.subject);
        text.line("issuer", &format!("{} ({trusted})", self.issuer));
        text.line("may use", &self.capabilities.join(", "));
        text.optional("version", self.version.as_deref());
        text.optional("revision", self.revision.map(|revision| revision.to_string()).as_deref());
        text.line("token", &self.id);
        text.line("issued", &self.issued_at.to_string());
        text.optional("not before", self.not_before.map(|time| time.to_string()).as_deref());
        let expires = match self.expires {
            None => "never".into(),
            Some(time) if time > now => format!("{time}, in {}", show_duration(time.since(now))),
            Some(time) => format!("{time}, {} ago", show_duration(now.since(time))),
        };
        text.line("expires", &expires);
        text.optional("tags", Some(&self.tags.join(", ")[..]).filter(|tags| !tags.is_empty()));
        text.line("hash", &self.hash);
    }
}

fn write_card(card: &Card, text: &mut Text) {
    let spec = &card.spec;
    text.line("model", &format!("{} {}", spec.model.name, spec.model.version));
    for (name, value) in [
        ("about", &spec.model.description),
        ("licence", &spec.model.licence),
        ("source", &spec.model.source),
    ] {
        text.optional(name, Some(value.as_str()).filter(|value| !value.is_empty()));
    }
    text.line(
        "input",
        &format!(
            "{:?} {} {} {}",
            spec.input.shape,
            word(&spec.input.dtype),
            word(&spec.input.layout),
            word(&spec.preprocess.channels)
        ),
    );
    text.line(
        "picture",
        &format!(
            "{} {}, scale {:?}, mean {:?}, std {:?}",
            word(&spec.preprocess.resize),
            word(&spec.preprocess.filter),
            spec.preprocess.scale,
            spec.preprocess.mean,
            spec.preprocess.std
        ),
    );
    text.line(
        "output",
        &format!("{}, {} labels", word(&spec.output.kind), show_count(card.labels)),
    );
    for (part, size) in &card.sizes {
        let size = match size.as_u64() {
            Some(bytes) => format!("{} bytes", show_count(bytes)),
            None => size.to_string(),
        };
        text.line("size", &format!("{part}: {size}"));
    }
    for (tool, version) in &card.versions {
        let version = version.as_str().map_or_else(|| version.to_string(), str::to_owned);
        text.line("made with", &format!("{tool} {version}"));
    }
}

/// A value in the words that `model.toml` uses.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}

fn reason(error: &VerifyError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

fn mebibytes(pages: u64) -> String {
    format!("{:.1} MiB", pages as f64 / 16.0)
}

/// Lines of a key and a value, fit for a terminal whatever the module says.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, key: &str, value: &str) {
        let line = format!("{key:<10} {}", printable(value));
        let _ = writeln!(self.0, "{}", line.trim_end());
    }

    fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.line(key, value);
        }
    }

    fn list(&mut self, key: &str, values: impl Iterator<Item = String>) {
        self.line(key, "");
        for value in values {
            let _ = writeln!(self.0, "  {}", printable(&value));
        }
    }
}

/// What a component without a core module would compute with.
const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// By section id; `Sections` knows no others.
const SECTION_NAMES: [&str; 14] = [
    "custom",
    "type",
    "import",
    "function",
    "table",
    "memory",
    "global",
    "export",
    "start",
    "element",
    "code",
    "data",
    "data count",
    "tag",
];
