//! JPEG: a walk over the markers that settles size, memory and wholeness, then zune-jpeg.
//!
//! zune-jpeg and not the crate `image`, which calls it too, but always leniently (damaged data
//! comes out as grey), without a limit on scans, and on a copy of the file.

use image::metadata::Orientation;
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

use crate::{Format, ImageError, Limits, Picture, orientation};

/// Blocks of 8 x 8 samples that all scans together may visit. An encoder's 10 scans visit 30
/// million in the largest picture with full chroma. Visiting twice that takes about 2 s, however
/// little the scans hold.
const MAX_BLOCK_VISITS: u64 = 64_000_000;

pub(crate) fn decode<'a>(
    bytes: &[u8],
    limits: &Limits,
    scratch: &'a mut [u8],
) -> Result<(Picture<'a>, Orientation), ImageError> {
    let survey = Survey::of(bytes, limits)?;
    let frame = &survey.frame;
    let (colour, channels) =
        if frame.components.len() == 1 { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    let pixels_len = usize::from(frame.width) * usize::from(frame.height) * channels;
    limits.check_memory(pixels_len as u64 + frame.coefficient_bytes(survey.scans))?;

    let blocks = frame.blocks();
    if blocks * survey.scans as u64 > MAX_BLOCK_VISITS {
        return Err(unsupported(format_args!("{} scans over {blocks} blocks", survey.scans)));
    }

    // Strict: damaged entropy-coded data is an error, where browsers would show grey.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(frame.width))
        .set_max_height(usize::from(frame.height))
        .jpeg_set_max_scans(limits.max_jpeg_scans)
        .jpeg_set_out_colorspace(colour);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(from_decoder)?;
    // The decoder reads the markers once more; both readings must agree on what was checked.
    let agreed = decoder.dimensions() == Some((frame.width.into(), frame.height.into()))
        && decoder.output_buffer_size() == Some(pixels_len);
    if !agreed {
        return Err(broken("its headers contradict each other"));
    }
    let mut pixels = limits.allocate_in(pixels_len, scratch)?;
    decoder.decode_into(&mut pixels).map_err(from_decoder)?;
    let picture = Picture::new(frame.width.into(), frame.height.into(), channels, pixels)
        .expect("the buffer was sized from these extents, which are not zero");
    Ok((picture, survey.orientation))
}

fn broken(reason: impl ToString) -> ImageError {
    ImageError::broken(Format::Jpeg, reason)
}

fn unsupported(feature: impl ToString) -> ImageError {
    ImageError::unsupported(Format::Jpeg, feature)
}

fn from_decoder(error: DecodeErrors) -> ImageError {
    match error {
        DecodeErrors::Unsupported(scheme) => unsupported(format_args!("{scheme:?}")),
        other => broken(format_args!("{other:?}")),
    }
}

/// What the markers say of a whole file.
struct Survey {
    frame: Frame,
    scans: usize,
    orientation: Orientation,
}

/// The start-of-frame segment.
struct Frame {
    width: u16,
    height: u16,
    progressive: bool,
    /// Horizontal and vertical sampling factor of each component.
    components: Vec<(u8, u8)>,
}

impl Frame {
    fn parse(marker: u8, segment: &[u8], limits: &Limits) -> Result<Self, ImageError> {
        match marker {
            0xc0..=0xc2 => {}
            0xc3 => return Err(unsupported("lossless coding")),
            0xc5..=0xc7 => return Err(unsupported("hierarchical coding")),
            _ => return Err(unsupported("arithmetic coding")),
        }
        let [precision, h1, h0, w1, w0, count, rest @ ..] = segment else {
            return Err(broken("its frame header is cut short"));
        };
        let (width, height) = (u16::from_be_bytes([*w1, *w0]), u16::from_be_bytes([*h1, *h0]));
        if height == 0 {
            return Err(unsupported("a height that only follows the pixels"));
        }
        limits.check_extents(Format::Jpeg, width.into(), height.into())?;
        if *precision != 8 {
            return Err(unsupported(format_args!("{precision} bits a sample")));
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(unsupported(format_args!("{count} components")));
        }
        let mut components = Vec::with_capacity(usize::from(*count));
        for [_id, sampling, _table] in rest.as_chunks::<3>().0 {
            let (across, down) = (sampling >> 4, sampling & 15);
            if !(1..=4).contains(&across) || !(1..=4).contains(&down) {
                return Err(broken("a sampling factor is not from 1 to 4"));
            }
            components.push((across, down));
        }
        if components.len() != usize::from(*count) {
            return Err(broken("its frame header has the wrong length"));
        }
        Ok(Self { width, height, progressive: marker == 0xc2, components })
    }

    /// Blocks of 8 x 8 samples, in whole units of all components.
    fn blocks(&self) -> u64 {
        let widest = self.components.iter().map(|&(across, _)| u64::from(across)).max();
        let tallest = self.components.iter().map(|&(_, down)| u64::from(down)).max();
        let units = u64::from(self.width).div_ceil(8 * widest.unwrap_or(1))
            * u64::from(self.height).div_ceil(8 * tallest.unwrap_or(1));
        let in_unit = self.components.iter().map(|&(h, v)| u64::from(h) * u64::from(v));
        units * in_unit.sum::<u64>()
    }

    /// Bytes of the coefficients that must be held until the last scan: 64 of 16 bits a block.
    /// One scan of all components needs none.
    fn coefficient_bytes(&self, scans: usize) -> u64 {
        if !self.progressive && scans == 1 { 0 } else { self.blocks() * 64 * 2 }
    }
}

impl Survey {
    /// Walks over all segments and scans to the end-of-image marker. Stops at the frame header
    /// when its size is refused.
    fn of(bytes: &[u8], limits: &Limits) -> Result<Self, ImageError> {
        let mut reader = Reader { bytes, at: 2 };
        let mut frame = None;
        let mut scans = 0;
        let mut found = None;
        loop {
            let marker = reader.next_marker()?;
            match marker {
                // End of image.
                0xd9 => break,
                // Start of image again, temporary, restarts: without a segment.
                0xd8 | 0x01 | 0xd0..=0xd7 => {}
                // Huffman tables, and what only arithmetic coding has.
                0xc4 | 0xc8 | 0xcc => {
                    reader.segment()?;
                }
                0xc0..=0xcf => {
                    let segment = reader.segment()?;
                    if frame.is_some() {
                        return Err(broken("it has more than one frame"));
                    }
                    frame = Some(Frame::parse(marker, segment, limits)?);
                }
                0xda => {
                    reader.segment()?;
                    scans += 1;
                    if scans > limits.max_jpeg_scans {
                        let most = limits.max_jpeg_scans;
                        return Err(unsupported(format_args!("more than {most} scans")));
                    }
                }
                0xe1 => {
                    let segment = reader.segment()?;
                    if found.is_none() && segment.starts_with(b"Exif\0\0") {
                        found = Some(orientation::from_exif(segment));
                    }
                }
                _ => {
                    reader.segment()?;
                }
            }
        }
        let frame = frame.ok_or_else(|| broken("it has no frame header"))?;
        if scans == 0 {
            return Err(broken("it has no scan"));
        }
        Ok(Self { frame, scans, orientation: found.unwrap_or(Orientation::NoTransforms) })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Skips to the next marker and returns its code. Skips entropy-coded data on the way, in
    /// which 0xff is always followed by 0 or a restart marker's code.
    fn next_marker(&mut self) -> Result<u8, ImageError> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let offset = rest.iter().position(|&byte| byte == 0xff).ok_or_else(cut_short)?;
            let code_at = offset + 1;
            let code = *rest.get(code_at).ok_or_else(cut_short)?;
            match code {
                // A fill byte: the next 0xff may begin the marker.
                0xff => self.at += code_at,
                0 | 0xd0..=0xd7 => self.at += code_at + 1,
                _ => {
                    self.at += code_at + 1;
                    return Ok(code);
                }
            }
        }
    }

    /// The bytes of the segment that begins here, without its length.
    fn segment(&mut self) -> Result<&'a [u8], ImageError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = match rest {
            [high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => return Err(cut_short()),
        };
        if length < 2 {
            return Err(broken("a segment's length is less than 2"));
        }
        let segment = rest.get(2..length).ok_or_else(cut_short)?;
        self.at += length;
        Ok(segment)
    }
}

