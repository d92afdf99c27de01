//! Preprocessing that whole families of models share, and Hugging Face's description of it.

use std::str::FromStr;

use serde_json::Value;

use crate::{ChannelOrder, Filter, Preprocess, ResizePolicy, Size};

/// A family of models with one preprocessing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// torchvision's reference classifiers: bilinear to 256/224 of the crop, ImageNet mean and
    /// deviation.
    Torchvision,
    /// timm's default: bicubic, crop share 0.875, ImageNet mean and deviation.
    Timm,
    /// `tf.keras.applications` in mode `tf` (MobileNet, Inception, Xception): stretched,
    /// -1..=1.
    Keras,
    /// Caffe's models: BGR, mean subtracted, values in -128..=151.
    Caffe,
}

// torchvision/transforms, `ImageNet` normalisation; timm.data.constants has the same numbers.
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

impl FromStr for Preset {
    type Err = PresetError;

    fn from_str(text: &str) -> Result<Self, PresetError> {
        match text {
            "torchvision" => Ok(Preset::Torchvision),
            "timm" => Ok(Preset::Timm),
            "keras" => Ok(Preset::Keras),
            "caffe" => Ok(Preset::Caffe),
            other => Err(PresetError::Unknown(other.to_owned())),
        }
    }
}

impl Preset {
    /// The family's preprocessing for an input of `side` pixels.
    pub fn preprocess(self, side: u32) -> Preprocess {
        // 256/224 in torchvision, 1/0.875 in timm: the same ratio.
        let shorter = Size { height: side * 8 / 7, width: side * 8 / 7 };
        let imagenet = Preprocess {
            resize: ResizePolicy::ShorterSide,
            size: Some(shorter),
            mean: IMAGENET_MEAN.to_vec(),
            std: IMAGENET_STD.to_vec(),
            ..Preprocess::default()
        };
        match self {
            Preset::Torchvision => imagenet,
            Preset::Timm => Preprocess { filter: Filter::Bicubic, ..imagenet },
            Preset::Keras => Preprocess {
                resize: ResizePolicy::Exact,
                scale: vec![1.0 / 127.5],
                mean: vec![1.0],
                ..Preprocess::default()
            },
            Preset::Caffe => Preprocess {
                resize: ResizePolicy::ShorterSide,
                size: Some(shorter),
                channels: ChannelOrder::Bgr,
                scale: vec![1.0],
                // Mean of ILSVRC-2012 over all pixels, in BGR.
                mean: vec![104.0, 117.0, 123.0],
                ..Preprocess::default()
            },
        }
    }
}

/// A preset or a preprocessor description could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PresetError {
    /// There is no preset of that name.
    #[error("no preset is called `{0}`; there are torchvision, timm, keras and caffe")]
    Unknown(String),
    /// `preprocessor_config.json` is not JSON.
    #[error("not a preprocessor_config.json")]
    Json(#[source] serde_json::Error),
    /// A field has a value that this crate has no word for.
    #[error("`{field}` is {value}, which has no counterpart here")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value, as JSON.
        value: String,
    },
}

/// Reads a Hugging Face `preprocessor_config.json` (transformers, `BaseImageProcessor`).
///
/// # Errors
/// Text that is no JSON object, or a field whose value has no counterpart.
pub fn from_preprocessor_config(text: &str) -> Result<Preprocess, PresetError> {
    let config: Value = serde_json::from_str(text).map_err(PresetError::Json)?;
    let flag = |field: &str, default: bool| config[field].as_bool().unwrap_or(default);
    let mut preprocess = Preprocess::default();

    let size = size_field(&config, "size")?;
    let crop = size_field(&config, "crop_size")?;
    match (flag("do_resize", true), size) {
        (true, Some(Extent::Shortest(side))) => {
            preprocess.resize = ResizePolicy::ShorterSide;
            // ConvNeXt's processor: below 384 it resizes to size / crop_pct and crops to size.
            let side = match config["crop_pct"].as_f64() {
                Some(share) if share > 0.0 && side < 384 => (f64::from(side) / share) as u32,
                _ => side,
            };
            preprocess.size = Some(Size { height: side, width: side });
            if let (true, Some(crop)) = (flag("do_center_crop", crop.is_some()), crop) {
                preprocess.crop = Some(crop.size());
            }
        }
        (true, Some(Extent::Exact(size))) => match crop {
            Some(crop) if flag("do_center_crop", false) && crop.size() != size => {
                return Err(PresetError::Field {
                    field: "crop_size",
                    value: config["crop_size"].to_string(),
                });
            }
            _ => preprocess.resize = ResizePolicy::Exact,
        },
        _ => preprocess.resize = ResizePolicy::Exact,
    }

    // PIL.Image.Resampling.
    preprocess.filter = match config["resample"].as_i64() {
        None | Some(2) => Filter::Bilinear,
        Some(0) => Filter::Nearest,
        Some(3) => Filter::Bicubic,
        Some(other) => {
            return Err(PresetError::Field { field: "resample", value: other.to_string() });
        }
    };
    preprocess.scale = if flag("do_rescale", true) {
        vec![config["rescale_factor"].as_f64().unwrap_or(1.0 / 255.0) as f32]
    } else {
        vec![1.0]
    };
    if flag("do_normalize", true) {
        preprocess.mean = floats(&config, "image_mean")?.unwrap_or(IMAGENET_MEAN.to_vec());
        preprocess.std = floats(&config, "image_std")?.unwrap_or(IMAGENET_STD.to_vec());
    }
    if flag("do_flip_channel_order", false) {
        preprocess.channels = ChannelOrder::Bgr;
    }
    Ok(preprocess)
}

