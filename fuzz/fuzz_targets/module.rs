//! Modules with claims: sections, tokens, signatures.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz_entries::module(data);
});
