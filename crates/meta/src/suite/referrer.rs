//! Referrers.

use wharf_oci::Digest;

use super::{NOW, digest, push, put, repo};
use crate::manifest::{Delete, Put};
use crate::referrer::{List, MAX_TYPES};
use crate::{Error, Meta};

fn referrer(n: u32, subject: &str, artifact_type: &str) -> Put {
    Put {
        subject: Some(digest(subject)),
        artifact_type: Some(artifact_type.into()),
        referrer_json: Some(format!("{{\"n\":{n}}}")),
        ..put("a", format!("referrer {n} of {subject}"), &[])
    }
}

async fn list(
    meta: &Meta,
    subject: &str,
    types: &[&str],
    after: Option<&Digest>,
    limit: u32,
) -> Vec<Digest> {
    let op = List {
        repository: repo("a"),
        subject: digest(subject),
        artifact_types: types.iter().map(|t| (*t).to_owned()).collect(),
        after: after.map(|digest| digest.as_str().to_owned()),
        limit,
    };
    meta.scan(op)
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.digest)
        .collect()
}

/// By digest in pages, with any number of types; the subject need not exist.
pub async fn pages_and_filters(meta: Meta) {
    assert!(
        list(&meta, "s", &[], None, 10).await.is_empty(),
        "no such repository"
    );
    let mut all = Vec::new();
    for n in 0..9 {
        all.push((
            push(&meta, referrer(n, "s", ["x", "y", "z"][n as usize % 3])).await,
            n % 3,
        ));
    }
    push(&meta, referrer(0, "other", "x")).await;
    all.sort();
    let of = |kinds: &[u32]| -> Vec<Digest> {
        all.iter()
            .filter(|(_, kind)| kinds.contains(kind))
            .map(|(digest, _)| digest.clone())
            .collect()
    };
    assert_eq!(list(&meta, "s", &[], None, 100).await, of(&[0, 1, 2]));
    assert_eq!(list(&meta, "s", &["y"], None, 100).await, of(&[1]));
    assert_eq!(
        list(&meta, "s", &["z", "x", "z"], None, 100).await,
        of(&[0, 2])
    );
    assert!(list(&meta, "s", &["none"], None, 100).await.is_empty());
    assert!(list(&meta, "none", &[], None, 100).await.is_empty());
    for kinds in [&[0, 1, 2][..], &[0, 2], &[1]] {
        let types: Vec<&str> = kinds
            .iter()
            .map(|kind| ["x", "y", "z"][*kind as usize])
            .collect();
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = list(&meta, "s", &types, after.as_ref(), 2).await;
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 2);
            after = Some(last.clone());
            paged.extend(page);
        }
        assert_eq!(paged, of(kinds));
    }
    let op = List {
        repository: repo("a"),
        subject: digest("s"),
        artifact_types: (0..=MAX_TYPES).map(|n| n.to_string()).collect(),
        after: None,
        limit: 1,
    };
    assert!(matches!(meta.scan(op).await, Err(Error::TooMuch { .. })));
}

/// A referrer shows with the push and vanishes with the deletion; a push brings it back as it is then.
pub async fn gone_with_their_manifest(meta: Meta) {
    let digest = push(&meta, referrer(1, "s", "x")).await;
    push(&meta, referrer(1, "s", "x")).await;
    assert_eq!(
        list(&meta, "s", &[], None, 10).await,
        std::slice::from_ref(&digest)
    );
    let delete = Delete {
        repository: repo("a"),
        digest: digest.clone(),
        actor: "alice".into(),
        at: NOW,
    };
    meta.write(delete).await.unwrap();
    assert!(list(&meta, "s", &[], None, 10).await.is_empty());
    let again = Put {
        artifact_type: Some("y".into()),
        ..referrer(1, "s", "x")
    };
    push(&meta, again).await;
    assert!(list(&meta, "s", &["x"], None, 10).await.is_empty());
    assert_eq!(list(&meta, "s", &["y"], None, 10).await, [digest]);
}
