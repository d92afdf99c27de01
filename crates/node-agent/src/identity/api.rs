//! The one way to the API server: a client that is exchanged whenever the node's certificate is.

use std::{future::Future, sync::Arc, time::Duration};

use kube::{Client, Config};
use tokio::sync::watch;

/// Longest wait for a connection to the API server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Who asks, as audit logs and API priority see it; the form is the kubelet's.
const USER_AGENT: &str = concat!("graphlet-node/v", env!("CARGO_PKG_VERSION"), " (linux)");

/// The node's access to the API server. A cheap clone; all clones see a renewed certificate at
/// once.
#[derive(Clone)]
pub struct Api {
    current: watch::Receiver<Client>,
    node_name: Arc<str>,
}

/// The other end of [`Api`]: whoever renews certificates puts the new client here.
pub(super) struct ApiSource(watch::Sender<Client>);

impl Api {
    /// An access that starts with `client`, and the end that exchanges it.
    pub(super) fn new(node_name: &str, client: Client) -> (ApiSource, Api) {
        let (sender, current) = watch::channel(client);
        (ApiSource(sender), Api { current, node_name: node_name.into() })
    }

    /// An access whose client stays as it is, such as one to a fake API server in a test.
    pub fn fixed(node_name: &str, client: Client) -> Self {
        Self::new(node_name, client).1
    }

    /// The newest client. Ask for it at each use: an older one holds a certificate that expires.
    pub fn client(&self) -> Client {
        self.current.borrow().clone()
    }

    /// Returns when the client has changed since this call; watches are then to be opened again.
    /// The call itself marks the moment, so make it before [`Api::client`] and await it later.
    pub fn renewed(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let mut current = self.current.clone();
        current.mark_unchanged();
        async move {
            if current.changed().await.is_err() {
                // Nobody is left to renew it.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The node's name.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("node_name", &self.node_name).finish_non_exhaustive()
    }
}

impl ApiSource {
    /// From now on everybody gets this client.
    pub(super) fn replace(&self, client: Client) {
        self.0.send_replace(client);
    }
}

/// Makes a client of a configuration, with the waits this agent allows.
///
/// # Errors
/// When the certificates in it cannot be used.
pub(super) fn client(mut config: Config) -> Result<Client, kube::Error> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT)));
    Client::try_from(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_client() -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        client(Config::new(http::Uri::from_static("http://127.0.0.1:1"))).expect("plain HTTP")
    }

    #[tokio::test]
    async fn requests_say_which_program_sends_them() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.expect("a request");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                .await
                .expect("room");
            String::from_utf8_lossy(&head[..read]).to_ascii_lowercase()
        });
        let client = client(Config::new(url.parse().expect("a URL"))).expect("plain HTTP");
        let request = http::Request::get("/version").body(Vec::new()).expect("a request");
        client.request_text(request).await.expect("an answer");
        let head = server.await.expect("the server's part");
        let line = format!("user-agent: {USER_AGENT}\r\n");
        assert!(head.contains(&line), "{head}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_client_wakes_who_waits_and_only_once() {
        let (source, api) = Api::new("edge", some_client());
        let renewed = api.renewed();
        source.replace(some_client());
        renewed.await;
        let again = api.renewed();
        let waited = tokio::time::timeout(Duration::from_secs(3600), again).await;
        assert!(waited.is_err(), "nothing changed since the second call");
        assert_eq!(api.node_name(), "edge");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_client_is_never_renewed() {
        let api = Api::fixed("edge", some_client());
        let waited = tokio::time::timeout(Duration::from_secs(3600), api.renewed()).await;
        assert!(waited.is_err());
    }
}
