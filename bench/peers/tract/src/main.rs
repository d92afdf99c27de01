//! tract on a tensor from a file; one thread, which is its default.

use std::{fs::File, io::BufReader};

use anyhow::{Context as _, Result};
use timing::Options;
use tract_onnx::prelude::*;

fn main() -> Result<()> {
    let options = Options::from_args()?;
    // Not by its path: WASI's C library in Debian cannot resolve one.
    let file = File::open(&options.model).context("cannot read the model")?;
    let fact = f32::fact(&options.shape);
    let model = tract_onnx::onnx()
        .model_for_read(&mut BufReader::new(file))?
        .with_input_fact(0, fact.into())?
        .into_optimized()?
        .into_runnable()?;
    let input = Tensor::from_shape(&options.shape, &options.input()?)?.into_tvalue();
    timing::run(&options, || {
        let outputs = model.run(tvec!(input.clone()))?;
        let output = outputs.first().context("the model has no output")?;
        let plain = output.try_as_plain_ram()?;
        Ok(plain.as_slice::<f32>()?.to_vec())
    })
}
