//! Figures for Prometheus. `docs/reference/metrics.md` lists them; a test compares.
//!
//! Labels have few values: routes by template, methods, statuses, reasons. A repository's name is one only when
//! `metrics.repository_label` asks for it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::process::Process;
use super::sample::Latest;
pub use super::sample::Sample;
use crate::http::observer::Finished;

/// Seconds, from a cached manifest to a layer of gigabytes.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0,
];
/// So many repositories are told apart when their names are labels; the rest is [`OTHER`].
const REPOSITORIES: usize = 1_000;
/// What everything is called that came after the first so many.
const OTHER: &str = "other";

#[derive(Clone, Debug, Hash, PartialEq, Eq)]
struct Request {
    route: &'static str,
    method: &'static str,
    status: u16,
    repository: Option<String>,
}

// By hand, because the derived one writes an empty label for `None`.
impl EncodeLabelSet for Request {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        ("route", self.route).encode(encoder.encode_label())?;
        ("method", self.method).encode(encoder.encode_label())?;
        ("status", u32::from(self.status)).encode(encoder.encode_label())?;
        match &self.repository {
            Some(repository) => ("repository", repository.as_str()).encode(encoder.encode_label()),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: &'static str,
    method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// The figures of requests of one kind, found once: a search for each of them in each request would cost more than all the
/// rest of counting.
#[derive(Clone, Debug)]
struct Figures {
    requests: Counter,
    seconds: Histogram,
    received: Counter,
    sent: Counter,
}

/// Route, method and status: as few as there are labels.
type Kind = (&'static str, &'static str, u16);

/// All figures of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// The names that are labels; `None` when none shall be.
    repositories: Option<Mutex<HashSet<String>>>,
    known: ArcSwap<HashMap<Kind, Figures>>,
    requests: Family<Request, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    received: Family<Route, Counter>,
    sent: Family<Route, Counter>,
    pub(super) connections: Gauge,
    closed: Family<Reason, Counter>,
    malformed: Family<Reason, Counter>,
    auth_failures: Family<Reason, Counter>,
    sample: Arc<ArcSwap<Sample>>,
}

impl Metrics {
    /// Whether everybody who may read the figures may see the names of repositories.
    pub fn shows_names(&self) -> bool {
        self.repositories.is_some()
    }

