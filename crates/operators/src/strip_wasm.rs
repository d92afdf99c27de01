//! Strips whose instructions `build/strip.rs` has written.

use std::mem::offset_of;

use super::Strip;

// Where the written functions look for the fields.
const _: () = assert!(offset_of!(Strip, offsets) == 8 && offset_of!(Strip, high) == 52);

unsafe extern "C" {
    fn graphlet_strip_channels(strip: *const Strip);
    fn graphlet_strip_channels_in_legs(strip: *const Strip);
    fn graphlet_strip_rows_of_three(strip: *const Strip);
    fn graphlet_strip_split_rows_of_three(strip: *const Strip);
    fn graphlet_strip_split_rows_of_five(strip: *const Strip);
    fn graphlet_strip_split_rows_of_seven(strip: *const Strip);
    fn graphlet_strip_table(strip: *const Strip);
}

/// A step a channel, `stride` apart.
///
/// # Safety
/// Every pointer leads to what [`Strip`] says of it.
pub(crate) unsafe fn channels(strip: &Strip) {
    // SAFETY: the caller's promise.
    unsafe { graphlet_strip_channels(strip) }
}

/// The same in legs.
///
/// # Safety
/// As [`channels`].
pub(crate) unsafe fn channels_in_legs(strip: &Strip) {
    // SAFETY: the caller's promise.
    unsafe { graphlet_strip_channels_in_legs(strip) }
}

/// Window rows of three neighbouring columns, an offset each.
///
/// # Safety
/// As [`channels`].
pub(crate) unsafe fn rows_of_three(strip: &Strip) {
    // SAFETY: the caller's promise.
    unsafe { graphlet_strip_rows_of_three(strip) }
}

/// Window rows of so many columns, the odd ones `stride` behind the even ones, an offset each.
///
/// # Safety
/// As [`channels`].
pub(crate) unsafe fn split_rows<const COLUMNS: usize>(strip: &Strip) {
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
pub(crate) unsafe fn table(strip: &Strip) {
    // SAFETY: the caller's promise.
    unsafe { graphlet_strip_table(strip) }
}
