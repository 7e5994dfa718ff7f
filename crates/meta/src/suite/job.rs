//! Jobs: one worker at a time, and whose lease ended changes nothing.

use super::NOW;
use crate::Meta;
use crate::job::{
    Add, Ahead, Begin, Cancel, End, Finish, Get, Heartbeat, IsBegun, JobRow, List, Look, Retry,
    RunNow, Schedule, State, Take, Trim, Wanted,
};

fn add(kind: &str, key: Option<&str>) -> Add {
    Add {
        kind: kind.into(),
        unique_key: key.map(str::to_owned),
        payload: "{}".into(),
        priority: 0,
        run_at: NOW,
        max_attempts: 3,
        at: NOW,
    }
}

fn wanted(kind: &str, limit: i64) -> Wanted {
    Wanted {
        kind: kind.into(),
        limit,
    }
}

async fn take(meta: &Meta, kinds: &[Wanted], at: i64) -> Option<JobRow> {
    let take = Take {
        kinds: kinds.to_vec(),
        worker: "w".into(),
        lease: 1_000,
        at,
    };
    meta.write(take).await.unwrap()
}

async fn finish(meta: &Meta, row: &JobRow, end: End, at: i64) -> bool {
    let finish = Finish {
        id: row.id,
        fence: row.fence,
        payload: "{\"n\":1}".into(),
        end,
        error: matches!(end, End::Dead | End::Retry(_)).then(|| "no".to_owned()),
        at,
    };
    meta.write(finish).await.unwrap()
}

async fn state(meta: &Meta, row: &JobRow) -> State {
    meta.read(Get { id: row.id }).await.unwrap().unwrap().state
}

async fn look(meta: &Meta, at: i64) -> Ahead {
    meta.read(Look { at }).await.unwrap()
}

fn ahead(due: &[&str], next: Option<i64>) -> Ahead {
    Ahead {
        due: due.iter().map(|&kind| kind.to_owned()).collect(),
        next,
    }
}

fn begin(every: Option<i64>, phase: Option<i64>, ended: Option<&str>) -> Begin {
    Begin {
        schedules: vec![Schedule {
            kind: "s".into(),
            payload: "{}".into(),
            every,
            phase,
            first: 0,
        }],
        ended: ended.map(str::to_owned),
        at: NOW,
    }
}

/// A start writes only what is not so already.
pub async fn begins(meta: Meta) {
    let begun = async |begin: &Begin| meta.read(IsBegun(begin.clone())).await.unwrap();
    let off = begin(None, None, None);
    for begin in [
        begin(Some(10_000), None, None),
        begin(Some(5_000), None, None),
        begin(Some(5_000), Some(70), None),
        off.clone(),
        off,
        begin(Some(20_000), Some(7), Some("w")),
    ] {
        meta.write(begin.clone()).await.unwrap();
        assert!(begun(&begin).await, "{begin:?}");
        let other = Begin {
            schedules: vec![Schedule {
                every: Some(9),
                ..begin.schedules[0].clone()
            }],
            ..begin
        };
        assert!(!begun(&other).await);
    }
    let kinds = [wanted("s", 1)];
    let row = take(&meta, &kinds, NOW).await.unwrap();
    assert!(finish(&meta, &row, End::Done, NOW).await);
    // At its time, and not a period after it ended.
    let wait = 20_000 - (NOW - 7) % 20_000;
    assert_eq!(look(&meta, NOW).await, ahead(&[], Some(wait)));
    let row = take(&meta, &kinds, NOW + wait).await.unwrap();
    let cancel = Cancel {
        id: row.id,
        at: NOW + wait + 3,
    };
    assert!(meta.write(cancel).await.unwrap());
    let now = NOW + wait;
    assert_eq!(look(&meta, now).await, ahead(&[], Some(20_000)));
    // At a moment that somebody chose.
    let run = RunNow {
        kind: "s".into(),
        run_at: Some(now + 50),
        at: now,
    };
    assert!(meta.write(run).await.unwrap());
    assert_eq!(look(&meta, now).await, ahead(&[], Some(50)));
    let row = take(&meta, &kinds, now + 50).await.unwrap();
    let again = begin(Some(20_000), Some(7), Some("w"));
    assert!(begun(&begin(Some(20_000), Some(7), Some("other"))).await);
    assert!(!begun(&again).await, "it ran when the process ended");
    meta.write(again).await.unwrap();
    assert!(!finish(&meta, &row, End::Done, now + 60).await);
    assert!(take(&meta, &kinds, now + 60).await.is_some());
}

