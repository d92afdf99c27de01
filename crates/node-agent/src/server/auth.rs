//! Who asks, and whether they may: a client certificate of the cluster or a token that the API
//! server knows, then a SubjectAccessReview, both remembered for a short while.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::api::PostParams;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::request::Refusal;
use crate::identity::{Api, Leaf};

/// How long a yes holds: a right taken away is gone within that time.
const REMEMBER_YES: Duration = Duration::from_secs(60);
/// How long a no holds: a right given is there soon.
const REMEMBER_NO: Duration = Duration::from_secs(5);
/// Answers remembered at most; beyond it the old ones go.
const REMEMBERED: usize = 1024;
/// One call to the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than any token that Kubernetes issues.
const TOKEN_BYTES: usize = 16 * 1024;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The user that a certificate names, which the TLS handshake has verified.
    pub(super) fn of_certificate(leaf: &Leaf, now: SystemTime) -> Option<Self> {
        // The handshake may be long ago.
        if leaf.expired(now) || leaf.common_name.is_empty() {
            return None;
        }
        let mut groups = leaf.organizations.clone();
        groups.push("system:authenticated".into());
        Some(User { name: leaf.common_name.clone(), groups, ..User::default() })
    }
}

/// The API server could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReviewError {
    #[error("the API server refuses to review")]
    Refused(#[source] Box<kube::Error>),
    #[error("the API server does not answer")]
    NoAnswer,
}

/// Who decides.
pub(super) trait Reviewer: Send + Sync + 'static {
    /// Whose token it is; `None` for nobody's.
    fn token(&self, token: &str) -> impl Future<Output = Result<Option<User>, ReviewError>> + Send;

    /// Whether the user may do that with the node's subresource.
    fn allowed(
        &self,
        user: &User,
        verb: &str,
        subresource: &str,
    ) -> impl Future<Output = Result<bool, ReviewError>> + Send;
}

impl Reviewer for Api {
    async fn token(&self, token: &str) -> Result<Option<User>, ReviewError> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let answer = create(self, &review).await?;
        let Some(status) = answer.status.filter(|status| status.authenticated == Some(true)) else {
            return Ok(None);
        };
        let Some(user) = status.user else { return Ok(None) };
        Ok(Some(User {
            name: user.username.unwrap_or_default(),
            uid: user.uid,
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        }))
    }

    async fn allowed(
        &self,
        user: &User,
        verb: &str,
        subresource: &str,
    ) -> Result<bool, ReviewError> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: user.uid.clone(),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.node_name().to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        Ok(create(self, &review).await?.status.is_some_and(|status| status.allowed))
    }
}

async fn create<K>(api: &Api, review: &K) -> Result<K, ReviewError>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let reviews = kube::Api::<K>::all(api.client());
    match timeout(CALL_TIMEOUT, reviews.create(&PostParams::default(), review)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ReviewError::Refused(Box::new(error))),
        Err(_) => Err(ReviewError::NoAnswer),
    }
}

/// Answers with the time until which they hold.
struct Memory<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: Hash + Eq, V: Clone> Memory<K, V> {
    fn new() -> Self {
        Memory(Mutex::new(HashMap::new()))
    }

    fn get(&self, key: &K) -> Option<V> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V, lifetime: Duration) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= REMEMBERED {
            let now = Instant::now();
            held.retain(|_, (until, _)| now < *until);
            if held.len() >= REMEMBERED {
                held.clear();
            }
        }
        held.insert(key, (Instant::now() + lifetime, value));
    }
}

/// Authentication and authorisation of every request.
pub(super) struct Gate<R> {
    reviewer: R,
    /// By a token's hash: the tokens themselves are not kept.
    tokens: Memory<[u8; 32], Option<User>>,
    rights: Memory<(User, &'static str, &'static str), bool>,
}

impl<R: Reviewer> Gate<R> {
    pub(super) fn new(reviewer: R) -> Self {
        Gate { reviewer, tokens: Memory::new(), rights: Memory::new() }
    }

    /// Who asks, by certificate or token.
    pub(super) async fn authenticate(
        &self,
        certificate: Option<&Leaf>,
        headers: &HeaderMap,
    ) -> Result<User, Refusal> {
        let unauthorized = || Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized");
        if let Some(user) =
            certificate.and_then(|leaf| User::of_certificate(leaf, SystemTime::now()))
        {
            return Ok(user);
        }
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| !token.is_empty() && token.len() <= TOKEN_BYTES)
            .ok_or_else(unauthorized)?;
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.tokens.get(&key) {
            return known.ok_or_else(unauthorized);
        }
        let user = self.reviewer.token(token).await.map_err(unavailable)?;
        let lifetime = if user.is_some() { REMEMBER_YES } else { REMEMBER_NO };
        self.tokens.put(key, user.clone(), lifetime);
        user.ok_or_else(unauthorized)
    }

    /// Whether the user has one of these rights.
    pub(super) async fn authorize(
        &self,
        user: &User,
        verb: &'static str,
        subresources: &'static [&'static str],
    ) -> Result<(), Refusal> {
        for subresource in subresources.iter().copied() {
            let key = (user.clone(), verb, subresource);
            let allowed = match self.rights.get(&key) {
                Some(known) => known,
                None => {
                    let allowed = self
                        .reviewer
                        .allowed(user, verb, subresource)
                        .await
                        .map_err(unavailable)?;
                    let lifetime = if allowed { REMEMBER_YES } else { REMEMBER_NO };
                    self.rights.put(key, allowed, lifetime);
                    allowed
                }
            };
            if allowed {
                return Ok(());
            }
        }
        let wanted = subresources.first().copied().unwrap_or("proxy");
        debug!(user = user.name, verb, subresource = wanted, "Request forbidden");
        Err(Refusal::new(
            StatusCode::FORBIDDEN,
            format!(
                "Forbidden (user={}, verb={verb}, resource=nodes, subresource={wanted})",
                user.name
            ),
        ))
    }
}

