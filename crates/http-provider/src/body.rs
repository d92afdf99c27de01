//! Reads a request's body whole, within its limits: size, pace, and what all connections together
//! may hold.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout_at,
};

use crate::{answer::Refusal, limits::Limits};

/// Memory for the bodies of all connections of a listener.
#[derive(Debug, Clone)]
pub(crate) struct Buffers {
    kibibytes: Arc<Semaphore>,
}

impl Buffers {
    pub(crate) fn new(bytes: u64) -> Self {
        let kibibytes = usize::try_from(bytes >> 10).unwrap_or(usize::MAX);
        Self { kibibytes: Arc::new(Semaphore::new(kibibytes.clamp(1, Semaphore::MAX_PERMITS))) }
    }
}

/// A whole body, and its share of [`Buffers`] for as long as it lives.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    share: Option<OwnedSemaphorePermit>,
}

impl Body {
    /// Frees the bytes, and keeps their share taken until the returned value is dropped.
    pub(crate) fn into_share(self) -> Option<OwnedSemaphorePermit> {
        self.share
    }
}

/// Reads `body` to its end.
///
/// What can be refused by its header is refused before anything is read, and before the client is
/// told to go on (`Expect: 100-continue`).
///
/// # Errors
/// The [`Refusal`]s about bodies; the rest of the body is then still unread.
pub(crate) async fn collect(
    headers: &HeaderMap,
    mut body: Incoming,
    limits: &Limits,
    buffers: &Buffers,
) -> Result<Body, Refusal> {
    let too_large = || Refusal::BodyTooLarge { limit: limits.max_body_bytes };
    check_encoding(headers)?;
    if body.size_hint().lower() > limits.max_body_bytes {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut share = Share::new(buffers);
    let mut pace = Pace::new(limits, Instant::now());
    while !body.is_end_stream() {
        let frame = match timeout_at(pace.deadline().into(), body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(Refusal::BodyBroken),
            Ok(None) => break,
            Err(_) => return Err(Refusal::BodyTimeout),
        };
        // Trailers say nothing that is used here.
        let Ok(data) = frame.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > limits.max_body_bytes {
            return Err(too_large());
        }
        share.grow_to(bytes.len() + data.len())?;
        bytes.extend_from_slice(&data);
        pace.received(data.len(), Instant::now());
    }
    Ok(Body { bytes, share: share.taken })
}

/// Bodies are images or JSON, which compression hardly shrinks; not to unpack any is the surest
/// protection from archives that unpack without end.
fn check_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    for value in headers.get_all(header::CONTENT_ENCODING) {
        if !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity") {
            return Err(Refusal::ContentEncoding);
        }
    }
    Ok(())
}

/// A part of [`Buffers`] that grows with a body.
struct Share<'a> {
    buffers: &'a Buffers,
    taken: Option<OwnedSemaphorePermit>,
    kibibytes: usize,
}

impl<'a> Share<'a> {
    fn new(buffers: &'a Buffers) -> Self {
        Self { buffers, taken: None, kibibytes: 0 }
    }

    fn grow_to(&mut self, bytes: usize) -> Result<(), Refusal> {
        let more = bytes.div_ceil(1 << 10).saturating_sub(self.kibibytes);
        if more == 0 {
            return Ok(());
        }
        let more_permits = u32::try_from(more).map_err(|_| Refusal::BuffersFull)?;
        let permit = Arc::clone(&self.buffers.kibibytes)
            .try_acquire_many_owned(more_permits)
            .map_err(|_| Refusal::BuffersFull)?;
        match &mut self.taken {
            Some(taken) => taken.merge(permit),
            None => self.taken = Some(permit),
        }
        self.kibibytes += more;
        Ok(())
    }
}

/// Tells until when a body has to go on arriving: over any window that lies wholly within its
/// transfer, it must come at the agreed pace.
#[derive(Debug)]
struct Pace {
    window: Duration,
    bytes_per_window: u64,
    began: Instant,
    /// Oldest first; together at least what a window needs, if so much came.
    arrivals: VecDeque<Arrival>,
    arrived: u64,
}

/// Bytes that arrived closely together.
#[derive(Debug)]
struct Arrival {
    first: Instant,
    last: Instant,
    bytes: u64,
}

// Arrivals within this part of a window count as one, all at its last: 64 entries bound the
// memory, and no client is cut off early for it.
const ARRIVALS_PER_WINDOW: u32 = 64;

