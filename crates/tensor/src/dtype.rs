//! What one element of a tensor is: DLPack's type code, bits and lanes, and TVM's names for them.

use std::fmt;
use std::str::FromStr;

/// Families of element types, numbered as DLPack numbers them (`DLDataTypeCode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TypeCode {
    /// Signed integer, two's complement.
    Int = 0,
    /// Unsigned integer.
    UInt = 1,
    /// IEEE 754 binary floating point.
    Float = 2,
    /// The upper half of an IEEE 754 binary32.
    BFloat = 4,
    /// Truth value, one byte each.
    Bool = 6,
}

impl TypeCode {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => TypeCode::Int,
            1 => TypeCode::UInt,
            2 => TypeCode::Float,
            4 => TypeCode::BFloat,
            6 => TypeCode::Bool,
            _ => return None,
        })
    }
}

/// An element type: a family, its width, and how many of them stand side by side.
///
/// The layout is that of DLPack's `DLDataType`, so that it can stand inside a [`crate::DLTensor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct DType {
    code: TypeCode,
    bits: u8,
    lanes: u16,
}

/// A name or a code triple that is no element type we compute with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDTypeError {
    /// The text is no element type of TVM's, or none of ours.
    #[error("unknown element type `{0}`")]
    Unknown(String),
    /// DLPack's triple names an element type that we do not compute with.
    #[error("unknown element type: DLPack code {code}, {bits} bits, {lanes} lanes")]
    UnknownCode {
        /// DLPack's type code.
        code: u8,
        /// Width of one lane.
        bits: u8,
        /// Lanes of one element.
        lanes: u16,
    },
}

impl DType {
    /// 16-bit IEEE 754.
    pub const FLOAT16: Self = Self::scalar(TypeCode::Float, 16);
    /// 32-bit IEEE 754.
    pub const FLOAT32: Self = Self::scalar(TypeCode::Float, 32);
    /// 64-bit IEEE 754.
    pub const FLOAT64: Self = Self::scalar(TypeCode::Float, 64);
    /// The upper half of a 32-bit float.
    pub const BFLOAT16: Self = Self::scalar(TypeCode::BFloat, 16);
    /// 8-bit signed integer.
    pub const INT8: Self = Self::scalar(TypeCode::Int, 8);
    /// 16-bit signed integer.
    pub const INT16: Self = Self::scalar(TypeCode::Int, 16);
    /// 32-bit signed integer.
    pub const INT32: Self = Self::scalar(TypeCode::Int, 32);
    /// 64-bit signed integer.
    pub const INT64: Self = Self::scalar(TypeCode::Int, 64);
    /// 8-bit unsigned integer.
    pub const UINT8: Self = Self::scalar(TypeCode::UInt, 8);
    /// 16-bit unsigned integer.
    pub const UINT16: Self = Self::scalar(TypeCode::UInt, 16);
    /// 32-bit unsigned integer.
    pub const UINT32: Self = Self::scalar(TypeCode::UInt, 32);
    /// 64-bit unsigned integer.
    pub const UINT64: Self = Self::scalar(TypeCode::UInt, 64);
    /// Truth value in one byte.
    pub const BOOL: Self = Self::scalar(TypeCode::Bool, 8);

    const fn scalar(code: TypeCode, bits: u8) -> Self {
        DType { code, bits, lanes: 1 }
    }

    /// The element type that DLPack spells `(code, bits, lanes)`.
    ///
    /// # Errors
    /// [`ParseDTypeError::UnknownCode`] for a triple that is none of the types of this module
    /// (complex numbers, handles, sub-byte integers, no lanes).
    pub fn from_dlpack(code: u8, bits: u8, lanes: u16) -> Result<Self, ParseDTypeError> {
        let widths: &[u8] = match TypeCode::from_code(code) {
            Some(TypeCode::Int | TypeCode::UInt) => &[8, 16, 32, 64],
            Some(TypeCode::Float) => &[16, 32, 64],
            Some(TypeCode::BFloat) => &[16],
            Some(TypeCode::Bool) => &[8],
            None => &[],
        };
        match TypeCode::from_code(code) {
            Some(family) if widths.contains(&bits) && lanes > 0 => {
                Ok(DType { code: family, bits, lanes })
            }
            _ => Err(ParseDTypeError::UnknownCode { code, bits, lanes }),
        }
    }

    /// The family.
    pub fn code(self) -> TypeCode {
        self.code
    }

    /// Width of one lane in bits.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Lanes of one element; 1 for everything but vectors.
    pub fn lanes(self) -> u16 {
        self.lanes
    }

