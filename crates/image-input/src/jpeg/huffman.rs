//! Entropy-coded data: bits between markers, and the codes in them (ITU-T T.81, annexes C and F).

use crate::ImageError;

use super::broken;

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

/// Quantised coefficients of a block times their steps, column by column.
pub(super) type Block = [i32; 64];

/// Steps of the coefficients, in the file's order.
pub(super) type Steps = [u16; 64];

/// A Huffman table.
#[derive(Clone)]
pub(super) struct Table {
    /// By the next [`LOOK_BITS`] bits: length of the code in the upper byte, symbol in the lower;
    /// 0 where the code is longer, or none.
    short: Box<[u16; LOOKS]>,
    /// By the same bits, where code and value both lie in them: value, run of zeros (4 bits above
    /// 8) and bits of the two (below); else 0.
    pairs: Box<[u32; LOOKS]>,
    /// For each length, one more than the largest code, with all bits of 16 taken.
    limits: [u32; 17],
    /// For each length, what added to a code gives the place of its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
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
            short: Box::new([0; LOOKS]),
            pairs: Box::new([0; LOOKS]),
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
            for symbol in symbols.iter().skip(place as usize).take(count as usize) {
                if length <= LOOK_BITS {
                    let first = (code << (LOOK_BITS - length)) as usize;
                    let entries = &mut table.short[first..first + (1 << (LOOK_BITS - length))];
                    entries.fill((length as u16) << 8 | u16::from(*symbol));
                }
                code += 1;
            }
            place += count.cast_signed();
            table.limits[at] = code << (16 - length);
            code <<= 1;
        }
        table.pair();
        Ok((table, rest))
    }

    fn pair(&mut self) {
        for (bits, (pair, &short)) in (0_u32..).zip(self.pairs.iter_mut().zip(self.short.iter())) {
            let (length, symbol) = (u32::from(short >> 8), u32::from(short & 255));
            let (run, size) = (symbol >> 4, symbol & 15);
            if length == 0 || size == 0 || length + size > LOOK_BITS {
                continue;
            }
            let value = bits >> (LOOK_BITS - length - size) & ((1 << size) - 1);
            let value = extend(value, size);
            *pair = value.cast_unsigned() << 16 | run << 8 | (length + size);
        }
    }
}

fn malformed() -> ImageError {
    broken("a Huffman table is malformed")
}

/// T.81, F.2.2.1, figure F.12: a value of `size` bits of which the lower half is negative.
fn extend(value: u32, size: u32) -> i32 {
    let value = value.cast_signed();
    let half = 1 << size >> 1;
    if value < half { value - (1 << size) + 1 } else { value }
}

