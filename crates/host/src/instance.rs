//! One instance of an actor: what it must look like, how it starts, how it is called.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use claims::{SignedModule, VerifiedModule, VerifyError};
use engine::{
    CompileError, Compiled, Engine, Guest, Limits, Origin, Sandbox, Stop,
    wasmtime::{ExternType, InstancePre, Linker},
};
use tracing::{debug, warn};

use crate::{
    capabilities::Capabilities,
    confirm::{Confirmation, Unconfirmed},
    host::{LoadError, LoadOptions},
    identity,
    phases::whole_ms,
    provider::{ActorIdentity, CallError, Reply},
    wapc::{self, Call, Environment, Fault, GUEST_CALL, MEMORY, State},
};

/// Exports that run once, in this order, before the first message: what Rust, TinyGo and
/// AssemblyScript guests know as their beginning.
const INIT_EXPORTS: [&str; 3] = ["_start", "_initialize", "wapc_init"];

/// A module is not an actor that can run here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// It is malformed, uses what guests may not use, or does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It imports what this host does not give.
    #[error(
        "the module imports what this host does not give: {}; an actor gets the waPC functions \
         and nothing else", names.join(", ")
    )]
    Imports {
        /// `module.name` of each, with its type where only that is wrong.
        names: Vec<String>,
    },
    /// An export that every actor has is missing or of another type.
    #[error("the module does not export {expected}")]
    Export {
        /// What was looked for.
        expected: &'static str,
    },
}

/// All that instances of one actor have in common.
pub(crate) struct Template {
    engine: Engine,
    pre: InstancePre<Guest<State>>,
    limits: Limits,
    start_time: Duration,
    warm_up: Option<(String, Vec<u8>)>,
    pub(crate) environment: Arc<Environment>,
}

/// Code that was made earlier, and how long it took to find and map it.
pub(crate) struct Kept {
    pub(crate) compiled: Compiled,
    pub(crate) took: Duration,
}

impl Template {
    /// Compiles the module and checks what it imports and exports.
    pub(crate) fn new(
        engine: &Engine,
        module: &VerifiedModule,
        options: &LoadOptions,
    ) -> Result<Self, ModuleError> {
        let begin = Instant::now();
        let identity = identity::of(module);
        let compiled = engine.compile(module.bytes(), module.code_hash().as_bytes())?;
        debug!(
            actor.name = %identity.name,
            cached = compiled.origin == Origin::Cached,
            code_ms = whole_ms(begin.elapsed()),
            "Module compiled"
        );
        let claimed = module.capabilities().into_iter().map(str::to_owned).collect();
        Self::of(engine, &compiled, identity, claimed, options)
    }

    /// The template of code that the cache had for a module whose file is still being hashed.
    pub(crate) fn ahead(
        engine: &Engine,
        kept: &Kept,
        module: &SignedModule,
        options: &LoadOptions,
    ) -> Result<Self, ModuleError> {
        let claimed = module.claims().map(|claims| claims.capabilities.clone());
        let identity = identity::of_signed(module);
        debug!(
            actor.name = %identity.name,
            cached = true,
            code_ms = whole_ms(kept.took),
            "Kept code begins while the module is hashed"
        );
        Self::of(engine, &kept.compiled, identity, claimed.unwrap_or_default(), options)
    }

    fn of(
        engine: &Engine,
        compiled: &Compiled,
        identity: ActorIdentity,
        claimed: Vec<String>,
        options: &LoadOptions,
    ) -> Result<Self, ModuleError> {
        let pre = prepare(engine, compiled)?;
        let capabilities = Capabilities::new(claimed);
        Ok(Self {
            engine: engine.clone(),
            pre,
            limits: Limits {
                memory_bytes: options.memory_bytes,
                table_elements: options.table_elements,
            },
            start_time: options.start_time,
            warm_up: options.warm_up.clone(),
            environment: Arc::new(Environment { identity, capabilities }),
        })
    }

