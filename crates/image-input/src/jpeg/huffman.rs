//! The codes in entropy-coded data, and the blocks that they tell (ITU-T T.81, annexes C and F).

use std::cell::OnceCell;

use crate::ImageError;

use super::{
    bits::{Ahead, Bits},
    broken,
};

/// Codes of at most so many bits are found by one look into a table.
const LOOK_BITS: u32 = 10;
const LOOKS: usize = 1 << LOOK_BITS;

/// Where coefficient `k` of a block stands, counted as the file does, in a block that is stored
/// column by column.
pub(super) const PLACES: [u8; 64] = [
    0, 8, 1, 2, 9, 16, 24, 17, 10, 3, 4, 11, 18, 25, 32, 40, 33, 26, 19, 12, 5, 6, 13, 20, 27, 34,
    41, 48, 56, 49, 42, 35, 28, 21, 14, 7, 15, 22, 29, 36, 43, 50, 57, 58, 51, 44, 37, 30, 23, 31,
    38, 45, 52, 59, 60, 53, 46, 39, 47, 54, 61, 62, 55, 63,
];

/// Quantised coefficients of a block, column by column.
pub(super) type Block = [i16; 64];

/// Steps of the coefficients, in the file's order.
pub(super) type Steps = [u16; 64];

/// Steps in the order of a [`Block`], modulo 2^16 as libjpeg's vector code has them.
pub(super) fn in_block_order(steps: &Steps) -> Block {
    let mut ordered = [0; 64];
    for (&step, &place) in steps.iter().zip(&PLACES) {
        ordered[usize::from(place & 63)] = step.cast_signed();
    }
    ordered
}

/// A Huffman table.
#[derive(Clone)]
pub(super) struct Table {
    /// By the next [`LOOK_BITS`] bits, what their code says.
    looks: Box<[Look; LOOKS]>,
    /// By the same bits, what two codes and their values say; made when it is asked for first.
    doubles: OnceCell<Box<[Double; LOOKS]>>,
    /// For each length, one more than the largest code, with all bits of 16 taken.
    limits: [u32; 17],
    /// For each length, what added to a code gives the place of its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

/// What a code says: a run of zeros and the size of the value behind it (the halves of a symbol).
///
/// From the lowest bit: 8 for the bits of code and value together, 8 for 64 less those of the
/// value, 8 for those of the code, 7 for one more than the run; the last one is set when no value
/// follows. A register is shifted by any of the first three as it stands, for a shift looks at the
/// lowest six bits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look(u32);

impl Look {
    /// A code that is longer than a look, or none.
    const NONE: Self = Self(1 << 31);

    fn new(length: u32, symbol: u8) -> Self {
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        let alone = if size == 0 { Self::NONE.0 } else { 0 };
        Self(alone | (run + 1) << 24 | length << 16 | (64 - size) << 8 | (length + size))
    }

    /// Whether a value follows.
    #[inline]
    fn has_value(self) -> bool {
        self.0.cast_signed() >= 0
    }

    fn symbol(self) -> u32 {
        let size = 64 - (self.0 >> 8 & 255);
        ((self.0 >> 24 & 127) - 1) << 4 | size
    }

    fn length(self) -> u32 {
        self.0 >> 16 & 255
    }

    /// One more than the run, the value that follows in `bits`, whose first one is at the top, and
    /// how many bits both take; `None` where no value follows.
    #[inline]
    fn value(self, bits: u64) -> Option<(u32, i32, u32)> {
        let value = || signed(bits.wrapping_shl(self.0 >> 16), self.0 >> 8);
        self.has_value().then(|| (self.0 >> 24, value(), self.0 & 255))
    }
}

/// What one look tells of the coefficients of a block: one or two of them, and whether the block
/// ends with them.
///
/// From the lowest bit: 8 for the bits that are told of, 8 for the step from the coefficient before
/// to the first, 8 for that to the second (0 and the same value again where there is but one), 8
/// for the marks below; 16 for each value.
#[derive(Clone, Copy)]
struct Double(u64);

impl Double {
    /// Not even one code and its value lie within a look, or it is one without a value.
    const NONE: Self = Self(1 << 31);
    /// The end of the block follows.
    const END: u64 = 1 << 30;

