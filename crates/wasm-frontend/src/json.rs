//! Tensors as JSON: `[{"input-data": [1, 2, 3, 4], "dim-size": 2, "shape": [2, 2]}, …]`.
//!
//! Numbers are taken as they are or refused: an integer that its type cannot hold, or a fraction
//! where an integer belongs, is a mistake and not something to round. JSON has no NaN and no
//! infinity; the strings `"NaN"`, `"Infinity"` and `"-Infinity"` stand for them, in both directions.

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use tensor::{Shape, ShapeError, Tensor, TensorError, TensorView};

use crate::DataType;

/// Input that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not JSON, or not the JSON that it should be.
    #[error("the input is not a list of tensors")]
    Json(#[from] serde_json::Error),
    /// `dim-size` and `shape` contradict each other.
    #[error("tensor {index}: dim-size is {dim_size}, but shape has {rank} extents")]
    DimSize {
        /// Which tensor, counted from 1.
        index: usize,
        /// What it says.
        dim_size: usize,
        /// What the shape has.
        rank: usize,
    },
    /// More or fewer numbers than the shape says.
    #[error("tensor {index}: {actual} numbers do not make the shape {shape}")]
    Count {
        /// Which tensor, counted from 1.
        index: usize,
        /// Its shape.
        shape: Shape,
        /// How many numbers there are.
        actual: usize,
    },
    /// Impossible extents.
    #[error("tensor {index}")]
    Shape {
        /// Which tensor, counted from 1.
        index: usize,
        /// What is wrong.
        source: ShapeError,
    },
    /// Something that is no number of this type.
    #[error("tensor {index}: `{value}` is no {dtype}")]
    Value {
        /// Which tensor, counted from 1.
        index: usize,
        /// What stands there.
        value: String,
        /// What should.
        dtype: &'static str,
    },
    /// The tensor does not fit into memory.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    #[serde(rename = "input-data")]
    data: Vec<Value>,
    #[serde(rename = "dim-size")]
    dim_size: usize,
    shape: Vec<usize>,
    /// Along which axis `Argmax` looks; ours, where the seed knew vectors alone.
    axis: Option<i64>,
}

/// Tensors as they were given, and the axis if one was.
#[derive(Debug)]
pub struct Input {
    /// The tensors, in order.
    pub tensors: Vec<Tensor<'static>>,
    /// The axis that one of them names.
    pub axis: Option<i64>,
}

/// Reads tensors of a type.
///
/// # Errors
/// [`JsonError`].
pub fn read(text: &str, dtype: DataType) -> Result<Input, JsonError> {
    let given: Vec<Given> = serde_json::from_str(text)?;
    let mut input = Input { tensors: Vec::with_capacity(given.len()), axis: None };
    for (index, tensor) in given.into_iter().enumerate() {
        let index = index + 1;
        let Given { data, dim_size, shape, axis } = tensor;
        if dim_size != shape.len() {
            return Err(JsonError::DimSize { index, dim_size, rank: shape.len() });
        }
        let shape = Shape::new(shape).map_err(|source| JsonError::Shape { index, source })?;
        if shape.element_count() != data.len() {
            return Err(JsonError::Count { index, shape, actual: data.len() });
        }
        let refused = |value: &Value| {
            let value = value.to_string().chars().take(40).collect();
            JsonError::Value { index, value, dtype: dtype.name() }
        };
        input.tensors.push(match dtype {
            DataType::Fp32 => Tensor::copy_of(shape, &all(&data, float, refused)?)?,
            DataType::Int32 => Tensor::copy_of(shape, &all(&data, integer::<i32>, refused)?)?,
            DataType::Int8 => Tensor::copy_of(shape, &all(&data, integer::<i8>, refused)?)?,
        });
        input.axis = input.axis.or(axis);
    }
    Ok(input)
}

fn all<T>(
    data: &[Value],
    read: fn(&Value) -> Option<T>,
    refused: impl Fn(&Value) -> JsonError,
) -> Result<Vec<T>, JsonError> {
    data.iter().map(|value| read(value).ok_or_else(|| refused(value))).collect()
}

fn integer<T: TryFrom<i64>>(value: &Value) -> Option<T> {
    T::try_from(value.as_i64()?).ok()
}

