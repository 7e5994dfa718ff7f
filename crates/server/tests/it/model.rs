//! A registry of one page, and the real one beside it: random clients at once, and every answer must be one that the
//! small registry could have given ([`crate::linear`]). With a collector that grants no grace, see [`crate::greedy`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wharf_testkit::client::{Connection, with_query};
use wharf_testkit::content::{ImageSpec, index, seeded_bytes, unique_name};
use wharf_testkit::options::{on_bucket, on_postgres};
use wharf_testkit::{Client, Content, TestOptions, TestServer, Version};

use crate::linear::{Event, Model, linearize};
use crate::support::{blob, manifest, texts};

/// Clients at once.
const CLIENTS: usize = 6;
/// What each of them does in one history.
const STEPS: usize = 16;
/// Tags that they fight over.
const TAGS: [&str; 3] = ["one", "three", "two"];
/// Blobs: one that lives among the rows, one that is a file.
const BLOBS: usize = 2;
/// Manifests and the blobs they need: two images, two artifacts about the first image, and an index of both images, which
/// may be pushed before them.
const NEEDS: [&[usize]; 5] = [&[0], &[1], &[0], &[1], &[]];
const SUBJECT: usize = 0;
const REFERRERS: [usize; 2] = [2, 3];

#[derive(Clone, Debug)]
pub(crate) enum Op {
    PushBlob {
        to: usize,
        blob: usize,
        session: bool,
    },
    DeleteBlob {
        from: usize,
        blob: usize,
    },
    Mount {
        from: usize,
        to: usize,
        blob: usize,
    },
    HasBlob {
        at: usize,
        blob: usize,
    },
    Push {
        manifest: usize,
        tags: Vec<usize>,
    },
    PushNew {
        manifest: usize,
        tag: usize,
    },
    Delete {
        manifest: usize,
    },
    Untag {
        tag: usize,
    },
    Get {
        manifest: usize,
    },
    Resolve {
        tag: usize,
    },
    Tags,
    Referrers,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Status(u16),
    /// Which manifest a tag stands at.
    Stands(Option<usize>),
    /// Tags or referrers, by number.
    List(Vec<usize>),
}

/// Two repositories with the same two blobs in reach; manifests and tags are in the first one only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Registry {
    blobs: [[bool; BLOBS]; 2],
    manifests: [bool; NEEDS.len()],
    tags: [Option<usize>; TAGS.len()],
    /// A collector without grace runs.
    greedy: bool,
}

impl Registry {
    /// Blobs of this repository that the collector took, if that explains the answer: only those that no manifest needs.
    fn collect(&mut self, op: &Op, answer: &Answer) {
        let (at, missed) = match (op, answer) {
            (Op::HasBlob { at, blob }, Answer::Status(404))
            | (Op::DeleteBlob { from: at, blob }, Answer::Status(404))
            | (Op::Mount { from: at, blob, .. }, Answer::Status(202)) => (*at, vec![*blob]),
            (Op::Push { manifest, .. } | Op::PushNew { manifest, .. }, Answer::Status(400)) => {
                (0, NEEDS[*manifest].to_vec())
            }
            _ => return,
        };
        for blob in missed {
            if at != 0 || !self.needed(blob) {
                self.blobs[at][blob] = false;
            }
        }
    }

    fn push(&mut self, manifest: usize, tags: &[usize]) -> u16 {
        if !self.complete(manifest) {
            return 400;
        }
        self.manifests[manifest] = true;
        for tag in tags {
            self.tags[*tag] = Some(manifest);
        }
        201
    }

    /// Whether all blobs of the manifest are there.
    fn complete(&self, manifest: usize) -> bool {
        NEEDS[manifest].iter().all(|blob| self.blobs[0][*blob])
    }

    fn needed(&self, blob: usize) -> bool {
        (0..NEEDS.len()).any(|at| self.manifests[at] && NEEDS[at].contains(&blob))
    }
}

impl Model for Registry {
    type Op = Op;
    type Answer = Answer;

    fn gives(&mut self, op: &Op, answer: &Answer) -> bool {
        if self.greedy {
            self.collect(op, answer);
        }
        self.apply(op) == *answer
    }
}

