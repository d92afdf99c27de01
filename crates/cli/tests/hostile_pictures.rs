//! Pictures made to hurt or to confuse, sent to the real module over HTTP: each is answered as
//! documented, quickly, and the next picture is answered right.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{net::SocketAddr, time::Duration};

use support::{Client, Server, User, digits, pictures, put, request};

// Of the server's computing. What is refused by its header takes a millisecond of it.
const AT_ONCE: Duration = Duration::from_secs(2);

fn served(arguments: &str) -> Option<(User, Server)> {
    let user = User::with_module(digits()?, "digits.wasm");
    let server = Server::start(&user, &format!("digits.wasm --instances 1 {arguments}"));
    Some((user, server))
}

/// What the instance's memory has grown to after its last answer.
#[track_caller]
fn memory(server: &Server) -> f64 {
    server.until_instances("idle", 1);
    server.metric("graphlet_instance_memory_bytes", &[])
}

#[track_caller]
fn seven_is_seven(address: SocketAddr) {
    assert_eq!(put(address, "/", &pictures::digit(7)).label(), "7");
}

#[test]
fn what_is_no_whole_picture_is_an_error_and_never_a_trap() {
    let Some((_user, server)) = served("") else { return };
    let address = server.address();
    let seven = pictures::digit(7);
    // Numbers without order, but always the same.
    let mut state = 15_u64;
    let random: Vec<u8> = (0..5000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let jpeg = pictures::testdata("jpeg_420.jpg");
    // The header says 97 pixels now, its checksum that it does not.
    let mut flipped = seven.clone();
    flipped[19] ^= 1;
    for (name, body, statuses) in [
        ("random", &random[..], &[415][..]),
        ("HTML", b"<!doctype html><html><body>404</body></html>", &[415]),
        ("PDF", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", &[415]),
        ("SVG", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", &[415]),
        ("one byte", b"\x89", &[415]),
        ("PNG's magic alone", &seven[..8], &[400]),
        ("half a PNG", &seven[..seven.len() / 2], &[400]),
        ("a PNG with a wrong byte", &flipped, &[400]),
        ("half a JPEG", &jpeg[..jpeg.len() / 2], &[400]),
        ("a JPEG's first bytes", &jpeg[..3], &[400, 415]),
    ] {
        let answer = put(address, "/", body);
        let (status, _) = answer.error();
        assert!(statuses.contains(&status), "{name}: {status} {}", answer.text());
        seven_is_seven(address);
    }
    let typed = request("PUT", "/", &[("Content-Type", "image/jpeg")], &seven);
    assert_eq!(Client::connect(address).exchange(typed).label(), "7", "the bytes count");
    // Cut anywhere before the end of the pixels, in one connection.
    let mut client = Client::connect(address);
    for length in (1..seven.len() - 20).step_by(7) {
        let answer = client.exchange(request("PUT", "/", &[], &seven[..length]));
        assert!(matches!(answer.error().0, 400 | 415), "{length} bytes: {}", answer.status);
    }
    assert_eq!(server.metric("graphlet_traps_total", &[]), 0.0);
}

#[test]
fn a_small_file_that_claims_a_huge_picture_is_refused_at_once_and_costs_no_memory() {
    let Some((_user, server)) = served("") else { return };
    seven_is_seven(server.address());
    let before = memory(&server);
    for (name, bytes) in pictures::claiming_huge() {
        assert!(bytes.len() < 1024, "{name} has {} bytes", bytes.len());
        let before = server.computed();
        let answer = put(server.address(), "/", &bytes);
        let took = server.computed() - before;
        assert!(took < AT_ONCE, "{name} took {took:?}");
        assert_eq!(answer.error(), (413, "image_too_large".into()), "{name}");
    }
    seven_is_seven(server.address());
    let grown = memory(&server) - before;
    assert!(grown < 1e6, "memory grew by {grown} bytes");
    assert_eq!(server.metric("graphlet_traps_total", &[]), 0.0);
}

#[test]
fn pixels_are_counted_to_the_last_one() {
    let Some((_user, server)) = served("") else { return };
    let side = 8_000_usize;
    let rows = pictures::zeros((side + 1) * (side + 1));
    let png = |height| pictures::png(side as u32, height, 8, 0, &[], &rows);
    // 64 megapixels are the limit: a black picture of that size is some digit.
    assert!(put(server.address(), "/", &png(8_000)).label().len() == 1);
    let answer = put(server.address(), "/", &png(8_001));
    assert_eq!(answer.error(), (413, "image_too_large".into()));
}

#[test]
fn bombs_are_not_blown_up() {
    let Some((_user, server)) = served("") else { return };
    seven_is_seven(server.address());
    let before = memory(&server);
    let bomb = pictures::zeros(256 << 20);
    let rows = pictures::zeros(8 * 9);
    let profile = pictures::chunk(b"iCCP", &[b"icc\0\0", &bomb[..]].concat());
    let text = pictures::chunk(b"zTXt", &[b"Comment\0\0", &bomb[..]].concat());
    let progressive = pictures::testdata("jpeg_444_progressive.jpg");
    let scan_at = progressive.windows(2).rposition(|pair| pair == b"\xff\xda").unwrap();
    let (head, scan) = progressive.split_at(scan_at);
    let scans = [head, &scan[..scan.len() - 2].repeat(500), b"\xff\xd9"].concat();
    for (name, bytes, statuses) in [
        (
            "a quarter of a gigabyte behind 8 x 8 pixels",
            pictures::png(8, 8, 8, 0, &[], &bomb),
            [200, 400],
        ),
        ("a colour profile", pictures::png(8, 8, 8, 0, &profile, &rows), [200, 400]),
        ("a comment", pictures::png(8, 8, 8, 0, &text, &rows), [200, 400]),
        ("501 scans", scans, [422, 422]),
    ] {
        let before = server.computed();
        let answer = put(server.address(), "/", &bytes);
        let took = server.computed() - before;
        assert!(took < AT_ONCE, "{name} took {took:?}");
        assert!(statuses.contains(&answer.status), "{name}: {}", answer.status);
    }
    seven_is_seven(server.address());
    let grown = memory(&server) - before;
    assert!(grown < 32e6, "memory grew by {grown} bytes");
    assert_eq!(server.metric("graphlet_traps_total", &[]), 0.0);
}

#[test]
fn of_an_animation_the_first_frame_is_classified() {
    let Some((_user, server)) = served("") else { return };
    // An animated PNG: 7 first, then 1 in an `fdAT` chunk.
    let seven = pictures::Grey::digit(7);
    let one = vec![0_u8; (96 + 1) * 96];
    let number = |value: u32| value.to_be_bytes();
    let control = |sequence: u32| {
        let data = [number(sequence), number(96), number(96), number(0), number(0)].concat();
        pictures::chunk(b"fcTL", &[&data[..], &[0, 1, 0, 10, 0, 0]].concat())
    };
    let animation = pictures::chunk(b"acTL", &[number(2), number(0)].concat());
    let plain = seven.png(8, 0, &[animation, control(0)].concat(), |value| vec![value]);
    let (before, end) = plain.split_at(plain.len() - 12);
    let frame = pictures::chunk(b"fdAT", &[&number(2)[..], &pictures::deflated(&one)].concat());
    let apng = [before, &control(1), &frame, end].concat();
    assert_eq!(put(server.address(), "/", &apng).label(), "7");
    for name in ["gif_animated.gif", "webp_animated.webp"] {
        assert_eq!(put(server.address(), "/", &pictures::testdata(name)).status, 200, "{name}");
    }
}

#[test]
fn however_the_same_pixels_are_stored_the_scores_are_the_same() {
    let Some((_user, server)) = served("") else { return };
    let address = server.address();
    let mut seven = pictures::Grey::digit(7);
    // No square, so that turned extents show.
    let background = seven.pixels[0];
    seven.height += 11;
    seven.pixels.extend(vec![background; 11 * seven.width as usize]);
    let expected = put(address, "/?top_k=10", &seven.png(8, 0, &[], |v| vec![v]));
    assert_eq!(expected.json()[0]["label"], "7");

    let palette: Vec<u8> = (0..=255).rev().flat_map(|value| [value; 3]).collect();
    let palette = pictures::chunk(b"PLTE", &palette);
    let mut variants = vec![
        ("16-bit grey".to_owned(), seven.png(16, 0, &[], |v| vec![v, v])),
        ("RGB".into(), seven.png(8, 2, &[], |v| vec![v; 3])),
        ("16-bit RGB".into(), seven.png(16, 2, &[], |v| vec![v; 6])),
        ("palette".into(), seven.png(8, 3, &palette, |v| vec![255 - v])),
        ("grey and alpha".into(), seven.png(8, 4, &[], |v| vec![v, 255])),
        (
            "black where it is not transparent".into(),
            seven.png(8, 6, &[], |v| vec![0, 0, 0, 255 - v]),
        ),
        ("BMP".into(), seven.bmp()),
    ];
    for orientation in 1..=8 {
        let exif = pictures::exif(orientation);
        let stored = seven.stored_as(orientation).png(8, 0, &exif, |v| vec![v]);
        variants.push((format!("EXIF orientation {orientation}"), stored));
    }
    for (name, bytes) in variants {
        let answer = put(address, "/?top_k=10", &bytes);
        assert_eq!(answer.text(), expected.text(), "{name}");
    }
}

#[test]
fn strange_kinds_and_extents_have_a_defined_answer() {
    let Some((_user, server)) = served("") else { return };
    let line = |width, height| {
        let pixels = vec![200; (width * height) as usize];
        pictures::Grey { width, height, pixels }.png(8, 0, &[], |v| vec![v])
    };
    for (name, bytes) in [
        ("CMYK", pictures::testdata("jpeg_cmyk.jpg")),
        ("YCCK", pictures::testdata("jpeg_ycck.jpg")),
        ("progressive", pictures::testdata("jpeg_420_progressive.jpg")),
        ("transparent GIF", pictures::testdata("gif_transparent.gif")),
        ("one bit a pixel", pictures::testdata("bmp_1_bit.bmp")),
        ("WebP with alpha", pictures::testdata("webp_lossy_alpha.webp")),
        ("1 x 1", line(1, 1)),
        ("1 x 16,384", line(1, 16_384)),
        ("16,384 x 1", line(16_384, 1)),
    ] {
        let answer = put(server.address(), "/", &bytes);
        assert_eq!(answer.label().len(), 1, "{name}");
    }
    let too_long = put(server.address(), "/", &line(1, 16_385));
    assert_eq!(too_long.error(), (413, "image_too_large".into()));
    assert_eq!(server.metric("graphlet_traps_total", &[]), 0.0);
}

#[test]
fn a_picture_that_exhausts_the_guests_memory_fails_alone() {
    let Some((_user, server)) = served("--memory 12MiB") else { return };
    let address = server.address();
    seven_is_seven(address);
    // 12 MB as they come: the guest cannot even take them in.
    let pixels = vec![255; 2000 * 2000];
    let large = pictures::Grey { width: 2000, height: 2000, pixels }.bmp();
    let answer = put(address, "/", &large);
    assert_eq!(answer.error(), (503, "actor_out_of_memory".into()));
    assert!(answer.header("retry-after").is_some());
    seven_is_seven(address);
    assert_eq!(server.metric("graphlet_traps_total", &[("reason", "out_of_memory")]), 1.0);
    let event = server.event("Instance trapped, a fresh one takes its place");
    assert_eq!(event["reason"], "out_of_memory");
    assert_eq!(event["level"], "WARN");
    assert_eq!(server.metric("graphlet_instances", &[]), 1.0);
    // A small file that grows to as much: the same answer, and the instance lives on.
    let small = pictures::png(4000, 3000, 8, 0, &[], &pictures::zeros(4001 * 3000));
    let again = put(address, "/", &small);
    assert_eq!((again.status, again.json()), (answer.status, answer.json()));
    assert_eq!(again.header("retry-after"), answer.header("retry-after"));
    seven_is_seven(address);

    let Some((_user, server)) = served("") else { return };
    assert_eq!(put(server.address(), "/", &large).label().len(), 1, "it is a good picture");
}
