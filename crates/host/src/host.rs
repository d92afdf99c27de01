//! The host: verified modules become actors, actors are joined to providers, claims are looked
//! at again while they run, and all of it stops in order.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use claims::{Claims, Policy, SignedModule, VerifiedModule, VerifyError};
use engine::{CompileError, Engine, EngineError, EngineOptions, Interruption, Limits, Pool};
use tracing::{info, warn};

use crate::{
    Isolation,
    actor::Actor,
    confirm::{Confirmation, Unconfirmed},
    instance::{Instance, Kept, ModuleError, Template},
    limits,
    provider::{ActorHandle, ActorService, CallError, CapabilityProvider, Link, ProviderError},
    recheck::{Stopping, recheck_until_stopped},
};

/// Gives the policy as it stands now: trust and revocations may change while actors run.
pub type PolicySource =
    Box<dyn Fn() -> Result<Policy, Box<dyn std::error::Error + Send + Sync>> + Send + Sync>;

/// How an actor runs.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Instances, each with a thread and a memory of its own; they share the weights.
    pub instances: usize,
    /// Whether an instance answers one request or many.
    pub isolation: Isolation,
    /// Requests that may wait for an instance.
    pub queue_depth: usize,
    /// Longest message to the actor, bytes: the longest body that a provider lets through, and
    /// [`limits::FRAMING_BYTES`].
    pub request_bytes: usize,
    /// Longest time from the queue to the answer.
    pub call_time: Duration,
    /// Longest time an instance may take to load its model.
    pub start_time: Duration,
    /// Linear memory of one instance, bytes.
    pub memory_bytes: usize,
    /// Elements of a guest's function table.
    pub table_elements: usize,
    /// Operation and message that an instance answers before its first request; the answer is
    /// dropped. With [`Isolation::Request`] one instance a thread is made for it, and it alone.
    pub warm_up: Option<(String, Vec<u8>)>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            instances: limits::INSTANCES,
            isolation: Isolation::default(),
            queue_depth: limits::QUEUE_DEPTH,
            request_bytes: limits::REQUEST_BYTES,
            call_time: limits::CALL_TIME,
            start_time: limits::START_TIME,
            memory_bytes: limits::MEMORY_BYTES,
            table_elements: limits::TABLE_ELEMENTS,
            warm_up: None,
        }
    }
}

