//! What an actor may reach: capabilities that its claims name and that are linked to it, and
//! nothing else.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tracing::{debug, error, info, trace, warn};

use crate::{
    limits,
    provider::{ActorHandle, ActorIdentity, BoxFuture, CapabilityProvider, Link, ProviderError},
};

type Links = BTreeMap<(String, String), Arc<dyn CapabilityProvider>>;

/// The capabilities of one actor.
pub(crate) struct Capabilities {
    claimed: Vec<String>,
    // By capability and binding.
    links: RwLock<Links>,
}

/// Why a host call was not carried out. The guest sees the text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("`{capability}` is not among the claims of this actor")]
    NotClaimed { capability: String },
    #[error("`{capability}` is not linked to this actor under the binding `{binding}`")]
    NotLinked { capability: String, binding: String },
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

impl Capabilities {
    /// Capabilities that the claims name; logging, if it is among them, is linked from the start,
    /// as it needs no values and gives nothing away.
    pub(crate) fn new(claimed: Vec<String>) -> Self {
        let mut links = Links::new();
        if claimed.iter().any(|name| name == wire::CAPABILITY_LOGGING) {
            let key = (wire::CAPABILITY_LOGGING.into(), wire::DEFAULT_BINDING.into());
            links.insert(key, Arc::new(Logging));
        }
        Self { claimed, links: RwLock::new(links) }
    }

    pub(crate) fn claims(&self, capability: &str) -> bool {
        self.claimed.iter().any(|name| name == capability)
    }

    /// Adds a link; `false` when there is one of this capability and binding.
    pub(crate) fn link(&self, link: &Link, provider: Arc<dyn CapabilityProvider>) -> bool {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        let key = (link.capability.clone(), link.binding.clone());
        if links.contains_key(&key) {
            return false;
        }
        links.insert(key, provider);
        true
    }

    pub(crate) fn unlink(&self, link: &Link) {
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links.remove(&(link.capability.clone(), link.binding.clone()));
    }

    /// Carries a guest's message to a provider.
    pub(crate) fn call(
        &self,
        actor: &ActorIdentity,
        binding: &str,
        capability: &str,
        operation: &str,
        payload: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        if !self.claims(capability) {
            return Err(Refusal::NotClaimed { capability: capability.into() });
        }
        let provider = {
            let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
            links.get(&(capability.into(), binding.into())).cloned()
        };
        let Some(provider) = provider else {
            let (capability, binding) = (capability.into(), binding.into());
            return Err(Refusal::NotLinked { capability, binding });
        };
        Ok(provider.handle(actor, operation, payload)?)
    }
}

/// The capability `wascc:logging`: an actor's `log` lines become events of this process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Logging;

impl CapabilityProvider for Logging {
    fn capability(&self) -> &'static str {
        wire::CAPABILITY_LOGGING
    }

    fn link<'a>(
        &'a self,
        _actor: ActorHandle,
        _link: &'a Link,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(async { Ok(()) })
    }

    fn handle(
        &self,
        actor: &ActorIdentity,
        operation: &str,
        message: &[u8],
    ) -> Result<Vec<u8>, ProviderError> {
        if operation != wire::OP_LOG {
            return Err(ProviderError::UnknownOperation(operation.into()));
        }
        let line: wire::WriteLog = wire::decode(message).map_err(|error| {
            let reason = error.to_string();
            ProviderError::Value { key: "message".into(), reason }
        })?;
        let text = cut(&line.body, limits::LOG_LINE_BYTES);
        // Quoted by `?`: a guest's line break or escape sequence stays its own.
        match line.level {
            0 => {}
            1 => error!(actor.name = %actor.name, text = ?text, "Actor logs"),
            2 => warn!(actor.name = %actor.name, text = ?text, "Actor logs"),
            3 => info!(actor.name = %actor.name, text = ?text, "Actor logs"),
            4 => debug!(actor.name = %actor.name, text = ?text, "Actor logs"),
            _ => trace!(actor.name = %actor.name, text = ?text, "Actor logs"),
        }
        Ok(Vec::new())
    }

    fn stop(&self, _grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// At most `bytes` bytes of the text, cut between characters.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> ActorIdentity {
        ActorIdentity {
            name: "test".into(),
            subject: "M".into(),
            issuer: None,
            digest: "sha256:0".into(),
            model: "m".into(),
            version: "1".into(),
        }
    }

    fn write_log(capabilities: &Capabilities, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (logging, binding) = (wire::CAPABILITY_LOGGING, wire::DEFAULT_BINDING);
        capabilities.call(&identity(), binding, logging, wire::OP_LOG, payload)
    }

    #[test]
    fn logging_works_for_who_claims_it_and_for_nobody_else() {
        let line = wire::WriteLog { level: 3, body: "hello".into() };
        let line = wire::encode(&line).unwrap();
        let claiming = Capabilities::new(vec![wire::CAPABILITY_LOGGING.into()]);
        assert_eq!(write_log(&claiming, &line).unwrap(), b"");
        let refusal = write_log(&Capabilities::new(Vec::new()), &line).unwrap_err();
        assert!(matches!(refusal, Refusal::NotClaimed { .. }), "{refusal}");
    }

    #[test]
    fn a_claimed_capability_without_a_link_is_refused() {
        let capabilities = Capabilities::new(vec![wire::CAPABILITY_HTTP_SERVER.into()]);
        let call = |binding| {
            capabilities.call(&identity(), binding, wire::CAPABILITY_HTTP_SERVER, "Get", b"")
        };
        assert!(matches!(call("default"), Err(Refusal::NotLinked { .. })));
        let logging = Capabilities::new(vec![wire::CAPABILITY_LOGGING.into()]);
        let other = logging.call(&identity(), "other", wire::CAPABILITY_LOGGING, wire::OP_LOG, b"");
        assert!(matches!(other, Err(Refusal::NotLinked { .. })));
    }

    #[test]
    fn a_malformed_line_is_an_error_and_no_panic() {
        let capabilities = Capabilities::new(vec![wire::CAPABILITY_LOGGING.into()]);
        for payload in [&b""[..], b"\xc1", b"\xdf\xff\xff\xff\xff", b"\x81\xa5level\x03"] {
            let result = write_log(&capabilities, payload);
            assert!(matches!(result, Err(Refusal::Provider(_))), "{payload:x?}");
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("h\u{e9}llo", 2), "h");
        assert_eq!(cut("hello", 9), "hello");
    }
}
