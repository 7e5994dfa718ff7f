//! What is written down for others to read: the audit log, events, settings, holds, keys, tokens, replicas, and sums.

use super::{NOW, blob, collect, key, local_user, plain, remove, repo, secret, told};
use crate::audit::{Append, Cut, EntryRow, Head, HeadRow, Walk};
use crate::blob::{Collected, Lookup, Publish};
use crate::credential::{self, Use};
use crate::error::Result;
use crate::event::{Leave, Seen, Trim};
use crate::refresh_token;
use crate::replica::{self, Beat, Said};
use crate::signing_key;
use crate::suite::{publish, push};
use crate::tx::{Op, ReadOp, Tx};
use crate::usage::{
    self, Correct, CountLinks, CountManifests, Keep, KeepPrefixes, Sizes, Sums, Usage,
};
use crate::{Id, Meta, counter, hold, mark, repository, setting};

/// Up to which event a consumer has seen.
#[derive(Debug)]
struct Cursor(String);

impl ReadOp for Cursor {}
impl Op for Cursor {
    type Out = Option<i64>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Option<i64>> {
        let row = tx
            .row(
                "SELECT seen_transaction, seen FROM event_cursor WHERE consumer = $1",
                crate::vals![&self.0],
            )
            .await?;
        row.map(|mut row| row.int(1)).transpose()
    }
}

fn set(label: &str, value: &str) -> setting::Put {
    let (key, value) = (label.into(), value.into());
    setting::Put { key, value }
}

fn ensure(label: &str, value: &str) -> setting::Ensure {
    let (key, value) = (label.into(), value.into());
    setting::Ensure { key, value }
}

async fn get(meta: &Meta, label: &str) -> Option<String> {
    let key = label.to_owned();
    meta.read(setting::Get { key }).await.expect("a setting")
}

/// Where the log stood when the pair was prepared: its last place, and the mac of its head.
async fn stood(meta: &Meta, label: &str) -> (i64, Vec<u8>) {
    let kept = get(meta, label).await.expect("a place");
    let (place, mac) = kept.split_once(' ').expect("two words");
    (place.parse().expect("a number"), mac.into())
}

fn head(seq: i64, cut_seq: i64, mac: &str) -> HeadRow {
    HeadRow {
        seq,
        hash: vec![1],
        cut_seq,
        cut_hash: vec![1],
        mac: mac.into(),
    }
}

fn appended(expected: Option<Vec<u8>>, last: i64, mac: &str) -> Append {
    let entry = EntryRow {
        seq: last + 1,
        at: NOW,
        action: mac.into(),
        principal: "ann".into(),
        credential: String::new(),
        address: String::new(),
        request: String::new(),
        repository: None,
        digest: None,
        tag: None,
        detail: "{}".into(),
        hash: vec![1],
        mac: vec![1],
    };
    Append {
        expected,
        entries: vec![entry],
        head: head(last + 1, last - 1, mac),
        seen: Some((1, last, NOW)),
    }
}

/// Two entries of this pair's, and what the head says then.
async fn logged(meta: &Meta, label: &str) {
    for name in ["a", "b"] {
        let head = meta.read(Head).await.expect("the ends").head;
        let last = head.as_ref().map_or(0, |head| head.seq);
        let append = appended(head.map(|head| head.mac), last, &format!("{label}-{name}"));
        assert!(meta.write(append).await.expect("an answer"));
        let kept = format!("{} {label}-{name}", last + 1);
        meta.write(set(label, &kept)).await.expect("a setting");
    }
}

async fn append(meta: Meta, label: String, name: &str) -> String {
    let (last, mac) = stood(&meta, &label).await;
    told(
        meta,
        appended(Some(mac), last, &format!("{label}-one {name}")),
    )
    .await
}

async fn cut(meta: Meta, label: String, of: i64) -> String {
    let (last, expected) = stood(&meta, &label).await;
    let head = head(last, last - of, &format!("{label}-cut {of}"));
    told(meta, Cut { expected, head }).await
}

/// Ahead of all that there is.
fn seen_all(label: &str, id: i64) -> Seen {
    Seen {
        consumer: label.into(),
        transaction: i64::MAX - 9,
        id,
        at: NOW,
    }
}

fn leave(label: &str) -> Leave {
    let consumer = label.into();
    Leave { consumer }
}

