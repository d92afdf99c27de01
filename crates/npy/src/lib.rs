//! NumPy's files: `.npy` arrays and `.npz` archives of them, as tensors.
//!
//! Formats 1 to 3 of `numpy.lib.format`, read strictly: a header is the dictionary that NumPy
//! writes, and as many bytes follow as it says. bfloat16, which NumPy does not know, is `V2` there,
//! as the Python package ml_dtypes has it.
//!
//! ```
//! use tensor::{Shape, Tensor};
//! let tensor = Tensor::copy_of(Shape::new([2])?, &[1.0_f32, 2.0])?;
//! let again = npy::read_npy(&npy::write_npy(tensor.view()))?;
//! assert_eq!(again.as_slice::<f32>()?, [1.0, 2.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{
    io::{Cursor, Read as _, Write as _},
    iter,
};

use tensor::{DType, Shape, ShapeError, Storage, Tensor, TensorError, TensorView, TypeCode};
use zip::{CompressionMethod, ZipArchive, ZipWriter, result::ZipError, write::SimpleFileOptions};

/// A file that is no array of ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// Another magic, or a header of another form.
    #[error("not a NumPy array file: {0}")]
    Malformed(&'static str),
    /// An element type that no tensor has.
    #[error("element type `{0}` is none of a tensor's")]
    DType(String),
    /// Impossible extents.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// More or fewer bytes than the header says.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The archive cannot be read or written.
    #[error("not an archive of NumPy arrays")]
    Archive(#[from] ZipError),
    /// A member of the archive is no array.
    #[error("`{name}`")]
    Member {
        /// Which one.
        name: String,
        /// What is wrong.
        source: Box<NpyError>,
    },
    /// The archive holds more than a graph could take.
    #[error("the archive's arrays have more than {} GiB together, which no graph's memory holds", MAX_NPZ_BYTES >> 30)]
    TooLarge,
}

// A wasm32 graph's memory ends at 4 GiB.
const MAX_NPZ_BYTES: u64 = 4 << 30;

const MAGIC: &[u8] = b"\x93NUMPY";
// NumPy itself refuses longer headers unless told otherwise.
const MAX_HEADER_BYTES: usize = 10_000;
// NumPy pads headers so that the data is aligned.
const HEADER_ALIGNMENT: usize = 64;

/// Reads an array file.
///
/// # Errors
/// [`NpyError`].
pub fn read_npy(bytes: &[u8]) -> Result<Tensor<'static>, NpyError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(NpyError::Malformed("another magic"))?;
    let cut = || NpyError::Malformed("cut short");
    let (&[major, _minor], rest) = rest.split_first_chunk().ok_or_else(cut)?;
    let (len, rest) = match major {
        1 => {
            let (len, rest) = rest.split_first_chunk().ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes(*len)), rest)
        }
        2 | 3 => {
            let (len, rest) = rest.split_first_chunk().ok_or_else(cut)?;
            (u32::from_le_bytes(*len) as usize, rest)
        }
        _ => return Err(NpyError::Malformed("another version")),
    };
    if len > MAX_HEADER_BYTES {
        return Err(NpyError::Malformed("a header of more than 10,000 bytes"));
    }
    let (header, data) = rest.split_at_checked(len).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| NpyError::Malformed("no text"))?;
    let header = Header::parse(header)?;
    let shape = Shape::new(header.shape)?;
    let expected = shape.byte_count(header.dtype)?;
    if data.len() != expected {
        let (dtype, actual) = (header.dtype, data.len());
        return Err(TensorError::Length { dtype, shape, expected, actual }.into());
    }
    let mut storage = Storage::copy_of(data).map_err(TensorError::from)?;
    let target = storage.as_bytes_mut().ok_or(TensorError::ReadOnly)?;
    let size = header.dtype.size_bytes();
    if header.fortran_order {
        transpose(data, target, shape.extents(), size);
    }
    if header.big_endian {
        target.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
    Ok(Tensor::new(header.dtype, shape, storage)?)
}

