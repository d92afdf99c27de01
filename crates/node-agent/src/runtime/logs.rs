//! Reading containers' logs back, across rotated files, as `kubectl logs` wants them.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use chrono::DateTime;
use futures_util::Stream;
use tokio::sync::mpsc;

use super::log_writer::{MAX_FILES, rotated};

/// Which part of a log is wanted, as `kubectl logs` asks for it.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Goes on while the container runs.
    pub follow: bool,
    /// Of the run before.
    pub previous: bool,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only so many lines at the end.
    pub tail_lines: Option<u64>,
    /// Only lines from then on.
    pub since: Option<SystemTime>,
    /// Only so many bytes.
    pub limit_bytes: Option<u64>,
}

/// A log cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// There is no log of such a container.
    #[error("container `{container}` of pod `{pod}` has written no log here")]
    NotFound {
        /// Pod.
        pod: String,
        /// Container.
        container: String,
    },
    /// There was no run before.
    #[error("previous terminated container `{container}` in pod `{pod}` not found")]
    NoPrevious {
        /// Pod.
        pod: String,
        /// Container.
        container: String,
    },
    /// A name that could lead out of the folder of logs.
    #[error("`{0}` is no name of a pod or container")]
    Name(String),
    /// The file could not be read.
    #[error("the log cannot be read")]
    Read(#[source] io::Error),
}

/// Lines of a log as they come.
#[derive(Debug)]
pub struct LogStream(mpsc::Receiver<io::Result<Bytes>>);

impl Stream for LogStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// The log file of one run.
pub(crate) fn path_of(folder: &Path, attempt: u32) -> PathBuf {
    folder.join(format!("{attempt}.log"))
}

/// The runs that have a log in `folder`, the newest first.
pub(crate) fn attempts(folder: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut attempts: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok())
        .collect();
    attempts.sort_unstable_by(|a, b| b.cmp(a));
    attempts
}

/// Removes the logs of all runs but the newest `keep`.
pub(crate) fn prune(folder: &Path, keep: usize) {
    for attempt in attempts(folder).into_iter().skip(keep) {
        let path = path_of(folder, attempt);
        for index in (0..MAX_FILES).rev() {
            let _ = fs::remove_file(rotated(&path, index));
        }
    }
}

/// Sends what a reader gives; with `follow`, until `ended` says that nothing more will come.
pub(crate) fn stream(
    reader: Reader,
    follow: bool,
    ended: impl Fn() -> bool + Send + 'static,
) -> LogStream {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut reader = reader;
        loop {
            // Asked before reading: what was written before the end is read after it.
            let over = !follow || ended();
            loop {
                let read = tokio::task::spawn_blocking(move || {
                    let chunk = reader.next_chunk();
                    (reader, chunk)
                });
                let Ok((back, chunk)) = read.await else { return };
                reader = back;
                let chunk = match chunk {
                    Ok(Some(chunk)) => Ok(chunk),
                    Ok(None) => break,
                    Err(error) => Err(error),
                };
                let failed = chunk.is_err();
                if sender.send(chunk).await.is_err() || failed {
                    return;
                }
            }
            if over || reader.is_full() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = sender.closed() => return,
            }
        }
    });
    LogStream(receiver)
}

// Between two looks at a log that is followed: short beside a person's patience.
const PAUSE: Duration = Duration::from_millis(100);

const CHUNK_BYTES: u64 = 256 << 10;

/// Reads one run's log from some place to its present end, and on from there.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    /// A line whose end has not been written yet.
    partial: Vec<u8>,
    within_line: bool,
    timestamps: bool,
    since: Option<SystemTime>,
    left: Option<u64>,
}

