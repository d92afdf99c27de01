//! One instance of a module, bounded in memory, stack and time.

#![allow(unsafe_code, reason = "names the poll page of an instance that this type owns")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use wasmtime::{Instance, InstancePre, Store, StoreContextMut, Trap, UpdateDeadline};

use crate::{
    Engine, Interruption, Limiter, Limits,
    ahead::PagesAhead,
    deadline::Guarded,
    instrument::{POLL_MEMORY, START_FUNCTION},
    page::PollPage,
};

/// What a store holds: the caller's data, and the limits.
pub struct Guest<T> {
    limiter: Limiter,
    /// The caller's data.
    pub data: T,
}

/// An instance that can be entered again and again until it traps.
pub struct Sandbox<T: 'static> {
    // Declared before the store, so that nothing is left that could name its pages.
    pages_ahead: Option<PagesAhead>,
    stopper: Stopper,
    store: Store<Guest<T>>,
    instance: Instance,
    engine: Engine,
    spent: bool,
}

enum Stopper {
    Page(PollPage),
    Epoch(Arc<AtomicBool>),
    Never,
}

/// Why a guest did not return.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stop {
    /// It ran past its deadline.
    #[error("the guest ran past its deadline")]
    Deadline,
    /// It was refused memory and then trapped.
    #[error("the guest ran out of memory")]
    OutOfMemory,
    /// It trapped.
    #[error("the guest trapped: {0}")]
    Trap(Trap),
    /// A host function ended it, or it could not be instantiated.
    #[error("the guest was ended by the host")]
    Host(#[source] wasmtime::Error),
    /// It trapped before; an instance whose state is unknown is not entered again.
    #[error("the instance has trapped and is of no more use")]
    Spent,
}

impl Stop {
    /// What happened, in words, with the host's own reason where there is one.
    pub fn explanation(&self) -> String {
        match self {
            Self::Host(error) => format!("{self}: {error:#}"),
            _ => self.to_string(),
        }
    }

    /// A stable word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::OutOfMemory => "out_of_memory",
            Self::Trap(trap) => match trap {
                Trap::StackOverflow => "stack_overflow",
                Trap::MemoryOutOfBounds | Trap::HeapMisaligned => "out_of_bounds",
                Trap::TableOutOfBounds | Trap::IndirectCallToNull | Trap::BadSignature => {
                    "indirect_call"
                }
                Trap::IntegerOverflow
                | Trap::IntegerDivisionByZero
                | Trap::BadConversionToInteger => "arithmetic",
                Trap::UnreachableCodeReached => "unreachable",
                _ => "other",
            },
            Self::Host(_) => "host",
            Self::Spent => "spent",
        }
    }
}

