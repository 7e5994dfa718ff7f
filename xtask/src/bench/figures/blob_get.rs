//! P2: blobs of 64 MiB over 4 connections: warm, cold, TLS, HTTP/2.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::bench::client::Client;
use crate::bench::content::{Large, REPOSITORY, Sending, push_large};
use crate::bench::figure::{
    Against, Bar, Better, Case, Figure, Metric, Sample, Scale, Store, What, at_least, at_most,
    metric,
};
use crate::bench::site::{Kind, Setup, Site};
use crate::bench::stats::Histogram;
use crate::bench::{fill, h2, load, sys};

const WARM: &[Metric] = &[metric("", "GB/s", Better::More)];
const COLD: &[Metric] = &[
    metric("", "GB/s", Better::More),
    metric("manifest p99", "ms", Better::Less),
];
const ALL: &[Kind] = &[
    Kind::Wharf,
    Kind::Nginx,
    Kind::Distribution,
    Kind::Angos,
    Kind::Zot,
];
/// Those whose TLS is set up here.
const WITH_TLS: &[Kind] = &[Kind::Wharf, Kind::Nginx, Kind::Distribution];

const CONNECTIONS: usize = 4;
const SIZE: u64 = 64 << 20;
/// Blobs in the store; the warm cases use the first ones.
const BLOBS: u64 = 12;
/// Manifests asked for per second while cold blobs are read.
const RATE: f64 = 300.0;
const TAGS: u64 = 50;
/// How often all blobs are read cold: one pass takes half a second, of whose few requests a single slow one would be p99.
const PASSES: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Warm,
    Cold,
    Http2,
}

pub(super) fn figure() -> Figure {
    let get = |name, way, tls, contestants, bars| {
        Box::new(Get {
            name,
            way,
            tls,
            contestants,
            bars,
        })
    };
    let nginx = Against::Rival(Kind::Nginx);
    let distribution = Against::Rival(Kind::Distribution);
    Figure {
        id: "p2",
        title: "blob GET, 64 MiB, 4 connections",
        cases: vec![
            get(
                "plain",
                Way::Warm,
                false,
                ALL,
                vec![at_least(0.95, nginx), at_most(1.2, nginx).of(What::Cpu)],
            ),
            get(
                "cold",
                Way::Cold,
                false,
                ALL,
                vec![
                    at_least(0.9, nginx),
                    at_most(5.0, Against::Number).of(What::Value(1)),
                ],
            ),
            get(
                "TLS",
                Way::Warm,
                true,
                WITH_TLS,
                vec![
                    at_least(1.2, distribution),
                    at_most(0.8, distribution).of(What::Cpu),
                ],
            ),
            get(
                "HTTP/2 with TLS",
                Way::Http2,
                true,
                WITH_TLS,
                vec![at_least(0.6, Against::Case("TLS"))],
            ),
        ],
    }
}

struct Get {
    name: &'static str,
    way: Way,
    tls: bool,
    contestants: &'static [Kind],
    bars: Vec<Bar>,
}

fn path(number: u64) -> String {
    format!(
        "/v2/{REPOSITORY}/blobs/{}",
        Large::new(100 + number, SIZE).digest
    )
}

