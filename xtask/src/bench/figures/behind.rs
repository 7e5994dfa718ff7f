//! P13: PostgreSQL and a bucket instead of one machine's files.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload as _, ObjectStore, ObjectStoreExt as _};

use crate::bench::behind::Behind;
use crate::bench::content::{Large, REPOSITORY, Sending, push_large};
use crate::bench::figure::{
    Against, Bar, Better, Case, Figure, Metric, Sample, Scale, What, at_least, at_most, metric,
};
use crate::bench::figures::artifact_push;
use crate::bench::site::{Kind, Setup, Site};
use crate::bench::usage::busy;
use crate::bench::{fill, wrk};

const PULLS: &[Metric] = &[
    metric("", "requests/s", Better::More),
    metric("SELECTs of tokio-postgres alone", "/s", Better::More),
];
const PUSHES: &[Metric] = &[
    metric("", "GB/s", Better::More),
    metric("a plain uploader", "GB/s", Better::More),
    metric("memory", "MB", Better::Less),
    metric("work of both processors", "s/GB", Better::Less),
    metric(
        "work of both processors, a plain uploader",
        "s/GB",
        Better::Less,
    ),
];
const TAGS: u64 = 50;
const CONNECTIONS: usize = 16;
/// What the uploader has under way at once, the best of them counts.
const AT_ONCE: [usize; 3] = [1, 2, 4];
/// Bytes of its parts.
const PART: usize = 8 << 20;

pub(super) fn figure() -> Figure {
    Figure {
        id: "p13",
        title: "PostgreSQL and S3",
        cases: vec![
            Box::new(Pull),
            Box::new(artifact_push::behind(
                "artifacts with a layer of 1 KiB, 16 clients",
                Behind::PostgresAndBucket,
                vec![at_least(5.0, Against::Rival(Kind::Distribution))],
            )),
            Box::new(Push),
        ],
    }
}

/// A manifest by tag through PostgreSQL.
struct Pull;

impl Case for Pull {
    fn name(&self) -> &'static str {
        "manifest GET by tag, PostgreSQL, 16 connections"
    }

    fn metrics(&self) -> &'static [Metric] {
        PULLS
    }

    fn unit_of_work(&self) -> &'static str {
        "request"
    }

    fn contestants(&self) -> &'static [Kind] {
        &[Kind::Wharf]
    }

    fn setup(&self) -> Setup {
        Setup {
            behind: Behind::Postgres,
            ..Setup::default()
        }
    }

    // Nobody else takes part, so there is nothing to compare with the record.
    fn in_short(&self) -> bool {
        false
    }

    fn run(&self, site: Site, scale: Scale) -> Result<Sample> {
        fill::tags(&site, REPOSITORY, TAGS)?;
        let tags: Vec<String> = (0..TAGS).map(fill::tag).collect();
        let paths: Vec<String> = tags
            .iter()
            .map(|tag| format!("/v2/{REPOSITORY}/manifests/{tag}"))
            .collect();
        // The statement alone before and after, since the machine drifts.
        let bare = || {
            site.services
                .bare_pulls(REPOSITORY, &tags, CONNECTIONS, scale.seconds / 2.0)
        };
        let before = bare()?;
        let meter = site.meter();
        let seen = wrk::run(&site, &paths, None, scale.seconds)?;
        let usage = meter.stop();
        let bare = f64::midpoint(before, bare()?);
        Ok(Sample {
            values: vec![seen.rate, bare],
            work: seen.requests,
            usage,
        })
    }

    fn bars(&self) -> Vec<Bar> {
        vec![at_least(0.5, Against::Metric(1))]
    }
}

/// A layer of 1 GiB into the bucket.
struct Push;

