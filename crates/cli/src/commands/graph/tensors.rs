//! Files of NumPy as a graph's inputs, and tensors as text.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use npy::{read_npy, read_npz};
use tensor::{DType, Tensor, TensorView};
use wasm_runtime::TensorInfo;

use crate::exit::Usage;

/// The tensors of the files that were named, each with the input that it is for.
pub fn read_inputs(
    files: &[String],
    inputs: &[TensorInfo],
) -> Result<Vec<(String, Tensor<'static>)>> {
    if let [file] = files
        && is(Path::new(file), "npz")
    {
        let bytes = fs::read(file).with_context(|| format!("cannot read {file}"))?;
        return read_npz(&bytes).with_context(|| file.clone());
    }
    let mut unnamed = inputs.iter();
    let mut tensors: Vec<(String, _)> = Vec::new();
    for file in files {
        // A name may hold anything, so it ends at the last sign before the file's.
        let (name, file) = match file.rsplit_once('=') {
            Some((name, file)) => (name.to_owned(), file),
            None => {
                let next = unnamed.next().ok_or_else(|| {
                    Usage::new(format!("{} files for {} inputs", files.len(), inputs.len()))
                })?;
                (next.name.clone(), file.as_str())
            }
        };
        let bytes = fs::read(file).with_context(|| format!("cannot read {file}"))?;
        let tensor = read_npy(&bytes).with_context(|| file.to_owned())?;
        if tensors.iter().any(|(other, _)| *other == name) {
            return Err(Usage::new(format!("two files for the input `{name}`"))
                .hint("files without a name are for the inputs in their order")
                .into());
        }
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

/// Whether a file's name ends so.
pub fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

// As many as fit a line.
const SHOWN_VALUES: usize = 8;

/// The first elements as text.
pub fn first_values(tensor: TensorView<'_>) -> String {
    macro_rules! values {
        ($type:ty) => {
            tensor.as_slice::<$type>().map(|values| show(values)).unwrap_or_default()
        };
    }
    match tensor.dtype() {
        DType::FLOAT16 => values!(half::f16),
        DType::BFLOAT16 => values!(half::bf16),
        DType::FLOAT32 => values!(f32),
        DType::FLOAT64 => values!(f64),
        DType::INT8 => values!(i8),
        DType::INT16 => values!(i16),
        DType::INT32 => values!(i32),
        DType::INT64 => values!(i64),
        DType::UINT8 => values!(u8),
        DType::UINT16 => values!(u16),
        DType::UINT32 => values!(u32),
        DType::UINT64 => values!(u64),
        DType::BOOL => show(&tensor.as_bytes().iter().map(|&byte| byte != 0).collect::<Vec<_>>()),
        _ => String::new(),
    }
}

fn show<T: std::fmt::Display>(values: &[T]) -> String {
    let shown = values.iter().take(SHOWN_VALUES);
    let mut text = shown.map(ToString::to_string).collect::<Vec<_>>().join(" ");
    if values.len() > SHOWN_VALUES {
        text.push_str(" …");
    }
    text
}
