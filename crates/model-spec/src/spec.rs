//! The typed value itself: what a model eats and answers.

use serde::{Deserialize, Serialize};

/// Everything `model.toml` says about one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Who the model is and which file holds it.
    pub model: Model,
    /// The tensor the graph reads.
    pub input: Input,
    /// How an image becomes that tensor.
    pub preprocess: Preprocess,
    /// The tensor the graph writes and how it becomes labels.
    pub output: Output,
    /// How it is compiled.
    #[serde(default)]
    pub compile: Compile,
}

/// Identity and source file of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Name in URLs and metrics: `[a-z0-9]([a-z0-9._-]{0,62})`.
    pub name: String,
    /// Free text version, shown on the model card.
    pub version: String,
    /// One sentence for the model card.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// SPDX expression or free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub licence: String,
    /// Where the weights come from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The ONNX file, relative to `model.toml`.
    pub onnx: String,
}

/// The graph's input tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Name in the ONNX graph; empty means the only input.
    #[serde(default)]
    pub name: String,
    /// Extents, outermost first. Symbolic dimensions of the ONNX file are bound to these.
    pub shape: Vec<usize>,
    /// Element type.
    #[serde(default)]
    pub dtype: InputDType,
    /// Which extents are channels, rows and columns.
    #[serde(default)]
    pub layout: Layout,
}

impl Input {
    /// Rows and columns of the image the graph reads.
    pub fn height_width(&self) -> (usize, usize) {
        match self.layout {
            Layout::Nchw => (self.shape[2], self.shape[3]),
            Layout::Nhwc => (self.shape[1], self.shape[2]),
        }
    }

    /// Number of channels the graph reads.
    pub fn channels(&self) -> usize {
        match self.layout {
            Layout::Nchw => self.shape[1],
            Layout::Nhwc => self.shape[3],
        }
    }
}

/// Element types an image input may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputDType {
    /// 32-bit IEEE 754.
    #[default]
    Float32,
}

/// Order of the extents of an image tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Layout {
    /// Batch, channel, row, column.
    #[default]
    Nchw,
    /// Batch, row, column, channel.
    Nhwc,
}

/// From decoded pixels to the input tensor: resize, order channels, then
/// `(pixel * scale - mean) / std` per channel with pixels in 0..=255.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// How the picture meets the input's size.
    #[serde(default)]
    pub resize: ResizePolicy,
    /// Height and width to resize to. `exact` and `letterbox`: the input's own. `shorter-side`:
    /// the first value is the shorter side before the crop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Height and width of the centre crop (`shorter-side` only); the input's own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Size>,
    /// Interpolation, antialiased as Pillow does it (but `nearest`).
    #[serde(default)]
    pub filter: Filter,
    /// Order of channels in the tensor; `mean`, `std` and `scale` follow it.
    #[serde(default)]
    pub channels: ChannelOrder,
    /// Factor on the pixel value; one value, or one per channel.
    #[serde(default = "default_scale")]
    pub scale: Vec<f32>,
    /// Subtracted after scaling; one value, or one per channel.
    #[serde(default = "default_mean")]
    pub mean: Vec<f32>,
    /// Divided by, last; one value, or one per channel.
    #[serde(default = "default_std")]
    pub std: Vec<f32>,
    /// Grey or RGB fill of a letterbox, 0..=255.
    #[serde(default = "default_pad")]
    pub pad: [u8; 3],
}

impl Default for Preprocess {
    fn default() -> Self {
        Preprocess {
            resize: ResizePolicy::default(),
            size: None,
            crop: None,
            filter: Filter::default(),
            channels: ChannelOrder::default(),
            scale: default_scale(),
            mean: default_mean(),
            std: default_std(),
            pad: default_pad(),
        }
    }
}

fn default_scale() -> Vec<f32> {
    vec![1.0 / 255.0]
}

fn default_mean() -> Vec<f32> {
    vec![0.0]
}

fn default_std() -> Vec<f32> {
    vec![1.0]
}

// Ultralytics' and most detectors' letterbox grey.
fn default_pad() -> [u8; 3] {
    [114, 114, 114]
}