/// An actor could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The module is no actor that can run here.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The module's file is not what its tokens speak of.
    #[error("the module is refused")]
    Refused(#[source] VerifyError),
    /// Its instance did not come up.
    #[error("the instance did not start")]
    Instance(#[source] CallError),
    /// No thread could be had for an instance.
    #[error("an instance's thread could not be started")]
    Thread(#[source] io::Error),
}

/// An actor could not be linked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Its claims do not name the capability.
    #[error("the claims of actor `{actor}` do not name `{capability}`")]
    NotClaimed {
        /// The actor's name.
        actor: String,
        /// The capability.
        capability: String,
    },
    /// This host has no such provider.
    #[error("no provider of `{capability}` here; there are: {}", known.join(", "))]
    NoProvider {
        /// The capability.
        capability: String,
        /// Those there are.
        known: Vec<&'static str>,
    },
    /// There is such a link.
    #[error("actor `{actor}` is linked to `{capability}` under the binding `{binding}` already")]
    Twice {
        /// The actor's name.
        actor: String,
        /// The capability.
        capability: String,
        /// The binding.
        binding: String,
    },
    /// The provider refused.
    #[error("actor `{actor}` could not be linked to `{capability}`")]
    Provider {
        /// The actor's name.
        actor: String,
        /// The capability.
        capability: String,
        /// Why.
        #[source]
        source: ProviderError,
    },
}

/// Settings of a [`Host`].
#[derive(Default)]
pub struct HostBuilder {
    engine: EngineOptions,
    providers: BTreeMap<&'static str, Arc<dyn CapabilityProvider>>,
    policy: Option<PolicySource>,
    recheck_interval: Option<Duration>,
}

impl HostBuilder {
    /// Keeps compiled code in `dir`. Without it modules are compiled each time.
    #[must_use]
    pub fn cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.engine.cache_dir = Some(dir.into());
        self
    }

    /// Uses code that [`Host::precompile`] made in another process, for its own module only.
    #[must_use]
    pub fn code(mut self, code: File) -> Self {
        self.engine.code = Some(Arc::new(code));
        self
    }

    /// Stops guests in this way instead of the best one for the machine.
    #[must_use]
    pub fn interruption(mut self, interruption: Interruption) -> Self {
        self.engine.interruption = Some(interruption);
        self
    }

    /// Keeps memory for this many instances of [`Isolation::Request`], all actors together, of at
    /// most `memory_bytes` each. Without it, and where the system cannot tell which pages were
    /// written (Linux before 6.7), each instance is mapped anew, which takes longer.
    #[must_use]
    pub fn pool(mut self, instances: usize, memory_bytes: usize) -> Self {
        let instances = u32::try_from(instances).unwrap_or(u32::MAX);
        let limits = Limits { memory_bytes, table_elements: limits::TABLE_ELEMENTS };
        self.engine.pool = Some(Pool { instances, limits });
        self
    }

    /// Adds a provider. `wascc:logging` is there without one.
    #[must_use]
    pub fn provider(mut self, provider: Arc<dyn CapabilityProvider>) -> Self {
        self.providers.insert(provider.capability(), provider);
        self
    }

    /// Looks at the claims of running actors again, by the policy that `source` gives then.
    #[must_use]
    pub fn policy(mut self, source: PolicySource) -> Self {
        self.policy = Some(source);
        self
    }

    /// How often that happens; [`limits::RECHECK_INTERVAL`] by default.
    #[must_use]
    pub fn recheck_interval(mut self, interval: Duration) -> Self {
        self.recheck_interval = Some(interval);
        self
    }

    /// Makes the host.
    ///
    /// # Errors
    /// [`EngineError`] when wasmtime or a thread cannot be had.
    pub fn build(self) -> Result<Host, EngineError> {
        let engine = Engine::new(&self.engine)?;
        let inner = Arc::new(Inner {
            engine,
            stack_bytes: self.engine.max_stack_bytes,
            providers: self.providers,
            actors: Mutex::default(),
            stopping: Arc::default(),
        });
        if let Some(policy) = self.policy {
            let interval = self.recheck_interval.unwrap_or(limits::RECHECK_INTERVAL);
            let (host, stopping) = (Arc::downgrade(&inner), Arc::clone(&inner.stopping));
            thread::Builder::new()
                .name("claims".into())
                .spawn(move || {
                    let actors = || Some(host.upgrade()?.actors().clone());
                    recheck_until_stopped(actors, &stopping, &policy, interval);
                })
                .map_err(EngineError::Watchdog)?;
        }
        Ok(Host { inner })
    }
}

/// The process's actors and providers. Clones are the same host.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    stack_bytes: usize,
    providers: BTreeMap<&'static str, Arc<dyn CapabilityProvider>>,
    actors: Mutex<Vec<Arc<Actor>>>,
    stopping: Arc<Stopping>,
}

impl Host {
    /// Settings to make one.
    pub fn builder() -> HostBuilder {
        HostBuilder::default()
    }

    /// How guests that run too long are stopped here.
    pub fn interruption(&self) -> Interruption {
        self.inner.engine.interruption()
    }

    /// Whether memory is kept for instances ([`HostBuilder::pool`]).
    pub fn is_pooled(&self) -> bool {
        self.inner.engine.is_pooled()
    }

    /// Compiles a module for a process that is handed the code ([`HostBuilder::code`]); nothing of
    /// it is loaded here.
    ///
    /// # Errors
    /// [`CompileError`] when the module is malformed or uses what guests may not use.
    pub fn precompile(&self, module: &VerifiedModule) -> Result<Vec<u8>, CompileError> {
        self.inner.engine.precompile(module.bytes(), module.code_hash().as_bytes())
    }

