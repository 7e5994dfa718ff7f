//! What sweeps after others, gives up what nobody goes on with, and puts schedules in order.

use super::upkeep::{adopt, beat, cancel, deleted, discard, due, job, restore, take, taken};
use super::{
    LONG_AGO, NOW, blob, claim_parts, collect, condemn, delete, done, end, give_up, key, open,
    open_parts, parts, publish_parts, repo, told, unlink, with_layer,
};
use crate::adopt::Adopt;
use crate::blob::Publish;
use crate::error::Result;
use crate::job::{Begin, End, RunNow, Schedule};
use crate::manifest::{PutEdges, SweepEdges};
use crate::suite::{digest, push, push_blob};
use crate::tx::{Op, Tx};
use crate::upload::{Create, Take};
use crate::{Id, Meta, multipart, recheck, repository, restorable, tag as tags, upload};

/// What an older version left: a link, or a deleted manifest, of which nothing is noted; a blob without a link.
#[derive(Clone, Debug)]
enum Leave {
    NoCandidate(Id, wharf_oci::Digest),
    NoLink(Id, wharf_oci::Digest),
    NotRestorable(Id),
}

impl Op for Leave {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        match self {
            Self::NoCandidate(repository, digest) => {
                tx.exec(
                    "UPDATE repository_blob SET candidate_since = NULL WHERE repository_id = $1 AND digest = $2",
                    crate::vals![repository, digest],
                )
                .await?
            }
            Self::NoLink(repository, digest) => {
                tx.exec(
                    "DELETE FROM repository_blob WHERE repository_id = $1 AND digest = $2",
                    crate::vals![repository, digest],
                )
                .await?
            }
            Self::NotRestorable(manifest) => {
                tx.exec(
                    "DELETE FROM restorable WHERE manifest_id = $1",
                    crate::vals![manifest],
                )
                .await?
            }
        };
        Ok(())
    }
}

async fn id(meta: &Meta, label: &str) -> Id {
    let name = repo(label);
    let row = meta.read(repository::Get { name }).await.expect("a read");
    row.expect("a repository").id
}

async fn no_candidate(meta: &Meta, label: &str) {
    push_blob(meta, label, format!("{label} blob")).await;
    let leave = Leave::NoCandidate(id(meta, label).await, blob(label));
    meta.write(leave).await.expect("a link");
}

async fn no_link(meta: &Meta, label: &str) {
    meta.write(key(label, "old")).await.expect("a blob");
    let leave = Leave::NoLink(id(meta, label).await, blob(label));
    meta.write(leave).await.expect("a blob");
}

async fn mark(meta: Meta, label: String) -> String {
    let links = vec![(id(&meta, &label).await, blob(&label))];
    told(meta, recheck::Mark { links, at: NOW }).await
}

fn remove(label: &str) -> recheck::Remove {
    let digests = vec![blob(label)];
    recheck::Remove { digests, at: NOW }
}

async fn row_of(meta: &Meta, label: &str) -> Option<Id> {
    let list = restorable::List {
        repository: repo(label),
        before: None,
        limit: 1,
    };
    let row = meta.read(list).await.expect("a list").pop();
    row.map(|row| row.manifest)
}

/// A deleted manifest whose row others know by the time when it was deleted no more.
async fn not_restorable(meta: &Meta, label: &str) {
    deleted(meta, label).await;
    let manifest = row_of(meta, label).await.expect("a row");
    meta.write(Leave::NotRestorable(manifest))
        .await
        .expect("a row");
}

/// All of the repository's, as a walk finds them.
async fn adopt_manifests(meta: Meta, label: String) -> String {
    let repository = id(&meta, &label).await;
    let mut manifests = Vec::new();
    let mut after = None;
    loop {
        let page = crate::usage::Manifests { after, limit: 500 };
        let rows = meta.read(page).await.expect("manifests");
        let Some(last) = rows.last() else { break };
        after = Some(last.id);
        let rows = rows.into_iter().filter(|row| row.repository == repository);
        manifests.extend(rows.map(|row| row.id));
    }
    told(meta, recheck::Adopt { manifests }).await
}

async fn postpone(meta: Meta, label: String) -> String {
    let Some(manifest) = row_of(&meta, &label).await else {
        return String::new();
    };
    let look_at = NOW + 9;
    let postpone = restorable::Postpone { manifest, look_at };
    told(meta, postpone).await;
    String::new()
}

