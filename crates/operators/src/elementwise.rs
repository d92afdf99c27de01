//! Two tensors joined value by value, either of them repeated along some axes.

use crate::KernelError;
use crate::activation::{self, Activation};
use crate::geometry::{extent, floats};
use crate::variant::F32x4;
use crate::vector::Vector;

/// How two values become one, by the code that the C symbol takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// 0: the sum.
    Add,
    /// 1: the difference.
    Sub,
    /// 2: the product.
    Mul,
    /// 3: the quotient.
    Div,
    /// 4: the greater; NaN if either is.
    Max,
    /// 5: the less; NaN if either is.
    Min,
}

impl Join {
    /// Reads a code.
    ///
    /// # Errors
    /// [`KernelError::Geometry`] when there is no such code.
    pub fn new(code: i32) -> Result<Self, KernelError> {
        [Self::Add, Self::Sub, Self::Mul, Self::Div, Self::Max, Self::Min]
            .into_iter()
            .nth(usize::try_from(code).unwrap_or(usize::MAX))
            .ok_or(KernelError::Geometry("there is no such elementwise operator"))
    }
}

/// An elementwise operator over three axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Binary {
    /// Extents of the output, which is contiguous.
    pub extents: [usize; 3],
    /// Values between two neighbours of the first operand along each axis, 0 where it repeats;
    /// along the last axis 0 or 1.
    pub a: [usize; 3],
    /// The same for the second operand.
    pub b: [usize; 3],
    /// The operator.
    pub join: Join,
    /// What follows.
    pub activation: Activation,
}

impl Binary {
    /// Validates an elementwise operator.
    ///
    /// # Errors
    /// [`KernelError::Geometry`] when an extent is not positive, a stride is negative, that of a
    /// last axis is neither 0 nor 1, or a tensor exceeds 2 GiB.
    pub fn new(
        extents: [i32; 3],
        a: [i32; 3],
        b: [i32; 3],
        join: Join,
        activation: Activation,
    ) -> Result<Self, KernelError> {
        let [outer, middle, inner] = extents;
        let extents = [extent(outer)?, extent(middle)?, extent(inner)?];
        floats(&extents)?;
        let (a, b) = (strides(&extents, a)?, strides(&extents, b)?);
        Ok(Self { extents, a, b, join, activation })
    }
}

/// Checks the strides of an operand, and that its last value lies within 2 GiB.
fn strides(extents: &[usize; 3], given: [i32; 3]) -> Result<[usize; 3], KernelError> {
    let bad = KernelError::Geometry("bad strides");
    let mut strides = [0; 3];
    let mut last = 0;
    for ((to, extent), given) in strides.iter_mut().zip(extents).zip(given) {
        *to = usize::try_from(given).map_err(|_| bad)?;
        // Both are below 2^31, and three such products do not overflow.
        last += (*extent as u64 - 1) * *to as u64;
    }
    if strides[2] > 1 || last >= i32::MAX as u64 / 4 {
        return Err(bad);
    }
    Ok(strides)
}

/// Computes an elementwise operator, row by row of the last axis.
///
/// # Safety
/// `y` holds the output; `a` and `b` hold every value that their strides lead to.
pub(crate) unsafe fn binary(binary: &Binary, a: *const f32, b: *const f32, y: *mut f32) {
    let [outer, middle, inner] = binary.extents;
    for i in 0..outer {
        for j in 0..middle {
            // SAFETY: `i` and `j` stay below their extents.
            unsafe {
                let a = a.add(i * binary.a[0] + j * binary.a[1]);
                let b = b.add(i * binary.b[0] + j * binary.b[1]);
                let y = y.add((i * middle + j) * inner);
                match binary.join {
                    Join::Add => any_row(binary, a, b, y, F32x4::add),
                    Join::Sub => any_row(binary, a, b, y, F32x4::sub),
                    Join::Mul => any_row(binary, a, b, y, F32x4::mul),
                    Join::Div => any_row(binary, a, b, y, F32x4::div),
                    Join::Max => any_row(binary, a, b, y, F32x4::max),
                    Join::Min => any_row(binary, a, b, y, F32x4::min),
                }
                activation::apply_unless_none(&binary.activation, y, inner);
            }
        }
    }
}

/// Joins two rows, of which each may be a single value.
///
/// # Safety
/// The rows exist.
#[inline(never)]
unsafe fn any_row(
    binary: &Binary,
    a: *const f32,
    b: *const f32,
    y: *mut f32,
    join: impl Fn(F32x4, F32x4) -> F32x4 + Copy,
) {
    let count = binary.extents[2];
    // SAFETY: the caller's promise.
    unsafe {
        match (binary.a[2], binary.b[2]) {
            (0, 0) => row::<false, false>(a, b, y, count, join),
            (0, _) => row::<false, true>(a, b, y, count, join),
            (_, 0) => row::<true, false>(a, b, y, count, join),
            _ => row::<true, true>(a, b, y, count, join),
        }
    }
}

/// Joins two rows; one that does not `MOVE` is a single value.
///
/// # Safety
/// The rows and `count` places at `y` exist.
#[inline(always)]
unsafe fn row<const MOVE_A: bool, const MOVE_B: bool>(
    a: *const f32,
    b: *const f32,
    y: *mut f32,
    count: usize,
    join: impl Fn(F32x4, F32x4) -> F32x4,
) {
    // SAFETY: vectors end at `count`; single values likewise.
    unsafe {
        let (first_a, first_b) = (F32x4::load_splat(a), F32x4::load_splat(b));
        let whole = count / 4 * 4;
        let mut i = 0;
        while i < whole {
            let a = if MOVE_A { F32x4::load(a.add(i)) } else { first_a };
            let b = if MOVE_B { F32x4::load(b.add(i)) } else { first_b };
            join(a, b).store(y.add(i));
            i += 4;
        }
        while i < count {
            let a = if MOVE_A { F32x4::load_splat(a.add(i)) } else { first_a };
            let b = if MOVE_B { F32x4::load_splat(b.add(i)) } else { first_b };
            *y.add(i) = join(a, b).first();
            i += 1;
        }
    }
}
