//! Whether a server that has just started keeps every promise that was made before.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::history::{Key, Kind, Outcome, Value, View};
use super::http::{Body, Connection};
use super::work::{REPOSITORIES, Session, TAGS, World, repository};

/// Connections that look at once.
const THREADS: usize = 4;
/// Longest that a server may take after a start to remove what nobody owns.
const TIDYING: Duration = Duration::from_secs(20);

/// What is there.
#[derive(Default)]
pub(crate) struct Found {
    /// What must not be.
    pub(crate) faults: Vec<String>,
    /// Each register that was looked at.
    pub(crate) values: BTreeMap<Key, Value>,
    /// Sessions that can be resumed, and where.
    pub(crate) open: Vec<(String, usize)>,
    /// Sessions that are gone.
    pub(crate) gone: Vec<String>,
}

/// Looks at these registers and all that hangs together with them, and at these sessions. Nobody writes meanwhile.
pub(crate) fn check(
    world: &World,
    view: &View<'_>,
    port: u16,
    keys: Vec<Key>,
    sessions: &[String],
) -> Result<Found> {
    let keys = with_company(world, keys);
    let mut found = Found::default();
    std::thread::scope(|scope| -> Result<()> {
        let parts: Vec<_> = (0..THREADS)
            .map(|part| {
                let (keys, sessions) = (&keys, sessions);
                scope.spawn(move || -> Result<Found> {
                    let mut looker = Looker {
                        world,
                        view,
                        connection: Connection::open(port)?,
                        found: Found::default(),
                    };
                    for key in keys.iter().skip(part).step_by(THREADS) {
                        looker
                            .register(key)
                            .with_context(|| format!("looking at {key:?}"))?;
                    }
                    for id in sessions.iter().skip(part).step_by(THREADS) {
                        looker
                            .session(id)
                            .with_context(|| format!("looking at upload {id}"))?;
                    }
                    Ok(looker.found)
                })
            })
            .collect();
        for part in parts {
            let Ok(part) = part.join() else {
                bail!("a checking thread panicked");
            };
            let part = part?;
            found.faults.extend(part.faults);
            found.values.extend(part.values);
            found.open.extend(part.open);
            found.gone.extend(part.gone);
        }
        Ok(())
    })?;
    let mut looker = Looker {
        world,
        view,
        connection: Connection::open(port)?,
        found,
    };
    looker.manifests_are_whole()?;
    looker.listings_agree()?;
    looker.referrers_agree()?;
    Ok(looker.found)
}

/// All tags, so that listings can be compared, and all referrers of a subject of which one is looked at.
fn with_company(world: &World, keys: Vec<Key>) -> Vec<Key> {
    let mut all: BTreeSet<Key> = keys.into_iter().collect();
    for repository in 0..REPOSITORIES {
        for tag in 0..TAGS {
            all.insert(Key::new(Kind::Tag, repository, &format!("t{tag}")));
        }
    }
    let subjects: HashSet<(usize, &String)> = all
        .iter()
        .filter(|key| key.kind == Kind::Manifest)
        .filter_map(|key| {
            let manifest = world.manifests.get(&key.name)?;
            Some((key.repository, manifest.subject.as_ref()?))
        })
        .collect();
    if subjects.is_empty() {
        return all.into_iter().collect();
    }
    for key in world.history.keys() {
        let subject = world
            .manifests
            .get(&key.name)
            .and_then(|manifest| manifest.subject.as_ref());
        if key.kind == Kind::Manifest
            && subject.is_some_and(|subject| subjects.contains(&(key.repository, subject)))
        {
            all.insert(key);
        }
    }
    all.into_iter().collect()
}

