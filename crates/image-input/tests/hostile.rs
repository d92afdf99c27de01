//! Pictures made to hurt: each is answered quickly and with an error, or decoded in bounds.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    fs,
    io::Write,
    time::{Duration, Instant},
};

use flate2::{Compression, write::ZlibEncoder};
use image_input::{ErrorKind, Limits, Options, Transform, decode, decode_for};

const PNG_MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let named = [name, data].concat();
    let length = (data.len() as u32).to_be_bytes();
    [&length[..], &named, &common::crc32(&named).to_be_bytes()].concat()
}

fn ihdr(width: u32, height: u32, depth: u8, colour: u8, interlaced: u8) -> Vec<u8> {
    let mut data = [width.to_be_bytes(), height.to_be_bytes()].concat();
    data.extend([depth, colour, 0, 0, interlaced]);
    chunk(b"IHDR", &data)
}

/// `len` zeros, compressed.
fn zeros(len: usize) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let block = vec![0; 1 << 20];
    for start in (0..len).step_by(block.len()) {
        encoder.write_all(&block[..block.len().min(len - start)]).unwrap();
    }
    encoder.finish().unwrap()
}

fn jpeg_claiming(width: u16, height: u16, marker: u8) -> Vec<u8> {
    let mut bytes = b"\xff\xd8\xff".to_vec();
    bytes.extend([marker, 0, 17, 8]);
    bytes.extend(height.to_be_bytes());
    bytes.extend(width.to_be_bytes());
    bytes.extend([3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]);
    bytes.extend(b"\xff\xda\0\x0c\x03\x01\0\x02\0\x03\0\0\x3f\0\0\xff\xd9");
    bytes
}

/// What this thread has computed so far, in steps of 10 ms.
fn computed() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/stat").ok()?;
    // The numbers begin behind the name; user's and system's ticks are the 14th and 15th.
    let mut ticks = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (ticks.next()?.parse().ok()?, ticks.next()?.parse().ok()?);
    Some(Duration::from_millis((user + system) * 10))
}

/// How long work takes this thread: what it computes, where the system tells, for that does not
/// grow with what else the machine does.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let (start, before) = (Instant::now(), computed());
    let result = work();
    let elapsed = start.elapsed();
    let took = before.and_then(|before| Some(computed()? - before));
    (result, took.unwrap_or(elapsed).min(elapsed))
}

#[test]
fn a_small_file_that_claims_a_huge_picture_is_refused_at_once() {
    let png = |w, h| {
        let body = zeros(100);
        [PNG_MAGIC, &ihdr(w, h, 16, 6, 0), &chunk(b"IDAT", &body), &chunk(b"IEND", &[])].concat()
    };
    let mut gif = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff".to_vec();
    gif.extend(b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x4c\x01\0;");
    let mut inner = gif.clone();
    inner[6..10].copy_from_slice(&[1, 0, 1, 0]);
    let mut bmp = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bmp.extend(65_535_u32.to_le_bytes());
    bmp.extend(65_535_u32.to_le_bytes());
    bmp.extend([1, 0, 24, 0]);
    bmp.extend([0; 24]);
    let webp = b"RIFF\x16\0\0\0WEBPVP8 \x0a\0\0\0\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f".to_vec();
    for (name, bytes) in [
        ("PNG", png(65_535, 65_535)),
        ("PNG of the largest extents", png(0x7fff_ffff, 0x7fff_ffff)),
        ("PNG one row high", png(0x7fff_ffff, 1)),
        ("PNG over the pixels only", png(16_384, 16_384)),
        ("JPEG", jpeg_claiming(65_535, 65_535, 0xc0)),
        ("progressive JPEG", jpeg_claiming(65_535, 65_535, 0xc2)),
        ("JPEG over the pixels only", jpeg_claiming(16_384, 16_384, 0xc0)),
        ("JPEG over the memory only", jpeg_claiming(8_000, 7_900, 0xc2)),
        ("GIF", gif),
        ("GIF whose frame is larger than its screen", inner),
        ("BMP", bmp),
        ("WebP", webp),
    ] {
        assert!(bytes.len() < 1024, "{name} has {} bytes", bytes.len());
        let (result, elapsed) = timed(|| decode(&bytes, &Limits::default()));
        let error = result.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{name}: {error}");
        assert!(elapsed < Duration::from_millis(50), "{name} took {elapsed:?}");
    }
}

#[test]
fn zlib_bombs_in_a_png_are_not_inflated() {
    const BOMB: usize = 1 << 30;
    let bomb = zeros(BOMB);
    assert!(bomb.len() < 2 << 20);
    let pixels = zeros(8 * (1 + 8 * 3));
    let profile = [b"icc\0\0", &bomb[..]].concat();
    let text = [b"Comment\0\0", &bomb[..]].concat();
    let international = [b"Comment\0\x01\0\0\0", &bomb[..]].concat();
    let around = |before: Vec<u8>, data: &[u8], interlaced| {
        let header = ihdr(8, 8, 8, 2, interlaced);
        let data = chunk(b"IDAT", data);
        [PNG_MAGIC, &header, &before, &data, &chunk(b"IEND", &[])].concat()
    };
    for (name, bytes) in [
        ("iCCP", around(chunk(b"iCCP", &profile), &pixels, 0)),
        ("zTXt", around(chunk(b"zTXt", &text), &pixels, 0)),
        ("iTXt", around(chunk(b"iTXt", &international), &pixels, 0)),
        ("IDAT", around(vec![], &bomb, 0)),
        ("interlaced IDAT", around(vec![], &bomb, 1)),
    ] {
        let (result, elapsed) = timed(|| decode(&bytes, &Limits::default()));
        let picture = result.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(picture.pixels().iter().all(|&sample| sample == 0), "{name}");
        assert!(elapsed < Duration::from_millis(500), "{name} took {elapsed:?}");
    }
}

#[test]
fn a_progressive_jpeg_may_not_have_hundreds_of_scans() {
    let sound = common::read("jpeg_444_progressive.jpg");
    let scan_at = sound.windows(2).rposition(|pair| pair == b"\xff\xda").unwrap();
    let (before, last_scan) = sound.split_at(scan_at);
    let last_scan = &last_scan[..last_scan.len() - 2];
    let repeated = |times: usize| [before, &last_scan.repeat(times), b"\xff\xd9"].concat();
    assert!(decode(&repeated(1), &Limits::default()).is_ok());
    let (result, elapsed) = timed(|| decode(&repeated(500), &Limits::default()));
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "unsupported JPEG: more than 100 scans");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(elapsed < Duration::from_millis(50), "took {elapsed:?}");
}