/// How many go is others' doing, too.
async fn trim(meta: Meta, _: String) -> String {
    let (before, unseen_before) = (i64::MAX, i64::MAX);
    let trim = Trim {
        before,
        unseen_before,
    };
    told(meta, trim).await;
    String::new()
}

fn hold(label: &str, first: bool) -> hold::Take {
    hold::Take {
        id: label.into(),
        first,
        // Whatever the server's clock says.
        lasts: i64::MAX / 2,
        at: NOW,
    }
}

fn release(label: &str) -> hold::Release {
    let (id, at) = (label.into(), NOW);
    hold::Release { id, at }
}

/// One that has ended.
async fn held(meta: &Meta, label: &str) {
    let ended = hold::Take {
        lasts: -NOW,
        ..hold(label, true)
    };
    told(meta.clone(), ended).await;
}

fn forget_key(label: &str) -> Collected {
    Collected {
        keys: vec![format!("{label}-old")],
    }
}

/// A key that is garbage.
async fn garbage(meta: &Meta, label: &str) {
    for name in ["kept", "old"] {
        meta.write(key(label, name)).await.expect("a blob");
    }
}

fn signing_key(label: &str, number: i64) -> signing_key::Add {
    signing_key::Add {
        kid: label.into(),
        algorithm: "ES256".into(),
        private_der: vec![1],
        at: NOW + number,
    }
}

fn reseal(label: &str, to: u8) -> signing_key::Reseal {
    signing_key::Reseal {
        kid: label.into(),
        from: vec![1],
        to: vec![to],
    }
}

fn retire(label: &str, at: i64) -> signing_key::Retire {
    let kid = label.into();
    signing_key::Retire { kid, at }
}

fn remove_key(label: &str) -> signing_key::Remove {
    let kid = label.into();
    signing_key::Remove { kid }
}

/// One that has gone may have been another pair's.
async fn forget_keys(meta: Meta, _: String) -> String {
    let retired_before = NOW;
    told(meta, signing_key::Forget { retired_before }).await;
    String::new()
}

async fn retired(meta: &Meta, label: &str) {
    told(meta.clone(), signing_key(label, 0)).await;
    told(meta.clone(), retire(label, NOW - 1)).await;
}

fn refresh(label: &str, number: i64) -> refresh_token::Create {
    refresh_token::Create {
        hash: label.into(),
        subject: label.into(),
        credential: number.to_string(),
        created_at: NOW,
    }
}

fn forget_refresh(label: &str) -> refresh_token::Delete {
    let hash = label.into();
    refresh_token::Delete { hash }
}

fn beat(label: &str, name: &str, load: &str, at: i64) -> Beat {
    let said = Said {
        id: format!("{label} {name}"),
        address: "here".into(),
        version: "1".into(),
        settings: "{}".into(),
        load: load.into(),
    };
    Beat { said, at }
}

fn gone(label: &str) -> replica::Leave {
    let id = format!("{label} a");
    replica::Leave { id }
}

/// Two that were silent for so long that they are to be forgotten.
async fn silent(meta: &Meta, label: &str) {
    for name in ["a", "b"] {
        told(meta.clone(), beat(label, name, "0", 0)).await;
    }
}

/// How many it adds up is others' doing, too.
async fn fold_counts(meta: Meta, _: String) -> String {
    told(meta, counter::Fold { limit: 400 }).await;
    String::new()
}

async fn fold(meta: Meta, _: String) -> String {
    told(meta, usage::Fold { limit: 100 }).await;
    String::new()
}

async fn fold_all(meta: &Meta) {
    while meta.write(usage::Fold { limit: 100 }).await.expect("sums") > 0 {}
}

async fn id(meta: &Meta, label: &str) -> Id {
    let name = repo(label);
    let row = meta.read(repository::Get { name }).await.expect("a read");
    row.expect("a repository").id
}

/// A blob and a manifest, all of it in the sums; and one more change that is not.
async fn summed(meta: &Meta, label: &str) {
    meta.write(key(label, "old")).await.expect("a blob");
    push(meta, plain(label, "m0", &[])).await;
    fold_all(meta).await;
    let name = format!("{label} other");
    meta.write(publish(label, name)).await.expect("a blob");
}

