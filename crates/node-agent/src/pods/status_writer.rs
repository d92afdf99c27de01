//! Carries a pod's status to the API server: the newest one, until it is there.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle};
use tracing::{debug, warn};

use super::seams::{Cluster, ClusterError};
use crate::runtime::PodRef;

/// Waits between tries; short, so that a status converges soon after an outage.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// How far the writing is: the number of the status, and the object's version with it.
type Done = (u64, Option<u64>);

/// One pod's status on its way.
#[derive(Debug)]
pub(crate) struct StatusWriter {
    wanted: watch::Sender<(u64, Value)>,
    written: watch::Receiver<Done>,
    task: JoinHandle<()>,
}

impl StatusWriter {
    /// Starts the task that writes.
    pub(crate) fn start(cluster: Arc<dyn Cluster>, pod: PodRef) -> Self {
        let (wanted, want) = watch::channel((0, Value::Null));
        let (done, written) = watch::channel((0, None));
        let task = tokio::spawn(run(cluster, pod, want, done));
        StatusWriter { wanted, written, task }
    }

    /// From now on this is the status; one that is not written yet is forgotten.
    pub(crate) fn write(&self, patch: Value) {
        self.wanted.send_modify(|(number, newest)| {
            *number += 1;
            *newest = patch;
        });
    }

    /// A future that ends when everything that was asked for up to now is written, or the pod is
    /// gone from the API.
    pub(crate) fn flushed(&self) -> impl Future<Output = ()> + Send + use<> {
        let number = self.wanted.borrow().0;
        let mut written = self.written.clone();
        async move {
            // The task ends only with this writer.
            let _ = written.wait_for(|(done, _)| *done >= number).await;
        }
    }

    /// The object's version with everything that was asked for up to now; `None` while something
    /// is on its way. What an older object says is an echo.
    pub(crate) fn settled(&self) -> Option<u64> {
        let (number, version) = *self.written.borrow();
        version.filter(|_| number == self.wanted.borrow().0)
    }
}

impl Drop for StatusWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    cluster: Arc<dyn Cluster>,
    pod: PodRef,
    mut want: watch::Receiver<(u64, Value)>,
    done: watch::Sender<Done>,
) {
    while want.changed().await.is_ok() {
        let mut retry = FIRST_RETRY;
        loop {
            let (number, patch) = want.borrow_and_update().clone();
            match cluster.patch_status(&pod, patch).await {
                Ok(version) => {
                    done.send_replace((number, version));
                    break;
                }
                Err(ClusterError::NotFound | ClusterError::Replaced) => {
                    debug!(pod.name = %pod.name, pod.uid = %pod.uid, "The pod is gone");
                    done.send_replace((number, None));
                    break;
                }
                Err(error) => {
                    // Once for each status: every pod of the node is in the same trouble.
                    if retry == FIRST_RETRY {
                        warn!(pod.namespace = %pod.namespace, pod.name = %pod.name, %error,
                            "Status not written yet");
                    }
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LONGEST_RETRY);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fakes::{FakeCluster, pod_ref};
    use serde_json::json;

    #[tokio::test(start_paused = true)]
    async fn only_the_newest_status_is_written_once_the_server_is_back() {
        let cluster = FakeCluster::new();
        cluster.set_away(true);
        let writer = StatusWriter::start(cluster.clone(), pod_ref("p"));
        for phase in ["Pending", "Running", "Failed"] {
            writer.write(json!({ "status": { "phase": phase } }));
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert!(cluster.statuses("p").is_empty());
        cluster.set_away(false);
        writer.flushed().await;
        assert_eq!(cluster.statuses("p"), [json!({ "phase": "Failed" })]);
    }
}
