//! BMP: 1 to 32 bits a pixel, palettes, bit fields and run lengths, upright or bottom up.
//!
//! Written here rather than taken from a crate: the two there are either bring colour management
//! along or take the unused byte of 32-bit pixels for transparency. The format is Microsoft's
//! "Bitmap Storage" (BITMAPFILEHEADER and BITMAPCOREHEADER to BITMAPV5HEADER).

use crate::{Format, ImageError, Limits, Picture, decode::over_white};

const FILE_HEADER: usize = 14;

pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, ImageError> {
    let header = Header::parse(bytes, limits)?;
    let mut pixels = limits.allocate(header.width * header.height * 3)?;
    let data = bytes.get(header.data_at..).ok_or_else(cut_short)?;
    match header.coding {
        Coding::Rows => header.read_rows(bytes, data, &mut pixels)?,
        Coding::RunLengths => header.read_run_lengths(bytes, data, &mut pixels)?,
    }
    Ok(Picture::from_pixels(header.width as u32, header.height as u32, 3, pixels)
        .expect("the buffer was sized from these extents, which are not zero"))
}

fn broken(reason: impl ToString) -> ImageError {
    ImageError::broken(Format::Bmp, reason)
}

fn cut_short() -> ImageError {
    broken("it ends before its last pixel")
}

fn unsupported(feature: impl ToString) -> ImageError {
    ImageError::unsupported(Format::Bmp, feature)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Rows,
    RunLengths,
}

/// Where one sample lies in a 16- or 32-bit pixel.
#[derive(Debug, Clone, Copy, Default)]
struct Field {
    shift: u32,
    /// Largest value, `2^bits - 1`; 0 for a field that is not there.
    largest: u32,
}

impl Field {
    fn new(mask: u32) -> Result<Self, ImageError> {
        if mask == 0 {
            return Ok(Self::default());
        }
        let shift = mask.trailing_zeros();
        let largest = mask >> shift;
        if largest & largest.wrapping_add(1) != 0 {
            return Err(broken("a bit mask has gaps"));
        }
        Ok(Self { shift, largest })
    }

    /// The sample, scaled to 0..=255 and rounded.
    fn of(self, pixel: u32) -> u8 {
        if self.largest == 0 {
            return 0;
        }
        let value = u64::from((pixel >> self.shift) & self.largest);
        let largest = u64::from(self.largest);
        ((value * 255 + largest / 2) / largest) as u8
    }
}

struct Header {
    width: usize,
    height: usize,
    top_down: bool,
    bits: u16,
    coding: Coding,
    /// Red, green, blue, alpha of 16- and 32-bit pixels.
    fields: [Field; 4],
    palette_at: usize,
    palette_len: usize,
    palette_entry: usize,
    data_at: usize,
}