impl Registry {
    fn apply(&mut self, op: &Op) -> Answer {
        let found = |there: bool, yes: u16| Answer::Status(if there { yes } else { 404 });
        match op {
            Op::PushBlob { to, blob, .. } => {
                self.blobs[*to][*blob] = true;
                Answer::Status(201)
            }
            Op::DeleteBlob { from, blob } => {
                if *from == 0 && self.needed(*blob) {
                    return Answer::Status(405);
                }
                found(std::mem::take(&mut self.blobs[*from][*blob]), 202)
            }
            Op::Mount { from, to, blob } => {
                let there = self.blobs[*from][*blob];
                self.blobs[*to][*blob] |= there;
                Answer::Status(if there { 201 } else { 202 })
            }
            Op::HasBlob { at, blob } => found(self.blobs[*at][*blob], 200),
            Op::Push { manifest, tags } => Answer::Status(self.push(*manifest, tags)),
            // A condition counts once everything else is in order (RFC 9110, 13.2.1).
            Op::PushNew { manifest, tag } => Answer::Status(match self.tags[*tag] {
                Some(_) if self.complete(*manifest) => 412,
                _ => self.push(*manifest, &[*tag]),
            }),
            Op::Delete { manifest } => {
                for tag in &mut self.tags {
                    *tag = tag.filter(|at| at != manifest);
                }
                found(std::mem::take(&mut self.manifests[*manifest]), 202)
            }
            Op::Untag { tag } => found(self.tags[*tag].take().is_some(), 202),
            Op::Get { manifest } => found(self.manifests[*manifest], 200),
            Op::Resolve { tag } => Answer::Stands(self.tags[*tag]),
            Op::Tags => Answer::List(
                (0..TAGS.len())
                    .filter(|at| self.tags[*at].is_some())
                    .collect(),
            ),
            Op::Referrers => Answer::List(
                REFERRERS
                    .into_iter()
                    .filter(|at| self.manifests[*at])
                    .collect(),
            ),
        }
    }
}

/// The same things on a real server.
pub(crate) struct World {
    repositories: [String; 2],
    config: Content,
    blobs: Vec<Content>,
    /// Needs the config and nothing else, for good.
    keeper: Content,
    manifests: Vec<Content>,
}

impl World {
    /// Fresh names and content; the config that all manifests share is there, and stays.
    async fn new(client: &Client, greedy: bool) -> World {
        let repositories = [unique_name("model/main"), unique_name("model/side")];
        let empty = Content::empty();
        let keeper = ImageSpec {
            layers: vec![],
            config: Some(empty.clone()),
            annotations: vec![("keeper".into(), unique_name("x"))],
            ..ImageSpec::default()
        };
        let keeper = keeper.build().manifest;
        loop {
            client.push_blob(&repositories[0], &empty).await;
            let put = client.put_manifest(&repositories[0], keeper.digest.as_str(), &keeper);
            // Collected before the manifest came: with no grace at all that is fair.
            match put.send().await.status.as_u16() {
                201 => break,
                400 if greedy => {}
                status => panic!("{status}"),
            }
        }
        // A collector has rows to take, and files.
        let large = if greedy { 100_000 } else { 40_000 };
        let blobs = vec![Content::random(700), Content::random(large)];
        let image = |layer: usize, subject: Option<&Content>| {
            let spec = ImageSpec {
                layers: vec![],
                more_layers: vec![blobs[layer].clone()],
                config: Some(empty.clone()),
                subject: subject.cloned(),
                artifact_type: Some("model/test".into()),
                annotations: vec![("unique".into(), unique_name("x"))],
                ..ImageSpec::default()
            };
            spec.build().manifest
        };
        let (one, two) = (image(0, None), image(1, None));
        let (first, second) = (image(0, Some(&one)), image(1, Some(&one)));
        let both = index([&one, &two]);
        World {
            repositories,
            config: empty,
            blobs,
            keeper,
            manifests: vec![one, two, first, second, both],
        }
    }

