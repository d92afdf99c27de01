//! The waPC imports: how a guest takes its message, gives its answer and calls its host.
//!
//! Every pointer and length comes from the guest: what does not lie in its memory, or is longer
//! than its limit, ends the call with a trap.

use std::{sync::Arc, time::Instant};

use engine::{
    Guest,
    wasmtime::{self, Caller, Linker},
};
use tracing::{info, warn};

use crate::{
    capabilities::{Capabilities, Refusal, cut},
    limits,
    phases::{MarkError, Phases},
    provider::ActorIdentity,
};

/// Module name of the imports.
pub(crate) const MODULE: &str = "wapc";
/// The imports, with the numbers of their parameters and results, all of them i32.
pub(crate) const IMPORTS: [(&str, usize, usize); 9] = [
    ("__guest_request", 2, 0),
    ("__guest_response", 2, 0),
    ("__guest_error", 2, 0),
    ("__host_call", 8, 1),
    ("__host_response_len", 0, 1),
    ("__host_response", 1, 0),
    ("__host_error_len", 0, 1),
    ("__host_error", 1, 0),
    ("__console_log", 2, 0),
];
/// Export that takes a message.
pub(crate) const GUEST_CALL: &str = "__guest_call";
/// Export through which host functions see the guest's memory.
pub(crate) const MEMORY: &str = "memory";

/// What an instance's host functions work with.
pub(crate) struct State {
    pub(crate) environment: Arc<Environment>,
    pub(crate) call: Call,
}

/// What instances of one actor have in common.
pub(crate) struct Environment {
    pub(crate) identity: ActorIdentity,
    pub(crate) capabilities: Capabilities,
}

/// One call of a guest, from both sides.
#[derive(Default)]
pub(crate) struct Call {
    pub(crate) operation: String,
    pub(crate) message: Vec<u8>,
    pub(crate) response: Vec<u8>,
    pub(crate) error: Option<String>,
    pub(crate) phases: Phases,
    // Answer to the last host call.
    host_response: Vec<u8>,
    host_error: String,
    log_lines: u32,
    refusals: u32,
}

/// What a guest did that ends its call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{function}: {bytes} bytes at {pointer:#x} do not lie in the guest's memory")]
    Pointer { function: &'static str, pointer: u32, bytes: usize },
    #[error("{function}: {bytes} bytes, the limit is {limit}")]
    TooLarge { function: &'static str, bytes: usize, limit: usize },
    #[error("the module exports no memory")]
    NoMemory,
}

impl Fault {
    /// A stable word for metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Pointer { .. } => "bad_pointer",
            Self::TooLarge { .. } => "message_too_large",
            Self::NoMemory => "no_memory",
        }
    }
}

type Context<'a> = Caller<'a, Guest<State>>;

/// Defines all imports of [`MODULE`].
pub(crate) fn link(linker: &mut Linker<Guest<State>>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "__guest_request", guest_request)?;
    linker.func_wrap(MODULE, "__guest_response", guest_response)?;
    linker.func_wrap(MODULE, "__guest_error", guest_error)?;
    linker.func_wrap(MODULE, "__host_call", host_call)?;
    linker.func_wrap(MODULE, "__host_response_len", |caller: Context<'_>| {
        wasm_len(caller.data().data.call.host_response.len())
    })?;
    linker.func_wrap(MODULE, "__host_response", |mut caller: Context<'_>, pointer: u32| {
        write(&mut caller, "__host_response", pointer, |call| &call.host_response)
    })?;
    linker.func_wrap(MODULE, "__host_error_len", |caller: Context<'_>| {
        wasm_len(caller.data().data.call.host_error.len())
    })?;
    linker.func_wrap(MODULE, "__host_error", |mut caller: Context<'_>, pointer: u32| {
        write(&mut caller, "__host_error", pointer, |call| call.host_error.as_bytes())
    })?;
    linker.func_wrap(MODULE, "__console_log", console_log)?;
    Ok(())
}

fn guest_request(mut caller: Context<'_>, operation: u32, message: u32) -> wasmtime::Result<()> {
    const NAME: &str = "__guest_request";
    write(&mut caller, NAME, operation, |call| call.operation.as_bytes())?;
    write(&mut caller, NAME, message, |call| &call.message)
}

fn guest_response(mut caller: Context<'_>, pointer: u32, len: u32) -> wasmtime::Result<()> {
    let bytes = read(&mut caller, "__guest_response", pointer, len, limits::RESPONSE_BYTES)?;
    let response = bytes.to_vec();
    caller.data_mut().data.call.response = response;
    Ok(())
}

fn guest_error(mut caller: Context<'_>, pointer: u32, len: u32) -> wasmtime::Result<()> {
    let text = text(&mut caller, "__guest_error", pointer, len, limits::ERROR_BYTES)?;
    caller.data_mut().data.call.error = Some(text);
    Ok(())
}

