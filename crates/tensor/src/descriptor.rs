//! The wire descriptor: which tensors lie where in a module's memory.
//!
//! A host and a WASM graph pass tensors by it: the host writes the data into the module's memory
//! and then a descriptor of what it wrote; the graph answers with a descriptor of its results.
//! Data is never part of a descriptor, so it crosses the border once and is used where it lies.
//!
//! All integers are little-endian, and nothing follows the last entry:
//!
//! ```text
//!  0  magic `GLTD`
//!  4  u16 version (1)        6  u16 number of tensors
//!  8  entries, one behind another, each 16 bytes and 8 more for each dimension:
//!       u8 DLPack type code, u8 bits, u16 lanes (1), u32 rank
//!       u32 address of the data, a multiple of 64      u32 length of the data in bytes
//!       u64 extents, outermost first
//! ```

use crate::{ALIGNMENT, DType, FormError, MAX_RANK, ParseDTypeError, Shape};

/// The first four bytes of every descriptor.
pub const DESCRIPTOR_MAGIC: [u8; 4] = *b"GLTD";
/// The version that this module reads and writes.
pub const DESCRIPTOR_VERSION: u16 = 1;

const HEADER_BYTES: usize = 8;
const ENTRY_BYTES: usize = 16;
const EXTENT_BYTES: usize = 8;

/// A tensor in a module's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlace {
    /// The element type.
    pub dtype: DType,
    /// The extents.
    pub shape: Shape,
    /// Where the data starts: a multiple of [`ALIGNMENT`].
    pub address: u32,
    /// How long the data is: what type and extents take.
    pub byte_count: u32,
}

/// Bytes that are no descriptor, or tensors that no descriptor can name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// Too short for a header, or another magic.
    #[error("not a tensor descriptor")]
    NotADescriptor,
    /// Written for another version.
    #[error("tensor descriptor version {0} is not {DESCRIPTOR_VERSION}")]
    Version(u16),
    /// The bytes end before all tensors are told.
    #[error("the descriptor ends in tensor {index} of {count}")]
    Truncated {
        /// Which tensor, counted from 0.
        index: usize,
        /// How many there should be.
        count: usize,
    },
    /// Something follows the last tensor.
    #[error("{0} bytes follow the last tensor of the descriptor")]
    TrailingBytes(usize),
    /// More dimensions than any tensor of ours has.
    #[error("tensor {index} has {rank} dimensions, more than {MAX_RANK}")]
    Rank {
        /// Which tensor.
        index: usize,
        /// What its entry says.
        rank: u64,
    },
    /// An element type that is none of ours, or a vector of one, or impossible extents.
    #[error("tensor {index}")]
    Form {
        /// Which tensor.
        index: usize,
        /// What is wrong with it.
        source: FormError,
    },
    /// The data is longer or shorter than the tensor.
    #[error("tensor {index} takes {expected} bytes, not {actual}")]
    Length {
        /// Which tensor.
        index: usize,
        /// What type and extents take.
        expected: usize,
        /// What the entry says.
        actual: u32,
    },
    /// The data does not start at a multiple of [`ALIGNMENT`].
    #[error("tensor {index} lies at address {address}, which is no multiple of {ALIGNMENT}")]
    Misaligned {
        /// Which tensor.
        index: usize,
        /// Where it lies.
        address: u32,
    },
    /// More tensors than a descriptor can count, or one of 4 GiB.
    #[error("the tensors do not fit a descriptor")]
    TooLarge,
}

impl TensorPlace {
    /// A tensor of this type and these extents at `address`.
    ///
    /// # Errors
    /// [`DescriptorError::TooLarge`] for one of 4 GiB or more.
    pub fn new(dtype: DType, shape: Shape, address: u32) -> Result<Self, DescriptorError> {
        let bytes = shape.byte_count(dtype).map_err(|_| DescriptorError::TooLarge)?;
        let byte_count = u32::try_from(bytes).map_err(|_| DescriptorError::TooLarge)?;
        Ok(TensorPlace { dtype, shape, address, byte_count })
    }
}

