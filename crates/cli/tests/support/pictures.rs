//! Pictures: those of the repository, and some that no program would write.

use std::{fs, io::Write};

use flate2::{Compression, Crc, write::ZlibEncoder};
use image_input::{Limits, decode};

use super::root;

/// A drawn digit, PNG.
pub fn digit(digit: usize) -> Vec<u8> {
    fs::read(root().join(format!("models/digits/samples/{digit}.png"))).unwrap()
}

/// A picture of image-input's tests.
pub fn testdata(name: &str) -> Vec<u8> {
    fs::read(root().join("crates/image-input/testdata").join(name)).unwrap()
}

/// Grey pixels, row by row.
#[derive(Debug, Clone)]
pub struct Grey {
    pub width: u32,
    pub height: u32,
    pub pixels: Vec<u8>,
}

impl Grey {
    /// A drawn digit's pixels.
    pub fn digit(number: usize) -> Self {
        let picture = decode(&digit(number), &Limits::default()).unwrap();
        let channels = picture.pixels().len() / (picture.width() * picture.height()) as usize;
        Grey {
            width: picture.width(),
            height: picture.height(),
            pixels: picture.pixels().iter().copied().step_by(channels).collect(),
        }
    }

    /// The same with samples made from each value, as PNG.
    pub fn png(
        &self,
        depth: u8,
        colour: u8,
        before: &[u8],
        sample: impl Fn(u8) -> Vec<u8>,
    ) -> Vec<u8> {
        let row = self.width as usize;
        let mut rows = Vec::new();
        for pixels in self.pixels.chunks(row) {
            rows.push(0);
            pixels.iter().for_each(|&value| rows.extend(sample(value)));
        }
        png(self.width, self.height, depth, colour, before, &deflated(&rows))
    }

    /// As 24-bit BMP, bottom row first.
    pub fn bmp(&self) -> Vec<u8> {
        let row = (self.width as usize * 3).next_multiple_of(4);
        let mut bytes = b"BM".to_vec();
        let size = 54 + row * self.height as usize;
        for word in
            [size as u32, 0, 54, 40, self.width, self.height, 1 | 24 << 16, 0, 0, 0, 0, 0, 0]
        {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for pixels in self.pixels.chunks(self.width as usize).rev() {
            let start = bytes.len();
            pixels.iter().for_each(|&value| bytes.extend([value; 3]));
            bytes.resize(start + row, 0);
        }
        bytes
    }

    /// Turned so that a viewer who heeds `orientation` (EXIF, 1 to 8) sees the picture upright.
    pub fn stored_as(&self, orientation: u8) -> Self {
        let (w, h) = (self.width as usize, self.height as usize);
        let turned = orientation >= 5;
        let (stored_w, stored_h) = if turned { (h, w) } else { (w, h) };
        let at = |x: usize, y: usize| {
            // Where a stored pixel is seen.
            let (seen_x, seen_y) = match orientation {
                1 => (x, y),
                2 => (w - 1 - x, y),
                3 => (w - 1 - x, h - 1 - y),
                4 => (x, h - 1 - y),
                5 => (y, x),
                6 => (w - 1 - y, x),
                7 => (w - 1 - y, h - 1 - x),
                _ => (y, h - 1 - x),
            };
            self.pixels[seen_y * w + seen_x]
        };
        let rows = (0..stored_h).flat_map(|y| (0..stored_w).map(move |x| (x, y)));
        Grey {
            width: stored_w as u32,
            height: stored_h as u32,
            pixels: rows.map(|(x, y)| at(x, y)).collect(),
        }
    }
}

/// A PNG: its header, other chunks, its compressed rows.
pub fn png(width: u32, height: u32, depth: u8, colour: u8, before: &[u8], data: &[u8]) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([depth, colour, 0, 0, 0]);
    [
        b"\x89PNG\r\n\x1a\n",
        &chunk(b"IHDR", &header)[..],
        before,
        &chunk(b"IDAT", data),
        &chunk(b"IEND", &[]),
    ]
    .concat()
}

/// A chunk of a PNG.
pub fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let named = [name, data].concat();
    let mut crc = Crc::new();
    crc.update(&named);
    [&(data.len() as u32).to_be_bytes()[..], &named, &crc.sum().to_be_bytes()].concat()
}

/// An `eXIf` chunk with nothing but an orientation.
pub fn exif(orientation: u8) -> Vec<u8> {
    let mut tiff = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    tiff.extend([orientation, 0, 0, 0, 0, 0, 0]);
    chunk(b"eXIf", &tiff)
}

/// Bytes in a zlib stream.
pub fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// So many zeros in a zlib stream: a thousandth of them in bytes.
pub fn zeros(count: usize) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let block = vec![0; 1 << 20];
    for start in (0..count).step_by(block.len()) {
        encoder.write_all(&block[..block.len().min(count - start)]).unwrap();
    }
    encoder.finish().unwrap()
}

/// Small files of each format that claim to be 65,535 pixels a side (WebP: the 16,383 it can).
pub fn claiming_huge() -> Vec<(&'static str, Vec<u8>)> {
    let huge = png(65_535, 65_535, 16, 6, &[], &zeros(100));
    let jpeg = |marker| {
        let mut bytes = vec![0xff, 0xd8, 0xff, marker, 0, 17, 8, 0xff, 0xff, 0xff, 0xff, 3];
        bytes.extend([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]);
        bytes.extend(b"\xff\xda\0\x0c\x03\x01\0\x02\0\x03\0\0\x3f\0\0\xff\xd9");
        bytes
    };
    let mut gif = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff".to_vec();
    gif.extend(b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x4c\x01\0;");
    let mut bmp = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bmp.extend([65_535_u32.to_le_bytes(), 65_535_u32.to_le_bytes()].concat());
    bmp.extend([1, 0, 24, 0]);
    bmp.extend([0; 24]);
    let webp = b"RIFF\x16\0\0\0WEBPVP8 \x0a\0\0\0\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f".to_vec();
    vec![
        ("PNG", huge),
        ("JPEG", jpeg(0xc0)),
        ("progressive JPEG", jpeg(0xc2)),
        ("GIF", gif),
        ("BMP", bmp),
        ("WebP", webp),
    ]
}
