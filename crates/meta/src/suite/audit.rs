//! The audit log: places, pages, the oldest entries' end.

use std::sync::Arc;

use super::{NOW, push, put};
use crate::audit::{About, Append, Cut, EntryRow, Head, HeadRow, Page, Walk};
use crate::event::{self, Happened, Kind, Record};
use crate::{Meta, Origin, audit};

fn entry(seq: i64) -> EntryRow {
    EntryRow {
        seq,
        at: NOW + seq / 2,
        action: "tag.move".into(),
        principal: ["ann", "ben"][(seq % 2) as usize].into(),
        credential: "password".into(),
        address: "10.0.0.1".into(),
        request: format!("r{seq}"),
        repository: (seq % 3 != 0).then(|| "team/app".into()),
        digest: None,
        tag: Some("v1".into()),
        detail: "{}".into(),
        hash: vec![seq as u8; 32],
        mac: vec![7; 32],
    }
}

fn head(seq: i64, cut_seq: i64) -> HeadRow {
    HeadRow {
        seq,
        hash: vec![seq as u8; 32],
        cut_seq,
        cut_hash: Vec::new(),
        mac: vec![seq as u8, cut_seq as u8],
    }
}

fn append(after: i64, count: i64) -> Append {
    Append {
        expected: (after > 0).then(|| head(after, 0).mac),
        entries: (after + 1..=after + count).map(entry).collect(),
        head: head(after + count, 0),
        seen: None,
    }
}

async fn places(meta: &Meta) -> Vec<i64> {
    let walk = Walk {
        after: 0,
        limit: 1_000,
    };
    let rows = meta.scan(walk).await.unwrap();
    rows.into_iter().map(|row| row.seq).collect()
}

/// Entries follow the head that the caller saw, or are not written; and so do the cursor and the head.
pub async fn places_are_given_once(meta: Meta) {
    let ends = meta.read(Head).await.unwrap();
    assert_eq!((ends.head, ends.last), (None, None));
    push(&meta, put("team/app", "manifest", &["v1"])).await;
    let next = event::Next {
        consumer: audit::CONSUMER.into(),
        limit: 10,
    };
    // Transactions of anybody on the same server may be under way, below which nothing is given.
    let mut events = meta.scan(next.clone()).await.unwrap();
    while events.is_empty() {
        tokio::task::yield_now().await;
        events = meta.scan(next.clone()).await.unwrap();
    }
    let last = events.last().unwrap();
    let seen = Some((last.transaction, last.id, NOW));
    assert!(
        meta.write(Append {
            seen,
            ..append(0, 5)
        })
        .await
        .unwrap()
    );
    assert!(meta.scan(next.clone()).await.unwrap().is_empty());
    let ends = meta.read(Head).await.unwrap();
    assert_eq!(ends.head, Some(head(5, 0)));
    assert_eq!(ends.last, Some((5, vec![5; 32])));
    // Again, as one who saw the head before.
    for stale in [append(0, 5), append(0, 6), append(4, 5)] {
        assert!(!meta.write(stale).await.unwrap());
    }
    // A head that was put back, under entries that are still there.
    let back = Append {
        expected: Some(head(5, 0).mac),
        ..append(3, 2)
    };
    assert!(!meta.write(back).await.unwrap());
    assert_eq!(places(&meta).await, [1, 2, 3, 4, 5]);
    assert!(meta.write(append(5, 2)).await.unwrap());
    assert_eq!(places(&meta).await, [1, 2, 3, 4, 5, 6, 7]);
    let rows = meta.scan(Walk { after: 6, limit: 9 }).await.unwrap();
    assert_eq!(rows, [entry(7)]);
}

