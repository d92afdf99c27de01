//! The descriptor of tensors in a module's memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz_entries::descriptor(data);
});
