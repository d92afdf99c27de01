//! A module in our host: signed, verified, called over waPC as HTTP requests come in.

use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    sync::OnceLock,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use builder::Home;
use claims::{HTTP_SERVER, IssuerKeyPair, LOGGING, Policy, Seed, Statement, Timestamp};
use host::{Host, Instance, LoadOptions};
use model_spec::ModelSpec;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// The time that claims of these tests are issued at unless they say otherwise.
pub const MODULE_TIME: Timestamp = Timestamp(1_700_000_000);

// A debug build of a decoder, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Signs a module by an issuer that only these tests know.
///
/// # Errors
/// When the module cannot be signed.
pub fn sign(module: &[u8], name: &str, issued_at: Timestamp) -> Result<Vec<u8>> {
    let statement = Statement {
        subject: Seed::actor(Zeroizing::new([2; 32])).actor_key().context("an actor's seed")?,
        name: name.to_owned(),
        version: Some("1.0.0".to_owned()),
        revision: None,
        tags: Vec::new(),
        capabilities: vec![HTTP_SERVER.to_owned(), LOGGING.to_owned()],
        issued_at,
        valid_for: None,
        not_before: None,
    };
    Ok(claims::sign(module, &issuer()?, &statement)?)
}

fn issuer() -> Result<IssuerKeyPair> {
    Ok(IssuerKeyPair::from_seed(&Seed::issuer(Zeroizing::new([1; 32])))?)
}

/// An instance with its model loaded.
pub struct Guest {
    instance: Instance,
    spec: ModelSpec,
}

/// What a model answered to a tensor or a picture.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The graph's output as it is.
    pub raw: Vec<f32>,
    /// Probabilities.
    pub scores: Vec<f32>,
    /// The best label.
    pub label: String,
    /// How long each phase took.
    pub phases: BTreeMap<String, Duration>,
}

#[derive(Deserialize)]
struct InferResponse {
    outputs: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    data: Value,
}

impl Guest {
    /// Signs, verifies and starts a module. Call it, and all else, in [`with_stack`].
    ///
    /// # Errors
    /// When any of that fails.
    pub fn start(home: &Home, module: &[u8], spec: &ModelSpec) -> Result<Guest> {
        let signed = sign(module, &spec.model.name, MODULE_TIME)?;
        let mut policy = Policy::at(Timestamp::from(SystemTime::now()));
        policy.trusted_issuers.insert(issuer()?.public());
        let verified = claims::verify(signed, &policy)?;
        let options = LoadOptions::default();
        let instance = host(home)?.instance(&verified, &options)?;
        Ok(Guest { instance, spec: spec.clone() })
    }

    /// Sends a tensor.
    ///
    /// # Errors
    /// When the answer is no tensor.
    pub fn infer(&mut self, values: &[f32]) -> Result<Answer> {
        let name = match self.spec.input.name.as_str() {
            "" => "input",
            name => name,
        };
        let input = json!({"name": name, "shape": self.spec.input.shape, "datatype": "FP32"});
        self.send(input, &serde_json::to_string(values)?)
    }

    /// Sends an image file.
    ///
    /// # Errors
    /// When the answer is no tensor.
    pub fn infer_picture(&mut self, bytes: &[u8]) -> Result<Answer> {
        let input = json!({"name": "image", "shape": [1], "datatype": "BYTES"});
        let base64 = data_encoding::BASE64.encode(bytes);
        self.send(input, &serde_json::to_string(&[base64])?)
    }

    fn send(&mut self, input: Value, data: &str) -> Result<Answer> {
        // The data is spliced in: a tree of 150,000 numbers would take its time.
        let mut body = json!({ "inputs": [input] }).to_string();
        ensure!(body.ends_with("}]}"), "the input comes last");
        body.truncate(body.len() - 3);
        let body = format!("{body},\"data\":{data}}}]}}");
        let path = format!("/v2/models/{}/infer", self.spec.model.name);
        let (response, phases) = self.request("POST", &path, body.into_bytes())?;
        let response: InferResponse = serde_json::from_slice(&response)?;
        let [raw, scores, label] = &response.outputs[..] else {
            anyhow::bail!("not three outputs");
        };
        ensure!(scores.name == "scores" && label.name == "label", "outputs have other names");
        let numbers = |tensor: &Tensor| serde_json::from_value(tensor.data.clone());
        let label = label.data[0].as_str().context("no label")?.to_owned();
        Ok(Answer { raw: numbers(raw)?, scores: numbers(scores)?, label, phases })
    }

    /// Sends an HTTP request and gives the body of an answer with status 200.
    ///
    /// # Errors
    /// When the call fails, or the status is another one.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(Vec<u8>, BTreeMap<String, Duration>)> {
        let request = wire::Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query_string: String::new(),
            header: BTreeMap::new(),
            body,
        };
        let message = wire::encode(&request)?;
        let deadline = Instant::now() + DEADLINE;
        let reply = self.instance.call(wire::OP_HANDLE_REQUEST, message, deadline)?;
        let response: wire::Response = wire::decode(&reply.body)?;
        ensure!(
            response.status_code == 200,
            "{method} {path}: {} {}",
            response.status_code,
            response.body.escape_ascii()
        );
        Ok((response.body, reply.phases.into_iter().collect()))
    }

    /// Linear memory of the instance, bytes.
    pub fn memory_bytes(&mut self) -> u64 {
        self.instance.memory_bytes() as u64
    }
}

fn host(home: &Home) -> Result<Host> {
    static HOST: OnceLock<Host> = OnceLock::new();
    if let Some(host) = HOST.get() {
        return Ok(host.clone());
    }
    let made = Host::builder().cache_dir(home.cache().join("test-code")).build()?;
    Ok(HOST.get_or_init(|| made).clone())
}

/// Runs a test on a thread with the stack that guests need; a test's own has less.
///
/// # Panics
/// When `test` does.
pub fn with_stack<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(8 << 20).spawn_scoped(scope, test);
        match thread.expect("a thread can be had").join() {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    })
}
