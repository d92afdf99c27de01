//! Exponential, logistic, hyperbolic tangent and error function of four values.
//!
//! Largest errors over all inputs, as the tests below bound them: `exp` 2e-7 relative, `sigmoid`
//! 3e-7 relative, `tanh` and `erf` 5e-7 relative. NaN gives NaN.

use crate::variant::F32x4;
use crate::vector::Vector;

/// Where [`exp`] stops falling: the least result is a normal number.
const LEAST: f32 = -87.3;
/// Where [`exp`] stops rising, below infinity.
const MOST: f32 = 88.3;

/// `1.5 * 2^23 + 127`: added to a small number it leaves that number, rounded, plus 127 in the
/// lowest bits.
const ROUND: f32 = 12_583_039.0;

/// A polynomial, highest coefficient first.
#[inline(always)]
fn polynomial<const N: usize>(x: F32x4, coefficients: [f32; N]) -> F32x4 {
    let mut value = F32x4::splat(coefficients[0]);
    for coefficient in &coefficients[1..] {
        value = value.mul_add(x, F32x4::splat(*coefficient));
    }
    value
}

/// `e^x`, between `e^-87.3` and `e^88.3` for whatever lies outside.
///
/// `x` is `n ln 2 + r` with a whole `n`; `e^r` is the polynomial of Cephes' `expf` (S. Moshier,
/// netlib.org/cephes), `ln 2` comes in its two parts.
#[inline(always)]
pub(crate) fn exp(x: F32x4) -> F32x4 {
    let splat = F32x4::splat;
    let x = x.larger(splat(LEAST)).smaller(splat(MOST));
    let shifted = x.mul_add(splat(std::f32::consts::LOG2_E), splat(ROUND));
    let n = shifted.sub(splat(ROUND));
    let r = n.mul_add(splat(2.121_944_4e-4), n.mul_add(splat(-0.693_359_4), x));
    let p = polynomial(
        r,
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1],
    );
    let power = p.mul_add(r.mul(r), r).add(splat(1.0));
    power.mul(shifted.low_bits_as_exponent())
}

/// `e^x` for sums of exponentials: 0 below -87.3.
#[inline(always)]
pub(crate) fn exp_or_zero(x: F32x4) -> F32x4 {
    exp(x).zero_where_less(x, F32x4::splat(LEAST))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: F32x4) -> F32x4 {
    let one = F32x4::splat(1.0);
    one.div(one.add(exp(F32x4::splat(0.0).sub(x))))
}

/// `tanh(x)`: the rational function of Eigen (`generic_fast_tanh_float`) and of ONNX Runtime's
/// MLAS; beyond ±7.905 it is ±1.
#[inline(always)]
pub(crate) fn tanh(x: F32x4) -> F32x4 {
    let x = x.larger(F32x4::splat(-7.905_311)).smaller(F32x4::splat(7.905_311));
    let square = x.mul(x);
    let above = polynomial(
        square,
        [
            -2.760_768_5e-16,
            2.000_188e-13,
            -8.604_672e-11,
            5.122_297e-8,
            1.485_722_4e-5,
            6.372_619_3e-4,
            4.893_524_6e-3,
        ],
    );
    let below = polynomial(square, [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3]);
    x.mul(above).div(below)
}

/// `erf(x)`: the rational function of Eigen (`generic_fast_erf_float`) and of XLA; beyond ±4 it
/// is ±1 within `f32`.
#[inline(always)]
pub(crate) fn erf(x: F32x4) -> F32x4 {
    let x = x.larger(F32x4::splat(-4.0)).smaller(F32x4::splat(4.0));
    let square = x.mul(x);
    let above = polynomial(
        square,
        [
            -2.726_142_3e-10,
            2.770_681_4e-8,
            -2.101_024e-6,
            -5.692_506_5e-5,
            -7.349_906_3e-4,
            -2.954_6e-3,
            -1.609_603_3e-2,
        ],
    );
    let below = polynomial(
        square,
        [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_474e-2],
    );
    x.mul(above).div(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    /// Largest relative error over evenly spaced inputs.
    fn worst(from: f32, to: f32, curve: fn(F32x4) -> F32x4, want: fn(f64) -> f64) -> (f64, f32) {
        const STEPS: u32 = 200_001;
        let inputs = (0..=STEPS).map(|i| from + (to - from) * i as f32 / STEPS as f32);
        let errors = inputs.map(|x| {
            let want = want(f64::from(x));
            let got = f64::from(curve(F32x4::splat(x)).first());
            (if want == 0.0 { got.abs() } else { ((got - want) / want).abs() }, x)
        });
        errors.fold((0.0, 0.0), |worst, error| if error.0 > worst.0 { error } else { worst })
    }

    #[test]
    fn each_function_keeps_its_documented_error() {
        type Row = (&'static str, f32, f32, fn(F32x4) -> F32x4, fn(f64) -> f64, f64);
        let rows: [Row; 10] = [
            ("exp", -87.2, 88.2, exp, f64::exp, 2e-7),
            ("exp near 0", -0.01, 0.01, exp, f64::exp, 2e-7),
            ("sigmoid", -87.0, 87.0, sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 3e-7),
            ("sigmoid", -4.0, 4.0, sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 3e-7),
            ("tanh", -20.0, 20.0, tanh, f64::tanh, 5e-7),
            ("tanh", -1.0, 1.0, tanh, f64::tanh, 5e-7),
            ("tanh near 0", -1e-3, 1e-3, tanh, f64::tanh, 5e-7),
            ("erf", -6.0, 6.0, erf, reference::erf, 5e-7),
            ("erf", -1.0, 1.0, erf, reference::erf, 5e-7),
            ("erf near 0", -1e-3, 1e-3, erf, reference::erf, 5e-7),
        ];
        for (name, from, to, curve, want, bound) in rows {
            let (error, at) = worst(from, to, curve, want);
            assert!(error <= bound, "{name}: {error:e} at {at}");
        }
    }

    #[test]
    fn the_ends_of_the_range_and_nan_are_kept() {
        let at = |curve: fn(F32x4) -> F32x4, x: f32| curve(F32x4::splat(x)).first();
        for curve in [exp, exp_or_zero, sigmoid, tanh, erf] {
            assert!(at(curve, f32::NAN).is_nan());
            // A NaN whose payload fills the bits that an exponent is made of.
            assert!(at(curve, f32::from_bits(0x7fff_ffff)).is_nan());
        }
        assert_eq!(at(exp_or_zero, f32::NEG_INFINITY), 0.0);
        assert_eq!(at(exp_or_zero, 0.0), 1.0);
        assert!(at(exp, f32::INFINITY).is_finite() && at(exp, f32::NEG_INFINITY) > 0.0);
        assert_eq!(at(sigmoid, f32::INFINITY), 1.0);
        assert!(at(sigmoid, f32::NEG_INFINITY) < 1e-37);
        for curve in [tanh, erf] {
            assert!((at(curve, f32::INFINITY) - 1.0).abs() < 1e-6);
            assert!((at(curve, f32::NEG_INFINITY) + 1.0).abs() < 1e-6);
            assert_eq!(at(curve, 0.0), 0.0);
        }
    }
}
