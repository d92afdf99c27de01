//! Matrix products of two operands that are both data, as attention has them.
//!
//! The right operand is brought, eight columns at a time, into the layout that [`crate::tile`]
//! reads as weights; the left one is then multiplied four rows at a time.

use crate::KernelError;
use crate::geometry::{extent, floats};
use crate::scratch;
use crate::variant::F32x4;
use crate::vector::Vector;

/// Columns that are held at a time.
const COLUMNS: usize = 8;
/// Rows that are multiplied at a time.
const ROWS: usize = 4;

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
/// [`KernelError::Scratch`].
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
    let MatMul { batch, rows, inner, columns, b_stride, .. } = *product;
    scratch::with(inner * COLUMNS, |panel| {
        for i in 0..batch {
            for first in (0..columns).step_by(COLUMNS) {
                let width = COLUMNS.min(columns - first);
                // SAFETY: the caller's promise; columns `first..first + width` exist.
                unsafe {
                    pack(product, b.add(i * b_stride), first, width, panel);
                    let y = y.add(i * rows * columns + first);
                    multiply(product, a.add(i * rows * inner), panel.as_ptr(), y, width);
                }
            }
        }
    })
}

/// Brings `width` columns from `first` on into `[inner][8]`, the rest zero, times alpha.
///
/// # Safety
/// `b` holds one right operand; `panel` has eight places for each inner step.
unsafe fn pack(product: &MatMul, b: *const f32, first: usize, width: usize, panel: &mut [f32]) {
    let (inner, columns) = (product.inner, product.columns);
    let (step, column) = if product.transposed { (1, inner) } else { (columns, 1) };
    for (k, to) in panel.chunks_exact_mut(COLUMNS).take(inner).enumerate() {
        for (j, to) in to.iter_mut().enumerate() {
            // SAFETY: `k` and `first + j` are below their extents.
            *to = if j < width {
                unsafe { *b.add(k * step + (first + j) * column) * product.alpha }
            } else {
                0.0
            };
        }
    }
}

/// Multiplies all rows by a packed panel.
///
/// # Safety
/// `a` holds the left operand, `panel` `inner` steps of eight, `y` the first of `width` columns of
/// each row of the product.
unsafe fn multiply(product: &MatMul, a: *const f32, panel: *const f32, y: *mut f32, width: usize) {
    let MatMul { rows, inner, columns, .. } = *product;
    for first in (0..rows).step_by(ROWS) {
        let count = ROWS.min(rows - first);
        let mut sums = [[F32x4::splat(0.0); 2]; ROWS];
        // SAFETY: rows below `rows`, steps below `inner`; fewer columns than eight pass through
        // places of their own.
        unsafe {
            for k in 0..inner {
                let low = F32x4::load(panel.add(k * COLUMNS));
                let high = F32x4::load(panel.add(k * COLUMNS + 4));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let row = first + i.min(count - 1);
                    let value = F32x4::load_splat(a.add(row * inner + k));
                    sums[0] = value.mul_add(low, sums[0]);
                    sums[1] = value.mul_add(high, sums[1]);
                }
            }
            for (i, [low, high]) in sums.into_iter().enumerate().take(count) {
                let mut values = [0.0; COLUMNS];
                low.store(values.as_mut_ptr());
                high.store(values.as_mut_ptr().add(4));
                for (j, value) in values.iter().enumerate().take(width) {
                    *y.add((first + i) * columns + j) = *value;
                }
            }
        }
    }
}
