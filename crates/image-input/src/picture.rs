//! A decoded image.

use std::ops::{Deref, DerefMut};

/// 8-bit pixels, rows from the top, grey (1 channel) or RGB (3 channels), interleaved (HWC),
/// without padding between rows.
#[derive(Debug, PartialEq, Eq)]
pub struct Picture<'a> {
    width: u32,
    height: u32,
    channels: usize,
    pixels: Pixels<'a>,
    coverage: Coverage,
}

/// What part of its pixels shows the file's picture: all, unless the file was decoded at a reduced
/// size that does not divide its extents. In the file's pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coverage {
    /// Columns and rows of the file.
    pub width: u32,
    pub height: u32,
    /// Columns before the first that shows something, and rows above it.
    pub left: u32,
    pub top: u32,
    /// Each pixel stands for `2^shift` of the file's in each direction.
    pub shift: u32,
}

impl Coverage {
    pub(crate) fn new(width: u32, height: u32, shift: u32) -> Self {
        Self { width, height, left: 0, top: 0, shift }
    }

    /// What a picture of so many pixels shows when left is right and above is below, as said, and
    /// then rows are columns.
    pub(crate) fn turned(
        self,
        (width, height): (u32, u32),
        mirror_columns: bool,
        mirror_rows: bool,
        swap: bool,
    ) -> Self {
        let mirror = |mirrored: bool, pixels: u32, covered: u32, before: u32| {
            if mirrored { (pixels << self.shift) - covered - before } else { before }
        };
        let left = mirror(mirror_columns, width, self.width, self.left);
        let top = mirror(mirror_rows, height, self.height, self.top);
        if swap {
            Self { width: self.height, height: self.width, left: top, top: left, ..self }
        } else {
            Self { left, top, ..self }
        }
    }
}

/// Bytes of a picture: its own, or the beginning of memory that was lent for it.
#[derive(Debug)]
pub(crate) enum Pixels<'a> {
    Own(Vec<u8>),
    Lent(&'a mut [u8]),
}

impl Pixels<'_> {
    /// Keeps the first `len` bytes, and no memory for more.
    pub(crate) fn truncate(&mut self, len: usize) {
        match self {
            Pixels::Own(bytes) => {
                bytes.truncate(len);
                bytes.shrink_to_fit();
            }
            Pixels::Lent(bytes) => {
                let len = len.min(bytes.len());
                let (kept, _) = std::mem::take(bytes).split_at_mut(len);
                *bytes = kept;
            }
        }
    }
}

impl Deref for Pixels<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Pixels::Own(bytes) => bytes,
            Pixels::Lent(bytes) => bytes,
        }
    }
}

impl DerefMut for Pixels<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Pixels::Own(bytes) => bytes,
            Pixels::Lent(bytes) => bytes,
        }
    }
}

impl PartialEq for Pixels<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Pixels<'_> {}

impl<'a> Picture<'a> {
    /// Wraps pixels that are there already; `channels` is 1 (grey) or 3 (RGB).
    ///
    /// Returns `None` unless both extents are positive and `pixels` holds exactly
    /// `width * height * channels` bytes.
    pub fn from_pixels(width: u32, height: u32, channels: usize, pixels: Vec<u8>) -> Option<Self> {
        Self::new(width, height, channels, Pixels::Own(pixels))
    }

    pub(crate) fn new(
        width: u32,
        height: u32,
        channels: usize,
        pixels: Pixels<'a>,
    ) -> Option<Self> {
        let len = (width as usize).checked_mul(height as usize)?.checked_mul(channels)?;
        let sound = len > 0 && len == pixels.len() && (channels == 1 || channels == 3);
        let coverage = Coverage::new(width, height, 0);
        sound.then_some(Self { width, height, channels, pixels, coverage })
    }

    pub(crate) fn covering(self, coverage: Coverage) -> Self {
        Self { coverage, ..self }
    }

    pub(crate) fn coverage(&self) -> Coverage {
        self.coverage
    }

    /// Columns, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// 1 for grey, 3 for RGB.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// `height * width * channels` bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    pub(crate) fn into_pixels(self) -> Pixels<'a> {
        self.pixels
    }

    pub(crate) fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lent_and_own_pixels_are_cut_and_compared_alike() {
        let mut memory = [1, 2, 3, 4, 5, 6, 7];
        let mut lent = Pixels::Lent(&mut memory);
        let mut own = Pixels::Own(vec![1, 2, 3, 4, 5, 6, 7]);
        for len in [9, 7, 3] {
            lent.truncate(len);
            own.truncate(len);
            assert_eq!(lent.len(), len.min(7));
            assert_eq!(lent, own);
        }
        let picture = Picture::new(1, 1, 3, lent).unwrap();
        assert_eq!(picture, Picture::from_pixels(1, 1, 3, vec![1, 2, 3]).unwrap());
        assert!(Picture::new(2, 1, 3, own).is_none());
    }
}
