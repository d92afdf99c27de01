//! NumPy's array files and archives of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz_entries::npy(data);
});
