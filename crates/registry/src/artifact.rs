//! The two forms in which a module is an OCI artifact: the CNCF's and Krustlet's.

use std::collections::BTreeMap;

use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
    OciDescriptor, OciImageIndex, OciImageManifest, WASM_CONFIG_MEDIA_TYPE, WASM_LAYER_MEDIA_TYPE,
};
use serde::{Deserialize, Serialize};

use crate::reference::{Digest, shortened};

/// How a module is written as an artifact. Both are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Form {
    /// The CNCF's Wasm artifact: config `application/vnd.wasm.config.v0+json`, one
    /// `application/wasm` layer
    /// (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>).
    #[default]
    Cncf,
    /// Krustlet's: config `application/vnd.wasm.config.v1+json`, one
    /// `application/vnd.wasm.content.layer.v1+wasm` layer.
    Krustlet,
}

impl Form {
    fn layer_type(self) -> &'static str {
        match self {
            Form::Cncf => CNCF_LAYER_MEDIA_TYPE,
            Form::Krustlet => WASM_LAYER_MEDIA_TYPE,
        }
    }

    fn config_type(self) -> &'static str {
        match self {
            Form::Cncf => CNCF_CONFIG_MEDIA_TYPE,
            Form::Krustlet => WASM_CONFIG_MEDIA_TYPE,
        }
    }
}

/// A module's place in a registry, as its manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// What a manifest is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Manifest {
    Module(Layer),
    /// One of several manifests, for WebAssembly.
    Index(Digest),
}

/// Reads a manifest; what it is instead of a module is the error.
pub(crate) fn read(bytes: &[u8]) -> Result<Manifest, String> {
    let probe: Probe = serde_json::from_slice(bytes).map_err(|_| "its manifest is none")?;
    if probe.schema_version != 2 {
        return Err(format!("its manifest has schema version {}", probe.schema_version));
    }
    let media_type = probe.media_type.as_deref().unwrap_or_default();
    if media_type == OCI_IMAGE_INDEX_MEDIA_TYPE
        || media_type == IMAGE_MANIFEST_LIST_MEDIA_TYPE
        || (media_type.is_empty() && probe.manifests.is_some())
    {
        return read_index(bytes).map(Manifest::Index);
    }
    let manifest: OciImageManifest =
        serde_json::from_slice(bytes).map_err(|_| "its manifest is not an image's")?;
    let [layer] = manifest.layers.as_slice() else {
        return Err(match manifest.layers.iter().find(|layer| !is_wasm(layer)) {
            Some(other) => foreign(other),
            None => format!("its manifest names {} layers instead of one", manifest.layers.len()),
        });
    };
    if !is_wasm(layer) {
        return Err(foreign(layer));
    }
    let digest = layer.digest.parse().map_err(|error| format!("its layer: {error}"))?;
    let size = u64::try_from(layer.size).map_err(|_| "its layer has a negative size")?;
    Ok(Manifest::Module(Layer { digest, size }))
}

fn read_index(bytes: &[u8]) -> Result<Digest, String> {
    let index: OciImageIndex =
        serde_json::from_slice(bytes).map_err(|_| "its index cannot be read")?;
    let mut fitting = index.manifests.iter().filter(|entry| {
        entry.platform.as_ref().is_some_and(|platform| platform.architecture.to_string() == "wasm")
    });
    match (fitting.next(), fitting.next()) {
        (Some(entry), None) => entry.digest.parse().map_err(|error| format!("its index: {error}")),
        (None, _) => Err("an image for other platforms, none of them wasm".into()),
        (Some(_), Some(_)) => Err("an index of several modules".into()),
    }
}

fn is_wasm(layer: &OciDescriptor) -> bool {
    [CNCF_LAYER_MEDIA_TYPE, WASM_LAYER_MEDIA_TYPE].contains(&layer.media_type.as_str())
}

