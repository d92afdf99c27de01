//! DLPack's tensor descriptor, as TVM's kernels take it. Only the layout: whoever fills the
//! pointers in, or follows them, does so in an unsafe room of its own.

use std::ffi::c_void;

use crate::DType;

/// Where a tensor lies (`DLDevice`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct DLDevice {
    /// Kind of device; `kDLCPU` is 1.
    pub device_type: i32,
    /// Which one.
    pub device_id: i32,
}

impl DLDevice {
    /// The processor's own memory.
    pub const CPU: Self = DLDevice { device_type: 1, device_id: 0 };
}

/// DLPack's `DLTensor`: pointers to data, extents and strides that somebody else owns.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct DLTensor {
    /// First byte; aligned to [`crate::ALIGNMENT`] for TVM's kernels.
    pub data: *mut c_void,
    /// Where `data` lies.
    pub device: DLDevice,
    /// Number of dimensions.
    pub ndim: i32,
    /// Element type.
    pub dtype: DType,
    /// `ndim` extents, outermost first.
    pub shape: *const i64,
    /// `ndim` strides in elements; never null here, so that kernels need not guess.
    pub strides: *const i64,
    /// Offset of the first element from `data`.
    pub byte_offset: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn the_descriptor_is_laid_out_as_dlpack_lays_it_out() {
        let pointer = size_of::<usize>();
        assert_eq!(offset_of!(DLTensor, device), pointer);
        assert_eq!(offset_of!(DLTensor, ndim), pointer + 8);
        assert_eq!(offset_of!(DLTensor, dtype), pointer + 12);
        assert_eq!(offset_of!(DLTensor, shape), pointer + 16);
        assert_eq!(offset_of!(DLTensor, strides), 2 * pointer + 16);
        assert_eq!(offset_of!(DLTensor, byte_offset) % 8, 0);
        assert_eq!(size_of::<DLTensor>(), if pointer == 8 { 48 } else { 40 });
    }
}
