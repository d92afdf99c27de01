//! The bounded queue between callers and instances.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::oneshot;

use crate::provider::{CallError, Reply};

/// One message on its way to an instance.
pub(crate) struct Job {
    pub(crate) operation: String,
    pub(crate) message: Vec<u8>,
    pub(crate) enqueued: Instant,
    pub(crate) deadline: Instant,
    pub(crate) answer: oneshot::Sender<Result<Reply, CallError>>,
}

/// Jobs that wait, first come first served.
pub(crate) struct Queue {
    depth: usize,
    state: Mutex<State>,
    changed: Condvar,
    // Those who wait for the end alone; on `changed` they would catch an instance's wake.
    closing: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(u64, Job)>,
    next_id: u64,
    // Instances that stand in `take`.
    idle: usize,
    closed: bool,
}

impl Queue {
    /// A queue in which `depth` jobs may wait beyond those that an idle instance takes at once.
    pub(crate) fn new(depth: usize) -> Self {
        Self { depth, state: Mutex::default(), changed: Condvar::new(), closing: Condvar::new() }
    }

    // No code panics under this lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job; the number takes it out again.
    pub(crate) fn put(&self, job: Job) -> Result<u64, CallError> {
        let mut state = self.lock();
        if state.closed {
            return Err(CallError::Stopping);
        }
        let waiting = state.jobs.len();
        if waiting >= self.depth + state.idle {
            return Err(CallError::QueueFull { waiting });
        }
        let id = state.next_id;
        state.next_id += 1;
        state.jobs.push_back((id, job));
        drop(state);
        self.changed.notify_one();
        Ok(id)
    }

    /// The next job whose caller still waits; blocks. `None` when the queue is closed and empty.
    pub(crate) fn take(&self) -> Option<Job> {
        let mut state = self.lock();
        state.idle += 1;
        let job = loop {
            match state.jobs.pop_front() {
                Some((_, job)) if job.answer.is_closed() => {}
                Some((_, job)) => break Some(job),
                None if state.closed => break None,
                None => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        state.idle -= 1;
        job
    }

    /// Waits until `until`, or until the queue is closed; tells whether it is.
    pub(crate) fn closed_before(&self, until: Instant) -> bool {
        let mut state = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return state.closed;
            }
            state =
                self.closing.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes a job out that no instance has taken yet.
    pub(crate) fn remove(&self, id: u64) -> Option<Job> {
        let mut state = self.lock();
        let index = state.jobs.iter().position(|job| job.0 == id)?;
        state.jobs.remove(index).map(|(_, job)| job)
    }

    /// Takes all jobs out.
    pub(crate) fn drain(&self) -> Vec<Job> {
        self.lock().jobs.drain(..).map(|(_, job)| job).collect()
    }

    /// No more jobs; instances leave when those that wait are done.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
        self.closing.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(crate) fn waiting(&self) -> usize {
        self.lock().jobs.len()
    }
}
