//! Targets of the whole registry over HTTP: scripts of requests that are judged by a model, and bytes that are no HTTP.

mod model;
mod parts;
mod script;
#[cfg(test)]
mod tests;
mod wire;
mod world;

use serde_json::Value;

use self::model::Model;
use self::script::{Line, Request};
use self::wire::{Answer, Connection};
use self::world::World;

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A script as `script` describes it. What was acknowledged is read back at its end.
pub(crate) fn sequence(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let lines: Vec<_> = text
        .lines()
        .filter_map(Line::parse)
        .take(script::MAX_LINES)
        .collect();
    if lines.is_empty() {
        return;
    }
    world::run(async |world| {
        let prefix = format!("x{}", world.number);
        let mut model = Model::new(prefix, world.server.admin_authorization());
        let mut client = Client {
            world,
            connection: None,
        };
        for line in &lines {
            model.session = model.session_in(line.target);
            let body = line.body(&model);
            model.body.clone_from(&body);
            let request = line.request(&model.prefix, &model, body);
            client.ask(&mut model, request).await;
        }
        for address in model.addresses() {
            let request = plain("GET", &address);
            client.ask(&mut model, request).await;
        }
        client.leave().await;
    });
}

/// Bytes on a socket, then the end of the client's side: whole answers come back, or none, and nobody else notices.
pub(crate) fn wire(input: &[u8]) {
    world::run(async |world| {
        let mut connection = world.connect().await;
        connection.send(input, true).await;
        let said = connection.rest().await;
        if input.starts_with(PREFACE) {
            frames(&said);
        } else {
            let may_be_bare = input.windows(5).any(|word| word == b"HEAD ");
            answers(&said, may_be_bare).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        bystander(world).await;
    });
}

/// Whether these bytes are answers, one after another. Which of them are to HEAD the input does not tell.
fn answers(said: &[u8], may_be_bare: bool) -> Result<(), String> {
    if said.is_empty() {
        return Ok(());
    }
    let mut wrong = String::new();
    for bare in [false, true] {
        if bare && !may_be_bare {
            continue;
        }
        match wire::parse(said, bare) {
            Ok(Some((answer, length))) => {
                // A transfer coding or a version that is not known, and nothing else.
                let meant = answer.status < 500 || matches!(answer.status, 501 | 505);
                let sound = if meant {
                    form(&answer, bare)
                } else {
                    Err("something broke in the registry")
                };
                match sound {
                    Ok(()) => match answers(&said[length..], may_be_bare) {
                        Ok(()) => return Ok(()),
                        Err(later) => wrong = later,
                    },
                    Err(this) => wrong = format!("{this}: {answer:?}"),
                }
            }
            Ok(None) => wrong = format!("breaks off: {}", String::from_utf8_lossy(said)),
            Err(malformed) => wrong = malformed,
        }
    }
    Err(wrong)
}

/// Whether these bytes are frames of HTTP/2, the settings first (RFC 9113 §3.4, §4.1).
fn frames(said: &[u8]) {
    let mut rest = said;
    while let [a, b, c, kind, _, _, _, _, _, tail @ ..] = rest {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        assert!(
            rest.len() < said.len() || *kind == 4,
            "the settings come first"
        );
        assert!(length <= 16 * 1024, "a frame of {length} bytes");
        rest = tail.get(length..).expect("a whole frame");
    }
    assert!(rest.is_empty(), "a frame's head breaks off");
}

async fn bystander(world: &mut World) {
    let request = plain("GET", "/v2/").bytes();
    // The server ends a connection after some thousand requests.
    for _ in 0..2 {
        let connection = match &mut world.bystander {
            Some(connection) => connection,
            None => {
                let connection = world.connect().await;
                world.bystander.insert(connection)
            }
        };
        connection.send(&request, false).await;
        match connection.answer(false).await {
            Some(answer) => {
                assert_eq!(answer.status, 200, "somebody else's request fails");
                if answer.closes() {
                    world.bystander = None;
                }
                return;
            }
            None => world.bystander = None,
        }
    }
    panic!("nobody else is answered");
}

fn plain(method: &str, path: &str) -> Request {
    Request {
        method: method.into(),
        path: path.into(),
        query: String::new(),
        headers: Vec::new(),
        body: Vec::new(),
        whole: true,
    }
}

/// Sends requests, on one connection as long as it stays open.
struct Client<'a> {
    world: &'a World,
    connection: Option<Connection>,
}

