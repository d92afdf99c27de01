//! TVM's parameter file, as `save_param_dict` writes it: names, then tensors.
//!
//! Layout, little-endian: u64 list magic, u64 reserved, u64 count and as many names (u64 length,
//! bytes), u64 count and as many tensors. A tensor: u64 magic, u64 reserved, i32 device type,
//! i32 device id, i32 rank, dtype (u8 DLPack code, u8 bits, u16 lanes), i64 extents, u64 length
//! of the data in bytes, the data.

use std::collections::BTreeMap;

use tensor::{DType, MAX_RANK, ParseDTypeError, Shape, ShapeError, Storage, Tensor, TensorError};

const LIST_MAGIC: u64 = 0xF7E5_8D4F_0504_9CB7;
const TENSOR_MAGIC: u64 = 0xDD5E_40F0_96B4_A13F;
const CPU: i32 = 1;

/// A parameter file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParamsError {
    /// The file does not start like a parameter file.
    #[error("not a parameter file of TVM")]
    NotParams,
    /// The file ends in the list of names.
    #[error("the parameter file ends inside its list of names")]
    TruncatedNames,
    /// The file ends inside a tensor: it was cut short.
    #[error("parameter `{name}` needs {needed} bytes but {left} remain")]
    TruncatedParam {
        /// The parameter.
        name: String,
        /// Bytes that its next part takes.
        needed: u64,
        /// Bytes that are left.
        left: usize,
    },
    /// Bytes follow the last tensor.
    #[error("{0} bytes follow the last parameter")]
    TrailingBytes(usize),
    /// A name is not UTF-8.
    #[error("the name of parameter {0} is not UTF-8")]
    NameNotUtf8(usize),
    /// Two parameters have one name.
    #[error("two parameters are called `{0}`")]
    Duplicate(String),
    /// There are not as many tensors as names.
    #[error("the parameter file has {names} names but {tensors} tensors")]
    Count {
        /// How many names.
        names: u64,
        /// How many tensors.
        tensors: u64,
    },
    /// A tensor does not start with its magic, or lies on another device than the processor.
    #[error("parameter `{0}` does not start like a tensor in main memory")]
    NotATensor(String),
    /// A tensor has an impossible number of dimensions.
    #[error("parameter `{name}` has {rank} dimensions; at most {MAX_RANK} are possible")]
    Rank {
        /// The parameter.
        name: String,
        /// What the file says.
        rank: i32,
    },
    /// An element type is unknown.
    #[error("parameter `{name}`")]
    DType {
        /// The parameter.
        name: String,
        /// Which type.
        source: ParseDTypeError,
    },
    /// Extents are impossible.
    #[error("parameter `{name}`")]
    Shape {
        /// The parameter.
        name: String,
        /// Which extents.
        source: ShapeError,
    },
    /// The data does not have the length that the extents ask for.
    #[error("parameter `{name}`")]
    Tensor {
        /// The parameter.
        name: String,
        /// What does not fit.
        source: TensorError,
    },
}

/// Reads TVM's parameter file. The tensors borrow `bytes`; their data starts wherever the file
/// has it, which is seldom aligned.
///
/// # Errors
/// [`ParamsError`] for anything but a whole file.
pub fn load_param_dict(bytes: &[u8]) -> Result<BTreeMap<String, Tensor<'_>>, ParamsError> {
    let mut reader = Reader { bytes };
    if reader.u64() != Some(LIST_MAGIC) || reader.u64().is_none() {
        return Err(ParamsError::NotParams);
    }
    let name_count = reader.u64().ok_or(ParamsError::TruncatedNames)?;
    // Grows with what is really there, not with what the file claims.
    let mut names: Vec<&str> = Vec::new();
    for _ in 0..name_count {
        let name = reader.prefixed().ok_or(ParamsError::TruncatedNames)?;
        names.push(std::str::from_utf8(name).map_err(|_| ParamsError::NameNotUtf8(names.len()))?);
    }
    let tensor_count = reader.u64().ok_or(ParamsError::TruncatedNames)?;
    if tensor_count != name_count {
        return Err(ParamsError::Count { names: name_count, tensors: tensor_count });
    }
    let mut params = BTreeMap::new();
    for name in names {
        if params.insert(name.to_owned(), read_tensor(&mut reader, name)?).is_some() {
            return Err(ParamsError::Duplicate(name.to_owned()));
        }
    }
    match reader.bytes.len() {
        0 => Ok(params),
        left => Err(ParamsError::TrailingBytes(left)),
    }
}

