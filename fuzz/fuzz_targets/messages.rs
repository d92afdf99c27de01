//! MessagePack messages between host and actor.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz_entries::messages(data);
});
