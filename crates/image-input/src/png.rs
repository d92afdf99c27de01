//! PNG through the `png` crate, row by row: each row becomes 8-bit grey or RGB at once, so that
//! 16-bit, palette and alpha never need a second buffer of the whole picture.

use std::io::Cursor;

use png::{BitDepth, ColorType, DecodingError, InterlaceInfo, Transformations};

use crate::{
    Format, ImageError, Limits, Picture,
    decode::{over_white, rgba_over_white},
    orientation::Orientation,
};

pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<(Picture, Orientation), ImageError> {
    // The decoder's own share: rows and chunks. An animation's later frames are never read.
    let mut decoder = png::Decoder::new_with_limits(
        Cursor::new(bytes),
        png::Limits { bytes: usize::try_from(limits.max_memory).unwrap_or(usize::MAX) },
    );
    // Neither is needed, and both may be bombs: a megabyte that inflates to gigabytes.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND);
    let info = decoder.read_header_info().map_err(|error| from_decoder(error, limits))?;
    let (width, height, interlaced) = (info.width, info.height, info.interlaced);
    limits.check_extents(Format::Png, width, height)?;
    let mut reader = decoder.read_info().map_err(|error| from_decoder(error, limits))?;

    let (color, depth) = reader.output_color_type();
    let row_format = RowFormat::new(color, depth)?;
    let channels = row_format.channels();
    let stride = width as usize * channels;
    let mut pixels = limits.allocate(stride * height as usize)?;
    let mut row_pixels = vec![0; if interlaced { stride } else { 0 }];
    let mut rows = 0;
    while let Some(row) =
        reader.next_interlaced_row().map_err(|error| from_decoder(error, limits))?
    {
        match row.interlace() {
            InterlaceInfo::Adam7(pass) => {
                let len = row_format.pixels(row.data()) * channels;
                let row_pixels = &mut row_pixels[..len];
                row_format.convert(row.data(), row_pixels);
                let bits = 8 * channels as u8;
                png::expand_interlaced_row(&mut pixels, stride, row_pixels, pass, bits);
            }
            InterlaceInfo::Null(_) => {
                row_format.convert(row.data(), &mut pixels[rows * stride..][..stride]);
                rows += 1;
            }
        }
        // What follows the last row is not the picture's: an endless zlib stream, more frames.
        if rows == height as usize {
            break;
        }
    }
    let orientation = reader.info().exif_metadata.as_deref().map(Orientation::from_exif);
    let picture = Picture::from_pixels(width, height, channels, pixels)
        .expect("the buffer was sized from these extents, which are not zero");
    Ok((picture, orientation.unwrap_or_default()))
}

fn from_decoder(error: DecodingError, limits: &Limits) -> ImageError {
    match error {
        DecodingError::LimitsExceeded => ImageError::TooMuchMemory {
            needed: limits.max_memory.saturating_add(1),
            limit: limits.max_memory,
        },
        other => ImageError::broken(Format::Png, other),
    }
}

/// What a row holds once palette, low bit depths and tRNS are expanded.
#[derive(Clone, Copy)]
struct RowFormat {
    colour: bool,
    alpha: bool,
    wide: bool,
}

impl RowFormat {
    fn new(color: ColorType, depth: BitDepth) -> Result<Self, ImageError> {
        let (colour, alpha) = match color {
            ColorType::Grayscale => (false, false),
            ColorType::GrayscaleAlpha => (false, true),
            ColorType::Rgb => (true, false),
            ColorType::Rgba => (true, true),
            ColorType::Indexed => {
                return Err(ImageError::unsupported(Format::Png, "a palette that stays one"));
            }
        };
        let wide = match depth {
            BitDepth::Eight => false,
            BitDepth::Sixteen => true,
            other => {
                let feature = format_args!("{} bits a sample", other as u8).to_string();
                return Err(ImageError::unsupported(Format::Png, feature));
            }
        };
        Ok(Self { colour, alpha, wide })
    }

    /// Channels of the picture.
    fn channels(self) -> usize {
        if self.colour { 3 } else { 1 }
    }

    /// How many pixels a row of this format holds.
    fn pixels(self, row: &[u8]) -> usize {
        let samples = self.channels() + usize::from(self.alpha);
        row.len() / (samples * if self.wide { 2 } else { 1 })
    }

    /// Writes a row as 8-bit grey or RGB; `target` has as many pixels as `row`.
    fn convert(self, row: &[u8], target: &mut [u8]) {
        match (self.wide, self.alpha, self.colour) {
            (false, false, _) => target.copy_from_slice(row),
            (false, true, true) => rgba_over_white(row, target),
            (false, true, false) => {
                for ([grey, alpha], target) in row.as_chunks::<2>().0.iter().zip(target) {
                    *target = over_white(*grey, *alpha);
                }
            }
            (true, false, _) => {
                for (sample, target) in row.as_chunks::<2>().0.iter().zip(target) {
                    *target = narrow(u16::from_be_bytes(*sample).into());
                }
            }
            (true, true, true) => wide_over_white::<8, 3>(row, target),
            (true, true, false) => wide_over_white::<4, 1>(row, target),
        }
    }
}

/// 16 bits to 8, rounded: 65,535 becomes 255.
fn narrow(sample: u32) -> u8 {
    ((sample * 255 + 32_767) / 65_535) as u8
}

/// Big-endian 16-bit pixels of `BYTES` bytes, the last sample alpha, over white and then to 8
/// bits: one rounding instead of two.
fn wide_over_white<const BYTES: usize, const CHANNELS: usize>(row: &[u8], target: &mut [u8]) {
    let source = row.as_chunks::<BYTES>().0;
    for (pixel, target) in source.iter().zip(target.as_chunks_mut::<CHANNELS>().0) {
        let sample =
            |index: usize| u64::from(u16::from_be_bytes([pixel[2 * index], pixel[2 * index + 1]]));
        let alpha = sample(CHANNELS);
        for (channel, target) in target.iter_mut().enumerate() {
            let over = sample(channel) * alpha + 65_535 * (65_535 - alpha);
            *target = narrow((over / 65_535) as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_round_to_the_nearest_eight() {
        for (sample, expected) in
            [(0, 0), (128, 0), (129, 1), (257, 1), (32_767, 127), (65_535, 255)]
        {
            assert_eq!(narrow(sample), expected, "sample {sample}");
        }
    }

    #[test]
    fn sixteen_bit_alpha_is_laid_over_white() {
        let mut target = [0; 2];
        // Grey 0 at half alpha, then grey 0xffff at no alpha.
        wide_over_white::<4, 1>(&[0, 0, 0x80, 0, 0xff, 0xff, 0, 0], &mut target);
        assert_eq!(target, [127, 255]);
    }
}
