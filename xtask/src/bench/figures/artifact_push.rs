//! P4: small artifacts pushed into one repository by 16 clients, each durable when it is answered.

use std::time::Duration;

use anyhow::Result;

use crate::bench::behind::Behind;
use crate::bench::content::{REPOSITORY, manifest, push_manifest, push_small, small};
use crate::bench::figure::{
    Against, Bar, Better, Case, Figure, Metric, Sample, Scale, What, at_least, at_most, metric,
};
use crate::bench::load;
use crate::bench::site::{Kind, Setup, Site};

const RATE: &[Metric] = &[
    metric("", "artifacts/s", Better::More),
    metric("p99", "ms", Better::Less),
];
const TAGS: &[Metric] = &[
    metric("", "tags/s", Better::More),
    metric("p99", "ms", Better::Less),
];
const FLUSHES: &[Metric] = &[metric("", "flushes/artifact", Better::Less)];
const ALL: &[Kind] = &[Kind::Wharf, Kind::Distribution, Kind::Angos, Kind::Zot];
const CLIENTS: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    AsItIs,
    Slow,
    Counted,
}

pub(super) fn figure() -> Figure {
    let distribution = Against::Rival(Kind::Distribution);
    let zot = Against::Rival(Kind::Zot);
    let small = || vec![at_least(15.0, distribution), at_least(8.0, zot)];
    let larger = || vec![at_least(8.0, distribution)];
    let tags = || vec![at_least(10.0, distribution)];
    let counted = |most| vec![at_most(most, Against::Number).of(What::Value(0))];
    let push = |name, layer, flush, bars| {
        Box::new(Push {
            name,
            layer,
            flush,
            behind: Behind::Files,
            bars,
        })
    };
    Figure {
        id: "p4",
        title: "small artifacts, 16 clients",
        cases: vec![
            push("layer of 1 KiB", Some(1024), Flush::AsItIs, small()),
            push("layer of 64 KiB", Some(64 << 10), Flush::AsItIs, larger()),
            push("tag only", None, Flush::AsItIs, tags()),
            push(
                "layer of 1 KiB, flushes + 2 ms",
                Some(1024),
                Flush::Slow,
                small(),
            ),
            push(
                "layer of 64 KiB, flushes + 2 ms",
                Some(64 << 10),
                Flush::Slow,
                larger(),
            ),
            push("tag only, flushes + 2 ms", None, Flush::Slow, tags()),
            push(
                "flushes, layer of 1 KiB",
                Some(1024),
                Flush::Counted,
                counted(1.0),
            ),
            push(
                "flushes, layer of 64 KiB",
                Some(64 << 10),
                Flush::Counted,
                counted(3.0),
            ),
        ],
    }
}

struct Push {
    name: &'static str,
    /// Bytes of the layer; nothing when only the tag is pushed.
    layer: Option<usize>,
    flush: Flush,
    behind: Behind,
    bars: Vec<Bar>,
}

/// Small artifacts, for other places than files.
pub(super) fn behind(name: &'static str, behind: Behind, bars: Vec<Bar>) -> impl Case {
    Push {
        name,
        layer: Some(1024),
        flush: Flush::AsItIs,
        behind,
        bars,
    }
}

impl Case for Push {
    fn name(&self) -> &'static str {
        self.name
    }

    fn metrics(&self) -> &'static [Metric] {
        match (self.flush, self.layer) {
            (Flush::Counted, _) => FLUSHES,
            (_, Some(_)) => RATE,
            (_, None) => TAGS,
        }
    }

    fn unit_of_work(&self) -> &'static str {
        if self.layer.is_some() {
            "artifact"
        } else {
            "tag"
        }
    }

    fn contestants(&self) -> &'static [Kind] {
        ALL
    }

    fn setup(&self) -> Setup {
        Setup {
            slow_flush: self.flush == Flush::Slow,
            count_flushes: self.flush == Flush::Counted,
            behind: self.behind,
            ..Setup::default()
        }
    }

    fn in_short(&self) -> bool {
        self.flush == Flush::AsItIs && self.layer != Some(64 << 10)
    }

    fn run(&self, site: Site, scale: Scale) -> Result<Sample> {
        // What tags alone are put on; also the repository is there before the clock starts.
        let (config, layer) = (small(0, 1024), small(1, 1024));
        let mut client = site.client();
        push_small(&mut client, REPOSITORY, &config)?;
        push_small(&mut client, REPOSITORY, &layer)?;
        let one = manifest(&config, &layer, "one");
        push_manifest(&mut client, REPOSITORY, "first", &one)?;
        let before = flushes(&site);
        let meter = site.meter();
        let seen = load::during(&site, CLIENTS, scale.seconds, |client, number| {
            let tag = format!("v{number}");
            let Some(size) = self.layer else {
                return push_manifest(client, REPOSITORY, &tag, &one);
            };
            let config = small(2 * number + 2, 1024);
            let layer = small(2 * number + 3, size);
            push_small(client, REPOSITORY, &config)?;
            push_small(client, REPOSITORY, &layer)?;
            push_manifest(client, REPOSITORY, &tag, &manifest(&config, &layer, &tag))
        })?;
        let usage = meter.stop();
        let values = if self.flush == Flush::Counted {
            // The tracer writes its lines a little after the fact.
            std::thread::sleep(Duration::from_millis(200));
            vec![(flushes(&site) - before) as f64 / seen.done as f64]
        } else {
            vec![seen.rate(), seen.latency.percentile(99.0)]
        };
        Ok(Sample {
            values,
            work: seen.done as f64,
            usage,
        })
    }

    fn bars(&self) -> Vec<Bar> {
        self.bars.clone()
    }
}

/// Calls that wait for the disk, as `strace` has logged them.
fn flushes(site: &Site) -> u64 {
    let text = std::fs::read_to_string(site.dir.join("flushes.log")).unwrap_or_default();
    count(&text)
}

fn count(text: &str) -> u64 {
    ["fsync(", "fdatasync(", "syncfs(", "msync("]
        .iter()
        .map(|call| {
            text.lines()
                .filter(|line| {
                    line.split_whitespace()
                        .nth(1)
                        .is_some_and(|w| w.starts_with(call))
                })
                .count() as u64
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flush_counts_once() {
        let text = "12 fdatasync(3) = 0\n13 fsync(4 <unfinished ...>\n12 sync_file_range(3, 0, 1, 2) = 0\n13 <... fsync resumed>) = 0\n14 +++ exited with 0 +++\n";
        assert_eq!(count(text), 2);
    }
}
