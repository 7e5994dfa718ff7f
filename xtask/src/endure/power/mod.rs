//! The power goes: what the server wrote is recorded call by call, and the worst that a disk may make of it is replayed.
//!
//! [`trace`] reads the recorder's words, [`disk`] knows what may be lost, [`state`] starts the server on what is left.
//! Each run first shows that a loss would be noticed: on a disk whose syncs do nothing.

mod disk;
mod state;
mod trace;

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::disk::{Disk, Loss, Remains, Step};
use self::state::{Place, State};
use self::trace::Tracer;
use super::random::Random;
use super::registry::Site;
use super::work::{Client, Sizes, World, lock};
use crate::run;

/// Clients that work while it is recorded.
const CLIENTS: u64 = 8;
/// Steps of each client in a part of the recording.
const STEPS: usize = 40;
/// States that are looked at side by side.
const WORKERS: usize = 3;
/// States of a disk that lies, of which the first that shows a loss is enough.
const LIES: usize = 20;

/// After so many states with a broken promise no more are tried.
const FAILURES: usize = 10;

/// A recording whose kill came within a write is made again: what of it was done is not known. So often at most.
const ATTEMPTS: u64 = 10;

/// What was done.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) calls: usize,
    pub(crate) steps: usize,
    pub(crate) bytes: usize,
    pub(crate) states: usize,
    pub(crate) looked_at: usize,
    pub(crate) resumed: usize,
}

/// What was recorded.
struct Recording {
    world: World,
    steps: Vec<Step>,
    /// When each call's answer began to leave the server.
    answers: HashMap<usize, usize>,
}

/// Records a server's work and starts it on so many states.
pub(crate) fn run(binary: &Path, folder: &Path, states: usize, seed: u64) -> Result<Tally> {
    let strace = run::find("strace").context("no program strace: apt-get install strace")?;
    let mut tally = Tally::default();
    // Several recordings: another schedule each, and the memory that one takes is bounded.
    let each = 1_000;
    for number in 0..states.div_ceil(each) {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
        let place = folder.join(format!("recording-{number}"));
        std::fs::create_dir(&place)?;
        let mut recording = None;
        for attempt in 0..ATTEMPTS {
            recording = record(binary, &strace, &place, seed.wrapping_add(attempt << 32))?;
            if recording.is_some() {
                break;
            }
        }
        let recording = recording.context("every recording ended within a call")?;
        let written = |step: &Step| match step {
            Step::Write { bytes, .. } => bytes.len(),
            _ => 0,
        };
        tally.calls += recording.world.history.len();
        tally.steps += recording.steps.len();
        tally.bytes += recording.steps.iter().map(written).sum::<usize>();
        println!(
            "recording {number}: {} calls, {} steps, {} MiB written",
            recording.world.history.len(),
            recording.steps.len(),
            recording.steps.iter().map(written).sum::<usize>() >> 20
        );
        if number == 0 {
            notices_a_loss(binary, &place, &recording)?;
        }
        let cuts = choose(&recording, each.min(states - tally.states), seed);
        replay(binary, &place, &recording, &cuts, &mut tally)
            .with_context(|| format!("seed {seed}"))?;
        std::fs::remove_dir_all(&place)?;
    }
    Ok(tally)
}

