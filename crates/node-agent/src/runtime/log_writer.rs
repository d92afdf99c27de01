//! A container's output on disk, as the CRI has it: `<RFC 3339 time> stdout|stderr F|P <text>`,
//! in five files of 10 MiB each.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use chrono::{SecondsFormat, Utc};

use super::run_dir::gone_is_fine;

/// Which of the two a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

/// Bytes after which a new file is begun: what kubelets do by default (`containerLogMaxSize`).
pub(crate) const MAX_FILE_BYTES: u64 = 10 << 20;

/// Files kept, the current one included (`containerLogMaxFiles`).
pub(crate) const MAX_FILES: u32 = 5;

/// Longest piece of a line in one entry, bytes: what container engines do.
const MAX_PIECE_BYTES: usize = 16 << 10;

/// Longest last line that is kept for `terminated.message`, bytes; the API takes 4,096.
const MAX_MESSAGE_BYTES: usize = 2048;

/// Writes one container's log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    max_file_bytes: u64,
    /// The unfinished lines of both sources.
    partial: [Vec<u8>; 2],
    last_line: Vec<u8>,
    /// Bytes that could not be written since the last time that it worked.
    lost: u64,
}

impl LogWriter {
    /// Begins at `path`, or goes on there.
    pub(crate) fn open(path: &Path, max_file_bytes: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let file = open(path)?;
        Ok(Self {
            path: path.to_owned(),
            bytes: file.metadata()?.len(),
            file: Some(file),
            max_file_bytes,
            partial: Default::default(),
            last_line: Vec::new(),
            lost: 0,
        })
    }

    /// Takes what a container wrote.
    pub(crate) fn write(&mut self, source: Source, bytes: &[u8]) {
        let partial = &mut self.partial[source as usize];
        partial.extend_from_slice(bytes);
        let held = std::mem::take(partial);
        let mut rest = held.as_slice();
        let mut entries = Vec::with_capacity(rest.len() + 64);
        loop {
            let end = rest.iter().take(MAX_PIECE_BYTES).position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    self.keep_last(&rest[..end]);
                    entry(&mut entries, source, 'F', &rest[..end]);
                    rest = &rest[end + 1..];
                }
                None if rest.len() >= MAX_PIECE_BYTES => {
                    entry(&mut entries, source, 'P', &rest[..MAX_PIECE_BYTES]);
                    rest = &rest[MAX_PIECE_BYTES..];
                }
                None => break,
            }
            if entries.len() as u64 >= MAX_WRITE_BYTES {
                self.append(&entries);
                entries.clear();
            }
        }
        self.partial[source as usize] = rest.to_vec();
        self.append(&entries);
    }

    /// Writes what has no end of line, and gives the last line there was.
    pub(crate) fn finish(mut self) -> String {
        for source in [Source::Stdout, Source::Stderr] {
            let held = std::mem::take(&mut self.partial[source as usize]);
            if !held.is_empty() {
                self.keep_last(&held);
                let mut last = Vec::new();
                entry(&mut last, source, 'F', &held);
                self.append(&last);
            }
        }
        String::from_utf8_lossy(&self.last_line).into_owned()
    }

    fn keep_last(&mut self, line: &[u8]) {
        let line = line.trim_ascii();
        if !line.is_empty() {
            self.last_line.clear();
            self.last_line.extend_from_slice(&line[..line.len().min(MAX_MESSAGE_BYTES)]);
        }
    }

    /// A full disk costs lines, never the container.
    fn append(&mut self, entries: &[u8]) {
        if entries.is_empty() {
            return;
        }
        if self.bytes > 0 && self.bytes + entries.len() as u64 > self.max_file_bytes {
            self.rotate();
        }
        if self.lost > 0 {
            let mut note = Vec::new();
            let text = format!("graphlet: {} bytes of this log could not be written", self.lost);
            entry(&mut note, Source::Stderr, 'F', text.as_bytes());
            if self.put(&note) {
                self.lost = 0;
            }
        }
        if !self.put(entries) {
            self.lost += entries.len() as u64;
        }
    }

    fn put(&mut self, entries: &[u8]) -> bool {
        if self.file.is_none() {
            self.file = open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return false };
        let written = file.write_all(entries).is_ok();
        // Half an entry must not be taken for the beginning of the next.
        if !written && file.set_len(self.bytes).is_err() {
            self.file = None;
        }
        if written {
            self.bytes += entries.len() as u64;
        }
        written
    }

    fn rotate(&mut self) {
        for index in (1..MAX_FILES).rev() {
            // Over the oldest one. The first log has nothing behind it yet.
            let (from, to) = (rotated(&self.path, index - 1), rotated(&self.path, index));
            let _ = gone_is_fine(fs::rename(from, to));
        }
        self.file = None;
        self.bytes = 0;
    }
}

