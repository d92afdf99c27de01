//! JPEGs decoded at a reduced size for a transform, against the same transform of the whole
//! picture; and what the encoder of these tests says, against what is decoded.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;

use common::{
    Random,
    jpeg::{Jpeg, scene},
    reductions,
};
use image_input::{
    Channels, ErrorKind, Filter, Limits, Options, Resize, Transform, decode, decode_for,
};

fn options(side: usize) -> Options {
    let resize = Resize::ShorterSide(u32::try_from(side * 8 / 7).unwrap());
    Options { height: side, width: side, resize, scale: vec![1.0], ..Options::default() }
}

/// Mean difference between the tensor of the whole picture and that of the reduced one, in levels,
/// and by how much it was reduced.
fn difference(name: &str, bytes: &[u8], options: Options) -> (f64, u32) {
    let limits = Limits::default();
    let transform = Transform::new(options).unwrap();
    let whole = decode(bytes, &limits).unwrap_or_else(|error| panic!("{name}: {error}"));
    let reduced = decode_for(bytes, &limits, &mut [], &transform).unwrap();
    let apply = |picture| {
        let mut tensor = vec![f32::NAN; transform.tensor_len()];
        transform.apply(picture, &mut tensor).unwrap();
        tensor
    };
    let (expected, actual) = (apply(&whole), apply(&reduced));
    let differences = expected.iter().zip(&actual).map(|(a, b)| f64::from((a - b).abs()));
    (differences.sum::<f64>() / expected.len() as f64, whole.width().div_ceil(reduced.width()))
}

#[test]
fn photographs_are_the_same_to_two_levels_at_every_reduction() {
    let Some(folder) = common::photographs() else { return };
    let mut seen = [0; 9];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jpg") {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let name = path.display().to_string();
        for side in [20, 28, 40, 56, 80, 112, 224] {
            for filter in [Filter::Bilinear, Filter::Bicubic] {
                let (mean, factor) = difference(&name, &bytes, Options { filter, ..options(side) });
                assert!(mean <= 2.0, "{name} to {side}, {filter:?}: {mean:.3} levels");
                if factor == 1 {
                    assert_eq!(mean, 0.0, "{name} to {side}");
                }
                seen[factor as usize] += 1;
            }
        }
    }
    assert!([1, 2, 4, 8].iter().all(|&factor| seen[factor] > 5), "reductions seen: {seen:?}");
}

/// Samplings of three components, and of one alone.
fn samplings() -> Vec<Vec<(usize, usize)>> {
    let three = |luma| vec![luma, (1, 1), (1, 1)];
    vec![
        three((1, 1)),
        three((2, 1)),
        three((2, 2)),
        three((1, 2)),
        three((4, 1)),
        three((4, 2)),
        vec![(2, 2), (2, 1), (1, 2)],
        vec![(1, 1)],
        vec![(2, 2)],
        // One that has three times the samples is brought up otherwise.
        three((3, 1)),
    ]
}

#[test]
fn synthetic_pictures_of_any_sampling_and_size_are_the_same_to_two_levels() {
    let mut random = Random::new(5);
    let mut reductions = 0;
    for sampling in samplings() {
        for (width, height) in [(160, 120), (161, 123), (97, 255)] {
            for restart_interval in [0, 7] {
                let sampling = sampling.clone();
                let jpeg = Jpeg { width, height, sampling, restart_interval, step: 3 };
                let bytes = jpeg.encode(scene(&mut random));
                let name =
                    format!("{:?}, {width} x {height}, restart {restart_interval}", jpeg.sampling);
                for side in [14, 20, 28, 60] {
                    let resize = [Resize::ShorterSide(side as u32), Resize::Exact];
                    for resize in resize {
                        let options = Options { resize, ..options(side) };
                        let (mean, factor) = difference(&name, &bytes, options);
                        assert!(mean <= 2.0, "{name} to {side}, {resize:?}: {mean:.3} levels");
                        reductions += u32::from(factor > 1);
                    }
                }
            }
        }
    }
    assert!(reductions > 200, "only {reductions} were reduced");
}

