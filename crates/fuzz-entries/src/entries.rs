//! The parsers, each with what must hold of what it accepts.

use std::{fmt::Debug, sync::OnceLock};

use claims::{Policy, Timestamp, VerifyError};
use image_input::{Limits, Options, Transform};
use model_spec::{Dimension, Draft, ModelSpec, OnnxFacts, ValueFacts, parse};
use serde::{Deserialize, Serialize};
use tensor::{ALIGNMENT, Tensor, descriptor_len, read_descriptor, write_descriptor};
use tvm_graph_rt::{Graph, GraphExecutor, NativeModule, load_param_dict};
use wire::{
    CapabilityConfiguration, HealthRequest, Request, RequestView, Response, WriteLog, decode,
    encode,
};

use crate::seeds;

// A picture of a megapixel shows every fault that a larger one shows, and sooner.
const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 20,
    max_side: 16_384,
    max_memory: 16 << 20,
    max_jpeg_scans: 20,
};

/// An image file: decoded whole and reduced on the way, and resized into a small tensor.
///
/// # Panics
/// When a picture is not as large as it says, the transform gives what is not finite, or a picture
/// that can be decoded whole cannot be reduced.
pub fn image(bytes: &[u8]) -> bool {
    static TRANSFORM: OnceLock<Transform> = OnceLock::new();
    let transform = TRANSFORM.get_or_init(|| {
        let options = Options { height: 8, width: 8, ..Options::default() };
        Transform::new(options).expect("the default with another size")
    });
    let reduced = image_input::decode_for(bytes, &LIMITS, &mut [], transform);
    let Ok(picture) = image_input::decode(bytes, &LIMITS) else { return false };
    let reduced = reduced.expect("what can be decoded whole can be reduced");
    let area = u64::from(picture.width()) * u64::from(picture.height());
    assert!(area <= LIMITS.max_pixels, "{area} pixels");
    assert_eq!(picture.pixels().len() as u64, area * picture.channels() as u64);
    for picture in [picture, reduced] {
        let mut tensor = vec![f32::NAN; transform.tensor_len()];
        transform.apply(&picture, &mut tensor).expect("the tensor has the transform's length");
        assert!(tensor.iter().all(|value| value.is_finite()), "an element was not written");
    }
    true
}

/// A module with claims: sections, token, signature and hash.
///
/// # Panics
/// When the same bytes are judged in two ways, or what the policy forbids is accepted.
pub fn module(bytes: &[u8]) -> bool {
    let _ = claims::custom_section(bytes, "graphlet.model");
    let now = Timestamp(seeds::SIGNED_AT + 100);
    let strict = Policy::at(now);
    assert!(claims::verify(bytes, &strict).is_err(), "nobody is trusted");
    let mut policy = Policy::at(now);
    policy.trusted_issuers.insert(seeds::issuer().public());
    let authentic = claims::authentic_claims(bytes);
    match claims::verify(bytes, &policy) {
        Ok(module) => {
            let claims = authentic.expect("a module that is accepted is authentic");
            assert_eq!(claims.issuer, seeds::issuer().public(), "one issuer is trusted");
            assert_eq!(module.bytes()[..], *bytes);
            true
        }
        Err(error) => {
            assert!(!error.code().is_empty());
            if matches!(error, VerifyError::Unsigned) {
                policy.dangerously_allow_unsigned = true;
                let module = claims::verify(bytes, &policy).expect("the flag lets it in");
                assert!(module.is_unsigned());
            }
            false
        }
    }
}

/// A `model.toml`, and what it says beside the facts of an ONNX file.
///
/// # Panics
/// When a file is accepted that breaks a rule, or that reads differently the second time.
pub fn model_toml(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let mut compared = Draft::read(text);
    compared.compare(&facts(), Some(10));
    let lines = text.split('\n').count();
    if let Err(mistakes) = compared.finish() {
        assert!(!mistakes.0.is_empty());
        assert!(mistakes.0.iter().all(|m| m.line.is_none_or(|line| (1..=lines).contains(&line))));
        assert!(mistakes.0.is_sorted_by_key(|m| m.line.unwrap_or(usize::MAX)));
    }
    let Ok(parsed) = parse(text) else { return false };
    parsed.spec.validate().expect("what is accepted keeps the rules");
    let json = serde_json::to_string(&parsed.spec).expect("a spec is JSON");
    let again: ModelSpec = serde_json::from_str(&json).expect("it was written by us");
    assert_eq!(again, parsed.spec, "{json}");
    true
}

/// A small classifier's ONNX file.
fn facts() -> OnnxFacts {
    let value = |name: &str, shape: &[i64], produced_by: &str| ValueFacts {
        name: name.to_owned(),
        dtype: "float32".to_owned(),
        shape: shape.iter().copied().map(Dimension::Fixed).collect(),
        produced_by: produced_by.to_owned(),
    };
    OnnxFacts {
        inputs: vec![value("image", &[1, 1, 32, 32], "")],
        outputs: vec![value("logits", &[1, 10], "Gemm")],
        opset: [(String::new(), 13)].into(),
        nodes: 1,
        operators: [("Gemm".to_owned(), 1)].into(),
        producer: String::new(),
    }
}

