//! What each request costs in stores of several sizes.
//!
//! All stores are served at once and asked in turn, some requests each, so that a machine that is faster at one moment
//! is so for all of them: only the ratios mean something.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::client::Client;
use super::requests::{self, Call, KINDS};
use super::shape::{MAIN, Shape};
use super::site::{Rights, SEEN, Site};

/// Rounds over all stores, and requests of one kind in a round.
const ROUNDS: u64 = 10;
const REQUESTS: u64 = 20;
/// Children of the large index, at most.
const CHILDREN: u64 = 10_000;
/// Artifacts between two backups.
const CHANGE: u64 = 100;
/// The mass deletion takes half of the images and no more than this.
const DELETED: u64 = 100_000;
/// Clients that delete, and clients that push meanwhile.
const DELETERS: u64 = 4;
const PUSHERS: u64 = 2;
/// Artifacts are numbered from here on by what pushes them, and so never the same twice in a run.
const PUSHES: u64 = 1_000_000;
/// The same from run to run.
const RUN: u64 = 100_000_000;

/// A figure: its name and what it is in each store, in `unit`.
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) unit: &'static str,
    pub(super) values: Vec<f64>,
    /// The 99th percentile, where there were enough requests for one.
    pub(super) p99: Vec<f64>,
    /// Whether it must not grow.
    pub(super) flat: bool,
}

/// Everything about stores of these sizes below a folder; those that are not there are made.
pub(super) fn all(
    sizes: &[u64],
    folder: &Path,
    program: &Path,
    heavy: bool,
) -> Result<Vec<Figure>> {
    let mut sites = Vec::new();
    for &manifests in sizes {
        let shape = Shape {
            repositories: manifests,
            referrers: manifests / 10,
            ..Shape::of(manifests)
        };
        let folder = folder.join(manifests.to_string());
        if !folder.join("data").join(super::fill::DATABASE).exists() {
            println!("filling a store of {manifests} manifests");
            super::fill(&shape, &folder.join("data"))?;
        }
        let site = Site::new(shape, &folder, program)?;
        // Into the system's cache: what is compared is Wharf's work, not how much memory this machine has left.
        std::io::copy(
            &mut std::fs::File::open(site.data().join(super::fill::DATABASE))?,
            &mut std::io::sink(),
        )?;
        sites.push(site);
    }
    let mut figures = vec![figure("database, per manifest", "KiB", &sites, |site| {
        Ok(site.database_bytes()? as f64 / 1024.0 / site.shape.manifests as f64)
    })?];
    figures[0].flat = true;
    figures.extend(starts(&mut sites)?);
    figures.push(few(&mut sites)?);
    for site in &mut sites {
        site.start(Rights::All)?;
    }
    figures.extend(in_turn(&sites)?);
    figures.extend(large_index(&sites)?);
    if heavy {
        figures.extend(backups(&sites)?);
        figures.extend(mass_deletion(&sites)?);
    }
    Ok(figures)
}

fn figure(
    name: &str,
    unit: &'static str,
    sites: &[Site],
    mut value: impl FnMut(&Site) -> Result<f64>,
) -> Result<Figure> {
    Ok(Figure {
        name: name.to_owned(),
        unit,
        values: sites.iter().map(&mut value).collect::<Result<_>>()?,
        p99: Vec::new(),
        flat: false,
    })
}

/// Starts, after a clean stop and after a kill with writes under way. Servers are stopped before and after.
fn starts(sites: &mut [Site]) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (name, at_once) in [("start to /readyz", false), ("start after kill -9", true)] {
        let mut values = Vec::new();
        for site in &mut *sites {
            let mut times = Vec::new();
            for round in 0..3 {
                site.start(Rights::All)?;
                let mut client = site.client()?;
                for number in 0..50 {
                    let number =
                        site.run * RUN + PUSHES * (2 + u64::from(at_once)) + round * 50 + number;
                    send(&mut client, &requests::artifact(number))?;
                }
                site.stop(at_once)?;
                times.push(site.start(Rights::All)?);
                site.stop(false)?;
            }
            values.push(ms(median(&mut times)));
        }
        figures.push(Figure {
            name: name.to_owned(),
            unit: "ms",
            values,
            p99: Vec::new(),
            flat: true,
        });
    }
    Ok(figures)
}