impl Client<'_> {
    async fn ask(&mut self, model: &mut Model, request: Request) {
        let answer = self.exchange(&request).await;
        let Some(answer) = answer else {
            assert!(!request.whole, "no answer to {request:?}");
            return;
        };
        check(&request, &answer);
        if let Some(at) = model.judge(&request, &answer) {
            let status = plain("GET", &model.sessions[at].location);
            let said = self.exchange(&status).await.expect("an answer");
            check(&status, &said);
            model.settled(at, &request, &said);
        }
    }

    async fn exchange(&mut self, request: &Request) -> Option<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.world.connect().await,
        };
        connection.send(&request.bytes(), !request.whole).await;
        let answer = connection.answer(request.is_head()).await?;
        if request.whole && !answer.closes() {
            self.connection = Some(connection);
        } else {
            let rest = connection.rest().await;
            assert!(rest.is_empty(), "more than one answer to {request:?}");
        }
        Some(answer)
    }

    /// The connection ends without a byte that belongs to no answer.
    async fn leave(mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.send(b"", true).await;
            assert!(
                connection.rest().await.is_empty(),
                "bytes after the last answer"
            );
        }
    }
}

/// What holds for every answer to a request that was meant to be one.
fn check(request: &Request, answer: &Answer) {
    assert!(
        answer.status < 500 || request.explains(answer),
        "{answer:?} to {request:?}"
    );
    if let Err(wrong) = form(answer, request.is_head()) {
        panic!("{wrong}: {answer:?} to {request:?}");
    }
    let listed =
        answer.status < 400 || request.is_head() || answer.body.starts_with(b"{\"errors\":");
    let listed = listed || !request.path.starts_with("/v2/");
    assert!(listed, "no list of errors: {answer:?} to {request:?}");
}

/// What holds for every answer. `bare` ones come without content.
fn form(answer: &Answer, bare: bool) -> Result<(), &'static str> {
    let holds = |holds: bool, wrong| if holds { Ok(()) } else { Err(wrong) };
    if answer.status < 200 {
        return Ok(());
    }
    holds(answer.header("x-request-id").is_some(), "no request id")?;
    if answer.status < 400 || bare {
        return Ok(());
    }
    refusal(answer)
}

/// What says why: the list of `/v2`, OAuth's answer (RFC 6749 §5.2), a problem of `/api` (RFC 9457), or a page.
fn refusal(answer: &Answer) -> Result<(), &'static str> {
    let holds = |holds: bool, wrong| if holds { Ok(()) } else { Err(wrong) };
    let text = |of: &Value, name: &str| of[name].as_str().is_some_and(|text| !text.is_empty());
    let kind = answer.header("content-type").unwrap_or_default();
    if kind.starts_with("text/html") {
        return holds(answer.body.starts_with(b"<!doctype html>"), "half a page");
    }
    let document: Value =
        serde_json::from_slice(&answer.body).map_err(|_| "an error that is not JSON")?;
    if kind == "application/problem+json" {
        let status = document["status"] == answer.status;
        let told = text(&document, "title") && text(&document, "cure");
        return holds(status && told, "a malformed problem");
    }
    holds(kind == "application/json", "an error that is not JSON")?;
    if document.get("error").is_some() {
        return holds(text(&document, "error"), "a malformed error of OAuth");
    }
    let errors = document["errors"].as_array().ok_or("no list of errors")?;
    holds(!errors.is_empty(), "no error in the list")?;
    for error in errors {
        let detail = error.get("detail").is_none_or(Value::is_string);
        holds(
            text(error, "code") && text(error, "message") && detail,
            "a malformed error",
        )?;
    }
    Ok(())
}
