//! The instructions of a wide strip: four neighbouring pixels by twelve output channels at a time.
//!
//! A reduction step loads one vector of pixels of one input channel, or of a window's tap in it, and
//! for each of twelve channels its weight into all lanes, and adds the products to twelve sums.
//! Twelve sums hide the latency of two multiply-adds a cycle, and a step is 24 instructions beside
//! its pixels: nearly all that the core can do.
//!
//! What the engine, Cranelift, needs for exactly these instructions:
//! - A load becomes part of the instruction that spreads it only if its value goes into one sum and
//!   each sum is read once. So a step may not end with a test behind which sums are read in two
//!   places: each step is skipped as a whole where none is left, and both ways meet behind it.
//! - Its multiply-add overwrites the spread weight, so that a sum is in another register after each
//!   step: that of the sum before it. The variables of the sums therefore move on by one of thirteen
//!   with each step ([`slot`]), so that each of them stays in one register and none is copied. A
//!   turn's end, and its steps when the last turn is not whole, put them back.

use wasm_encoder::{BlockType, Function, InstructionSink, ValType};

use crate::phrases::{Ahead, Phrases, at};

/// How a reduction walks over the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// A step a channel, `stride` apart.
    Channels,
    /// An offset a step.
    Taps,
}

/// The functions by name.
const NAMES: [(&str, Walk); 2] =
    [("graphlet_strip_wide", Walk::Channels), ("graphlet_strip_wide_taps", Walk::Taps)];

/// Fields of `Wide` in `src/wide.rs`, by their place in 32-bit memory.
mod field {
    pub(super) const INPUT: u64 = 0;
    pub(super) const STRIDE: u64 = 4;
    pub(super) const STEPS: u64 = 8;
    pub(super) const WEIGHTS: u64 = 12;
    pub(super) const MORE_WEIGHTS: u64 = 16;
    pub(super) const BIAS: u64 = 20;
    pub(super) const MORE_BIAS: u64 = 24;
    pub(super) const OUTPUT: u64 = 28;
    pub(super) const MORE_OUTPUT: u64 = 32;
    pub(super) const OUTPUT_PLANE: u64 = 36;
    pub(super) const RESIDUAL: u64 = 40;
    pub(super) const CONTINUES: u64 = 44;
    pub(super) const TILES: u64 = 48;
    pub(super) const NEXT: u64 = 52;
    pub(super) const OTHER_NEXT: u64 = 56;
    pub(super) const LOW: u64 = 60;
    pub(super) const HIGH: u64 = 64;
    pub(super) const AHEAD: u64 = 68;
    pub(super) const AHEAD_LINES: u64 = 72;
    pub(super) const AHEAD_EACH: u64 = 76;
    pub(super) const TOUCHED: u64 = 80;
    pub(super) const OFFSETS: u64 = 84;
}

/// Where the functions look for the fields of `Wide`, in the order in which it has them.
pub(crate) const FIELDS: [u64; 22] = [
    field::INPUT,
    field::STRIDE,
    field::STEPS,
    field::WEIGHTS,
    field::MORE_WEIGHTS,
    field::BIAS,
    field::MORE_BIAS,
    field::OUTPUT,
    field::MORE_OUTPUT,
    field::OUTPUT_PLANE,
    field::RESIDUAL,
    field::CONTINUES,
    field::TILES,
    field::NEXT,
    field::OTHER_NEXT,
    field::LOW,
    field::HIGH,
    field::AHEAD,
    field::AHEAD_LINES,
    field::AHEAD_EACH,
    field::TOUCHED,
    field::OFFSETS,
];

/// The functions' local variables.
mod local {
    /// The argument.
    pub(super) const WIDE: u32 = 0;
    pub(super) const INPUT: u32 = 1;
    pub(super) const STRIDE: u32 = 2;
    pub(super) const OUTPUT: u32 = 3;
    pub(super) const MORE_OUTPUT: u32 = 4;
    pub(super) const OUTPUT_PLANE: u32 = 5;
    pub(super) const TILES: u32 = 6;
    /// From the input of this tile to the next, and from that on.
    pub(super) const NEXT: u32 = 7;
    pub(super) const OTHER_NEXT: u32 = 8;
    /// From an output to its residual, and whether there is one.
    pub(super) const RESIDUAL: u32 = 9;
    pub(super) const ADDS: u32 = 10;
    /// Of one step.
    pub(super) const PIXEL: u32 = 11;
    pub(super) const WEIGHT: u32 = 12;
    pub(super) const MORE_WEIGHT: u32 = 13;
    pub(super) const LEFT: u32 = 14;
    pub(super) const TO: u32 = 15;
    /// What is read ahead: where, how many lines are left, how many now, and what came of it.
    pub(super) const AHEAD: u32 = 16;
    pub(super) const AHEAD_LINES: u32 = 17;
    pub(super) const AHEAD_NOW: u32 = 18;
    pub(super) const TOUCHED: u32 = 19;
    pub(super) const READ_AHEAD: super::Ahead =
        super::Ahead { from: AHEAD, left: AHEAD_LINES, now: AHEAD_NOW, touched: TOUCHED };
    /// The distance of the turn's first step from the input.
    pub(super) const OFFSET: u32 = 20;
    pub(super) const NUMBERS: u32 = 20;
    /// Vectors.
    pub(super) const PIXELS: u32 = 21;
    pub(super) const LOW: u32 = 22;
    pub(super) const HIGH: u32 = 23;
    pub(super) const SLOTS: u32 = 24;
    pub(super) const VECTORS: u32 = 3 + super::SLOTS;
}

