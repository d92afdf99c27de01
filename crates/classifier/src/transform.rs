//! The preprocessing that a spec describes, as a transform of pictures.

use image_input::{Channels, Filter, Layout, Options, Resize, Transform};
use model_spec::{ChannelOrder, ModelSpec, ResizePolicy};

use crate::LoadError;

/// The transform from a picture to the input tensor of `spec`.
///
/// A shorter side that the spec leaves out is the crop's longer extent: as much of the picture as
/// covers the crop.
///
/// # Errors
/// [`LoadError::InvalidSpec`] or [`LoadError::Transform`] when it cannot be carried out.
pub fn transform(spec: &ModelSpec) -> Result<Transform, LoadError> {
    // Among other rules: the input has four extents.
    spec.validate()?;
    let (height, width) = spec.input.height_width();
    let preprocess = &spec.preprocess;
    Ok(Transform::new(Options {
        height,
        width,
        resize: match preprocess.resize {
            ResizePolicy::Exact => Resize::Exact,
            ResizePolicy::Letterbox => Resize::Letterbox,
            ResizePolicy::ShorterSide => Resize::ShorterSide(match preprocess.size {
                Some(size) => size.height,
                None => u32::try_from(height.max(width)).unwrap_or(u32::MAX),
            }),
        },
        filter: match preprocess.filter {
            model_spec::Filter::Bilinear => Filter::Bilinear,
            model_spec::Filter::Bicubic => Filter::Bicubic,
            model_spec::Filter::Nearest => Filter::Nearest,
        },
        channels: match preprocess.channels {
            ChannelOrder::Rgb => Channels::Rgb,
            ChannelOrder::Bgr => Channels::Bgr,
            ChannelOrder::Grey => Channels::Grey,
        },
        layout: match spec.input.layout {
            model_spec::Layout::Nchw => Layout::Nchw,
            model_spec::Layout::Nhwc => Layout::Nhwc,
        },
        scale: preprocess.scale.clone(),
        mean: preprocess.mean.clone(),
        std: preprocess.std.clone(),
        pad: preprocess.pad,
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(preprocess: &str, layout: &str, shape: &str) -> ModelSpec {
        let text = format!(
            r#"{{"model": {{"name": "m", "version": "1", "onnx": "m.onnx"}},
                "input": {{"shape": {shape}, "layout": "{layout}"}},
                "preprocess": {preprocess}, "output": {{"labels": "labels.txt"}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn every_word_of_the_spec_reaches_the_transform() {
        let text = r#"{"resize": "letterbox", "filter": "bicubic", "channels": "BGR",
                       "scale": [1.0], "mean": [104.0, 117.0, 123.0], "std": [1.0], "pad": [1, 2, 3]}"#;
        let made = transform(&spec(text, "NHWC", "[1, 20, 30, 3]")).unwrap();
        let expected = Options {
            height: 20,
            width: 30,
            resize: Resize::Letterbox,
            filter: Filter::Bicubic,
            channels: Channels::Bgr,
            layout: Layout::Nhwc,
            scale: vec![1.0],
            mean: vec![104.0, 117.0, 123.0],
            std: vec![1.0],
            pad: [1, 2, 3],
        };
        assert_eq!(made.options(), &expected);
    }

    #[test]
    fn the_shorter_side_covers_the_crop_unless_the_spec_says_how_long_it_is() {
        for (text, expected) in [
            (r#"{"size": 256}"#, Resize::ShorterSide(256)),
            ("{}", Resize::ShorterSide(224)),
            (r#"{"resize": "exact"}"#, Resize::Exact),
        ] {
            let made = transform(&spec(text, "NCHW", "[1, 3, 200, 224]")).unwrap();
            assert_eq!(made.options().resize, expected, "{text}");
        }
    }

    #[test]
    fn a_spec_that_contradicts_itself_is_refused() {
        for (text, shape) in
            [("{}", "[1, 3, 224]"), ("{}", "[1, 4, 9, 9]"), (r#"{"std": [0.0]}"#, "[1, 3, 9, 9]")]
        {
            let error = transform(&spec(text, "NCHW", shape)).unwrap_err();
            assert!(matches!(error, LoadError::InvalidSpec(_)), "{text} {shape}: {error}");
        }
    }
}
