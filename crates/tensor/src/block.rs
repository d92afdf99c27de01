//! The model block: graph, spec, labels and weights as one piece of read-only data.
//!
//! A module carries its model as one data segment of this format, and the weights in it are used
//! where they lie. All offsets count from the block's first byte, all integers are little-endian:
//!
//! ```text
//!  0  magic `GRAPHLET`
//!  8  u32 version (1)        12  u32 total length
//! 16  u32 offset, u32 length of the graph (graph.json)
//! 24  u32 offset, u32 length of the spec (ModelSpec as JSON)
//! 32  u32 offset, u32 length of the labels (UTF-8, each line ends with \n)
//! 40  u32 offset of the tensor index, u32 number of tensors
//! ```
//! An index entry has 28 bytes: name (u32 offset, u32 length), dtype (u8 DLPack code, u8 bits,
//! u16 lanes), u32 rank, u32 offset of the u64 extents, data (u32 offset, u32 length). The data
//! of each tensor starts at a multiple of [`ALIGNMENT`]; a block is placed at a multiple of
//! [`BLOCK_ALIGNMENT`].

mod builder;

use std::collections::BTreeSet;

use crate::{ALIGNMENT, DType, FormError, MAX_RANK, Shape, Tensor, TensorError};
use crate::{Storage, TensorView};

pub use builder::BlockBuilder;

/// The first eight bytes of every block.
pub const MAGIC: [u8; 8] = *b"GRAPHLET";
/// The version that this module reads and writes.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 48;
/// Where a block is placed in memory: one WebAssembly page, so that the pages of the weights are
/// nobody else's.
pub const BLOCK_ALIGNMENT: usize = 64 * 1024;

const ENTRY_BYTES: usize = 28;

/// Bytes that are no model block, or a model that does not fit into one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Too short for a header, or another magic.
    #[error("not a model block")]
    NotABlock,
    /// Written by a newer or older builder.
    #[error("model block version {0} is not {VERSION}")]
    Version(u32),
    /// The header names another length than the bytes have.
    #[error("the model block says it has {claimed} bytes but there are {actual}")]
    Length {
        /// What the header says.
        claimed: usize,
        /// What there is.
        actual: usize,
    },
    /// A part lies outside the block.
    #[error("{part} lies outside the model block: {len} bytes at {offset}")]
    OutOfBounds {
        /// Which part.
        part: &'static str,
        /// Where it should start.
        offset: u64,
        /// How long it should be.
        len: u64,
    },
    /// A text is not UTF-8.
    #[error("{0} of the model block is not UTF-8")]
    NotUtf8(&'static str),
    /// A tensor has more dimensions than any of ours.
    #[error("tensor `{name}` has {rank} dimensions, more than {MAX_RANK}")]
    Rank {
        /// The tensor.
        name: String,
        /// What its entry says.
        rank: u64,
    },
    /// A tensor's data does not start at a multiple of [`ALIGNMENT`].
    #[error("tensor `{name}` lies at offset {offset}, which is no multiple of {ALIGNMENT}")]
    Misaligned {
        /// The tensor.
        name: String,
        /// Where its data starts.
        offset: usize,
    },
    /// A tensor's element type is none of ours, or its extents are impossible.
    #[error("tensor `{name}`")]
    Form {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        source: FormError,
    },
    /// A tensor's data does not fit its extents.
    #[error("tensor `{name}`")]
    Tensor {
        /// The tensor.
        name: String,
        /// What does not fit.
        source: TensorError,
    },
    /// Two tensors have one name.
    #[error("two tensors are called `{0}`")]
    DuplicateTensor(String),
    /// A label that would break the one-a-line form.
    #[error("label {index} contains a line break")]
    Label {
        /// Which one, counted from 0.
        index: usize,
    },
    /// Offsets have 32 bits.
    #[error("the model does not fit into a block of 4 GiB")]
    TooLarge,
}

/// A model block that has been checked, every offset of it.
#[derive(Debug)]
pub struct Block<'a> {
    graph: &'a str,
    spec: &'a str,
    labels: &'a str,
    tensors: Vec<BlockTensor<'a>>,
}