    fn new(looks: &[Look; LOOKS], bits: u32) -> Self {
        let top = |bits: u32| u64::from(bits) << (64 - LOOK_BITS);
        let look = |bits: u32| looks[bits as usize % LOOKS];
        let value = |value: i32| u64::from(value as u16);
        let Some((step, first, taken)) =
            look(bits).value(top(bits)).filter(|&(_, _, taken)| taken <= LOOK_BITS)
        else {
            return Self::NONE;
        };
        let (rest, room) = (bits << taken, LOOK_BITS - taken);
        let next = look(rest);
        let (marks, further, second, taken) = match next.value(top(rest)) {
            Some((further, second, more)) if more <= room => (0, further, second, taken + more),
            None if next != Look::NONE && next.length() <= room && next.symbol() >> 4 < 15 => {
                (Self::END, 0, first, taken + next.length())
            }
            _ => (0, 0, first, taken),
        };
        let steps = u64::from(further << 16 | step << 8 | taken);
        Self(value(second) << 48 | value(first) << 32 | marks | steps)
    }
}

impl Table {
    /// Reads one table of a segment; gives what follows it.
    pub(super) fn parse(segment: &[u8]) -> Result<(Self, &[u8]), ImageError> {
        let (counts, rest) = segment.split_first_chunk::<16>().ok_or_else(malformed)?;
        let total = counts.iter().map(|&count| usize::from(count)).sum();
        let (symbols, rest) = rest.split_at_checked(total).ok_or_else(malformed)?;
        if total > 256 {
            return Err(malformed());
        }
        let mut table = Self {
            looks: Box::new([Look::NONE; LOOKS]),
            doubles: OnceCell::new(),
            limits: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let mut code = 0_u32;
        let mut place = 0;
        for (length, &count) in (1_u32..).zip(counts) {
            let count = u32::from(count);
            if code + count > 1 << length {
                return Err(malformed());
            }
            let at = length as usize;
            table.offsets[at] = place - code.cast_signed();
            for &symbol in symbols.iter().skip(place as usize).take(count as usize) {
                if length <= LOOK_BITS {
                    let first = (code << (LOOK_BITS - length)) as usize;
                    let looks = &mut table.looks[first..first + (1 << (LOOK_BITS - length))];
                    looks.fill(Look::new(length, symbol));
                }
                code += 1;
            }
            place += count.cast_signed();
            table.limits[at] = code << (16 - length);
            code <<= 1;
        }
        Ok((table, rest))
    }

    fn doubles(&self) -> &[Double; LOOKS] {
        self.doubles.get_or_init(|| {
            let mut doubles = Box::new([Double::NONE; LOOKS]);
            for (double, bits) in doubles.iter_mut().zip(0..) {
                *double = Double::new(&self.looks, bits);
            }
            doubles
        })
    }

    /// Length and symbol of the code with which these 16 bits begin.
    #[cold]
    #[inline(never)]
    fn long(&self, bits: u32) -> Result<(u32, u32), ImageError> {
        let length = (1..=16).find(|&length| bits < self.limits[length]);
        let length = length.ok_or_else(|| broken("its data has a code that stands for nothing"))?;
        let place = (bits >> (16 - length)).cast_signed() + self.offsets[length];
        let symbol = usize::try_from(place).ok().and_then(|place| self.symbols.get(place));
        symbol.map(|&symbol| (length as u32, u32::from(symbol))).ok_or_else(malformed)
    }
}

fn malformed() -> ImageError {
    broken("a Huffman table is malformed")
}

impl Ahead {
    #[inline]
    fn look(&self, table: &Table) -> Look {
        table.looks[self.peek(LOOK_BITS) as usize]
    }

    /// The next code and the value behind it, as far as one look tells them: run of zeros, and
    /// value; both are skipped then. Takes 25 bits at most.
    #[inline]
    pub(super) fn pair(&mut self, table: &Table) -> Option<(usize, i32)> {
        let (step, value, taken) = self.look(table).value(self.buffer())?;
        self.skip(taken);
        Some((step as usize - 1, value))
    }

    /// The next coefficient of a block, however long its code is: the step to it from the one
    /// before, and its value; sixteen zeros are one, too. `None` for the end of the block. Takes 31
    /// bits at most.
    // A call would take the address of what is to stay in registers.
    #[inline(always)]
    fn coefficient(&mut self, table: &Table) -> Result<Option<(usize, i32)>, ImageError> {
        if let Some((run, value)) = self.pair(table) {
            return Ok(Some((run + 1, value)));
        }
        let symbol = self.symbol(table)?;
        let (run, size) = (symbol >> 4, symbol & 15);
        Ok(match (run, size) {
            (15, 0) => Some((16, 0)),
            (_, 0) => None,
            _ => Some((run as usize + 1, self.value(size))),
        })
    }

