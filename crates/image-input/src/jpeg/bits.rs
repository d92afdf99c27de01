//! Entropy-coded data as bits: the bytes between two markers, without the zeros stuffed behind each
//! `0xff` (ITU-T T.81, F.1.2.3), and zeros behind their end, which are counted.
//!
//! Bytes go through a small window, where the stuffing is taken out once. The bits that come next
//! are a number in a register, which eight bytes of the window fill up at one time without a look
//! at any of them.

use crate::ImageError;

use super::broken;

/// Bytes that are taken from the file at one time; they stay in the first-level cache.
const WINDOW: usize = 2048;

/// Bits of a scan, up to the next marker; zeros behind it.
pub(super) struct Bits<'a> {
    /// Copied while a block is read: a copy stays in registers.
    pub ahead: Ahead,
    pub window: Window<'a>,
}

/// The bits that come next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead {
    /// The first bit is at the top. Those behind the first `count` are zero or as in the window.
    buffer: u64,
    count: u32,
    /// The first byte of the window of which not all bits are counted.
    at: usize,
}

/// Bytes of the scan without stuffing, from some place on.
pub(super) struct Window<'a> {
    /// All are valid: zeros follow the data.
    bytes: [u8; WINDOW],
    /// Where in them the data ends, once that is known; below 0 when it ended before.
    end: Option<isize>,
    /// What follows them in the file.
    rest: &'a [u8],
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let window = Window { bytes: [0; WINDOW], end: None, rest: bytes };
        Self { ahead: Ahead::NONE, window }
    }

    /// Sees to it that there are 56 bits at least.
    #[inline]
    pub(super) fn refill(&mut self) {
        self.ahead.refill(&mut self.window);
    }

    /// How many bits of the data are left, below 0 when more were taken; `None` when its end has
    /// not been seen, which is a window away.
    fn left(&self) -> Option<i64> {
        let taken = 8 * self.ahead.at as i64 - i64::from(self.ahead.count);
        self.window.end.map(|end| 8 * end as i64 - taken)
    }

    /// Fails when bits were taken that the file does not have.
    pub(super) fn check(&self) -> Result<(), ImageError> {
        if self.left().is_some_and(|left| left < 0) {
            return Err(broken("its data ends before its pixels"));
        }
        Ok(())
    }

    /// Goes on behind the restart marker with this number, from 0 to 7, that must come next.
    pub(super) fn restart(&mut self, number: u8) -> Result<(), ImageError> {
        // Where all was taken, the end may not have been looked for.
        self.refill();
        self.check()?;
        if self.left().is_none_or(|left| left >= 8) {
            return Err(broken("there is data before a restart marker"));
        }
        let rest = self.window.rest;
        // Any number of fill bytes, then the code.
        let fill = rest.iter().take_while(|&&byte| byte == 0xff).count();
        if fill == 0 || rest.get(fill) != Some(&(0xd0 + number)) {
            return Err(broken("a restart marker is missing"));
        }
        self.ahead = Ahead::NONE;
        self.window.end = None;
        self.window.rest = rest.get(fill + 1..).unwrap_or_default();
        Ok(())
    }
}

impl Ahead {
    /// Nothing yet: the window is filled first.
    const NONE: Self = Self { buffer: 0, count: 0, at: WINDOW };

    /// Sees to it that there are 56 bits at least.
    #[inline]
    pub(super) fn refill(&mut self, window: &mut Window<'_>) {
        if self.at > WINDOW - 8 {
            window.advance(self.at);
            self.at = 0;
        }
        if let Some(next) = window.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            // Giesen's way: all that has room is taken, and counted as far as it is whole bytes.
            self.buffer |= u64::from_be_bytes(*next) >> (self.count & 63);
            self.at += (63 - self.count as usize) / 8;
            self.count |= 56;
        }
    }

    /// The next `bits` bits, from 1 to 32 of them, which stay.
    #[inline]
    pub(super) fn peek(&self, bits: u32) -> u32 {
        (self.buffer >> (64 - bits)) as u32
    }

    /// The bits, the next one at the top; at least as many as there were since the last refill, less
    /// those that were skipped.
    #[inline]
    pub(super) fn buffer(&self) -> u64 {
        self.buffer
    }

    /// Passes over as many bits as the lowest six bits of `bits` say; they must be there.
    #[inline]
    pub(super) fn skip(&mut self, bits: u32) {
        self.buffer = self.buffer.wrapping_shl(bits);
        self.count = self.count.wrapping_sub(bits & 63);
    }

    /// The next `count` bits, from 0 to 32 of them, as a number.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        // Two steps, for a word cannot be shifted by all of its bits.
        let bits = (self.buffer >> 1 >> (63 - count)) as u32;
        self.skip(count);
        bits
    }
}

