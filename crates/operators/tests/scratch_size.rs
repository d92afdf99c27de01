//! How much scratch the three models' layers take: a program of its own, because the buffer is
//! shared by all kernels of a process and never shrinks.
#![expect(unsafe_code, reason = "the C symbols take raw pointers")]

use std::ptr;

use operators::{graphlet_conv2d_f32, graphlet_depthwise_conv2d_f32, scratch};

/// Runs a convolution over a square map with half its taps as padding; the values are zero.
fn conv(inputs: i32, outputs: i32, side: i32, kernel: i32, stride: i32) {
    let padding = kernel / 2;
    let out = (side + 2 * padding - kernel) / stride + 1;
    let x = vec![0.0; (inputs * side * side) as usize];
    let mut y = vec![0.0; (outputs * out * out) as usize];
    let weights = vec![0.0; (outputs * inputs * kernel * kernel) as usize];
    let bias = vec![0.0; outputs as usize];
    // SAFETY: the buffers have these extents; `outputs` is a multiple of eight.
    let answer = unsafe {
        graphlet_conv2d_f32(
            x.as_ptr(),
            weights.as_ptr(),
            bias.as_ptr(),
            ptr::null(),
            y.as_mut_ptr(),
            1,
            inputs,
            side,
            side,
            outputs,
            out,
            out,
            kernel,
            kernel,
            stride,
            stride,
            1,
            1,
            padding,
            padding,
            1,
            0.0,
            6.0,
        )
    };
    assert_eq!(answer, 0);
}

/// Runs a depthwise convolution likewise.
fn depthwise(channels: i32, side: i32, kernel: i32, stride: i32) {
    let padding = kernel / 2;
    let out = (side + 2 * padding - kernel) / stride + 1;
    let x = vec![0.0; (channels * side * side) as usize];
    let mut y = vec![0.0; (channels * out * out) as usize];
    let weights = vec![0.0; (channels * kernel * kernel) as usize];
    let bias = vec![0.0; channels as usize];
    // SAFETY: the buffers have these extents.
    let answer = unsafe {
        graphlet_depthwise_conv2d_f32(
            x.as_ptr(),
            weights.as_ptr(),
            bias.as_ptr(),
            ptr::null(),
            y.as_mut_ptr(),
            1,
            channels,
            side,
            side,
            out,
            out,
            kernel,
            kernel,
            stride,
            stride,
            1,
            1,
            padding,
            padding,
            0.0,
            6.0,
        )
    };
    assert_eq!(answer, 0);
}

#[test]
fn the_layers_of_the_three_models_take_at_most_one_mebibyte() {
    // Scratch does not depend on the output channels: eight are enough.
    for (inputs, side, kernel, stride) in [
        (3, 224, 3, 2),
        (3, 224, 7, 2),
        (64, 56, 3, 1),
        (128, 56, 3, 2),
        (128, 28, 3, 1),
        (256, 28, 3, 2),
        (256, 14, 3, 1),
        (512, 14, 3, 2),
        (512, 7, 3, 1),
        (256, 56, 1, 1),
        (256, 56, 1, 2),
        (512, 28, 1, 2),
        (1024, 14, 1, 2),
        (2048, 7, 1, 1),
        (64, 54, 3, 1),
        (64, 27, 3, 1),
        (64, 13, 3, 1),
        (512, 13, 1, 1),
        (16, 112, 1, 1),
        (144, 56, 1, 1),
        (320, 7, 1, 1),
    ] {
        conv(inputs, 8, side, kernel, stride);
        let bytes = scratch::capacity_bytes();
        assert!(bytes <= 1 << 20, "{inputs} channels at {side}, {kernel}x{kernel}: {bytes}");
    }
    for (side, kernel, stride) in [(112, 3, 1), (112, 3, 2), (112, 5, 1), (7, 3, 1), (224, 7, 1)] {
        depthwise(2, side, kernel, stride);
    }
    // Larger maps are taken in chunks: all of this input would be 26 MB.
    conv(128, 8, 224, 3, 1);
    let bytes = scratch::capacity_bytes();
    assert!(bytes <= 1 << 20, "{bytes}");
    // What was needed is kept: a second run asks for nothing.
    conv(128, 8, 224, 3, 1);
    assert_eq!(scratch::capacity_bytes(), bytes);
    assert!(bytes > 0);
}