/// How a picture of any size meets the input's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResizePolicy {
    /// Stretch to the size, whatever the aspect ratio.
    Exact,
    /// Resize the shorter side, keep the aspect ratio, crop the centre.
    #[default]
    ShorterSide,
    /// Fit inside the size, keep the aspect ratio, fill the rest with `pad`.
    Letterbox,
}

/// Height and width in pixels; a single number in TOML means both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SizeForm", into = "[u32; 2]")]
pub struct Size {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SizeForm {
    Square(u32),
    HeightWidth([u32; 2]),
}

impl From<SizeForm> for Size {
    fn from(form: SizeForm) -> Self {
        match form {
            SizeForm::Square(side) => Size { height: side, width: side },
            SizeForm::HeightWidth([height, width]) => Size { height, width },
        }
    }
}

impl From<Size> for [u32; 2] {
    fn from(size: Size) -> Self {
        [size.height, size.width]
    }
}

/// Interpolation of the resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Triangle filter with Pillow's antialiasing.
    #[default]
    Bilinear,
    /// Cubic (a = -0.5) with Pillow's antialiasing.
    Bicubic,
    /// The pixel whose centre is nearest; no antialiasing.
    Nearest,
}

/// Order of the channels in the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ChannelOrder {
    /// Red, green, blue.
    #[default]
    #[serde(rename = "RGB")]
    Rgb,
    /// Blue, green, red (Caffe, OpenCV).
    #[serde(rename = "BGR")]
    Bgr,
    /// One channel of luma (ITU-R 601-2, as Pillow's `L`).
    #[serde(rename = "grey", alias = "gray")]
    Grey,
}

/// The graph's output tensor and what its numbers mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Name in the ONNX graph; empty means the only output.
    #[serde(default)]
    pub name: String,
    /// What the numbers are.
    #[serde(default)]
    pub kind: OutputKind,
    /// The labels file, relative to `model.toml`: one a line, plain or `n01440764 tench`.
    pub labels: String,
    /// How many classes an answer with scores lists by default.
    #[serde(default = "default_top_k")]
    pub top_k: usize,
}

/// How many classes an answer lists when the spec does not say.
pub(crate) const DEFAULT_TOP_K: usize = 5;

fn default_top_k() -> usize {
    DEFAULT_TOP_K
}

/// What the output's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// Unbounded scores of exclusive classes: the classifier applies softmax.
    #[default]
    Logits,
    /// Probabilities of exclusive classes that sum to 1: used as they are.
    Softmax,
    /// Unbounded scores of independent labels: the classifier applies the sigmoid to each.
    SigmoidLogits,
    /// Probabilities of independent labels: used as they are.
    Sigmoid,
}

/// How the model is compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compile {
    /// Which vector instructions the module may use.
    #[serde(default)]
    pub simd: SimdLevel,
    /// Threads inside one inference; only 1 is carried out today.
    #[serde(default = "default_threads")]
    pub threads: u32,
    /// Weight and activation quantisation; only `none` is carried out today.
    #[serde(default)]
    pub quantisation: Quantisation,
    /// The tuning log, relative to `model.toml`; without one, `tuning.json` if that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<String>,
}

impl Default for Compile {
    fn default() -> Self {
        Compile {
            simd: SimdLevel::default(),
            threads: default_threads(),
            quantisation: Quantisation::default(),
            tuning: None,
        }
    }
}

fn default_threads() -> u32 {
    1
}

/// Vector instructions a module may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SimdLevel {
    /// WebAssembly without vector instructions: runs everywhere.
    None,
    /// 128-bit SIMD.
    Simd128,
    /// 128-bit and relaxed SIMD (fused multiply-add): the fastest.
    #[default]
    Relaxed,
}

impl SimdLevel {
    /// The word used in `model.toml`, on the command line and in artifact names.
    pub fn as_str(self) -> &'static str {
        match self {
            SimdLevel::None => "none",
            SimdLevel::Simd128 => "simd128",
            SimdLevel::Relaxed => "relaxed",
        }
    }
}

/// Reduced-precision arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantisation {
    /// 32-bit floats throughout.
    #[default]
    None,
    /// 8-bit integers.
    Int8,
}
