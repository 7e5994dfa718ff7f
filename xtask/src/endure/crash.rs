//! `kill -9` at random moments under load, again and again, and a look at everything after each.
//!
//! A *life* is one data folder: some hundred rounds, so that what has to be looked at stays bounded, and so that first
//! starts are killed as well. Its folder is kept when a promise was broken. In every second life, or in all, a collector
//! without any grace runs beside the clients: nothing that a manifest needs may go, and in the end nothing else may be left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::check::{Found, check, stray_uploads};
use super::history::{Key, Kind, View};
use super::left::left;
use super::pair::{self, Pair};
use super::random::Random;
use super::registry::{Registry, Site};
use super::work::{Client, Sizes, World, lock};

/// Clients that work at once.
const CLIENTS: u64 = 12;
/// Rounds over one data folder.
const LIFE: usize = 100;
/// What makes the collector greedy in every second life: no grace, nothing that can be restored, and no rest.
const GREEDY: [(&str, &str); 3] = [
    ("WHARF__GC__GRACE", "0s"),
    ("WHARF__GC__EVERY", "1ms"),
    ("WHARF__RESTORE__WINDOW", "0s"),
];
/// Longest wait for a greedy collector to come to its end.
const QUIET: Duration = Duration::from_secs(60);
/// Registers of earlier rounds that are looked at after each kill.
const SAMPLE: usize = 60;
/// Sessions that are resumed after each kill.
const RESUMED: usize = 6;
/// Rounds between two runs of `wharf storage verify`.
const VERIFY_EVERY: usize = 10;
/// File descriptors by which two fresh processes may differ: a connection of the pool may be opened or not.
const SLACK: usize = 4;

/// What was done.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) kills: usize,
    pub(crate) calls: usize,
    pub(crate) acknowledged: usize,
    pub(crate) looked_at: usize,
    pub(crate) resumed: usize,
    pub(crate) verified: usize,
    pub(crate) orphans: usize,
    /// Blobs that manifests needed when a greedy collector had come to its end.
    pub(crate) needed: usize,
}

/// What is put through it.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    pub(crate) pair: pair::Kind,
    /// The collector is greedy in each life, not in every second one.
    pub(crate) greedy: bool,
}

/// Kills the server so many times. `folder` is made anew for each life.
pub(crate) fn run(
    binary: &Path,
    folder: &Path,
    way: Way,
    kills: usize,
    seed: u64,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut life = 0;
    while tally.kills < kills {
        let place = folder.join(format!("life-{life}"));
        std::fs::create_dir(&place)?;
        // At least two lives, so that one of them has a greedy collector.
        let half = if way.greedy { kills } else { kills.div_ceil(2) };
        let rounds = LIFE.min(half).min(kills - tally.kills);
        let start = Instant::now();
        Life::new(binary, &place, way, seed, life)?
            .live(rounds, &mut tally)
            .with_context(|| {
                format!(
                    "seed {seed}, life {life}; the data folder is kept in {}",
                    place.display()
                )
            })?;
        std::fs::remove_dir_all(&place)?;
        println!(
            "life {life}: {rounds} kills in {:.1} s, {} calls so far",
            start.elapsed().as_secs_f32(),
            tally.calls
        );
        life += 1;
    }
    Ok(tally)
}

struct Life {
    site: Site,
    pair: Pair,
    world: Mutex<World>,
    random: Random,
    seed: u64,
    descriptors: Option<usize>,
    /// Sessions that may still be there.
    open: Vec<String>,
}

impl Life {
    fn new(binary: &Path, place: &Path, way: Way, seed: u64, life: u64) -> Result<Life> {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(life);
        let greedy = way.greedy || life % 2 == 1;
        let pair = Pair::start(way.pair, place)?;
        let mut environment = pair.environment();
        if greedy {
            let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
            environment.extend(GREEDY.map(own));
        }
        Ok(Life {
            site: Site::new(binary, place)?.with_environment(&environment),
            pair,
            world: Mutex::new(World::new().with_greed(greedy)),
            random: Random::new(seed, u64::MAX),
            seed,
            descriptors: None,
            open: Vec::new(),
        })
    }