/// A job is taken by one, and again by another when the first is not heard of; the first can then do nothing.
pub async fn leases(meta: Meta) {
    let kinds = [wanted("a", 1)];
    meta.write(add("a", Some("k"))).await.unwrap().unwrap();
    assert_eq!(
        meta.write(add("a", Some("k"))).await.unwrap(),
        None,
        "its key is taken"
    );
    assert!(take(&meta, &kinds, NOW - 1).await.is_none(), "not yet");
    assert_eq!(look(&meta, NOW - 1).await, ahead(&[], Some(1)));
    assert_eq!(look(&meta, NOW).await, ahead(&["a"], None));
    let first = take(&meta, &kinds, NOW).await.unwrap();
    assert!(take(&meta, &kinds, NOW + 1_000).await.is_none());
    let beat = |row: &JobRow, at| Heartbeat {
        id: row.id,
        fence: row.fence,
        payload: "{}".into(),
        lease: 1_000,
        at,
    };
    assert!(meta.write(beat(&first, NOW + 900)).await.unwrap());
    assert!(take(&meta, &kinds, NOW + 1_900).await.is_none());
    assert_eq!(look(&meta, NOW + 1_900).await, ahead(&[], Some(1)));
    assert_eq!(look(&meta, NOW + 1_901).await, ahead(&["a"], None));
    let second = take(&meta, &kinds, NOW + 1_901).await.unwrap();
    assert_eq!((second.id, second.attempts), (first.id, 2));
    assert!(!meta.write(beat(&first, NOW + 1_902)).await.unwrap());
    assert!(!finish(&meta, &first, End::Done, NOW + 1_903).await);
    assert_eq!(state(&meta, &second).await, State::Running);
    assert!(finish(&meta, &second, End::Done, NOW + 1_904).await);
    assert_eq!(state(&meta, &second).await, State::Done);
    assert!(
        meta.write(add("a", Some("k"))).await.unwrap().is_some(),
        "its key is free"
    );
}

/// Kinds have their order and their limits, jobs of a kind their priorities.
pub async fn order(meta: Meta) {
    for priority in 0..4 {
        let job = Add {
            priority,
            ..add("b", None)
        };
        meta.write(job).await.unwrap();
    }
    meta.write(add("a", None)).await.unwrap();
    let kinds = [wanted("a", 1), wanted("b", 2)];
    let mut taken = Vec::new();
    while let Some(row) = take(&meta, &kinds, NOW).await {
        taken.push((row.kind, row.priority));
    }
    assert_eq!(taken, [("a".into(), 0), ("b".into(), 3), ("b".into(), 2)]);
    // Many at once are no more than the limit allows.
    let more = (0..16).map(|_| {
        let (meta, kinds) = (meta.clone(), [wanted("b", 3)]);
        tokio::spawn(async move { take(&meta, &kinds, NOW).await })
    });
    let mut third = 0;
    for task in more.collect::<Vec<_>>() {
        third += usize::from(task.await.unwrap().is_some());
    }
    assert_eq!(third, 1);
}

/// A schedule waits again whatever comes of it; a single job dies of its last failure and can be revived.
pub async fn ends(meta: Meta) {
    for every in [10_000, 5_000, 5_000] {
        meta.write(begin(Some(every), None, None)).await.unwrap();
    }
    let kinds = [wanted("s", 1)];
    let row = take(&meta, &kinds, NOW).await.unwrap();
    assert_eq!(row.every, Some(5_000));
    assert!(finish(&meta, &row, End::Done, NOW).await);
    assert!(take(&meta, &kinds, NOW + 4_999).await.is_none());
    let row = take(&meta, &kinds, NOW + 5_000).await.unwrap();
    assert_eq!((row.payload.as_str(), row.attempts), ("{\"n\":1}", 1));
    assert!(finish(&meta, &row, End::Retry(100), NOW + 5_000).await);
    let row = take(&meta, &kinds, NOW + 5_100).await.unwrap();
    assert_eq!((row.attempts, row.last_error.as_deref()), (2, Some("no")));
    assert!(finish(&meta, &row, End::Dead, NOW + 5_100).await);
    assert_eq!(state(&meta, &row).await, State::Waiting);
    let run = RunNow {
        kind: "s".into(),
        run_at: None,
        at: NOW + 5_200,
    };
    assert!(meta.write(run.clone()).await.unwrap());
    let row = take(&meta, &kinds, NOW + 5_200).await.unwrap();
    assert!(!meta.write(run).await.unwrap(), "it runs");
    let cancel = Cancel {
        id: row.id,
        at: NOW + 5_300,
    };
    assert!(meta.write(cancel).await.unwrap());
    assert!(!finish(&meta, &row, End::Done, NOW + 5_300).await);
    assert_eq!(
        state(&meta, &row).await,
        State::Waiting,
        "a schedule is not ended by that"
    );

    meta.write(add("once", Some("k"))).await.unwrap();
    let kinds = [wanted("once", 1)];
    let row = take(&meta, &kinds, NOW).await.unwrap();
    assert!(finish(&meta, &row, End::Again(50), NOW).await);
    let row = take(&meta, &kinds, NOW + 50).await.unwrap();
    assert_eq!(row.attempts, 1, "going on is no failure");
    assert!(finish(&meta, &row, End::Dead, NOW + 50).await);
    assert_eq!(state(&meta, &row).await, State::Dead);
    let retry = Retry {
        id: row.id,
        at: NOW + 60,
    };
    assert!(meta.write(retry).await.unwrap());
    assert!(!meta.write(retry).await.unwrap(), "it waits already");
    let row = take(&meta, &kinds, NOW + 60).await.unwrap();
    assert!(finish(&meta, &row, End::Again(0), NOW + 70).await);
    let row = take(&meta, &kinds, NOW + 70).await.unwrap();
    assert!(finish(&meta, &row, End::Done, NOW + 70).await);
    let list = List {
        after: None,
        limit: 9,
    };
    assert_eq!(meta.scan(list).await.unwrap().len(), 2);
    let trim = |before| Trim { before };
    assert_eq!(meta.write(trim(NOW + 70)).await.unwrap(), 0);
    assert_eq!(meta.write(trim(NOW + 71)).await.unwrap(), 1);
}
