//! Image bytes to a normalised input tensor: decode, orient, resize, normalise.
//!
//! [`decode`] reads JPEG, PNG, WebP, GIF (first frame) and BMP into a [`Picture`] of 8-bit grey
//! or RGB pixels; [`Transform`] resizes it bit for bit as Pillow does and writes
//! `(pixel * scale - mean) / std` straight into a tensor. Everything that comes from outside is
//! answered with an [`ImageError`]; sizes are checked before pixels are decoded.
//!
//! ```
//! use image_input::{Filter, Limits, Options, Resize, Transform, decode};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let bytes = include_bytes!("../testdata/png_rgb.png");
//! let picture = decode(bytes, &Limits::default())?;
//! let transform = Transform::new(Options {
//!     resize: Resize::ShorterSide(36),
//!     height: 32,
//!     width: 32,
//!     filter: Filter::Bilinear,
//!     ..Options::default()
//! })?;
//! let mut tensor = vec![0.0; transform.tensor_len()];
//! transform.apply(&picture, &mut tensor)?;
//! # Ok(())
//! # }
//! ```

mod bmp;
mod decode;
mod error;
mod format;
mod geometry;
mod gif;
mod jpeg;
mod limits;
mod orientation;
mod picture;
mod png;
mod raster;
mod resample;
#[cfg(any(test, all(target_arch = "wasm32", target_feature = "simd128")))]
mod simd128;
mod transform;
mod webp;

pub use decode::{decode, decode_for, decode_in};
pub use error::{ErrorKind, ImageError, TransformError};
pub use format::Format;
pub use limits::Limits;
pub use picture::Picture;
pub use transform::{Channels, Filter, Layout, Options, Resize, Transform};