    /// What has to be there by the manifests that are there, by repository. Nobody writes meanwhile.
    pub(crate) async fn needed(&self, client: &Client) -> Vec<(String, Content)> {
        let name = &self.repositories[0];
        let mut needed: BTreeSet<usize> = BTreeSet::new();
        for (at, one) in self.manifests.iter().enumerate() {
            let got = client.get(&manifest(name, &one.digest)).send().await;
            match got.status.as_u16() {
                200 => needed.extend(NEEDS[at]),
                404 => {}
                _ => panic!("{got}"),
            }
        }
        let blobs = needed.into_iter().map(|at| self.blobs[at].clone());
        blobs
            .chain([self.config.clone()])
            .map(|blob| (name.clone(), blob))
            .collect()
    }

    /// Deletes every manifest.
    pub(crate) async fn clear(&self, client: &Client) {
        for one in self.manifests.iter().chain([&self.keeper]) {
            let path = manifest(&self.repositories[0], &one.digest);
            let answer = client.delete(&path).send().await;
            assert!(matches!(answer.status.as_u16(), 202 | 404), "{answer}");
        }
    }

    async fn perform(&self, client: &Client, connection: &mut Connection, op: &Op) -> Answer {
        let name = &self.repositories[0];
        let path = |at: usize| manifest(name, &self.manifests[at].digest);
        let put =
            |at: usize, reference: &str| client.put_manifest(name, reference, &self.manifests[at]);
        let request = match op {
            Op::PushBlob { to, blob, session } => {
                let content = &self.blobs[*blob];
                let start = format!("/v2/{}/blobs/uploads/", self.repositories[*to]);
                let digest = format!("digest={}", content.digest);
                let request = if *session {
                    let opened = client.post(&start).send_on(connection).await;
                    let opened = opened.expect("an answer").expect_status(202);
                    client.put(&with_query(opened.location(), &digest))
                } else {
                    client.post(&with_query(&start, &digest))
                };
                request.body(content.bytes.clone())
            }
            Op::DeleteBlob { from, blob: at } => {
                client.delete(&blob(&self.repositories[*from], &self.blobs[*at].digest))
            }
            Op::Mount { from, to, blob } => {
                let [from, to] = [from, to].map(|at| &self.repositories[*at]);
                let digest = &self.blobs[*blob].digest;
                client.post(&format!(
                    "/v2/{to}/blobs/uploads/?mount={digest}&from={from}"
                ))
            }
            Op::HasBlob { at, blob: which } => {
                client.get(&blob(&self.repositories[*at], &self.blobs[*which].digest))
            }
            Op::Push { manifest, tags } => match tags[..] {
                [tag] => put(*manifest, TAGS[tag]),
                _ => {
                    let query: Vec<_> = tags
                        .iter()
                        .map(|tag| format!("tag={}", TAGS[*tag]))
                        .collect();
                    let digest = &self.manifests[*manifest].digest;
                    put(*manifest, &with_query(digest.as_str(), &query.join("&")))
                }
            },
            Op::PushNew { manifest, tag } => {
                put(*manifest, TAGS[*tag]).header("if-none-match", "*")
            }
            Op::Delete { manifest } => client.delete(&path(*manifest)),
            Op::Untag { tag } => client.delete(&manifest(name, TAGS[*tag])),
            Op::Get { manifest } => client.get(&path(*manifest)),
            Op::Resolve { tag } => client.get(&manifest(name, TAGS[*tag])),
            Op::Tags => client.get(&format!("/v2/{name}/tags/list")),
            Op::Referrers => client.get(&format!(
                "/v2/{name}/referrers/{}",
                self.manifests[SUBJECT].digest
            )),
        };
        let answer = request.send_on(connection).await.expect("an answer");
        assert!(!answer.status.is_server_error(), "{op:?}: {answer}");
        let number = |content: &[u8]| {
            let found = self.manifests.iter().position(|one| one.bytes == content);
            found.expect("the bytes of a manifest that was pushed")
        };
        match op {
            Op::Resolve { .. } if answer.status == 200 => {
                Answer::Stands(Some(number(&answer.body)))
            }
            Op::Resolve { .. } if answer.status == 404 => Answer::Stands(None),
            Op::Tags if answer.status == 200 => Answer::List(
                texts(&answer.json()["tags"])
                    .iter()
                    .map(|tag| {
                        TAGS.iter()
                            .position(|one| one == tag)
                            .expect("a tag of ours")
                    })
                    .collect(),
            ),
            Op::Referrers if answer.status == 200 => {
                let digests: BTreeSet<String> = answer.json()["manifests"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .map(|one| one["digest"].as_str().expect("a digest").to_owned())
                    .collect();
                let known = |at: &usize| digests.contains(self.manifests[*at].digest.as_str());
                let found: Vec<usize> = (0..self.manifests.len()).filter(known).collect();
                assert_eq!(
                    found.len(),
                    digests.len(),
                    "a referrer of nobody: {digests:?}"
                );
                Answer::List(found)
            }
            Op::HasBlob { blob, .. } if answer.status == 200 => {
                assert!(answer.body == self.blobs[*blob].bytes, "other bytes");
                Answer::Status(200)
            }
            Op::Get { manifest } if answer.status == 200 => {
                assert_eq!(number(&answer.body), *manifest, "other bytes");
                Answer::Status(200)
            }
            _ => Answer::Status(answer.status.as_u16()),
        }
    }
}

/// What one client does, from its own random bytes. Beside a greedy collector more is deleted, and pushed and mounted again.
fn plan(random: &[u8], greedy: bool) -> Vec<Op> {
    let one = |bytes: &[u8]| {
        let pick = |at: usize, from: usize| usize::from(bytes[at]) % from;
        let (blob, repository, tag) = (pick(1, BLOBS), pick(2, 2), pick(3, TAGS.len()));
        let manifest = pick(4, NEEDS.len());
        match pick(0, if greedy { 36 } else { 20 }) {
            0..4 | 20..26 => Op::PushBlob {
                to: repository,
                blob,
                session: bytes[5] & 1 == 1,
            },
            4 => Op::DeleteBlob {
                from: repository,
                blob,
            },
            5 | 26..29 => Op::Mount {
                from: repository,
                to: 1 - repository,
                blob,
            },
            6 | 29..32 => Op::HasBlob {
                at: repository,
                blob,
            },
            7..10 => Op::Push {
                manifest,
                tags: vec![tag],
            },
            10 => Op::Push {
                manifest,
                tags: (0..pick(5, TAGS.len() + 1)).collect(),
            },
            11 => Op::PushNew { manifest, tag },
            12 | 32..36 => Op::Delete { manifest },
            13 => Op::Untag { tag },
            14 => Op::Get { manifest },
            15 | 16 => Op::Resolve { tag },
            17 => Op::Tags,
            _ => Op::Referrers,
        }
    };
    random.chunks_exact(6).map(one).collect()
}

/// What many clients were told, and the world that they left.
pub(crate) async fn history(
    server: &TestServer,
    seed: u64,
    greedy: bool,
) -> (Vec<Event<Op, Answer>>, Arc<World>) {
    let world = Arc::new(World::new(&server.admin(Version::Http1), greedy).await);
    let clock = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|at| {
            let client = server.admin(Version::ALL[at % 2]);
            let (world, clock) = (world.clone(), clock.clone());
            let plan = plan(&seeded_bytes(seed * 1_000 + at as u64, STEPS * 6), greedy);
            tokio::spawn(async move {
                let mut connection = client.connect().await.expect("a connection");
                let mut events = Vec::new();
                for op in plan {
                    let called = clock.fetch_add(1, Ordering::SeqCst);
                    let answer = world.perform(&client, &mut connection, &op).await;
                    let answered = clock.fetch_add(1, Ordering::SeqCst);
                    events.push(Event {
                        op,
                        answer,
                        called,
                        answered,
                    });
                }
                events
            })
        })
        .collect();
    let mut events = Vec::new();
    for client in clients {
        events.extend(client.await.expect("a client that does not panic"));
    }
    events.sort_by_key(|event| event.called);
    (events, world)
}

