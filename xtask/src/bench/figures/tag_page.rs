//! P5: a page of 100 in the middle of many: tags, referrers, repositories.

use std::path::Path;

use anyhow::Result;

use crate::bench::content::REPOSITORY;
use crate::bench::figure::{
    Against, Bar, Better, Case, Figure, Metric, Sample, Scale, Store, What, at_most, metric,
};
use crate::bench::site::{Kind, Site};
use crate::bench::{fill, load};
use crate::grow;

const METRICS: &[Metric] = &[
    metric("p50", "ms", Better::Less),
    metric("p99", "ms", Better::Less),
];

/// What is listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    Tags,
    Referrers,
    Catalogue,
}

pub(super) fn figure() -> Figure {
    let page = |name, list, count, contestants, smallest| {
        let mut bars = vec![
            at_most(0.5, Against::Number),
            at_most(5.0, Against::Number).of(What::Value(1)),
        ];
        if let Some(smallest) = smallest {
            bars.push(at_most(1.2, Against::Case(smallest)));
        }
        Box::new(Page {
            name,
            list,
            count,
            contestants,
            bars,
        })
    };
    const ALL: &[Kind] = &[Kind::Wharf, Kind::Distribution, Kind::Angos, Kind::Zot];
    const OURS: &[Kind] = &[Kind::Wharf];
    let (tags, referrers, catalogue) = ("2,000 tags", "2,000 referrers", "2,000 repositories");
    Figure {
        id: "p5",
        title: "page of 100 in the middle, one client",
        cases: vec![
            page(tags, List::Tags, 2_000, ALL, None),
            page("100,000 tags", List::Tags, 100_000, OURS, Some(tags)),
            page("1,000,000 tags", List::Tags, 1_000_000, OURS, Some(tags)),
            page(referrers, List::Referrers, 2_000, OURS, None),
            page(
                "100,000 referrers",
                List::Referrers,
                100_000,
                OURS,
                Some(referrers),
            ),
            page(catalogue, List::Catalogue, 2_000, OURS, None),
            page(
                "100,000 repositories",
                List::Catalogue,
                100_000,
                OURS,
                Some(catalogue),
            ),
        ],
    }
}

struct Page {
    name: &'static str,
    list: List,
    count: u64,
    contestants: &'static [Kind],
    bars: Vec<Bar>,
}

impl Page {
    /// The store: as many of one thing as asked for, and little of the others.
    fn shape(&self) -> grow::Shape {
        let mut shape = grow::Shape {
            blobs: 1,
            files: 0,
            ..grow::Shape::of(1_000)
        };
        match self.list {
            List::Tags => shape.tags = Some(self.count),
            List::Referrers => shape.referrers = self.count,
            List::Catalogue => shape.repositories = self.count,
        }
        shape
    }

    /// The page in the middle. A page of referrers has no `last` that a client could make up: its first page stands for
    /// all, since the server continues from an opaque cursor in the same way.
    fn path(&self, kind: Kind) -> String {
        let middle = self.count / 2;
        match self.list {
            List::Tags if kind == Kind::Wharf => format!(
                "/v2/{}/tags/list?n=100&last={}",
                super::GROWN,
                super::grown_tag(middle)
            ),
            List::Tags => format!(
                "/v2/{REPOSITORY}/tags/list?n=100&last={}",
                fill::tag(middle)
            ),
            List::Referrers => format!(
                "/v2/{}/referrers/{}?n=100",
                super::GROWN,
                self.shape().image_digest(0)
            ),
            List::Catalogue => format!(
                "/v2/_catalog?n=100&last={}",
                super::grown_repository(middle)
            ),
        }
    }
}

impl Case for Page {
    fn name(&self) -> &'static str {
        self.name
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn unit_of_work(&self) -> &'static str {
        "page"
    }

    fn contestants(&self) -> &'static [Kind] {
        self.contestants
    }

    fn store(&self) -> Store {
        Store::Kept(self.name)
    }

    fn in_short(&self) -> bool {
        self.list == List::Tags && self.count <= 100_000
    }

    fn lay(&self, kind: Kind, data: &Path) -> Result<bool> {
        if kind != Kind::Wharf {
            return Ok(false);
        }
        grow::fill(&self.shape(), data)?;
        Ok(true)
    }

    fn fill(&self, site: &Site, _scale: Scale) -> Result<()> {
        fill::tags(site, REPOSITORY, self.count)
    }

    fn run(&self, site: Site, scale: Scale) -> Result<Sample> {
        let path = self.path(site.kind);
        let meter = site.meter();
        let seen = load::during(&site, 1, scale.seconds, |client, _| {
            client.get(&path)?.expect(200, "a page")?;
            Ok(())
        })?;
        Ok(Sample {
            values: vec![seen.latency.percentile(50.0), seen.latency.percentile(99.0)],
            work: seen.done as f64,
            usage: meter.stop(),
        })
    }

    fn bars(&self) -> Vec<Bar> {
        self.bars.clone()
    }
}
