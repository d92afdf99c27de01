//! Cases, inputs and expectations that the native and the wasm tests and the bench share.
//!
//! Inputs are small whole numbers, so every sum is exact in `f32` whatever its order and however
//! often it is rounded: kernels must agree with the reference to the bit. Winograd's convolution
//! multiplies by fractions and may differ a little.

#![allow(dead_code, reason = "each test program uses its own part")]

pub mod layers;
mod values;

use operators::activation::Activation;
use operators::geometry::{Axis, Conv2d, Dense, Pool2d};
use operators::reference;

pub use values::Values;

/// A small generator with a seed (SplitMix64), so that a failure repeats.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i32, high: i32) -> i32 {
        low + (self.next() % (high - low + 1) as u64) as i32
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[(self.next() % choices.len() as u64) as usize]
    }

    /// Whole numbers from -4 to 4.
    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.between(-4, 4) as f32).collect()
    }
}

/// Extents along one axis, as the C symbols take them.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub input: i32,
    pub output: i32,
    pub kernel: i32,
    pub stride: i32,
    pub dilation: i32,
    pub before: i32,
}

impl Window {
    /// A window with the given padding before and behind.
    pub fn padded(
        input: i32,
        kernel: i32,
        stride: i32,
        dilation: i32,
        before: i32,
        after: i32,
    ) -> Self {
        let left = input + before + after - (kernel - 1) * dilation - 1;
        assert!(left >= 0, "the window is larger than its input");
        Self { input, output: left / stride + 1, kernel, stride, dilation, before }
    }

    /// A window with half its taps as padding on both sides, as most models have it.
    pub fn same(input: i32, kernel: i32, stride: i32) -> Self {
        Self::padded(input, kernel, stride, 1, kernel / 2, kernel / 2)
    }

    pub fn axis(self) -> Axis {
        let Self { input, output, kernel, stride, dilation, before } = self;
        Axis::new(input, output, kernel, stride, dilation, before).expect("a valid window")
    }

    /// Any window whose padding is smaller than itself.
    pub fn random(random: &mut Random, most: i32) -> Self {
        loop {
            let input = random.between(1, most);
            let kernel = random.one_of(&[1, 1, 2, 3, 3, 3, 4, 5, 5, 7]);
            let dilation = random.one_of(&[1, 1, 1, 2, 3]);
            let stride = random.one_of(&[1, 1, 2, 2, 3, 4]);
            let window = (kernel - 1) * dilation + 1;
            let before = random.between(0, window.min(4));
            let after = random.between(0, window.min(4));
            if input + before + after >= window {
                return Self::padded(input, kernel, stride, dilation, before, after);
            }
        }
    }
}

/// One call of a kernel.
#[derive(Debug, Clone, Copy)]
pub enum Case {
    Conv {
        batch: i32,
        inputs: i32,
        outputs: i32,
        groups: i32,
        rows: Window,
        columns: Window,
        residual: bool,
        end: Epilogue,
    },
    /// A 3x3 window at stride 1.
    Winograd {
        batch: i32,
        inputs: i32,
        outputs: i32,
        rows: Window,
        columns: Window,
        residual: bool,
        end: Epilogue,
    },
    Depthwise {
        batch: i32,
        channels: i32,
        rows: Window,
        columns: Window,
        residual: bool,
        end: Epilogue,
    },
    Dense {
        batch: i32,
        inputs: i32,
        outputs: i32,
        end: Epilogue,
    },
    MaxPool {
        batch: i32,
        channels: i32,
        rows: Window,
        columns: Window,
    },
    MeanPool {
        batch: i32,
        channels: i32,
        plane: i32,
    },
    AvgPool {
        batch: i32,
        channels: i32,
        rows: Window,
        columns: Window,
        padded: bool,
    },
    Values(Values),
}

/// The last three arguments of the kernels that multiply.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue {
    pub code: i32,
    pub low: f32,
    pub high: f32,
}

impl Epilogue {
    pub const fn clamp(low: f32, high: f32) -> Self {
        Self { code: 0, low, high }
    }

    /// One of the curves; slope and offset are those of a hard sigmoid.
    pub const fn curve(code: i32) -> Self {
        Self { code, low: 1.0 / 6.0, high: 0.5 }
    }

    pub fn activation(self) -> Activation {
        Activation::new(self.code, self.low, self.high).expect("a valid activation")
    }

    /// A clamp as often as not.
    pub fn random(random: &mut Random) -> Self {
        let clamps = [NO_CLAMP, RELU6, RELU, Self::clamp(-20.0, 20.0)];
        match random.between(0, 1) {
            0 => random.one_of(&clamps),
            _ => Self::curve(random.between(1, 7)),
        }
    }
}

