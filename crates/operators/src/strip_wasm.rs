//! Strips whose instructions `build/strip.rs` has written.

use std::mem::offset_of;

use super::Strip;

// Where the written functions look for the fields.
const _: () = assert!(offset_of!(Strip, offsets) == 8 && offset_of!(Strip, touched) == 72);

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

/// Window rows of three neighbouring columns, an offset each.
///
/// # Safety
/// As [`channels`].
pub(crate) unsafe fn rows_of_three(strip: &mut Strip) {
    // SAFETY: the caller's promise.
    unsafe { graphlet_strip_rows_of_three(strip) }
}

/// Window rows of so many columns, the odd ones `stride` behind the even ones, an offset each.
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
