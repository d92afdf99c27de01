//! JPEG: a walk over the markers that settles size, memory and wholeness, then a decoder.
//!
//! Files of one sequential scan (`sequential`) and progressive ones (`progressive`), grey or YCbCr,
//! have a decoder of our own, which can reduce them on the way: zune-jpeg took five times as long in
//! a guest, and reduces nothing. All others (several sequential scans, CMYK, RGB) are zune-jpeg's.
//!
//! zune-jpeg and not the crate `image`, which calls it too, but always leniently (damaged data
//! comes out as grey), without a limit on scans, and on a copy of the file.

mod bits;
mod colour;
mod huffman;
mod idct;
mod lanes;
mod planes;
mod progressive;
mod sequential;

use image::metadata::Orientation;
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

use self::{
    huffman::{Steps, Table},
    planes::Layout,
    progressive::{Coefficients, Pass},
    sequential::{Component, Scan},
};
use crate::{Format, ImageError, Limits, Picture, orientation, picture::Coverage};

/// Blocks of 8 x 8 samples that all scans together may visit. An encoder's 10 scans visit 30
/// million in the largest picture with full chroma. Visiting twice that takes about 2 s, however
/// little the scans hold.
const MAX_BLOCK_VISITS: u64 = 64_000_000;

/// Decodes a file, at `1 / 2^shift` of its size (an extent that does not divide is rounded up)
/// where that can be had; `shift`, at most 3, is asked for with width and height of the picture
/// as it stands upright.
pub(crate) fn decode<'a>(
    bytes: &[u8],
    limits: &Limits,
    scratch: &'a mut [u8],
    shift: impl FnOnce(u32, u32) -> u32,
) -> Result<(Picture<'a>, Orientation), ImageError> {
    let survey = Survey::of(bytes, limits)?;
    let frame = &survey.frame;
    let (width, height) = (u32::from(frame.width), u32::from(frame.height));
    let shift = |layout: &Layout| match orientation::swaps_sides(survey.orientation) {
        _ if !layout.is_reducible() => 0,
        true => shift(height, width).min(3),
        false => shift(width, height).min(3),
    };
    let mut tables = Tables::default();
    if let Some(scan) = survey.scan(&mut tables)? {
        let shift = shift(&scan.layout);
        let picture = scan.decode(shift, limits, scratch)?;
        return Ok((picture.covering(Coverage::new(width, height, shift)), survey.orientation));
    }
    let (colour, channels) =
        if frame.components.len() == 1 { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    let pixels_len = usize::from(frame.width) * usize::from(frame.height) * channels;
    let layout = survey.progressive_layout();
    if layout.is_none() {
        limits.check_memory(pixels_len as u64 + frame.coefficient_bytes(survey.scans))?;
    }
    let blocks = frame.blocks();
    if blocks * survey.scans as u64 > MAX_BLOCK_VISITS {
        return Err(unsupported(format_args!("{} scans over {blocks} blocks", survey.scans)));
    }
    if let Some(layout) = layout {
        let shift = shift(&layout);
        let coefficients = survey.read_scans(Coefficients::new(&layout, shift, limits)?)?;
        let picture = coefficients.picture(limits, scratch)?;
        return Ok((picture.covering(Coverage::new(width, height, shift)), survey.orientation));
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
struct Survey<'a> {
    frame: Frame,
    scans: usize,
    orientation: Orientation,
    /// Marker and contents of the segments that tell how to read the scans, and of the scans'
    /// headers, in their order; with what follows each.
    segments: Vec<(u8, &'a [u8], &'a [u8])>,
}

/// The marker of a scan's header.
const SCAN: u8 = 0xda;

/// What a scan refers to, by number.
#[derive(Default)]
struct Tables {
    steps: [Option<Steps>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart_interval: usize,
}

impl Tables {
    /// Takes in a segment that holds a table or the restart interval; passes over others.
    fn read(&mut self, marker: u8, segment: &[u8]) -> Result<(), ImageError> {
        match (marker, segment) {
            (0xdb, _) => self.read_steps(segment)?,
            (0xc4, _) => self.read_codes(segment)?,
            (0xdd, &[high, low]) => {
                self.restart_interval = usize::from(u16::from_be_bytes([high, low]));
            }
            (0xdd, _) => return Err(broken("its restart interval is malformed")),
            _ => {}
        }
        Ok(())
    }

    /// The table at a place, which a scan refers to.
    fn at<T>(tables: &[Option<T>; 4], place: u8) -> Result<&T, ImageError> {
        let table = tables.get(usize::from(place)).and_then(Option::as_ref);
        table.ok_or_else(absent)
    }

    /// Takes in a segment of quantisation steps.
    fn read_steps(&mut self, mut segment: &[u8]) -> Result<(), ImageError> {
        let malformed = || broken("a quantisation table is malformed");
        while let [kind, rest @ ..] = segment {
            let steps: Steps;
            (steps, segment) = match kind >> 4 {
                0 => {
                    let (bytes, rest) = rest.split_first_chunk::<64>().ok_or_else(malformed)?;
                    (bytes.map(u16::from), rest)
                }
                1 => {
                    let (bytes, rest) = rest.split_first_chunk::<128>().ok_or_else(malformed)?;
                    let pairs = bytes.as_chunks::<2>().0;
                    (std::array::from_fn(|k| u16::from_be_bytes(pairs[k])), rest)
                }
                _ => return Err(malformed()),
            };
            *self.steps.get_mut(usize::from(kind & 15)).ok_or_else(malformed)? = Some(steps);
        }
        Ok(())
    }

    /// Takes in a segment of Huffman tables.
    fn read_codes(&mut self, mut segment: &[u8]) -> Result<(), ImageError> {
        while let [kind, rest @ ..] = segment {
            let (table, rest) = Table::parse(rest)?;
            let tables = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(broken("a Huffman table is of no kind")),
            };
            let place = tables.get_mut(usize::from(kind & 15));
            *place.ok_or_else(|| broken("a Huffman table has no place"))? = Some(table);
            segment = rest;
        }
        Ok(())
    }
}

impl<'a> Survey<'a> {
    /// The one scan of the file, with its tables in `tables`; `None` for files of other kinds.
    fn scan<'t>(&self, tables: &'t mut Tables) -> Result<Option<Scan<'t>>, ImageError>
    where
        'a: 't,
    {
        let frame = &self.frame;
        let channels = frame.components.len();
        let sequential = !frame.progressive && self.scans == 1;
        if !sequential || !matches!(channels, 1 | 3) || (channels == 3 && self.is_rgb()) {
            return Ok(None);
        }
        for &(marker, segment, _) in self.setup() {
            tables.read(marker, segment)?;
        }
        let Some(&(_, header, data)) = self.segments.iter().find(|segment| segment.0 == SCAN)
        else {
            return Err(malformed_scan());
        };
        let header = ScanHeader::parse(header)?;
        if header.selectors.len() != channels {
            return Ok(None);
        }
        let mut components = Vec::with_capacity(channels);
        for (&(id, steps), [name, codes]) in frame.names.iter().zip(header.selectors) {
            if id != *name {
                return Ok(None);
            }
            components.push(Component {
                dc: Tables::at(&tables.dc, codes >> 4)?,
                ac: Tables::at(&tables.ac, codes & 15)?,
                steps: Tables::at(&tables.steps, steps)?,
            });
        }
        let restart_interval = tables.restart_interval;
        let scan = Scan { layout: frame.layout(), components, restart_interval, data };
        Ok(Some(scan).filter(|scan| scan.layout.is_regular()))
    }

    /// Extents and sampling of a progressive file of the common kinds; `None` for other files.
    fn progressive_layout(&self) -> Option<Layout> {
        let channels = self.frame.components.len();
        let common = self.frame.progressive && (channels == 1 || channels == 3 && !self.is_rgb());
        Some(self.frame.layout()).filter(|layout| common && layout.is_regular())
    }

    /// Takes in all scans of a progressive file.
    fn read_scans<'l>(
        &self,
        mut coefficients: Coefficients<'l>,
    ) -> Result<Coefficients<'l>, ImageError> {
        let mut tables = Tables::default();
        for &(marker, segment, data) in &self.segments {
            if marker != SCAN {
                tables.read(marker, segment)?;
                continue;
            }
            let ScanHeader { selectors, band, bits } = ScanHeader::parse(segment)?;
            let mut components: Vec<(usize, _, _)> = Vec::with_capacity(selectors.len());
            for [name, codes] in selectors {
                let mut names = self.frame.names.iter();
                let number = names.position(|(id, _)| id == name).ok_or_else(malformed_scan)?;
                let steps = Tables::at(&tables.steps, self.frame.names[number].1)?;
                let codes = match (band.0, bits.0) {
                    (0, 0) => Some(Tables::at(&tables.dc, codes >> 4)?),
                    (0, _) => None,
                    _ => Some(Tables::at(&tables.ac, codes & 15)?),
                };
                if components.iter().any(|component| component.0 == number) {
                    return Err(malformed_scan());
                }
                components.push((number, steps, codes));
            }
            let restart_interval = tables.restart_interval;
            coefficients.read(&Pass { components, band, bits, restart_interval, data })?;
        }
        Ok(coefficients)
    }

    /// The segments before the first scan.
    fn setup(&self) -> impl Iterator<Item = &(u8, &'a [u8], &'a [u8])> {
        self.segments.iter().take_while(|segment| segment.0 != SCAN)
    }

    /// Whether three components are red, green and blue, as libjpeg decides it: what JFIF holds is
    /// YCbCr, what Adobe made says so itself, and else it is a matter of names.
    fn is_rgb(&self) -> bool {
        let starts = |marker: u8, with: &[u8]| {
            let mut segments = self.setup();
            segments.any(|(found, segment, _)| *found == marker && segment.starts_with(with))
        };
        if starts(0xe0, b"JFIF\0") {
            return false;
        }
        let adobe = |(marker, segment, _): &&(u8, &'a [u8], &'a [u8])| {
            *marker == 0xee && segment.starts_with(b"Adobe") && segment.len() >= 12
        };
        match self.setup().find(adobe) {
            Some((_, segment, _)) => segment[11] == 0,
            None => self.frame.names.iter().map(|name| name.0).eq(*b"RGB"),
        }
    }
}

