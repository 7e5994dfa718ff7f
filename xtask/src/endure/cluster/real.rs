//! Real clients beside those of the driver: each makes images, pushes them through nginx and pulls them back, in a loop, while
//! things fail.
//!
//! A client may fail then, but never without a clear word, and never for good: at rest, a push that failed succeeds when it is
//! done again. What a client called pushed is there from that moment on, whole, for every other client.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::e2e::{Docker, Image, Layer, Site, Step, Tool, hello, installed, noise, tool};
use crate::endure::random::Random;
use crate::endure::work::{World, lock};

/// Longest time for one command: many times what nginx grants a replica.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of a layer: a row, one part, several parts.
const SIZES: [u64; 4] = [1_000, 50_000, 500_000, 9_000_000];

/// What a client may say when a replica, the database or the bucket has just gone: what nginx or Wharf answered, or that the
/// connection ended. Nothing else: neither that something is not there, nor that it is not what it should be.
const CLEAR: [&str; 6] = [
    "bad gateway",
    "gateway time-out",
    "unavailable",
    "eof",
    "connection reset",
    "broken pipe",
];
/// Allowed when the database was killed: it opens sessions without waiting for its log.
const FORGOTTEN: &str = "upload unknown";

/// What one client did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    pushed: usize,
    pulled: usize,
    /// Failures by what was said.
    failed: BTreeMap<&'static str, usize>,
}

impl Done {
    /// Adds what the same client did elsewhere.
    pub(crate) fn add(&mut self, other: &Done) {
        self.pushed += other.pushed;
        self.pulled += other.pulled;
        for (word, count) in &other.failed {
            *self.failed.entry(word).or_default() += count;
        }
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (pushed, pulled) = (self.pushed, self.pulled);
        let failed: usize = self.failed.values().sum();
        write!(f, "{pushed} pushed, {pulled} pulled, {failed} failures")?;
        if failed > 0 {
            write!(f, " {:?}", self.failed)?;
        }
        Ok(())
    }
}

/// An image that was acknowledged.
#[derive(Clone, Debug)]
struct Pushed {
    tag: String,
    digest: String,
}

/// How a client is driven.
enum Driven {
    Program(&'static (dyn Tool + Sync)),
    /// Its engine ends with it.
    Engine(Docker),
}

impl Driven {
    fn tool(&self) -> &dyn Tool {
        match self {
            Self::Program(tool) => *tool,
            Self::Engine(docker) => docker,
        }
    }
}

/// One client.
pub(crate) struct Real {
    pub(crate) name: &'static str,
    driven: Driven,
    site: Site,
    /// Holds what it makes and fetches.
    place: PathBuf,
    log: PathBuf,
    random: Random,
    made: usize,
    /// Every image it was told is there.
    pushed: Vec<Pushed>,
    /// An image whose push failed last.
    open: Option<(Image, String)>,
    pub(crate) faults: Vec<String>,
    pub(crate) done: Done,
}

/// The clients of these names, which go to nginx at a port and write their logs to a folder. Their files lie beside that: podman
/// takes no path that is longer than 50 characters.
pub(crate) fn start(names: &[String], folder: &Path, port: u16, seed: u64) -> Result<Vec<Real>> {
    let place = folder.with_file_name("c");
    let _ = std::fs::remove_dir_all(&place);
    if !names.is_empty() {
        hello(&place.join("program/hello"))?;
    }
    let one = |(stream, name): (usize, &String)| {
        let (name, driven) = match name.as_str() {
            "docker" => {
                installed("docker")?;
                let log = folder.join("dockerd.log");
                let engine = Docker::start(&place.join("engine"), &log, false)?;
                ("docker", Driven::Engine(engine))
            }
            name => tool(name).map(|(name, tool)| (name, Driven::Program(tool)))?,
        };
        Ok(Real {
            name,
            driven,
            site: Site::elsewhere(&format!("127.0.0.1:{port}")),
            place: place.clone(),
            log: folder.join(format!("{name}.log")),
            random: Random::new(seed, 1 << 32 | stream as u64),
            made: 0,
            pushed: Vec::new(),
            open: None,
            faults: Vec::new(),
            done: Done::default(),
        })
    };
    names.iter().enumerate().map(one).collect()
}

/// What was pushed lately is pulled by the next client, after every failed push was done again. Nothing is wrong with the cluster
/// now, so nothing may fail.
pub(crate) fn rest(clients: &mut [Real]) {
    let newest = at_once(clients, Real::settle);
    let others = newest.iter().cycle().skip(1);
    std::thread::scope(|scope| {
        for (client, (repository, pushed)) in clients.iter_mut().zip(others) {
            let pushed = pushed.as_ref();
            scope.spawn(move || pushed.map(|pushed| client.fetch(repository, pushed)));
        }
    });
}

/// Everything that was ever pushed is pulled back, by whoever has time.
pub(crate) fn end(clients: &mut [Real]) {
    let all = clients.iter().flat_map(|client| {
        let repository = client.repository();
        let pushed = client.pushed.iter();
        pushed.map(move |pushed| (repository.clone(), pushed.clone()))
    });
    let left: Mutex<Vec<_>> = Mutex::new(all.collect());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    at_once(clients, |client| {
        while let Some((repository, pushed)) = next() {
            client.fetch(&repository, &pushed);
        }
    });
}

/// Lets all of them do something at the same time.
fn at_once<T: Send>(clients: &mut [Real], act: impl Fn(&mut Real) -> T + Sync) -> Vec<T> {
    let act = &act;
    std::thread::scope(|scope| {
        let all: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(move || act(client)))
            .collect();
        all.into_iter()
            .map(|one| one.join().expect("no panic"))
            .collect()
    })
}

