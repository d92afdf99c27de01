//! The memory of a module that a host has asked for: the only places where it may put anything.

use std::collections::BTreeMap;

use crate::Storage;

/// Buffers by the address at which they start. Each starts at a multiple of
/// [`crate::ALIGNMENT`] and lives until the host gives it back.
#[derive(Debug, Default)]
pub struct Buffers {
    blocks: BTreeMap<u32, Storage<'static>>,
}

impl Buffers {
    /// A new buffer of zeros; its address, or `None` when there is no such memory.
    pub fn allocate(&mut self, bytes: u32) -> Option<u32> {
        let block = Storage::zeroed(usize::try_from(bytes).ok()?).ok()?;
        let address = address_of(block.as_bytes());
        self.blocks.insert(address, block);
        Some(address)
    }

    /// Gives a buffer back; whether it was one.
    pub fn free(&mut self, address: u32) -> bool {
        self.blocks.remove(&address).is_some()
    }

    /// `len` bytes from `address` on, if they lie within one buffer.
    pub fn get(&self, address: u32, len: u32) -> Option<&[u8]> {
        let (start, block) = self.blocks.range(..=address).next_back()?;
        let offset = (address - start) as usize;
        block.as_bytes().get(offset..offset.checked_add(len as usize)?)
    }

    /// As [`Buffers::get`], to write to.
    pub fn get_mut(&mut self, address: u32, len: u32) -> Option<&mut [u8]> {
        let (start, block) = self.blocks.range_mut(..=address).next_back()?;
        let offset = (address - start) as usize;
        block.as_bytes_mut()?.get_mut(offset..offset.checked_add(len as usize)?)
    }

    /// How many bytes there are from `address` to the end of its buffer.
    pub fn room(&self, address: u32) -> usize {
        let found = self.blocks.range(..=address).next_back();
        found.map_or(0, |(start, block)| {
            block.as_bytes().len().saturating_sub((address - start) as usize)
        })
    }
}

/// Where bytes lie, as a host counts: from the start of the module's memory. Natively, where only
/// tests are, the lower half of the address.
pub fn address_of(bytes: &[u8]) -> u32 {
    bytes.as_ptr().addr() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_can_be_read_and_written() {
        let mut buffers = Buffers::default();
        let address = buffers.allocate(100).expect("small");
        assert_eq!(address % 64, 0);
        buffers.get_mut(address, 100).expect("inside").fill(7);
        assert_eq!(buffers.get(address + 98, 2), Some(&[7, 7][..]));
        assert_eq!(buffers.get(address + 100, 0), Some(&[][..]));
        assert_eq!(buffers.get(address + 99, 2), None);
        assert_eq!(buffers.get(address + 101, 0), None);
        assert_eq!(buffers.get(address - 1, 1), None);
        assert_eq!(buffers.get(address, u32::MAX), None);
        assert_eq!((buffers.room(address + 98), buffers.room(address + 200)), (2, 0));
        assert!(buffers.free(address) && !buffers.free(address));
        assert_eq!(buffers.get_mut(address, 1), None);
    }

    #[test]
    fn empty_buffers_have_addresses_of_their_own() {
        let mut buffers = Buffers::default();
        let (one, other) = (buffers.allocate(0), buffers.allocate(0));
        assert!(one.is_some() && one != other);
    }
}
