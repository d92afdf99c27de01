//! Events as `kubectl describe pod` shows them: sent by one task behind a bounded queue, repeated
//! ones counted on one object, and no pod able to flood the API server.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, warn};

use super::seams::{Clock, Cluster, ClusterError};
use crate::runtime::PodRef;

/// Who reports, as `kubectl describe` shows it under "From".
pub(crate) const COMPONENT: &str = "graphlet-node";
/// Events that wait for the API server; what comes on top is dropped, as the kubelet does.
const QUEUE: usize = 1000;
/// Events of one pod in quick succession, and how long until one more may be sent: the numbers of
/// client-go's spam filter.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// How often and how long one event is tried while the API server is away.
const TRIES: usize = 12;
const RETRY: Duration = Duration::from_secs(10);
/// How many kinds of events are remembered for counting; an event lives an hour in the API.
const REMEMBERED: usize = 4096;

/// How serious.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    /// As it should be.
    Normal,
    /// Somebody may have to look.
    Warning,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Note {
    pod: PodRef,
    container: Option<String>,
    severity: Severity,
    reason: String,
    message: String,
}

/// Takes events of pods; a cheap clone that never blocks.
#[derive(Debug, Clone)]
pub(crate) struct Recorder(mpsc::Sender<Note>);

impl Recorder {
    /// Starts the task that sends.
    pub(crate) fn start(cluster: Arc<dyn Cluster>, clock: Clock, node_name: String) -> Self {
        let (sender, notes) = mpsc::channel(QUEUE);
        let sent = HashMap::new();
        let writer = Writer { cluster, clock, node_name, sent, buckets: HashMap::new(), serial: 0 };
        tokio::spawn(writer.run(notes));
        Recorder(sender)
    }

    /// Records an event of a pod or of its container.
    pub(crate) fn record(
        &self,
        pod: &PodRef,
        container: Option<&str>,
        severity: Severity,
        reason: &str,
        message: impl Into<String>,
    ) {
        let note = Note {
            pod: pod.clone(),
            container: container.map(str::to_owned),
            severity,
            reason: reason.to_owned(),
            message: message.into(),
        };
        if let Err(error) = self.0.try_send(note) {
            debug!(%error, "An event was dropped");
        }
    }
}

struct Sent {
    name: String,
    count: i32,
    last: Instant,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

struct Writer {
    cluster: Arc<dyn Cluster>,
    clock: Clock,
    node_name: String,
    sent: HashMap<Note, Sent>,
    buckets: HashMap<String, Bucket>,
    serial: u64,
}

impl Writer {
    async fn run(mut self, mut notes: mpsc::Receiver<Note>) {
        while let Some(note) = notes.recv().await {
            if !self.may_send(&note.pod.uid) {
                debug!(pod.name = %note.pod.name, note.reason, "Too many events of one pod");
                continue;
            }
            for _ in 0..TRIES {
                match self.send(&note).await {
                    Err(ClusterError::Unreachable(_)) => tokio::time::sleep(RETRY).await,
                    // Pods that end with their namespace have nobody left to tell.
                    Err(error @ ClusterError::NamespaceEnds) => {
                        debug!(pod.name = %note.pod.name, note.reason, %error, "Event not written");
                        break;
                    }
                    Err(error) => {
                        warn!(pod.name = %note.pod.name, note.reason, %error, "Event not written");
                        break;
                    }
                    Ok(()) => break,
                }
            }
            self.forget();
        }
    }

    fn may_send(&mut self, uid: &str) -> bool {
        let now = Instant::now();
        let bucket =
            self.buckets.entry(uid.to_owned()).or_insert(Bucket { tokens: BURST, filled: now });
        let gained = now.duration_since(bucket.filled).as_secs_f64() / REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + gained).min(BURST);
        bucket.filled = now;
        let may = bucket.tokens >= 1.0;
        if may {
            bucket.tokens -= 1.0;
        }
        may
    }

