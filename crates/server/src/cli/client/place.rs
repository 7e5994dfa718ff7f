//! Where a registry is, as people name it.

/// Where a URL leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// For the `Host` header.
    pub(super) authority: String,
}

/// Reads a registry as people name it. Without a scheme it is HTTPS, but for this machine, as docker has it.
pub(super) fn place(text: &str) -> Result<Place, String> {
    let bad = |why: &str| {
        format!("{text:?} is no registry: {why}; write it like registry.example.com:5000")
    };
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let uri: http::Uri = format!("http://{authority}/")
        .parse()
        .map_err(|_| bad("it is no host"))?;
    let parsed = uri
        .authority()
        .filter(|parsed| parsed.as_str() == authority);
    let parsed = parsed.ok_or_else(|| bad("leave out what stands behind the host"))?;
    if authority.contains('@') {
        return Err(bad("the user is named with --username"));
    }
    let host = parsed.host().trim_matches(['[', ']']).to_owned();
    let here = host == "localhost" || host == "::1" || host.starts_with("127.");
    let tls = match scheme {
        Some("https") => true,
        Some("http") => false,
        None => !here,
        Some(_) => return Err(bad("the scheme is https or http")),
    };
    let rest = &authority[parsed.host().len()..];
    let port = match rest.strip_prefix(':') {
        Some(port) => port
            .parse()
            .map_err(|_| bad("the port is no number up to 65535"))?,
        None if tls => 443,
        None => 80,
    };
    if host.is_empty() {
        return Err(bad("there is no host in it"));
    }
    Ok(Place {
        tls,
        host,
        port,
        authority: authority.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_read_as_people_name_them() {
        let read = |text: &str| {
            let place = place(text).unwrap();
            (place.tls, place.host, place.port)
        };
        assert_eq!(read("reg.example"), (true, "reg.example".into(), 443));
        assert_eq!(read("reg.example:5000"), (true, "reg.example".into(), 5000));
        assert_eq!(
            read("https://reg.example/"),
            (true, "reg.example".into(), 443)
        );
        assert_eq!(
            read("http://reg.example"),
            (false, "reg.example".into(), 80)
        );
        assert_eq!(read("localhost:5000"), (false, "localhost".into(), 5000));
        assert_eq!(read("127.0.0.1:1"), (false, "127.0.0.1".into(), 1));
        assert_eq!(read("https://[::1]:5"), (true, "::1".into(), 5));
        for wrong in [
            "", "ftp://x", "x/y", "a b", "u:p@x", "x:99999", "http://", "x?y",
        ] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