    /// Bytes of one element, all lanes.
    pub fn size_bytes(self) -> usize {
        usize::from(self.bits / 8) * usize::from(self.lanes)
    }
}

/// TVM's names: `float32`, `bfloat16`, `uint8`, `bool`, `int8x4`.
impl FromStr for DType {
    type Err = ParseDTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || ParseDTypeError::Unknown(text.chars().take(64).collect());
        let (family, rest) = if let Some(rest) = text.strip_prefix("bool") {
            (DType::BOOL, rest)
        } else {
            let digits = text.find(|c: char| c.is_ascii_digit()).ok_or_else(unknown)?;
            let (name, rest) = text.split_at(digits);
            let code = match name {
                "int" => TypeCode::Int,
                "uint" => TypeCode::UInt,
                "float" => TypeCode::Float,
                "bfloat" => TypeCode::BFloat,
                _ => return Err(unknown()),
            };
            let end = rest.find('x').unwrap_or(rest.len());
            let (bits, rest) = rest.split_at(end);
            (DType { code, bits: decimal(bits).ok_or_else(unknown)?, lanes: 1 }, rest)
        };
        let lanes = match rest.strip_prefix('x') {
            Some(lanes) => decimal(lanes).ok_or_else(unknown)?,
            None if rest.is_empty() => 1,
            None => return Err(unknown()),
        };
        Self::from_dlpack(family.code as u8, family.bits, lanes).map_err(|_| unknown())
    }
}

/// A plain decimal number: no sign, no leading zero, so that one type has one spelling.
fn decimal<T: FromStr>(digits: &str) -> Option<T> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    if plain { digits.parse().ok() } else { None }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            TypeCode::Bool => f.write_str("bool")?,
            TypeCode::Int => write!(f, "int{}", self.bits)?,
            TypeCode::UInt => write!(f, "uint{}", self.bits)?,
            TypeCode::Float => write!(f, "float{}", self.bits)?,
            TypeCode::BFloat => write!(f, "bfloat{}", self.bits)?,
        }
        if self.lanes == 1 { Ok(()) } else { write!(f, "x{}", self.lanes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tvm_s_names_are_read_and_written_back_alike() {
        for (text, code, bits, lanes, bytes) in [
            ("float32", 2, 32, 1, 4),
            ("float16", 2, 16, 1, 2),
            ("float64", 2, 64, 1, 8),
            ("bfloat16", 4, 16, 1, 2),
            ("int8", 0, 8, 1, 1),
            ("int64", 0, 64, 1, 8),
            ("uint32", 1, 32, 1, 4),
            ("bool", 6, 8, 1, 1),
            ("int8x4", 0, 8, 4, 4),
            ("float32x65535", 2, 32, 65535, 262_140),
        ] {
            let dtype: DType = text.parse().expect(text);
            assert_eq!(DType::from_dlpack(code, bits, lanes), Ok(dtype), "{text}");
            assert_eq!(dtype.to_string(), text);
            assert_eq!(dtype.size_bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn unknown_names_are_errors_and_never_a_guess() {
        for text in [
            "",
            "float",
            "float8",
            "float31",
            "float128",
            "bfloat32",
            "int4",
            "int0",
            "uint1",
            "float32x",
            "float32x0",
            "float32x65536",
            "float032",
            "float+32",
            "Float32",
            " float32",
            "float32 ",
            "bool8",
            "boolx0",
            "handle",
            "complex64",
            "x4",
            "32",
            "int８",
            "float8_e4m3fn",
            "float32x4x4",
            "int-8",
        ] {
            assert_eq!(
                text.parse::<DType>(),
                Err(ParseDTypeError::Unknown(text.to_owned())),
                "{text:?}"
            );
        }
    }

    #[test]
    fn unknown_codes_are_errors() {
        for (code, bits, lanes) in
            [(3, 64, 1), (5, 64, 1), (7, 8, 1), (2, 8, 1), (2, 32, 0), (6, 1, 1)]
        {
            assert_eq!(
                DType::from_dlpack(code, bits, lanes),
                Err(ParseDTypeError::UnknownCode { code, bits, lanes })
            );
        }
    }

    #[test]
    fn a_dtype_is_laid_out_as_dlpack_lays_it_out() {
        assert_eq!(size_of::<DType>(), 4);
        assert_eq!(std::mem::offset_of!(DType, bits), 1);
        assert_eq!(std::mem::offset_of!(DType, lanes), 2);
    }
}
