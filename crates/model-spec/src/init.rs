//! A first `model.toml` from the facts of an ONNX file.

use std::fmt::Write as _;

use crate::{
    ChannelOrder, Dimension, Filter, Layout, OnnxFacts, OutputKind, Preprocess, ResizePolicy,
};

/// What the facts do not say.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Name of the model.
    pub name: String,
    /// The ONNX file as `model.toml` shall name it.
    pub onnx: String,
    /// The labels file as `model.toml` shall name it.
    pub labels: String,
    /// Input side used where the file leaves rows and columns open, in pixels.
    pub side: u32,
    /// Preprocessing and where it comes from, by input side.
    pub preprocess: Preprocess,
    /// Where the preprocessing comes from, for the comment above it.
    pub preprocess_source: String,
}

/// No `model.toml` can be written for this graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The graph has no input, or several.
    #[error("the graph has {0} inputs, an image classifier has one")]
    Inputs(usize),
    /// The input is no image tensor.
    #[error("input `{name}` is {shape}, not an image tensor of 4 extents with 1 or 3 channels")]
    NotAnImage {
        /// Name of the input.
        name: String,
        /// Its shape.
        shape: String,
    },
}

/// The input's extents and layout as far as an ONNX file tells them.
pub(crate) struct Guess {
    shape: [usize; 4],
    layout: Layout,
}

pub(crate) fn guess_input(facts: &OnnxFacts, side: u32) -> Result<Guess, InitError> {
    let [input] = facts.inputs.as_slice() else {
        return Err(InitError::Inputs(facts.inputs.len()));
    };
    let not_an_image =
        || InitError::NotAnImage { name: input.name.clone(), shape: input.shape_text() };
    let [_, a, b, c] = input.shape.as_slice() else {
        return Err(not_an_image());
    };
    let channels = |dimension: &Dimension| matches!(dimension, Dimension::Fixed(1 | 3));
    let extent = |dimension: &Dimension| match dimension {
        Dimension::Fixed(extent) => usize::try_from(*extent).unwrap_or(0),
        Dimension::Symbolic(_) => side as usize,
    };
    let count = |dimension: &Dimension| if channels(dimension) { extent(dimension) } else { 3 };
    let symbolic = |dimension: &Dimension| matches!(dimension, Dimension::Symbolic(_));
    let (layout, shape) = if channels(a) || (symbolic(a) && !channels(c)) {
        (Layout::Nchw, [1, count(a), extent(b), extent(c)])
    } else if channels(c) {
        (Layout::Nhwc, [1, extent(a), extent(b), count(c)])
    } else {
        return Err(not_an_image());
    };
    Ok(Guess { shape, layout })
}

