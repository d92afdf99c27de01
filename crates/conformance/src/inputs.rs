//! Input tensors: photographs as the model's own `model.toml` prepares them, and seeded noise.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use builder::Home;
use classifier::transform;
use image_input::{Limits, decode_for};
use model_spec::ModelSpec;

use crate::{Model, Name, environment::shared};

/// Seeds of the tensors of noise.
const SEEDS: [u64; 3] = [1, 2, 3];

/// A tensor for a model, with a name for messages.
#[derive(Debug, Clone)]
pub struct Input {
    /// A file's name, or `seed 1`.
    pub name: String,
    /// The elements.
    pub values: Vec<f32>,
}

/// All inputs that a model is compared on: the shared photographs (left out, with a line that
/// says so, when they are not there), the digits' own samples, and three seeds.
///
/// # Errors
/// When a picture cannot be read.
pub fn inputs(home: &Home, model: &Model) -> Result<Vec<Input>> {
    let transform = transform(&model.spec)?;
    let mut inputs = Vec::new();
    for (name, bytes) in pictures(home, model.name)? {
        // As the classifier decodes: a picture much larger than the input is reduced on the way.
        let picture = decode_for(&bytes, &Limits::default(), &mut [], &transform)
            .with_context(|| name.clone())?;
        let mut values = vec![0.0; model.input_len()];
        transform.apply(&picture, &mut values)?;
        inputs.push(Input { name, values });
    }
    inputs.extend(SEEDS.map(|seed| noise(&model.spec, seed)));
    Ok(inputs)
}

/// Image files for a model, with their names.
///
/// # Errors
/// When a file cannot be read.
pub fn pictures(home: &Home, name: Name) -> Result<Vec<(String, Vec<u8>)>> {
    let mut paths = photographs(home)?;
    if name == Name::Digits {
        paths.extend(files(&home.root().join("models/digits/samples"))?);
    }
    let read = |path: PathBuf| -> Result<_> {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes))
    };
    paths.into_iter().map(read).collect()
}

/// The shared photographs; none, with a line that says so, when they are not there.
///
/// # Errors
/// When their folder cannot be read.
pub fn photographs(home: &Home) -> Result<Vec<PathBuf>> {
    shared(home).map_or(Ok(Vec::new()), |shared| files(&shared.join("images")))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("cannot read {}", folder.display());
    let entries = fs::read_dir(folder).with_context(context)?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(context)?.path();
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Pixels of white noise, prepared as the model prepares pictures.
fn noise(spec: &ModelSpec, seed: u64) -> Input {
    let of = |values: &[f32]| values[0];
    let preprocess = &spec.preprocess;
    let (scale, mean, std) = (of(&preprocess.scale), of(&preprocess.mean), of(&preprocess.std));
    let mut state = seed;
    let mut random = || {
        // splitmix64: Steele, Lea, Flood 2014.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // 24 bits: exact in f32.
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    };
    let count: usize = spec.input.shape.iter().product();
    let values = (0..count).map(|_| (random() * 255.0 * scale - mean) / std).collect();
    Input { name: format!("seed {seed}"), values }
}
