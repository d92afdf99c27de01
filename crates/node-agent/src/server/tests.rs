//! The port over real TLS on loopback, with a fake cluster behind it.

use std::{future, net::Ipv4Addr, sync::atomic::AtomicBool};

use futures_util::stream;
use rustls::{
    ClientConfig, RootCertStore,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{auth::tests::FakeReviewer, logs::tests::pod, stats::tests as fixtures, *};
use crate::{identity::Credential, runtime::ContainerState};

#[derive(Default)]
struct FakeBackend {
    faulty: AtomicBool,
}

impl Backend for FakeBackend {
    fn pods(&self) -> Vec<Arc<Pod>> {
        vec![pod("digits", None), pod("waits", Some("ContainerCreating"))]
    }

    fn containers(&self) -> Vec<Container> {
        vec![fixtures::container("a", "digits", ContainerState::Running)]
    }

    fn usage(&self, _: &ContainerId) -> Option<Usage> {
        Some(Usage { cpu: Duration::from_secs(1), working_set_bytes: 5, rss_bytes: 6 })
    }

    fn readings(&self) -> Readings {
        fixtures::node()
    }

    fn fault(&self) -> Option<String> {
        self.faulty.load(std::sync::atomic::Ordering::SeqCst).then(|| "broken".into())
    }

    async fn logs(
        &self,
        pod: &PodRef,
        container: &str,
        options: LogOptions,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, LogError> {
        if pod.name == "waits" {
            let (pod, container) = (pod.name.clone(), container.to_owned());
            return Err(LogError::NotFound { pod, container });
        }
        let line = format!("{} {} {:?}\n", pod.uid, container, options.tail_lines);
        let first = stream::iter([Ok(Bytes::from(line))]);
        // A followed log goes on for ever.
        let rest: Vec<_> = if options.follow { vec![()] } else { Vec::new() };
        let rest = stream::iter(rest).then(|()| future::pending());
        Ok(first.chain(rest))
    }
}

use futures_util::StreamExt as _;

/// A client that takes any server: what is tested here is the server's side.
#[derive(Debug)]
struct TakesAny;

impl ServerCertVerifier for TakesAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let provider = rustls::crypto::ring::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A CA, a client certificate of it in the group `admins`, and the same of a CA nobody knows.
struct Pki {
    ca: Vec<u8>,
    admin: Credential,
    stranger: Credential,
}

fn pki() -> Pki {
    let issue = || {
        let ca_key = rcgen::KeyPair::generate().expect("a key");
        let mut ca = rcgen::CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "test-ca");
        let ca_certificate = ca.self_signed(&ca_key).expect("a CA");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "apiserver");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "admins");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let credential = Credential::new(&certificate.pem(), &key).expect("a credential");
        (ca_certificate.der().to_vec(), credential)
    };
    let ((ca, admin), (_, stranger)) = (issue(), issue());
    Pki { ca, admin, stranger }
}

struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

async fn start(pki: &Pki) -> Running {
    let serving = Credential::self_signed("edge", &[]).expect("a certificate");
    let serving = crate::identity::serving_certificate(&serving).expect("usable");
    let tls = tls::acceptor(serving as _, std::slice::from_ref(&pki.ca)).expect("TLS");
    // Where no other test listens, and no connection begins: a port that is closed stays closed.
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 4), 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let service = Service::new(FakeReviewer::default(), "edge", FakeBackend::default());
    let (stop, stopped) = watch::channel(false);
    let server = Server { listener, tls };
    let task = tokio::spawn(server.serve(Arc::new(service), stopped));
    Running { address, stop, task }
}

fn connector(credential: Option<&Credential>) -> tokio_rustls::TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty());
    let mut config = match credential {
        Some(credential) => {
            let chain = CertificateDer::from_pem_slice(credential.chain_pem().as_bytes());
            let key = PrivateKeyDer::from_pem_slice(credential.key_pem().as_bytes());
            builder
                .with_client_auth_cert(vec![chain.expect("a certificate")], key.expect("a key"))
                .expect("a pair")
        }
        None => builder.with_no_client_auth(),
    };
    config.dangerous().set_certificate_verifier(Arc::new(TakesAny));
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

