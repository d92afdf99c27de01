//! From bytes to a picture: tells the format, calls its decoder, applies the orientation.

use crate::{
    Format, ImageError, Limits, Picture, Transform, bmp, gif, jpeg, orientation, png, webp,
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
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture<'static>, ImageError> {
    decode_in(bytes, limits, &mut [])
}

/// As [`decode`], with the pixels in `scratch` if that is large enough; what it holds is lost.
///
/// A picture is needed only until it is resized: memory that has no other use meanwhile spares a
/// guest, whose memory never shrinks, that much for good.
///
/// # Errors
/// As [`decode`].
pub fn decode_in<'a>(
    bytes: &[u8],
    limits: &Limits,
    scratch: &'a mut [u8],
) -> Result<Picture<'a>, ImageError> {
    decode_reduced(bytes, limits, scratch, |_, _| 0)
}

/// As [`decode_in`], for `transform` alone: a JPEG that is more than twice as large as needed, in
/// both directions, may come at a half, a quarter or an eighth of its size. It takes that much less
/// time and memory; [`Transform::apply`] knows of it, and gives the same picture but for a level
/// or two.
///
/// # Errors
/// As [`decode`].
pub fn decode_for<'a>(
    bytes: &[u8],
    limits: &Limits,
    scratch: &'a mut [u8],
    transform: &Transform,
) -> Result<Picture<'a>, ImageError> {
    decode_reduced(bytes, limits, scratch, |width, height| transform.reduction(width, height))
}

fn decode_reduced<'a>(
    bytes: &[u8],
    limits: &Limits,
    scratch: &'a mut [u8],
    shift: impl FnOnce(u32, u32) -> u32,
) -> Result<Picture<'a>, ImageError> {
    if bytes.len() > limits.max_bytes {
        return Err(ImageError::TooManyBytes { bytes: bytes.len(), limit: limits.max_bytes });
    }
    let (picture, orientation) = match Format::sniff(bytes)? {
        Format::Jpeg => jpeg::decode(bytes, limits, scratch, shift)?,
        Format::Png => png::decode(bytes, limits, scratch)?,
        Format::WebP => webp::decode(bytes, limits, scratch)?,
        Format::Gif => gif::decode(bytes, limits, scratch)?,
        Format::Bmp => bmp::decode(bytes, limits, scratch)?,
    };
    orientation::apply(orientation, picture, limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_bytes_are_refused_before_anything_is_read() {
        let limits = Limits { max_bytes: 9, ..Limits::default() };
        assert_eq!(
            decode(&[0; 10], &limits),
            Err(ImageError::TooManyBytes { bytes: 10, limit: 9 })
        );
    }
}
