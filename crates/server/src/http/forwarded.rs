//! Whom to believe about where a request came from.
//!
//! `X-Forwarded-*` and `Forwarded` are read only when the connection comes from `server.trusted_proxies`; anybody could
//! write them otherwise. Nothing else in Wharf reads these headers.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;
use http::uri::Authority;
use wharf_core::access::{Network, NetworkError};

use super::request::Scheme;

/// The proxies whose word counts: networks, and `unix` for everything on Unix sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<Network>,
    unix: bool,
}

impl TrustedProxies {
    /// Reads the entries of `server.trusted_proxies`.
    pub fn parse<T: AsRef<str>>(entries: &[T]) -> Result<Self, NetworkError> {
        let mut proxies = Self::default();
        for entry in entries {
            match entry.as_ref().trim() {
                "unix" => proxies.unix = true,
                text => proxies.networks.push(text.parse()?),
            }
        }
        Ok(proxies)
    }

    /// Whether a connection from there may speak for others. `None`: a Unix socket.
    pub fn trusts(&self, ip: Option<IpAddr>) -> bool {
        match ip {
            Some(ip) => self.networks.iter().any(|network| network.contains(ip)),
            None => self.unix,
        }
    }
}

/// What a trusted proxy said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) client: Option<IpAddr>,
    pub(super) scheme: Option<Scheme>,
    pub(super) host: Option<String>,
}

/// Whether there is anything to believe or not.
pub(super) fn present(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED)
        || ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"]
            .iter()
            .any(|name| headers.contains_key(*name))
}

/// Reads the headers of a connection that is trusted.
///
/// `X-Forwarded-*` wins over `Forwarded`: proxies that write the old headers pass the new one through unread, so it may
/// be the client's own. The client is the last address in the chain that is not itself a trusted proxy; scheme and host
/// are the first of their lists (UP-2).
pub(super) fn read(headers: &HeaderMap, proxies: &TrustedProxies) -> Said {
    let listed = |name: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|item| !item.is_empty())
    };
    let mut chain: Vec<&str> = listed("x-forwarded-for").collect();
    let mut scheme = listed("x-forwarded-proto").next();
    let mut host = listed("x-forwarded-host").next();
    if chain.is_empty() && scheme.is_none() && host.is_none() {
        let elements = listed(FORWARDED.as_str());
        for pair in elements.flat_map(|element| element.split(';')) {
            let Some((key, value)) = pair.split_once('=') else {
                continue;
            };
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "for" => chain.push(value),
                "proto" => scheme = scheme.or(Some(value)),
                "host" => host = host.or(Some(value)),
                _ => {}
            }
        }
    }
    let client = chain
        .iter()
        .rev()
        .map_while(|text| address(text))
        .fold((None, true), |(found, trusted), ip| {
            if trusted {
                (Some(ip), proxies.trusts(Some(ip)))
            } else {
                (found, false)
            }
        })
        .0;
    Said {
        client,
        scheme: scheme.and_then(|text| match text.to_ascii_lowercase().as_str() {
            "https" => Some(Scheme::Https),
            "http" => Some(Scheme::Http),
            _ => None,
        }),
        host: host.filter(|host| is_authority(host)).map(str::to_owned),
    }
}

/// An address with or without port and brackets. Names that hide one (`unknown`, `_secret`) are none.
fn address(text: &str) -> Option<IpAddr> {
    let ip = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|addr| addr.ip()))
        .or_else(|_| text.trim_matches(['[', ']']).parse())
        .ok()?;
    Some(ip.to_canonical())
}

