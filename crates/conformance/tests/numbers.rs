//! Inside the sandbox, on photographs and on noise, each model computes what onnxruntime
//! computes: its output, and the tensor that its softmax reads.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use conformance::{
    Guest, Input, Model, Name, Output, compare, home, inputs, module, pictures, reference,
    reference_with_swapped_channels, with_stack,
};
use model_spec::SimdLevel;

/// A model, inputs, and the sandbox's outputs.
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
    eprintln!(
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

#[test]
fn mobilenet_v3_computes_what_onnxruntime_computes() {
    agrees_with_onnxruntime(Name::MobileNetV3, Output::Final, SimdLevel::Relaxed);
    agrees_with_onnxruntime(Name::MobileNetV3, Output::BeforeSoftmax, SimdLevel::Relaxed);
}

#[test]
fn efficientnet_lite_computes_what_onnxruntime_computes() {
    agrees_with_onnxruntime(Name::EfficientNetLite, Output::Final, SimdLevel::Relaxed);
    agrees_with_onnxruntime(Name::EfficientNetLite, Output::BeforeSoftmax, SimdLevel::Relaxed);
}

#[test]
fn efficientnet_b0_computes_what_onnxruntime_computes() {
    agrees_with_onnxruntime(Name::EfficientNetB0, Output::Final, SimdLevel::Relaxed);
    agrees_with_onnxruntime(Name::EfficientNetB0, Output::BeforeSoftmax, SimdLevel::Relaxed);
}

#[test]
fn a_vision_transformer_computes_what_onnxruntime_computes() {
    agrees_with_onnxruntime(Name::VisionTransformer, Output::Final, SimdLevel::Relaxed);
    agrees_with_onnxruntime(Name::VisionTransformer, Output::BeforeSoftmax, SimdLevel::Relaxed);
}

#[test]
fn a_vision_transformer_in_parts_computes_what_onnxruntime_computes() {
    agrees_with_onnxruntime(Name::VisionTransformerOfParts, Output::Final, SimdLevel::Relaxed);
}

#[test]
fn a_vision_transformer_with_tanh_computes_what_onnxruntime_computes() {
    let name = Name::VisionTransformerOfTanh;
    agrees_with_onnxruntime(name, Output::BeforeSoftmax, SimdLevel::Relaxed);
}

#[test]
fn a_vision_transformer_computes_the_same_without_simd() {
    agrees_with_onnxruntime(Name::VisionTransformer, Output::BeforeSoftmax, SimdLevel::None);
}

/// Pictures as files, decoded and resized inside the sandbox: the label that onnxruntime gives to
/// the tensor that was made natively.
fn pictures_get_onnxruntime_s_label(name: Name) {
    let home = home().unwrap();
    let Some(model) = Model::open(&home, name, Output::Final).unwrap() else { return };
    let mut inputs = inputs(&home, &model).unwrap();
    let pictures = pictures(&home, name).unwrap();
    inputs.truncate(pictures.len());
    if inputs.is_empty() {
        return;
    }
    let theirs = reference(&home, &model, &inputs).unwrap();
    let labels = fs::read_to_string(&model.labels).unwrap();
    let labels: Vec<&str> = labels.lines().collect();
    let module = module(&home, &model, SimdLevel::Relaxed).unwrap();
    with_stack(|| {
        let mut guest = Guest::start(&home, &module.bytes, &model.spec).unwrap();
        for ((file, bytes), theirs) in pictures.iter().zip(&theirs) {
            let answer = guest.infer_picture(bytes).unwrap();
            let best = (0..theirs.len()).max_by(|&a, &b| theirs[a].total_cmp(&theirs[b])).unwrap();
            assert_eq!(answer.label, labels[best], "{name:?}, {file}");
            let found = compare(&answer.raw, theirs);
            assert!(found.ratio <= 1.0, "{name:?}, {file}: {found:?}");
            let phases: Vec<String> = answer
                .phases
                .iter()
                .map(|(phase, time)| format!("{phase} {:.2} ms", time.as_secs_f64() * 1e3))
                .collect();
            eprintln!("measured: {name:?} {file}: {}; {}", answer.label, phases.join(", "));
        }
    });
}

#[test]
fn pictures_sent_to_digits_get_onnxruntime_s_label() {
    pictures_get_onnxruntime_s_label(Name::Digits);
}

#[test]
fn pictures_sent_to_mobilenet_v2_get_onnxruntime_s_label() {
    pictures_get_onnxruntime_s_label(Name::MobileNetV2);
}

#[test]
fn pictures_sent_to_squeezenet_get_onnxruntime_s_label() {
    pictures_get_onnxruntime_s_label(Name::SqueezeNet);
}

#[test]
fn pictures_sent_to_resnet50_get_onnxruntime_s_label() {
    pictures_get_onnxruntime_s_label(Name::ResNet50);
}

// The graph has 53 convolutions: the stem, a block's 1x1 and 3x3, a shortcut, deep ones, the last.
const SWAPPED: [usize; 8] = [0, 1, 2, 4, 19, 28, 36, 52];

#[test]
fn two_swapped_channels_of_a_convolution_do_not_pass_as_agreement() {
    let Some(Run { model, inputs, ours }) =
        run(Name::ResNet50, Output::BeforeSoftmax, SimdLevel::Relaxed)
    else {
        return;
    };
    for convolution in SWAPPED {
        let mut least = f32::INFINITY;
        let theirs =
            reference_with_swapped_channels(&home().unwrap(), &model, &inputs, convolution, [3, 4])
                .unwrap();
        for ((input, ours), theirs) in inputs.iter().zip(&ours).zip(&theirs) {
            let found = compare(ours, theirs);
            assert!(found.ratio > 1.0, "convolution {convolution}, {}: {found:?}", input.name);
            least = least.min(found.ratio);
        }
        eprintln!("measured: convolution {convolution} swapped: {least:.0} times what is allowed");
    }
}
