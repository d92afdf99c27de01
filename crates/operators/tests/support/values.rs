//! Calls of the kernels that work on rows and on single values.

use operators::matmul::MatMul;
use operators::reference;

use super::{Call, Epilogue, Random};

/// One such call.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    Activation { count: i32, end: Epilogue },
    Join { a: [i32; 6], b: [i32; 6], multiply: bool },
    Softmax { rows: i32, count: i32 },
    LayerNorm { rows: i32, count: i32, bias: bool },
    MatMul { batch: i32, m: i32, k: i32, n: i32, shared: bool, transposed: bool },
    Transpose { extents: [i32; 4] },
}

impl Values {
    /// One of each.
    pub fn examples() -> Vec<Self> {
        vec![
            Self::Activation { count: 9, end: Epilogue::curve(2) },
            Self::Join { a: [1, 1, 2, 1, 3, 5], b: [1, 1, 1, 4, 3, 1], multiply: true },
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
                let (mut a, mut b) = ([1; 6], [1; 6]);
                for (a, b) in a.iter_mut().zip(&mut b).rev() {
                    let extent = random.one_of(&[1, 1, 2, 3, 5, 17]);
                    (*a, *b) = random.one_of(&[(extent, extent), (extent, 1), (1, extent)]);
                }
                Self::Join { a, b, multiply: random.one_of(&[true, false]) }
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
            Self::Join { a, b, .. } => a.iter().zip(b).map(|(a, b)| f64::from(*a.max(b))).product(),
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
            Self::Join { a, b, multiply } => {
                let shapes = [a, b].map(|shape| shape.map(|extent| extent as usize));
                let x = random.values(shapes[0].iter().product());
                let weights = random.values(shapes[1].iter().product());
                let (symbol, want) = if multiply {
                    ("graphlet_mul_f32", reference::join(shapes, &x, &weights, |a, b| a * b))
                } else {
                    ("graphlet_add_f32", reference::join(shapes, &x, &weights, |a, b| a + b))
                };
                let extents = [a, b].concat();
                Call { symbol, want, x, weights, extents, ..Call::default() }
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
