//! What the corpora begin with: sound inputs of every kind, and those that were faults once. All
//! of it follows from this repository; `examples/write_corpora.rs` writes it to `fuzz/corpus`.

use std::collections::BTreeMap;

use claims::{ActorKey, IssuerKeyPair, Statement, Timestamp, sign};
use serde::Serialize;
use tensor::{DType, Shape, Tensor, TensorPlace, write_descriptor};
use wire::{CapabilityConfiguration, HealthRequest, Request, Response, WriteLog};
use zeroize::Zeroizing;

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// Its file in the corpus.
    pub name: &'static str,
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Whether the parser accepts it.
    pub sound: bool,
}

/// When the modules of the corpus were signed.
pub(crate) const SIGNED_AT: u64 = 1_700_000_000;

fn sound(name: &'static str, bytes: impl Into<Vec<u8>>) -> Seed {
    Seed { name, bytes: bytes.into(), sound: true }
}

fn unsound(name: &'static str, bytes: impl Into<Vec<u8>>) -> Seed {
    Seed { name, bytes: bytes.into(), sound: false }
}

/// The seeds of a target.
pub fn seeds(target: &str) -> Vec<Seed> {
    match target {
        "descriptor" => descriptors(),
        "graph_json" => graphs(),
        "http_head" => heads(),
        "image" => images(),
        "messages" => messages(),
        "model_toml" => specs(),
        "module" => modules(),
        "npy" => arrays(),
        "params" => params(),
        _ => Vec::new(),
    }
}

fn place(dtype: DType, extents: &[usize], address: u32) -> TensorPlace {
    let shape = Shape::new(extents).expect("a small shape");
    TensorPlace::new(dtype, shape, address).expect("a small tensor")
}

fn descriptors() -> Vec<Seed> {
    let descriptor = |tensors: &[TensorPlace]| write_descriptor(tensors).expect("few tensors");
    let two = [place(DType::FLOAT32, &[1, 3, 4], 1024), place(DType::BOOL, &[], 64)];
    let good = descriptor(&two);
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    vec![
        sound("none", descriptor(&[])),
        sound("two", good.clone()),
        sound("empty_tensor", descriptor(&[place(DType::INT8, &[0, 7], 0)])),
        unsound("cut", &good[..good.len() - 1]),
        unsound("more", [&good[..], b"x"].concat()),
        unsound("many", changed(6, &[0xff, 0xff])),
        unsound("deep", changed(12, &[0xff; 4])),
        unsound("huge", changed(24, &[0xff; 8])),
        unsound("odd_address", changed(16, &[1])),
    ]
}

