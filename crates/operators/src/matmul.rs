//! Matrix products of two operands that are both data, as attention has them.
//!
//! A product is a 1x1 convolution: columns are its pixels, rows its output channels, and the inner
//! axis its input channels. So the left operand is packed as weights, and `tile::pointwise` reads
//! the right one where it lies, or transposed into scratch.

use std::ptr;

use crate::KernelError;
use crate::gather::{self, CHUNK_BYTES, stagger};
use crate::geometry::{Clamp, extent, floats};
use crate::scratch::{self, LINE};
use crate::tile::{self, CHANNELS, PIXELS, Sweep};
use crate::transpose::matrix;

/// A batch of matrix products.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatMul {
    /// Products.
    pub batch: usize,
    /// Rows of the left operand.
    pub rows: usize,
    /// Columns of the left operand.
    pub inner: usize,
    /// Columns of the product.
    pub columns: usize,
    /// Values between two right operands, 0 when one serves all.
    pub b_stride: usize,
    /// Whether right operands are `[columns][inner]`.
    pub transposed: bool,
    /// Factor of the product.
    pub alpha: f32,
}

impl MatMul {
    /// Validates a batch of products; `[batch, rows, inner, columns]` are the extents.
    ///
    /// # Errors
    /// [`KernelError::Geometry`] when an extent is not positive, right operands overlap, or a
    /// tensor exceeds 2 GiB.
    pub fn new(
        extents: [i32; 4],
        b_stride: i32,
        transposed: i32,
        alpha: f32,
    ) -> Result<Self, KernelError> {
        let [batch, rows, inner, columns] = extents;
        let (batch, rows) = (extent(batch)?, extent(rows)?);
        let (inner, columns) = (extent(inner)?, extent(columns)?);
        floats(&[batch, rows, inner])?;
        floats(&[batch, rows, columns])?;
        let one = floats(&[inner, columns])?;
        let b_stride =
            usize::try_from(b_stride).map_err(|_| KernelError::Geometry("a stride is negative"))?;
        if b_stride != 0 && b_stride < one {
            return Err(KernelError::Geometry("right operands overlap"));
        }
        floats(&[batch, b_stride.max(1)])?;
        Ok(Self { batch, rows, inner, columns, b_stride, transposed: transposed != 0, alpha })
    }
}

/// Computes a batch of products.
///
/// # Errors
/// [`KernelError::Scratch`], or [`KernelError::Geometry`] when the packed rows exceed 2 GiB.
///
/// # Safety
/// `a` holds `batch * rows * inner` values, `b` the last right operand's end, `y`
/// `batch * rows * columns`.
pub(crate) unsafe fn matmul(
    product: &MatMul,
    a: *const f32,
    b: *const f32,
    y: *mut f32,
) -> Result<(), KernelError> {
    let MatMul { mut batch, mut rows, inner, columns, b_stride, .. } = *product;
    if b_stride == 0 {
        // One operand for all: one taller product.
        (batch, rows) = (1, batch * rows);
    }
    let padded = rows.next_multiple_of(CHANNELS);
    let packed = floats(&[padded, inner])?.next_multiple_of(LINE);
    let chunk = (CHUNK_BYTES / 4 / inner / LINE * LINE).max(LINE).min(columns.max(PIXELS));
    // A sweep reads rows of columns, at least four.
    let copies = product.transposed || columns < PIXELS;
    let plane = if copies { stagger(chunk) } else { columns };
    let copied = if copies { floats(&[inner, plane])? } else { 0 };
    let bias = padded.next_multiple_of(LINE);
    scratch::with(packed + bias + copied, |scratch| {
        let (weights, rest) = scratch.split_at_mut(packed);
        let (zeros, copy) = rest.split_at_mut(bias);
        zeros.fill(0.0);
        weights.fill(0.0);
        copy[..copied].fill(0.0);
        for i in 0..batch {
            // SAFETY: the caller's promise for this product; scratch has the sizes above. A chunk
            // that would have less than four columns reaches back.
            unsafe {
                pack(product, a.add(i * rows * inner), rows, weights);
                let (b, y) = (b.add(i * b_stride), y.add(i * rows * columns));
                for first in (0..columns).step_by(chunk) {
                    let end = (first + chunk).min(columns);
                    let first = first.min(columns.saturating_sub(PIXELS));
                    let input = match (copies, product.transposed) {
                        (false, _) => b.add(first),
                        (true, true) => {
                            let from = b.add(first * inner);
                            matrix(from, inner, end - first, inner, copy.as_mut_ptr(), plane);
                            copy.as_ptr()
                        }
                        (true, false) => {
                            for (k, to) in copy.chunks_exact_mut(plane).take(inner).enumerate() {
                                gather::copy(b.add(k * columns), to.as_mut_ptr(), columns);
                            }
                            copy.as_ptr()
                        }
                    };
                    tile::pointwise(&Sweep {
                        input,
                        input_row: 0,
                        input_plane: plane,
                        offsets: ptr::null(),
                        odd: 0,
                        steps: inner,
                        weights: weights.as_ptr(),
                        bias: zeros.as_ptr(),
                        output: y.add(first),
                        residual: ptr::null(),
                        output_row: 0,
                        output_plane: columns,
                        channels: rows,
                        rows: 1,
                        columns: end - first,
                        clamp: Clamp::NONE,
                        panel: 0,
                        more_weights: 0,
                    });
                }
            }
        }
    })
}

/// Brings the left operand's rows, eight at a time, into `[inner][8]`, times alpha. Places of rows
/// that there are not keep what they hold.
///
/// # Safety
/// `a` holds `rows * inner` values, `to` as many with whole eights of rows.
unsafe fn pack(product: &MatMul, a: *const f32, rows: usize, to: &mut [f32]) {
    let inner = product.inner;
    for (block, to) in to.chunks_exact_mut(CHANNELS * inner).enumerate() {
        let first = block * CHANNELS;
        let count = CHANNELS.min(rows.saturating_sub(first));
        if count > 0 {
            // SAFETY: these rows exist.
            unsafe { matrix(a.add(first * inner), inner, count, inner, to.as_mut_ptr(), CHANNELS) }
        }
        if product.alpha != 1.0 {
            to.iter_mut().for_each(|value| *value *= product.alpha);
        }
    }
}