    fn live(&mut self, rounds: usize, tally: &mut Tally) -> Result<()> {
        let mut since = 0;
        for round in 0..rounds {
            self.round(round, &mut since, tally)
                .with_context(|| format!("round {round}"))?;
        }
        self.pair.settle()?;
        let registry = self.site.run(&[])?;
        let keys = lock(&self.world).history.keys();
        self.look(keys, tally).context("at the end")?;
        let greedy = lock(&self.world).greedy;
        let needed = match greedy {
            true => self.collected(tally)?,
            false => BTreeSet::new(),
        };
        self.verified(true, tally)?;
        registry.stop()?;
        // Offline as well.
        let told = self.verified(true, tally)?;
        if greedy {
            let history = &lock(&self.world).history;
            let interrupted = |digest: &str| history.interrupted_pushes(digest);
            broken(left(
                &needed,
                rows(&told),
                &self.pair.stored()?,
                interrupted,
            ))?;
            tally.needed += needed.len();
        }
        let world = lock(&self.world);
        tally.calls += world.history.len();
        let done =
            |number: &usize| world.history.call(*number).outcome == super::history::Outcome::Done;
        tally.acknowledged += (0..world.history.len()).filter(done).count();
        Ok(())
    }

    /// Starts, now and then killing the start itself first.
    fn start(&mut self) -> Result<Registry> {
        while self.random.chance(10) {
            let starting = self.site.start(&[])?;
            std::thread::sleep(Duration::from_micros(self.random.below(60_000) as u64));
            starting.kill()?;
        }
        self.site.run(&[])
    }

    /// Starts the server, looks at what the round before left, works, kills.
    fn round(&mut self, round: usize, since: &mut u64, tally: &mut Tally) -> Result<()> {
        let registry = self.start()?;
        let descriptors = registry.descriptors()?;
        let before = *self.descriptors.get_or_insert(descriptors);
        if descriptors > before + SLACK && self.pair.on_machine() {
            bail!("a fresh process has {descriptors} file descriptors, the first one had {before}");
        }
        let stray = match self.pair.on_files() {
            true => stray_uploads(&self.site.data, self.site.port)?,
            false => Vec::new(),
        };
        if !stray.is_empty() {
            bail!("files in uploads/ that no session owns: {stray:?}");
        }
        let keys = {
            let world = lock(&self.world);
            let mut keys = world.history.touched(*since);
            let all = world.history.keys();
            keys.extend((0..SAMPLE).filter_map(|_| self.random.pick(&all).cloned()));
            keys
        };
        self.look(keys, tally)?;
        if round % VERIFY_EVERY == VERIFY_EVERY - 1 {
            self.verified(false, tally)?;
        }
        *since = lock(&self.world).history.now();
        self.work(round, *since, registry)?;
        tally.kills += 1;
        let faults = std::mem::take(&mut lock(&self.world).faults);
        broken(faults)
    }

    /// Checks registers and open sessions, and takes note of what is there; then resumes some of the sessions.
    fn look(&mut self, keys: Vec<Key>, tally: &mut Tally) -> Result<()> {
        let mut world = lock(&self.world);
        let Found {
            faults,
            values,
            open,
            ..
        } = check(&world, &View::Client, self.site.port, keys, &self.open)?;
        broken(faults)?;
        tally.looked_at += values.len();
        for (key, value) in values {
            world.history.observed(&key, value);
        }
        drop(world);
        let stop = AtomicBool::new(false);
        let random = Random::new(self.random.next(), 1);
        let sizes = Sizes { largest: 1 };
        let mut client = Client::new(&self.world, random, self.site.port, &stop, sizes)?;
        let chosen = open.len().min(RESUMED);
        for (id, at) in &open[..chosen] {
            if client.resume(id, *at).is_err() {
                bail!("the server went away while upload {id} was resumed");
            }
            tally.resumed += 1;
        }
        self.open = open.into_iter().skip(chosen).map(|(id, _)| id).collect();
        broken(std::mem::take(&mut lock(&self.world).faults))
    }

