//! Pages of a guest's memory, mapped on a thread of their own before the guest looks at them.
//!
//! A memory begins as a private mapping of the file of compiled code, in which the module's data
//! lies: weights, nearly all of it. They are in the page cache, yet each first look at sixteen of
//! their pages is a fault, more than two thousand for 140 MB. Behind the data lie the activations,
//! zeros until each of their pages is asked for. Where another core is free, it can take all of
//! them in one go while the guest begins.

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
    /// Begins with what of `memory` is mapped from a file, and what lies behind that; `None` when
    /// it is little, or no thread can be had.
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
    let data: Vec<Range<usize>> = (mappings.lines().filter_map(file_mapping))
        .map(|part| part.start.max(memory.start)..part.end.min(memory.end))
        .filter(|part| !part.is_empty())
        .collect();
    let Some(last) = data.last() else { return Ok(()) };
    // First what is written before many weights are read. In front of the data is the stack, of
    // which few pages are ever used.
    in_steps(last.end..memory.end, gone, Access::Write)?;
    data.into_iter().try_for_each(|part| in_steps(part, gone, Access::Read))
}

/// What pages are made ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Those of a file stay the file's.
    Read,
    /// Each gets memory of its own.
    Write,
}

fn in_steps(pages: Range<usize>, gone: &AtomicBool, access: Access) -> io::Result<()> {
    for start in pages.clone().step_by(STEP_BYTES) {
        if gone.load(Ordering::Relaxed) {
            break;
        }
        populate(start..pages.end.min(start + STEP_BYTES), access)?;
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

/// Makes pages accessible without a fault (madvise(2), Linux 5.14).
#[cfg(target_os = "linux")]
fn populate(pages: Range<usize>, access: Access) -> io::Result<()> {
    let advice = match access {
        Access::Read => libc::MADV_POPULATE_READ,
        Access::Write => libc::MADV_POPULATE_WRITE,
    };
    let address = std::ptr::without_provenance_mut(pages.start);
    // SAFETY: this advice changes neither contents nor protection, wherever the addresses point:
    // what is not mapped is an error, and a page that cannot be had is one, too, not a signal.
    let status = unsafe { libc::madvise(address, pages.len(), advice) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn populate(_pages: Range<usize>, _access: Access) -> io::Result<()> {
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
        for access in [Access::Read, Access::Write] {
            assert!(populate(0x1000..0x3000, access).is_err());
            assert!(populate(0x1001..0x3000, access).is_err());
        }
        map(&(0..usize::MAX), &AtomicBool::new(true)).unwrap();
    }

    /// KiB in memory of the mapping that begins at `start`.
    #[cfg(target_os = "linux")]
    fn resident_kib(start: usize) -> u64 {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let line = maps.lines().skip_while(|line| !line.starts_with(&format!("{start:x}-")));
        let rss = line.skip(1).find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_guests_data_and_what_lies_behind_it_are_mapped_and_stay_what_they_are() {
        use std::os::fd::AsRawFd;

        const DATA: usize = 256 << 10;
        const ALL: usize = 2 * DATA;
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), vec![7; DATA]).unwrap();
        let map_memory = |at: *mut libc::c_void, bytes: usize, flags: i32, fd: i32| {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: new memory, or over the beginning of what was just mapped here.
            let at = unsafe { libc::mmap(at, bytes, access, libc::MAP_PRIVATE | flags, fd, 0) };
            assert_ne!(at, libc::MAP_FAILED);
            at
        };
        let whole = map_memory(std::ptr::null_mut(), ALL, libc::MAP_ANONYMOUS, -1);
        map_memory(whole, DATA, libc::MAP_FIXED, file.as_file().as_raw_fd());
        let memory = whole.addr()..whole.addr() + ALL;
        let zeros = memory.start + DATA;
        let before = resident_kib(zeros);
        map(&memory, &AtomicBool::new(false)).unwrap();
        assert_eq!(resident_kib(memory.start), DATA as u64 / 1024);
        assert!(resident_kib(zeros) >= before + DATA as u64 / 1024);
        // SAFETY: mapped above, and nobody else's.
        let contents = unsafe { std::slice::from_raw_parts(whole.cast::<u8>(), ALL) };
        assert!(contents[..DATA].iter().all(|&byte| byte == 7));
        assert!(contents[DATA..].iter().all(|&byte| byte == 0));
        // SAFETY: not used any more.
        unsafe { libc::munmap(whole, ALL) };
    }
}
