//! NumPy's file format, as far as it is needed here: float32, C order, version 1.0
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use anyhow::{Context as _, Result, ensure};

const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";

/// A tensor as a `.npy` file.
pub(crate) fn write(values: &[f32], shape: &[usize]) -> Vec<u8> {
    let extents: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({extents}), }}").into_bytes();
    let unpadded = MAGIC.len() + 2 + header.len() + 1;
    header.resize(header.len() + unpadded.next_multiple_of(64) - unpadded, b' ');
    header.push(b'\n');
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    file.extend_from_slice(&header);
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    file
}

/// The elements of a `.npy` file.
pub(crate) fn read(file: &[u8]) -> Result<Vec<f32>> {
    let rest = file.strip_prefix(MAGIC).context("not a .npy file of version 1.0")?;
    let (length, rest) = rest.split_first_chunk::<2>().context("cut short")?;
    let (header, data) =
        rest.split_at_checked(u16::from_le_bytes(*length).into()).context("cut short")?;
    let header = str::from_utf8(header)?;
    ensure!(
        header.contains("'descr': '<f4'") && header.contains("'fortran_order': False"),
        "not float32 in C order: {header}"
    );
    let (values, rest) = data.as_chunks::<4>();
    ensure!(rest.is_empty(), "cut short");
    Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for shape in [&[6][..], &[1, 2, 3], &[6, 1, 1, 1]] {
            let values = [1.0, -0.5, 3e38, 1e-40, 0.0, -0.0];
            let file = write(&values, shape);
            assert_eq!((file.len() - 24) % 64, 0);
            assert_eq!(read(&file).unwrap(), values);
        }
        assert!(read(b"PK").is_err());
    }
}
