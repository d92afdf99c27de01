//! A compiled case: linked, run in the sandbox, compared.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use builder::{Home, Silent, SimdLevel, link_tensors};
use wasm_runtime::{DType, Engine, GraphExecutor, GraphOptions, Shape, Tensor, TensorView};

use super::{
    Outcome,
    agree::{Tolerance, agree, tolerance},
    worker::{Compiled, TensorData},
};

/// Runs one case after another.
pub(super) struct Sandbox<'a> {
    home: &'a Home,
    executor: GraphExecutor,
}

impl<'a> Sandbox<'a> {
    pub fn new(home: &'a Home, engine: Engine) -> Self {
        Sandbox { home, executor: GraphExecutor::with_engine(engine, &GraphOptions::default()) }
    }

    /// Links and runs what the compiler left in `folder`.
    pub fn run(&mut self, case: &str, folder: &Path, compiled: &Compiled) -> Outcome {
        match self.try_run(case, folder, compiled) {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Broken(format!("{error:#}")),
        }
    }

    fn try_run(&mut self, case: &str, folder: &Path, compiled: &Compiled) -> Result<Outcome> {
        let report = serde_json::from_slice(&read(&folder.join("report.json"))?)?;
        let simd = SimdLevel::Relaxed;
        let built = link_tensors(self.home, (case, ""), simd, folder, report, &mut Silent)?;
        if let Some(wrong) =
            run_module(&mut self.executor, &built.module, folder, compiled, |_| tolerance(case))?
        {
            return Ok(Outcome::Wrong(wrong));
        }
        Ok(Outcome::Passed { module_bytes: built.module.len() })
    }
}

/// Runs a module on the inputs in `folder`; what of the outputs there it does not give, if
/// anything. `tolerance` is asked for each output, with what it has to be.
pub(crate) fn run_module(
    executor: &mut GraphExecutor,
    module: &[u8],
    folder: &Path,
    data: &Compiled,
    tolerance: impl Fn(&TensorView<'_>) -> Tolerance,
) -> Result<Option<String>> {
    let description = executor.instantiate(module)?;
    ensure!(
        description.outputs.len() == data.outputs.len(),
        "the module gives {} outputs, not {}",
        description.outputs.len(),
        data.outputs.len()
    );
    // An input that nothing depends on is none of the module's.
    let wanted: Vec<String> = description.inputs.iter().map(|i| i.name.clone()).collect();
    for (index, input) in data.inputs.iter().enumerate() {
        if wanted.contains(&input.name) {
            let bytes = read(&folder.join(format!("input_{index}.bin")))?;
            let (dtype, shape) = input.read()?;
            executor.set_input(&input.name, TensorView::new(dtype, &shape, &bytes)?)?;
        }
    }
    executor.run()?;
    for (index, expected) in data.outputs.iter().enumerate() {
        let bytes = read(&folder.join(format!("output_{index}.bin")))?;
        let (dtype, shape) = expected.read()?;
        let theirs = TensorView::new(dtype, &shape, &bytes)?;
        let ours = executor.get_output(index)?;
        if let Some(wrong) = difference(&ours, theirs, tolerance(&theirs))? {
            return Ok(Some(format!("output {index}: {wrong}")));
        }
    }
    Ok(None)
}

impl TensorData {
    fn read(&self) -> Result<(DType, Shape)> {
        Ok((self.dtype.parse()?, Shape::new(self.shape.clone())?))
    }
}

fn difference(
    ours: &Tensor<'_>,
    theirs: TensorView<'_>,
    tolerance: Tolerance,
) -> Result<Option<String>> {
    if (ours.dtype(), ours.shape()) != (theirs.dtype(), theirs.shape()) {
        let (kind, extents) = (ours.dtype(), ours.shape());
        let (wanted, shape) = (theirs.dtype(), theirs.shape());
        return Ok(Some(format!("{kind} {extents} where {wanted} {shape} belongs")));
    }
    let found = agree(ours.view(), theirs, tolerance)?;
    Ok(found.map(|difference| difference.to_string()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
