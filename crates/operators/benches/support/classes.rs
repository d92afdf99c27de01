//! Layer classes with layers of the models that the bench looks at.

use super::support::{Case, Epilogue, NO_CLAMP, Values, Window};

/// Where weights lie before a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// In the caches, where the last call left them.
    Warm,
    /// In memory.
    Cold,
}

/// Layers of one kind.
pub struct Class {
    pub name: &'static str,
    pub weights: Weights,
    pub cases: Vec<Case>,
}

/// A case in few words: sizes as `channels->channels side kernel/stride`.
pub fn describe(case: &Case) -> String {
    match case {
        Case::Conv { inputs, outputs, rows, .. } => {
            let Window { input, kernel, stride, .. } = rows;
            format!("{inputs}->{outputs} {input}x{input} {kernel}x{kernel}/{stride}")
        }
        Case::Winograd { inputs, outputs, rows, .. } => {
            format!("{inputs}->{outputs} {0}x{0}", rows.input)
        }
        Case::Depthwise { channels, rows, .. }
        | Case::MaxPool { channels, rows, .. }
        | Case::AvgPool { channels, rows, .. } => {
            let Window { input, kernel, stride, .. } = rows;
            format!("{channels} {input}x{input} {kernel}x{kernel}/{stride}")
        }
        Case::Dense { batch, inputs, outputs, .. } => format!("{batch}x{inputs}->{outputs}"),
        Case::MeanPool { channels, plane, .. } => format!("{channels}x{plane}"),
        Case::Values(values) => match values {
            Values::Activation { count, end } => format!("curve {} {count}", end.code),
            Values::Join { a: [.., a, b], multiply, .. } => {
                format!("{} {a}x{b}", if *multiply { "mul" } else { "add" })
            }
            Values::Softmax { rows, count } => format!("softmax {rows}x{count}"),
            Values::LayerNorm { rows, count, .. } => format!("layer norm {rows}x{count}"),
            Values::MatMul { batch, m, k, n, transposed, .. } => {
                let mark = if *transposed { "^T" } else { "" };
                format!("matmul {batch}x{m}x{k}x{n}{mark}")
            }
            Values::Transpose { extents: [a, b, c, d] } => format!("transpose {a}x{b}x{c}x{d}"),
        },
    }
}

fn warm(name: &'static str, cases: Vec<Case>) -> Class {
    Class { name, weights: Weights::Warm, cases }
}

fn cold(name: &'static str, cases: Vec<Case>) -> Class {
    Class { name, weights: Weights::Cold, cases }
}

