//! wasmtime's configuration, and the way from a module's bytes to code that can be instantiated.

use std::{
    fs::File,
    hash::{Hash, Hasher},
    path::PathBuf,
    sync::Arc,
};

use sha2::{Digest, Sha256};
use tracing::{debug, warn};
use wasmparser::WasmFeatures;
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, Module, OptLevel, PoolingAllocationConfig,
    Strategy,
};

use crate::{
    Limits,
    cache::{self, CacheError, CodeCache, UncheckedData},
    deadline::Watchdog,
    instrument::{self, InstrumentError},
    limits::{MEMORIES, TABLES},
    page,
};

/// What a guest may use of WebAssembly: what rustc and LLVM emit for us by default, and relaxed
/// SIMD. Nothing that needs a collector, nothing shared, one memory, no tail calls.
pub(crate) const GUEST_FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::EXTENDED_CONST);

/// What the compiler is given: the guest's features, and what the poll is made of.
pub(crate) const ENGINE_FEATURES: WasmFeatures =
    GUEST_FEATURES.union(WasmFeatures::MULTI_MEMORY).union(WasmFeatures::THREADS);

/// Most memory that a module's data may span and still be mapped copy-on-write, however sparse it
/// is: weights lie at a 64 KiB boundary far behind the stack, and must never be copied.
const DENSE_IMAGE_BYTES: u64 = 1 << 30;

// Changes whenever `instrument` writes other instructions, so that older entries are not used.
const INSTRUMENTATION_VERSION: u8 = 1;

/// How a guest that runs too long is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// Loop headers and calling functions load from a page that the watchdog makes unreadable.
    /// Costs 1-2 % of a kernel's time.
    PollPage,
    /// wasmtime's epochs: a compare and branch at the same places. Costs 23-31 %; for systems
    /// whose pages cannot be protected.
    Epoch,
    /// The guest cannot be stopped: only to measure what the other two cost, and for modules that
    /// this process wrote itself.
    Never,
}

/// Settings of an [`Engine`].
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// How guests are stopped; `None` chooses the poll page where it works.
    pub interruption: Option<Interruption>,
    /// Where compiled code is kept; `None` compiles every time.
    pub cache_dir: Option<PathBuf>,
    /// Code that [`Engine::precompile`] made in another process, as an open file. It is asked
    /// first, and used for the module that it was made of and no other.
    pub code: Option<Arc<File>>,
    /// Native stack for guest code, bytes. A guest that needs more traps. Threads that call guests
    /// need this and 1 MiB more.
    pub max_stack_bytes: usize,
    /// Memory for instances that live for one call each; `None`, and a system that cannot tell
    /// which pages were written, map and unmap it for each.
    pub pool: Option<Pool>,
}

/// Places for instances that come and go: an instance is given the place of one that is gone,
/// where only the pages that were written are put back as they were. That costs a copy of those
/// pages, in place of as many page faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Instances at one time; one more is refused.
    pub instances: u32,
    /// What one of them may take. Each takes 8 GiB of addresses, too.
    pub limits: Limits,
}

impl Default for EngineOptions {
    fn default() -> Self {
        // 1 MiB is what native threads of musl programs live with, and twice wasmtime's default;
        // LLVM keeps arrays on the guest's own stack in linear memory, so frames are small.
        Self {
            interruption: None,
            cache_dir: None,
            code: None,
            max_stack_bytes: 1 << 20,
            pool: None,
        }
    }
}

