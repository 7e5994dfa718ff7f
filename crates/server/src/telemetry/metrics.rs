//! Figures for Prometheus. `docs/reference/metrics.md` lists them; a test compares.
//!
//! Labels have few values: routes by template, methods, statuses, reasons. A repository's name is one only when
//! `metrics.repository_label` asks for it.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::process;
use crate::http::observer::Finished;

/// Seconds, from a cached manifest to a layer of gigabytes.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    route: &'static str,
    method: String,
    status: u16,
    repository: Option<String>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: &'static str,
    method: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Cache {
    cache: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

type FloatGauge = Gauge<f64, AtomicU64>;

/// All figures of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    repository_label: bool,
    requests: Family<Request, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    received: Family<Route, Counter>,
    sent: Family<Route, Counter>,
    pub(super) connections: Gauge,
    closed: Family<Reason, Counter>,
    malformed: Family<Reason, Counter>,
    auth_failures: Family<Reason, Counter>,
    caches: Family<Cache, Gauge>,
    sampled: Sampled,
}

/// Figures that others keep; they are copied when somebody asks.
#[derive(Debug, Default)]
struct Sampled {
    uploads: Gauge,
    repositories: Gauge,
    manifests: Gauge,
    tags: Gauge,
    blobs: Gauge,
    blob_bytes: Gauge,
    meta_operations: Gauge,
    meta_commits: Gauge,
    meta_commit_seconds: FloatGauge,
    meta_waiting: Gauge,
    meta_refusing: Gauge,
    meta_wal_bytes: Gauge,
    meta_bytes: Gauge,
    blob_operations: Family<Operation, Gauge>,
    blob_seconds: Family<Operation, FloatGauge>,
    resident: Gauge,
    files: Gauge,
    cpu: FloatGauge,
}

