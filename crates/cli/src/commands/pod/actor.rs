//! A pod's process that is an actor: on the sockets that it was handed, until it is told to stop.

use std::{
    collections::BTreeMap,
    fs::File,
    net::TcpListener,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use claims::SignedModule;
use clap::ValueEnum as _;
use host::{Host, Isolation, LoadOptions, StartError, limits, provider::Link};
use http_provider::{HttpProvider, Limits};
use pod_settings::{Report, Settings};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{debug, info};
use wire::{CAPABILITY_HTTP_SERVER, DEFAULT_BINDING};

use super::{Descriptors, OUT_OF_MEMORY, Reporter, filter, policy};
use crate::{
    logs::{self, LogFormat},
    serve,
};

/// Serves the module that the settings name.
pub fn run(
    settings: &Settings,
    descriptors: &mut Descriptors,
    reporter: &Reporter,
) -> Result<ExitCode> {
    start_logs(&settings.env)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .enable_all()
        .build()
        .context("no threads for the HTTP server")?;
    let code = runtime.block_on(serve(settings, descriptors, reporter));
    runtime.shutdown_background();
    code
}

// Instances have threads of their own; these move bytes between sockets and the queue.
const HTTP_THREADS: usize = 2;

/// Longest time to finish what runs. Whoever sent the signal kills this process when its own
/// patience, the pod's grace period, ends.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// A pod may say how much is logged, and in which form.
fn start_logs(env: &BTreeMap<String, String>) -> Result<()> {
    let filter = env.get("GRAPHLET_LOG").map_or("info", String::as_str);
    let format = match env.get("GRAPHLET_LOG_FORMAT") {
        Some(text) => LogFormat::from_str(text, true)
            .map_err(|_| anyhow::anyhow!("GRAPHLET_LOG_FORMAT: `{text}` is not text or json"))?,
        None => LogFormat::Text,
    };
    logs::start(filter, format)
}

async fn serve(
    settings: &Settings,
    descriptors: &mut Descriptors,
    reporter: &Reporter,
) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let (values, limits) = values(&settings.env, settings.buffered_body_bytes)?;
    let module = descriptors.signed(&settings.trust)?;
    let trust = settings.trust.clone();
    let mut builder = Host::builder().policy(Box::new(move || Ok(policy(&trust)?)));
    if settings.has_code {
        builder = builder.code(File::from(descriptors.next()?));
    }
    let http = Arc::new(HttpProvider::new(limits.clone()));
    let mut sockets = Vec::new();
    for _ in 0..settings.listeners {
        sockets.push(TcpListener::from(descriptors.next()?));
    }
    http.inherit(sockets);
    filter::apply(filter::Files::None)?;

    let host = builder.provider(http.clone()).build()?;
    let options = load_options(settings, &limits, &module)?;
    let started = tokio::select! {
        started = start(&host, module, options, values) => started,
        () = signals.stop.received() => {
            info!("Stopped before it was ready");
            host.stop(Duration::ZERO).await;
            return Ok(ExitCode::SUCCESS);
        }
    };
    if let Err(error) = started {
        host.stop(Duration::ZERO).await;
        if matches!(error.downcast_ref(), Some(StartError::OutOfMemory { .. })) {
            reporter.send(&Report::OutOfMemory);
            tell!("error: {error:#}: raise the pod's memory limit");
            return Ok(ExitCode::from(OUT_OF_MEMORY));
        }
        return Err(error);
    }
    reporter.send(&Report::Ready);
    loop {
        tokio::select! {
            () = signals.drain.received() => {
                info!("Draining: requests are answered, connections closed");
                http.drain();
            }
            () = signals.stop.received() => break,
        }
    }
    info!("Stopping: running requests are finished");
    http.drain();
    host.stop(GRACE).await;
    Ok(ExitCode::SUCCESS)
}

/// What the agent tells a running pod.
struct Signals {
    stop: Told,
    drain: Told,
}

struct Told(Signal);

impl Signals {
    fn new() -> Result<Self> {
        let told = |kind| signal(kind).map(Told).context("cannot listen for signals");
        Ok(Self { stop: told(SignalKind::terminate())?, drain: told(SignalKind::user_defined1())? })
    }
}

impl Told {
    async fn received(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// The link's values and limits: those variables of the container that the provider knows. The
/// address is not among them, because the sockets are bound already.
///
/// A pod with a memory limit holds `buffered` bytes of bodies at most, so that clients who send
/// much are refused and do not have it killed.
fn values(
    env: &BTreeMap<String, String>,
    buffered: Option<u64>,
) -> Result<(BTreeMap<String, String>, Limits)> {
    let mut values = env.clone();
    values.retain(|name, _| {
        let known = Limits::KEYS.contains(&name.as_str());
        if !known {
            debug!(%name, "Variable is not a value of the link");
        }
        known
    });
    let mut limits = Limits::default();
    if let Some(buffered) = buffered {
        limits.max_buffered_bytes = limits.max_buffered_bytes.min(buffered);
        limits.max_body_bytes = limits.max_body_bytes.min(buffered);
    }
    let limits = limits.with_values(&values)?;
    Ok((values, limits))
}

fn load_options(
    settings: &Settings,
    limits: &Limits,
    module: &SignedModule,
) -> Result<LoadOptions> {
    let mut options = LoadOptions {
        instances: usize::from(settings.instances.max(1)),
        isolation: if settings.isolated_requests { Isolation::Request } else { Isolation::Pooled },
        call_time: limits.call_timeout,
        request_bytes: usize::try_from(limits.max_body_bytes)
            .unwrap_or(usize::MAX)
            .saturating_add(limits::FRAMING_BYTES),
        warm_up: Some(serve::warm_up()?),
        ..LoadOptions::default()
    };
    if let Some(bytes) = settings.instance_memory_bytes {
        // The weights are pages of a file that all pods of a model share.
        let bytes = bytes.saturating_add(module.size());
        options.memory_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    Ok(options)
}

async fn start(
    host: &Host,
    module: SignedModule,
    options: LoadOptions,
    values: BTreeMap<String, String>,
) -> Result<()> {
    let begin = SystemTime::now();
    let loading = host.clone();
    let actor = tokio::task::spawn_blocking(move || loading.load_ahead(module, &options))
        .await
        .context("loading was interrupted")??;
    let link = Link {
        capability: CAPABILITY_HTTP_SERVER.to_owned(),
        binding: DEFAULT_BINDING.to_owned(),
        values,
    };
    host.link(&actor, &link).await?;
    tokio::task::spawn_blocking(move || actor.wait_ready(limits::START_TIME))
        .await
        .context("loading was interrupted")??;
    info!(start_ms = begin.elapsed().unwrap_or_default().as_millis(), "Ready");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_the_provider_knows_become_values_and_others_do_not() {
        let env = [("PORT", "80"), ("CALL_TIMEOUT", "2s"), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let (values, limits) = values(&env, Some(4 << 20)).unwrap();
        assert_eq!(values.keys().collect::<Vec<_>>(), ["CALL_TIMEOUT"]);
        assert_eq!(limits.call_timeout, Duration::from_secs(2));
        assert_eq!((limits.max_buffered_bytes, limits.max_body_bytes), (4 << 20, 4 << 20));
        let wrong = [("CALL_TIMEOUT".to_owned(), "soon".to_owned())].into();
        assert!(super::values(&wrong, None).is_err());
    }
}
