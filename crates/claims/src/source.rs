//! Where a module's bytes come from: memory, or whatever its caller can read pieces of.
//!
//! A module of 150 MB is nearly all weights, of which a scan needs none: section headers and
//! tokens are a few kilobytes, and a hash needs each byte once.

use std::{io, ops::Range};

/// The bytes of a module, readable in pieces, in any order and more than once.
///
/// Nothing holds them still: two reads of one piece may differ when somebody writes into the file
/// in between. What is concluded from them says so.
pub trait Source: Send + Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;

    /// The bytes at `range`, which ends within [`Source::size`]: a slice of the source itself, or
    /// of `buffer`, whose contents and length are the source's to change.
    ///
    /// # Errors
    /// When not all of them can be read.
    fn piece<'a>(&'a self, range: Range<usize>, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]>;
}

impl Source for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn piece<'a>(&'a self, range: Range<usize>, _: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        self.get(range).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn piece<'a>(&'a self, range: Range<usize>, _: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        self.get(range).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