/// Files of uploads that no session owns, once the server has had its time: it removes them beside its first requests.
pub(crate) fn stray_uploads(data: &Path, port: u16) -> Result<Vec<String>> {
    let begun = Instant::now();
    loop {
        let stray = strays(data, port)?;
        if stray.is_empty() || begun.elapsed() > TIDYING {
            return Ok(stray);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn strays(data: &Path, port: u16) -> Result<Vec<String>> {
    let mut connection = Connection::open(port)?;
    let mut stray = Vec::new();
    for entry in std::fs::read_dir(data.join("uploads"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let mut owned = false;
        for number in 0..REPOSITORIES {
            let target = format!("/v2/{}/blobs/uploads/{name}", repository(number));
            owned |= connection.send("GET", &target, &[], Body::None)?.status == 204;
        }
        if !owned {
            stray.push(name);
        }
    }
    Ok(stray)
}

struct Looker<'a> {
    world: &'a World,
    view: &'a View<'a>,
    connection: Connection,
    found: Found,
}

impl Looker<'_> {
    fn fault(&mut self, text: String) {
        self.found.faults.push(text);
    }

    fn register(&mut self, key: &Key) -> io::Result<()> {
        let name = repository(key.repository);
        let (method, target) = match key.kind {
            Kind::Blob => ("GET", format!("/v2/{name}/blobs/{}", key.name)),
            Kind::Manifest => ("GET", format!("/v2/{name}/manifests/{}", key.name)),
            Kind::Tag => ("HEAD", format!("/v2/{name}/manifests/{}", key.name)),
        };
        let answer = self.connection.send(method, &target, &[], Body::None)?;
        let value = match answer.status {
            200 => answer.header("docker-content-digest").map(str::to_owned),
            404 => None,
            status => {
                let history = self.world.history.tell(key, self.view);
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                self.fault(format!(
                    "{target} is answered {status}: {body}\n  {history}"
                ));
                return Ok(());
            }
        };
        let right = match (key.kind, answer.status) {
            (Kind::Blob, 200) => {
                let content = self.world.blobs.get(&key.name);
                content.is_some_and(|content| content.bytes() == answer.body)
            }
            (Kind::Manifest, 200) => {
                let manifest = self.world.manifests.get(&key.name);
                manifest.is_some_and(|manifest| manifest.bytes == answer.body)
            }
            _ => true,
        };
        if !right {
            let history = self.world.history.tell(key, self.view);
            self.fault(format!("{target} has wrong bytes\n  {history}"));
        }
        let mut possible = self.world.history.possible(key, self.view);
        if self.world.greedy && key.kind == Kind::Blob {
            // Whether a manifest needs it is looked at for all manifests together.
            possible.insert(None);
        }
        if !possible.contains(&value) {
            let history = self.world.history.tell(key, self.view);
            self.fault(format!(
                "{target} is {value:?} and can only be one of {possible:?}\n  {history}"
            ));
        }
        self.found.values.insert(key.clone(), value);
        Ok(())
    }

    fn session(&mut self, id: &str) -> io::Result<()> {
        let Some(session) = self.world.sessions.get(id) else {
            return Ok(());
        };
        let target = format!("/v2/{}/blobs/uploads/{id}", repository(session.repository));
        let answer = self.connection.send("GET", &target, &[], Body::None)?;
        let limits = self.limits(session);
        let held = match answer.status {
            // "0-0" means nothing held, and contents are longer than one byte, so no part ends there.
            204 => {
                let last: Option<usize> = answer
                    .header("range")
                    .and_then(|range| range.strip_prefix("0-"))
                    .and_then(|last| last.parse().ok());
                last.map(|last| if last == 0 { 0 } else { last + 1 })
            }
            404 => None,
            status => {
                self.fault(format!("{target} is answered {status}"));
                return Ok(());
            }
        };
        let fault = match held {
            None if limits.must_be => Some("is gone".to_owned()),
            Some(_) if !limits.may_be => Some("is there although it was ended".to_owned()),
            // One byte held reads as "0-0".
            Some(0) if limits.low <= 1 => None,
            Some(held) if held < limits.low || held > limits.high => Some(format!(
                "holds {held} bytes and must hold {} to {}",
                limits.low, limits.high
            )),
            _ => None,
        };
        if let Some(fault) = fault {
            let history = self.tell_session(session);
            self.fault(format!("upload {id} {fault}{history}"));
        }
        match held {
            // Where one byte may be held, also the first of an interrupted part, "0-0" does not tell: it is left alone.
            Some(0) if limits.high >= 1 => {}
            Some(held) => self.found.open.push((id.to_owned(), held)),
            None => self.found.gone.push(id.to_owned()),
        }
        Ok(())
    }

    fn tell_session(&self, session: &Session) -> String {
        let calls = session.parts.iter().map(|(call, _)| call);
        let all = std::iter::once(&session.opened)
            .chain(calls)
            .chain(&session.ended);
        all.map(|number| {
            let call = self.world.history.call(*number);
            let (_, outcome) = self.view.of(*number, call);
            format!("\n    #{number} {outcome:?}: {}", call.text)
        })
        .collect()
    }

    fn limits(&self, session: &Session) -> Limits {
        let outcome = |number: &usize| {
            let call = self.world.history.call(*number);
            self.view.of(*number, call).1
        };
        let mut low = 0;
        let mut high = 0;
        for (call, end) in &session.parts {
            match outcome(call) {
                Outcome::Done => low = low.max(*end),
                Outcome::Unknown => {}
                Outcome::Refused => continue,
            }
            high = high.max(*end);
        }
        let ends: Vec<Outcome> = session.ended.iter().map(outcome).collect();
        // A session without bytes may be lost with the power, and with the database.
        let held = session.parts.iter().map(|(call, _)| call);
        let kept = match self.view {
            View::Client if !self.world.forgets_openings => {
                outcome(&session.opened) == Outcome::Done
            }
            _ => held.map(outcome).any(|outcome| outcome == Outcome::Done),
        };
        Limits {
            must_be: kept && ends.iter().all(|end| *end == Outcome::Refused),
            may_be: !ends.contains(&Outcome::Done),
            low,
            high,
        }
    }

    /// Every manifest that is there has all its blobs.
    fn manifests_are_whole(&mut self) -> io::Result<()> {
        let mut wanted = BTreeSet::new();
        for (key, value) in &self.found.values {
            if key.kind != Kind::Manifest || value.is_none() {
                continue;
            }
            for blob in self
                .world
                .manifests
                .get(&key.name)
                .into_iter()
                .flat_map(|manifest| &manifest.blobs)
            {
                wanted.insert((Key::new(Kind::Blob, key.repository, blob), key.name.clone()));
            }
        }
        let mut seen: BTreeMap<Key, bool> = BTreeMap::new();
        for (blob, manifest) in wanted {
            let there = match (self.found.values.get(&blob), seen.get(&blob)) {
                (Some(value), _) => value.is_some(),
                (None, Some(there)) => *there,
                (None, None) => {
                    let target = format!("/v2/{}/blobs/{}", repository(blob.repository), blob.name);
                    self.connection
                        .send("HEAD", &target, &[], Body::None)?
                        .status
                        == 200
                }
            };
            if !there {
                let history = self.world.history.tell(&blob, self.view);
                self.fault(format!(
                    "manifest {manifest} is there without its blob\n  {history}"
                ));
            }
            seen.insert(blob, there);
        }
        Ok(())
    }

    /// The list of tags is what asking for each of them gives, and each stands at a manifest that is there.
    fn listings_agree(&mut self) -> io::Result<()> {
        for number in 0..REPOSITORIES {
            let name = repository(number);
            let target = format!("/v2/{name}/tags/list");
            let answer = self.connection.send("GET", &target, &[], Body::None)?;
            let listed: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
            let listed: BTreeSet<String> = match (answer.status, listed) {
                (404, _) => BTreeSet::new(),
                (200, Some(listed)) => listed["tags"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|tag| tag.as_str().map(str::to_owned))
                    .collect(),
                (status, _) => {
                    self.fault(format!("{target} is answered {status}"));
                    continue;
                }
            };
            let mut there = BTreeSet::new();
            let mut dangling = Vec::new();
            for (key, value) in &self.found.values {
                let Some(digest) = value else { continue };
                if key.kind != Kind::Tag || key.repository != number {
                    continue;
                }
                there.insert(key.name.clone());
                let manifest = Key::new(Kind::Manifest, number, digest);
                if self.found.values.get(&manifest) == Some(&None) {
                    dangling.push(format!("{key:?} stands at {digest}, which is not there"));
                }
            }
            self.found.faults.extend(dangling);
            if listed != there {
                self.fault(format!(
                    "{target} lists {listed:?}, and asking for each gives {there:?}"
                ));
            }
        }
        Ok(())
    }

    /// The list of a subject's referrers is those that are there.
    fn referrers_agree(&mut self) -> io::Result<()> {
        let mut there: BTreeMap<(usize, String), BTreeSet<String>> = BTreeMap::new();
        for (key, value) in &self.found.values {
            let manifest = self.world.manifests.get(&key.name);
            if let (Kind::Manifest, Some(subject)) = (
                key.kind,
                manifest.and_then(|manifest| manifest.subject.clone()),
            ) {
                let referrers = there.entry((key.repository, subject)).or_default();
                if value.is_some() {
                    referrers.insert(key.name.clone());
                }
            }
        }
        for ((number, subject), there) in there {
            let target = format!("/v2/{}/referrers/{subject}", repository(number));
            let answer = self.connection.send("GET", &target, &[], Body::None)?;
            let listed: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
            let listed: BTreeSet<String> = listed
                .as_ref()
                .and_then(|listed| listed["manifests"].as_array())
                .into_iter()
                .flatten()
                .filter_map(|entry| entry["digest"].as_str().map(str::to_owned))
                .collect();
            if answer.status != 200 || listed != there {
                self.fault(format!(
                    "{target} ({}) lists {listed:?}, and asking for each gives {there:?}",
                    answer.status
                ));
            }
        }
        Ok(())
    }
}

/// What may be true of a session.
struct Limits {
    must_be: bool,
    may_be: bool,
    low: usize,
    high: usize,
}
