//! Figures that others keep: copied by `app.rs` when somebody asks, and written out by a collector.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use wharf_meta::usage::{Counted, Usage};

/// So many prefixes are told apart; the rest is one more.
pub const PREFIXES: u32 = 100;
/// All other prefixes: no name of a repository.
const REST: &str = "*";

/// What [`super::Metrics::render`] takes over from the stores.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Counters of the metadata store.
    pub totals: wharf_meta::repository::Totals,
    /// Figures of its engine.
    pub meta: wharf_meta::Stats,
    /// Kinds of jobs with what they have done.
    pub jobs: Vec<(&'static str, wharf_core::job::Figures)>,
    /// What collection has removed.
    pub freed: wharf_core::gc::Freed,
    /// Blobs in quarantine.
    pub quarantined: u64,
    /// Work of the blob store.
    pub blob: wharf_blob::Figures,
    /// What prefixes take up: the largest ones, and the whole store.
    pub prefixes: Vec<Counted>,
    /// Caches: name, hits, misses.
    pub caches: Vec<(&'static str, u64, u64)>,
    /// Sign-ins, refusals and reads that came to the audit log, and those of them that were only counted together.
    pub audit: (u64, u64),
    /// Requests that were refused by rates, by kind.
    pub limited: Vec<(&'static str, u64)>,
}

/// Writes the sample that was taken last.
#[derive(Debug)]
pub(super) struct Latest(pub(super) Arc<ArcSwap<Sample>>);

impl Collector for Latest {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sample = self.0.load();
        let (totals, meta) = (&sample.totals, &sample.meta);
        let mut out = Writer(encoder);
        out.gauge("uploads_open", "Upload sessions", None, totals.uploads)?;
        out.gauge("repositories", "Repositories", None, totals.repositories)?;
        out.gauge("manifests", "Manifests", None, totals.manifests)?;
        out.gauge("tags", "Tags", None, totals.tags)?;
        out.gauge("blobs", "Blobs", None, totals.blobs)?;
        let help = "Bytes of all blobs, each counted once";
        out.gauge("blob", help, Some(&Unit::Bytes), totals.blob_bytes)?;

        let help = "Operations that the metadata store committed";
        out.counter("meta_operations", help, None, meta.operations)?;
        let help = "Operations that the metadata store answered with an error";
        out.counter("meta_failed_operations", help, None, meta.failed)?;
        let help = "Commits of the metadata store, each of one or more operations";
        out.counter("meta_commits", help, None, meta.commits)?;
        let help = "Commits that failed";
        out.counter("meta_failed_commits", help, None, meta.failed_commits)?;
        let help = "Time spent in commits";
        let time = meta.commit_time.as_secs_f64();
        out.counter("meta_commit", help, Some(&Unit::Seconds), time)?;
        let help = "Reads of the metadata store, without those of the pages of listings";
        out.counter("meta_reads", help, None, meta.reads)?;
        let help = "Reads of pages of listings";
        out.counter("meta_scans", help, None, meta.scans)?;
        let help = "Operations that wait for the metadata store's writer";
        out.gauge("meta_waiting", help, None, meta.waiting)?;
        let help = "1 while writes are refused because a commit failed";
        out.gauge("meta_refusing", help, None, u64::from(meta.refusing))?;
        let help = "1 while the disk is too full for what was last to be written";
        out.gauge("meta_full", help, None, u64::from(meta.full))?;
        let help = "1 while the metadata database cannot be reached";
        out.gauge(
            "meta_unreachable",
            help,
            None,
            u64::from(meta.unreachable.is_some()),
        )?;
        let help = "Connections to the metadata database that transactions use";
        out.gauge("meta_connections", help, None, meta.connections)?;
        let help = "Connections to the metadata database that were made";
        out.counter("meta_connected", help, None, meta.connected)?;
        let help = "Times that somebody waited for an answer of the metadata database";
        out.counter("meta_round_trips", help, None, meta.round_trips)?;
        let help = "Operations that were tried again on the metadata database";
        out.counter("meta_retries", help, None, meta.retries)?;
        let help = "1 since damage was met in the metadata database; nothing is written";
        out.gauge("meta_damaged", help, None, u64::from(meta.damaged))?;
        let help = "Checkpoints, which move the write-ahead log into the database";
        out.counter("meta_checkpoints", help, None, meta.checkpoints)?;
        let help = "Checkpoints that failed";
        out.counter(
            "meta_failed_checkpoints",
            help,
            None,
            meta.failed_checkpoints,
        )?;
        let help = "Write-ahead log that is not yet checkpointed";
        out.gauge("meta_wal", help, Some(&Unit::Bytes), meta.wal_bytes)?;
        let help = "Size of the write-ahead log's file";
        out.gauge(
            "meta_wal_file",
            help,
            Some(&Unit::Bytes),
            meta.wal_file_bytes,
        )?;
        let help = "Size of the metadata database";
        out.gauge(
            "meta_database",
            help,
            Some(&Unit::Bytes),
            meta.database_bytes,
        )?;

        let works = &sample.blob.work;
        let times = works
            .iter()
            .map(|&(kind, times, _)| ([("operation", kind)], times));
        out.counters(
            "blob_operations",
            "Work of the blob store, by kind",
            None,
            times,
        )?;
        let seconds = works
            .iter()
            .map(|&(kind, _, nanos)| ([("operation", kind)], nanos as f64 / 1e9));
        let help = "Time spent in that work";
        out.counters("blob_operation", help, Some(&Unit::Seconds), seconds)?;
        let help = "Blobs whose bytes were found lost or wrong, and that no push has healed yet";
        out.gauge("blobs_quarantined", help, None, sample.quarantined)?;
        let (largest, rest) = by_prefix(&sample.prefixes);
        let used = largest
            .iter()
            .map(|(prefix, usage)| ([("prefix", *prefix)], usage.logical));
        let help = "Bytes of all that repositories hold, by the first part of their names; what several hold counts for each";
        out.gauges(
            "prefix",
            help,
            Some(&Unit::Bytes),
            used.chain(rest.map(|rest| ([("prefix", REST)], rest))),
        )?;
        let own = largest
            .iter()
            .map(|(prefix, usage)| ([("prefix", *prefix)], usage.own));
        let help = "Bytes of what only repositories of this prefix hold, as they were counted last";
        out.gauges("prefix_own", help, Some(&Unit::Bytes), own)?;
        let freed = &sample.freed;
        let help = "Links of repositories to blobs that collection removed";
        out.counter("gc_links", help, None, freed.links)?;
        out.counter(
            "gc_blobs",
            "Blobs that collection removed",
            None,
            freed.blobs,
        )?;
        let help = "Bytes of the blobs that collection removed";
        out.counter("gc_freed", help, Some(&Unit::Bytes), freed.bytes)?;
        let runs = sample.jobs.iter().flat_map(|&(kind, figures)| {
            [("done", figures.done), ("failed", figures.failed)]
                .map(|(result, count)| ([("kind", kind), ("result", result)], count))
        });
        out.counters("job_runs", "Runs of jobs, by kind and result", None, runs)?;
        let steps = sample.jobs.iter();
        let steps = steps.map(|&(kind, figures)| ([("kind", kind)], figures.steps));
        out.counters("job_steps", "Steps of jobs, by kind", None, steps)?;
        let seconds = sample.jobs.iter();
        let seconds =
            seconds.map(|&(kind, figures)| ([("kind", kind)], figures.millis as f64 / 1e3));
        let help = "Time spent in steps of jobs, by kind";
        out.counters("job", help, Some(&Unit::Seconds), seconds)?;
        let help = "Requests to the object store that failed after all repetitions";
        out.counter("blob_failed_requests", help, None, sample.blob.failed)?;
        let help =
            "Requests to the object store that were not tried, because those before them failed";
        out.counter("blob_refused_requests", help, None, sample.blob.refused)?;
        let help = "1 while the object store is left alone because it failed again and again";
        let open = u64::from(sample.blob.open_circuit);
        out.gauge("blob_circuit_open", help, None, open)?;
        let (noted, overflowed) = sample.audit;
        let help = "Sign-ins, refusals and reads that came to the audit log";
        out.counter("audit_noted", help, None, noted)?;
        let help =
            "Those of them that were too many to be told apart, and are in the log as a number";
        out.counter("audit_overflowed", help, None, overflowed)?;
        let lookups = sample.caches.iter().flat_map(|&(cache, hits, misses)| {
            [("hit", hits), ("miss", misses)]
                .map(|(result, count)| ([("cache", cache), ("result", result)], count))
        });
        out.counters(
            "cache_lookups",
            "Look-ups in memory, by cache and result",
            None,
            lookups,
        )?;
        let limited = sample.limited.iter();
        let limited = limited.map(|&(kind, count)| ([("kind", kind)], count));
        let help =
            "Requests that rates refused, by kind; with its immediate retries each counts once";
        out.counters("rate_limited", help, None, limited)
    }
}

/// Names, helps and values in one call each. Helps get a full stop, as those of registered metrics do.
pub(super) struct Writer<'a>(pub(super) DescriptorEncoder<'a>);

