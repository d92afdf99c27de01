//! Layer shapes that every variant must compute.

use super::{Case, Epilogue, RELU, RELU6, Window};

/// The layer shapes of MobileNetV2, SqueezeNet 1.0 and ResNet50 with fewer channels, and shapes
/// at the edges of the drivers' choices.
pub fn layers() -> Vec<Case> {
    let mut cases = vec![
        // Stems.
        Case::conv(3, 16, 224, 3, 2),
        Case::conv(3, 8, 224, 7, 2),
        Case::Conv {
            batch: 1,
            inputs: 3,
            outputs: 16,
            groups: 1,
            rows: Window::padded(224, 7, 2, 1, 0, 0),
            columns: Window::padded(224, 7, 2, 1, 0, 0),
            residual: false,
            end: RELU,
        },
    ];
    // 1x1 and 3x3 at the sides of the three models; strided shortcuts; odd channel counts.
    for side in [112, 56, 55, 54, 28, 27, 14, 13, 7] {
        cases.push(Case::conv(24, 16, side, 1, 1));
        cases.push(Case::conv(5, 20, side, 1, 1));
        cases.push(Case::conv(8, 8, side, 3, 1));
        cases.push(Case::conv(8, 16, side, 1, 2));
        cases.push(Case::conv(7, 12, side, 3, 2));
        cases.push(Case::depthwise(3, side, 3, 1));
        cases.push(Case::depthwise(3, side, 3, 2));
        cases.push(Case::depthwise(2, side, 5, 1));
        cases.push(Case::depthwise(2, side, 5, 2));
        cases.push(Case::max_pool(3, side, 3, 2, 0));
        cases.push(Case::max_pool(3, side, 3, 2, 1));
        cases.push(Case::max_pool(3, side, 2, 2, 0));
    }
    // Winograd's: several chunks, several blocks of channels, tiles over the edge.
    for (inputs, outputs, side) in
        [(64, 64, 56), (128, 24, 28), (256, 16, 14), (16, 20, 54), (3, 9, 13), (5, 8, 30)]
    {
        cases.push(Case::winograd(inputs, outputs, side));
    }
    // Colliding planes, several chunks of pixels and of rows, tiny maps.
    cases.push(Case::conv(96, 8, 56, 1, 1));
    cases.push(Case::conv(64, 9, 40, 1, 1));
    cases.push(Case::conv(64, 8, 40, 3, 1));
    cases.push(Case::conv(80, 8, 41, 3, 2));
    for side in 1..=5 {
        cases.push(Case::conv(40, 17, side, 1, 1));
        cases.push(Case::conv(9, 17, side, 3, 1));
        cases.push(Case::conv(9, 17, side, 3, 2));
        cases.push(Case::conv(9, 17, side, 1, 3));
        cases.push(Case::depthwise(9, side, 3, 1));
        cases.push(Case::depthwise(9, side, 3, 2));
    }
    // Wide strips: every remainder of a turn of thirteen steps and of 24 output channels; legs, in
    // which a residual is added once; panels.
    for steps in 1..=28 {
        cases.push(Case::conv(steps, 11 + steps, 6 + steps % 4, 1, 1));
    }
    for (inputs, outputs, side, kernel) in
        [(288, 24, 5, 1), (289, 40, 6, 1), (433, 25, 7, 1), (130, 141, 5, 1), (37, 76, 9, 3)]
    {
        for residual in [false, true] {
            let window = Window::same(side, kernel, 1);
            cases.push(Case::Conv {
                batch: 1,
                inputs,
                outputs,
                groups: 1,
                rows: window,
                columns: window,
                residual,
                end: RELU6,
            });
        }
    }
    // The same of windows: every remainder of a turn, of a row of tiles and of the output channels,
    // with each walk over the input; legs; rows in several chunks; windows that are not square.
    for inputs in 1..=18 {
        for (kernel, stride, dilation) in
            [(3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 3, 1), (5, 1, 1), (5, 2, 1), (7, 2, 1)]
        {
            let side = dilation * (kernel - 1) + 1 + stride * (1 + (inputs + kernel) % 13);
            let window = Window::padded(side, kernel, stride, dilation, kernel / 2, kernel / 2);
            cases.push(Case::Conv {
                batch: 1,
                inputs,
                outputs: 10 + (5 * inputs + kernel) % 31,
                groups: 1,
                rows: window,
                columns: window,
                residual: inputs % 2 == 0,
                end: if inputs % 3 == 0 { RELU } else { RELU6 },
            });
        }
    }
    for (inputs, outputs, side, kernel, stride) in [
        (32, 12, 9, 3, 1),
        (33, 25, 7, 3, 1),
        (49, 40, 10, 3, 2),
        (12, 37, 11, 5, 1),
        (13, 24, 23, 5, 2),
        (70, 20, 40, 3, 1),
        (80, 13, 41, 3, 2),
    ] {
        let window = Window::same(side, kernel, stride);
        let columns = [window, Window::same(side + 3, 1, 1), Window::same(side + 2, 3, 1)];
        for (columns, groups) in columns.into_iter().zip([1, 2, 1]) {
            cases.push(Case::Conv {
                batch: 1,
                inputs: inputs * groups,
                outputs: outputs * groups,
                groups,
                rows: window,
                columns,
                residual: true,
                end: RELU6,
            });
        }
    }
    // Curves, a few channels at a time: 24 on small maps, eight on large ones; several chunks.
    for (inputs, outputs, side, kernel) in
        [(16, 77, 36, 1), (16, 29, 38, 1), (300, 60, 20, 1), (9, 53, 21, 3), (40, 27, 48, 3)]
    {
        for residual in [false, true] {
            let window = Window::same(side, kernel, 1);
            cases.push(Case::Conv {
                batch: 1,
                inputs,
                outputs,
                groups: 1,
                rows: window,
                columns: window,
                residual,
                end: Epilogue { code: 4, low: 0.0, high: 0.0 },
            });
        }
    }
    // Every remainder of a row of vectors, with and without padding.
    for side in 5..=23 {
        for padding in [0, 1] {
            cases.push(Case::max_pool(2, side, 3, 2, padding));
            cases.push(Case::max_pool(2, side, 2, 2, padding));
        }
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2)] {
            cases.push(Case::depthwise(2, side, kernel, stride));
        }
    }
    // Every remainder of a row of tiles, and of a block of output channels, with every walk over
    // the input; sums in several legs.
    for side in 5..=19 {
        for (kernel, stride) in [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2), (7, 2), (1, 2)] {
            let window = Window::same(side, kernel, stride);
            cases.push(Case::Conv {
                batch: 1,
                inputs: 3,
                outputs: 1 + (side + kernel) % 12,
                groups: 1,
                rows: window,
                columns: window,
                residual: (side + kernel) % 2 == 0,
                end: RELU6,
            });
        }
    }
    for (inputs, outputs) in [(289, 1), (300, 4), (431, 7), (433, 11), (577, 16)] {
        for side in [1, 2, 3, 5, 7] {
            let window = Window::same(side, 1, 1);
            cases.push(Case::Conv {
                batch: 1,
                inputs,
                outputs,
                groups: 1,
                rows: window,
                columns: window,
                residual: side > 2,
                end: RELU,
            });
        }
    }
    // Planes too large for one chunk.
    cases.push(Case::depthwise(2, 280, 5, 1));
    cases.push(Case::depthwise(1, 281, 5, 2));
    // The padding that TensorFlow calls SAME: none before, one behind.
    for side in [224, 113, 112, 56, 14, 8] {
        let window = Window::padded(side, 3, 2, 1, 0, 1);
        let (rows, columns, residual) = (window, window, true);
        cases.push(Case::Depthwise { batch: 1, channels: 2, rows, columns, residual, end: RELU6 });
    }
    // One image of a residual block, and two.
    for batch in [1, 2] {
        for kernel in [1, 3] {
            let window = Window::same(14, kernel, 1);
            cases.push(Case::Conv {
                batch,
                inputs: 16,
                outputs: 24,
                groups: 1,
                rows: window,
                columns: window,
                residual: true,
                end: RELU,
            });
        }
    }
    cases.extend([Case::dense(1, 1280, 100), Case::dense(1, 2048, 64), Case::dense(7, 33, 65)]);
    cases.extend([Case::dense(1, 1, 1), Case::dense(4, 64, 32), Case::dense(5, 3, 31)]);
    for plane in [1, 3, 16, 49, 169] {
        cases.push(Case::MeanPool { batch: 2, channels: 10, plane });
    }
    cases
}
