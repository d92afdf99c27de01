//! The host manifest: which actors run here, and what they are linked to.
//!
//! YAML as waSCC hosts read it, with `${VAR:default}` in any value. Every mistake is reported, not
//! only the first. `provider-config/digits.yaml` shows all of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde_yaml_ng::{Mapping, Value};

use crate::{Isolation, ParseIsolationError, limits, provider::Link};

/// What a host runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// What the operator says about this host; free words.
    pub labels: BTreeMap<String, String>,
    /// Module files, resolved against the manifest's folder.
    pub actors: Vec<PathBuf>,
    /// How long an instance of any of them lives; `None` leaves it to the command line.
    pub isolation: Option<Isolation>,
    /// Capabilities that this host gives.
    pub capabilities: Vec<String>,
    /// Links to make.
    pub bindings: Vec<Binding>,
}

/// One link as a manifest spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The actor: its subject key, its name, or its entry under `actors`.
    pub actor: String,
    /// The link.
    pub link: Link,
}

/// A manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is larger than any manifest.
    #[error("a manifest of more than {} bytes", limits::MANIFEST_BYTES)]
    TooLarge,
    /// Not YAML.
    #[error("malformed YAML")]
    Yaml(#[source] serde_yaml_ng::Error),
    /// YAML, but not a manifest.
    #[error("{}", list(.0))]
    Mistakes(Vec<Mistake>),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where, as `bindings[0].values.PORT`.
    pub at: String,
    /// What.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

fn list(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

/// Looks up a variable for `${VAR}`; most often the process's environment.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Manifest {
    /// Reads a manifest from a file; `known` are the capabilities that the host can give.
    ///
    /// # Errors
    /// [`ManifestError`], with every mistake in it.
    pub fn read(
        path: &Path,
        known: &[&str],
        variables: Variables<'_>,
    ) -> Result<Self, ManifestError> {
        let fail = |source| ManifestError::Read { path: path.to_owned(), source };
        let file = fs::File::open(path).map_err(fail)?;
        let mut text = String::new();
        let read = file.take(limits::MANIFEST_BYTES + 1).read_to_string(&mut text).map_err(fail)?;
        if read as u64 > limits::MANIFEST_BYTES {
            return Err(ManifestError::TooLarge);
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder, known, variables)
    }

    /// Reads a manifest from text; paths in it are relative to `folder`.
    ///
    /// # Errors
    /// [`ManifestError`], with every mistake in it.
    pub fn parse(
        text: &str,
        folder: &Path,
        known: &[&str],
        variables: Variables<'_>,
    ) -> Result<Self, ManifestError> {
        let value: Value = serde_yaml_ng::from_str(text).map_err(ManifestError::Yaml)?;
        let mut reader = Reader { variables, mistakes: Vec::new() };
        let manifest = reader.manifest(&value, folder, known);
        if reader.mistakes.is_empty() {
            Ok(manifest)
        } else {
            Err(ManifestError::Mistakes(reader.mistakes))
        }
    }
}

/// Walks the YAML and notes what is wrong.
struct Reader<'a> {
    variables: Variables<'a>,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn wrong(&mut self, at: &str, what: impl Into<String>) {
        self.mistakes.push(Mistake { at: at.into(), what: what.into() });
    }

    fn manifest(&mut self, value: &Value, folder: &Path, known: &[&str]) -> Manifest {
        let keys = ["labels", "actors", "isolation", "capabilities", "bindings"];
        let Some(top) = self.mapping(value, "manifest", &keys) else { return Manifest::default() };
        let labels = top.get("labels").map(|value| self.texts(value, "labels"));
        let mut actors = Vec::new();
        for (at, item) in self.items(top.get("actors"), "actors") {
            if let Some(actor) = self.text(item, &at) {
                actors.push(actor);
            }
        }
        if top.get("actors").is_none_or(Value::is_null) {
            self.wrong("actors", "missing: list at least one module file");
        }
        let isolation = top.get("isolation").and_then(|value| {
            let text = self.text(value, "isolation")?;
            text.parse()
                .map_err(|error: ParseIsolationError| {
                    self.wrong("isolation", error.to_string());
                })
                .ok()
        });
        let mut capabilities = Vec::new();
        for (at, item) in self.items(top.get("capabilities"), "capabilities") {
            let Some(capability) = self.text(item, &at) else { continue };
            if !known.contains(&capability.as_str()) {
                let known = known.join(", ");
                self.wrong(&at, format!("this host has no `{capability}`; it has: {known}"));
            }
            capabilities.push(capability);
        }
        let mut bindings = Vec::new();
        let mut seen = BTreeSet::new();
        for (at, item) in self.items(top.get("bindings"), "bindings") {
            let Some(binding) = self.binding(item, &at) else { continue };
            let link = &binding.link;
            if !capabilities.contains(&link.capability) {
                let capability = &link.capability;
                self.wrong(
                    &format!("{at}.capability"),
                    format!("`{capability}` is not listed under `capabilities`"),
                );
            }
            let key = (binding.actor.clone(), link.capability.clone(), link.binding.clone());
            if !seen.insert(key) {
                self.wrong(&at, "this actor, capability and binding are joined above already");
            }
            bindings.push(binding);
        }
        let actors = actors.iter().map(|actor| folder.join(actor)).collect();
        let labels = labels.unwrap_or_default();
        Manifest { labels, actors, isolation, capabilities, bindings }
    }

    fn binding(&mut self, value: &Value, at: &str) -> Option<Binding> {
        let map = self.mapping(value, at, &["actor", "capability", "binding", "values"])?;
        let mut required = |key: &str| match map.get(key) {
            Some(value) => self.text(value, &format!("{at}.{key}")),
            None => {
                self.wrong(&format!("{at}.{key}"), "missing");
                None
            }
        };
        let (actor, capability) = (required("actor"), required("capability"));
        let binding = match map.get("binding") {
            Some(value) => self.text(value, &format!("{at}.binding")),
            None => Some(wire::DEFAULT_BINDING.to_owned()),
        };
        let values = map.get("values").map(|value| self.texts(value, &format!("{at}.values")));
        let values = values.unwrap_or_default();
        let link = Link { capability: capability?, binding: binding?, values };
        Some(Binding { actor: actor?, link })
    }

    fn mapping<'v>(&mut self, value: &'v Value, at: &str, keys: &[&str]) -> Option<&'v Mapping> {
        let Some(map) = value.as_mapping() else {
            self.wrong(at, format!("a mapping with {} is wanted here", keys.join(", ")));
            return None;
        };
        for key in map.keys() {
            if !key.as_str().is_some_and(|key| keys.contains(&key)) {
                let key = spelled(key);
                self.wrong(at, format!("`{key}` is not one of {}", keys.join(", ")));
            }
        }
        Some(map)
    }

    fn items<'v>(&mut self, value: Option<&'v Value>, at: &str) -> Vec<(String, &'v Value)> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Vec::new() };
        let Some(items) = value.as_sequence() else {
            self.wrong(at, "a list is wanted here");
            return Vec::new();
        };
        let items = items.iter().enumerate();
        items.map(|(index, item)| (format!("{at}[{index}]"), item)).collect()
    }

    fn texts(&mut self, value: &Value, at: &str) -> BTreeMap<String, String> {
        if value.is_null() {
            return BTreeMap::new();
        }
        let Some(map) = value.as_mapping() else {
            self.wrong(at, "a mapping of names to values is wanted here");
            return BTreeMap::new();
        };
        let mut texts = BTreeMap::new();
        for (key, value) in map {
            let key = spelled(key);
            if let Some(text) = self.scalar(value, &format!("{at}.{key}")) {
                texts.insert(key, text);
            }
        }
        texts
    }

    /// A text that must say something.
    fn text(&mut self, value: &Value, at: &str) -> Option<String> {
        let text = self.scalar(value, at)?;
        if text.trim().is_empty() {
            self.wrong(at, "empty");
            return None;
        }
        Some(text)
    }

    fn scalar(&mut self, value: &Value, at: &str) -> Option<String> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            _ => {
                self.wrong(at, "a single value is wanted here");
                return None;
            }
        };
        match expand(&text, self.variables) {
            Ok(text) => Some(text),
            Err(what) => {
                self.wrong(at, what);
                None
            }
        }
    }
}

