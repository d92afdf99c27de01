//! Claims are looked at again while actors run: trust, revocations and time move on.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use claims::Policy;
use tracing::warn;

use crate::{actor::Actor, host::PolicySource, identity, provider::ActorService as _};

/// Tells the thread that looks at claims to leave.
#[derive(Default)]
pub(crate) struct Stopping {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stopping {
    pub(crate) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits for `interval`, or less when it is time to leave; tells which.
    fn within(&self, interval: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stopped, interval, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Looks at the claims of `actors` each `interval` until it is told to stop or nobody is left.
pub(crate) fn recheck_until_stopped(
    actors: impl Fn() -> Option<Vec<Arc<Actor>>>,
    stopping: &Stopping,
    source: &PolicySource,
    interval: Duration,
) {
    let mut last: Option<Policy> = None;
    let mut warned = Vec::new();
    while !stopping.within(interval) {
        let Some(actors) = actors() else { return };
        match source() {
            Ok(policy) => last = Some(policy),
            // Goes on with what was last known; time moves all the same.
            Err(error) => warn!(error = &*error as &dyn std::error::Error, "Trust cannot be read"),
        }
        let Some(policy) = &mut last else { continue };
        policy.now = identity::now();
        for actor in actors {
            let verdict = claims::recheck(actor.claims(), policy);
            let expiring = actor
                .claims()
                .and_then(|claims| claims.expires)
                .filter(|expires| expires.since(policy.now) <= claims::EXPIRY_WARNING);
            let digest = &actor.identity().digest;
            if let (Ok(()), Some(expires)) = (&verdict, expiring)
                && !warned.contains(digest)
            {
                warn!(actor.name = %actor.identity().name, %expires, "Actor's claims expire soon");
                warned.push(digest.clone());
            }
            actor.set_refused(verdict.err().map(|error| error.to_string()));
        }
    }
}
