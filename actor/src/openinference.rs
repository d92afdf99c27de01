//! The Open Inference Protocol (KServe v2, Triton) over HTTP and JSON.
//!
//! A model takes one of two inputs: `image` (`image_bytes` where the graph's own input has that
//! name), BYTES, an image file in base64; or the graph's own tensor, FP32. It gives the graph's own output as it is, `scores` (probabilities, in the order
//! of the labels) and `label` (the best one). Binary tensors, classification and batches are
//! extensions that answer `not_yet`.

use std::borrow::Cow;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{json, value::RawValue};
use wire::{RequestView, Response};

use crate::{
    answer::{self, Problem},
    model::{Mark, Model, Scores, rank},
    tensor_data,
};

const IMAGE: &str = "image";
const IMAGE_BYTES: &str = "image_bytes";
const SCORES: &str = "scores";
const LABEL: &str = "label";

// An id is echoed; a UUID has 36 characters.
const MAX_ID_BYTES: usize = 256;

// Clients differ on padding; both forms mean the same bytes.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `GET /v2`
#[must_use]
pub fn server_metadata() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    answer::json(200, &json!({"name": "graphlet", "version": version, "extensions": []}))
}

/// `GET /v2/health/live`
#[must_use]
pub fn server_live() -> Response {
    answer::json(200, &json!({"live": true}))
}

/// `GET /v2/health/ready`: a request is answered only by an actor whose model is loaded.
#[must_use]
pub fn server_ready() -> Response {
    // The specification's table says `live` here and its prose `ready`: say both.
    answer::json(200, &json!({"live": true, "ready": true}))
}

/// `GET /v2/models/MODEL/ready`
#[must_use]
pub fn model_ready(model: &dyn Model) -> Response {
    answer::json(200, &json!({"name": model.spec().model.name, "ready": true}))
}

/// `GET /v2/models/MODEL`
#[must_use]
pub fn model_metadata(model: &dyn Model) -> Response {
    let spec = model.spec();
    let classes = model.labels().len();
    answer::json(
        200,
        &json!({
            "name": spec.model.name,
            "versions": [spec.model.version],
            "platform": "graphlet_tvm",
            "inputs": [
                {"name": image_name(model), "datatype": "BYTES", "shape": [1]},
                {"name": tensor_name(model), "datatype": "FP32", "shape": spec.input.shape},
            ],
            "outputs": [
                {"name": raw_name(model), "datatype": "FP32", "shape": [1, classes]},
                {"name": SCORES, "datatype": "FP32", "shape": [1, classes]},
                {"name": LABEL, "datatype": "BYTES", "shape": [1]},
            ],
            "parameters": {"inputs": "send one of the two"},
        }),
    )
}

/// `POST /v2/models/MODEL/infer`
///
/// # Errors
/// [`Problem::BadJson`], [`Problem::BadTensor`], [`Problem::NotYet`] for extensions, or a problem
/// with the image or the model.
pub fn infer(
    model: &mut dyn Model,
    request: &RequestView<'_>,
    mark: Mark<'_>,
) -> Result<Response, Problem> {
    if request.header.contains_key("inference-header-content-length") {
        return Err(Problem::NotYet("the binary tensor extension"));
    }
    let request: InferRequest<'_> = serde_json::from_slice(&request.body)
        .map_err(|error| Problem::BadJson(error.to_string()))?;
    let wanted = request.check(model)?;
    let scores = match read_input(model, &request.inputs)? {
        InputValue::Image(bytes) => model.score_image(&bytes, mark)?,
        InputValue::Tensor(values) => {
            let scores = model.score_tensor(&values, mark)?;
            let numbers = scores.raw.iter().chain(&scores.probabilities);
            if numbers.copied().any(|number| !number.is_finite()) {
                return Err(Problem::NotFinite);
            }
            scores
        }
    };
    let outputs = wanted
        .into_iter()
        .map(|wanted| output(model, &scores, wanted))
        .collect::<Result<_, _>>()?;
    let served = &model.spec().model;
    Ok(answer::json(
        200,
        &InferResponse {
            model_name: &served.name,
            model_version: &served.version,
            id: request.id,
            outputs,
        },
    ))
}

fn tensor_name(model: &dyn Model) -> &str {
    match model.spec().input.name.as_str() {
        "" => "input",
        name => name,
    }
}

fn image_name(model: &dyn Model) -> &'static str {
    if tensor_name(model) == IMAGE { IMAGE_BYTES } else { IMAGE }
}