/// As a walk would that took the bytes of the blob alone.
async fn correct(meta: Meta, label: String) -> String {
    let after = Some(label[..label.len() - 1].to_owned());
    let sums = meta.read(Sums { after, limit: 50 }).await.expect("sums");
    let sum = sums.into_iter().find(|sum| sum.name.as_str() == label);
    let sum = sum.expect("a sum");
    // As it was before the last change was folded.
    let changes = 2;
    let op = Correct {
        repository: sum.id,
        name: sum.name,
        bytes: 1,
        changes,
    };
    told(meta, op).await
}

async fn keep(meta: Meta, label: String, own: u64) -> String {
    let usage = Usage {
        logical: 1,
        own,
        blobs: 1,
    };
    let usage = vec![(id(&meta, &label).await, usage)];
    told(meta, Keep { usage, at: NOW }).await
}

fn keep_prefixes(label: &str, reversed: bool) -> KeepPrefixes {
    let usage = Usage {
        own: u64::from(reversed),
        ..Usage::default()
    };
    let mut usage = vec![(String::new(), usage), (label.to_owned(), usage)];
    if reversed {
        usage.reverse();
    }
    KeepPrefixes { usage, at: NOW }
}

async fn count_links(meta: Meta, label: String) -> String {
    let links = vec![(id(&meta, &label).await, blob(&label))];
    told(meta, CountLinks { links }).await
}

/// Two manifests, the one with the later digest first.
async fn two_manifests(meta: &Meta, label: &str) -> Vec<(wharf_oci::Digest, u64)> {
    let mut two = ["m0", "m1"].map(|name| {
        let bytes = format!("{label} {name}");
        (crate::suite::digest(&bytes), bytes)
    });
    two.sort();
    for (_, bytes) in two.iter().rev() {
        push(meta, crate::suite::put(label, bytes, &[])).await;
    }
    two.map(|(digest, bytes)| (digest, bytes.len() as u64))
        .to_vec()
}

/// An index of both, so that both are locked.
async fn index(meta: Meta, label: String) -> String {
    let mut edges = Vec::new();
    for name in ["m0", "m1"] {
        let bytes = format!("{label} {name}");
        let digest = crate::suite::digest(&bytes);
        edges.push(crate::suite::edge(
            wharf_oci::EdgeKind::Child,
            &digest,
            bytes.len() as u64,
        ));
    }
    let put = crate::manifest::Put {
        edges,
        ..plain(&label, "m2", &["t"])
    };
    told(meta, put).await
}

/// All of the repository's, in the order of their rows.
async fn count_manifests(meta: Meta, label: String) -> String {
    let repository = id(&meta, &label).await;
    let mut manifests = Vec::new();
    let mut after = None;
    loop {
        let page = usage::Manifests { after, limit: 500 };
        let rows = meta.read(page).await.expect("manifests");
        let Some(last) = rows.last() else { break };
        after = Some(last.id);
        let rows = rows.into_iter().filter(|row| row.repository == repository);
        manifests.extend(rows.map(|row| row.id));
    }
    told(meta, CountManifests { manifests }).await
}

fn used(label: &str, at: i64) -> Use {
    let (id, address) = (format!("{label} 1"), at.to_string());
    Use { id, at, address }
}

fn revoke(label: &str) -> credential::Revoke {
    let (id, at) = (format!("{label} 1"), NOW);
    credential::Revoke { id, at }
}

/// Two tokens, of which the one that was given later ends first; both have ended.
async fn two_tokens(meta: &Meta, label: &str) {
    local_user(meta, label).await;
    for number in [1, 2] {
        let row = credential::CredentialRow {
            expires_at: Some(NOW - number),
            ..secret(label, number)
        };
        let (local, most) = (true, 9);
        told(meta.clone(), credential::Add { row, local, most }).await;
    }
}

/// How many it forgets is others' doing, too.
async fn forget_tokens(meta: Meta, _: String) -> String {
    let (ended_before, limit) = (NOW, 50);
    let forget = credential::Forget {
        ended_before,
        limit,
    };
    told(meta, forget).await;
    String::new()
}

/// A token of somebody who has no row here.
fn token_of_a_stranger(label: &str, id: i64) -> credential::Add {
    let row = credential::CredentialRow {
        name: "laptop".into(),
        ..secret(label, id)
    };
    let (local, most) = (false, 9);
    credential::Add { row, local, most }
}

/// What the mark was before is others' doing.
async fn advance(meta: Meta, _: String) -> String {
    told(meta, mark::Advance { beyond: 0 }).await;
    String::new()
}

