//! The same pictures through the sandbox and through onnxruntime.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use builder::{BuildOptions, GuestKind, Home, compiler};
use claims::{IssuerKeyPair, Policy, Seed, Statement, Timestamp, VerifiedModule};
use image_input::{Limits, decode_for};
use model_spec::ModelSpec;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tensor::{Shape, Tensor};
use wire::Request;
use zeroize::Zeroizing;

use super::{check::names_label, classify::refusal};
use crate::{exit::Usage, progress::Display, serve::Single};

// What numbers may differ by: f32 sums in another order.
const RELATIVE: f64 = 1e-3;
const ABSOLUTE: f64 = 1e-5;

/// What came out for a folder of pictures.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The graph's output that was compared.
    pub output: String,
    /// One entry a picture.
    pub pictures: Vec<Compared>,
    /// Pictures whose best class is the same.
    pub same_label: usize,
    /// Largest difference of any output number.
    pub largest_difference: f64,
    /// Pictures named like a label.
    pub named: usize,
    /// Of those, how often the best class is that label.
    pub top1: usize,
    /// Of those, how often it is among the best five.
    pub top5: usize,
}

/// One picture's answers.
#[derive(Debug, Serialize)]
pub struct Compared {
    /// The file, relative to the folder.
    pub picture: String,
    /// Our best label and its raw output.
    pub label: String,
    /// Its score.
    pub score: f64,
    /// onnxruntime's best label.
    pub reference_label: String,
    /// Its score: the raw output.
    pub reference_score: f64,
    /// Largest difference over all classes.
    pub difference: f64,
    /// Whether every number is within rtol 1e-3, atol 1e-5.
    pub agrees: bool,
}

impl Comparison {
    /// Whether every picture's numbers agree.
    pub fn agrees(&self) -> bool {
        self.pictures.iter().all(|picture| picture.agrees)
    }
}

/// Builds the model in memory and compares it with onnxruntime on every picture below `folder`.
///
/// # Errors
/// When the folder holds no picture, the build fails, or onnxruntime is not set up.
pub fn with_onnxruntime(
    home: &Home,
    spec_path: &Path,
    spec: &ModelSpec,
    onnx: &Path,
    labels: &[String],
    folder: &Path,
) -> Result<Comparison> {
    let pictures = pictures(folder)?;
    let module = build_in_memory(home, spec_path)?;
    let mut actor = Single::start(&module)?;

    let tensors = tempfile::tempdir()?;
    let transform = classifier::transform(spec)?;
    let shape = Shape::new(spec.input.shape.as_slice())?;
    for (index, path) in pictures.iter().enumerate() {
        let context = || path.display().to_string();
        let bytes = fs::read(path).with_context(context)?;
        // As the classifier decodes: a picture much larger than the input is reduced on the way.
        let picture =
            decode_for(&bytes, &Limits::default(), &mut [], &transform).with_context(context)?;
        let mut tensor = vec![0.0_f32; transform.tensor_len()];
        transform.apply(&picture, &mut tensor).with_context(context)?;
        let file = tensors.path().join(format!("{index:06}.npy"));
        let tensor = Tensor::copy_of(shape.clone(), &tensor)?;
        fs::write(&file, npy::write_npy(tensor.view())).with_context(context)?;
    }
    let reference: Reference =
        serde_json::from_value(compiler::reference(home, spec, onnx, tensors.path())?)
            .context("the compiler's reference is malformed")?;
    if reference.outputs.len() != pictures.len() {
        return Err(anyhow!(
            "onnxruntime answered {} of {} pictures",
            reference.outputs.len(),
            pictures.len()
        ));
    }

    let mut comparison = Comparison {
        output: reference.output,
        pictures: Vec::new(),
        same_label: 0,
        largest_difference: 0.0,
        named: 0,
        top1: 0,
        top5: 0,
    };
    for (path, theirs) in pictures.iter().zip(reference.outputs) {
        let ours = infer(&mut actor, spec, &comparison.output, path)
            .with_context(|| path.display().to_string())?;
        comparison.add(folder, path, labels, &ours, &theirs.values)?;
    }
    Ok(comparison)
}

