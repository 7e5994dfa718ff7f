//! Log lines: for people on a terminal, JSON otherwise.
//!
//! The level can be changed while running. Nothing here takes headers, queries or bodies, which may hold secrets.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::gather::{Gather, REQUEST};
use crate::http::observer::Finished;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people when standard error is a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

type Filter = reload::Handle<EnvFilter, Registry>;

/// The filter of this process's log.
static FILTER: OnceLock<Filter> = OnceLock::new();

/// Reads `log.level`: a level, or directives by module. The error is a sentence.
pub fn parse_level(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(level).map_err(|_| {
        format!("`{level}` is no level: write error, warn, info, debug or trace, or directives such as `info,wharf::http=debug`")
    })
}

/// What gathers this process's request lines, if they are gathered.
static GATHER: OnceLock<Gather> = OnceLock::new();

/// Starts logging to standard error.
///
/// Only the first call counts; the process has one log.
pub fn start(format: Format, level: &str) -> Result<(), String> {
    let terminal = std::io::stderr().is_terminal();
    let human = match format {
        Format::Auto => terminal,
        Format::Human => true,
        Format::Json => false,
    };
    let level = parse_level(level)?;
    // People look at a terminal while it happens.
    let filter = if terminal {
        let (subscriber, filter) = subscriber(human, true, level, std::io::stderr);
        tracing::subscriber::set_global_default(subscriber).map(|()| filter)
    } else {
        let gather = Gather::new(std::io::stderr())
            .map_err(|error| format!("the thread that writes the log cannot start: {error}"))?;
        let (subscriber, filter) = subscriber(human, false, level, gather.clone());
        tracing::subscriber::set_global_default(subscriber).map(|()| {
            let _ = GATHER.set(gather);
            filter
        })
    };
    // A second start in one process (tests) keeps the first log, which is what they want.
    if let Ok(filter) = filter {
        let _ = FILTER.set(filter);
    }
    Ok(())
}

/// Writes request lines that wait to be written. To be called before the process ends.
pub fn flush() {
    if let Some(gather) = GATHER.get() {
        gather.flush();
    }
}

/// Changes the level from now on.
pub fn set_level(level: &str) -> Result<(), String> {
    let parsed = parse_level(level)?;
    match FILTER.get() {
        Some(filter) => filter.reload(parsed).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

fn subscriber<W>(
    human: bool,
    colours: bool,
    level: EnvFilter,
    writer: W,
) -> (impl tracing::Subscriber + Send + Sync, Filter)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    for<'a> <W as MakeWriter<'a>>::Writer: Write,
{
    let (filter, handle) = reload::Layer::new(level);
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(writer);
    let lines = if human {
        lines.with_ansi(colours).boxed()
    } else {
        lines.with_ansi(false).json().flatten_event(true).boxed()
    };
    (Registry::default().with(filter).with(lines), handle)
}

/// The line of a request.
pub(super) fn request(finished: &Finished<'_>) {
    let facts = finished.facts;
    let principal = facts
        .and_then(|facts| facts.principal.as_deref())
        .unwrap_or("-");
    let repository = facts
        .and_then(|facts| facts.repository.as_ref())
        .map_or("-", |name| name.as_str());
    // 499, as proxies write it: the client went away before there was a status.
    let status = finished.status.map_or(499, |status| status.as_u16());
    tracing::info!(
        target: REQUEST,
        request_id = %finished.id,
        principal,
        method = %finished.method,
        route = finished.route,
        repository,
        status,
        complete = finished.complete,
        bytes_in = finished.bytes_in,
        bytes_out = finished.bytes_out,
        // Whole microseconds: a float of the product shows digits that nobody measured.
        duration_ms = finished.duration.as_micros() as f64 / 1_000.0,
        peer = finished.peer.map(tracing::field::display),
        "request"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn log(human: bool, level: &str) -> (tracing::subscriber::DefaultGuard, Filter, Kept) {
        let kept = Kept::default();
        let writer = kept.clone();
        let (subscriber, filter) =
            subscriber(human, false, parse_level(level).unwrap(), move || {
                writer.clone()
            });
        (tracing::subscriber::set_default(subscriber), filter, kept)
    }

    #[test]
    fn json_lines_are_objects_with_their_fields() {
        let (_guard, _filter, kept) = log(false, "info");
        tracing::info!(status = 200, route = "/v2/", "request");
        tracing::debug!("not shown");
        let text = kept.text();
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(
            (line["status"].as_i64(), line["route"].as_str()),
            (Some(200), Some("/v2/"))
        );
        assert_eq!(
            (line["message"].as_str(), line["level"].as_str()),
            (Some("request"), Some("INFO"))
        );
    }

    #[test]
    fn human_lines_are_one_line_each_whatever_they_hold() {
        let (_guard, _filter, kept) = log(true, "info");
        tracing::info!(principal = "a\nb\u{1b}[2J", "request");
        assert_eq!(kept.text().lines().count(), 1, "{}", kept.text());
        assert!(!kept.text().contains('\u{1b}'), "{:?}", kept.text());
    }

    #[test]
    fn the_level_changes_while_running() {
        let (_guard, filter, kept) = log(true, "warn");
        tracing::info!("before");
        filter.reload(parse_level("debug").unwrap()).unwrap();
        tracing::debug!("after");
        assert!(!kept.text().contains("before") && kept.text().contains("after"));
    }

    #[test]
    fn levels_are_words_or_directives() {
        for good in [
            "info",
            "error",
            "off",
            "info,wharf::http=debug",
            "wharf::request=warn,info",
        ] {
            assert!(parse_level(good).is_ok(), "{good}");
        }
        let error = parse_level("info,wharf=loud").unwrap_err();
        assert!(
            error.contains("`info,wharf=loud`") && error.contains("debug"),
            "{error}"
        );
    }
}