/// Output channels: those of a block of eight, and half of another one's.
const CHANNELS: u32 = 12;
const BLOCK: u32 = 8;
/// Variables of the sums, of which one is free.
const SLOTS: u32 = CHANNELS + 1;
/// Steps in a turn.
const TURN: u32 = 13;
/// Bytes of a value, of a tile's row, and of a step's weights in a block.
const VALUE: u64 = 4;
const TILE: i32 = 16;
const WEIGHTS: u64 = 32;

/// Where a channel's sum is after so many steps of a turn.
fn slot(channel: u32, steps: u32) -> u32 {
    local::SLOTS + (channel + SLOTS - steps % SLOTS) % SLOTS
}

/// All functions. With `relaxed` a multiply-add is one instruction, else two.
pub(crate) fn functions(relaxed: bool) -> Vec<(&'static str, Function)> {
    NAMES.into_iter().map(|(name, walk)| (name, wide(walk, relaxed))).collect()
}

fn wide(walk: Walk, relaxed: bool) -> Function {
    let locals = [(local::NUMBERS, ValType::I32), (local::VECTORS, ValType::V128)];
    let mut function = Function::new(locals);
    Writer { code: function.instructions(), walk, relaxed }.write();
    function
}

/// Writes one function.
struct Writer<'a> {
    code: InstructionSink<'a>,
    walk: Walk,
    relaxed: bool,
}

impl<'a> Writer<'a> {
    fn write(mut self) {
        use local::{ADDS, INPUT, MORE_OUTPUT, NEXT, OTHER_NEXT, OUTPUT, RESIDUAL, TILES};
        for (name, offset) in [
            (INPUT, field::INPUT),
            (local::STRIDE, field::STRIDE),
            (OUTPUT, field::OUTPUT),
            (MORE_OUTPUT, field::MORE_OUTPUT),
            (local::OUTPUT_PLANE, field::OUTPUT_PLANE),
            (TILES, field::TILES),
            (NEXT, field::NEXT),
            (OTHER_NEXT, field::OTHER_NEXT),
            (ADDS, field::RESIDUAL),
            (local::AHEAD, field::AHEAD),
            (local::AHEAD_LINES, field::AHEAD_LINES),
        ] {
            self.code.field(offset).local_set(name);
        }
        self.code.local_get(ADDS).local_get(OUTPUT).i32_sub().local_set(RESIDUAL);
        self.code.loop_(BlockType::Empty);
        self.code.read_ahead(local::READ_AHEAD, field::AHEAD_EACH);
        self.reduce();
        self.finish();
        self.code.local_get(INPUT).local_get(NEXT).i32_add().local_set(INPUT);
        self.code.local_get(NEXT).local_get(OTHER_NEXT).local_set(NEXT).local_set(OTHER_NEXT);
        self.code.advance(OUTPUT, TILE);
        self.code.advance(MORE_OUTPUT, TILE);
        self.code.advance(TILES, -1);
        self.code.local_get(TILES).br_if(0).end();
        for (name, offset) in [
            (local::AHEAD, field::AHEAD),
            (local::AHEAD_LINES, field::AHEAD_LINES),
            (local::TOUCHED, field::TOUCHED),
        ] {
            self.code.local_get(local::WIDE).local_get(name).i32_store(at(offset));
        }
        self.code.end();
    }

    /// The sums of a tile's products.
    fn reduce(&mut self) {
        use local::{INPUT, LEFT, MORE_WEIGHT, OFFSET, PIXEL, WEIGHT};
        match self.walk {
            Walk::Channels => self.code.local_get(INPUT).local_set(PIXEL),
            Walk::Taps => self.code.field(field::OFFSETS).local_set(OFFSET),
        };
        self.code.field(field::WEIGHTS).local_set(WEIGHT);
        self.code.field(field::MORE_WEIGHTS).local_set(MORE_WEIGHT);
        self.code.field(field::STEPS).local_set(LEFT);
        for channel in 0..SLOTS {
            self.code.v128_const(0).local_set(slot(channel, 0));
        }
        self.code.block(BlockType::Empty).loop_(BlockType::Empty);
        for step in 0..TURN {
            self.code.block(BlockType::Empty);
            self.code.local_get(LEFT).i32_const(step as i32).i32_le_s().br_if(0);
            self.step(step);
            self.code.end();
        }
        let bytes = (u64::from(TURN) * WEIGHTS) as i32;
        self.code.advance(WEIGHT, bytes);
        self.code.advance(MORE_WEIGHT, bytes);
        if self.walk == Walk::Taps {
            self.code.advance(OFFSET, (u64::from(TURN) * VALUE) as i32);
        }
        self.code.advance(LEFT, -(TURN as i32));
        self.code.local_get(LEFT).i32_const(0).i32_le_s().br_if(1);
        self.put_back(TURN);
        self.code.br(0).end().end();
        // Below zero it says how many steps the last turn lacked.
        self.code.block(BlockType::Empty);
        for steps in 1..=TURN {
            if steps < TURN {
                self.code.block(BlockType::Empty);
                self.code.local_get(LEFT).i32_const(steps as i32 - TURN as i32).i32_ne().br_if(0);
            }
            self.put_back(steps);
            if steps < TURN {
                self.code.br(1).end();
            }
        }
        self.code.end();
    }

