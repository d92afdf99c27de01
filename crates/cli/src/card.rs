//! The model card: what the builder writes about a model into the module's section
//! `graphlet.model`.
//!
//! Read leniently: a module that another version has built may list other sizes and versions.

use std::collections::BTreeMap;

use claims::ModuleError;
use model_spec::ModelSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a module says about its model. Covered by the signature, but not checked against what
/// the module does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// `model.toml` as the author wrote it.
    pub spec: ModelSpec,
    /// Number of labels.
    pub labels: u64,
    /// Sizes in bytes, by part.
    #[serde(default)]
    pub sizes: BTreeMap<String, Value>,
    /// Versions of the tools that made the module.
    #[serde(default)]
    pub versions: BTreeMap<String, Value>,
}

/// A card cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// The file is no module.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The card is not the JSON that it should be.
    #[error("malformed model card")]
    Json(#[source] serde_json::Error),
}

impl Card {
    /// The card of a module; `None` when it has none.
    ///
    /// # Errors
    /// [`CardError`].
    pub fn of(module: &[u8]) -> Result<Option<Self>, CardError> {
        claims::custom_section(module, Self::SECTION)?.map(Self::parse).transpose()
    }

    /// A card from the contents of its section.
    ///
    /// # Errors
    /// [`CardError::Json`].
    pub fn parse(data: &[u8]) -> Result<Self, CardError> {
        serde_json::from_slice(data).map_err(CardError::Json)
    }

    /// The module's section that holds it.
    pub const SECTION: &str = "graphlet.model";
}
