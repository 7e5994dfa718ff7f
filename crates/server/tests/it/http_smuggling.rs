//! Requests that two parsers could read in two ways, and other nonsense: each is refused, and what follows on the same
//! connection is not taken for a request.

use super::http_support::{Answer, Raw, Toybox};

/// What an attacker would like to be taken for a request of its own.
const SMUGGLED: &str = "GET /panic HTTP/1.1\r\nHost: toy\r\n\r\n";

async fn refused(toybox: &Toybox, bytes: String) -> Answer {
    let label = bytes.clone();
    toybox
        .client(move |mut raw| {
            raw.send(format!("{bytes}{SMUGGLED}"));
            let answer = raw.answer();
            let after = raw.try_answer(false);
            assert!(
                matches!(after, Ok(None)),
                "{label:?} was followed by {after:?}"
            );
            answer
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_are_refused_and_the_connection_closed() {
    let toybox = Toybox::start();
    let put = |headers: &str, body: &str| {
        format!("PUT /echo HTTP/1.1\r\nHost: toy\r\n{headers}\r\n\r\n{body}")
    };
    let te = "Transfer-Encoding: chunked";
    let forms = [
        put(&format!("Content-Length: 5\r\n{te}"), "0\r\n\r\n"),
        put(&format!("{te}\r\nContent-Length: 5"), "0\r\n\r\n"),
        put("Content-Length: 3\r\nContent-Length: 4", "abc"),
        put("Content-Length: 3\r\nContent-Length: 3", "abc"),
        put("Content-Length: 3, 3", "abc"),
        put("Content-Length: +3", "abc"),
        put("Content-Length: 3\n", "abc"),
        put("Content-Length : 3", "abc"),
        put("X: a\r\n Content-Length: 3", "abc"),
        put("X: a\rContent-Length: 3", "abc"),
        put("X: a\0b", ""),
        put("Transfer-Encoding:\u{b}chunked", "0\r\n\r\n"),
        put("Host: other", ""),
        "GET /small HTTP/1.1\nHost: toy\n\n".to_owned(),
        "GET /small HTTP/1.1\r\n\r\n".to_owned(),
        "GET /small\r\n\r\n".to_owned(),
        "CONNECT toy:443 HTTP/1.1\r\nHost: toy:443\r\n\r\n".to_owned(),
        "GET toy:443 HTTP/1.1\r\nHost: toy\r\n\r\n".to_owned(),
        "GET /a b HTTP/1.1\r\nHost: toy\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{0}\u{ff}".to_owned(),
    ];
    let count = forms.len();
    for form in forms {
        let label = form.clone();
        let answer = refused(&toybox, form).await;
        assert_eq!(answer.status, 400, "{label:?}");
        assert!(answer.is_oci_error(), "{label:?}: {}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"), "{label:?}");
    }
    assert_eq!(toybox.notes.malformed.lock().unwrap().len(), count);
    assert_eq!(
        toybox
            .notes
            .panics
            .load(std::sync::atomic::Ordering::SeqCst),
        0
    );
    for coding in [
        "gzip, chunked",
        "identity",
        "chunked\r\nTransfer-Encoding: identity",
    ] {
        let answer = refused(&toybox, put(&format!("Transfer-Encoding: {coding}"), "")).await;
        assert_eq!(answer.status, 501, "{coding}");
    }
    let answer = refused(&toybox, "GET / HTTP/3.0\r\nHost: toy\r\n\r\n".into()).await;
    assert_eq!(answer.status, 505);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_chunks_end_the_body_and_the_connection() {
    let toybox = Toybox::start();
    for chunks in [
        "x\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabcX\r\n",
        "3\r\nabc\r\n-1\r\n",
        "0\r\nA: b\n\r\n",
    ] {
        let head = "PUT /echo HTTP/1.1\r\nHost: toy\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = refused(&toybox, format!("{head}{chunks}")).await;
        assert_eq!(answer.status, 400, "{chunks:?}");
        assert!(answer.is_oci_error(), "{chunks:?}");
    }
    assert_eq!(
        toybox
            .notes
            .panics
            .load(std::sync::atomic::Ordering::SeqCst),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_looks_like_a_request_is_a_body() {
    let toybox = Toybox::start();
    toybox
        .client(|mut raw| {
            let len = SMUGGLED.len();
            raw.send(format!(
                "PUT /echo HTTP/1.1\r\nHost: toy\r\nContent-Length: {len}\r\n\r\n{SMUGGLED}"
            ));
            assert_eq!(raw.answer().text(), len.to_string());
            raw.send(format!(
                "PUT /echo HTTP/1.1\r\nHost: toy\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {len:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"
            ));
            assert_eq!(raw.answer().text(), len.to_string());
            assert_eq!(raw.get("/small").status, 200);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_before_the_refused_one_arrive() {
    let toybox = Toybox::start();
    toybox
        .client(|mut raw: Raw| {
            raw.send("GET /slow?50 HTTP/1.1\r\nHost: toy\r\n\r\nGET /small HTTP/1.1\r\nHost: toy\r\n\r\nGET / HTTP/1.1\nHost: toy\n\n");
            assert_eq!(raw.answer().text(), "late");
            assert_eq!(raw.answer().body.len(), 1024);
            assert_eq!(raw.answer().status, 400);
            assert!(raw.is_closed());
        })
        .await;
}

/// The absolute form is legal (RFC 9112 §3.2.2) as long as it names the same host.
#[tokio::test(flavor = "multi_thread")]
async fn absolute_targets_must_agree_with_the_host() {
    let toybox = Toybox::start();
    toybox
        .client(|mut raw| {
            let answer = raw
                .send("GET http://toy:80/small HTTP/1.1\r\nHost: toy:80\r\n\r\n")
                .answer();
            assert_eq!(answer.status, 200);
            let answer = raw
                .send("GET http://evil/small HTTP/1.1\r\nHost: toy\r\n\r\n")
                .answer();
            assert_eq!(answer.status, 400);
            assert!(answer.text().contains("two different hosts"));
            let answer = raw
                .send("GET /small HTTP/1.1\r\nHost: a/b\r\n\r\n")
                .answer();
            assert_eq!(answer.status, 400);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_expectations_fail() {
    let toybox = Toybox::start();
    let answer = toybox
        .client(|mut raw| {
            raw.send("GET /small HTTP/1.1\r\nHost: toy\r\nExpect: miracles\r\n\r\n")
                .answer()
        })
        .await;
    assert_eq!(answer.status, 417);
    assert!(answer.is_oci_error());
}

/// Spec: API-6.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_head_gets_no_content() {
    let toybox = Toybox::start();
    let forms = [
        "HEAD /small HTTP/1.1\r\nHost: toy\r\nHost: toy\r\n\r\n",
        "\r\nHEAD /a b HTTP/1.1\r\nHost: toy\r\n\r\n",
        "HEAD /small HTTP/1.1\r\nHost: toy\r\n\r\nHEAD /?x=\"y\" HTTP/1.1\r\nHost: toy\r\n\r\n",
    ];
    for form in forms {
        toybox
            .client(move |mut raw| {
                // In two pieces, so that the head is held back before it is refused.
                let (first, second) = form.split_at(form.len() - 3);
                raw.send(first);
                raw.send(second);
                let mut answer = raw.try_answer(true).unwrap().unwrap();
                if answer.status == 200 {
                    answer = raw.try_answer(true).unwrap().unwrap();
                }
                assert_eq!(answer.status, 400, "{form:?}");
                assert_eq!(answer.header("connection"), Some("close"), "{form:?}");
                let after = raw.try_answer(false);
                assert!(
                    matches!(after, Ok(None)),
                    "{form:?} was followed by {after:?}"
                );
            })
            .await;
    }
}
