//! The transform against Pillow's resize and torchvision's and Ultralytics' placing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;

use image_input::{Channels, Filter, Layout, Limits, Options, Picture, Resize, Transform, decode};

/// The pictures of `testdata/make.py`'s `pattern`.
fn pattern(kind: u32, width: u32, height: u32) -> Picture {
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

#[test]
fn every_resize_is_pillows_bit_for_bit() {
    let cases = String::from_utf8(common::read("resize.txt")).unwrap();
    assert!(cases.lines().count() > 200);
    let mut wrong = Vec::new();
    for case in cases.lines() {
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
        if format!("{:08x}", common::crc32(&pixels)) != crc {
            wrong.push(case);
        }
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn pillow_13_which_may_take_columns_first_is_at_most_one_level_away() {
    let expected = common::expected("one_call.zlib");
    let mut differing = 0;
    for (name, expected) in expected {
        let [kind, w, h] =
            name.split('_').map(|text| text.parse().unwrap()).collect::<Vec<_>>()[..]
        else {
            panic!("malformed name {name:?}");
        };
        let transform = Transform::new(Options {
            height: expected.height as usize,
            width: expected.width as usize,
            resize: Resize::Exact,
            layout: Layout::Nhwc,
            scale: vec![1.0],
            ..Options::default()
        })
        .unwrap();
        let mut tensor = vec![f32::NAN; transform.tensor_len()];
        transform.apply(&pattern(kind, w, h), &mut tensor).unwrap();
        for (&value, &pixel) in tensor.iter().zip(&expected.pixels) {
            let apart = (value - f32::from(pixel)).abs();
            assert!(apart <= 1.0, "{name} is off by {apart} levels");
            differing += usize::from(apart > 0.0);
        }
    }
    // Else these cases do not show what they are for.
    assert!(differing > 0);
}

#[test]
fn the_photographs_look_to_a_model_as_pillow_shows_them() {
    let Some(folder) = common::photographs() else {
        return;
    };
    let transform =
        Transform::new(Options { layout: Layout::Nhwc, scale: vec![1.0], ..Options::default() })
            .unwrap();
    let expected = common::expected("photos.zlib");
    assert_eq!(expected.len(), 11);
    for (name, expected) in expected {
        let picture = decode(&fs::read(folder.join(&name)).unwrap(), &Limits::default()).unwrap();
        let mut tensor = vec![0.0; transform.tensor_len()];
        transform.apply(&picture, &mut tensor).unwrap();
        // Every eighth pixel, from the fourth on.
        let seen = (4..224).step_by(8).flat_map(|y| (4..224).step_by(8).map(move |x| (y, x)));
        let seen = seen.flat_map(|(y, x)| &tensor[(y * 224 + x) * 3..][..3]);
        let worst = seen
            .zip(&expected.pixels)
            .map(|(&value, &pixel)| (value - f32::from(pixel)).abs())
            .fold(0.0, f32::max);
        let most = if name.ends_with(".png") { 0.0 } else { 3.0 };
        assert!(worst <= most, "{name} is off by {worst} levels");
    }
}
