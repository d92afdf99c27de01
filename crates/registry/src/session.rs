//! One repository at one registry: where it is, who we are there, and requests with both.

use http_auth::ChallengeRef;
use oci_client::secrets::RegistryAuth;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RANGE, WWW_AUTHENTICATE},
};
use serde::Deserialize;

use crate::{
    credentials::Login,
    error::{ANONYMOUS, RegistryError},
    options::{Mirror, is_loopback},
    transport::{self, Transport, is_inside},
};

/// Where a registry is.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `HOST[:PORT]` as messages and credentials name it.
    pub(crate) host: String,
    base: Url,
    /// A mirror is told for whom it stands.
    stands_for: Option<String>,
    /// Plain HTTP because it is this machine; TLS will do as well.
    undecided: bool,
}

impl Endpoint {
    /// A registry by the host of a reference.
    pub(crate) fn registry(transport: &Transport, host: &str) -> Result<Self, RegistryError> {
        // Docker's hub answers elsewhere.
        let address = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let named =
            transport.options().plain_http.iter().any(|name| name.eq_ignore_ascii_case(host));
        let local = is_loopback(host);
        let scheme = if named || local { "http" } else { "https" };
        let base = format!("{scheme}://{address}/").parse().map_err(|error| {
            let found = format!("its name makes no URL: {error}");
            RegistryError::NotARegistry { host: host.to_owned(), found }
        })?;
        let undecided = local && !named;
        Ok(Endpoint { host: host.to_owned(), base, stands_for: None, undecided })
    }

    /// A mirror.
    pub(crate) fn mirror(mirror: &Mirror) -> Self {
        let mut base = mirror.url.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let host = mirror.address();
        Endpoint { host, base, stands_for: Some(mirror.host.clone()), undecided: false }
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.base.scheme() == "http"
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}v2/{path}", self.base.path()));
        if let Some(host) = &self.stands_for {
            url.query_pairs_mut().append_pair("ns", host);
        }
        url
    }
}

/// What is to be done in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Pull,
    Push,
}

/// A conversation about one repository.
pub(crate) struct Session {
    transport: Transport,
    pub(crate) endpoint: Endpoint,
    repository: String,
    login: Option<Login>,
    action: Action,
    authorization: Option<Authorization>,
}

#[derive(Clone)]
enum Authorization {
    Basic,
    Bearer { token: String, header: HeaderValue },
}

impl Session {
    pub(crate) fn new(
        transport: &Transport,
        endpoint: Endpoint,
        repository: &str,
        login: Option<Login>,
        action: Action,
    ) -> Self {
        Session {
            transport: transport.clone(),
            endpoint,
            repository: repository.to_owned(),
            login,
            action,
            authorization: None,
        }
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(crate) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// A manifest by tag or digest.
    pub(crate) async fn manifest(&mut self, version: &str) -> Result<Response, RegistryError> {
        let path = format!("{}/manifests/{version}", self.repository);
        let separator = if version.contains(':') { '@' } else { ':' };
        let what = format!("{}{separator}{version}", self.repository);
        self.get(&path, MANIFEST_TYPES, None, &what).await
    }

    /// A blob, or what of it comes behind the first `skip` bytes.
    pub(crate) async fn blob(
        &mut self,
        digest: &str,
        skip: u64,
    ) -> Result<Response, RegistryError> {
        let path = format!("{}/blobs/{digest}", self.repository);
        let range = (skip > 0).then(|| format!("bytes={skip}-"));
        self.get(&path, "*/*", range, &format!("blob {digest}")).await
    }

    /// Finds out how to authenticate, for a client that does the rest itself.
    pub(crate) async fn authenticate(&mut self) -> Result<RegistryAuth, RegistryError> {
        let response = self.send("", "*/*", None).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.authorise(response).await?;
            // A realm has checked the login by now; a password nobody has seen yet.
            if let Some(Authorization::Basic) = self.authorization {
                let response = self.send("", "*/*", None).await?;
                if !response.status().is_success() {
                    let error = transport::failure(&self.endpoint.host, response).await;
                    return Err(self.complete(error, "registry"));
                }
            }
        } else if !response.status().is_success() {
            return Err(transport::failure(&self.endpoint.host, response).await);
        } else if transport::is_html(&response) {
            return Err(self.not_a_registry("a web page".into()));
        }
        Ok(match (&self.authorization, &self.login) {
            (Some(Authorization::Bearer { token, .. }), _) => RegistryAuth::Bearer(token.clone()),
            (Some(Authorization::Basic), Some(Login::Basic { user, password })) => {
                RegistryAuth::Basic(user.clone(), password.to_string())
            }
            _ => RegistryAuth::Anonymous,
        })
    }

    pub(crate) fn not_a_registry(&self, found: String) -> RegistryError {
        RegistryError::NotARegistry { host: self.endpoint.host.clone(), found }
    }

