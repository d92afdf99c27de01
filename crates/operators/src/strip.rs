//! What a strip is: neighbouring tiles of eight pixels by up to eight output channels.
//!
//! The functions that compute one are chosen by module: for wasm with SIMD `build/strip.rs` writes
//! their instructions, which then have the order that the engine needs; everywhere else they are
//! plain Rust.

/// Output pixels of one tile.
pub(crate) const PIXELS: usize = 8;

/// Neighbouring tiles of one block of output channels.
///
/// `build/strip.rs` knows where each field lies. Distances are in bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Strip {
    /// Input of the first pixel, first tap.
    pub(crate) input: *const f32,
    /// From an input channel to the next, or from the even columns of split rows to the odd ones.
    pub(crate) stride: usize,
    /// Distances from `input`, one for each step; window rows read that of their first.
    pub(crate) offsets: *const u32,
    /// Reduction steps, at least one.
    pub(crate) steps: usize,
    /// Most steps in a leg of [`channels_in_legs`].
    pub(crate) leg: usize,
    /// `[steps][8]` weights.
    pub(crate) weights: *const f32,
    /// Eight values that are added to the sums.
    pub(crate) bias: *const f32,
    /// Output of the first pixel, first channel.
    pub(crate) output: *mut f32,
    /// From an output channel to the next.
    pub(crate) output_plane: usize,
    /// Laid out as the output and added before the bounds, or null.
    pub(crate) residual: *const f32,
    /// Output channels, one to eight.
    pub(crate) channels: usize,
    /// Tiles, at least one.
    pub(crate) tiles: usize,
    /// Bounds of the output.
    pub(crate) low: f32,
    pub(crate) high: f32,
    /// From the input of a tile to that of the next.
    pub(crate) next: usize,
    /// Cache lines that are needed soon: where they begin, how many are left, and how many to read
    /// before each reduction. The functions move on; plain ones leave them alone.
    pub(crate) ahead: *const f32,
    pub(crate) ahead_lines: usize,
    pub(crate) ahead_each: usize,
    /// Something of what was read ahead.
    pub(crate) touched: u32,
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[path = "strip_wasm.rs"]
mod functions;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[path = "strip_plain.rs"]
mod functions;

pub(crate) use functions::{channels, channels_in_legs, rows_of_three, split_rows, table};