#[test]
fn what_was_encoded_is_what_is_decoded() {
    let mut random = Random::new(11);
    for sampling in samplings() {
        for (width, height) in [(1, 1), (2, 3), (8, 8), (17, 16), (40, 33)] {
            for restart_interval in [0, 1, 2, 9] {
                let sampling = sampling.clone();
                let jpeg = Jpeg { width, height, sampling, restart_interval, step: 1 };
                let scene = scene(&mut random);
                // Luma alone: chroma is smoothed.
                let luma = |component: usize, x: usize, y: usize| {
                    if component == 0 { scene(0, x, y) } else { 128.0 }
                };
                let picture = decode(&jpeg.encode(luma), &Limits::default()).unwrap();
                assert_eq!((picture.width(), picture.height()), (width as u32, height as u32));
                let channels = picture.channels();
                assert_eq!(channels, jpeg.sampling.len());
                for (at, pixel) in picture.pixels().chunks(channels).enumerate() {
                    let expected = scene(0, at % width, at / width);
                    for &level in pixel {
                        let off = (f64::from(level) - expected).abs();
                        assert!(off < 2.5, "{:?} at {at}: {level}, {expected}", jpeg.sampling);
                    }
                }
            }
        }
    }
}

#[test]
fn orientation_and_reduction_go_together() {
    // What EXIF says, as a segment behind the first marker.
    let turned = |bytes: &[u8], orientation: u8| {
        let mut exif =
            b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        [&bytes[..2], &exif, &bytes[2..]].concat()
    };
    let mut random = Random::new(23);
    for (width, height) in [(160, 120), (163, 121), (91, 157)] {
        let sampling = vec![(2, 2), (1, 1), (1, 1)];
        let jpeg = Jpeg { width, height, sampling, restart_interval: 0, step: 2 };
        let bytes = jpeg.encode(scene(&mut random));
        for orientation in 1..=8 {
            let bytes = turned(&bytes, orientation);
            let upright = decode(&bytes, &Limits::default()).unwrap();
            let swapped = upright.width() as usize == height && width != height;
            assert_eq!(swapped, orientation > 4, "orientation {orientation}");
            for resize in [Resize::ShorterSide(13), Resize::Exact, Resize::Letterbox] {
                let options = Options { resize, width: 17, ..options(13) };
                let name = format!("{width} x {height}, orientation {orientation}, {resize:?}");
                let (mean, _) = difference(&name, &bytes, options);
                assert!(mean <= 2.0, "{name}: {mean:.3} levels");
            }
        }
    }
}

#[test]
fn other_jpegs_and_other_wishes_are_decoded_whole() {
    for name in ["jpeg_cmyk.jpg", "jpeg_ycck.jpg", "jpeg_stored_rgb.jpg"] {
        assert_eq!(difference(name, &common::read(name), options(2)), (0.0, 1), "{name}");
    }
    let nearest = Options { filter: Filter::Nearest, ..options(2) };
    assert_eq!(difference("nearest", &common::read("jpeg_444.jpg"), nearest), (0.0, 1));
    let grey = Options { channels: Channels::Grey, ..options(6) };
    let (mean, factor) = difference("grey", &common::read("jpeg_grey.jpg"), grey);
    assert!(mean <= 2.0 && factor == 2, "{mean} at 1/{factor}");
}

