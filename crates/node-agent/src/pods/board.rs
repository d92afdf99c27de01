//! What the rest of the agent sees of the pods: their objects with the newest status, and which
//! modules are in use.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::seams::PodObject;
use crate::runtime::ContainerId;

/// The pods of this node; a cheap clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board(Arc<Mutex<HashMap<String, Shown>>>);

#[derive(Debug, Default)]
struct Shown {
    pod: Arc<Pod>,
    run: Option<(ContainerId, String)>,
}

impl Board {
    fn shown(&self) -> MutexGuard<'_, HashMap<String, Shown>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod is so now.
    pub(crate) fn show(&self, uid: &str, object: &PodObject, status: &PodStatus) {
        let pod = Pod { status: Some(status.clone()), ..object.pod.clone() };
        self.shown().entry(uid.to_owned()).or_default().pod = Arc::new(pod);
    }

    /// Its container is this one, of that module.
    pub(crate) fn runs(&self, uid: &str, id: &ContainerId, digest: &str) {
        self.shown().entry(uid.to_owned()).or_default().run = Some((id.clone(), digest.to_owned()));
    }

    /// It runs no more.
    pub(crate) fn ended(&self, uid: &str) {
        if let Some(shown) = self.shown().get_mut(uid) {
            shown.run = None;
        }
    }

    /// It is gone.
    pub(crate) fn remove(&self, uid: &str) {
        self.shown().remove(uid);
    }

    /// All pods, by namespace and name.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        let mut pods: Vec<Arc<Pod>> =
            self.shown().values().map(|shown| shown.pod.clone()).collect();
        pods.sort_by_cached_key(|pod| {
            (pod.metadata.namespace.clone(), pod.metadata.name.clone(), pod.metadata.uid.clone())
        });
        pods
    }

    /// Running pods with their containers.
    pub(crate) fn running(&self) -> Vec<(Arc<Pod>, ContainerId)> {
        let shown = self.shown();
        shown
            .values()
            .filter_map(|shown| Some((shown.pod.clone(), shown.run.as_ref()?.0.clone())))
            .collect()
    }

    /// Digests of the modules in use.
    pub(crate) fn digests(&self) -> Vec<String> {
        self.shown().values().filter_map(|shown| Some(shown.run.as_ref()?.1.clone())).collect()
    }
}
