//! `model.toml`, by itself and beside an ONNX file's facts.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz_entries::model_toml(data);
});