/// A key as a person would write it.
fn spelled(key: &Value) -> String {
    match key {
        Value::String(key) => key.clone(),
        other => serde_yaml_ng::to_string(other).unwrap_or_default().trim().to_owned(),
    }
}

/// Replaces `${VAR}` by the variable's value, `${VAR:default}` by the value or, when it is not
/// set, the default; `$$` is a dollar. What a variable holds is not expanded again.
fn expand(text: &str, variables: Variables<'_>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let Some((inside, after)) = after.split_once('}') else {
                return Err(format!("`${{{after}` has no closing brace"));
            };
            let (name, default) = match inside.split_once(':') {
                Some((name, default)) => (name, Some(default)),
                None => (inside, None),
            };
            let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(letter) {
                return Err(format!("`{name}` is not the name of a variable"));
            }
            match variables(name).or_else(|| default.map(str::to_owned)) {
                Some(value) => expanded.push_str(&value),
                None => {
                    return Err(format!(
                        "`{name}` is not set in the environment, and `${{{name}}}` has no default"
                    ));
                }
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 2] = ["wascc:http_server", "wascc:logging"];

    fn parse(text: &str) -> Result<Manifest, ManifestError> {
        let variables = |name: &str| match name {
            "PORT" => Some("9000".to_owned()),
            "TRICKY" => Some("${PORT}\nactors: []".to_owned()),
            _ => None,
        };
        Manifest::parse(text, Path::new("/models"), &KNOWN, &variables)
    }

    fn mistakes(text: &str) -> Vec<String> {
        match parse(text) {
            Err(ManifestError::Mistakes(mistakes)) => {
                mistakes.iter().map(Mistake::to_string).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_manifest_is_read_with_its_variables() {
        let manifest = parse(
            r#"
labels: {zone: "${ZONE:here}", floor: 2}
actors: [digits.wasm, /else/where.wasm]
capabilities: ["wascc:http_server", "wascc:logging"]
bindings:
  - actor: MDIGITS
    capability: wascc:http_server
    values: {PORT: "${PORT:8081}", HOST: "${ADDRESS:127.0.0.1}", PRICE: "5$$", NUMBER: 3, ON: true}
  - {actor: digits, capability: "wascc:logging", binding: audit}
"#,
        )
        .unwrap();
        let zone = [("floor", "2"), ("zone", "here")].map(|(k, v)| (k.into(), v.into()));
        assert_eq!(manifest.labels, BTreeMap::from(zone));
        assert_eq!(
            manifest.actors,
            [Path::new("/models/digits.wasm"), Path::new("/else/where.wasm")]
        );
        let values = &manifest.bindings[0].link.values;
        for (key, value) in [
            ("PORT", "9000"),
            ("HOST", "127.0.0.1"),
            ("PRICE", "5$"),
            ("NUMBER", "3"),
            ("ON", "true"),
        ] {
            assert_eq!(values[key], value);
        }
        assert_eq!(manifest.bindings[0].link.binding, "default");
        assert_eq!(manifest.bindings[1].link.binding, "audit");
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let found = mistakes(
            r#"
actor: [x.wasm]
actors: ["", 7, [nested]]
capabilities: ["wascc:http_server", "wascc:blobstore"]
bindings:
  - {capability: "wascc:http_server", values: {PORT: "${UNSET}"}}
  - {actor: a, capability: "wascc:logging", value: 1}
  - {actor: a, capability: "wascc:http_server"}
  - {actor: a, capability: "wascc:http_server"}
  - nonsense
"#,
        );
        let expected = [
            "manifest: `actor` is not one of labels, actors, isolation, capabilities, bindings",
            "actors[0]: empty",
            "actors[2]: a single value is wanted here",
            "capabilities[1]: this host has no `wascc:blobstore`; it has: wascc:http_server, \
             wascc:logging",
            "bindings[0].actor: missing",
            "bindings[0].values.PORT: `UNSET` is not set in the environment, and `${UNSET}` has no \
             default",
            "bindings[1]: `value` is not one of actor, capability, binding, values",
            "bindings[1].capability: `wascc:logging` is not listed under `capabilities`",
            "bindings[3]: this actor, capability and binding are joined above already",
            "bindings[4]: a mapping with actor, capability, binding, values is wanted here",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn isolation_is_one_of_two_words_or_left_open() {
        let isolation = |text: &str| parse(&format!("actors: [a.wasm]\n{text}")).unwrap().isolation;
        assert_eq!(isolation(""), None);
        assert_eq!(isolation("isolation: request"), Some(Isolation::Request));
        assert_eq!(isolation("isolation: ${HOW:pooled}"), Some(Isolation::Pooled));
        let found = mistakes("actors: [a.wasm]\nisolation: often");
        assert_eq!(found, ["isolation: `often` is neither `pooled` nor `request`"]);
        assert_eq!(mistakes("actors: [a.wasm]\nisolation: [request]").len(), 1);
    }

    #[test]
    fn variables_cannot_change_the_manifests_structure() {
        let manifest = parse("actors: [a.wasm]\nlabels: {x: \"${TRICKY}\"}").unwrap();
        assert_eq!(manifest.labels["x"], "${PORT}\nactors: []");
        assert_eq!(manifest.actors.len(), 1);
    }

    #[test]
    fn malformed_variables_are_mistakes() {
        for (text, expected) in [
            ("${PORT", "no closing brace"),
            ("${}", "not the name of a variable"),
            ("${A B:1}", "not the name of a variable"),
            ("a ${NOT_SET} b", "not set"),
        ] {
            let found = mistakes(&format!("actors: [a.wasm]\nlabels: {{x: '{text}'}}"));
            assert!(found.len() == 1 && found[0].contains(expected), "{text}: {found:?}");
        }
        assert_eq!(expand("$x $ ${PORT:1:2}", &|_| None).unwrap(), "$x $ 1:2");
    }

    #[test]
    fn what_is_no_manifest_is_an_error_and_no_panic() {
        assert!(matches!(parse("a: [b"), Err(ManifestError::Yaml(_))));
        assert!(matches!(parse("\0"), Err(ManifestError::Yaml(_))));
        for text in
            ["", "[]", "7", "actors: {}", "actors:", "{1: 2, actors: [a]}", "actors: []\nlabels: 3"]
        {
            assert!(parse(text).is_err() || text == "actors: []", "{text}");
        }
        // Nine levels of nine aliases: 387 million strings if they were all made.
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..9 {
            let alias = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![alias; 9].join(",")));
        }
        assert!(matches!(parse(&bomb), Err(ManifestError::Yaml(_))));
    }

    #[test]
    fn the_example_in_the_repository_is_a_manifest() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../provider-config/digits.yaml");
        let manifest = Manifest::read(&path, &KNOWN, &|_| None).unwrap();
        assert_eq!(manifest.bindings[0].link.values["LISTEN"], "127.0.0.1:8081");
    }
}