impl Header {
    fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, ImageError> {
        let u16_at = |at: usize| match bytes.get(at..at + 2) {
            Some(&[low, high]) => Ok(u16::from_le_bytes([low, high])),
            _ => Err(broken("its header is cut short")),
        };
        let u32_at = |at: usize| -> Result<u32, ImageError> {
            Ok(u32::from(u16_at(at)?) | u32::from(u16_at(at + 2)?) << 16)
        };
        let data_at = u32_at(10)? as usize;
        let header_len = u32_at(FILE_HEADER)? as usize;
        let core = header_len == 12;
        if !core && header_len < 40 {
            return Err(unsupported(format_args!("a header of {header_len} bytes")));
        }
        let (width, rows, bits) = if core {
            (u16_at(18)?.into(), i32::from(u16_at(20)?), u16_at(24)?)
        } else {
            (u32_at(18)? as i32, u32_at(22)? as i32, u16_at(28)?)
        };
        let width = u32::try_from(width).map_err(|_| broken("its width is negative"))?;
        let height = rows.unsigned_abs();
        limits.check_extents(Format::Bmp, width, height)?;
        limits.check_memory(u64::from(width) * u64::from(height) * 3)?;

        let compression = if core { 0 } else { u32_at(30)? };
        let (coding, masks) = match (compression, bits) {
            (0, 1 | 2 | 4 | 8 | 24) => (Coding::Rows, [0; 4]),
            (0, 16) => (Coding::Rows, [0x7c00, 0x03e0, 0x001f, 0]),
            (0, 32) => (Coding::Rows, [0x00ff_0000, 0x0000_ff00, 0x0000_00ff, 0]),
            (1, 8) | (2, 4) => (Coding::RunLengths, [0; 4]),
            (3 | 6, 16 | 32) => {
                // The masks follow a 40-byte header; longer headers hold them at the same place.
                let alpha = if compression == 6 || header_len >= 56 { u32_at(66)? } else { 0 };
                (Coding::Rows, [u32_at(54)?, u32_at(58)?, u32_at(62)?, alpha])
            }
            (4, _) => return Err(unsupported("a JPEG inside")),
            (5, _) => return Err(unsupported("a PNG inside")),
            _ => {
                let feature = format!("compression {compression} with {bits} bits a pixel");
                return Err(unsupported(feature));
            }
        };
        if coding == Coding::RunLengths && rows < 0 {
            return Err(broken("run lengths cannot go from the top down"));
        }
        let mut fields = [Field::default(); 4];
        for (field, mask) in fields.iter_mut().zip(masks) {
            *field = Field::new(mask)?;
        }
        let masks_len = match (compression, header_len) {
            (3, 40) => 12,
            (6, 40) => 16,
            _ => 0,
        };
        let most = if bits <= 8 { 1 << bits } else { 0 };
        let claimed = if core { 0 } else { u32_at(46)? as usize };
        Ok(Self {
            width: width as usize,
            height: height as usize,
            top_down: rows < 0,
            bits,
            coding,
            fields,
            palette_at: FILE_HEADER + header_len + masks_len,
            palette_len: if claimed == 0 { most } else { claimed.min(most) },
            palette_entry: if core { 3 } else { 4 },
            data_at,
        })
    }

    /// The palette as RGB; entries that are missing stay black.
    fn palette(&self, bytes: &[u8]) -> [[u8; 3]; 256] {
        let mut colours = [[0; 3]; 256];
        let entries = bytes.get(self.palette_at..).unwrap_or_default();
        let entries = entries.chunks_exact(self.palette_entry).take(self.palette_len);
        for (colour, entry) in colours.iter_mut().zip(entries) {
            *colour = [entry[2], entry[1], entry[0]];
        }
        colours
    }

    /// Index of a row's first byte in the picture, for the n-th row of the file.
    fn row_start(&self, row: usize) -> usize {
        let row = if self.top_down { row } else { self.height - 1 - row };
        row * self.width * 3
    }

    fn read_rows(&self, bytes: &[u8], data: &[u8], pixels: &mut [u8]) -> Result<(), ImageError> {
        // Rows are padded to 4 bytes. The extents are limited, so that none of this overflows.
        let used = (self.width * usize::from(self.bits)).div_ceil(8);
        let stride = used.next_multiple_of(4);
        // Some writers leave the last row's padding out.
        if data.len() < stride * (self.height - 1) + used {
            return Err(cut_short());
        }
        let palette = self.palette(bytes);
        for (number, row) in data.chunks(stride).take(self.height).enumerate() {
            let start = self.row_start(number);
            let target = pixels[start..start + self.width * 3].as_chunks_mut::<3>().0;
            match self.bits {
                24 => {
                    for (pixel, [blue, green, red]) in target.iter_mut().zip(row.as_chunks().0) {
                        *pixel = [*red, *green, *blue];
                    }
                }
                16 => {
                    for (pixel, source) in target.iter_mut().zip(row.as_chunks().0) {
                        *pixel = self.colour(u16::from_le_bytes(*source).into());
                    }
                }
                32 => {
                    for (pixel, source) in target.iter_mut().zip(row.as_chunks().0) {
                        *pixel = self.colour(u32::from_le_bytes(*source));
                    }
                }
                bits => {
                    // 1, 2, 4 or 8 bits: the leftmost pixel is in the highest ones.
                    let bits = usize::from(bits);
                    let mask = (1_usize << bits) - 1;
                    for (x, pixel) in target.iter_mut().enumerate() {
                        let bit = x * bits;
                        let index = usize::from(row[bit / 8]) >> (8 - bits - bit % 8) & mask;
                        *pixel = palette[index];
                    }
                }
            }
        }
        Ok(())
    }

    fn colour(&self, pixel: u32) -> [u8; 3] {
        let [red, green, blue, alpha] = self.fields;
        let rgb = [red.of(pixel), green.of(pixel), blue.of(pixel)];
        if alpha.largest == 0 {
            return rgb;
        }
        let alpha = alpha.of(pixel);
        rgb.map(|sample| over_white(sample, alpha))
    }