    fn work(&mut self, round: usize, since: u64, registry: Registry) -> Result<()> {
        let stop = AtomicBool::new(false);
        // Short lives are as likely to meet a start's own work as long ones a checkpoint's.
        let time = Duration::from_millis(5 + self.random.below(190) as u64);
        let sizes = Sizes { largest: 1 << 20 };
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let random = Random::new(self.seed, (round as u64) << 8 | number);
            clients.push(Client::new(
                &self.world,
                random,
                self.site.port,
                &stop,
                sizes,
            )?);
        }
        std::thread::scope(|scope| {
            for mut client in clients {
                scope.spawn(move || client.work(usize::MAX));
            }
            std::thread::sleep(time);
            let killed = registry.kill();
            stop.store(true, Ordering::Relaxed);
            killed
        })?;
        let mut world = lock(&self.world);
        world.history.everything_is_over();
        // Beside those of earlier rounds that are not resumed yet.
        let mut fresh: Vec<String> = world
            .sessions
            .iter()
            .filter(|(_, session)| world.history.call(session.opened).begin > since)
            .map(|(id, _)| id.clone())
            .collect();
        fresh.sort();
        self.open.extend(fresh);
        Ok(())
    }

    /// What all manifests that are there need. Each of these blobs is read here, byte for byte.
    fn needed(&self) -> Result<BTreeSet<String>> {
        let world = lock(&self.world);
        let keys = world.history.keys();
        let Found { faults, values, .. } = check(&world, &View::Client, self.site.port, keys, &[])?;
        broken(faults)?;
        let alive = values
            .iter()
            .filter(|(key, value)| key.kind == Kind::Manifest && value.is_some());
        let manifests = alive.filter_map(|(key, _)| world.manifests.get(&key.name));
        Ok(manifests
            .flat_map(|manifest| manifest.blobs.iter().cloned())
            .collect())
    }

    /// Waits until a greedy collector has come to its end; what manifests need then. The plan shows what stands in the queues
    /// at one moment, and a blob may be between two of them: so it is not enough that the plan is empty.
    fn collected(&self, tally: &mut Tally) -> Result<BTreeSet<String>> {
        let begun = Instant::now();
        loop {
            self.nothing_is_due()?;
            let needed = self.needed()?;
            if rows(&self.verified(false, tally)?) == needed.len() || begun.elapsed() > QUIET {
                return Ok(needed);
            }
        }
    }

    /// Waits until the plan is empty.
    fn nothing_is_due(&self) -> Result<()> {
        let begun = Instant::now();
        let mut seen = 0;
        loop {
            let told = self.site.plan().context("wharf gc plan")?;
            let empty = told.contains("0 blobs in 0 B that")
                && told.contains("0 deleted manifests")
                && !told.contains("whose bytes go");
            seen = if empty { seen + 1 } else { 0 };
            // A plan lists blobs before manifests; the last of these may have become blobs in between.
            if seen == 2 {
                return Ok(());
            }
            if begun.elapsed() > QUIET {
                bail!("a collector without grace leaves this behind:\n{told}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn verified(&self, deep: bool, tally: &mut Tally) -> Result<String> {
        let told = self.site.verify(deep).context("wharf storage verify")?;
        tally.verified += 1;
        let orphans = orphans(&told);
        tally.orphans = tally.orphans.max(orphans);
        // A kill between a blob's name and its row leaves a file, and nothing else does.
        let interrupted = lock(&self.world).history.interrupted();
        if orphans > interrupted {
            bail!("{orphans} files that nothing names, after {interrupted} interrupted calls");
        }
        Ok(told)
    }
}

/// The files that `wharf storage verify` says nothing names.
fn orphans(told: &str) -> usize {
    told.lines()
        .find(|line| line.contains("that nothing names"))
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// The blobs that `wharf storage verify` looked at.
fn rows(told: &str) -> usize {
    told.lines()
        .find_map(|line| {
            line.strip_prefix("Checked ")?
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

/// An error that shows the first of these.
pub(crate) fn broken(faults: Vec<String>) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    let shown: Vec<&str> = faults.iter().take(10).map(String::as_str).collect();
    bail!("{} broken promises:\n{}", faults.len(), shown.join("\n"))
}

/// A run's folder, removed with everything in it unless it shall be kept.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("wharf-endure-{name}-{}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orphans_are_read_from_what_verify_says() {
        let told = "Checked 2 blobs in 3 B, 1 manifest: all sound.\n  3 files in 2.0 KiB that nothing names: harmless\n";
        assert_eq!(orphans(told), 3);
        assert_eq!(orphans("Checked: all sound.\n"), 0);
    }
}