/// One tensor of a block.
#[derive(Debug)]
pub struct BlockTensor<'a> {
    name: &'a str,
    dtype: DType,
    shape: Shape,
    bytes: &'a [u8],
}

impl<'a> BlockTensor<'a> {
    /// The name that the graph knows it by.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Element type, extents and data.
    pub fn view(&self) -> TensorView<'_> {
        TensorView::new(self.dtype, &self.shape, self.bytes).expect("length checked by parse")
    }

    /// A tensor that borrows the block's bytes, not this entry.
    pub fn to_tensor(&self) -> Tensor<'a> {
        Tensor::new(self.dtype, self.shape.clone(), Storage::Borrowed(self.bytes))
            .expect("length checked by parse")
    }
}

impl<'a> Block<'a> {
    /// How many bytes the block has that starts with this header.
    ///
    /// # Errors
    /// [`BlockError::NotABlock`] or [`BlockError::Version`].
    pub fn total_len(header: &[u8; HEADER_BYTES]) -> Result<usize, BlockError> {
        if header[..8] != MAGIC {
            return Err(BlockError::NotABlock);
        }
        let mut fields = Fields { bytes: &header[8..] };
        let version = fields.u32().ok_or(BlockError::NotABlock)?;
        if version != VERSION {
            return Err(BlockError::Version(version));
        }
        let total = fields.u32().ok_or(BlockError::NotABlock)?;
        usize::try_from(total).map_err(|_| BlockError::TooLarge)
    }

    /// Reads a block. Nothing is copied but names' places and extents.
    ///
    /// # Errors
    /// [`BlockError`] for anything that the format does not allow.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BlockError> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(BlockError::NotABlock)?;
        let claimed = Self::total_len(header)?;
        if claimed != bytes.len() {
            return Err(BlockError::Length { claimed, actual: bytes.len() });
        }
        let mut fields = Fields { bytes: &header[16..] };
        let graph = text(bytes, &mut fields, "the graph")?;
        let spec = text(bytes, &mut fields, "the spec")?;
        let labels = text(bytes, &mut fields, "the labels")?;
        let index_offset = fields.u32().ok_or(BlockError::NotABlock)?;
        let count = fields.u32().ok_or(BlockError::NotABlock)?;

        let index_len = u64::from(count) * ENTRY_BYTES as u64;
        let index = part(bytes, u64::from(index_offset), index_len, "the tensor index")?;
        let mut tensors = Vec::with_capacity(index.len() / ENTRY_BYTES);
        let mut names = BTreeSet::new();
        for entry in index.chunks_exact(ENTRY_BYTES) {
            let tensor = parse_tensor(bytes, entry)?;
            if !names.insert(tensor.name) {
                return Err(BlockError::DuplicateTensor(tensor.name.to_owned()));
            }
            tensors.push(tensor);
        }
        Ok(Block { graph, spec, labels, tensors })
    }

    /// graph.json.
    pub fn graph(&self) -> &'a str {
        self.graph
    }

    /// The model's spec as JSON.
    pub fn spec(&self) -> &'a str {
        self.spec
    }

    /// The labels, best known by their index.
    pub fn labels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.labels.split_terminator('\n')
    }

    /// The weights, in the order of the index.
    pub fn tensors(&self) -> &[BlockTensor<'a>] {
        &self.tensors
    }
}

