//! rten on a tensor from a file; one thread, weights packed ahead, which is its fast setting.

use std::{fs, sync::Arc};

use anyhow::{Context as _, Result};
use rten::{ModelOptions, RunOptions, ThreadPool};
use rten_tensor::{NdTensor, prelude::*};
use timing::Options;

fn main() -> Result<()> {
    let options = Options::from_args()?;
    let model = ModelOptions::with_all_ops()
        .prepack_weights(true)
        .load(fs::read(&options.model).context("cannot read the model")?)?;
    // Where there are no threads (WASI) the pool runs on the caller's.
    let pool = Arc::new(ThreadPool::with_num_threads(1));
    let shape: [usize; 4] =
        options.shape.as_slice().try_into().context("--shape has not four extents")?;
    let input = NdTensor::from_data(shape, options.input()?);
    timing::run(&options, || {
        let run_options = RunOptions::default().with_thread_pool(Some(Arc::clone(&pool)));
        let output = model.run_one(input.view().into(), Some(run_options))?;
        let tensor = output.into_tensor::<f32>().context("the output is not of 32-bit floats")?;
        Ok(tensor.to_vec())
    })
}
