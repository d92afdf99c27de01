//! Dense layers: a row of 32 outputs, or four rows of eight, at a time.
//!
//! One input row reads every weight once and is bound by memory; 32 outputs keep eight sums in
//! flight. Several rows share each weight four times. The exit test after every step is there
//! for the reason that [`crate::walk`] gives, and so are the legs of long sums.

use std::array;

use crate::activation::{self, Activation};
use crate::geometry::Dense;
use crate::variant::F32x4;
use crate::vector::Vector;
use crate::walk::LEG;

/// Outputs in one block of packed weights.
const BLOCK: usize = 32;
/// Vectors in one block.
const VECTORS: usize = BLOCK / 4;

/// Computes a dense layer.
///
/// # Safety
/// The buffers have the extents that [`crate::graphlet_dense_f32`] gives for `dense`.
pub(crate) unsafe fn dense(
    dense: &Dense,
    x: *const f32,
    weights: *const f32,
    bias: *const f32,
    y: *mut f32,
) {
    let Dense { batch, inputs, outputs, activation } = *dense;
    for block in 0..outputs.div_ceil(BLOCK) {
        let columns = (outputs - block * BLOCK).min(BLOCK);
        // SAFETY: packed weights and bias hold whole blocks; rows and columns stay inside x and y.
        unsafe {
            let weights = weights.add(block * inputs * BLOCK);
            let bias = bias.add(block * BLOCK);
            let y = y.add(block * BLOCK);
            let mut row = 0;
            while row + 4 <= batch {
                let x = x.add(row * inputs);
                for column in (0..columns).step_by(8) {
                    let bias = bias.add(column);
                    let mut tile = [[F32x4::load(bias), F32x4::load(bias.add(4))]; 4];
                    for (first, steps) in legs(inputs) {
                        let weights = weights.add(first * BLOCK + column);
                        let part = four_rows(x.add(first), inputs, steps, weights);
                        add(tile.as_flattened_mut(), part.as_flattened());
                    }
                    for (i, sums) in tile.iter().enumerate() {
                        let y = y.add((row + i) * outputs + column);
                        store(sums, y, columns - column, &activation);
                    }
                }
                row += 4;
            }
            while row < batch {
                let x = x.add(row * inputs);
                let mut sums: [F32x4; VECTORS] = array::from_fn(|i| F32x4::load(bias.add(4 * i)));
                for (first, steps) in legs(inputs) {
                    let part = one_row(x.add(first), steps, weights.add(first * BLOCK));
                    add(&mut sums, &part);
                }
                store(&sums, y.add(row * outputs), columns, &activation);
                row += 1;
            }
        }
    }
}

/// First step and length of each leg of a sum.
fn legs(steps: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..steps).step_by(LEG).map(move |first| (first, LEG.min(steps - first)))
}

fn add(sums: &mut [F32x4], part: &[F32x4]) {
    for (sum, part) in sums.iter_mut().zip(part) {
        *sum = sum.add(*part);
    }
}

/// Writes the first `count` of the sums after their activation.
///
/// # Safety
/// `to` points to as many writable values, or to as many as there are sums if `count` is more.
#[inline(always)]
unsafe fn store<const N: usize>(
    sums: &[F32x4; N],
    to: *mut f32,
    count: usize,
    activation: &Activation,
) {
    let clamp = activation.clamp();
    let (low, high) = (F32x4::splat(clamp.low), F32x4::splat(clamp.high));
    for (i, sum) in sums.iter().enumerate() {
        let value = sum.larger(low).smaller(high);
        // SAFETY: vectors that `count` does not fill are written value by value.
        unsafe {
            if 4 * i + 4 <= count {
                value.store(to.add(4 * i));
            } else {
                let mut part = [0.0; 4];
                value.store(part.as_mut_ptr());
                for (lane, value) in part.iter().enumerate().take(count.saturating_sub(4 * i)) {
                    *to.add(4 * i + lane) = *value;
                }
            }
        }
    }
    // SAFETY: these were just written.
    unsafe { activation::finish(activation, to, count.min(4 * N)) }
}

