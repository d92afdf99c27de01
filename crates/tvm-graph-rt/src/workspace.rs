//! Scratch memory for kernels, kept from run to run.
//!
//! TVM's kernels ask for scratch at their start and give it back at their end, with the same
//! sizes on every run. A pool that keeps what it once had serves the second run without the
//! allocator, and holds about what was in use at one time at most.

use std::cell::RefCell;
use std::ptr;

use tensor::Storage;

#[derive(Default)]
struct Pool {
    blocks: Vec<Block>,
}

struct Block {
    /// Keeps the memory; not looked at while a kernel uses it.
    _storage: Storage<'static>,
    start: *mut u8,
    len: usize,
    used: bool,
}

thread_local! {
    /// Kernels run on the thread that called them.
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { blocks: Vec::new() }) };
}

/// Scratch of at least `len` bytes, aligned to [`tensor::ALIGNMENT`]; null when there is none.
pub(crate) fn allocate(len: usize) -> *mut u8 {
    POOL.with_borrow_mut(|pool| pool.take(len)).unwrap_or(ptr::null_mut())
}

/// Gives scratch back; whether it was ours and in use.
pub(crate) fn free(start: *const u8) -> bool {
    POOL.with_borrow_mut(|pool| {
        let block =
            pool.blocks.iter_mut().find(|block| block.used && block.start.cast_const() == start);
        block.map(|block| block.used = false).is_some()
    })
}

/// Takes all scratch back: a kernel that fails does not give it back itself.
pub(crate) fn free_all() {
    POOL.with_borrow_mut(|pool| pool.blocks.iter_mut().for_each(|block| block.used = false));
}

impl Pool {
    /// The smallest free block that is large enough; else the largest free one anew, so that
    /// small blocks do not pile up; else one more.
    fn take(&mut self, len: usize) -> Option<*mut u8> {
        let free = || self.blocks.iter().enumerate().filter(|(_, block)| !block.used);
        let fitting = free().filter(|(_, block)| block.len >= len).min_by_key(|(_, b)| b.len);
        let index = match fitting.map(|(index, _)| index) {
            Some(index) => index,
            None => {
                let largest = free().max_by_key(|(_, block)| block.len).map(|(index, _)| index);
                // The old one goes first: both together could be more than there is.
                if let Some(index) = largest {
                    self.blocks.swap_remove(index);
                }
                self.blocks.try_reserve(1).ok()?;
                self.blocks.push(Block::new(len)?);
                self.blocks.len() - 1
            }
        };
        let block = self.blocks.get_mut(index)?;
        block.used = true;
        Some(block.start)
    }
}

impl Block {
    fn new(len: usize) -> Option<Self> {
        // Never empty, so that every block has an address of its own.
        let mut storage = Storage::zeroed(len.max(1)).ok()?;
        let start = storage.as_bytes_mut()?.as_mut_ptr();
        Some(Block { _storage: storage, start, len: len.max(1), used: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_bytes() -> usize {
        POOL.with_borrow(|pool| pool.blocks.iter().map(|block| block.len).sum())
    }

    #[test]
    fn scratch_is_kept_and_served_again() {
        let run = || {
            let outer = allocate(1000);
            let inner = allocate(500);
            assert_ne!(outer, inner);
            assert!(outer.is_null() || outer.align_offset(tensor::ALIGNMENT) == 0);
            assert!(free(inner) && free(outer));
            (outer, inner)
        };
        let first = run();
        assert_eq!(first, run());
        assert_eq!(kept_bytes(), 1500);
    }

    #[test]
    fn growing_scratch_replaces_what_was_too_small() {
        for len in 1..100 {
            assert!(free(allocate(len * 1000)));
        }
        assert_eq!(kept_bytes(), 99_000);
    }

    #[test]
    fn scratch_in_use_is_never_given_twice() {
        let blocks: Vec<_> = (0..20).map(|n| allocate(n * 10)).collect();
        for (i, block) in blocks.iter().enumerate() {
            assert!(!blocks[..i].contains(block));
        }
        free_all();
        assert!(!free(blocks[0]), "already free");
        let kept = kept_bytes();
        assert!(blocks.contains(&allocate(190)));
        assert_eq!(kept_bytes(), kept);
    }

    #[test]
    fn impossible_scratch_is_null() {
        assert!(allocate(usize::MAX).is_null());
        assert!(!free(ptr::null()));
    }
}