/// An engine could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// wasmtime refuses the configuration on this machine.
    #[error("wasmtime cannot run on this machine")]
    Unsupported(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Poll pages were asked for where they cannot be protected.
    #[error("pages of {page_bytes} bytes cannot serve as poll page")]
    PollPage {
        /// The machine's page size; 0 where pages cannot be protected at all.
        page_bytes: usize,
    },
    /// No thread could be had for the watchdog.
    #[error("the watchdog thread could not be started")]
    Watchdog(#[source] std::io::Error),
}

/// A module could not be made ready to run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The module is malformed, or of a form that we do not run.
    #[error(transparent)]
    Module(#[from] InstrumentError),
    /// The compiler refused it.
    #[error("the module could not be compiled")]
    Compile(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where compiled code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Compiled just now.
    Compiled,
    /// Mapped from the cache.
    Cached,
}

/// A module that can be instantiated, any number of times, sharing code and initial memory.
#[derive(Clone)]
pub struct Compiled {
    /// Code, and the image of the initial memory.
    pub module: Module,
    /// Where the code came from.
    pub origin: Origin,
}

/// Code that was compiled before, mapped and ready to run.
pub struct Found {
    /// The code.
    pub compiled: Compiled,
    /// Its data, to be checked before anything that it answers is believed.
    pub data: UncheckedData,
}

/// Compiles modules, and watches the time of those that run. Clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    inner: wasmtime::Engine,
    interruption: Interruption,
    pooled: bool,
    cache: Option<Arc<CodeCache>>,
    code: Option<Arc<File>>,
    watchdog: Arc<Watchdog>,
}

impl Engine {
    /// Makes an engine. A cache directory that others could write to is left alone, with a
    /// warning: the engine works, but compiles every time.
    ///
    /// # Errors
    /// [`EngineError`] when wasmtime or the watchdog cannot run here.
    pub fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        let page_bytes = page::page_bytes();
        let usable = page::usable(page_bytes);
        let interruption = match options.interruption {
            Some(Interruption::PollPage) if !usable => {
                return Err(EngineError::PollPage { page_bytes });
            }
            Some(interruption) => interruption,
            None if usable => Interruption::PollPage,
            None => Interruption::Epoch,
        };
        let mut config = configuration(options, interruption);
        let pool = options.pool.filter(|_| PoolingAllocationConfig::is_pagemap_scan_available());
        if let Some(pool) = &pool {
            config.allocation_strategy(pooling(pool));
        }
        let inner = wasmtime::Engine::new(&config)
            .map_err(|error| EngineError::Unsupported(error.into()))?;
        let cache = options.cache_dir.as_deref().and_then(|dir| match CodeCache::open(dir) {
            Ok(cache) => Some(Arc::new(cache)),
            Err(error) => {
                warn!(
                    cache.dir = %dir.display(),
                    error = &error as &dyn std::error::Error,
                    "Compiled code is not cached"
                );
                None
            }
        });
        let watchdog = Arc::new(Watchdog::start().map_err(EngineError::Watchdog)?);
        let (pooled, code) = (pool.is_some(), options.code.clone());
        Ok(Self { inner, interruption, pooled, cache, code, watchdog })
    }

    /// wasmtime's engine, for linkers and stores.
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner
    }

    /// How guests of this engine are stopped.
    pub fn interruption(&self) -> Interruption {
        self.interruption
    }

    /// Whether instances take places in a [`Pool`].
    pub fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// The thread that watches deadlines; open for other clocks of the same process.
    pub fn watchdog(&self) -> &Arc<Watchdog> {
        &self.watchdog
    }

    /// Finds the code of a module that was compiled before by this version for this processor, and
    /// maps it. `hash` is the module's, as in [`Engine::compile`].
    ///
    /// Only code that was made of a module with that hash is found, so that who may run the module
    /// may run the code, whatever else is in a file that claims to be the module.
    pub fn find(&self, hash: &[u8; 32]) -> Option<Found> {
        let key = self.key(hash);
        let handed = self.code.as_deref().and_then(|code| self.handed_over(code, &key));
        let (module, data) = match (handed, self.cache.as_deref()) {
            (Some(found), _) => found,
            (None, Some(cache)) => usable(cache.entry(&key).load(&self.inner))?,
            (None, None) => return None,
        };
        Some(Found { compiled: Compiled { module, origin: Origin::Cached }, data })
    }

    /// Checks a module, adds what its deadline needs, and compiles it, or maps the code from the
    /// cache when the same module was compiled before by this version for this processor.
    ///
    /// `hash` is the SHA-256 of all of `wasm` that code is made of, which callers have at hand from
    /// verifying it: without its last custom sections, that of the whole, or anything else that no
    /// other module has.
    ///
    /// # Errors
    /// [`CompileError`] when the module is malformed or uses what guests may not use.
    pub fn compile(&self, wasm: &[u8], hash: &[u8; 32]) -> Result<Compiled, CompileError> {
        if let Some(found) = self.find(hash)
            && usable(found.data.check()).is_some()
        {
            return Ok(found.compiled);
        }
        let entry = self.cache.as_deref().map(|cache| cache.entry(&self.key(hash)));
        let instrumented = self.prepare(wasm)?;
        let wasm = instrumented.as_deref().unwrap_or(wasm);
        let compile_error = |error: wasmtime::Error| CompileError::Compile(error.into());
        let Some(entry) = entry else {
            let module = Module::from_binary(&self.inner, wasm).map_err(compile_error)?;
            return Ok(Compiled { module, origin: Origin::Compiled });
        };
        // Written first and then mapped, so that this process too shares the file's pages.
        let code = self.inner.precompile_module(wasm).map_err(compile_error)?;
        if let Err(error) = entry.write(&code) {
            warn!(error = &error as &dyn std::error::Error, "Compiled code could not be cached");
        } else if let Some((module, _)) = usable(entry.load(&self.inner)) {
            return Ok(Compiled { module, origin: Origin::Compiled });
        }
        let module = Module::from_binary(&self.inner, wasm).map_err(compile_error)?;
        Ok(Compiled { module, origin: Origin::Compiled })
    }

    /// Checks and compiles a module for a process that is handed the code as
    /// [`EngineOptions::code`]; nothing is loaded here.
    ///
    /// # Errors
    /// As [`Engine::compile`].
    pub fn precompile(&self, wasm: &[u8], hash: &[u8; 32]) -> Result<Vec<u8>, CompileError> {
        let instrumented = self.prepare(wasm)?;
        let wasm = instrumented.as_deref().unwrap_or(wasm);
        let code = self.inner.precompile_module(wasm);
        let code = code.map_err(|error| CompileError::Compile(error.into()))?;
        Ok(cache::seal(code, &self.key(hash)))
    }

    /// Checks a module, and gives it with what its deadline needs, where that is code.
    fn prepare(&self, wasm: &[u8]) -> Result<Option<Vec<u8>>, CompileError> {
        instrument::check(wasm, GUEST_FEATURES)?;
        Ok(match self.interruption {
            Interruption::PollPage => Some(instrument::instrument(wasm)?),
            Interruption::Epoch | Interruption::Never => None,
        })
    }

    fn handed_over(&self, code: &File, key: &[u8; 32]) -> Option<(Module, UncheckedData)> {
        cache::load_sealed(&self.inner, code, key)
            .inspect_err(|error| {
                warn!(
                    error = error as &dyn std::error::Error,
                    "Compiled code that was handed over is not usable, compiling again"
                );
            })
            .ok()
    }

    // Everything that the code depends on: the module, our instructions, and (in wasmtime's hash)
    // its version, its settings and the processor's features.
    fn key(&self, hash: &[u8; 32]) -> [u8; 32] {
        let mut hasher = StableHasher(Sha256::new());
        hasher.write(b"graphlet code");
        hasher.write(&[INSTRUMENTATION_VERSION, self.interruption as u8]);
        hasher.write(hash);
        self.inner.precompile_compatibility_hash().hash(&mut hasher);
        hasher.0.finalize().into()
    }
}

