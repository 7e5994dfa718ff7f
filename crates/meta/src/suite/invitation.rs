//! Invitations: one for each name, accepted once.

use super::NOW;
use crate::invitation::{Accept, Accepted, ByHash, Ended, InvitationRow, List, Put, Withdraw};
use crate::{Meta, principal};

fn invitation(name: &str, number: u8) -> InvitationRow {
    InvitationRow {
        name: name.into(),
        id: format!("{name}.{number}"),
        hash: format!("{name} {number}").into_bytes(),
        expires_at: NOW + 100,
        created_at: NOW,
        created_by: "root".into(),
    }
}

fn accept(row: &InvitationRow, at: i64) -> Accept {
    Accept {
        hash: row.hash.clone(),
        secret_hash: format!("hash at {at}"),
        at,
    }
}

async fn put(meta: &Meta, row: &InvitationRow) -> bool {
    meta.write(Put { row: row.clone() }).await.unwrap()
}

async fn names(meta: &Meta, after: &str) -> Vec<String> {
    let list = List {
        after: after.into(),
        limit: 2,
    };
    let rows = meta.read(list).await.unwrap();
    rows.into_iter().map(|row| row.name).collect()
}

/// A second one for a name ends the first; one that was used, taken back or has ended makes nobody.
pub async fn each_is_good_once_and_for_a_time(meta: Meta) {
    let (first, second) = (invitation("a", 1), invitation("a", 2));
    assert!(put(&meta, &first).await && put(&meta, &second).await);
    for name in ["b", "c"] {
        assert!(put(&meta, &invitation(name, 1)).await);
    }
    assert_eq!(names(&meta, "").await, ["a", "b"]);
    assert_eq!(names(&meta, "b").await, ["c"]);
    let accepted = async |row: &InvitationRow, at: i64| meta.write(accept(row, at)).await.unwrap();
    assert_eq!(accepted(&first, NOW).await, Accepted::Gone);
    assert_eq!(
        accepted(&second, NOW + 100).await,
        Accepted::Gone,
        "it has ended"
    );
    let hash = second.hash.clone();
    assert_eq!(
        meta.read(ByHash { hash }).await.unwrap(),
        Some(second.clone())
    );
    assert_eq!(
        accepted(&second, NOW + 99).await,
        Accepted::Done("a".into())
    );
    assert_eq!(accepted(&second, NOW + 99).await, Accepted::Gone, "once");
    let row = meta.read(principal::Get { name: "a".into() }).await;
    let row = row.unwrap().unwrap();
    assert_eq!(
        (row.kind.as_str(), row.created_by.as_str()),
        ("user", "root")
    );
    assert!(
        !put(&meta, &invitation("a", 3)).await,
        "there is one already"
    );

    // Somebody was made otherwise meanwhile: the password of that one stays.
    let create = principal::Create {
        name: "b".into(),
        kind: "user".into(),
        secret_hash: Some("other".into()),
        at: NOW,
    };
    assert!(meta.write(create).await.unwrap());
    let taken = accepted(&invitation("b", 1), NOW).await;
    assert_eq!(taken, Accepted::Taken("b".into()));
    let row = meta.read(principal::Get { name: "b".into() }).await;
    assert_eq!(row.unwrap().unwrap().secret_hash.as_deref(), Some("other"));

    let ended = |before: i64| Ended { before, limit: 9 };
    assert!(meta.read(ended(NOW + 100)).await.unwrap().is_empty());
    assert_eq!(meta.read(ended(NOW + 101)).await.unwrap(), ["c.1"]);
    let withdraw = || Withdraw {
        id: "c.1".into(),
        at: NOW,
    };
    assert_eq!(meta.write(withdraw()).await.unwrap().as_deref(), Some("c"));
    assert_eq!(meta.write(withdraw()).await.unwrap(), None);
    assert_eq!(accepted(&invitation("c", 1), NOW).await, Accepted::Gone);
}

/// Two accept the same one at once: one of them is the user, and the other one's password is not kept.
pub async fn two_accept_at_once(meta: Meta) {
    for round in 0..16 {
        let row = invitation(&format!("user{round}"), 1);
        assert!(put(&meta, &row).await);
        let tasks = [1, 2].map(|at| {
            let (meta, accept) = (meta.clone(), accept(&row, NOW + at));
            async move { (at, meta.write(accept).await.unwrap()) }
        });
        let outcomes = super::concurrent::all(tasks).await;
        let done = Accepted::Done(row.name.clone());
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.iter().partition(|(_, out)| *out == done);
        assert_eq!((won.len(), lost.len()), (1, 1), "{outcomes:?}");
        assert_eq!(lost[0].1, Accepted::Gone);
        let get = principal::Get {
            name: row.name.clone(),
        };
        let kept = meta.read(get).await.unwrap().unwrap().secret_hash;
        assert_eq!(kept, Some(format!("hash at {}", NOW + won[0].0)));
    }
}
