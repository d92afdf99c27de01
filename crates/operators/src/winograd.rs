//! Winograd's convolution F(4x4, 3x3): a quarter of the multiplications for 3x3 windows at stride 1.
//!
//! A tile of 4x4 outputs reads 6x6 inputs. Both are seen as values of polynomials at six points;
//! there a convolution is a plain product, so a layer becomes 36 independent 1x1 convolutions over
//! tiles, which [`tile::pointwise`] computes. Weights arrive transformed (the compiler does it in
//! double precision), the input is transformed chunk by chunk, four tiles a vector.
//!
//! The points are 0, ±5/8, ±3/2 and infinity. Their squares and products are exact in `f32`, and
//! the rounding error over 64 channels is 1.8 times that of a plain sum; with the textbook's 0,
//! ±1, ±2 it is 4 times, and logits before a softmax would miss their tolerance.

use crate::KernelError;
use crate::activation::{self, Activation};
use crate::conv::{ConvBuffers, at};
use crate::gather::{even_chunk, stagger};
use crate::geometry::{Axis, Clamp, Conv2d, floats};
use crate::scratch::{self, LINE};
use crate::tile::{self, CHANNELS, PIXELS, Sweep};
use crate::variant::F32x4;
use crate::vector::Vector;

/// Outputs of a tile along one axis.
const OUT: usize = 4;
/// Inputs of a tile along one axis, and points.
const IN: usize = 6;
/// Products of a tile.
const PRODUCTS: usize = IN * IN;

/// The inner and the outer point.
const A: f32 = 0.625;
const B: f32 = 1.5;

/// Values of scratch that transformed inputs and products may take together: 1 MiB with the rest.
const BUDGET: usize = 250 * 1024;

/// How a convolution is cut into chunks of tile rows and blocks of output channels.
struct Plan {
    /// Tiles in a row, four at least, and rows of tiles.
    across: usize,
    down: usize,
    /// Rows of tiles that are held at a time.
    chunk: usize,
    /// Values between two channels: the tiles of a chunk.
    plane: usize,
    /// Values between two products of the input, and of the output.
    input: usize,
    output: usize,
    /// Output channels that are held at a time, whole blocks of eight.
    channels: usize,
    /// Values in a row of inputs after its vertical transform.
    width: usize,
    /// Values of zero that a missing input row, or the bias of a product, is read from.
    zeros: usize,
}

impl Plan {
    fn new(conv: &Conv2d) -> Result<Self, KernelError> {
        let fits = |axis: Axis| axis.kernel == 3 && axis.stride == 1 && axis.dilation == 1;
        if !fits(conv.rows) || !fits(conv.columns) || conv.groups != 1 {
            return Err(KernelError::Geometry("not a 3x3 window at stride 1"));
        }
        let across = conv.columns.output.div_ceil(OUT).max(PIXELS);
        let down = conv.rows.output.div_ceil(OUT);
        let (inputs, outputs) = (conv.group_inputs, conv.blocks() * CHANNELS);
        // A line more than the channels take: the products of one tile then lie in different
        // sets of the first-level cache.
        let held = |rows: usize, channels: usize| {
            let plane = stagger(floats(&[rows, across])?);
            floats(&[PRODUCTS, floats(&[channels, plane])? + LINE])
        };
        let least = outputs.min(2 * CHANNELS);
        let mut rows = down;
        while rows > 1 && held(rows, inputs)? + held(rows, least)? > BUDGET {
            rows -= 1;
        }
        let chunk = even_chunk(down, rows);
        let plane = stagger(chunk * across);
        let mut channels = outputs;
        while channels > least && held(chunk, inputs)? + held(chunk, channels)? > BUDGET {
            channels -= CHANNELS;
        }
        let plan = Self {
            across,
            down,
            chunk,
            plane,
            input: held(chunk, inputs)? / PRODUCTS,
            output: held(chunk, channels)? / PRODUCTS,
            channels,
            width: across * OUT + 4,
            zeros: conv.columns.input.max(channels).next_multiple_of(LINE),
        };
        floats(&[plan.len()])?;
        Ok(plan)
    }

    /// Values of scratch.
    fn len(&self) -> usize {
        self.zeros + self.line() + self.lines() + PRODUCTS * (self.input + self.output)
    }

    /// Values of the rows between the two transforms of the input.
    fn line(&self) -> usize {
        (IN * self.width).next_multiple_of(LINE)
    }

    /// Values of one row of tiles of one output channel.
    fn lines(&self) -> usize {
        (OUT * OUT * self.across).next_multiple_of(LINE)
    }
}