    /// The next symbol, of 16 bits at most.
    #[inline]
    pub(super) fn symbol(&mut self, table: &Table) -> Result<u32, ImageError> {
        let look = self.look(table);
        let (length, symbol) = match look {
            Look::NONE => table.long(self.peek(16))?,
            _ => (look.length(), look.symbol()),
        };
        self.skip(length);
        Ok(symbol)
    }

    /// The next `size` bits, from 1 to 15 of them, as a value.
    #[inline]
    pub(super) fn value(&mut self, size: u32) -> i32 {
        let value = signed(self.buffer(), 64 - size);
        self.skip(size);
        value
    }
}

/// T.81, F.2.2.1, figure F.12: the value in the uppermost bits of `bits`, of which all but the
/// lowest six bits of `others` are others. Where its first bit is 0, it is negative, and its bits
/// are the inverse of what it would be else.
#[inline]
fn signed(bits: u64, others: u32) -> i32 {
    // All ones for a negative value: less than none of them is one more.
    let negative = !(bits.cast_signed() >> 63).cast_unsigned();
    let size = (bits ^ negative).wrapping_shr(others);
    (size ^ negative).wrapping_sub(negative) as i32
}

/// One component's codes.
pub(super) struct Coding<'a> {
    dc: &'a Table,
    ac: &'a Table,
    doubles: &'a [Double; LOOKS],
    /// The last coefficient, in the file's order, that is wanted.
    last: usize,
}

impl<'a> Coding<'a> {
    /// The codes of a component of which coefficients up to `last` are wanted.
    pub(super) fn new(dc: &'a Table, ac: &'a Table, last: usize) -> Self {
        Self { dc, ac, doubles: ac.doubles(), last }
    }
}

/// Reads the block that comes next into `block`, which holds zeros. Gives the last coefficient that
/// is not zero, or the last one that is wanted where that comes before.
#[inline]
pub(super) fn read_block(
    bits: &mut Bits<'_>,
    coding: &Coding<'_>,
    predicted: &mut i32,
    block: &mut Block,
) -> Result<usize, ImageError> {
    // A copy that stays in registers; on an error nobody goes on with the other.
    let mut ahead = bits.ahead;
    ahead.refill(&mut bits.window);
    match ahead.pair(coding.dc) {
        Some((0, step)) => *predicted = predicted.wrapping_add(step),
        Some(_) => return Err(long_step()),
        None => {
            let size = ahead.symbol(coding.dc)?;
            if size > 15 {
                return Err(long_step());
            }
            if size > 0 {
                *predicted = predicted.wrapping_add(ahead.value(size));
            }
        }
    }
    let mut put = |k: usize, value: i16| block[usize::from(PLACES[k & 63] & 63)] = value;
    let mut k = 0;
    'block: {
        // As long as the first of two coefficients cannot be the last one of the block.
        while k <= MOST_BEFORE_DOUBLE {
            ahead.refill(&mut bits.window);
            // Two of 10 bits each leave 31 and more.
            for _ in 0..3 {
                let Double(double) = coding.doubles[ahead.peek(LOOK_BITS) as usize];
                let marks = double as u32;
                if marks.cast_signed() < 0 {
                    match ahead.coefficient(coding.ac)? {
                        Some((step, value)) => {
                            k += step;
                            put(k, value as i16);
                        }
                        None => break 'block,
                    }
                    break;
                }
                ahead.skip(marks);
                k += (marks >> 8 & 255) as usize;
                put(k, (double >> 32) as i16);
                k += (marks >> 16 & 31) as usize;
                put(k, (double >> 48) as i16);
                if double & Double::END != 0 {
                    break 'block;
                }
                if k > MOST_BEFORE_DOUBLE {
                    break;
                }
            }
        }
        while k < 63 {
            ahead.refill(&mut bits.window);
            let Some((step, value)) = ahead.coefficient(coding.ac)? else { break };
            k += step;
            put(k, value as i16);
        }
    }
    put(0, *predicted as i16);
    bits.ahead = ahead;
    if k > 63 { Err(too_many()) } else { Ok(k.min(coding.last)) }
}

/// The last coefficient behind which two may be read at one time: the longest step from it, 16,
/// leads to none that ends the block.
const MOST_BEFORE_DOUBLE: usize = 46;

