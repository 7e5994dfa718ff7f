//! What a figure is: cases, each with contestants, one measurement, and the bars that the issue sets.
//!
//! A new figure is one file in [`super::figures`] that implements [`Case`] and is listed there.

use std::path::Path;

use anyhow::Result;

use super::site::{Kind, Setup, Site};
use super::usage::Usage;

/// Whether more of a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// Throughput.
    More,
    /// Latency, memory.
    Less,
}

/// One number that a case yields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    /// Added to the case's name when it has several.
    pub(crate) name: &'static str,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// Which way is good.
    pub(crate) better: Better,
}

/// A metric.
pub(crate) const fn metric(name: &'static str, unit: &'static str, better: Better) -> Metric {
    Metric { name, unit, better }
}

/// What one measurement yields.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// One per metric of the case, in their order.
    pub(crate) values: Vec<f64>,
    /// Units of work done, for the processor time per unit.
    pub(crate) work: f64,
    /// What it cost the server.
    pub(crate) usage: Usage,
}

/// Where the folder comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// An empty one each time.
    Fresh,
    /// Filled once per run, shared by all cases that name it.
    Kept(&'static str),
}

/// What a bar compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The metric with this index.
    Value(usize),
    /// Processor time per unit of work.
    Cpu,
}

/// What it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// The same of a rival.
    Rival(Kind),
    /// The same of the best registry but ours.
    BestPeer,
    /// The same of Wharf in another case of the figure.
    Case(&'static str),
    /// Another metric of the same case, by its index.
    Metric(usize),
    /// The bare number.
    Number,
}

/// A promise of the issue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bar {
    /// What is compared.
    pub(crate) what: What,
    /// `true`: at least; `false`: at most.
    pub(crate) at_least: bool,
    /// The factor, or the number itself.
    pub(crate) factor: f64,
    /// With what.
    pub(crate) against: Against,
}

/// `value ≥ factor × rival`.
pub(crate) const fn at_least(factor: f64, against: Against) -> Bar {
    Bar {
        what: What::Value(0),
        at_least: true,
        factor,
        against,
    }
}

/// `value ≤ factor × rival`.
pub(crate) const fn at_most(factor: f64, against: Against) -> Bar {
    Bar {
        what: What::Value(0),
        at_least: false,
        factor,
        against,
    }
}

impl Bar {
    /// The same for another metric.
    pub(crate) const fn of(mut self, what: What) -> Bar {
        self.what = what;
        self
    }
}

/// How large the run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// The form for CI: less data, less time.
    pub(crate) short: bool,
    /// Seconds of a measurement that has no natural end.
    pub(crate) seconds: f64,
}

impl Scale {
    /// One of two sizes.
    pub(crate) fn pick<T>(self, full: T, short: T) -> T {
        if self.short { short } else { full }
    }
}

/// One case of a figure.
pub(crate) trait Case {
    /// What tells it from the figure's other cases.
    fn name(&self) -> &'static str;
    /// The numbers that it yields.
    fn metrics(&self) -> &'static [Metric];
    /// What one unit of work is: "request", "GB".
    fn unit_of_work(&self) -> &'static str;
    /// Who takes part; those whose program is missing are left out.
    fn contestants(&self) -> &'static [Kind];
    /// How they are started.
    fn setup(&self) -> Setup {
        Setup::default()
    }
    /// Where their folder comes from.
    fn store(&self) -> Store {
        Store::Fresh
    }
    /// Whether the short form has it.
    fn in_short(&self) -> bool {
        true
    }
    /// Lays a kept folder's data out before the server's first start; `true` when nothing is left to fill.
    fn lay(&self, _kind: Kind, _data: &Path) -> Result<bool> {
        Ok(false)
    }
    /// Fills a kept folder; the server runs plainly.
    fn fill(&self, _site: &Site, _scale: Scale) -> Result<()> {
        Ok(())
    }
    /// Measures once.
    fn run(&self, site: Site, scale: Scale) -> Result<Sample>;
    /// The bars.
    fn bars(&self) -> Vec<Bar> {
        Vec::new()
    }
}

/// A line group of the table.
pub(crate) struct Figure {
    /// The number for it, in small letters: "p1".
    pub(crate) id: &'static str,
    /// What is done.
    pub(crate) title: &'static str,
    /// Its cases.
    pub(crate) cases: Vec<Box<dyn Case>>,
}
