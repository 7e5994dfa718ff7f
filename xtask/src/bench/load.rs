//! Many clients at once: as fast as they can, or at a fixed rate.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::client::Client;
use super::site::Site;
use super::stats::Histogram;

/// What a load has seen.
pub(crate) struct Seen {
    /// Requests, or whatever one call of the work did.
    pub(crate) done: u64,
    /// From the first to the last.
    pub(crate) seconds: f64,
    /// Latencies.
    pub(crate) latency: Histogram,
}

impl Seen {
    /// Per second.
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.seconds
    }
}

/// `clients` at a time do `work(client, number)` for numbers from 0 to `count`, as fast as they can. The first error
/// ends it.
pub(crate) fn all(
    site: &Site,
    clients: usize,
    count: u64,
    work: impl Fn(&mut Client, u64) -> Result<()> + Sync,
) -> Result<Seen> {
    let next = AtomicU64::new(0);
    closed(site, clients, &|client, latency| {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(false);
        }
        let start = Instant::now();
        work(client, number)?;
        latency.add(start.elapsed());
        Ok(true)
    })
}

/// The same for some seconds instead of a count.
pub(crate) fn during(
    site: &Site,
    clients: usize,
    seconds: f64,
    work: impl Fn(&mut Client, u64) -> Result<()> + Sync,
) -> Result<Seen> {
    let next = AtomicU64::new(0);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    closed(site, clients, &|client, latency| {
        let start = Instant::now();
        if start >= end {
            return Ok(false);
        }
        work(client, next.fetch_add(1, Ordering::Relaxed))?;
        latency.add(start.elapsed());
        Ok(true)
    })
}

/// Clients with open connections, so that no latency holds the opening of one.
fn connect(site: &Site, clients: usize) -> Result<Vec<Client>> {
    let mut connected = Vec::new();
    for _ in 0..clients {
        let mut client = site.client();
        client.connect()?;
        connected.push(client);
    }
    Ok(connected)
}

/// One step of a client; `false` ends it.
type Step<'a> = &'a (dyn Fn(&mut Client, &mut Histogram) -> Result<bool> + Sync);

fn closed(site: &Site, clients: usize, step: Step<'_>) -> Result<Seen> {
    let failed = AtomicBool::new(false);
    let connected = connect(site, clients)?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = connected
            .into_iter()
            .map(|mut client| {
                let failed = &failed;
                scope.spawn(move || {
                    let mut latency = Histogram::new();
                    while !failed.load(Ordering::Relaxed) {
                        match step(&mut client, &mut latency) {
                            Ok(true) => {}
                            Ok(false) => break,
                            Err(error) => {
                                failed.store(true, Ordering::Relaxed);
                                return Err(error);
                            }
                        }
                    }
                    Ok(latency)
                })
            })
            .collect();
        let mut latency = Histogram::new();
        for thread in threads {
            latency.merge(&thread.join().expect("a client's thread")?);
        }
        Ok(Seen {
            done: latency.count(),
            seconds: start.elapsed().as_secs_f64(),
            latency,
        })
    })
}

/// An open loop: `rate` requests per second over `clients` connections until `stop`, each with its intended start. A
/// request that had to wait for its connection has waited: its latency counts from when it should have begun.
pub(crate) fn open(
    site: &Site,
    clients: usize,
    rate: f64,
    stop: &AtomicBool,
    work: impl Fn(&mut Client, u64) -> Result<()> + Sync,
) -> Result<Seen> {
    let connected = connect(site, clients)?;
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = connected
            .into_iter()
            .map(|mut client| {
                let (next, work) = (&next, &work);
                scope.spawn(move || -> Result<Histogram> {
                    let mut latency = Histogram::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let intended = begin + Duration::from_secs_f64(number as f64 / rate);
                        if let Some(wait) = intended.checked_duration_since(Instant::now()) {
                            std::thread::sleep(wait);
                        }
                        if stop.load(Ordering::Relaxed) {
                            return Ok(latency);
                        }
                        work(&mut client, number)?;
                        latency.add(intended.elapsed());
                    }
                })
            })
            .collect();
        let mut latency = Histogram::new();
        for thread in threads {
            latency.merge(&thread.join().ok().context("a client's thread")??);
        }
        Ok(Seen {
            done: latency.count(),
            seconds: begin.elapsed().as_secs_f64(),
            latency,
        })
    })
}
