//! The provider as the host sees it: a listener per linked actor, and the admin port.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use host::provider::{
    ActorHandle, ActorIdentity, BoxFuture, CapabilityProvider, Link, ProviderError,
};
use tracing::info;

use crate::{
    admin::{Admin, Readiness},
    endpoint::Endpoint,
    limits::Limits,
    listen::{Server, Service},
    metrics::Metrics,
};

/// Where the admin port listens unless told otherwise: on this machine only, because what it
/// tells is for operators.
pub const DEFAULT_ADMIN_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9091);

/// The capability `wascc:http_server` over HTTP/1.1.
///
/// Link values: `PORT` (all interfaces, as waSCC's own provider does) or `LISTEN` (an address such
/// as `127.0.0.1:8081`; wins over `PORT`), and those of [`Limits::KEYS`]. Port 0 takes any free
/// port; [`HttpProvider::bound`] tells which. A link with neither takes the sockets that
/// [`HttpProvider::inherit`] was given. Its methods must be called within a tokio runtime
/// with I/O and time.
pub struct HttpProvider {
    limits: Limits,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    servers: Mutex<Vec<(Bound, Server)>>,
    admin: Mutex<Option<Server>>,
    inherited: Mutex<Vec<TcpListener>>,
}

/// A link that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The actor's subject key.
    pub subject: String,
    /// The link's binding.
    pub binding: String,
    /// Where the actor answers.
    pub address: SocketAddr,
}

impl HttpProvider {
    /// A provider that grants `limits` unless a link says otherwise.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            metrics: Arc::new(Metrics::new()),
            readiness: Arc::default(),
            servers: Mutex::default(),
            admin: Mutex::default(),
            inherited: Mutex::default(),
        }
    }

    /// Sockets that listen already, bound by whoever started this process; the first link that
    /// names no address takes them all.
    pub fn inherit(&self, sockets: Vec<TcpListener>) {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner).extend(sockets);
    }

    /// Goes on taking requests, but is not ready any more, and closes each connection with its
    /// next answer, so that clients find another server for what they ask then.
    pub fn drain(&self) {
        self.readiness.stop();
        for (_, server) in &*self.servers.lock().unwrap_or_else(PoisonError::into_inner) {
            server.drain();
        }
    }

    /// Opens the admin port with `/healthz`, `/readyz` and `/metrics`; returns where it listens.
    /// Open it before the first link, so that a starting process can be told from a dead one.
    ///
    /// # Errors
    /// [`ProviderError::Resource`] when the address cannot be had.
    pub fn open_admin(&self, address: SocketAddr) -> Result<SocketAddr, ProviderError> {
        let admin = Admin {
            readiness: Arc::clone(&self.readiness),
            metrics: Arc::clone(&self.metrics),
            scraping: Mutex::default(),
        };
        let mut limits = self.limits.clone();
        limits.max_connections = MAX_ADMIN_CONNECTIONS;
        let server = Server::start(address, limits, Arc::new(admin))
            .map_err(|source| cannot_listen(address, source))?;
        let address = server.address();
        info!(%address, "Admin port open");
        *self.admin.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(address)
    }

    /// Every link that works, oldest first.
    pub fn bound(&self) -> Vec<Bound> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.iter().map(|(bound, _)| bound.clone()).collect()
    }

    fn listen(&self, actor: ActorHandle, link: &Link) -> Result<(), ProviderError> {
        check_keys(link)?;
        let limits = self.limits.with_values(&link.values).map_err(|error| {
            ProviderError::Value { key: error.key.clone(), reason: error.to_string() }
        })?;
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let sockets = self.sockets(link)?;
        if self.readiness.is_stopping() {
            let source = io::Error::other("the provider is stopping");
            return Err(ProviderError::Resource { what: "cannot listen".into(), source });
        }
        let identity = actor.identity().clone();
        let metrics = self.metrics.of_actor(&identity);
        let endpoint = Arc::new(Endpoint::new(Arc::clone(&actor), limits.clone(), metrics));
        for socket in sockets {
            let server = socket.serve(limits.clone(), Arc::clone(&endpoint) as _)?;
            info!(
                address = %server.address(),
                actor.name = %identity.name,
                actor.key = %identity.subject,
                link.binding = %link.binding,
                "Actor served over HTTP"
            );
            self.metrics.watch(Arc::clone(&actor), server.connections());
            let bound = Bound {
                subject: identity.subject.clone(),
                binding: link.binding.clone(),
                address: server.address(),
            };
            servers.push((bound, server));
        }
        self.readiness.add(actor);
        Ok(())
    }

    /// Where a link is to be answered: at the address that it names, else on the sockets that
    /// were inherited.
    fn sockets(&self, link: &Link) -> Result<Vec<Socket>, ProviderError> {
        let named = link.values.contains_key(LISTEN) || link.values.contains_key(PORT);
        let mut inherited = self.inherited.lock().unwrap_or_else(PoisonError::into_inner);
        if named || inherited.is_empty() {
            return Ok(vec![Socket::Address(address(link)?)]);
        }
        Ok(std::mem::take(&mut *inherited).into_iter().map(Socket::Open).collect())
    }
}

