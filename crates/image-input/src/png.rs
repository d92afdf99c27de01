//! PNG through the crate `image`, with a tight limit on what is held of chunks.

use std::io::Cursor;

use image::{codecs::png::PngDecoder, metadata::Orientation};

use crate::{
    Format, ImageError, Limits, Picture,
    raster::{from_image, read},
};

/// Bytes for rows and for chunks that are not pixels, beside what the file itself holds of them.
/// The decoder inflates colour profiles, though nobody asks for them; a larger one is dropped,
/// so that a megabyte that inflates to gigabytes costs no more than this.
const BESIDE: u64 = 4 << 20;

pub(crate) fn decode<'a>(
    bytes: &[u8],
    limits: &Limits,
    scratch: &'a mut [u8],
) -> Result<(Picture<'a>, Orientation), ImageError> {
    // A chunk is gathered in a buffer that doubles, and texts are kept once more.
    let beside = (BESIDE + 3 * bytes.len() as u64).min(limits.max_memory);
    let mut inner = image::Limits::no_limits();
    inner.max_alloc = Some(beside);
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), inner)
        .map_err(|error| from_image(error, Format::Png, limits))?;
    read(decoder, Format::Png, beside, limits, scratch)
}
