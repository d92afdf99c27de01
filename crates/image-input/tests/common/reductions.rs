//! JPEGs decoded whole and at reduced sizes against checksums, natively and in a guest: vectors and
//! plain numbers give the same bytes.

use image_input::{Limits, Options, Resize, Transform, decode_for};

/// The files, with what they are called.
pub const FILES: [(&str, &[u8]); 12] = [
    ("420", include_bytes!("../../testdata/jpeg_420.jpg")),
    ("420_restart", include_bytes!("../../testdata/jpeg_420_restart.jpg")),
    ("422", include_bytes!("../../testdata/jpeg_422.jpg")),
    ("444", include_bytes!("../../testdata/jpeg_444.jpg")),
    ("grey", include_bytes!("../../testdata/jpeg_grey.jpg")),
    ("quality_30", include_bytes!("../../testdata/jpeg_quality_30.jpg")),
    ("exif_6", include_bytes!("../../testdata/exif_6.jpg")),
    ("tall", include_bytes!("../../testdata/tall.jpg")),
    ("wide", include_bytes!("../../testdata/wide.jpg")),
    ("420_progressive", include_bytes!("../../testdata/jpeg_420_progressive.jpg")),
    ("444_progressive", include_bytes!("../../testdata/jpeg_444_progressive.jpg")),
    ("grey_progressive", include_bytes!("../../testdata/jpeg_grey_progressive.jpg")),
];

/// One line for each file and side of a square that it is decoded for: name, side, extents of what
/// is decoded, checksum of its pixels.
pub fn checksums() -> Vec<String> {
    let mut lines = Vec::new();
    for (name, bytes) in FILES {
        for side in [12, 6, 3, 1] {
            let resize = Resize::Exact;
            let options = Options { height: side, width: side, resize, ..Options::default() };
            let transform = Transform::new(options).unwrap();
            let picture = decode_for(bytes, &Limits::default(), &mut [], &transform).unwrap();
            let mut sum = flate2::Crc::new();
            sum.update(picture.pixels());
            let (width, height) = (picture.width(), picture.height());
            lines.push(format!("{name} {side} {width}x{height} {:08x}", sum.sum()));
        }
    }
    lines
}

/// Lines of `testdata/jpeg.txt` that are not so here.
pub fn wrong_checksums(expected: &str) -> Vec<String> {
    let actual = checksums();
    let mut wrong: Vec<String> = actual
        .iter()
        .zip(expected.lines())
        .filter(|(a, b)| a != b)
        .map(|(a, _)| a.clone())
        .collect();
    if expected.lines().count() != actual.len() {
        wrong.push(format!("{} lines", actual.len()));
    }
    wrong
}
