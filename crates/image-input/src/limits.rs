//! How much of everything one image may take, checked before it is decoded.

use crate::{Format, ImageError, picture::Pixels};

/// Bounds on one image. Each default stands beside its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the encoded image. 16 MiB: as large as the HTTP provider's body limit.
    pub max_bytes: usize,
    /// Pixels of the decoded image. 64 megapixels: no telephone's usual picture has more.
    pub max_pixels: u64,
    /// Pixels on one side. 16,384: the widest a WebP or a GPU texture can be.
    pub max_side: u32,
    /// Bytes that decoding may hold at one time, by the decoder's own arithmetic. 384 MiB: a
    /// 64-megapixel RGB picture twice, which turning it by 90 degrees takes, and less than the
    /// 512 MiB that a guest has.
    pub max_memory: u64,
    /// Scans of a progressive JPEG. 100: encoders write 10; each one visits every block.
    pub max_jpeg_scans: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 16 << 20,
            max_pixels: 64_000_000,
            max_side: 16_384,
            max_memory: 384 << 20,
            max_jpeg_scans: 100,
        }
    }
}

impl Limits {
    /// Accepts the extents that a header claims, or says why not.
    pub(crate) fn check_extents(
        &self,
        format: Format,
        width: u32,
        height: u32,
    ) -> Result<(), ImageError> {
        if width == 0 || height == 0 {
            return Err(ImageError::broken(
                format,
                format_args!("it is {width} x {height} pixels"),
            ));
        }
        if width > self.max_side || height > self.max_side {
            return Err(ImageError::SideTooLong { width, height, limit: self.max_side });
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(ImageError::TooManyPixels { width, height, limit: self.max_pixels });
        }
        Ok(())
    }

    /// Accepts a decoder's need of memory, or says why not.
    pub(crate) fn check_memory(&self, needed: u64) -> Result<(), ImageError> {
        if needed > self.max_memory {
            return Err(ImageError::TooMuchMemory { needed, limit: self.max_memory });
        }
        Ok(())
    }

    /// Zeroed bytes: the beginning of `scratch` if that is long enough, else a buffer.
    pub(crate) fn allocate_in<'a>(
        &self,
        len: usize,
        scratch: &'a mut [u8],
    ) -> Result<Pixels<'a>, ImageError> {
        self.check_memory(len as u64)?;
        match scratch.get_mut(..len) {
            Some(lent) => {
                lent.fill(0);
                Ok(Pixels::Lent(lent))
            }
            None => self.allocate(len).map(Pixels::Own),
        }
    }

    /// A zeroed buffer, when it is within the limit and the allocator has it.
    pub(crate) fn allocate(&self, len: usize) -> Result<Vec<u8>, ImageError> {
        self.check_memory(len as u64)?;
        let mut buffer = Vec::new();
        if buffer.try_reserve_exact(len).is_err() {
            return Err(ImageError::OutOfMemory { needed: len as u64 });
        }
        buffer.resize(len, 0);
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_and_an_allocator_that_refuses_are_told_apart() {
        let limits = Limits { max_memory: u64::MAX, ..Limits::default() };
        let needed = 1_u64 << 62;
        let refused = limits.allocate(needed as usize).unwrap_err();
        assert_eq!(refused, ImageError::OutOfMemory { needed });
        let limits = Limits { max_memory: 9, ..limits };
        let refused = limits.allocate(10).unwrap_err();
        assert_eq!(refused, ImageError::TooMuchMemory { needed: 10, limit: 9 });
    }
}
