//! What is added to a file of compiled code, so that accidents show: a full disk, a power cut, a
//! flipped bit.
//!
//! Nearly all of such a file is the module's data, weights that are mapped where a guest reads
//! them. They have a sum of their own, so that machine code is checked before it runs, and they
//! while it runs.

use std::{fs::File, io, ops::Range};

/// Bytes behind the code.
pub(crate) const TRAILER_BYTES: usize = 48;

const MAGIC: [u8; 8] = *b"graphle2";

/// What is written behind `code`: a magic number, its length, where its data is, the data's sum,
/// and the sum of everything else, these fields included.
pub(crate) fn trailer(code: &[u8]) -> [u8; TRAILER_BYTES] {
    let data = data_range(code);
    let mut sum = Checksum::default();
    sum.update(&code[data.clone()]);
    let layout = Layout { len: code.len() as u64, data: wide(&data), data_sum: sum.value() };
    let mut sum = Checksum::default();
    sum.update(&layout.fields());
    sum.update(&code[..data.start]);
    sum.update(&code[data.end..]);
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..8].copy_from_slice(&MAGIC);
    trailer[8..40].copy_from_slice(&layout.fields());
    trailer[40..].copy_from_slice(&sum.value().to_le_bytes());
    trailer
}

/// Whether a file of `len` bytes ends with the trailer of what stands before it; all but the data
/// is compared. `None` when it does not.
pub(crate) fn check(file: &File, len: u64) -> io::Result<Option<Data>> {
    let Some(code_len) = len.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER_BYTES];
    read_at(file, &mut trailer, code_len)?;
    let word = |index: usize| {
        let bytes = trailer[index * 8..].iter().take(8);
        bytes.rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
    };
    let layout = Layout { len: word(1), data: word(2)..word(3), data_sum: word(4) };
    let fits = layout.data.start <= layout.data.end && layout.data.end <= code_len;
    if trailer[..8] != MAGIC || layout.len != code_len || !fits {
        return Ok(None);
    }
    let mut sum = Checksum::default();
    sum.update(&layout.fields());
    if !sum.update_from(file, 0..layout.data.start)?
        || !sum.update_from(file, layout.data.end..code_len)?
        || sum.value() != word(5)
    {
        return Ok(None);
    }
    Ok(Some(Data { range: layout.data, sum: layout.data_sum }))
}

/// The data of compiled code, which has not been compared yet.
#[derive(Debug)]
pub(crate) struct Data {
    range: Range<u64>,
    sum: u64,
}

impl Data {
    /// Whether it is what was written.
    pub(crate) fn intact(&self, file: &File) -> io::Result<bool> {
        let mut sum = Checksum::default();
        Ok(sum.update_from(file, self.range.clone())? && sum.value() == self.sum)
    }
}

struct Layout {
    len: u64,
    data: Range<u64>,
    data_sum: u64,
}

impl Layout {
    fn fields(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let fields = [self.len, self.data.start, self.data.end, self.data_sum];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }
}

/// Where the module's data is in code that wasmtime wrote, an ELF file of 64 bits; nowhere when it
/// does not look so. Begins at a multiple of the checksum's block.
fn data_range(code: &[u8]) -> Range<usize> {
    let range = section(code, b".rodata.wasm").unwrap_or(0..0);
    let start = range.start.next_multiple_of(BLOCK_BYTES);
    if start < range.end { start..range.end } else { 0..0 }
}

fn section(elf: &[u8], wanted: &[u8]) -> Option<Range<usize>> {
    let number = |at: usize, bytes: usize| {
        let bytes = elf.get(at..at.checked_add(bytes)?)?.iter();
        usize::try_from(bytes.rev().fold(0, |word, &byte| word << 8 | u64::from(byte))).ok()
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, each, count) = (number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?);
    let header = |index: usize| index.checked_mul(each)?.checked_add(table);
    let contents = |header: usize| {
        let (start, bytes) = (number(header + 24, 8)?, number(header + 32, 8)?);
        let range = start..start.checked_add(bytes)?;
        elf.get(range.clone()).is_some().then_some(range)
    };
    let names = contents(header(number(0x3e, 2)?)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let name = elf[names.clone()].get(number(header, 4)?..)?;
        let named = name.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(&[0]));
        if named { contents(header) } else { None }
    })
}

fn wide(range: &Range<usize>) -> Range<u64> {
    range.start as u64..range.end as u64
}

// A multiple of the block, small enough for the second-level cache.
const CHUNK_BYTES: usize = 256 << 10;
const BLOCK_BYTES: usize = 32;

