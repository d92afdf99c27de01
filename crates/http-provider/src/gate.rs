//! The socket as hyper sees it. The gate reads each request head whole, checks it, and only then
//! lets it through, followed by exactly the body that the head announces; so hyper and this
//! provider never disagree about where a message ends. It also keeps the connection's timers.
//!
//! A head that is refused never reaches hyper: a stand-in request does, and the note that
//! accompanies every request through [`Ledger`] says which error to answer it with. That way an
//! error for malformed bytes looks like every other: JSON, request id, log and metrics.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::{
    answer::Refusal,
    limits::Limits,
    strict::{Framing, HeadScanner, check_head},
};

/// What accompanies a request from the gate to the service, in the order of the requests.
#[derive(Debug)]
pub(crate) struct Note {
    /// When the request's head was complete.
    pub(crate) arrived: Instant,
    /// Set when the request is a stand-in for one that was refused.
    pub(crate) refusal: Option<Refusal>,
    /// Whether this must be the connection's last request.
    pub(crate) last: bool,
}

/// What the gate and the service of one connection share.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    notes: Mutex<VecDeque<Note>>,
    /// Requests let through and not yet answered.
    open: AtomicUsize,
    stopping: AtomicBool,
    /// Set while connections are scarce.
    crowded: Arc<AtomicBool>,
}

impl Ledger {
    /// A ledger for one connection; `crowded` says that idle connections should end early.
    pub(crate) fn new(crowded: Arc<AtomicBool>) -> Self {
        Self { crowded, ..Self::default() }
    }

    /// The note of the request that hyper just delivered.
    pub(crate) fn take_note(&self) -> Option<Note> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Tells the gate that a request has its response.
    pub(crate) fn answered(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Ends the connection when its requests are answered. The connection must be polled after.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether [`Ledger::stop`] was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn pass(&self, note: Note) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push_back(note);
    }
}

/// See the module's documentation.
pub(crate) struct Gate<S> {
    io: S,
    ledger: Arc<Ledger>,
    limits: Arc<Limits>,
    /// Bytes that arrived and were not let through. At most one head and one read more.
    held: Vec<u8>,
    reading: Reading,
    read_timer: Timer<Wait>,
    write_timer: Timer<()>,
    /// Something was written since the last flush.
    dirty: bool,
    /// A response is on its way: the connection is not idle although no request is open.
    flushing: bool,
    /// The first request is waited for as long as its head may take, later ones longer.
    fresh: bool,
    /// The client has closed its side.
    ended: bool,
    lingering: bool,
}

/// What the next bytes are.
enum Reading {
    /// A head, or the silence before it. `begun` once a byte of it has arrived.
    Head { scanner: HeadScanner, begun: bool },
    /// So many bytes of the current message.
    Message { left: u64 },
    /// Chunks: all that follows is hyper's, which ends the connection after this message. To let
    /// another head in behind chunks, the gate would have to parse them as hyper does.
    Rest,
    /// The head was refused; `sent` bytes of the stand-in have gone through.
    Refused { sent: usize },
}

