//! Who an actor is: from its claims and its model card.

use claims::{Timestamp, VerifiedModule};
use serde::Deserialize;

use crate::provider::ActorIdentity;

/// The module's section in which the builder describes the model.
const CARD_SECTION: &str = "graphlet.model";

/// The part of the model card that names the model.
#[derive(Debug, Default, Deserialize)]
struct Card {
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    model: Model,
}

#[derive(Debug, Default, Deserialize)]
struct Model {
    name: String,
    version: String,
}

/// The identity; an actor without a card is named after its claims, one without claims after its
/// digest.
pub(crate) fn of(module: &VerifiedModule) -> ActorIdentity {
    let digest = module.digest().to_string();
    let card = claims::custom_section(module.bytes(), CARD_SECTION).ok().flatten();
    let Model { name: model, version } = card
        .and_then(|card| serde_json::from_slice::<Card>(card).ok())
        .unwrap_or_default()
        .spec
        .model;
    let claims = module.claims();
    let name = claims
        .and_then(|claims| claims.name.clone())
        .or_else(|| (!model.is_empty()).then(|| model.clone()))
        .unwrap_or_else(|| digest.clone());
    ActorIdentity {
        subject: claims.map_or_else(|| digest.clone(), |claims| claims.subject.to_string()),
        issuer: claims.map(|claims| claims.issuer.to_string()),
        model: if model.is_empty() { name.clone() } else { model },
        version: if version.is_empty() {
            claims.and_then(|claims| claims.version.clone()).unwrap_or_default()
        } else {
            version
        },
        name,
        digest,
    }
}

/// The time now, as claims count it.
pub(crate) fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