impl Real {
    fn repository(&self) -> String {
        format!("clients/{}", self.name)
    }

    /// Pushes and pulls until it is told to stop, or something is wrong.
    pub(crate) fn work(&mut self, stop: &AtomicBool, world: &Mutex<World>) {
        while !stop.load(Ordering::Relaxed) && self.faults.is_empty() {
            let turn = self.alone(|real, step| real.turn(step, world));
            self.note(turn);
        }
    }

    fn note(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.faults.push(format!("{}: {error:#}", self.name));
        }
    }

    /// Does something in a folder of its own: what it knows from before must not stand in for what it has to fetch.
    fn alone<T>(&mut self, act: impl FnOnce(&mut Real, &mut Step) -> Result<T>) -> Result<T> {
        let dir = self.place.join(&self.name[..1]);
        let mut step = Step::new(dir, self.log.clone())?.with_patience(PATIENCE);
        let outcome = act(self, &mut step);
        step.clear()?;
        outcome
    }

    fn turn(&mut self, step: &mut Step, world: &Mutex<World>) -> Result<()> {
        let (image, tag) = match self.open.take() {
            Some(open) => open,
            None => self.make()?,
        };
        if let Err(error) = self.push(step, &image, &tag) {
            self.open = Some((image, tag));
            return self.judge(&error, world).context("a push");
        }
        // By its tag at once, as the one who waits for it does, and an older one by its digest.
        let newest = self.pushed.last().cloned();
        let older = self.random.pick(&self.pushed).cloned();
        for (pushed, by_tag) in [(newest, true), (older, false)] {
            let Some(pushed) = pushed else { continue };
            let reference = if by_tag { &pushed.tag } else { &pushed.digest };
            match self.pull(step, &self.repository(), reference) {
                Ok(found) => same(&found, &pushed)?,
                Err(error) => {
                    self.judge(&error, world)
                        .with_context(|| format!("a pull of {reference}"))?;
                    continue;
                }
            }
            self.done.pulled += 1;
        }
        Ok(())
    }

    /// An image of its own, above a layer that all have.
    fn make(&mut self) -> Result<(Image, String)> {
        self.made += 1;
        let tag = format!("v{}", self.made);
        let dir = self.place.join(format!("{}-{tag}", self.name));
        let tree = dir.join("tree");
        let size = SIZES[self.random.below(SIZES.len())];
        noise(&tree.join("noise"), size, self.random.next())?;
        let program = self.place.join("program");
        let layers = [&program, &tree].map(|tree| Layer { tree, gzip: true });
        let image = Image::build(&dir.join("layout"), &tag, &layers, &["/hello"])?;
        std::fs::remove_dir_all(&tree)?;
        Ok((image, tag))
    }

    /// Pushes it, and forgets all of it but its digest.
    fn push(&mut self, step: &mut Step, image: &Image, tag: &str) -> Result<()> {
        let repository = self.repository();
        let digest = self
            .driven
            .tool()
            .push(step, &self.site, image, &repository, tag)?;
        self.pushed.push(Pushed {
            tag: tag.to_owned(),
            digest,
        });
        self.done.pushed += 1;
        if let Some(dir) = image.dir.parent() {
            std::fs::remove_dir_all(dir)?;
        }
        Ok(())
    }

    fn pull(&self, step: &mut Step, repository: &str, reference: &str) -> Result<String> {
        let address = &self.site.address;
        self.driven
            .tool()
            .pull(step, &self.site, address, repository, reference)
    }

    /// Pushes again what failed, at rest; gives what it has pushed last.
    fn settle(&mut self) -> (String, Option<Pushed>) {
        if let Some((image, tag)) = self.open.take() {
            let pushed = self.alone(|real, step| real.push(step, &image, &tag));
            self.note(pushed.context("a push that had failed was done again at rest"));
        }
        (self.repository(), self.pushed.last().cloned())
    }

    /// Pulls an image at rest, whoever pushed it.
    fn fetch(&mut self, repository: &str, pushed: &Pushed) {
        let found = self
            .alone(|real, step| real.pull(step, repository, &pushed.tag))
            .and_then(|found| same(&found, pushed));
        self.done.pulled += usize::from(found.is_ok());
        self.note(found.with_context(|| format!("{repository}:{} at rest", pushed.tag)));
    }

    /// Whether a failure is one that may be; counts it.
    fn judge(&mut self, error: &anyhow::Error, world: &Mutex<World>) -> Result<()> {
        let (undisturbed, forgets) = {
            let world = lock(world);
            (world.undisturbed, world.forgets_openings)
        };
        let text = format!("{error:#}");
        match clear(&text, forgets) {
            Some(word) if !undisturbed => {
                *self.done.failed.entry(word).or_default() += 1;
                Ok(())
            }
            _ => bail!("{text}"),
        }
    }
}

