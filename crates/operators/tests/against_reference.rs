//! The native kernels, called through their C symbols, against the plain reference.
#![expect(unsafe_code, reason = "the C symbols take raw pointers")]

mod support;

use std::ptr;

use operators::{
    graphlet_activation_f32, graphlet_add_f32, graphlet_avg_pool2d_f32, graphlet_conv2d_f32,
    graphlet_conv2d_winograd_f32, graphlet_dense_f32, graphlet_depthwise_conv2d_f32,
    graphlet_global_avg_pool_f32, graphlet_layer_norm_f32, graphlet_matmul_f32,
    graphlet_max_pool2d_f32, graphlet_mul_f32, graphlet_softmax_f32, graphlet_transpose_f32,
};
use support::{Call, Case, Epilogue, Random, Values, Window};

/// Runs a call natively. The output begins as NaN, so that a value nobody wrote shows, and so do
/// the values around it, so that a write outside shows.
fn run(call: &Call) -> Result<Vec<f32>, i32> {
    const MARGIN: usize = 64;
    let mut output = vec![f32::NAN; call.want.len() + 2 * MARGIN];
    let (x, w, b) = (call.x.as_ptr(), call.weights.as_ptr(), call.bias.as_ptr());
    let r = match &call.residual {
        Some(residual) if !residual.is_empty() => residual.as_ptr(),
        _ => ptr::null(),
    };
    let Epilogue { code, low: lo, high: hi } = call.epilogue.unwrap_or(support::NO_CLAMP);
    let last = call.last.unwrap_or(0.0);
    let y = output[MARGIN..].as_mut_ptr();
    let e = &call.extents[..];
    // SAFETY: `Case::prepare` made the buffers with the extents it passes, in the layouts that
    // the symbols document.
    let answer = unsafe {
        match call.symbol {
            "graphlet_conv2d_f32" => graphlet_conv2d_f32(
                x, w, b, r, y, e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7], e[8], e[9], e[10],
                e[11], e[12], e[13], e[14], e[15], code, lo, hi,
            ),
            "graphlet_conv2d_winograd_f32" => graphlet_conv2d_winograd_f32(
                x, w, b, r, y, e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7], e[8], code, lo, hi,
            ),
            "graphlet_depthwise_conv2d_f32" => graphlet_depthwise_conv2d_f32(
                x, w, b, r, y, e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7], e[8], e[9], e[10],
                e[11], e[12], e[13], code, lo, hi,
            ),
            "graphlet_dense_f32" => graphlet_dense_f32(x, w, b, y, e[0], e[1], e[2], code, lo, hi),
            "graphlet_max_pool2d_f32" => graphlet_max_pool2d_f32(
                x, y, e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7], e[8], e[9], e[10], e[11],
            ),
            "graphlet_avg_pool2d_f32" => graphlet_avg_pool2d_f32(
                x, y, e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7], e[8], e[9], e[10], e[11],
                e[12],
            ),
            "graphlet_activation_f32" => graphlet_activation_f32(x, y, e[0], code, lo, hi),
            "graphlet_add_f32" => graphlet_add_f32(
                x, w, y, e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7], e[8], e[9], e[10], e[11],
            ),
            "graphlet_mul_f32" => graphlet_mul_f32(
                x, w, y, e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7], e[8], e[9], e[10], e[11],
            ),
            "graphlet_softmax_f32" => graphlet_softmax_f32(x, y, e[0], e[1]),
            "graphlet_layer_norm_f32" => graphlet_layer_norm_f32(x, w, r, y, e[0], e[1], last),
            "graphlet_matmul_f32" => {
                graphlet_matmul_f32(x, w, y, e[0], e[1], e[2], e[3], e[4], e[5], last)
            }
            "graphlet_transpose_f32" => graphlet_transpose_f32(x, y, e[0], e[1], e[2], e[3]),
            _ => graphlet_global_avg_pool_f32(x, y, e[0], e[1], e[2]),
        }
    };
    let (before, rest) = output.split_at(MARGIN);
    let (output, behind) = rest.split_at(call.want.len());
    assert!(before.iter().chain(behind).all(|value| value.is_nan()), "a write outside the output");
    if answer == 0 { Ok(output.to_vec()) } else { Err(answer) }
}

fn check(case: Case, seed: u64) {
    let call = case.prepare(seed);
    let got = run(&call).unwrap_or_else(|code| panic!("{case:?} answers {code}"));
    call.check(&got).unwrap_or_else(|error| panic!("{case:?} with seed {seed}: {error}"));
}

