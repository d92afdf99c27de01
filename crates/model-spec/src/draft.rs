//! What a `model.toml` with mistakes still says, so that all of its mistakes come in one round.

use crate::{
    Lines, Mistake, Mistakes, ModelSpec, OnnxFacts, ParsedSpec,
    parse::{self, Holes, Read},
};

/// What could be read of a `model.toml`: the values, and every mistake found so far.
///
/// A file with mistakes still says something, and what it says can be held against the ONNX file
/// and the labels, so that an author sees all mistakes in one round.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    spec: ModelSpec,
    holes: Holes,
    lines: Lines,
    mistakes: Vec<Mistake>,
}

impl Draft {
    /// Reads `model.toml` and checks every rule that needs no other file.
    ///
    /// What is no TOML hides the rest: after a bracket that is never closed nothing can be relied
    /// on.
    pub fn read(text: &str) -> Self {
        let Read { spec, holes, lines, mistakes } = parse::read(text);
        let mut draft = Draft { spec, holes, lines, mistakes };
        if let Err(broken) = draft.spec.validate() {
            draft.add(broken);
        }
        draft
    }

    /// Name of the ONNX file, if it could be read.
    pub fn onnx(&self) -> Option<&str> {
        Some(self.spec.model.onnx.as_str()).filter(|name| !name.is_empty())
    }

    /// Name of the labels file, if it could be read.
    pub fn labels(&self) -> Option<&str> {
        Some(self.spec.output.labels.as_str()).filter(|name| !name.is_empty())
    }

    /// Name of the tuning log, if one is named.
    pub fn tuning(&self) -> Option<&str> {
        self.spec.compile.tuning.as_deref()
    }

