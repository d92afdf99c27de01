//! What happens to every output last: a clamp, or one of the curves that networks use.
//!
//! A clamp costs two instructions and happens in the registers of a micro-kernel. A curve costs
//! ten times that and would take the micro-kernel's registers, so it is a pass of its own over
//! what was just written and still lies in the first- or second-level cache.

use crate::KernelError;
use crate::geometry::Clamp;
use crate::math;
use crate::variant::F32x4;
use crate::vector::Vector;

/// Where both GELUs are 1e-7 below 0, and from where on what `1 + erf` is rounded by would grow with
/// the input.
const GELU_END: f32 = -5.5;

/// The last step of a kernel, by the code that the C symbols take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// 0: bounds, none if they are infinite.
    Clamp(Clamp),
    /// 1: `1 / (1 + exp(-x))`.
    Sigmoid,
    /// 2: `x / (1 + exp(-x))`.
    Silu,
    /// 3: `slope * x + offset` between 0 and 1.
    HardSigmoid {
        /// The C symbols' `lo`.
        slope: f32,
        /// The C symbols' `hi`.
        offset: f32,
    },
    /// 4: `x` times `x / 6 + 1 / 2` between 0 and 1.
    HardSwish,
    /// 5: `x / 2 * (1 + erf(x / sqrt(2)))`.
    Gelu,
    /// 6: `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
    /// 7: `tanh(x)`.
    Tanh,
}

impl Activation {
    /// Reads the C symbols' last three arguments; `low` and `high` are bounds for a clamp, slope
    /// and offset for a hard sigmoid, and meaningless otherwise.
    ///
    /// # Errors
    /// [`KernelError::Geometry`] when there is no such code, or the bounds of a clamp are empty.
    pub fn new(code: i32, low: f32, high: f32) -> Result<Self, KernelError> {
        match code {
            0 => Clamp::new(low, high).map(Self::Clamp),
            1 => Ok(Self::Sigmoid),
            2 => Ok(Self::Silu),
            3 => Ok(Self::HardSigmoid { slope: low, offset: high }),
            4 => Ok(Self::HardSwish),
            5 => Ok(Self::Gelu),
            6 => Ok(Self::GeluTanh),
            7 => Ok(Self::Tanh),
            _ => Err(KernelError::Geometry("there is no such activation")),
        }
    }

    /// The bounds that a micro-kernel applies: those of a clamp, none for a curve.
    #[must_use]
    pub fn clamp(&self) -> Clamp {
        match self {
            Self::Clamp(clamp) => *clamp,
            _ => Clamp::NONE,
        }
    }

    /// Whether outputs need a pass after the micro-kernel.
    #[must_use]
    pub fn is_curve(&self) -> bool {
        !matches!(self, Self::Clamp(_))
    }
}

/// Passes `count` outputs that a micro-kernel has written through a curve; a clamp has happened.
///
/// # Safety
/// `y` points to as many values.
#[inline(always)]
pub(crate) unsafe fn finish(activation: &Activation, y: *mut f32, count: usize) {
    if activation.is_curve() {
        // SAFETY: the caller's promise.
        unsafe { apply(activation, y, y, count) }
    }
}

/// Writes the activation of `count` values.
///
/// # Safety
/// `x` points to as many values, `y` to as many places, the same ones or others.
#[inline(never)]
pub(crate) unsafe fn apply(activation: &Activation, x: *const f32, y: *mut f32, count: usize) {
    let splat = F32x4::splat;
    // SAFETY: the caller's promise.
    unsafe {
        match *activation {
            Activation::Clamp(Clamp { low, high }) => {
                map(x, y, count, |x| x.larger(splat(low)).smaller(splat(high)));
            }
            Activation::Sigmoid => map(x, y, count, math::sigmoid),
            Activation::Silu => map(x, y, count, |x| x.mul(math::sigmoid(x))),
            Activation::HardSigmoid { slope, offset } => {
                map(x, y, count, |x| unit(x.mul_add(splat(slope), splat(offset))));
            }
            Activation::HardSwish => {
                map(x, y, count, |x| x.mul(unit(x.mul_add(splat(1.0 / 6.0), splat(0.5)))));
            }
            Activation::Gelu => map(x, y, count, |x| {
                let half = x.mul(splat(0.5));
                let bend = math::erf(x.mul(splat(std::f32::consts::FRAC_1_SQRT_2)));
                bend.mul_add(half, half).zero_where_less(x, splat(GELU_END))
            }),
            Activation::GeluTanh => map(x, y, count, |x| {
                let half = x.mul(splat(0.5));
                // sqrt(2 / pi), and 0.044715 times it.
                let slope = x.mul(x).mul_add(splat(0.035_677_408), splat(0.797_884_6));
                let bend = math::tanh(x.mul(slope));
                bend.mul_add(half, half).zero_where_less(x, splat(GELU_END))
            }),
            Activation::Tanh => map(x, y, count, math::tanh),
        }
    }
}

/// The value between 0 and 1.
#[inline(always)]
fn unit(x: F32x4) -> F32x4 {
    x.larger(F32x4::splat(0.0)).smaller(F32x4::splat(1.0))
}

/// Writes `curve` of `count` values, four at a time.
///
/// # Safety
/// As [`apply`].
#[inline(always)]
pub(crate) unsafe fn map(x: *const f32, y: *mut f32, count: usize, curve: impl Fn(F32x4) -> F32x4) {
    let whole = count / 4 * 4;
    let mut i = 0;
    // SAFETY: vectors end at `whole`; the rest passes through four places of its own, because
    // places that were written already must not be read again when `x` is `y`.
    unsafe {
        while i < whole {
            curve(F32x4::load(x.add(i))).store(y.add(i));
            i += 4;
        }
        if whole < count {
            let mut rest = [0.0; 4];
            for (place, i) in rest.iter_mut().zip(whole..count) {
                *place = *x.add(i);
            }
            curve(F32x4::load(rest.as_ptr())).store(rest.as_mut_ptr());
            for (value, i) in rest.iter().zip(whole..count) {
                *y.add(i) = *value;
            }
        }
    }
}