/// Writes an array file, format 1.
pub fn write_npy(tensor: TensorView<'_>) -> Vec<u8> {
    let extents = tensor.shape().extents();
    let mut shape: String = extents.iter().map(|extent| format!("{extent}, ")).collect();
    if extents.len() > 1 {
        shape.truncate(shape.len() - 2);
    } else {
        shape.truncate(shape.trim_end().len());
    }
    let descr = descr(tensor.dtype());
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let before = MAGIC.len() + 4;
    let total = (before + header.len() + 1).next_multiple_of(HEADER_ALIGNMENT);
    header.extend(iter::repeat_n(' ', total - before - header.len() - 1));
    header.push('\n');
    let mut bytes = Vec::with_capacity(total + tensor.as_bytes().len());
    bytes.extend_from_slice(MAGIC);
    // 64 extents of 20 digits fit 16 bits.
    let [low, high] = (header.len() as u16).to_le_bytes();
    bytes.extend_from_slice(&[1, 0, low, high]);
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(tensor.as_bytes());
    bytes
}

/// Reads every array of an archive, in the archive's order, by name.
///
/// # Errors
/// [`NpyError`].
pub fn read_npz(bytes: &[u8]) -> Result<Vec<(String, Tensor<'static>)>, NpyError> {
    let mut archive = ZipArchive::new(Cursor::new(bytes))?;
    let mut arrays = Vec::new();
    let mut left = MAX_NPZ_BYTES;
    for index in 0..archive.len() {
        let member = archive.by_index(index)?;
        let name = member.name().to_owned();
        let mut content = Vec::new();
        // Not the size that the archive tells: it may lie.
        member.take(left + 1).read_to_end(&mut content).map_err(ZipError::from)?;
        left = left.checked_sub(content.len() as u64).ok_or(NpyError::TooLarge)?;
        let array = read_npy(&content)
            .map_err(|source| NpyError::Member { name: name.clone(), source: Box::new(source) })?;
        arrays.push((name.strip_suffix(".npy").unwrap_or(&name).to_owned(), array));
    }
    Ok(arrays)
}