/// A number from the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Panics with the story, unless one registry could have given these answers.
pub(crate) fn explain(seed: u64, events: &[Event<Op, Answer>], greedy: bool) {
    let registry = Registry {
        greedy,
        ..Registry::default()
    };
    let Err(best) = linearize(registry.clone(), events) else {
        return;
    };
    let told = |event: &Event<Op, Answer>| {
        eprintln!(
            "{:>3}–{:<3} {:?} → {:?}",
            event.called, event.answered, event.op, event.answer
        );
    };
    let mut state = registry;
    for at in &best {
        state.gives(&events[*at].op, &events[*at].answer);
        told(&events[*at]);
    }
    eprintln!("here: {state:?}; no way on to any of");
    for (_, event) in events
        .iter()
        .enumerate()
        .filter(|(at, _)| !best.contains(at))
    {
        told(event);
    }
    panic!("WHARF_SEED={seed}: no order of these answers is that of one registry");
}

/// Tags, blobs, manifests, listings and referrers at once: two pushes of one digest, delete against push, mount against
/// delete, several tags against one. `WHARF_HISTORIES` asks for more than the usual number, `WHARF_SEED` for others.
///
/// Spec: TAGS-1, REF-8, DEL-5, MPUT-9, MPUT-19, MNT-1, MGET-10.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_clients_see_one_registry() {
    let first = number("WHARF_SEED", 1);
    let server = TestServer::start(TestOptions::default()).await;
    // Other stores answer more slowly, and the model is the same.
    let histories = if on_postgres() || on_bucket() { 15 } else { 60 };
    for seed in first..first + number("WHARF_HISTORIES", histories) {
        let (events, _) = history(&server, seed, false).await;
        explain(seed, &events, false);
    }
}