fn parse_tensor<'a>(block: &'a [u8], entry: &'a [u8]) -> Result<BlockTensor<'a>, BlockError> {
    let mut fields = Fields { bytes: entry };
    let name = text(block, &mut fields, "a tensor's name")?;
    let [code, bits, lanes_low, lanes_high] = fields.take().ok_or(BlockError::NotABlock)?;
    let dtype = DType::from_dlpack(code, bits, u16::from_le_bytes([lanes_low, lanes_high]))
        .map_err(|error| BlockError::Form { name: name.to_owned(), source: error.into() })?;
    let rank = u64::from(fields.u32().ok_or(BlockError::NotABlock)?);
    if rank > MAX_RANK as u64 {
        return Err(BlockError::Rank { name: name.to_owned(), rank });
    }
    let extents_offset = u64::from(fields.u32().ok_or(BlockError::NotABlock)?);
    let extents = part(block, extents_offset, rank * 8, "a tensor's shape")?;
    let extents: Vec<i64> =
        extents.as_chunks::<8>().0.iter().map(|extent| i64::from_le_bytes(*extent)).collect();
    let shape = Shape::from_signed(&extents)
        .map_err(|error| BlockError::Form { name: name.to_owned(), source: error.into() })?;
    let (offset, len) = fields.span().ok_or(BlockError::NotABlock)?;
    let bytes = part(block, offset, len, "a tensor's data")?;
    if offset % ALIGNMENT as u64 != 0 {
        return Err(BlockError::Misaligned { name: name.to_owned(), offset: offset as usize });
    }
    TensorView::new(dtype, &shape, bytes)
        .map_err(|source| BlockError::Tensor { name: name.to_owned(), source })?;
    Ok(BlockTensor { name, dtype, shape, bytes })
}

/// Reads fixed fields off the front of a slice.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn span(&mut self) -> Option<(u64, u64)> {
        Some((u64::from(self.u32()?), u64::from(self.u32()?)))
    }
}

fn part<'a>(
    block: &'a [u8],
    offset: u64,
    len: u64,
    part: &'static str,
) -> Result<&'a [u8], BlockError> {
    let outside = BlockError::OutOfBounds { part, offset, len };
    // Both come from u32s, so the sum fits; as usize it may not, on a 32-bit machine.
    let end = usize::try_from(offset + len).map_err(|_| outside.clone())?;
    block.get(offset as usize..end).ok_or(outside)
}

