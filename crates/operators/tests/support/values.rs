//! Calls of the kernels that work on rows and on single values.

use operators::elementwise::{Binary, Join};
use operators::matmul::MatMul;
use operators::reference;

use super::{Call, Epilogue, NO_CLAMP, Random};

/// One such call.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    Activation { count: i32, end: Epilogue },
    Binary { extents: [i32; 3], a: [i32; 3], b: [i32; 3], join: i32, end: Epilogue },
    Softmax { rows: i32, count: i32 },
    LayerNorm { rows: i32, count: i32, bias: bool },
    MatMul { batch: i32, m: i32, k: i32, n: i32, shared: bool, transposed: bool },
    Transpose { extents: [i32; 4] },
}

impl Values {
    /// Two operands of one shape.
    pub fn same_shape(count: i32, join: i32) -> Self {
        let one = [0, 0, 1];
        Self::Binary { extents: [1, 1, count], a: one, b: one, join, end: NO_CLAMP }
    }

    /// One of each.
    pub fn examples() -> Vec<Self> {
        vec![
            Self::Activation { count: 9, end: Epilogue::curve(2) },
            Self::Binary {
                extents: [2, 3, 5],
                a: [15, 5, 1],
                b: [3, 1, 0],
                join: 2,
                end: NO_CLAMP,
            },
            Self::Softmax { rows: 2, count: 7 },
            Self::LayerNorm { rows: 2, count: 7, bias: true },
            Self::MatMul { batch: 2, m: 3, k: 5, n: 7, shared: false, transposed: true },
            Self::Transpose { extents: [2, 3, 4, 5] },
        ]
    }

    pub fn random(random: &mut Random) -> Self {
        match random.between(0, 5) {
            0 => Self::Activation { count: random.between(1, 99), end: Epilogue::random(random) },
            1 => {
                let extents = [random.between(1, 3), random.between(1, 7), random.between(1, 23)];
                let [_, d1, d2] = extents;
                let mut strides = || {
                    random.one_of(&[
                        [d1 * d2, d2, 1],
                        [0, 0, 0],
                        [0, 1, 0],
                        [d1, 1, 0],
                        [0, 0, 1],
                        [d2, 0, 1],
                    ])
                };
                let (a, b) = (strides(), strides());
                let end = Epilogue::random(random);
                Self::Binary { extents, a, b, join: random.between(0, 5), end }
            }
            2 => Self::Softmax { rows: random.between(1, 5), count: random.between(1, 80) },
            3 => {
                let (rows, count) = (random.between(1, 5), random.between(1, 80));
                Self::LayerNorm { rows, count, bias: random.one_of(&[true, false]) }
            }
            4 => Self::MatMul {
                batch: random.between(1, 3),
                m: random.between(1, 13),
                k: random.between(1, 40),
                n: random.between(1, 37),
                shared: random.one_of(&[true, false]),
                transposed: random.one_of(&[true, false]),
            },
            _ => {
                let run = random.one_of(&[1, 1, 2, 3, 4, 5, 16, 33]);
                let (a, b) = (random.between(1, 19), random.between(1, 19));
                Self::Transpose { extents: [random.between(1, 3), a, b, run] }
            }
        }
    }

    /// Multiply-adds, or values written.
    pub fn work(&self) -> f64 {
        let product = |extents: &[i32]| extents.iter().copied().map(f64::from).product();
        match self {
            Self::Activation { count, .. } => f64::from(*count),
            Self::Binary { extents, .. } => product(extents),
            Self::Softmax { rows, count } | Self::LayerNorm { rows, count, .. } => {
                product(&[*rows, *count])
            }
            Self::MatMul { batch, m, k, n, .. } => product(&[*batch, *m, *k, *n]),
            Self::Transpose { extents } => product(extents),
        }
    }

    /// Inputs for this call and what it must give.
    pub fn prepare(&self, random: &mut Random) -> Call {
        match *self {
            Self::Activation { count, end } => {
                let x = random.values(count as usize);
                let activation = end.activation();
                let want = x.iter().map(|x| reference::activate(&activation, f64::from(*x)));
                let mut call = Call {
                    symbol: "graphlet_activation_f32",
                    want: want.collect(),
                    x,
                    extents: vec![count],
                    ..Call::default()
                };
                call.end(end);
                call
            }
            Self::Binary { extents, a, b, join, end } => {
                let operator = Join::new(join).expect("an operator");
                let binary =
                    Binary::new(extents, a, b, operator, end.activation()).expect("valid strides");
                let length = |strides: [i32; 3]| {
                    let last = extents.iter().zip(strides).map(|(d, s)| (d - 1) * s).sum::<i32>();
                    last as usize + 1
                };
                let x = random.values(length(a));
                let mut weights = random.values(length(b));
                if operator == Join::Div {
                    // Powers of two, so that quotients are exact.
                    weights.iter_mut().for_each(|value| *value = value.exp2());
                }
                let mut call = Call {
                    symbol: "graphlet_binary_f32",
                    want: reference::binary(&binary, &x, &weights),
                    x,
                    weights,
                    extents: [&extents[..], &a, &b, &[join]].concat(),
                    ..Call::default()
                };
                call.end(end);
                call
            }
            Self::Softmax { rows, count } => {
                let x = random.values((rows * count) as usize);
                Call {
                    symbol: "graphlet_softmax_f32",
                    want: reference::softmax(count as usize, &x),
                    x,
                    extents: vec![rows, count],
                    relative: 1e-6,
                    ..Call::default()
                }
            }
            Self::LayerNorm { rows, count, bias } => {
                let x = random.values((rows * count) as usize);
                let weights = random.values(count as usize);
                let bias = if bias { random.values(count as usize) } else { Vec::new() };
                let epsilon = 1e-5;
                Call {
                    symbol: "graphlet_layer_norm_f32",
                    want: reference::layer_norm(&x, &weights, &bias, epsilon),
                    x,
                    weights,
                    residual: Some(bias),
                    extents: vec![rows, count],
                    last: Some(epsilon),
                    // Rows of equal values: what their mean is rounded by grows by 300.
                    tolerance: 1e-4,
                    ..Call::default()
                }
            }
            Self::MatMul { batch, m, k, n, shared, transposed } => {
                let stride = if shared { 0 } else { k * n };
                let product = MatMul::new([batch, m, k, n], stride, i32::from(transposed), 0.25)
                    .expect("valid extents");
                let x = random.values((batch * m * k) as usize);
                let operands = if shared { 1 } else { batch };
                let weights = random.values((operands * k * n) as usize);
                Call {
                    symbol: "graphlet_matmul_f32",
                    want: reference::matmul(&product, &x, &weights),
                    x,
                    weights,
                    extents: vec![batch, m, k, n, stride, i32::from(transposed)],
                    last: Some(0.25),
                    ..Call::default()
                }
            }
            Self::Transpose { extents } => {
                let sizes = extents.map(|extent| extent as usize);
                let x = random.values(sizes.iter().product());
                Call {
                    symbol: "graphlet_transpose_f32",
                    want: reference::transpose(sizes, &x),
                    x,
                    extents: extents.to_vec(),
                    ..Call::default()
                }
            }
        }
    }
}
