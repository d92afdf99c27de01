//! Who an actor is: from its claims and its model card.

use claims::{Claims, SignedModule, Timestamp, VerifiedModule};
use serde::Deserialize;

use crate::provider::{ActorIdentity, FileDigest};

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

/// Who a verified module is.
pub(crate) fn of(module: &VerifiedModule) -> ActorIdentity {
    let card = claims::custom_section(module.bytes(), CARD_SECTION).ok().flatten();
    named(module.claims(), card, module.digest().to_string().into())
}

/// Who a module is whose file has not been hashed yet.
pub(crate) fn of_signed(module: &SignedModule) -> ActorIdentity {
    let card = module.custom_section(CARD_SECTION).ok().flatten();
    named(module.claims(), card.as_deref(), FileDigest::default())
}

/// The identity; an actor without a card is named after its claims, one without claims after its
/// digest.
fn named(claims: Option<&Claims>, card: Option<&[u8]>, digest: FileDigest) -> ActorIdentity {
    let Model { name: model, version } = card
        .and_then(|card| serde_json::from_slice::<Card>(card).ok())
        .unwrap_or_default()
        .spec
        .model;
    let name = claims
        .and_then(|claims| claims.name.clone())
        .or_else(|| (!model.is_empty()).then(|| model.clone()))
        .unwrap_or_else(|| digest.to_string());
    ActorIdentity {
        subject: claims.map_or_else(|| digest.to_string(), |claims| claims.subject.to_string()),
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