/// Writes a `model.toml` that builds as it stands once the labels file is there. Every guess
/// has a comment.
///
/// # Errors
/// [`InitError`] when the graph is no image classifier.
pub fn write_model_toml(facts: &OnnxFacts, options: &InitOptions) -> Result<String, InitError> {
    let guess = guess_input(facts, options.side)?;
    let input = &facts.inputs[0];
    let grey = match guess.layout {
        Layout::Nchw => guess.shape[1] == 1,
        Layout::Nhwc => guess.shape[3] == 1,
    };
    let mut preprocess = options.preprocess.clone();
    if grey {
        preprocess.channels = ChannelOrder::Grey;
        for values in [&mut preprocess.scale, &mut preprocess.mean, &mut preprocess.std] {
            values.truncate(1);
        }
    }
    let kind = if facts.outputs.first().is_some_and(|output| output.produced_by == "Softmax") {
        OutputKind::Softmax
    } else if facts.outputs.first().is_some_and(|output| output.produced_by == "Sigmoid") {
        OutputKind::Sigmoid
    } else {
        OutputKind::Logits
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |content: String| {
        let _ = writeln!(text, "{content}");
    };
    line("# Reference: docs/model-toml.md. Check it with `graphlet check model.toml`.".to_owned());
    line("[model]".to_owned());
    line(format!("name = {}", quoted(&options.name)));
    line("version = \"1.0.0\"".to_owned());
    line("# licence = \"Apache-2.0\"".to_owned());
    line("# source = \"where the weights come from\"".to_owned());
    line(format!("onnx = {}", quoted(&options.onnx)));
    line(String::new());
    line("[input]".to_owned());
    if input.shape.iter().any(|dimension| matches!(dimension, Dimension::Symbolic(_))) {
        line(format!("# The file says {}: the open extents are bound here.", input.shape_text()));
    }
    line(format!("name = {}", quoted(&input.name)));
    line(format!("shape = {:?}", guess.shape));
    line(format!("layout = {}", word(&guess.layout)));
    line(String::new());
    line("[preprocess]".to_owned());
    line(format!("# {}", options.preprocess_source.replace('\n', " ")));
    line(format!("resize = {}", word(&preprocess.resize)));
    if let (ResizePolicy::ShorterSide, Some(size)) = (preprocess.resize, preprocess.size) {
        line(format!("size = {}   # the shorter side, before the centre crop", size.height));
    }
    line(format!("filter = {}", word::<Filter>(&preprocess.filter)));
    line(format!("channels = {}", word(&preprocess.channels)));
    line("# (value * scale - mean) / std, per channel, values 0 to 255".to_owned());
    line(format!("scale = {}", numbers(&preprocess.scale)));
    line(format!("mean = {}", numbers(&preprocess.mean)));
    line(format!("std = {}", numbers(&preprocess.std)));
    line(String::new());
    line("[output]".to_owned());
    if let Some(output) = facts.outputs.first() {
        if facts.outputs.len() > 1 {
            let names: Vec<&str> =
                facts.outputs.iter().map(|output| output.name.as_str()).collect();
            line(format!("# The graph has several: {}.", names.join(", ")));
        }
        line(format!("name = {}", quoted(&output.name)));
        if output.produced_by.is_empty() {
            line("# logits, softmax, sigmoid-logits or sigmoid: what the numbers are".to_owned());
        } else {
            line(format!("# What the numbers are; the last operator is {}.", output.produced_by));
        }
    }
    line(format!("kind = {}", word(&kind)));
    line(format!("labels = {}", quoted(&options.labels)));
    line("top_k = 5".to_owned());
    Ok(text)
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// An enum's word, quoted; all of them serialise as strings.
fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn numbers(values: &[f32]) -> String {
    let one = |value: &f32| {
        // Shorter and exact: 1/255 and 1/127.5 are no round decimals.
        for below in [255.0_f32, 127.5] {
            if *value == 1.0 / below {
                return format!("\"1/{below}\"");
            }
        }
        format!("{value:?}")
    };
    match values {
        [value] => one(value),
        values => format!("[{}]", values.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Preset, ValueFacts, parse};

    fn facts(shape: Vec<Dimension>, produced_by: &str) -> OnnxFacts {
        let value = |name: &str, shape| ValueFacts {
            name: name.to_owned(),
            dtype: "float32".to_owned(),
            shape,
            produced_by: String::new(),
        };
        let mut output = value("prob", vec![Dimension::Fixed(1), Dimension::Fixed(1000)]);
        output.produced_by = produced_by.to_owned();
        OnnxFacts {
            inputs: vec![value("data\"x", shape)],
            outputs: vec![output],
            opset: [(String::new(), 13)].into(),
            nodes: 1,
            operators: [("Conv".to_owned(), 1)].into(),
            producer: String::new(),
        }
    }

    fn options(preset: Preset) -> InitOptions {
        InitOptions {
            name: "net".to_owned(),
            onnx: "net.onnx".to_owned(),
            labels: "labels.txt".to_owned(),
            side: 224,
            preprocess: preset.preprocess(224),
            preprocess_source: "preset torchvision".to_owned(),
        }
    }

    #[test]
    fn what_is_written_parses_and_agrees_with_the_facts() {
        let open = Dimension::Symbolic("batch".to_owned());
        for (shape, layout, kind) in [
            (vec![open.clone(), 3.into(), 224.into(), 224.into()], Layout::Nchw, "Softmax"),
            (vec![open.clone(), 224.into(), 224.into(), 3.into()], Layout::Nhwc, "Gemm"),
            (vec![open.clone(), 1.into(), 28.into(), 28.into()], Layout::Nchw, "Sigmoid"),
            (vec![open.clone(), 3.into(), open.clone(), open], Layout::Nchw, ""),
        ] {
            let facts = facts(shape, kind);
            let mut options = options(Preset::Torchvision);
            if facts.inputs[0].shape[1] == Dimension::Fixed(1) {
                options.preprocess.size = None;
            }
            let text = write_model_toml(&facts, &options).unwrap();
            let parsed = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(parsed.spec.input.layout, layout);
            parsed.spec.check_against(&facts, Some(1000)).unwrap();
            if parsed.spec.preprocess.channels == ChannelOrder::Rgb {
                assert_eq!(parsed.spec.preprocess.mean, options.preprocess.mean);
                assert_eq!(parsed.spec.preprocess.scale, options.preprocess.scale);
            }
        }
    }

    #[test]
    fn probabilities_are_not_taken_for_logits() {
        for (produced_by, kind) in [("Softmax", "softmax"), ("Sigmoid", "sigmoid")] {
            let shape = vec![1.into(), 3.into(), 224.into(), 224.into()];
            let facts = facts(shape, produced_by);
            let text = write_model_toml(&facts, &options(Preset::Torchvision)).unwrap();
            let right = format!("kind = {kind:?}");
            assert!(text.contains(&right), "{text}");
            for wrong in ["logits", "sigmoid-logits"] {
                let text = text.replace(&right, &format!("kind = {wrong:?}"));
                let spec = parse(&text).unwrap().spec;
                let mistakes = spec.check_against(&facts, Some(1000)).unwrap_err();
                assert_eq!(mistakes.0[0].key, "output.kind", "{mistakes}");
                assert!(mistakes.to_string().contains(&right), "{mistakes}");
            }
        }
    }

    #[test]
    fn a_graph_that_reads_no_image_is_refused_by_name() {
        let error =
            write_model_toml(&facts(vec![1.into(), 512.into()], ""), &options(Preset::Keras))
                .unwrap_err();
        assert!(error.to_string().contains("[1, 512]"), "{error}");
    }

    impl From<i64> for Dimension {
        fn from(extent: i64) -> Self {
            Dimension::Fixed(extent)
        }
    }
}
