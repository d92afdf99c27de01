//! The micro-kernels of four neighbouring pixels by eight output channels, for the ends of rows.
//!
//! Each reduction step loads one vector of pixels of one input channel and two vectors of
//! weights, spreads each pixel over a vector and adds eight products to eight accumulators,
//! which began as the bias. At the end two transposes turn them into rows of output.
//!
//! The loops look odd for one reason. Cranelift keeps loads in order at the top of a basic
//! block and sinks arithmetic to its end: an unrolled reduction would load everything first and
//! spill. So each turn of a loop takes three steps with an exit test after each, which makes
//! every step a block of its own; and the number of steps is a value that the optimiser cannot
//! know, else it would remove the tests. Three steps a turn: 23.5 GMAC/s with the tests, 17
//! without; one: 12.5, two: 22, four: 17.5. Written in Rust they reach four fifths of what the core
//! could do; strips, whose instructions `build/strip.rs` orders, reach 0.85 of it.

use crate::strip::{self, Strip};
use crate::tile::{CHANNELS, PIXELS, Sweep};
use crate::variant::F32x4;
use crate::vector::Vector;
use crate::wide::Steps;

/// Longest leg of a sum that is taken in legs.
///
/// The rounding error of a single running sum grows with its length: over MobileNetV2's fifty
/// layers it became 2.2 times onnxruntime's (whose legs are 128 long), nearly all of it in the
/// 1x1 layers of 384 to 960 channels, and single logits near zero missed 1e-5. In legs it is 1.3
/// times. Reductions up to two legs long stay in one piece, and so do windows outside of
/// [`crate::wide`]: they add little error, and their loops would lose up to a tenth of their speed.
pub(crate) const LEG: usize = 144;

/// Accumulators: for each pixel two vectors of four channels.
pub(crate) type Tile = [[F32x4; 2]; PIXELS];

/// How the reduction walks over the input.
pub(crate) trait Walk {
    /// Computes tiles of eight pixels in the same way.
    const STRIP: unsafe fn(&mut Strip);
    /// Whether sums are taken in legs.
    const IN_LEGS: bool = false;
    /// How [`crate::wide`], which computes most of it, finds a step's pixels.
    const STEPS: Steps = Steps::Taps;
    /// Whether [`one_pixel`] computes a row's last pixel where it is left alone.
    const LAST_ALONE: bool = false;

    /// Sums up one tile.
    ///
    /// # Safety
    /// As the sweep's function says; `pixel` is the input of a tile's first pixel, `weights` and
    /// `bias` belong to its block of channels.
    unsafe fn reduce(
        sweep: &Sweep,
        pixel: *const f32,
        weights: *const f32,
        bias: *const f32,
    ) -> Tile;
}

/// The accumulators before the first step.
///
/// # Safety
/// `bias` points to eight values.
#[inline(always)]
unsafe fn begin(bias: *const f32) -> Tile {
    // SAFETY: the caller's promise.
    unsafe { [[F32x4::load(bias), F32x4::load(bias.add(4))]; PIXELS] }
}

/// `pointer` and `count` values more.
///
/// As a sum that does not wrap it becomes the offset of a load, which costs nothing; as a pointer's
/// it becomes an instruction of its own, two for every eight multiplications.
///
/// # Safety
/// As for [`pointer::add`](pointer#method.add).
#[inline(always)]
unsafe fn ahead(pointer: *const f32, count: usize) -> *const f32 {
    // SAFETY: the caller's promise: a buffer does not wrap around the address space.
    unsafe { (pointer as usize).unchecked_add(4 * count) as *const f32 }
}

/// One reduction step: the four values at `pixel` times the eight at `weights`.
///
/// # Safety
/// Both are readable.
#[inline(always)]
unsafe fn step(tile: &mut Tile, pixel: *const f32, weights: *const f32) {
    // SAFETY: the caller's promise.
    let (pixels, low, high) =
        unsafe { (F32x4::load(pixel), F32x4::load(weights), F32x4::load(ahead(weights, 4))) };
    let spread = [
        pixels.broadcast::<0>(),
        pixels.broadcast::<1>(),
        pixels.broadcast::<2>(),
        pixels.broadcast::<3>(),
    ];
    for (sums, value) in tile.iter_mut().zip(spread) {
        sums[0] = value.mul_add(low, sums[0]);
        sums[1] = value.mul_add(high, sums[1]);
    }
}

/// See [`pointwise`].
pub(crate) struct Pointwise;

