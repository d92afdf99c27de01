//! Every format and mode against what Pillow decodes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use image_input::{ErrorKind, ImageError, Limits, decode, decode_in};

/// How far a picture may be from Pillow's, in levels: JPEG and lossy WebP leave the inverse
/// transform and the chroma filter a little room; alpha rounds once more; all else is exact.
fn tolerance(name: &str) -> u8 {
    match name {
        _ if name.ends_with(".jpg") => 4,
        "webp_lossy.webp" | "webp_lossy_alpha.webp" | "one_pixel.webp" => 2,
        _ if name.contains("alpha") || name.contains("rgba") || name.contains("transparent") => 1,
        _ => 0,
    }
}

#[test]
fn every_committed_picture_decodes_as_pillow_decodes_it() {
    let expected = common::expected("expected.zlib");
    assert!(expected.len() > 55, "only {} pictures", expected.len());
    for (name, expected) in expected {
        let picture = decode(&common::read(&name), &Limits::default())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let extents = (picture.width(), picture.height(), picture.channels());
        assert_eq!(extents, (expected.width, expected.height, expected.channels), "{name}");
        let worst = picture.pixels().iter().zip(&expected.pixels);
        let worst = worst.map(|(&pixel, &wanted)| pixel.abs_diff(wanted)).max().unwrap();
        assert!(worst <= tolerance(&name), "{name} is off by {worst} levels");
    }
}

#[test]
fn a_picture_cut_short_anywhere_is_an_error() {
    // Not the last bytes of a PNG or GIF: there the picture is whole, and only its end mark, a
    // checksum, or a later frame is missing.
    for (name, bytes) in common::pictures() {
        if name.contains("animated") || name.starts_with("tall") || name.starts_with("wide") {
            continue;
        }
        let spare = match name.rsplit('.').next().unwrap() {
            // The stream's end code and checksum, the chunk's, and the end chunk.
            "png" => 2 + 4 + 4 + 12,
            // The end code's block, the terminator, and the trailer.
            "gif" => 4,
            // Only the last row's padding.
            "bmp" => 3,
            _ => 0,
        };
        // An eXIf chunk after the pixels is not missed.
        let spare = if name == "png_exif_6.png" { 200 } else { spare };
        let end = bytes.len().saturating_sub(spare);
        // Every length of a small picture, some hundreds of a larger one, and the last.
        for length in (0..end).step_by(1 + end / 400).chain([end - 1]) {
            let result = decode(&bytes[..length], &Limits::default());
            let error = result.err().unwrap_or_else(|| {
                panic!("{name}, {} bytes: {length} of them were enough", bytes.len())
            });
            let kind = error.kind();
            // Too little to tell the format by, or a broken one.
            let cut_magic = length < 18 && kind == ErrorKind::NotAnImage;
            assert!(cut_magic || kind == ErrorKind::Broken, "{name} at {length}: {error}");
        }
    }
}

#[test]
fn what_is_not_an_image_is_told_apart_from_a_broken_one() {
    let mut random = common::Random::new(15);
    let noise: Vec<u8> = (0..4096).map(|_| random.next() as u8).collect();
    for (bytes, expected) in [
        (&b""[..], ErrorKind::Broken),
        (b"\0", ErrorKind::NotAnImage),
        (b"<!DOCTYPE html><html><body>not here</body></html>", ErrorKind::NotAnImage),
        (b"{\"instances\": []}", ErrorKind::NotAnImage),
        (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", ErrorKind::NotAnImage),
        (&noise, ErrorKind::NotAnImage),
        (b"\x89PNG\r\n\x1a\n", ErrorKind::Broken),
        (b"\xff\xd8\xff\xe0", ErrorKind::Broken),
        (b"GIF89a", ErrorKind::Broken),
    ] {
        assert_eq!(decode(bytes, &Limits::default()).unwrap_err().kind(), expected, "{bytes:?}");
    }
}

#[test]
fn a_picture_passes_limits_that_it_just_meets_and_no_tighter_ones() {
    let bytes = common::read("png_rgb.png");
    let just = Limits { max_side: 37, max_pixels: 37 * 29, ..Limits::default() };
    assert!(decode(&bytes, &just).is_ok());
    assert!(matches!(
        decode(&bytes, &Limits { max_side: 36, ..just }),
        Err(ImageError::SideTooLong { width: 37, height: 29, limit: 36 })
    ));
    assert!(matches!(
        decode(&bytes, &Limits { max_pixels: 37 * 29 - 1, ..just }),
        Err(ImageError::TooManyPixels { .. })
    ));
    for (name, bytes) in common::pictures() {
        if name.starts_with("one_pixel") {
            continue;
        }
        let error = decode(&bytes, &Limits { max_memory: 300, ..Limits::default() });
        assert!(
            matches!(error, Err(ImageError::TooMuchMemory { .. })),
            "{name} took more than 300 bytes: {error:?}"
        );
    }
}

#[test]
fn pictures_in_lent_memory_are_the_same_whatever_was_there_before() {
    for (name, bytes) in common::pictures() {
        let own = decode(&bytes, &Limits::default()).expect(&name);
        for len in [0, 100, own.pixels().len(), 1 << 20] {
            let mut scratch = vec![0xa5; len];
            let lent = decode_in(&bytes, &Limits::default(), &mut scratch).expect(&name);
            assert_eq!(lent, own, "{name} in {len} bytes");
        }
    }
}
