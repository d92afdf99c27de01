//! What `graphlet build --as operator` is told of an operator.

use std::collections::BTreeMap;

use builder::{Operator, OperatorInput};

use crate::exit::Usage;

/// An operator's inputs, attributes and outputs.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Options of --as operator")]
pub struct OperatorArgs {
    /// The inputs, in the operator's order, one option each.
    #[arg(
        long = "input",
        help = "An input, such as f32[1,1000]; i64[2]=3,4 is a constant; - leaves an optional one out. \
                In the operator's order, one each",
        value_name = "TYPE[EXTENTS]",
        value_parser = parse_input,
        allow_hyphen_values = true
    )]
    inputs: Vec<Given>,
    /// An attribute, such as axis=-1 or kernel_shape=3,3; may be repeated
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = parse_attribute)]
    attributes: Vec<(String, String)>,
    /// Version of the operator set. Default: the newest
    #[arg(long, value_name = "NUMBER")]
    opset: Option<u32>,
    /// How many outputs, where some are optional
    #[arg(long, value_name = "NUMBER")]
    output_count: Option<u32>,
    /// The operator's domain. Default: ONNX's own
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
}

/// An input, or that there is none.
#[derive(Debug, Clone, PartialEq)]
struct Given(Option<OperatorInput>);

impl OperatorArgs {
    /// Whether any of them was named.
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// The operator called `name`.
    ///
    /// # Errors
    /// [`Usage`] for an attribute that is given twice.
    pub fn operator(&self, name: &str) -> Result<Operator, Usage> {
        let mut attributes = BTreeMap::new();
        for (key, value) in &self.attributes {
            if attributes.insert(key.clone(), value.clone()).is_some() {
                return Err(Usage::new(format!("--attribute {key} is given twice")));
            }
        }
        Ok(Operator {
            name: name.to_owned(),
            domain: self.domain.clone().unwrap_or_default(),
            opset: self.opset,
            inputs: self.inputs.iter().map(|given| given.0.clone()).collect(),
            attributes,
            outputs: self.output_count,
        })
    }
}

// Names as graphs describe them, and shorter.
const DTYPES: [(&str, &str); 13] = [
    ("f16", "float16"),
    ("bf16", "bfloat16"),
    ("f32", "float32"),
    ("f64", "float64"),
    ("i8", "int8"),
    ("i16", "int16"),
    ("i32", "int32"),
    ("i64", "int64"),
    ("u8", "uint8"),
    ("u16", "uint16"),
    ("u32", "uint32"),
    ("u64", "uint64"),
    ("bool", "bool"),
];

fn parse_input(text: &str) -> Result<Given, String> {
    if text == "-" {
        return Ok(Given(None));
    }
    let (head, values) = match text.split_once('=') {
        Some((head, values)) => (head, Some(values)),
        None => (text, None),
    };
    let form = "expected TYPE[EXTENTS], such as f32[1,1000], or i64[2]=3,4 for a constant";
    let (dtype, extents) = head.split_once('[').ok_or(form)?;
    let extents = extents.strip_suffix(']').ok_or(form)?;
    let known = DTYPES.iter().find(|(short, long)| [*short, *long].contains(&dtype));
    let (_, dtype) = known.ok_or_else(|| {
        let names = DTYPES.map(|(short, _)| short).join(", ");
        format!("`{dtype}` is no element type; there are {names}")
    })?;
    let shape = list(extents)
        .map(|extent| extent.parse().map_err(|_| format!("`{extent}` is no extent")))
        .collect::<Result<_, _>>()?;
    let values = values.map(|values| list(values).map(str::to_owned).collect());
    Ok(Given(Some(OperatorInput { dtype: (*dtype).to_owned(), shape, values })))
}

fn parse_attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, such as axis=-1".into()),
    }
}

/// What stands between commas; nothing in an empty text.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(move |_| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_a_type_with_extents_a_constant_or_nothing() {
        let input = |dtype: &str, shape: &[u32], values: Option<&[&str]>| {
            let values = values.map(|values| values.iter().map(|&text| text.into()).collect());
            Ok(Given(Some(OperatorInput { dtype: dtype.into(), shape: shape.into(), values })))
        };
        for (text, expected) in [
            ("f32[1,1000]", input("float32", &[1, 1000], None)),
            ("float32[1, 1000]", input("float32", &[1, 1000], None)),
            ("bf16[]", input("bfloat16", &[], None)),
            ("i64[2]=-1, 4", input("int64", &[2], Some(&["-1", "4"]))),
            ("f32[]=0.5", input("float32", &[], Some(&["0.5"]))),
            ("i64[0]=", input("int64", &[0], Some(&[]))),
            ("-", Ok(Given(None))),
        ] {
            assert_eq!(parse_input(text), expected, "{text}");
        }
        for (text, expected) in [
            ("", "expected TYPE"),
            ("f32", "expected TYPE"),
            ("f32[1", "expected TYPE"),
            ("f33[1]", "`f33` is no element type; there are f16, bf16"),
            ("f32[1,,2]", "`` is no extent"),
            ("f32[-1]", "`-1` is no extent"),
            ("f32[99999999999]", "is no extent"),
        ] {
            let error = parse_input(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn an_attribute_is_given_once_and_has_a_name() {
        assert_eq!(parse_attribute("pads=1,1"), Ok(("pads".into(), "1,1".into())));
        assert_eq!(parse_attribute("mode="), Ok(("mode".into(), String::new())));
        assert!(parse_attribute("axis").is_err() && parse_attribute("=1").is_err());
        let twice = vec![("axis".to_owned(), "1".to_owned()); 2];
        let twice = OperatorArgs { attributes: twice, ..OperatorArgs::default() };
        assert!(twice.operator("Softmax").is_err() && twice.is_given());
        assert!(!OperatorArgs::default().is_given());
    }
}
