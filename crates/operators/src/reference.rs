//! What each kernel computes, written to be read: no vectors, no tricks, sums in `f64`.
//!
//! The tests compare the kernels with these functions. Weights are plain, `[oc][ic / groups]
//! [kh][kw]` and `[n][k]`; [`pack_conv2d`], [`pack_conv2d_bias`], [`pack_dense`] and
//! [`pack_dense_bias`] bring them into the layouts that the kernels read.

use crate::activation::Activation;
use crate::geometry::{Axis, Conv2d, Dense, Pool2d};
use crate::matmul::MatMul;

/// The input position that one tap of one output reads, unless it is padding.
fn position(axis: &Axis, output: usize, tap: usize) -> Option<usize> {
    let position = (output * axis.stride + tap * axis.dilation).checked_sub(axis.before)?;
    (position < axis.input).then_some(position)
}

/// A convolution, depthwise ones included: `weights` is `[oc][ic / groups][kh][kw]`, `bias`
/// `[oc]`, `residual` empty or laid out as the output.
#[must_use]
pub fn conv2d(
    conv: &Conv2d,
    x: &[f32],
    weights: &[f32],
    bias: &[f32],
    residual: &[f32],
) -> Vec<f32> {
    let Conv2d { batch, groups, group_inputs, group_outputs, rows, columns, activation } = conv;
    let outputs = groups * group_outputs;
    let mut y = Vec::with_capacity(batch * outputs * conv.output_plane());
    for image in 0..*batch {
        for (output, bias) in bias.iter().enumerate().take(outputs) {
            let first_input = image * groups * group_inputs + output / group_outputs * group_inputs;
            for row in 0..rows.output {
                for column in 0..columns.output {
                    let mut sum = f64::from(*bias);
                    for input in 0..*group_inputs {
                        for tap_row in 0..rows.kernel {
                            for tap_column in 0..columns.kernel {
                                let at_row = position(rows, row, tap_row);
                                let at_column = position(columns, column, tap_column);
                                let (Some(at_row), Some(at_column)) = (at_row, at_column) else {
                                    continue;
                                };
                                let channel = first_input + input;
                                let x_at =
                                    (channel * rows.input + at_row) * columns.input + at_column;
                                let w_at = ((output * group_inputs + input) * rows.kernel
                                    + tap_row)
                                    * columns.kernel
                                    + tap_column;
                                sum += f64::from(x[x_at]) * f64::from(weights[w_at]);
                            }
                        }
                    }
                    if let Some(value) = residual.get(y.len()) {
                        sum += f64::from(*value);
                    }
                    y.push(activate(activation, sum));
                }
            }
        }
    }
    y
}

/// A dense layer: `weights` is `[n][k]`, `bias` `[n]`.
#[must_use]
pub fn dense(dense: &Dense, x: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut y = Vec::with_capacity(dense.batch * dense.outputs);
    for row in x.chunks_exact(dense.inputs) {
        for (weights, bias) in weights.chunks_exact(dense.inputs).zip(bias) {
            let products = row.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w));
            y.push(activate(&dense.activation, f64::from(*bias) + products.sum::<f64>()));
        }
    }
    y
}

/// A maximum pool; NaN is skipped.
#[must_use]
pub fn max_pool2d(pool: &Pool2d, x: &[f32]) -> Vec<f32> {
    let Pool2d { planes, rows, columns } = pool;
    let mut y = Vec::with_capacity(planes * rows.output * columns.output);
    for plane in 0..*planes {
        for row in 0..rows.output {
            for column in 0..columns.output {
                let mut most = f32::NEG_INFINITY;
                for at_row in (0..rows.kernel).filter_map(|tap| position(rows, row, tap)) {
                    for at_column in
                        (0..columns.kernel).filter_map(|tap| position(columns, column, tap))
                    {
                        most =
                            most.max(x[(plane * rows.input + at_row) * columns.input + at_column]);
                    }
                }
                y.push(most);
            }
        }
    }
    y
}

/// An average pool. Padding counts as zeros with `padded`, else not at all; a window of nothing
/// but padding then gives NaN.
#[must_use]
pub fn avg_pool2d(pool: &Pool2d, padded: bool, x: &[f32]) -> Vec<f32> {
    let Pool2d { planes, rows, columns } = pool;
    let mut y = Vec::with_capacity(planes * rows.output * columns.output);
    for plane in 0..*planes {
        for row in 0..rows.output {
            for column in 0..columns.output {
                let (mut sum, mut count) = (0.0, 0);
                for at_row in (0..rows.kernel).filter_map(|tap| position(rows, row, tap)) {
                    for at_column in
                        (0..columns.kernel).filter_map(|tap| position(columns, column, tap))
                    {
                        let at = (plane * rows.input + at_row) * columns.input + at_column;
                        sum += f64::from(x[at]);
                        count += 1;
                    }
                }
                let count = if padded { rows.kernel * columns.kernel } else { count };
                y.push((sum / count as f64) as f32);
            }
        }
    }
    y
}

