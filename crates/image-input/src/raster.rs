//! From a decoder of the crate `image` to a picture: what PNG, WebP, GIF and BMP share.

use std::{error::Error, io};

use image::{ColorType, ImageDecoder, error::UnsupportedErrorKind};

use crate::{Format, ImageError, Limits, Picture, orientation, picture::Pixels};

/// Reads the decoder's picture, 8 bits a sample and over white, and its EXIF orientation.
/// `beside` counts the bytes that the decoder holds besides the picture while it reads it.
///
/// Pixels are narrowed where they lie, so that 16 bits and alpha need no second buffer.
pub(crate) fn read<'a>(
    mut decoder: impl ImageDecoder,
    format: Format,
    beside: u64,
    limits: &Limits,
    scratch: &'a mut [u8],
) -> Result<(Picture<'a>, image::metadata::Orientation), ImageError> {
    let (width, height) = decoder.dimensions();
    limits.check_extents(format, width, height)?;
    let stored = decoder.color_type();
    let len = decoder.total_bytes();
    limits.check_memory(len.saturating_add(beside))?;
    // `ImageDecoder::orientation` does not know the `Exif\0\0` that some writers begin with.
    let exif = decoder.exif_metadata().ok().flatten();
    let orientation = orientation::from_exif(exif.as_deref().unwrap_or_default());

    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut pixels = limits.allocate_in(len, scratch)?;
    decoder.read_image(&mut pixels).map_err(|error| from_image(error, format, limits))?;
    let channels = match stored {
        ColorType::L8 => 1,
        ColorType::Rgb8 => 3,
        ColorType::La8 => {
            narrow(&mut pixels, |[grey, alpha]| [over_white(grey, alpha)]);
            1
        }
        ColorType::Rgba8 => {
            narrow(&mut pixels, |[red, green, blue, alpha]| {
                [red, green, blue].map(|sample| over_white(sample, alpha))
            });
            3
        }
        ColorType::L16 => {
            narrow(&mut pixels, |grey| wide::<2, 1>(&grey).map(to_8_bits));
            1
        }
        ColorType::Rgb16 => {
            narrow(&mut pixels, |rgb| wide::<6, 3>(&rgb).map(to_8_bits));
            3
        }
        ColorType::La16 => {
            narrow(&mut pixels, |pixel: [u8; 4]| {
                let [grey, alpha] = wide(&pixel);
                [wide_over_white(grey, alpha)]
            });
            1
        }
        ColorType::Rgba16 => {
            narrow(&mut pixels, |pixel: [u8; 8]| {
                let [red, green, blue, alpha] = wide(&pixel);
                [red, green, blue].map(|sample| wide_over_white(sample, alpha))
            });
            3
        }
        other => return Err(ImageError::unsupported(format, format_args!("{other:?} samples"))),
    };
    let picture = Picture::new(width, height, channels, pixels)
        .expect("the buffer was sized from these extents, which are not zero");
    Ok((picture, orientation))
}

/// An error of the crate `image`, in this crate's words.
pub(crate) fn from_image(error: image::ImageError, format: Format, limits: &Limits) -> ImageError {
    match &error {
        // How much was asked for is not told, only that it was too much.
        image::ImageError::Limits(_) => ImageError::TooMuchMemory {
            needed: limits.max_memory.saturating_add(1),
            limit: limits.max_memory,
        },
        image::ImageError::Unsupported(unsupported) => match unsupported.kind() {
            UnsupportedErrorKind::GenericFeature(feature) => {
                ImageError::unsupported(format, feature)
            }
            _ => ImageError::unsupported(format, &error),
        },
        image::ImageError::IoError(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            ImageError::broken(format, "it is cut short")
        }
        // The decoder's own words, without the format's name, which is said already.
        image::ImageError::Decoding(decoding) => match decoding.source() {
            Some(source) => ImageError::broken(format, source),
            None => ImageError::broken(format, decoding),
        },
        other => ImageError::broken(format, other),
    }
}

/// Rewrites pixels of `FROM` bytes as pixels of `TO` bytes, which are not more, in place.
fn narrow<const FROM: usize, const TO: usize>(
    pixels: &mut Pixels<'_>,
    convert: impl Fn([u8; FROM]) -> [u8; TO],
) {
    const { assert!(TO <= FROM) };
    let count = pixels.len() / FROM;
    for index in 0..count {
        let Some(&pixel) = pixels[index * FROM..].first_chunk() else {
            break;
        };
        pixels[index * TO..][..TO].copy_from_slice(&convert(pixel));
    }
    pixels.truncate(count * TO);
}

/// The 16-bit samples of a pixel, whose bytes are in the machine's order.
fn wide<const BYTES: usize, const SAMPLES: usize>(pixel: &[u8; BYTES]) -> [u16; SAMPLES] {
    const { assert!(BYTES == 2 * SAMPLES) };
    std::array::from_fn(|index| u16::from_ne_bytes([pixel[2 * index], pixel[2 * index + 1]]))
}

/// 16 bits to 8, rounded: 65,535 becomes 255.
fn to_8_bits(sample: u16) -> u8 {
    ((u32::from(sample) * 255 + 32_767) / 65_535) as u8
}

/// Lays a 16-bit sample over white and then rounds to 8 bits: one rounding instead of two.
fn wide_over_white(sample: u16, alpha: u16) -> u8 {
    let (sample, alpha) = (u64::from(sample), u64::from(alpha));
    // The sum is at most 65,535 squared.
    to_8_bits(((sample * alpha + 65_535 * (65_535 - alpha)) / 65_535) as u16)
}

/// Lays a sample over white: `alpha` 0 gives white, 255 the sample.
fn over_white(sample: u8, alpha: u8) -> u8 {
    let (sample, alpha) = (u32::from(sample), u32::from(alpha));
    // Rounded division by 255; the sum is at most 255 * 255.
    ((sample * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_is_laid_over_white_with_rounding() {
        for (sample, alpha, expected) in
            [(0, 0, 255), (0, 255, 0), (255, 7, 255), (0, 128, 127), (100, 128, 177), (10, 1, 254)]
        {
            assert_eq!(over_white(sample, alpha), expected, "sample {sample}, alpha {alpha}");
        }
    }

    #[test]
    fn sixteen_bits_round_to_the_nearest_eight() {
        for (sample, expected) in
            [(0, 0), (128, 0), (129, 1), (257, 1), (32_767, 127), (65_535, 255)]
        {
            assert_eq!(to_8_bits(sample), expected, "sample {sample}");
        }
    }

    #[test]
    fn sixteen_bit_alpha_is_laid_over_white() {
        // Grey 0 at half alpha, then grey 0xffff at no alpha.
        assert_eq!([wide_over_white(0, 0x8000), wide_over_white(0xffff, 0)], [127, 255]);
    }

    #[test]
    fn pixels_are_narrowed_where_they_lie() {
        let mut pixels = Pixels::Own(vec![1, 2, 3, 255, 4, 5, 6, 255, 7, 8, 9, 0]);
        narrow(&mut pixels, |[red, green, blue, alpha]| {
            [red, green, blue].map(|sample| over_white(sample, alpha))
        });
        assert_eq!(*pixels, [1, 2, 3, 4, 5, 6, 255, 255, 255]);
    }
}
