//! What pushes wait while collection runs, and how long it takes until dead blobs are gone.
//!
//! The dead ones are files that no manifest refers to. Clients push beside: first with collection paused, then while it runs, then
//! paused again, so that a machine that changes its speed does so for both.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::client::Client;
use super::measure::{joined, ms, push_until};
use super::shape::{MAIN, Shape, sha256};
use super::site::{Rights, Site};

/// Clients that push meanwhile.
const PUSHERS: u64 = 2;
/// How long they push before and after.
const QUIET: Duration = Duration::from_secs(10);
/// The grace, in seconds: a push must be finished within it.
const GRACE: u64 = 10;
/// Collection has failed when it takes longer.
const PATIENCE: Duration = Duration::from_secs(180);
/// Bytes of a dead blob. All from 1 KiB on are files here.
const BYTES: usize = 4_096;
/// Pushes and dead blobs are numbered from here on.
const NUMBERS: u64 = 1_000_000_000;

/// Measures each of these numbers of dead blobs in a store below the folder, which is filled if it is not there; gives a table.
pub(super) fn all(
    shape: &Shape,
    dead: &[u64],
    folder: &Path,
    program: &Path,
    metrics: &str,
) -> Result<String> {
    let folder = folder.join(shape.manifests.to_string());
    if !folder.join("data").join(super::fill::DATABASE).exists() {
        super::fill(shape, &folder.join("data"))?;
    }
    let mut site = Site::new(shape.clone(), &folder, program)?;
    site.more = format!(
        "[server]\nmetrics_listen = \"{metrics}\"\n[storage]\ninline_below = \"1KiB\"\n[gc]\ngrace = \"{GRACE}s\"\n"
    );
    site.start(Rights::All)?;
    let mut table =
        "| dead blobs | gone after | pushes, paused: median (p99) | pushes, collecting | p99 ratio |\n|---:|---:|---:|---:|---:|\n"
            .to_owned();
    let numbers = AtomicU64::new(NUMBERS * (1 + site.run));
    for &dead in dead {
        let measured = measure(&site, dead, program, metrics.parse()?, &numbers)
            .with_context(|| format!("{dead} dead blobs"))?;
        table.push_str(&measured);
    }
    Ok(table)
}

fn measure(
    site: &Site,
    dead: u64,
    program: &Path,
    metrics: std::net::SocketAddr,
    numbers: &AtomicU64,
) -> Result<String> {
    let wharf = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new(program);
        command.args(arguments).arg("--data").arg(site.data());
        crate::run::read(&mut command).map(drop)
    };
    wharf(&["gc", "pause", "--reason", "measuring"])?;
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
    // Those of the pushes before are decided too, but none of them goes.
    let mut quiet = pushes(site, numbers, || {
        std::thread::sleep(QUIET);
        Ok(())
    })?;
    std::thread::sleep(Duration::from_secs(GRACE + 1));
    let before = collected(metrics)?;
    let mut took = Duration::ZERO;
    let mut beside = pushes(site, numbers, || {
        wharf(&["gc", "resume"])?;
        let begun = Instant::now();
        wharf(&["job", "run", "gc.collect"])?;
        loop {
            let gone = collected(metrics)? - before;
            ensure!(gone <= dead, "{gone} blobs went, and {dead} were dead");
            if gone == dead {
                took = begun.elapsed();
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("only {gone} went within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    })?;
    wharf(&["gc", "pause", "--reason", "measuring"])?;
    quiet.extend(pushes(site, numbers, || {
        std::thread::sleep(QUIET);
        Ok(())
    })?);
    wharf(&["gc", "resume"])?;
    let (quiet, beside) = (told(&mut quiet), told(&mut beside));
    Ok(format!(
        "| {dead} | {:.1} s | {:.2} ({:.1}) ms | {:.2} ({:.1}) ms | {:.2} |\n",
        took.as_secs_f64(),
        quiet.0,
        quiet.1,
        beside.0,
        beside.1,
        beside.1 / quiet.1
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
    let answer = Client::connect(metrics)?.get("/metrics")?.expect(200)?;
    let text = String::from_utf8(answer.body)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("wharf_gc_blobs_total "))
        .context("the metric wharf_gc_blobs")?;
    Ok(line.trim().parse()?)
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
