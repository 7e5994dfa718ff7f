//! P12: how long manifests take at a fixed rate while four layers of 1 GiB are pushed.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};

use crate::bench::content::{Large, REPOSITORY, Sending, push_large};
use crate::bench::figure::{
    Against, Bar, Better, Case, Figure, Metric, Sample, Scale, at_most, metric,
};
use crate::bench::site::{Kind, Site};
use crate::bench::{fill, load};

const METRICS: &[Metric] = &[
    metric("p99", "ms", Better::Less),
    metric("p50", "ms", Better::Less),
];
const PUSHES: u64 = 4;
const TAGS: u64 = 50;
/// Manifests per second: what every contestant can do beside the pushes.
const RATE: f64 = 300.0;

pub(super) fn figure() -> Figure {
    Figure {
        id: "p12",
        title: "manifest GET at 300/s while 4 × 1 GiB are pushed",
        cases: vec![Box::new(During)],
    }
}

struct During;

impl Case for During {
    fn name(&self) -> &'static str {
        "GET"
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn unit_of_work(&self) -> &'static str {
        "GB"
    }

    fn contestants(&self) -> &'static [Kind] {
        &[Kind::Wharf, Kind::Distribution, Kind::Angos, Kind::Zot]
    }

    fn in_short(&self) -> bool {
        false
    }

    fn run(&self, site: Site, scale: Scale) -> Result<Sample> {
        let size = scale.pick(1 << 30, 256 << 20);
        let layers: Vec<Large> = (0..PUSHES).map(|n| Large::new(n, size)).collect();
        fill::tags(&site, REPOSITORY, TAGS)?;
        let stop = AtomicBool::new(false);
        let meter = site.meter();
        let seen = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                load::open(&site, 8, RATE, &stop, |client, number| {
                    let tag = fill::tag(number % TAGS);
                    client
                        .get(&format!("/v2/{REPOSITORY}/manifests/{tag}"))?
                        .expect(200, "a manifest")?;
                    Ok(())
                })
            });
            let pushed = load::all(&site, PUSHES as usize, PUSHES, |client, n| {
                push_large(
                    client,
                    "bench/layers",
                    &layers[n as usize],
                    Sending::Streamed,
                )
            });
            stop.store(true, Ordering::Relaxed);
            let seen = reader.join().ok().context("the reader's thread")??;
            pushed.map(|_| seen)
        })?;
        Ok(Sample {
            values: vec![seen.latency.percentile(99.0), seen.latency.percentile(50.0)],
            work: (size * PUSHES) as f64 / 1e9,
            usage: meter.stop(),
        })
    }

    fn bars(&self) -> Vec<Bar> {
        vec![at_most(0.333, Against::Rival(Kind::Distribution))]
    }
}
