//! GIF: a look for the first frame's extents, which may be larger than the screen's, then the
//! crate `image`, which allocates by them before anyone else sees them.

use std::io::Cursor;

use image::{ImageDecoder, codecs::gif::GifDecoder, metadata::Orientation};

use crate::{
    Format, ImageError, Limits, Picture,
    raster::{from_image, read},
};

pub(crate) fn decode<'a>(
    bytes: &[u8],
    limits: &Limits,
    scratch: &'a mut [u8],
) -> Result<(Picture<'a>, Orientation), ImageError> {
    let error = |error| from_image(error, Format::Gif, limits);
    if let Some((width, height)) = first_frame(bytes) {
        limits.check_extents(Format::Gif, width.into(), height.into())?;
    }
    let mut decoder = GifDecoder::new(Cursor::new(bytes)).map_err(error)?;
    // A frame that does not fill the screen is decoded into a buffer of its own.
    let mut inner = image::Limits::no_limits();
    inner.max_alloc = Some(limits.max_memory.saturating_sub(decoder.total_bytes()));
    decoder.set_limits(inner).map_err(error)?;
    read(decoder, Format::Gif, 0, limits, scratch)
}

/// Width and height of the first frame; `None` where the file ends or errs before, of which the
/// decoder says what is wrong.
fn first_frame(bytes: &[u8]) -> Option<(u16, u16)> {
    let u16_at = |at: usize| Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    // Behind magic and screen there may be a palette of 2 to 256 colours.
    let flags = *bytes.get(10)?;
    let mut at = 13 + if flags & 0x80 != 0 { 3 << ((flags & 7) + 1) } else { 0 };
    loop {
        match bytes.get(at)? {
            // An extension: its label, then blocks until an empty one.
            0x21 => {
                at += 2;
                while let length @ 1.. = usize::from(*bytes.get(at)?) {
                    at += 1 + length;
                }
                at += 1;
            }
            // The frame: left, top, width, height.
            0x2c => return Some((u16_at(at + 5)?, u16_at(at + 7)?)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_is_found_behind_palette_and_extensions() {
        let mut bytes = b"GIF89a\x01\0\x01\0\x80\0\0\x01\x02\x03\x04\x05\x06".to_vec();
        bytes.extend(b"\x21\xf9\x04\0\0\0\0\0\x21\xfe\x02hi\x01!\0,\0\0\0\0\x05\0\x07\x01");
        assert_eq!(first_frame(&bytes), Some((5, 263)));
        for length in 0..bytes.len() {
            assert_eq!(first_frame(&bytes[..length]), None, "{length} bytes");
        }
    }
}