impl Writer<'_> {
    pub(super) fn gauge<N: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: N,
    ) -> fmt::Result {
        self.metric(name, help, unit, &ConstGauge::new(value))
    }

    pub(super) fn counter<N: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: N,
    ) -> fmt::Result {
        self.metric(name, help, unit, &ConstCounter::new(value))
    }

    fn metric(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        metric: &impl EncodeMetric,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let encoder = self
            .0
            .encode_descriptor(name, &help, unit, metric.metric_type())?;
        metric.encode(encoder)
    }

    fn gauges<'m, N: EncodeGaugeValue, const L: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        members: impl Iterator<Item = ([(&'static str, &'m str); L], N)>,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let mut encoder = self
            .0
            .encode_descriptor(name, &help, unit, MetricType::Gauge)?;
        for (labels, value) in members {
            ConstGauge::new(value).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counters<N: EncodeCounterValue, const L: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        members: impl Iterator<Item = ([(&'static str, &'static str); L], N)>,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let mut encoder = self
            .0
            .encode_descriptor(name, &help, unit, MetricType::Counter)?;
        for (labels, value) in members {
            ConstCounter::new(value).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// The largest prefixes with what they take up, and what all others do together.
fn by_prefix(found: &[Counted]) -> (Vec<(&str, Usage)>, Option<u64>) {
    let whole = found.iter().find(|row| row.name.is_empty());
    let largest: Vec<_> = found
        .iter()
        .filter(|row| !row.name.is_empty())
        .take(PREFIXES as usize)
        .map(|row| (row.name.as_str(), row.usage))
        .collect();
    let told: u64 = largest.iter().map(|(_, usage)| usage.logical).sum();
    let rest = whole.map(|whole| whole.usage.logical.saturating_sub(told));
    (largest, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_prefixes_are_told_apart_and_the_rest_is_one() {
        let row = |name: String, logical| Counted {
            name,
            usage: Usage {
                logical,
                ..Usage::default()
            },
            at: None,
        };
        let mut found = vec![row(String::new(), 10_000)];
        found.extend((0..=PREFIXES).map(|n| row(format!("team{n}"), 50)));
        let (largest, rest) = by_prefix(&found);
        assert_eq!(largest.len(), PREFIXES as usize);
        assert_eq!(rest, Some(10_000 - 50 * u64::from(PREFIXES)));
        assert_eq!(by_prefix(&[]), (Vec::new(), None));
    }
}