fn float(value: &Value) -> Option<f32> {
    match value.as_str() {
        Some("NaN") => Some(f32::NAN),
        Some("Infinity") => Some(f32::INFINITY),
        Some("-Infinity") => Some(f32::NEG_INFINITY),
        Some(_) => None,
        // What a float32 cannot hold would become infinite.
        None => Some(value.as_f64()? as f32).filter(|value| value.is_finite()),
    }
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(rename = "input-data")]
    data: Vec<Value>,
    #[serde(rename = "dim-size")]
    dim_size: usize,
    shape: &'a [usize],
}

/// Writes a tensor in the form of the input, so that a result can be an input.
///
/// # Errors
/// [`TensorError::WrongDType`] for a type that no operator gives.
pub fn write(tensor: TensorView<'_>) -> Result<String, TensorError> {
    let data = if let Ok(values) = tensor.as_slice::<f32>() {
        values.iter().map(|&value| from_float(value)).collect()
    } else if let Ok(values) = tensor.as_slice::<i32>() {
        values.iter().map(|&value| value.into()).collect()
    } else if let Ok(values) = tensor.as_slice::<i8>() {
        values.iter().map(|&value| value.into()).collect()
    } else {
        tensor.as_slice::<i64>()?.iter().map(|&value| value.into()).collect()
    };
    let shape = tensor.shape().extents();
    let written = Written { data, dim_size: shape.len(), shape };
    // Numbers, strings and lists: nothing that JSON could refuse.
    Ok(serde_json::to_string_pretty(&written).expect("plain values"))
}

fn from_float(value: f32) -> Value {
    // The shortest text of the float32, not of the float64 beside it.
    let shortest = value.to_string().parse().ok().and_then(Number::from_f64);
    match shortest {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_again() {
        let text =
            r#"[{"input-data": [0.1, -2, "NaN", "-Infinity"], "dim-size": 2, "shape": [2, 2]}]"#;
        let input = read(text, DataType::Fp32).unwrap();
        let written = write(input.tensors[0].view()).unwrap();
        assert!(written.contains("0.1,") && written.contains("\"NaN\""), "{written}");
        let again = read(&format!("[{written}]"), DataType::Fp32).unwrap();
        assert_eq!(again.tensors[0].as_bytes(), input.tensors[0].as_bytes());
    }

    #[test]
    fn every_mistake_is_named() {
        for (text, dtype, expected) in [
            ("{}", DataType::Fp32, "not a list of tensors"),
            ("[1]", DataType::Fp32, "not a list of tensors"),
            (r#"[{"input-data": [1], "shape": [1]}]"#, DataType::Fp32, "dim-size"),
            (
                r#"[{"input-data": [1], "dim-size": 1, "shape": [1], "x": 1}]"#,
                DataType::Fp32,
                "`x`",
            ),
            (
                r#"[{"input-data": [1], "dim-size": 2, "shape": [1]}]"#,
                DataType::Fp32,
                "dim-size is 2",
            ),
            (
                r#"[{"input-data": [1, 2], "dim-size": 1, "shape": [3]}]"#,
                DataType::Fp32,
                "2 numbers",
            ),
            (
                r#"[{"input-data": [1], "dim-size": 1, "shape": [-1]}]"#,
                DataType::Fp32,
                "not a list",
            ),
            (
                r#"[{"input-data": [128], "dim-size": 1, "shape": [1]}]"#,
                DataType::Int8,
                "`128` is no INT8",
            ),
            (
                r#"[{"input-data": [1.5], "dim-size": 1, "shape": [1]}]"#,
                DataType::Int32,
                "no INT32",
            ),
            (r#"[{"input-data": [1e39], "dim-size": 1, "shape": [1]}]"#, DataType::Fp32, "no FP32"),
            (r#"[{"input-data": ["1"], "dim-size": 1, "shape": [1]}]"#, DataType::Fp32, "no FP32"),
            (r#"[{"input-data": [null], "dim-size": 1, "shape": [1]}]"#, DataType::Int8, "no INT8"),
        ] {
            let error = format!("{:#}", anyhow::Error::from(read(text, dtype).unwrap_err()));
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
