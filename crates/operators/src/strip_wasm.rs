//! Strips whose instructions `build/strip.rs` has written.

use std::mem::offset_of;

use super::Strip;

// The functions must have been written for this very structure.
const WRITTEN: [usize; 19] = include!(concat!(env!("OUT_DIR"), "/strip_fields.rs"));
const _: () = {
    let fields = [
        offset_of!(Strip, input),
        offset_of!(Strip, stride),
        offset_of!(Strip, offsets),
        offset_of!(Strip, steps),
        offset_of!(Strip, leg),
        offset_of!(Strip, weights),
        offset_of!(Strip, bias),
        offset_of!(Strip, output),
        offset_of!(Strip, output_plane),
        offset_of!(Strip, residual),
        offset_of!(Strip, channels),
        offset_of!(Strip, tiles),
        offset_of!(Strip, low),
        offset_of!(Strip, high),
        offset_of!(Strip, next),
        offset_of!(Strip, ahead),
        offset_of!(Strip, ahead_lines),
        offset_of!(Strip, ahead_each),
        offset_of!(Strip, touched),
    ];
    assert!(
        crate::fields::agree(&fields, &WRITTEN),
        "these strips were written for another `Strip`"
    );
};

unsafe extern "C" {
    fn graphlet_strip_channels(strip: *mut Strip);
    fn graphlet_strip_channels_in_legs(strip: *mut Strip);
    fn graphlet_strip_rows_of_three(strip: *mut Strip);
    fn graphlet_strip_split_rows_of_three(strip: *mut Strip);
    fn graphlet_strip_split_rows_of_five(strip: *mut Strip);
    fn graphlet_strip_split_rows_of_seven(strip: *mut Strip);
    fn graphlet_strip_table(strip: *mut Strip);
}

/// A step a channel, `stride` apart.
///
/// # Safety
/// Every pointer leads to what [`Strip`] says of it.
pub(crate) unsafe fn channels(strip: &mut Strip) {
    // SAFETY: the caller's promise.
    unsafe { graphlet_strip_channels(strip) }
}

/// The same in legs.
///
/// # Safety
/// As [`channels`].
pub(crate) unsafe fn channels_in_legs(strip: &mut Strip) {
    // SAFETY: the caller's promise.
    unsafe { graphlet_strip_channels_in_legs(strip) }
}

/// Window rows of three neighbouring columns, at the offset of the first.
///
/// # Safety
/// As [`channels`].
pub(crate) unsafe fn rows_of_three(strip: &mut Strip) {
    // SAFETY: the caller's promise.
    unsafe { graphlet_strip_rows_of_three(strip) }
}

/// Window rows of so many columns at the offset of the first, the odd ones `stride` behind the even
/// ones.
///
/// # Safety
/// As [`channels`].
pub(crate) unsafe fn split_rows<const COLUMNS: usize>(strip: &mut Strip) {
    // SAFETY: the caller's promise.
    unsafe {
        match COLUMNS {
            3 => graphlet_strip_split_rows_of_three(strip),
            5 => graphlet_strip_split_rows_of_five(strip),
            _ => graphlet_strip_split_rows_of_seven(strip),
        }
    }
}

/// An offset a step.
///
/// # Safety
/// As [`channels`].
pub(crate) unsafe fn table(strip: &mut Strip) {
    // SAFETY: the caller's promise.
    unsafe { graphlet_strip_table(strip) }
}
