//! What the pods here have been promised together, so that no more is promised than there is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::resources::Requests;

/// How much the pods of a node may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// How many pods.
    pub pods: usize,
}

/// What there is not enough of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// `OutOfcpu`, `OutOfmemory` or `OutOfpods`, as the kubelet says.
    pub reason: &'static str,
    /// With the numbers.
    pub message: String,
}

/// The promises; a cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    capacity: Capacity,
    promised: Arc<Mutex<HashMap<String, Requests>>>,
    freed: watch::Sender<()>,
}

impl Ledger {
    /// Nothing promised yet.
    pub(crate) fn new(capacity: Capacity) -> Self {
        Ledger { capacity, promised: Arc::default(), freed: watch::Sender::new(()) }
    }

    fn promised(&self) -> MutexGuard<'_, HashMap<String, Requests>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a pod that runs already.
    pub(crate) fn note(&self, uid: &str, requests: Requests) {
        self.promised().insert(uid.to_owned(), requests);
    }

    /// Promises what a pod asks for, if it is there.
    pub(crate) fn promise(&self, uid: &str, requests: Requests) -> Result<(), Shortage> {
        let mut promised = self.promised();
        let others = || promised.iter().filter(|(other, _)| *other != uid).map(|(_, sum)| sum);
        let pods = others().count();
        let cpu = others().fold(0u64, |sum, one| sum.saturating_add(one.cpu_millis));
        let memory = others().fold(0u64, |sum, one| sum.saturating_add(one.memory_bytes));
        let short = |reason, what: &str, asked: u64, used: u64, capacity: u64| {
            Err(Shortage {
                reason,
                message: format!(
                    "node has not enough {what}: requested {asked}, used {used}, capacity {capacity}"
                ),
            })
        };
        let capacity = self.capacity;
        if pods >= capacity.pods {
            return short("OutOfpods", "room for pods", 1, pods as u64, capacity.pods as u64);
        }
        if requests.cpu_millis > 0 && cpu.saturating_add(requests.cpu_millis) > capacity.cpu_millis
        {
            let what = "cpu (thousandths of a core)";
            return short("OutOfcpu", what, requests.cpu_millis, cpu, capacity.cpu_millis);
        }
        if requests.memory_bytes > 0
            && memory.saturating_add(requests.memory_bytes) > capacity.memory_bytes
        {
            let what = "memory (bytes)";
            return short(
                "OutOfmemory",
                what,
                requests.memory_bytes,
                memory,
                capacity.memory_bytes,
            );
        }
        promised.insert(uid.to_owned(), requests);
        Ok(())
    }

    /// Takes a promise back: the pod has ended.
    pub(crate) fn free(&self, uid: &str) {
        if self.promised().remove(uid).is_some() {
            self.freed.send_replace(());
        }
    }

    /// Tells when something has been freed since this call.
    pub(crate) fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_promised_than_there_is() {
        let ledger = Ledger::new(Capacity { cpu_millis: 1000, memory_bytes: 100, pods: 3 });
        let asks = |cpu_millis, memory_bytes| Requests { cpu_millis, memory_bytes };
        let reason = |uid: &str, requests| ledger.promise(uid, requests).map_err(|s| s.reason);
        assert_eq!(reason("a", asks(600, 60)), Ok(()));
        assert_eq!(reason("a", asks(600, 60)), Ok(()), "the same pod once more");
        assert_eq!(reason("b", asks(500, 10)), Err("OutOfcpu"));
        assert_eq!(reason("b", asks(400, 50)), Err("OutOfmemory"));
        assert_eq!(reason("b", asks(400, 40)), Ok(()));
        assert_eq!(reason("c", asks(0, 0)), Ok(()));
        assert_eq!(reason("d", asks(0, 0)), Err("OutOfpods"));
        let freed = ledger.freed();
        ledger.free("a");
        assert!(freed.has_changed().expect("the ledger is there"));
        assert_eq!(reason("d", asks(600, 60)), Ok(()));
    }
}