impl Pace {
    fn new(limits: &Limits, now: Instant) -> Self {
        let window = limits.body_window;
        let bytes = u128::from(limits.body_bytes_per_second) * window.as_millis() / 1000;
        Self {
            window,
            bytes_per_window: u64::try_from(bytes).unwrap_or(u64::MAX),
            began: now,
            arrivals: VecDeque::new(),
            arrived: 0,
        }
    }

    fn received(&mut self, bytes: usize, now: Instant) {
        let bytes = bytes as u64;
        self.arrived = self.arrived.saturating_add(bytes);
        match self.arrivals.back_mut() {
            Some(arrival) if now - arrival.first < self.window / ARRIVALS_PER_WINDOW => {
                arrival.last = now;
                arrival.bytes += bytes;
            }
            _ => self.arrivals.push_back(Arrival { first: now, last: now, bytes }),
        }
        // What is older than the newest window's worth cannot matter any more.
        while let Some(oldest) = self.arrivals.front()
            && self.arrived - oldest.bytes >= self.bytes_per_window
        {
            self.arrived -= oldest.bytes;
            self.arrivals.pop_front();
        }
    }

    /// When the newest window will have held too little, if nothing more comes.
    fn deadline(&self) -> Instant {
        let from = match self.arrivals.front() {
            // The oldest kept arrival completes a window's worth: without it, too little is left.
            Some(oldest) if self.arrived >= self.bytes_per_window => oldest.last,
            _ => self.began,
        };
        from + self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            body_bytes_per_second: 100,
            body_window: Duration::from_secs(10),
            ..Limits::default()
        }
    }

    /// Feeds arrivals of (second, bytes); returns the second at which patience ends.
    fn deadline(arrivals: &[(u64, usize)]) -> u64 {
        let start = Instant::now();
        let mut pace = Pace::new(&limits(), start);
        for &(second, bytes) in arrivals {
            let now = start + Duration::from_secs(second);
            assert!(now < pace.deadline(), "cut off before second {second}");
            pace.received(bytes, now);
        }
        (pace.deadline() - start).as_secs()
    }

    #[test]
    fn a_body_may_take_its_time_within_the_first_window() {
        assert_eq!(deadline(&[]), 10);
        assert_eq!(deadline(&[(1, 1), (9, 1)]), 10);
        assert_eq!(deadline(&[(9, 999)]), 10);
    }

    #[test]
    fn every_later_window_needs_its_bytes() {
        // 1,000 bytes at 9 s satisfy all windows until they leave the newest one.
        assert_eq!(deadline(&[(9, 1000)]), 19);
        assert_eq!(deadline(&[(2, 600), (9, 600)]), 12);
        assert_eq!(deadline(&[(2, 600), (9, 600), (11, 600)]), 19);
        // A burst earns no more than its own window.
        assert_eq!(deadline(&[(1, 1_000_000)]), 11);
        assert_eq!(deadline(&[(1, 1_000_000), (10, 10)]), 11);
    }

    #[test]
    fn a_steady_client_above_the_pace_is_never_cut_off() {
        // 1,000 bytes within any nine of its seconds.
        let arrivals: Vec<_> = (1..=600).map(|second| (second, 112)).collect();
        assert!(deadline(&arrivals) > 600);
    }

    #[test]
    fn many_small_arrivals_take_little_memory() {
        let start = Instant::now();
        let mut pace = Pace::new(&limits(), start);
        for millis in 0..100_000_u64 {
            pace.received(1, start + Duration::from_millis(millis));
        }
        assert!(pace.arrivals.len() <= 2 * ARRIVALS_PER_WINDOW as usize);
    }

    #[test]
    fn shares_are_refused_when_the_buffers_are_full_and_come_back() {
        let buffers = Buffers::new(4 << 10);
        let mut first = Share::new(&buffers);
        first.grow_to(1).unwrap();
        first.grow_to(1024).unwrap();
        first.grow_to(1025).unwrap();
        assert_eq!(buffers.kibibytes.available_permits(), 2);
        let mut second = Share::new(&buffers);
        assert!(matches!(second.grow_to(3 << 10), Err(Refusal::BuffersFull)));
        drop(first);
        second.grow_to(3 << 10).unwrap();
    }

    #[test]
    fn only_bodies_as_they_are_get_read() {
        for (encoding, accepted) in [
            ("identity", true),
            ("Identity", true),
            ("gzip", false),
            ("identity, br", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
            assert_eq!(check_encoding(&headers).is_ok(), accepted, "encoding: {encoding:?}");
        }
    }
}