/// What there is in the cache, if it can be used.
fn usable<T>(found: Result<T, CacheError>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(CacheError::Absent) => None,
        Err(error) => {
            debug!(
                error = &error as &dyn std::error::Error,
                "Cached code is not usable, compiling again"
            );
            None
        }
    }
}

fn configuration(options: &EngineOptions, interruption: Interruption) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_features(WasmFeatures::all().difference(ENGINE_FEATURES), false)
        .wasm_features(ENGINE_FEATURES, true)
        .shared_memory(false)
        // Native fused multiply-add is what relaxed SIMD is for.
        .relaxed_simd_deterministic(false)
        .max_wasm_stack(options.max_stack_bytes)
        // Copy-on-write memory: instances and processes share the weights.
        .memory_init_cow(true)
        .memory_guaranteed_dense_image_size(DENSE_IMAGE_BYTES)
        // The whole 32-bit range is reserved and guarded, so that no access needs a bounds check.
        .memory_reservation(RESERVATION_BYTES)
        .epoch_interruption(interruption == Interruption::Epoch)
        // Traps are told by their kind; names of frames would cost each trap a walk.
        .generate_address_map(false)
        .native_unwind_info(false);
    // The on-demand allocator (the default) rather than the pooling one, unless a pool is asked
    // for: instances live as long as the process and are made anew only after a trap (0.1 ms), so
    // a pool saves nothing, and memory that the kernel has just mapped can hold no data of others.
    config
}

/// Instances of one process take each other's places, so that what one request wrote is in memory
/// until the next instance is made there; wasmtime puts it back before. Pages that are kept cost
/// no fault: with them a fresh instance per request was seen to cost 0.8 ms (MobileNetV2), without
/// 2.9 ms.
fn pooling(pool: &Pool) -> InstanceAllocationStrategy {
    let mut config = PoolingAllocationConfig::new();
    let most = |each: usize| pool.instances.saturating_mul(each as u32);
    config
        .total_core_instances(pool.instances)
        .total_memories(most(MEMORIES))
        .total_tables(most(TABLES))
        .max_memories_per_module(MEMORIES as u32)
        .max_tables_per_module(TABLES as u32)
        .max_memory_size(pool.limits.memory_bytes.min(RESERVATION_BYTES as usize))
        .table_elements(pool.limits.table_elements)
        .max_unused_warm_slots(pool.instances)
        .linear_memory_keep_resident(KEPT_MEMORY_BYTES)
        .table_keep_resident(KEPT_TABLE_BYTES)
        // Without it wasmtime would put back the first bytes of each memory, written or not.
        .pagemap_scan(Enabled::Yes);
    InstanceAllocationStrategy::Pooling(config)
}

/// Addresses of a memory: the whole 32-bit range.
const RESERVATION_BYTES: u64 = 1 << 32;
/// Written pages that an instance leaves to the next: activations of ResNet50 and a picture.
const KEPT_MEMORY_BYTES: usize = 32 << 20;
/// All of our modules' function table (0.3 KiB of pointers for each hundred functions).
const KEPT_TABLE_BYTES: usize = 64 << 10;

/// SHA-256 as a `Hasher`: `DefaultHasher` may change with every release of the compiler.
struct StableHasher(Sha256);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest.iter().take(8).fold(0, |value, &byte| value << 8 | u64::from(byte))
    }
}
