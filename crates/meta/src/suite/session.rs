//! Sessions: found by what only the browser knows, bounded, over at once, asked about by one.

use super::NOW;
use crate::session::{
    Begin, ByHash, Due, DueBeyond, End, Forget, ForgetLogouts, Logout, MOST_SESSIONS, Of, Refuse,
    Schedule, SessionRow, Touch, Which,
};
use crate::{Meta, credential, event, principal};

fn row(id: &str, user: &str, at: i64) -> SessionRow {
    SessionRow {
        id: id.into(),
        hash: id.as_bytes().to_vec(),
        principal: user.into(),
        source: "local".into(),
        credential: String::new(),
        provider: "corp".into(),
        subject: user.into(),
        sid: format!("sid of {user}"),
        created_at: at,
        seen_at: at,
        address: "10.0.0.1".into(),
        agent: "Browser".into(),
        expires_at: at + 100,
        refresh: Some(b"sealed".to_vec()),
        check_at: Some(at + 10),
        kept: false,
    }
}

async fn begin(meta: &Meta, id: &str, user: &str, at: i64) {
    let row = row(id, user, at);
    meta.write(Begin { row }).await.unwrap();
}

async fn ids(meta: &Meta, user: &str) -> Vec<String> {
    let principal = user.to_owned();
    let rows = meta.read(Of { principal }).await.unwrap();
    rows.into_iter().map(|row| row.id).collect()
}

async fn end(meta: &Meta, user: &str, which: Which) -> usize {
    let end = End {
        principal: user.into(),
        which,
        at: NOW,
    };
    meta.write(end).await.unwrap()
}

/// Found by the hash alone, touched, ended one by one and together; the log tells of it without anything secret.
pub async fn they_begin_and_end(meta: Meta) {
    begin(&meta, "a", "ann", NOW).await;
    begin(&meta, "b", "ann", NOW + 1).await;
    begin(&meta, "c", "ann", NOW + 2).await;
    begin(&meta, "d", "ben", NOW).await;
    let by = |hash: &str| ByHash {
        hash: hash.as_bytes().to_vec(),
    };
    assert_eq!(
        meta.read(by("a")).await.unwrap(),
        Some(row("a", "ann", NOW))
    );
    assert_eq!(meta.read(by("x")).await.unwrap(), None);
    let touch = Touch {
        id: "a".into(),
        address: "10.0.0.2".into(),
        at: NOW + 5,
    };
    meta.write(touch).await.unwrap();
    let touched = meta.read(by("a")).await.unwrap().unwrap();
    assert_eq!((touched.seen_at, &*touched.address), (NOW + 5, "10.0.0.2"));
    assert_eq!(end(&meta, "ben", Which::One("a".into())).await, 0);
    assert_eq!(end(&meta, "ann", Which::One("a".into())).await, 1);
    assert_eq!(end(&meta, "ann", Which::Others("c".into())).await, 1);
    assert_eq!(ids(&meta, "ann").await, ["c"]);
    let other = Which::Account("corp".into(), "ben".into());
    assert_eq!(end(&meta, "ann", other).await, 0);
    let own = Which::Account("corp".into(), "ann".into());
    assert_eq!(end(&meta, "ann", own).await, 1);
    assert_eq!(end(&meta, "ben", Which::All).await, 1);
    let list = event::List {
        after: 0,
        limit: 99,
    };
    let told = format!("{:?}", meta.scan(list).await.unwrap());
    assert!(told.contains("session") && !told.contains("sealed"));
    for n in 0..=MOST_SESSIONS {
        begin(&meta, &format!("s{n:02}"), "ann", NOW + i64::from(n)).await;
    }
    let kept = ids(&meta, "ann").await;
    assert_eq!(kept.len(), MOST_SESSIONS as usize);
    assert_eq!(kept[0], "s01");
}

/// They go with their user, and when their time is over.
pub async fn they_go_with_their_user_and_in_time(meta: Meta) {
    let create = principal::Create {
        name: "ann".into(),
        kind: "user".into(),
        secret_hash: None,
        at: NOW,
    };
    meta.write(create).await.unwrap();
    begin(&meta, "a", "ann", NOW).await;
    begin(&meta, "b", "ben", NOW + 1).await;
    begin(&meta, "c", "ben", NOW + 50).await;
    let remove = credential::RemovePrincipal {
        name: "ann".into(),
        kind: "user".into(),
        version: crate::Meant::Any,
        by: crate::access::By {
            actor: "root".into(),
            epoch: None,
            at: NOW,
        },
    };
    let removed = meta.write(remove).await.unwrap();
    assert_eq!(removed, crate::access::Changed::Done);
    assert!(ids(&meta, "ann").await.is_empty());
    let forget = |before| Forget { before, limit: 9 };
    assert_eq!(meta.write(forget(NOW + 101)).await.unwrap(), 0);
    assert_eq!(meta.write(forget(NOW + 102)).await.unwrap(), 1);
    assert_eq!(ids(&meta, "ben").await, ["c"]);
}