pub const NO_CLAMP: Epilogue = Epilogue::clamp(f32::MIN, f32::MAX);
pub const RELU: Epilogue = Epilogue::clamp(0.0, f32::MAX);
pub const RELU6: Epilogue = Epilogue::clamp(0.0, 6.0);

impl Case {
    /// A plain convolution over a square map.
    pub fn conv(inputs: i32, outputs: i32, side: i32, kernel: i32, stride: i32) -> Self {
        let window = Window::same(side, kernel, stride);
        let (rows, columns) = (window, window);
        let (batch, groups, residual) = (1, 1, false);
        Self::Conv { batch, inputs, outputs, groups, rows, columns, residual, end: NO_CLAMP }
    }

    /// A 3x3 convolution over a square map by Winograd's method.
    pub fn winograd(inputs: i32, outputs: i32, side: i32) -> Self {
        let window = Window::same(side, 3, 1);
        let (rows, columns) = (window, window);
        let (batch, residual, end) = (1, false, NO_CLAMP);
        Self::Winograd { batch, inputs, outputs, rows, columns, residual, end }
    }

    /// A plain depthwise convolution over a square map.
    pub fn depthwise(channels: i32, side: i32, kernel: i32, stride: i32) -> Self {
        let window = Window::same(side, kernel, stride);
        let (rows, columns) = (window, window);
        Self::Depthwise { batch: 1, channels, rows, columns, residual: false, end: RELU6 }
    }

    pub fn max_pool(channels: i32, side: i32, kernel: i32, stride: i32, padding: i32) -> Self {
        let window = Window::padded(side, kernel, stride, 1, padding, padding);
        Self::MaxPool { batch: 1, channels, rows: window, columns: window }
    }

    pub fn dense(batch: i32, inputs: i32, outputs: i32) -> Self {
        Self::Dense { batch, inputs, outputs, end: NO_CLAMP }
    }

    /// Any call whose tensors are small.
    pub fn random(random: &mut Random) -> Self {
        let batch = random.one_of(&[1, 1, 2, 3]);
        let (rows, columns) = (Window::random(random, 19), Window::random(random, 19));
        let residual = random.one_of(&[false, true]);
        let end = Epilogue::random(random);
        match random.between(0, 15) {
            12.. => Self::Values(Values::random(random)),
            10..=11 => {
                let mut axis = || {
                    let (input, before) = (random.between(1, 30), random.between(1, 2));
                    Window::padded(input, 3, 1, 1, before, random.between(1, 2))
                };
                let (rows, columns) = (axis(), axis());
                let (inputs, outputs) = (random.between(1, 9), random.between(1, 19));
                Self::Winograd { batch, inputs, outputs, rows, columns, residual, end }
            }
            0..=3 => {
                let groups = random.one_of(&[1, 1, 1, 2, 3]);
                let inputs = groups * random.between(1, 9);
                let outputs = groups * random.between(1, 19);
                Self::Conv { batch, inputs, outputs, groups, rows, columns, residual, end }
            }
            4..=6 => {
                let channels = random.between(1, 5);
                // The fast paths want equal strides and windows of three.
                let fast = random.one_of(&[true, false]);
                let (rows, columns) = if fast {
                    let stride = random.one_of(&[1, 2]);
                    let kernel = random.one_of(&[3, 3, 3, 5, 5, 7]);
                    let mut axis = || {
                        let (input, before) = (random.between(7, 27), random.between(0, 3));
                        Window::padded(input, kernel, stride, 1, before, random.between(0, 3))
                    };
                    (axis(), axis())
                } else {
                    (rows, columns)
                };
                Self::Depthwise { batch, channels, rows, columns, residual, end }
            }
            7 => {
                let (batch, inputs) = (random.between(1, 9), random.between(1, 70));
                Self::Dense { batch, inputs, outputs: random.between(1, 100), end }
            }
            8 => {
                let channels = random.between(1, 5);
                let plain = |window: Window| Window {
                    dilation: 1,
                    output: (window.input + window.before - window.kernel).max(0) / window.stride
                        + 1,
                    ..window
                };
                // The fast paths want windows of two or three at stride 2.
                let (rows, columns) = if random.one_of(&[true, false]) {
                    let kernel = random.between(2, 3);
                    let mut axis = || {
                        let (input, before) = (random.between(3, 30), random.between(0, 1));
                        Window::padded(input, kernel, 2, 1, before, random.between(0, 1))
                    };
                    (axis(), axis())
                } else {
                    (plain(rows), plain(columns))
                };
                match random.between(0, 1) {
                    0 => Self::MaxPool { batch, channels, rows, columns },
                    _ => {
                        let padded = random.one_of(&[true, false]);
                        Self::AvgPool { batch, channels, rows, columns, padded }
                    }
                }
            }
            _ => Self::MeanPool {
                batch,
                channels: random.between(1, 5),
                plane: random.between(1, 99),
            },
        }
    }

