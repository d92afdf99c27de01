//! Tensor data in JSON: arrays, flat or nested, read in one pass into values of one type.
//!
//! No tree is built: what a client sends is bounded by the tensor it must fill, not by memory.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, SeqAccess, Visitor},
};

// A tensor has at most this many extents, so its data at most this many levels.
const MAX_NESTING: usize = 8;

/// An element that JSON can hold.
pub trait Element<'de>: Sized {
    /// What it is called in an error.
    const NAME: &'static str;

    /// From a JSON number.
    fn from_number(_: f64) -> Option<Self> {
        None
    }

    /// From a JSON string.
    fn from_text(_: Cow<'de, str>) -> Option<Self> {
        None
    }
}

impl Element<'_> for f32 {
    const NAME: &'static str = "a number that fits 32-bit floats";

    fn from_number(number: f64) -> Option<Self> {
        let value = number as f32;
        value.is_finite().then_some(value)
    }
}

impl<'de> Element<'de> for Cow<'de, str> {
    const NAME: &'static str = "a string";

    fn from_text(text: Cow<'de, str>) -> Option<Self> {
        Some(text)
    }
}

/// Reads `json` as at most `limit` elements, row-major.
///
/// # Errors
/// When it is not such data, nested more than eight deep, or has more elements.
pub fn flat<'de, T: Element<'de>>(json: &'de str, limit: usize) -> serde_json::Result<Vec<T>> {
    let mut elements = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(json);
    Level { elements: &mut elements, limit, nesting: MAX_NESTING, lifetime: PhantomData }
        .deserialize(&mut reader)?;
    reader.end()?;
    Ok(elements)
}

/// A shape: a short list of extents.
pub fn shape<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i64>, D::Error> {
    struct Extents;
    impl<'de> Visitor<'de> for Extents {
        type Value = Vec<i64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX_NESTING} extents")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut extents = Vec::new();
            while let Some(extent) = seq.next_element()? {
                if extents.len() == MAX_NESTING {
                    return Err(A::Error::invalid_length(MAX_NESTING + 1, &self));
                }
                extents.push(extent);
            }
            Ok(extents)
        }
    }
    deserializer.deserialize_seq(Extents)
}

/// One array of the nest, or an element in it.
struct Level<'a, 'de, T> {
    elements: &'a mut Vec<T>,
    limit: usize,
    nesting: usize,
    lifetime: PhantomData<&'de ()>,
}

impl<'de, T: Element<'de>> Level<'_, 'de, T> {
    fn push<E: Error>(self, element: Option<T>) -> Result<(), E> {
        let element = element.ok_or_else(|| E::custom(format_args!("expected {}", T::NAME)))?;
        if self.elements.len() == self.limit {
            return Err(E::custom(format_args!("more than {} elements", self.limit)));
        }
        self.elements.push(element);
        Ok(())
    }
}

impl<'de, T: Element<'de>> DeserializeSeed<'de> for Level<'_, 'de, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Element<'de>> Visitor<'de> for Level<'_, 'de, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} or an array of them", T::NAME)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.push(T::from_number(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.push(T::from_number(value as f64))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.push(T::from_number(value as f64))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.push(T::from_text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        self.push(T::from_text(Cow::Borrowed(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some(nesting) = self.nesting.checked_sub(1) else {
            return Err(A::Error::custom(format_args!("nested more than {MAX_NESTING} deep")));
        };
        while let Some(()) = seq.next_element_seed(Level {
            elements: &mut *self.elements,
            limit: self.limit,
            nesting,
            lifetime: PhantomData,
        })? {}
        Ok(())
    }
}

/// Text that need not be copied when it has no escapes.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = Cow<'de, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }

        fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }
    }
    deserializer.deserialize_str(Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_out_row_major_however_they_are_nested() {
        for json in ["[1, 2.5, -3, 4e0]", "[[1, 2.5], [-3, 4]]", "[[[[1], [2.5]], [[-3], [4]]]]"] {
            assert_eq!(flat::<f32>(json, 4).unwrap(), [1.0, 2.5, -3.0, 4.0], "{json}");
        }
        assert!(flat::<f32>("[]", 4).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_such_data_is_an_error() {
        for json in [
            "[1, 2, 3, 4, 5]",
            "[1, \"2\"]",
            "[null]",
            "[true]",
            "[{}]",
            "{}",
            "[1e39]",
            "[1e999]",
            "[NaN]",
            "[1,]",
            "[1",
            "[1] 2",
            "",
            "[[[[[[[[[1]]]]]]]]]",
            &"[".repeat(100_000),
        ] {
            assert!(flat::<f32>(json, 4).is_err(), "{}", &json[..json.len().min(20)]);
        }
        assert!(flat::<Cow<'_, str>>("[\"a\", 1]", 4).is_err());
    }

    #[test]
    fn strings_are_copied_only_for_their_escapes() {
        let strings = flat::<Cow<'_, str>>(r#"["abc", ["a\/b"]]"#, 2).unwrap();
        assert!(matches!(strings[..], [Cow::Borrowed("abc"), Cow::Owned(_)]));
        assert_eq!(strings[1], "a/b");
    }
}