/// A scan's header.
struct ScanHeader<'a> {
    /// Name and code tables of each component.
    selectors: &'a [[u8; 2]],
    /// First and last coefficient of the band.
    band: (u8, u8),
    /// The bit that earlier scans told last, and the one that this scan tells.
    bits: (u8, u8),
}

impl<'a> ScanHeader<'a> {
    fn parse(header: &'a [u8]) -> Result<Self, ImageError> {
        let [count, rest @ ..] = header else { return Err(malformed_scan()) };
        let (selectors, rest) =
            rest.split_at_checked(2 * usize::from(*count)).ok_or_else(malformed_scan)?;
        let &[first, last, bits] = rest else { return Err(malformed_scan()) };
        let selectors = selectors.as_chunks::<2>().0;
        Ok(Self { selectors, band: (first, last), bits: (bits >> 4, bits & 15) })
    }
}

fn malformed_scan() -> ImageError {
    broken("its scan header is malformed")
}

fn absent() -> ImageError {
    broken("its scan refers to a table that is not there")
}

/// The start-of-frame segment.
struct Frame {
    width: u16,
    height: u16,
    progressive: bool,
    /// Horizontal and vertical sampling factor of each component.
    components: Vec<(u8, u8)>,
    /// Name and quantisation table of each component.
    names: Vec<(u8, u8)>,
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
        let mut names = Vec::with_capacity(usize::from(*count));
        for [id, sampling, table] in rest.as_chunks::<3>().0 {
            let (across, down) = (sampling >> 4, sampling & 15);
            if !(1..=4).contains(&across) || !(1..=4).contains(&down) {
                return Err(broken("a sampling factor is not from 1 to 4"));
            }
            components.push((across, down));
            names.push((*id, *table));
        }
        if components.len() != usize::from(*count) {
            return Err(broken("its frame header has the wrong length"));
        }
        Ok(Self { width, height, progressive: marker == 0xc2, components, names })
    }

    fn layout(&self) -> Layout {
        let factors = self.components.iter().map(|&(h, v)| (h.into(), v.into())).collect();
        Layout { width: self.width.into(), height: self.height.into(), factors }
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

impl<'a> Survey<'a> {
    /// Walks over all segments and scans to the end-of-image marker. Stops at the frame header
    /// when its size is refused.
    fn of(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let mut reader = Reader { bytes, at: 2 };
        let mut frame = None;
        let mut scans = 0;
        let mut found = None;
        let mut segments = Vec::new();
        loop {
            let marker = reader.next_marker()?;
            match marker {
                // End of image.
                0xd9 => break,
                // Start of image again, temporary, restarts: without a segment.
                0xd8 | 0x01 | 0xd0..=0xd7 => {}
                // What only arithmetic coding has.
                0xc8 | 0xcc => {
                    reader.segment()?;
                }
                // Huffman and quantisation tables, restart interval, JFIF's and Adobe's notes.
                0xc4 | 0xdb | 0xdd | 0xe0 | 0xee => {
                    segments.push((marker, reader.segment()?, reader.rest()));
                }
                0xc0..=0xcf => {
                    let segment = reader.segment()?;
                    if frame.is_some() {
                        return Err(broken("it has more than one frame"));
                    }
                    frame = Some(Frame::parse(marker, segment, limits)?);
                }
                SCAN => {
                    segments.push((marker, reader.segment()?, reader.rest()));
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
        let orientation = found.unwrap_or(Orientation::NoTransforms);
        Ok(Self { frame, scans, orientation, segments })
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
            let rest = self.rest();
            // Most of a file is pixels, and few bytes of them are 0xff.
            let (chunks, _) = rest.as_chunks::<64>();
            let greatest = |chunk: &[u8; 64]| chunk.iter().fold(0, |most, &byte| byte.max(most));
            let free = 64 * chunks.iter().take_while(|chunk| greatest(chunk) < 0xff).count();
            let found = rest[free..].iter().position(|&byte| byte == 0xff);
            let offset = free + found.ok_or_else(cut_short)?;
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

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The bytes of the segment that begins here, without its length.
    fn segment(&mut self) -> Result<&'a [u8], ImageError> {
        let rest = self.rest();
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
        let names = vec![(0, 0); components.len()];
        Frame { width: 100, height: 50, progressive, components: components.to_vec(), names }
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