fn text<'a>(
    block: &'a [u8],
    fields: &mut Fields<'_>,
    what: &'static str,
) -> Result<&'a str, BlockError> {
    let (offset, len) = fields.span().ok_or(BlockError::NotABlock)?;
    std::str::from_utf8(part(block, offset, len, what)?).map_err(|_| BlockError::NotUtf8(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let weights = Tensor::copy_of(Shape::new([2, 3]).expect("small"), &[1.0f32; 6]);
        let bias = Tensor::copy_of(Shape::new([]).expect("scalar"), &[7i64]);
        let (weights, bias) = (weights.expect("fits"), bias.expect("fits"));
        BlockBuilder::new("{\"nodes\":[]}", "{}")
            .labels(&["tench", "", "tabby, tabby cat"])
            .expect("no line breaks")
            .tensor("p0", weights.view())
            .tensor("p1", bias.view())
            .build()
            .expect("small")
    }

    #[test]
    fn a_block_comes_back_as_it_was_built() {
        let bytes = sample();
        let block = Block::parse(&bytes).expect("just built");
        assert_eq!(block.graph(), "{\"nodes\":[]}");
        assert_eq!(block.spec(), "{}");
        assert_eq!(block.labels().collect::<Vec<_>>(), ["tench", "", "tabby, tabby cat"]);
        let [weights, bias] = block.tensors() else { panic!("two tensors") };
        assert_eq!((weights.name(), weights.view().shape().extents()), ("p0", &[2, 3][..]));
        assert_eq!(bias.view().dtype(), DType::INT64);
        // The weights borrow the block: no copy.
        let tensor = weights.to_tensor();
        assert!(bytes.as_ptr_range().contains(&tensor.as_bytes().as_ptr()));
        assert_eq!(tensor.as_bytes(), bytemuck::bytes_of(&[1.0f32; 6]));
        assert_eq!(bias.to_tensor().as_bytes(), 7i64.to_le_bytes());
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        assert_eq!(sample(), sample());
        // The format itself, pinned: a changed layout is a new version.
        let bytes = BlockBuilder::new("G", "S").labels(&["L"]).expect("plain").build();
        let expected: &[u8] =
            b"GRAPHLET\x01\0\0\0\x34\0\0\0\x30\0\0\0\x01\0\0\0\x31\0\0\0\x01\0\0\0\
            \x32\0\0\0\x02\0\0\0\x30\0\0\0\0\0\0\0GSL\n";
        assert_eq!(bytes.as_deref(), Ok(expected));
    }

    #[test]
    fn every_tensor_is_aligned() {
        let bytes = sample();
        let block = Block::parse(&bytes).expect("just built");
        for tensor in block.tensors() {
            let offset = tensor.bytes.as_ptr() as usize - bytes.as_ptr() as usize;
            assert_eq!(offset % ALIGNMENT, 0, "{}", tensor.name());
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let patched = |at: usize, with: &[u8]| {
            let mut bytes = sample();
            bytes[at..at + with.len()].copy_from_slice(with);
            Block::parse(&bytes).map(|_| ()).expect_err("patched")
        };
        let bytes = sample();
        let index = u32::from_le_bytes(bytes[40..44].try_into().expect("4 bytes")) as usize;
        let shape_at = u32::from_le_bytes(bytes[index + 16..index + 20].try_into().expect("4"));
        let huge = &u32::MAX.to_le_bytes();
        assert_eq!(patched(0, b"X"), BlockError::NotABlock);
        assert_eq!(patched(8, &[2]), BlockError::Version(2));
        assert!(matches!(patched(12, huge), BlockError::Length { .. }));
        for (at, name) in
            [(16, "the graph"), (28, "the spec"), (36, "the labels"), (44, "the tensor index")]
        {
            assert!(
                matches!(patched(at, huge), BlockError::OutOfBounds { part, .. } if part == name)
            );
        }
        assert!(matches!(patched(index + 4, huge), BlockError::OutOfBounds { .. }));
        assert!(matches!(
            patched(index + 8, &[9]),
            BlockError::Form { source: FormError::DType(_), .. }
        ));
        assert!(matches!(patched(index + 12, huge), BlockError::Rank { .. }));
        assert!(matches!(patched(index + 16, huge), BlockError::OutOfBounds { .. }));
        assert!(matches!(patched(index + 20, &[1]), BlockError::Misaligned { .. }));
        assert!(matches!(patched(index + 24, &[1]), BlockError::Tensor { .. }));
        assert!(matches!(
            patched(shape_at as usize, &[255; 8]),
            BlockError::Form { source: FormError::Shape(_), .. }
        ));
        // The second entry's name becomes the first's.
        let first_name = bytes[index..index + 4].to_vec();
        assert_eq!(
            patched(index + ENTRY_BYTES, &first_name),
            BlockError::DuplicateTensor("p0".into())
        );
        let graph_at = u32::from_le_bytes(bytes[16..20].try_into().expect("4 bytes")) as usize;
        assert_eq!(patched(graph_at, &[0xff]), BlockError::NotUtf8("the graph"));
    }

    #[test]
    fn a_block_cut_short_anywhere_is_an_error() {
        let bytes = sample();
        for len in 0..bytes.len() {
            assert!(Block::parse(&bytes[..len]).is_err(), "first {len} bytes");
        }
    }

    #[test]
    fn a_label_with_a_line_break_or_a_name_twice_is_refused() {
        let builder = BlockBuilder::new("", "").labels(&["a", "b\nc"]);
        assert_eq!(builder.map(|_| ()), Err(BlockError::Label { index: 1 }));
        let scalar = Tensor::zeros(DType::INT8, Shape::default()).expect("small");
        let twice = BlockBuilder::new("", "").tensor("p", scalar.view()).tensor("p", scalar.view());
        assert_eq!(twice.build(), Err(BlockError::DuplicateTensor("p".into())));
    }

    /// A small linear generator: tests need the same mutations each time, not good randomness.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((self.0 >> 33) as usize) % bound
        }
    }

    #[test]
    fn mutated_blocks_never_panic() {
        let good = sample();
        let mut random = Random(3);
        let mut refused = 0;
        for _ in 0..50_000 {
            let mut bytes = good.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => bytes[at] = random.below(256) as u8,
                    _ => bytes[at] = 0xff,
                }
            }
            match Block::parse(&bytes) {
                Ok(block) => {
                    block.labels().for_each(drop);
                    for tensor in block.tensors() {
                        assert_eq!(tensor.view().as_bytes(), tensor.to_tensor().as_bytes());
                    }
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 10_000, "the mutations must reach the checks: {refused}");
    }
}
