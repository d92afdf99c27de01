//! Inside the sandbox, on photographs and on noise, each model computes what onnxruntime
//! computes: its output, and the tensor that its softmax reads.
#![allow(clippy::unwrap_used, reason = "tests")]

use conformance::{
    Guest, Input, Model, Name, Output, compare, home, inputs, module, reference,
    reference_with_swapped_channels, with_stack,
};
use model_spec::SimdLevel;

/// Outputs of the sandbox, the inputs, and onnxruntime's outputs; `None` when the model is not
/// there.
struct Run {
    model: Model,
    inputs: Vec<Input>,
    ours: Vec<Vec<f32>>,
}

fn run(name: Name, output: Output, simd: SimdLevel) -> Option<Run> {
    let home = home().unwrap();
    let model = Model::open(&home, name, output).unwrap()?;
    let inputs = inputs(&home, &model).unwrap();
    let module = module(&home, &model, simd).unwrap();
    let ours = with_stack(|| {
        let mut guest = Guest::start(&home, &module.bytes, &model.spec).unwrap();
        inputs.iter().map(|input| guest.infer(&input.values).unwrap().raw).collect()
    });
    Some(Run { model, inputs, ours })
}

fn agrees_with_onnxruntime(name: Name, output: Output, simd: SimdLevel) {
    let Some(Run { model, inputs, ours }) = run(name, output, simd) else { return };
    let theirs = reference(&home().unwrap(), &model, &inputs).unwrap();
    let mut worst = 0.0_f32;
    for ((input, ours), theirs) in inputs.iter().zip(&ours).zip(&theirs) {
        let found = compare(ours, theirs);
        worst = worst.max(found.ratio);
        assert!(
            found.ratio <= 1.0,
            "{name:?} {output:?} {simd:?}, {}: {found:?} of {}",
            input.name,
            ours.len()
        );
    }
    println!(
        "measured: {name:?} {output:?} {}: largest difference {:.4} of what is allowed, {} inputs",
        simd.as_str(),
        worst,
        inputs.len()
    );
}

#[test]
fn digits_computes_what_onnxruntime_computes() {
    agrees_with_onnxruntime(Name::Digits, Output::Final, SimdLevel::Relaxed);
}

#[test]
fn digits_computes_the_same_without_relaxed_simd() {
    agrees_with_onnxruntime(Name::Digits, Output::Final, SimdLevel::Simd128);
}

#[test]
fn digits_computes_the_same_without_simd() {
    agrees_with_onnxruntime(Name::Digits, Output::Final, SimdLevel::None);
}

#[test]
fn mobilenet_v2_computes_what_onnxruntime_computes() {
    agrees_with_onnxruntime(Name::MobileNetV2, Output::Final, SimdLevel::Relaxed);
}

#[test]
fn mobilenet_v2_agrees_before_its_softmax() {
    agrees_with_onnxruntime(Name::MobileNetV2, Output::BeforeSoftmax, SimdLevel::Relaxed);
}

#[test]
fn squeezenet_computes_what_onnxruntime_computes() {
    agrees_with_onnxruntime(Name::SqueezeNet, Output::Final, SimdLevel::Relaxed);
}

#[test]
fn squeezenet_agrees_before_its_softmax() {
    agrees_with_onnxruntime(Name::SqueezeNet, Output::BeforeSoftmax, SimdLevel::Relaxed);
}

#[test]
fn resnet50_computes_what_onnxruntime_computes() {
    agrees_with_onnxruntime(Name::ResNet50, Output::Final, SimdLevel::Relaxed);
}

#[test]
fn resnet50_agrees_before_its_softmax() {
    agrees_with_onnxruntime(Name::ResNet50, Output::BeforeSoftmax, SimdLevel::Relaxed);
}

// The graph has 53 convolutions: the stem, a block's 1x1, 3x3 and 1x1, a shortcut, the last ones.
const SWAPPED: [usize; 6] = [0, 1, 2, 14, 30, 52];

#[test]
fn two_swapped_channels_of_a_convolution_do_not_pass_as_agreement() {
    let Some(Run { model, inputs, ours }) =
        run(Name::ResNet50, Output::BeforeSoftmax, SimdLevel::Relaxed)
    else {
        return;
    };
    for convolution in SWAPPED {
        let theirs =
            reference_with_swapped_channels(&home().unwrap(), &model, &inputs, convolution, [3, 4])
                .unwrap();
        for ((input, ours), theirs) in inputs.iter().zip(&ours).zip(&theirs) {
            let found = compare(ours, theirs);
            assert!(found.ratio > 1.0, "convolution {convolution}, {}: {found:?}", input.name);
        }
    }
}
