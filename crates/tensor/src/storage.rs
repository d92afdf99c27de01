//! The bytes of a tensor: owned and aligned for any vector unit, or borrowed where they lie.

use std::fmt;

/// Alignment in bytes of every owned buffer and of every tensor in a model block: one cache
/// line, and what TVM's kernels are compiled for.
pub const ALIGNMENT: usize = 64;

/// Bytes that a tensor owns or borrows.
pub enum Storage<'a> {
    /// A buffer of our own that starts at a multiple of [`ALIGNMENT`].
    Owned(AlignedBytes),
    /// Somebody else's bytes, used in place and never written.
    Borrowed(&'a [u8]),
}

/// The memory for a tensor could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("out of memory: {bytes} bytes could not be allocated")]
pub struct StorageError {
    /// How much was asked for.
    pub bytes: usize,
}

/// A heap buffer that starts at a multiple of [`ALIGNMENT`].
///
/// It is a longer `Vec` of which the bytes from the first aligned address on are used; the heap
/// block does not move when the value moves, so the offset stays right.
pub struct AlignedBytes {
    block: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    fn zeroed(len: usize) -> Result<Self, StorageError> {
        let mut block = Vec::new();
        let padded = len.checked_add(ALIGNMENT - 1).ok_or(StorageError { bytes: len })?;
        block.try_reserve_exact(padded).map_err(|_| StorageError { bytes: len })?;
        block.resize(padded, 0);
        let start = block.as_ptr().align_offset(ALIGNMENT);
        // `align_offset` may in theory give up (usize::MAX); for bytes it does not.
        if start >= ALIGNMENT {
            return Err(StorageError { bytes: len });
        }
        Ok(AlignedBytes { block, start, len })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.block[self.start..self.start + self.len]
    }

    fn as_bytes_mut(&mut self) -> &mut [u8] {
        &mut self.block[self.start..self.start + self.len]
    }
}

impl<'a> Storage<'a> {
    /// An owned buffer of zeros.
    ///
    /// # Errors
    /// [`StorageError`] when there is no such memory.
    pub fn zeroed(len: usize) -> Result<Self, StorageError> {
        AlignedBytes::zeroed(len).map(Storage::Owned)
    }

    /// An owned copy.
    ///
    /// # Errors
    /// [`StorageError`] when there is no such memory.
    pub fn copy_of(bytes: &[u8]) -> Result<Self, StorageError> {
        let mut owned = AlignedBytes::zeroed(bytes.len())?;
        owned.as_bytes_mut().copy_from_slice(bytes);
        Ok(Storage::Owned(owned))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Storage::Owned(owned) => owned.as_bytes(),
            Storage::Borrowed(bytes) => bytes,
        }
    }

    /// The bytes to write to; `None` when they are borrowed.
    pub fn as_bytes_mut(&mut self) -> Option<&mut [u8]> {
        match self {
            Storage::Owned(owned) => Some(owned.as_bytes_mut()),
            Storage::Borrowed(_) => None,
        }
    }

    /// Whether the bytes start at a multiple of [`ALIGNMENT`].
    pub fn is_aligned(&self) -> bool {
        self.as_bytes().as_ptr().align_offset(ALIGNMENT) == 0
    }
}

impl fmt::Debug for Storage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, len) = match self {
            Storage::Owned(owned) => ("Owned", owned.len),
            Storage::Borrowed(bytes) => ("Borrowed", bytes.len()),
        };
        write!(f, "{kind}({len} bytes)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_bytes_start_at_a_cache_line_wherever_they_move() {
        let all: Vec<_> = (0..50).map(|n| Storage::zeroed(n * 7).expect("small")).collect();
        let boxed: Vec<_> = all.into_iter().map(Box::new).collect();
        for (n, storage) in boxed.iter().enumerate() {
            assert!(storage.is_aligned());
            assert_eq!(storage.as_bytes(), vec![0; n * 7]);
        }
    }

    #[test]
    fn impossible_sizes_are_errors() {
        for bytes in [usize::MAX, isize::MAX as usize] {
            assert_eq!(Storage::zeroed(bytes).err(), Some(StorageError { bytes }));
        }
    }

    #[test]
    fn borrowed_bytes_cannot_be_written() {
        let bytes = [1, 2, 3];
        assert!(Storage::Borrowed(&bytes).as_bytes_mut().is_none());
        let mut copy = Storage::copy_of(&bytes).expect("small");
        copy.as_bytes_mut().expect("owned")[0] = 9;
        assert_eq!((copy.as_bytes(), bytes), (&[9, 2, 3][..], [1, 2, 3]));
    }
}