impl Case for Push {
    fn name(&self) -> &'static str {
        "1 GiB layer, streamed"
    }

    fn metrics(&self) -> &'static [Metric] {
        PUSHES
    }

    fn unit_of_work(&self) -> &'static str {
        "GB"
    }

    fn contestants(&self) -> &'static [Kind] {
        &[Kind::Wharf]
    }

    fn setup(&self) -> Setup {
        Setup {
            behind: Behind::PostgresAndBucket,
            ..Setup::default()
        }
    }

    fn in_short(&self) -> bool {
        false
    }

    fn run(&self, site: Site, scale: Scale) -> Result<Sample> {
        let size = scale.pick(1 << 30, 256 << 20);
        let (first, second) = (Large::new(0, size), Large::new(1, size));
        let uploader = Uploader::new(&site)?;
        let gigabytes = size as f64 / 1e9;
        let plain = |name: &str, large: &Large| -> Result<Plain> {
            let mut best = Plain::default();
            for at_once in AT_ONCE {
                let seen = uploader.send(name, large, at_once)?;
                if seen.rate > best.rate {
                    best = seen;
                }
            }
            Ok(best)
        };
        let before = plain("before", &first)?;
        let meter = site.meter();
        let (start, worked) = (Instant::now(), busy());
        push_large(&mut site.client(), REPOSITORY, &second, Sending::Streamed)?;
        let seconds = start.elapsed().as_secs_f64();
        let worked = (busy() - worked) / gigabytes;
        let usage = meter.stop();
        let after = plain("after", &first)?;
        Ok(Sample {
            values: vec![
                gigabytes / seconds,
                f64::midpoint(before.rate, after.rate),
                usage.anonymous as f64 / 1e6,
                worked,
                f64::midpoint(before.work, after.work),
            ],
            work: gigabytes,
            usage,
        })
    }

    fn bars(&self) -> Vec<Bar> {
        vec![
            at_least(0.8, Against::Metric(1)),
            // 32 MiB.
            at_most(33.5, Against::Number).of(What::Value(2)),
        ]
    }
}

/// What it takes to send an object.
#[derive(Clone, Copy, Default)]
struct Plain {
    /// Gigabytes per second.
    rate: f64,
    /// Seconds that both processors worked per gigabyte.
    work: f64,
}

/// A client of the bucket that does nothing but send parts, with the library that Wharf uses.
struct Uploader {
    runtime: tokio::runtime::Runtime,
    store: Arc<dyn ObjectStore>,
}

impl Uploader {
    fn new(site: &Site) -> Result<Uploader> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let options = site.services.bucket()?;
        let backend = wharf_blob::object::Backend::open(&options).context("the bucket")?;
        Ok(Uploader {
            runtime,
            store: backend.store,
        })
    }

    /// Sends one object, which is removed then.
    fn send(&self, name: &str, large: &Large, at_once: usize) -> Result<Plain> {
        let path = Path::from(format!("plain/{name}"));
        self.runtime.block_on(async {
            let mut under_way = tokio::task::JoinSet::new();
            let mut part = Vec::with_capacity(PART);
            let mut parts = Vec::new();
            // Made before the clock runs, which is to measure the sending alone.
            large.each(&mut |mut piece| {
                while !piece.is_empty() {
                    let (now, later) = piece.split_at(piece.len().min(PART - part.len()));
                    part.extend_from_slice(now);
                    piece = later;
                    if part.len() == PART {
                        let full = std::mem::replace(&mut part, Vec::with_capacity(PART));
                        parts.push(Bytes::from(full));
                    }
                }
                Ok(())
            })?;
            if !part.is_empty() {
                parts.push(part.into());
            }
            let (start, worked) = (Instant::now(), busy());
            let mut upload = self.store.put_multipart(&path).await?;
            for part in parts {
                while under_way.len() >= at_once {
                    under_way.join_next().await.context("a part")???;
                }
                under_way.spawn(upload.put_part(part.into()));
            }
            while let Some(sent) = under_way.join_next().await {
                sent??;
            }
            upload.complete().await?;
            let (seconds, worked) = (start.elapsed().as_secs_f64(), busy() - worked);
            self.store.delete(&path).await?;
            let gigabytes = large.size as f64 / 1e9;
            Ok(Plain {
                rate: gigabytes / seconds,
                work: worked / gigabytes,
            })
        })
    }
}