#[test]
fn a_file_cut_short_or_damaged_is_as_broken_as_when_it_is_decoded_whole() {
    let limits = Limits::default();
    let transform = Transform::new(options(6)).unwrap();
    let mut random = Random::new(31);
    for sampling in samplings() {
        let jpeg = Jpeg { width: 61, height: 45, sampling, restart_interval: 3, step: 2 };
        let bytes = jpeg.encode(scene(&mut random));
        for end in (0..bytes.len()).step_by(1 + bytes.len() / 300) {
            let error = decode_for(&bytes[..end], &limits, &mut [], &transform).unwrap_err();
            let whole = decode(&bytes[..end], &limits).unwrap_err();
            assert_eq!(error.kind(), whole.kind(), "{end} bytes: {error}, {whole}");
            // With its end mark the file looks whole, and its data ends too early.
            let cut = [&bytes[..end], b"\xff\xd9"].concat();
            let (reduced, whole) =
                (decode_for(&cut, &limits, &mut [], &transform), decode(&cut, &limits));
            if end + 8 < bytes.len() {
                let (error, whole) = (reduced.unwrap_err(), whole.unwrap_err());
                assert_eq!(error.kind(), whole.kind(), "{end} bytes and an end: {error}, {whole}");
                assert!(matches!(error.kind(), ErrorKind::Broken | ErrorKind::NotAnImage));
            }
        }
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            let at = random.below(damaged.len());
            damaged[at] ^= 1 << random.below(8);
            // Neither panics, and both see the same, for both read every code.
            let reduced = decode_for(&damaged, &limits, &mut [], &transform).map(|_| ());
            let whole = decode(&damaged, &limits).map(|_| ());
            assert_eq!(reduced, whole, "bit at {at}");
        }
    }
}

/// Files of the same coefficients, told in one scan and in ten.
const PROGRESSIVE: [(&str, &str); 3] = [
    ("jpeg_420.jpg", "jpeg_420_progressive.jpg"),
    ("jpeg_444.jpg", "jpeg_444_progressive.jpg"),
    ("jpeg_grey.jpg", "jpeg_grey_progressive.jpg"),
];

#[test]
fn a_progressive_file_is_the_same_picture_as_that_of_one_scan_at_every_size() {
    let limits = Limits::default();
    for (sequential, progressive) in PROGRESSIVE {
        let (one, ten) = (common::read(sequential), common::read(progressive));
        for side in [12, 6, 3, 1] {
            let resize = Resize::Exact;
            let transform = Transform::new(Options { resize, ..options(side) }).unwrap();
            let one = decode_for(&one, &limits, &mut [], &transform).unwrap();
            let ten = decode_for(&ten, &limits, &mut [], &transform).unwrap();
            assert_eq!((one.width(), one.height()), (ten.width(), ten.height()), "{side}");
            assert_eq!(one.pixels(), ten.pixels(), "{progressive} to {side}");
        }
    }
}

#[test]
fn progressive_files_of_any_sampling_size_and_restart_interval_are_that_of_one_scan() {
    let limits = Limits::default();
    let mut random = Random::new(43);
    for sampling in samplings() {
        for (width, height) in [(1, 1), (16, 8), (41, 33), (97, 75)] {
            for restart_interval in [0, 1, 5] {
                let sampling = sampling.clone();
                let jpeg = Jpeg { width, height, sampling, restart_interval, step: 3 };
                let scene = scene(&mut random);
                let (one, many) = (jpeg.encode(&scene), jpeg.encode_progressive(&scene));
                let name =
                    format!("{:?}, {width} x {height}, restart {restart_interval}", jpeg.sampling);
                for side in [width, 24, 12, 6] {
                    let resize = Resize::Exact;
                    let transform = Transform::new(Options { resize, ..options(side) }).unwrap();
                    let decode = |bytes| {
                        decode_for(bytes, &limits, &mut [], &transform)
                            .unwrap_or_else(|error| panic!("{name}: {error}"))
                    };
                    let (one, many) = (decode(&one), decode(&many));
                    assert_eq!((one.width(), one.height()), (many.width(), many.height()));
                    assert!(one.pixels() == many.pixels(), "{name} to {side}");
                }
                // Cut anywhere, or with a bit turned: no panic, and as broken at each size.
                let transform = Transform::new(options(6)).unwrap();
                for _ in 0..12 {
                    let mut damaged = many.clone();
                    let at = random.below(damaged.len());
                    damaged[at] ^= 1 << random.below(8);
                    let reduced = decode_for(&damaged, &limits, &mut [], &transform).map(|_| ());
                    assert_eq!(reduced, decode(&damaged, &limits).map(|_| ()), "{name}: {at}");
                    let cut = [&many[..at], b"\xff\xd9"].concat();
                    let reduced = decode_for(&cut, &limits, &mut [], &transform).map(|_| ());
                    assert_eq!(reduced, decode(&cut, &limits).map(|_| ()), "{name}: cut at {at}");
                }
            }
        }
    }
}

