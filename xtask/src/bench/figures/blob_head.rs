//! P11: HEAD of 20 present blobs and 20 absent ones by 16 clients: what every push begins with.

use anyhow::{Result, ensure};

use crate::bench::content::{REPOSITORY, digest, push_small, small};
use crate::bench::figure::{
    Against, Bar, Better, Case, Figure, Metric, Sample, Scale, Store, at_least, metric,
};
use crate::bench::load;
use crate::bench::site::{Kind, Site};

const METRICS: &[Metric] = &[
    metric("", "requests/s", Better::More),
    metric("p99", "ms", Better::Less),
];
/// Present ones, and as many absent.
const BLOBS: u64 = 20;

pub(super) fn figure() -> Figure {
    Figure {
        id: "p11",
        title: "blob HEAD, 20 present and 20 absent, 16 clients",
        cases: vec![Box::new(Heads)],
    }
}

struct Heads;

impl Case for Heads {
    fn name(&self) -> &'static str {
        "HEAD"
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn unit_of_work(&self) -> &'static str {
        "request"
    }

    fn contestants(&self) -> &'static [Kind] {
        &[Kind::Wharf, Kind::Distribution, Kind::Angos, Kind::Zot]
    }

    fn store(&self) -> Store {
        Store::Kept("blobs-20")
    }

    fn fill(&self, site: &Site, _scale: Scale) -> Result<()> {
        for number in 0..BLOBS {
            push_small(&mut site.client(), REPOSITORY, &small(number, 1024))?;
        }
        Ok(())
    }

    fn run(&self, site: Site, scale: Scale) -> Result<Sample> {
        let paths: Vec<String> = (0..2 * BLOBS)
            .map(|n| format!("/v2/{REPOSITORY}/blobs/{}", digest(&small(n, 1024))))
            .collect();
        let meter = site.meter();
        let seen = load::during(&site, 16, scale.seconds, |client, number| {
            let number = number % (2 * BLOBS);
            let wanted = if number < BLOBS { 200 } else { 404 };
            let answer = client.head(&paths[number as usize])?;
            ensure!(
                answer.status == wanted,
                "{} instead of {wanted}",
                answer.status
            );
            Ok(())
        })?;
        Ok(Sample {
            values: vec![seen.rate(), seen.latency.percentile(99.0)],
            work: seen.done as f64,
            usage: meter.stop(),
        })
    }

    fn bars(&self) -> Vec<Bar> {
        vec![at_least(6.0, Against::Rival(Kind::Distribution))]
    }
}
