//! Clients that push, mount, move and delete at random, and write down what they asked and what they heard.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::history::{Effect, History, Key, Kind, Outcome};
use super::http::{Answer, Body, Connection, is_hang, is_over};
use super::random::{Random, digest, noise};

/// Repositories that everybody works in.
pub(crate) const REPOSITORIES: usize = 4;
/// Tags of each that everybody moves.
pub(crate) const TAGS: usize = 24;
/// How often a manifest is pushed whose blobs a greedy collector takes away.
const AGAIN: usize = 4;
/// What all manifests here are.
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// The name of a repository; with slashes, as in life.
pub(crate) fn repository(number: usize) -> String {
    format!("endure/r{number}")
}

/// Bytes that need not be kept: the seed makes them again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub(crate) seed: u64,
    pub(crate) length: usize,
}

impl Content {
    pub(crate) fn bytes(self) -> Vec<u8> {
        noise(self.seed, self.length)
    }
}

/// A manifest that somebody pushed.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) bytes: Vec<u8>,
    /// Digests of what it is made of.
    pub(crate) blobs: Vec<String>,
    pub(crate) subject: Option<String>,
}

/// An upload session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) repository: usize,
    pub(crate) content: Content,
    /// Calls that opened it, wrote to it up to an offset, ended it.
    pub(crate) opened: usize,
    pub(crate) parts: Vec<(usize, usize)>,
    pub(crate) ended: Vec<usize>,
}

/// What all clients know together.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) history: History,
    pub(crate) blobs: HashMap<String, Content>,
    pub(crate) manifests: HashMap<String, Manifest>,
    pub(crate) sessions: HashMap<String, Session>,
    /// What was pushed into each repository and not knowingly deleted: candidates, not certainties.
    held: Vec<Vec<String>>,
    pushed: Vec<Vec<String>>,
    /// A collector without any grace runs: a blob that no manifest needs may go at any moment.
    pub(crate) greedy: bool,
    /// What must never happen.
    pub(crate) faults: Vec<String>,
    /// A proxy stands before the server: 502 and 504 are its words, and what it gave up may still happen.
    pub(crate) behind_a_front: bool,
    /// The database was killed: it opens sessions without waiting for its log, so those without bytes may be gone.
    pub(crate) forgets_openings: bool,
    /// Nothing is done to the server that a client might notice: a request without an answer is a fault, and so is any 5xx.
    pub(crate) undisturbed: bool,
    /// Answers by status.
    pub(crate) answers: HashMap<u16, usize>,
}

/// How large contents are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// The largest blob.
    pub(crate) largest: usize,
}

/// One client.
pub(crate) struct Client<'a> {
    world: &'a Mutex<World>,
    random: Random,
    port: u16,
    connection: Connection,
    stop: &'a AtomicBool,
    sizes: Sizes,
    /// The last call that was answered.
    last: Option<usize>,
}

/// The server is gone, or the time is up.
pub(crate) struct Over;

type Done<T = ()> = Result<T, Over>;

/// Locks the world. A panic of one client says nothing about what the others wrote down.
pub(crate) fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new() -> World {
        World {
            held: vec![Vec::new(); REPOSITORIES],
            pushed: vec![Vec::new(); REPOSITORIES],
            ..World::default()
        }
    }

    /// The same, with a collector without grace, or not.
    pub(crate) fn with_greed(self, greedy: bool) -> World {
        World { greedy, ..self }
    }
}