/// A checksum at memory speed: four lanes of multiply and rotate over 64-bit words. All updates
/// but the last are multiples of [`BLOCK_BYTES`].
#[derive(Debug, Clone)]
struct Checksum {
    lanes: [u64; 4],
}

impl Default for Checksum {
    fn default() -> Self {
        Self { lanes: [1, 2, 3, 4] }
    }
}

impl Checksum {
    // An odd constant with well-spread bits: 2^64 over the golden ratio.
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

    fn update(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        // In variables of its own the sum stays in registers.
        let mut lanes = self.lanes;
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
                let word = u64::from_le_bytes(*word);
                *lane = (*lane ^ word).wrapping_mul(Self::FACTOR).rotate_left(29);
            }
        }
        self.lanes = lanes;
        for (index, &byte) in rest.iter().enumerate() {
            let lane = &mut self.lanes[index % 4];
            *lane = (*lane ^ (u64::from(byte) + 1)).wrapping_mul(Self::FACTOR).rotate_left(29);
        }
    }

    /// Updates from a file; false when it is shorter.
    fn update_from(&mut self, file: &File, range: Range<u64>) -> io::Result<bool> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut at = range.start;
        while at < range.end {
            let left = range.end - at;
            let part = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            match read_at(file, &mut buffer[..part], at) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                read => read?,
            }
            self.update(&buffer[..part]);
            at += part as u64;
        }
        Ok(true)
    }

    fn value(&self) -> u64 {
        self.lanes
            .iter()
            .fold(0, |value, lane| (value ^ lane).wrapping_mul(Self::FACTOR).rotate_left(31))
    }
}

/// Reads without moving the file's offset, which other processes may share.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    file.read_exact_at(buffer, offset)
}

#[cfg(not(unix))]
pub(crate) fn read_at(mut file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(buffer)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_checksum_sees_every_bit_and_the_order() {
        let bytes: Vec<u8> = (0..200u8).collect();
        let sum = |bytes: &[u8]| {
            let mut checksum = Checksum::default();
            checksum.update(bytes);
            checksum.value()
        };
        let expected = sum(&bytes);
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(sum(&altered), expected, "bit {bit}");
        }
        let mut swapped = bytes.clone();
        swapped.swap(0, 32);
        assert_ne!(sum(&swapped), expected);
        assert_ne!(sum(&bytes[..199]), expected);
    }

    /// What wasmtime makes of a module whose data is `data`.
    fn code(data: &str) -> Vec<u8> {
        let text = format!("(module (memory 1) (data (i32.const 8) \"{data}\") (func nop))");
        wasmtime::Engine::default().precompile_module(&wat::parse_str(text).unwrap()).unwrap()
    }

    #[test]
    fn the_data_of_compiled_code_is_found() {
        let data = "the weights of a model ".repeat(2000);
        let code = code(&data);
        let found = data_range(&code);
        assert!(found.len() > data.len() - BLOCK_BYTES, "{found:?} of {}", data.len());
        let text = String::from_utf8_lossy(&code[found]).into_owned();
        assert!(text.contains(&data[BLOCK_BYTES..]));
        for no_elf in [&b""[..], b"\x7fELF", &code[..100], &code[..code.len() / 2]] {
            assert_eq!(data_range(no_elf), 0..0);
        }
    }

    #[test]
    fn everything_but_the_data_is_compared_first_and_the_data_later() {
        let code = code(&"weights ".repeat(5000));
        let data = data_range(&code);
        let good = [&code[..], &trailer(&code)].concat();
        let verdict = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            let found = check(&file, bytes.len() as u64).unwrap();
            found.map(|data| data.intact(&file).unwrap())
        };
        assert_eq!(verdict(&good), Some(true));
        for at in (0..good.len()).step_by(61) {
            let mut altered = good.clone();
            altered[at] ^= 4;
            let expected = data.contains(&at).then_some(false);
            assert_eq!(verdict(&altered), expected, "byte {at}, data at {data:?}");
        }
        for len in [0, TRAILER_BYTES - 1, TRAILER_BYTES, good.len() - 1] {
            assert_eq!(verdict(&good[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn a_trailer_that_names_data_outside_the_file_is_no_trailer() {
        let code = vec![7; 1000];
        for data in [(0, 1001), (5, 4), (u64::MAX, u64::MAX), (0, u64::MAX)] {
            let mut file = [&code[..], &trailer(&code)].concat();
            file[1016..1024].copy_from_slice(&data.0.to_le_bytes());
            file[1024..1032].copy_from_slice(&data.1.to_le_bytes());
            let mut on_disk = tempfile::tempfile().unwrap();
            on_disk.write_all(&file).unwrap();
            assert!(check(&on_disk, file.len() as u64).unwrap().is_none(), "{data:?}");
        }
    }
}