impl Walk for Pointwise {
    const STRIP: unsafe fn(&mut Strip) = strip::channels;
    const STEPS: Steps = Steps::Channels;
    const LAST_ALONE: bool = true;

    #[inline(always)]
    unsafe fn reduce(s: &Sweep, pixel: *const f32, weights: *const f32, bias: *const f32) -> Tile {
        // SAFETY: the caller's promise.
        unsafe { channels(begin(bias), s.steps, pixel, s.input_plane, weights) }
    }
}

/// [`Pointwise`] in legs of about equal length.
pub(crate) struct PointwiseInLegs;

impl Walk for PointwiseInLegs {
    const STRIP: unsafe fn(&mut Strip) = strip::channels_in_legs;
    const IN_LEGS: bool = true;
    const STEPS: Steps = Steps::Channels;
    const LAST_ALONE: bool = true;

    #[inline(always)]
    unsafe fn reduce(
        s: &Sweep,
        mut pixel: *const f32,
        mut weights: *const f32,
        bias: *const f32,
    ) -> Tile {
        let each = s.steps.div_ceil(s.steps.div_ceil(LEG));
        let mut left = s.steps;
        // SAFETY: the caller's promise; the legs are parts of the whole.
        unsafe {
            let mut sums = begin(bias);
            loop {
                let steps = each.min(left);
                let zero = [[F32x4::splat(0.0); 2]; PIXELS];
                let leg = channels(zero, steps, pixel, s.input_plane, weights);
                for (sums, leg) in sums.as_flattened_mut().iter_mut().zip(leg.as_flattened()) {
                    *sums = sums.add(*leg);
                }
                left -= steps;
                if left == 0 {
                    return sums;
                }
                pixel = pixel.wrapping_add(steps * s.input_plane);
                weights = weights.add(steps * CHANNELS);
            }
        }
    }
}

/// Sums up eight channels of a single pixel of a 1x1 convolution, the last of each map of odd sides:
/// in legs, of which every fourth step goes to the same sum, so that none waits for another.
///
/// # Safety
/// As [`Walk::reduce`] for one pixel.
#[inline(never)]
pub(crate) unsafe fn one_pixel(
    s: &Sweep,
    mut pixel: *const f32,
    mut weights: *const f32,
    bias: *const f32,
) -> [F32x4; 2] {
    let mut left = s.steps;
    // SAFETY: the caller's promise; the legs are parts of the whole.
    unsafe {
        let mut total = [F32x4::load(bias), F32x4::load(bias.add(4))];
        while left > 0 {
            let steps = left.min(LEG);
            let [a, b, c, d] = one_pixel_leg(steps, pixel, s.input_plane, weights);
            for (i, total) in total.iter_mut().enumerate() {
                *total = total.add(a[i].add(b[i]).add(c[i].add(d[i])));
            }
            left -= steps;
            pixel = pixel.wrapping_add(steps * s.input_plane);
            weights = weights.wrapping_add(steps * CHANNELS);
        }
        total
    }
}

/// # Safety
/// Each channel's pixel and eight weights are readable; there is one at least.
#[inline(always)]
unsafe fn one_pixel_leg(
    mut left: usize,
    mut pixel: *const f32,
    plane: usize,
    mut weights: *const f32,
) -> Tile {
    let mut sums = [[F32x4::splat(0.0); 2]; PIXELS];
    // SAFETY: the caller's promise; pointers are read only while steps are left.
    unsafe {
        'steps: loop {
            for sums in &mut sums {
                let value = F32x4::load_splat(pixel);
                sums[0] = value.mul_add(F32x4::load(weights), sums[0]);
                sums[1] = value.mul_add(F32x4::load(ahead(weights, 4)), sums[1]);
                left -= 1;
                if left == 0 {
                    break 'steps;
                }
                pixel = pixel.wrapping_add(plane);
                weights = weights.wrapping_add(CHANNELS);
            }
        }
    }
    sums
}