/// One row of input times 32 columns of weights.
///
/// # Safety
/// `x` points to `steps` values, at least one, and `weights` to as many rows of 32.
#[inline(never)]
unsafe fn one_row(mut x: *const f32, steps: usize, mut weights: *const f32) -> [F32x4; VECTORS] {
    let mut left = steps;
    // SAFETY: the caller's promise; pointers are read only while steps are left.
    unsafe {
        let mut sums = [F32x4::splat(0.0); VECTORS];
        loop {
            one_row_step(&mut sums, x, weights);
            left -= 1;
            if left == 0 {
                break;
            }
            one_row_step(&mut sums, x.add(1), weights.add(BLOCK));
            left -= 1;
            if left == 0 {
                break;
            }
            x = x.add(2);
            weights = weights.add(2 * BLOCK);
        }
        sums
    }
}

/// # Safety
/// `x` points to one value, `weights` to 32.
#[inline(always)]
unsafe fn one_row_step(sums: &mut [F32x4; VECTORS], x: *const f32, weights: *const f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let value = F32x4::load_splat(x);
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = value.mul_add(F32x4::load(weights.add(4 * i)), *sum);
        }
    }
}

/// Four rows of input, `row` values apart, times eight columns of weights.
///
/// # Safety
/// `x` points to four rows of `steps` values, at least one, `weights` to eight columns of `steps`
/// rows of 32.
unsafe fn four_rows(
    x: *const f32,
    row: usize,
    steps: usize,
    weights: *const f32,
) -> [[F32x4; 2]; 4] {
    let whole = steps / 4 * 4;
    // SAFETY: the caller's promise.
    unsafe {
        let mut tile = match whole {
            0 => [[F32x4::splat(0.0); 2]; 4],
            _ => four_rows_in_fours(x, row, whole, weights),
        };
        for step in whole..steps {
            four_rows_step(&mut tile, x.add(step), row, weights.add(step * BLOCK));
        }
        tile
    }
}

/// The same for four steps at a time: a load of one value into all lanes is three instructions, a
/// lane of a vector one.
///
/// # Safety
/// As [`four_rows`]; `steps` is a positive multiple of four.
#[inline(never)]
unsafe fn four_rows_in_fours(
    mut x: *const f32,
    row: usize,
    steps: usize,
    mut weights: *const f32,
) -> [[F32x4; 2]; 4] {
    let mut left = steps;
    // SAFETY: the caller's promise; pointers are read only while steps are left.
    unsafe {
        let mut tile = [[F32x4::splat(0.0); 2]; 4];
        'steps: loop {
            let values: [F32x4; 4] = array::from_fn(|i| F32x4::load(x.add(i * row)));
            macro_rules! steps {
                ($($lane:literal)*) => {
                    $(
                        let low = F32x4::load(weights.add($lane * BLOCK));
                        let high = F32x4::load(weights.add($lane * BLOCK + 4));
                        for (sums, values) in tile.iter_mut().zip(values) {
                            let value = values.broadcast::<$lane>();
                            sums[0] = value.mul_add(low, sums[0]);
                            sums[1] = value.mul_add(high, sums[1]);
                        }
                        left -= 1;
                        if left == 0 {
                            break 'steps;
                        }
                    )*
                };
            }
            steps!(0 1 2 3);
            x = x.add(4);
            weights = weights.add(4 * BLOCK);
        }
        tile
    }
}

/// # Safety
/// `x` points to four values `row` apart, `weights` to eight.
#[inline(always)]
unsafe fn four_rows_step(
    tile: &mut [[F32x4; 2]; 4],
    x: *const f32,
    row: usize,
    weights: *const f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, high) = (F32x4::load(weights), F32x4::load(weights.add(4)));
        for (i, sums) in tile.iter_mut().enumerate() {
            let value = F32x4::load_splat(x.add(i * row));
            sums[0] = value.mul_add(low, sums[0]);
            sums[1] = value.mul_add(high, sums[1]);
        }
    }
}
