//! BMP through the crate `image`, which takes the fourth byte of 32-bit pixels for transparency
//! only where a mask says so.

use std::io::Cursor;

use image::{codecs::bmp::BmpDecoder, metadata::Orientation};

use crate::{
    Format, ImageError, Limits, Picture,
    raster::{from_image, read},
};

pub(crate) fn decode<'a>(
    bytes: &[u8],
    limits: &Limits,
    scratch: &'a mut [u8],
) -> Result<(Picture<'a>, Orientation), ImageError> {
    if let Some((width, height)) = claimed_extents(bytes) {
        limits.check_extents(Format::Bmp, width, height)?;
    }
    let decoder = BmpDecoder::new(Cursor::new(bytes))
        .map_err(|error| from_image(error, Format::Bmp, limits))?;
    read(decoder, Format::Bmp, 0, limits, scratch)
}

/// Width and height as the header has them; `None` where the decoder says what is wrong. It also
/// refuses large ones, but calls them broken, or not supported where addresses have 32 bits.
fn claimed_extents(bytes: &[u8]) -> Option<(u32, u32)> {
    let u16_at = |at: usize| Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let i32_at =
        |at: usize| Some((i32::from(u16_at(at + 2)?.cast_signed()) << 16) | i32::from(u16_at(at)?));
    if i32_at(14)? == 12 {
        return Some((u16_at(18)?.into(), u16_at(20)?.into()));
    }
    // A negative height stands for rows from the top down.
    Some((u32::try_from(i32_at(18)?).ok()?, i32_at(22)?.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BMP with a 40-byte header; `extra` stands between header and pixels.
    fn bmp(
        (width, height): (i32, i32),
        bits: u16,
        compression: u32,
        extra: &[u8],
        data: &[u8],
    ) -> Vec<u8> {
        let mut bytes = b"BM\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend((54 + extra.len() as u32).to_le_bytes());
        bytes.extend(40_u32.to_le_bytes());
        bytes.extend(width.to_le_bytes());
        bytes.extend(height.to_le_bytes());
        bytes.extend([1, 0]);
        bytes.extend(bits.to_le_bytes());
        bytes.extend(compression.to_le_bytes());
        bytes.extend([0; 20]);
        bytes.extend(extra);
        bytes.extend(data);
        bytes
    }

    fn pixels(bytes: &[u8]) -> Vec<u8> {
        decode(bytes, &Limits::default(), &mut []).unwrap().0.pixels().to_vec()
    }

    const PALETTE: [u8; 16] = [1, 2, 3, 0, 11, 12, 13, 0, 21, 22, 23, 0, 31, 32, 33, 0];

    #[test]
    fn rows_go_up_unless_the_height_is_negative() {
        let data = [1, 2, 3, 0, 4, 5, 6, 0];
        assert_eq!(pixels(&bmp((1, 2), 24, 0, &[], &data)), [6, 5, 4, 3, 2, 1]);
        assert_eq!(pixels(&bmp((1, -2), 24, 0, &[], &data)), [3, 2, 1, 6, 5, 4]);
    }

    #[test]
    fn the_fourth_byte_is_alpha_only_when_a_mask_says_so() {
        let data = [10, 20, 30, 0];
        assert_eq!(pixels(&bmp((1, 1), 32, 0, &[], &data)), [30, 20, 10]);
        let masks = [0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255];
        assert_eq!(pixels(&bmp((1, 1), 32, 3, &masks[..12], &data)), [30, 20, 10]);
        let mut with_alpha = bmp((1, 1), 32, 3, &masks, &data);
        // A header of 56 bytes: its last ones are the masks.
        with_alpha[14] = 56;
        assert_eq!(pixels(&with_alpha), [255, 255, 255]);
    }

    #[test]
    fn sixteen_bits_are_five_a_sample() {
        // 0x7c00 is full red, 0x03e0 full green, 0x0010 half blue.
        let data = [0x00, 0x7c, 0xe0, 0x03, 0x10, 0x00, 0, 0];
        assert_eq!(pixels(&bmp((3, 1), 16, 0, &[], &data)), [255, 0, 0, 0, 255, 0, 0, 0, 132]);
    }

    #[test]
    fn two_bit_indices_run_from_the_high_end() {
        let mut palette = PALETTE.to_vec();
        palette.truncate(16);
        let data = [0b00_01_10_11, 0, 0, 0];
        assert_eq!(
            pixels(&bmp((4, 1), 2, 0, &palette, &data)),
            [3, 2, 1, 13, 12, 11, 23, 22, 21, 33, 32, 31]
        );
    }

    #[test]
    fn run_lengths_know_runs_literals_moves_and_ends() {
        let mut palette = PALETTE.to_vec();
        palette.resize(1024, 0);
        // Bottom row: four of 1; upper row: move by one, literals 2, 3, 1 (padded), end.
        let data = [4, 1, 0, 0, 0, 2, 1, 0, 0, 3, 2, 3, 1, 0, 0, 1];
        let mut expected = [[13, 12, 11]; 8];
        // What is moved over is black.
        expected[..3].copy_from_slice(&[[0, 0, 0], [23, 22, 21], [33, 32, 31]]);
        let upper = pixels(&bmp((4, 2), 8, 1, &palette, &data));
        assert_eq!(upper, expected.concat());
        for length in 0..data.len() {
            let cut = bmp((4, 2), 8, 1, &palette, &data[..length]);
            assert!(decode(&cut, &Limits::default(), &mut []).is_err(), "{length} bytes of data");
        }
    }

    #[test]
    fn what_is_wrong_or_not_supported_is_named() {
        for (bytes, expected) in [
            (bmp((-1, 1), 24, 0, &[], &[]), "broken BMP: Negative width (-1)"),
            (bmp((1, 0), 24, 0, &[], &[]), "broken BMP: it is 1 x 0 pixels"),
            (bmp((1, i32::MIN), 24, 0, &[], &[]), "image is 1 x 2147483648 pixels"),
            (bmp((70_000, 9), 24, 0, &[], &[]), "image is 70000 x 9 pixels"),
            (bmp((2, 2), 24, 0, &[], &[0; 13]), "broken BMP: it is cut short"),
            (bmp((2, 2), 24, 4, &[], &[]), "unsupported BMP: JPEG compression"),
            (bmp((2, 2), 7, 0, &[], &[]), "broken BMP: Invalid channel bit count for RGB: 7"),
            (
                bmp((2, 2), 16, 3, &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0; 8]),
                "broken BMP: Non-contiguous bitfield mask",
            ),
        ] {
            let error = decode(&bytes, &Limits::default(), &mut []).expect_err(expected);
            assert!(error.to_string().starts_with(expected), "{expected:?} but {error}");
        }
    }
}