async fn has_a_mark(meta: &Meta) {
    told(meta.clone(), mark::Advance { beyond: 0 }).await;
}

pairs! {
    "put an entry into the log, put another one": |meta, label| logged(&meta, &label).await;
        append(meta, label, "1"); append(meta, label, "2");
    "put an entry into the log, cut off the oldest": |meta, label| logged(&meta, &label).await;
        append(meta, label, "1"); cut(meta, label, 1);
    "cut off the oldest entries, cut off more": |meta, label| logged(&meta, &label).await;
        cut(meta, label, 1); cut(meta, label, 0);
    "a consumer has seen events, it has seen more": |meta, label| told(meta, seen_all(&label, 1)).await;
        told(meta, seen_all(&label, 2)); told(meta, seen_all(&label, 3));
    "a consumer has seen events, it leaves": |meta, label| told(meta, seen_all(&label, 1)).await;
        told(meta, seen_all(&label, 2)); told(meta, leave(&label));
    "let events go, let them go as well": |meta, label| push(&meta, plain(&label, "m0", &[])).await;
        trim(meta, label); trim(meta, label);
    "let events go, a consumer leaves": |meta, label| told(meta, seen_all(&label, 1)).await;
        trim(meta, label); told(meta, leave(&label));
    "set a value, set another one": |meta, label| drop((meta, label));
        told(meta, set(&label, "a")); told(meta, set(&label, "b"));
    "set a value if there is none, set another one so": |meta, label| drop((meta, label));
        told(meta, ensure(&label, "a")); told(meta, ensure(&label, "b"));
    "set a value if there is none, set another one anyway": |meta, label| drop((meta, label));
        told(meta, ensure(&label, "a")); told(meta, set(&label, "b"));
    "set a value, take it away": |meta, label| told(meta, set(&label, "a")).await;
        told(meta, set(&label, "b")); told(meta, setting::Remove { key: label });
    "advance the mark, advance it as well": |meta, label| { has_a_mark(&meta).await; drop(label); };
        advance(meta, label); advance(meta, label);
    "take a hold, take another one": |meta, label| held(&meta, &label).await;
        told(meta, hold(&label, true)); told(meta, hold(&format!("{label}b"), true));
    "take a hold that has ended, go on with it": |meta, label| held(&meta, &label).await;
        told(meta, hold(&label, true)); told(meta, hold(&label, false));
    "go on with a hold, end it": |meta, label| told(meta, hold(&label, true)).await;
        told(meta, hold(&label, false)); told(meta, release(&label));
    "take a hold, forget a key whose bytes are gone": |meta, label| garbage(&meta, &label).await;
        told(meta, hold(&label, true)); told(meta, forget_key(&label));
    "forget a key whose bytes are gone, forget it as well": |meta, label| garbage(&meta, &label).await;
        told(meta, forget_key(&label)); told(meta, forget_key(&label));
    "forget a key whose bytes are gone, publish it once more": |meta, label| garbage(&meta, &label).await;
        told(meta, forget_key(&label)); told(meta, key(&label, "old"));
    "keep a signing key, keep one of the same name": |meta, label| drop((meta, label));
        told(meta, signing_key(&label, 1)); told(meta, signing_key(&label, 2));
    "seal a signing key anew, seal it as well": |meta, label| told(meta, signing_key(&label, 0)).await;
        told(meta, reseal(&label, 2)); told(meta, reseal(&label, 3));
    "seal a signing key anew, remove it": |meta, label| told(meta, signing_key(&label, 0)).await;
        told(meta, reseal(&label, 2)); told(meta, remove_key(&label));
    "retire a signing key, retire it as well": |meta, label| told(meta, signing_key(&label, 0)).await;
        told(meta, retire(&label, NOW + 1)); told(meta, retire(&label, NOW + 2));
    "forget a signing key, remove it": |meta, label| retired(&meta, &label).await;
        forget_keys(meta, label); told(meta, remove_key(&label));
    "forget a signing key, forget it as well": |meta, label| retired(&meta, &label).await;
        forget_keys(meta, label); forget_keys(meta, label);
    "keep a refresh token, keep the same": |meta, label| drop((meta, label));
        told(meta, refresh(&label, 1)); told(meta, refresh(&label, 2));
    "keep a refresh token, forget it": |meta, label| told(meta, refresh(&label, 1)).await;
        told(meta, refresh(&label, 2)); told(meta, forget_refresh(&label));
    "forget a refresh token, its user goes": |meta, label| { local_user(&meta, &label).await;
        told(meta, refresh(&label, 1)).await; };
        told(meta, forget_refresh(&label)); told(meta, remove(&label, "user"));
    "a replica says something, it says more": |meta, label| drop((meta, label));
        told(meta, beat(&label, "a", "1", NOW)); told(meta, beat(&label, "a", "2", NOW));
    "a replica says something, it leaves": |meta, label| told(meta, beat(&label, "a", "0", NOW)).await;
        told(meta, beat(&label, "a", "1", NOW)); told(meta, gone(&label));
    "two replicas come back that were silent for long": |meta, label| silent(&meta, &label).await;
        told(meta, beat(&label, "a", "1", NOW)); told(meta, beat(&label, "b", "1", NOW));
    "add counts up, add them up as well": |meta, label| push(&meta, plain(&label, "m0", &[])).await;
        fold_counts(meta, label); fold_counts(meta, label);
    "add sums up, add them up as well": |meta, label| summed(&meta, &label).await;
        fold(meta, label); fold(meta, label);
    "add sums up, put one right": |meta, label| summed(&meta, &label).await;
        fold(meta, label); correct(meta, label);
    "put a sum right, put it right as well": |meta, label| summed(&meta, &label).await;
        correct(meta, label); correct(meta, label);
    "add sums up, keep what prefixes take up": |meta, label| summed(&meta, &label).await;
        fold(meta, label); told(meta, keep_prefixes(&label, true));
    "keep what prefixes take up, keep it the other way round": |meta, label| summed(&meta, &label).await;
        told(meta, keep_prefixes(&label, false)); told(meta, keep_prefixes(&label, true));
    "keep what a repository takes up, keep something else": |meta, label| summed(&meta, &label).await;
        keep(meta, label, 1); keep(meta, label, 2);
    "count links, unlink one": |meta, label| meta.write(key(&label, "old")).await.expect("a blob");
        count_links(meta, label); told(meta, super::unlink(&label));
    "count links, collect them": |meta, label| { let at = super::LONG_AGO;
        meta.write(Publish { at, ..key(&label, "old") }).await.expect("a blob"); };
        count_links(meta, label); collect(meta, label);
    "count manifests, put an index over them": |meta, label| two_manifests(&meta, &label).await;
        count_manifests(meta, label); index(meta, label);
    "count manifests, delete one": |meta, label| two_manifests(&meta, &label).await;
        count_manifests(meta, label); told(meta, super::delete(&label, "m1"));
    "use a token, use it from elsewhere": |meta, label| two_tokens(&meta, &label).await;
        told(meta, used(&label, NOW + 1)); told(meta, used(&label, NOW + 2));
    "use a token, take it away": |meta, label| two_tokens(&meta, &label).await;
        told(meta, used(&label, NOW + 1)); told(meta, revoke(&label));
    "take a token away, take it away as well": |meta, label| two_tokens(&meta, &label).await;
        told(meta, revoke(&label)); told(meta, revoke(&label));
    "take a token away, its user goes": |meta, label| two_tokens(&meta, &label).await;
        told(meta, revoke(&label)); told(meta, remove(&label, "user"));
    "forget tokens that ended, their user goes": |meta, label| two_tokens(&meta, &label).await;
        forget_tokens(meta, label); told(meta, remove(&label, "user"));
    "forget tokens that ended, take one away": |meta, label| two_tokens(&meta, &label).await;
        forget_tokens(meta, label); told(meta, revoke(&label));
    "give a stranger a token, give one of the same name": |meta, label| drop((meta, label));
        told(meta, token_of_a_stranger(&label, 1)); told(meta, token_of_a_stranger(&label, 2));
}

