//! What pushes wait while collection runs, how long it takes until dead blobs are gone, and how much work that is.
//!
//! The dead ones are files that no manifest refers to. Clients push beside: first with collection paused, then while it runs, then
//! paused again, so that a machine that changes its speed does so for both. Collections of few are short, so that several rounds
//! are needed until enough was pushed beside them. The work is counted afterwards, on the store at rest.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use wharf_meta::{Bulk, Steps, candidate};

use super::client::Client;
use super::measure::{joined, ms, push_until};
use super::shape::{MAIN, Shape, sha256};
use super::site::{Rights, Site};

/// Clients that push meanwhile.
const PUSHERS: u64 = 2;
/// How long they push before each collection and after the last; longer than the grace, so that the dead are due afterwards.
const QUIET: Duration = Duration::from_secs(GRACE + 1);
/// The grace, in seconds: a push must be finished within it.
const GRACE: u64 = 3;
/// Collection has failed when it takes longer.
const PATIENCE: Duration = Duration::from_secs(180);
/// Bytes of a dead blob. All from 1 KiB on are files here.
const BYTES: usize = 4_096;
/// Pushes and dead blobs are numbered from here on.
const NUMBERS: u64 = 1_000_000_000;
/// Page cache for what is done to a store at rest.
const CACHE_MIB: u32 = 1_024;

/// Measures each of these numbers of dead blobs in a store below the folder, which is filled if it is not there; gives a table.
pub(super) fn all(
    shape: &Shape,
    dead: &[u64],
    rounds: u64,
    folder: &Path,
    program: &Path,
    metrics: &str,
) -> Result<String> {
    let folder = folder.join(shape.manifests.to_string());
    let database = folder.join("data").join(super::fill::DATABASE);
    if !database.exists() {
        super::fill(shape, &folder.join("data"))?;
    }
    settle(&database)?;
    let blobs = super::fill::totals(&folder.join("data"))?.blobs;
    let mut site = Site::new(shape.clone(), &folder, program)?;
    site.more = format!(
        "[server]\nmetrics_listen = \"{metrics}\"\n[storage]\ninline_below = \"1KiB\"\n[gc]\ngrace = \"{GRACE}s\"\n"
    );
    let mut table = format!(
        "Among {blobs} blobs, {rounds} rounds each:\n\n\
         | dead blobs | gone after: median (longest) | pushes, paused: number, median (p99) | pushes, collecting | p99: ratio, \
         more | instructions for each that goes | rows without an index |\n|---:|---:|---:|---:|---:|---:|---:|\n"
    );
    let numbers = AtomicU64::new(NUMBERS * (1 + site.run));
    for &dead in dead {
        site.start(Rights::All)?;
        let measured = measure(&site, dead, rounds, program, metrics.parse()?, &numbers);
        let measured = measured.with_context(|| format!("{dead} dead blobs"))?;
        let from = now()?;
        kill(&site, dead, &numbers)?;
        site.stop(false)?;
        let steps = count(&database, dead, from)?;
        table.push_str(&format!(
            "{measured} {} | {} |\n",
            steps.instructions / dead.max(1),
            steps.scanned
        ));
    }
    Ok(table)
}

pub(super) fn now() -> Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_millis())?)
}

/// Each link is a candidate from birth. In a store that is older than its grace they have been decided, and so they are here before
/// anything is measured.
fn settle(database: &Path) -> Result<()> {
    let mut bulk = Bulk::open(database, CACHE_MIB)?;
    let at = now()?;
    while bulk.run(&decide(at))?.looked_at > 0 {}
    bulk.finish()?;
    Ok(())
}

fn decide(due: i64) -> candidate::Collect {
    candidate::Collect {
        due,
        limit: candidate::BATCH,
        at: due,
    }
}

/// Pushes so many blobs that nothing refers to.
fn kill(site: &Site, dead: u64, numbers: &AtomicU64) -> Result<()> {
    let mut client = site.client()?;
    for _ in 0..dead {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let mut bytes = format!("dead {number}\n").into_bytes();
        bytes.resize(BYTES, b'.');
        let path = format!("/v2/{MAIN}/blobs/uploads/?digest={}", sha256(&bytes));
        client
            .send("POST", &path, "application/octet-stream", &bytes)?
            .expect(201)?;
    }
    Ok(())
}

