//! `graphlet run`: verified modules served over HTTP.

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use claims::Timestamp;
use host::{
    Actor, Host, Isolation, LoadOptions, ParseIsolationError, limits,
    manifest::{Manifest, ManifestError},
    provider::{ActorService as _, Link, ProviderError},
};
use http_provider::{DEFAULT_ADMIN_ADDRESS, HttpProvider, Limits};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use wire::{CAPABILITY_HTTP_SERVER, CAPABILITY_LOGGING, DEFAULT_BINDING};

use crate::{
    exit::Usage,
    logs::{self, LogFormat},
    serve,
    trust::TrustFile,
    units::{parse_duration, parse_size},
};

/// Serve a signed module, or what a host manifest lists, over HTTP
///
/// The module is verified first: a module that is unsigned, altered, expired, or from an issuer
/// that nobody here trusted is refused. Then it answers pictures:
///
///     curl -s -T cat.png localhost:8081
///
/// Ctrl-C and SIGTERM stop it: running requests are finished.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The signed module
    #[arg(value_name = "MODULE", required_unless_present = "manifest")]
    module: Option<PathBuf>,
    /// Serve the actors of a host manifest (YAML; see provider-config/)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["module", "listen"])]
    manifest: Option<PathBuf>,
    /// Where to answer requests
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081", value_parser = parse_address)]
    listen: SocketAddr,
    /// Where /healthz, /readyz and /metrics are, or `off`
    #[arg(long, value_name = "IP:PORT", default_value_t = DEFAULT_ADMIN_ADDRESS.to_string(), env = "GRAPHLET_ADMIN")]
    admin: String,
    /// Instances per actor: requests answered at once. They share the weights [default: one per
    /// core]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    instances: Option<u16>,
    /// Whether instances are kept (pooled), or each request has a fresh one (request), so that
    /// nothing of it is left for the next [default: the manifest's, else pooled]
    #[arg(long, value_name = "HOW", value_parser = parse_isolation)]
    isolation: Option<Isolation>,
    /// Requests that may wait for an instance before others are refused with 503
    #[arg(long, value_name = "COUNT", default_value_t = limits::QUEUE_DEPTH)]
    queue: usize,
    /// Longest time one request may take, waiting included
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    request_timeout: Duration,
    /// Linear memory of one instance
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = parse_size)]
    memory: u64,
    /// Longest request body
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = parse_size)]
    max_body: u64,
    /// Longest time running requests may take to finish when stopping
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    grace: Duration,
    /// Log lines as text or JSON
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "GRAPHLET_LOG_FORMAT")]
    log_format: LogFormat,
    /// What to log: a level, or `target=level` pairs
    #[arg(long, value_name = "FILTER", default_value = "info", env = "GRAPHLET_LOG")]
    log: String,
    /// Run modules that nobody has signed. Whoever made them can run code here; they get
    /// wascc:http_server and wascc:logging only
    #[arg(long)]
    dangerously_allow_unsigned: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    logs::start(&args.log, args.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no threads for the HTTP server")?;
    let code = runtime.block_on(serve(args));
    // Dropping the runtime would wait for a model that still loads, whoever pressed Ctrl-C.
    runtime.shutdown_background();
    code
}

async fn serve(args: &Args) -> Result<ExitCode> {
    // Before anything slow, so that Ctrl-C works from the beginning.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let plan = Plan::of(args)?;
    let mut http_limits = Limits::default();
    http_limits.max_body_bytes = args.max_body;
    http_limits.call_timeout = args.request_timeout;
    let http = Arc::new(HttpProvider::new(http_limits));
    if args.admin != "off" {
        let address = parse_address(&args.admin)
            .map_err(|error| Usage::new(format!("--admin: {error}, or off")))?;
        http.open_admin(address).map_err(|error| {
            anyhow::Error::new(error).context("the admin port (--admin IP:PORT, or off)")
        })?;
    }
    let allow_unsigned = args.dangerously_allow_unsigned;
    let policy = move || {
        let mut policy = TrustFile::load()?.policy(Timestamp::from(SystemTime::now()));
        policy.dangerously_allow_unsigned |= allow_unsigned;
        Ok(policy)
    };
    let mut builder = serve::host()?
        .provider(http.clone())
        .policy(Box::new(move || policy().map_err(|error: anyhow::Error| error.into())));
    if plan.isolation == Isolation::Request {
        let instances = instances(args).saturating_mul(plan.modules.len());
        builder = builder.pool(instances, memory_bytes(args));
    }
    let host = builder.build()?;
    if plan.isolation == Isolation::Request && !host.is_pooled() {
        warn!(
            "This system cannot tell which pages were written (Linux before 6.7): each request's \
             instance is mapped anew, which takes some milliseconds"
        );
    }

    let started = tokio::select! {
        started = start(args, &plan, &host, &http) => started,
        _ = terminate.recv() => return stopped_early(&host).await,
        _ = interrupt.recv() => return stopped_early(&host).await,
    };
    if let Err(error) = started {
        host.stop(Duration::ZERO).await;
        return Err(error);
    }
    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    info!(signal, grace_s = args.grace.as_secs(), "Stopping: running requests are finished");
    // A second signal does not wait.
    tokio::select! {
        () = host.stop(args.grace) => {}
        _ = terminate.recv() => warn!("Stopped at once"),
        _ = interrupt.recv() => warn!("Stopped at once"),
    }
    Ok(ExitCode::SUCCESS)
}

