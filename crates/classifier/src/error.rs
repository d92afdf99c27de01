//! What can go wrong between a model block and a label.

use image_input::{ImageError, TransformError};
use model_spec::Mistakes;
use tvm_graph_rt::{BlockError, ExecutorError, GraphError};

/// A model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are no model block.
    #[error("malformed model block")]
    Block(#[from] BlockError),
    /// The spec in the block is not a spec.
    #[error("malformed model spec")]
    Spec(#[source] serde_json::Error),
    /// The spec contradicts itself.
    #[error("the model spec is not valid")]
    InvalidSpec(#[from] Mistakes),
    /// The graph in the block is not a graph.
    #[error("malformed graph")]
    Graph(#[from] GraphError),
    /// The graph does not fit its kernels, its parameters or the memory.
    #[error("the graph cannot be executed")]
    Executor(#[from] ExecutorError),
    /// The preprocessing of the spec cannot be carried out.
    #[error("the preprocessing cannot be carried out")]
    Transform(#[from] TransformError),
    /// The graph does not have exactly one input that no parameter fills.
    #[error("an image classifier has one input; the graph's are {0:?}")]
    Inputs(Vec<String>),
    /// The graph's input is not the one that the spec describes.
    #[error("the spec's input is `{expected}`; the graph's is `{actual}`")]
    WrongInput {
        /// Name, element type and extents of the spec.
        expected: String,
        /// Name, element type and extents of the graph.
        actual: String,
    },
    /// The graph has no output of 32-bit floats.
    #[error("the graph's first output is not a tensor of float32")]
    Output,
    /// A label would name the wrong class.
    #[error("there are {labels} labels for {classes} classes")]
    LabelCount {
        /// Labels in the block.
        labels: usize,
        /// Elements of the graph's output.
        classes: usize,
    },
}

/// A picture or tensor could not be classified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifyError {
    /// The bytes cannot be turned into a picture.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A tensor has another number of elements than the graph's input.
    #[error("the tensor has {actual} values; the model's input has {expected}")]
    TensorLength {
        /// Elements of the graph's input.
        expected: usize,
        /// Elements given.
        actual: usize,
    },
    /// The picture does not fit the tensor; cannot happen once the model is loaded.
    #[error("the picture could not be turned into a tensor")]
    Transform(#[from] TransformError),
    /// The graph failed.
    #[error("the graph could not be executed")]
    Executor(#[from] ExecutorError),
}

impl ClassifyError {
    /// Whose fault it is and what a client should be told, as a class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Image(error) => match error.kind() {
                image_input::ErrorKind::NotAnImage => ErrorKind::NotAnImage,
                image_input::ErrorKind::Broken => ErrorKind::BrokenImage,
                image_input::ErrorKind::TooLarge => ErrorKind::ImageTooLarge,
                image_input::ErrorKind::Unsupported => ErrorKind::UnsupportedImage,
                image_input::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
            },
            Self::TensorLength { .. } => ErrorKind::BadTensor,
            Self::Transform(_) | Self::Executor(_) => ErrorKind::Failed,
        }
    }
}

/// Classes of [`ClassifyError`], each with the HTTP status it usually gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Not an image, or not of a format that is read: 415.
    NotAnImage,
    /// No image, or a broken one: 400.
    BrokenImage,
    /// Too many bytes or pixels: 413.
    ImageTooLarge,
    /// A well-defined image that is not supported: 422.
    UnsupportedImage,
    /// A tensor of the wrong length: 400.
    BadTensor,
    /// The memory here does not hold the picture: 503.
    OutOfMemory,
    /// The model failed; nothing that the client sent explains it: 500.
    Failed,
}
