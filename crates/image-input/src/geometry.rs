//! Where a resized picture lies on the tensor: the arithmetic of torchvision and Ultralytics.

use crate::Resize;

/// One axis of a placement: a picture resized to `resized` pixels, of which `visible` ones,
/// from `skipped` on, are written to the tensor from `start` on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Axis {
    /// Pixels of the whole picture before.
    pub source: u32,
    /// The part of them that is resized: a picture decoded at a reduced size may begin or end
    /// within a pixel.
    pub from: f64,
    pub length: f64,
    /// Pixels of the whole picture after the resize.
    pub resized: u64,
    /// First resized pixel that is seen.
    pub skipped: u64,
    /// First tensor position that is written.
    pub start: usize,
    /// Positions that are written; the others are filled.
    pub visible: usize,
}

impl Axis {
    fn centred(source: u32, resized: u64, tensor: usize) -> Self {
        let room = tensor as u64;
        let (from, length) = (0.0, f64::from(source));
        if resized >= room {
            let skipped = crop_offset(resized - room);
            Self { source, from, length, resized, skipped, start: 0, visible: tensor }
        } else {
            // As torchvision's `center_crop` and Ultralytics' `LetterBox` pad: the smaller half
            // comes first.
            let start = ((room - resized) / 2) as usize;
            Self { source, from, length, resized, skipped: 0, start, visible: resized as usize }
        }
    }

    /// The same placement of a picture with `pixels` pixels, which stand for `2^shift` of those
    /// before each, beginning `before` of them ahead of the first.
    pub(crate) fn reduced(self, pixels: u32, before: u32, shift: u32) -> Self {
        let step = f64::from(1_u32 << shift);
        let (from, length) = (f64::from(before) / step, self.length / step);
        Self { source: pixels, from, length, ..self }
    }
}

/// `int(round(excess / 2.0))` of torchvision's `center_crop`; Python rounds a half to even.
fn crop_offset(excess: u64) -> u64 {
    let half = excess / 2;
    half + (excess % 2) * (half % 2)
}

/// Rows and columns of a `source` (height, width) on a tensor of (height, width).
pub(crate) fn place(
    resize: Resize,
    (source_height, source_width): (u32, u32),
    (height, width): (usize, usize),
) -> (Axis, Axis) {
    let (h, w) = (u64::from(source_height), u64::from(source_width));
    let (resized_height, resized_width) = match resize {
        Resize::Exact => (height as u64, width as u64),
        // torchvision's `resize` with one size: the longer side is `int(size * long / short)`.
        Resize::ShorterSide(side) => {
            let side = u64::from(side);
            if h <= w { (side, side * w / h) } else { (side * h / w, side) }
        }
        // Ultralytics' `LetterBox`: both sides times the smaller ratio, rounded.
        Resize::Letterbox => {
            let (room_h, room_w) = (height as u64, width as u64);
            let rounded = |a: u64, b: u64, c: u64| ((2 * a * b + c) / (2 * c)).max(1);
            if room_w * h <= room_h * w {
                (rounded(h, room_w, w), room_w)
            } else {
                (room_h, rounded(w, room_h, h))
            }
        }
    };
    (
        Axis::centred(source_height, resized_height, height),
        Axis::centred(source_width, resized_width, width),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(
        resize: Resize,
        source: (u32, u32),
        tensor: (usize, usize),
    ) -> [(u64, u64, usize); 2] {
        let (rows, columns) = place(resize, source, tensor);
        [rows, columns].map(|axis| (axis.resized, axis.skipped, axis.start))
    }

    #[test]
    fn the_longer_side_is_cut_off_and_the_crop_rounds_half_to_even() {
        let side = Resize::ShorterSide(256);
        for (source, expected) in [
            // 256 * 500 / 375 = 341.33; (341 - 224) / 2 = 58.5, which rounds to 58.
            ((375, 500), [(256, 16, 0), (341, 58, 0)]),
            // 256 * 500 / 335 = 382.09; (382 - 224) / 2 = 79.
            ((500, 335), [(382, 79, 0), (256, 16, 0)]),
            // 256 * 332 / 256 = 343 / 2 is 59.5 above 224, which rounds to 60.
            ((256, 343), [(256, 16, 0), (343, 60, 0)]),
            ((1, 16_384), [(256, 16, 0), (4_194_304, 2_097_040, 0)]),
        ] {
            assert_eq!(placed(side, source, (224, 224)), expected, "source: {source:?}");
        }
    }

    #[test]
    fn a_crop_larger_than_the_picture_is_centred() {
        let side = Resize::ShorterSide(10);
        assert_eq!(placed(side, (10, 40), (13, 13)), [(10, 0, 1), (40, 14, 0)]);
    }

    #[test]
    fn a_letterbox_keeps_the_ratio_and_never_loses_a_side() {
        for (source, expected) in [
            ((480, 640), [(240, 0, 40), (320, 0, 0)]),
            ((640, 480), [(320, 0, 0), (240, 0, 40)]),
            ((333, 500), [(213, 0, 53), (320, 0, 0)]),
            ((1, 16_384), [(1, 0, 159), (320, 0, 0)]),
        ] {
            assert_eq!(placed(Resize::Letterbox, source, (320, 320)), expected, "{source:?}");
        }
    }
}