    /// Registers all figures. `repository_label` adds a label with the repository's name to the request counter.
    pub fn new(repository_label: bool) -> Self {
        let mut root = Registry::default();
        let requests = Family::default();
        let seconds: Family<Route, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let received = Family::default();
        let sent = Family::default();
        let connections = Gauge::default();
        let closed = Family::default();
        let malformed = Family::default();
        let auth_failures = Family::default();
        let sample = Arc::new(ArcSwap::from_pointee(Sample::default()));

        // Under the names that every dashboard knows.
        root.register_collector(Box::new(Process));
        let registry = root.sub_registry_with_prefix("wharf");
        registry.register(
            "http_requests",
            "Requests, by route, method and status (499: the client went away)",
            requests.clone(),
        );
        registry.register_with_unit(
            "http_request",
            "Time from the end of a request's head to the end of the answer",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register_with_unit(
            "http_received",
            "Bytes of request bodies",
            Unit::Bytes,
            received.clone(),
        );
        registry.register_with_unit(
            "http_sent",
            "Bytes of answers' bodies",
            Unit::Bytes,
            sent.clone(),
        );
        registry.register("http_connections", "Open connections", connections.clone());
        registry.register(
            "http_connections_closed",
            "Connections that ended, by reason",
            closed.clone(),
        );
        registry.register(
            "http_malformed",
            "What was refused before it was a request, by reason",
            malformed.clone(),
        );
        registry.register(
            "auth_failures",
            "Credentials that were refused, by reason",
            auth_failures.clone(),
        );
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What is running", build);
        registry.register_collector(Box::new(Latest(sample.clone())));
        Self {
            registry: Mutex::new(root),
            repositories: repository_label.then(Mutex::default),
            known: ArcSwap::default(),
            requests,
            seconds,
            received,
            sent,
            connections,
            closed,
            malformed,
            auth_failures,
            sample,
        }
    }

    /// Counts a finished request.
    pub(super) fn request(&self, finished: &Finished<'_>) {
        let status = finished.status.map_or(499, |status| status.as_u16());
        let kind = (finished.route, method(finished.method), status);
        let known = self.known.load();
        match known.get(&kind) {
            Some(figures) if self.repositories.is_none() => figures.add(finished),
            _ => self.find(kind, self.repository(finished)).add(finished),
        }
    }

    /// Figures that were not known, or are by repository.
    fn find(&self, kind: Kind, repository: Option<String>) -> Figures {
        let (route, method, status) = kind;
        let by_repository = repository.is_some();
        let request = Request {
            route,
            method,
            status,
            repository,
        };
        let route = Route { route, method };
        let figures = Figures {
            requests: self.requests.get_or_create_owned(&request),
            seconds: self.seconds.get_or_create_owned(&route),
            received: self.received.get_or_create_owned(&route),
            sent: self.sent.get_or_create_owned(&route),
        };
        if !by_repository {
            self.known.rcu(|known| {
                let mut known = HashMap::clone(known);
                known.insert(kind, figures.clone());
                known
            });
        }
        figures
    }

    /// The repository as a label, if it shall be one. Clients can ask for any name, so only repositories that answered
    /// with a success become labels, and only so many.
    fn repository(&self, finished: &Finished<'_>) -> Option<String> {
        let known = self.repositories.as_ref()?;
        let name = finished.facts?.repository.as_ref()?.as_str();
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let exists = finished.status.is_some_and(|status| status.is_success());
        if !known.contains(name) && exists && known.len() < REPOSITORIES {
            known.insert(name.to_owned());
        }
        Some(if known.contains(name) { name } else { OTHER }.to_owned())
    }

    pub(super) fn closed(&self, reason: &'static str) {
        self.closed.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn malformed(&self, reason: &'static str) {
        self.malformed.get_or_create(&Reason { reason }).inc();
    }

    /// Counts credentials that were refused.
    pub fn auth_failed(&self, reason: &'static str) {
        self.auth_failures.get_or_create(&Reason { reason }).inc();
    }

    /// All figures as text, in the format of OpenMetrics.
    pub fn render(&self, sample: Sample) -> String {
        self.sample.store(Arc::new(sample));
        let mut out = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match text::encode(&mut out, &registry) {
            Ok(()) => out,
            // Writing to a string cannot fail.
            Err(fmt::Error) => String::new(),
        }
    }
}

impl Figures {
    fn add(&self, finished: &Finished<'_>) {
        self.requests.inc();
        self.seconds.observe(finished.duration.as_secs_f64());
        self.received.inc_by(finished.bytes_in);
        self.sent.inc_by(finished.bytes_out);
    }
}

/// A method as a label: clients can make up any number of them.
fn method(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use wharf_oci::RepositoryName;

    use super::*;
    use crate::http::Facts;
    use crate::http::id::{RequestId, RequestIds};

    fn finished<'a>(id: &'a RequestId, status: u16, facts: Option<&'a Facts>) -> Finished<'a> {
        Finished {
            id,
            method: &http::Method::GET,
            route: "/v2/",
            status: http::StatusCode::from_u16(status).ok(),
            complete: true,
            bytes_in: 1,
            bytes_out: 1,
            duration: std::time::Duration::from_millis(1),
            version: http::Version::HTTP_11,
            peer: None,
            facts,
        }
    }

    fn sample() -> Sample {
        Sample {
            blob: wharf_blob::Figures {
                work: vec![("sync", 3, 1_500_000_000)],
                ..wharf_blob::Figures::default()
            },
            caches: vec![("token", 5, 2)],
            limited: vec![("reads", 3)],
            ..Sample::default()
        }
    }

    #[test]
    fn figures_are_rendered_with_their_labels() {
        let metrics = Metrics::new(false);
        metrics.auth_failed("password");
        let text = metrics.render(sample());
        for line in [
            "wharf_auth_failures_total{reason=\"password\"} 1",
            "wharf_blob_operations_total{operation=\"sync\"} 3",
            "wharf_blob_operation_seconds_total{operation=\"sync\"} 1.5",
            "wharf_cache_lookups_total{cache=\"token\",result=\"hit\"} 5",
            "wharf_rate_limited_total{kind=\"reads\"} 3",
            "# TYPE process_cpu_seconds counter",
            "# TYPE process_resident_memory_bytes gauge",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn repositories_are_labels_only_on_demand_and_only_so_many() {
        let id = RequestIds::new(1).make();
        let facts = |name: &str| Facts {
            repository: Some(RepositoryName::parse(name).unwrap()),
            ..Facts::default()
        };
        let silent = Metrics::new(false);
        silent.request(&finished(&id, 200, Some(&facts("team/app"))));
        let text = silent.render(Sample::default());
        assert!(
            !text.contains("team/app") && !text.contains("repository="),
            "{text}"
        );

        let metrics = Metrics::new(true);
        metrics.request(&finished(&id, 404, Some(&facts("made/up"))));
        for number in 0..REPOSITORIES + 5 {
            metrics.request(&finished(
                &id,
                200,
                Some(&facts(&format!("team/app-{number}"))),
            ));
        }
        let text = metrics.render(Sample::default());
        assert!(
            text.contains("status=\"200\",repository=\"team/app-0\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("status=\"200\",repository=\"other\"} 5"),
            "{text}"
        );
        assert!(
            text.contains("status=\"404\",repository=\"other\"} 1"),
            "{text}"
        );
        assert!(!text.contains("made/up"), "{text}");
    }

    #[test]
    fn invented_methods_are_one_label() {
        assert_eq!(method(&http::Method::from_bytes(b"BREW").unwrap()), "other");
        assert_eq!(method(&http::Method::GET), "GET");
    }

    /// The page in the documentation is the list of figures, neither more nor less.
    #[test]
    fn the_documentation_lists_every_figure() {
        let metrics = Metrics::new(false);
        // Families show only once they have a member.
        metrics.auth_failed("password");
        metrics.closed("done");
        metrics.malformed("head");
        metrics.request(&finished(&RequestIds::new(1).make(), 200, None));
        let text = metrics.render(sample());
        let page = include_str!("../../../../docs/reference/metrics.md");
        let mut listed = Vec::new();
        for row in page.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = row
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'))
                .collect();
            let (name, kind, meaning) = (cells[1], cells[2], cells[4]);
            for line in [
                format!("# TYPE {name} {kind}\n"),
                format!("# HELP {name} {meaning}.\n"),
            ] {
                assert!(text.contains(&line), "{line} is not in\n{text}");
            }
            listed.push(name);
        }
        let mut known: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
            .collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
    }
}
