//! An actor at work: a bounded queue, and instances behind it, each on a thread of its own.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use claims::Claims;
use engine::Stop;
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use crate::{
    Isolation,
    host::{LoadError, LoadOptions},
    identity,
    instance::{Ending, Instance, Template},
    limits,
    phases::whole_ms,
    provider::{ActorIdentity, ActorService, ActorState, ActorStatus, BoxFuture, CallError, Reply},
    queue::{Job, Queue},
};

// What wasmtime, the host functions and a provider's `handle` need below the guest's own stack.
const HOST_STACK_BYTES: usize = 2 << 20;

/// A verified module at work.
///
/// Dropping it ends its instances as soon as they are done with what they have.
pub struct Actor {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) template: Template,
    isolation: Isolation,
    queue: Queue,
    call_time: Duration,
    request_bytes: usize,
    claims: Option<Claims>,
    state: Mutex<State>,
    changed: Condvar,
    memory_bytes: Vec<AtomicU64>,
}

struct State {
    instances: Vec<InstanceState>,
    traps: BTreeMap<&'static str, u64>,
    /// Some instance has loaded the model at some time.
    loaded: bool,
    /// Why the latest instance did not start, and whether memory was short.
    start_failure: Option<(String, bool)>,
    refused: Option<String>,
    stopped: Vec<oneshot::Sender<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InstanceState {
    Starting,
    Idle,
    Busy,
    Gone,
}

/// An actor did not become ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its first instance did not come up; it is tried again, but will most likely fail again.
    #[error("actor `{actor}` did not start: {reason}")]
    Failed {
        /// The actor's name.
        actor: String,
        /// What happened.
        reason: String,
    },
    /// Its first instance needs more memory than [`LoadOptions::memory_bytes`].
    #[error("actor `{actor}` does not fit into the memory of an instance")]
    OutOfMemory {
        /// The actor's name.
        actor: String,
    },
    /// It needs longer.
    #[error("actor `{actor}` has not loaded its model after {waited:?}")]
    Timeout {
        /// The actor's name.
        actor: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The host stopped meanwhile.
    #[error("actor `{actor}` was stopped while it started")]
    Stopped {
        /// The actor's name.
        actor: String,
    },
}

impl Actor {
    /// Starts the instances; returns before they are ready.
    pub(crate) fn start(
        template: Template,
        claims: Option<&Claims>,
        options: &LoadOptions,
        stack_bytes: usize,
    ) -> Result<Self, LoadError> {
        let instances = options.instances.max(1);
        // A request that comes while a thread makes its next instance waits for it.
        let making = if options.isolation == Isolation::Request { instances } else { 0 };
        let shared = Arc::new(Shared {
            template,
            isolation: options.isolation,
            queue: Queue::new(options.queue_depth.saturating_add(making)),
            call_time: options.call_time,
            request_bytes: options.request_bytes,
            claims: claims.cloned(),
            state: Mutex::new(State {
                instances: vec![InstanceState::Starting; instances],
                traps: BTreeMap::new(),
                loaded: false,
                start_failure: None,
                refused: None,
                stopped: Vec::new(),
            }),
            changed: Condvar::new(),
            memory_bytes: (0..instances).map(|_| AtomicU64::new(0)).collect(),
        });
        // From here on, dropping the actor ends the threads that were started.
        let actor = Self { shared };
        for index in 0..instances {
            let shared = Arc::clone(&actor.shared);
            thread::Builder::new()
                .name(format!("instance-{index}"))
                .stack_size(stack_bytes + HOST_STACK_BYTES)
                .spawn(move || Worker { shared, index }.run())
                .map_err(LoadError::Thread)?;
        }
        Ok(actor)
    }