/// Adds the products of `left` channels, `plane` values apart, to a tile.
///
/// # Safety
/// Each channel's four pixels and eight weights are readable; there is one at least.
#[inline(always)]
unsafe fn channels(
    mut tile: Tile,
    mut left: usize,
    mut pixel: *const f32,
    plane: usize,
    mut weights: *const f32,
) -> Tile {
    // SAFETY: the caller's promise; a pointer is read only while steps are left.
    unsafe {
        loop {
            step(&mut tile, pixel, weights);
            left -= 1;
            if left == 0 {
                break;
            }
            pixel = pixel.wrapping_add(plane);
            step(&mut tile, pixel, ahead(weights, CHANNELS));
            left -= 1;
            if left == 0 {
                break;
            }
            pixel = pixel.wrapping_add(plane);
            step(&mut tile, pixel, ahead(weights, 2 * CHANNELS));
            left -= 1;
            if left == 0 {
                break;
            }
            pixel = pixel.wrapping_add(plane);
            weights = ahead(weights, 3 * CHANNELS);
        }
        tile
    }
}

/// See [`rows_of_three`].
pub(crate) struct RowsOfThree;

impl Walk for RowsOfThree {
    const STRIP: unsafe fn(&mut Strip) = strip::rows_of_three;

    #[inline(always)]
    unsafe fn reduce(
        s: &Sweep,
        base: *const f32,
        mut weights: *const f32,
        bias: *const f32,
    ) -> Tile {
        let mut left = s.steps;
        let mut offsets = s.offsets;
        // SAFETY: the caller's promise; an offset is read only while steps are left.
        unsafe {
            let mut tile = begin(bias);
            loop {
                let pixel = base.wrapping_byte_add(*offsets as usize);
                step(&mut tile, pixel, weights);
                left -= 1;
                if left == 0 {
                    break;
                }
                step(&mut tile, ahead(pixel, 1), ahead(weights, CHANNELS));
                left -= 1;
                if left == 0 {
                    break;
                }
                step(&mut tile, ahead(pixel, 2), ahead(weights, 2 * CHANNELS));
                left -= 1;
                if left == 0 {
                    break;
                }
                offsets = offsets.wrapping_add(3);
                weights = ahead(weights, 3 * CHANNELS);
            }
            tile
        }
    }
}

/// See [`split_rows`].
pub(crate) struct SplitRows<const TAPS: usize>;

impl<const TAPS: usize> Walk for SplitRows<TAPS> {
    const STRIP: unsafe fn(&mut Strip) = strip::split_rows::<TAPS>;

    #[inline(always)]
    unsafe fn reduce(
        s: &Sweep,
        base: *const f32,
        mut weights: *const f32,
        bias: *const f32,
    ) -> Tile {
        let mut left = s.steps;
        let mut offsets = s.offsets;
        // SAFETY: the caller's promise; an offset is read only while steps are left.
        unsafe {
            let mut tile = begin(bias);
            'steps: loop {
                let even = base.wrapping_byte_add(*offsets as usize);
                let odd = even.wrapping_add(s.odd);
                // Unrolled by hand, so that places and weights are constants away.
                macro_rules! taps {
                    ($($tap:literal)*) => {
                        $(if $tap < TAPS {
                            let row = if $tap % 2 == 0 { even } else { odd };
                            step(&mut tile, ahead(row, $tap / 2), ahead(weights, $tap * CHANNELS));
                            left -= 1;
                            if left == 0 {
                                break 'steps;
                            }
                        })*
                    };
                }
                taps!(0 1 2 3 4 5 6);
                offsets = offsets.wrapping_add(TAPS);
                weights = ahead(weights, TAPS * CHANNELS);
            }
            tile
        }
    }
}

/// See [`table`].
pub(crate) struct Table;

impl Walk for Table {
    const STRIP: unsafe fn(&mut Strip) = strip::table;

    #[inline(always)]
    unsafe fn reduce(
        s: &Sweep,
        base: *const f32,
        mut weights: *const f32,
        bias: *const f32,
    ) -> Tile {
        let mut left = s.steps;
        let mut offsets = s.offsets;
        // SAFETY: the caller's promise; an offset is read only while steps are left.
        unsafe {
            let mut tile = begin(bias);
            loop {
                step(&mut tile, base.wrapping_byte_add(*offsets as usize), weights);
                left -= 1;
                if left == 0 {
                    break;
                }
                let pixel = base.wrapping_byte_add(*offsets.add(1) as usize);
                step(&mut tile, pixel, ahead(weights, CHANNELS));
                left -= 1;
                if left == 0 {
                    break;
                }
                let pixel = base.wrapping_byte_add(*offsets.add(2) as usize);
                step(&mut tile, pixel, ahead(weights, 2 * CHANNELS));
                left -= 1;
                if left == 0 {
                    break;
                }
                offsets = offsets.add(3);
                weights = ahead(weights, 3 * CHANNELS);
            }
            tile
        }
    }
}