    /// Multiply-adds, or values read by a pool.
    pub fn work(&self) -> f64 {
        let area = |rows: &Window, columns: &Window| {
            f64::from(rows.output)
                * f64::from(columns.output)
                * f64::from(rows.kernel)
                * f64::from(columns.kernel)
        };
        match self {
            Self::Conv { batch, inputs, outputs, groups, rows, columns, .. } => {
                f64::from(*batch)
                    * f64::from(*inputs / groups)
                    * f64::from(*outputs)
                    * area(rows, columns)
            }
            Self::Winograd { batch, inputs, outputs, rows, columns, .. } => {
                f64::from(*batch) * f64::from(*inputs) * f64::from(*outputs) * area(rows, columns)
            }
            Self::Depthwise { batch, channels, rows, columns, .. } => {
                f64::from(*batch) * f64::from(*channels) * area(rows, columns)
            }
            Self::Dense { batch, inputs, outputs, .. } => {
                f64::from(*batch) * f64::from(*inputs) * f64::from(*outputs)
            }
            Self::Values(values) => values.work(),
            Self::MaxPool { batch, channels, rows, columns }
            | Self::AvgPool { batch, channels, rows, columns, .. } => {
                f64::from(*batch) * f64::from(*channels) * area(rows, columns)
            }
            Self::MeanPool { batch, channels, plane } => {
                f64::from(*batch) * f64::from(*channels) * f64::from(*plane)
            }
        }
    }

    /// Inputs for this call and what it must give.
    pub fn prepare(&self, seed: u64) -> Call {
        let mut random = Random::new(seed);
        match *self {
            Self::Conv { batch, inputs, outputs, groups, rows, columns, residual, end } => {
                let activation = end.activation();
                let (r, c) = (rows.axis(), columns.axis());
                let conv = Conv2d::new(batch, inputs, outputs, groups, r, c, activation)
                    .expect("a valid convolution");
                let mut call = Call::convolution(&conv, residual, &mut random);
                call.weights = reference::pack_conv2d(&conv, &call.weights);
                call.bias = reference::pack_conv2d_bias(&conv, &call.bias);
                call.symbol = "graphlet_conv2d_f32";
                call.extents = vec![
                    batch,
                    inputs,
                    rows.input,
                    columns.input,
                    outputs,
                    rows.output,
                    columns.output,
                    rows.kernel,
                    columns.kernel,
                    rows.stride,
                    columns.stride,
                    rows.dilation,
                    columns.dilation,
                    rows.before,
                    columns.before,
                    groups,
                ];
                call.end(end);
                call
            }
            Self::Winograd { batch, inputs, outputs, rows, columns, residual, end } => {
                let activation = end.activation();
                let (r, c) = (rows.axis(), columns.axis());
                let conv = Conv2d::new(batch, inputs, outputs, 1, r, c, activation)
                    .expect("a valid convolution");
                let mut call = Call::convolution(&conv, residual, &mut random);
                call.weights = reference::winograd(&conv, &call.weights);
                call.bias = reference::pack_conv2d_bias(&conv, &call.bias);
                call.symbol = "graphlet_conv2d_winograd_f32";
                call.extents = vec![
                    batch,
                    inputs,
                    rows.input,
                    columns.input,
                    outputs,
                    rows.output,
                    columns.output,
                    rows.before,
                    columns.before,
                ];
                // The largest errors seen were half of this, at 7, 64 and 256 channels.
                call.tolerance = 1e-4 * (inputs as f32).sqrt() + 2e-5 * inputs as f32;
                call.end(end);
                call
            }
            Self::Depthwise { batch, channels, rows, columns, residual, end } => {
                let activation = end.activation();
                let (r, c) = (rows.axis(), columns.axis());
                let conv = Conv2d::new(batch, channels, channels, channels, r, c, activation)
                    .expect("a valid convolution");
                let mut call = Call::convolution(&conv, residual, &mut random);
                call.symbol = "graphlet_depthwise_conv2d_f32";
                call.extents = vec![
                    batch,
                    channels,
                    rows.input,
                    columns.input,
                    rows.output,
                    columns.output,
                    rows.kernel,
                    columns.kernel,
                    rows.stride,
                    columns.stride,
                    rows.dilation,
                    columns.dilation,
                    rows.before,
                    columns.before,
                ];
                call.end(end);
                call
            }
            Self::Dense { batch, inputs, outputs, end } => {
                let activation = end.activation();
                let dense = Dense::new(batch, inputs, outputs, activation).expect("a valid layer");
                let x = random.values(dense.batch * dense.inputs);
                let weights = random.values(dense.inputs * dense.outputs);
                let bias = random.values(dense.outputs);
                let mut call = Call {
                    symbol: "graphlet_dense_f32",
                    want: reference::dense(&dense, &x, &weights, &bias),
                    x,
                    weights: reference::pack_dense(&dense, &weights),
                    bias: reference::pack_dense_bias(&bias),
                    extents: vec![batch, inputs, outputs],
                    ..Call::default()
                };
                call.end(end);
                call
            }
            Self::MaxPool { batch, channels, rows, columns } => {
                let pool = Pool2d::new(batch, channels, rows.axis(), columns.axis())
                    .expect("a valid pool");
                let x = random.values(pool.planes * pool.rows.input * pool.columns.input);
                let mut call =
                    Call::pool("graphlet_max_pool2d_f32", reference::max_pool2d(&pool, &x), x);
                call.extents = pool_extents(batch, channels, rows, columns);
                call
            }
            Self::AvgPool { batch, channels, rows, columns, padded } => {
                let pool = Pool2d::new(batch, channels, rows.axis(), columns.axis())
                    .expect("a valid pool");
                let x = random.values(pool.planes * pool.rows.input * pool.columns.input);
                let want = reference::avg_pool2d(&pool, padded, &x);
                let mut call = Call::pool("graphlet_avg_pool2d_f32", want, x);
                call.extents = pool_extents(batch, channels, rows, columns);
                call.extents.push(i32::from(padded));
                call
            }
            Self::Values(values) => values.prepare(&mut random),
            Self::MeanPool { batch, channels, plane } => {
                let x = random.values((batch * channels * plane) as usize);
                let want = reference::global_avg_pool(plane as usize, &x);
                let mut call = Call::pool("graphlet_global_avg_pool_f32", want, x);
                call.extents = vec![batch, channels, plane];
                call
            }
        }
    }
}