impl Comparison {
    fn add(
        &mut self,
        folder: &Path,
        path: &Path,
        labels: &[String],
        ours: &[f64],
        theirs: &[f64],
    ) -> Result<()> {
        if ours.len() != labels.len() || theirs.len() != labels.len() {
            return Err(anyhow!(
                "{} numbers of ours, {} of onnxruntime's, {} labels",
                ours.len(),
                theirs.len(),
                labels.len()
            ));
        }
        let ranked = |values: &[f64]| {
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
            order
        };
        let (mine, other) = (ranked(ours), ranked(theirs));
        let differences = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs());
        let difference = differences.clone().fold(0.0, f64::max);
        let agrees =
            differences.zip(theirs).all(|(gap, value)| gap <= ABSOLUTE + RELATIVE * value.abs());
        if labels.iter().any(|label| names_label(path, label)) {
            self.named += 1;
            let hit = |count: usize| {
                mine.iter().take(count).any(|&class| names_label(path, &labels[class]))
            };
            self.top1 += usize::from(hit(1));
            self.top5 += usize::from(hit(5));
        }
        self.same_label += usize::from(mine[0] == other[0]);
        self.largest_difference = self.largest_difference.max(difference);
        self.pictures.push(Compared {
            picture: path.strip_prefix(folder).unwrap_or(path).display().to_string(),
            label: labels[mine[0]].clone(),
            score: ours[mine[0]],
            reference_label: labels[other[0]].clone(),
            reference_score: theirs[other[0]],
            difference,
            agrees,
        });
        Ok(())
    }
}

#[derive(Deserialize)]
struct Reference {
    output: String,
    outputs: Vec<ReferenceOutput>,
}

#[derive(Deserialize)]
struct ReferenceOutput {
    values: Vec<f64>,
}

/// Every file below a folder that looks like a picture, in order of their names.
fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .map_err(|error| Usage::new(format!("cannot read {}: {error}", folder.display())))?;
        for entry in entries {
            let path = entry?.path();
            let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
            if path.is_dir() {
                folders.push(path);
            } else if extension
                .is_some_and(|e| ["jpg", "jpeg", "png", "webp", "gif", "bmp"].contains(&e.as_str()))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(Usage::new(format!("no pictures below {}", folder.display())).into());
    }
    Ok(found)
}

/// Builds, signs with a key that nobody keeps, and verifies: the same way that a served module
/// goes.
fn build_in_memory(home: &Home, spec: &Path) -> Result<VerifiedModule> {
    let options = BuildOptions {
        spec: spec.to_path_buf(),
        kind: GuestKind::Actor,
        simd: None,
        artifacts: None,
    };
    let mut display = Display::new(false);
    let built = builder::build(home, &options, &mut display)?;
    display.finish();
    let entropy = || -> Result<Zeroizing<[u8; 32]>> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).context("the system gives no random numbers")?;
        Ok(bytes)
    };
    let issuer = IssuerKeyPair::from_seed(&Seed::issuer(entropy()?))?;
    let now = Timestamp::from(std::time::SystemTime::now());
    let subject = Seed::actor(entropy()?).actor_key().context("an actor's seed has its key")?;
    let statement = Statement {
        subject,
        name: built.spec.model.name.clone(),
        version: None,
        revision: None,
        tags: Vec::new(),
        capabilities: Vec::new(),
        issued_at: now,
        valid_for: None,
        not_before: None,
    };
    let signed = claims::sign(&built.module, &issuer, &statement)?;
    let mut policy = Policy::at(now);
    policy.trusted_issuers.insert(issuer.public());
    let signed: Arc<[u8]> = signed.into();
    Ok(claims::verify(signed, &policy)?)
}

/// The graph's raw output for a picture, from inside the sandbox.
fn infer(actor: &mut Single, spec: &ModelSpec, output: &str, path: &Path) -> Result<Vec<f64>> {
    let body = json!({
        "inputs": [{
            "name": "image", "shape": [1], "datatype": "BYTES",
            "data": [STANDARD.encode(fs::read(path)?)],
        }],
        "outputs": [{"name": output}],
    });
    let request = Request {
        method: "POST".into(),
        path: format!("/v2/models/{}/infer", spec.model.name),
        body: serde_json::to_vec(&body)?,
        ..Request::default()
    };
    let (response, _) = actor.send(&request)?;
    if response.status_code != 200 {
        return Err(anyhow!(refusal(&response)));
    }
    #[derive(Deserialize)]
    struct Answer {
        outputs: Vec<Output>,
    }
    #[derive(Deserialize)]
    struct Output {
        data: Vec<f64>,
    }
    let answer: Answer =
        serde_json::from_slice(&response.body).context("the actor's answer is malformed")?;
    let [output] = <[Output; 1]>::try_from(answer.outputs)
        .map_err(|outputs| anyhow!("asked for one output, got {}", outputs.len()))?;
    Ok(output.data)
}
