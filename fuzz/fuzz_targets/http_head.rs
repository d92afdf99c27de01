//! The head of an HTTP request.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz_entries::http_head(data);
});
