//! P10: time to the first answer over a store of 1 M manifests and 5 M blobs, after a clean end and after `kill -9`.

use std::path::Path;

use anyhow::Result;

use crate::bench::content::{manifest, push_manifest, push_small, small};
use crate::bench::figure::{
    Against, Bar, Better, Case, Figure, Metric, Sample, Scale, Store, at_most, metric,
};
use crate::bench::load;
use crate::bench::site::{Kind, Site};

const METRICS: &[Metric] = &[metric("", "s", Better::Less)];
/// Manifests, each with five blobs.
const MANIFESTS: u64 = 1_000_000;

pub(super) fn figure() -> Figure {
    Figure {
        id: "p10",
        title: "ready with 1 M manifests and 5 M blobs",
        cases: vec![
            Box::new(Ready {
                name: "after a start",
                killed: false,
            }),
            Box::new(Ready {
                name: "after kill -9 under pushes",
                killed: true,
            }),
        ],
    }
}

struct Ready {
    name: &'static str,
    killed: bool,
}

impl Case for Ready {
    fn name(&self) -> &'static str {
        self.name
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn unit_of_work(&self) -> &'static str {
        "start"
    }

    fn contestants(&self) -> &'static [Kind] {
        &[Kind::Wharf]
    }

    fn store(&self) -> Store {
        Store::Kept("manifests-1M")
    }

    fn in_short(&self) -> bool {
        false
    }

    fn lay(&self, _kind: Kind, data: &Path) -> Result<bool> {
        super::big_store(MANIFESTS, data)?;
        Ok(true)
    }

    fn run(&self, site: Site, scale: Scale) -> Result<Sample> {
        let site = if self.killed {
            load::during(&site, 16, scale.seconds, |client, number| {
                let (config, layer) = (small(2 * number, 1024), small(2 * number + 1, 64 << 10));
                push_small(client, "bench/killed", &config)?;
                push_small(client, "bench/killed", &layer)?;
                let tag = format!("v{number}");
                push_manifest(
                    client,
                    "bench/killed",
                    &tag,
                    &manifest(&config, &layer, &tag),
                )
            })?;
            site.kill_and_restart()?
        } else {
            site
        };
        let meter = site.meter();
        Ok(Sample {
            values: vec![site.ready_after.as_secs_f64()],
            work: 1.0,
            usage: meter.stop(),
        })
    }

    fn bars(&self) -> Vec<Bar> {
        vec![at_most(1.0, Against::Number)]
    }
}