impl Reading {
    fn head(begun: bool) -> Self {
        Self::Head { scanner: HeadScanner::default(), begun }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Idle,
    Head,
    Stop,
}

/// What has lasted too long.
enum Over {
    Silence,
    Head,
}

const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

// A request that is already on its way when the stop begins gets this long to show.
const STOP_PATIENCE: Duration = Duration::from_millis(100);

// One read: most heads come in one packet.
const READ_BYTES: usize = 4096;

// hyper's buffer grows to hundreds of KiB, and what is lent from it must be zeroed first.
const MAX_LENT_BYTES: usize = 64 << 10;

impl<S> Gate<S> {
    pub(crate) fn new(io: S, ledger: Arc<Ledger>, limits: Arc<Limits>) -> Self {
        Self {
            io,
            ledger,
            limits,
            held: Vec::new(),
            reading: Reading::head(false),
            read_timer: Timer::default(),
            write_timer: Timer::default(),
            dirty: false,
            flushing: false,
            fresh: true,
            ended: false,
            lingering: false,
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.held = Vec::new();
        self.read_timer.disarm();
        self.ledger.pass(Note { arrived: Instant::now(), refusal: Some(refusal), last: true });
        self.reading = Reading::Refused { sent: 0 };
    }

    /// Moves on when the held bytes contain a whole head or cannot be one.
    fn look_for_head(&mut self) {
        let Reading::Head { scanner, begun } = &mut self.reading else { return };
        // RFC 9112, 2.2: empty lines before a request line are skipped.
        while self.held.starts_with(b"\r\n") {
            self.held.drain(..2);
            *scanner = HeadScanner::default();
        }
        *begun |= !self.held.is_empty();
        let checked = match scanner.advance(&self.held, self.limits.max_header_bytes) {
            Ok(None) => return,
            Ok(Some(length)) => check_head(&self.held[..length], self.limits.max_header_fields)
                .map(|framing| (length, framing)),
            Err(error) => Err(error),
        };
        match checked {
            Err(error) => self.refuse(error.into()),
            Ok((length, framing)) => {
                self.read_timer.disarm();
                self.fresh = false;
                self.reading = match framing {
                    Framing::Chunked => Reading::Rest,
                    // Saturating: a length that large is refused long before it is reached.
                    Framing::Length(body) => {
                        Reading::Message { left: body.saturating_add(length as u64) }
                    }
                };
                let last = framing == Framing::Chunked;
                self.ledger.pass(Note { arrived: Instant::now(), refusal: None, last });
            }
        }
    }

    /// Lets held bytes through, at most `most`. Returns how many.
    fn release(&mut self, most: u64, buf: &mut ReadBuf<'_>) -> usize {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let count = self.held.len().min(buf.remaining()).min(most);
        buf.put_slice(&self.held[..count]);
        self.held.drain(..count);
        count
    }

    fn passed(&mut self, count: usize) {
        if let Reading::Message { left } = &mut self.reading {
            *left = left.saturating_sub(count as u64);
            if *left == 0 {
                self.reading = Reading::head(!self.held.is_empty());
            }
        }
    }

    /// Nothing to read: `None` as long as there is time to wait.
    fn wait(&mut self, cx: &mut Context<'_>) -> Option<Over> {
        let Reading::Head { begun, .. } = self.reading else { return None };
        if self.flushing || self.ledger.open.load(Ordering::Relaxed) > 0 {
            // A request is being answered: it has its own deadline, this wait has none.
            self.read_timer.disarm();
            return None;
        }
        let crowded = self.ledger.crowded.load(Ordering::Relaxed);
        let (wait, time) = if !begun && self.ledger.is_stopping() {
            (Wait::Stop, STOP_PATIENCE)
        } else if begun || self.fresh || crowded {
            (Wait::Head, self.limits.header_timeout)
        } else {
            (Wait::Idle, self.limits.idle_timeout)
        };
        self.read_timer.arm(wait, time);
        let over = self.read_timer.poll(cx).is_ready();
        over.then_some(if begun { Over::Head } else { Over::Silence })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gate<S> {
    /// Reads once into the held bytes; 0 at the end.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [0; READ_BYTES];
        let mut read = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        self.held.extend_from_slice(read.filled());
        self.ended |= read.filled().is_empty();
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Reads once straight into `buf`, at most `most` bytes; 0 at the end.
    fn poll_through(
        &mut self,
        cx: &mut Context<'_>,
        most: u64,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        if buf.remaining() as u64 <= most {
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        } else {
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(MAX_LENT_BYTES);
            let mut lent = ReadBuf::new(buf.initialize_unfilled_to(most));
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut lent))?;
            let count = lent.filled().len();
            buf.advance(count);
        }
        let count = buf.filled().len() - before;
        self.ended |= count == 0;
        Poll::Ready(Ok(count))
    }

    /// Reads and drops what the client still sends, until it closes or has had its time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A fair share, so that a fast sender does not hold the thread.
        for _ in 0..16 {
            let mut space = [0; READ_BYTES];
            let mut dropped = ReadBuf::new(&mut space);
            match Pin::new(&mut self.io).poll_read(cx, &mut dropped) {
                Poll::Ready(Ok(())) if !dropped.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.read_timer.poll(cx),
            }
        }
        if self.read_timer.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What a write came to, with a client that takes nothing for too long made an error.
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_timer.disarm();
            return result;
        }
        self.write_timer.arm((), self.limits.send_timeout);
        ready!(self.write_timer.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match this.reading {
                Reading::Head { .. } => {
                    this.look_for_head();
                    if !matches!(this.reading, Reading::Head { .. }) {
                        continue;
                    }
                    match this.poll_hold(cx) {
                        // The client has left; what it began to say does not matter.
                        Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => match this.wait(cx) {
                            None => return Poll::Pending,
                            Some(Over::Silence) => return Poll::Ready(Ok(())),
                            Some(Over::Head) => this.refuse(Refusal::HeadTimeout),
                        },
                    }
                }
                Reading::Message { .. } | Reading::Rest => {
                    let most = match this.reading {
                        Reading::Message { left } => left,
                        _ => u64::MAX,
                    };
                    let mut count = this.release(most, buf);
                    if count == 0 {
                        count = ready!(this.poll_through(cx, most, buf))?;
                    }
                    this.passed(count);
                    return Poll::Ready(Ok(()));
                }
                Reading::Refused { ref mut sent } => {
                    let rest = &STAND_IN[*sent..];
                    if rest.is_empty() {
                        // Nothing more is let in; the answer is at hand and ends the connection.
                        return Poll::Pending;
                    }
                    let count = rest.len().min(buf.remaining());
                    buf.put_slice(&rest[..count]);
                    *sent += count;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.dirty = true;
        self.flushing = true;
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.dirty = true;
        self.flushing = true;
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        let result = self.written(cx, result);
        // hyper flushes when its own buffer is empty: a response has left. It does not read again
        // by itself (the last read is still pending), and the wait for the next request, or a
        // stop, begins now.
        if result.is_ready() && self.dirty {
            self.dirty = false;
            self.flushing = false;
            cx.waker().wake_by_ref();
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.lingering {
            let result = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.written(cx, result))?;
            let is_between = matches!(this.reading, Reading::Head { begun: false, .. });
            if this.ended || (is_between && this.held.is_empty()) {
                return Poll::Ready(Ok(()));
            }
            this.lingering = true;
            this.read_timer.disarm();
            this.read_timer.arm(Wait::Idle, this.limits.linger);
        }
        ready!(this.poll_linger(cx));
        Poll::Ready(Ok(()))
    }
}

/// A timer that runs at most once for each thing waited for.
struct Timer<T> {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: Option<T>,
}

impl<T> Default for Timer<T> {
    fn default() -> Self {
        Self { sleep: None, armed: None }
    }
}

impl<T: PartialEq> Timer<T> {
    /// Starts to run, unless it runs for this already.
    fn arm(&mut self, what: T, time: Duration) {
        if self.armed.as_ref() == Some(&what) {
            return;
        }
        self.armed = Some(what);
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(tokio::time::Instant::now() + time),
            None => self.sleep = Some(Box::pin(sleep(time))),
        }
    }

    fn disarm(&mut self) {
        self.armed = None;
    }

    /// Ready when it has run out; pending for ever while not armed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match (&self.armed, &mut self.sleep) {
            (Some(_), Some(sleep)) => sleep.as_mut().poll(cx),
            _ => Poll::Pending,
        }
    }
}
