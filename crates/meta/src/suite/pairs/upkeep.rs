//! What brings things back, takes them away, and works beside requests.

use wharf_oci::EdgeKind;

use super::{
    LONG_AGO, NOW, blob, collect, condemn, delete, delete_tag, done, end, key, mount, plain, repo,
    told, unlink, with_layer,
};
use crate::adopt::Adopt;
use crate::job::{Add, Cancel, End, Finish, Heartbeat, JobRow, List, Retry, Take, Trim, Wanted};
use crate::manifest::{DeleteUntagged, Put, Restore};
use crate::recheck::Discard;
use crate::suite::{digest, edge, push, push_blob, tag};
use crate::{Meta, quarantine, tag as tags};

/// A manifest with a layer and a tag, deleted.
pub(super) async fn deleted(meta: &Meta, label: &str) {
    push_blob(meta, label, format!("{label} blob")).await;
    push(meta, with_layer(label, "m1", &["t"])).await;
    told(meta.clone(), delete(label, "m1")).await;
}

pub(super) fn restore(label: &str) -> Restore {
    Restore {
        repository: repo(label),
        digest: digest(format!("{label} m1")),
        after: None,
        referrer_json: None,
        actor: "bob".into(),
        at: NOW + 2,
    }
}

/// Puts the tag to the first manifest, if it stands at the one before.
fn restore_tag(label: &str) -> tags::Restore {
    tags::Restore {
        repository: repo(label),
        tag: tag("t"),
        digest: digest(format!("{label} m1")),
        expect: Some(digest(format!("{label} m0"))),
        actor: "bob".into(),
        at: NOW,
    }
}

async fn two_manifests(meta: &Meta, label: &str) {
    push(meta, plain(label, "m1", &[])).await;
    push(meta, plain(label, "m0", &["t"])).await;
}

fn untagged(label: &str) -> DeleteUntagged {
    DeleteUntagged(delete(label, "m1"))
}

/// An index over the first manifest.
fn index(label: &str) -> Put {
    let child = format!("{label} m1");
    Put {
        edges: vec![edge(EdgeKind::Child, &digest(&child), child.len() as u64)],
        ..plain(label, "m2", &["t"])
    }
}

/// Lets what is left of a condemned blob go.
async fn settle(meta: Meta, label: String) -> String {
    let digest = blob(&label);
    let of = quarantine::Of { digest };
    let Some(row) = meta.read(of).await.expect("rows").pop() else {
        return String::new();
    };
    let (id, at) = (row.id, NOW);
    told(meta, quarantine::Settle { id, at }).await
}

async fn condemned(meta: &Meta, label: &str) {
    meta.write(key(label, "old")).await.expect("a blob");
    condemn(meta.clone(), label.to_owned()).await;
}

/// A link that is due before anything else.
pub(super) async fn due(meta: &Meta, label: &str) {
    let publish = crate::blob::Publish {
        at: LONG_AGO,
        ..key(label, "old")
    };
    meta.write(publish).await.expect("a blob");
}

pub(super) fn adopt(label: &str) -> Adopt {
    Adopt {
        key: format!("{label}-found"),
        digest: blob(label),
        size: label.len() as u64 + 5,
        repositories: vec![repo(label)],
        instead_of: None,
        actor: "bob".into(),
        at: NOW,
    }
}

pub(super) fn discard(label: &str) -> Discard {
    Discard {
        keys: vec![(format!("{label}-found"), blob(label))],
        at: NOW,
    }
}

fn add(label: &str) -> Add {
    Add {
        kind: label.into(),
        unique_key: Some(label.into()),
        payload: "{}".into(),
        priority: 0,
        run_at: 0,
        max_attempts: 3,
        at: NOW,
    }
}

async fn add_job(meta: &Meta, label: &str) {
    meta.write(add(label)).await.expect("a job");
}

/// Whether it was added.
async fn added(meta: Meta, label: String) -> String {
    done(meta, add(&label)).await.is_some().to_string()
}

pub(super) fn take(label: &str, lease: i64) -> Take {
    let (kind, limit) = (label.to_owned(), 1);
    Take {
        kinds: vec![Wanted { kind, limit }],
        worker: "w".into(),
        lease,
        at: NOW,
    }
}

/// Who takes it: a row's id and times are other ones in each run.
pub(super) async fn taken(meta: Meta, label: String) -> String {
    let row = done(meta, take(&label, 60_000)).await;
    format!("{:?}", row.map(|row| (row.fence, row.attempts)))
}

pub(super) async fn job(meta: &Meta, label: &str) -> Option<JobRow> {
    let (after, limit) = (None, 10_000);
    let rows = meta.read(List { after, limit }).await.expect("jobs");
    rows.into_iter().find(|row| row.kind == label)
}

/// A job whose worker had it for no time at all.
async fn lost(meta: &Meta, label: &str) {
    add_job(meta, label).await;
    meta.write(take(label, -60_000)).await.expect("a job");
}

pub(super) async fn finish(meta: Meta, label: String, end: End) -> String {
    let id = job(&meta, &label).await.expect("a job").id;
    let finish = Finish {
        id,
        fence: 1,
        payload: "{}".into(),
        end,
        error: None,
        at: NOW,
    };
    told(meta, finish).await
}

pub(super) async fn beat(meta: Meta, label: String) -> String {
    let id = job(&meta, &label).await.expect("a job").id;
    let beat = Heartbeat {
        id,
        fence: 1,
        lease: 60_000,
        payload: "{}".into(),
        at: NOW,
    };
    told(meta, beat).await
}

