//! `wasm-frontend`: an operator of the WASM operator library on tensors in JSON.
//!
//! The options are those of the MindSpore operator library's own tool. What that tool panicked at,
//! or quietly took for something else, is an error here, with exit code 2.

mod json;

use std::{
    fs,
    io::{ErrorKind, Write as _, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result, anyhow};
use clap::{Parser, ValueEnum};
use json::Input;
use tensor::{Shape, Tensor};
use wasm_runtime::{GraphError, GraphOptions, Operator, OperatorLibrary};

/// Compute an operator of the WASM operator library on tensors in JSON
///
/// The input is a list of tensors, such as [{"input-data": [1, 2, 3, 4], "dim-size": 2, "shape":
/// [2, 2]}, …]; the result is printed in the same form.
///
/// Exit codes: 0 done, 1 failed, 2 wrong options or input.
#[derive(Debug, Parser)]
#[command(name = "wasm-frontend", version, max_term_width = 100)]
struct Args {
    /// The operator library, which `graphlet operators` writes
    #[arg(short = 'c', long = "ms-backend-config", value_name = "FILE_PATH")]
    #[arg(default_value = "operators.wasm")]
    library: PathBuf,
    /// The operator
    #[arg(short, long, value_name = "VALUE", value_enum, default_value_t = OpType::Add)]
    op_type: OpType,
    /// The elements' type
    #[arg(short, long, value_name = "VALUE", value_enum, default_value_t = DataType::Fp32)]
    data_type: DataType,
    /// The input itself
    #[arg(short = 'I', long, value_name = "VALUE")]
    #[arg(conflicts_with = "input_data_file", required_unless_present = "input_data_file")]
    input: Option<String>,
    /// A file with the input
    #[arg(short = 'i', long, value_name = "FILE_PATH")]
    input_data_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum OpType {
    /// The sum of two tensors
    Add,
    /// The product of two tensors, element by element
    Mul,
    /// The place of the greatest element; along an axis if the tensor has "axis"
    Argmax,
    /// How many elements of two tensors are equal
    EqualCount,
}

impl OpType {
    fn operator(self) -> Operator {
        match self {
            OpType::Add => Operator::Add,
            OpType::Mul => Operator::Mul,
            OpType::Argmax => Operator::Argmax,
            OpType::EqualCount => Operator::EqualCount,
        }
    }

    /// Refuses more or fewer tensors than it takes, and an axis where none is looked along.
    fn check(self, input: &Input) -> Result<()> {
        let (takes, expected) = match self {
            OpType::Argmax => ("one tensor", 1),
            OpType::Add | OpType::Mul | OpType::EqualCount => ("two tensors", 2),
        };
        let count = input.tensors.len();
        if count != expected {
            return Err(anyhow!("{self:?} takes {takes}, not {count}"));
        }
        if input.axis.is_some() && self != OpType::Argmax {
            return Err(anyhow!("{self:?} looks along no axis: `axis` is for Argmax"));
        }
        Ok(())
    }
}

/// The types that the library computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPERCASE")]
enum DataType {
    Fp32,
    Int32,
    Int8,
}

impl DataType {
    fn name(self) -> &'static str {
        match self {
            DataType::Fp32 => "FP32",
            DataType::Int32 => "INT32",
            DataType::Int8 => "INT8",
        }
    }
}

/// What went wrong, and whose it is to mend.
enum Failure {
    Usage(anyhow::Error),
    /// What was named is no operator library.
    Library(anyhow::Error),
    Failed(anyhow::Error),
}

fn main() -> ExitCode {
    let (error, hint, code) = match run(&Args::parse()) {
        Ok(text) => match writeln!(stdout(), "{text}") {
            Ok(()) => return ExitCode::SUCCESS,
            // Whoever reads the output has enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return ExitCode::FAILURE,
            Err(error) => (error.into(), None, 1),
        },
        Err(Failure::Usage(error)) => (error, None, 2),
        Err(Failure::Library(error)) => (error, Some("graphlet operators -o operators.wasm"), 2),
        Err(Failure::Failed(error)) => (error, None, 1),
    };
    eprintln!("error: {error:#}");
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(code)
}

fn run(args: &Args) -> Result<String, Failure> {
    let usage = Failure::Usage;
    let text = match (&args.input, &args.input_data_file) {
        (Some(text), _) => text.clone(),
        (None, file) => {
            let path = file.clone().unwrap_or_default();
            let text = fs::read_to_string(&path);
            text.with_context(|| format!("cannot read {}", path.display())).map_err(usage)?
        }
    };
    let mut input = json::read(&text, args.data_type).map_err(|error| usage(error.into()))?;
    args.op_type.check(&input).map_err(usage)?;
    if let Some(axis) = input.axis {
        let scalar = Shape::new([]).map_err(|error| Failure::Failed(error.into()))?;
        let axis = Tensor::copy_of(scalar, &[axis]);
        input.tensors.push(axis.map_err(|error| Failure::Failed(error.into()))?);
    }
    let path = args.library.display();
    let module = fs::read(&args.library)
        .with_context(|| format!("cannot read the operator library {path}"))
        .map_err(Failure::Library)?;
    let mut library = OperatorLibrary::load(&module, &GraphOptions::default())
        .with_context(|| format!("{path} is no operator library"))
        .map_err(Failure::Library)?;
    let views: Vec<_> = input.tensors.iter().map(Tensor::view).collect();
    let result = library.run(args.op_type.operator(), &views).map_err(|error| match error {
        // What the library says about the tensors.
        GraphError::Refused { .. } => usage(error.into()),
        error => Failure::Failed(error.into()),
    })?;
    json::write(result.view()).map_err(|error| Failure::Failed(error.into()))
}
