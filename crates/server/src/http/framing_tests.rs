//! Tests of [`super::Framing`]: what passes, what does not, and that the cuts between reads do not matter.

use proptest::prelude::*;

use super::*;

const MAX: usize = 1024;

/// Everything at once: the bytes passed, and how it stopped.
fn scan(bytes: &[u8]) -> Result<usize, Stop> {
    Framing::new(MAX).scan(bytes)
}

fn refusal(head: &str) -> Refusal {
    match scan(head.as_bytes()) {
        Err(Stop::Head { pass: 0, refusal }) => refusal,
        other => panic!("{head:?} gave {other:?}"),
    }
}

/// As `io` does it: pieces arrive one after another, and what is held back comes again.
fn fed(bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<Stop>, u64) {
    let mut framing = Framing::new(MAX);
    let mut passed = Vec::new();
    let mut held: Vec<u8> = Vec::new();
    let mut from = 0;
    let ends = cuts.iter().map(|cut| cut % (bytes.len() + 1));
    let mut ends: Vec<usize> = ends.chain([bytes.len()]).collect();
    ends.sort_unstable();
    for end in ends {
        held.extend_from_slice(&bytes[from..end]);
        from = end;
        if held.is_empty() {
            continue;
        }
        match framing.scan(&held) {
            Ok(pass) => passed.extend(held.drain(..pass)),
            Err(Stop::Head { pass, refusal }) => {
                passed.extend(held.drain(..pass));
                return (
                    passed,
                    Some(Stop::Head { pass: 0, refusal }),
                    framing.heads(),
                );
            }
            Err(Stop::Body { pass }) => {
                passed.extend(held.drain(..pass));
                return (passed, Some(Stop::Body { pass: 0 }), framing.heads());
            }
        }
    }
    (passed, None, framing.heads())
}

#[test]
fn requests_pass_whole() {
    for request in [
        "GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost:a\r\n\r\n",
        "GET http://a/v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET HTTPS://[::1]:5000?x=[1|2] HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "PUT /x HTTP/1.1\r\nHost: a\r\ncontent-length:0\r\n\r\n",
        "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         0a;name=\"x\"\r\n0123456789\r\n0\r\nExpires: never\r\n\r\n",
    ] {
        let two = format!("{request}{request}");
        assert_eq!(scan(two.as_bytes()), Ok(two.len()), "{request:?}");
    }
}

#[test]
fn a_head_is_held_back_until_it_is_whole() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for cut in 1..request.len() {
        assert_eq!(scan(&request.as_bytes()[..cut]), Ok(0), "{cut}");
    }
    let body = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab";
    assert_eq!(scan(body.as_bytes()), Ok(body.len()));
}

