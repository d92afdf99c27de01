//! Every metric of a serving process, each named here and nowhere else, as OpenMetrics text.
//!
//! Counters and histograms are written by requests; what an actor says about itself is asked for
//! when somebody scrapes. Labels come from verified claims and from fixed lists: what a client or
//! a guest says never adds a series without bound.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use host::provider::{ActorHandle, ActorIdentity, ActorState, Reply};
use http::{Method, StatusCode};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, text},
    metrics::{MetricType, counter::Counter, family::Family, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

/// What the text is, for `Content-Type`.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Who a series is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub(crate) struct ActorLabels {
    model: Arc<str>,
    version: Arc<str>,
    actor: Arc<str>,
}

impl ActorLabels {
    pub(crate) fn of(identity: &ActorIdentity) -> Self {
        Self {
            model: identity.model.as_str().into(),
            version: identity.version.as_str().into(),
            actor: identity.name.as_str().into(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    #[prometheus(flatten)]
    actor: ActorLabels,
    http_request_method: &'static str,
    http_response_status_code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    #[prometheus(flatten)]
    actor: ActorLabels,
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    #[prometheus(flatten)]
    actor: ActorLabels,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

// OpenTelemetry's semantic conventions for http.server.request.duration.
const HTTP_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

// Phases are shorter than requests: a small model decodes and runs in tens of microseconds.
const PHASE_BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

// The phases that are counted; a guest may mark others, which are not.
const PHASES: [&str; 3] = [wire::PHASE_DECODE, wire::PHASE_PREPROCESS, wire::PHASE_INFER];

// Outcomes that one listener counts by name; a guest that invents more gets `other`.
const MAX_OUTCOMES: usize = 64;
const MAX_OUTCOME_LEN: usize = 40;

/// All metrics of a process.
pub(crate) struct Metrics {
    registry: Registry,
    durations: Family<HttpLabels, Histogram, fn() -> Histogram>,
    phases: Family<PhaseLabels, Histogram, fn() -> Histogram>,
    waits: Family<ActorLabels, Histogram, fn() -> Histogram>,
    requests: Family<OutcomeLabels, Counter>,
    actors: Arc<Actors>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let phase_histogram: fn() -> Histogram = || Histogram::new(PHASE_BUCKETS);
        let http_histogram: fn() -> Histogram = || Histogram::new(HTTP_BUCKETS);
        let metrics = Self {
            registry: Registry::default(),
            durations: Family::new_with_constructor(http_histogram),
            phases: Family::new_with_constructor(phase_histogram),
            waits: Family::new_with_constructor(phase_histogram),
            requests: Family::default(),
            actors: Arc::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register_with_unit(
            "http_server_request_duration",
            "From a request's complete head to its response",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register_with_unit(
            "graphlet_inference",
            "Time inside the actor, by phase",
            Unit::Seconds,
            self.phases.clone(),
        );
        registry.register_with_unit(
            "graphlet_queue_wait",
            "Time that answered requests waited for an instance",
            Unit::Seconds,
            self.waits.clone(),
        );
        registry.register(
            "graphlet_requests",
            "Requests by how they ended: the stable code of an error, or what the actor says",
            self.requests.clone(),
        );
        registry.register(
            "graphlet_build",
            "The program that serves",
            Info::new(BuildLabels { version: env!("CARGO_PKG_VERSION") }),
        );
        registry.register_collector(Box::new(Arc::clone(&self.actors)));
        self
    }

    /// Adds an actor to what is asked at each scrape.
    pub(crate) fn watch(&self, actor: ActorHandle, connections: Arc<AtomicUsize>) {
        let mut watched = self.actors.watched.write().unwrap_or_else(PoisonError::into_inner);
        watched.push(Watched { actor, connections });
    }

    /// The metrics that the requests of one actor write.
    pub(crate) fn of_actor(self: &Arc<Self>, identity: &ActorIdentity) -> ActorMetrics {
        ActorMetrics {
            metrics: Arc::clone(self),
            labels: ActorLabels::of(identity),
            outcomes: Mutex::default(),
        }
    }

    /// Everything as OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub(crate) fn to_text(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// The metrics that one listener's requests write.
pub(crate) struct ActorMetrics {
    metrics: Arc<Metrics>,
    labels: ActorLabels,
    outcomes: Mutex<BTreeSet<String>>,
}

impl ActorMetrics {
    /// Counts a request that ended, with or without a response.
    pub(crate) fn ended(&self, outcome: &str) {
        let outcome = self.known(outcome).to_owned();
        let labels = OutcomeLabels { actor: self.labels.clone(), outcome };
        self.metrics.requests.get_or_create(&labels).inc();
    }

    /// Records how long a response took.
    pub(crate) fn responded(&self, method: &Method, status: StatusCode, duration: Duration) {
        let labels = HttpLabels {
            actor: self.labels.clone(),
            http_request_method: method_label(method),
            http_response_status_code: status.as_u16(),
        };
        self.metrics.durations.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    /// Records what a reply says about its way through the actor.
    pub(crate) fn replied(&self, reply: &Reply) {
        let waited = reply.queued.as_secs_f64();
        self.metrics.waits.get_or_create(&self.labels).observe(waited);
        for (name, duration) in &reply.phases {
            if let Some(phase) = PHASES.into_iter().find(|phase| phase == name) {
                let labels = PhaseLabels { actor: self.labels.clone(), phase };
                self.metrics.phases.get_or_create(&labels).observe(duration.as_secs_f64());
            }
        }
    }

    fn known<'a>(&self, outcome: &'a str) -> &'a str {
        let is_code = (1..=MAX_OUTCOME_LEN).contains(&outcome.len())
            && outcome.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !is_code {
            return "other";
        }
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        if outcomes.contains(outcome) {
            return outcome;
        }
        if outcomes.len() >= MAX_OUTCOMES {
            return "other";
        }
        outcomes.insert(outcome.to_owned());
        outcome
    }
}

/// The methods that are counted by name; anybody can invent others.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        "TRACE" => "TRACE",
        _ => "_OTHER",
    }
}

struct Watched {
    actor: ActorHandle,
    connections: Arc<AtomicUsize>,
}

/// The actors that are asked at each scrape.
#[derive(Default)]
struct Actors {
    watched: RwLock<Vec<Watched>>,
}

impl fmt::Debug for Actors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actors").finish_non_exhaustive()
    }
}

/// What actors with the same labels say together.
#[derive(Default)]
struct Snapshot {
    idle: usize,
    busy: usize,
    starting: usize,
    queue_depth: usize,
    connections: usize,
    memory_bytes: Vec<u64>,
    traps: BTreeMap<&'static str, u64>,
    claims_expire_in: Option<Duration>,
    unsigned: bool,
    ready: bool,
    identities: BTreeSet<[String; 3]>,
}

impl Actors {
    fn snapshots(&self) -> BTreeMap<ActorLabels, Snapshot> {
        let watched = self.watched.read().unwrap_or_else(PoisonError::into_inner);
        let mut snapshots = BTreeMap::<_, Snapshot>::new();
        let mut asked: Vec<&ActorHandle> = Vec::new();
        for Watched { actor, connections } in watched.iter() {
            let identity = actor.identity();
            let labels = ActorLabels::of(identity);
            let known = snapshots.contains_key(&labels);
            let snapshot = snapshots.entry(labels).or_default();
            snapshot.connections += connections.load(Ordering::Relaxed);
            // One actor on two ports is still one actor.
            if asked.iter().any(|other| Arc::ptr_eq(other, actor)) {
                continue;
            }
            asked.push(actor);
            let status = actor.status();
            snapshot.idle += status.idle_instances;
            snapshot.busy += status.busy_instances;
            snapshot.starting += status.starting_instances;
            snapshot.queue_depth += status.queue_depth;
            snapshot.memory_bytes.extend(status.instance_memory_bytes);
            for (reason, count) in status.traps {
                *snapshot.traps.entry(reason).or_default() += count;
            }
            let expiries = [snapshot.claims_expire_in, status.claims_expire_in];
            snapshot.claims_expire_in = expiries.into_iter().flatten().min();
            snapshot.unsigned |= status.unsigned;
            let running = status.state == ActorState::Running;
            snapshot.ready = running && (snapshot.ready || !known);
            snapshot.identities.insert([
                identity.subject.clone(),
                identity.issuer.clone().unwrap_or_default(),
                identity.digest.to_string(),
            ]);
        }
        snapshots
    }
}

impl Collector for Actors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let snapshots = self.snapshots();
        let mut gauges = Gauges { encoder: &mut encoder, snapshots: &snapshots };
        gauges
            .each("graphlet_queue_depth", "Requests waiting for an instance.", |s| s.queue_depth)?;
        gauges.each("graphlet_connections", "Open client connections.", |s| s.connections)?;
        gauges
            .each("graphlet_ready", "1 when the actor takes requests.", |s| u32::from(s.ready))?;
        gauges.each(
            "graphlet_actor_unsigned",
            "1 when the actor runs without an accepted signature.",
            |s| u32::from(s.unsigned),
        )?;
        gauges.several("graphlet_instances", "Instances by state.", None, |s| {
            vec![
                (("state", "idle".to_owned()), s.idle as u64),
                (("state", "busy".to_owned()), s.busy as u64),
                (("state", "starting".to_owned()), s.starting as u64),
            ]
        })?;
        gauges.several(
            "graphlet_instance_memory",
            "Linear memory of an instance.",
            Some(&Unit::Bytes),
            |s| {
                let bytes = s.memory_bytes.iter().enumerate();
                bytes.map(|(index, &bytes)| (("instance", index.to_string()), bytes)).collect()
            },
        )?;
        let mut traps = encoder.encode_descriptor(
            "graphlet_traps",
            "Instances thrown away, by what went wrong.",
            None,
            MetricType::Counter,
        )?;
        for (actor, snapshot) in &snapshots {
            for (reason, count) in &snapshot.traps {
                traps
                    .encode_family(&(actor.clone(), [("reason", *reason)]))?
                    .encode_counter::<[(&str, &str); 0], _, u64>(count, None)?;
            }
        }
        let mut expiry = encoder.encode_descriptor(
            "graphlet_claims_expiry",
            "Until the actor's claims expire; absent without an expiry.",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for (actor, snapshot) in &snapshots {
            if let Some(left) = snapshot.claims_expire_in {
                expiry.encode_family(actor)?.encode_gauge(&left.as_secs_f64())?;
            }
        }
        let mut info = encoder.encode_descriptor(
            "graphlet_actor",
            "Which module answers for an actor.",
            None,
            MetricType::Info,
        )?;
        for (actor, snapshot) in &snapshots {
            for [subject, issuer, digest] in &snapshot.identities {
                let identity = [("subject", subject), ("issuer", issuer), ("digest", digest)];
                info.encode_family(actor)?.encode_info(&identity)?;
            }
        }
        Ok(())
    }
}

/// Writes gauges, one series or several per actor.
struct Gauges<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
    snapshots: &'a BTreeMap<ActorLabels, Snapshot>,
}

impl Gauges<'_, '_> {
    fn each<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        value: impl Fn(&Snapshot) -> V,
    ) -> Result<(), fmt::Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (actor, snapshot) in self.snapshots {
            metric.encode_family(actor)?.encode_gauge(&value(snapshot))?;
        }
        Ok(())
    }

    fn several(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl Fn(&Snapshot) -> Vec<((&'static str, String), u64)>,
    ) -> Result<(), fmt::Error> {
        let mut metric = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (actor, snapshot) in self.snapshots {
            for (label, value) in values(snapshot) {
                metric.encode_family(&(actor.clone(), [label]))?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}
