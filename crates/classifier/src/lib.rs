//! Image bytes to labels: decodes, resizes and normalises into the graph's input tensor, runs the
//! graph, and turns its output into probabilities with names.
//!
//! The model arrives as data (the block of the crate `tensor`), so that one program serves every
//! model. In a finished module the block is linked in: `Classifier::linked`, on WebAssembly only.
//!
//! ```
//! use classifier::{Classifier, ClassifyError};
//!
//! fn label(classifier: &mut Classifier, image: &[u8]) -> Result<Option<&'static str>, ClassifyError> {
//!     let picture = classifier.decode(image)?;
//!     classifier.preprocess(&picture)?;
//!     classifier.infer()?;
//!     let scores = classifier.scores();
//!     Ok(classifier.top_k(&scores, 1).first().map(|best| best.label))
//! }
//! ```

mod classifier;
mod error;
mod scores;
mod transform;

// Generated functions call the kernels by their C symbols; without this the library would lack them.
#[cfg(target_arch = "wasm32")]
use operators as _;

pub use classifier::{Classifier, without_wordnet_id};
pub use error::{ClassifyError, ErrorKind, LoadError};
pub use image_input::Picture;
pub use scores::{Classification, probabilities};
pub use transform::transform;