/// How many bytes the descriptor of tensors with these ranks takes.
pub fn descriptor_len(ranks: impl IntoIterator<Item = usize>) -> usize {
    ranks.into_iter().fold(HEADER_BYTES, |sum, rank| sum + ENTRY_BYTES + rank * EXTENT_BYTES)
}

/// Writes a descriptor.
///
/// # Errors
/// [`DescriptorError::TooLarge`] for more than 65,535 tensors.
pub fn write_descriptor(tensors: &[TensorPlace]) -> Result<Vec<u8>, DescriptorError> {
    let count = u16::try_from(tensors.len()).map_err(|_| DescriptorError::TooLarge)?;
    let len = descriptor_len(tensors.iter().map(|tensor| tensor.shape.rank()));
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&DESCRIPTOR_MAGIC);
    bytes.extend_from_slice(&DESCRIPTOR_VERSION.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    for tensor in tensors {
        bytes.extend_from_slice(&[tensor.dtype.code() as u8, tensor.dtype.bits()]);
        bytes.extend_from_slice(&tensor.dtype.lanes().to_le_bytes());
        // A rank is at most `MAX_RANK`.
        bytes.extend_from_slice(&(tensor.shape.rank() as u32).to_le_bytes());
        bytes.extend_from_slice(&tensor.address.to_le_bytes());
        bytes.extend_from_slice(&tensor.byte_count.to_le_bytes());
        for &extent in tensor.shape.extents() {
            bytes.extend_from_slice(&(extent as u64).to_le_bytes());
        }
    }
    Ok(bytes)
}

/// Reads a descriptor.
///
/// What it says about itself is consistent then: lengths fit types and extents, addresses are
/// aligned. Whether anything lies at an address is for the reader to check.
///
/// # Errors
/// [`DescriptorError`] for anything that the format does not allow.
pub fn read_descriptor(bytes: &[u8]) -> Result<Vec<TensorPlace>, DescriptorError> {
    let mut fields = Fields(bytes);
    if fields.take() != Some(DESCRIPTOR_MAGIC) {
        return Err(DescriptorError::NotADescriptor);
    }
    let version = fields.u16().ok_or(DescriptorError::NotADescriptor)?;
    if version != DESCRIPTOR_VERSION {
        return Err(DescriptorError::Version(version));
    }
    let count = usize::from(fields.u16().ok_or(DescriptorError::NotADescriptor)?);
    // No more than there can be: the count is the sender's.
    let mut tensors = Vec::with_capacity(count.min(bytes.len() / ENTRY_BYTES));
    for index in 0..count {
        tensors.push(read_entry(&mut fields, index, count)?);
    }
    match fields.0.len() {
        0 => Ok(tensors),
        more => Err(DescriptorError::TrailingBytes(more)),
    }
}

fn read_entry(
    fields: &mut Fields<'_>,
    index: usize,
    count: usize,
) -> Result<TensorPlace, DescriptorError> {
    let truncated = DescriptorError::Truncated { index, count };
    let form = |source| DescriptorError::Form { index, source };
    let [code, bits, low, high] = fields.take().ok_or(truncated.clone())?;
    let lanes = u16::from_le_bytes([low, high]);
    let dtype = DType::from_dlpack(code, bits, lanes).and_then(|dtype| match lanes {
        1 => Ok(dtype),
        _ => Err(ParseDTypeError::UnknownCode { code, bits, lanes }),
    });
    let dtype = dtype.map_err(|error| form(error.into()))?;
    let rank = fields.u32().ok_or(truncated.clone())?;
    if rank as usize > MAX_RANK {
        return Err(DescriptorError::Rank { index, rank: rank.into() });
    }
    let address = fields.u32().ok_or(truncated.clone())?;
    let byte_count = fields.u32().ok_or(truncated.clone())?;
    let mut extents = Vec::with_capacity(rank as usize);
    for _ in 0..rank {
        extents.push(i64::from_le_bytes(fields.take().ok_or(truncated.clone())?));
    }
    let shape = Shape::from_signed(&extents).map_err(|error| form(error.into()))?;
    let expected = shape.byte_count(dtype).map_err(|error| form(error.into()))?;
    if expected != byte_count as usize {
        return Err(DescriptorError::Length { index, expected, actual: byte_count });
    }
    if !(address as usize).is_multiple_of(ALIGNMENT) {
        return Err(DescriptorError::Misaligned { index, address });
    }
    Ok(TensorPlace { dtype, shape, address, byte_count })
}