// Entries gathered before they are written: few system calls, and files that end near their size.
const MAX_WRITE_BYTES: u64 = 256 << 10;

/// The file that was current `index` rotations ago.
pub(crate) fn rotated(path: &Path, index: u32) -> PathBuf {
    if index == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}"));
    PathBuf::from(name)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn entry(out: &mut Vec<u8>, source: Source, tag: char, text: &[u8]) {
    let time = Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true);
    let source = match source {
        Source::Stdout => "stdout",
        Source::Stderr => "stderr",
    };
    // Writing to memory does not fail.
    let _ = write!(out, "{time} {source} {tag} ");
    out.extend_from_slice(text);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(path: &Path) -> Vec<(String, String, usize)> {
        let text = fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| {
                let mut parts = line.splitn(4, ' ');
                let time = parts.next().unwrap();
                assert!(
                    time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000000000Z".len()
                );
                let (source, tag) = (parts.next().unwrap(), parts.next().unwrap());
                (source.to_owned(), tag.to_owned(), parts.next().unwrap().len())
            })
            .collect()
    }

    #[test]
    fn lines_are_whole_and_long_ones_come_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/0.log");
        let mut log = LogWriter::open(&path, MAX_FILE_BYTES).unwrap();
        log.write(Source::Stdout, b"one\ntw");
        log.write(Source::Stderr, b"three\n");
        log.write(Source::Stdout, b"o\n\n");
        log.write(Source::Stdout, &[b'x'; MAX_PIECE_BYTES + 7]);
        assert_eq!(log.finish(), "x".repeat(7), "the last piece stands for its line");
        let expected = [
            ("stdout", "F", 3),
            ("stderr", "F", 5),
            ("stdout", "F", 3),
            ("stdout", "F", 0),
            ("stdout", "P", MAX_PIECE_BYTES),
            ("stdout", "F", 7),
        ];
        let expected = expected.map(|(source, tag, len)| (source.to_owned(), tag.to_owned(), len));
        assert_eq!(tags(&path), expected);
    }

    #[test]
    fn a_flood_is_kept_in_five_files_that_end_with_the_newest_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogWriter::open(&path, 10_000).unwrap();
        for number in 0..2_000 {
            log.write(Source::Stdout, format!("{number:050}\n").as_bytes());
        }
        assert_eq!(log.finish(), format!("{:050}", 1999));
        let mut files: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert_eq!(files, (0..MAX_FILES).map(|index| rotated(&path, index)).collect::<Vec<_>>());
        for file in &files {
            assert!(fs::metadata(file).unwrap().len() <= 10_000);
        }
        assert!(fs::read_to_string(&path).unwrap().trim_end().ends_with("1999"));
    }

    #[test]
    fn a_log_that_is_opened_again_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        for text in ["first\n", "second\n"] {
            let mut log = LogWriter::open(&path, MAX_FILE_BYTES).unwrap();
            log.write(Source::Stdout, text.as_bytes());
        }
        assert_eq!(tags(&path).len(), 2);
    }
}
