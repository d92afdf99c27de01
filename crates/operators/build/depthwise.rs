//! The instructions of depthwise 3x3 windows that read the input where it lies.
//!
//! Two output rows are computed together from the input rows that they share, four columns at a
//! time; an odd last row by itself. Nine weights stay in registers for a whole plane. What the
//! engine needs is what `strip.rs` says: an exit test behind each input row, which ends a window
//! below the input too, and sums that are used in the order in which they are made.

use wasm_encoder::{BlockType, Function, InstructionSink, ValType};

use crate::phrases::{Phrases, at};

/// The functions by name, with their stride.
pub(crate) const NAMES: [(&str, u32); 2] =
    [("graphlet_depthwise_by_1", 1), ("graphlet_depthwise_by_2", 2)];

/// Fields of `Planes` in `src/depthwise_in_place.rs`, by their place in 32-bit memory.
mod field {
    pub(super) const X: u64 = 0;
    pub(super) const ZEROS: u64 = 4;
    pub(super) const WEIGHTS: u64 = 8;
    pub(super) const BIAS: u64 = 12;
    pub(super) const RESIDUAL: u64 = 16;
    pub(super) const Y: u64 = 20;
    pub(super) const COUNT: u64 = 24;
    pub(super) const START: u64 = 28;
    pub(super) const HEIGHT: u64 = 32;
    pub(super) const ROW: u64 = 36;
    pub(super) const OUTPUT_HEIGHT: u64 = 40;
    pub(super) const OUTPUT_ROW: u64 = 44;
    pub(super) const LEFT: u64 = 48;
    pub(super) const INNER: u64 = 52;
    pub(super) const BACK: u64 = 56;
    pub(super) const RIGHT: u64 = 60;
    pub(super) const LOW: u64 = 64;
    pub(super) const HIGH: u64 = 68;
}

/// Where the functions look for the fields of `Planes`, in the order in which it has them.
pub(crate) const FIELDS: [u64; 18] = [
    field::X,
    field::ZEROS,
    field::WEIGHTS,
    field::BIAS,
    field::RESIDUAL,
    field::Y,
    field::COUNT,
    field::START,
    field::HEIGHT,
    field::ROW,
    field::OUTPUT_HEIGHT,
    field::OUTPUT_ROW,
    field::LEFT,
    field::INNER,
    field::BACK,
    field::RIGHT,
    field::LOW,
    field::HIGH,
];

/// The functions' local variables.
mod local {
    /// The argument.
    pub(super) const PLANES: u32 = 0;
    /// Of a plane.
    pub(super) const X: u32 = 1;
    pub(super) const WEIGHTS: u32 = 2;
    pub(super) const BIAS: u32 = 3;
    pub(super) const COUNT: u32 = 4;
    /// From an output to its residual, and whether there is one.
    pub(super) const RESIDUAL: u32 = 5;
    pub(super) const ADDS: u32 = 6;
    /// Of one or two output rows: where they begin, how many are left from them on, the first
    /// input row of their windows, and how many there are from that on.
    pub(super) const Y: u32 = 7;
    pub(super) const ROWS: u32 = 8;
    pub(super) const SOURCE: u32 = 9;
    pub(super) const DEPTH: u32 = 10;
    /// Of a tile: its first output, the distance to the second row, tiles that are left, and the
    /// input rows.
    pub(super) const OUTPUT: u32 = 11;
    pub(super) const OUTPUT_ROW: u32 = 12;
    pub(super) const INNER: u32 = 13;
    pub(super) const WINDOW: [u32; 5] = [14, 15, 16, 17, 18];
    pub(super) const NUMBERS: u32 = 18;
    /// Vectors.
    pub(super) const FILTER: u32 = 19;
    pub(super) const SPREAD_BIAS: u32 = 28;
    pub(super) const LOW: u32 = 29;
    pub(super) const HIGH: u32 = 30;
    pub(super) const UPPER: u32 = 31;
    pub(super) const LOWER: u32 = 32;
    pub(super) const TAPS: [u32; 3] = [33, 34, 35];
    pub(super) const MORE: u32 = 36;
    pub(super) const VECTORS: u32 = 18;
}

/// Bytes of a value and of a vector, and taps of a window's row.
const VALUE: u64 = 4;
const VECTOR: i32 = 16;
const TAPS: u32 = 3;

/// The columns of a tile whose windows reach into the padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    None,
    Left,
    Right,
}

/// All functions. With `relaxed` a multiply-add is one instruction, else two.
pub(crate) fn functions(relaxed: bool) -> Vec<(&'static str, Function)> {
    NAMES.into_iter().map(|(name, stride)| (name, planes(stride, relaxed))).collect()
}

fn planes(stride: u32, relaxed: bool) -> Function {
    let locals = [(local::NUMBERS, ValType::I32), (local::VECTORS, ValType::V128)];
    let mut function = Function::new(locals);
    Writer { code: function.instructions(), stride, relaxed }.write();
    function
}