/// Lets clients work on a new folder: three lives of the server, ended by a kill, in order, and by a kill. `None`: a kill
/// came within a call.
fn record(binary: &Path, strace: &Path, place: &Path, seed: u64) -> Result<Option<Recording>> {
    let root = place.join("disk");
    if root.exists() {
        std::fs::remove_dir_all(&root)?;
    }
    std::fs::create_dir(&root)?;
    let site = Site::new(binary, &root.canonicalize()?)?.logging_to(place.join("server.log"));
    let world = Mutex::new(World::new());
    let mut tracer = Tracer::new(&root.canonicalize()?);
    for life in 0..3 {
        let told = place.join("strace.txt");
        let registry = site.run(&trace::recorder(strace, &told))?;
        let stop = AtomicBool::new(false);
        let sizes = Sizes { largest: 160 << 10 };
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let random = Random::new(seed, life << 8 | number);
            clients.push(Client::new(&world, random, site.port, &stop, sizes)?);
        }
        std::thread::scope(|scope| -> Result<()> {
            let steps = if life == 1 { usize::MAX } else { STEPS };
            let running: Vec<_> = clients
                .into_iter()
                .map(|mut client| scope.spawn(move || client.work(steps)))
                .collect();
            if life == 1 {
                // Until the log has been moved into the database under load and is written from its start again.
                let moved = until_the_log_begins_anew(&site.data);
                std::thread::sleep(Duration::from_millis(300));
                stop.store(true, Ordering::Relaxed);
                running.into_iter().for_each(|thread| drop(thread.join()));
                moved?;
                return registry.stop();
            }
            // Most of the work is done, and some is under way.
            while running.iter().filter(|thread| thread.is_finished()).count()
                < CLIENTS as usize / 2
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            let killed = registry.kill();
            stop.store(true, Ordering::Relaxed);
            killed
        })?;
        let mut world = lock(&world);
        world.history.everything_is_over();
        if let Some(fault) = world.faults.first() {
            bail!("while it was recorded: {fault}");
        }
        let told_bytes = std::fs::read(&told).context("the recorder's output")?;
        tracer.read(&told_bytes)?;
        std::fs::remove_file(&told)?;
        match is_complete(&tracer.steps, &root) {
            Err(_) if tracer.is_cut() => return Ok(None),
            outcome => outcome?,
        }
    }
    let steps = tracer.steps;
    let mut answers = HashMap::new();
    for (at, step) in steps.iter().enumerate() {
        if let Step::Answer { call } = step {
            answers.entry(*call).or_insert(at);
        }
    }
    let world = world
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let unheard = (0..world.history.len())
        .filter(|call| world.history.call(*call).outcome == super::history::Outcome::Done)
        .find(|call| !answers.contains_key(call));
    if let Some(call) = unheard {
        bail!(
            "the recording lacks the answer to {}",
            world.history.call(call).text
        );
    }
    Ok(Some(Recording {
        world,
        steps,
        answers,
    }))
}

/// Waits for another number of checkpoints in the head of SQLite's log (file format, section 4.1).
fn until_the_log_begins_anew(data: &Path) -> Result<()> {
    let checkpoints = || -> Option<[u8; 4]> {
        let mut head = [0; 16];
        let mut log = std::fs::File::open(data.join("wharf.db-wal")).ok()?;
        // A log without a head holds nothing yet.
        log.read_exact(&mut head).ok()?;
        Some([head[12], head[13], head[14], head[15]])
    };
    let start = Instant::now();
    let mut first = None;
    loop {
        let now = checkpoints();
        if now.is_some() && first.is_some() && now != first {
            return Ok(());
        }
        first = first.or(now);
        if start.elapsed() > Duration::from_secs(120) {
            bail!("the metadata's log was not begun anew within two minutes of work");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// With nothing lost, the recording gives exactly the folder that is there.
fn is_complete(steps: &[Step], root: &Path) -> Result<()> {
    let mut disk = Disk::new();
    steps.iter().for_each(|step| disk.apply(step));
    let all = disk.cut(Loss::Nothing, &mut Random::new(0, 0));
    let mut names: Vec<PathBuf> = Vec::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(folder) = ahead.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.strip_prefix(root)?.to_owned();
            if path.is_dir() {
                ahead.push(path);
            } else if !trace::is_left_out(&name) {
                let bytes = std::fs::read(&path)?;
                if all.read(&name) != Some(&bytes) {
                    bail!("the recording does not give {}", name.display());
                }
                names.push(name);
            }
        }
    }
    if names.len() != all.names.len() {
        bail!(
            "the recording gives {} files, and {} are there",
            all.names.len(),
            names.len()
        );
    }
    Ok(())
}

/// A moment, and what is lost then.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// So many steps have happened.
    at: usize,
    loss: Loss,
    seed: u64,
}

/// Moments all over the recording; often just after an answer has left, when most is promised and least is spare.
fn choose(recording: &Recording, count: usize, seed: u64) -> Vec<Cut> {
    let mut random = Random::new(seed, 0xc0);
    let length = recording.steps.len();
    let mut answers: Vec<usize> = recording.answers.values().copied().collect();
    answers.sort_unstable();
    let first = answers.first().copied().unwrap_or(length);
    let mut cuts: Vec<Cut> = (0..count)
        .map(|_| {
            let at = match random.below(10) {
                0..5 => 1 + *random.pick(&answers).unwrap_or(&0),
                5 => random.below(first),
                _ => random.below(length),
            };
            let loss = match random.below(20) {
                0..6 => Loss::All,
                6 => Loss::Nothing,
                7..10 => Loss::After(at.saturating_sub(random.below(200))),
                10 => Loss::Bytes,
                11 => Loss::Names,
                _ => Loss::Random,
            };
            let seed = random.next();
            Cut { at, loss, seed }
        })
        .collect();
    cuts.sort_by_key(|cut| cut.at);
    cuts
}

