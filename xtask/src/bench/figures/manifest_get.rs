//! P1: a manifest by tag, 16 connections.

use anyhow::Result;

use crate::bench::content::{self, REPOSITORY};
use crate::bench::figure::{
    Against, Bar, Better, Case, Figure, Metric, Sample, Scale, Store, at_least, metric,
};
use crate::bench::site::{Kind, Setup, Site};
use crate::bench::{fill, wrk};

const METRICS: &[Metric] = &[metric("", "requests/s", Better::More)];
/// Names asked for in turn: more than any cache of one entry, few enough for a script.
const ASKED: u64 = 1000;
const ALL: &[Kind] = &[
    Kind::Wharf,
    Kind::Nginx,
    Kind::Distribution,
    Kind::Angos,
    Kind::Zot,
];

pub(super) fn figure() -> Figure {
    let peers = |name, store, tags| Get {
        name,
        store,
        tags,
        contestants: ALL,
        setup: Setup::default(),
        bars: vec![
            at_least(0.8, Against::Rival(Kind::Nginx)),
            at_least(6.0, Against::Rival(Kind::Distribution)),
        ],
    };
    let alone = |name, setup, bars| Get {
        name,
        store: "tags-50",
        tags: 50,
        contestants: &[Kind::Wharf],
        setup,
        bars,
    };
    Figure {
        id: "p1",
        title: "manifest GET by tag, 16 connections",
        cases: vec![
            Box::new(peers("50 tags", "tags-50", 50)),
            Box::new(alone(
                "50 tags, Bearer token",
                Setup {
                    credentials: true,
                    ..Setup::default()
                },
                vec![at_least(0.7, Against::Case("50 tags"))],
            )),
            Box::new(alone(
                "50 tags, request log on",
                Setup {
                    request_log: true,
                    ..Setup::default()
                },
                Vec::new(),
            )),
            Box::new(peers("2,600 tags", "tags-2600", 2600)),
            Box::new(Get {
                name: "100,000 tags",
                store: "tags-100000",
                tags: 100_000,
                contestants: &[Kind::Wharf, Kind::Nginx],
                setup: Setup::default(),
                bars: vec![at_least(0.8, Against::Rival(Kind::Nginx))],
            }),
        ],
    }
}

struct Get {
    name: &'static str,
    store: &'static str,
    tags: u64,
    contestants: &'static [Kind],
    setup: Setup,
    bars: Vec<Bar>,
}

impl Get {
    /// Numbers of the tags that are asked for, spread over all.
    fn asked(&self) -> impl Iterator<Item = u64> {
        let tags = self.tags;
        let count = tags.min(ASKED);
        (0..count).map(move |n| n * tags / count)
    }
}

impl Case for Get {
    fn name(&self) -> &'static str {
        self.name
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn unit_of_work(&self) -> &'static str {
        "request"
    }

    fn contestants(&self) -> &'static [Kind] {
        self.contestants
    }

    fn setup(&self) -> Setup {
        self.setup
    }

    fn store(&self) -> Store {
        Store::Kept(self.store)
    }

    fn in_short(&self) -> bool {
        self.tags < 2600 && !self.setup.request_log
    }

    fn fill(&self, site: &Site, _scale: Scale) -> Result<()> {
        match site.kind {
            Kind::Nginx => fill::tag_files(site, self.asked()),
            _ => fill::tags(site, REPOSITORY, self.tags),
        }
    }

    fn run(&self, site: Site, scale: Scale) -> Result<Sample> {
        let paths: Vec<String> = self
            .asked()
            .map(|n| format!("/v2/{REPOSITORY}/manifests/{}", fill::tag(n)))
            .collect();
        let token = if self.setup.credentials {
            Some(content::bearer(&site)?)
        } else {
            None
        };
        let meter = site.meter();
        let seen = wrk::run(&site, &paths, token.as_deref(), scale.seconds)?;
        Ok(Sample {
            values: vec![seen.rate],
            work: seen.requests,
            usage: meter.stop(),
        })
    }

    fn bars(&self) -> Vec<Bar> {
        self.bars.clone()
    }
}