    /// Old memories go first, and full buckets say nothing.
    fn forget(&mut self) {
        if self.sent.len() > REMEMBERED {
            let mut times: Vec<Instant> = self.sent.values().map(|sent| sent.last).collect();
            times.sort_unstable();
            let middle = times[times.len() / 2];
            self.sent.retain(|_, sent| sent.last > middle);
        }
        if self.buckets.len() > REMEMBERED {
            let now = Instant::now();
            let whole = REFILL.mul_f64(BURST);
            self.buckets.retain(|_, bucket| now.duration_since(bucket.filled) < whole);
        }
    }

    async fn send(&mut self, note: &Note) -> Result<(), ClusterError> {
        let stamp = Time(self.clock.stamp());
        if let Some(sent) = self.sent.get_mut(note) {
            let count = sent.count.saturating_add(1);
            let patch = json!({ "count": count, "lastTimestamp": stamp });
            let written = self.cluster.patch_event(&note.pod.namespace, &sent.name, patch).await;
            match written {
                // It has lived its hour: a new one follows.
                Err(ClusterError::NotFound) => {}
                other => {
                    if other.is_ok() {
                        (sent.count, sent.last) = (count, Instant::now());
                    }
                    return other;
                }
            }
        }
        self.serial += 1;
        let since = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unique = (since.as_nanos() as u64).wrapping_add(self.serial);
        let name = format!("{}.{unique:x}", note.pod.name);
        self.cluster.create_event(self.event(note, &name, stamp)).await?;
        self.sent.insert(note.clone(), Sent { name, count: 1, last: Instant::now() });
        Ok(())
    }

    fn event(&self, note: &Note, name: &str, stamp: Time) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(note.pod.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                namespace: Some(note.pod.namespace.clone()),
                name: Some(note.pod.name.clone()),
                uid: Some(note.pod.uid.clone()),
                field_path: note
                    .container
                    .as_ref()
                    .map(|name| format!("spec.containers{{{name}}}")),
                ..ObjectReference::default()
            },
            type_: Some(note.severity.name().into()),
            reason: Some(note.reason.clone()),
            message: Some(shortened(&note.message)),
            count: Some(1),
            first_timestamp: Some(stamp.clone()),
            last_timestamp: Some(stamp),
            source: Some(EventSource {
                component: Some(COMPONENT.into()),
                host: Some(self.node_name.clone()),
            }),
            reporting_component: Some(COMPONENT.into()),
            reporting_instance: Some(self.node_name.clone()),
            ..Event::default()
        }
    }
}

/// The API takes 1024 bytes.
fn shortened(message: &str) -> String {
    const LIMIT: usize = 1024;
    if message.len() <= LIMIT {
        return message.to_owned();
    }
    let mut end = LIMIT - '…'.len_utf8();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fakes::{FakeCluster, pod_ref};

    async fn settle() {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_events_are_counted_on_one_object_and_a_flood_ends() {
        let cluster = FakeCluster::new();
        let recorder = Recorder::start(cluster.clone(), Clock::of_runtime(), "n".into());
        for _ in 0..40 {
            recorder.record(&pod_ref("p"), Some("app"), Severity::Warning, "Unhealthy", "503");
        }
        recorder.record(&pod_ref("q"), None, Severity::Normal, "Pulled", "x");
        settle().await;
        let events = cluster.events();
        assert_eq!(events.len(), 2, "one object each: {events:?}");
        assert_eq!((&*events[0].reason, events[0].count), ("Unhealthy", BURST as i32));
        assert_eq!((&*events[1].reason, events[1].count), ("Pulled", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_waits_for_the_api_server() {
        let cluster = FakeCluster::new();
        cluster.set_away(true);
        let recorder = Recorder::start(cluster.clone(), Clock::of_runtime(), "n".into());
        recorder.record(&pod_ref("p"), None, Severity::Normal, "Pulled", "x");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(cluster.events().is_empty());
        cluster.set_away(false);
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(cluster.events().len(), 1);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let message = shortened(&"ü".repeat(600));
        assert!(message.len() <= 1024 && message.ends_with('…'), "{} bytes", message.len());
    }
}
