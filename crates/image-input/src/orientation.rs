//! EXIF orientation: finds it, and turns a picture upright.

use crate::{ImageError, Limits, Picture};

/// How the stored rows and columns must be turned to stand upright; the discriminant is the
/// value of EXIF tag 0x0112.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Orientation {
    #[default]
    Upright = 1,
    MirrorHorizontal = 2,
    Rotate180 = 3,
    MirrorVertical = 4,
    Transpose = 5,
    Rotate90Clockwise = 6,
    Transverse = 7,
    Rotate270Clockwise = 8,
}

const ORIENTATION_TAG: u16 = 0x0112;

impl Orientation {
    /// Reads the tag from EXIF data, which is a TIFF file; with or without the `Exif\0\0` that
    /// stands before it in JPEG. Anything malformed counts as upright: a damaged note must not
    /// cost the picture.
    pub(crate) fn from_exif(exif: &[u8]) -> Self {
        let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
        Self::find(tiff).unwrap_or_default()
    }

    fn find(tiff: &[u8]) -> Option<Self> {
        let big_endian = match tiff.get(..4)? {
            b"MM\0*" => true,
            b"II*\0" => false,
            _ => return None,
        };
        let u16_at = |at: usize| {
            let pair = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
            Some(if big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
        };
        let offset = tiff.get(4..8)?.try_into().ok()?;
        let directory =
            if big_endian { u32::from_be_bytes(offset) } else { u32::from_le_bytes(offset) };
        let directory = usize::try_from(directory).ok()?;
        let entries = usize::from(u16_at(directory)?);
        // An entry is tag, type, count (4 bytes) and value (4 bytes, left-aligned).
        let entry = (0..entries)
            .map_while(|index| directory.checked_add(2 + 12 * index))
            .map_while(|at| Some((at, u16_at(at)?)))
            .find_map(|(at, tag)| (tag == ORIENTATION_TAG).then_some(at))?;
        Some(match u16_at(entry.checked_add(8)?)? {
            2 => Self::MirrorHorizontal,
            3 => Self::Rotate180,
            4 => Self::MirrorVertical,
            5 => Self::Transpose,
            6 => Self::Rotate90Clockwise,
            7 => Self::Transverse,
            8 => Self::Rotate270Clockwise,
            _ => Self::Upright,
        })
    }

    /// Turns the picture upright; in place where rows stay rows.
    pub(crate) fn apply(self, picture: Picture, limits: &Limits) -> Result<Picture, ImageError> {
        match picture.channels() {
            1 => self.apply_to::<1>(picture, limits),
            _ => self.apply_to::<3>(picture, limits),
        }
    }

    fn apply_to<const C: usize>(
        self,
        mut picture: Picture,
        limits: &Limits,
    ) -> Result<Picture, ImageError> {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let (mirror_rows, mirror_columns) = match self {
            Self::Upright => return Ok(picture),
            Self::MirrorHorizontal => {
                for row in picture.pixels_mut().chunks_exact_mut(width * C) {
                    row.as_chunks_mut::<C>().0.reverse();
                }
                return Ok(picture);
            }
            Self::Rotate180 => {
                picture.pixels_mut().as_chunks_mut::<C>().0.reverse();
                return Ok(picture);
            }
            Self::MirrorVertical => {
                let (upper, lower) = picture.pixels_mut().split_at_mut(height / 2 * width * C);
                let below = lower.chunks_exact_mut(width * C).rev();
                for (row, other) in upper.chunks_exact_mut(width * C).zip(below) {
                    row.swap_with_slice(other);
                }
                return Ok(picture);
            }
            Self::Transpose => (false, false),
            Self::Rotate90Clockwise => (false, true),
            Self::Transverse => (true, true),
            Self::Rotate270Clockwise => (true, false),
        };
        let source = picture.into_pixels();
        limits.check_memory(2 * source.len() as u64)?;
        let mut turned = limits.allocate(source.len())?;
        let source = source.as_chunks::<C>().0;
        let target = turned.as_chunks_mut::<C>().0;
        // Square tiles: a whole column at a time would touch one cache line per pixel.
        const TILE: usize = 32;
        for top in (0..width).step_by(TILE) {
            for left in (0..height).step_by(TILE) {
                for y in top..(top + TILE).min(width) {
                    // Row `y` of the result is column `from_x` of the source.
                    let from_x = if mirror_rows { width - 1 - y } else { y };
                    for x in left..(left + TILE).min(height) {
                        let from_y = if mirror_columns { height - 1 - x } else { x };
                        target[y * height + x] = source[from_y * width + from_x];
                    }
                }
            }
        }
        Ok(Picture::from_pixels(height as u32, width as u32, C, turned)
            .expect("the turned pixels are as many as the source's"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(orientation: Orientation) -> (u32, u32, Vec<u8>) {
        // 1 2 3
        // 4 5 6
        let picture = Picture::from_pixels(3, 2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let turned = orientation.apply(picture, &Limits::default()).unwrap();
        (turned.width(), turned.height(), turned.into_pixels())
    }

    #[test]
    fn every_orientation_moves_each_pixel_to_its_place() {
        for (orientation, expected) in [
            (Orientation::Upright, (3, 2, vec![1, 2, 3, 4, 5, 6])),
            (Orientation::MirrorHorizontal, (3, 2, vec![3, 2, 1, 6, 5, 4])),
            (Orientation::Rotate180, (3, 2, vec![6, 5, 4, 3, 2, 1])),
            (Orientation::MirrorVertical, (3, 2, vec![4, 5, 6, 1, 2, 3])),
            (Orientation::Transpose, (2, 3, vec![1, 4, 2, 5, 3, 6])),
            (Orientation::Rotate90Clockwise, (2, 3, vec![4, 1, 5, 2, 6, 3])),
            (Orientation::Transverse, (2, 3, vec![6, 3, 5, 2, 4, 1])),
            (Orientation::Rotate270Clockwise, (2, 3, vec![3, 6, 2, 5, 1, 4])),
        ] {
            assert_eq!(apply(orientation), expected, "{orientation:?}");
        }
    }

    #[test]
    fn malformed_exif_counts_as_upright() {
        let sound = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";
        assert_eq!(Orientation::from_exif(sound), Orientation::Rotate90Clockwise);
        assert_eq!(Orientation::from_exif(&sound[6..]), Orientation::Rotate90Clockwise);
        for length in 0..sound.len() - 3 {
            assert_eq!(Orientation::from_exif(&sound[..length]), Orientation::Upright);
        }
        let mut far = *sound;
        far[10..14].fill(0xff);
        assert_eq!(Orientation::from_exif(&far), Orientation::Upright);
        let mut nine = *sound;
        nine[25] = 9;
        assert_eq!(Orientation::from_exif(&nine), Orientation::Upright);
    }

    #[test]
    fn turning_by_90_degrees_counts_both_copies() {
        let picture = Picture::from_pixels(100, 10, 1, vec![0; 1000]).unwrap();
        let limits = Limits { max_memory: 1999, ..Limits::default() };
        assert_eq!(
            Orientation::Transpose.apply(picture, &limits),
            Err(ImageError::TooMuchMemory { needed: 2000, limit: 1999 })
        );
    }
}