impl<'a> Client<'a> {
    pub(crate) fn new(
        world: &'a Mutex<World>,
        random: Random,
        port: u16,
        stop: &'a AtomicBool,
        sizes: Sizes,
    ) -> io::Result<Client<'a>> {
        Ok(Client {
            world,
            random,
            port,
            connection: Connection::open(port)?,
            stop,
            sizes,
            last: None,
        })
    }

    /// Works until it is told to stop, the server goes away, or so many steps are done.
    pub(crate) fn work(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.stop.load(Ordering::Relaxed) || self.step().is_err() {
                return;
            }
        }
    }

    fn step(&mut self) -> Done {
        let repository = self.random.below(REPOSITORIES);
        match self.random.below(100) {
            0..12 => self.push_whole(repository).map(drop),
            12..22 => self.push_in_two(repository),
            22..34 => self.push_in_parts(repository),
            34..42 => self.push_streamed(repository),
            42..50 => self.mount(repository),
            50..68 => self.push_image(repository, false),
            68..75 => self.push_image(repository, true),
            75..84 => self.move_tag(repository),
            84..90 => self.delete_blob(repository),
            90..94 => self.delete_manifest(repository),
            94..98 => self.delete_tag(repository),
            _ => self.cancel(repository),
        }
    }

    /// One request, with its effects should it succeed. `note` hears its number before it is sent.
    fn call(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
        effects: &[Effect],
        note: impl FnOnce(&mut World, usize),
    ) -> Done<(usize, Answer)> {
        let size = match body {
            Body::None => 0,
            Body::Whole(bytes) | Body::Streamed(bytes, _) => bytes.len(),
        };
        let number = {
            let mut world = lock(self.world);
            let text = format!("{method} {target} ({size} bytes)");
            let number = world.history.begin(text, effects, self.last);
            note(&mut world, number);
            number
        };
        let id = format!("call-{number}");
        let mut headers = headers.to_vec();
        headers.push(("X-Request-Id", &id));
        let mut sent = self.connection.send(method, target, &headers, body);
        // nginx ends a connection that waits for a request when it takes up a configuration; no request was lost, since
        // it answers each that it read.
        if sent.as_ref().is_err_and(is_over)
            && lock(self.world).undisturbed
            && let Ok(connection) = Connection::open(self.port)
        {
            self.connection = connection;
            sent = self.connection.send(method, target, &headers, body);
        }
        let mut world = lock(self.world);
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                if world.undisturbed {
                    world
                        .faults
                        .push(format!("no answer: {method} {target}: {error}"));
                }
                if is_hang(&error) {
                    world
                        .faults
                        .push(format!("no answer for 30 s: {method} {target}"));
                }
                return Err(Over);
            }
        };
        *world.answers.entry(answer.status).or_default() += 1;
        let given_up = world.behind_a_front && matches!(answer.status, 502 | 504);
        let outcome = match answer.status {
            200..300 => Outcome::Done,
            400..500 => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        if !given_up {
            world.history.end(number, outcome);
            self.last = Some(number);
        }
        // A refusal may be right when others delete meanwhile; what is never right is the server's own error, 503 aside.
        let wrong = match answer.status {
            200..300 | 404 => false,
            503 => world.undisturbed,
            502 | 504 => !given_up || world.undisturbed,
            400 => method != "PUT" || !target.contains("/manifests/"),
            405 | 409 | 412 => method != "DELETE",
            _ => true,
        };
        let silent = answer.status == 503 && answer.header("retry-after").is_none();
        if wrong || silent {
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            world.faults.push(format!(
                "{method} {target} was answered {}: {body}",
                answer.status
            ));
        }
        Ok((number, answer))
    }

    /// New bytes, or now and then those of a blob that is there already.
    fn content(&mut self) -> Content {
        if self.random.chance(12) {
            let world = lock(self.world);
            let all: Vec<&String> = world.held.iter().flatten().collect();
            if let Some(known) = self.random.pick(&all)
                && let Some(content) = world.blobs.get(*known)
            {
                return *content;
            }
        }
        let largest = match self.random.below(10) {
            0..4 => 3 << 10,
            4..7 => 120 << 10,
            7..9 => 300 << 10,
            _ => usize::MAX,
        };
        Content {
            seed: self.random.next(),
            length: 2 + self.random.below(largest.min(self.sizes.largest)),
        }
    }

    fn hold(&self, repository: usize, digest: &str) {
        lock(self.world).held[repository].push(digest.to_owned());
    }

    fn link(repository: usize, digest: &str) -> Effect {
        Effect::Set(
            Key::new(Kind::Blob, repository, digest),
            Some(digest.to_owned()),
        )
    }

    /// The same bytes as ever, known before they are sent.
    fn prepare(&mut self) -> (Content, Vec<u8>, String) {
        let content = self.content();
        let bytes = content.bytes();
        let digest = digest(&bytes);
        lock(self.world).blobs.insert(digest.clone(), content);
        (content, bytes, digest)
    }

    /// POST ?digest=.
    fn push_whole(&mut self, repository: usize) -> Done<Option<(String, usize)>> {
        let (content, bytes, digest) = self.prepare();
        self.push_bytes(repository, content, &bytes, digest)
    }

    fn push_bytes(
        &mut self,
        repository: usize,
        content: Content,
        bytes: &[u8],
        digest: String,
    ) -> Done<Option<(String, usize)>> {
        let name = self::repository(repository);
        let target = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let effects = [Self::link(repository, &digest)];
        let (_, answer) = self.call(
            "POST",
            &target,
            &[],
            Body::Whole(bytes),
            &effects,
            |_, _| {},
        )?;
        if answer.status != 201 {
            return Ok(None);
        }
        self.hold(repository, &digest);
        Ok(Some((digest, content.length)))
    }

    /// Opens a session; its number is the last part of its location.
    fn open(&mut self, repository: usize, content: Content) -> Done<Option<String>> {
        let target = format!("/v2/{}/blobs/uploads/", self::repository(repository));
        let (opened, answer) = self.call("POST", &target, &[], Body::None, &[], |_, _| {})?;
        Ok(self.opened(repository, content, opened, &answer))
    }

    fn opened(
        &self,
        repository: usize,
        content: Content,
        opened: usize,
        answer: &Answer,
    ) -> Option<String> {
        let id = answer.header("location")?.rsplit('/').next()?.to_owned();
        let session = Session {
            repository,
            content,
            opened,
            parts: Vec::new(),
            ended: Vec::new(),
        };
        lock(self.world).sessions.insert(id.clone(), session);
        Some(id)
    }

    fn patch(
        &mut self,
        repository: usize,
        id: &str,
        bytes: &[u8],
        range: std::ops::Range<usize>,
        streamed: bool,
    ) -> Done<bool> {
        let target = format!("/v2/{}/blobs/uploads/{id}", self::repository(repository));
        let span = format!("{}-{}", range.start, range.end - 1);
        let (headers, body) = if streamed {
            let piece = 1 + self.random.below(64 << 10);
            (vec![], Body::Streamed(&bytes[range.clone()], piece))
        } else {
            let headers = vec![("Content-Range", span.as_str())];
            (headers, Body::Whole(&bytes[range.clone()]))
        };
        let note = |world: &mut World, call| {
            if let Some(session) = world.sessions.get_mut(id) {
                session.parts.push((call, range.end));
            }
        };
        let (_, answer) = self.call("PATCH", &target, &headers, body, &[], note)?;
        Ok(answer.status == 202)
    }

    /// The closing PUT with the rest of the bytes.
    fn finish(
        &mut self,
        repository: usize,
        id: &str,
        bytes: &[u8],
        from: usize,
        digest: &str,
    ) -> Done<u16> {
        let name = self::repository(repository);
        let target = format!("/v2/{name}/blobs/uploads/{id}?digest={digest}");
        let body = if from == bytes.len() {
            Body::None
        } else {
            Body::Whole(&bytes[from..])
        };
        let effects = [Self::link(repository, digest)];
        let note = |world: &mut World, call| {
            if let Some(session) = world.sessions.get_mut(id) {
                session.ended.push(call);
            }
        };
        let (_, answer) = self.call("PUT", &target, &[], body, &effects, note)?;
        if answer.status == 201 {
            self.hold(repository, digest);
        }
        Ok(answer.status)
    }

    /// POST, then PUT with all bytes.
    fn push_in_two(&mut self, repository: usize) -> Done {
        let (content, bytes, digest) = self.prepare();
        match self.open(repository, content)? {
            Some(id) => self.finish(repository, &id, &bytes, 0, &digest).map(drop),
            None => Ok(()),
        }
    }

    /// POST, PATCH with a range several times, PUT; now and then left lying.
    fn push_in_parts(&mut self, repository: usize) -> Done {
        let (content, bytes, digest) = self.prepare();
        let Some(id) = self.open(repository, content)? else {
            return Ok(());
        };
        let mut at = 0;
        for _ in 0..1 + self.random.below(4) {
            let left = bytes.len() - at;
            if left == 0 {
                break;
            }
            let next = at + 1 + self.random.below(left);
            if !self.patch(repository, &id, &bytes, at..next, false)? {
                return Ok(());
            }
            at = next;
        }
        if self.random.chance(15) {
            return Ok(());
        }
        self.finish(repository, &id, &bytes, at, &digest).map(drop)
    }

    /// POST, one PATCH of unknown length, PUT.
    fn push_streamed(&mut self, repository: usize) -> Done {
        let (content, bytes, digest) = self.prepare();
        let Some(id) = self.open(repository, content)? else {
            return Ok(());
        };
        if !self.patch(repository, &id, &bytes, 0..bytes.len(), true)? || self.random.chance(8) {
            return Ok(());
        }
        self.finish(repository, &id, &bytes, bytes.len(), &digest)
            .map(drop)
    }

    /// POST ?mount=&from=.
    fn mount(&mut self, repository: usize) -> Done {
        let from = (repository + 1 + self.random.below(REPOSITORIES - 1)) % REPOSITORIES;
        let chosen = {
            let world = lock(self.world);
            self.random
                .pick(&world.held[from])
                .and_then(|digest| Some((digest.clone(), *world.blobs.get(digest)?)))
        };
        let Some((digest, content)) = chosen else {
            return Ok(());
        };
        let target = format!(
            "/v2/{}/blobs/uploads/?mount={digest}&from={}",
            self::repository(repository),
            self::repository(from)
        );
        let effects = [Self::link(repository, &digest)];
        let (number, answer) = self.call("POST", &target, &[], Body::None, &effects, |_, _| {})?;
        if answer.status == 201 {
            self.hold(repository, &digest);
        } else if answer.status == 202 {
            // A session instead, so there is no such link by this call.
            lock(self.world).history.end(number, Outcome::Refused);
            if let Some(id) = self.opened(repository, content, number, &answer) {
                self.finish(repository, &id, &content.bytes(), 0, &digest)?;
            }
        }
        Ok(())
    }

    /// A manifest of blobs that are there, by tag or by digest with several tags; with a subject, or not.
    fn push_image(&mut self, repository: usize, with_subject: bool) -> Done {
        let mut parts = Vec::new();
        if self.random.chance(60) {
            parts.extend(self.push_whole(repository)?);
        }
        let (subject, salt) = {
            let world = lock(self.world);
            let held = &world.held[repository];
            for _ in 0..1 + self.random.below(3) {
                if let Some(digest) = self.random.pick(held)
                    && let Some(content) = world.blobs.get(digest)
                {
                    parts.push((digest.clone(), content.length));
                }
            }
            let subject = self.random.pick(&world.pushed[repository]).cloned();
            (subject.filter(|_| with_subject), self.random.next())
        };
        let Some((config, size)) = parts.first().cloned() else {
            return Ok(());
        };
        let layer = |(digest, size): &(String, usize)| serde_json::json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size });
        let mut manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size },
            "layers": parts[1..].iter().map(layer).collect::<Vec<_>>(),
            "annotations": { "salt": salt.to_string() },
        });
        if let Some(subject) = &subject {
            let size = lock(self.world)
                .manifests
                .get(subject)
                .map_or(0, |manifest| manifest.bytes.len());
            manifest["subject"] =
                serde_json::json!({ "mediaType": IMAGE, "digest": subject, "size": size });
            manifest["artifactType"] = format!("application/vnd.endure.{}", salt % 3).into();
        }
        let bytes = manifest.to_string().into_bytes();
        let digest = digest(&bytes);
        let manifest = Manifest {
            bytes,
            blobs: parts.into_iter().map(|(digest, _)| digest).collect(),
            subject,
        };
        let blobs = manifest.blobs.clone();
        lock(self.world).manifests.insert(digest.clone(), manifest);
        for _ in 0..AGAIN {
            let refused = self.put_manifest(repository, &digest)? == 400;
            if !refused || !lock(self.world).greedy {
                break;
            }
            // As clients do: what was collected meanwhile comes again, maybe while its bytes are still being removed.
            for blob in &blobs {
                let known = lock(self.world).blobs.get(blob).copied();
                if let Some(content) = known {
                    self.push_bytes(repository, content, &content.bytes(), blob.clone())?;
                }
            }
        }
        Ok(())
    }

    /// PUT of a manifest that was prepared, with some tags; gives the status, or 0 without a request.
    fn put_manifest(&mut self, repository: usize, digest: &str) -> Done<u16> {
        let Some(bytes) = lock(self.world)
            .manifests
            .get(digest)
            .map(|manifest| manifest.bytes.clone())
        else {
            return Ok(0);
        };
        let name = self::repository(repository);
        let mut tags: Vec<String> = (0..self.random.below(4))
            .map(|_| format!("t{}", self.random.below(TAGS)))
            .collect();
        tags.sort();
        tags.dedup();
        let target = match tags.as_slice() {
            [tag] => format!("/v2/{name}/manifests/{tag}"),
            tags => {
                let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
                format!("/v2/{name}/manifests/{digest}?{}", query.join("&"))
            }
        };
        let value = Some(digest.to_owned());
        let mut effects = vec![Effect::Set(
            Key::new(Kind::Manifest, repository, digest),
            value.clone(),
        )];
        for tag in &tags {
            effects.push(Effect::Set(
                Key::new(Kind::Tag, repository, tag),
                value.clone(),
            ));
        }
        let headers = [("Content-Type", IMAGE)];
        let (_, answer) = self.call(
            "PUT",
            &target,
            &headers,
            Body::Whole(&bytes),
            &effects,
            |_, _| {},
        )?;
        if answer.status == 201 {
            lock(self.world).pushed[repository].push(digest.to_owned());
        }
        Ok(answer.status)
    }

    /// A manifest that is there, under other tags.
    fn move_tag(&mut self, repository: usize) -> Done {
        let chosen = {
            let world = lock(self.world);
            self.random.pick(&world.pushed[repository]).cloned()
        };
        match chosen {
            Some(digest) => self.put_manifest(repository, &digest).map(drop),
            None => Ok(()),
        }
    }

    fn delete_blob(&mut self, repository: usize) -> Done {
        let chosen = {
            let world = lock(self.world);
            self.random.pick(&world.held[repository]).cloned()
        };
        let Some(digest) = chosen else { return Ok(()) };
        let target = format!("/v2/{}/blobs/{digest}", self::repository(repository));
        let effects = [Effect::Set(Key::new(Kind::Blob, repository, &digest), None)];
        let (_, answer) = self.call("DELETE", &target, &[], Body::None, &effects, |_, _| {})?;
        if matches!(answer.status, 202 | 404) {
            lock(self.world).held[repository].retain(|held| *held != digest);
        }
        Ok(())
    }

    fn delete_manifest(&mut self, repository: usize) -> Done {
        let chosen = {
            let world = lock(self.world);
            self.random.pick(&world.pushed[repository]).cloned()
        };
        let Some(digest) = chosen else { return Ok(()) };
        let target = format!("/v2/{}/manifests/{digest}", self::repository(repository));
        let effects = [
            Effect::Set(Key::new(Kind::Manifest, repository, &digest), None),
            Effect::Untag(repository, digest.clone()),
        ];
        let (_, answer) = self.call("DELETE", &target, &[], Body::None, &effects, |_, _| {})?;
        if matches!(answer.status, 202 | 404) {
            lock(self.world).pushed[repository].retain(|pushed| *pushed != digest);
        }
        Ok(())
    }

    fn delete_tag(&mut self, repository: usize) -> Done {
        let tag = format!("t{}", self.random.below(TAGS));
        let target = format!("/v2/{}/manifests/{tag}", self::repository(repository));
        let effects = [Effect::Set(Key::new(Kind::Tag, repository, &tag), None)];
        self.call("DELETE", &target, &[], Body::None, &effects, |_, _| {})?;
        Ok(())
    }

    /// Opens a session, writes to it, and gives it up.
    fn cancel(&mut self, repository: usize) -> Done {
        let (content, bytes, _) = self.prepare();
        let Some(id) = self.open(repository, content)? else {
            return Ok(());
        };
        if !self.patch(repository, &id, &bytes, 0..bytes.len() / 2 + 1, false)? {
            return Ok(());
        }
        let target = format!("/v2/{}/blobs/uploads/{id}", self::repository(repository));
        let note = |world: &mut World, call| {
            if let Some(session) = world.sessions.get_mut(&id) {
                session.ended.push(call);
            }
        };
        self.call("DELETE", &target, &[], Body::None, &[], note)?;
        Ok(())
    }

    /// Goes on with a session that a crash interrupted, and ends it with the digest of the whole. `at` is what the
    /// server said it holds.
    pub(crate) fn resume(&mut self, id: &str, at: usize) -> Done {
        let Some(session) = lock(self.world).sessions.get(id).cloned() else {
            return Ok(());
        };
        let bytes = session.content.bytes();
        let digest = digest(&bytes);
        let middle = at + self.random.below(bytes.len() - at + 1);
        if middle > at && !self.patch(session.repository, id, &bytes, at..middle, false)? {
            let fault = format!("upload {id} says it holds {at} bytes and does not go on there");
            lock(self.world).faults.push(fault);
            return Ok(());
        }
        let status = self.finish(session.repository, id, &bytes, middle, &digest)?;
        if status != 201 {
            let fault = format!(
                "upload {id}, resumed at {at} of {} bytes, was answered {status} at its end",
                bytes.len()
            );
            lock(self.world).faults.push(fault);
        }
        Ok(())
    }
}