    /// Compiles the module (or finds its code in the cache) and starts its instances. They load
    /// the model on threads of their own: [`Actor::wait_ready`] tells when, and whether.
    ///
    /// Blocks while it compiles: about a second per megabyte of code and core.
    ///
    /// # Errors
    /// [`LoadError`] when the module is no actor that can run here.
    pub fn load(
        &self,
        module: VerifiedModule,
        options: &LoadOptions,
    ) -> Result<Arc<Actor>, LoadError> {
        let template = Template::new(&self.inner.engine, &module, options)?;
        let actor = self.start(template, module.claims(), options)?;
        Ok(self.admit(actor, options))
    }

    /// As [`Host::load`], of a module whose file has not been hashed yet. When its code is in the
    /// cache, its instances load the model meanwhile; the actor is there, for anybody to call,
    /// when the file turned out to be what its tokens speak of.
    ///
    /// # Errors
    /// [`LoadError::Refused`] when it did not; else as [`Host::load`].
    pub fn load_ahead(
        &self,
        module: SignedModule,
        options: &LoadOptions,
    ) -> Result<Arc<Actor>, LoadError> {
        let engine = &self.inner.engine;
        let module = Arc::new(module);
        if let Some((kept, confirmation)) = self.ahead(&module) {
            let begun = Template::ahead(engine, &kept, &module, options)
                .map_err(LoadError::from)
                .and_then(|template| self.start(template, module.claims(), options));
            // Whatever became of the code: first it must be this file's.
            match confirmation.wait() {
                Ok(digest) => {
                    let actor = begun?;
                    actor.identity().digest.set(digest.to_string());
                    return Ok(self.admit(actor, options));
                }
                Err(Unconfirmed::Module(error)) => return Err(LoadError::Refused(error)),
                Err(Unconfirmed::Code) => {}
            }
        }
        self.load(module.verified().map_err(LoadError::Refused)?, options)
    }

    /// One instance with its model loaded, to be called without a queue, on the caller's thread.
    ///
    /// # Errors
    /// [`LoadError`] when the module is no actor that can run here, or does not start.
    pub fn instance(
        &self,
        module: &VerifiedModule,
        options: &LoadOptions,
    ) -> Result<Instance, LoadError> {
        Template::new(&self.inner.engine, module, options)?.instance()
    }

    /// As [`Host::instance`], of a module whose file has not been hashed yet. When its code is in
    /// the cache, that happens while the instance begins to work; its first answer waits for it.
    ///
    /// # Errors
    /// As [`Host::instance`]. That the file is not what its tokens speak of is an error here, of
    /// [`Instance::confirm`], or of the first call.
    pub fn instance_ahead(
        &self,
        module: SignedModule,
        options: &LoadOptions,
    ) -> Result<Instance, LoadError> {
        let engine = &self.inner.engine;
        let module = Arc::new(module);
        let Some((kept, confirmation)) = self.ahead(&module) else {
            let module = module.verified().map_err(LoadError::Refused)?;
            return self.instance(&module, options);
        };
        let begun = Template::ahead(engine, &kept, &module, options)
            .map_err(LoadError::from)
            .and_then(|template| template.instance());
        match begun {
            Ok(instance) => Ok(instance.pending(confirmation, module, engine, options)),
            // It may be the fault of other code than this file's.
            Err(error) => match confirmation.wait() {
                Ok(_) => Err(error),
                Err(Unconfirmed::Module(error)) => Err(LoadError::Refused(error)),
                Err(Unconfirmed::Code) => {
                    self.instance(&module.verified().map_err(LoadError::Refused)?, options)
                }
            },
        }
    }

    /// Code that was made earlier of the module that a file's tokens speak of, and what goes on
    /// meanwhile; `None` when there is none, and for unsigned modules.
    fn ahead(&self, module: &Arc<SignedModule>) -> Option<(Kept, Confirmation)> {
        let begin = Instant::now();
        let found = self.inner.engine.find(module.code_hash()?.as_bytes())?;
        let kept = Kept { compiled: found.compiled, took: begin.elapsed() };
        let confirmation = Confirmation::start(module, found.data)?;
        Some((kept, confirmation))
    }

