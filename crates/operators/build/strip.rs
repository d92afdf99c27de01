//! The instructions of a strip: eight neighbouring pixels by four output channels at a time.
//!
//! A reduction step loads two vectors of pixels of one input channel and one of four weights,
//! spreads each weight over a vector and adds eight products to eight accumulators. A sum then is
//! four neighbouring pixels of one channel, which is how they are stored.
//!
//! What the engine, Cranelift, needs to keep all that in registers:
//! - It keeps loads in order at the top of a basic block and sinks arithmetic to its end, so an
//!   unrolled reduction loads everything first and spills. Each turn of a loop takes three steps
//!   (a window row's where there is one), with an exit test behind each.
//! - Its multiply-add overwrites the register of the first factor: that is the pixels, which the
//!   last channel needs no more.
//! - It orders the multiply-adds of a block by the first use of their sums behind the loop. So sums
//!   begin at zero and are used in the order in which they are made: the bias is added first.
//! - A load into all lanes becomes three instructions by way of a scalar register, a lane of a
//!   vector one.

use wasm_encoder::{BlockType, Function, InstructionSink, ValType};

use crate::phrases::{Ahead, Phrases, at};

/// How a reduction walks over the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// A step a channel, `stride` apart.
    Channels,
    /// The same in legs, which are summed up in the output.
    ChannelsInLegs,
    /// Window rows of so many neighbouring columns, at the offset of the first.
    Rows(u64),
    /// Window rows of so many columns at the offset of the first, the odd ones `stride` behind the
    /// even ones.
    SplitRows(u64),
    /// An offset a step.
    Table,
}

/// How a step spreads the last of its four weights. With which of them the engine finds registers
/// for everything is luck, and measured: from 0.68 to 0.86 of the core's peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// As the others, a lane of their vector.
    Lane,
    /// From a load of its own.
    Float,
    /// By a load that spreads it.
    Spread,
}

/// The functions by name.
pub(crate) const NAMES: [(&str, Walk); 7] = [
    ("graphlet_strip_channels", Walk::Channels),
    ("graphlet_strip_channels_in_legs", Walk::ChannelsInLegs),
    ("graphlet_strip_rows_of_three", Walk::Rows(3)),
    ("graphlet_strip_split_rows_of_three", Walk::SplitRows(3)),
    ("graphlet_strip_split_rows_of_five", Walk::SplitRows(5)),
    ("graphlet_strip_split_rows_of_seven", Walk::SplitRows(7)),
    ("graphlet_strip_table", Walk::Table),
];

/// Fields of `Strip` in `src/strip.rs`, by their place in 32-bit memory.
mod field {
    pub(super) const INPUT: u64 = 0;
    pub(super) const STRIDE: u64 = 4;
    pub(super) const OFFSETS: u64 = 8;
    pub(super) const STEPS: u64 = 12;
    pub(super) const LEG: u64 = 16;
    pub(super) const WEIGHTS: u64 = 20;
    pub(super) const BIAS: u64 = 24;
    pub(super) const OUTPUT: u64 = 28;
    pub(super) const OUTPUT_PLANE: u64 = 32;
    pub(super) const RESIDUAL: u64 = 36;
    pub(super) const CHANNELS: u64 = 40;
    pub(super) const TILES: u64 = 44;
    pub(super) const LOW: u64 = 48;
    pub(super) const HIGH: u64 = 52;
    pub(super) const NEXT: u64 = 56;
    pub(super) const AHEAD: u64 = 60;
    pub(super) const AHEAD_LINES: u64 = 64;
    pub(super) const AHEAD_EACH: u64 = 68;
    pub(super) const TOUCHED: u64 = 72;
}

