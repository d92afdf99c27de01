//! Wide strips in plain Rust, for targets without SIMD: the same sums in the same order.

use super::{CHANNELS, GROUP, WIDTH, Wide};
use crate::variant::F32x4;
use crate::vector::Vector;

/// Computes a wide strip whose steps are channels, `stride` apart.
///
/// # Safety
/// Every pointer leads to what [`Wide`] says of it.
pub(crate) unsafe fn channels(wide: &mut Wide) {
    let stride = wide.stride;
    // SAFETY: the caller's promise.
    unsafe { run(wide, |step| step * stride) }
}

/// Computes a wide strip whose steps are taps, an offset each.
///
/// # Safety
/// Every pointer leads to what [`Wide`] says of it.
pub(crate) unsafe fn taps(wide: &mut Wide) {
    let offsets = wide.offsets;
    // SAFETY: the caller's promise; `run` asks for steps that exist.
    unsafe { run(wide, |step| *offsets.add(step) as usize) }
}

/// Computes a wide strip with a step's pixels so many bytes from the input.
///
/// # Safety
/// As the functions above; `place` is called with what is less than the steps.
#[inline(always)]
unsafe fn run(wide: &Wide, place: impl Fn(usize) -> usize) {
    let (low, high) = (F32x4::splat(wide.low), F32x4::splat(wide.high));
    let mut input = wide.input;
    for tile in 0..wide.tiles {
        // SAFETY: the caller's promise: tiles, steps and channels exist.
        unsafe {
            let mut sums = [F32x4::splat(0.0); GROUP];
            for step in 0..wide.steps {
                let pixels = F32x4::load(input.byte_add(place(step)));
                for (channel, sum) in sums.iter_mut().enumerate() {
                    let weights = part(channel, wide.weights, wide.more_weights);
                    let weight = weights.add(step * CHANNELS + channel % CHANNELS);
                    *sum = F32x4::load_splat(weight).mul_add(pixels, *sum);
                }
            }
            for (channel, mut sum) in sums.into_iter().enumerate() {
                let row = channel % CHANNELS * wide.output_plane + 4 * WIDTH * tile;
                let output = part(channel, wide.output, wide.more_output).byte_add(row);
                sum = sum.add(if wide.continues != 0 {
                    F32x4::load(output)
                } else {
                    F32x4::load_splat(
                        part(channel, wide.bias, wide.more_bias).add(channel % CHANNELS),
                    )
                });
                if !wide.residual.is_null() {
                    let distance = output.byte_offset_from(wide.output);
                    sum = sum.add(F32x4::load(wide.residual.byte_offset(distance)));
                }
                sum.larger(low).smaller(high).store(output);
            }
            input = input.wrapping_byte_add(match tile % 2 {
                0 => wide.next,
                _ => wide.other_next,
            });
        }
    }
}

/// What belongs to a channel: to one of the eight, or of the four.
fn part<T>(channel: usize, eight: T, four: T) -> T {
    if channel < CHANNELS { eight } else { four }
}