/// The catalogue as somebody sees it who may see few of all repositories.
fn few(sites: &mut [Site]) -> Result<Figure> {
    for site in &mut *sites {
        site.start(Rights::Few)?;
    }
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); sites.len()];
    for _ in 0..ROUNDS {
        for (site, times) in sites.iter().zip(&mut times) {
            let mut client = site.client()?;
            for _ in 0..REQUESTS {
                let begun = Instant::now();
                let answer = client.get("/v2/_catalog")?.expect(200)?;
                times.push(begun.elapsed());
                let seen: Value = serde_json::from_slice(&answer.body)?;
                let names = seen["repositories"].as_array().context("a list")?;
                ensure!(
                    names.len() as u64 == SEEN,
                    "{} repositories are seen",
                    names.len()
                );
            }
        }
    }
    for site in sites {
        site.stop(false)?;
    }
    Ok(of_times("catalogue of 10 visible repositories", times))
}

/// Every kind of request, in all stores in turn.
fn in_turn(sites: &[Site]) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (name, calls) in KINDS {
        let mut times: Vec<Vec<Duration>> = vec![Vec::new(); sites.len()];
        for round in 0..ROUNDS {
            for (site, times) in sites.iter().zip(&mut times) {
                let mut client = site.client()?;
                for number in 0..REQUESTS {
                    let number = (site.run * ROUNDS + round) * REQUESTS + number;
                    let calls = calls(&site.shape, number);
                    times.push(send(&mut client, &calls).with_context(|| (*name).to_owned())?);
                }
            }
        }
        figures.push(of_times(name, times));
    }
    Ok(figures)
}

fn large_index(sites: &[Site]) -> Result<Vec<Figure>> {
    let (mut pushes, mut pulls) = (Vec::new(), Vec::new());
    for site in sites {
        let children = CHILDREN.min(site.shape.manifests);
        let bytes = requests::index(&site.shape, children);
        let kind = "application/vnd.oci.image.index.v1+json";
        let mut client = site.client()?;
        let push = send(&mut client, &[requests::put("large", kind, bytes)])?;
        pushes.push(vec![push]);
        let path = format!("/v2/{MAIN}/manifests/large");
        let mut times = Vec::new();
        for _ in 0..REQUESTS {
            times.push(send(
                &mut client,
                &[requests::read("GET", path.clone(), 200)],
            )?);
        }
        pulls.push(times);
    }
    let name = |what| format!("{what} of an index of 10,000 children");
    let mut push = of_times(&name("push"), pushes);
    // It looks 10,000 children up, and not all of the index that it needs for that fits the writer's cache.
    push.flat = false;
    Ok(vec![push, of_times(&name("pull"), pulls)])
}

fn backups(sites: &[Site]) -> Result<Vec<Figure>> {
    let first = figure("first backup", "s", sites, |site| {
        Ok(site.back_up()?.as_secs_f64())
    })?;
    let next = figure("backup after 100 artifacts", "s", sites, |site| {
        let mut client = site.client()?;
        for number in 0..CHANGE {
            send(
                &mut client,
                &requests::artifact(site.run * RUN + PUSHES * 4 + number),
            )?;
        }
        Ok(site.back_up()?.as_secs_f64())
    })?;
    for site in sites {
        std::fs::remove_dir_all(site.folder.join("backup"))?;
    }
    Ok(vec![first, next])
}

