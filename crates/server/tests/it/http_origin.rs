//! Who a request comes from: the socket, or what a trusted proxy says.

use wharf::http::TrustedProxies;

use super::http_support::Toybox;

fn who(headers: &str) -> String {
    format!("GET /who HTTP/1.1\r\nHost: inner:5000\r\n{headers}\r\n\r\n")
}

const TOLD: &str = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
                    X-Forwarded-Host: reg.example\r\nX-Request-Id: from-proxy-1";

/// Spec: UP-2.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_believed() {
    let toybox = Toybox::with(|options| {
        options.trusted_proxies = TrustedProxies::parse(&["127.0.0.0/8"]).unwrap();
    });
    let answer = toybox.client(|mut raw| raw.send(who(TOLD)).answer()).await;
    assert_eq!(
        answer.text(),
        "addr=203.0.113.9 unix=false secure=true proxied=true scheme=https host=reg.example \
         id=from-proxy-1 version=HTTP/1.1"
    );
    assert_eq!(answer.header("x-request-id"), Some("from-proxy-1"));
    assert!(answer.header("strict-transport-security").is_some());
    let plain = toybox
        .client(|mut raw| raw.send(who("X-Request-Id: a b")).answer())
        .await;
    assert!(
        plain
            .text()
            .starts_with("addr=127.0.0.1 unix=false secure=false")
    );
    assert_ne!(plain.header("x-request-id"), Some("a b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_else_is_not() {
    let toybox = Toybox::start();
    let answer = toybox.client(|mut raw| raw.send(who(TOLD)).answer()).await;
    let text = answer.text();
    assert!(
        text.starts_with(
            "addr=127.0.0.1 unix=false secure=false proxied=false scheme=http host=inner:5000 id="
        ),
        "{text}"
    );
    assert!(!text.contains("from-proxy"), "{text}");
    assert_eq!(answer.header("strict-transport-security"), None);
}
