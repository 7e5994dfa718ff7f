//! P7: anonymous memory: idle, under pulls, under connections that do nothing, under reads of a big store.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bench::content::{Large, REPOSITORY, Sending, push_large};
use crate::bench::figure::{
    Against, Bar, Better, Case, Figure, Metric, Sample, Scale, Store, at_most, metric,
};
use crate::bench::site::{Kind, Site};
use crate::bench::{load, usage, wrk};

const METRICS: &[Metric] = &[metric("", "MB", Better::Less)];
const ALL: &[Kind] = &[
    Kind::Wharf,
    Kind::Nginx,
    Kind::Distribution,
    Kind::Angos,
    Kind::Zot,
];
const CLIENTS: usize = 500;
const BLOB: u64 = 4 << 20;
const IDLE: usize = 10_000;
/// Manifests in the big store.
const MANIFESTS: u64 = 1_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Under {
    Nothing,
    Pulls,
    Connections,
    Reads,
}

pub(super) fn figure() -> Figure {
    let memory = |name, under, contestants, most| {
        Box::new(Memory {
            name,
            under,
            contestants,
            most,
        })
    };
    Figure {
        id: "p7",
        title: "anonymous memory",
        cases: vec![
            memory("idle", Under::Nothing, ALL, 20.0),
            memory("peak, 500 clients pulling 4 MiB", Under::Pulls, ALL, 60.0),
            memory("10,000 idle connections", Under::Connections, ALL, 120.0),
            memory(
                "peak, manifest GET over 1,000,000 manifests",
                Under::Reads,
                &[Kind::Wharf],
                150.0,
            ),
        ],
    }
}

struct Memory {
    name: &'static str,
    under: Under,
    contestants: &'static [Kind],
    most: f64,
}

impl Memory {
    /// The memory in bytes, and what was done meanwhile.
    fn measure(&self, site: &Site, scale: Scale) -> Result<(u64, f64)> {
        match self.under {
            Under::Nothing => {
                std::thread::sleep(Duration::from_secs(1));
                Ok((usage::anonymous(site.pid()), 1.0))
            }
            Under::Connections => {
                let held = (0..IDLE)
                    .map(|_| idle(site))
                    .collect::<Result<Vec<_>>>()
                    .context("opening connections")?;
                std::thread::sleep(Duration::from_secs(1));
                let bytes = usage::anonymous(site.pid());
                Ok((bytes, held.len() as f64))
            }
            Under::Pulls => {
                let blob = Large::new(200, BLOB);
                let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
                let meter = site.meter();
                let seen = load::all(site, CLIENTS, 4 * CLIENTS as u64, |client, _| {
                    let answer = client.drain(&path)?.expect(200, "a blob")?;
                    ensure!(answer.length == BLOB, "{} bytes", answer.length);
                    Ok(())
                })?;
                Ok((meter.stop().anonymous, (seen.done * BLOB) as f64 / 1e9))
            }
            Under::Reads => {
                let paths: Vec<String> = (0..50_000)
                    .map(|n| {
                        let tag = super::grown_tag(n * (MANIFESTS / 50_000));
                        format!("/v2/{}/manifests/{tag}", super::GROWN)
                    })
                    .collect();
                let meter = site.meter();
                let seen = wrk::run(site, &paths, None, scale.seconds)?;
                Ok((meter.stop().anonymous, seen.requests))
            }
        }
    }
}

/// A connection that has asked once and then says nothing.
fn idle(site: &Site) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(site.address)?;
    socket.write_all(format!("GET /v2/ HTTP/1.1\r\nHost: {}\r\n\r\n", site.address).as_bytes())?;
    let mut answer = [0; 1024];
    ensure!(socket.read(&mut answer)? > 0, "closed");
    Ok(socket)
}

impl Case for Memory {
    fn name(&self) -> &'static str {
        self.name
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn unit_of_work(&self) -> &'static str {
        match self.under {
            Under::Nothing => "second",
            Under::Pulls => "GB",
            Under::Connections => "connection",
            Under::Reads => "request",
        }
    }

    fn contestants(&self) -> &'static [Kind] {
        self.contestants
    }

    fn store(&self) -> Store {
        match self.under {
            Under::Pulls => Store::Kept("blob-4MiB"),
            Under::Reads => Store::Kept("manifests-1M"),
            _ => Store::Fresh,
        }
    }

    fn in_short(&self) -> bool {
        false
    }

    fn lay(&self, _kind: Kind, data: &Path) -> Result<bool> {
        if self.under != Under::Reads {
            return Ok(false);
        }
        super::big_store(MANIFESTS, data)?;
        Ok(true)
    }

    fn fill(&self, site: &Site, _scale: Scale) -> Result<()> {
        if self.under == Under::Pulls {
            let blob = Large::new(200, BLOB);
            if site.kind == Kind::Nginx {
                let dir = site.data().join(format!("v2/{REPOSITORY}/blobs"));
                std::fs::create_dir_all(&dir)?;
                blob.write(&dir.join(&blob.digest))?;
            } else {
                push_large(&mut site.client(), REPOSITORY, &blob, Sending::Monolithic)?;
            }
        }
        Ok(())
    }

    fn run(&self, site: Site, scale: Scale) -> Result<Sample> {
        let meter = site.meter();
        let (bytes, work) = self.measure(&site, scale)?;
        Ok(Sample {
            values: vec![bytes as f64 / 1e6],
            work,
            usage: meter.stop(),
        })
    }

    fn bars(&self) -> Vec<Bar> {
        vec![at_most(self.most, Against::Number)]
    }
}
