//! Who reads a blob from the object store itself: the rule of `[storage.redirect]`.

use std::time::Duration;

use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue, LOCATION};
use wharf_core::blob::Found;
use wharf_oci::RepositoryName;

use super::{Call, reply};
use crate::http::{Peer, Response, TrustedProxies};

/// When a client is sent to the object store.
#[derive(Clone, Debug, Default)]
pub struct RedirectRule {
    /// Least size of a blob; `None`: never.
    pub from: Option<u64>,
    /// How long the URL is valid.
    pub lifetime: Duration,
    /// Where clients must be; `None`: anywhere.
    pub allowed: Option<TrustedProxies>,
    /// Where they must not be.
    pub denied: Option<TrustedProxies>,
    /// Prefixes of repositories; empty: all.
    pub repositories: Vec<String>,
}

impl RedirectRule {
    /// Whether this client is sent away for a blob of `size` bytes of this repository. Of one whose address is not known nobody
    /// can say that it is not in a denied network: it gets the bytes here, which works from anywhere.
    pub fn applies(&self, repository: &RepositoryName, size: u64, peer: &Peer) -> bool {
        let ip = peer.addr.map(|addr| addr.ip().to_canonical());
        let within = |networks: &TrustedProxies| networks.trusts(ip);
        let named = self.allowed.as_ref().is_some_and(within);
        let denied = |networks: &TrustedProxies| within(networks) || (ip.is_none() && !named);
        self.from.is_some_and(|least| size >= least)
            && (self.allowed.is_none() || named)
            && !self.denied.as_ref().is_some_and(denied)
            && (self.repositories.is_empty()
                || self
                    .repositories
                    .iter()
                    .any(|prefix| repository.is_within(prefix)))
    }
}

/// The answer that sends the client away, if it is to go and the store can give it a URL.
///
/// The URL is a credential for this blob: no cache may keep it, and no log line has it.
pub(super) async fn answer(
    call: &Call<'_>,
    repository: &RepositoryName,
    found: &Found,
    peer: &Peer,
) -> Option<Response> {
    let key = found.key.as_ref()?;
    if !call.redirect.applies(repository, found.content.len(), peer) {
        return None;
    }
    let lifetime = call.redirect.lifetime;
    let url = match call.registry.blobs.signed_url(key, lifetime).await {
        Ok(url) => url?,
        Err(error) => {
            tracing::warn!(%error, "a blob is sent through this server, since no URL could be signed for it");
            return None;
        }
    };
    let location = HeaderValue::from_str(url.expose()).ok()?;
    let mut response = reply::empty(StatusCode::TEMPORARY_REDIRECT);
    reply::name_digest(&mut response, &found.digest);
    let headers = response.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ip: &str) -> Peer {
        Peer {
            addr: Some((ip.parse::<std::net::IpAddr>().unwrap(), 1).into()),
            unix: false,
            secure: false,
            proxied: false,
        }
    }

    #[test]
    fn size_network_and_repository_must_all_fit() {
        let name = |text| RepositoryName::parse(text).unwrap();
        let rule = RedirectRule {
            from: Some(100),
            allowed: TrustedProxies::parse(&["10.0.0.0/8"]).ok(),
            denied: TrustedProxies::parse(&["10.1.0.0/16"]).ok(),
            repositories: vec!["team".into()],
            ..RedirectRule::default()
        };
        assert!(rule.applies(&name("team/app"), 100, &peer("10.0.0.1")));
        assert!(rule.applies(&name("team/app"), 100, &peer("::ffff:10.0.0.1")));
        assert!(!rule.applies(&name("team/app"), 99, &peer("10.0.0.1")));
        assert!(!rule.applies(&name("teams/app"), 100, &peer("10.0.0.1")));
        assert!(!rule.applies(&name("team/app"), 100, &peer("10.1.0.1")));
        assert!(!rule.applies(&name("team/app"), 100, &peer("11.0.0.1")));
        // On a Unix socket, where nobody forwarded an address.
        let unknown = Peer {
            addr: None,
            unix: true,
            ..peer("10.0.0.1")
        };
        let list = |entries: &[&str]| TrustedProxies::parse(entries).ok();
        for (allowed, denied, redirected) in [
            (None, None, true),
            (list(&["10.0.0.0/8"]), None, false),
            (list(&["10.0.0.0/8", "unix"]), None, true),
            (None, list(&["10.0.0.0/8"]), false),
            (list(&["unix"]), list(&["10.0.0.0/8"]), true),
            (list(&["unix"]), list(&["unix"]), false),
        ] {
            let rule = RedirectRule {
                from: Some(0),
                allowed,
                denied,
                ..RedirectRule::default()
            };
            let applies = rule.applies(&name("team/app"), 1, &unknown);
            assert_eq!(applies, redirected, "{rule:?}");
        }
        let never = RedirectRule::default();
        assert!(!never.applies(&name("team/app"), u64::MAX, &peer("10.0.0.1")));
    }
}
