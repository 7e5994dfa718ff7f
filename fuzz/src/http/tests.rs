//! That the judges of the targets of HTTP do judge.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wharf_oci::{Algorithm, Digest};

use super::model::Model;
use super::script::{Line, Request};
use super::wire::{Answer, parse};
use super::{answers, form};

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let header = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Answer {
        status,
        headers: headers.iter().map(header).collect(),
        body: body.into(),
    }
}

fn request(model: &mut Model, line: &str) -> Request {
    let line = Line::parse(line).expect("a line");
    model.session = model.session_in(line.target);
    let body = line.body(model);
    model.body.clone_from(&body);
    line.request(&model.prefix, model, body)
}

fn judged(model: &mut Model, request: &Request, answer: &Answer) -> bool {
    catch_unwind(AssertUnwindSafe(|| model.judge(request, answer))).is_ok()
}

#[test]
fn a_blob_that_changes_or_is_lost_is_noticed() {
    let mut model = Model::new("x1".into(), "Basic x".into());
    let push = request(&mut model, "POST /v2/app/blobs/uploads/?digest={d}|hello");
    let digest = Digest::of(Algorithm::Sha256, b"hello").to_string();
    let location = format!("/v2/x1/app/blobs/{digest}");
    let named = ("docker-content-digest", digest.as_str());
    let created = answer(201, &[("location", &location), named], "");
    assert!(judged(&mut model, &push, &created));

    let whole = request(&mut model, "GET /v2/app/blobs/{b}");
    assert_eq!(whole.path, location);
    assert!(judged(&mut model, &whole, &answer(200, &[named], "hello")));
    assert!(!judged(&mut model, &whole, &answer(200, &[named], "hellO")));
    assert!(!judged(&mut model, &whole, &answer(200, &[], "hello")));
    assert!(!judged(&mut model, &whole, &answer(404, &[], "")));

    let part = request(&mut model, "GET /v2/app/blobs/{b}^Range: bytes=1-2");
    let ranged = |range| [named, ("content-range", range)];
    let right = answer(206, &ranged("bytes 1-2/5"), "el");
    assert!(judged(&mut model, &part, &right));
    let wrong = answer(206, &ranged("bytes 1-2/5"), "ll");
    assert!(!judged(&mut model, &part, &wrong));

    let elsewhere = request(&mut model, "GET /v2/other/blobs/{b}");
    assert!(judged(&mut model, &elsewhere, &answer(404, &[], "")));
    let leaked = answer(200, &[named], "hello");
    assert!(!judged(&mut model, &elsewhere, &leaked));
}

#[test]
fn a_session_that_forgets_is_noticed() {
    let mut model = Model::new("x1".into(), "Basic x".into());
    let open = request(&mut model, "POST /v2/app/blobs/uploads/");
    let place = ("location", "/v2/x1/app/blobs/uploads/1");
    let opened = answer(202, &[place, ("range", "0-0")], "");
    assert!(judged(&mut model, &open, &opened));
    let append = request(&mut model, "PATCH {u}|hello");
    let short = answer(202, &[("range", "0-3")], "");
    assert!(!judged(&mut model, &append, &short));
    let status = request(&mut model, "GET {u}");
    assert!(judged(
        &mut model,
        &status,
        &answer(204, &[("range", "0-4")], "")
    ));
    assert!(!judged(
        &mut model,
        &status,
        &answer(204, &[("range", "0-3")], "")
    ));
    assert!(!judged(&mut model, &status, &answer(404, &[], "")));
}

#[test]
fn answers_are_read_strictly() {
    let id = "X-Request-Id: 1\r\n";
    let good = format!("HTTP/1.1 200 OK\r\n{id}Content-Length: 2\r\n\r\nok");
    assert_eq!(answers(good.as_bytes(), false), Ok(()));
    assert_eq!(answers(format!("{good}{good}").as_bytes(), false), Ok(()));
    let bare = format!("HTTP/1.1 200 OK\r\n{id}Content-Length: 2\r\n\r\n");
    assert_eq!(answers(bare.as_bytes(), true), Ok(()));
    for wrong in [
        format!("{good}x"),
        bare,
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{id}\r\n"),
        format!("HTTP/1.1 200 OK\r\n{id}Content-Length: 0\r\nContent-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 400 Bad\r\n{id}Content-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 503 Busy\r\n{id}Content-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{id}X y: z\r\nContent-Length: 0\r\n\r\n"),
    ] {
        assert!(answers(wrong.as_bytes(), false).is_err(), "{wrong}");
    }
    let cut = parse(&good.as_bytes()[..good.len() - 1], false);
    assert!(matches!(cut, Ok(None)));
}

#[test]
fn an_error_is_a_list_of_errors() {
    let json = [("content-type", "application/json"), ("x-request-id", "1")];
    let refusal = |body| form(&answer(404, &json, body), false);
    assert_eq!(
        refusal(r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no"}]}"#),
        Ok(())
    );
    for wrong in [
        "",
        "{}",
        r#"{"errors":[]}"#,
        r#"{"errors":[{"code":"X"}]}"#,
        r#"{"errors":[{"code":"X","message":"no","detail":{}}]}"#,
    ] {
        assert!(refusal(wrong).is_err(), "{wrong}");
    }
}

/// Each door refuses in its own form.
#[test]
fn oauth_problems_and_pages_have_their_forms() {
    let refusal = |kind, body| {
        form(
            &answer(404, &[("content-type", kind), ("x-request-id", "1")], body),
            false,
        )
    };
    let (json, problem) = ("application/json", "application/problem+json");
    for (kind, good) in [
        (json, r#"{"error":"invalid_grant"}"#),
        (problem, r#"{"status":404,"title":"no","cure":"look"}"#),
        ("text/html; charset=utf-8", "<!doctype html><p>no"),
    ] {
        assert_eq!(refusal(kind, good), Ok(()), "{good}");
    }
    for (kind, wrong) in [
        (json, r#"{"error":""}"#),
        (json, r#"{"error":7}"#),
        (problem, r#"{"status":400,"title":"no","cure":"look"}"#),
        (problem, r#"{"status":404,"title":"no"}"#),
        ("text/html", "p"),
        ("text/plain", "no"),
    ] {
        assert!(refusal(kind, wrong).is_err(), "{wrong}");
    }
}