/// Deletes many manifests while others push.
fn mass_deletion(sites: &[Site]) -> Result<Vec<Figure>> {
    let (mut quiet, mut meanwhile, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for site in sites {
        let stop = AtomicBool::new(false);
        let base = AtomicU64::new(site.run * RUN + PUSHES * 6);
        let quiet_times = std::thread::scope(|scope| {
            let pushers: Vec<_> = (0..PUSHERS)
                .map(|_| scope.spawn(|| push_until(site, &stop, &base)))
                .collect();
            std::thread::sleep(Duration::from_secs(5));
            stop.store(true, Ordering::Relaxed);
            joined(pushers)
        });
        quiet.push(quiet_times?);
        stop.store(false, Ordering::Relaxed);
        let count = DELETED.min(site.shape.manifests / 10);
        // Where no other request looks, and a stretch that the runs before have left.
        let stretches = [60, 70, 80, 25, 35];
        let first = site.shape.manifests / 100 * stretches[site.run as usize % stretches.len()];
        let next = AtomicU64::new(0);
        let begun = Instant::now();
        let (pushed, deleted) = std::thread::scope(|scope| {
            let pushers: Vec<_> = (0..PUSHERS)
                .map(|_| scope.spawn(|| push_until(site, &stop, &base)))
                .collect();
            let deleters: Vec<_> = (0..DELETERS)
                .map(|_| {
                    scope.spawn(|| -> Result<Vec<Duration>> {
                        let mut client = site.client()?;
                        let mut times = Vec::new();
                        loop {
                            let number = next.fetch_add(1, Ordering::Relaxed);
                            if number >= count {
                                return Ok(times);
                            }
                            let call = requests::delete(&site.shape, first + number);
                            times.push(send(&mut client, &[call])?);
                        }
                    })
                })
                .collect();
            let deleted = joined(deleters);
            stop.store(true, Ordering::Relaxed);
            (joined(pushers), deleted)
        });
        rates.push(deleted?.len() as f64 / begun.elapsed().as_secs_f64());
        meanwhile.push(pushed?);
    }
    Ok(vec![
        of_times("push of an artifact, 2 clients", quiet),
        of_times("the same while 4 clients delete manifests", meanwhile),
        Figure {
            name: "manifests deleted meanwhile".to_owned(),
            unit: "1/s",
            values: rates,
            p99: Vec::new(),
            flat: false,
        },
    ])
}

pub(super) fn push_until(
    site: &Site,
    stop: &AtomicBool,
    numbers: &AtomicU64,
) -> Result<Vec<Duration>> {
    let mut client = site.client()?;
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        times.push(send(&mut client, &requests::artifact(number))?);
    }
    Ok(times)
}

pub(super) type Worker<'scope> = std::thread::ScopedJoinHandle<'scope, Result<Vec<Duration>>>;

pub(super) fn joined(workers: Vec<Worker<'_>>) -> Result<Vec<Duration>> {
    let mut all = Vec::new();
    for worker in workers {
        match worker.join() {
            Ok(times) => all.extend(times?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    Ok(all)
}

fn send(client: &mut Client, calls: &[Call]) -> Result<Duration> {
    let begun = Instant::now();
    for call in calls {
        client
            .send(call.method, &call.path, call.content_type, &call.body)?
            .expect(call.status)
            .with_context(|| format!("{} {}", call.method, call.path))?;
    }
    Ok(begun.elapsed())
}

fn of_times(name: &str, times: Vec<Vec<Duration>>) -> Figure {
    let mut times = times;
    Figure {
        name: name.to_owned(),
        unit: "ms",
        values: times.iter_mut().map(|times| ms(quartile(times))).collect(),
        p99: times
            .iter()
            .filter(|times| times.len() >= 100)
            .map(|times| ms(times[times.len() * 99 / 100]))
            .collect(),
        flat: true,
    }
}

/// A quarter of the times are below it: whether a processor had to wake for an answer makes two humps of the short ones,
/// and the median jumps from one to the other. The times are sorted afterwards.
fn quartile(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 4]
}

/// The median; the times are sorted afterwards.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
