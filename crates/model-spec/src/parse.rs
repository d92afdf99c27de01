//! `model.toml` text to a [`ModelSpec`], with every mistake and its line.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::{
    Compile, Draft, Input, InputDType, Layout, Mistake, Mistakes, Model, ModelSpec, Output,
    OutputKind, Preprocess, Quantisation, Size, spec::DEFAULT_TOP_K,
};

/// Where each key stands, so that later checks can name its line too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// Line of a dotted key, or of its table when the key itself is absent.
    pub fn of(&self, key: &str) -> Option<usize> {
        let table = || key.split_once('.').and_then(|(table, _)| self.0.get(table));
        self.0.get(key).or_else(table).copied()
    }

    /// Fills in the lines of mistakes that were found without the text.
    #[must_use]
    pub fn locate(&self, mut mistakes: Mistakes) -> Mistakes {
        for mistake in &mut mistakes.0 {
            mistake.line = mistake.line.or_else(|| self.of(&mistake.key));
        }
        mistakes.0.sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
        mistakes
    }
}

/// A spec together with the lines of its keys.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedSpec {
    /// The value.
    pub spec: ModelSpec,
    /// Where its keys stand.
    pub lines: Lines,
}

/// Reads and validates `model.toml`.
///
/// # Errors
/// Syntax; else unknown keys, wrong types and broken rules, all of them together, each with its
/// line and, where there is one, a hint.
pub fn parse(text: &str) -> Result<ParsedSpec, Mistakes> {
    Draft::read(text).finish()
}

/// What [`read`] found.
pub(crate) struct Read {
    /// The values, with stand-ins for what is missing or unreadable.
    pub(crate) spec: ModelSpec,
    /// What is a stand-in.
    pub(crate) holes: Holes,
    /// Where the keys stand.
    pub(crate) lines: Lines,
    /// What is no TOML, no known key, or of the wrong type.
    pub(crate) mistakes: Vec<Mistake>,
}

/// Keys, or whole tables, whose value is not known.
pub(crate) type Holes = BTreeSet<String>;

/// Reads `model.toml` key by key.
pub(crate) fn read(text: &str) -> Read {
    let mut reader =
        Reader { text, lines: Lines::default(), mistakes: Vec::new(), holes: Holes::default() };
    let (document, errors) = DeTable::parse_recoverable(text);
    let spec = if errors.is_empty() {
        reader.spec(document.get_ref())
    } else {
        reader.holes.extend(TABLES.map(str::to_owned));
        reader.mistakes = errors
            .iter()
            .map(|error| Mistake {
                line: error.span().map(|span| reader.line(span.start)),
                key: String::new(),
                message: error.message().to_owned(),
                hint: None,
            })
            .collect();
        stand_in()
    };
    let Reader { lines, mistakes, holes, .. } = reader;
    Read { spec, holes, lines, mistakes }
}

/// A spec of which nothing is known.
fn stand_in() -> ModelSpec {
    ModelSpec {
        model: Model {
            name: String::new(),
            version: String::new(),
            description: String::new(),
            licence: String::new(),
            source: String::new(),
            onnx: String::new(),
        },
        input: Input {
            name: String::new(),
            shape: Vec::new(),
            dtype: InputDType::default(),
            layout: Layout::default(),
        },
        preprocess: Preprocess::default(),
        output: Output {
            name: String::new(),
            kind: OutputKind::default(),
            labels: String::new(),
            top_k: DEFAULT_TOP_K,
        },
        compile: Compile::default(),
    }
}

struct Reader<'a> {
    text: &'a str,
    lines: Lines,
    mistakes: Vec<Mistake>,
    holes: Holes,
}

type Value<'a> = Spanned<DeValue<'a>>;

