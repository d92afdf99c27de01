//! Startup, liveness and readiness probes: what they are, when they run, and what follows.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    env::SettingError,
    seams::{ProbeAction, Prober},
};

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    /// Until it succeeds once, the others wait.
    Startup,
    /// Its failure restarts the container.
    Liveness,
    /// It says whether requests come.
    Readiness,
}

impl ProbeKind {
    /// As events name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }
}

/// One probe, with the API's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbeSpec {
    /// Which.
    pub kind: ProbeKind,
    /// What it does.
    pub action: ProbeAction,
    /// Since the container's start.
    pub initial_delay: Duration,
    /// From one to the next.
    pub period: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Successes in a row that count.
    pub success_threshold: u32,
    /// Failures in a row that count.
    pub failure_threshold: u32,
    /// Grace of the restart, instead of the pod's.
    pub grace: Option<Duration>,
}

/// What a probe found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProbeNews {
    /// The startup probe succeeded.
    Started,
    /// One probe failed.
    Unhealthy {
        /// Which.
        kind: ProbeKind,
        /// How.
        message: String,
    },
    /// The container is to be restarted.
    Restart {
        /// Which probe says so.
        kind: ProbeKind,
        /// Its own grace.
        grace: Option<Duration>,
    },
    /// The readiness probe's verdict has changed.
    Ready(bool),
}

/// The probes of a container that answers on `ip`.
pub(crate) fn specs(container: &Container, ip: IpAddr) -> Result<Vec<ProbeSpec>, SettingError> {
    let probes = [
        (ProbeKind::Startup, &container.startup_probe),
        (ProbeKind::Liveness, &container.liveness_probe),
        (ProbeKind::Readiness, &container.readiness_probe),
    ];
    probes
        .into_iter()
        .filter_map(|(kind, probe)| Some((kind, probe.as_ref()?)))
        .map(|(kind, probe)| spec(kind, probe, container, ip))
        .collect()
}

fn spec(
    kind: ProbeKind,
    probe: &Probe,
    container: &Container,
    ip: IpAddr,
) -> Result<ProbeSpec, SettingError> {
    let action = if let Some(get) = &probe.http_get {
        http_action(get, container, ip)?
    } else if let Some(tcp) = &probe.tcp_socket {
        ProbeAction::Tcp { address: SocketAddr::new(ip, port(&tcp.port, container)?) }
    } else {
        let message = format!("the {} probe has no action", kind.name().to_lowercase());
        return Err(SettingError::Invalid(message));
    };
    let seconds = |value: Option<i32>, default: u64| {
        let given = value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
        Duration::from_secs(given.unwrap_or(default))
    };
    let count = |value: Option<i32>, default: u32| {
        value
            .and_then(|value| u32::try_from(value).ok())
            .filter(|value| *value > 0)
            .unwrap_or(default)
    };
    Ok(ProbeSpec {
        kind,
        action,
        initial_delay: seconds(probe.initial_delay_seconds, 0),
        period: seconds(probe.period_seconds, 10),
        timeout: seconds(probe.timeout_seconds, 1),
        success_threshold: count(probe.success_threshold, 1),
        failure_threshold: count(probe.failure_threshold, 3),
        grace: probe
            .termination_grace_period_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
    })
}

/// An HTTP GET on `ip`; also what a preStop hook does.
pub(crate) fn http_action(
    get: &HTTPGetAction,
    container: &Container,
    ip: IpAddr,
) -> Result<ProbeAction, SettingError> {
    let headers = get.http_headers.iter().flatten();
    Ok(ProbeAction::Http {
        address: SocketAddr::new(ip, port(&get.port, container)?),
        path: get.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".into()),
        headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
    })
}

/// A port by number, or by its name in the container's ports.
fn port(port: &IntOrString, container: &Container) -> Result<u16, SettingError> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            let named = ports.into_iter().find(|port| port.name.as_deref() == Some(name));
            match (named, name.parse()) {
                (Some(port), _) => port.container_port,
                (None, Ok(number)) => number,
                (None, Err(_)) => {
                    let message = format!("the container has no port named {name:?}");
                    return Err(SettingError::Invalid(message));
                }
            }
        }
    };
    match u16::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(SettingError::Invalid(format!("{number} is no port"))),
    }
}