impl Reader {
    /// A reader that stands where `options` wants it.
    pub(crate) fn open(path: &Path, options: &LogOptions) -> io::Result<Self> {
        let mut file = None;
        match options.tail_lines {
            Some(lines) => {
                let (index, offset) = tail(path, lines)?;
                if let Ok(mut found) = File::open(rotated(path, index)) {
                    found.seek(SeekFrom::Start(offset))?;
                    file = Some(found);
                }
            }
            None => {
                file = (0..MAX_FILES).rev().find_map(|index| File::open(rotated(path, index)).ok());
            }
        }
        // Rotated away between the look and the opening: then from what is there now.
        let file = file.map_or_else(|| File::open(path), Ok)?;
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            partial: Vec::new(),
            within_line: false,
            timestamps: options.timestamps,
            since: options.since,
            left: options.limit_bytes,
        })
    }

    /// Whether all bytes that were asked for have been given.
    pub(crate) fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// What comes next, as much as is there; `None` at the present end.
    pub(crate) fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        let mut out = Vec::new();
        let mut read_again = true;
        while out.len() < CHUNK_BYTES as usize && !self.is_full() {
            let read = self.file.by_ref().take(CHUNK_BYTES).read_until(b'\n', &mut self.partial)?;
            if read == 0 {
                // A file that is seen to be rotated may have grown since it was read.
                match self.newer()? {
                    Some(_) if read_again => read_again = false,
                    Some(newer) => {
                        self.file = BufReader::new(newer);
                        self.partial.clear();
                        read_again = true;
                    }
                    None => break,
                }
                continue;
            }
            if self.partial.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.partial);
                self.put(&line, &mut out);
            }
        }
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        Ok((!out.is_empty()).then(|| Bytes::from(out)))
    }

    /// The file after this one, if this one is not the current one any more.
    fn newer(&self) -> io::Result<Option<File>> {
        let mine = self.file.get_ref().metadata()?;
        let position = (0..MAX_FILES).find(|index| {
            let there = fs::metadata(rotated(&self.path, *index));
            there.is_ok_and(|there| (there.dev(), there.ino()) == (mine.dev(), mine.ino()))
        });
        let newer = match position {
            Some(0) => return Ok(None),
            Some(index) => File::open(rotated(&self.path, index - 1)),
            // A slow reader: its file is gone, and others with it.
            None => match (0..MAX_FILES)
                .rev()
                .find_map(|index| File::open(rotated(&self.path, index)).ok())
            {
                Some(oldest) => Ok(oldest),
                None => return Ok(None),
            },
        };
        match newer {
            Ok(file) => Ok(Some(file)),
            // The writer has moved the file and not begun the next one yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(entry) = Entry::parse(line) else { return };
        if let Some(since) = self.since
            && entry.time().is_some_and(|time| time < since)
        {
            return;
        }
        if self.timestamps && !self.within_line {
            out.extend_from_slice(entry.time_text.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(entry.text);
        if entry.is_whole {
            out.push(b'\n');
        }
        self.within_line = !entry.is_whole;
    }
}

/// One entry of a log.
struct Entry<'a> {
    time_text: &'a str,
    is_whole: bool,
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    /// What is no entry (a disk that was full, a power cut) is left out.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time_text = std::str::from_utf8(parts.next()?).ok()?;
        let _source = parts.next()?;
        let is_whole = parts.next()? == b"F";
        Some(Self { time_text, is_whole, text: parts.next()? })
    }

    fn time(&self) -> Option<SystemTime> {
        DateTime::parse_from_rfc3339(self.time_text).ok().map(SystemTime::from)
    }
}

