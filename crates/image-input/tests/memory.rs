//! Memory while hostile headers are read; alone in its process, for it looks at the whole of it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;

use image_input::{Limits, decode};

/// Largest size of the address space so far, in KiB: counts pages that were never touched too.
fn peak_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[test]
fn refused_headers_allocate_nothing_large() {
    let Some(before) = peak_kib() else {
        eprintln!("skipped: this system does not tell the size of the address space");
        return;
    };
    let mut png = common::read("png_rgb.png");
    png[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    // The header's checksum must hold, else it is refused before its size is looked at.
    let crc = common::crc32(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&crc);
    let mut jpeg = common::read("jpeg_420_progressive.jpg");
    let sof = jpeg.windows(2).position(|pair| pair == b"\xff\xc2").unwrap();
    jpeg[sof + 5..sof + 9].fill(0xff);
    // The inner header of a WebP: its outer one stays small.
    let mut webp = common::read("webp_lossy_alpha.webp");
    let vp8 = webp.windows(4).position(|name| name == b"VP8 ").unwrap();
    webp[vp8 + 14..vp8 + 18].fill(0xff);
    let mut gif = common::read("gif_palette.gif");
    let frame = gif.windows(9).position(|bytes| bytes == b",\0\0\0\0\x25\0\x1d\0").unwrap();
    gif[frame + 5..frame + 9].fill(0xff);
    for (name, bytes) in [("PNG", png), ("JPEG", jpeg), ("WebP", webp), ("GIF", gif)] {
        let error = decode(&bytes, &Limits::default()).expect_err(name);
        assert!(error.to_string().contains("image is "), "{name}: {error}");
    }
    let grown = peak_kib().unwrap() - before;
    assert!(grown < 8 << 10, "the address space grew by {grown} KiB");
}
