//! GIF: the first frame, on a white screen.

use std::{io::Cursor, num::NonZeroU64};

use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

use crate::{Format, ImageError, Limits, Picture};

pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, ImageError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    if let Some(memory) = NonZeroU64::new(limits.max_memory) {
        options.set_memory_limit(MemoryLimit::Bytes(memory));
    }
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(from_decoder)?;
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    limits.check_extents(Format::Gif, width as u32, height as u32)?;

    let frame = decoder
        .next_frame_info()
        .map_err(from_decoder)?
        .ok_or_else(|| ImageError::broken(Format::Gif, "it has no frame"))?;
    limits.check_extents(Format::Gif, frame.width.into(), frame.height.into())?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let frame_width = usize::from(frame.width);
    let transparent = frame.transparent;
    let indices_len = frame_width * usize::from(frame.height);
    limits.check_memory((indices_len + width * height * 3) as u64)?;

    // Colours that the palette lacks stay black.
    let mut colours = [[0; 3]; 256];
    let palette = decoder.palette().map_err(from_decoder)?;
    for (colour, entry) in colours.iter_mut().zip(palette.as_chunks::<3>().0) {
        *colour = *entry;
    }
    if let Some(index) = transparent {
        colours[usize::from(index)] = [255; 3];
    }
    let mut indices = limits.allocate(indices_len)?;
    decoder.read_into_buffer(&mut indices).map_err(from_decoder)?;

    let mut pixels = limits.allocate(width * height * 3)?;
    pixels.fill(255);
    let screen_rows = pixels.chunks_exact_mut(width * 3).skip(top);
    for (row, indices) in screen_rows.zip(indices.chunks_exact(frame_width)) {
        let places = row.as_chunks_mut::<3>().0.iter_mut().skip(left);
        for (pixel, index) in places.zip(indices) {
            *pixel = colours[usize::from(*index)];
        }
    }
    Ok(Picture::from_pixels(width as u32, height as u32, 3, pixels)
        .expect("the buffer was sized from these extents, which are not zero"))
}

fn from_decoder(error: DecodingError) -> ImageError {
    ImageError::broken(Format::Gif, error)
}