/// What deciding about the dead ones costs that were pushed from that moment on.
fn count(database: &Path, dead: u64, from: i64) -> Result<Steps> {
    let mut bulk = Bulk::open(database, CACHE_MIB)?;
    while bulk.run(&decide(from - 1))?.looked_at > 0 {}
    let (mut all, mut gone, at) = (Steps::default(), 0, now()?);
    loop {
        let (collected, steps) = bulk.measure(&decide(at))?;
        all += steps;
        gone += u64::from(collected.blobs);
        if collected.looked_at == 0 {
            break;
        }
    }
    bulk.finish()?;
    ensure!(gone == dead, "{gone} blobs went, and {dead} were dead");
    Ok(all)
}

fn measure(
    site: &Site,
    dead: u64,
    rounds: u64,
    program: &Path,
    metrics: std::net::SocketAddr,
    numbers: &AtomicU64,
) -> Result<String> {
    let wharf = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new(program);
        command.args(arguments).arg("--data").arg(site.data());
        crate::run::read(&mut command).map(drop)
    };
    let (mut quiet, mut beside, mut took) = (Vec::new(), Vec::new(), Vec::new());
    let rest = || {
        pushes(site, numbers, || {
            std::thread::sleep(QUIET);
            Ok(())
        })
    };
    for _ in 0..rounds.max(1) {
        // What was pushed before this round is decided before it.
        std::thread::sleep(QUIET);
        let begun = Instant::now();
        let runs = loop {
            let runs = runs(metrics)?;
            // One that runs already is waited for.
            match wharf(&["job", "run", "gc.collect"]) {
                Ok(()) => break runs,
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        };
        while self::runs(metrics)? == runs {
            ensure!(begun.elapsed() < PATIENCE, "gc.collect does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        wharf(&["gc", "pause", "--reason", "measuring"])?;
        kill(site, dead, numbers)?;
        quiet.extend(rest()?);
        let before = collected(metrics)?;
        beside.extend(pushes(site, numbers, || {
            wharf(&["gc", "resume"])?;
            let begun = Instant::now();
            wharf(&["job", "run", "gc.collect"])?;
            loop {
                let gone = collected(metrics)? - before;
                ensure!(gone <= dead, "{gone} blobs went, and {dead} were dead");
                if gone == dead {
                    took.push(begun.elapsed());
                    return Ok(());
                }
                if begun.elapsed() > PATIENCE {
                    bail!("only {gone} went within {PATIENCE:?}");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        })?);
    }
    wharf(&["gc", "pause", "--reason", "measuring"])?;
    quiet.extend(rest()?);
    wharf(&["gc", "resume"])?;
    let (without, with) = (told(&mut quiet), told(&mut beside));
    took.sort_unstable();
    Ok(format!(
        "| {dead} | {:.1} ({:.1}) s | {}: {:.2} ({:.1}) ms | {}: {:.2} ({:.1}) ms | {:.2}, {:+.1} ms |",
        took[took.len() / 2].as_secs_f64(),
        took[took.len() - 1].as_secs_f64(),
        quiet.len(),
        without.0,
        without.1,
        beside.len(),
        with.0,
        with.1,
        with.1 / without.1,
        with.1 - without.1,
    ))
}

/// How long pushes take while something is done.
fn pushes(
    site: &Site,
    numbers: &AtomicU64,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<Vec<Duration>> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|_| scope.spawn(|| push_until(site, &stop, numbers)))
            .collect();
        let done = meanwhile();
        stop.store(true, Ordering::Relaxed);
        let times = joined(pushers);
        done.and(times)
    })
}

/// Blobs that collection removed since the server's start.
fn collected(metrics: std::net::SocketAddr) -> Result<u64> {
    figure(metrics, "wharf_gc_blobs_total ")?.context("the metric wharf_gc_blobs")
}

/// Runs of the collector since the server's start.
fn runs(metrics: std::net::SocketAddr) -> Result<u64> {
    let name = "wharf_job_runs_total{kind=\"gc.collect\",result=\"done\"} ";
    Ok(figure(metrics, name)?.unwrap_or(0))
}

fn figure(metrics: std::net::SocketAddr, name: &str) -> Result<Option<u64>> {
    let answer = Client::connect(metrics)?.get("/metrics")?.expect(200)?;
    let text = String::from_utf8(answer.body)?;
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(found.map(|value| value.trim().parse()).transpose()?)
}

/// Median and 99th percentile in milliseconds.
fn told(times: &mut [Duration]) -> (f64, f64) {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied();
    (
        ms(at(50).unwrap_or_default()),
        ms(at(99).unwrap_or_default()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles() {
        let mut times: Vec<_> = (0..200).rev().map(Duration::from_millis).collect();
        assert_eq!(told(&mut times), (100.0, 198.0));
        assert_eq!(told(&mut []), (0.0, 0.0));
    }
}