/// Bits of a scan, up to the next marker; zeros behind it, which are counted.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, the first at the top.
    buffer: u64,
    /// How many there are.
    count: u32,
    /// How many of them, the last ones, are not in the file.
    missing: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, buffer: 0, count: 0, missing: 0 }
    }

    /// Sees to it that there are 32 bits at least.
    #[inline]
    pub(super) fn refill(&mut self) {
        if self.count > 32 {
            return;
        }
        if let Some(next) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<4>) {
            let word = u32::from_be_bytes(*next);
            // No byte of it is 0xff: none of the inverse is zero.
            let inverse = !word;
            if inverse.wrapping_sub(0x0101_0101) & word & 0x8080_8080 == 0 && self.missing == 0 {
                self.buffer |= u64::from(word) << (32 - self.count);
                self.count += 32;
                self.at += 4;
                return;
            }
        }
        self.refill_slowly();
    }

    #[cold]
    fn refill_slowly(&mut self) {
        while self.count <= 56 {
            let byte = match self.bytes.get(self.at..).unwrap_or_default() {
                [0xff, 0, ..] => {
                    self.at += 2;
                    0xff
                }
                [byte, ..] if *byte != 0xff => {
                    self.at += 1;
                    *byte
                }
                // A marker, or the end.
                _ => {
                    self.missing += 8;
                    0
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// The next [`LOOK_BITS`] bits.
    #[inline]
    fn look(&self) -> usize {
        (self.buffer >> (64 - LOOK_BITS)) as usize
    }

    #[inline]
    fn peek(&self, bits: u32) -> u32 {
        (self.buffer >> (64 - bits)) as u32
    }

    #[inline]
    fn skip(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    /// The next `size` bits, from 1 to 15 of them, as a value.
    #[inline]
    pub(super) fn value(&mut self, size: u32) -> i32 {
        let value = self.peek(size);
        self.skip(size);
        extend(value, size)
    }

    /// The next `count` bits, from 0 to 32 of them, as a number.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        // Two steps, for a word cannot be shifted by all of its bits.
        let bits = (self.buffer >> 1 >> (63 - count)) as u32;
        self.skip(count);
        bits
    }

    /// What comes next of a band of coefficients, as far as one look tells it: run of zeros and
    /// value, which are skipped then.
    #[inline]
    pub(super) fn pair(&mut self, table: &Table) -> Option<(usize, i32)> {
        let pair = table.pairs[self.look()];
        self.skip(pair & 31);
        (pair != 0).then_some(((pair >> 8 & 15) as usize, pair.cast_signed() >> 16))
    }

    /// The next symbol, of 16 bits at most.
    #[inline]
    pub(super) fn symbol(&mut self, table: &Table) -> Result<u32, ImageError> {
        let short = table.short[self.look()];
        if short != 0 {
            self.skip(u32::from(short >> 8));
            return Ok(u32::from(short & 255));
        }
        self.long_symbol(table)
    }

    #[cold]
    fn long_symbol(&mut self, table: &Table) -> Result<u32, ImageError> {
        let code = self.peek(16);
        let length = (1..=16).find(|&length| code < table.limits[length]);
        let length = length.ok_or_else(|| broken("its data has a code that stands for nothing"))?;
        let place = (code >> (16 - length)).cast_signed() + table.offsets[length];
        let symbol = usize::try_from(place).ok().and_then(|place| table.symbols.get(place));
        self.skip(length as u32);
        symbol.map(|&symbol| u32::from(symbol)).ok_or_else(malformed)
    }

    /// Fails when bits were taken that the file does not have.
    pub(super) fn check(&self) -> Result<(), ImageError> {
        if self.count < self.missing {
            return Err(broken("its data ends before its pixels"));
        }
        Ok(())
    }

    /// Goes on behind the restart marker with this number, from 0 to 7, that must come next.
    pub(super) fn restart(&mut self, number: u8) -> Result<(), ImageError> {
        self.check()?;
        if self.count - self.missing >= 8 {
            return Err(broken("there is data before a restart marker"));
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        // Any number of fill bytes, then the code.
        let fill = rest.iter().take_while(|&&byte| byte == 0xff).count();
        if fill == 0 || rest.get(fill) != Some(&(0xd0 + number)) {
            return Err(broken("a restart marker is missing"));
        }
        *self = Self { at: self.at + fill + 1, ..Self::new(self.bytes) };
        Ok(())
    }
}

/// One component's codes and steps.
pub(super) struct Coding<'a> {
    pub dc: &'a Table,
    pub ac: &'a Table,
    pub steps: &'a Steps,
}

/// Reads the block that comes next, of which coefficients up to `last` (in the file's order) are
/// wanted; the others are skipped. `block` holds zeros. Gives the last coefficient that is not
/// zero, as far as wanted.
#[inline]
pub(super) fn read_block(
    kept_bits: &mut Bits<'_>,
    coding: &Coding<'_>,
    predicted: &mut i32,
    last: usize,
    block: &mut Block,
) -> Result<usize, ImageError> {
    // A copy that stays in registers; on an error nobody goes on with the other.
    let mut bits = *kept_bits;
    bits.refill();
    let size = bits.symbol(coding.dc)?;
    if size > 15 {
        return Err(broken("its data has a step of more than 15 bits"));
    }
    if size > 0 {
        *predicted = predicted.wrapping_add(bits.value(size));
    }
    block[0] = predicted.wrapping_mul(i32::from(coding.steps[0]));
    let mut k = 0;
    let mut found = 0;
    while k < 63 {
        bits.refill();
        let pair = coding.ac.pairs[bits.look()];
        if pair != 0 {
            bits.skip(pair & 31);
            k += 1 + (pair >> 8 & 15) as usize;
            if k > last {
                if k > 63 {
                    return Err(too_many());
                }
                continue;
            }
            let value = pair.cast_signed() >> 16;
            block[usize::from(PLACES[k & 63])] =
                value.wrapping_mul(i32::from(coding.steps[k & 63]));
            found = k;
            continue;
        }
        let symbol = bits.symbol(coding.ac)?;
        let (run, size) = (symbol >> 4, symbol & 15);
        if size == 0 {
            if run < 15 {
                break;
            }
            k += 16;
            continue;
        }
        k += 1 + run as usize;
        if k > 63 {
            return Err(too_many());
        }
        let value = bits.value(size);
        if k <= last {
            block[usize::from(PLACES[k & 63])] =
                value.wrapping_mul(i32::from(coding.steps[k & 63]));
            found = k;
        }
    }
    *kept_bits = bits;
    if k > 63 { Err(too_many()) } else { Ok(found) }
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
        let steps: Steps = std::array::from_fn(|k| k as u16 + 1);
        let coding = Coding { dc: &table, ac: &table, steps: &steps };
        let mut bits = Bits::new(bytes);
        let mut block = [0; 64];
        let found = read_block(&mut bits, &coding, &mut 0, last, &mut block)?;
        bits.check()?;
        Ok((block, found))
    }

    #[test]
    fn coefficients_land_in_their_places_times_their_steps() {
        // Step +1; value -1 at 1; one zero, -3 (of two bits, 00) at 3; two zeros, +1 at 6, by the
        // long code; end of block.
        //   0 1 | 0 0 | 110 00 | 111000000000 1 | 10
        let bytes = [0b0100_1100, 0b0111_0000, 0b0000_0110, 0xff, 0xd9];
        let (all, found) = block(&bytes, 63).unwrap();
        let mut expected = [0; 64];
        expected[0] = 1;
        expected[usize::from(PLACES[1])] = -2;
        expected[usize::from(PLACES[3])] = -3 * 4;
        expected[usize::from(PLACES[6])] = 7;
        assert_eq!((all, found), (expected, 6));
        let (some, found) = block(&bytes, 1).unwrap();
        expected[usize::from(PLACES[3])] = 0;
        expected[usize::from(PLACES[6])] = 0;
        assert_eq!((some, found), (expected, 1), "what is not wanted is skipped");
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
    fn stuffed_bytes_are_data_and_restarts_begin_anew() {
        let mut bits = Bits::new(&[0xab, 0xff, 0, 0xcd, 0xff, 0xff, 0xd3, 0x12]);
        bits.refill();
        assert_eq!(bits.peek(32), 0xabff_cd00);
        assert!(bits.restart(3).is_err(), "data is left");
        bits.skip(20);
        assert!(bits.restart(2).is_err(), "another number");
        bits.restart(3).unwrap();
        bits.refill();
        assert_eq!(bits.peek(8), 0x12);
        bits.skip(9);
        assert!(bits.check().is_err() && bits.restart(4).is_err());
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