pub(super) async fn cancel(meta: Meta, label: String) -> String {
    let id = job(&meta, &label).await.expect("a job").id;
    told(meta, Cancel { id, at: NOW }).await
}

async fn retry(meta: Meta, label: String) -> String {
    let Some(row) = job(&meta, &label).await else {
        return "false".to_owned();
    };
    let (id, at) = (row.id, NOW);
    told(meta, Retry { id, at }).await
}

/// A job that was given up.
async fn dead(meta: &Meta, label: &str) {
    lost(meta, label).await;
    finish(meta.clone(), label.to_owned(), End::Dead).await;
}

/// Forgets all that ended: by the database's clock, where it has one.
async fn trim(meta: Meta, _: String) -> String {
    told(meta, Trim { before: i64::MAX }).await;
    String::new()
}

pairs! {
    "restore a manifest, unlink its blob": |meta, label| deleted(&meta, &label).await;
        told(meta, restore(&label)); told(meta, unlink(&label));
    "restore a manifest, restore it as well": |meta, label| deleted(&meta, &label).await;
        told(meta, restore(&label)); told(meta, restore(&label));
    "restore a manifest, end it": |meta, label| deleted(&meta, &label).await;
        told(meta, restore(&label)); end(meta, label);
    "restore a manifest, push it again": |meta, label| deleted(&meta, &label).await;
        told(meta, restore(&label)); told(meta, with_layer(&label, "m1", &["t"]));
    "restore a manifest, delete it": |meta, label| deleted(&meta, &label).await;
        told(meta, restore(&label)); told(meta, delete(&label, "m1"));
    "restore a tag, move it": |meta, label| two_manifests(&meta, &label).await;
        told(meta, restore_tag(&label)); told(meta, plain(&label, "m2", &["t"]));
    "restore a tag, delete it": |meta, label| two_manifests(&meta, &label).await;
        told(meta, restore_tag(&label)); told(meta, delete_tag(&label));
    "restore a tag, delete its manifest": |meta, label| two_manifests(&meta, &label).await;
        told(meta, restore_tag(&label)); told(meta, delete(&label, "m1"));
    "delete what nothing names, tag it": |meta, label| push(&meta, plain(&label, "m1", &[])).await;
        told(meta, untagged(&label)); told(meta, plain(&label, "m1", &["t"]));
    "delete what nothing names, put an index over it": |meta, label| push(&meta, plain(&label, "m1", &[])).await;
        told(meta, untagged(&label)); told(meta, index(&label));
    "delete what nothing names, restore a tag to it": |meta, label| two_manifests(&meta, &label).await;
        told(meta, untagged(&label)); told(meta, restore_tag(&label));
    "settle a condemned blob, publish it": |meta, label| condemned(&meta, &label).await;
        settle(meta, label); told(meta, key(&label, "a"));
    "settle a condemned blob, unlink it": |meta, label| condemned(&meta, &label).await;
        settle(meta, label); told(meta, unlink(&label));
    "collect a blob, mount it": |meta, label| due(&meta, &label).await;
        collect(meta, label); told(meta, mount(&label));
    "collect a blob, publish it": |meta, label| due(&meta, &label).await;
        collect(meta, label); told(meta, key(&label, "a"));
    "collect a blob, unlink it": |meta, label| due(&meta, &label).await;
        collect(meta, label); told(meta, unlink(&label));
    "collect a blob, condemn it": |meta, label| due(&meta, &label).await;
        collect(meta, label); condemn(meta, label);
    "collect a blob, collect it as well": |meta, label| due(&meta, &label).await;
        collect(meta, label); collect(meta, label);
    "adopt what was found, discard it": |meta, label| drop((meta, label));
        told(meta, adopt(&label)); told(meta, discard(&label));
    "adopt what was found, publish the same": |meta, label| drop((meta, label));
        told(meta, adopt(&label)); told(meta, key(&label, "a"));
    "take a job, take it as well": |meta, label| add_job(&meta, &label).await;
        taken(meta, label); taken(meta, label);
    "take a job, cancel it": |meta, label| add_job(&meta, &label).await;
        taken(meta, label); cancel(meta, label);
    "take a job over, finish it": |meta, label| lost(&meta, &label).await;
        taken(meta, label); finish(meta, label, End::Done);
    "take a job over, go on with it": |meta, label| lost(&meta, &label).await;
        taken(meta, label); beat(meta, label);
    "try a dead job again, try it again as well": |meta, label| dead(&meta, &label).await;
        retry(meta, label); retry(meta, label);
    "add a job, add it as well": |meta, label| drop((meta, label));
        added(meta, label); added(meta, label);
    "try a dead job again, add the same": |meta, label| dead(&meta, &label).await;
        retry(meta, label); added(meta, label);
    "try a dead job again, forget what ended": |meta, label| dead(&meta, &label).await;
        retry(meta, label); trim(meta, label);
}

pub(super) async fn look(meta: &Meta, label: &str) -> Vec<String> {
    let mut all = super::content(meta, label).await;
    all.extend(seen(meta, label).await);
    all
}

/// What is seen of jobs.
async fn seen(meta: &Meta, label: &str) -> Vec<String> {
    let (after, limit) = (None, 10_000);
    let rows = meta.read(List { after, limit }).await.expect("jobs");
    let rows = rows.into_iter().filter(|row| row.kind == label);
    let rows = rows.map(|row| {
        format!(
            "{:?} {} {} {:?}",
            row.state, row.fence, row.attempts, row.every
        )
    });
    // Their ids are in no order.
    let mut rows: Vec<String> = rows.collect();
    rows.sort_unstable();
    rows
}