/// Where the last `lines` lines begin: in which file, counted back from the current one, and at
/// which byte.
fn tail(path: &Path, lines: u64) -> io::Result<(u32, u64)> {
    let mut wanted = usize::try_from(lines).unwrap_or(usize::MAX);
    if wanted == 0 {
        return Ok((0, fs::metadata(path)?.len()));
    }
    let mut oldest = 0;
    for index in 0..MAX_FILES {
        let Ok(file) = File::open(rotated(path, index)) else { break };
        oldest = index;
        let mut file = BufReader::with_capacity(CHUNK_BYTES as usize, file);
        let mut beginnings = VecDeque::new();
        let (mut at, mut begins) = (0, true);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = file.read_until(b'\n', &mut line)? as u64;
            if read == 0 || line.last() != Some(&b'\n') {
                break;
            }
            if begins {
                if beginnings.len() == wanted {
                    beginnings.pop_front();
                }
                beginnings.push_back(at);
            }
            begins = Entry::parse(&line).is_none_or(|entry| entry.is_whole);
            at += read;
        }
        if beginnings.len() == wanted {
            return Ok((index, beginnings.front().copied().unwrap_or(0)));
        }
        wanted -= beginnings.len();
    }
    Ok((oldest, 0))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use futures_util::StreamExt as _;

    use super::{
        super::log_writer::{LogWriter, Source},
        *,
    };

    fn read(path: &Path, options: &LogOptions) -> String {
        let mut reader = Reader::open(path, options).unwrap();
        let mut text = Vec::new();
        while let Some(chunk) = reader.next_chunk().unwrap() {
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).unwrap()
    }

    /// 100 lines over several files.
    fn filled() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(folder.path(), 0);
        let mut log = LogWriter::open(&path, 2_000).unwrap();
        for number in 0..100 {
            log.write(Source::Stdout, format!("line {number}\n").as_bytes());
        }
        log.finish();
        assert!(rotated(&path, 2).exists());
        (folder, path)
    }

    fn lines(range: std::ops::Range<u32>) -> String {
        range.fold(String::new(), |mut text, number| {
            writeln!(text, "line {number}").unwrap();
            text
        })
    }

    #[test]
    fn a_log_is_read_across_its_files_in_order() {
        let (_folder, path) = filled();
        let all = LogOptions::default();
        let text = read(&path, &all);
        let first: u32 = text.lines().next().unwrap()[5..].parse().unwrap();
        assert_eq!(text, lines(first..100));
        for count in [0, 1, 7, 60, 1_000] {
            let tail = LogOptions { tail_lines: Some(count), ..all.clone() };
            let expected = 100_u32.saturating_sub(count as u32).max(first);
            assert_eq!(read(&path, &tail), lines(expected..100), "the last {count}");
        }
        let limited = LogOptions { limit_bytes: Some(10), tail_lines: Some(2), ..all };
        assert_eq!(read(&path, &limited), "line 98\nli");
    }

    #[test]
    fn times_are_shown_and_compared() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(folder.path(), 3);
        fs::write(
            &path,
            "2026-01-01T00:00:01.000000001Z stdout F one\n\
             2026-01-01T00:00:02.000000002Z stderr P tw\n\
             2026-01-01T00:00:02.000000003Z stderr F o\n\
             nonsense\n\
             2026-01-01T00:00:03Z stdout F \n",
        )
        .unwrap();
        assert_eq!(read(&path, &LogOptions::default()), "one\ntwo\n\n");
        let timestamps = LogOptions { timestamps: true, ..LogOptions::default() };
        assert_eq!(
            read(&path, &timestamps),
            "2026-01-01T00:00:01.000000001Z one\n2026-01-01T00:00:02.000000002Z two\n\
             2026-01-01T00:00:03Z \n"
        );
        let since = DateTime::parse_from_rfc3339("2026-01-01T00:00:02Z").unwrap();
        let since = LogOptions { since: Some(since.into()), ..LogOptions::default() };
        assert_eq!(read(&path, &since), "two\n\n");
        let last = LogOptions { tail_lines: Some(2), ..LogOptions::default() };
        assert_eq!(read(&path, &last), "\n", "what is no entry counts as a line and shows nothing");
    }

    #[test]
    fn old_runs_leave_and_the_newest_two_stay() {
        let folder = tempfile::tempdir().unwrap();
        for attempt in [0, 1, 2, 10] {
            fs::write(path_of(folder.path(), attempt), "").unwrap();
        }
        fs::write(rotated(&path_of(folder.path(), 0), 4), "").unwrap();
        assert_eq!(attempts(folder.path()), [10, 2, 1, 0]);
        prune(folder.path(), 2);
        assert_eq!(attempts(folder.path()), [10, 2]);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn a_follower_sees_all_lines_although_files_are_rotated_and_ends_with_the_container() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(folder.path(), 0);
        let mut log = LogWriter::open(&path, 4_000).unwrap();
        log.write(Source::Stdout, b"line 0\n");
        let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let over = std::sync::Arc::clone(&ended);
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let reader = Reader::open(&path, &options).unwrap();
        let stream = stream(reader, true, move || over.load(std::sync::atomic::Ordering::SeqCst));
        let writer = tokio::task::spawn_blocking(move || {
            for number in 1..300 {
                log.write(Source::Stdout, format!("line {number}\n").as_bytes());
                std::thread::sleep(Duration::from_millis(2));
            }
            log.write(Source::Stdout, b"line 300");
            log.finish();
            ended.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let chunks: Vec<_> = stream.map(|chunk| chunk.unwrap()).collect().await;
        writer.await.unwrap();
        assert_eq!(String::from_utf8(chunks.concat()).unwrap(), lines(0..301));
    }
}
