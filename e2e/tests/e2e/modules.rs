//! The modules that scenarios run: built, signed, spoilt, and pushed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::{kubectl, world::Setting};

/// References of what is in the registry.
#[derive(Debug, Clone)]
pub struct Modules {
    /// Answers `7` for [`Modules::seven`].
    pub digits: String,
    /// The same network with other labels: answers `seven`.
    pub words: String,
    /// The first as a WASI command.
    pub command: String,
    /// Nobody signed it.
    pub unsigned: String,
    /// One bit differs from what was signed.
    pub tampered: String,
    /// Signed by somebody whom no node trusts.
    pub foreign: String,
    /// Where MobileNetV2 is, if the shared models are here.
    pub mobilenet: Option<String>,
    /// The picture of a seven.
    pub seven: Vec<u8>,
}

impl Modules {
    /// Builds what is not built yet, and pushes everything.
    pub async fn prepare(setting: &Setting) -> Result<Self> {
        let kit = Kit::new(setting).await?;
        let root = &setting.root;
        let digits = kit.build("digits", &root.join("models/digits"), &[]).await?;
        let words = kit.build("words", &with_words(setting, root).await?, &[]).await?;
        let command = kit.build("command", &root.join("models/digits"), &["--as", "wasi"]).await?;
        let signed = tokio::fs::read(&digits).await?;
        let unsigned = kit
            .write("unsigned", e2e::wasm::without_claims(&signed).map_err(anyhow::Error::msg)?)
            .await?;
        let tampered = kit
            .write("tampered", e2e::wasm::tampered(&signed).map_err(anyhow::Error::msg)?)
            .await?;
        let foreign = kit.folder.join("foreign.wasm");
        if !foreign.exists() {
            // The stranger's keys are in a folder that no node reads.
            let keys = kit.folder.join("stranger");
            kit.graphlet(
                &keys,
                &["build", &path(&root.join("models/digits/model.toml")), "-o", &path(&foreign)],
            )
            .await?;
        }
        let mobilenet = match with_mobilenet(setting, root).await? {
            Some(folder) => Some(kit.build("mobilenet", &folder, &[]).await?),
            None => None,
        };
        let pushed = async |name: &str, file: &Path| kit.push(name, file).await;
        Ok(Self {
            digits: pushed("digits", &digits).await?,
            words: pushed("words", &words).await?,
            command: pushed("digits-wasi", &command).await?,
            unsigned: pushed("unsigned", &unsigned).await?,
            tampered: pushed("tampered", &tampered).await?,
            foreign: pushed("foreign", &foreign).await?,
            mobilenet: match mobilenet {
                Some(file) => Some(pushed("mobilenet", &file).await?),
                None => None,
            },
            seven: tokio::fs::read(root.join("models/digits/samples/7.png")).await?,
        })
    }
}

impl Modules {
    /// Pushes what was built as `name` under another name, too.
    pub async fn push_again(&self, setting: &Setting, name: &str, other: &str) -> Result<()> {
        let kit = Kit::new(setting).await?;
        kit.push(other, &kit.folder.join(format!("{name}.wasm"))).await.map(drop)
    }
}

/// A copy of the digits' model whose labels are words.
async fn with_words(setting: &Setting, root: &Path) -> Result<PathBuf> {
    let folder = setting.work.join("modules/words-model");
    tokio::fs::create_dir_all(&folder).await?;
    let digits = root.join("models/digits");
    tokio::fs::copy(digits.join("digits.onnx"), folder.join("digits.onnx")).await?;
    let spec = tokio::fs::read_to_string(digits.join("model.toml")).await?;
    let spec = spec.replace("name = \"digits\"", "name = \"words\"");
    tokio::fs::write(folder.join("model.toml"), spec).await?;
    let words = "zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n";
    tokio::fs::write(folder.join("labels.txt"), words).await?;
    Ok(folder)
}

/// The model's spec beside its weights, where the shared models are here.
async fn with_mobilenet(setting: &Setting, root: &Path) -> Result<Option<PathBuf>> {
    let shared = setting.shared.join("models");
    if !shared.join("mobilenet_v2.onnx").exists() {
        return Ok(None);
    }
    let folder = setting.work.join("modules/mobilenet-model");
    tokio::fs::create_dir_all(&folder).await?;
    for (from, name) in [
        (root.join("models/mobilenet_v2"), "model.toml"),
        (shared.clone(), "mobilenet_v2.onnx"),
        (shared, "imagenet_labels.txt"),
    ] {
        tokio::fs::copy(from.join(name), folder.join(name)).await?;
    }
    Ok(Some(folder))
}

struct Kit<'a> {
    setting: &'a Setting,
    folder: PathBuf,
}

impl<'a> Kit<'a> {
    async fn new(setting: &'a Setting) -> Result<Self> {
        let folder = setting.work.join("modules");
        tokio::fs::create_dir_all(&folder).await?;
        Ok(Self { setting, folder })
    }

    async fn build(&self, name: &str, model: &Path, more: &[&str]) -> Result<PathBuf> {
        let file = self.folder.join(format!("{name}.wasm"));
        if !file.exists() {
            let spec = path(&model.join("model.toml"));
            let out = path(&file);
            let arguments = [&["build", &spec, "-o", &out], more].concat();
            self.graphlet(&self.setting.keys, &arguments).await?;
        }
        Ok(file)
    }

    async fn write(&self, name: &str, bytes: Vec<u8>) -> Result<PathBuf> {
        let file = self.folder.join(format!("{name}.wasm"));
        tokio::fs::write(&file, bytes).await?;
        Ok(file)
    }

    async fn push(&self, name: &str, file: &Path) -> Result<String> {
        let reference = format!("{}/graphlet/{name}:v1", self.setting.registry);
        self.graphlet(&self.setting.keys, &["push", &path(file), &reference]).await?;
        Ok(reference)
    }

    async fn graphlet(&self, keys: &Path, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(self.setting.program("graphlet"));
        command
            .args(arguments)
            .env("GRAPHLET_CONFIG_DIR", keys)
            .env("GRAPHLET_HOME", &self.setting.root)
            .env("GRAPHLET_SHARED", &self.setting.shared);
        let output = kubectl::run(&mut command, "").await?;
        if !output.ok {
            bail!("graphlet {}: {}", arguments.join(" "), output.stderr.trim());
        }
        Ok(())
    }
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The issuer that signed `file`.
pub async fn issuer(setting: &Setting, file: &Path) -> Result<String> {
    let mut command = Command::new(setting.program("graphlet"));
    command.args(["inspect", "--json"]).arg(file).env("GRAPHLET_CONFIG_DIR", &setting.keys);
    let output = kubectl::run(&mut command, "").await?;
    let card: serde_json::Value = serde_json::from_str(&output.stdout)
        .with_context(|| format!("graphlet inspect: {}", output.stderr))?;
    Ok(card["claims"]["issuer"].as_str().context("no issuer")?.to_owned())
}