/// One `[table]`, from which keys are taken one by one; what is left is unknown.
struct Table<'a, 'd> {
    name: &'static str,
    entries: Vec<(&'d str, &'d Value<'a>)>,
}

const TABLES: [&str; 5] = ["model", "input", "preprocess", "output", "compile"];

impl Reader<'_> {
    fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
    }

    fn report(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    /// The spec; what is missing or unreadable becomes a hole.
    fn spec(&mut self, document: &DeTable<'_>) -> ModelSpec {
        let mut tables: BTreeMap<&'static str, Table<'_, '_>> = BTreeMap::new();
        let mut strangers = Vec::new();
        for (key, value) in document {
            let line = self.line(key.span().start);
            let name = TABLES.into_iter().find(|table| *table == key.get_ref().as_ref());
            let Some(name) = name else {
                strangers.push((key.get_ref(), line));
                continue;
            };
            self.lines.0.insert(name.to_owned(), line);
            let DeValue::Table(entries) = value.get_ref() else {
                self.holes.insert(name.to_owned());
                self.report(Mistake::new(name, "must be a table").hint(format!("write [{name}]")));
                continue;
            };
            let entries = entries
                .iter()
                .map(|(key, value)| {
                    let line = self.line(key.span().start);
                    self.lines.0.insert(format!("{name}.{}", key.get_ref()), line);
                    (key.get_ref().as_ref(), value)
                })
                .collect();
            tables.insert(name, Table { name, entries });
        }
        for (name, line) in strangers {
            self.unknown("", name, &TABLES, Some(line));
        }
        let mut table =
            |name: &'static str| tables.remove(name).unwrap_or(Table { name, entries: Vec::new() });
        let (model, input) = (table("model"), table("input"));
        let (preprocess, output, compile) =
            (table("preprocess"), table("output"), table("compile"));
        ModelSpec {
            model: self.model(model),
            input: self.input(input),
            preprocess: self.preprocess(preprocess),
            output: self.output(output),
            compile: self.compile(compile),
        }
    }

    fn model(&mut self, mut table: Table<'_, '_>) -> Model {
        let model = Model {
            name: self.required(&mut table, "name", "\"mobilenet_v2\"", Self::string),
            version: self.required(&mut table, "version", "\"1.0.0\"", Self::string),
            onnx: self.required(&mut table, "onnx", "\"model.onnx\"", Self::string),
            description: self.optional(&mut table, "description", Self::string).unwrap_or_default(),
            licence: self.optional(&mut table, "licence", Self::string).unwrap_or_default(),
            source: self.optional(&mut table, "source", Self::string).unwrap_or_default(),
        };
        self.rest(&table, &["name", "version", "description", "licence", "source", "onnx"]);
        model
    }

    fn input(&mut self, mut table: Table<'_, '_>) -> Input {
        let input = Input {
            shape: self.required(&mut table, "shape", "[1, 3, 224, 224]", Self::extents),
            name: self.optional(&mut table, "name", Self::string).unwrap_or_default(),
            dtype: self.optional(&mut table, "dtype", Self::word).unwrap_or_default(),
            layout: self.optional(&mut table, "layout", Self::word).unwrap_or_default(),
        };
        self.rest(&table, &["name", "shape", "dtype", "layout"]);
        input
    }

    fn preprocess(&mut self, mut table: Table<'_, '_>) -> Preprocess {
        let default = Preprocess::default();
        let preprocess = Preprocess {
            resize: self.optional(&mut table, "resize", Self::word).unwrap_or(default.resize),
            size: self.optional(&mut table, "size", Self::size),
            crop: self.optional(&mut table, "crop", Self::size),
            filter: self.optional(&mut table, "filter", Self::word).unwrap_or(default.filter),
            channels: self.optional(&mut table, "channels", Self::word).unwrap_or(default.channels),
            scale: self.optional(&mut table, "scale", Self::numbers).unwrap_or(default.scale),
            mean: self.optional(&mut table, "mean", Self::numbers).unwrap_or(default.mean),
            std: self.optional(&mut table, "std", Self::numbers).unwrap_or(default.std),
            pad: self.optional(&mut table, "pad", Self::pad).unwrap_or(default.pad),
        };
        self.rest(
            &table,
            &["resize", "size", "crop", "filter", "channels", "scale", "mean", "std", "pad"],
        );
        preprocess
    }

    fn output(&mut self, mut table: Table<'_, '_>) -> Output {
        let output = Output {
            labels: self.required(&mut table, "labels", "\"labels.txt\"", Self::string),
            name: self.optional(&mut table, "name", Self::string).unwrap_or_default(),
            kind: self.optional(&mut table, "kind", Self::word).unwrap_or_default(),
            top_k: self.optional(&mut table, "top_k", Self::count).unwrap_or(DEFAULT_TOP_K),
        };
        self.rest(&table, &["name", "kind", "labels", "top_k"]);
        output
    }

    fn compile(&mut self, mut table: Table<'_, '_>) -> Compile {
        let default = Compile::default();
        let threads = self.optional(&mut table, "threads", Self::count);
        let compile = Compile {
            simd: self.optional(&mut table, "simd", Self::word).unwrap_or(default.simd),
            threads: threads
                .map_or(default.threads, |count| u32::try_from(count).unwrap_or(u32::MAX)),
            quantisation: self
                .optional(&mut table, "quantisation", Self::word)
                .unwrap_or(Quantisation::None),
            tuning: self.optional(&mut table, "tuning", Self::string),
        };
        self.rest(&table, &["simd", "threads", "quantisation", "tuning"]);
        compile
    }

    fn required<'a, 'd, T: Default>(
        &mut self,
        table: &mut Table<'a, 'd>,
        key: &'static str,
        example: &str,
        read: fn(&mut Self, &str, &DeValue<'_>) -> Option<T>,
    ) -> T {
        let dotted = format!("{}.{key}", table.name);
        if !table.entries.iter().any(|(name, _)| *name == key) {
            self.holes.insert(dotted.clone());
            // A table that is no table at all, or misspelt, lacks nothing more.
            if !self.holes.contains(table.name) {
                self.report(
                    Mistake::new(dotted, "is missing")
                        .hint(format!("for example {key} = {example} under [{}]", table.name)),
                );
            }
            return T::default();
        }
        self.optional(table, key, read).unwrap_or_default()
    }

    /// The key's value if it is there; a value that cannot be read is a hole.
    fn optional<'a, 'd, T>(
        &mut self,
        table: &mut Table<'a, 'd>,
        key: &'static str,
        read: fn(&mut Self, &str, &DeValue<'_>) -> Option<T>,
    ) -> Option<T> {
        let at = table.entries.iter().position(|(name, _)| *name == key)?;
        let (_, value) = table.entries.swap_remove(at);
        let dotted = format!("{}.{key}", table.name);
        let value = read(self, &dotted, value.get_ref());
        if value.is_none() {
            self.holes.insert(dotted);
        }
        value
    }

    fn rest(&mut self, table: &Table<'_, '_>, known: &[&str]) {
        for (key, _) in &table.entries {
            self.unknown(table.name, key, known, None);
        }
    }

    /// Reports a key that is not known. The one it was probably meant to be is a hole, unless it
    /// stands there too.
    fn unknown(&mut self, table: &str, key: &str, known: &[&str], line: Option<usize>) {
        let dotted = |key: &str| match table {
            "" => key.to_owned(),
            _ => format!("{table}.{key}"),
        };
        let mistake = Mistake { line, ..Mistake::new(dotted(key), "is not known") };
        let near = known.iter().min_by_key(|word| distance(word, key));
        let mistake = match near.filter(|near| distance(near, key) <= 2) {
            Some(near) => {
                let near_key = dotted(near);
                if !self.lines.0.contains_key(&near_key) {
                    self.holes.insert(near_key);
                }
                mistake.hint(format!("did you mean `{near}`?"))
            }
            None => mistake.hint(format!("known here: {}", known.join(", "))),
        };
        self.report(mistake);
    }

    fn wrong<T>(&mut self, key: &str, wanted: &str, value: &DeValue<'_>) -> Option<T> {
        let found = value.type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        self.report(Mistake::new(key, format!("must be {wanted}, is {article} {found}")));
        None
    }

    fn string(&mut self, key: &str, value: &DeValue<'_>) -> Option<String> {
        match value.as_str() {
            Some(text) => Some(text.to_owned()),
            None => self.wrong(key, "a string", value),
        }
    }

    /// One of an enum's words; serde's own message lists them.
    fn word<T: DeserializeOwned>(&mut self, key: &str, value: &DeValue<'_>) -> Option<T> {
        let text = self.string(key, value)?;
        match serde_json::from_value(serde_json::Value::String(text)) {
            Ok(word) => Some(word),
            Err(error) => {
                self.report(Mistake::new(key, error.to_string().replace("variant", "word")));
                None
            }
        }
    }

    fn count(&mut self, key: &str, value: &DeValue<'_>) -> Option<usize> {
        let parsed = value
            .as_integer()
            .and_then(|integer| usize::from_str_radix(integer.as_str(), integer.radix()).ok());
        match parsed {
            Some(count) => Some(count),
            None => self.wrong(key, "a whole number, 0 or more", value),
        }
    }

    fn list<T>(
        &mut self,
        key: &str,
        value: &DeValue<'_>,
        read: fn(&mut Self, &str, &DeValue<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        match value.as_array() {
            Some(items) => items.iter().map(|item| read(self, key, item.get_ref())).collect(),
            None => read(self, key, value).map(|one| vec![one]),
        }
    }

    fn extents(&mut self, key: &str, value: &DeValue<'_>) -> Option<Vec<usize>> {
        if value.as_array().is_none() {
            return self.wrong(key, "a list such as [1, 3, 224, 224]", value);
        }
        self.list(key, value, Self::count)
    }

    fn size(&mut self, key: &str, value: &DeValue<'_>) -> Option<Size> {
        let sides = self.list(key, value, Self::count)?;
        let sides: Option<Vec<u32>> =
            sides.into_iter().map(|side| u32::try_from(side).ok().filter(|&s| s > 0)).collect();
        match sides.as_deref() {
            Some(&[side]) => Some(Size { height: side, width: side }),
            Some(&[height, width]) => Some(Size { height, width }),
            _ => self.wrong(key, "a side or [height, width], each above 0", value),
        }
    }

    fn pad(&mut self, key: &str, value: &DeValue<'_>) -> Option<[u8; 3]> {
        let levels = self.list(key, value, Self::count)?;
        let levels: Option<Vec<u8>> = levels.into_iter().map(|l| u8::try_from(l).ok()).collect();
        match levels.as_deref() {
            Some(&[grey]) => Some([grey; 3]),
            Some(&[red, green, blue]) => Some([red, green, blue]),
            _ => self.wrong(key, "a grey level or [red, green, blue], each 0 to 255", value),
        }
    }

    /// A number, or a fraction of two in a string (`"1/127.5"`).
    fn number(&mut self, key: &str, value: &DeValue<'_>) -> Option<f32> {
        let parsed: Option<f64> = match value {
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok(),
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::String(text) => fraction(text),
            _ => None,
        };
        match parsed {
            // In double precision until here, so that 1/255 is the nearest float.
            Some(number) => Some(number as f32),
            None => self.wrong(key, "a number or a fraction such as \"1/255\"", value),
        }
    }

    fn numbers(&mut self, key: &str, value: &DeValue<'_>) -> Option<Vec<f32>> {
        self.list(key, value, Self::number)
    }
}

fn fraction(text: &str) -> Option<f64> {
    let (above, below) = text.split_once('/')?;
    let (above, below): (f64, f64) = (above.trim().parse().ok()?, below.trim().parse().ok()?);
    (below != 0.0).then(|| above / below)
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChannelOrder, Filter, Layout, OutputKind, ResizePolicy, SimdLevel};

    const WHOLE: &str = r#"
[model]
name = "mobilenet_v2"
version = "1.0.0"
onnx = "mobilenet_v2.onnx"

[input]
name = "data"
shape = [1, 3, 224, 224]

[preprocess]
resize = "shorter-side"
size = 256
channels = "RGB"
scale = "1/127.5"
mean = 1

[output]
name = "prob"
kind = "softmax"
labels = "labels.txt"
"#;

    #[test]
    fn a_whole_file_becomes_a_typed_value() {
        let spec = parse(WHOLE).unwrap().spec;
        assert_eq!(spec.model.name, "mobilenet_v2");
        assert_eq!(spec.input.height_width(), (224, 224));
        assert_eq!(spec.input.layout, Layout::Nchw);
        assert_eq!(spec.preprocess.size, Some(Size { height: 256, width: 256 }));
        assert_eq!(spec.preprocess.scale, [1.0 / 127.5]);
        assert_eq!(spec.preprocess.mean, [1.0]);
        assert_eq!(spec.preprocess.filter, Filter::Bilinear);
        assert_eq!(spec.output.kind, OutputKind::Softmax);
        assert_eq!(spec.output.top_k, 5);
        assert_eq!(spec.compile.simd, SimdLevel::Relaxed);
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<ModelSpec>(&json).unwrap(), spec);
    }

    #[test]
    fn every_option_is_read() {
        let text = r#"
model = { name = "d", version = "2", onnx = "d.onnx", licence = "MIT", source = "x", description = "y" }
input = { shape = [1, 28, 30, 1], layout = "NHWC", dtype = "float32" }
preprocess = { resize = "letterbox", size = [28, 30], filter = "bicubic", channels = "grey", pad = 7, mean = [0.5], std = [0.25], scale = 0.0039 }
output = { kind = "sigmoid-logits", labels = "l", top_k = 3 }
compile = { simd = "none", threads = 1, quantisation = "none" }
"#;
        let spec = parse(text).unwrap().spec;
        assert_eq!(spec.preprocess.resize, ResizePolicy::Letterbox);
        assert_eq!(spec.preprocess.channels, ChannelOrder::Grey);
        assert_eq!(spec.preprocess.pad, [7, 7, 7]);
        assert_eq!(spec.input.height_width(), (28, 30));
        assert_eq!(spec.output.kind, OutputKind::SigmoidLogits);
        assert_eq!(spec.compile.simd, SimdLevel::None);
    }

    #[test]
    fn all_mistakes_come_together_with_lines_and_hints() {
        let text = r#"[model]
name = "Mobile Net"
verison = "1"
version = "1"
onnx = "m.onnx"
[input]
shape = [2, 3, 224, 224]
[preprocess]
resize = "stretch"
mean = [0.4, 0.5]
std = [0.2, 0.0, 0.2]
crop = "no"
[output]
labels = 7
[compile]
threads = 4
quantisation = "int8"
"#;
        let mistakes = parse(text).unwrap_err();
        let found: Vec<(Option<usize>, &str)> =
            mistakes.0.iter().map(|m| (m.line, m.key.as_str())).collect();
        for expected in [
            (Some(2), "model.name"),
            (Some(3), "model.verison"),
            (Some(7), "input.shape"),
            (Some(9), "preprocess.resize"),
            (Some(10), "preprocess.mean"),
            (Some(11), "preprocess.std"),
            (Some(12), "preprocess.crop"),
            (Some(14), "output.labels"),
            (Some(16), "compile.threads"),
            (Some(17), "compile.quantisation"),
        ] {
            assert!(found.contains(&expected), "{expected:?} is not in {found:?}");
        }
        let text = mistakes.to_string();
        assert!(text.contains("did you mean `version`?"), "{text}");
        assert!(mistakes.0.is_sorted_by_key(|m| m.line.unwrap_or(usize::MAX)));
        assert_eq!(mistakes.0.len(), 10, "{mistakes}");
    }

    #[test]
    fn a_missing_key_names_its_table_and_shows_an_example() {
        let mistakes = parse("[model]\nname = \"x\"\nversion = \"1\"\n").unwrap_err().to_string();
        assert!(mistakes.contains("`model.onnx`: is missing"), "{mistakes}");
        assert!(mistakes.contains("shape = [1, 3, 224, 224]"), "{mistakes}");
        assert!(mistakes.contains("`output.labels`"), "{mistakes}");
    }

    #[test]
    fn syntax_errors_have_lines() {
        let mistakes = parse("[model]\nname = \n[input\n").unwrap_err();
        assert_eq!(mistakes.0[0].line, Some(2), "{mistakes}");
    }

    #[test]
    fn any_bytes_give_a_value_or_mistakes() {
        // A small linear congruential generator: the same mutations each run.
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        for _ in 0..2000 {
            let mut bytes = WHOLE.as_bytes().to_vec();
            for _ in 0..1 + next() % 4 {
                let at = next() % bytes.len();
                match next() % 3 {
                    0 => bytes[at] = (next() % 128) as u8,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b"[]{}=\"'\n.-1e,"[next() % 13]),
                }
            }
            if let Ok(text) = String::from_utf8(bytes) {
                let _ = parse(&text);
            }
        }
    }
}