    /// True when no mistake was found yet.
    pub fn is_faultless(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Adds a mistake that was found elsewhere; its line is filled in from its key.
    pub fn report(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    /// Compares what could be read with the ONNX file and the number of labels, and adds what
    /// contradicts.
    pub fn compare(&mut self, facts: &OnnxFacts, labels: Option<usize>) {
        if let Err(contradictions) = self.spec.check_against(facts, labels) {
            self.add(contradictions);
        }
    }

    /// The spec, if nothing is wrong with it.
    ///
    /// # Errors
    /// Every mistake, sorted by line.
    pub fn finish(self) -> Result<ParsedSpec, Mistakes> {
        match self.mistakes.is_empty() {
            true => Ok(ParsedSpec { spec: self.spec, lines: self.lines }),
            false => Err(self.lines.locate(Mistakes(self.mistakes))),
        }
    }

    /// Adds mistakes, but those that may come of a stand-in.
    fn add(&mut self, found: Mistakes) {
        let sound = |mistake: &Mistake| rests_on(&mistake.key).iter().all(|key| self.known(key));
        let found: Vec<Mistake> = found.0.into_iter().filter(sound).collect();
        self.mistakes.extend(found);
    }

    fn known(&self, key: &str) -> bool {
        let table = key.split_once('.').map_or(key, |(table, _)| table);
        !self.holes.contains(key) && !self.holes.contains(table)
    }
}

/// The keys whose values decide whether there is a mistake at `key`.
fn rests_on(key: &str) -> &'static [&'static str] {
    match key {
        "model.name" => &["model.name"],
        "model.version" => &["model.version"],
        "model.onnx" => &["model.onnx"],
        "input.shape" => &["input.shape"],
        "preprocess.channels" => &["preprocess.channels", "input.shape", "input.layout"],
        "preprocess.scale" => &["preprocess.scale", "preprocess.std", "preprocess.channels"],
        "preprocess.mean" => &["preprocess.mean", "preprocess.channels"],
        "preprocess.std" => &["preprocess.std", "preprocess.channels"],
        "preprocess.size" | "preprocess.crop" => &[
            "preprocess.size",
            "preprocess.crop",
            "preprocess.resize",
            "input.shape",
            "input.layout",
        ],
        "output.name" => &["output.name"],
        "output.kind" => &["output.kind", "output.name"],
        "output.labels" => &["output.labels", "output.name"],
        "output.top_k" => &["output.top_k"],
        "compile.threads" => &["compile.threads"],
        "compile.quantisation" => &["compile.quantisation"],
        "compile.tuning" => &["compile.tuning"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> OnnxFacts {
        serde_json::from_str(
            r#"{"inputs": [{"name": "x", "dtype": "float32", "shape": ["n", 3, 224, 224]}],
                "outputs": [{"name": "y", "dtype": "float32", "shape": ["n", 10],
                             "produced_by": "Softmax"}],
                "opset": {"": 13}}"#,
        )
        .unwrap()
    }

    fn keys(mistakes: &Mistakes) -> Vec<(Option<usize>, &str)> {
        mistakes.0.iter().map(|m| (m.line, m.key.as_str())).collect()
    }

    #[test]
    fn mistakes_of_the_file_and_against_the_onnx_file_come_in_one_round() {
        let text = r#"[model]
name = "m"
version = 1
onnx = "m.onnx"
[input]
name = "data"
shape = [1, 3, 200, 200]
[preprocess]
resize = "stretch"
size = 8
crop = 300
[output]
labels = "l"
kind = "logits"
[compile]
threads = 4
"#;
        let mut draft = Draft::read(text);
        assert_eq!((draft.onnx(), draft.labels()), (Some("m.onnx"), Some("l")));
        draft.compare(&facts(), Some(7));
        let mistakes = draft.finish().unwrap_err();
        // Size and crop mean nothing as long as nobody knows how to resize.
        assert_eq!(
            keys(&mistakes),
            [
                (Some(3), "model.version"),
                (Some(6), "input.name"),
                (Some(7), "input.shape"),
                (Some(9), "preprocess.resize"),
                (Some(13), "output.labels"),
                (Some(14), "output.kind"),
                (Some(16), "compile.threads"),
            ],
            "{mistakes}"
        );
    }

    #[test]
    fn what_could_not_be_read_contradicts_nothing() {
        for (replaced, by, expected) in [
            ("shape = [1, 3, 224, 224]", "shape = 224", "input.shape"),
            ("layout = \"NCHW\"", "layout = \"CHW\"", "input.layout"),
            ("layout = \"NCHW\"", "layuot = \"NHWC\"", "input.layuot"),
            ("name = \"y\"", "name = 5", "output.name"),
            ("kind = \"softmax\"", "kind = 1", "output.kind"),
            ("kind = \"softmax\"", "kinds = \"softmax\"", "output.kinds"),
            ("channels = \"RGB\"", "chanels = \"grey\"", "preprocess.chanels"),
            ("labels = \"l\"", "labels = []", "output.labels"),
            ("[output]", "[ouput]", "ouput"),
            ("[preprocess]", "[preproces]", "preproces"),
        ] {
            let whole = "[model]\nname = \"m\"\nversion = \"1\"\nonnx = \"m.onnx\"\n\
                [input]\nlayout = \"NCHW\"\nshape = [1, 3, 224, 224]\n\
                [preprocess]\nchannels = \"RGB\"\n\
                [output]\nname = \"y\"\nlabels = \"l\"\nkind = \"softmax\"\n";
            let mut draft = Draft::read(whole);
            draft.compare(&facts(), Some(10));
            assert!(draft.finish().is_ok());
            let mut draft = Draft::read(&whole.replace(replaced, by));
            let labels = draft.labels().map(|_| 10);
            draft.compare(&facts(), labels);
            let mistakes = draft.finish().unwrap_err();
            let found = keys(&mistakes);
            assert!(matches!(found[..], [(Some(_), key)] if key == expected), "{by}: {mistakes}");
        }
    }

    #[test]
    fn without_toml_nothing_is_known() {
        let mut draft = Draft::read("[model]\nonnx = \n[input\nshape = [1]\n");
        assert_eq!((draft.onnx(), draft.labels()), (None, None));
        draft.compare(&facts(), Some(7));
        let mistakes = draft.finish().unwrap_err();
        assert!(mistakes.0.iter().all(|mistake| mistake.key.is_empty()), "{mistakes}");
    }
}