/// What a server listens on.
enum Socket {
    Address(SocketAddr),
    Open(TcpListener),
}

impl Socket {
    fn serve(self, limits: Limits, service: Arc<dyn Service>) -> Result<Server, ProviderError> {
        match self {
            Self::Address(address) => Server::start(address, limits, service)
                .map_err(|source| cannot_listen(address, source)),
            Self::Open(socket) => socket
                .set_nonblocking(true)
                .and_then(|()| tokio::net::TcpListener::from_std(socket))
                .and_then(|socket| Server::start_on(socket, limits, service))
                .map_err(|source| ProviderError::Resource {
                    what: "cannot use an inherited socket".into(),
                    source,
                }),
        }
    }
}

// Probes and scrapers of one machine.
const MAX_ADMIN_CONNECTIONS: usize = 64;

impl CapabilityProvider for HttpProvider {
    fn capability(&self) -> &'static str {
        wire::CAPABILITY_HTTP_SERVER
    }

    fn link<'a>(
        &'a self,
        actor: ActorHandle,
        link: &'a Link,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(async move { self.listen(actor, link) })
    }

    /// The contract has no message from an actor to this capability.
    fn handle(
        &self,
        _actor: &ActorIdentity,
        operation: &str,
        _message: &[u8],
    ) -> Result<Vec<u8>, ProviderError> {
        Err(ProviderError::UnknownOperation(operation.to_owned()))
    }

    fn stop(&self, grace: Duration) -> BoxFuture<'_, ()> {
        // Not lazily: readiness is false when this returns, even before the future is polled.
        self.readiness.stop();
        Box::pin(async move {
            let deadline = Instant::now() + grace;
            let servers =
                std::mem::take(&mut *self.servers.lock().unwrap_or_else(PoisonError::into_inner));
            for (_, server) in &servers {
                server.begin_stop();
            }
            for (_, server) in servers {
                server.finish_stop(deadline).await;
            }
            // Last, so that whoever watches the stop can.
            let admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(admin) = admin {
                admin.finish_stop(deadline.min(Instant::now() + ADMIN_GRACE)).await;
            }
        })
    }
}

// A scrape takes milliseconds.
const ADMIN_GRACE: Duration = Duration::from_millis(500);

const PORT: &str = "PORT";
const LISTEN: &str = "LISTEN";

/// A misspelt limit that is quietly ignored would be found out under load.
fn check_keys(link: &Link) -> Result<(), ProviderError> {
    for key in link.values.keys() {
        if ![PORT, LISTEN].contains(&key.as_str()) && !Limits::KEYS.contains(&key.as_str()) {
            let known = Limits::KEYS.join(", ");
            return Err(ProviderError::Value {
                key: key.clone(),
                reason: format!("is not known here; known are {PORT}, {LISTEN}, {known}"),
            });
        }
    }
    Ok(())
}

fn address(link: &Link) -> Result<SocketAddr, ProviderError> {
    let bad = |key: &str, reason: String| ProviderError::Value { key: key.into(), reason };
    if let Some(text) = link.values.get(LISTEN) {
        return text.parse().map_err(|_| {
            bad(LISTEN, format!("`{text}` is not an address such as 127.0.0.1:8081"))
        });
    }
    let Some(text) = link.values.get(PORT) else {
        return Err(bad(PORT, format!("is missing, and so is {LISTEN}")));
    };
    // As digits alone: `parse` would take a sign.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|_| digits);
    let port = port.ok_or_else(|| bad(PORT, format!("`{text}` is not a port")))?;
    Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
}

fn cannot_listen(address: SocketAddr, source: io::Error) -> ProviderError {
    ProviderError::Resource { what: format!("cannot listen on {address}"), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(values: &[(&str, &str)]) -> Link {
        Link {
            capability: wire::CAPABILITY_HTTP_SERVER.into(),
            binding: wire::DEFAULT_BINDING.into(),
            values: values.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
        }
    }

    #[test]
    fn an_address_comes_from_listen_else_from_port() {
        for (values, expected) in [
            (&[("PORT", "8081")][..], Some("0.0.0.0:8081")),
            (&[("LISTEN", "127.0.0.1:0")], Some("127.0.0.1:0")),
            (&[("LISTEN", "[::1]:80"), ("PORT", "8081")], Some("[::1]:80")),
            (&[], None),
            (&[("PORT", "65536")], None),
            (&[("PORT", "+80")], None),
            (&[("PORT", "http")], None),
            (&[("PORT", "")], None),
            (&[("LISTEN", "localhost")], None),
        ] {
            let address = address(&link(values)).ok().map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "values: {values:?}");
        }
    }

    #[test]
    fn a_misspelt_value_is_an_error_that_names_it() {
        let error = check_keys(&link(&[("PORT", "1"), ("MAX_BODY", "1")])).unwrap_err();
        assert!(matches!(error, ProviderError::Value { key, .. } if key == "MAX_BODY"));
        check_keys(&link(&[("PORT", "1"), ("MAX_BODY_BYTES", "1")])).unwrap();
    }
}