fn long_step() -> ImageError {
    broken("its data has a step of more than 15 bits")
}

fn too_many() -> ImageError {
    broken("a block has more than 64 coefficients")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes 0, 10, 110 and a long one of 12 bits, for the symbols 0x01, 0x00, 0x12, 0x21.
    fn table() -> Table {
        let mut segment = vec![1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        segment.extend([0x01, 0x00, 0x12, 0x21, 99]);
        let (table, rest) = Table::parse(&segment).unwrap();
        assert_eq!(rest, [99]);
        table
    }

    fn block(bytes: &[u8], last: usize) -> Result<(Block, usize), ImageError> {
        let table = table();
        let coding = Coding::new(&table, &table, last);
        let mut bits = Bits::new(bytes);
        let mut block = [0; 64];
        let found = read_block(&mut bits, &coding, &mut 0, &mut block)?;
        bits.check()?;
        Ok((block, found))
    }

    #[test]
    fn coefficients_land_in_their_places() {
        // Step +1; value -1 at 1; one zero, -3 (of two bits, 00) at 3; two zeros, +1 at 6, by the
        // long code; end of block.
        //   0 1 | 0 0 | 110 00 | 111000000000 1 | 10
        let bytes = [0b0100_1100, 0b0111_0000, 0b0000_0110, 0xff, 0xd9];
        let (all, found) = block(&bytes, 63).unwrap();
        let mut expected = [0; 64];
        expected[0] = 1;
        expected[usize::from(PLACES[1])] = -1;
        expected[usize::from(PLACES[3])] = -3;
        expected[usize::from(PLACES[6])] = 1;
        assert_eq!((all, found), (expected, 6));
        assert_eq!(block(&bytes, 1).unwrap().1, 1, "what is not wanted does not count");
    }

    #[test]
    fn data_that_ends_early_or_says_too_much_is_an_error() {
        // Step +1, then a zero and a value (110 11) over and over, and never an end.
        let mut runs = vec![0b0111_0111];
        runs.extend(b"\xbd\xef\x7b\xde\xf7".repeat(6));
        for (bytes, expected) in [
            (&[][..], "ends before its pixels"),
            (&[0b0100_1100], "ends before its pixels"),
            (&[0b0100_1100, 0xff, 0xd9], "ends before its pixels"),
            (&[0xff, 0, 0xff, 0, 0xff, 0], "stands for nothing"),
            (&runs, "more than 64"),
        ] {
            let error = block(bytes, 63).unwrap_err().to_string();
            assert!(error.contains(expected), "{bytes:?}: {error}");
        }
    }

    #[test]
    fn tables_that_contradict_themselves_are_refused() {
        let counts = |first: u8, second: u8| {
            let mut segment = vec![first, second];
            segment.resize(16, 0);
            segment.extend([0; 8]);
            segment
        };
        assert!(Table::parse(&counts(2, 0)).is_ok());
        for segment in [counts(3, 0), counts(2, 1), counts(0, 9), vec![0; 15], vec![1; 20]] {
            assert!(Table::parse(&segment).is_err(), "{segment:?}");
        }
    }

    #[test]
    fn a_value_of_every_size_is_read_by_a_look_and_without() {
        for size in 1..=15_u32 {
            let half = 1_i32 << (size - 1);
            for bits in [0, 1, half - 1, half, 2 * half - 1] {
                let bits = bits & (2 * half - 1);
                let expected = if bits < half { bits - 2 * half + 1 } else { bits };
                // Ones behind it.
                let top = (u64::from(bits.cast_unsigned()) << 1 | 1) << (63 - size);
                assert_eq!(signed(top, 64 - size), expected, "{bits:b} of {size}");
            }
        }
    }

    #[test]
    fn places_are_the_zigzag_of_a_transposed_block() {
        let (mut row, mut column) = (0_i32, 0_i32);
        for (k, &place) in PLACES.iter().enumerate() {
            assert_eq!(i32::from(place), column * 8 + row, "coefficient {k}");
            // Up and right on even diagonals, down and left on odd ones.
            let up = (row + column) % 2 == 0;
            match (up, row, column) {
                (true, _, 7) | (false, 0..=6, 0) => row += 1,
                (true, 0, _) | (false, 7, _) => column += 1,
                (true, ..) => (row, column) = (row - 1, column + 1),
                (false, ..) => (row, column) = (row + 1, column - 1),
            }
        }
    }
}
