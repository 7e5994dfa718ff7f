//! Log lines: for people on a terminal, JSON otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

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

/// Starts logging to standard error. `level` is a level or a list of `module=level`, checked before.
///
/// Only the first call counts; the process has one log.
pub fn start(format: Format, level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| format!("log.level: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    let human = match format {
        Format::Auto => terminal,
        Format::Human => true,
        Format::Json => false,
    };
    // A second start in one process (tests) keeps the first log, which is what they want.
    let _ = if human {
        builder.with_ansi(terminal).with_target(false).try_init()
    } else {
        builder
            .json()
            .flatten_event(true)
            .with_target(false)
            .try_init()
    };
    Ok(())
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
        request_id = %finished.id,
        principal,
        method = %finished.method,
        route = finished.route,
        repository,
        status,
        complete = finished.complete,
        bytes_in = finished.bytes_in,
        bytes_out = finished.bytes_out,
        duration_ms = finished.duration.as_secs_f64() * 1_000.0,
        peer = finished.peer.map(tracing::field::display),
        "request"
    );
}