/// The functions' local variables.
mod local {
    /// The argument.
    pub(super) const STRIP: u32 = 0;
    pub(super) const INPUT: u32 = 1;
    pub(super) const STRIDE: u32 = 2;
    pub(super) const OUTPUT: u32 = 3;
    pub(super) const OUTPUT_PLANE: u32 = 4;
    pub(super) const TILES: u32 = 5;
    /// From an output to its residual, and whether there is one.
    pub(super) const RESIDUAL: u32 = 6;
    pub(super) const ADDS: u32 = 7;
    /// Of four channels.
    pub(super) const WEIGHTS: u32 = 8;
    pub(super) const BIAS: u32 = 9;
    pub(super) const TO: u32 = 10;
    pub(super) const CHANNELS: u32 = 11;
    /// Of one step.
    pub(super) const PIXEL: u32 = 12;
    pub(super) const ODD: u32 = 13;
    pub(super) const OFFSET: u32 = 14;
    pub(super) const WEIGHT: u32 = 15;
    pub(super) const LEFT: u32 = 16;
    /// Of a leg: its first pixel, its first weight, its steps, and those from it on.
    pub(super) const LEG_INPUT: u32 = 17;
    pub(super) const LEG_WEIGHTS: u32 = 18;
    pub(super) const LEG_STEPS: u32 = 19;
    pub(super) const LEG_LEFT: u32 = 20;
    /// From the input of a tile to that of the next.
    pub(super) const NEXT: u32 = 21;
    /// What is read ahead: where, how many lines are left, how many now, and what came of it.
    pub(super) const AHEAD: u32 = 22;
    pub(super) const AHEAD_LINES: u32 = 23;
    pub(super) const AHEAD_NOW: u32 = 24;
    pub(super) const TOUCHED: u32 = 25;
    pub(super) const READ_AHEAD: super::Ahead =
        super::Ahead { from: AHEAD, left: AHEAD_LINES, now: AHEAD_NOW, touched: TOUCHED };
    pub(super) const NUMBERS: u32 = 25;
    /// Vectors.
    pub(super) const PIXELS: [u32; 2] = [26, 27];
    pub(super) const FOUR_WEIGHTS: u32 = 28;
    pub(super) const SPREAD: u32 = 29;
    pub(super) const LOW: u32 = 30;
    pub(super) const HIGH: u32 = 31;
    pub(super) const LAST_WEIGHT: u32 = 32;
    pub(super) const SUMS: u32 = 33;
    pub(super) const VECTORS: u32 = 15;
}

/// Bytes of a vector, of a step's weights, and of a tile's row.
const VECTOR: u64 = 16;
const WEIGHTS: u64 = 32;
const TILE: i32 = 32;
/// Output channels that are summed up at a time.
const CHANNELS: u32 = 4;
/// Steps in a turn where no window row says how many.
const TURN: u64 = 3;

/// Where the functions look for the fields of `Strip`, in the order in which it has them.
pub(crate) const FIELDS: [u64; 19] = [
    field::INPUT,
    field::STRIDE,
    field::OFFSETS,
    field::STEPS,
    field::LEG,
    field::WEIGHTS,
    field::BIAS,
    field::OUTPUT,
    field::OUTPUT_PLANE,
    field::RESIDUAL,
    field::CHANNELS,
    field::TILES,
    field::LOW,
    field::HIGH,
    field::NEXT,
    field::AHEAD,
    field::AHEAD_LINES,
    field::AHEAD_EACH,
    field::TOUCHED,
];

/// All functions. With `relaxed` a multiply-add is one instruction, else two.
pub(crate) fn functions(relaxed: bool) -> Vec<(&'static str, Function)> {
    NAMES.into_iter().map(|(name, walk)| (name, strip(walk, relaxed))).collect()
}

