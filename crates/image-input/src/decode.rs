//! From bytes to a picture: tells the format, calls its decoder, applies the orientation.

use crate::{
    Format, ImageError, Limits, Picture, bmp, gif, jpeg, orientation::Orientation, png, webp,
};

/// Decodes a JPEG, PNG, WebP, GIF or BMP image.
///
/// The result has one channel when the file has only grey, else three (RGB). It stands upright
/// (EXIF orientation of JPEG, PNG and WebP applied). Transparent pixels are laid over white.
/// 16-bit samples are rounded to 8 bits, CMYK is converted as Pillow does without a colour
/// profile, and colour profiles are ignored. Of an animation the first frame is taken.
///
/// # Errors
/// [`ImageError`]; nothing is allocated for pixels before the header passed `limits`.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, ImageError> {
    if bytes.len() > limits.max_bytes {
        return Err(ImageError::TooManyBytes { bytes: bytes.len(), limit: limits.max_bytes });
    }
    let (picture, orientation) = match Format::sniff(bytes)? {
        Format::Jpeg => jpeg::decode(bytes, limits)?,
        Format::Png => png::decode(bytes, limits)?,
        Format::WebP => webp::decode(bytes, limits)?,
        Format::Gif => (gif::decode(bytes, limits)?, Orientation::Upright),
        Format::Bmp => (bmp::decode(bytes, limits)?, Orientation::Upright),
    };
    orientation.apply(picture, limits)
}

/// Lays a sample over white: `alpha` 0 gives white, 255 the sample.
pub(crate) fn over_white(sample: u8, alpha: u8) -> u8 {
    let (sample, alpha) = (u32::from(sample), u32::from(alpha));
    // Rounded division by 255; the sum is at most 255 * 255.
    ((sample * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// RGBA to RGB over white; both slices hold the same number of pixels.
pub(crate) fn rgba_over_white(rgba: &[u8], rgb: &mut [u8]) {
    for (source, target) in rgba.chunks_exact(4).zip(rgb.chunks_exact_mut(3)) {
        let alpha = source[3];
        for channel in 0..3 {
            target[channel] = over_white(source[channel], alpha);
        }
    }
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
    fn too_many_bytes_are_refused_before_anything_is_read() {
        let limits = Limits { max_bytes: 9, ..Limits::default() };
        assert_eq!(
            decode(&[0; 10], &limits),
            Err(ImageError::TooManyBytes { bytes: 10, limit: 9 })
        );
    }
}