#[test]
fn many_empty_scans_may_not_visit_a_large_picture_over_and_over() {
    let mut jpeg = common::read("jpeg_grey_progressive.jpg");
    let sof = jpeg.windows(2).position(|pair| pair == b"\xff\xc2").unwrap();
    // 8000 x 8000: a million blocks.
    jpeg[sof + 5..sof + 9].copy_from_slice(&[0x1f, 0x40, 0x1f, 0x40]);
    let scan_at = jpeg.windows(2).rposition(|pair| pair == b"\xff\xda").unwrap();
    let (before, last_scan) = jpeg.split_at(scan_at);
    let last_scan = &last_scan[..last_scan.len() - 2];
    let bytes = [before, &last_scan.repeat(90), b"\xff\xd9"].concat();
    let (result, elapsed) = timed(|| decode(&bytes, &Limits::default()));
    let error = result.unwrap_err().to_string();
    assert!(error.ends_with("scans over 1000000 blocks"), "{error}");
    assert!(elapsed < Duration::from_millis(50), "took {elapsed:?}");
}

#[test]
fn of_an_animation_with_thousands_of_frames_only_the_first_is_decoded() {
    let gif = common::read("gif_animated.gif");
    // Everything from the second frame's descriptor to the trailer, over and over.
    let descriptor = b",\0\0\0\0\x25\0\x1d\0";
    let frames = gif.windows(descriptor.len()).enumerate();
    let mut frames = frames.filter(|(_, bytes)| bytes == descriptor);
    let second = frames.nth(1).unwrap().0;
    let later = &gif[second..gif.len() - 1];
    let long = [&gif[..second], &later.repeat(5_000), b";"].concat();
    let (result, elapsed) = timed(|| decode(&long, &Limits::default()));
    assert_eq!(result, decode(&gif, &Limits::default()));
    assert!(elapsed < Duration::from_millis(100), "took {elapsed:?}");

    let webp = common::read("webp_animated.webp");
    let frame_at = webp.windows(4).position(|name| name == b"ANMF").unwrap();
    let size = u32::from_le_bytes(webp[frame_at + 4..frame_at + 8].try_into().unwrap());
    let frame = &webp[frame_at..frame_at + 8 + size as usize];
    let mut long = [&webp[..], &frame.repeat(5_000)].concat();
    let riff_size = (long.len() as u32 - 8).to_le_bytes();
    long[4..8].copy_from_slice(&riff_size);
    let (result, elapsed) = timed(|| decode(&long, &Limits::default()));
    assert_eq!(result, decode(&webp, &Limits::default()));
    assert!(elapsed < Duration::from_millis(500), "took {elapsed:?}");
}

/// Changes, cuts and doubles bytes; headers more often than the rest.
fn mutate(bytes: &mut Vec<u8>, random: &mut common::Random) {
    for _ in 0..=random.below(4) {
        if bytes.len() < 8 {
            return;
        }
        let anywhere = random.below(bytes.len());
        let header = random.below(bytes.len().min(200));
        let length = random.below(40).min(bytes.len() - anywhere);
        match random.below(8) {
            0 => bytes[anywhere] = random.next() as u8,
            1 => bytes[anywhere] ^= 1 << random.below(8),
            2 | 3 => bytes[header] = random.next() as u8,
            4 => bytes[header] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            5 => bytes.truncate(anywhere),
            6 => drop(bytes.drain(anywhere..anywhere + length)),
            _ => {
                let copy = bytes[anywhere..anywhere + length].to_vec();
                bytes.splice(header..header, copy);
            }
        }
    }
}

#[test]
fn mutated_pictures_never_panic_and_stay_in_time() {
    let limits = Limits { max_pixels: 1 << 20, max_memory: 16 << 20, ..Limits::default() };
    let transform = Transform::new(Options { height: 8, width: 8, ..Options::default() }).unwrap();
    let mut tensor = vec![0.0; transform.tensor_len()];
    let pictures = common::pictures();
    let mut random = common::Random::new(19);
    let (mut decoded, mut refused) = (0, 0);
    for (name, original) in &pictures {
        for round in 0..400 {
            let mut bytes = original.clone();
            mutate(&mut bytes, &mut random);
            let (result, elapsed) = timed(|| {
                let whole = decode(&bytes, &limits).map(|_| ());
                let picture = decode_for(&bytes, &limits, &mut [], &transform);
                assert_eq!(picture.as_ref().err(), whole.err().as_ref(), "{name}, {round}");
                picture.map(|picture| transform.apply(&picture, &mut tensor))
            });
            assert!(elapsed < Duration::from_secs(2), "{name}, round {round}: {elapsed:?}");
            match result {
                Ok(applied) => {
                    applied.unwrap();
                    decoded += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    // Both happen often, else the mutations are too weak or too strong.
    assert!(decoded > 2_000 && refused > 2_000, "{decoded} decoded, {refused} refused");
}
