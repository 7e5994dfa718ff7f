//! Every pair of operations that can be in each other's way.
//!
//! An engine whose transactions run beside each other must give, for each way in which their statements can follow each
//! other, what one of the two orders gives. [`serially`] runs both orders on any engine; PostgreSQL's own tests run each
//! pair statement by statement on two connections.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use wharf_oci::{Digest, EdgeKind};

use super::terminal::{approved, end_all, end_session, fetch, fetched, renew, replay};
use super::{NOW, digest, edge, publish, publish_key, push, push_blob, put, repo, tag};
use crate::access::By;
use crate::access::account::Arrive;
use crate::access::binding::DeleteOf;
use crate::access::standing::Check;
use crate::blob::{Condemn, Find, Garbage, Lookup, Mount, Place, Publish, Unlink};
use crate::candidate::Collect;
use crate::credential::{self, CredentialRow};
use crate::manifest::{Delete, Expect, Get, Put, PutEdges, Ref};
use crate::upload::{Claim, Create, Take};
use crate::{Error, Meant, Meta, Op, multipart, principal, restorable, tag as tags, upload};

#[macro_use]
mod table;
mod identity;
pub mod record;
mod rights;
mod upkeep;
mod work;

/// Something done to a store, with what came of it as text.
pub type Doing = Pin<Box<dyn Future<Output = String> + Send>>;

/// Two operations, what they find, and what is seen afterwards. `label` keeps runs apart: it is in each name.
pub struct Pair {
    /// What it is about.
    pub name: &'static str,
    /// Makes what they find.
    pub prepare: fn(Meta, String) -> Doing,
    /// The one.
    pub one: fn(Meta, String) -> Doing,
    /// The other.
    pub other: fn(Meta, String) -> Doing,
    /// Everything of a run that its page can change, for anybody to see.
    pub seen: fn(Meta, String) -> Doing,
}

tokio::task_local! {
    /// The names of the operations that the sides of a pair run.
    static WRITTEN: Arc<Mutex<BTreeSet<&'static str>>>;
}