/// A graph description: what is accepted can be planned.
///
/// # Panics
/// When an accepted graph refers to what is not there.
pub fn graph_json(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(graph) = text.parse::<Graph>() else { return false };
    for node in graph.nodes() {
        assert!(!node.inputs().iter().any(|&entry| graph.shape(entry).extents().len() > 64));
    }
    assert!(graph.heads().iter().all(|&head| graph.shape(head).element_count() < usize::MAX));
    // Storage is allocated here: no more than a machine for tests has.
    if graph.activation_bytes() <= 64 << 20 {
        // No kernel is there, so that only a graph without calls becomes an executor.
        let _ = GraphExecutor::new(graph, &NativeModule::default());
    }
    true
}

/// A parameter file.
///
/// # Panics
/// When tensors hold more bytes than the file.
pub fn params(bytes: &[u8]) -> bool {
    let Ok(params) = load_param_dict(bytes) else { return false };
    let held: usize = params.values().map(|tensor| tensor.as_bytes().len()).sum();
    assert!(held <= bytes.len(), "{held} bytes out of {}", bytes.len());
    true
}

/// The descriptor of tensors in a module's memory.
///
/// # Panics
/// When what is accepted contradicts itself, or is written as other bytes than were read.
pub fn descriptor(bytes: &[u8]) -> bool {
    let Ok(tensors) = read_descriptor(bytes) else { return false };
    for tensor in &tensors {
        let takes = tensor.shape.byte_count(tensor.dtype).expect("its length was compared");
        assert_eq!(takes, tensor.byte_count as usize);
        assert_eq!(tensor.address as usize % ALIGNMENT, 0);
    }
    let ranks = tensors.iter().map(|tensor| tensor.shape.rank());
    assert_eq!(descriptor_len(ranks), bytes.len());
    assert_eq!(write_descriptor(&tensors).expect("it was read from one"), bytes);
    true
}

/// NumPy's array file, and an archive of such files.
///
/// # Panics
/// When an array holds more than the file, or is another one after writing and reading it again.
pub fn npy(bytes: &[u8]) -> bool {
    if let Ok(arrays) = npy::read_npz(bytes) {
        // Whatever the members are called, they are arrays.
        arrays.iter().for_each(|(_, array)| reads_again(array));
        return true;
    }
    let Ok(array) = npy::read_npy(bytes) else { return false };
    assert!(array.as_bytes().len() < bytes.len());
    reads_again(&array);
    true
}

fn reads_again(array: &Tensor<'_>) {
    let again = npy::read_npy(&npy::write_npy(array.view())).expect("it was written by us");
    assert_eq!((again.dtype(), again.shape()), (array.dtype(), array.shape()));
    assert_eq!(again.as_bytes(), array.as_bytes());
}

/// A MessagePack message, as each of the types that cross the sandbox.
///
/// # Panics
/// When a message that was read is another one after writing and reading it again.
pub fn messages(bytes: &[u8]) -> bool {
    let view = decode::<RequestView<'_>>(bytes).is_ok();
    let request = survives::<Request>(bytes);
    assert_eq!(view, request, "the view reads what the request reads");
    let others = [
        survives::<Response>(bytes),
        survives::<HealthRequest>(bytes),
        survives::<WriteLog>(bytes),
        survives::<CapabilityConfiguration>(bytes),
    ];
    request || others.contains(&true)
}

fn survives<T>(bytes: &[u8]) -> bool
where
    T: for<'a> Deserialize<'a> + Serialize + PartialEq + Debug,
{
    let Ok(message) = decode::<T>(bytes) else { return false };
    let written = encode(&message).expect("it is not larger than what was read");
    let again: T = decode(&written).expect("it was written by us");
    assert_eq!(again, message);
    true
}

/// The head of an HTTP request, at once and in two pieces.
///
/// # Panics
/// When a head that is accepted does not end where it says, or when the way it arrives in pieces
/// decides whether it is accepted.
pub fn http_head(bytes: &[u8]) -> bool {
    let limits = http_provider::Limits::default();
    let whole = http_provider::head_len(&[bytes], &limits);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let pieces = http_provider::head_len(&[first, second], &limits);
    match (&whole, &pieces) {
        (Ok(one), Ok(other)) => assert_eq!(one, other),
        (Err(_), Err(_)) => {}
        _ => panic!("at once {whole:?}, in pieces {pieces:?}"),
    }
    match whole {
        Ok(Some(length)) => {
            assert!(length <= limits.max_header_bytes, "{length} bytes");
            assert!(bytes[..length].ends_with(b"\r\n\r\n"));
            true
        }
        _ => false,
    }
}