fn pin(label: &str, at: i64) -> PutEdges {
    PutEdges {
        repository: repo(label),
        digest: digest(format!("{label} m1")),
        edges: with_layer(label, "m1", &[]).edges,
        check_sizes: true,
        at,
    }
}

/// A push that nobody finished.
async fn pinned(meta: &Meta, label: &str) {
    push_blob(meta, label, format!("{label} blob")).await;
    told(meta.clone(), pin(label, LONG_AGO)).await;
}

/// The same over a manifest that was there once.
async fn pinned_again(meta: &Meta, label: &str) {
    deleted(meta, label).await;
    told(meta.clone(), pin(label, LONG_AGO)).await;
}

/// How much it does is others' doing, too.
async fn sweep(meta: Meta, _: String) -> String {
    let sweep = SweepEdges {
        after: None,
        limit: 50,
        pending_before: LONG_AGO + 1,
    };
    told(meta, sweep).await;
    String::new()
}

fn delete_at(label: &str) -> tags::DeleteAt {
    tags::DeleteAt {
        delete: super::delete_tag(label),
        version: crate::Meant::Any,
    }
}

fn begin_parts(label: &str, at: i64) -> multipart::Begin {
    multipart::Begin {
        multipart: parts(label),
        upload: label.into(),
        at,
    }
}

/// Begun so long ago that nobody can still be at it, with a session or without.
async fn old_parts(meta: &Meta, label: &str, session: bool) {
    if session {
        open(meta, label).await;
    }
    let begin = begin_parts(label, LONG_AGO);
    meta.write(begin).await.expect("a multipart upload");
}

/// Which others there are is others' doing.
async fn abandon(meta: Meta, label: String) -> String {
    let op = multipart::Abandoned {
        begun_before: LONG_AGO + 1,
        limit: 10_000,
    };
    let (given_up, key) = (done(meta, op).await, parts(&label).key);
    given_up.iter().any(|row| row.key == key).to_string()
}

fn forget_parts(label: &str) -> multipart::Forget {
    let key = parts(label).key;
    multipart::Forget { key }
}

fn publish_old_parts(label: &str) -> Publish {
    let upload = None;
    Publish {
        upload,
        ..publish_parts(label)
    }
}

/// Whose rows are left once its bytes are a blob.
async fn over(meta: &Meta, label: &str) {
    open_parts(meta, label).await;
    told(meta.clone(), claim_parts(label, 1)).await;
    told(meta.clone(), publish_parts(label)).await;
}

fn create(label: &str, owner: &str) -> Create {
    Create {
        id: label.into(),
        repository: repo(label),
        owner: owner.into(),
        algorithm: None,
        at: NOW,
    }
}

fn schedule(label: &str, every: Option<i64>) -> Begin {
    let schedule = Schedule {
        kind: label.into(),
        payload: "{}".into(),
        every,
        phase: None,
        // Long ago, whatever the server's clock says.
        first: -NOW,
    };
    Begin {
        schedules: vec![schedule],
        ended: None,
        at: NOW,
    }
}

async fn scheduled(meta: &Meta, label: &str) {
    told(meta.clone(), schedule(label, Some(1_000))).await;
}

async fn running(meta: &Meta, label: &str) {
    scheduled(meta, label).await;
    let row = done(meta.clone(), take(label, i64::MAX / 4)).await;
    assert!(row.is_some(), "it is taken");
}

/// The same process again.
fn restart(label: &str) -> Begin {
    let ended = Some("w".into());
    Begin {
        ended,
        ..schedule(label, Some(1_000))
    }
}

/// Not for ages.
fn run_later(label: &str) -> RunNow {
    RunNow {
        kind: label.into(),
        run_at: Some(i64::MAX / 2),
        at: NOW,
    }
}

async fn finish(meta: Meta, label: String) -> String {
    match job(&meta, &label).await {
        Some(_) => super::upkeep::finish(meta, label, End::Done).await,
        None => "false".into(),
    }
}