/// Runs an operation; busy is an honest answer, after which callers come again. What a side writes it writes by this.
async fn done<O: Op + Clone>(meta: Meta, op: O) -> O::Out {
    let note = |written: &Arc<Mutex<BTreeSet<_>>>| {
        let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(O::name());
    };
    // Elsewhere than in a side nobody asks.
    let _ = WRITTEN.try_with(note);
    loop {
        match meta.write(op.clone()).await {
            Ok(out) => return out,
            Err(Error::Busy(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn told<O: Op + Clone>(meta: Meta, op: O) -> String
where
    O::Out: Debug,
{
    format!("{:?}", done(meta, op).await)
}

fn doing(work: impl Future<Output = String> + Send + 'static) -> Doing {
    Box::pin(work)
}

fn blob(label: &str) -> Digest {
    digest(format!("{label} blob"))
}

fn with_layer(label: &str, name: &str, tags: &[&str]) -> Put {
    let layer = blob(label);
    Put {
        edges: vec![edge(EdgeKind::Layer, &layer, label.len() as u64 + 5)],
        ..put(label, format!("{label} {name}"), tags)
    }
}

fn plain(label: &str, name: &str, tags: &[&str]) -> Put {
    put(label, format!("{label} {name}"), tags)
}

fn unlink(label: &str) -> Unlink {
    Unlink {
        repository: repo(label),
        digest: blob(label),
        actor: "bob".into(),
        at: NOW,
    }
}

fn mount(label: &str) -> Mount {
    Mount {
        repository: repo(&format!("{label}/to")),
        from: repo(label),
        digest: blob(label),
        actor: "bob".into(),
        at: NOW,
    }
}

fn mount_back(label: &str) -> Mount {
    let there = mount(label);
    Mount {
        repository: there.from.clone(),
        from: there.repository.clone(),
        ..there
    }
}

fn delete(label: &str, name: &str) -> Delete {
    Delete {
        repository: repo(label),
        digest: digest(format!("{label} {name}")),
        actor: "bob".into(),
        at: NOW,
    }
}

fn delete_tag(label: &str) -> tags::Delete {
    tags::Delete {
        repository: repo(label),
        tag: tag("t"),
        actor: "bob".into(),
        at: NOW,
    }
}

fn claim(label: &str, hash: u8) -> Claim {
    Claim {
        id: label.to_owned(),
        epoch: 0,
        from: 0,
        to: 1,
        hash: vec![hash],
        append: Some(vec![hash]),
        in_file: false,
        at: NOW,
    }
}

fn key(label: &str, name: &str) -> Publish {
    publish_key(label, format!("{label} blob"), &format!("{label}-{name}"))
}

fn parts(label: &str) -> multipart::MultipartRow {
    multipart::MultipartRow {
        key: format!("{label}-parts"),
        session: "s".into(),
        part_size: 8,
    }
}

fn publish_parts(label: &str) -> Publish {
    Publish {
        upload: Some(label.to_owned()),
        content: crate::blob::Content::Multipart(parts(label).key),
        ..key(label, "parts")
    }
}

fn give_up(label: &str) -> multipart::GiveUp {
    multipart::GiveUp {
        upload: label.to_owned(),
        but: None,
    }
}

fn claim_parts(label: &str, hash: u8) -> multipart::Claim {
    multipart::Claim {
        id: label.to_owned(),
        epoch: 0,
        from: 0,
        to: 9,
        hash: vec![hash],
        parts: Some(multipart::ClaimedParts {
            multipart: parts(label),
            count: 1,
            bytes: 8,
        }),
        fresh: vec![multipart::PartRow {
            size: 8,
            tag: format!("e{hash}"),
        }],
        tail: vec![hash],
        replace: true,
        at: NOW,
    }
}

async fn open_parts(meta: &Meta, label: &str) {
    open(meta, label).await;
    let begin = multipart::Begin {
        multipart: parts(label),
        upload: label.to_owned(),
        at: NOW,
    };
    meta.write(begin).await.expect("a multipart upload");
}

/// Before anything else that is a candidate, so that what other runs left is none of this.
const LONG_AGO: i64 = NOW - 1_000_000;

/// Two blobs by their digests.
fn two(label: &str) -> [(Digest, String); 2] {
    let mut two = ["blob", "other"].map(|name| {
        let bytes = format!("{label} {name}");
        (digest(&bytes), bytes)
    });
    two.sort();
    two
}

/// Pushes both, the first one first or last.
async fn two_candidates(meta: &Meta, label: &str, reversed: bool) {
    for (at, (_, bytes)) in two(label).into_iter().enumerate() {
        let later = i64::from((at == 1) != reversed);
        let publish = Publish {
            at: LONG_AGO + later,
            ..publish(label, bytes)
        };
        meta.write(publish).await.expect("a blob");
    }
}

/// A manifest of both, the first one first or last.
fn of_two(label: &str, reversed: bool) -> Put {
    let mut edges = two(label)
        .map(|(digest, bytes)| edge(EdgeKind::Layer, &digest, bytes.len() as u64))
        .to_vec();
    if reversed {
        edges.reverse();
    }
    Put {
        edges,
        ..put(label, format!("{label} m1"), &["t"])
    }
}

/// Which of them are missing depends on nothing but names.
async fn push_two(meta: Meta, label: String, reversed: bool) -> String {
    let outcome = told(meta, of_two(&label, reversed)).await;
    let kind = outcome.split(['(', ' ']).next();
    kind.unwrap_or_default().to_owned()
}

/// What came of it is seen by what is there afterwards: others left candidates, too.
async fn collect(meta: Meta, _: String) -> String {
    let collect = Collect {
        due: LONG_AGO + 1,
        limit: 25,
        at: NOW,
    };
    told(meta, collect).await;
    String::new()
}

/// Ends the manifest that was deleted.
async fn end(meta: Meta, label: String) -> String {
    let list = restorable::List {
        repository: repo(&label),
        before: None,
        limit: 1,
    };
    let Some(deleted) = meta.read(list).await.expect("a list").pop() else {
        return String::new();
    };
    let purge = restorable::Purge {
        manifest: deleted.manifest,
        deleted_at: deleted.deleted_at,
        cause: "a test",
        at: NOW,
    };
    told(meta, purge).await;
    String::new()
}

async fn condemn(meta: Meta, label: String) -> String {
    let op = Lookup {
        digest: blob(&label),
    };
    let id = match meta.read(op).await.expect("a blob") {
        Some(row) => row.id,
        None => return "false".to_owned(),
    };
    let op = Condemn {
        id,
        key: Some(format!("{label}-old")),
        actor: "job".into(),
        at: NOW,
        cause: "it was changed".into(),
    };
    told(meta, op).await
}

/// Of what was last touched when [`open`] made it.
fn expire(label: &str) -> upload::Expire {
    upload::Expire {
        id: label.to_owned(),
        touched_before: NOW + 1,
        at: NOW + 9,
    }
}

async fn open(meta: &Meta, label: &str) {
    let create = Create {
        id: label.to_owned(),
        repository: repo(label),
        owner: "alice".into(),
        algorithm: None,
        at: NOW,
    };
    meta.write(create).await.expect("a session");
}

pairs! {
    "put a manifest, unlink its blob": |meta, label| push_blob(&meta, &label, format!("{label} blob")).await;
        told(meta, with_layer(&label, "m1", &["t"])); told(meta, unlink(&label));
    "put a manifest, publish its blob again": |meta, label| meta.write(key(&label, "old")).await.expect("a blob");
        told(meta, with_layer(&label, "m1", &["t"])); told(meta, key(&label, "a"));
    "pin references, unlink their blob": |meta, label| push_blob(&meta, &label, format!("{label} blob")).await;
        told(meta, PutEdges { repository: repo(&label), digest: digest(format!("{label} m1")),
            edges: with_layer(&label, "m1", &[]).edges, check_sizes: true, at: NOW });
        told(meta, unlink(&label));
    "mount a blob, unlink its source": |meta, label| push_blob(&meta, &label, format!("{label} blob")).await;
        told(meta, mount(&label)); told(meta, unlink(&label));
    "mount a blob, mount it back": |meta, label| { push_blob(&meta, &label, format!("{label} blob")).await;
        meta.write(mount(&label)).await.expect("a mount"); };
        told(meta, mount(&label)); told(meta, mount_back(&label));
    "push a manifest of two blobs, collect them the other way round": |meta, label| two_candidates(&meta, &label, true).await;
        push_two(meta, label, false); collect(meta, label);
    "push a manifest of two blobs the other way round, collect them": |meta, label| two_candidates(&meta, &label, false).await;
        push_two(meta, label, true); collect(meta, label);
    "end a deleted manifest, push it again": |meta, label| { push_blob(&meta, &label, format!("{label} blob")).await;
        push(&meta, with_layer(&label, "m1", &[])).await; told(meta.clone(), delete(&label, "m1")).await; };
        end(meta, label); told(meta, with_layer(&label, "m1", &["t"]));
    "move two tags, move them the other way round": |meta, label| push(&meta, plain(&label, "m0", &["t", "old"])).await;
        told(meta, plain(&label, "m1", &["t", "old"])); told(meta, plain(&label, "m2", &["old", "t"]));
    "make two tags, make them the other way round": |meta, label| push(&meta, plain(&label, "m0", &[])).await;
        told(meta, plain(&label, "m1", &["t", "old"])); told(meta, plain(&label, "m2", &["old", "t"]));
    "publish a blob, publish the same": |meta, label| drop((meta, label));
        told(meta, key(&label, "a")); told(meta, key(&label, "b"));
    "replace a blob, replace it as well": |meta, label| meta.write(key(&label, "old")).await.expect("a blob");
        told(meta, key(&label, "a")); told(meta, key(&label, "b"));
    "publish a blob, unlink it": |meta, label| meta.write(key(&label, "old")).await.expect("a blob");
        told(meta, key(&label, "a")); told(meta, unlink(&label));
    "condemn a blob, publish it": |meta, label| meta.write(key(&label, "old")).await.expect("a blob");
        condemn(meta, label); told(meta, key(&label, "a"));
    "condemn a blob, mount it": |meta, label| meta.write(key(&label, "old")).await.expect("a blob");
        condemn(meta, label); told(meta, mount(&label));
    "make a tag, make it as well": |meta, label| push(&meta, plain(&label, "m0", &[])).await;
        told(meta, plain(&label, "m1", &["t"])); told(meta, plain(&label, "m2", &["t"]));
    "make a tag that must be absent, make it as well": |meta, label| push(&meta, plain(&label, "m0", &[])).await;
        told(meta, Put { expect: Expect::Absent, ..plain(&label, "m1", &["t"]) });
        told(meta, Put { expect: Expect::Absent, ..plain(&label, "m2", &["t"]) });
    "move a tag, move it as well": |meta, label| push(&meta, plain(&label, "m0", &["t"])).await;
        told(meta, plain(&label, "m1", &["t"])); told(meta, plain(&label, "m2", &["t"]));
    "move a tag that must stand, move it as well": |meta, label| push(&meta, plain(&label, "m0", &["t"])).await;
        told(meta, Put { expect: Expect::Digest(digest(format!("{label} m0"))), ..plain(&label, "m1", &["t"]) });
        told(meta, Put { expect: Expect::Digest(digest(format!("{label} m0"))), ..plain(&label, "m2", &["t"]) });
    "move a tag, delete it": |meta, label| push(&meta, plain(&label, "m0", &["t"])).await;
        told(meta, plain(&label, "m1", &["t"])); told(meta, delete_tag(&label));
    "delete a tag, delete it as well": |meta, label| push(&meta, plain(&label, "m0", &["t"])).await;
        told(meta, delete_tag(&label)); told(meta, delete_tag(&label));
    "push the first manifest, push it as well": |meta, label| drop((meta, label));
        told(meta, plain(&label, "m1", &["t"])); told(meta, plain(&label, "m1", &["t"]));
    "delete a manifest, tag it": |meta, label| push(&meta, plain(&label, "m1", &["old"])).await;
        told(meta, delete(&label, "m1")); told(meta, plain(&label, "m1", &["t"]));
    "delete a manifest, move its tag away": |meta, label| push(&meta, plain(&label, "m1", &["t"])).await;
        told(meta, delete(&label, "m1")); told(meta, plain(&label, "m2", &["t"]));
    "delete a manifest, delete it as well": |meta, label| push(&meta, plain(&label, "m1", &["t"])).await;
        told(meta, delete(&label, "m1")); told(meta, delete(&label, "m1"));
    "claim bytes, claim others": |meta, label| open(&meta, &label).await;
        told(meta, claim(&label, 1)); told(meta, claim(&label, 2));
    "claim bytes, take the session over": |meta, label| open(&meta, &label).await;
        told(meta, claim(&label, 1)); told(meta, Take { id: label, epoch: 0, at: NOW });
    "claim bytes, end the session": |meta, label| open(&meta, &label).await;
        told(meta, claim(&label, 1)); told(meta, upload::Delete { id: label });
    "claim bytes, publish them": |meta, label| open(&meta, &label).await;
        told(meta, claim(&label, 1));
        told(meta, Publish { upload: Some(label.clone()), ..key(&label, "a") });
    "publish parts, end the session": |meta, label| open_parts(&meta, &label).await;
        told(meta, publish_parts(&label)); told(meta, upload::Delete { id: label });
    "publish parts, give them up": |meta, label| open_parts(&meta, &label).await;
        told(meta, publish_parts(&label)); told(meta, give_up(&label));
    "publish parts, lose the session": |meta, label| open_parts(&meta, &label).await;
        told(meta, publish_parts(&label)); told(meta, multipart::Lose { upload: label, epoch: 0 });
    "publish parts, publish the same blob whole": |meta, label| open_parts(&meta, &label).await;
        told(meta, publish_parts(&label)); told(meta, key(&label, "a"));
    "publish parts, unlink the blob": |meta, label| { open_parts(&meta, &label).await;
        meta.write(key(&label, "old")).await.expect("a blob"); };
        told(meta, publish_parts(&label)); told(meta, unlink(&label));
    "claim parts, claim others": |meta, label| open_parts(&meta, &label).await;
        told(meta, claim_parts(&label, 1)); told(meta, claim_parts(&label, 2));
    "claim parts, take the session over": |meta, label| open_parts(&meta, &label).await;
        told(meta, claim_parts(&label, 1)); told(meta, Take { id: label, epoch: 0, at: NOW });
    "claim parts, end the session": |meta, label| open_parts(&meta, &label).await;
        told(meta, claim_parts(&label, 1)); told(meta, upload::Delete { id: label });
    "claim bytes, expire the session": |meta, label| open(&meta, &label).await;
        told(meta, Claim { at: NOW + 9, ..claim(&label, 1) }); told(meta, expire(&label));
    "claim parts, expire the session": |meta, label| open_parts(&meta, &label).await;
        told(meta, multipart::Claim { at: NOW + 9, ..claim_parts(&label, 1) }); told(meta, expire(&label));
    "take a session over, expire it": |meta, label| open_parts(&meta, &label).await;
        told(meta, Take { id: label, epoch: 0, at: NOW + 9 }); told(meta, expire(&label));
    "publish parts, expire the session": |meta, label| open_parts(&meta, &label).await;
        told(meta, publish_parts(&label)); told(meta, expire(&label));
    "make the administrator, make it as well": |meta, label| drop((meta, label));
        told(meta, principal::Create { name: label, kind: "a".into(), secret_hash: None, at: NOW });
        told(meta, principal::Create { name: label, kind: "b".into(), secret_hash: None, at: NOW });
    "give a user a token, remove the user": |meta, label| local_user(&meta, &label).await;
        told(meta, credential::Add { row: secret(&label, 1), local: true, most: 9 });
        told(meta, remove(&label, "user"));
    "give a user a token, give one of the same name": |meta, label| local_user(&meta, &label).await;
        told(meta, credential::Add { row: secret(&label, 1), local: true, most: 9 });
        told(meta, credential::Add { row: CredentialRow { name: "1".into(), ..secret(&label, 2) }, local: true, most: 9 });
    "give a robot a new secret, and another one": |meta, label| robot(&meta, &label).await;
        told(meta, credential::Rotate { row: secret(&label, 2), until: NOW + 5 });
        told(meta, credential::Rotate { row: secret(&label, 3), until: NOW + 5 });
    "give a robot a new secret, remove it": |meta, label| robot(&meta, &label).await;
        told(meta, credential::Rotate { row: secret(&label, 2), until: NOW + 5 });
        told(meta, remove(&label, "robot"));
    "lock a user out, remove the user": |meta, label| local_user(&meta, &label).await;
        told(meta, lock_out(&label));
        told(meta, remove(&label, "user"));
    "remove a user, remove the same user": |meta, label| local_user(&meta, &label).await;
        told(meta, remove(&label, "user"));
        told(meta, remove(&label, "user"));
    "lock a user out, set the password": |meta, label| local_user(&meta, &label).await;
        told(meta, lock_out(&label));
        told(meta, principal::SetSecret { name: label, hash: "new".into(), at: NOW });
    "two accounts come with the same wish": |meta, label| drop((meta, label));
        told(meta, came(&label, "1"));
        told(meta, came(&label, "2"));
    "an account comes twice": |meta, label| drop((meta, label));
        told(meta, came(&label, "1"));
        told(meta, came(&label, "1"));
    "an account comes, it is looked for": |meta, label| told(meta, came(&label, "1")).await;
        told(meta, came(&label, "1"));
        told(meta, Check { provider: label, subject: "1".into(), at: NOW, found: false, enough: 1 });
    "an account comes, its user goes": |meta, label| told(meta, came(&label, "1")).await;
        told(meta, came(&label, "1"));
        told(meta, remove(&label, "user"));
    "an account comes, its user is locked out": |meta, label| told(meta, came(&label, "1")).await;
        told(meta, came(&label, "1"));
        told(meta, lock_out(&label));
    "fetch a terminal, fetch it as well": |meta, label| approved(&meta, &label).await;
        told(meta, fetch(&label)); told(meta, fetch(&label));
    "fetch a terminal, end all that its user has": |meta, label| approved(&meta, &label).await;
        told(meta, fetch(&label)); told(meta, end_all(&label));
    "fetch a terminal, end the session that asks about its account": |meta, label| approved(&meta, &label).await;
        told(meta, fetch(&label)); told(meta, end_session(&label));
    "fetch a terminal, its user goes": |meta, label| approved(&meta, &label).await;
        told(meta, fetch(&label)); told(meta, remove(&label, "user"));
    "spend a refresh token, spend it as well": |meta, label| fetched(&meta, &label).await;
        told(meta, renew(&label, 2)); told(meta, renew(&label, 3));
    "spend a refresh token, one comes that was spent": |meta, label| fetched(&meta, &label).await;
        told(meta, renew(&label, 2)); told(meta, replay(&label));
    "spend a refresh token, end all that its user has": |meta, label| fetched(&meta, &label).await;
        told(meta, renew(&label, 2)); told(meta, end_all(&label));
    "one comes that was spent, end all that its user has": |meta, label| fetched(&meta, &label).await;
        told(meta, replay(&label)); told(meta, end_all(&label));
    "lock a user out, take all that the user holds": |meta, label| local_user(&meta, &label).await;
        told(meta, lock_out(&label));
        told(meta, DeleteOf { kind: "user".into(), name: label, by: By { actor: "root".into(), epoch: None, at: NOW } });
}

fn remove(label: &str, kind: &str) -> credential::RemovePrincipal {
    credential::RemovePrincipal {
        name: label.into(),
        kind: kind.into(),
        version: Meant::Any,
        by: By {
            actor: "root".into(),
            epoch: None,
            at: NOW,
        },
    }
}

fn came(label: &str, subject: &str) -> Arrive {
    Arrive {
        provider: label.into(),
        subject: subject.into(),
        issuer: String::new(),
        wished: Some(label.into()),
        groups: vec!["a".into()],
        telling: vec!["a".into()],
        at: NOW,
    }
}

fn lock_out(label: &str) -> principal::Change {
    principal::Change {
        name: label.into(),
        kind: "user".into(),
        version: Meant::Any,
        disabled: Some(true),
        expires_at: None,
        networks: None,
        at: NOW,
    }
}

async fn local_user(meta: &Meta, label: &str) {
    let (name, kind, secret_hash) = (label.to_owned(), "user".into(), Some("hash".into()));
    let create = principal::Create {
        name,
        kind,
        secret_hash,
        at: NOW,
    };
    assert!(meta.write(create).await.expect("a user"));
}

async fn robot(meta: &Meta, label: &str) {
    let create = credential::CreateRobot {
        secret: secret(label, 1),
        expires_at: NOW + 9,
        networks: String::new(),
    };
    assert!(meta.write(create).await.expect("a robot"));
}

fn secret(label: &str, number: i64) -> CredentialRow {
    let id = format!("{label} {number}");
    CredentialRow {
        kind: "any".into(),
        principal: label.to_owned(),
        source: "any".into(),
        name: number.to_string(),
        hash: id.clone().into_bytes(),
        id,
        scopes: None,
        expires_at: Some(NOW + 9),
        created_at: NOW + number,
        created_by: "root".into(),
    }
}

/// What this page's pairs change is seen of all.
async fn look(meta: &Meta, label: &str) -> Vec<String> {
    let mut seen = content(meta, label).await;
    seen.extend(people(meta, label).await);
    seen.extend(rights::seen(meta, label).await);
    seen
}

/// What is seen of a run, without what differs from run to run.
pub async fn seen(meta: &Meta, pair: &Pair, label: &str) -> String {
    neutral(&(pair.seen)(meta.clone(), label.to_owned()).await, label)
}

/// What is seen of blobs, manifests, tags and uploads.
async fn content(meta: &Meta, label: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for name in ["t", "old"] {
        let get = Get {
            repository: repo(label),
            reference: Ref::Tag(tag(name)),
            with_bytes: true,
        };
        let row = meta.read(get).await.expect("a read");
        seen.push(format!("{:?}", row.map(|row| (row.digest, row.bytes))));
    }
    for name in ["m0", "m1", "m2"] {
        let get = Get {
            repository: repo(label),
            reference: Ref::Digest(digest(format!("{label} {name}"))),
            with_bytes: true,
        };
        let found = meta.read(get).await.expect("a read");
        seen.push(format!("{name} {}", found.is_some()));
    }
    for repository in [label.to_owned(), format!("{label}/to")] {
        let find = Find {
            repository: repo(&repository),
            digest: blob(label),
            with_bytes: false,
        };
        let place = meta.read(find).await.expect("a read").map(|row| row.place);
        seen.push(match place {
            Some(Place::Key(key)) => key,
            Some(Place::Inline(_)) => "inline".to_owned(),
            None => "none".to_owned(),
        });
    }
    let garbage = Garbage {
        after: Some(format!("{label}-")),
        limit: 10,
    };
    let garbage = meta.scan(garbage).await.expect("a scan");
    seen.extend(
        garbage
            .into_iter()
            .filter(|key| key.starts_with(&format!("{label}-"))),
    );
    let history = tags::History {
        repository: repo(label),
        tag: Some(tag("t")),
        limit: 10,
    };
    for step in meta.scan(history).await.expect("a scan") {
        seen.push(format!("{} {:?} {:?}", step.version, step.from, step.to));
    }
    let session = upload::Get {
        id: label.to_owned(),
    };
    if let Some(row) = meta.read(session).await.expect("a read") {
        let chunks = upload::Chunks {
            id: label.to_owned(),
        };
        let bytes = meta.read(chunks).await.expect("a read");
        seen.push(format!(
            "{} {} {:?} {bytes:?}",
            row.offset, row.epoch, row.hash
        ));
    }
    seen.extend(parts_seen(meta, label).await);
    seen
}

/// What is seen of users and robots, and of what they sign in with.
async fn people(meta: &Meta, label: &str) -> Vec<String> {
    let mut seen = identity::seen(meta, label).await;
    let who = principal::Get {
        name: label.to_owned(),
    };
    if let Some(row) = meta.read(who).await.expect("a read") {
        seen.push(format!(
            "{} {:?} {:?}",
            row.kind, row.secret_hash, row.disabled_at
        ));
    }
    let of = credential::Of {
        principal: label.to_owned(),
        limit: 9,
    };
    for (row, _) in meta.read(of).await.expect("a read") {
        seen.push(format!("{} ends {:?}", row.id, row.expires_at));
    }
    seen
}

async fn parts_seen(meta: &Meta, label: &str) -> Vec<String> {
    let key = parts(label).key;
    let mut seen = Vec::new();
    let list = multipart::List {
        key: key.clone(),
        from: 0,
    };
    for part in meta.scan(list).await.expect("a scan") {
        seen.push(format!("{} {}", part.size, part.tag));
    }
    let over = meta
        .scan(multipart::Over { limit: 10_000 })
        .await
        .expect("a scan");
    seen.push(format!("over {}", over.contains(&key)));
    let named = meta.read(multipart::DigestOf { key }).await;
    seen.push(format!("{:?}", named.expect("a read")));
    seen
}

/// The text without what differs from run to run.
pub fn neutral(text: &str, label: &str) -> String {
    let mut text = text.to_owned();
    for name in ["m0", "m1", "m2", "blob"] {
        let bytes = format!("{label} {name}");
        text = text.replace(
            &format!("{:?}", bytes.as_bytes()),
            &format!("bytes of {name}"),
        );
        text = text.replace(digest(bytes).as_str(), &format!("digest of {name}"));
    }
    text.replace(label, "LABEL")
}

/// What both orders of a pair give.
pub async fn orders(meta: &Meta, pair: &Pair, label: &str) -> [String; 2] {
    let mut results = [String::new(), String::new()];
    for (turn, result) in results.iter_mut().enumerate() {
        let label = format!("{label}o{turn}");
        (pair.prepare)(meta.clone(), label.clone()).await;
        let one = || (pair.one)(meta.clone(), label.clone());
        let other = || (pair.other)(meta.clone(), label.clone());
        let (one, other) = if turn == 0 {
            let one = one().await;
            (one, other().await)
        } else {
            let other = other().await;
            (one().await, other)
        };
        *result = neutral(&format!("{one}\n{other}\n"), &label) + &seen(meta, pair, &label).await;
    }
    results
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Pair> {
    let all = [
        PAIRS,
        upkeep::PAIRS,
        identity::PAIRS,
        record::PAIRS,
        rights::PAIRS,
        work::PAIRS,
    ];
    all.into_iter().flatten()
}

/// The names of all operations that stand in a pair.
pub async fn written(meta: Meta) -> BTreeSet<&'static str> {
    let written = Arc::default();
    for (at, pair) in all().enumerate() {
        // What the first left may be nothing to do for the second.
        for (turn, sides) in [[pair.one, pair.other], [pair.other, pair.one]]
            .into_iter()
            .enumerate()
        {
            let label = format!("w{at}o{turn}n");
            (pair.prepare)(meta.clone(), label.clone()).await;
            for side in sides {
                let side = side(meta.clone(), label.clone());
                WRITTEN.scope(Arc::clone(&written), side).await;
            }
        }
    }
    let written = written.lock().unwrap_or_else(PoisonError::into_inner);
    written.clone()
}

/// Each pair in both orders: every operation finds what the one before left.
pub async fn serially(meta: Meta) {
    for (at, pair) in all().enumerate() {
        let again = orders(&meta, pair, &format!("again{at}n")).await;
        let results = orders(&meta, pair, &format!("pair{at}n")).await;
        assert_eq!(results, again, "{}: not the same twice", pair.name);
    }
}
