//! What the registry has acknowledged in one script, and what therefore every answer must say.
//!
//! It learns from acknowledgements and judges reads by them: it never predicts whether a request is refused, only that
//! what was accepted is what was sent, and that what is read is exactly what was accepted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use wharf::http::route::{self, Route};
use wharf_oci::{Algorithm, Digest, percent};

use super::parts;
use super::script::{Request, Values};
use super::wire::Answer;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) repository: String,
    pub(super) location: String,
    /// What was acknowledged; `None` when that cannot be told.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) open: bool,
    /// Whether it was opened with credentials: it is not another's to see.
    signed: bool,
}

#[derive(Debug)]
struct Manifest {
    bytes: Vec<u8>,
    media_type: Option<String>,
    subject: Option<String>,
}

/// Repository and digest, tag or session.
type Place = (String, String);

/// One script's repositories, all of which begin with `prefix`.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) prefix: String,
    admin: String,
    /// `None`: mounted from somewhere that this script did not fill.
    blobs: BTreeMap<Place, Option<Vec<u8>>>,
    manifests: BTreeMap<Place, Manifest>,
    tags: BTreeMap<Place, String>,
    pub(super) sessions: Vec<Session>,
    /// What was acknowledged, in order, with its size.
    pushed_blobs: Vec<(String, usize)>,
    pushed_manifests: Vec<(String, usize)>,
    /// The body of the line that is being filled in, and the session in its target.
    pub(super) body: Vec<u8>,
    pub(super) session: Option<usize>,
}

impl Values for Model {
    fn value(&self, key: &str, number: usize) -> Option<String> {
        let of = |algorithm, bytes: &[u8]| Some(Digest::of(algorithm, bytes).to_string());
        let nth = |list: &[(String, usize)]| {
            let at = number.checked_rem(list.len())?;
            Some((list[at].0.clone(), list[at].1.to_string()))
        };
        let whole = || {
            let held = self.session.and_then(|at| self.sessions[at].bytes.clone());
            let mut whole = held.unwrap_or_default();
            whole.extend(&self.body);
            whole
        };
        match key {
            "d" => of(Algorithm::Sha256, &self.body),
            "D" => of(Algorithm::Sha512, &self.body),
            "w" => of(Algorithm::Sha256, &whole()),
            "W" => of(Algorithm::Sha512, &whole()),
            "u" => {
                let at = number.checked_rem(self.sessions.len())?;
                Some(self.sessions[at].location.clone())
            }
            "b" => nth(&self.pushed_blobs).map(|blob| blob.0),
            "s" => nth(&self.pushed_blobs).map(|blob| blob.1),
            "m" => nth(&self.pushed_manifests).map(|manifest| manifest.0),
            "z" => nth(&self.pushed_manifests).map(|manifest| manifest.1),
            "r" => Some(self.prefix.clone()),
            "admin" => Some(self.admin.clone()),
            _ => None,
        }
    }
}

impl Model {
    pub(super) fn new(prefix: String, admin: String) -> Model {
        Model {
            prefix,
            admin,
            blobs: BTreeMap::new(),
            manifests: BTreeMap::new(),
            tags: BTreeMap::new(),
            sessions: Vec::new(),
            pushed_blobs: Vec::new(),
            pushed_manifests: Vec::new(),
            body: Vec::new(),
            session: None,
        }
    }

