//! scratch
#![allow(clippy::unwrap_used, missing_docs)]
use conformance::*;
use model_spec::SimdLevel;
fn main() {
    let home = home().unwrap();
    let out = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let model = Model::open(&home, Name::MobileNetV2, Output::BeforeSoftmax).unwrap().unwrap();
    let module = module(&home, &model, SimdLevel::Relaxed).unwrap();
    let inputs = inputs(&home, &model).unwrap();
    with_stack(|| {
        let mut guest = Guest::start(&home, &module.bytes, &model.spec).unwrap();
        for (i, input) in inputs.iter().enumerate() {
            let raw = guest.infer(&input.values).unwrap().raw;
            let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
            std::fs::write(out.join(format!("{i:04}.in")), bytes(&input.values)).unwrap();
            std::fs::write(out.join(format!("{i:04}.out")), bytes(&raw)).unwrap();
        }
    });
}
