//! The component's side: `wasi:http/incoming-handler`, and what the builder calls.
#![expect(unsafe_code, reason = "hosts and the builder find functions by their symbols")]

use actor::{answer::Problem, linked};
use log::{LevelFilter, Log, Metadata, Record};
use wasip2::{
    cli::stderr::get_stderr,
    exports::http::incoming_handler::Guest,
    http::types::{
        ErrorCode, Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse,
        ResponseOutparam,
    },
    io::streams::{OutputStream, StreamError},
};
use wire::Response;

use crate::{Message, fields, has_body};

// What is asked for at once of a body: a few reads for a photograph.
const READ_BYTES: u64 = 256 << 10;
// `blocking-write-and-flush` takes no more at once (wasi:io/streams).
const WRITE_BYTES: usize = 4096;

// SAFETY: nothing else in the module defines the name that this exports.
wasip2::http::proxy::export!(Component);

struct Component;

impl Guest for Component {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        log_to_stderr();
        let mut message = head(&request);
        let response = match message.check().and_then(|()| read(&request, &mut message)) {
            // There is no one here to whom the phases could be told.
            Ok(()) => linked::answer(&message.request(), &mut |_| {}),
            Err(problem) => problem.answer(),
        };
        send(&response, has_body(&message, &response), out);
    }
}

/// Loads the model; the builder calls this once and writes the memory down as it stands then.
///
/// 0, or why it cannot be loaded: the address of the text in the upper half, its length in the
/// lower.
// SAFETY: nothing else in the module defines this name.
#[unsafe(no_mangle)]
extern "C" fn graphlet_load() -> u64 {
    // Before a request, the bindings run the constructors unless they ran already.
    wit_bindgen::rt::run_ctors_once();
    match linked::load() {
        Ok(()) => 0,
        Err(reason) => {
            let reason: &'static str = reason.leak();
            (reason.as_ptr().addr() as u64) << 32 | reason.len() as u64
        }
    }
}

fn head(request: &IncomingRequest) -> Message {
    let method = match request.method() {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(ref other) => &other.clone(),
    };
    let target = request.path_with_query().unwrap_or_default();
    let fields = request.headers().entries();
    let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    Message::new(method, &target, request.authority().as_deref(), fields)
}

/// Reads the body to its end.
fn read(request: &IncomingRequest, message: &mut Message) -> Result<(), Problem> {
    let body = request.consume().map_err(|()| Problem::BodyBroken)?;
    // Declared after the body, it is given back before it.
    let stream = body.stream().map_err(|()| Problem::BodyBroken)?;
    loop {
        match stream.blocking_read(READ_BYTES) {
            Ok(piece) => message.push(&piece)?,
            Err(StreamError::Closed) => return Ok(()),
            Err(StreamError::LastOperationFailed(_)) => return Err(Problem::BodyBroken),
        }
    }
}

fn send(response: &Response, has_body: bool, out: ResponseOutparam) {
    let Some(outgoing) = outgoing(response, has_body) else {
        // Nothing of ours names such a field or status.
        ResponseOutparam::set(out, Err(ErrorCode::InternalError(None)));
        return;
    };
    let body = outgoing.body();
    ResponseOutparam::set(out, Ok(outgoing));
    let Ok(body) = body else { return };
    if has_body && let Ok(stream) = body.write() {
        // A client that is gone is none that an error could reach.
        let _ = write(&stream, &response.body);
    }
    let _ = OutgoingBody::finish(body, None);
}

fn outgoing(response: &Response, has_body: bool) -> Option<OutgoingResponse> {
    let outgoing = OutgoingResponse::new(Fields::from_list(&fields(response, has_body)).ok()?);
    outgoing.set_status_code(u16::try_from(response.status_code).ok()?).ok()?;
    Some(outgoing)
}

fn write(stream: &OutputStream, bytes: &[u8]) -> Result<(), StreamError> {
    bytes.chunks(WRITE_BYTES).try_for_each(|piece| stream.blocking_write_and_flush(piece))
}

/// Sends what is logged, and why the module ends if it does, to the host's stderr.
fn log_to_stderr() {
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(LevelFilter::Info);
        std::panic::set_hook(Box::new(|reason| line(&reason.to_string())));
    }
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        line(&format!("{}: {}", record.level().as_str().to_ascii_lowercase(), record.args()));
    }

    fn flush(&self) {}
}

fn line(text: &str) {
    // Where nobody listens, nothing is lost.
    let _ = write(&get_stderr(), format!("{text}\n").as_bytes());
}