/// Writes an archive of arrays, as `numpy.savez` does: not compressed.
///
/// # Errors
/// [`NpyError::Archive`] for a name that no archive can hold, or that comes twice.
pub fn write_npz(arrays: &[(&str, TensorView<'_>)]) -> Result<Vec<u8>, NpyError> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    // One date for all, so that the same tensors give the same bytes.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .large_file(true);
    for (name, tensor) in arrays {
        archive.start_file(format!("{name}.npy"), options)?;
        archive.write_all(&write_npy(*tensor)).map_err(ZipError::from)?;
    }
    Ok(archive.finish()?.into_inner())
}

/// NumPy's name of an element type.
fn descr(dtype: DType) -> String {
    let bytes = dtype.size_bytes();
    let order = if bytes == 1 { '|' } else { '<' };
    let kind = match dtype.code() {
        TypeCode::Int => 'i',
        TypeCode::UInt => 'u',
        TypeCode::Float => 'f',
        TypeCode::BFloat => 'V',
        TypeCode::Bool => 'b',
    };
    format!("{order}{kind}{bytes}")
}

/// What a header says.
struct Header {
    dtype: DType,
    big_endian: bool,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Result<Self, NpyError> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        let mut words = Words(text);
        words.expect("{")?;
        while !words.accept("}") {
            let key = words.string()?;
            words.expect(":")?;
            match key {
                "descr" => descr = Some(words.string()?),
                "fortran_order" => fortran_order = Some(words.truth()?),
                "shape" => shape = Some(words.tuple()?),
                _ => return Err(NpyError::Malformed("an unknown key")),
            }
            if !words.accept(",") {
                words.expect("}")?;
                break;
            }
        }
        words.end()?;
        let (Some(descr), Some(fortran_order), Some(shape)) = (descr, fortran_order, shape) else {
            return Err(NpyError::Malformed("a key is missing"));
        };
        let (dtype, big_endian) = dtype(descr)?;
        Ok(Header { dtype, big_endian, fortran_order, shape })
    }
}

/// An element type by NumPy's name, and whether its bytes stand the other way round.
fn dtype(descr: &str) -> Result<(DType, bool), NpyError> {
    let unknown = || NpyError::DType(descr.chars().take(32).collect());
    let (order, kind) = descr.split_at_checked(1).ok_or_else(unknown)?;
    let dtype = match kind {
        "b1" => DType::BOOL,
        "i1" => DType::INT8,
        "i2" => DType::INT16,
        "i4" => DType::INT32,
        "i8" => DType::INT64,
        "u1" => DType::UINT8,
        "u2" => DType::UINT16,
        "u4" => DType::UINT32,
        "u8" => DType::UINT64,
        "f2" => DType::FLOAT16,
        "f4" => DType::FLOAT32,
        "f8" => DType::FLOAT64,
        "V2" => DType::BFLOAT16,
        _ => return Err(unknown()),
    };
    match order {
        "<" | "|" | "=" => Ok((dtype, false)),
        ">" => Ok((dtype, true)),
        _ => Err(unknown()),
    }
}

/// The header's text: Python's notation, as much of it as NumPy writes.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn accept(&mut self, word: &str) -> bool {
        match self.0.trim_start().strip_prefix(word) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, word: &str) -> Result<(), NpyError> {
        if self.accept(word) { Ok(()) } else { Err(NpyError::Malformed("no dictionary")) }
    }

    fn string(&mut self) -> Result<&'a str, NpyError> {
        let quote = ["'", "\""].into_iter().find(|quote| self.accept(quote));
        let found = quote.and_then(|quote| self.0.split_once(quote));
        let (text, rest) = found.ok_or(NpyError::Malformed("no string where one should be"))?;
        self.0 = rest;
        Ok(text)
    }

    fn truth(&mut self) -> Result<bool, NpyError> {
        if self.accept("True") {
            return Ok(true);
        }
        match self.accept("False") {
            true => Ok(false),
            false => Err(NpyError::Malformed("neither True nor False")),
        }
    }

    fn tuple(&mut self) -> Result<Vec<usize>, NpyError> {
        self.expect("(")?;
        let mut values = Vec::new();
        while !self.accept(")") {
            self.0 = self.0.trim_start();
            let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = self.0.split_at(digits);
            values.push(number.parse().map_err(|_| NpyError::Malformed("no extent"))?);
            // Python 2 wrote long integers so.
            self.0 = rest.strip_prefix('L').unwrap_or(rest);
            if !self.accept(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(values)
    }

    fn end(&self) -> Result<(), NpyError> {
        if self.0.trim().is_empty() {
            Ok(())
        } else {
            Err(NpyError::Malformed("more than a header"))
        }
    }
}

/// Elements whose first index runs fastest, in the order in which the last one does.
fn transpose(source: &[u8], target: &mut [u8], extents: &[usize], size: usize) {
    let mut strides = Vec::with_capacity(extents.len());
    let mut stride = size;
    for extent in extents {
        strides.push(stride);
        stride *= extent;
    }
    let mut index = vec![0; extents.len()];
    for element in target.chunks_exact_mut(size) {
        let at: usize = index.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
        element.copy_from_slice(&source[at..at + size]);
        for axis in (0..extents.len()).rev() {
            index[axis] += 1;
            if index[axis] < extents[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let len = (header.len() as u16).to_le_bytes();
        [MAGIC, &[1, 0], &len, header.as_bytes(), data].concat()
    }

    fn read(header: &str, data: &[u8]) -> Result<Tensor<'static>, NpyError> {
        read_npy(&file(header, data))
    }

    #[test]
    fn arrays_come_back_as_they_were_written() {
        for name in [
            "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64",
            "uint8", "uint16", "uint32", "uint64", "bool",
        ] {
            let dtype: DType = name.parse().unwrap();
            for extents in [&[][..], &[5], &[2, 3], &[0, 4], &[1, 2, 1, 3]] {
                let shape = Shape::new(extents).unwrap();
                let mut tensor = Tensor::zeros(dtype, shape).unwrap();
                for (i, byte) in tensor.as_bytes_mut().unwrap().iter_mut().enumerate() {
                    *byte = i as u8;
                }
                let bytes = write_npy(tensor.view());
                assert_eq!((bytes.len() - tensor.as_bytes().len()) % 64, 0);
                let again = read_npy(&bytes).unwrap();
                assert_eq!((again.dtype(), again.shape()), (dtype, tensor.shape()), "{name}");
                assert_eq!(again.as_bytes(), tensor.as_bytes());
            }
        }
    }

    #[test]
    fn headers_are_written_as_numpy_writes_them() {
        let tensor = Tensor::copy_of(Shape::new([2]).unwrap(), &[1.0_f32, 2.0]).unwrap();
        let expected = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        assert!(write_npy(tensor.view())[10..].starts_with(expected.as_bytes()));
        let scalar = Tensor::copy_of(Shape::new([]).unwrap(), &[1_u8]).unwrap();
        let expected = "{'descr': '|u1', 'fortran_order': False, 'shape': (), }";
        assert!(write_npy(scalar.view())[10..].starts_with(expected.as_bytes()));
        let matrix = Tensor::zeros(DType::BOOL, Shape::new([3, 4]).unwrap()).unwrap();
        let expected = "{'descr': '|b1', 'fortran_order': False, 'shape': (3, 4), }";
        assert!(write_npy(matrix.view())[10..].starts_with(expected.as_bytes()));
    }

    #[test]
    fn other_orders_of_bytes_and_axes_are_turned_round() {
        let big = "{'descr': '>i2', 'fortran_order': False, 'shape': (2,), }\n";
        let tensor = read(big, &[0, 1, 2, 0]).unwrap();
        assert_eq!(tensor.as_slice::<i16>().unwrap(), [1, 512]);
        let fortran = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }";
        let tensor = read(fortran, &[1, 4, 2, 5, 3, 6]).unwrap();
        assert_eq!(tensor.as_slice::<u8>().unwrap(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_is_no_array_is_refused() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }";
        assert!(read(good, &[0; 4]).is_ok());
        assert!(matches!(read(good, &[0; 5]), Err(NpyError::Tensor(_))));
        for (from, to) in [
            ("'<f4'", "'<c8'"),
            ("'<f4'", "'<M8[ns]'"),
            ("'<f4'", "''"),
            ("'<f4'", "[('a', '<f4')]"),
            ("False", "0"),
            ("(1,)", "(-1,)"),
            ("(1,)", "1"),
            ("(1,)", "(99999999999999999999,)"),
            ("(1,)", "(4611686018427387904, 4)"),
            ("'shape'", "'form'"),
            ("{", "["),
            (", }", "} x"),
        ] {
            let header = good.replace(from, to);
            assert!(read(&header, &[0; 4]).is_err(), "{header}");
        }
        let bytes = file(good, &[0; 4]);
        for len in 0..bytes.len() {
            assert!(read_npy(&bytes[..len]).is_err(), "{len}");
        }
        for at in 0..bytes.len() - 4 {
            for value in [0, b'(', b'9', 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                // Whatever it says: no panic.
                let _ = read_npy(&changed);
            }
        }
    }

    #[test]
    fn an_archive_keeps_names_and_order() {
        let a = Tensor::copy_of(Shape::new([2]).unwrap(), &[1.0_f32, 2.0]).unwrap();
        let b = Tensor::copy_of(Shape::new([]).unwrap(), &[3_i64]).unwrap();
        let bytes = write_npz(&[("a/b:0", a.view()), ("b", b.view())]).unwrap();
        assert_eq!(bytes, write_npz(&[("a/b:0", a.view()), ("b", b.view())]).unwrap());
        let arrays = read_npz(&bytes).unwrap();
        let names: Vec<_> = arrays.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a/b:0", "b"]);
        assert_eq!(arrays[1].1.as_slice::<i64>().unwrap(), [3]);
        assert!(write_npz(&[("a", a.view()), ("a", a.view())]).is_err());
        assert!(matches!(read_npz(b"PK"), Err(NpyError::Archive(_))));
    }
}