/// The checker is no good unless it refuses a wrong answer in a long history.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_single_wrong_answer_is_noticed() {
    let server = TestServer::start(TestOptions::default()).await;
    let mut noticed = 0;
    for seed in 1..=5 {
        let (mut events, _) = history(&server, seed, false).await;
        let lists = events
            .iter_mut()
            .filter(|event| matches!(event.op, Op::Tags | Op::Referrers));
        // All of them at once, so that no neighbour in time makes one plausible.
        for event in lists {
            event.answer = Answer::List(vec![1]);
        }
        noticed += usize::from(linearize(Registry::default(), &events).is_err());
    }
    assert!(noticed >= 4, "{noticed} of 5");
}

/// A collector explains that a blob is gone which no manifest needs, and never that of one which is needed.
#[test]
fn a_collector_explains_the_loss_of_nothing_that_is_needed() {
    let (push, put) = (
        Op::PushBlob {
            to: 0,
            blob: 0,
            session: false,
        },
        Op::Push {
            manifest: 0,
            tags: vec![0],
        },
    );
    let has = Op::HasBlob { at: 0, blob: 0 };
    let verdict = |greedy: bool, told: &[(&Op, u16)]| {
        let event = |(at, (op, status)): (usize, &(&Op, u16))| Event {
            op: (*op).clone(),
            answer: Answer::Status(*status),
            called: 2 * at as u64,
            answered: 2 * at as u64 + 1,
        };
        let events: Vec<_> = told.iter().enumerate().map(event).collect();
        let registry = Registry {
            greedy,
            ..Registry::default()
        };
        linearize(registry, &events).is_ok()
    };
    let lost = [(&push, 201), (&has, 404)];
    assert!(verdict(true, &lost) && !verdict(false, &lost));
    let refused = [(&push, 201), (&put, 400), (&has, 404)];
    assert!(verdict(true, &refused) && !verdict(false, &refused));
    let needed = [(&push, 201), (&put, 201), (&has, 404)];
    assert!(!verdict(true, &needed));
    let again = [(&push, 201), (&put, 201), (&put, 400)];
    assert!(!verdict(true, &again));
    let back = [(&push, 201), (&has, 404), (&has, 200)];
    assert!(!verdict(true, &back));
    let gone = Op::Delete { manifest: 0 };
    let after = [(&push, 201), (&put, 201), (&gone, 202), (&has, 404)];
    assert!(verdict(true, &after));
}