    /// Puts the sums where they are before the first step of a turn.
    fn put_back(&mut self, steps: u32) {
        for channel in 0..CHANNELS {
            self.code.local_get(slot(channel, steps));
        }
        for channel in (0..CHANNELS).rev() {
            self.code.local_set(slot(channel, 0));
        }
    }

    /// Adds the products of four pixels and twelve weights to the sums.
    fn step(&mut self, step: u32) {
        use local::{INPUT, MORE_WEIGHT, OFFSET, PIXEL, PIXELS, STRIDE, WEIGHT};
        if self.walk == Walk::Taps {
            let place = u64::from(step) * VALUE;
            self.code.local_get(INPUT).local_get(OFFSET).i32_load(at(place));
            self.code.i32_add().local_set(PIXEL);
        }
        self.code.local_get(PIXEL).v128_load(at(0)).local_set(PIXELS);
        for channel in 0..CHANNELS {
            let from = if channel < BLOCK { WEIGHT } else { MORE_WEIGHT };
            let place = u64::from(step) * WEIGHTS + u64::from(channel % BLOCK) * VALUE;
            let sum = slot(channel, step);
            self.code.local_get(from).v128_load32_splat(at(place)).local_get(PIXELS);
            if self.relaxed {
                self.code.local_get(sum).f32x4_relaxed_madd();
            } else {
                self.code.f32x4_mul().local_get(sum).f32x4_add();
            }
            self.code.local_set(slot(channel, step + 1));
        }
        if self.walk == Walk::Channels {
            self.code.local_get(PIXEL).local_get(STRIDE).i32_add().local_set(PIXEL);
        }
    }

    /// Goes through the channels with [`local::TO`] at their outputs.
    fn each(&mut self, mut with: impl FnMut(&mut Self, u32)) {
        use local::{MORE_OUTPUT, OUTPUT, OUTPUT_PLANE, TO};
        for channel in 0..CHANNELS {
            match channel {
                0 => self.code.local_get(OUTPUT).local_set(TO),
                BLOCK => self.code.local_get(MORE_OUTPUT).local_set(TO),
                _ => self.code.local_get(TO).local_get(OUTPUT_PLANE).i32_add().local_set(TO),
            };
            with(self, channel);
        }
    }

    /// Writes the sums with bias, or what the leg before has left, residual and bounds.
    fn finish(&mut self) {
        use local::{ADDS, HIGH, LOW, MORE_WEIGHT, RESIDUAL, TO, WEIGHT};
        let sum = |channel| slot(channel, 0);
        self.code.field(field::CONTINUES).if_(BlockType::Empty);
        self.each(|writer, channel| {
            writer.code.local_get(sum(channel)).local_get(TO).v128_load(at(0)).f32x4_add();
            writer.code.local_set(sum(channel));
        });
        self.code.else_();
        self.code.field(field::BIAS).local_set(WEIGHT);
        self.code.field(field::MORE_BIAS).local_set(MORE_WEIGHT);
        for channel in 0..CHANNELS {
            let from = if channel < BLOCK { WEIGHT } else { MORE_WEIGHT };
            let place = u64::from(channel % BLOCK) * VALUE;
            self.code.local_get(sum(channel)).local_get(from).v128_load32_splat(at(place));
            self.code.f32x4_add().local_set(sum(channel));
        }
        self.code.end();
        self.code.local_get(ADDS).if_(BlockType::Empty);
        self.each(|writer, channel| {
            writer.code.local_get(sum(channel)).local_get(TO).local_get(RESIDUAL).i32_add();
            writer.code.v128_load(at(0)).f32x4_add().local_set(sum(channel));
        });
        self.code.end();
        for (bound, offset) in [(LOW, field::LOW), (HIGH, field::HIGH)] {
            self.code.local_get(local::WIDE).v128_load32_splat(at(offset)).local_set(bound);
        }
        self.each(|writer, channel| {
            writer.code.local_get(TO).local_get(sum(channel)).local_get(LOW).f32x4_pmax();
            writer.code.local_get(HIGH).f32x4_pmin().v128_store(at(0));
        });
    }
}