    /// Fills in what the transport cannot know.
    pub(crate) fn complete(&self, error: RegistryError, wanted: &str) -> RegistryError {
        match error {
            RegistryError::Unauthorized { host, repository, who, message }
                if repository.is_empty() && who.is_empty() =>
            {
                let (repository, who) = (self.repository.clone(), self.who().to_owned());
                RegistryError::Unauthorized { host, repository, who, message }
            }
            RegistryError::NotFound { host, what, message } if what.is_empty() => {
                RegistryError::NotFound { host, what: wanted.to_owned(), message }
            }
            other => other,
        }
    }

    fn who(&self) -> &str {
        self.login.as_ref().map_or(ANONYMOUS, Login::who)
    }

    async fn get(
        &mut self,
        path: &str,
        accept: &'static str,
        range: Option<String>,
        wanted: &str,
    ) -> Result<Response, RegistryError> {
        let mut response = self.send(path, accept, range.as_deref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // The first request, or a token that has expired since.
            self.authorise(response).await?;
            response = self.send(path, accept, range.as_deref()).await?;
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let error = transport::failure(&self.endpoint.host, response).await;
        Err(self.complete(error, wanted))
    }

    async fn send(
        &mut self,
        path: &str,
        accept: &'static str,
        range: Option<&str>,
    ) -> Result<Response, RegistryError> {
        let first = self.send_there(path, accept, range).await;
        if !self.endpoint.undecided {
            return first;
        }
        self.endpoint.undecided = false;
        let wants_tls = match &first {
            // Go, nginx and others answer plain HTTP on a TLS port so.
            Ok(response) => response.status() == StatusCode::BAD_REQUEST,
            Err(RegistryError::Unreachable { refused, .. }) => !refused,
            Err(_) => false,
        };
        if !wants_tls {
            return first;
        }
        let mut secure = self.endpoint.clone();
        if secure.base.set_scheme("https").is_err() {
            return first;
        }
        let plain = std::mem::replace(&mut self.endpoint, secure);
        match self.send_there(path, accept, range).await {
            // It speaks TLS, if not to our liking: that is what there is to say.
            Ok(response) => Ok(response),
            Err(error @ RegistryError::Tls { .. }) if first.is_ok() => Err(error),
            Err(_) => {
                self.endpoint = plain;
                first
            }
        }
    }

    async fn send_there(
        &self,
        path: &str,
        accept: &'static str,
        range: Option<&str>,
    ) -> Result<Response, RegistryError> {
        let url = self.endpoint.url(path);
        let request = |client: &Client| {
            let mut request = client.get(url.clone()).header(ACCEPT, accept);
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            match (&self.authorization, &self.login) {
                (Some(Authorization::Bearer { header, .. }), _) => {
                    request.header(AUTHORIZATION, header.clone())
                }
                (Some(Authorization::Basic), Some(login)) => basic(request, login),
                _ => request,
            }
        };
        self.transport.send(&self.endpoint.host, request).await
    }

    /// Answers a 401 as far as our login goes.
    async fn authorise(&mut self, refused: Response) -> Result<(), RegistryError> {
        let had = self.authorization.take();
        let headers = refused.headers().get_all(WWW_AUTHENTICATE);
        let lines: Vec<String> =
            headers.iter().filter_map(|line| Some(line.to_str().ok()?.to_owned())).collect();
        let mut challenges = Vec::new();
        for line in &lines {
            challenges.extend(http_auth::parse_challenges(line).unwrap_or_default());
        }
        let offers = |scheme: &str| {
            challenges.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme))
        };
        if let (Some(challenge), true) = (offers("Bearer"), self.may_ask_again(had.as_ref())) {
            let challenge = Challenge::of(challenge)
                .and_then(|challenge| challenge.checked(&self.endpoint.base))
                .map_err(|found| self.not_a_registry(found))?;
            let token = self.token(&challenge).await?;
            let header = HeaderValue::try_from(format!("Bearer {token}"));
            let mut header =
                header.map_err(|_| self.not_a_registry("a token with odd characters".into()))?;
            header.set_sensitive(true);
            self.authorization = Some(Authorization::Bearer { token, header });
            return Ok(());
        }
        if offers("Basic").is_some()
            && had.is_none()
            && matches!(self.login, Some(Login::Basic { .. }))
        {
            self.authorization = Some(Authorization::Basic);
            return Ok(());
        }
        let error = transport::failure(&self.endpoint.host, refused).await;
        Err(self.complete(error, ""))
    }

    /// A token given to us from outside is all there is; one that was fetched may have expired.
    fn may_ask_again(&self, had: Option<&Authorization>) -> bool {
        had.is_none() || !matches!(self.login, Some(Login::Bearer { .. }))
    }

    /// Asks the realm for a token.
    async fn token(&self, challenge: &Challenge) -> Result<String, RegistryError> {
        if let Some(Login::Bearer { token }) = &self.login {
            return Ok(token.to_string());
        }
        let realm = &challenge.realm;
        let host = realm.host_str().unwrap_or_default();
        let actions = match self.action {
            Action::Pull => "pull",
            Action::Push => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.repository);
        let mut url = realm.clone();
        let mut form =
            Url::parse("form:").map_err(|error| self.not_a_registry(error.to_string()))?;
        let method = match &self.login {
            Some(Login::Identity { token, .. }) => {
                form.query_pairs_mut()
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", "graphlet")
                    .append_pair("service", challenge.service.as_deref().unwrap_or_default())
                    .append_pair("scope", &scope)
                    .append_pair("refresh_token", token);
                Method::POST
            }
            _ => {
                let mut query = url.query_pairs_mut();
                if let Some(service) = &challenge.service {
                    query.append_pair("service", service);
                }
                query.append_pair("scope", &scope);
                Method::GET
            }
        };
        let request = |client: &Client| {
            let mut request = client.request(method.clone(), url.clone());
            if let Some(form) = form.query().filter(|_| method == Method::POST) {
                request = request
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.to_owned());
            }
            match &self.login {
                Some(login @ Login::Basic { .. }) => basic(request, login),
                _ => request,
            }
        };
        let response = self.transport.send(host, request).await?;
        if !response.status().is_success() {
            let error = transport::failure(host, response).await;
            return Err(self.complete(error, "token"));
        }
        let body = transport::read(&self.transport, host, response, "token", TOKEN_BYTES).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| {
            let found = "no JSON where a token is expected".into();
            RegistryError::NotARegistry { host: host.to_owned(), found }
        })?;
        answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or_else(|| {
            let found = "an answer without a token".into();
            RegistryError::NotARegistry { host: host.to_owned(), found }
        })
    }
}