/// The clear word in what a client said.
fn clear(text: &str, forgets: bool) -> Option<&'static str> {
    let text = text.to_lowercase();
    // It hung, or crashed.
    if text.contains("a signal or the time limit") {
        return None;
    }
    let forgotten = forgets.then_some(FORGOTTEN);
    let mut words = CLEAR.into_iter().chain(forgotten);
    words.find(|word| text.contains(word))
}

fn same(found: &str, pushed: &Pushed) -> Result<()> {
    if found != pushed.digest {
        bail!(
            "{} is {found}, and {} was pushed",
            pushed.tag,
            pushed.digest
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clear_words_are_taken() {
        let is = |text| clear(text, false);
        assert_eq!(
            is("crane push ended with exit code 1\nunexpected status code 502 Bad Gateway"),
            Some("bad gateway")
        );
        assert_eq!(is("UNAVAILABLE: the database is away"), Some("unavailable"));
        for wrong in [
            "response status code 404: manifest unknown",
            "layer.tar.gz holds sha256:0123",
            "ended with a signal or the time limit\nunexpected EOF",
            "500 Internal Server Error",
            "blob upload unknown to registry",
        ] {
            assert_eq!(is(wrong), None, "{wrong}");
        }
        assert!(clear("blob upload unknown to registry", true).is_some());
    }
}