fn strip(walk: Walk, relaxed: bool) -> Function {
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

fn sum(channel: u32, vector: u32) -> u32 {
    local::SUMS + 2 * channel + vector
}

impl<'a> Writer<'a> {
    fn write(mut self) {
        for (name, offset) in [
            (local::INPUT, field::INPUT),
            (local::STRIDE, field::STRIDE),
            (local::OUTPUT, field::OUTPUT),
            (local::OUTPUT_PLANE, field::OUTPUT_PLANE),
            (local::TILES, field::TILES),
            (local::NEXT, field::NEXT),
            (local::AHEAD, field::AHEAD),
            (local::AHEAD_LINES, field::AHEAD_LINES),
            (local::ADDS, field::RESIDUAL),
        ] {
            self.code.field(offset).local_set(name);
        }
        self.code.local_get(local::ADDS).local_get(local::OUTPUT).i32_sub();
        self.code.local_set(local::RESIDUAL);
        self.code.loop_(BlockType::Empty);
        match self.walk {
            Walk::ChannelsInLegs => self.legs(),
            _ => {
                self.code.field(field::WEIGHTS).local_set(local::WEIGHTS);
                self.spread_field(field::LOW, local::LOW);
                self.spread_field(field::HIGH, local::HIGH);
                self.blocks();
            }
        }
        self.code.local_get(local::INPUT).local_get(local::NEXT).i32_add().local_set(local::INPUT);
        self.code.advance(local::OUTPUT, TILE);
        self.code.advance(local::TILES, -1);
        self.code.local_get(local::TILES).br_if(0).end();
        for (name, offset) in [
            (local::AHEAD, field::AHEAD),
            (local::AHEAD_LINES, field::AHEAD_LINES),
            (local::TOUCHED, field::TOUCHED),
        ] {
            self.code.local_get(local::STRIP).local_get(name).i32_store(at(offset));
        }
        self.code.end();
    }

    fn spread_field(&mut self, offset: u64, to: u32) {
        self.code.local_get(local::STRIP).v128_load32_splat(at(offset)).local_set(to);
    }

    /// One tile leg by leg. All but the last leg leave bare sums in the output.
    fn legs(&mut self) {
        use local::{ADDS, HIGH, LEG_INPUT, LEG_LEFT, LEG_STEPS, LEG_WEIGHTS, LOW, WEIGHTS};
        self.code.field(field::STEPS).local_set(LEG_LEFT);
        self.code.field(field::WEIGHTS).local_set(LEG_WEIGHTS);
        self.code.local_get(local::INPUT).local_set(LEG_INPUT);
        self.code.loop_(BlockType::Empty);
        // The leg's steps: what is left, a leg at most.
        self.code.local_get(LEG_LEFT).local_set(LEG_STEPS);
        self.code.field(field::LEG).local_get(LEG_LEFT).i32_lt_u().if_(BlockType::Empty);
        self.code.field(field::LEG).local_set(LEG_STEPS);
        self.code.end();
        // The last leg ends as a sum in one piece does.
        self.code.i32_const(0).local_set(ADDS);
        for (bound, value) in [(LOW, f32::NEG_INFINITY), (HIGH, f32::INFINITY)] {
            self.code.f32_const(value.into()).f32x4_splat().local_set(bound);
        }
        self.code.local_get(LEG_LEFT).local_get(LEG_STEPS).i32_eq().if_(BlockType::Empty);
        self.code.field(field::RESIDUAL).local_set(ADDS);
        self.spread_field(field::LOW, LOW);
        self.spread_field(field::HIGH, HIGH);
        self.code.end();
        self.code.local_get(LEG_WEIGHTS).local_set(WEIGHTS);
        self.blocks();
        self.code.local_get(LEG_INPUT).local_get(LEG_STEPS).local_get(local::STRIDE).i32_mul();
        self.code.i32_add().local_set(LEG_INPUT);
        self.code.local_get(LEG_WEIGHTS).local_get(LEG_STEPS).i32_const(5).i32_shl();
        self.code.i32_add().local_set(LEG_WEIGHTS);
        self.code.local_get(LEG_LEFT).local_get(LEG_STEPS).i32_sub().local_tee(LEG_LEFT);
        self.code.br_if(0).end();
    }

    /// The channels of one tile, four at a time.
    fn blocks(&mut self) {
        use local::{BIAS, CHANNELS as LEFT, OUTPUT, TO, WEIGHTS};
        self.code.field(field::BIAS).local_set(BIAS);
        self.code.field(field::CHANNELS).local_set(LEFT);
        self.code.local_get(OUTPUT).local_set(TO);
        self.code.loop_(BlockType::Empty);
        self.code.read_ahead(local::READ_AHEAD, field::AHEAD_EACH);
        self.reduce();
        self.finish();
        self.code.advance(WEIGHTS, VECTOR as i32);
        self.code.advance(BIAS, VECTOR as i32);
        self.code.advance(LEFT, -(CHANNELS as i32));
        self.code.local_get(LEFT).i32_const(0).i32_gt_s().br_if(0).end();
    }

    /// The sums of four channels.
    fn reduce(&mut self) {
        use local::{LEFT, OFFSET, PIXEL, WEIGHT};
        let legs = self.walk == Walk::ChannelsInLegs;
        self.code.local_get(if legs { local::LEG_INPUT } else { local::INPUT }).local_set(PIXEL);
        self.code.local_get(local::WEIGHTS).local_set(WEIGHT);
        if legs {
            self.code.local_get(local::LEG_STEPS).local_set(LEFT);
        } else {
            self.code.field(field::STEPS).local_set(LEFT);
        }
        if !matches!(self.walk, Walk::Channels | Walk::ChannelsInLegs) {
            self.code.field(field::OFFSETS).local_set(OFFSET);
        }
        if legs {
            for vector in 0..2 * CHANNELS {
                self.code.v128_const(0).local_set(local::SUMS + vector);
            }
        } else {
            self.code.local_get(local::BIAS).v128_load(at(0)).local_set(local::FOUR_WEIGHTS);
            for channel in 0..CHANNELS {
                self.spread(channel);
                for vector in 0..2 {
                    self.code.local_get(local::SPREAD).local_set(sum(channel, vector));
                }
            }
        }
        let turn = match self.walk {
            Walk::Rows(columns) | Walk::SplitRows(columns) => columns,
            _ => TURN,
        };
        self.code.block(BlockType::Empty).loop_(BlockType::Empty);
        for step in 0..turn {
            let (pixel, place) = self.pixel(step);
            self.step(pixel, place, step * WEIGHTS);
            self.code.advance(LEFT, -1);
            self.code.local_get(LEFT).i32_eqz().br_if(1);
            if matches!(self.walk, Walk::Channels | Walk::ChannelsInLegs) {
                self.code.local_get(PIXEL).local_get(local::STRIDE).i32_add().local_set(PIXEL);
            }
        }
        match self.walk {
            Walk::Rows(_) | Walk::SplitRows(_) | Walk::Table => {
                self.code.advance(OFFSET, 4 * turn as i32);
            }
            Walk::Channels | Walk::ChannelsInLegs => {}
        }
        self.code.advance(WEIGHT, (turn * WEIGHTS) as i32);
        self.code.br(0).end().end();
    }

    fn last_weight(&self) -> Last {
        match self.walk {
            Walk::Channels | Walk::ChannelsInLegs => Last::Float,
            Walk::Rows(_) | Walk::SplitRows(3) | Walk::Table => Last::Lane,
            Walk::SplitRows(_) => Last::Spread,
        }
    }

    /// Where a step of a turn finds its pixels: a variable and bytes behind it.
    fn pixel(&mut self, step: u64) -> (u32, u64) {
        use local::{INPUT, ODD, OFFSET, PIXEL};
        match self.walk {
            Walk::Channels | Walk::ChannelsInLegs => (PIXEL, 0),
            Walk::Table => {
                self.code.local_get(INPUT).local_get(OFFSET).i32_load(at(4 * step));
                self.code.i32_add().local_set(PIXEL);
                (PIXEL, 0)
            }
            Walk::Rows(_) | Walk::SplitRows(_) => {
                if step == 0 {
                    self.code.local_get(INPUT).local_get(OFFSET).i32_load(at(0));
                    self.code.i32_add().local_set(PIXEL);
                }
                if !matches!(self.walk, Walk::SplitRows(_)) {
                    return (PIXEL, 4 * step);
                }
                if step == 0 {
                    self.code.local_get(PIXEL).local_get(local::STRIDE).i32_add();
                    self.code.local_set(ODD);
                }
                (if step.is_multiple_of(2) { PIXEL } else { ODD }, 4 * (step / 2))
            }
        }
    }

    /// Spreads one of four weights over a vector.
    fn spread(&mut self, channel: u32) {
        let lanes = std::array::from_fn(|i| (4 * channel) as u8 + i as u8 % 4);
        self.code.local_get(local::FOUR_WEIGHTS).local_get(local::FOUR_WEIGHTS);
        self.code.i8x16_shuffle(lanes).local_set(local::SPREAD);
    }

    /// Adds the products of eight pixels and four weights to the sums.
    fn step(&mut self, pixel: u32, place: u64, weights: u64) {
        use local::{FOUR_WEIGHTS, LAST_WEIGHT, PIXELS, SPREAD, WEIGHT};
        for (i, pixels) in (0..).zip(PIXELS) {
            self.code.local_get(pixel).v128_load(at(place + VECTOR * i)).local_set(pixels);
        }
        self.code.local_get(WEIGHT).v128_load(at(weights)).local_set(FOUR_WEIGHTS);
        let last = CHANNELS - 1;
        match self.last_weight() {
            Last::Lane => {}
            Last::Float => {
                self.code.local_get(WEIGHT).f32_load(at(weights + 4 * u64::from(last)));
                self.code.f32x4_splat().local_set(LAST_WEIGHT);
            }
            Last::Spread => {
                self.code.local_get(WEIGHT).v128_load32_splat(at(weights + 4 * u64::from(last)));
                self.code.local_set(LAST_WEIGHT);
            }
        }
        for channel in 0..CHANNELS {
            if channel == last && self.last_weight() != Last::Lane {
                self.code.local_get(LAST_WEIGHT).local_set(SPREAD);
            } else {
                self.spread(channel);
            }
            for (vector, pixels) in (0..).zip(PIXELS) {
                let sum = sum(channel, vector);
                self.code.local_get(pixels).local_get(SPREAD);
                if self.relaxed {
                    self.code.local_get(sum).f32x4_relaxed_madd();
                } else {
                    self.code.f32x4_mul().local_get(sum).f32x4_add();
                }
                self.code.local_set(sum);
            }
        }
    }

    /// Writes the sums of up to four channels with bias, residual and bounds, or with what the legs
    /// before have left.
    fn finish(&mut self) {
        use local::{ADDS, BIAS, CHANNELS as LEFT, HIGH, LOW, OUTPUT_PLANE, RESIDUAL, TO};
        let sums =
            |channel: u32| (0..2).map(move |vector| (sum(channel, vector), 16 * u64::from(vector)));
        let legs = self.walk == Walk::ChannelsInLegs;
        if legs {
            self.code.local_get(local::LEG_INPUT).local_get(local::INPUT).i32_eq();
            self.code.if_(BlockType::Empty);
            self.code.local_get(BIAS).v128_load(at(0)).local_set(local::FOUR_WEIGHTS);
            for channel in 0..CHANNELS {
                self.spread(channel);
                for (sum, _) in sums(channel) {
                    self.code.local_get(sum).local_get(local::SPREAD).f32x4_add().local_set(sum);
                }
            }
            self.code.end();
        }
        self.code.block(BlockType::Empty);
        for channel in 0..CHANNELS {
            if legs {
                self.code.local_get(local::LEG_INPUT).local_get(local::INPUT).i32_ne();
                self.code.if_(BlockType::Empty);
                for (sum, place) in sums(channel) {
                    self.code.local_get(TO).v128_load(at(place)).local_get(sum).f32x4_add();
                    self.code.local_set(sum);
                }
                self.code.end();
            }
            self.code.local_get(ADDS).if_(BlockType::Empty);
            for (sum, place) in sums(channel) {
                self.code.local_get(sum).local_get(TO).local_get(RESIDUAL).i32_add();
                self.code.v128_load(at(place)).f32x4_add().local_set(sum);
            }
            self.code.end();
            for (sum, place) in sums(channel) {
                self.code.local_get(TO).local_get(sum).local_get(LOW).f32x4_pmax();
                self.code.local_get(HIGH).f32x4_pmin().v128_store(at(place));
            }
            self.code.local_get(TO).local_get(OUTPUT_PLANE).i32_add().local_set(TO);
            if channel + 1 < CHANNELS {
                self.code.local_get(LEFT).i32_const(channel as i32 + 1).i32_eq().br_if(0);
            }
        }
        self.code.end();
    }
}
