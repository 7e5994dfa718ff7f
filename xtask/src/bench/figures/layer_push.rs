//! P3: one layer of 1 GiB, durable; also four at once.

use anyhow::Result;

use crate::bench::content::{Large, REPOSITORY, Sending, push_large};
use crate::bench::figure::{
    Against, Bar, Better, Case, Figure, Metric, Sample, Scale, at_least, metric,
};
use crate::bench::load;
use crate::bench::site::{Kind, Site};

const METRICS: &[Metric] = &[metric("", "GB/s", Better::More)];
const ALL: &[Kind] = &[
    Kind::Wharf,
    Kind::Reference,
    Kind::Distribution,
    Kind::Angos,
    Kind::Zot,
];

/// The bars for one push at a time.
fn one() -> Vec<Bar> {
    vec![
        at_least(0.7, Against::Rival(Kind::Reference)),
        at_least(1.6, Against::Rival(Kind::Distribution)),
    ]
}

pub(super) fn figure() -> Figure {
    let push = |name, sending, at_once, bars| {
        Box::new(Push {
            name,
            sending,
            at_once,
            bars,
        })
    };
    Figure {
        id: "p3",
        title: "push of a 1 GiB layer",
        cases: vec![
            push("monolithic", Sending::Monolithic, 1, one()),
            push("streamed", Sending::Streamed, 1, one()),
            push(
                "four at once, streamed",
                Sending::Streamed,
                4,
                vec![at_least(1.1, Against::BestPeer)],
            ),
        ],
    }
}

struct Push {
    name: &'static str,
    sending: Sending,
    at_once: u64,
    bars: Vec<Bar>,
}

impl Case for Push {
    fn name(&self) -> &'static str {
        self.name
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn unit_of_work(&self) -> &'static str {
        "GB"
    }

    fn contestants(&self) -> &'static [Kind] {
        ALL
    }

    fn in_short(&self) -> bool {
        self.at_once == 1
    }

    fn run(&self, site: Site, scale: Scale) -> Result<Sample> {
        let size = scale.pick(1 << 30, 256 << 20);
        let layers: Vec<Large> = (0..self.at_once).map(|n| Large::new(n, size)).collect();
        let meter = site.meter();
        let seen = load::all(&site, self.at_once as usize, self.at_once, |client, n| {
            push_large(client, REPOSITORY, &layers[n as usize], self.sending)
        })?;
        let usage = meter.stop();
        let gigabytes = (size * self.at_once) as f64 / 1e9;
        Ok(Sample {
            values: vec![gigabytes / seen.seconds],
            work: gigabytes,
            usage,
        })
    }

    fn bars(&self) -> Vec<Bar> {
        self.bars.clone()
    }
}