    fn start(
        &self,
        template: Template,
        claims: Option<&Claims>,
        options: &LoadOptions,
    ) -> Result<Arc<Actor>, LoadError> {
        let actor = Actor::start(template, claims, options, self.inner.stack_bytes)?;
        Ok(Arc::new(actor))
    }

    /// From here on the actor is one of this host's.
    fn admit(&self, actor: Arc<Actor>, options: &LoadOptions) -> Arc<Actor> {
        let identity = actor.identity();
        if actor.claims().is_none() {
            warn!(
                actor.name = %identity.name,
                module.digest = %identity.digest,
                "UNSIGNED module runs because a flag allows it"
            );
        }
        info!(
            actor.name = %identity.name,
            actor.key = %identity.subject,
            module.digest = %identity.digest,
            instances = options.instances.max(1),
            isolation = %options.isolation,
            "Actor loaded"
        );
        self.inner.actors().push(Arc::clone(&actor));
        actor
    }

    /// Joins an actor to the provider of a capability that its claims name.
    ///
    /// # Errors
    /// [`LinkError`]; nothing is left of the link then.
    pub async fn link(&self, actor: &Arc<Actor>, link: &Link) -> Result<(), LinkError> {
        let name = || actor.identity().name.clone();
        let capability = || link.capability.clone();
        let capabilities = actor.shared().capabilities();
        if !capabilities.claims(&link.capability) {
            return Err(LinkError::NotClaimed { actor: name(), capability: capability() });
        }
        // Linked from the start, under the binding that guests use.
        if link.capability == wire::CAPABILITY_LOGGING && link.binding == wire::DEFAULT_BINDING {
            return Ok(());
        }
        let Some(provider) = self.inner.providers.get(link.capability.as_str()) else {
            let known = self.capabilities();
            return Err(LinkError::NoProvider { capability: capability(), known });
        };
        // First the way from the actor, then the one to it: a provider may call at once.
        if !capabilities.link(link, Arc::clone(provider)) {
            let binding = link.binding.clone();
            return Err(LinkError::Twice { actor: name(), capability: capability(), binding });
        }
        let handle: ActorHandle = Arc::clone(actor) as ActorHandle;
        if let Err(source) = provider.link(handle, link).await {
            capabilities.unlink(link);
            return Err(LinkError::Provider { actor: name(), capability: capability(), source });
        }
        info!(
            actor.name = %actor.identity().name,
            capability = %link.capability,
            binding = %link.binding,
            "Actor linked"
        );
        Ok(())
    }

    /// The capabilities that actors can be linked to here.
    pub fn capabilities(&self) -> Vec<&'static str> {
        let mut known: Vec<_> = self.inner.providers.keys().copied().collect();
        known.push(wire::CAPABILITY_LOGGING);
        known.sort_unstable();
        known.dedup();
        known
    }

    /// The actors, in the order in which they were loaded.
    pub fn actors(&self) -> Vec<Arc<Actor>> {
        self.inner.actors().clone()
    }

    /// Stops: first the providers, so that nothing new comes in, then the actors; all of it within
    /// `grace`. What runs is finished if it can be.
    pub async fn stop(&self, grace: Duration) {
        let end = Instant::now() + grace;
        self.inner.stopping.stop();
        let actors = std::mem::take(&mut *self.inner.actors());
        for provider in self.inner.providers.values() {
            provider.stop(end.saturating_duration_since(Instant::now())).await;
        }
        for actor in actors {
            actor.stop(end.saturating_duration_since(Instant::now())).await;
        }
    }
}

impl Inner {
    // No code panics under this lock.
    fn actors(&self) -> MutexGuard<'_, Vec<Arc<Actor>>> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stopping.stop();
    }
}