fn read_tensor<'a>(reader: &mut Reader<'a>, name: &str) -> Result<Tensor<'a>, ParamsError> {
    let owned_name = || name.to_owned();
    let truncated = |reader: &Reader<'_>, needed| ParamsError::TruncatedParam {
        name: owned_name(),
        needed,
        left: reader.bytes.len(),
    };
    const HEADER_BYTES: usize = 32;
    let Some(header) = reader.take(HEADER_BYTES) else {
        return Err(truncated(reader, HEADER_BYTES as u64));
    };
    let mut header = Reader { bytes: header };
    let (magic, _reserved) = (header.u64(), header.u64());
    let (device, _device_id, rank) = (header.i32(), header.i32(), header.i32().unwrap_or(-1));
    if magic != Some(TENSOR_MAGIC) || device != Some(CPU) {
        return Err(ParamsError::NotATensor(owned_name()));
    }
    let dtype = match *header.bytes {
        [code, bits, low, high] => DType::from_dlpack(code, bits, u16::from_le_bytes([low, high])),
        _ => return Err(truncated(reader, HEADER_BYTES as u64)),
    };
    let dtype = dtype.map_err(|source| ParamsError::DType { name: owned_name(), source })?;
    let dimensions = usize::try_from(rank)
        .ok()
        .filter(|&rank| rank <= MAX_RANK)
        .ok_or_else(|| ParamsError::Rank { name: owned_name(), rank })?;

    let Some(extents) = reader.take(dimensions * 8) else {
        return Err(truncated(reader, dimensions as u64 * 8));
    };
    let extents: Vec<i64> =
        extents.as_chunks::<8>().0.iter().map(|extent| i64::from_le_bytes(*extent)).collect();
    let shape = Shape::from_signed(&extents)
        .map_err(|source| ParamsError::Shape { name: owned_name(), source })?;

    let Some(len) = reader.u64() else {
        return Err(truncated(reader, 8));
    };
    let data = usize::try_from(len).ok().and_then(|len| reader.take(len));
    let Some(data) = data else {
        return Err(truncated(reader, len));
    };
    Tensor::new(dtype, shape, Storage::Borrowed(data))
        .map_err(|source| ParamsError::Tensor { name: owned_name(), source })
}

/// Reads off the front of a slice; `None` when it is too short, and then nothing is taken.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    fn prefixed(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u64()?).ok()?;
        self.take(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Written by TVM 0.27.0.post1: save_param_dict({"p0": float32 [[0,1,2],[3,4,5]], "b": int64 7}).
    const SAMPLE: &[u8] = b"\xb7\x9c\x04\x05O\x8d\xe5\xf7\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\
        \x02\0\0\0\0\0\0\0p0\x01\0\0\0\0\0\0\0b\x02\0\0\0\0\0\0\0\
        ?\xa1\xb4\x96\xf0@^\xdd\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\x02\x20\x01\0\
        \x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x18\0\0\0\0\0\0\0\
        \0\0\0\0\0\0\x80?\0\0\0@\0\0@@\0\0\x80@\0\0\xa0@\
        ?\xa1\xb4\x96\xf0@^\xdd\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\x40\x01\0\
        \x08\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0";

    #[test]
    fn a_file_that_tvm_wrote_is_read_in_place() {
        let params = load_param_dict(SAMPLE).expect("written by TVM");
        assert_eq!(params.keys().collect::<Vec<_>>(), ["b", "p0"]);
        let weights = &params["p0"];
        assert_eq!((weights.dtype(), weights.shape().extents()), (DType::FLOAT32, &[2, 3][..]));
        let values: Vec<_> = weights.as_bytes().as_chunks::<4>().0.to_vec();
        assert_eq!(values, [0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0].map(f32::to_le_bytes));
        assert!(SAMPLE.as_ptr_range().contains(&weights.as_bytes().as_ptr()), "no copy");
        assert_eq!(params["b"].as_bytes(), 7i64.to_le_bytes());
    }

    #[test]
    fn a_file_cut_short_anywhere_is_an_error_that_names_the_place() {
        for len in 0..SAMPLE.len() {
            let error = load_param_dict(&SAMPLE[..len]).expect_err("cut short");
            match len {
                0..16 => assert_eq!(error, ParamsError::NotParams, "{len}"),
                16..51 => assert_eq!(error, ParamsError::TruncatedNames, "{len}"),
                _ => {
                    let expected = if len < 131 { "p0" } else { "b" };
                    let ParamsError::TruncatedParam { name, needed, left } = error else {
                        panic!("{len}: {error:?}")
                    };
                    assert_eq!(name, expected, "{len}");
                    assert!(needed > left as u64);
                }
            }
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let patched = |at: usize, with: &[u8]| {
            let mut bytes = SAMPLE.to_vec();
            bytes[at..at + with.len()].copy_from_slice(with);
            load_param_dict(&bytes).map(|_| ()).expect_err("patched")
        };
        assert_eq!(patched(0, &[0]), ParamsError::NotParams);
        // More names than there are: the tensors' bytes are read as names.
        assert_eq!(patched(16, &[255; 8]), ParamsError::NameNotUtf8(2));
        assert_eq!(patched(24, &[255; 8]), ParamsError::TruncatedNames);
        assert_eq!(patched(32, &[255]), ParamsError::NameNotUtf8(0));
        assert_eq!(patched(43, &[3]), ParamsError::Count { names: 2, tensors: 3 });
        assert_eq!(patched(51, &[0]), ParamsError::NotATensor("p0".into()));
        assert_eq!(patched(67, &[2]), ParamsError::NotATensor("p0".into()));
        assert_eq!(patched(75, &[255; 4]), ParamsError::Rank { name: "p0".into(), rank: -1 });
        assert_eq!(patched(75, &[65]), ParamsError::Rank { name: "p0".into(), rank: 65 });
        assert!(matches!(patched(79, &[9]), ParamsError::DType { .. }));
        assert!(matches!(patched(83, &[255; 8]), ParamsError::Shape { .. }));
        assert!(matches!(patched(83, &[3]), ParamsError::Tensor { .. }));
        assert!(matches!(patched(99, &[255; 8]), ParamsError::TruncatedParam { .. }));

        let mut longer = SAMPLE.to_vec();
        longer.push(0);
        assert_eq!(load_param_dict(&longer).err(), Some(ParamsError::TrailingBytes(1)));
        let twice = [&SAMPLE[..24], &SAMPLE[34..43], &SAMPLE[34..]].concat();
        assert_eq!(load_param_dict(&twice).err(), Some(ParamsError::Duplicate("b".into())));
    }
}