fn console_log(mut caller: Context<'_>, pointer: u32, len: u32) -> wasmtime::Result<()> {
    let text = text(&mut caller, "__console_log", pointer, len, limits::LOG_LINE_BYTES)?;
    let State { environment, call } = &mut caller.data_mut().data;
    if call.may_log() {
        info!(actor.name = %environment.identity.name, ?text, "Actor writes to the console");
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "waPC's signature")]
fn host_call(
    mut caller: Context<'_>,
    binding: u32,
    binding_len: u32,
    namespace: u32,
    namespace_len: u32,
    operation: u32,
    operation_len: u32,
    payload: u32,
    payload_len: u32,
) -> wasmtime::Result<u32> {
    const NAME: &str = "__host_call";
    let now = Instant::now();
    let names = [(binding, binding_len), (namespace, namespace_len), (operation, operation_len)];
    let mut texts = [const { String::new() }; 3];
    for (text, (pointer, len)) in texts.iter_mut().zip(names) {
        let bytes = read(&mut caller, NAME, pointer, len, limits::NAME_BYTES)?;
        *text = String::from_utf8_lossy(bytes).into_owned();
    }
    let [binding, namespace, operation] = texts;
    let bytes = read(&mut caller, NAME, payload, payload_len, limits::HOST_CALL_BYTES)?;
    if namespace == wire::PHASE_NAMESPACE {
        // The payload is a short name: copied, as the call it is noted in is borrowed with it.
        let name = bytes[..bytes.len().min(64)].to_vec();
        let call = &mut caller.data_mut().data.call;
        let result = if operation == wire::OP_MARK {
            call.phases
                .mark(&name, now)
                .map(|()| Vec::new())
                .map_err(|error: MarkError| error.to_string())
        } else {
            Err(format!("`{namespace}` has no operation `{operation}`"))
        };
        return Ok(call.answer(result));
    }
    let payload = bytes.to_vec();
    let State { environment, call } = &mut caller.data_mut().data;
    let identity = &environment.identity;
    let logging = namespace == wire::CAPABILITY_LOGGING;
    let result = if logging && environment.capabilities.claims(&namespace) && !call.may_log() {
        Err("too many lines logged in one call".to_owned())
    } else {
        environment.capabilities.call(identity, &binding, &namespace, &operation, &payload).map_err(
            |refusal| {
                let text = refusal.to_string();
                // The first of a call is told; a guest that asks in a loop must not fill the log.
                if !matches!(refusal, Refusal::Provider(_)) && call.refusals == 0 {
                    warn!(
                        actor.name = %identity.name,
                        actor.key = %identity.subject,
                        capability = ?namespace,
                        operation = ?operation,
                        reason = ?text,
                        "Host call denied"
                    );
                }
                call.refusals = call.refusals.saturating_add(1);
                text
            },
        )
    };
    Ok(call.answer(result))
}

impl Call {
    pub(crate) fn new(operation: String, message: Vec<u8>) -> Self {
        let phases = Phases::of(&operation);
        Self { operation, message, phases, ..Self::default() }
    }

    /// Lines that were dropped because the call had logged enough.
    pub(crate) fn dropped_log_lines(&self) -> u32 {
        self.log_lines.saturating_sub(limits::LOG_LINES)
    }

    fn may_log(&mut self) -> bool {
        self.log_lines = self.log_lines.saturating_add(1);
        self.log_lines <= limits::LOG_LINES
    }

    fn answer(&mut self, result: Result<Vec<u8>, String>) -> u32 {
        let succeeded = result.is_ok();
        (self.host_response, self.host_error) = match result {
            Ok(response) => (response, String::new()),
            Err(error) => (Vec::new(), error),
        };
        u32::from(succeeded)
    }
}

// What the host holds for a guest is limited to less than 4 GiB by every path that puts it there
// but a provider's answer; a longer one is cut off at what the guest can say.
fn wasm_len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// The guest's bytes at `pointer`.
fn read<'a>(
    caller: &'a mut Context<'_>,
    function: &'static str,
    pointer: u32,
    len: u32,
    limit: usize,
) -> wasmtime::Result<&'a [u8]> {
    let bytes = len as usize;
    if bytes > limit {
        return Err(wasmtime::Error::new(Fault::TooLarge { function, bytes, limit }));
    }
    let memory = memory(caller)?;
    memory
        .data(caller)
        .get(pointer as usize..)
        .and_then(|memory| memory.get(..bytes))
        .ok_or_else(|| wasmtime::Error::new(Fault::Pointer { function, pointer, bytes }))
}

/// The guest's text at `pointer`, of which `limit` bytes are kept.
fn text(
    caller: &mut Context<'_>,
    function: &'static str,
    pointer: u32,
    len: u32,
    limit: usize,
) -> wasmtime::Result<String> {
    let bytes = read(caller, function, pointer, len, usize::MAX)?;
    // Three more, so that a character across the limit is whole and then cut as one.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(limit + 3)]);
    Ok(cut(&text, limit).to_owned())
}

/// Copies what `source` picks to the guest's memory.
fn write(
    caller: &mut Context<'_>,
    function: &'static str,
    pointer: u32,
    source: impl FnOnce(&Call) -> &[u8],
) -> wasmtime::Result<()> {
    let memory = memory(caller)?;
    let (memory, guest) = memory.data_and_store_mut(caller);
    let source = source(&guest.data.call);
    let target =
        memory.get_mut(pointer as usize..).and_then(|memory| memory.get_mut(..source.len()));
    let Some(target) = target else {
        let bytes = source.len();
        return Err(wasmtime::Error::new(Fault::Pointer { function, pointer, bytes }));
    };
    target.copy_from_slice(source);
    Ok(())
}

fn memory(caller: &mut Context<'_>) -> wasmtime::Result<wasmtime::Memory> {
    caller
        .get_export(MEMORY)
        .and_then(wasmtime::Extern::into_memory)
        .ok_or_else(|| wasmtime::Error::new(Fault::NoMemory))
}
