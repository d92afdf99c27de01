//! Depthwise 3x3 windows that read the input where it lies.
//!
//! Two output rows are computed together from the four or five input rows they share, nine weights
//! stay in registers, and the padding left and right is shifted in. The functions are chosen by
//! module: for wasm with SIMD `build/depthwise.rs` writes their instructions, everywhere else they
//! are plain Rust.

use crate::conv::{ConvBuffers, at};
use crate::geometry::{Axis, Conv2d};

/// Whether [`Planes`] can compute this: its tiles are four outputs wide, know one padding column at
/// each side, and need windows that begin inside the input.
pub(crate) fn reads_in_place(conv: &Conv2d) -> bool {
    let (rows, columns) = (conv.rows, conv.columns);
    let three = |axis: Axis| axis.kernel == 3 && axis.dilation == 1;
    three(rows)
        && three(columns)
        && rows.stride == columns.stride
        && rows.stride <= 2
        && columns.before <= 1
        && columns.after() <= 1
        && columns.output >= 5
        && rows.start(rows.output - 1) < rows.input as isize
}

/// Neighbouring channels of one image, each with a 3x3 window.
///
/// `build/depthwise.rs` knows where each field lies. Distances are in bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Planes {
    x: *const f32,
    /// One input row of zeros, for the padding above and below.
    zeros: *const f32,
    /// Nine values a channel, row by row.
    weights: *const f32,
    bias: *const f32,
    /// Laid out as the output and added before the bounds, or null.
    residual: *const f32,
    y: *mut f32,
    /// Channels, at least one.
    count: usize,
    /// The first input row of the first window; above the input it is padding.
    start: isize,
    /// Input rows, and from one to the next.
    height: usize,
    row: usize,
    /// Output rows, and from one to the next.
    output_height: usize,
    output_row: usize,
    /// Whether the first output's first column is padding: its tile is one of its own.
    left: usize,
    /// Tiles behind it but for the last, which ends with the row and so begins `back` earlier than
    /// it would.
    inner: usize,
    back: usize,
    /// Whether the last output's last column is padding.
    right: usize,
    /// Bounds of the output.
    low: f32,
    high: f32,
}

impl Planes {
    /// `count` planes from the `first` of the batch on, all of one image.
    ///
    /// # Safety
    /// The buffers have the extents of `conv` and there are such planes.
    pub(crate) unsafe fn new(
        conv: &Conv2d,
        buffers: ConvBuffers,
        first: usize,
        count: usize,
        zeros: *const f32,
    ) -> Self {
        let (rows, columns) = (conv.rows, conv.columns);
        let (channel, output) = (first % conv.groups, first * conv.output_plane());
        let (width, left) = (columns.output, columns.before == 1);
        let begin = if left { 4 } else { 0 };
        let inner = (width - begin).div_ceil(4) - 1;
        let clamp = conv.activation.clamp();
        // SAFETY: the caller's promise.
        unsafe {
            Self {
                x: buffers.x.add(first * conv.input_plane()),
                zeros,
                weights: buffers.weights.add(channel * 9),
                bias: buffers.bias.add(channel),
                residual: at(buffers.residual, output),
                y: buffers.y.add(output),
                count,
                start: rows.start(0),
                height: rows.input,
                row: 4 * columns.input,
                output_height: rows.output,
                output_row: 4 * width,
                left: usize::from(left),
                inner,
                back: 4 * (begin + 4 * inner - (width - 4)),
                right: usize::from(columns.after() == 1),
                low: clamp.low,
                high: clamp.high,
            }
        }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[path = "depthwise_wasm.rs"]
mod functions;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[path = "depthwise_plain.rs"]
mod functions;

pub(crate) use functions::{by_1, by_2};