    /// An instance for calls without a queue.
    pub(crate) fn instance(&self) -> Result<Instance, LoadError> {
        self.start(true).map_err(|ending| LoadError::Instance(ending.into_call_error()))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Makes an instance that has loaded its model, and answered the message that warms it if it
    /// is to be warm.
    pub(crate) fn start(&self, warm: bool) -> Result<Instance, Ending> {
        let begin = Instant::now();
        let deadline = begin + self.start_time;
        let state = State { environment: Arc::clone(&self.environment), call: Call::default() };
        let sandbox = Sandbox::new(&self.engine, &self.pre, self.limits, state, deadline)
            .map_err(Ending::Stop)?;
        let mut instance = Instance { sandbox, standing: Standing::Confirmed };
        if warm {
            // Soon to be looked at, all of it, by the warm-up or the first request.
            instance.sandbox.map_ahead(MEMORY);
        }
        instance.initialise(deadline)?;
        let health = wire::HealthRequest { placeholder: true };
        let health = wire::encode(&health).map_err(|error| Ending::Guest(error.to_string()))?;
        instance.enter(wire::OP_HEALTH_REQUEST.into(), health, deadline)?;
        // What a further instance costs, before its first picture: `make bench` reads it.
        let instance_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        debug!(actor.name = %self.environment.identity.name, instance_us, "Instance begun");
        if let Some((operation, message)) = self.warm_up.as_ref().filter(|_| warm) {
            // A request that the guest refuses warms it as well.
            match instance.enter(operation.clone(), message.clone(), deadline) {
                Ok(_) | Err(Ending::Guest(_)) => {}
                Err(ending) => return Err(ending),
            }
        }
        Ok(instance)
    }
}

/// What became of an instance whose file was still to be hashed.
enum Settled {
    AsItIs,
    /// Its weights were damaged on the disk: made anew.
    Replaced,
}

const ALTERED: &str = "the module is not what its claims speak of";

fn prepare(engine: &Engine, compiled: &Compiled) -> Result<InstancePre<Guest<State>>, ModuleError> {
    let module = &compiled.module;
    let mut linker = Linker::new(engine.wasmtime());
    wapc::link(&mut linker).map_err(|error| CompileError::Compile(error.into()))?;
    let foreign = foreign_imports(compiled);
    if !foreign.is_empty() {
        return Err(ModuleError::Imports { names: foreign });
    }
    if !matches!(module.get_export(MEMORY), Some(ExternType::Memory(_))) {
        return Err(ModuleError::Export { expected: "a memory `memory`" });
    }
    if !module.get_export(GUEST_CALL).is_some_and(|export| is_i32_function(&export, 2, 1)) {
        let expected = "a function `__guest_call` from two i32 to one";
        return Err(ModuleError::Export { expected });
    }
    linker
        .instantiate_pre(module)
        .map_err(|error| ModuleError::Compile(CompileError::Compile(error.into())))
}

/// Imports that are not waPC's, all of them.
fn foreign_imports(compiled: &Compiled) -> Vec<String> {
    compiled
        .module
        .imports()
        .filter_map(|import| {
            let name = format!("`{}.{}`", import.module(), import.name());
            let signature = (import.module() == wapc::MODULE)
                .then(|| wapc::IMPORTS.iter().find(|known| known.0 == import.name()))
                .flatten();
            let Some(&(_, params, results)) = signature else { return Some(name) };
            (!is_i32_function(&import.ty(), params, results))
                .then(|| format!("{name} with another type"))
        })
        .collect()
}

fn is_i32_function(ty: &ExternType, params: usize, results: usize) -> bool {
    let ExternType::Func(function) = ty else { return false };
    let mut types = function.params().chain(function.results());
    function.params().len() == params
        && function.results().len() == results
        && types.all(|ty| ty.is_i32())
}

/// How a call ended without an answer.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The guest said that it failed; it is as good as before.
    Guest(String),
    /// The guest was stopped; the instance is spent.
    Stop(Stop),
}

impl Ending {
    /// The word under which a stopped guest is counted.
    pub(crate) fn trap_reason(&self) -> Option<&'static str> {
        match self {
            Self::Guest(_) => None,
            Self::Stop(Stop::Host(error)) => {
                Some(error.downcast_ref::<Fault>().map_or("other", Fault::reason))
            }
            Self::Stop(stop) => Some(stop.reason()),
        }
    }

    /// All that is known, for logs.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Guest(text) => format!("the actor failed: {text}"),
            Self::Stop(stop) => stop.explanation(),
        }
    }

    pub(crate) fn into_call_error(self) -> CallError {
        let reason = self.trap_reason();
        match (self, reason) {
            (Self::Guest(text), _) => CallError::Guest(text),
            (Self::Stop(Stop::Deadline), _) => CallError::Deadline,
            (Self::Stop(Stop::OutOfMemory), _) => CallError::OutOfMemory,
            (Self::Stop(_), reason) => CallError::Trap { reason: reason.unwrap_or("other") },
        }
    }
}

/// An instance that has loaded its model, called directly: no queue, no thread of its own.
///
/// The thread that calls it needs 2 MiB of stack.
pub struct Instance {
    sandbox: Sandbox<State>,
    standing: Standing,
}

/// Whether an instance's answers may be handed out.
enum Standing {
    Confirmed,
    Pending(Box<Pending>),
    /// With the reason, until somebody has asked for it.
    Refused(Option<VerifyError>),
}

/// What an instance needs that began before its module's file was hashed.
struct Pending {
    confirmation: Confirmation,
    module: Arc<SignedModule>,
    engine: Engine,
    options: LoadOptions,
}

impl Instance {
    /// Marks an instance of [`Template::ahead`]: its answers wait for `confirmation`.
    pub(crate) fn pending(
        self,
        confirmation: Confirmation,
        module: Arc<SignedModule>,
        engine: &Engine,
        options: &LoadOptions,
    ) -> Self {
        let (engine, options) = (engine.clone(), options.clone());
        let pending = Pending { confirmation, module, engine, options };
        Self { standing: Standing::Pending(Box::new(pending)), ..self }
    }