impl Window<'_> {
    /// Drops the bytes before `from`, and takes as many in.
    #[cold]
    #[inline(never)]
    fn advance(&mut self, from: usize) {
        let from = from.min(WINDOW);
        self.bytes.copy_within(from.., 0);
        let mut filled = WINDOW - from;
        match &mut self.end {
            Some(end) => *end = end.saturating_sub_unsigned(from),
            None => self.take_in(&mut filled),
        }
        if let Some(behind) = self.bytes.get_mut(filled..) {
            behind.fill(0);
        }
    }

    /// Takes bytes in behind the first `filled`, until the window is full or the data ends.
    fn take_in(&mut self, filled: &mut usize) {
        while let Some(room) = self.bytes.get_mut(*filled..).filter(|room| !room.is_empty()) {
            match (room.first_chunk_mut::<8>(), self.rest.first_chunk::<8>()) {
                (Some(target), Some(next)) => {
                    *target = *next;
                    let plain = bytes_below_ff(u64::from_le_bytes(*next));
                    *filled += plain;
                    self.rest = self.rest.get(plain..).unwrap_or_default();
                    if plain == 8 {
                        continue;
                    }
                }
                _ => {
                    if let [byte, rest @ ..] = self.rest
                        && *byte != 0xff
                    {
                        room[0] = *byte;
                        *filled += 1;
                        self.rest = rest;
                        continue;
                    }
                }
            }
            // A stuffed 0xff; else a marker, or the end.
            if let ([0xff, 0, rest @ ..], Some(target)) = (self.rest, self.bytes.get_mut(*filled)) {
                *target = 0xff;
                *filled += 1;
                self.rest = rest;
            } else {
                self.end = Some(filled.cast_signed());
                return;
            }
        }
    }
}

/// How many bytes of `word`, from the lowest on, come before one that is `0xff`.
fn bytes_below_ff(word: u64) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    // The lowest byte that is zero in the inverse is marked for sure; those above it may be.
    let marked = (!word).wrapping_sub(ONES) & word & (ONES << 7);
    (marked.trailing_zeros() / 8) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffed_bytes_are_data_and_restarts_begin_anew() {
        let mut bits = Bits::new(&[0xab, 0xff, 0, 0xcd, 0xff, 0xff, 0xd3, 0x12]);
        bits.refill();
        assert_eq!(bits.ahead.peek(32), 0xabff_cd00);
        assert!(bits.restart(3).is_err(), "data is left");
        bits.ahead.skip(20);
        assert!(bits.restart(2).is_err(), "another number");
        bits.restart(3).unwrap();
        bits.refill();
        assert_eq!(bits.ahead.peek(8), 0x12);
        bits.ahead.skip(9);
        assert!(bits.check().is_err() && bits.restart(4).is_err());
    }

    #[test]
    fn bits_are_those_of_the_bytes_however_the_windows_divide_them() {
        // Stuffed bytes at every distance from each other and from the windows' ends.
        let mut seed = 5_u32;
        for length in (0..40).chain(WINDOW - 20..WINDOW + 20).chain([3 * WINDOW + 5]) {
            let mut plain = Vec::new();
            let mut file = Vec::new();
            for at in 0..length {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let often = at / 64 % 3;
                let byte = if (seed >> 8) % 9 < often as u32 { 0xff } else { (seed >> 24) as u8 };
                plain.push(byte);
                file.push(byte);
                if byte == 0xff {
                    file.push(0);
                }
            }
            for end in [&[][..], &[0xff], &[0xff, 0xd9], &[0xff, 0xff, 0xd0, 7, 7, 7, 7, 7, 7]] {
                let file = [&file, end].concat();
                let mut bits = Bits::new(&file);
                let mut taken = 0_usize;
                while taken < 8 * length {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let count = ((seed >> 16) % 33).min((8 * length - taken) as u32);
                    bits.refill();
                    let expected = (taken..taken + count as usize).fold(0_u32, |bits, at| {
                        bits << 1 | u32::from(plain[at / 8] >> (7 - at % 8) & 1)
                    });
                    assert_eq!(bits.ahead.take(count), expected, "{length} bytes, bit {taken}");
                    taken += count as usize;
                    bits.check().unwrap();
                }
                let again = bits.restart(0);
                assert_eq!(again.is_ok(), end.len() > 2, "{length} bytes: {again:?}");
                if again.is_err() {
                    bits.refill();
                    assert_eq!(bits.ahead.take(1), 0);
                    assert!(bits.check().is_err(), "{length} bytes");
                    // Far beyond the end it is no more than broken.
                    for _ in 0..3 * WINDOW {
                        bits.refill();
                        assert_eq!(bits.ahead.take(32), 0);
                    }
                    assert!(bits.check().is_err() && bits.restart(0).is_err());
                }
            }
        }
    }

    #[test]
    fn a_byte_of_ones_is_found_in_every_place() {
        assert_eq!(bytes_below_ff(0), 8);
        assert_eq!(bytes_below_ff(u64::from_le_bytes([0xfe; 8])), 8);
        for at in 0..8 {
            for others in [0, 1, 0x7f, 0x80, 0xfe] {
                let mut bytes = [others; 8];
                bytes[at] = 0xff;
                assert_eq!(bytes_below_ff(u64::from_le_bytes(bytes)), at);
                bytes[7] = 0xff;
                assert_eq!(bytes_below_ff(u64::from_le_bytes(bytes)), at);
            }
        }
    }
}
