//! The management API as commands speak it: over the admin socket, or over the network with a context.
//!
//! Called by the commands whose work any administrator could do from elsewhere. Which registry is meant is decided in [`Where`],
//! once for all of them. Blocking and small: a request, its answer, the end.

mod ask;
pub(super) mod context;
mod docker;
mod file;
pub(super) mod keeper;
pub(super) mod login;
mod place;
mod wire;

use std::os::unix::net::UnixStream;

use clap::Args;
use serde_json::Value;
use wharf_oci::percent::encode_query;

use self::context::{Context, Contexts};
use self::keeper::Good;
pub(super) use self::wire::Unanswered;
use self::wire::{Answer, Ask, Body, Bounds};
use super::exit::{Exit, Failure};
use super::flags::DataFlags;
use super::offline;
use crate::admin;
use crate::api::problem::is_general;
use crate::config::{Config, load};

/// The media type of lines.
const JSON_LINES: &str = "application/jsonl";
/// Names the context when `--context` does not.
const CONTEXT_VARIABLE: &str = "WHARF_CONTEXT";

/// Which registry is meant.
#[derive(Clone, Debug, Args)]
pub(super) struct Where {
    /// The registry that this context names, as `wharf context list` shows them
    ///
    /// Without it, and without --data or --config: the context in WHARF_CONTEXT, then the one in use, then the registry of the data
    /// folder that `wharf serve` would take, through its socket and without a password.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    #[command(flatten)]
    pub(super) flags: DataFlags,
}

impl Where {
    /// The context that is meant, if any.
    fn context(&self) -> Result<Option<Context>, Failure> {
        if self.context.is_none() && self.flags.are_given() {
            return Ok(None);
        }
        let named = match &self.context {
            Some(name) => Some(name.clone()),
            None => std::env::var(CONTEXT_VARIABLE)
                .ok()
                .filter(|name| !name.is_empty()),
        };
        Contexts::load()?.chosen(named.as_deref())
    }

    /// A client of that registry, for one command.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Ok(match self.context()? {
            Some(context) => Client::Remote(Box::new(context)),
            None => Client::Local(Box::new(load(&self.flags.inputs())?.config)),
        })
    }

    /// Whether commands go over the network.
    pub(super) fn is_remote(&self) -> Result<bool, Failure> {
        Ok(self.context()?.is_some())
    }
}

/// Talks to one registry.
pub(super) enum Client {
    /// Elsewhere.
    Remote(Box<Context>),
    /// In a data folder of this machine.
    Local(Box<Config>),
}

impl Client {
    /// The address of the registry as others reach it, if it is known.
    pub(super) fn url(&self) -> Option<String> {
        match self {
            Self::Remote(context) => Some(context.url().to_owned()),
            Self::Local(config) => config.server.external_url.as_ref().map(ToString::to_string),
        }
    }

    /// Asks for something to be read.
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send("GET", path, None)
    }

    /// Asks for something to be done; `null` when the answer has no body.
    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        understood(self.ask(method, path, body)?)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let ask = Ask {
            method,
            path,
            body: body.map(|body| Body::Json(body.to_string())),
        };
        match self {
            Self::Remote(context) => remote(context, &ask),
            Self::Local(config) => local(config, &ask),
        }
    }

    /// A page of JSON lines as it came, and where to go on.
    pub(super) fn lines(&self, path: &str) -> Result<(String, Option<String>), Failure> {
        let answer = self.ask("GET", path, None)?;
        let kind = answer.headers.get("content-type").unwrap_or_default();
        if answer.status != 200 || kind != JSON_LINES {
            understood(answer)?;
            return Err(foreign(200));
        }
        let next = answer.headers.get("link").and_then(next).map(str::to_owned);
        let text = String::from_utf8(answer.body).map_err(|_| foreign(200))?;
        Ok((text, next))
    }

    /// Does work of many requests. Where no registry runs on the data folder, it is opened once for all of them.
    pub(super) fn at_once<T>(
        &self,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match self {
            Self::Local(config) if !is_served(config)? => offline::served(config, || Ok(work()))?,
            _ => work(),
        }
    }

    /// All entries of a list, at most `most`.
    pub(super) fn list(&self, path: &str, most: usize) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        let mut after = String::new();
        let mark = if path.contains('?') { '&' } else { '?' };
        loop {
            let size = (most - all.len()).clamp(1, 1_000);
            let mut page = self.get(&format!("{path}{mark}n={size}{after}"))?;
            if let Value::Array(items) = page["items"].take() {
                all.extend(items);
            }
            match page["next"].as_str() {
                Some(next) if all.len() < most => {
                    after = format!("&after={}", encode_query(next));
                }
                _ => return Ok(all),
            }
        }
    }
}

/// A text of an answer.
pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A moment of an answer, in milliseconds since 1970.
pub(super) fn moment(value: &Value) -> Option<i64> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.map(|at: jiff::Timestamp| at.as_millisecond())
}

