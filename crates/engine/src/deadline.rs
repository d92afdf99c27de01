//! The watchdog: one thread that does at its time what others must not miss.
//!
//! Setting and lifting a deadline costs a lock and no system call while deadlines come in order
//! (each later than the one before), as those of requests with one time limit do.

use std::{
    io, panic,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tracing::error;

use crate::page::PollPage;

// A page that could not be protected (the kernel is out of mappings, say) is tried again; ten
// times within the 100 ms that a guest may run on.
const RETRY: Duration = Duration::from_millis(10);

/// The thread that rings alarms. Dropping it ends the thread.
#[derive(Debug)]
pub struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    // A handful: calls that run and requests that wait. Scanned; sorted only to be rung.
    entries: Vec<Entry>,
    next_id: u64,
    wakes_at: Option<Instant>,
    stopping: bool,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    at: Instant,
    what: What,
}

enum What {
    Forbid(PollPage),
    Act(Box<dyn FnOnce() + Send>),
    Done,
}

impl std::fmt::Debug for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Forbid(_) => "Forbid",
            Self::Act(_) => "Act",
            Self::Done => "Done",
        })
    }
}

impl Watchdog {
    pub(crate) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let watched = Arc::clone(&shared);
        thread::Builder::new()
            .name("watchdog".into())
            .stack_size(128 << 10)
            .spawn(move || watched.watch())?;
        Ok(Self { shared })
    }

    /// Runs `action` at `at` unless the alarm is dropped before. It runs on the watchdog's thread
    /// and under its lock: it must be short, and must not set or drop alarms.
    pub fn alarm(self: &Arc<Self>, at: Instant, action: impl FnOnce() + Send + 'static) -> Alarm {
        let id = self.shared.add(at, What::Act(Box::new(action)));
        Alarm { watchdog: Arc::clone(self), id }
    }

    /// Forbids loads from `page` at `at`, until the guard is dropped.
    ///
    /// The guard must not be leaked: once the page's instance is gone, its address may be
    /// another's.
    pub(crate) fn guard(&self, at: Instant, page: PollPage) -> PageGuard<'_> {
        let id = self.shared.add(at, What::Forbid(page));
        PageGuard { shared: &self.shared, id, page, finished: false }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_one();
    }
}

/// An action to come; dropping it lifts it. After that the action neither runs nor will run.
#[derive(Debug)]
pub struct Alarm {
    watchdog: Arc<Watchdog>,
    id: u64,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.watchdog.shared.lock().remove(self.id);
    }
}

/// A page that may be forbidden; dropping this permits it for good.
#[derive(Debug)]
pub(crate) struct PageGuard<'a> {
    shared: &'a Shared,
    id: u64,
    page: PollPage,
    finished: bool,
}

/// How a guarded call ended, as far as the watchdog knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guarded {
    /// In time.
    InTime,
    /// The page had been forbidden and is permitted again.
    Late,
    /// The page had been forbidden and could not be permitted: the instance is of no use.
    Lost,
}

impl PageGuard<'_> {
    pub(crate) fn finish(mut self) -> Guarded {
        self.end()
    }

    fn end(&mut self) -> Guarded {
        self.finished = true;
        // One lock around looking and permitting, so that the watchdog cannot forbid in between.
        let mut state = self.shared.lock();
        if !matches!(state.remove(self.id), Some(What::Done)) {
            return Guarded::InTime;
        }
        match self.page.permit() {
            Ok(()) => Guarded::Late,
            Err(error) => {
                error!(%error, "Poll page stays forbidden, its instance is given up");
                Guarded::Lost
            }
        }
    }
}

impl Drop for PageGuard<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.end();
        }
    }
}