/// Computes a convolution with transformed weights.
///
/// # Errors
/// [`KernelError::Geometry`] unless the window is 3x3 at stride and dilation 1 without groups, or
/// when a row of tiles exceeds 2 GiB; [`KernelError::Scratch`].
///
/// # Safety
/// The buffers have the extents that [`crate::graphlet_conv2d_winograd_f32`] gives for `conv`.
pub(crate) unsafe fn conv2d(conv: &Conv2d, buffers: ConvBuffers) -> Result<(), KernelError> {
    let plan = Plan::new(conv)?;
    scratch::with(plan.len(), |scratch| {
        let (zeros, rest) = scratch.split_at_mut(plan.zeros);
        let (line, rest) = rest.split_at_mut(plan.line());
        let (lines, rest) = rest.split_at_mut(plan.lines());
        let (inputs, products) = rest.split_at_mut(PRODUCTS * plan.input);
        zeros.fill(0.0);
        // The padding left and right, which nothing else writes.
        line.fill(0.0);
        for image in 0..conv.batch {
            for first in (0..plan.down).step_by(plan.chunk) {
                let rows = plan.chunk.min(plan.down - first);
                // SAFETY: the caller's promise for this image; scratch has the plan's sizes, and
                // these tile rows and blocks of channels exist.
                unsafe {
                    let x = image * conv.group_inputs * conv.input_plane();
                    let x = buffers.x.add(x);
                    for channel in 0..conv.group_inputs {
                        let x = x.add(channel * conv.input_plane());
                        let to = inputs.as_mut_ptr().add(channel * plan.plane);
                        for row in 0..rows {
                            let rows = input_rows(conv, x, zeros, (first + row) * OUT);
                            down(conv, &plan, rows, line);
                            across(&plan, line, to.add(row * plan.across), IN);
                        }
                    }
                    for block in (0..conv.blocks() * CHANNELS).step_by(plan.channels) {
                        let channels = plan.channels.min(conv.blocks() * CHANNELS - block);
                        let held = Block { first: block, channels, rows, plan: &plan };
                        held.multiply(conv, buffers.weights, inputs, zeros, products);
                        let bias = buffers.bias.add(block);
                        let output = (image * conv.group_outputs + block) * conv.output_plane()
                            + first * OUT * conv.columns.output;
                        let output = Output {
                            bias,
                            residual: at(buffers.residual, output),
                            y: buffers.y.add(output),
                            columns: conv.columns.output,
                            activation: conv.activation,
                        };
                        held.finish(conv, first, products, lines, output);
                    }
                }
            }
        }
    })
}

/// The six input rows of the tiles whose first output row is `output`; zeros outside the input.
///
/// # Safety
/// `x` points to a plane of the input; `zeros` is as long as one of its rows.
unsafe fn input_rows(
    conv: &Conv2d,
    x: *const f32,
    zeros: &[f32],
    output: usize,
) -> [*const f32; IN] {
    let start = conv.rows.start(output);
    std::array::from_fn(|i| {
        let row = start + i as isize;
        if row < 0 || row >= conv.rows.input as isize {
            return zeros.as_ptr();
        }
        // SAFETY: `row` is a row of the plane.
        unsafe { x.add(row as usize * conv.columns.input) }
    })
}

/// Transforms six rows of input column by column.
///
/// # Safety
/// Each row holds the input's columns; `line` holds six rows of the plan's width.
#[inline(never)]
unsafe fn down(conv: &Conv2d, plan: &Plan, rows: [*const f32; IN], line: &mut [f32]) {
    let before = conv.columns.before;
    let count = conv.columns.input.min((plan.across * OUT + 2).saturating_sub(before));
    let to = line.as_mut_ptr().wrapping_add(before);
    if count < 4 {
        for column in 0..count {
            // SAFETY: the column exists in every row, and in `line` behind the padding.
            unsafe {
                let values = rows.map(|row| F32x4::load_splat(row.add(column)));
                for (i, value) in to_points(values).into_iter().enumerate() {
                    *to.add(i * plan.width + column) = value.first();
                }
            }
        }
        return;
    }
    let mut column = 0;
    while column < count {
        let place = column.min(count - 4);
        // SAFETY: four columns from `place` on exist, as above.
        unsafe {
            let values = rows.map(|row| F32x4::load(row.add(place)));
            for (i, value) in to_points(values).into_iter().enumerate() {
                value.store(to.add(i * plan.width + place));
            }
        }
        column += 4;
    }
}

