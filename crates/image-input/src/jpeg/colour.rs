//! Chroma brought to the size of luma, and the two turned into RGB, as libjpeg does both
//! (`jdsample.c`, `jdcolor.c`; "fancy" upsampling: a triangle filter).

use super::lanes::{self, PIXELS};

/// Each sample `times` times.
pub(super) fn repeat(row: &[u8], times: usize, target: &mut [u8]) {
    for (target, &sample) in target.chunks_mut(times).zip(row) {
        target.fill(sample);
    }
}

/// Two samples for each, three quarters of it and one of the neighbour on that side.
pub(super) fn between(row: &[u8], sums: &mut [u16], target: &mut [u8]) {
    for (sum, &sample) in sums.iter_mut().zip(row) {
        *sum = u16::from(sample) * 4;
    }
    // Four times what libjpeg has there, with its two ways to round.
    if let Some(sums) = sums.get(..row.len()) {
        smooth(sums, [4, 8], target);
    }
}

/// Two for each of the sums, which are four times a sample: three quarters of the sum and one of
/// its neighbour's, with `rounding` in sixteenths added to the first of the two and to the second.
fn smooth(sums: &[u16], rounding: [u16; 2], target: &mut [u8]) {
    let [Some(&first), Some(&last)] = [sums.first(), sums.last()] else { return };
    let mix = |near: u16, far: u16, bias: u16| ((near * 3 + far + bias) >> 4) as u8;
    let [before, after] = rounding;
    // Sixteen of those that have both neighbours, as long as there are as many.
    let mut done = 1;
    while let Some(window) = sums.get(done - 1..).and_then(<[u16]>::first_chunk::<{ PIXELS + 2 }>) {
        let evens = std::array::from_fn(|i| mix(window[i + 1], window[i], before));
        let odds = std::array::from_fn(|i| mix(window[i + 1], window[i + 2], after));
        let woven = lanes::weave(&evens, &odds);
        let Some(target) = target.get_mut(2 * done..).and_then(<[u8]>::first_chunk_mut) else {
            break;
        };
        *target = woven;
        done += PIXELS;
    }
    let at = |i: usize| sums.get(i).copied().unwrap_or(last);
    let pairs = target.as_chunks_mut::<2>().0;
    for (i, pair) in pairs.iter_mut().enumerate().take(sums.len()).skip(done) {
        *pair = [mix(at(i), at(i - 1), before), mix(at(i), at(i + 1), after)];
    }
    if let Some(pair) = pairs.first_mut() {
        *pair = [mix(first, first, before), mix(first, at(1), after)];
    }
}

/// Three quarters of the nearest row and one of the row beyond it; `upper` when the row that is
/// made is the upper one of two.
pub(super) fn below(near: &[u8], far: &[u8], upper: bool, target: &mut [u8]) {
    let bias = if upper { 1 } else { 2 };
    for ((target, &near), &far) in target.iter_mut().zip(near).zip(far) {
        *target = ((u16::from(near) * 3 + u16::from(far) + bias) >> 2) as u8;
    }
}

/// Both at once: nine sixteenths of the nearest sample, three of each neighbour, one of the one
/// across the corner.
pub(super) fn around(near: &[u8], far: &[u8], sums: &mut [u16], target: &mut [u8]) {
    for ((sum, &near), &far) in sums.iter_mut().zip(near).zip(far) {
        *sum = u16::from(near) * 3 + u16::from(far);
    }
    if let Some(sums) = sums.get(..near.len()) {
        smooth(sums, [8, 7], target);
    }
}

/// YCbCr to RGB, ITU-R 601 in full range as JFIF has it: three rows of samples to one of pixels.
pub(super) fn rgb(luma: &[u8], blue: &[u8], red: &[u8], target: &mut [u8]) {
    let (groups, rest) = target.as_chunks_mut::<{ 3 * PIXELS }>();
    let whole = groups.len() * PIXELS;
    let lumas = luma.as_chunks::<PIXELS>().0;
    let (blues, reds) = (blue.as_chunks::<PIXELS>().0, red.as_chunks::<PIXELS>().0);
    for (((group, luma), blue), red) in groups.iter_mut().zip(lumas).zip(blues).zip(reds) {
        *group = lanes::rgb(luma, blue, red);
    }
    let tail = |row: &[u8]| -> [u8; PIXELS] {
        let row = row.get(whole..).unwrap_or_default();
        std::array::from_fn(|i| row.get(i).copied().unwrap_or(0))
    };
    let pixels = lanes::rgb(&tail(luma), &tail(blue), &tail(red));
    let len = rest.len();
    rest.copy_from_slice(&pixels[..len]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rgb_is_the_formula_of_jfif_for_every_tail() {
        for width in 1..40 {
            let row = |factor: usize, offset: usize| -> Vec<u8> {
                (0..width).map(|x| (x * factor + offset) as u8).collect()
            };
            let (luma, blue, red) = (row(7, 3), row(31, 90), row(57, 200));
            let mut pixels = vec![0; 3 * width];
            rgb(&luma, &blue, &red, &mut pixels);
            for (x, pixel) in pixels.chunks(3).enumerate() {
                let [y, b, r] = [luma[x], blue[x], red[x]].map(f64::from);
                let (b, r) = (b - 128.0, r - 128.0);
                let exact = [y + 1.402 * r, y - 0.344_14 * b - 0.714_14 * r, y + 1.772 * b];
                for (actual, exact) in pixel.iter().zip(exact) {
                    let exact = exact.clamp(0.0, 255.0);
                    assert!((f64::from(*actual) - exact).abs() < 0.51, "{actual} for {exact}");
                }
            }
        }
    }

    #[test]
    fn samples_in_between_lie_between() {
        let row = [0, 40, 200];
        let mut wide = [9; 6];
        between(&row, &mut [0; 3], &mut wide);
        assert_eq!(wide, [0, 10, 30, 80, 160, 200]);
        let mut tall = [9; 3];
        below(&row, &[40, 0, 200], true, &mut tall);
        assert_eq!(tall, [10, 30, 200]);
        let mut both = [9; 6];
        around(&row, &row, &mut [0; 3], &mut both);
        assert_eq!(both, [0, 10, 30, 80, 160, 200]);
        let mut same = [9; 7];
        repeat(&row, 2, &mut same);
        assert_eq!(same, [0, 0, 40, 40, 200, 200, 9]);
        let mut single = [9; 2];
        between(&[5], &mut [0; 1], &mut single);
        assert_eq!(single, [5, 5]);
        around(&[5], &[5], &mut [0; 1], &mut single);
        assert_eq!(single, [5, 5]);
    }
}