/// Running probes of one run of a container; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Probes {
    tasks: JoinSet<()>,
}

impl Probes {
    /// Starts the probes of a container that began at `began`. Liveness and readiness wait until
    /// `open` says that the start is over. `ready` is what is known of the readiness already.
    pub(crate) fn start(
        prober: &Arc<dyn Prober>,
        specs: Vec<ProbeSpec>,
        began: Instant,
        open: &watch::Receiver<bool>,
        ready: bool,
        news: &mpsc::UnboundedSender<ProbeNews>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        for spec in specs {
            let (prober, news) = (prober.clone(), news.clone());
            let open = (spec.kind != ProbeKind::Startup).then(|| open.clone());
            tasks.spawn(run(prober, spec, began, open, ready, news));
        }
        Probes { tasks }
    }

    /// No more probes.
    pub(crate) fn stop(&mut self) {
        self.tasks.abort_all();
    }
}

async fn run(
    prober: Arc<dyn Prober>,
    spec: ProbeSpec,
    began: Instant,
    open: Option<watch::Receiver<bool>>,
    ready: bool,
    news: mpsc::UnboundedSender<ProbeNews>,
) {
    sleep_until(began + spec.initial_delay).await;
    if let Some(mut open) = open
        && open.wait_for(|open| *open).await.is_err()
    {
        return;
    }
    let (mut successes, mut failures, mut ready) = (0u32, 0u32, ready);
    let mut next = Instant::now();
    loop {
        let result = prober.probe(&spec.action, spec.timeout).await;
        let said = match result {
            Ok(()) => {
                (successes, failures) = (successes.saturating_add(1), 0);
                let enough = successes >= spec.success_threshold;
                match spec.kind {
                    ProbeKind::Startup if enough => {
                        let _ = news.send(ProbeNews::Started);
                        return;
                    }
                    ProbeKind::Readiness if enough && !ready => {
                        ready = true;
                        news.send(ProbeNews::Ready(true))
                    }
                    _ => Ok(()),
                }
            }
            Err(message) => {
                (successes, failures) = (0, failures.saturating_add(1));
                let kind = spec.kind;
                let _ = news.send(ProbeNews::Unhealthy { kind, message });
                let enough = failures >= spec.failure_threshold;
                match kind {
                    ProbeKind::Readiness if enough && ready => {
                        ready = false;
                        news.send(ProbeNews::Ready(false))
                    }
                    ProbeKind::Startup | ProbeKind::Liveness if enough => {
                        let _ = news.send(ProbeNews::Restart { kind, grace: spec.grace });
                        return;
                    }
                    _ => Ok(()),
                }
            }
        };
        if said.is_err() {
            return;
        }
        // A slow probe does not make the next ones come at once.
        next = (next + spec.period).max(Instant::now());
        sleep_until(next).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fakes::FakeProber;
    use serde_json::json;

    fn container(probes: serde_json::Value) -> Container {
        let mut whole =
            json!({ "name": "app", "ports": [{ "name": "http", "containerPort": 8080 }] });
        for (name, probe) in probes.as_object().expect("a map") {
            whole[name] = probe.clone();
        }
        serde_json::from_value(whole).expect("a container")
    }

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 5));

    #[test]
    fn ports_go_by_number_and_by_name() {
        let container = container(json!({
            "readinessProbe": { "httpGet": { "port": "http", "path": "/r",
                "httpHeaders": [{ "name": "A", "value": "b" }] } },
            "livenessProbe": { "tcpSocket": { "port": 9 }, "periodSeconds": 5, "failureThreshold": 7,
                "timeoutSeconds": 3, "initialDelaySeconds": 2, "terminationGracePeriodSeconds": 4 }
        }));
        let specs = specs(&container, IP).expect("probes");
        assert_eq!(specs[0].action, ProbeAction::Tcp { address: SocketAddr::new(IP, 9) });
        let timing = (specs[0].initial_delay, specs[0].period, specs[0].timeout, specs[0].grace);
        let seconds = Duration::from_secs;
        assert_eq!(timing, (seconds(2), seconds(5), seconds(3), Some(seconds(4))));
        assert_eq!(
            specs[1].action,
            ProbeAction::Http {
                address: SocketAddr::new(IP, 8080),
                path: "/r".into(),
                headers: vec![("A".into(), "b".into())]
            }
        );
        assert_eq!((specs[1].failure_threshold, specs[1].period), (3, seconds(10)));
    }

    #[test]
    fn a_port_that_does_not_exist_is_an_error() {
        let unknown = container(json!({ "livenessProbe": { "tcpSocket": { "port": "grpc" } } }));
        let error = specs(&unknown, IP).expect_err("no such port").to_string();
        assert_eq!(error, "the container has no port named \"grpc\"");
        let wrong = container(json!({ "livenessProbe": { "tcpSocket": { "port": 70000 } } }));
        assert!(specs(&wrong, IP).is_err());
    }

    struct Bench {
        prober: Arc<FakeProber>,
        news: mpsc::UnboundedReceiver<ProbeNews>,
        open: watch::Sender<bool>,
        began: Instant,
        _probes: Probes,
    }

    fn bench(probes: serde_json::Value) -> Bench {
        let prober = FakeProber::new();
        let (sender, news) = mpsc::unbounded_channel();
        let (open, opened) = watch::channel(false);
        let began = Instant::now();
        let specs = specs(&container(probes), IP).expect("probes");
        let seam: Arc<dyn Prober> = prober.clone();
        let probes = Probes::start(&seam, specs, began, &opened, false, &sender);
        Bench { prober, news, open, began, _probes: probes }
    }

    impl Bench {
        async fn next(&mut self) -> (u64, ProbeNews) {
            let news = self.news.recv().await.expect("news");
            ((Instant::now() - self.began).as_secs(), news)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn startup_gates_the_others() {
        let mut bench = bench(json!({
            "startupProbe": { "httpGet": { "port": 8080, "path": "/start" }, "periodSeconds": 3, "failureThreshold": 100 },
            "readinessProbe": { "httpGet": { "port": 8080, "path": "/ready" }, "periodSeconds": 5 },
        }));
        bench.prober.set("/start", Err("not yet".into()));
        bench.prober.set("/ready", Ok(()));
        for at in [0, 3, 6] {
            let (when, news) = bench.next().await;
            assert!(
                matches!(news, ProbeNews::Unhealthy { kind: ProbeKind::Startup, .. }),
                "{news:?}"
            );
            assert_eq!(when, at);
        }
        assert_eq!(bench.prober.asked("/ready"), 0);
        bench.prober.set("/start", Ok(()));
        assert_eq!(bench.next().await, (9, ProbeNews::Started));
        bench.open.send_replace(true);
        assert_eq!(bench.next().await, (9, ProbeNews::Ready(true)));
    }

    #[tokio::test(start_paused = true)]
    async fn thresholds_count_in_a_row() {
        let mut bench = bench(json!({
            "readinessProbe": { "httpGet": { "port": 8080, "path": "/r" }, "periodSeconds": 1,
                "successThreshold": 2, "failureThreshold": 2, "initialDelaySeconds": 4 },
        }));
        bench.open.send_replace(true);
        bench.prober.set("/r", Ok(()));
        assert_eq!(bench.next().await, (5, ProbeNews::Ready(true)));
        bench.prober.set("/r", Err("503".into()));
        assert!(matches!(bench.next().await, (6, ProbeNews::Unhealthy { .. })));
        assert!(matches!(bench.next().await, (7, ProbeNews::Unhealthy { .. })));
        assert_eq!(bench.next().await, (7, ProbeNews::Ready(false)));
        assert!(matches!(bench.next().await, (8, ProbeNews::Unhealthy { .. })));
        bench.prober.set("/r", Ok(()));
        assert_eq!(bench.next().await, (10, ProbeNews::Ready(true)));
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_asks_for_a_restart_after_its_threshold() {
        let mut bench = bench(json!({
            "livenessProbe": { "httpGet": { "port": 8080, "path": "/l" }, "periodSeconds": 2,
                "terminationGracePeriodSeconds": 1 },
        }));
        bench.open.send_replace(true);
        bench.prober.set("/l", Err("503".into()));
        for at in [0, 2, 4] {
            let (when, news) = bench.next().await;
            assert_eq!(when, at, "{news:?}");
        }
        let grace = Some(Duration::from_secs(1));
        assert_eq!(
            bench.next().await,
            (4, ProbeNews::Restart { kind: ProbeKind::Liveness, grace })
        );
    }
}