/// The graph's own name for its output, unless ours would hide it.
fn raw_name(model: &dyn Model) -> &str {
    match model.spec().output.name.as_str() {
        "" => "output",
        SCORES | LABEL => "raw_output",
        name => name,
    }
}

#[derive(Deserialize)]
struct InferRequest<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    inputs: Vec<InputTensor<'a>>,
    #[serde(borrow, default)]
    outputs: Vec<WantedOutput<'a>>,
}

#[derive(Deserialize)]
struct InputTensor<'a> {
    #[serde(borrow, deserialize_with = "tensor_data::text")]
    name: Cow<'a, str>,
    #[serde(deserialize_with = "tensor_data::shape")]
    shape: Vec<i64>,
    #[serde(borrow, deserialize_with = "tensor_data::text")]
    datatype: Cow<'a, str>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WantedOutput<'a> {
    #[serde(borrow, deserialize_with = "tensor_data::text")]
    name: Cow<'a, str>,
    #[serde(default)]
    parameters: Parameters,
}

/// The parameters of the extensions we know of; others may be ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    binary_data: bool,
    binary_data_output: bool,
    binary_data_size: Option<IgnoredAny>,
    classification: Option<IgnoredAny>,
    shared_memory_region: Option<IgnoredAny>,
}

impl Parameters {
    fn check(&self) -> Result<(), Problem> {
        if self.binary_data || self.binary_data_output || self.binary_data_size.is_some() {
            return Err(Problem::NotYet("the binary tensor extension"));
        }
        if self.classification.is_some() {
            return Err(Problem::NotYet("the classification extension"));
        }
        if self.shared_memory_region.is_some() {
            return Err(Problem::NotYet("the shared memory extension"));
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Wanted {
    Raw,
    Scores,
    Label,
}

impl InferRequest<'_> {
    /// Looks at everything but the data, and tells the outputs to give.
    fn check(&self, model: &dyn Model) -> Result<Vec<Wanted>, Problem> {
        if self.id.as_ref().is_some_and(|id| id.len() > MAX_ID_BYTES) {
            return Err(Problem::BadJson(format!("`id` is longer than {MAX_ID_BYTES} bytes")));
        }
        self.parameters.check()?;
        self.inputs.iter().try_for_each(|input| input.parameters.check())?;
        if self.outputs.is_empty() {
            return Ok(vec![Wanted::Raw, Wanted::Scores, Wanted::Label]);
        }
        let raw_name = raw_name(model);
        let mut wanted: Vec<Wanted> = Vec::new();
        for (at, output) in self.outputs.iter().enumerate() {
            output.parameters.check()?;
            if self.outputs[..at].iter().any(|earlier| earlier.name == output.name) {
                return Err(Problem::BadTensor("an output is asked for twice".into()));
            }
            wanted.push(match output.name.as_ref() {
                SCORES => Wanted::Scores,
                LABEL => Wanted::Label,
                name if name == raw_name => Wanted::Raw,
                _ => {
                    return Err(Problem::BadTensor(format!(
                        "no such output; the model gives `{raw_name}`, `{SCORES}` and `{LABEL}`"
                    )));
                }
            });
        }
        Ok(wanted)
    }
}

enum InputValue {
    Image(Vec<u8>),
    Tensor(Vec<f32>),
}

fn read_input(model: &dyn Model, inputs: &[InputTensor<'_>]) -> Result<InputValue, Problem> {
    let (image_name, tensor_name) = (image_name(model), tensor_name(model));
    let takes = format!("the model takes `{image_name}` (BYTES) or `{tensor_name}` (FP32)");
    let [input] = inputs else {
        return Err(Problem::BadTensor(format!("one input is needed; {takes}")));
    };
    // The datatype tells the two apart, so either may go by any of the names.
    if ![IMAGE, IMAGE_BYTES, tensor_name].contains(&input.name.as_ref()) {
        return Err(Problem::BadTensor(format!("no such input; {takes}")));
    }
    let data = input.data.ok_or_else(|| Problem::BadTensor("the input has no data".into()))?.get();
    match input.datatype.as_ref() {
        "BYTES" => image(&input.shape, data).map(InputValue::Image),
        "FP32" => tensor(model, &input.shape, data).map(InputValue::Tensor),
        _ => Err(Problem::BadTensor(format!("no such datatype; {takes}"))),
    }
}

/// An image file from base64, with or without the head of a data URL.
fn image(shape: &[i64], data: &str) -> Result<Vec<u8>, Problem> {
    let ones = shape.iter().skip(1).all(|&extent| extent == 1);
    match shape {
        [1, ..] | [] if ones => {}
        [batch, ..] if ones && *batch > 1 => return Err(Problem::NotYet("a batch of images")),
        _ => return Err(Problem::BadTensor("the shape of an image in BYTES is [1]".into())),
    }
    let texts: Vec<Cow<'_, str>> =
        tensor_data::flat(data, 1).map_err(|error| Problem::BadTensor(format!("data: {error}")))?;
    let [text] = &texts[..] else {
        return Err(Problem::BadTensor("the data holds no image".into()));
    };
    let base64 = match text.strip_prefix("data:") {
        Some(url) => url.split_once(";base64,").map_or("", |(_, base64)| base64),
        None => text,
    };
    match BASE64.decode(base64) {
        Ok(bytes) if bytes.is_empty() => Err(Problem::NoImage("the data holds an empty image")),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(Problem::BadTensor("the image is not valid base64".into())),
    }
}

fn tensor(model: &dyn Model, shape: &[i64], data: &str) -> Result<Vec<f32>, Problem> {
    let expected = &model.spec().input.shape;
    let same = |sent: &[i64], ours: &[usize]| {
        sent.len() == ours.len()
            && sent.iter().zip(ours).all(|(&sent, &ours)| usize::try_from(sent) == Ok(ours))
    };
    if !same(shape, expected) {
        if let ([batch, sent @ ..], [_, ours @ ..]) = (shape, &expected[..])
            && *batch > 1
            && same(sent, ours)
        {
            return Err(Problem::NotYet("another batch size"));
        }
        return Err(Problem::BadTensor(format!("the shape is not {expected:?}")));
    }
    let count = expected.iter().product();
    let values: Vec<f32> = tensor_data::flat(data, count)
        .map_err(|error| Problem::BadTensor(format!("data: {error}")))?;
    if values.len() != count {
        let found = values.len();
        return Err(Problem::BadTensor(format!(
            "the shape needs {count} elements, data has {found}"
        )));
    }
    Ok(values)
}

#[derive(Serialize)]
struct InferResponse<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    outputs: Vec<OutputTensor<'a>>,
}

#[derive(Serialize)]
struct OutputTensor<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<usize>,
    data: OutputData<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OutputData<'a> {
    Fp32(&'a [f32]),
    Bytes([&'static str; 1]),
}

fn output<'a>(
    model: &'a dyn Model,
    scores: &'a Scores,
    wanted: Wanted,
) -> Result<OutputTensor<'a>, Problem> {
    let fp32 = |name, data: &'a [f32]| OutputTensor {
        name,
        datatype: "FP32",
        shape: vec![1, data.len()],
        data: OutputData::Fp32(data),
    };
    Ok(match wanted {
        Wanted::Raw => fp32(raw_name(model), &scores.raw),
        Wanted::Scores => fp32(SCORES, &scores.probabilities),
        Wanted::Label => OutputTensor {
            name: LABEL,
            datatype: "BYTES",
            shape: vec![1],
            data: OutputData::Bytes([rank(model, scores, 1)?[0].label]),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fake::{Fake, body, request};

    const INFER: &str = "/v2/models/fake-1/infer";

    fn infer(sent: &str) -> Response {
        Fake::new().send(&request("POST", INFER, &[], sent.as_bytes()))
    }

    fn image_request(text: &str) -> String {
        json!({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]})
            .to_string()
    }

    #[test]
    fn health_and_metadata_are_as_the_protocol_says() {
        for (path, expected) in [
            ("/v2/health/live", json!({"live": true})),
            ("/v2/health/ready", json!({"live": true, "ready": true})),
            ("/v2/models/fake-1/ready", json!({"name": "fake-1", "ready": true})),
        ] {
            let response = Fake::new().send(&request("GET", path, &[], b""));
            assert_eq!((response.status_code, body(&response)), (200, expected), "{path}");
        }
        let server = body(&Fake::new().send(&request("GET", "/v2", &[], b"")));
        assert_eq!(server["name"], "graphlet");
        assert!(server["version"].is_string() && server["extensions"].is_array());

        let model = body(&Fake::new().send(&request("GET", "/v2/models/fake-1", &[], b"")));
        assert_eq!(model["name"], "fake-1");
        assert_eq!(model["versions"], json!(["1.2"]));
        assert!(model["platform"].is_string());
        assert_eq!(
            model["inputs"],
            json!([
                {"name": "image", "datatype": "BYTES", "shape": [1]},
                {"name": "pixels", "datatype": "FP32", "shape": [1, 1, 2, 2]},
            ])
        );
        assert_eq!(
            model["outputs"],
            json!([
                {"name": "logits", "datatype": "FP32", "shape": [1, 4]},
                {"name": "scores", "datatype": "FP32", "shape": [1, 4]},
                {"name": "label", "datatype": "BYTES", "shape": [1]},
            ])
        );
    }

    #[test]
    fn an_image_in_base64_gets_all_outputs() {
        for text in ["Y2F0", "data:image/png;base64,Y2F0"] {
            let response = infer(&image_request(text));
            assert_eq!(
                body(&response),
                json!({
                    "model_name": "fake-1", "model_version": "1.2",
                    "outputs": [
                        {"name": "logits", "datatype": "FP32", "shape": [1, 4], "data": [7.5, 1.25, 0.625, 0.625]},
                        {"name": "scores", "datatype": "FP32", "shape": [1, 4], "data": [0.75, 0.125, 0.0625, 0.0625]},
                        {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["cat"]},
                    ],
                })
            );
        }
    }

    #[test]
    fn the_image_has_a_name_of_its_own() {
        let mut model = Fake::new();
        model.spec.input.name = "image".into();
        let metadata = body(&model.send(&request("GET", "/v2/models/fake-1", &[], b"")));
        assert_eq!(metadata["inputs"][0]["name"], "image_bytes");
        assert_eq!(metadata["inputs"][1]["name"], "image");
        for name in ["image", "image_bytes"] {
            let sent = image_request("Y2F0").replace("\"image\"", &format!("\"{name}\""));
            let response = model.send(&request("POST", INFER, &[], sent.as_bytes()));
            assert_eq!(body(&response)["outputs"][2]["data"], json!(["cat"]), "{name}");
        }
    }

    #[test]
    fn base64_may_lack_its_padding() {
        for text in [r#"["ZmFpbA=="]"#, r#"["ZmFpbA"]"#] {
            assert_eq!(image(&[1], text).unwrap(), b"fail");
        }
    }

    #[test]
    fn a_tensor_reaches_the_model_as_it_is_and_the_id_comes_back() {
        for data in [json!([1, 2.5, -3, 4]), json!([[[[1, 2.5], [-3, 4]]]])] {
            let mut model = Fake::new();
            let sent = json!({
                "id": "a\"b", "parameters": {"mine": {"deep": [1]}, "binary_data_output": false},
                "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1, 1, 2, 2],
                            "parameters": {"x": 1}, "data": data}],
                "outputs": [{"name": "label"}, {"name": "logits", "parameters": {"binary_data": false}}],
            });
            let response = model.send(&request("PUT", INFER, &[], sent.to_string().as_bytes()));
            assert_eq!(model.tensors, [[1.0, 2.5, -3.0, 4.0]]);
            assert_eq!(
                body(&response),
                json!({
                    "model_name": "fake-1", "model_version": "1.2", "id": "a\"b",
                    "outputs": [
                        {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["crane"]},
                        {"name": "logits", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.5]},
                    ],
                })
            );
        }
    }