impl<T: 'static> Sandbox<T> {
    /// Instantiates, and runs the start function if there is one; all of it until `deadline`.
    ///
    /// # Errors
    /// [`Stop`] when the module needs more than `limits`, or its start function does not return.
    pub fn new(
        engine: &Engine,
        pre: &InstancePre<Guest<T>>,
        limits: Limits,
        data: T,
        deadline: Instant,
    ) -> Result<Self, Stop> {
        let mut store =
            Store::new(engine.wasmtime(), Guest { limiter: Limiter::new(limits), data });
        store.limiter(|guest| &mut guest.limiter);
        match engine.interruption() {
            Interruption::PollPage => {
                // Runs none of the guest's code: the start function is an export.
                let instance = instantiate(pre, &mut store)?;
                let page = instance.get_memory(&mut store, POLL_MEMORY).and_then(|memory| {
                    // SAFETY: the memory was added by `instrument`; the guest's own code cannot
                    // name it, so only the polls touch it, and wasmtime has mapped it for this
                    // instance. Its only uses are guards that end within `enter`, while the
                    // store is borrowed.
                    unsafe { PollPage::new(memory.data_ptr(&store)) }
                });
                let Some(page) = page else {
                    return Err(stop(wasmtime::Error::msg("the module has no poll page"), false));
                };
                // In a place where an instance was given up because this failed, the page is
                // forbidden still.
                if engine.is_pooled()
                    && let Err(error) = page.permit()
                {
                    return Err(stop(error.into(), false));
                }
                let stopper = Stopper::Page(page);
                let engine = engine.clone();
                let mut sandbox =
                    Self { pages_ahead: None, stopper, store, instance, engine, spent: false };
                sandbox.enter(deadline, |mut store, instance| {
                    match instance.get_func(&mut store, START_FUNCTION) {
                        Some(start) => start.typed::<(), ()>(&store)?.call(store, ()),
                        None => Ok(()),
                    }
                })?;
                Ok(sandbox)
            }
            Interruption::Epoch => {
                let rang = Arc::new(AtomicBool::new(false));
                let seen = Arc::clone(&rang);
                // The epoch moves only when some deadline has passed; whose, the flag tells.
                store.set_epoch_deadline(1);
                store.epoch_deadline_callback(move |_| {
                    if seen.load(Ordering::SeqCst) {
                        Err(Trap::Interrupt.into())
                    } else {
                        Ok(UpdateDeadline::Continue(1))
                    }
                });
                let alarm = epoch_alarm(engine, &rang, deadline);
                let instance = instantiate(pre, &mut store).map_err(|error| match error {
                    Stop::Trap(Trap::Interrupt) if rang.load(Ordering::SeqCst) => Stop::Deadline,
                    error => error,
                })?;
                drop(alarm);
                let engine = engine.clone();
                let stopper = Stopper::Epoch(rang);
                Ok(Self { pages_ahead: None, stopper, store, instance, engine, spent: false })
            }
            Interruption::Never => {
                let instance = instantiate(pre, &mut store)?;
                let (stopper, engine) = (Stopper::Never, engine.clone());
                Ok(Self { pages_ahead: None, stopper, store, instance, engine, spent: false })
            }
        }
    }

    /// Calls into the instance, at most until `deadline`. A stopped guest is never entered again.
    ///
    /// `call` must not touch the memory [`POLL_MEMORY`]: reading it past the deadline ends the
    /// process.
    ///
    /// # Errors
    /// [`Stop`]; the sandbox is spent then.
    pub fn enter<R>(
        &mut self,
        deadline: Instant,
        call: impl FnOnce(StoreContextMut<'_, Guest<T>>, &Instance) -> wasmtime::Result<R>,
    ) -> Result<R, Stop> {
        if self.spent {
            return Err(Stop::Spent);
        }
        self.store.data_mut().limiter.take_memory_refused();
        // Set before and cleared after: a panic in `call` leaves the sandbox spent.
        self.spent = true;
        let (result, late) = match &self.stopper {
            Stopper::Page(page) => {
                let guard = self.engine.watchdog().guard(deadline, *page);
                let result = call((&mut self.store).into(), &self.instance);
                let guarded = guard.finish();
                self.spent = guarded == Guarded::Lost;
                (result, guarded != Guarded::InTime)
            }
            Stopper::Epoch(rang) => {
                rang.store(false, Ordering::SeqCst);
                let alarm = epoch_alarm(&self.engine, rang, deadline);
                let result = call((&mut self.store).into(), &self.instance);
                drop(alarm);
                self.spent = false;
                (result, rang.load(Ordering::SeqCst))
            }
            Stopper::Never => {
                let result = call((&mut self.store).into(), &self.instance);
                self.spent = false;
                (result, false)
            }
        };
        result.map_err(|error| {
            self.spent = true;
            let refused = self.store.data_mut().limiter.take_memory_refused();
            match stop(error, late) {
                Stop::Trap(_) if refused => Stop::OutOfMemory,
                stop => stop,
            }
        })
    }

    /// The caller's data.
    pub fn data(&self) -> &T {
        &self.store.data().data
    }

    /// The caller's data, to change between calls.
    pub fn data_mut(&mut self) -> &mut T {
        &mut self.store.data_mut().data
    }

    /// Has the data in the guest's linear memory named `memory`, and what lies behind it, mapped by
    /// another thread, so that the guest finds it without page faults. Worth a thread where the
    /// guest is about to use all of it; without effect where the system cannot.
    pub fn map_ahead(&mut self, memory: &str) {
        if let Some(memory) = self.instance.get_memory(&mut self.store, memory) {
            let start = memory.data_ptr(&self.store).addr();
            let end = start.saturating_add(memory.data_size(&self.store));
            self.pages_ahead = PagesAhead::start(start..end);
        }
    }

    /// Bytes of the guest's linear memory named `name`, as it stands.
    pub fn memory_bytes(&mut self, name: &str) -> usize {
        let memory = self.instance.get_memory(&mut self.store, name);
        memory.map_or(0, |memory| memory.data_size(&self.store))
    }
}

/// Makes the instance; one that begins with more memory than it may have is told from others.
fn instantiate<T>(
    pre: &InstancePre<Guest<T>>,
    store: &mut Store<Guest<T>>,
) -> Result<Instance, Stop> {
    pre.instantiate(&mut *store).map_err(|error| {
        if store.data_mut().limiter.take_memory_refused() {
            return Stop::OutOfMemory;
        }
        stop(error, false)
    })
}

fn epoch_alarm(engine: &Engine, rang: &Arc<AtomicBool>, deadline: Instant) -> crate::Alarm {
    let (rang, wasmtime) = (Arc::clone(rang), engine.wasmtime().weak());
    engine.watchdog().alarm(deadline, move || {
        rang.store(true, Ordering::SeqCst);
        if let Some(engine) = wasmtime.upgrade() {
            engine.increment_epoch();
        }
    })
}

fn stop(error: wasmtime::Error, late: bool) -> Stop {
    match error.downcast_ref::<Trap>() {
        Some(Trap::MemoryOutOfBounds | Trap::Interrupt) if late => Stop::Deadline,
        Some(trap) => Stop::Trap(*trap),
        None => Stop::Host(error),
    }
}
