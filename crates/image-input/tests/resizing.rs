//! The transform against Pillow's resize and torchvision's and Ultralytics' placing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;

use common::resizes::{pattern, wrong_resizes};
use image_input::{Layout, Limits, Options, Resize, Transform, decode};

#[test]
fn every_resize_is_pillows_bit_for_bit() {
    let cases = String::from_utf8(common::read("resize.txt")).unwrap();
    assert!(cases.lines().count() > 200);
    let wrong = wrong_resizes(&cases);
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