/// The last step of a kernel.
#[must_use]
pub fn activate(activation: &Activation, x: f64) -> f32 {
    let unit = |x: f64| x.clamp(0.0, 1.0);
    let y = match *activation {
        Activation::Clamp(clamp) => return clamp.apply(x as f32),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::HardSigmoid { slope, offset } => unit(f64::from(slope) * x + f64::from(offset)),
        Activation::HardSwish => x * unit(x / 6.0 + 0.5),
        Activation::Gelu => x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            let slope = (2.0 / std::f64::consts::PI).sqrt();
            x / 2.0 * (1.0 + (slope * (x + 0.044_715 * x * x * x)).tanh())
        }
        Activation::Tanh => x.tanh(),
    };
    y as f32
}

/// The error function: its Taylor series near 0, else the continued fraction of its complement.
#[must_use]
pub fn erf(x: f64) -> f64 {
    let square = x * x;
    if x.abs() < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..80 {
            term *= -square / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let mut fraction = 0.0;
    for n in (1..=80).rev() {
        fraction = f64::from(n) / 2.0 / (x.abs() + fraction);
    }
    let complement = (-square).exp() / std::f64::consts::PI.sqrt() / (x.abs() + fraction);
    (1.0 - complement).copysign(x)
}

/// `join` of two tensors of six axes; where an operand's extent is 1, it is repeated.
#[must_use]
pub fn join(
    shapes: [[usize; 6]; 2],
    a: &[f32],
    b: &[f32],
    join: impl Fn(f64, f64) -> f64,
) -> Vec<f32> {
    let shape: Vec<_> = shapes[0].iter().zip(shapes[1]).map(|(a, b)| *a.max(&b)).collect();
    (0..shape.iter().product())
        .map(|i| {
            let mut rest = i;
            let mut at = [0, 0];
            let mut strides = [1, 1];
            for (axis, extent) in shape.iter().enumerate().rev() {
                let place = rest % extent;
                rest /= extent;
                for ((at, stride), operand) in at.iter_mut().zip(&mut strides).zip(&shapes) {
                    *at += place % operand[axis] * *stride;
                    *stride *= operand[axis];
                }
            }
            join(f64::from(a[at[0]]), f64::from(b[at[1]])) as f32
        })
        .collect()
}

/// The softmax of each row of `count` values.
#[must_use]
pub fn softmax(count: usize, x: &[f32]) -> Vec<f32> {
    let row = |row: &[f32]| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f64> =
            row.iter().map(|x| (f64::from(*x) - f64::from(most)).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(move |power| (power / sum) as f32)
    };
    x.chunks_exact(count).flat_map(row).collect()
}

/// Layer normalisation of rows as long as `scale`; `bias` may be empty.
#[must_use]
pub fn layer_norm(x: &[f32], scale: &[f32], bias: &[f32], epsilon: f32) -> Vec<f32> {
    let count = scale.len() as f64;
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks_exact(scale.len()) {
        let mean = row.iter().copied().map(f64::from).sum::<f64>() / count;
        let squares = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>();
        let deviation = (squares / count + f64::from(epsilon)).sqrt();
        for (i, (x, scale)) in row.iter().zip(scale).enumerate() {
            let value = (f64::from(*x) - mean) / deviation * f64::from(*scale);
            y.push((value + bias.get(i).copied().map_or(0.0, f64::from)) as f32);
        }
    }
    y
}

/// A batch of matrix products.
#[must_use]
pub fn matmul(product: &MatMul, a: &[f32], b: &[f32]) -> Vec<f32> {
    let MatMul { batch, rows, inner, columns, b_stride, transposed, alpha } = *product;
    let mut y = Vec::with_capacity(batch * rows * columns);
    for i in 0..batch * rows * columns {
        let (row, column) = (i / columns, i % columns);
        let b = &b[row / rows * b_stride..];
        let products = (0..inner).map(|k| {
            let at = if transposed { column * inner + k } else { k * columns + column };
            f64::from(a[row * inner + k]) * f64::from(b[at])
        });
        y.push((products.sum::<f64>() * f64::from(alpha)) as f32);
    }
    y
}

/// `[outer][a][b][run]` as `[outer][b][a][run]`.
#[must_use]
pub fn transpose([outer, a, b, run]: [usize; 4], x: &[f32]) -> Vec<f32> {
    let mut y = Vec::with_capacity(x.len());
    for i in 0..outer * a * b * run {
        let (o, j, k, r) = (i / run / a / b, i / run / a % b, i / run % a, i % run);
        y.push(x[((o * a + k) * b + j) * run + r]);
    }
    y
}

/// The mean of each plane of `plane` values.
#[must_use]
pub fn global_avg_pool(plane: usize, x: &[f32]) -> Vec<f32> {
    let mean = |values: &[f32]| values.iter().copied().map(f64::from).sum::<f64>() / plane as f64;
    x.chunks_exact(plane).map(|values| mean(values) as f32).collect()
}

/// Packs `[oc][steps]` weights as `[groups][ceil(ocg / 8)][steps][8]`.
#[must_use]
pub fn pack_conv2d(conv: &Conv2d, weights: &[f32]) -> Vec<f32> {
    let group_values = conv.group_outputs * conv.steps();
    let groups = weights.chunks_exact(group_values);
    groups.flat_map(|group| pack(group, conv.steps(), 8)).collect()
}

/// Transforms `[oc][ic][3][3]` weights for Winograd's convolution and packs them as
/// `[36][ceil(oc / 8)][ic][8]`: `G g G^T` with one row of `G` for each of the points 0, 5/8, -5/8,
/// 3/2, -3/2 and infinity.
#[must_use]
pub fn winograd(conv: &Conv2d, weights: &[f32]) -> Vec<f32> {
    let (a, b) = (0.625_f64, 1.5_f64);
    let (aa, bb) = (a * a, b * b);
    // A point's powers, divided by the derivative there of x (x^2 - a^2) (x^2 - b^2).
    let row = |point: f64, slope: f64| [1.0 / slope, point / slope, point * point / slope];
    let (inner, outer) = (2.0 * aa * (aa - bb), 2.0 * bb * (bb - aa));
    let g = [
        row(0.0, aa * bb),
        row(a, inner),
        row(-a, inner),
        row(b, outer),
        row(-b, outer),
        [0.0, 0.0, 1.0],
    ];
    let inputs = conv.group_inputs;
    let mut packed = Vec::new();
    for (down, across) in (0..36).map(|product| (g[product / 6], g[product % 6])) {
        let at_point = |filter: &[f32]| {
            let terms = (0..9).map(|i| down[i / 3] * across[i % 3] * f64::from(filter[i]));
            terms.sum::<f64>() as f32
        };
        let values: Vec<f32> = weights.chunks_exact(9).map(at_point).collect();
        packed.extend(pack(&values, inputs, 8));
    }
    packed
}

/// Packs `[oc]` biases as `[groups][ceil(ocg / 8) * 8]`.
#[must_use]
pub fn pack_conv2d_bias(conv: &Conv2d, bias: &[f32]) -> Vec<f32> {
    bias.chunks_exact(conv.group_outputs).flat_map(|group| pack(group, 1, 8)).collect()
}

/// Packs `[n][k]` weights as `[ceil(n / 32)][k][32]`.
#[must_use]
pub fn pack_dense(dense: &Dense, weights: &[f32]) -> Vec<f32> {
    pack(weights, dense.inputs, 32)
}

/// Packs `[n]` biases as `[ceil(n / 32) * 32]`.
#[must_use]
pub fn pack_dense_bias(bias: &[f32]) -> Vec<f32> {
    pack(bias, 1, 32)
}

/// Turns `[outputs][steps]` into `[ceil(outputs / lanes)][steps][lanes]`, the tail zero.
fn pack(weights: &[f32], steps: usize, lanes: usize) -> Vec<f32> {
    let outputs = weights.len() / steps;
    let mut packed = vec![0.0; outputs.div_ceil(lanes) * lanes * steps];
    for output in 0..outputs {
        for step in 0..steps {
            let at = (output / lanes * steps + step) * lanes + output % lanes;
            packed[at] = weights[output * steps + step];
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_convolution_worked_out_by_hand() {
        // The 3x3 sum over a 2x2 image with padding 1 sees all four pixels everywhere.
        let axis = Axis::new(2, 2, 3, 1, 1, 1).expect("a valid axis");
        let clamp = Activation::new(0, 0.0, 12.0).expect("a valid clamp");
        let conv = Conv2d::new(1, 1, 2, 1, axis, axis, clamp).expect("a valid convolution");
        let weights: Vec<f32> = [[1.0; 9], [-1.0; 9]].concat();
        let y = conv2d(&conv, &[1.0, 2.0, 3.0, 4.0], &weights, &[0.5, 10.5], &[0.0, 1.0, 2.0, 3.0]);
        assert_eq!(y, [10.5, 11.5, 12.0, 12.0, 0.5, 0.5, 0.5, 0.5]);
    }

    #[test]
    fn weights_are_packed_block_by_block() {
        let weights: Vec<f32> = (0..18).map(|value| value as f32).collect();
        let packed = pack(&weights, 2, 8);
        assert_eq!(packed.len(), 32);
        assert_eq!(packed[..8], [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0]);
        assert_eq!(packed[8..16], [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0]);
        assert_eq!(packed[16..18], [16.0, 0.0]);
        assert_eq!(packed[24..26], [17.0, 0.0]);
    }

    #[test]
    fn a_pool_skips_its_padding() {
        let axis = Axis::new(3, 2, 2, 2, 1, 1).expect("a valid axis");
        let pool = Pool2d::new(1, 1, axis, axis).expect("a valid pool");
        let x = [-9.0, -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0];
        assert_eq!(max_pool2d(&pool, &x), [-9.0, -7.0, -3.0, -1.0]);
    }
}
