//! The waPC side: `__guest_call`.
//!
//! waPC guests of `wapc-guest` 0.3 need no initialisation: the host instantiates the module and
//! calls `__guest_call`. The model is loaded by the first health request, or by the first request
//! if nobody asked before.

use std::sync::Once;

use wascc_actor::wapc::{self, prelude::CallResult};

use crate::{
    linked::{self, chain, with_classifier},
    profile,
};

wapc::wapc_handler!(handle);

fn handle(operation: &str, message: &[u8]) -> CallResult {
    static LOGGER: Once = Once::new();
    LOGGER.call_once(|| {
        wascc_actor::logger::ensure_logger();
        // Each line crosses to the host: a request should not cost one.
        log::set_max_level(log::LevelFilter::Info);
    });
    match operation {
        wire::OP_HANDLE_REQUEST => {
            let request = wire::decode(message).map_err(|error| chain(&error))?;
            Ok(wire::encode(&linked::answer(&request, &mut mark))?)
        }
        wire::OP_HEALTH_REQUEST => {
            let _: wire::HealthRequest = wire::decode(message).map_err(|error| chain(&error))?;
            linked::load()?;
            Ok(wire::encode(&())?)
        }
        wire::OP_PROFILE => {
            let request = wire::decode(message).map_err(|error| chain(&error))?;
            let answer = with_classifier(|classifier| {
                let classifier = classifier.map_err(str::to_owned)?;
                profile::run(classifier, &request, &mut mark).map_err(|error| chain(&error))
            })?;
            Ok(wire::encode(&answer)?)
        }
        _ => Err(format!("operation `{operation}` is not one this actor handles").into()),
    }
}

/// Tells the host that a phase begins. A host that knows nothing of phases refuses, and that is
/// all right.
fn mark(phase: &'static str) {
    let _ = wapc::host_call(
        wire::DEFAULT_BINDING,
        wire::PHASE_NAMESPACE,
        wire::OP_MARK,
        phase.as_bytes(),
    );
}
