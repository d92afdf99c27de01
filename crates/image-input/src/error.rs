//! What can be wrong with an image, or with what is asked of it.

use crate::Format;

/// An image could not be turned into pixels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There are no bytes at all.
    #[error("no image: the body is empty")]
    Empty,
    /// The bytes do not begin like an image.
    #[error("not an image; JPEG, PNG, WebP, GIF and BMP are read")]
    NotAnImage,
    /// The bytes begin like an image of a format that is not read.
    #[error("{0} is not read; JPEG, PNG, WebP, GIF and BMP are")]
    OtherFormat(&'static str),
    /// More bytes than [`Limits::max_bytes`](crate::Limits::max_bytes).
    #[error("image has {bytes} bytes; at most {limit} are accepted")]
    TooManyBytes {
        /// Bytes given.
        bytes: usize,
        /// Bytes accepted.
        limit: usize,
    },
    /// A side is longer than [`Limits::max_side`](crate::Limits::max_side).
    #[error("image is {width} x {height} pixels; at most {limit} a side are accepted")]
    SideTooLong {
        /// Columns that the header claims.
        width: u32,
        /// Rows that the header claims.
        height: u32,
        /// Pixels accepted on a side.
        limit: u32,
    },
    /// More pixels than [`Limits::max_pixels`](crate::Limits::max_pixels).
    #[error("image is {width} x {height} pixels; at most {limit} in all are accepted")]
    TooManyPixels {
        /// Columns that the header claims.
        width: u32,
        /// Rows that the header claims.
        height: u32,
        /// Pixels accepted.
        limit: u64,
    },
    /// Decoding needs more than [`Limits::max_memory`](crate::Limits::max_memory).
    #[error("decoding needs {needed} bytes of memory; {limit} are granted")]
    TooMuchMemory {
        /// Bytes that decoding would allocate.
        needed: u64,
        /// Bytes granted.
        limit: u64,
    },
    /// The image is within the limits, but the allocator does not have the memory now.
    #[error("decoding needs {needed} bytes of memory, which are not to be had")]
    OutOfMemory {
        /// Bytes that were asked for.
        needed: u64,
    },
    /// The file is cut short or damaged.
    #[error("broken {format}: {reason}")]
    Broken {
        /// Which format it is.
        format: Format,
        /// What the decoder found.
        reason: String,
    },
    /// The file is sound, as far as is known, but uses a feature that is not read.
    #[error("unsupported {format}: {feature}")]
    Unsupported {
        /// Which format it is.
        format: Format,
        /// Which feature.
        feature: String,
    },
}

impl ImageError {
    /// What the client should be told, as a class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotAnImage | Self::OtherFormat(_) => ErrorKind::NotAnImage,
            Self::Empty | Self::Broken { .. } => ErrorKind::Broken,
            Self::TooManyBytes { .. }
            | Self::SideTooLong { .. }
            | Self::TooManyPixels { .. }
            | Self::TooMuchMemory { .. } => ErrorKind::TooLarge,
            Self::OutOfMemory { .. } => ErrorKind::OutOfMemory,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
        }
    }

    pub(crate) fn broken(format: Format, reason: impl ToString) -> Self {
        Self::Broken { format, reason: reason.to_string() }
    }

    pub(crate) fn unsupported(format: Format, feature: impl ToString) -> Self {
        Self::Unsupported { format, feature: feature.to_string() }
    }
}

/// Classes of [`ImageError`], each with the HTTP status it usually gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Not an image, or not of a format that is read: 415.
    NotAnImage,
    /// No image, or a broken one: 400.
    Broken,
    /// Too many bytes or pixels: 413.
    TooLarge,
    /// Well defined, but not supported: 422.
    Unsupported,
    /// The memory here does not hold it: 503.
    OutOfMemory,
}

/// A transform that cannot be carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TransformError {
    /// A size is zero or larger than 16,384.
    #[error("{name} is {value}; sizes are from 1 to {limit}")]
    Size {
        /// Which size.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The largest accepted.
        limit: u32,
    },
    /// `scale`, `mean` or `std` has neither one value nor one per channel.
    #[error("{name} has {count} values; expected 1 or {channels}")]
    Count {
        /// Which list.
        name: &'static str,
        /// Its length.
        count: usize,
        /// Channels of the tensor.
        channels: usize,
    },
    /// `scale`, `mean` or `std` leads to a value that is not finite (a `std` of 0, say).
    #[error(
        "channel {channel}: scale {scale}, mean {mean} and std {std} do not give finite values"
    )]
    NotFinite {
        /// Which channel of the tensor.
        channel: usize,
        /// Its scale.
        scale: f32,
        /// Its mean.
        mean: f32,
        /// Its standard deviation.
        std: f32,
    },
    /// The tensor to fill has another length.
    #[error("the tensor has {actual} elements; the transform writes {expected}")]
    TensorLength {
        /// Elements that the transform writes.
        expected: usize,
        /// Elements given.
        actual: usize,
    },
}