fn cut_short() -> ImageError {
    broken("it ends before its end-of-image marker")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(progressive: bool, components: &[(u8, u8)]) -> Frame {
        Frame { width: 100, height: 50, progressive, components: components.to_vec() }
    }

    #[test]
    fn coefficients_count_when_pixels_must_wait_for_the_last_scan() {
        let full = [(1, 1); 3];
        assert_eq!(frame(false, &full).coefficient_bytes(1), 0);
        // 13 x 7 blocks, three components, 64 coefficients of 2 bytes.
        assert_eq!(frame(true, &full).coefficient_bytes(1), 13 * 7 * 3 * 128);
        assert_eq!(frame(false, &full).coefficient_bytes(3), 13 * 7 * 3 * 128);
        // 7 x 4 units of 4 + 1 + 1 blocks.
        let halved = [(2, 2), (1, 1), (1, 1)];
        assert_eq!(frame(true, &halved).coefficient_bytes(1), 7 * 4 * 6 * 128);
    }

    #[test]
    fn the_survey_names_what_is_wrong() {
        let limits = Limits::default();
        let sof = |marker: u8, precision: u8, w: u16, h: u16, count: u8| {
            let mut bytes = vec![0xff, 0xd8, 0xff, marker, 0, 8 + 3 * count, precision];
            bytes.extend(h.to_be_bytes());
            bytes.extend(w.to_be_bytes());
            bytes.push(count);
            for id in 0..count {
                bytes.extend([id, 0x11, 0]);
            }
            bytes
        };
        let twice = [sof(0xc0, 8, 8, 8, 1), sof(0xc0, 8, 9000, 7000, 1)[2..].to_vec()].concat();
        for (bytes, expected) in [
            (
                sof(0xc0, 8, 65_535, 65_535, 3),
                "image is 65535 x 65535 pixels; at most 16384 a side",
            ),
            (sof(0xc2, 8, 16_000, 16_000, 3), "image is 16000 x 16000 pixels; at most 64000000"),
            (sof(0xc0, 8, 8, 0, 3), "unsupported JPEG: a height that only follows"),
            (sof(0xc0, 8, 0, 8, 3), "broken JPEG: it is 0 x 8 pixels"),
            (sof(0xc1, 12, 8, 8, 3), "unsupported JPEG: 12 bits a sample"),
            (sof(0xc3, 8, 8, 8, 3), "unsupported JPEG: lossless coding"),
            (sof(0xc9, 8, 8, 8, 3), "unsupported JPEG: arithmetic coding"),
            (sof(0xc0, 8, 8, 8, 2), "unsupported JPEG: 2 components"),
            (sof(0xc0, 8, 8, 8, 1), "broken JPEG: it ends before its end-of-image marker"),
            (twice, "broken JPEG: it has more than one frame"),
            (vec![0xff, 0xd8, 0xff, 0xd9], "broken JPEG: it has no frame header"),
            (vec![0xff, 0xd8, 0xff, 0xe0, 0, 1], "broken JPEG: a segment's length is less than 2"),
        ] {
            let text = Survey::of(&bytes, &limits).err().expect(expected).to_string();
            assert!(text.starts_with(expected), "expected {expected:?}, got {text:?}");
        }
    }
}