#[test]
fn every_layer_shape_agrees_with_the_reference() {
    for (seed, case) in support::layers::layers().into_iter().enumerate() {
        check(case, seed as u64);
    }
}

#[test]
fn any_odd_shape_agrees_with_the_reference() {
    let mut random = Random::new(7);
    for seed in 0..2000 {
        check(Case::random(&mut random), seed);
    }
}

#[test]
fn a_value_passes_where_there_is_no_clamp() {
    let mut call = Case::dense(1, 1, 3).prepare(1);
    call.x = vec![1.0];
    call.weights[..3].copy_from_slice(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
    let y = run(&call).expect("the geometry is valid");
    assert!(y[0] == f32::INFINITY && y[1] == f32::NEG_INFINITY && y[2].is_nan(), "{y:?}");
}

#[test]
fn a_nan_passes_through_a_clamp_and_a_maximum_skips_it() {
    for mut call in [
        Case::depthwise(1, 8, 3, 1).prepare(1),
        Case::depthwise(1, 8, 5, 1).prepare(1),
        Case::conv(1, 1, 8, 3, 1).prepare(1),
    ] {
        call.x.fill(f32::NAN);
        let y = run(&call).expect("the geometry is valid");
        assert!(y.iter().all(|value| value.is_nan()), "{} {y:?}", call.symbol);
    }
    for side in [3, 9] {
        let mut call = Case::max_pool(1, side, 3, 2, 1).prepare(1);
        call.x.fill(f32::NAN);
        call.x[0] = 3.0;
        let y = run(&call).expect("the geometry is valid");
        assert_eq!(y[0], 3.0);
        assert!(y[1..].iter().all(|value| *value == f32::NEG_INFINITY), "{y:?}");
    }
}

#[test]
fn bad_geometry_is_refused_before_anything_is_read() {
    let call = Case::conv(4, 8, 8, 3, 1).prepare(1);
    for at in 0..call.extents.len() {
        for value in [0, -1, i32::MIN, i32::MAX] {
            // Padding may be zero.
            if (value == 0 && (at == 13 || at == 14)) || call.extents[at] == value {
                continue;
            }
            let mut call = call.clone();
            call.extents[at] = value;
            assert_eq!(run(&call), Err(-1), "argument {at} is {value}");
        }
    }
    let mut empty = call.clone();
    empty.epilogue = Some(Epilogue::clamp(1.0, 0.0));
    assert_eq!(run(&empty), Err(-1));
    for code in [-1, 8, i32::MAX] {
        empty.epilogue = Some(Epilogue { code, low: 0.0, high: 1.0 });
        assert_eq!(run(&empty), Err(-1));
    }
    let mut call = Case::max_pool(2, 8, 3, 2, 0).prepare(1);
    call.extents[4] = 40;
    assert_eq!(run(&call), Err(-1));
    let mut call = Case::dense(1, 4, 4).prepare(1);
    call.extents = vec![1 << 16, 1 << 16, 4];
    assert_eq!(run(&call), Err(-1));
    let mut call = Case::MeanPool { batch: 1, channels: 2, plane: 4 }.prepare(1);
    call.extents[2] = 0;
    assert_eq!(run(&call), Err(-1));
    // SAFETY: a null pointer is answered before anything is read.
    let answer = unsafe { graphlet_global_avg_pool_f32(ptr::null(), ptr::null_mut(), 1, 1, 1) };
    assert_eq!(answer, -1);
}

#[test]
fn bad_extents_of_rows_and_values_are_refused() {
    for case in Values::examples() {
        let call = case.prepare(&mut Random::new(1));
        assert!(run(&call).is_ok(), "{case:?}");
        for at in 0..call.extents.len() {
            for value in [-1, i32::MIN, i32::MAX] {
                let mut call = call.clone();
                // Whether an operand is transposed is any number.
                if (call.symbol, at) == ("graphlet_matmul_f32", 5) {
                    continue;
                }
                call.extents[at] = value;
                assert_eq!(run(&call), Err(-1), "{case:?}, argument {at} is {value}");
            }
        }
        // A right operand inside another one.
        if call.symbol == "graphlet_matmul_f32" {
            let mut call = call.clone();
            call.extents[4] = 1;
            assert_eq!(run(&call), Err(-1));
        }
    }
}

#[test]
fn an_activation_may_write_where_it_reads() {
    for count in [1, 3, 4, 7, 16, 37] {
        for code in 1..=7 {
            let end = Epilogue::curve(code);
            let call = Values::Activation { count, end }.prepare(&mut Random::new(5));
            let mut values = call.x.clone();
            let y = values.as_mut_ptr();
            // SAFETY: `y` holds `count` values.
            let answer = unsafe { graphlet_activation_f32(y, y, count, code, end.low, end.high) };
            assert_eq!(answer, 0);
            call.check(&values).unwrap_or_else(|error| panic!("{code} of {count}: {error}"));
        }
    }
}

#[test]
fn curves_keep_nan_and_reach_their_limits() {
    let huge = [f32::NAN, 1e30, -1e30, 0.0];
    for (code, high, low) in [
        (1, 1.0, 0.0),
        (2, 1e30, 0.0),
        (3, 1.0, 0.0),
        (4, 1e30, 0.0),
        (5, 1e30, 0.0),
        (6, 1e30, 0.0),
        (7, 1.0, -1.0),
    ] {
        let end = Epilogue::curve(code);
        let mut call = Values::Activation { count: 4, end }.prepare(&mut Random::new(5));
        call.x = huge.to_vec();
        let y = run(&call).expect("the geometry is valid");
        assert!(y[0].is_nan(), "{code}: {y:?}");
        assert!((y[1] - high).abs() <= high * 1e-6, "{code}: {y:?}");
        // The exponential stops at e^88 and so does what it is divided by.
        let slack = if code == 2 { 1e-7 } else { 1e-6 };
        assert!((y[2] - low).abs() <= slack, "{code}: {y:?}");
    }
}

#[test]
fn softmax_takes_infinities_and_nan_as_numpy_does() {
    let softmax = |x: &[f32]| {
        let mut call =
            Values::Softmax { rows: 1, count: x.len() as i32 }.prepare(&mut Random::new(1));
        call.x = x.to_vec();
        run(&call).expect("the geometry is valid")
    };
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    assert_eq!(softmax(&[-inf, 0.0, -inf]), [0.0, 1.0, 0.0]);
    assert_eq!(softmax(&[3e38, -3e38, 3e38, -inf, 3e38, 3e38]), [0.25, 0.0, 0.25, 0.0, 0.25, 0.25]);
    for row in [
        [-inf; 5],
        [0.0, 1.0, nan, 2.0, 3.0],
        [nan, -inf, 0.0, 0.0, 1.0],
        [inf, 0.0, 1.0, 2.0, -inf],
    ] {
        assert!(softmax(&row).iter().all(|value| value.is_nan()), "{row:?}");
    }
}

#[test]
fn a_window_without_any_input_gives_the_bias() {
    let rows = Window { input: 4, output: 9, kernel: 3, stride: 1, dilation: 1, before: 4 };
    for (inputs, outputs, groups) in [(2, 9, 1), (2, 2, 2)] {
        check(
            Case::Conv {
                batch: 1,
                inputs,
                outputs,
                groups,
                rows,
                columns: rows,
                residual: true,
                end: support::NO_CLAMP,
            },
            3,
        );
    }
    let end = support::NO_CLAMP;
    check(Case::Depthwise { batch: 1, channels: 3, rows, columns: rows, residual: true, end }, 3);
    check(Case::MaxPool { batch: 1, channels: 3, rows, columns: rows }, 3);
}

/// Root mean square of the rounding errors of one 1x1 convolution with `steps` input channels, in
/// the kernel and in a plain running sum.
fn rounding(mut call: Call, steps: usize, pixels: usize) -> [f64; 2] {
    let mut random = Random::new(3);
    for value in call.x.iter_mut().chain(&mut call.weights) {
        *value = (random.next() >> 40) as f32 / (1 << 24) as f32 - 0.5;
    }
    let got = run(&call).expect("the geometry is valid");
    let mut squares = [0.0; 2];
    for (pixel, got) in got.iter().enumerate().take(pixels) {
        let products = (0..steps).map(|k| (call.x[k * pixels + pixel], call.weights[k * 8]));
        let exact: f64 = f64::from(call.bias[0])
            + products.clone().map(|(x, w)| f64::from(x) * f64::from(w)).sum::<f64>();
        let plain = products.fold(call.bias[0], |sum, (x, w)| sum + x * w);
        for (square, sum) in squares.iter_mut().zip([*got, plain]) {
            *square += (f64::from(sum) - exact).powi(2) / pixels as f64;
        }
    }
    squares.map(f64::sqrt)
}

#[test]
fn long_sums_round_less_than_a_running_sum_does() {
    let [kernel, plain] = rounding(Case::conv(960, 8, 64, 1, 1).prepare(1), 960, 64 * 64);
    assert!(kernel < 0.6 * plain, "rounding error {kernel:e}, of a running sum {plain:e}");
}