/// Sends one request and reads until the server closes, or `enough` appears.
async fn ask(
    address: SocketAddr,
    credential: Option<&Credential>,
    request: &str,
    enough: Option<&str>,
) -> io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("edge").expect("a name");
    let mut stream = connector(credential).connect(name, stream).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        };
        text.extend_from_slice(&buffer[..read]);
        if enough.is_some_and(|enough| String::from_utf8_lossy(&text).contains(enough)) {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn get(path: &str, header: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n{header}\r\n")
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test]
async fn the_cluster_s_certificate_reads_logs_pods_and_usage() {
    let pki = pki();
    let running = start(&pki).await;
    let ask = async |path: &str| {
        ask(running.address, Some(&pki.admin), &get(path, ""), None).await.expect("an answer")
    };
    let logs = ask("/containerLogs/default/digits/actor?tailLines=5").await;
    assert!(
        logs.starts_with("HTTP/1.1 200") && logs.contains("uid-digits actor Some(5)"),
        "{logs}"
    );
    let pods = ask("/pods").await;
    assert!(pods.contains(r#""kind":"PodList""#) && pods.contains("uid-digits"), "{pods}");
    assert!(ask("/stats/summary").await.contains(r#""nodeName":"edge""#));
    assert!(ask("/metrics/resource").await.contains("container_cpu_usage_seconds_total{"));
    assert!(ask("/metrics").await.contains("graphlet_node_info"));
    assert!(ask("/healthz").await.ends_with("ok"));
    let waits = ask("/containerLogs/default/waits/actor").await;
    assert!(waits.contains("waiting to start: ContainerCreating"), "{waits}");
    for (path, expected) in [
        ("/containerLogs/default/../../etc/passwd", "400"),
        ("/containerLogs/default/digits/..%2f..%2fetc%2fpasswd", "400"),
        ("/containerLogs/default/digits/actor?tailLines=x", "400"),
        ("/containerLogs/default/waits/actor", "400"),
        ("/containerLogs/default/nobody/actor", "404"),
        ("/nothing", "404"),
        ("/exec/default/digits/actor", "501"),
        ("/attach/default/digits/actor", "501"),
        ("/portForward/default/digits", "501"),
    ] {
        let answer = ask(path).await;
        assert_eq!(status(&answer), expected, "path: {path}");
    }
    let forward = ask("/portForward/default/digits").await;
    assert!(forward.contains("/api/v1/namespaces/default/pods/digits:8081/proxy/"), "{forward}");
}

#[tokio::test]
async fn nobody_gets_401_and_a_token_gets_what_it_may() {
    let pki = pki();
    let running = start(&pki).await;
    for (path, header, expected) in [
        ("/metrics/resource", "", "401"),
        ("/healthz", "", "401"),
        ("/containerLogs/default/../x/y", "", "401"),
        ("/metrics/resource", "Authorization: Bearer bad\r\n", "401"),
        ("/metrics/resource", "Authorization: Bearer good\r\n", "200"),
        ("/containerLogs/default/digits/actor", "Authorization: Bearer good\r\n", "403"),
        ("/pods", "Authorization: Bearer good\r\n", "403"),
        ("/metrics/../pods", "Authorization: Bearer good\r\n", "400"),
    ] {
        let answer = ask(running.address, None, &get(path, header), None).await.expect("an answer");
        assert_eq!(status(&answer), expected, "{path} with {header:?}");
    }
    // The handshake fails: as an alert, or as a connection that is closed before it is read.
    let stranger = ask(running.address, Some(&pki.stranger), &get("/pods", ""), None).await;
    assert_eq!(stranger.unwrap_or_default(), "", "a certificate of another CA");
}

#[tokio::test]
async fn a_followed_log_comes_at_once_and_is_cut_when_the_agent_ends() {
    let pki = pki();
    let running = start(&pki).await;
    let request = get("/containerLogs/default/digits/actor?follow=true", "");
    let first = ask(running.address, Some(&pki.admin), &request, Some("uid-digits")).await;
    assert!(first.expect("an answer").contains("uid-digits actor None"));
    let follower = {
        let (address, admin) = (running.address, pki.admin.clone());
        tokio::spawn(async move { ask(address, Some(&admin), &request, None).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    running.stop.send_replace(true);
    tokio::time::timeout(FINISH_TIMEOUT * 3, running.task).await.expect("in time").expect("ended");
    follower.abort();
    assert!(TcpStream::connect(running.address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_wrong_method_is_405() {
    let pki = pki();
    let running = start(&pki).await;
    let request =
        "POST /pods HTTP/1.1\r\nHost: edge\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let answer = ask(running.address, Some(&pki.admin), request, None).await.expect("an answer");
    assert_eq!(status(&answer), "405");
}