/// Reads fixed fields off the front of a slice.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(extents: &[usize]) -> Shape {
        Shape::new(extents).expect("small")
    }

    fn sample() -> Vec<TensorPlace> {
        [
            (DType::FLOAT32, &[2, 3][..], 64),
            (DType::INT64, &[], 128),
            (DType::BOOL, &[0, 7], 0),
            (DType::BFLOAT16, &[4], 1 << 20),
        ]
        .map(|(dtype, extents, address)| {
            TensorPlace::new(dtype, shape(extents), address).expect("small")
        })
        .into()
    }

    #[test]
    fn tensors_come_back_as_they_were_described() {
        let bytes = write_descriptor(&sample()).expect("four");
        assert_eq!(read_descriptor(&bytes), Ok(sample()));
        assert_eq!(bytes.len(), descriptor_len([2, 0, 2, 1]));
        assert_eq!(read_descriptor(&write_descriptor(&[]).expect("none")), Ok(vec![]));
    }

    #[test]
    fn the_format_is_pinned() {
        let place = TensorPlace::new(DType::FLOAT32, shape(&[2, 3]), 64).expect("small");
        let expected: &[u8] = b"GLTD\x01\0\x01\0\x02\x20\x01\0\x02\0\0\0\x40\0\0\0\x18\0\0\0\
            \x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0";
        assert_eq!(write_descriptor(&[place]).expect("one"), expected);
    }

    #[test]
    fn a_cut_or_longer_descriptor_is_refused_wherever_it_ends() {
        let bytes = write_descriptor(&sample()).expect("four");
        for len in 0..bytes.len() {
            let error = read_descriptor(&bytes[..len]).expect_err("cut");
            match len {
                0..8 => assert_eq!(error, DescriptorError::NotADescriptor),
                _ => assert!(matches!(error, DescriptorError::Truncated { count: 4, .. })),
            }
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(read_descriptor(&longer), Err(DescriptorError::TrailingBytes(1)));
    }

    #[test]
    fn every_wrong_field_is_named() {
        let patched = |at: usize, with: &[u8]| {
            let mut bytes = write_descriptor(&sample()).expect("four");
            bytes[at..at + with.len()].copy_from_slice(with);
            read_descriptor(&bytes).expect_err("patched")
        };
        assert_eq!(patched(0, b"g"), DescriptorError::NotADescriptor);
        assert_eq!(patched(4, &[2]), DescriptorError::Version(2));
        assert!(matches!(patched(6, &[5]), DescriptorError::Truncated { index: 4, count: 5 }));
        assert!(matches!(patched(6, &[3]), DescriptorError::TrailingBytes(24)));
        assert!(matches!(
            patched(8, &[9]),
            DescriptorError::Form { index: 0, source: FormError::DType(_) }
        ));
        assert!(matches!(
            patched(10, &[4]),
            DescriptorError::Form { index: 0, source: FormError::DType(_) }
        ));
        assert!(matches!(patched(12, &[65]), DescriptorError::Rank { index: 0, rank: 65 }));
        assert!(matches!(
            patched(16, &[65]),
            DescriptorError::Misaligned { index: 0, address: 65 }
        ));
        assert!(matches!(
            patched(20, &[25]),
            DescriptorError::Length { index: 0, expected: 24, actual: 25 }
        ));
        assert!(matches!(
            patched(24, &[255; 8]),
            DescriptorError::Form { index: 0, source: FormError::Shape(_) }
        ));
    }

    #[test]
    fn bytes_at_random_are_read_without_panic() {
        let good = write_descriptor(&sample()).expect("four");
        // A linear congruential generator: the same bytes each time.
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=next() % 4 {
                let at = next() % bytes.len();
                bytes[at] = next() as u8;
            }
            bytes.truncate(next() % (2 * bytes.len()));
            if let Ok(tensors) = read_descriptor(&bytes) {
                assert_eq!(write_descriptor(&tensors).as_deref(), Ok(&bytes[..]));
            } else {
                refused += 1;
            }
        }
        assert!(refused > 10_000);
    }
}
