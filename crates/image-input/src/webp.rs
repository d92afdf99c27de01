//! WebP: a walk over the chunks that settles sizes and wholeness, then the crate `image`, which
//! allocates by the inner headers before it compares them with the outer one.

use std::io::Cursor;

use image::{ImageDecoder, codecs::webp::WebPDecoder, metadata::Orientation};

use crate::{
    Format, ImageError, Limits, Picture,
    raster::{from_image, read},
};

pub(crate) fn decode<'a>(
    bytes: &[u8],
    limits: &Limits,
    scratch: &'a mut [u8],
) -> Result<(Picture<'a>, Orientation), ImageError> {
    check_chunks(bytes, limits)?;
    let decoder = WebPDecoder::new(Cursor::new(bytes))
        .map_err(|error| from_image(error, Format::WebP, limits))?;
    let (width, height) = decoder.dimensions();
    // Beside the result: lossless holds RGBA, lossy 4:2:0 planes and alpha, an animation its
    // frame and a canvas of RGBA each.
    let beside = if decoder.has_animation() { 8 } else { 4 };
    let area = u64::from(width) * u64::from(height);
    read(decoder, Format::WebP, area.saturating_mul(beside), limits, scratch)
}

fn broken(reason: impl ToString) -> ImageError {
    ImageError::broken(Format::WebP, reason)
}

/// Walks over the chunks: the file must be as long as it says, and every size that any header
/// claims must pass, for the decoder allocates by the inner ones before it compares them.
fn check_chunks(bytes: &[u8], limits: &Limits) -> Result<(), ImageError> {
    let whole = u32_at(bytes, 4).and_then(|size| bytes.get(12..(size as usize).checked_add(8)?));
    let Some(mut chunks) = whole else {
        return Err(broken("it is shorter than it says"));
    };
    let mut frames = 0;
    while let Some((name, payload, rest)) = split_chunk(chunks)? {
        if name == b"ANMF" {
            frames += 1;
            // Only the first frame is decoded. 16 bytes of place and duration come before it.
            if frames == 1 {
                let mut inner = payload.get(16..).unwrap_or_default();
                while let Some((name, payload, rest)) = split_chunk(inner)? {
                    check_header(name, payload, limits)?;
                    inner = rest;
                }
            }
        } else {
            check_header(name, payload, limits)?;
        }
        chunks = rest;
    }
    Ok(())
}

/// Checks the extents in a chunk's header, if that chunk has some.
fn check_header(name: &[u8], payload: &[u8], limits: &Limits) -> Result<(), ImageError> {
    let u24_at = |at: usize| match payload.get(at..at + 3) {
        Some(&[low, middle, high]) => Ok(u32::from_le_bytes([low, middle, high, 0])),
        _ => Err(broken("a header is cut short")),
    };
    let (width, height) = match name {
        b"VP8X" => (u24_at(4)? + 1, u24_at(7)? + 1),
        // 14 bits each, then 2 bits of scale; the start code stands before.
        b"VP8 " => (u24_at(6)? & 0x3fff, (u24_at(7)? >> 8) & 0x3fff),
        b"VP8L" => {
            let packed = u24_at(1)? | (u24_at(2)? >> 16 << 24);
            ((packed & 0x3fff) + 1, ((packed >> 14) & 0x3fff) + 1)
        }
        _ => return Ok(()),
    };
    limits.check_extents(Format::WebP, width, height)
}

type Chunk<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Name, payload, and what follows; `None` at the end (a few bytes of padding are let be).
fn split_chunk(bytes: &[u8]) -> Result<Option<Chunk<'_>>, ImageError> {
    let (Some(name), Some(size)) = (bytes.get(..4), u32_at(bytes, 4)) else {
        return Ok(None);
    };
    let size = size as usize;
    let payload = bytes[8..].get(..size).ok_or_else(|| broken("a chunk is cut short"))?;
    // Chunks have even lengths; the last one's padding is often forgotten.
    let rest = bytes[8..].get(size + size % 2..).unwrap_or_default();
    Ok(Some((name, payload, rest)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn riff(chunks: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
        let mut body = b"WEBP".to_vec();
        for (name, payload) in chunks {
            body.extend_from_slice(name);
            body.extend((payload.len() as u32).to_le_bytes());
            body.extend(payload);
            body.extend(vec![0; payload.len() % 2]);
        }
        let mut bytes = b"RIFF".to_vec();
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn every_size_that_a_header_claims_is_checked() {
        let vp8 = vec![0x10, 0, 0, 0x9d, 1, 0x2a, 0xff, 0x3f, 0xff, 0x3f];
        let vp8l = vec![0x2f, 0xff, 0xff, 0xff, 0x0f];
        let small = vec![0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let huge = vec![2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let mut frame = vec![0; 16];
        frame.extend(b"VP8 \x0a\0\0\0");
        frame.extend(&vp8);
        for (chunks, expected) in [
            (vec![(&b"VP8 "[..], vp8.clone())], "image is 16383 x 16383 pixels"),
            (vec![(b"VP8L", vp8l)], "image is 16384 x 16384 pixels"),
            (vec![(b"VP8X", huge)], "image is 16777216 x 16777216 pixels"),
            (vec![(b"VP8X", small.clone()), (b"VP8 ", vp8)], "image is 16383 x 16383"),
            (vec![(b"VP8X", small), (b"ANMF", frame)], "image is 16383 x 16383"),
            (vec![(b"VP8X", vec![0; 9])], "broken WebP: a header is cut short"),
        ] {
            let error = check_chunks(&riff(&chunks), &Limits::default()).expect_err(expected);
            assert!(error.to_string().starts_with(expected), "{expected:?} but {error}");
        }
    }

    #[test]
    fn a_file_shorter_than_it_says_is_broken() {
        let bytes = riff(&[(b"EXIF", vec![0; 6])]);
        assert!(check_chunks(&bytes, &Limits::default()).is_ok());
        for length in 12..bytes.len() {
            let error = check_chunks(&bytes[..length], &Limits::default()).unwrap_err();
            assert_eq!(error.to_string(), "broken WebP: it is shorter than it says");
        }
    }
}