/// A backup that takes its hold and looks what is there; and what takes a blob away, and its bytes unless somebody holds them. What
/// the one has seen the other must not have taken: see [`bytes_are_lost`].
pub const HOLD: super::Pair = super::Pair {
    name: "take a hold and look, take away what nothing needs",
    prepare: |meta, label| {
        super::doing(async move {
            let at = super::LONG_AGO;
            let publish = Publish {
                at,
                ..key(&label, "old")
            };
            meta.write(publish).await.expect("a blob");
            String::new()
        })
    },
    one: |meta, label| {
        super::doing(async move {
            told(meta.clone(), hold(&label, true)).await;
            let digest = blob(&label);
            let row = meta.read(Lookup { digest }).await.expect("a read");
            format!("seen {}", row.is_some())
        })
    },
    other: |meta, label| {
        super::doing(async move {
            collect(meta.clone(), label.clone()).await;
            let key = format!("{label}-old");
            let is_garbage = crate::blob::IsGarbage { key };
            if !meta.read(is_garbage).await.expect("a read") {
                return "taken false".to_owned();
            }
            let standing = meta.scan(hold::Standing { at: NOW }).await;
            let taken = standing.expect("a read").is_none();
            if taken {
                told(meta, forget_key(&label)).await;
            }
            format!("taken {taken}")
        })
    },
    seen: |_, _| super::doing(async { String::new() }),
};