pairs! {
    "mark a link that nothing holds, push a manifest of it": |meta, label| no_candidate(&meta, &label).await;
        mark(meta, label); told(meta, with_layer(&label, "m1", &["t"]));
    "mark a link that nothing holds, mark it as well": |meta, label| no_candidate(&meta, &label).await;
        mark(meta, label); mark(meta, label);
    "mark a link that nothing holds, unlink it": |meta, label| no_candidate(&meta, &label).await;
        mark(meta, label); told(meta, unlink(&label));
    "remove a blob without a link, publish it": |meta, label| no_link(&meta, &label).await;
        told(meta, remove(&label)); told(meta, key(&label, "a"));
    "remove a blob without a link, remove it as well": |meta, label| no_link(&meta, &label).await;
        told(meta, remove(&label)); told(meta, remove(&label));
    "remove a blob without a link, adopt its bytes": |meta, label| no_link(&meta, &label).await;
        told(meta, remove(&label)); told(meta, Adopt { key: format!("{label}-old"), ..adopt(&label) });
    "remove a blob without a link, discard its bytes": |meta, label| no_link(&meta, &label).await;
        told(meta, remove(&label)); told(meta, recheck::Discard { keys: vec![(format!("{label}-old"), blob(&label))], ..discard(&label) });
    "remove a blob without a link, condemn it": |meta, label| no_link(&meta, &label).await;
        told(meta, remove(&label)); condemn(meta, label);
    "collect a blob, discard its bytes": |meta, label| due(&meta, &label).await;
        collect(meta, label); told(meta, recheck::Discard { keys: vec![(format!("{label}-old"), blob(&label))], ..discard(&label) });
    "collect a blob, adopt its bytes": |meta, label| due(&meta, &label).await;
        collect(meta, label); told(meta, Adopt { key: format!("{label}-old"), ..adopt(&label) });
    "discard what was found, discard it as well": |meta, label| drop((meta, label));
        told(meta, discard(&label)); told(meta, discard(&label));
    "make a deleted manifest restorable, do it as well": |meta, label| not_restorable(&meta, &label).await;
        adopt_manifests(meta, label); adopt_manifests(meta, label);
    "make a deleted manifest restorable, push it again": |meta, label| not_restorable(&meta, &label).await;
        adopt_manifests(meta, label); told(meta, with_layer(&label, "m1", &["t"]));
    "make deleted manifests restorable, restore one": |meta, label| deleted(&meta, &label).await;
        adopt_manifests(meta, label); told(meta, restore(&label));
    "make deleted manifests restorable, end one": |meta, label| deleted(&meta, &label).await;
        adopt_manifests(meta, label); end(meta, label);
    "decide about a manifest's end later, end it": |meta, label| deleted(&meta, &label).await;
        postpone(meta, label); end(meta, label);
    "decide about a manifest's end later, restore it": |meta, label| deleted(&meta, &label).await;
        postpone(meta, label); told(meta, restore(&label));
    "drop a push that nobody finished, finish it": |meta, label| pinned(&meta, &label).await;
        sweep(meta, label); told(meta, crate::manifest::Put { pinned: 1, edges: Vec::new(), ..with_layer(&label, "m1", &["t"]) });
    "drop a push that nobody finished, go on with it": |meta, label| pinned(&meta, &label).await;
        sweep(meta, label); told(meta, pin(&label, NOW));
    "drop a push that nobody finished, drop it as well": |meta, label| pinned(&meta, &label).await;
        sweep(meta, label); sweep(meta, label);
    "drop a push that nobody finished, unlink its blob": |meta, label| pinned(&meta, &label).await;
        sweep(meta, label); told(meta, unlink(&label));
    "drop a push over a deleted manifest, end it": |meta, label| pinned_again(&meta, &label).await;
        sweep(meta, label); end(meta, label);
    "drop a push over a deleted manifest, restore it": |meta, label| pinned_again(&meta, &label).await;
        sweep(meta, label); told(meta, restore(&label));
    "drop a push over a deleted manifest, push it": |meta, label| pinned_again(&meta, &label).await;
        sweep(meta, label); told(meta, with_layer(&label, "m1", &["t"]));
    "delete a tag that is meant, delete its manifest": |meta, label| push(&meta, super::plain(&label, "m1", &["t"])).await;
        told(meta, delete_at(&label)); told(meta, delete(&label, "m1"));
    "delete a tag that is meant, move it": |meta, label| push(&meta, super::plain(&label, "m1", &["t"])).await;
        told(meta, delete_at(&label)); told(meta, super::plain(&label, "m2", &["t"]));
    "begin parts, begin them as well": |meta, label| open(&meta, &label).await;
        told(meta, begin_parts(&label, NOW)); told(meta, begin_parts(&label, NOW));
    "begin parts, give them up": |meta, label| open(&meta, &label).await;
        told(meta, begin_parts(&label, NOW)); told(meta, give_up(&label));
    "begin parts, end the session": |meta, label| open(&meta, &label).await;
        told(meta, begin_parts(&label, NOW)); told(meta, upload::Delete { id: label });
    "give up parts without a session, publish them": |meta, label| old_parts(&meta, &label, false).await;
        abandon(meta, label); told(meta, publish_old_parts(&label));
    "give up parts without a session, give them up as well": |meta, label| old_parts(&meta, &label, false).await;
        abandon(meta, label); abandon(meta, label);
    "give up parts without a session, end their session": |meta, label| old_parts(&meta, &label, true).await;
        abandon(meta, label); told(meta, upload::Delete { id: label });
    "give up parts without a session, publish those of one": |meta, label| old_parts(&meta, &label, true).await;
        abandon(meta, label); told(meta, publish_parts(&label));
    "adopt the object of parts, publish them": |meta, label| open_parts(&meta, &label).await;
        told(meta, Adopt { key: parts(&label).key, ..adopt(&label) }); told(meta, publish_parts(&label));
    "adopt the object of parts, give them up": |meta, label| open_parts(&meta, &label).await;
        told(meta, Adopt { key: parts(&label).key, ..adopt(&label) }); told(meta, give_up(&label));
    "forget parts, forget them as well": |meta, label| over(&meta, &label).await;
        told(meta, forget_parts(&label)); told(meta, forget_parts(&label));
    "forget parts, give them up": |meta, label| over(&meta, &label).await;
        told(meta, forget_parts(&label)); told(meta, give_up(&label));
    "forget parts, publish them once more": |meta, label| over(&meta, &label).await;
        told(meta, forget_parts(&label)); told(meta, publish_old_parts(&label));
    "open a session, open it as well": |meta, label| drop((meta, label));
        told(meta, create(&label, "alice")); told(meta, create(&label, "bob"));
    "open a session once more, end it": |meta, label| open(&meta, &label).await;
        told(meta, create(&label, "bob")); told(meta, upload::Delete { id: label });
    "open a session once more, take it over": |meta, label| open(&meta, &label).await;
        told(meta, create(&label, "bob")); told(meta, Take { id: label, epoch: 0, at: NOW });
    "begin a schedule, begin it as well": |meta, label| drop((meta, label));
        told(meta, schedule(&label, Some(1_000))); told(meta, schedule(&label, Some(1_000)));
    "change a schedule, change it otherwise": |meta, label| scheduled(&meta, &label).await;
        told(meta, schedule(&label, Some(2_000))); told(meta, schedule(&label, Some(3_000)));
    "change a schedule, take its job": |meta, label| scheduled(&meta, &label).await;
        told(meta, schedule(&label, Some(2_000))); taken(meta, label);
    "change a schedule, finish its job": |meta, label| running(&meta, &label).await;
        told(meta, schedule(&label, Some(2_000))); finish(meta, label);
    "end a schedule, take its job": |meta, label| scheduled(&meta, &label).await;
        told(meta, schedule(&label, None)); taken(meta, label);
    "end a schedule, change it": |meta, label| scheduled(&meta, &label).await;
        told(meta, schedule(&label, None)); told(meta, schedule(&label, Some(2_000)));
    "let the jobs of a process that ended go, it goes on": |meta, label| running(&meta, &label).await;
        told(meta, restart(&label)); beat(meta, label);
    "let the jobs of a process that ended go, take one": |meta, label| running(&meta, &label).await;
        told(meta, restart(&label)); taken(meta, label);
    "run a schedule at another time, take its job": |meta, label| scheduled(&meta, &label).await;
        told(meta, run_later(&label)); taken(meta, label);
    "run a schedule at another time, cancel it": |meta, label| scheduled(&meta, &label).await;
        told(meta, run_later(&label)); cancel(meta, label);
    "run a schedule at another time, change it": |meta, label| scheduled(&meta, &label).await;
        told(meta, run_later(&label)); told(meta, schedule(&label, Some(2_000)));
}

async fn look(meta: &Meta, label: &str) -> Vec<String> {
    let mut all = super::upkeep::look(meta, label).await;
    all.extend(seen(meta, label).await);
    all
}

/// What is seen of deleted manifests.
async fn seen(meta: &Meta, label: &str) -> Vec<String> {
    let list = restorable::List {
        repository: repo(label),
        before: None,
        limit: 9,
    };
    let rows = meta.read(list).await.expect("a list").into_iter();
    rows.map(|row| format!("restorable {} {}", row.digest, row.purging))
        .collect()
}