/// All classes.
pub fn all() -> Vec<Class> {
    let valid = |side, kernel, stride| Window::padded(side, kernel, stride, 1, 0, 0);
    let stem = Case::Conv {
        batch: 1,
        inputs: 3,
        outputs: 96,
        groups: 1,
        rows: valid(224, 7, 2),
        columns: valid(224, 7, 2),
        residual: false,
        end: NO_CLAMP,
    };
    vec![
        warm(
            "1x1",
            vec![
                Case::conv(16, 96, 112, 1, 1),
                Case::conv(32, 16, 112, 1, 1),
                Case::conv(24, 144, 56, 1, 1),
                Case::conv(144, 24, 56, 1, 1),
                Case::conv(64, 256, 56, 1, 1),
                Case::conv(256, 64, 56, 1, 1),
                Case::conv(128, 512, 28, 1, 1),
                Case::conv(192, 32, 28, 1, 1),
                Case::conv(384, 64, 14, 1, 1),
                Case::conv(1024, 256, 14, 1, 1),
                Case::conv(160, 960, 7, 1, 1),
                Case::conv(512, 2048, 7, 1, 1),
                Case::conv(512, 1000, 13, 1, 1),
            ],
        ),
        cold(
            "cold 1x1",
            vec![
                Case::conv(1024, 256, 14, 1, 1),
                Case::conv(256, 1024, 14, 1, 1),
                Case::conv(160, 960, 7, 1, 1),
                Case::conv(960, 320, 7, 1, 1),
                Case::conv(320, 1280, 7, 1, 1),
                Case::conv(512, 2048, 7, 1, 1),
                Case::conv(2048, 512, 7, 1, 1),
            ],
        ),
        warm(
            "1x1 stride 2",
            vec![
                Case::conv(256, 512, 56, 1, 2),
                Case::conv(512, 1024, 28, 1, 2),
                Case::conv(1024, 2048, 14, 1, 2),
            ],
        ),
        warm(
            "3x3",
            vec![
                Case::conv(64, 64, 56, 3, 1),
                Case::conv(128, 128, 28, 3, 1),
                Case::conv(256, 256, 14, 3, 1),
                Case::conv(512, 512, 7, 3, 1),
                Case::conv(16, 64, 54, 3, 1),
                Case::conv(32, 128, 27, 3, 1),
                Case::conv(64, 256, 13, 3, 1),
            ],
        ),
        cold("cold 3x3", vec![Case::conv(256, 256, 14, 3, 1), Case::conv(512, 512, 7, 3, 1)]),
        warm(
            "winograd",
            vec![
                Case::winograd(64, 64, 56),
                Case::winograd(128, 128, 28),
                Case::winograd(256, 256, 14),
                Case::winograd(16, 64, 54),
                Case::winograd(32, 128, 27),
                Case::winograd(64, 256, 13),
            ],
        ),
        cold(
            "cold winograd",
            vec![
                Case::winograd(128, 128, 28),
                Case::winograd(256, 256, 14),
                Case::winograd(512, 512, 7),
            ],
        ),
        warm(
            "3x3 stride 2",
            vec![
                Case::conv(3, 32, 224, 3, 2),
                Case::conv(128, 128, 56, 3, 2),
                Case::conv(256, 256, 28, 3, 2),
                Case::conv(512, 512, 14, 3, 2),
            ],
        ),
        warm("stem 7x7", vec![Case::conv(3, 64, 224, 7, 2), stem]),
        warm(
            "depthwise",
            vec![
                Case::depthwise(32, 112, 3, 1),
                Case::depthwise(144, 56, 3, 1),
                Case::depthwise(192, 28, 3, 1),
                Case::depthwise(384, 14, 3, 1),
                Case::depthwise(960, 7, 3, 1),
            ],
        ),
        warm(
            "depthwise stride 2",
            vec![
                Case::depthwise(96, 112, 3, 2),
                Case::depthwise(144, 56, 3, 2),
                Case::depthwise(192, 28, 3, 2),
                Case::depthwise(576, 14, 3, 2),
            ],
        ),
        warm(
            "depthwise 5x5",
            vec![
                Case::depthwise(120, 28, 5, 1),
                Case::depthwise(480, 14, 5, 1),
                Case::depthwise(960, 7, 5, 1),
            ],
        ),
        warm(
            "depthwise 5x5 stride 2",
            vec![
                Case::depthwise(72, 56, 5, 2),
                Case::depthwise(240, 28, 5, 2),
                Case::depthwise(672, 14, 5, 2),
            ],
        ),
        warm(
            "dense",
            vec![
                Case::dense(1, 1280, 1000),
                Case::dense(1, 2048, 1000),
                Case::dense(8, 512, 1000),
                Case::dense(197, 192, 576),
                Case::dense(197, 192, 768),
            ],
        ),
        cold("cold dense", vec![Case::dense(1, 1280, 1000), Case::dense(1, 2048, 1000)]),
        warm(
            "max pool",
            vec![
                Case::max_pool(96, 109, 3, 2, 0),
                Case::max_pool(256, 54, 3, 2, 0),
                Case::max_pool(64, 112, 3, 2, 1),
                Case::max_pool(64, 112, 2, 2, 0),
                Case::max_pool(256, 28, 2, 2, 0),
            ],
        ),
        warm("average pool", vec![avg_pool(64, 56, 2, 2, 0), avg_pool(192, 28, 3, 1, 1)]),
        warm(
            "mean pool",
            vec![
                Case::MeanPool { batch: 1, channels: 1280, plane: 49 },
                Case::MeanPool { batch: 1, channels: 1000, plane: 169 },
            ],
        ),
        warm("activation", (0..8).map(curve).collect()),
        warm(
            "elementwise",
            vec![
                Case::Values(Values::Join {
                    a: [1, 1, 1, 1, 64, 3136],
                    b: [1, 1, 1, 1, 64, 3136],
                    multiply: false,
                }),
                per_channel(960, 49),
                per_channel(144, 3136),
            ],
        ),
        warm(
            "attention",
            vec![
                product(3, 197, 64, 197, true),
                Case::Values(Values::Softmax { rows: 3 * 197, count: 197 }),
                product(3, 197, 197, 64, false),
                Case::Values(Values::LayerNorm { rows: 197, count: 192, bias: true }),
                Case::Values(Values::Transpose { extents: [1, 197, 3, 64] }),
                Case::Values(Values::Transpose { extents: [1, 196, 192, 1] }),
            ],
        ),
    ]
}

fn avg_pool(channels: i32, side: i32, kernel: i32, stride: i32, padding: i32) -> Case {
    let window = Window::padded(side, kernel, stride, 1, padding, padding);
    Case::AvgPool { batch: 1, channels, rows: window, columns: window, padded: false }
}

fn curve(code: i32) -> Case {
    let end = if code == 0 { Epilogue::clamp(0.0, 6.0) } else { Epilogue::curve(code) };
    Case::Values(Values::Activation { count: 100_000, end })
}

/// What squeeze and excitation ends with: each channel times its own value.
fn per_channel(channels: i32, plane: i32) -> Case {
    let (a, b) = ([1, 1, 1, 1, channels, plane], [1, 1, 1, 1, channels, 1]);
    Case::Values(Values::Join { a, b, multiply: true })
}

fn product(batch: i32, m: i32, k: i32, n: i32, transposed: bool) -> Case {
    Case::Values(Values::MatMul { batch, m, k, n, shared: false, transposed })
}