    /// Waits until an instance has loaded the model.
    ///
    /// # Errors
    /// [`StartError`] at the first failure, or after `timeout`.
    pub fn wait_ready(&self, timeout: Duration) -> Result<(), StartError> {
        let begin = Instant::now();
        let actor = || self.identity().name.clone();
        let mut state = self.shared.lock();
        loop {
            if state.loaded {
                return Ok(());
            }
            if let Some((reason, out_of_memory)) = &state.start_failure {
                if *out_of_memory {
                    return Err(StartError::OutOfMemory { actor: actor() });
                }
                return Err(StartError::Failed { actor: actor(), reason: reason.clone() });
            }
            if state.instances.iter().all(|state| *state == InstanceState::Gone) {
                return Err(StartError::Stopped { actor: actor() });
            }
            let Some(left) = timeout.checked_sub(begin.elapsed()).filter(|left| !left.is_zero())
            else {
                return Err(StartError::Timeout { actor: actor(), waited: timeout });
            };
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes no more requests, and ends when `grace` has passed or all that runs and waits is
    /// done; what still waits then is answered with [`CallError::Stopping`].
    pub async fn stop(&self, grace: Duration) {
        let shared = &self.shared;
        shared.queue.close();
        let (sender, done) = oneshot::channel();
        {
            let mut state = shared.lock();
            if state.instances.iter().all(|state| *state == InstanceState::Gone) {
                return;
            }
            state.stopped.push(sender);
        }
        let alarmed = Arc::clone(shared);
        let watchdog = shared.template.engine().watchdog();
        let alarm = watchdog.alarm(Instant::now() + grace, move || {
            for job in alarmed.queue.drain() {
                let _ = job.answer.send(Err(CallError::Stopping));
            }
            alarmed.lock().stopped.clear();
        });
        // Ends with a message or without: either way it is over.
        let _ = done.await;
        drop(alarm);
    }

    /// Stops traffic, with the reason that callers are told, or lets it run again.
    pub(crate) fn set_refused(&self, reason: Option<String>) {
        let refused = reason.is_some();
        let name = &self.identity().name;
        let before = std::mem::replace(&mut self.shared.lock().refused, reason.clone());
        if before.is_some() == refused {
            return;
        }
        match reason {
            Some(reason) => {
                error!(actor.name = %name, %reason, "Actor's claims no longer hold, traffic stops");
                for job in self.shared.queue.drain() {
                    let _ = job.answer.send(Err(CallError::Refused(reason.clone())));
                }
            }
            None => info!(actor.name = %name, "Actor's claims hold again, traffic goes on"),
        }
    }

    pub(crate) fn claims(&self) -> Option<&Claims> {
        self.shared.claims.as_ref()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl ActorService for Actor {
    fn identity(&self) -> &ActorIdentity {
        &self.shared.template.environment.identity
    }

    fn status(&self) -> ActorStatus {
        let shared = &self.shared;
        let now = identity::now();
        let expires = self.claims().and_then(|claims| claims.expires);
        let queue_depth = shared.queue.waiting();
        let closed = shared.queue.is_closed();
        let state = shared.lock();
        let count = |wanted| state.instances.iter().filter(|instance| **instance == wanted).count();
        ActorStatus {
            state: match (closed, &state.refused, state.loaded) {
                (true, _, _) => ActorState::Stopping,
                (_, Some(_), _) => ActorState::Refused,
                (_, _, true) => ActorState::Running,
                (_, _, false) => ActorState::Starting,
            },
            idle_instances: count(InstanceState::Idle),
            busy_instances: count(InstanceState::Busy),
            starting_instances: count(InstanceState::Starting),
            queue_depth,
            instance_memory_bytes: shared
                .memory_bytes
                .iter()
                .map(|bytes| bytes.load(Ordering::Relaxed))
                .collect(),
            traps: state.traps.clone(),
            claims_expire_in: expires.map(|expires| expires.since(now)),
            unsigned: shared.claims.is_none(),
        }
    }

    fn call<'a>(
        &'a self,
        operation: &'a str,
        message: Vec<u8>,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Reply, CallError>> {
        Box::pin(self.send(operation, message, deadline))
    }
}

/// Takes a job out of the queue when its caller leaves.
struct Place<'a> {
    queue: &'a Queue,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.remove(self.id);
    }
}

impl Actor {
    async fn send(
        &self,
        operation: &str,
        message: Vec<u8>,
        deadline: Instant,
    ) -> Result<Reply, CallError> {
        let shared = &self.shared;
        if message.len() > shared.request_bytes {
            let (bytes, limit) = (message.len(), shared.request_bytes);
            return Err(CallError::Guest(format!(
                "a message of {bytes} bytes is longer than the limit of {limit}"
            )));
        }
        if let Some(reason) = &shared.lock().refused {
            return Err(CallError::Refused(reason.clone()));
        }
        let enqueued = Instant::now();
        let deadline = deadline.min(enqueued + shared.call_time);
        let (answer, answered) = oneshot::channel();
        let operation = operation.to_owned();
        let id = shared.queue.put(Job { operation, message, enqueued, deadline, answer })?;
        let place = Place { queue: &shared.queue, id };
        // A job in an instance meets the same deadline there.
        let expiring = Arc::clone(shared);
        let alarm = shared.template.engine().watchdog().alarm(deadline, move || {
            if let Some(job) = expiring.queue.remove(id) {
                let _ = job.answer.send(Err(CallError::Deadline));
            }
        });
        let result = answered.await;
        drop(alarm);
        drop(place);
        // The sender is dropped without an answer only when the instance's thread is gone.
        result.unwrap_or(Err(CallError::Stopping))
    }
}

impl Shared {
    // No code panics under this lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn capabilities(&self) -> &crate::capabilities::Capabilities {
        &self.template.environment.capabilities
    }
}

/// One instance's thread.
struct Worker {
    shared: Arc<Shared>,
    index: usize,
}

impl Worker {
    fn run(&self) {
        let once = self.shared.isolation == Isolation::Request;
        let mut pause = limits::RESTART_PAUSE;
        let mut warm = false;
        while !self.shared.queue.is_closed() || self.shared.queue.waiting() > 0 {
            self.set(InstanceState::Starting);
            let begin = Instant::now();
            match self.shared.template.start(!warm) {
                // It has seen a message, though only ours.
                Ok(_) if once && !warm => warm = true,
                Ok(mut instance) => {
                    pause = limits::RESTART_PAUSE;
                    self.measure(&mut instance);
                    self.ready(begin.elapsed());
                    if self.serve(instance).is_none() {
                        break;
                    }
                }
                Err(ending) => {
                    self.failed(&ending);
                    if self.shared.queue.closed_before(Instant::now() + pause) {
                        break;
                    }
                    pause = (pause * 2).min(limits::MAX_RESTART_PAUSE);
                }
            }
        }
    }

