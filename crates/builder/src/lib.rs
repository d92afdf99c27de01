//! model.toml and ONNX to a signed module.