/// Whether a text may stand as host and port in a URL: it will come back in links and realms.
pub(super) fn is_authority(text: &str) -> bool {
    let of = |more: &[u8]| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    if text.is_empty() || text.len() > 255 {
        return false;
    }
    let colons = text.bytes().filter(|byte| *byte == b':').count();
    // An address in brackets is rare enough to be read in full.
    (of(b"-._:") && colons <= 1) || (of(b"-._:[]") && Authority::try_from(text).is_ok())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn proxies(entries: &[&str]) -> TrustedProxies {
        TrustedProxies::parse(entries).unwrap()
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    proptest! {
        /// hyper would refuse such a target without a word.
        #[test]
        fn a_url_can_be_made_with_every_authority(text in "[a1.:\\[\\]_-]{0,12}") {
            if is_authority(&text) {
                let url = format!("http://{text}/x");
                prop_assert!(url.parse::<http::Uri>().is_ok(), "{url}");
            }
        }
    }

    #[test]
    fn networks_hold_addresses_of_both_kinds() {
        let trusted = proxies(&["10.0.0.0/8", "fd00::/8", "192.0.2.7"]);
        for ip in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "192.0.2.7"] {
            assert!(trusted.trusts(Some(ip.parse().unwrap())), "{ip}");
        }
        for ip in ["11.0.0.1", "fe80::1", "192.0.2.8", "::1"] {
            assert!(!trusted.trusts(Some(ip.parse().unwrap())), "{ip}");
        }
        assert!(!trusted.trusts(None));
        assert!(proxies(&["unix"]).trusts(None));
        assert!(proxies(&["0.0.0.0/0"]).trusts(Some("8.8.8.8".parse().unwrap())));
        assert!(!proxies(&["0.0.0.0/0"]).trusts(Some("2001:db8::1".parse().unwrap())));
        for bad in ["", "10.0.0.0/33", "fd00::/129", "proxy", "10.0.0.0/x"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_proxy() {
        let trusted = proxies(&["10.0.0.0/8"]);
        let said = read(
            &headers(&[
                ("x-forwarded-for", "6.6.6.6, 203.0.113.9"),
                ("x-forwarded-for", "10.0.0.2"),
            ]),
            &trusted,
        );
        assert_eq!(said.client, Some("203.0.113.9".parse().unwrap()));
        // Beyond something unreadable nothing is known.
        let said = read(
            &headers(&[("x-forwarded-for", "1.1.1.1, junk, 10.0.0.2")]),
            &trusted,
        );
        assert_eq!(said.client, Some("10.0.0.2".parse().unwrap()));
        let said = read(&headers(&[("x-forwarded-for", "unknown")]), &trusted);
        assert_eq!(said.client, None);
    }

    /// Spec: UP-2.
    #[test]
    fn scheme_and_host_are_the_first_of_their_lists() {
        let trusted = proxies(&["10.0.0.0/8"]);
        let said = read(
            &headers(&[
                ("x-forwarded-proto", "https, http"),
                ("x-forwarded-host", "reg.example:8443, inner"),
                ("forwarded", "for=6.6.6.6;proto=http;host=evil"),
            ]),
            &trusted,
        );
        assert_eq!(said.scheme, Some(Scheme::Https));
        assert_eq!(said.host.as_deref(), Some("reg.example:8443"));
        assert_eq!(said.client, None);
        let said = read(
            &headers(&[(
                "forwarded",
                "For=\"[2001:db8::17]:4711\";Proto=https;Host=reg.example, for=10.0.0.9",
            )]),
            &trusted,
        );
        assert_eq!(said.client, Some("2001:db8::17".parse().unwrap()));
        assert_eq!(said.scheme, Some(Scheme::Https));
        assert_eq!(said.host.as_deref(), Some("reg.example"));
    }

    #[test]
    fn hosts_cannot_carry_more_than_a_host() {
        for bad in ["a/b", "a\"b", "user@a", "a b", ""] {
            assert!(!is_authority(bad), "{bad}");
        }
        let trusted = proxies(&[]);
        assert_eq!(
            read(&headers(&[("x-forwarded-host", "a/b?c")]), &trusted).host,
            None
        );
    }

    proptest! {
        #[test]
        fn reading_never_panics(value in "[ -~]{0,60}") {
            let mut map = HeaderMap::new();
            for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"] {
                map.insert(name, HeaderValue::from_str(&value).unwrap());
                read(&map, &TrustedProxies::default());
            }
            map.clear();
            map.insert("forwarded", HeaderValue::from_str(&value).unwrap());
            read(&map, &TrustedProxies::default());
        }
    }
}