    /// Answers jobs, as many as the instance may, or `None` when there are no more.
    fn serve(&self, mut instance: Instance) -> Option<()> {
        loop {
            self.measure(&mut instance);
            self.set(InstanceState::Idle);
            let job = self.shared.queue.take()?;
            self.set(InstanceState::Busy);
            let begin = Instant::now();
            if begin >= job.deadline {
                let _ = job.answer.send(Err(CallError::Deadline));
                continue;
            }
            let queued = begin.duration_since(job.enqueued);
            match instance.enter(job.operation, job.message, job.deadline) {
                Ok(reply) => {
                    // The caller may have left; then the answer is nobody's.
                    let _ = job.answer.send(Ok(Reply { queued, ..reply }));
                }
                Err(ending) => {
                    let reason = ending.trap_reason();
                    if let Some(reason) = reason {
                        self.trapped(reason, &ending);
                    }
                    let _ = job.answer.send(Err(ending.into_call_error()));
                    if reason.is_some() {
                        return Some(());
                    }
                }
            }
            if self.shared.isolation == Isolation::Request {
                self.measure(&mut instance);
                return Some(());
            }
        }
    }

    fn measure(&self, instance: &mut Instance) {
        let bytes = instance.memory_bytes() as u64;
        self.shared.memory_bytes[self.index].store(bytes, Ordering::Relaxed);
    }

    fn set(&self, to: InstanceState) {
        self.shared.lock().instances[self.index] = to;
    }

    fn name(&self) -> &str {
        &self.shared.template.environment.identity.name
    }

    fn ready(&self, took: Duration) {
        let first = {
            let mut state = self.shared.lock();
            state.start_failure = None;
            !std::mem::replace(&mut state.loaded, true)
        };
        self.shared.changed.notify_all();
        let (instance, load_ms) = (self.index, whole_ms(took));
        if first {
            info!(actor.name = %self.name(), load_ms, "Actor ready");
        } else {
            debug!(actor.name = %self.name(), instance, load_ms, "Instance ready");
        }
    }

    fn failed(&self, ending: &Ending) {
        let reason = ending.describe();
        error!(actor.name = %self.name(), instance = self.index, %reason, "Instance did not start");
        let out_of_memory = ending.trap_reason() == Some(Stop::OutOfMemory.reason());
        self.shared.lock().start_failure = Some((reason, out_of_memory));
        self.shared.changed.notify_all();
    }

    fn trapped(&self, reason: &'static str, ending: &Ending) {
        *self.shared.lock().traps.entry(reason).or_default() += 1;
        let detail = ending.describe();
        warn!(
            actor.name = %self.name(),
            instance = self.index,
            reason,
            %detail,
            "Instance trapped, a fresh one takes its place"
        );
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let (last, stopped) = {
            let mut state = self.shared.lock();
            state.instances[self.index] = InstanceState::Gone;
            let last = state.instances.iter().all(|state| *state == InstanceState::Gone);
            (last, if last { std::mem::take(&mut state.stopped) } else { Vec::new() })
        };
        if last {
            // Nobody is left to answer these; a panic may have brought us here, too.
            self.shared.queue.close();
            for job in self.shared.queue.drain() {
                let _ = job.answer.send(Err(CallError::Stopping));
            }
        }
        self.shared.changed.notify_all();
        for sender in stopped {
            let _ = sender.send(());
        }
    }
}