fn foreign(layer: &OciDescriptor) -> String {
    if layer.media_type.contains("tar") {
        "a container image".into()
    } else {
        format!("its layer is {}", shortened(&layer.media_type))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: i64,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// What the manifest says about the module besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct About {
    /// The layer's file name, for tools that write it to a file.
    pub(crate) title: Option<String>,
    /// RFC 3339.
    pub(crate) created: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// An artifact ready to be pushed: the same module and words make the same bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Artifact {
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

/// Writes config and manifest for a module.
pub(crate) fn write(
    form: Form,
    layer: &Layer,
    about: &About,
) -> Result<Artifact, serde_json::Error> {
    let config = match form {
        Form::Cncf => serde_json::to_vec(&Config {
            // Readers of this form want a time.
            created: about.created.as_deref().unwrap_or("1970-01-01T00:00:00Z"),
            architecture: "wasm",
            os: "wasip1",
            layer_digests: [layer.digest],
        })?,
        Form::Krustlet => b"{}".to_vec(),
    };
    let mut annotations = about.annotations.clone();
    for (key, value) in [(TITLE, &about.title), (CREATED, &about.created)] {
        if let Some(value) = value {
            annotations.insert(key.into(), value.clone());
        }
    }
    let title = about.title.iter().map(|title| (TITLE.to_owned(), title.clone()));
    let manifest = OciImageManifest {
        media_type: Some(OCI_IMAGE_MEDIA_TYPE.into()),
        config: OciDescriptor {
            media_type: form.config_type().into(),
            digest: Digest::of(&config).to_string(),
            size: config.len() as i64,
            ..OciDescriptor::default()
        },
        layers: vec![OciDescriptor {
            media_type: form.layer_type().into(),
            digest: layer.digest.to_string(),
            size: layer.size as i64,
            annotations: about.title.is_some().then(|| title.collect()),
            ..OciDescriptor::default()
        }],
        annotations: (!annotations.is_empty()).then_some(annotations),
        ..OciImageManifest::default()
    };
    Ok(Artifact { config, manifest: serde_json::to_vec(&manifest)? })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    layer_digests: [Digest; 1],
}

const CNCF_CONFIG_MEDIA_TYPE: &str = "application/vnd.wasm.config.v0+json";
const CNCF_LAYER_MEDIA_TYPE: &str = "application/wasm";
const TITLE: &str = "org.opencontainers.image.title";
const CREATED: &str = "org.opencontainers.image.created";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn layer() -> Layer {
        Layer { digest: Digest::of(b"module"), size: 6 }
    }

    fn about() -> About {
        About {
            title: Some("digits.wasm".into()),
            created: Some("2024-01-02T03:04:05Z".into()),
            annotations: [("dev.graphlet.issuer".to_owned(), "A".to_owned())].into(),
        }
    }

    #[test]
    fn both_forms_have_their_media_types_and_are_read_back() {
        for (form, config, wasm) in [
            (Form::Cncf, "application/vnd.wasm.config.v0+json", "application/wasm"),
            (
                Form::Krustlet,
                "application/vnd.wasm.config.v1+json",
                "application/vnd.wasm.content.layer.v1+wasm",
            ),
        ] {
            let artifact = write(form, &layer(), &about()).unwrap();
            let manifest: Value = serde_json::from_slice(&artifact.manifest).unwrap();
            assert_eq!(manifest["schemaVersion"], 2);
            assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
            assert_eq!(manifest["config"]["mediaType"], config);
            assert_eq!(manifest["config"]["digest"], Digest::of(&artifact.config).to_string());
            assert_eq!(manifest["layers"][0]["mediaType"], wasm);
            assert_eq!(manifest["layers"][0]["size"], 6);
            assert_eq!(manifest["annotations"]["dev.graphlet.issuer"], "A");
            for annotations in [&manifest["annotations"], &manifest["layers"][0]["annotations"]] {
                assert_eq!(annotations[TITLE], "digits.wasm");
            }
            assert_eq!(read(&artifact.manifest), Ok(Manifest::Module(layer())));
            assert_eq!(artifact, write(form, &layer(), &about()).unwrap(), "deterministic");
        }
        let config = write(Form::Cncf, &layer(), &About::default()).unwrap().config;
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["layerDigests"], json!([Digest::of(b"module").to_string()]));
        assert_eq!(config["architecture"], "wasm");
    }

    #[test]
    fn an_index_leads_to_its_only_wasm_manifest() {
        let digest = Digest::of(b"manifest");
        let entry = |architecture: &str| {
            json!({"mediaType": OCI_IMAGE_MEDIA_TYPE, "digest": digest.to_string(), "size": 1,
                   "platform": {"architecture": architecture, "os": "wasip1"}})
        };
        let index = |entries: Value| {
            let index = json!({"schemaVersion": 2, "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE,
                               "manifests": entries});
            read(&serde_json::to_vec(&index).unwrap())
        };
        assert_eq!(index(json!([entry("amd64"), entry("wasm")])), Ok(Manifest::Index(digest)));
        assert!(index(json!([entry("amd64")])).is_err());
        assert!(index(json!([entry("wasm"), entry("wasm")])).is_err());
        assert!(index(json!([])).is_err());
    }

    #[test]
    fn what_is_no_module_is_told() {
        let manifest = |layers: Value| {
            json!({"schemaVersion": 2, "config": {"mediaType": "x", "digest": "y", "size": 1},
                   "layers": layers})
        };
        let layer = |kind: &str, digest: &str, size: i64| json!({"mediaType": kind, "digest": digest, "size": size});
        let (wasm, digest) = (CNCF_LAYER_MEDIA_TYPE, Digest::of(b"").to_string());
        for (text, expected) in [
            (json!([]), "none"),
            (json!({"schemaVersion": 1, "fsLayers": []}), "schema version 1"),
            (manifest(json!([])), "0 layers"),
            (manifest(json!([layer(wasm, &digest, 1), layer(wasm, &digest, 1)])), "2 layers"),
            (
                manifest(json!([layer("application/vnd.oci.image.layer.v1.tar+gzip", &digest, 1)])),
                "container image",
            ),
            (manifest(json!([layer("text/plain", &digest, 1)])), "text/plain"),
            (manifest(json!([layer(wasm, "sha256:../../etc/passwd", 1)])), "its layer"),
            (manifest(json!([layer(wasm, &digest, -1)])), "negative"),
            (json!({"schemaVersion": 2}), "not an image's"),
        ] {
            let error = read(&serde_json::to_vec(&text).unwrap()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(read(b"<html>").is_err());
        assert!(read(b"").is_err());
    }
}
