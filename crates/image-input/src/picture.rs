//! A decoded image.

/// 8-bit pixels, rows from the top, grey (1 channel) or RGB (3 channels), interleaved (HWC),
/// without padding between rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    channels: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// Wraps pixels that are there already; `channels` is 1 (grey) or 3 (RGB).
    ///
    /// Returns `None` unless both extents are positive and `pixels` holds exactly
    /// `width * height * channels` bytes.
    pub fn from_pixels(width: u32, height: u32, channels: usize, pixels: Vec<u8>) -> Option<Self> {
        let len = (width as usize).checked_mul(height as usize)?.checked_mul(channels)?;
        let sound = len > 0 && len == pixels.len() && (channels == 1 || channels == 3);
        sound.then_some(Self { width, height, channels, pixels })
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

    pub(crate) fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    pub(crate) fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }
}