fn basic(request: RequestBuilder, login: &Login) -> RequestBuilder {
    match login {
        Login::Basic { user, password } => request.basic_auth(user, Some(password.as_str())),
        _ => request,
    }
}

/// Who gives tokens, as a registry says.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    realm: Url,
    service: Option<String>,
}

impl Challenge {
    fn of(challenge: &ChallengeRef<'_>) -> Result<Self, String> {
        let param = |name: &str| {
            let mut params = challenge.params.iter();
            let found = params.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = param("realm").ok_or("a challenge without a realm")?;
        let realm = realm.parse().map_err(|_| "a token realm that is no URL")?;
        Ok(Challenge { realm, service: param("service") })
    }

    /// Whether we may talk to that realm: it gets our credentials, and what it answers goes back
    /// to the registry. Neither may be lured off TLS, nor into this machine.
    fn checked(self, registry: &Url) -> Result<Self, String> {
        let reason = if !matches!(self.realm.scheme(), "http" | "https") {
            "a token realm that is no web address"
        } else if registry.scheme() == "https" && self.realm.scheme() != "https" {
            "a token realm without TLS"
        } else if !is_inside(registry) && is_inside(&self.realm) {
            "a token realm on this machine itself"
        } else {
            return Ok(self);
        };
        Err(reason.into())
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// What a manifest may be written as.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// Tokens are a few kilobytes.
const TOKEN_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(line: &str) -> Result<Challenge, String> {
        Challenge::of(&http_auth::parse_challenges(line).unwrap()[0])
    }

    #[test]
    fn a_realm_may_not_lure_us_off_tls_or_into_this_machine() {
        for (registry, realm, allowed) in [
            ("https://r.example/", "https://auth.example/token", true),
            ("https://r.example/", "http://auth.example/token", false),
            ("https://r.example/", "https://127.0.0.1/token", false),
            ("http://r.example/", "http://169.254.169.254/token", false),
            ("http://r.example/", "http://auth.example/token", true),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:5001/token", true),
            ("https://r.example/", "file:///etc/passwd", false),
        ] {
            let line = format!("Bearer realm=\"{realm}\",service=\"s\"");
            let checked = challenge(&line).unwrap().checked(&registry.parse().unwrap());
            assert_eq!(checked.is_ok(), allowed, "{registry} {realm}");
        }
        assert!(challenge("Bearer service=\"s\"").is_err());
        assert!(challenge("Bearer realm=\"/relative\"").is_err());
    }

    #[test]
    fn addresses_follow_the_host_and_the_options() {
        let mut options = crate::RegistryOptions::default();
        options.plain_http.insert("plain.example:5000".into());
        let transport = Transport::new(options);
        for (host, expected) in [
            ("docker.io", "https://registry-1.docker.io/v2/a/b"),
            ("r.example:8443", "https://r.example:8443/v2/a/b"),
            ("localhost:5000", "http://localhost:5000/v2/a/b"),
            ("plain.example:5000", "http://plain.example:5000/v2/a/b"),
            ("plain.example", "https://plain.example/v2/a/b"),
        ] {
            let endpoint = Endpoint::registry(&transport, host).unwrap();
            assert_eq!(endpoint.url("a/b").as_str(), expected);
        }
        let mirror = "docker.io=http://10.0.0.1:5000/hub".parse().unwrap();
        let endpoint = Endpoint::mirror(&mirror);
        assert_eq!(endpoint.host, "10.0.0.1:5000");
        assert_eq!(endpoint.url("a").as_str(), "http://10.0.0.1:5000/hub/v2/a?ns=docker.io");
        assert!(Endpoint::registry(&transport, "r.example:99999").is_err());
    }
}