/// Writes one function.
struct Writer<'a> {
    code: InstructionSink<'a>,
    stride: u32,
    relaxed: bool,
}

/// Lanes of two vectors, of which the second's begin at 4, as bytes.
fn lanes(lanes: [u8; 4]) -> [u8; 16] {
    std::array::from_fn(|i| 4 * lanes[i / 4] + i as u8 % 4)
}

impl<'a> Writer<'a> {
    fn write(mut self) {
        use local::{ADDS, BIAS, COUNT, OUTPUT_ROW, RESIDUAL, ROWS, SOURCE, WEIGHTS, X, Y};
        for (name, offset) in [
            (X, field::X),
            (WEIGHTS, field::WEIGHTS),
            (BIAS, field::BIAS),
            (Y, field::Y),
            (COUNT, field::COUNT),
            (OUTPUT_ROW, field::OUTPUT_ROW),
            (ADDS, field::RESIDUAL),
        ] {
            self.code.field(offset).local_set(name);
        }
        self.code.local_get(ADDS).local_get(Y).i32_sub().local_set(RESIDUAL);
        self.spread(local::PLANES, field::LOW, local::LOW);
        self.spread(local::PLANES, field::HIGH, local::HIGH);
        self.code.loop_(BlockType::Empty);
        self.weights();
        self.code.field(field::START).local_set(SOURCE);
        self.code.field(field::OUTPUT_HEIGHT).local_set(ROWS);
        self.code.block(BlockType::Empty);
        self.code.local_get(ROWS).i32_const(2).i32_lt_u().br_if(0);
        self.code.loop_(BlockType::Empty);
        self.rows(2);
        self.code.local_get(ROWS).i32_const(1).i32_gt_u().br_if(0).end().end();
        self.code.local_get(ROWS).if_(BlockType::Empty);
        self.rows(1);
        self.code.end();
        self.code.local_get(X);
        self.code.field(field::HEIGHT);
        self.code.field(field::ROW).i32_mul().i32_add().local_set(X);
        self.code.advance(WEIGHTS, 9 * VALUE as i32);
        self.code.advance(BIAS, VALUE as i32);
        self.code.advance(COUNT, -1);
        self.code.local_get(COUNT).br_if(0).end();
        self.code.end();
    }

    fn spread(&mut self, from: u32, offset: u64, to: u32) {
        self.code.local_get(from).v128_load32_splat(at(offset)).local_set(to);
    }

    /// Spreads the plane's nine weights and its bias.
    fn weights(&mut self) {
        use local::{BIAS, FILTER, MORE, SPREAD_BIAS, WEIGHTS};
        for (first, from) in [(0, 0), (4, 4), (8, 5)] {
            self.code.local_get(WEIGHTS).v128_load(at(from * VALUE)).local_set(MORE);
            for weight in first..(first + 4).min(9) {
                let lane = (u64::from(weight) - from) as u8;
                self.code.local_get(MORE).local_get(MORE).i8x16_shuffle(lanes([lane; 4]));
                self.code.local_set(FILTER + weight);
            }
        }
        self.spread(BIAS, 0, SPREAD_BIAS);
    }

    /// Computes so many output rows and moves on.
    fn rows(&mut self, rows: u32) {
        use local::{DEPTH, INNER, OUTPUT, OUTPUT_ROW, ROWS, SOURCE, WINDOW, X, Y};
        let window = &WINDOW[..(self.stride * (rows - 1) + TAPS) as usize];
        // Rows above and below the input are zeros.
        for (i, row) in (0..).zip(window) {
            self.code.local_get(X).local_get(SOURCE).i32_const(i).i32_add();
            self.code.field(field::ROW).i32_mul().i32_add();
            self.code.field(field::ZEROS).local_get(SOURCE).i32_const(i).i32_add();
            self.code.field(field::HEIGHT).i32_lt_u().select().local_set(*row);
        }
        self.code.field(field::HEIGHT).local_get(SOURCE).i32_sub().local_set(DEPTH);
        self.code.local_get(Y).local_set(OUTPUT);
        let step = VECTOR * self.stride as i32;
        self.code.field(field::LEFT).if_(BlockType::Empty);
        self.tile(rows, Edge::Left);
        for row in window {
            self.code.advance(*row, step - VALUE as i32);
        }
        self.code.advance(OUTPUT, VECTOR);
        self.code.end();
        self.code.field(field::INNER).local_tee(INNER).if_(BlockType::Empty);
        self.code.loop_(BlockType::Empty);
        self.tile(rows, Edge::None);
        for row in window {
            self.code.advance(*row, step);
        }
        self.code.advance(OUTPUT, VECTOR);
        self.code.advance(INNER, -1);
        self.code.local_get(INNER).br_if(0).end().end();
        let shift = self.stride.trailing_zeros() as i32;
        for row in window {
            self.code.local_get(*row);
            self.code.field(field::BACK).i32_const(shift).i32_shl();
            self.code.i32_sub().local_set(*row);
        }
        self.code.local_get(OUTPUT);
        self.code.field(field::BACK).i32_sub().local_set(OUTPUT);
        self.code.field(field::RIGHT).if_(BlockType::Empty);
        self.tile(rows, Edge::Right);
        self.code.else_();
        self.tile(rows, Edge::None);
        self.code.end();
        for _ in 0..rows {
            self.code.local_get(Y).local_get(OUTPUT_ROW).i32_add().local_set(Y);
        }
        self.code.advance(SOURCE, (self.stride * rows) as i32);
        self.code.advance(ROWS, -(rows as i32));
    }