/// Of many that go by one head, one writes.
pub async fn of_many_one_appends(meta: Meta) {
    let meta = Arc::new(meta);
    for after in [0, 4, 8] {
        let tasks: Vec<_> = (0..6)
            .map(|_| {
                let meta = meta.clone();
                tokio::spawn(async move { meta.write(append(after, 4)).await.unwrap() })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += u32::from(task.await.unwrap());
        }
        assert_eq!(done, 1);
    }
    assert_eq!(places(&meta).await, (1..=12).collect::<Vec<_>>());
}

/// The oldest go, under the head that the caller saw.
pub async fn the_oldest_are_cut_off(meta: Meta) {
    assert!(meta.write(append(0, 9)).await.unwrap());
    let stale = Cut {
        expected: head(8, 0).mac,
        head: head(9, 4),
    };
    assert!(!meta.write(stale).await.unwrap());
    let cut = |before: HeadRow, to: i64| Cut {
        expected: before.mac,
        head: head(9, to),
    };
    assert!(meta.write(cut(head(9, 0), 4)).await.unwrap());
    assert_eq!(places(&meta).await, [5, 6, 7, 8, 9]);
    assert!(meta.write(cut(head(9, 4), 9)).await.unwrap());
    let ends = meta.read(Head).await.unwrap();
    assert_eq!((ends.head, ends.last), (Some(head(9, 9)), None));
}

/// By time, of all, of a principal, on a repository; in both orders, and across equal times.
pub async fn pages_by_time(meta: Meta) {
    assert!(meta.write(append(0, 12)).await.unwrap());
    let all = |row: &EntryRow, about: &About| match about {
        About::Everything => true,
        About::Principal(name) => row.principal == *name,
        About::Repository(name) => row.repository.as_ref() == Some(name),
    };
    for about in [
        About::Everything,
        About::Principal("ann".into()),
        About::Repository("team/app".into()),
        About::Principal("nobody".into()),
    ] {
        for latest_first in [false, true] {
            let (from, until) = ((NOW + 1, 2), (NOW + 5, i64::MIN));
            let mut wanted: Vec<_> = (1..=12).map(entry).filter(|row| all(row, &about)).collect();
            wanted.retain(|row| (row.at, row.seq) > from && (row.at, row.seq) < until);
            if latest_first {
                wanted.reverse();
            }
            let (mut from, mut until) = (from, until);
            let mut seen = Vec::new();
            loop {
                let page = Page {
                    about: about.clone(),
                    from,
                    until,
                    latest_first,
                    limit: 2,
                };
                let rows = meta.scan(page).await.unwrap();
                let Some(last) = rows.last() else { break };
                match latest_first {
                    true => until = (last.at, last.seq),
                    false => from = (last.at, last.seq),
                }
                seen.extend(rows);
            }
            assert_eq!(seen, wanted, "{about:?} {latest_first}");
        }
    }
}

/// What happened without a change, and changes, say where they came from.
pub async fn origins_travel_with_operations(meta: Meta) {
    let origin = Origin {
        actor: "ann".into(),
        credential: "abc".into(),
        address: "10.0.0.1".into(),
        request: "r1".into(),
        rule: "ann is owner of team".to_owned().into(),
    };
    let one = Happened {
        kind: Kind::Refuse,
        at: NOW,
        repository: Some("team/app".into()),
        digest: None,
        tag: Some("v1".into()),
        payload: serde_json::json!({"count": 1}),
        origin: origin.clone(),
    };
    let happened = vec![one];
    meta.write(Record { happened }).await.unwrap();
    origin
        .scope(push(&meta, put("team/app", "manifest", &["v1"])))
        .await;
    push(&meta, put("team/app", "another", &["v1"])).await;
    let list = event::List {
        after: 0,
        limit: 10,
    };
    let rows = meta.scan(list).await.unwrap();
    let kinds: Vec<_> = rows.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "refuse",
            "manifest.push",
            "tag.move",
            "manifest.push",
            "tag.move"
        ]
    );
    for row in &rows[..3] {
        let came = [&row.actor, &row.credential, &row.address, &row.request];
        assert_eq!(came, ["ann", "abc", "10.0.0.1", "r1"]);
    }
    assert!(rows[1].payload.contains("ann is owner of team"));
    for row in &rows[3..] {
        assert_eq!([&row.credential, &row.address, &row.request], ["", "", ""]);
        assert!(
            row.actor != "ann" && !row.payload.contains("rule"),
            "{row:?}"
        );
    }
}