fn unavailable(error: ReviewError) -> Refusal {
    warn!(error = &error as &dyn std::error::Error, "A request cannot be reviewed");
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "the API server cannot be asked who you are and what you may do",
    )
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Knows the token `good`, whose user may get metrics.
    #[derive(Default)]
    pub(in crate::server) struct FakeReviewer {
        pub(in crate::server) calls: AtomicUsize,
        pub(in crate::server) away: bool,
    }

    impl Reviewer for FakeReviewer {
        async fn token(&self, token: &str) -> Result<Option<User>, ReviewError> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if self.away {
                return Err(ReviewError::NoAnswer);
            }
            Ok((token == "good").then(|| User { name: "scraper".into(), ..User::default() }))
        }

        async fn allowed(
            &self,
            user: &User,
            verb: &str,
            subresource: &str,
        ) -> Result<bool, ReviewError> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if self.away {
                return Err(ReviewError::NoAnswer);
            }
            let scraper = user.name == "scraper" && verb == "get" && subresource == "metrics";
            Ok(scraper || user.groups.iter().any(|group| group == "admins"))
        }
    }

    fn bearer(token: &str) -> HeaderMap {
        let value = format!("Bearer {token}").parse().expect("a header");
        HeaderMap::from_iter([(AUTHORIZATION, value)])
    }

    fn leaf(name: &str, not_after: SystemTime) -> Leaf {
        let credential =
            crate::identity::Credential::self_signed(name, &[]).expect("a certificate");
        let mut leaf = credential.leaf().clone();
        leaf.not_after = not_after;
        leaf.organizations = vec!["admins".into()];
        leaf
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_reviewed_once_a_minute() {
        let gate = Gate::new(FakeReviewer::default());
        for _ in 0..3 {
            let user = gate.authenticate(None, &bearer("good")).await.expect("known");
            assert_eq!(user.name, "scraper");
        }
        assert_eq!(gate.reviewer.calls.load(Ordering::SeqCst), 1);
        tokio::time::advance(Duration::from_secs(61)).await;
        gate.authenticate(None, &bearer("good")).await.expect("known");
        assert_eq!(gate.reviewer.calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn without_or_with_a_wrong_token_it_is_401() {
        let gate = Gate::new(FakeReviewer::default());
        let basic =
            HeaderMap::from_iter([(AUTHORIZATION, "Basic eDp5".parse().expect("a header"))]);
        let long = "x".repeat(TOKEN_BYTES + 1);
        for headers in [HeaderMap::new(), basic, bearer("bad"), bearer(""), bearer(&long)] {
            let refusal = gate.authenticate(None, &headers).await.expect_err("refused");
            assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rights_are_asked_for_and_a_missing_one_is_403() {
        let gate = Gate::new(FakeReviewer::default());
        let user = User { name: "scraper".into(), ..User::default() };
        gate.authorize(&user, "get", &["metrics"]).await.expect("allowed");
        for (verb, subresources) in
            [("get", &["proxy"][..]), ("create", &["metrics"]), ("get", &["pods", "proxy"])]
        {
            let refusal = gate.authorize(&user, verb, subresources).await.expect_err("forbidden");
            assert_eq!(refusal.status, StatusCode::FORBIDDEN);
        }
        gate.authorize(&user, "get", &["pods", "metrics"]).await.expect("one of them suffices");
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_names_user_and_groups_until_it_runs_out() {
        let gate = Gate::new(FakeReviewer::default());
        let later = SystemTime::now() + Duration::from_secs(60);
        let good = leaf("apiserver", later);
        let user = gate.authenticate(Some(&good), &HeaderMap::new()).await.expect("known");
        assert_eq!(user.groups, ["admins", "system:authenticated"]);
        gate.authorize(&user, "get", &["proxy"]).await.expect("allowed");
        let old = leaf("apiserver", SystemTime::UNIX_EPOCH);
        let refusal = gate.authenticate(Some(&old), &HeaderMap::new()).await.expect_err("run out");
        assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
        assert!(
            gate.authenticate(Some(&old), &bearer("good")).await.is_ok(),
            "a token still counts"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_away_is_no_yes() {
        let gate = Gate::new(FakeReviewer { away: true, ..FakeReviewer::default() });
        let refusal = gate.authenticate(None, &bearer("good")).await.expect_err("refused");
        assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
        let refusal =
            gate.authorize(&User::default(), "get", &["metrics"]).await.expect_err("refused");
        assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_does_not_grow_for_ever() {
        let memory = Memory::new();
        for number in 0..REMEMBERED * 3 {
            memory.put(number, (), REMEMBER_YES);
        }
        assert!(memory.0.lock().expect("unpoisoned").len() <= REMEMBERED);
    }
}