    /// The session whose address the target holds.
    pub(super) fn session_in(&self, target: &str) -> Option<usize> {
        let at = target.find("{u")?;
        let digits: String = target[at + 2..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let number = digits.parse::<usize>().unwrap_or(0);
        number.checked_rem(self.sessions.len())
    }

    /// Addresses that must still give what was acknowledged.
    pub(super) fn addresses(&self) -> Vec<String> {
        let blobs = self.blobs.keys().map(|place| ("blobs", place));
        let manifests = self.manifests.keys().map(|place| ("manifests", place));
        let tags = self.tags.keys().map(|place| ("manifests", place));
        let mut all: Vec<_> = blobs
            .chain(manifests)
            .chain(tags)
            .map(|(noun, (repository, what))| format!("/v2/{repository}/{noun}/{what}"))
            .collect();
        let repositories: BTreeSet<_> = self.tags.keys().map(|(name, _)| name).collect();
        all.extend(
            repositories
                .iter()
                .map(|name| format!("/v2/{name}/tags/list")),
        );
        let subjects = self.manifests.iter().filter_map(|((name, _), manifest)| {
            let subject = manifest.subject.as_ref()?;
            Some(format!("/v2/{name}/referrers/{subject}"))
        });
        all.extend(subjects);
        all
    }

    /// Judges an answer and learns from it. Gives the session of which it has to be asked how it stands now.
    pub(super) fn judge(&mut self, request: &Request, answer: &Answer) -> Option<usize> {
        let Ok(route) = route::parse(&request.path) else {
            assert!(answer.status >= 400, "an address that is none is served");
            return None;
        };
        let own = format!("{}/", self.prefix);
        let name = route.repository()?.as_str().to_owned();
        if !name.starts_with(&own) {
            return None;
        }
        match (&route, request.method.as_str()) {
            (Route::Uploads { .. }, "POST") => self.started(&name, request, answer),
            (Route::Upload { id, .. }, method) => {
                return self.uploaded(&name, id, method, request, answer);
            }
            (Route::Blob { digest, .. }, "DELETE") => self.blob_deleted(name, digest, answer),
            (Route::Blob { digest, .. }, _) => self.blob_read(name, digest, request, answer),
            (Route::Manifest { reference, .. }, "PUT") => {
                self.manifest_pushed(name, reference.as_str(), request, answer);
            }
            (Route::Manifest { reference, .. }, "DELETE") => {
                self.manifest_deleted(name, reference.as_str(), answer);
            }
            (Route::Manifest { reference, .. }, _) => {
                self.manifest_read(name, reference.as_str(), request, answer);
            }
            (Route::Tags { .. }, "GET") => self.tags_listed(&name, request, answer),
            (Route::Referrers { digest, .. }, "GET") => {
                self.referrers_listed(&name, digest, request, answer);
            }
            _ => {}
        }
        None
    }

    fn started(&mut self, name: &str, request: &Request, answer: &Answer) {
        let location = || {
            answer
                .header("location")
                .expect("a session or blob has its place")
        };
        match answer.status {
            201 => {
                let digest = named_digest(answer);
                assert_eq!(location(), format!("/v2/{name}/blobs/{digest}"));
                let mount = parameter(&request.query, "mount");
                let bytes = match mount {
                    None => Some(request.body.clone()),
                    Some(mount) => {
                        assert_eq!(mount, digest.as_str(), "another blob was mounted");
                        let known = |(_, held): &&Place| *held == mount;
                        let source = self.blobs.keys().find(known).cloned();
                        source.and_then(|source| self.blobs[&source].clone())
                    }
                };
                self.holds(name, &digest, bytes);
            }
            202 => {
                assert_eq!(answer.header("range"), Some("0-0"));
                self.sessions.push(Session {
                    repository: name.to_owned(),
                    location: location().to_owned(),
                    bytes: Some(Vec::new()),
                    open: true,
                    signed: request.header("authorization").is_some(),
                });
            }
            status => refused(status),
        }
    }

    fn holds(&mut self, name: &str, digest: &Digest, bytes: Option<Vec<u8>>) {
        if let Some(bytes) = &bytes {
            assert_digest(digest, bytes, "a blob is acknowledged under a wrong digest");
        }
        let size = bytes.as_ref().map_or(0, Vec::len);
        self.pushed_blobs.push((digest.to_string(), size));
        self.blobs
            .insert((name.to_owned(), digest.to_string()), bytes);
    }

    fn uploaded(
        &mut self,
        name: &str,
        id: &str,
        method: &str,
        request: &Request,
        answer: &Answer,
    ) -> Option<usize> {
        let at = self.sessions.iter().position(|session| {
            session.repository == name && session.location.ends_with(&format!("/{id}"))
        });
        let Some(at) = at else {
            assert!(
                answer.status >= 400,
                "a session that was never opened is served"
            );
            return None;
        };
        let session = &mut self.sessions[at];
        let mine = !session.signed && request.header("authorization").is_none();
        if answer.status < 400 {
            assert!(session.open, "a session that has ended is served");
        } else if answer.status == 404 && mine {
            assert!(!session.open, "a session is lost");
        }
        match (method, answer.status) {
            ("PATCH", 202) => {
                let bytes = session.bytes.as_mut()?;
                bytes.extend(&request.body);
                assert!(request.whole, "a broken body is acknowledged");
                assert_eq!(answer.header("range"), Some(&*held(bytes.len())));
            }
            ("PUT", 201) => {
                let digest = named_digest(answer);
                let mut bytes = session.bytes.clone();
                session.open = false;
                assert!(request.whole, "a broken body is acknowledged");
                if let Some(bytes) = &mut bytes {
                    bytes.extend(&request.body);
                }
                self.holds(name, &digest, bytes);
            }
            ("GET" | "HEAD", 204) => {
                let range = answer.header("range").expect("a session has its range");
                if let Some(bytes) = &session.bytes {
                    assert_eq!(
                        range,
                        held(bytes.len()),
                        "a session forgot, or holds too much"
                    );
                }
            }
            ("DELETE", 204) => session.open = false,
            ("PATCH" | "PUT", 400..) if session.open => return Some(at),
            _ => refused(answer.status),
        }
        None
    }

    /// A request on a session failed; this is what the session said of itself then.
    pub(super) fn settled(&mut self, at: usize, request: &Request, status: &Answer) {
        let session = &mut self.sessions[at];
        if status.status != 204 {
            // A wrong digest ends it, and nothing else: what was acknowledged is not given up.
            let digest = parameter(&request.query, "digest");
            assert_eq!(status.status, 404, "a session does not say how it stands");
            assert!(
                request.method == "PUT" && digest.is_some() || session.signed,
                "a failed request ended the session: {request:?}"
            );
            session.open = session.signed;
            return;
        }
        let Some(bytes) = &mut session.bytes else {
            return;
        };
        let range = status.header("range").expect("a session has its range");
        let (before, most) = (bytes.len(), bytes.len() + request.body.len());
        let end = range
            .strip_prefix("0-")
            .and_then(|end| end.parse::<usize>().ok())
            .expect("0-<last byte>");
        // "0-0" is nothing or one byte.
        if end == 0 && before == 0 && most > 0 {
            session.bytes = None;
            return;
        }
        let now = if end == 0 { before } else { end + 1 };
        assert!(
            (before..=most).contains(&now),
            "a session holds {now} bytes, between {before} and {most} were sent"
        );
        assert!(
            now == before || request.method == "PATCH",
            "PUT is all or nothing"
        );
        bytes.extend(&request.body[..now - before]);
    }

    fn blob_deleted(&mut self, name: String, digest: &Digest, answer: &Answer) {
        let place = (name, digest.to_string());
        match answer.status {
            202 => {
                assert!(
                    self.blobs.remove(&place).is_some(),
                    "a blob was deleted that was not there"
                );
            }
            404 => assert!(!self.blobs.contains_key(&place), "a blob is lost"),
            status => refused(status),
        }
    }

    fn blob_read(&mut self, name: String, digest: &Digest, request: &Request, answer: &Answer) {
        let place = (name, digest.to_string());
        let known = self.blobs.get(&place);
        match answer.status {
            200 | 206 | 304 | 416 => {
                let known = known.expect("a blob is served that this repository does not have");
                if answer.status != 416 {
                    assert_eq!(named_digest(answer), *digest);
                }
                parts::check(request, answer, digest, known.as_deref());
            }
            404 => assert!(known.is_none(), "a blob is lost"),
            status => refused(status),
        }
    }

    fn manifest_pushed(
        &mut self,
        name: String,
        reference: &str,
        request: &Request,
        answer: &Answer,
    ) {
        if answer.status != 201 {
            return refused(answer.status);
        }
        assert!(request.whole, "a broken body is acknowledged");
        let digest = named_digest(answer);
        assert_digest(
            &digest,
            &request.body,
            "a manifest is acknowledged under a wrong digest",
        );
        let place = |what: &str| (name.clone(), what.to_owned());
        let mut tags: Vec<_> = answer.all("oci-tag").map(str::to_owned).collect();
        if reference.contains(':') {
            assert_eq!(reference, digest.as_str());
        } else {
            tags.push(reference.to_owned());
        }
        for tag in tags {
            self.tags.insert(place(&tag), digest.to_string());
        }
        let document: Value = serde_json::from_slice(&request.body).expect("a manifest is JSON");
        let subject = answer.header("oci-subject").map(str::to_owned);
        if subject.is_some() {
            assert_eq!(document["subject"]["digest"].as_str(), subject.as_deref());
        }
        let manifest = Manifest {
            bytes: request.body.clone(),
            media_type: document["mediaType"].as_str().map(str::to_owned),
            subject,
        };
        self.pushed_manifests
            .push((digest.to_string(), request.body.len()));
        self.manifests.insert(place(digest.as_str()), manifest);
    }

    fn manifest_deleted(&mut self, name: String, reference: &str, answer: &Answer) {
        let place = (name, reference.to_owned());
        let is_digest = reference.contains(':');
        let there = self.tags.contains_key(&place) || self.manifests.contains_key(&place);
        match answer.status {
            202 => {
                assert!(there, "{reference} was deleted and was not there");
                self.tags.remove(&place);
                if is_digest {
                    self.manifests.remove(&place);
                    let (name, digest) = place;
                    self.tags
                        .retain(|(at, _), held| *at != name || *held != digest);
                }
            }
            404 => assert!(!there, "{reference} is lost"),
            status => refused(status),
        }
    }

    fn manifest_read(&self, name: String, reference: &str, request: &Request, answer: &Answer) {
        let digest = match self.tags.get(&(name.clone(), reference.to_owned())) {
            Some(digest) => digest.as_str(),
            None => reference,
        };
        let known = self.manifests.get(&(name, digest.to_owned()));
        match answer.status {
            200 | 304 => {
                let known = known.expect("a manifest is served that this repository does not have");
                assert_eq!(named_digest(answer).as_str(), digest);
                if answer.status == 304 {
                    return;
                }
                if let Some(media_type) = &known.media_type {
                    assert_eq!(answer.header("content-type"), Some(&**media_type));
                }
                if request.is_head() {
                    let length = known.bytes.len().to_string();
                    assert_eq!(answer.header("content-length"), Some(&*length));
                } else {
                    assert_eq!(answer.body, known.bytes, "a manifest has changed");
                }
            }
            404 => assert!(known.is_none(), "{reference} is lost"),
            status => refused(status),
        }
    }

    fn tags_listed(&self, name: &str, request: &Request, answer: &Answer) {
        let known: Vec<_> = self
            .tags
            .keys()
            .filter(|(at, _)| at == name)
            .map(|(_, tag)| tag.as_str())
            .collect();
        match answer.status {
            200 => {
                let list: Value = serde_json::from_slice(&answer.body).expect("JSON");
                let tags = list["tags"].as_array().expect("a list of tags");
                let tags: Vec<_> = tags.iter().filter_map(Value::as_str).collect();
                assert_eq!(list["name"].as_str(), Some(name));
                assert!(
                    tags.iter().all(|tag| known.contains(tag)),
                    "a tag that is not there"
                );
                if request.query.is_empty() {
                    let (listed, known): (BTreeSet<_>, BTreeSet<_>) =
                        (tags.iter().collect(), known.iter().collect());
                    assert_eq!(listed, known, "the list of tags is not that of the tags");
                    assert_eq!(listed.len(), tags.len(), "a tag is listed twice");
                }
            }
            404 => assert!(known.is_empty(), "tags are lost"),
            status => refused(status),
        }
    }

    fn referrers_listed(&self, name: &str, digest: &Digest, request: &Request, answer: &Answer) {
        if answer.status != 200 {
            return refused(answer.status);
        }
        let index: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let listed = index["manifests"].as_array().expect("a list of manifests");
        let listed: BTreeSet<_> = listed
            .iter()
            .map(|entry| entry["digest"].as_str().expect("a digest"))
            .collect();
        let known: BTreeSet<_> = self
            .manifests
            .iter()
            .filter(|((at, _), manifest)| {
                at == name && manifest.subject.as_deref() == Some(digest.as_str())
            })
            .map(|((_, digest), _)| digest.as_str())
            .collect();
        assert!(listed.is_subset(&known), "a referrer that is not there");
        if request.query.is_empty() {
            assert_eq!(listed, known, "a referrer is not listed");
        }
    }
}

/// A request that was neither served nor refused says so by its status.
fn refused(status: u16) {
    assert!(status >= 400, "status {status} means nothing here");
}

fn named_digest(answer: &Answer) -> Digest {
    let text = answer
        .header("docker-content-digest")
        .expect("Docker-Content-Digest");
    Digest::parse(text).expect("a digest")
}

pub(super) fn assert_digest(digest: &Digest, bytes: &[u8], what: &str) {
    let algorithm = digest.algorithm().expect("an algorithm that is computed");
    assert_eq!(Digest::of(algorithm, bytes), *digest, "{what}");
}

fn held(length: usize) -> String {
    format!("0-{}", length.saturating_sub(1))
}

fn parameter(query: &str, name: &str) -> Option<String> {
    percent::query_pairs(query)
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}