/// Whether somebody relies on bytes that were removed.
pub fn bytes_are_lost(got: &str) -> bool {
    got.starts_with("seen true\ntaken true\n")
}

/// Ends the hold of a run, so that the next one begins without.
pub async fn let_go(meta: &Meta, label: &str) {
    told(meta.clone(), release(label)).await;
}

async fn look(meta: &Meta, label: &str) -> Vec<String> {
    let mut all = super::content(meta, label).await;
    all.extend(super::people(meta, label).await);
    all.extend(seen(meta, label).await);
    all
}

/// What is seen of all this.
async fn seen(meta: &Meta, label: &str) -> Vec<String> {
    let mut seen = Vec::new();
    // Where the log stood is another place each time.
    let value = get(meta, label).await;
    seen.push(format!("{:?}", value.filter(|value| !value.contains('-'))));
    for name in [format!("hold.{label}"), format!("hold.{label}b")] {
        seen.push(format!("{}", get(meta, &name).await.is_some()));
    }
    if let Some(kept) = get(meta, label).await.filter(|kept| kept.contains('-')) {
        let first: i64 = kept
            .split(' ')
            .next()
            .map_or(0, |n| n.parse().expect("a number"));
        let (after, limit) = (first - 2, 9);
        let rows = meta.scan(Walk { after, limit }).await.expect("entries");
        let entries = rows.into_iter();
        seen.extend(entries.map(|row| format!("{} {}", row.seq - first, row.action)));
        let head = meta
            .read(Head)
            .await
            .expect("the ends")
            .head
            .expect("a head");
        let mac = String::from_utf8_lossy(&head.mac).into_owned();
        seen.push(format!(
            "{} {} {mac}",
            head.seq - first,
            head.cut_seq - first
        ));
    }
    let cursor = meta.read(Cursor(label.to_owned())).await;
    seen.push(format!("{:?}", cursor.expect("a cursor")));
    for row in meta.read(signing_key::List).await.expect("keys") {
        if row.kid == label {
            seen.push(format!(
                "{:?} {} {:?}",
                row.private_der, row.created_at, row.retired_at
            ));
        }
    }
    let hash = label.into();
    let token = meta.read(refresh_token::Get { hash }).await;
    seen.push(format!("{:?}", token.expect("a token")));
    // Since when each is there goes by the server's clock.
    let rows = meta.scan(replica::List { at: NOW }).await;
    let rows = rows.expect("replicas").into_iter().map(|row| row.said);
    let ours = rows.filter(|said| said.id.starts_with(&format!("{label} ")));
    let mut said: Vec<String> = ours.map(|it| format!("{} {}", it.id, it.load)).collect();
    said.sort_unstable();
    seen.append(&mut said);
    let after = Some(label[..label.len() - 1].to_owned());
    for found in meta.scan(Sizes { after, limit: 50 }).await.expect("sizes") {
        if found.name == label {
            let Usage { logical, own, .. } = found.usage;
            // Names are of other lengths in each run, and so is what is made of them.
            let all = (3 * label.len() + " blob m0 other".len()) as u64;
            seen.push(match all.checked_sub(logical) {
                Some(0) => format!("all, {own}"),
                Some(less) if less == (label.len() + " other".len()) as u64 => {
                    format!("all but the last, {own}")
                }
                _ if logical > 1 => format!("another sum, {own}"),
                _ => format!("{logical}, {own}"),
            });
        }
    }
    seen
}