    /// One tile of four columns.
    fn tile(&mut self, rows: u32, edge: Edge) {
        use local::{DEPTH, LOWER, SPREAD_BIAS, UPPER, WINDOW};
        self.code.local_get(SPREAD_BIAS).local_set(UPPER);
        self.code.local_get(SPREAD_BIAS).local_set(LOWER);
        let last = self.stride * (rows - 1) + TAPS - 1;
        self.code.block(BlockType::Empty);
        for i in 0..=last {
            self.taps(WINDOW[i as usize], edge);
            if i < TAPS {
                self.weigh(i, UPPER);
            }
            if rows == 2 && i >= self.stride {
                self.weigh(i - self.stride, LOWER);
            }
            if i < last {
                self.code.local_get(DEPTH).i32_const(i as i32 + 1).i32_eq().br_if(0);
            }
        }
        self.code.end();
        self.store(rows);
    }

    /// Loads the taps of a window's row.
    fn taps(&mut self, row: u32, edge: Edge) {
        use local::{MORE, TAPS};
        let [first, second, third] = TAPS;
        let load = |writer: &mut Self, column: u64, to: u32| {
            writer.code.local_get(row).v128_load(at(column * VALUE)).local_set(to);
        };
        if self.stride == 1 {
            match edge {
                Edge::None => {
                    load(self, 0, first);
                    load(self, 1, second);
                    load(self, 2, third);
                }
                Edge::Left => {
                    load(self, 0, second);
                    load(self, 1, third);
                    self.code.v128_const(0).local_get(second);
                    self.code.i8x16_shuffle(lanes([3, 4, 5, 6])).local_set(first);
                }
                Edge::Right => {
                    load(self, 0, first);
                    load(self, 1, second);
                    self.code.local_get(second).v128_const(0);
                    self.code.i8x16_shuffle(lanes([1, 2, 3, 4])).local_set(third);
                }
            }
            return;
        }
        let shuffle = |writer: &mut Self, [a, b]: [u32; 2], of: [u8; 4], to: u32| {
            writer.code.local_get(a).local_get(b).i8x16_shuffle(lanes(of)).local_set(to);
        };
        let (evens, odds) = ([0, 2, 4, 6], [1, 3, 5, 7]);
        load(self, 0, first);
        load(self, 4, MORE);
        if edge == Edge::Left {
            shuffle(self, [first, MORE], evens, second);
            shuffle(self, [first, MORE], odds, third);
            self.code.v128_const(0).local_get(third);
            self.code.i8x16_shuffle(lanes([3, 4, 5, 6])).local_set(first);
            return;
        }
        shuffle(self, [first, MORE], odds, second);
        shuffle(self, [first, MORE], evens, first);
        if edge == Edge::Right {
            self.code.v128_const(0).local_set(MORE);
        } else {
            self.code.local_get(row).v128_load32_zero(at(8 * VALUE)).local_set(MORE);
        }
        shuffle(self, [first, MORE], [1, 2, 3, 4], third);
    }

    /// Adds the products of a window's row.
    fn weigh(&mut self, row: u32, sum: u32) {
        for (weight, tap) in (TAPS * row..).zip(local::TAPS) {
            self.code.local_get(tap).local_get(local::FILTER + weight);
            if self.relaxed {
                self.code.local_get(sum).f32x4_relaxed_madd();
            } else {
                self.code.f32x4_mul().local_get(sum).f32x4_add();
            }
            self.code.local_set(sum);
        }
    }

    /// Writes a tile's sums with residual and bounds.
    fn store(&mut self, rows: u32) {
        use local::{ADDS, HIGH, LOW, LOWER, OUTPUT, OUTPUT_ROW, RESIDUAL, UPPER};
        let sums = &[UPPER, LOWER][..rows as usize];
        let place = |writer: &mut Self, row: usize| {
            writer.code.local_get(OUTPUT);
            if row > 0 {
                writer.code.local_get(OUTPUT_ROW).i32_add();
            }
        };
        self.code.local_get(ADDS).if_(BlockType::Empty);
        for (row, sum) in sums.iter().enumerate() {
            self.code.local_get(*sum);
            place(self, row);
            self.code.local_get(RESIDUAL).i32_add().v128_load(at(0)).f32x4_add().local_set(*sum);
        }
        self.code.end();
        for (row, sum) in sums.iter().enumerate() {
            place(self, row);
            self.code.local_get(*sum).local_get(LOW).f32x4_pmax();
            self.code.local_get(HIGH).f32x4_pmin().v128_store(at(0));
        }
    }
}
