//! Wide strips whose instructions `build/wide.rs` has written.

use std::mem::offset_of;

use super::Wide;

// The function must have been written for this very structure.
const WRITTEN: [usize; 22] = include!(concat!(env!("OUT_DIR"), "/wide_fields.rs"));
const _: () = {
    let fields = [
        offset_of!(Wide, input),
        offset_of!(Wide, stride),
        offset_of!(Wide, steps),
        offset_of!(Wide, weights),
        offset_of!(Wide, more_weights),
        offset_of!(Wide, bias),
        offset_of!(Wide, more_bias),
        offset_of!(Wide, output),
        offset_of!(Wide, more_output),
        offset_of!(Wide, output_plane),
        offset_of!(Wide, residual),
        offset_of!(Wide, continues),
        offset_of!(Wide, tiles),
        offset_of!(Wide, next),
        offset_of!(Wide, other_next),
        offset_of!(Wide, low),
        offset_of!(Wide, high),
        offset_of!(Wide, ahead),
        offset_of!(Wide, ahead_lines),
        offset_of!(Wide, ahead_each),
        offset_of!(Wide, touched),
        offset_of!(Wide, offsets),
    ];
    assert!(crate::fields::agree(&fields, &WRITTEN), "this was written for another `Wide`");
};

unsafe extern "C" {
    fn graphlet_strip_wide(wide: *mut Wide);
    fn graphlet_strip_wide_taps(wide: *mut Wide);
}

/// Computes a wide strip whose steps are channels, `stride` apart.
///
/// # Safety
/// Every pointer leads to what [`Wide`] says of it.
pub(crate) unsafe fn channels(wide: &mut Wide) {
    // SAFETY: the caller's promise.
    unsafe { graphlet_strip_wide(wide) }
}

/// Computes a wide strip whose steps are taps, an offset each.
///
/// # Safety
/// Every pointer leads to what [`Wide`] says of it.
pub(crate) unsafe fn taps(wide: &mut Wide) {
    // SAFETY: the caller's promise.
    unsafe { graphlet_strip_wide_taps(wide) }
}