    fn initialise(&mut self, deadline: Instant) -> Result<(), Ending> {
        self.sandbox
            .enter(deadline, |mut store, instance| {
                for name in INIT_EXPORTS {
                    if let Some(function) = instance.get_func(&mut store, name) {
                        function.typed::<(), ()>(&store)?.call(&mut store, ())?;
                    }
                }
                Ok(())
            })
            .map_err(Ending::Stop)
    }

    /// Sends one message and waits for the answer, at most until `deadline`; before the first
    /// answer of an instance of [`Host::instance_ahead`](crate::Host::instance_ahead), as long as
    /// hashing its file takes, too.
    ///
    /// # Errors
    /// [`CallError`]; after a trap, a missed deadline or [`CallError::Refused`] every further call
    /// fails.
    pub fn call(
        &mut self,
        operation: &str,
        message: Vec<u8>,
        deadline: Instant,
    ) -> Result<Reply, CallError> {
        let again = match &self.standing {
            Standing::Confirmed => None,
            Standing::Pending(_) => Some(message.clone()),
            Standing::Refused(_) => return Err(CallError::Refused(ALTERED.into())),
        };
        let mut reply = self.enter(operation.into(), message, deadline);
        if let Some(message) = again {
            match self.settle() {
                Ok(Settled::AsItIs) => {}
                Ok(Settled::Replaced) => reply = self.enter(operation.into(), message, deadline),
                Err(LoadError::Refused(error)) => {
                    let reason = error.to_string();
                    self.standing = Standing::Refused(Some(error));
                    return Err(CallError::Refused(reason));
                }
                Err(LoadError::Instance(error)) => return Err(error),
                Err(error) => return Err(CallError::Refused(error.to_string())),
            }
        }
        reply.map_err(Ending::into_call_error)
    }

    /// Waits until the module's file has been hashed, if it is not known yet to be the module that
    /// its tokens speak of.
    ///
    /// # Errors
    /// [`LoadError::Refused`] when it is not, also after a call that failed for that; others when
    /// the instance had to be made anew, and could not.
    pub fn confirm(&mut self) -> Result<(), LoadError> {
        match &mut self.standing {
            Standing::Confirmed => Ok(()),
            Standing::Pending(_) => self.settle().map(|_| ()),
            Standing::Refused(reason) => {
                Err(LoadError::Refused(reason.take().unwrap_or(VerifyError::Changed)))
            }
        }
    }

    fn settle(&mut self) -> Result<Settled, LoadError> {
        let standing = std::mem::replace(&mut self.standing, Standing::Refused(None));
        let Standing::Pending(pending) = standing else {
            self.standing = standing;
            return Ok(Settled::AsItIs);
        };
        let Pending { confirmation, module, engine, options } = *pending;
        match confirmation.wait() {
            Ok(digest) => {
                self.sandbox.data().environment.identity.digest.set(digest.to_string());
                self.standing = Standing::Confirmed;
                Ok(Settled::AsItIs)
            }
            Err(Unconfirmed::Module(error)) => Err(LoadError::Refused(error)),
            Err(Unconfirmed::Code) => {
                let module = module.verified().map_err(LoadError::Refused)?;
                *self = Template::new(&engine, &module, &options)?.instance()?;
                Ok(Settled::Replaced)
            }
        }
    }

    /// Bytes of the guest's linear memory.
    pub fn memory_bytes(&mut self) -> usize {
        self.sandbox.memory_bytes(MEMORY)
    }

    pub(crate) fn enter(
        &mut self,
        operation: String,
        message: Vec<u8>,
        deadline: Instant,
    ) -> Result<Reply, Ending> {
        let too_long = |_| Ending::Guest("the message is longer than a guest can take".into());
        let operation_len = u32::try_from(operation.len()).map_err(too_long)?;
        let message_len = u32::try_from(message.len()).map_err(too_long)?;
        self.sandbox.data_mut().call = Call::new(operation, message);
        let result = self.sandbox.enter(deadline, |mut store, instance| {
            let call = instance.get_typed_func::<(u32, u32), u32>(&mut store, GUEST_CALL)?;
            call.call(store, (operation_len, message_len))
        });
        let end = Instant::now();
        // Also gives back the message's memory.
        let call = std::mem::take(&mut self.sandbox.data_mut().call);
        if call.dropped_log_lines() > 0 {
            let name = &self.sandbox.data().environment.identity.name;
            let dropped = call.dropped_log_lines();
            warn!(actor.name = %name, dropped, "Actor logged too much in one call");
        }
        match result.map_err(Ending::Stop)? {
            0 => Err(Ending::Guest(call.error.unwrap_or_else(|| "no reason given".into()))),
            _ => Ok(Reply {
                body: call.response,
                phases: call.phases.finish(end),
                queued: Duration::ZERO,
            }),
        }
    }
}
