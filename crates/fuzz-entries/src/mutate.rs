//! Seeded mutations: the same ones in every run.

/// Damages bytes: flips, drops, doubles, cuts, and writes the numbers that parsers trip over.
#[derive(Debug, Clone)]
pub struct Mutator(u64);

impl Mutator {
    /// Mutations that follow from this number alone.
    pub fn new(seed: u64) -> Self {
        Mutator(seed)
    }

    /// A linear generator: the same mutations each time are needed, not good randomness.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) as usize) % bound.max(1)
    }

    /// One to four changes to `bytes`, now and then with a part of `other` in between.
    pub fn mutate(&mut self, bytes: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                bytes.push(0);
            }
            let anywhere = self.below(bytes.len());
            let header = self.below(bytes.len().min(64));
            let length = self.below(32).min(bytes.len() - anywhere);
            match self.below(9) {
                0 => bytes[anywhere] = self.below(256) as u8,
                1 => bytes[anywhere] ^= 1 << self.below(8),
                2 => bytes[header] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                3 => bytes.truncate(anywhere),
                4 => drop(bytes.drain(anywhere..anywhere + length)),
                5 => {
                    let copy = bytes[anywhere..anywhere + length].to_vec();
                    bytes.splice(header..header, copy);
                }
                6 if !other.is_empty() => {
                    let from = self.below(other.len());
                    let to = (from + self.below(48)).min(other.len());
                    bytes.splice(anywhere..anywhere, other[from..to].iter().copied());
                }
                7 => {
                    let number = NUMBERS[self.below(NUMBERS.len())];
                    let end = (anywhere + number.len()).min(bytes.len());
                    bytes.splice(anywhere..end, number.iter().copied());
                }
                // The next digit becomes another: text stays whole and reaches the checks.
                _ => {
                    if let Some(digit) = bytes[anywhere..].iter().position(u8::is_ascii_digit) {
                        bytes[anywhere + digit] = b'0' + self.below(10) as u8;
                    }
                }
            }
        }
        bytes
    }
}

const NUMBERS: [&[u8]; 8] = [
    &[0xff; 8],
    &[0, 0, 0, 0x80],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0; 8],
    b"-1",
    b"18446744073709551616",
    b"1e999",
    "\u{2028}\u{feff}".as_bytes(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_mutations_and_few_are_empty() {
        let (mut one, mut other) = (Mutator::new(3), Mutator::new(3));
        let mut changed = 0;
        for _ in 0..1000 {
            let bytes = one.mutate(b"some bytes, 123", b"others");
            assert_eq!(bytes, other.mutate(b"some bytes, 123", b"others"));
            changed += usize::from(bytes != b"some bytes, 123");
        }
        assert!(changed > 800, "{changed} of 1000 were changed");
    }
}