/// An address to listen on. A name could mean several.
fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "`{text}` is not an IP address and a port, such as 127.0.0.1:8081 (this machine only) \
             or 0.0.0.0:8081 (all networks)"
        )
    })
}

fn parse_isolation(text: &str) -> Result<Isolation, ParseIsolationError> {
    text.parse()
}

/// Instances of each actor.
fn instances(args: &Args) -> usize {
    args.instances
        .map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
}

fn memory_bytes(args: &Args) -> usize {
    usize::try_from(args.memory).unwrap_or(usize::MAX)
}

async fn stopped_early(host: &Host) -> Result<ExitCode> {
    host.stop(Duration::ZERO).await;
    Ok(ExitCode::SUCCESS)
}

/// What is to run, whether it came from a manifest or from arguments.
struct Plan {
    modules: Vec<PathBuf>,
    /// Links by actor (subject, name or path); `None` means the one module.
    links: Vec<(Option<String>, Link)>,
    isolation: Isolation,
}

impl Plan {
    fn of(args: &Args) -> Result<Self> {
        let Some(path) = &args.manifest else {
            let values = BTreeMap::from([("LISTEN".to_owned(), args.listen.to_string())]);
            return Ok(Plan {
                modules: args.module.clone().into_iter().collect(),
                links: vec![(None, link(CAPABILITY_HTTP_SERVER, values))],
                isolation: args.isolation.unwrap_or_default(),
            });
        };
        let known = [CAPABILITY_HTTP_SERVER, CAPABILITY_LOGGING];
        let variable = |name: &str| env::var(name).ok();
        let manifest = Manifest::read(path, &known, &variable).map_err(|error| {
            let shown = path.display();
            match error {
                ManifestError::Read { .. } => anyhow::Error::new(error),
                other => {
                    let cause = std::error::Error::source(&other);
                    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                    Usage::new(format!("{shown}: {other}{cause}")).into()
                }
            }
        })?;
        info!(manifest = %path.display(), labels = ?manifest.labels, "Manifest read");
        let links = manifest.bindings.into_iter().map(|b| (Some(b.actor), b.link)).collect();
        let isolation = args.isolation.or(manifest.isolation).unwrap_or_default();
        Ok(Plan { modules: manifest.actors, links, isolation })
    }
}

fn link(capability: &str, values: BTreeMap<String, String>) -> Link {
    Link { capability: capability.to_owned(), binding: DEFAULT_BINDING.to_owned(), values }
}

async fn start(args: &Args, plan: &Plan, host: &Host, http: &HttpProvider) -> Result<()> {
    let instances = instances(args);
    let options = LoadOptions {
        instances,
        isolation: plan.isolation,
        queue_depth: args.queue,
        call_time: args.request_timeout,
        request_bytes: usize::try_from(args.max_body)
            .unwrap_or(usize::MAX)
            .saturating_add(limits::FRAMING_BYTES),
        memory_bytes: memory_bytes(args),
        warm_up: Some(serve::warm_up()?),
        ..LoadOptions::default()
    };
    let mut actors: Vec<(PathBuf, Arc<Actor>)> = Vec::new();
    for path in &plan.modules {
        let module = serve::signed(path, args.dangerously_allow_unsigned)?;
        let (host, options) = (host.clone(), options.clone());
        let actor = tokio::task::spawn_blocking(move || host.load_ahead(module, &options))
            .await
            .context("loading was interrupted")?
            .map_err(|error| serve::not_loaded(path, error))?;
        actors.push((path.clone(), actor));
    }
    for (name, link) in &plan.links {
        for actor in chosen(&actors, name.as_deref())? {
            host.link(actor, link).await.map_err(|error| {
                let error = anyhow::Error::new(error);
                if error.chain().any(is_address_in_use) {
                    return error.context("the port is taken (choose another with --listen)");
                }
                if error.chain().any(is_wrong_value) {
                    return Usage::new(format!("{error:#}")).into();
                }
                error
            })?;
        }
    }
    for (path, actor) in &actors {
        let actor = Arc::clone(actor);
        tokio::task::spawn_blocking(move || actor.wait_ready(limits::START_TIME))
            .await
            .context("loading was interrupted")?
            .with_context(|| format!("cannot run {}", path.display()))?;
    }
    for bound in http.bound() {
        info!(address = %bound.address, instances, "Ready");
    }
    Ok(())
}

/// The actors that a link names: by subject, by name, or by the manifest's own entry.
fn chosen<'a>(
    actors: &'a [(PathBuf, Arc<Actor>)],
    name: Option<&str>,
) -> Result<Vec<&'a Arc<Actor>>> {
    let Some(name) = name else {
        return Ok(actors.iter().map(|(_, actor)| actor).collect());
    };
    let found: Vec<_> = actors
        .iter()
        .filter(|(path, actor)| {
            let identity = actor.identity();
            identity.subject == name || identity.name == name || path.ends_with(name)
        })
        .map(|(_, actor)| actor)
        .collect();
    if found.is_empty() {
        let known: Vec<&str> =
            actors.iter().map(|(_, actor)| actor.identity().name.as_str()).collect();
        return Err(Usage::new(format!("a binding names actor `{name}`, which is not there"))
            .hint(format!("the actors are {}", known.join(", ")))
            .into());
    }
    Ok(found)
}

fn is_address_in_use(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

fn is_wrong_value(cause: &(dyn std::error::Error + 'static)) -> bool {
    matches!(cause.downcast_ref(), Some(ProviderError::Value { .. }))
}