/// Transforms `rows` rows, six, tile by tile: four tiles a vector.
///
/// # Safety
/// `line` was written by [`down`]; `to` points to a row of tiles of the first product.
#[inline(never)]
unsafe fn across(plan: &Plan, line: &[f32], to: *mut f32, rows: usize) {
    let mut tile = 0;
    while tile < plan.across {
        let place = tile.min(plan.across - PIXELS);
        let (mut from, mut to) = (line.as_ptr().wrapping_add(place * OUT), to.wrapping_add(place));
        for _ in 0..rows {
            // SAFETY: four tiles read 18 columns, and two more: the row is so long. The products
            // of one row of points lie `plan.input` values apart.
            unsafe {
                let v: [F32x4; 5] = std::array::from_fn(|i| F32x4::load(from.add(4 * i)));
                let [c0, c1, c2, c3] = F32x4::transpose([v[0], v[1], v[2], v[3]]);
                let [c4, c5, _, _] = F32x4::transpose([v[1], v[2], v[3], v[4]]);
                for (j, value) in to_points([c0, c1, c2, c3, c4, c5]).into_iter().enumerate() {
                    value.store(to.wrapping_add(j * plan.input));
                }
            }
            from = from.wrapping_add(plan.width);
            to = to.wrapping_add(IN * plan.input);
        }
        tile += PIXELS;
    }
}

/// Some output channels of some rows of tiles.
struct Block<'a> {
    first: usize,
    channels: usize,
    rows: usize,
    plan: &'a Plan,
}

/// Where outputs go.
#[derive(Clone, Copy)]
struct Output {
    bias: *const f32,
    residual: *const f32,
    y: *mut f32,
    columns: usize,
    activation: Activation,
}

impl Block<'_> {
    /// Multiplies and adds up over the input channels, product by product.
    ///
    /// # Safety
    /// `weights` are the layer's, `inputs` and `products` have the plan's sizes, `zeros` holds a
    /// value for each channel.
    unsafe fn multiply(
        &self,
        conv: &Conv2d,
        weights: *const f32,
        inputs: &[f32],
        zeros: &[f32],
        products: &mut [f32],
    ) {
        let (plan, steps) = (self.plan, conv.group_inputs);
        for product in 0..PRODUCTS {
            let block = (product * conv.blocks() * CHANNELS + self.first) * steps;
            // SAFETY: the caller's promise; a chunk has four tiles at least.
            unsafe {
                tile::pointwise(&Sweep {
                    input: inputs.as_ptr().add(product * plan.input),
                    input_row: 0,
                    input_plane: plan.plane,
                    offsets: std::ptr::null(),
                    odd: 0,
                    steps,
                    weights: weights.add(block),
                    bias: zeros.as_ptr(),
                    output: products.as_mut_ptr().add(product * plan.output),
                    residual: std::ptr::null(),
                    output_row: 0,
                    output_plane: plan.plane,
                    channels: self.channels,
                    rows: 1,
                    columns: self.rows * plan.across,
                    clamp: Clamp::NONE,
                    panel: 0,
                    more_weights: if product + 1 < PRODUCTS { 8 * steps } else { 0 },
                });
            }
        }
    }

    /// Transforms products to outputs, adds bias and residual, and bounds them.
    ///
    /// # Safety
    /// `products` were written by [`Self::multiply`], `lines` has the plan's size, and `output`
    /// leads to the block's channels from the outputs of tile row `first` on.
    unsafe fn finish(
        &self,
        conv: &Conv2d,
        first: usize,
        products: &[f32],
        lines: &mut [f32],
        output: Output,
    ) {
        let plan = self.plan;
        for channel in 0..self.channels.min(conv.group_outputs - self.first) {
            for row in 0..self.rows {
                let products = &products[channel * plan.plane + row * plan.across..];
                let height = (conv.rows.output - (first + row) * OUT).min(OUT);
                let at = channel * conv.output_plane() + row * OUT * output.columns;
                // SAFETY: the caller's promise; `height` rows of the output are left from `at` on.
                unsafe {
                    row_of_tiles(plan, products, lines, IN);
                    output.write(lines, plan.across * OUT, height, channel, at);
                }
            }
        }
    }
}

/// Transforms a row of tiles to four rows of outputs; `points` is six.
///
/// # Safety
/// `products` begins at the row's first product; `lines` holds four rows of outputs.
#[inline(never)]
unsafe fn row_of_tiles(plan: &Plan, products: &[f32], lines: &mut [f32], points: usize) {
    let width = plan.across * OUT;
    let mut tile = 0;
    while tile < plan.across {
        let place = tile.min(plan.across - PIXELS);
        let mut half = [[F32x4::splat(0.0); IN]; OUT];
        let mut from = products.as_ptr().wrapping_add(place);
        // Not unrolled: the loads of all points at once would spill.
        let mut point = 0;
        while point < points {
            // SAFETY: the products of one point lie `IN * plan.output` values apart.
            unsafe {
                let column =
                    std::array::from_fn(|i| F32x4::load(from.wrapping_add(i * IN * plan.output)));
                for (half, value) in half.iter_mut().zip(from_points(column)) {
                    half[point % IN] = value;
                }
            }
            from = from.wrapping_add(plan.output);
            point += 1;
        }
        for (row, half) in half.into_iter().enumerate() {
            let tiles = F32x4::transpose(from_points(half));
            for (i, tile) in tiles.into_iter().enumerate() {
                // SAFETY: tile `place + i` has four columns in each of the four rows.
                unsafe { tile.store(lines.as_mut_ptr().add(row * width + (place + i) * OUT)) }
            }
        }
        tile += PIXELS;
    }
}

