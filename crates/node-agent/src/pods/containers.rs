//! The runtime behind the seam.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use super::seams::{Cause, Containers, Later};
use crate::runtime::{
    Container, ContainerId, ContainerSpec, PodAddress, PodRef, Runtime, StartError, Usage,
};

/// The node's runtime.
pub(crate) struct RuntimeContainers(pub(crate) Runtime);

impl Containers for RuntimeContainers {
    fn containers(&self) -> Vec<Container> {
        self.0.containers()
    }

    fn address<'a>(&'a self, pod: &'a PodRef) -> Later<'a, Result<PodAddress, Cause>> {
        Box::pin(async move { self.0.address(pod).await.map_err(Cause::from) })
    }

    fn release_address<'a>(&'a self, pod: &'a PodRef) -> Later<'a, ()> {
        Box::pin(self.0.release_address(pod))
    }

    fn start(&self, spec: ContainerSpec) -> Later<'_, Result<Container, StartError>> {
        Box::pin(self.0.start(spec))
    }

    fn drain<'a>(&'a self, id: &'a ContainerId) -> Later<'a, ()> {
        Box::pin(self.0.drain(id))
    }

    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> Later<'a, ()> {
        Box::pin(self.0.stop(id, grace))
    }

    fn kill<'a>(&'a self, id: &'a ContainerId) -> Later<'a, ()> {
        Box::pin(self.0.kill(id))
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> Later<'a, ()> {
        Box::pin(self.0.remove(id))
    }

    fn remove_pod<'a>(&'a self, pod: &'a PodRef) -> Later<'a, ()> {
        Box::pin(self.0.remove_pod(pod))
    }

    fn retain_pods(&self, uids: BTreeSet<String>) -> Later<'_, ()> {
        Box::pin(async move { self.0.retain_pods(&uids).await })
    }

    fn usage(&self, id: &ContainerId) -> Option<Usage> {
        self.0.usage(id)
    }

    fn volume_dir(&self, pod: &PodRef, name: &str) -> PathBuf {
        self.0.volume_dir(pod, name)
    }
}