impl Shared {
    // No code of ours panics under this lock; and a watchdog must go on in any case.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, at: Instant, what: What) -> u64 {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.entries.push(Entry { id, at, what });
        if state.wakes_at.is_none_or(|wakes_at| at < wakes_at) {
            state.wakes_at = Some(at);
            self.changed.notify_one();
        }
        id
    }

    fn watch(&self) {
        let mut state = self.lock();
        while !state.stopping {
            let now = Instant::now();
            state.ring(now);
            state.wakes_at = state
                .entries
                .iter()
                .filter(|entry| !matches!(entry.what, What::Done))
                .map(|entry| entry.at)
                .min();
            state = match state.wakes_at {
                Some(at) => {
                    let wait = at.saturating_duration_since(now);
                    self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl State {
    fn remove(&mut self, id: u64) -> Option<What> {
        let index = self.entries.iter().position(|entry| entry.id == id)?;
        Some(self.entries.swap_remove(index).what)
    }

    fn ring(&mut self, now: Instant) {
        // Several are due when this thread comes late: the earliest first all the same.
        self.entries.sort_by_key(|entry| entry.at);
        for entry in self.entries.iter_mut().filter(|entry| entry.at <= now) {
            match std::mem::replace(&mut entry.what, What::Done) {
                What::Forbid(page) => {
                    if let Err(error) = page.forbid() {
                        error!(%error, "Poll page could not be forbidden, trying again");
                        entry.what = What::Forbid(page);
                        entry.at = now + RETRY;
                    }
                }
                What::Act(action) => {
                    if panic::catch_unwind(panic::AssertUnwindSafe(action)).is_err() {
                        error!("An alarm's action panicked");
                    }
                }
                What::Done => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Tries with longer and longer times until what has to be done before the first of them was
    /// done in time, which `attempt` says.
    fn in_time(mut attempt: impl FnMut(Duration) -> bool) {
        let units = [10, 100, 1000, 10_000].map(Duration::from_millis);
        assert!(units.into_iter().any(&mut attempt), "not in ten seconds");
    }

    #[test]
    fn alarms_ring_in_the_order_of_their_times_not_of_their_setting() {
        let watchdog = Arc::new(Watchdog::start().unwrap());
        in_time(|unit| {
            let (sender, receiver) = mpsc::channel();
            let now = Instant::now();
            let alarms: Vec<_> = [3, 1, 2]
                .into_iter()
                .map(|times| {
                    let sender = sender.clone();
                    watchdog.alarm(now + unit * times, move || sender.send(times).unwrap())
                })
                .collect();
            let set = Instant::now() < now + unit;
            let order: Vec<_> = (0..3).map(|_| receiver.recv().unwrap()).collect();
            assert!(!set || order == [1, 2, 3], "{order:?}");
            drop(alarms);
            set
        });
    }

    #[test]
    fn alarms_that_are_due_together_ring_in_the_order_of_their_times() {
        let (sender, receiver) = mpsc::channel();
        let now = Instant::now();
        let mut state = State::default();
        for (id, ms) in [(0, 3), (1, 1), (2, 2)] {
            let sender = sender.clone();
            let what = What::Act(Box::new(move || sender.send(ms).unwrap()));
            state.entries.push(Entry { id, at: now + Duration::from_millis(ms), what });
        }
        state.ring(now + Duration::from_secs(1));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_dropped_alarm_does_not_ring() {
        let watchdog = Arc::new(Watchdog::start().unwrap());
        in_time(|unit| {
            let (sender, receiver) = mpsc::channel();
            let soon = Instant::now() + unit;
            let lifted = watchdog.alarm(soon, {
                let sender = sender.clone();
                move || sender.send("lifted").unwrap()
            });
            let _kept = watchdog.alarm(soon + unit, move || sender.send("kept").unwrap());
            drop(lifted);
            let set = Instant::now() < soon;
            let first = receiver.recv().unwrap();
            assert!(!set || first == "kept", "{first}");
            set
        });
    }

    #[test]
    fn an_action_that_panics_leaves_the_watchdog_alive() {
        let watchdog = Arc::new(Watchdog::start().unwrap());
        let (sender, receiver) = mpsc::channel();
        let _panics = watchdog.alarm(Instant::now(), || panic!("on purpose"));
        let _rings = watchdog.alarm(Instant::now() + Duration::from_millis(5), move || {
            sender.send(()).unwrap();
        });
        receiver.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}