fn arrays() -> Vec<Seed> {
    let array = |dtype: DType, extents: &[usize]| {
        let shape = Shape::new(extents).expect("a small shape");
        Tensor::zeros(dtype, shape).expect("a small tensor")
    };
    let (matrix, scalar) = (array(DType::FLOAT32, &[2, 3]), array(DType::INT64, &[]));
    let good = npy::write_npy(matrix.view());
    let header = |text: &str, data: &[u8]| {
        let len = (text.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00", &len[..], text.as_bytes(), data].concat()
    };
    let archive = npy::write_npz(&[("a", matrix.view()), ("b/c", scalar.view())]);
    vec![
        sound("matrix.npy", good.clone()),
        sound("scalar.npy", npy::write_npy(scalar.view())),
        sound("bfloat16.npy", npy::write_npy(array(DType::BFLOAT16, &[3]).view())),
        sound(
            "fortran.npy",
            header("{'descr': '>i2', 'fortran_order': True, 'shape': (2, 2), }", &[0; 8]),
        ),
        sound("two.npz", archive.expect("two names")),
        unsound("cut.npy", &good[..good.len() - 1]),
        unsound(
            "huge.npy",
            header(
                "{'descr': '<f8', 'fortran_order': True, 'shape': (9223372036854775807,), }",
                b"",
            ),
        ),
        unsound(
            "object.npy",
            header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", &[0; 8]),
        ),
        unsound("empty.npz", *b"PK\x05\x06"),
    ]
}

macro_rules! picture {
    ($name:literal) => {
        sound($name, &include_bytes!(concat!("../../image-input/testdata/", $name))[..])
    };
}

fn images() -> Vec<Seed> {
    vec![
        picture!("bmp_1_bit.bmp"),
        picture!("bmp_palette.bmp"),
        picture!("exif_6.jpg"),
        picture!("gif_frame_inside.gif"),
        picture!("gif_interlaced.gif"),
        picture!("gif_transparent.gif"),
        picture!("jpeg_420_progressive.jpg"),
        picture!("jpeg_420_restart.jpg"),
        picture!("jpeg_cmyk.jpg"),
        picture!("jpeg_grey.jpg"),
        picture!("one_pixel.bmp"),
        picture!("one_pixel.gif"),
        picture!("one_pixel.jpg"),
        picture!("one_pixel.png"),
        picture!("one_pixel.webp"),
        picture!("png_animated.png"),
        picture!("png_exif_6.png"),
        picture!("png_grey_alpha.png"),
        picture!("png_palette_transparent.png"),
        unsound("empty", *b""),
        unsound("riff_too_short", *b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\x7f"),
    ]
}

/// A core module by hand: an exported function, a memory, a data segment.
const MODULE: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x05\x01\x60\0\x01\x7f\
    \x03\x02\x01\0\
    \x05\x03\x01\0\x01\
    \x07\x07\x01\x03run\0\0\
    \x0a\x0b\x01\x09\0\x41\x80\x08\x28\x02\0\x0f\x0b\
    \x0b\x0c\x01\0\x41\x80\x08\x0b\x05DATA!\
    \0\x0a\x04notekeep.";

pub(crate) fn issuer() -> IssuerKeyPair {
    // A seed that everybody can read signs nothing that anybody trusts.
    let seed = claims::Seed::issuer(Zeroizing::new([1; 32]));
    IssuerKeyPair::from_seed(&seed).expect("any 32 bytes are a seed")
}

fn actor() -> ActorKey {
    claims::Seed::actor(Zeroizing::new([8; 32])).actor_key().expect("an actor's seed")
}

fn signed(issued_at: u64) -> Vec<u8> {
    let statement = Statement {
        subject: actor(),
        name: "digits".into(),
        version: Some("1.2.3".into()),
        revision: Some(3),
        tags: vec!["tag".into()],
        capabilities: vec![claims::HTTP_SERVER.into(), claims::LOGGING.into()],
        issued_at: Timestamp(issued_at),
        valid_for: Some(std::time::Duration::from_secs(1000)),
        not_before: None,
    };
    sign(MODULE, &issuer(), &statement).expect("a small sound module")
}

fn modules() -> Vec<Seed> {
    let good = signed(SIGNED_AT);
    let mut altered = good.clone();
    altered[60] ^= 1;
    let cut = good[..good.len() - 1].to_vec();
    let last = good.len() - 90;
    let twice = [&good[..], &good[last..]].concat();
    vec![
        sound("signed", good),
        unsound("expired", signed(SIGNED_AT - 100_000)),
        unsound("unsigned", MODULE),
        unsound("altered", altered),
        unsound("cut", cut),
        unsound("trailing", twice),
        unsound("component", *b"\0asm\x0d\0\x01\0"),
        unsound("endless_leb", *b"\0asm\x01\0\0\0\0\xff\xff\xff\xff\xff\xff"),
        unsound("empty_section", *b"\0asm\x01\0\0\0\0\0"),
    ]
}

fn specs() -> Vec<Seed> {
    vec![
        sound("digits.toml", include_str!("../../../models/digits/model.toml")),
        sound("mobilenet_v2.toml", include_str!("../../../models/mobilenet_v2/model.toml")),
        sound("squeezenet.toml", include_str!("../../../models/squeezenet1.0/model.toml")),
        sound(
            "inline.toml",
            "model = { name = \"d\", version = \"2\", onnx = \"d.onnx\" }\n\
             input = { shape = [1, 28, 30, 1], layout = \"NHWC\" }\n\
             preprocess = { resize = \"letterbox\", size = [28, 30], filter = \"bicubic\", \
             channels = \"grey\", pad = 7, mean = [0.5], std = [0.25], scale = 0.0039 }\n\
             output = { kind = \"sigmoid-logits\", labels = \"l\", top_k = 3 }\n",
        ),
        unsound("no_toml", "[model\nname = \n"),
        unsound("types.toml", "model = 1\n[input]\nshape = [1, -1, 99999999999999999999, 0x10]\n"),
        unsound("hole.toml", "[input]\nshape = [1]\nlayuot = 7\n[[output]]\n[ouput]\n"),
    ]
}

/// Every feature of a graph: an input, a parameter, two calls, shared storage, two heads.
const GRAPH: &str = r#"{"nodes": [
  {"op": "null", "name": "x", "inputs": []},
  {"op": "tvm_op", "name": "double", "inputs": [[0, 0, 0]], "attrs":
    {"func_name": "double", "num_inputs": "1", "num_outputs": "1", "flatten_data": "0"}},
  {"op": "null", "name": "p0", "inputs": []},
  {"op": "tvm_op", "name": "add", "inputs": [[1, 0, 0], [2, 0, 0]], "attrs":
    {"func_name": "add", "num_inputs": "2", "num_outputs": "1", "flatten_data": "0"}}],
 "arg_nodes": [0, 2], "heads": [[3, 0, 0], [1, 0, 0]], "node_row_ptr": [0, 1, 2, 3, 4],
 "attrs": {"storage_id": ["list_int", [0, 1, 2, 3]],
  "shape": ["list_shape", [[1, 4], [1, 4], [1, 4], [1, 4]]],
  "dltype": ["list_str", ["float32", "float32", "float32", "float32"]]}}"#;

