//! The one working buffer of all kernels: grown on demand, kept, aligned to 64 bytes.
//!
//! Kernels run one after another inside a module, so one buffer serves them all, and after the
//! first run of a graph none of them allocates any more. Natively the tests run kernels on
//! several threads; a lock makes them take turns.

use std::sync::{Mutex, PoisonError};

use crate::KernelError;

/// `f32` values in one cache line.
pub(crate) const LINE: usize = 16;

/// One cache line; its alignment is that of the buffer.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

static BUFFER: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// Runs `work` on a buffer of at least `floats` values, aligned to 64 bytes, whose contents are
/// whatever the last kernel left. `work` must not ask for scratch itself.
///
/// # Errors
/// [`KernelError::Scratch`] when the buffer must grow and the allocator refuses.
pub(crate) fn with<R>(floats: usize, work: impl FnOnce(&mut [f32]) -> R) -> Result<R, KernelError> {
    // A panic elsewhere leaves nothing worse than other contents.
    let mut buffer = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = floats.div_ceil(LINE);
    if buffer.len() < lines {
        // Freed first: the old contents are not worth copying, nor the room for both.
        *buffer = Vec::new();
        let refused = KernelError::Scratch { bytes: floats.saturating_mul(4) };
        buffer.try_reserve_exact(lines).map_err(|_| refused)?;
        buffer.resize(lines, Line([0.0; LINE]));
    }
    let count = buffer.len() * LINE;
    let first = buffer.as_mut_ptr().cast::<f32>();
    // SAFETY: `Line` is exactly `LINE` values without padding (64 bytes, `repr(C)`), all of them
    // initialised, and the lock guard keeps the buffer borrowed mutably for as long as `work` runs.
    Ok(work(unsafe { std::slice::from_raw_parts_mut(first, count) }))
}

/// Bytes that the buffer holds now.
#[must_use]
pub fn capacity_bytes() -> usize {
    let buffer = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
    buffer.len() * size_of::<Line>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_is_aligned_grows_and_is_kept() {
        let first = with(100, |buffer| {
            assert!(buffer.len() >= 100);
            buffer.as_ptr().align_offset(64)
        });
        assert_eq!(first, Ok(0));
        assert_eq!(with(10_000, |buffer| buffer.len() >= 10_000), Ok(true));
        assert!(capacity_bytes() >= 40_000);
    }

    #[test]
    fn an_impossible_size_is_an_error_and_the_next_one_works() {
        let floats = isize::MAX as usize / 2;
        assert!(matches!(with(floats, |_| ()), Err(KernelError::Scratch { .. })));
        assert_eq!(with(16, |buffer| buffer.len() >= 16), Ok(true));
    }
}