    #[test]
    fn extensions_are_not_there_yet() {
        let tensor = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut sent = json!({
                "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1, 1, 2, 2], "data": [1, 2, 3, 4]}],
                "outputs": [{"name": "scores"}],
            });
            change(&mut sent);
            sent.to_string()
        };
        let cases = [
            tensor(&|sent| sent["outputs"][0]["parameters"] = json!({"classification": 3})),
            tensor(&|sent| sent["outputs"][0]["parameters"] = json!({"binary_data": true})),
            tensor(&|sent| sent["parameters"] = json!({"binary_data_output": true})),
            tensor(&|sent| sent["inputs"][0]["parameters"] = json!({"binary_data_size": 16})),
            tensor(&|sent| sent["inputs"][0]["parameters"] = json!({"shared_memory_region": "r"})),
            tensor(&|sent| {
                sent["inputs"][0]["shape"] = json!([2, 1, 2, 2]);
                sent["inputs"][0]["data"] = json!([1, 2, 3, 4, 5, 6, 7, 8]);
            }),
            json!({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": ["Y2F0", "Y2F0"]}]})
                .to_string(),
        ];
        for sent in cases {
            let response = infer(&sent);
            assert_eq!(response.status_code, 501, "{sent}");
            assert_eq!(body(&response)["code"], "not_yet", "{sent}");
        }
        let header = [("inference-header-content-length", "10")];
        let binary = Fake::new().send(&request("POST", INFER, &header, b"{}"));
        assert_eq!((binary.status_code, &body(&binary)["code"]), (501, &json!("not_yet")));
    }

    #[test]
    fn what_is_wrong_with_a_request_has_a_code() {
        let input = |name: &str, datatype: &str, shape: &str, data: &str| {
            format!(
                r#"{{"inputs": [{{"name": "{name}", "datatype": "{datatype}", "shape": {shape}, "data": {data}}}]}}"#
            )
        };
        let cases = [
            (String::new(), 400, "bad_json"),
            ("[1]".into(), 400, "bad_json"),
            ("{}".into(), 400, "bad_json"),
            (r#"{"inputs": [{}]}"#.into(), 400, "bad_json"),
            (r#"{"inputs": 1}"#.into(), 400, "bad_json"),
            ("\u{0}\u{ff}".into(), 400, "bad_json"),
            (format!(r#"{{"id": "{}", "inputs": []}}"#, "x".repeat(300)), 400, "bad_json"),
            (format!(r#"{{"inputs": {}"#, "[".repeat(200_000)), 400, "bad_json"),
            (input("image", "BYTES", "[1,1,1,1,1,1,1,1,1]", "[]"), 400, "bad_json"),
            (r#"{"inputs": []}"#.into(), 400, "bad_tensor"),
            (
                r#"{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]}"#.into(),
                400,
                "bad_tensor",
            ),
            (input("other", "FP32", "[1,1,2,2]", "[1,2,3,4]"), 400, "bad_tensor"),
            (input("pixels", "FP16", "[1,1,2,2]", "[1,2,3,4]"), 400, "bad_tensor"),
            (input("pixels", "FP32", "[1,2,2]", "[1,2,3,4]"), 400, "bad_tensor"),
            (input("pixels", "FP32", "[1,1,2,-2]", "[1,2,3,4]"), 400, "bad_tensor"),
            (input("pixels", "FP32", "[0,1,2,2]", "[]"), 400, "bad_tensor"),
            (input("pixels", "FP32", "[1,1,2,2]", "[1,2,3]"), 400, "bad_tensor"),
            (input("pixels", "FP32", "[1,1,2,2]", "[1,2,3,4,5]"), 400, "bad_tensor"),
            (input("pixels", "FP32", "[1,1,2,2]", "[1,2,3,1e39]"), 400, "bad_tensor"),
            (input("pixels", "FP32", "[1,1,2,2]", r#"[1,2,3,"4"]"#), 400, "bad_tensor"),
            (input("pixels", "FP32", "[1,1,2,2]", "[3e38,3e38,0,0]"), 422, "not_finite"),
            (input("image", "BYTES", "[1]", "[1]"), 400, "bad_tensor"),
            (input("image", "BYTES", "[1]", "[]"), 400, "bad_tensor"),
            (input("image", "BYTES", "[0]", "[]"), 400, "bad_tensor"),
            (input("image", "BYTES", "[3,2]", r#"["Y2F0"]"#), 400, "bad_tensor"),
            (input("image", "BYTES", "[1]", r#"["@@@@"]"#), 400, "bad_tensor"),
            (input("image", "BYTES", "[1]", r#"[""]"#), 400, "no_image"),
            (input("image", "BYTES", "[1]", r#"["data:image/png,x"]"#), 400, "no_image"),
            (input("image", "BYTES", "[1]", r#"["AAAA"]"#), 415, "not_an_image"),
        ];
        for (sent, status, code) in cases {
            let response = infer(&sent);
            let shown = &sent[..sent.len().min(120)];
            assert_eq!(response.status_code, status, "{shown}");
            assert_eq!(body(&response)["code"], code, "{shown}");
        }
        for outputs in [r#"[{"name": "nothing"}]"#, r#"[{"name": "label"}, {"name": "label"}]"#] {
            let sent =
                image_request("Y2F0").replacen('{', &format!(r#"{{"outputs": {outputs}, "#), 1);
            assert_eq!(body(&infer(&sent))["code"], "bad_tensor", "{sent}");
        }
    }
}