/// What programs read.
pub(super) fn as_json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Over the network. An access token that the registry does not take is another one in a moment, once.
fn remote(context: &Context, ask: &Ask<'_>) -> Result<Answer, Failure> {
    let mut worn: Option<String> = None;
    loop {
        let good = context.good(worn.as_deref())?;
        let authorization = good.authorization(&context.user);
        let answer = wire::remote(
            context.target(),
            Some(&authorization),
            ask,
            Bounds::MANAGEMENT,
        )?;
        match good {
            Good::Access(token) if answer.status == 401 && worn.is_none() => worn = Some(token),
            _ => return Ok(answer),
        }
    }
}

/// Through the socket of the registry that runs on the data folder; if none does, this process opens it for as long as it
/// takes.
fn local(config: &Config, ask: &Ask<'_>) -> Result<Answer, Failure> {
    let folder = &config.server.data;
    if !folder.exists() {
        return Err(offline::absent(folder));
    }
    let folder = offline::absolute(folder)?;
    let over = |folder: &std::path::Path| {
        let (path, _open) = admin::socket(folder)?;
        let stream = UnixStream::connect(path)?;
        wire::exchange(stream, "wharf", ask, &[], Bounds::MANAGEMENT.largest)
    };
    match over(&folder) {
        Ok(answer) => Ok(answer),
        Err(error) => match admin::CallError::new(&error, &folder) {
            admin::CallError::Stopped => offline::served(config, || over(&folder)),
            other => Err(Failure::new(Exit::Data, other)),
        },
    }
}

/// Whether a registry runs on the data folder, or something else is wrong, which the next request will tell.
fn is_served(config: &Config) -> Result<bool, Failure> {
    let folder = &config.server.data;
    if !folder.exists() {
        return Err(offline::absent(folder));
    }
    let folder = offline::absolute(folder)?;
    let reached = admin::socket(&folder).and_then(|(path, _open)| UnixStream::connect(path));
    Ok(match reached {
        Ok(_) => true,
        Err(error) => !matches!(
            admin::CallError::new(&error, &folder),
            admin::CallError::Stopped
        ),
    })
}

/// The cursor in a `Link` header.
fn next(link: &str) -> Option<&str> {
    let (target, relation) = link.strip_prefix('<')?.split_once('>')?;
    let next = relation.contains("rel=\"next\"");
    target
        .split_once("after=")
        .filter(|_| next)
        .map(|(_, cursor)| cursor)
}

fn foreign(status: u16) -> Failure {
    Failure::text(
        Exit::Failure,
        format!(
            "the answer ({status}) is none of Wharf's management API: is a proxy in between, or another registry?"
        ),
    )
}

/// The body of a good answer, or the problem that it tells of.
fn understood(answer: Answer) -> Result<Value, Failure> {
    let body = match answer.body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&answer.body).map_err(|_| foreign(answer.status))?,
    };
    if (200..300).contains(&answer.status) {
        return Ok(body);
    }
    let told = body["detail"].as_str();
    let told = told.map_or_else(|| format!("status {}", answer.status), str::to_owned);
    let mut text = told;
    if let Some(field) = body["field"].as_str() {
        text = format!("{field}: {text}");
    }
    // What holds for every problem of its kind tells people nothing that the text does not.
    if let Some(cure) = body["cure"].as_str().filter(|cure| !is_general(cure)) {
        text.push_str(&format!("\n  help: {cure}"));
    }
    if answer.status >= 500
        && let Some(id) = body["request_id"].as_str()
    {
        text.push_str(&format!(
            "\n  the registry's log has more under request {id}"
        ));
    }
    let exit = match answer.status {
        400 | 404 | 409 | 412 => Exit::Usage,
        _ => Exit::Failure,
    };
    Err(Failure::text(exit, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            headers: wire::Headers::default(),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn problems_are_told_with_their_cure() {
        let body =
            r#"{"detail":"there is no tag 1","cure":"look","field":"tag","request_id":"r7"}"#;
        let failure = understood(answer(404, body)).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(
            failure.error.to_string(),
            "tag: there is no tag 1\n  help: look"
        );
        let general = r#"{"detail":"no","cure":"send less at once"}"#;
        let failure = understood(answer(413, general)).unwrap_err();
        assert_eq!(failure.error.to_string(), "no");
        let failure = understood(answer(500, body)).unwrap_err();
        assert!(failure.error.to_string().contains("r7"));
        assert_eq!(failure.exit, Exit::Failure);
    }

    #[test]
    fn a_link_to_the_next_page_holds_its_cursor() {
        assert_eq!(next("<?after=MTIgMw>; rel=\"next\""), Some("MTIgMw"));
        for none in [
            "",
            "<>",
            "<?after=x>; rel=\"prev\"",
            "?after=x; rel=\"next\"",
        ] {
            assert_eq!(next(none), None, "{none}");
        }
    }

    #[test]
    fn other_servers_are_not_believed() {
        let failure = understood(answer(200, "<html>hello</html>")).unwrap_err();
        assert!(failure.error.to_string().contains("proxy"));
        assert_eq!(understood(answer(204, "")).unwrap(), Value::Null);
    }
}