/// Of two who would ask about one session at once, one does.
pub async fn one_asks_about_each(meta: Meta) {
    begin(&meta, "a", "ann", NOW).await;
    begin(&meta, "b", "ben", NOW + 5).await;
    let due = |at| Due { at, limit: 9 };
    assert!(meta.read(due(NOW + 9)).await.unwrap().is_empty());
    let found = meta.read(due(NOW + 15)).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|row| row.id).collect();
    assert_eq!(found, ["a", "b"]);
    let beyond = |beyond| DueBeyond { beyond, limit: 9 };
    let found = meta.read(beyond(NOW + 10)).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|row| row.id).collect();
    assert_eq!(found, ["b"]);
    assert!(meta.read(beyond(NOW + 15)).await.unwrap().is_empty());
    let take = |seen, check_at, refresh: Option<&[u8]>| Schedule {
        id: "a".into(),
        seen: Some(seen),
        check_at,
        refresh: refresh.map(<[u8]>::to_vec),
    };
    let (one, other) = tokio::join!(
        meta.write(take(NOW + 10, NOW + 100, None)),
        meta.write(take(NOW + 10, NOW + 100, None)),
    );
    assert!(one.unwrap() != other.unwrap());
    assert!(
        meta.write(take(NOW + 100, NOW + 100, Some(b"other")))
            .await
            .unwrap()
    );
    let by = ByHash {
        hash: b"a".to_vec(),
    };
    let kept = meta.read(by).await.unwrap().unwrap();
    assert_eq!(kept.refresh.as_deref(), Some(&b"other"[..]));
}

/// A provider's word ends exactly what it names, once, however many hear it at once; it is forgotten in time.
pub async fn a_provider_ends_what_it_names(meta: Meta) {
    for (id, user, sid, at) in [
        ("a", "ann", "one", 0),
        ("b", "ann", "two", 1),
        ("c", "ben", "one", 0),
        ("d", "ben", "", 1),
    ] {
        let mut row = row(id, user, NOW + at);
        row.sid = sid.into();
        meta.write(Begin { row }).await.unwrap();
    }
    let word = |jti: &str, provider: &str, sid: &str, subject: &str| Logout {
        provider: provider.into(),
        jti: jti.into(),
        expires_at: NOW + 100,
        sid: (!sid.is_empty()).then(|| sid.to_owned()),
        subject: (!subject.is_empty()).then(|| subject.to_owned()),
        at: NOW,
    };
    let heard = async |jti: &str, provider: &str, sid: &str, subject: &str| {
        let word = word(jti, provider, sid, subject);
        meta.write(word).await.unwrap()
    };
    let none = Some(Vec::new());
    assert_eq!(heard("1", "club", "one", "").await, none);
    assert_eq!(heard("1", "corp", "one", "eve").await, none);
    assert_eq!(heard("1", "corp", "one", "ben").await, None, "heard before");
    assert_eq!(ids(&meta, "ben").await, ["c", "d"]);
    let (one, two) = tokio::join!(
        meta.write(word("2", "corp", "one", "ben")),
        meta.write(word("2", "corp", "one", "ben")),
    );
    let mut both = [one.unwrap(), two.unwrap()];
    both.sort();
    assert_eq!(both, [None, Some(vec![("ben".to_owned(), 1)])]);
    assert_eq!(
        (ids(&meta, "ann").await, ids(&meta, "ben").await),
        (vec!["a".into(), "b".into()], vec!["d".to_owned()])
    );
    let done = heard("3", "corp", "two", "").await;
    assert_eq!(done, Some(vec![("ann".to_owned(), 1)]));
    let done = heard("4", "corp", "", "ann").await;
    assert_eq!(done, Some(vec![("ann".to_owned(), 1)]));
    assert_eq!(ids(&meta, "ben").await, ["d"]);
    let forget = |before| ForgetLogouts { before, limit: 9 };
    assert_eq!(meta.write(forget(NOW + 100)).await.unwrap(), 0);
    assert_eq!(meta.write(forget(NOW + 101)).await.unwrap(), 5);
    let done = heard("4", "corp", "", "ben").await;
    assert_eq!(done, Some(vec![("ben".to_owned(), 1)]));
}

/// Only the one that was refused, and whether it was the last that could ask.
pub async fn one_is_refused(meta: Meta) {
    for (id, user, refresh) in [
        ("a", "ann", true),
        ("b", "ann", true),
        ("c", "ann", false),
        ("d", "ben", true),
    ] {
        let mut row = row(id, user, NOW);
        row.refresh = row.refresh.filter(|_| refresh);
        row.check_at = row.check_at.filter(|_| refresh);
        meta.write(Begin { row }).await.unwrap();
    }
    let refused = async |id: &str| {
        let row = row(id, "ann", NOW);
        meta.write(Refuse { row, at: NOW }).await.unwrap()
    };
    assert!(!refused("a").await);
    assert_eq!(ids(&meta, "ann").await, ["b", "c"]);
    assert!(!refused("a").await, "it is gone, and the other one is not");
    assert!(refused("b").await);
    assert_eq!(ids(&meta, "ann").await, ["c"]);
    assert_eq!(ids(&meta, "ben").await, ["d"]);
}

/// As many as may be and no more, whoever comes at once, so that ending all ends all: of a user of a file, who has no row.
pub async fn so_many_at_once(meta: Meta) {
    for n in 0..i64::from(MOST_SESSIONS) {
        begin(&meta, &format!("{n:03}"), "ann", NOW + n).await;
    }
    let begins = (100..112_i64).map(|n| {
        let (meta, row) = (meta.clone(), row(&n.to_string(), "ann", NOW + n));
        async move {
            loop {
                match meta.write(Begin { row: row.clone() }).await {
                    Ok(()) => return,
                    Err(crate::Error::Busy(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    super::concurrent::all(begins).await;
    let held = ids(&meta, "ann").await;
    assert_eq!(held.len(), MOST_SESSIONS as usize, "{held:?}");
    assert_eq!(end(&meta, "ann", Which::All).await, MOST_SESSIONS as usize);
    assert_eq!(ids(&meta, "ann").await, Vec::<String>::new());
}
