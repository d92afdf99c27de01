//! Pages of a guest's memory, mapped on a thread of their own before the guest looks at them.
//!
//! A memory begins as a private mapping of the file of compiled code, in which the module's data
//! lies: weights, nearly all of it. They are in the page cache, yet each first look at sixteen of
//! their pages is a fault, more than two thousand for 140 MB. Where another core is free, it can take
//! them all in one go while the guest begins.

#![allow(unsafe_code, reason = "a system call on raw addresses")]

use std::{
    fs, io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use tracing::debug;

/// Bytes that are mapped between two looks at whether the instance is gone: a millisecond's work,
/// and a multiple of every page size.
const STEP_BYTES: usize = 16 << 20;

/// Memories smaller than this are not worth a thread: sixty faults.
const WORTH_BYTES: usize = 4 << 20;

/// A thread that maps the pages of one memory. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct PagesAhead {
    gone: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PagesAhead {
    /// Begins with what of `memory` is mapped from a file; `None` when that is little, or no
    /// thread can be had.
    ///
    /// What the memory holds stays as it is, also where other threads write meanwhile.
    pub(crate) fn start(memory: Range<usize>) -> Option<Self> {
        if memory.len() < WORTH_BYTES {
            return None;
        }
        let gone = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&gone);
        let work = move || {
            if let Err(error) = map(&memory, &seen) {
                debug!(%error, "Pages are not mapped ahead");
            }
        };
        let thread = thread::Builder::new().name("pages".into()).spawn(work).ok()?;
        Some(Self { gone, thread: Some(thread) })
    }
}

impl Drop for PagesAhead {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic, and there would be nothing to do about it.
            thread.join().ok();
        }
    }
}

fn map(memory: &Range<usize>, gone: &AtomicBool) -> io::Result<()> {
    let mappings = fs::read_to_string("/proc/self/maps")?;
    for part in mappings.lines().filter_map(file_mapping) {
        let part = part.start.max(memory.start)..part.end.min(memory.end);
        for start in part.clone().step_by(STEP_BYTES) {
            if gone.load(Ordering::Relaxed) {
                return Ok(());
            }
            populate(start..part.end.min(start + STEP_BYTES))?;
        }
    }
    Ok(())
}

/// The addresses of a line of `/proc/self/maps`, if a file is mapped there (proc_pid_maps(5)).
fn file_mapping(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let inode = fields.nth(3)?;
    let address = |text: &str| usize::from_str_radix(text, 16).ok();
    (inode != "0").then_some(address(start)?..address(end)?)
}

/// Makes pages readable without a fault (madvise(2), Linux 5.14).
#[cfg(target_os = "linux")]
fn populate(pages: Range<usize>) -> io::Result<()> {
    let address = std::ptr::without_provenance_mut(pages.start);
    // SAFETY: this advice changes neither contents nor protection, wherever the addresses point:
    // what is not mapped is an error, and a page that cannot be read is one, too, not a signal.
    let status = unsafe { libc::madvise(address, pages.len(), libc::MADV_POPULATE_READ) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn populate(_pages: Range<usize>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_of_files_count() {
        for (line, expected) in [
            ("7f00-9f00 rw-p 00001000 fe:00 1234      /a file", Some(0x7f00..0x9f00)),
            ("7f00-9f00 r--p 00000000 00:01 77", Some(0x7f00..0x9f00)),
            ("7f00-9f00 rw-p 00000000 00:00 0", None),
            ("7f00-9f00 rw-p 00000000 00:00 0         [heap]", None),
            ("7f00 rw-p 00000000 00:00 12", None),
            ("x-y rw-p 00000000 00:00 12", None),
            ("7f00-9f00 rw-p", None),
            ("", None),
        ] {
            assert_eq!(file_mapping(line), expected, "{line}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn addresses_where_nothing_is_are_an_error_and_no_more() {
        assert!(populate(0x1000..0x3000).is_err());
        assert!(populate(0x1001..0x3000).is_err());
        let gone = AtomicBool::new(true);
        map(&(0..usize::MAX), &gone).unwrap();
    }
}
