//! Depthwise 3x3 windows whose instructions `build/depthwise.rs` has written.

use std::mem::offset_of;

use super::Planes;

// The functions must have been written for this very structure.
const WRITTEN: [usize; 18] = include!(concat!(env!("OUT_DIR"), "/depthwise_fields.rs"));
const _: () = {
    let fields = [
        offset_of!(Planes, x),
        offset_of!(Planes, zeros),
        offset_of!(Planes, weights),
        offset_of!(Planes, bias),
        offset_of!(Planes, residual),
        offset_of!(Planes, y),
        offset_of!(Planes, count),
        offset_of!(Planes, start),
        offset_of!(Planes, height),
        offset_of!(Planes, row),
        offset_of!(Planes, output_height),
        offset_of!(Planes, output_row),
        offset_of!(Planes, left),
        offset_of!(Planes, inner),
        offset_of!(Planes, back),
        offset_of!(Planes, right),
        offset_of!(Planes, low),
        offset_of!(Planes, high),
    ];
    assert!(
        crate::fields::agree(&fields, &WRITTEN),
        "these functions were written for another `Planes`"
    );
};

unsafe extern "C" {
    fn graphlet_depthwise_by_1(planes: *const Planes);
    fn graphlet_depthwise_by_2(planes: *const Planes);
}

/// Computes planes at stride 1.
///
/// # Safety
/// Every pointer leads to what [`Planes`] says of it.
pub(crate) unsafe fn by_1(planes: &Planes) {
    // SAFETY: the caller's promise.
    unsafe { graphlet_depthwise_by_1(planes) }
}

/// Computes planes at stride 2.
///
/// # Safety
/// As [`by_1`].
pub(crate) unsafe fn by_2(planes: &Planes) {
    // SAFETY: the caller's promise.
    unsafe { graphlet_depthwise_by_2(planes) }
}
