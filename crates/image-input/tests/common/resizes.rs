//! Resizes of made-up pictures against the checksums of Pillow's; natively and in a guest.

use image_input::{Channels, Filter, Layout, Options, Picture, Resize, Transform};

/// The pictures of `testdata/make.py`'s `pattern`.
pub fn pattern(kind: u32, width: u32, height: u32) -> Picture<'static> {
    let noise = |index: u32| {
        let mut value = index.wrapping_mul(0x9e37_79b1);
        value ^= value >> 15;
        value = value.wrapping_mul(0x85eb_ca77);
        value ^= value >> 13;
        value as u8
    };
    let pixels = match kind {
        0 => (0..width * height * 3).map(noise).collect(),
        1 => (0..width * height * 3).map(|at| if noise(at) < 128 { 0 } else { 255 }).collect(),
        _ => (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| {
                let red = x * 255 / (width - 1).max(1);
                let green = y * 255 / (height - 1).max(1);
                let blue = if x * height > y * width { 200 } else { 40 };
                let corner = y < height / 3 && x < width / 4;
                if corner { [250, 240, 20] } else { [red as u8, green as u8, blue] }
            })
            .collect(),
    };
    Picture::from_pixels(width, height, 3, pixels).unwrap()
}

/// The lines of `testdata/resize.txt` whose resize gives something else than Pillow's.
pub fn wrong_resizes(cases: &str) -> Vec<&str> {
    cases.lines().filter(|case| !is_pillows(case)).collect()
}

fn is_pillows(case: &str) -> bool {
    let [kind, w, h, policy, shorter, height, width, channels, filter, crc] =
        case.split(' ').collect::<Vec<_>>()[..]
    else {
        panic!("malformed case {case:?}");
    };
    let number = |text: &str| text.parse::<u32>().unwrap();
    let transform = Transform::new(Options {
        height: number(height) as usize,
        width: number(width) as usize,
        resize: match policy {
            "exact" => Resize::Exact,
            "letterbox" => Resize::Letterbox,
            _ => Resize::ShorterSide(number(shorter)),
        },
        filter: match filter {
            "nearest" => Filter::Nearest,
            "bicubic" => Filter::Bicubic,
            _ => Filter::Bilinear,
        },
        channels: if channels == "grey" { Channels::Grey } else { Channels::Rgb },
        layout: Layout::Nhwc,
        scale: vec![1.0],
        ..Options::default()
    })
    .unwrap();
    let mut tensor = vec![f32::NAN; transform.tensor_len()];
    transform.apply(&pattern(number(kind), number(w), number(h)), &mut tensor).unwrap();
    let pixels: Vec<u8> = tensor.iter().map(|&value| value as u8).collect();
    let mut sum = flate2::Crc::new();
    sum.update(&pixels);
    format!("{:08x}", sum.sum()) == crc
}