impl Get {
    /// Every connection pulls for some seconds; gives bytes and seconds.
    fn warm(&self, site: &Site, seconds: f64) -> Result<(f64, f64)> {
        let paths: Vec<String> = (0..CONNECTIONS as u64).map(path).collect();
        let paths = &paths;
        if self.way == Way::Warm {
            let pull = |client: &mut Client, number: u64| {
                let answer = client.drain(&paths[number as usize % CONNECTIONS])?;
                ensure!(
                    answer.status == 200 && answer.length == SIZE,
                    "status {}",
                    answer.status
                );
                Ok(())
            };
            // Once round, so that all is in the page cache.
            load::all(site, 1, CONNECTIONS as u64, pull)?;
            let seen = load::during(site, CONNECTIONS, seconds, pull)?;
            return Ok(((seen.done * SIZE) as f64, seen.seconds));
        }
        let mut connections = (0..CONNECTIONS)
            .map(|_| h2::connect(site))
            .collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let end = start + Duration::from_secs_f64(seconds);
        let pulled: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = connections
                .iter_mut()
                .zip(paths)
                .map(|(connection, path)| {
                    scope.spawn(move || -> Result<u64> {
                        let mut pulled = 0;
                        while Instant::now() < end {
                            h2::pull(connection, path, SIZE)?;
                            pulled += SIZE;
                        }
                        Ok(pulled)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().ok().context("a client's thread")?)
                .sum::<Result<u64>>()
        })?;
        Ok((pulled as f64, start.elapsed().as_secs_f64()))
    }

    /// Several passes over all blobs; gives bytes, seconds and p99 of the manifests.
    fn cold(site: &Site) -> Result<(f64, f64, f64)> {
        let (mut seconds, mut latency) = (0.0, Histogram::new());
        for _ in 0..PASSES {
            let (took, seen) = Self::cold_pass(site)?;
            seconds += took;
            latency.merge(&seen);
        }
        let bytes = (PASSES as u64 * BLOBS * SIZE) as f64;
        Ok((bytes, seconds, latency.percentile(99.0)))
    }

    /// Each blob once, none of them in the page cache, while manifests are asked for at a fixed rate. The manifests have
    /// been asked for before: what is looked at is whether reading blobs from the disk holds up everybody else.
    fn cold_pass(site: &Site) -> Result<(f64, Histogram)> {
        sys::forget(&site.data())?;
        let manifest = |client: &mut Client, number: u64| {
            let tag = fill::tag(number % TAGS);
            client
                .get(&format!("/v2/{REPOSITORY}/manifests/{tag}"))?
                .expect(200, "a manifest")?;
            Ok(())
        };
        load::all(site, 1, TAGS, manifest)?;
        let paths: Vec<String> = (0..BLOBS).map(path).collect();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| load::open(site, 4, RATE, &stop, manifest));
            let pulled = load::all(site, CONNECTIONS, BLOBS, |client, number| {
                client
                    .drain(&paths[number as usize])?
                    .expect(200, "a blob")?;
                Ok(())
            });
            stop.store(true, Ordering::Relaxed);
            let read = reader.join().ok().context("the reader's thread")??;
            let pulled = pulled?;
            Ok((pulled.seconds, read.latency))
        })
    }
}

impl Case for Get {
    fn name(&self) -> &'static str {
        self.name
    }

    fn metrics(&self) -> &'static [Metric] {
        if self.way == Way::Cold { COLD } else { WARM }
    }

    fn unit_of_work(&self) -> &'static str {
        "GB"
    }

    fn contestants(&self) -> &'static [Kind] {
        self.contestants
    }

    fn setup(&self) -> Setup {
        Setup {
            tls: self.tls,
            cold: self.way == Way::Cold,
            ..Setup::default()
        }
    }

    fn store(&self) -> Store {
        Store::Kept("blobs-64MiB")
    }

    fn in_short(&self) -> bool {
        self.way == Way::Warm && !self.tls
    }

    fn fill(&self, site: &Site, _scale: Scale) -> Result<()> {
        if site.kind == Kind::Nginx {
            let dir = site.data().join(format!("v2/{REPOSITORY}/blobs"));
            std::fs::create_dir_all(&dir)?;
            for number in 0..BLOBS {
                let blob = Large::new(100 + number, SIZE);
                blob.write(&dir.join(&blob.digest))?;
            }
            return fill::tag_files(site, 0..TAGS);
        }
        fill::tags(site, REPOSITORY, TAGS)?;
        load::all(site, 1, BLOBS, |client, number| {
            let blob = Large::new(100 + number, SIZE);
            push_large(client, REPOSITORY, &blob, Sending::Monolithic)
        })?;
        Ok(())
    }

    fn run(&self, site: Site, scale: Scale) -> Result<Sample> {
        let meter = site.meter();
        let (bytes, seconds, p99) = if self.way == Way::Cold {
            Self::cold(&site)?
        } else {
            let (bytes, seconds) = self.warm(&site, scale.seconds)?;
            (bytes, seconds, f64::NAN)
        };
        let usage = meter.stop();
        let gigabytes = bytes / 1e9;
        let mut values = vec![gigabytes / seconds, p99];
        values.truncate(self.metrics().len());
        Ok(Sample {
            values,
            work: gigabytes,
            usage,
        })
    }

    fn bars(&self) -> Vec<Bar> {
        self.bars.clone()
    }
}