#[test]
fn a_damaged_progressive_file_is_as_broken_at_each_size_and_never_a_panic() {
    let limits = Limits::default();
    let transform = Transform::new(options(3)).unwrap();
    let mut random = Random::new(37);
    for (_, name) in PROGRESSIVE {
        let bytes = common::read(name);
        let scans = bytes.windows(2).position(|pair| pair == b"\xff\xda").unwrap();
        let mut broken = 0;
        for _ in 0..2000 {
            let mut damaged = bytes.clone();
            let at = scans + random.below(damaged.len() - scans);
            damaged[at] ^= 1 << random.below(8);
            let reduced = decode_for(&damaged, &limits, &mut [], &transform).map(|_| ());
            let whole = decode(&damaged, &limits).map(|_| ());
            assert_eq!(reduced, whole, "{name}, byte {at}");
            broken += u32::from(whole.is_err());
        }
        assert!(broken > 100, "{name}: {broken} of 2000 were seen to be broken");
    }
}

#[test]
fn scans_that_contradict_themselves_are_refused() {
    let sound = common::read("jpeg_420_progressive.jpg");
    let scans: Vec<usize> =
        (0..sound.len() - 1).filter(|&at| sound[at..].starts_with(b"\xff\xda")).collect();
    // The end of the first scan's header (three components) and of the second's (one).
    let (all, one) = (scans[0] + 4 + 7, scans[1] + 4 + 3);
    for (what, at, value) in [
        ("first and other coefficients in one scan", all + 1, 5),
        ("a band of several components", all, 1),
        ("a band that ends before it begins", one + 1, 0),
        ("a coefficient beyond the last", one + 1, 64),
        ("a bit above all", one + 2, 0x0e),
        ("a bit that does not follow the last one", one + 2, 0x30),
        ("a component that is not there", scans[1] + 5, 9),
        ("a table that is not there", scans[1] + 6, 3),
        ("a component twice", scans[0] + 7, sound[scans[0] + 5]),
    ] {
        let mut bytes = sound.clone();
        bytes[at] = value;
        let error = decode(&bytes, &Limits::default()).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Broken, "{what}: {error}");
    }
}

#[test]
fn a_progressive_picture_that_is_reduced_takes_less_memory() {
    let bytes = common::read("jpeg_420_progressive.jpg");
    // 5 x 4 units at most; whole, 30 blocks of 136 bytes and a picture.
    let limits = Limits { max_memory: 4_000, ..Limits::default() };
    assert_eq!(decode(&bytes, &limits).unwrap_err().kind(), ErrorKind::TooLarge);
    let transform = Transform::new(Options { resize: Resize::Exact, ..options(3) }).unwrap();
    decode_for(&bytes, &limits, &mut [], &transform).unwrap();
}

#[test]
fn committed_jpegs_decode_to_the_same_bytes_at_every_size() {
    // `in_wasm` compares the same lines in a guest. Where the decoder changes, these are the new
    // ones: each must be as near to the old one as the other tests demand.
    let expected = String::from_utf8(common::read("jpeg.txt")).unwrap();
    let wrong = reductions::wrong_checksums(&expected);
    assert!(wrong.is_empty(), "{}", reductions::checksums().join("\n"));
}

#[test]
fn a_reduced_picture_takes_less_memory() {
    let sampling = vec![(2, 2), (1, 1), (1, 1)];
    let jpeg = Jpeg { width: 320, height: 240, sampling, restart_interval: 0, step: 20 };
    let bytes = jpeg.encode(|_, x, y| ((x ^ y) & 255) as f64);
    let limits = Limits { max_memory: 60_000, ..Limits::default() };
    assert_eq!(decode(&bytes, &limits).unwrap_err().kind(), ErrorKind::TooLarge);
    let transform = Transform::new(options(20)).unwrap();
    decode_for(&bytes, &limits, &mut [], &transform).unwrap();
}
