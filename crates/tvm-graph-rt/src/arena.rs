//! The memory that kernels write: one piece, zeros at first.
//!
//! In a guest it is taken from the end of the linear memory, past the allocator, which would write
//! its zeros: so no page of it is touched before the first run, and in a module that was written
//! down with its model loaded it lies behind all data and takes no part in the initial image.
#![cfg_attr(
    target_arch = "wasm32",
    expect(unsafe_code, reason = "names memory that was just grown; the proof is below")
)]

use tensor::StorageError;

/// Zeros of a planned length, aligned to [`tensor::ALIGNMENT`].
#[derive(Debug)]
pub(crate) struct Arena {
    #[cfg(not(target_arch = "wasm32"))]
    bytes: tensor::Storage<'static>,
    #[cfg(target_arch = "wasm32")]
    bytes: &'static mut [u8],
}

#[cfg(not(target_arch = "wasm32"))]
impl Arena {
    /// Memory of this length.
    pub(crate) fn zeroed(len: usize) -> Result<Self, StorageError> {
        Ok(Self { bytes: tensor::Storage::zeroed(len)? })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_bytes()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.as_bytes_mut().expect("zeroed storage owns its bytes")
    }
}

#[cfg(target_arch = "wasm32")]
impl Arena {
    /// Memory of this length. It is never given back, for WebAssembly's memory does not shrink: a
    /// guest makes one executor and keeps it.
    pub(crate) fn zeroed(len: usize) -> Result<Self, StorageError> {
        const PAGE_BYTES: usize = 1 << 16;
        const { assert!(PAGE_BYTES.is_multiple_of(tensor::ALIGNMENT)) };
        if isize::try_from(len).is_err() {
            return Err(StorageError { bytes: len });
        }
        // A page also for tensors that are all without elements: a host is told where they lie,
        // and that has to be aligned, which no bytes at all would not be.
        let page = core::arch::wasm32::memory_grow::<0>(len.max(1).div_ceil(PAGE_BYTES));
        if page == usize::MAX {
            return Err(StorageError { bytes: len });
        }
        let start = core::ptr::with_exposed_provenance_mut(page * PAGE_BYTES);
        // SAFETY: these pages did not exist before, so nobody else knows of them, and they are
        // zeros. The allocator takes pages by the same instruction and touches no others. `len`
        // fits into them and into an `isize`.
        let bytes = unsafe { core::slice::from_raw_parts_mut(start, len) };
        Ok(Self { bytes })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_is_aligned_zeros() {
        for len in [0, 1, 64, 100_000] {
            let mut arena = Arena::zeroed(len).expect("small");
            assert_eq!(arena.bytes(), vec![0; len]);
            assert_eq!(arena.bytes().as_ptr().align_offset(tensor::ALIGNMENT), 0);
            arena.bytes_mut().fill(7);
            assert_eq!(arena.bytes(), vec![7; len]);
        }
        assert!(Arena::zeroed(usize::MAX).is_err());
    }
}