/// Starts the server on each state. Goes on after a broken promise, since many have one cause and some another.
fn replay(
    binary: &Path,
    place: &Path,
    recording: &Recording,
    cuts: &[Cut],
    tally: &mut Tally,
) -> Result<()> {
    let done = Mutex::new((Tally::default(), Vec::new()));
    let (send, receive) = sync_channel::<(Cut, Remains)>(WORKERS);
    let receive = Mutex::new(receive);
    std::thread::scope(|scope| {
        let (receive, done) = (&receive, &done);
        for _ in 0..WORKERS {
            scope.spawn(move || {
                loop {
                    let next = receive.lock().map(|receive| receive.recv());
                    let Ok(Ok((cut, remains))) = next else { return };
                    let outcome = look(binary, place, recording, cut, &remains);
                    let Ok(mut done) = done.lock() else { return };
                    match outcome {
                        Ok(seen) => {
                            done.0.states += 1;
                            done.0.looked_at += seen.looked_at;
                            done.0.resumed += seen.resumed;
                        }
                        Err(error) => {
                            println!("FAILED: {error:#}");
                            done.1.push(error);
                        }
                    }
                }
            });
        }
        let mut disk = Disk::new();
        let mut steps = recording.steps.iter();
        for cut in cuts {
            if done.lock().is_ok_and(|done| done.1.len() >= FAILURES) {
                break;
            }
            while disk.time() < cut.at {
                steps.next().into_iter().for_each(|step| disk.apply(step));
            }
            let remains = disk.cut(cut.loss, &mut Random::new(cut.seed, 0));
            if send.send((*cut, remains)).is_err() {
                break;
            }
        }
        drop(send);
    });
    let (seen, failures) = done
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    tally.states += seen.states;
    tally.looked_at += seen.looked_at;
    tally.resumed += seen.resumed;
    if !failures.is_empty() {
        bail!(
            "{} of {} states broke a promise",
            failures.len(),
            failures.len() + seen.states
        );
    }
    Ok(())
}

/// One state, in a folder of its own, which stays when something is wrong with it.
fn look(
    binary: &Path,
    place: &Path,
    recording: &Recording,
    cut: Cut,
    remains: &Remains,
) -> Result<state::Seen> {
    let place = Place::new(place, cut.seed)?;
    let sent = |call: usize| recording.answers.get(&call).is_some_and(|at| *at < cut.at);
    let state = State {
        binary,
        world: &recording.world,
        sent: &sent,
        seed: cut.seed,
    };
    let seen = state
        .look(&place, remains)
        .with_context(|| format!("{cut:?}; the state is kept in {}", place.path().display()))?;
    place.remove()?;
    Ok(seen)
}

/// On a disk that lies about its syncs the same checks must find a loss; otherwise they prove nothing.
fn notices_a_loss(binary: &Path, place: &Path, recording: &Recording) -> Result<()> {
    let cuts = choose(recording, LIES, 7);
    let honest = recording.steps.len() / 2;
    for cut in cuts.iter().rev() {
        let mut disk = Disk::new();
        for (at, step) in recording.steps[..cut.at].iter().enumerate() {
            disk.lies = at >= honest;
            disk.apply(step);
        }
        let remains = disk.cut(Loss::All, &mut Random::new(cut.seed, 0));
        let at = Cut {
            loss: Loss::All,
            ..*cut
        };
        if let Err(error) = look(binary, place, recording, at, &remains) {
            let told = format!("{error:#}");
            let lines: Vec<&str> = told.lines().take(2).collect();
            println!("a disk that lies is found out: {}", lines.join(" "));
            Place::new(place, cut.seed)?.remove()?;
            return Ok(());
        }
    }
    bail!(
        "a disk that lies about its syncs lost nothing that was noticed: the checks prove nothing"
    )
}