impl Output {
    /// Writes `height` rows of one channel from `at` on.
    ///
    /// # Safety
    /// They exist; `lines` holds rows of `width` values, at least as many as the output has columns.
    #[inline(never)]
    unsafe fn write(&self, lines: &[f32], width: usize, height: usize, channel: usize, at: usize) {
        let clamp = self.activation.clamp();
        let (low, high) = (F32x4::splat(clamp.low), F32x4::splat(clamp.high));
        // SAFETY: the caller's promise, row by row.
        unsafe {
            let bias = F32x4::load_splat(self.bias.add(channel));
            for row in 0..height {
                let from = lines.as_ptr().add(row * width);
                let at = at + row * self.columns;
                let mut column = 0;
                while column < self.columns {
                    let place = column.min(self.columns.saturating_sub(4));
                    let mut value = F32x4::load(from.add(place)).add(bias);
                    if self.columns >= 4 {
                        if !self.residual.is_null() {
                            value = value.add(F32x4::load(self.residual.add(at + place)));
                        }
                        value.larger(low).smaller(high).store(self.y.add(at + place));
                    } else {
                        self.write_part(value, at);
                    }
                    column += 4;
                }
            }
            activation::finish(&self.activation, self.y.add(at), height * self.columns);
        }
    }

    /// Writes a row of less than four outputs.
    ///
    /// # Safety
    /// It exists.
    #[cold]
    unsafe fn write_part(&self, value: F32x4, at: usize) {
        let mut values = [0.0; 4];
        // SAFETY: `values` has four places; the rest is the caller's promise.
        unsafe {
            value.store(values.as_mut_ptr());
            for (i, value) in values.iter().enumerate().take(self.columns) {
                let residual =
                    if self.residual.is_null() { 0.0 } else { *self.residual.add(at + i) };
                *self.y.add(at + i) = self.activation.clamp().apply(value + residual);
            }
        }
    }
}

/// Values at the six points of the polynomial that six inputs stand for.
#[inline(always)]
fn to_points(d: [F32x4; IN]) -> [F32x4; IN] {
    let splat = F32x4::splat;
    let (a, b, aa, bb) = (splat(A), splat(B), splat(-A * A), splat(-B * B));
    let (sum, product) = (splat(-A * A - B * B), splat(A * A * B * B));
    let even_a = d[2].mul_add(bb, d[4]);
    let odd_a = d[1].mul_add(bb, d[3]);
    let even_b = d[2].mul_add(aa, d[4]);
    let odd_b = d[1].mul_add(aa, d[3]);
    [
        d[0].mul_add(product, d[2].mul_add(sum, d[4])),
        odd_a.mul_add(a, even_a),
        odd_a.mul_add(splat(-A), even_a),
        odd_b.mul_add(b, even_b),
        odd_b.mul_add(splat(-B), even_b),
        d[1].mul_add(product, d[3].mul_add(sum, d[5])),
    ]
}

/// The four outputs of six products.
#[inline(always)]
fn from_points(m: [F32x4; IN]) -> [F32x4; OUT] {
    let splat = F32x4::splat;
    let (even_a, odd_a) = (m[1].add(m[2]), m[1].sub(m[2]));
    let (even_b, odd_b) = (m[3].add(m[4]), m[3].sub(m[4]));
    let join = |a: F32x4, scale_a: f32, b: F32x4, scale_b: f32| {
        a.mul_add(splat(scale_a), b.mul(splat(scale_b)))
    };
    [
        m[0].add(even_a.add(even_b)),
        join(odd_a, A, odd_b, B),
        join(even_a, A * A, even_b, B * B),
        join(odd_a, A * A * A, odd_b, B * B * B).add(m[5]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_that_gain_take_at_most_a_mebibyte_of_scratch() {
        for (channels, side) in
            [(64, 56), (128, 28), (256, 14), (16, 54), (32, 54), (48, 27), (64, 27), (64, 13)]
        {
            let axis = Axis::new(side, side, 3, 1, 1, 1).expect("a valid axis");
            let activation = Activation::Silu;
            let conv = Conv2d::new(1, channels, 256, 1, axis, axis, activation).expect("valid");
            let bytes = Plan::new(&conv).expect("a valid plan").len() * 4;
            assert!(bytes <= 1 << 20, "{channels} channels at {side}: {bytes}");
        }
    }
}
