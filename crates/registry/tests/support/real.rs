//! A real registry, Debian's `docker-registry`, at an address of this machine's own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SigningKey as _};
use serde_json::{Value, json};

use super::{Hostile, Reply, Request};

/// How callers prove who they are.
pub enum Access<'a> {
    /// Not at all.
    Anonymous,
    /// User and password.
    Password { user: &'a str, password: &'a str },
    /// A token from a realm.
    Token(&'a TokenRealm),
}

/// A running registry; dropped, it is gone.
pub struct Real {
    process: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Real {
    pub fn anonymous() -> Self {
        Self::start(&Access::Anonymous, None)
    }

    /// Starts a registry, over TLS with a certificate for its address when there is an authority.
    pub fn start(access: &Access<'_>, tls: Option<&Authority>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let config = write_config(folder.path(), address, access, tls);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("docker-registry cannot be started ({error}): run `make setup-dev`")
            });
        let mut registry = Real { process, address, folder };
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = registry.process.try_wait().unwrap();
            assert!(ended.is_none(), "docker-registry ended, {ended:?}: {}", registry.log());
            let in_time = begin.elapsed() < Duration::from_secs(60);
            assert!(in_time, "docker-registry does not answer: {}", registry.log());
            thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// `HOST:PORT`, as references name it.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address at which nobody listens: of an address of this machine's own that nobody else uses, so
/// that no other test is given it, a port that the system gives to no connection. Asked for without
/// a listener, which a process that another test begins at that moment would hold, too.
pub fn free_address() -> SocketAddr {
    static GIVEN: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, high | 1, low, GIVEN.fetch_add(1, Ordering::Relaxed));
    let mut addresses = (20_000..30_000).map(|port| SocketAddr::from((own, port)));
    addresses.find(|address| TcpStream::connect(address).is_err()).unwrap()
}

/// YAML is what the registry reads, and JSON is YAML.
fn write_config(
    folder: &Path,
    address: SocketAddr,
    access: &Access<'_>,
    tls: Option<&Authority>,
) -> PathBuf {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let mut config = json!({
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": true}},
        "storage": {"filesystem": {"rootdirectory": folder.join("data")}},
        "http": {"addr": address.to_string()},
    });
    if let Some(authority) = tls {
        let (certificate, key) = authority.certificate_for(&address.ip().to_string());
        config["http"]["tls"] = json!({
            "certificate": write("tls.crt", &certificate),
            "key": write("tls.key", &key),
        });
    }
    match access {
        Access::Anonymous => {}
        Access::Password { user, password } => {
            let line = format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap());
            config["auth"] = json!({
                "htpasswd": {"realm": "tests", "path": write("htpasswd", &line)},
            });
        }
        Access::Token(realm) => {
            config["auth"] = json!({
                "token": {
                    "realm": realm.url(),
                    "service": SERVICE,
                    "issuer": ISSUER,
                    "rootcertbundle": write("tokens.crt", &realm.certificate),
                },
            });
        }
    }
    write("config.json", &config.to_string())
}

/// A certificate authority of one's own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { issuer }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn certificate_for(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

const SERVICE: &str = "registry of the tests";
const ISSUER: &str = "realm of the tests";

/// A realm that gives tokens to `writer` (pull and push) and `reader` (pull), password `open`.
pub struct TokenRealm {
    server: Hostile,
    certificate: String,
}

impl TokenRealm {
    pub async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let pem = certificate.pem();
        let der = STANDARD.encode(certificate.der());
        let server = Hostile::start(move |request, _| {
            let actions: &[&str] = match request.basic_auth().as_deref() {
                Some("writer:open") => &["pull", "push"],
                Some("reader:open") => &["pull"],
                _ => return Reply::json(401, &json!({"details": "who is there?"})),
            };
            assert_eq!(request.query("service").as_deref(), Some(SERVICE));
            let scope = request.query("scope").unwrap();
            let token = token(&key, &der, &scope, actions);
            Reply::json(200, &json!({"token": token, "expires_in": 300}))
        });
        TokenRealm { server: server.await, certificate: pem }
    }

    pub fn url(&self) -> String {
        format!("http://{}/token", self.server.host())
    }

    /// How many tokens were asked for.
    pub fn requests(&self) -> usize {
        self.server.requests().len()
    }
}

/// A token as the distribution registry verifies it: ES256 with its certificate in the header.
fn token(key: &KeyPair, certificate: &str, scope: &str, allowed: &[&str]) -> String {
    let mut parts = scope.split(':');
    let (kind, name, wanted) =
        (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let actions: Vec<_> = wanted.split(',').filter(|action| allowed.contains(action)).collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [certificate]});
    let claims = json!({
        "iss": ISSUER, "sub": "tests", "aud": SERVICE, "jti": "1",
        "iat": now - 60, "nbf": now - 60, "exp": now + 300,
        "access": [{"type": kind, "name": name, "actions": actions}],
    });
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", encode(&header), encode(&claims));
    let signature = fixed(&key.sign(text.as_bytes()).unwrap());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// An ECDSA signature as JOSE wants it, 32 bytes each, from DER's two integers.
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut fixed = Vec::new();
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let number = &rest[2..2 + length];
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        fixed.extend(vec![0; 32 - number.len()]);
        fixed.extend(number);
        rest = &rest[2 + length..];
    }
    fixed
}