fn graphs() -> Vec<Seed> {
    vec![
        sound("small.json", GRAPH),
        unsound("forward.json", GRAPH.replace("[[0, 0, 0]]", "[[3, 0, 0]]")),
        unsound("huge.json", GRAPH.replace("[1, 4]", "[4294967295, 4294967295]")),
        unsound("dtype.json", GRAPH.replace("float32", "float999")),
        unsound("deep.json", "[".repeat(4000)),
        unsound("empty.json", "{}"),
    ]
}

/// TVM's parameter file with one float32 tensor of shape [2] for each name.
fn param_file(names: &[&str]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut word = |value: u64| file.extend(value.to_le_bytes());
    word(0xF7E5_8D4F_0504_9CB7);
    word(0);
    word(names.len() as u64);
    for name in names {
        file.extend((name.len() as u64).to_le_bytes());
        file.extend(name.as_bytes());
    }
    file.extend((names.len() as u64).to_le_bytes());
    for _ in names {
        file.extend(0xDD5E_40F0_96B4_A13F_u64.to_le_bytes());
        file.extend(0_u64.to_le_bytes());
        // Device (CPU, 0), rank 1, float of 32 bits in 1 lane, extent 2, 8 bytes.
        for value in [1_u32, 0, 1] {
            file.extend(value.to_le_bytes());
        }
        file.extend([2, 32, 1, 0]);
        file.extend(2_u64.to_le_bytes());
        file.extend(8_u64.to_le_bytes());
        file.extend([1.5_f32, -2.0].map(f32::to_le_bytes).concat());
    }
    file
}

fn params() -> Vec<Seed> {
    let two = param_file(&["p0", "p1"]);
    let mut huge = two.clone();
    // The number of names.
    huge[16..24].copy_from_slice(&[0xff; 8]);
    vec![
        sound("two.params", two.clone()),
        sound("none.params", param_file(&[])),
        unsound("twice.params", param_file(&["p0", "p0"])),
        unsound("cut.params", &two[..two.len() - 3]),
        unsound("huge.params", huge),
    ]
}

fn messages() -> Vec<Seed> {
    fn written(message: &impl Serialize) -> Vec<u8> {
        wire::encode(message).expect("small")
    }
    let request = Request {
        method: "PUT".into(),
        path: "/cat.png".into(),
        query_string: "top_k=5".into(),
        header: BTreeMap::from([("accept".into(), "application/json".into())]),
        body: vec![0, 159, 146, 150, 255],
    };
    let response = Response {
        status_code: 200,
        status: "OK".into(),
        header: BTreeMap::from([("content-type".into(), "application/json".into())]),
        body: b"\"tabby\"".to_vec(),
    };
    let values = BTreeMap::from([("PORT".into(), "8081".into())]);
    let mut nested = written(&request);
    nested[0] = 0x86;
    nested.extend(b"\xa5extra");
    nested.extend([0x91; 300]);
    vec![
        sound("request", written(&request)),
        sound("response", written(&response)),
        sound("health", written(&HealthRequest { placeholder: true })),
        sound("log", written(&WriteLog { level: 3, body: "a line".into() })),
        sound("values", written(&CapabilityConfiguration { module: "M".into(), values })),
        sound(
            "numbers_as_body",
            *b"\x83\xaastatusCode\xcc\xc8\xa6status\xa2OK\xa4body\x93\x01\x02\x03",
        ),
        unsound("length_without_bytes", *b"\x85\xa6method\xdb\xff\xff\xff\xff"),
        unsound("nested", nested),
    ]
}

fn heads() -> Vec<Seed> {
    vec![
        sound("get", *b"GET / HTTP/1.1\r\nHost: localhost:8081\r\nAccept: */*\r\n\r\n"),
        sound("put", *b"PUT /a%20b?x=1 HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 3\r\n\r\nabc"),
        sound("chunked", *b"POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        sound("old", *b"GET http://a/b HTTP/1.0\r\n\r\n"),
        sound("options", *b"OPTIONS * HTTP/1.1\r\nHost: a\r\nX-Empty:\r\n\r\n"),
        unsound("two_lengths", *b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n"),
        unsound("length_and_chunks", *b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
        unsound("bare_line_feed", *b"GET / HTTP/1.1\nHost: a\n\n"),
        unsound("bare_carriage_return", *b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"),
        unsound("folded", *b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"),
        unsound("preface", *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        unsound("half", *b"GET / HTTP/1.1\r\nHost"),
    ]
}