/// The integers that the pools share.
fn pool_extents(batch: i32, channels: i32, rows: Window, columns: Window) -> Vec<i32> {
    let pairs = [
        (batch, channels),
        (rows.input, columns.input),
        (rows.output, columns.output),
        (rows.kernel, columns.kernel),
        (rows.stride, columns.stride),
        (rows.before, columns.before),
    ];
    pairs.into_iter().flat_map(|(row, column)| [row, column]).collect()
}

/// Everything that one call of a C symbol takes, and what it must write.
#[derive(Debug, Clone, Default)]
pub struct Call {
    pub symbol: &'static str,
    pub x: Vec<f32>,
    /// As the kernel reads them; empty for pools.
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
    /// Empty when the call passes null, absent when the symbol has no such argument.
    pub residual: Option<Vec<f32>>,
    /// The integer arguments, in order.
    pub extents: Vec<i32>,
    pub epilogue: Option<Epilogue>,
    /// A number behind all else.
    pub last: Option<f32>,
    pub want: Vec<f32>,
    /// How far an output may be from what it must be: 0 for most kernels. And how far for each
    /// unit of its size.
    pub tolerance: f32,
    pub relative: f32,
}

impl Call {
    /// Inputs with plain weights.
    fn convolution(conv: &Conv2d, residual: bool, random: &mut Random) -> Self {
        let outputs = conv.groups * conv.group_outputs;
        let y = conv.batch * outputs * conv.output_plane();
        let x = random.values(conv.batch * conv.groups * conv.group_inputs * conv.input_plane());
        let weights = random.values(outputs * conv.steps());
        let bias = random.values(outputs);
        let residual = if residual { random.values(y) } else { Vec::new() };
        let want = reference::conv2d(conv, &x, &weights, &bias, &residual);
        Self { x, weights, bias, residual: Some(residual), want, ..Self::default() }
    }

    fn pool(symbol: &'static str, want: Vec<f32>, x: Vec<f32>) -> Self {
        Self { symbol, x, want, ..Self::default() }
    }

    /// Sets the last arguments. Curves are approximated, and steepen an error by half at most.
    fn end(&mut self, end: Epilogue) {
        self.epilogue = Some(end);
        if end.code != 0 {
            self.tolerance = 1.5 * self.tolerance + 1e-6;
            self.relative = 1e-6;
        }
    }

    /// Compares an output with what it must be, to the bit; means may differ in the last place.
    pub fn check(&self, got: &[f32]) -> Result<(), String> {
        if got.len() != self.want.len() {
            return Err(format!("{} values instead of {}", got.len(), self.want.len()));
        }
        for (i, (got, want)) in got.iter().zip(&self.want).enumerate() {
            let close = (got - want).abs() <= want.abs() * f32::EPSILON;
            let close = close && self.symbol.contains("avg");
            let near = (got - want).abs() <= self.tolerance + self.relative * want.abs();
            let same = got == want || (got.is_nan() && want.is_nan());
            if !same && !close && !near {
                return Err(format!("value {i} is {got} instead of {want}"));
            }
        }
        Ok(())
    }
}