/// What [`Metrics::render`] copies from the stores.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Counters of the metadata store.
    pub totals: wharf_meta::repository::Totals,
    /// Figures of its engine.
    pub meta: wharf_meta::Stats,
    /// Work of the blob store: name, how often, nanoseconds in all.
    pub blob: Vec<(&'static str, u64, u64)>,
    /// Caches: name, hits, misses.
    pub caches: Vec<(&'static str, u64, u64)>,
}

impl Metrics {
    /// Registers all figures. `repository_label` adds a label with the repository's name to the request counter.
    pub fn new(repository_label: bool) -> Self {
        let mut registry = Registry::with_prefix("wharf");
        let requests = Family::default();
        let seconds: Family<Route, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let received = Family::default();
        let sent = Family::default();
        let connections = Gauge::default();
        let closed = Family::default();
        let malformed = Family::default();
        let auth_failures = Family::default();
        let caches = Family::default();
        let sampled = Sampled::default();

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
        registry.register(
            "cache_lookups",
            "Look-ups in memory, by cache and result, since the start",
            caches.clone(),
        );
        registry.register("uploads_open", "Upload sessions", sampled.uploads.clone());
        registry.register("repositories", "Repositories", sampled.repositories.clone());
        registry.register("manifests", "Manifests", sampled.manifests.clone());
        registry.register("tags", "Tags", sampled.tags.clone());
        registry.register("blobs", "Blobs", sampled.blobs.clone());
        registry.register_with_unit(
            "blob",
            "Bytes of all blobs, each counted once",
            Unit::Bytes,
            sampled.blob_bytes.clone(),
        );
        registry.register(
            "meta_operations",
            "Operations of the metadata store since the start",
            sampled.meta_operations.clone(),
        );
        registry.register(
            "meta_commits",
            "Commits of the metadata store since the start",
            sampled.meta_commits.clone(),
        );
        registry.register_with_unit(
            "meta_commit",
            "Time spent in those commits",
            Unit::Seconds,
            sampled.meta_commit_seconds.clone(),
        );
        registry.register(
            "meta_waiting",
            "Operations that wait for the metadata store's writer",
            sampled.meta_waiting.clone(),
        );
        registry.register(
            "meta_refusing",
            "1 while writes are refused because a commit failed",
            sampled.meta_refusing.clone(),
        );
        registry.register_with_unit(
            "meta_wal",
            "Write-ahead log that is not yet checkpointed",
            Unit::Bytes,
            sampled.meta_wal_bytes.clone(),
        );
        registry.register_with_unit(
            "meta_database",
            "Size of the metadata database",
            Unit::Bytes,
            sampled.meta_bytes.clone(),
        );
        registry.register(
            "blob_operations",
            "Work of the blob store since the start, by kind",
            sampled.blob_operations.clone(),
        );
        registry.register_with_unit(
            "blob_operation",
            "Time spent in that work",
            Unit::Seconds,
            sampled.blob_seconds.clone(),
        );
        registry.register_with_unit(
            "process_resident",
            "Memory in use",
            Unit::Bytes,
            sampled.resident.clone(),
        );
        registry.register(
            "process_open_files",
            "Open file descriptors",
            sampled.files.clone(),
        );
        registry.register_with_unit(
            "process_cpu",
            "Processor time used",
            Unit::Seconds,
            sampled.cpu.clone(),
        );
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What is running", build);
        Self {
            registry: Mutex::new(registry),
            repository_label,
            requests,
            seconds,
            received,
            sent,
            connections,
            closed,
            malformed,
            auth_failures,
            caches,
            sampled,
        }
    }

    /// Counts a finished request.
    pub(super) fn request(&self, finished: &Finished<'_>) {
        let repository = finished
            .facts
            .filter(|_| self.repository_label)
            .and_then(|facts| facts.repository.as_ref())
            .map(ToString::to_string);
        let method = method(finished.method);
        let route = Route {
            route: finished.route,
            method: method.clone(),
        };
        self.requests
            .get_or_create(&Request {
                route: finished.route,
                method,
                status: finished.status.map_or(499, |status| status.as_u16()),
                repository,
            })
            .inc();
        self.seconds
            .get_or_create(&route)
            .observe(finished.duration.as_secs_f64());
        self.received
            .get_or_create(&route)
            .inc_by(finished.bytes_in);
        self.sent.get_or_create(&route).inc_by(finished.bytes_out);
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
    pub fn render(&self, sample: &Sample) -> String {
        self.copy(sample);
        let mut out = String::new();
        let registry = self
            .registry
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match text::encode(&mut out, &registry) {
            Ok(()) => out,
            // Writing to a string cannot fail.
            Err(std::fmt::Error) => String::new(),
        }
    }

    fn copy(&self, sample: &Sample) {
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        let Sample {
            totals,
            meta,
            blob,
            caches,
        } = sample;
        let to = &self.sampled;
        set(&to.uploads, totals.uploads);
        set(&to.repositories, totals.repositories);
        set(&to.manifests, totals.manifests);
        set(&to.tags, totals.tags);
        set(&to.blobs, totals.blobs);
        set(&to.blob_bytes, totals.blob_bytes);
        set(&to.meta_operations, meta.operations);
        set(&to.meta_commits, meta.commits);
        to.meta_commit_seconds.set(meta.commit_time.as_secs_f64());
        set(&to.meta_waiting, meta.waiting);
        set(&to.meta_refusing, u64::from(meta.refusing));
        set(&to.meta_wal_bytes, meta.wal_bytes);
        set(&to.meta_bytes, meta.database_bytes);
        for &(operation, count, nanos) in blob {
            let label = Operation { operation };
            set(&to.blob_operations.get_or_create(&label), count);
            to.blob_seconds
                .get_or_create(&label)
                .set(nanos as f64 / 1e9);
        }
        for &(cache, hits, misses) in caches {
            for (result, count) in [("hit", hits), ("miss", misses)] {
                set(&self.caches.get_or_create(&Cache { cache, result }), count);
            }
        }
        let process = process::read();
        set(&to.resident, process.resident_bytes);
        set(&to.files, process.open_files);
        to.cpu.set(process.cpu_seconds);
    }
}

/// A method as a label: clients can make up any number of them.
fn method(method: &http::Method) -> String {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "PUT" | "POST" | "PATCH" | "DELETE" | "OPTIONS") => {
            known.to_owned()
        }
        _ => "other".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rendered_with_their_labels() {
        let metrics = Metrics::new(false);
        metrics.auth_failed("password");
        let text = metrics.render(&Sample {
            blob: vec![("sync", 3, 1_500_000_000)],
            caches: vec![("token", 5, 2)],
            ..Sample::default()
        });
        for line in [
            "wharf_auth_failures_total{reason=\"password\"} 1",
            "wharf_blob_operations{operation=\"sync\"} 3",
            "wharf_blob_operation_seconds{operation=\"sync\"} 1.5",
            "wharf_cache_lookups{cache=\"token\",result=\"hit\"} 5",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
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
        metrics.request(&Finished {
            id: &crate::http::id::RequestIds::new(1).make(),
            method: &http::Method::GET,
            route: "/v2/",
            status: None,
            complete: false,
            bytes_in: 1,
            bytes_out: 1,
            duration: std::time::Duration::from_millis(1),
            version: http::Version::HTTP_11,
            peer: None,
            facts: None,
        });
        let text = metrics.render(&Sample {
            blob: vec![("sync", 1, 1)],
            caches: vec![("token", 1, 1)],
            ..Sample::default()
        });
        let page = include_str!("../../../../docs/reference/metrics.md");
        let mut listed: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        let mut known: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
            .collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
    }
}