    /// RLE8 and RLE4. Pixels that the runs leave out take the palette's first colour.
    fn read_run_lengths(
        &self,
        bytes: &[u8],
        data: &[u8],
        pixels: &mut [u8],
    ) -> Result<(), ImageError> {
        let palette = self.palette(bytes);
        for pixel in pixels.as_chunks_mut::<3>().0 {
            *pixel = palette[0];
        }
        let nibbles = self.bits == 4;
        let (mut x, mut row) = (0, 0);
        let mut put = |x: &mut usize, row: usize, index: usize| {
            if *x < self.width && row < self.height {
                let at = self.row_start(row) + *x * 3;
                pixels[at..at + 3].copy_from_slice(&palette[index]);
            }
            *x = x.saturating_add(1);
        };
        let mut data = data.iter().map(|&byte| usize::from(byte));
        let mut next = || data.next().ok_or_else(cut_short);
        loop {
            let (count, value) = (next()?, next()?);
            match (count, value) {
                (0, 0) => (x, row) = (0, row + 1),
                (0, 1) => return Ok(()),
                (0, 2) => {
                    x += next()?;
                    row += next()?;
                }
                (0, literal) => {
                    let len = if nibbles { literal.div_ceil(2) } else { literal };
                    for position in 0..len {
                        let byte = next()?;
                        if nibbles {
                            put(&mut x, row, byte >> 4);
                            if 2 * position + 1 < literal {
                                put(&mut x, row, byte & 15);
                            }
                        } else {
                            put(&mut x, row, byte);
                        }
                    }
                    // Literals are padded to 16 bits.
                    if len % 2 == 1 {
                        next()?;
                    }
                }
                (count, value) => {
                    for position in 0..count {
                        let index = match (nibbles, position % 2) {
                            (false, _) => value,
                            (true, 0) => value >> 4,
                            (true, _) => value & 15,
                        };
                        put(&mut x, row, index);
                    }
                }
            }
            // Nothing can follow the last row but the end mark, which some writers leave out.
            if row >= self.height {
                return Ok(());
            }
        }
    }
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
        decode(bytes, &Limits::default()).unwrap().into_pixels()
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
        assert_eq!(pixels(&bmp((1, 1), 32, 6, &masks, &data)), [255, 255, 255]);
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
        // Bottom row: three of 1; upper row: move by one, literals 2, 3, 1 (padded), end.
        let data = [3, 1, 0, 0, 0, 2, 1, 0, 0, 3, 2, 3, 1, 0, 0, 1];
        let expected =
            [[3, 2, 1], [23, 22, 21], [33, 32, 31], [13, 12, 11], [13, 12, 11], [13, 12, 11]];
        let upper = pixels(&bmp((3, 2), 8, 1, &palette, &data));
        assert_eq!(upper, expected.concat());
        for length in 0..data.len() {
            let cut = bmp((3, 2), 8, 1, &palette, &data[..length]);
            assert!(decode(&cut, &Limits::default()).is_err(), "{length} bytes of data");
        }
    }

    #[test]
    fn what_is_wrong_or_not_supported_is_named() {
        for (bytes, expected) in [
            (bmp((-1, 1), 24, 0, &[], &[]), "broken BMP: its width is negative"),
            (bmp((1, 0), 24, 0, &[], &[]), "broken BMP: it is 1 x 0 pixels"),
            (bmp((1, i32::MIN), 24, 0, &[], &[]), "image is 1 x 2147483648 pixels"),
            (bmp((70_000, 9), 24, 0, &[], &[]), "image is 70000 x 9 pixels"),
            (bmp((2, 2), 24, 0, &[], &[0; 13]), "broken BMP: it ends before its last pixel"),
            (bmp((2, 2), 24, 4, &[], &[]), "unsupported BMP: a JPEG inside"),
            (bmp((2, 2), 7, 0, &[], &[]), "unsupported BMP: compression 0 with 7 bits"),
            (
                bmp((2, 2), 16, 3, &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0; 8]),
                "broken BMP: a bit",
            ),
        ] {
            let error = decode(&bytes, &Limits::default()).expect_err(expected);
            assert!(error.to_string().starts_with(expected), "{expected:?} but {error}");
        }
    }
}