#[test]
fn what_has_two_readings_is_refused() {
    let with = |headers: &str| format!("PUT / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
    let head = |headers: &str| refusal(&with(headers));
    let te = "Transfer-Encoding: chunked";
    assert_eq!(
        head(&format!("Content-Length: 3\r\n{te}")),
        Refusal::LengthAndChunks
    );
    assert_eq!(
        head(&format!("{te}\r\nContent-Length: 3")),
        Refusal::LengthAndChunks
    );
    assert_eq!(
        head("Content-Length: 3\r\nContent-Length: 4"),
        Refusal::Length
    );
    assert_eq!(
        head("Content-Length: 3\r\nContent-Length: 3"),
        Refusal::Length
    );
    for bad in ["3, 3", "+3", "-1", "0x3", "", "3 3", "99999999999999999999"] {
        assert_eq!(
            head(&format!("Content-Length: {bad}")),
            Refusal::Length,
            "{bad}"
        );
    }
    for bad in [
        "gzip, chunked",
        "identity",
        "chunked, chunked",
        "xchunked",
        "",
    ] {
        assert_eq!(
            head(&format!("Transfer-Encoding: {bad}")),
            Refusal::TransferCoding,
            "{bad}"
        );
    }
    assert_eq!(head(&format!("{te}\r\n{te}")), Refusal::TransferCoding);
    assert_eq!(
        refusal(&format!("PUT / HTTP/1.0\r\n{te}\r\n\r\n")),
        Refusal::TransferCoding
    );
    assert_eq!(head("A: b\r\n c"), Refusal::FoldedHeader);
    assert_eq!(head("A : b"), Refusal::HeaderName);
    assert_eq!(head(": b"), Refusal::HeaderName);
    assert_eq!(head("no colon"), Refusal::HeaderName);
    assert_eq!(head("A: b\rC: d"), Refusal::ControlCharacter);
    assert_eq!(head("A: b\0c"), Refusal::ControlCharacter);
    assert_eq!(head("Host: b"), Refusal::Host);
    assert_eq!(refusal("GET / HTTP/1.1\r\n\r\n"), Refusal::Host);
    assert_eq!(
        refusal("GET / HTTP/1.1\nHost: a\n\n"),
        Refusal::BareLineFeed
    );
    assert_eq!(
        refusal("GET / HTTP/1.1\r\nHost: a\nContent-Length: 3\r\n\r\n"),
        Refusal::BareLineFeed
    );
}

#[test]
fn request_lines_are_read_strictly() {
    let line = |line: &str| refusal(&format!("{line}\r\nHost: a\r\n\r\n"));
    assert_eq!(line("CONNECT a:443 HTTP/1.1"), Refusal::Connect);
    assert_eq!(line("GET a:443 HTTP/1.1"), Refusal::Target);
    assert_eq!(line("GET * HTTP/1.1"), Refusal::Target);
    assert_eq!(line("GET /\u{e9} HTTP/1.1"), Refusal::Target);
    for bad in [
        "/a#b",
        "/<x>",
        "/`x`",
        "/?x=\"y\"",
        "http:///x",
        "http://a]a/x",
        "http://a:1:2/x",
        "http://u@a/x",
        "ftp://a/x",
        "http://a b/",
    ] {
        let refusal = line(&format!("GET {bad} HTTP/1.1"));
        assert!(
            matches!(refusal, Refusal::Target | Refusal::RequestLine),
            "{bad}"
        );
    }
    assert_eq!(line("GET  / HTTP/1.1"), Refusal::RequestLine);
    assert_eq!(line("GET / x HTTP/1.1"), Refusal::RequestLine);
    assert_eq!(line("GET /"), Refusal::RequestLine);
    assert_eq!(line(" GET / HTTP/1.1"), Refusal::RequestLine);
    assert_eq!(line("G@T / HTTP/1.1"), Refusal::RequestLine);
    assert_eq!(line("GET / HTTP/2.0"), Refusal::Version);
    assert_eq!(line("GET / http/1.1"), Refusal::RequestLine);
    // The first bytes of a TLS client are told apart at once, without a line's end.
    assert_eq!(refusal("\u{16}\u{3}\u{1}\u{2}"), Refusal::RequestLine);
}

#[test]
fn heads_have_a_limit() {
    let long = "a".repeat(MAX);
    assert_eq!(refusal(&format!("GET /{long}")), Refusal::TargetTooLong);
    assert_eq!(
        refusal(&format!("GET / HTTP/1.1\r\nA: {long}")),
        Refusal::HeadTooLarge
    );
    let fits = MAX - "GET / HTTP/1.1\r\nHost: \r\n\r\n".len();
    let head = |len: usize| format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(len));
    assert_eq!(scan(head(fits).as_bytes()), Ok(MAX));
    assert_eq!(refusal(&head(fits + 1)), Refusal::HeadTooLarge);
    let many = "A:b\r\n".repeat(100);
    assert_eq!(
        refusal(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
        Refusal::TooManyHeaders
    );
}

#[test]
fn malformed_chunks_stop_the_body() {
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (body, good) in [
        ("x\r\n", 0),
        ("\r\n", 0),
        ("3\nabc", 1),
        ("3\r\nabcd\r\n", 6),
        ("3\r\nabc\n", 6),
        ("-3\r\n", 0),
        ("0x3\r\n", 1),
        ("1111111111111111\r\n", 15),
        ("3;a\nb", 3),
        ("0\r\nA: b\n\r\n", 7),
        ("0\r\n\n", 3),
    ] {
        let all = format!("{head}{body}");
        assert_eq!(
            scan(all.as_bytes()),
            Err(Stop::Body {
                pass: head.len() + good
            }),
            "{body:?}"
        );
    }
    let long = format!("{head}3;{}", "e".repeat(300));
    assert!(matches!(scan(long.as_bytes()), Err(Stop::Body { .. })));
    let trailers = format!("{head}0\r\n{}", "A: b\r\n".repeat(3000));
    assert!(matches!(scan(trailers.as_bytes()), Err(Stop::Body { .. })));
}

#[test]
fn a_refusal_spares_the_requests_before_it() {
    let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let both = format!("{good}GET / HTTP/1.1\n");
    assert_eq!(
        scan(both.as_bytes()),
        Err(Stop::Head {
            pass: good.len(),
            refusal: Refusal::BareLineFeed
        })
    );
}

fn request() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("GET /a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        "[ -~]{0,12}".prop_map(|body| format!(
            "PUT /b HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )),
        prop::collection::vec("[ -~]{1,20}", 0..3).prop_map(|chunks| {
            let chunks: String = chunks
                .iter()
                .map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()))
                .collect();
            format!(
                "PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
            )
        }),
    ]
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        requests in prop::collection::vec(request(), 1..4),
        tail in prop::option::of("[ -~\r\n]{0,30}"),
        cuts in prop::collection::vec(0usize..500, 0..6),
    ) {
        let count = requests.len() as u64;
        let good = requests.concat();
        let all = format!("{good}{}", tail.clone().unwrap_or_default());
        let (passed, stop, heads) = fed(all.as_bytes(), &cuts);
        let (whole, whole_stop, whole_heads) = fed(all.as_bytes(), &[]);
        prop_assert_eq!(&passed, &whole);
        prop_assert_eq!(stop, whole_stop);
        prop_assert_eq!(heads, whole_heads);
        prop_assert!(passed.starts_with(good.as_bytes()));
        prop_assert!(heads >= count);
    }

    #[test]
    fn it_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(0usize..200, 0..4)) {
        fed(&bytes, &cuts);
        let mut with_head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        with_head.extend(bytes);
        fed(&with_head, &cuts);
    }
}