#[derive(Clone, Copy)]
enum Extent {
    Shortest(u32),
    Exact(Size),
}

impl Extent {
    fn size(self) -> Size {
        match self {
            Extent::Shortest(side) => Size { height: side, width: side },
            Extent::Exact(size) => size,
        }
    }
}

fn size_field(config: &Value, field: &'static str) -> Result<Option<Extent>, PresetError> {
    let value = &config[field];
    let side = |value: &Value| value.as_u64().and_then(|side| u32::try_from(side).ok());
    let extent = match value {
        Value::Null => return Ok(None),
        Value::Number(_) => side(value).map(Extent::Shortest),
        Value::Object(map) if map.contains_key("shortest_edge") => {
            side(&value["shortest_edge"]).map(Extent::Shortest)
        }
        Value::Object(_) => side(&value["height"])
            .zip(side(&value["width"]))
            .map(|(height, width)| Extent::Exact(Size { height, width })),
        _ => None,
    };
    match extent {
        Some(extent) => Ok(Some(extent)),
        None => Err(PresetError::Field { field, value: value.to_string() }),
    }
}

fn floats(config: &Value, field: &'static str) -> Result<Option<Vec<f32>>, PresetError> {
    match &config[field] {
        Value::Null => Ok(None),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_f64().map(|number| number as f32))
            .collect::<Option<Vec<f32>>>()
            .map(Some)
            .ok_or_else(|| PresetError::Field { field, value: config[field].to_string() }),
        other => Err(PresetError::Field { field, value: other.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torchvision_resizes_to_256_for_224() {
        let preprocess = Preset::Torchvision.preprocess(224);
        assert_eq!(preprocess.size, Some(Size { height: 256, width: 256 }));
        assert_eq!(preprocess.mean, IMAGENET_MEAN);
    }

    #[test]
    fn a_resnet_processor_is_shorter_side_and_crop() {
        // microsoft/resnet-50
        let text = r#"{"crop_pct": 0.875, "do_normalize": true, "do_resize": true,
            "feature_extractor_type": "ConvNextFeatureExtractor",
            "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
            "resample": 3, "size": 224}"#;
        let preprocess = from_preprocessor_config(text).unwrap();
        assert_eq!(preprocess.resize, ResizePolicy::ShorterSide);
        assert_eq!(preprocess.size, Some(Size { height: 256, width: 256 }));
        assert_eq!(preprocess.filter, Filter::Bicubic);
        assert_eq!(preprocess.mean, IMAGENET_MEAN);
    }

    #[test]
    fn a_vit_processor_is_exact() {
        // google/vit-base-patch16-224
        let text = r#"{"do_normalize": true, "do_rescale": true, "do_resize": true,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2,
            "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 224}}"#;
        let preprocess = from_preprocessor_config(text).unwrap();
        assert_eq!(preprocess.resize, ResizePolicy::Exact);
        assert_eq!(preprocess.std, [0.5; 3]);
        assert_eq!(preprocess.scale, [1.0 / 255.0]);
    }

    #[test]
    fn what_has_no_counterpart_is_named() {
        let error = from_preprocessor_config(r#"{"resample": 1, "size": 224}"#).unwrap_err();
        assert!(error.to_string().contains("`resample` is 1"), "{error}");
        assert!(from_preprocessor_config("{").is_err());
        let error = from_preprocessor_config(r#"{"size": "big"}"#).unwrap_err();
        assert!(error.to_string().contains("`size`"), "{error}");
    }
}
