//! What the writers of functions share: the instructions with which each reads the fields of its
//! argument, moves its variables on and reads ahead.

use wasm_encoder::{BlockType, InstructionSink, MemArg};

/// The variable of a function's argument, which leads to a structure.
const ARGUMENT: u32 = 0;
/// Bytes of a cache line.
const LINE: i32 = 64;

/// Variables of what is read ahead: where, how many lines are left, how many now, and what came of
/// it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    pub(crate) from: u32,
    pub(crate) left: u32,
    pub(crate) now: u32,
    pub(crate) touched: u32,
}

/// A load or store so many bytes behind its address.
pub(crate) fn at(offset: u64) -> MemArg {
    // Values are aligned for `f32` at least.
    MemArg { offset, align: 2, memory_index: 0 }
}

/// Short sequences of instructions.
pub(crate) trait Phrases {
    /// Puts a field of the argument on the stack.
    fn field(&mut self, offset: u64) -> &mut Self;

    /// Moves a variable on.
    fn advance(&mut self, name: u32, by: i32) -> &mut Self;

    /// Reads a few cache lines, as many as the field `each` says, so that they arrive while the next
    /// sums are made. What is not used the engine would not read.
    fn read_ahead(&mut self, names: Ahead, each: u64);
}

impl Phrases for InstructionSink<'_> {
    fn field(&mut self, offset: u64) -> &mut Self {
        self.local_get(ARGUMENT).i32_load(at(offset))
    }

    fn advance(&mut self, name: u32, by: i32) -> &mut Self {
        self.local_get(name).i32_const(by).i32_add().local_set(name)
    }

    fn read_ahead(&mut self, names: Ahead, each: u64) {
        let Ahead { from, left, now, touched } = names;
        self.local_get(left).if_(BlockType::Empty);
        self.field(each).local_set(now);
        self.local_get(left).local_get(now).i32_lt_u().if_(BlockType::Empty);
        self.local_get(left).local_set(now).end();
        self.local_get(left).local_get(now).i32_sub().local_set(left);
        self.loop_(BlockType::Empty);
        self.local_get(touched).local_get(from).i32_load(at(0)).i32_or().local_set(touched);
        self.advance(from, LINE);
        self.advance(now, -1);
        self.local_get(now).br_if(0).end().end();
    }
}
