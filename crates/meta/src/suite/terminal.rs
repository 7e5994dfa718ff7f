//! Terminals: requests that wait, are decided once and fetched once; refresh tokens that are spent by use; the session that goes on
//! asking for their account.

use super::NOW;
use crate::device::{
    Ask, Asked, Decide, Decided, DeviceRow, MOST_OF_ADDRESS, MOST_WAITING, Poll, Polled, Redeem,
    Redeemed, State,
};
use crate::session::{Begin, Due, End, Release, SessionRow, Which};
use crate::terminal::{ById, MOST_TERMINALS, Of, Rotate, Rotated, TerminalRow, Touch};
use crate::{Meta, credential, device, event, principal, session, terminal};

const DAY: i64 = 86_400_000;
const GRACE: i64 = 30_000;

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

async fn begin(meta: &Meta, id: &str, user: &str, provider: &str, refresh: bool) {
    let row = SessionRow {
        id: id.into(),
        hash: bytes(id),
        principal: user.into(),
        source: "local".into(),
        credential: if provider.is_empty() {
            "p".into()
        } else {
            String::new()
        },
        provider: provider.into(),
        subject: if provider.is_empty() {
            String::new()
        } else {
            user.into()
        },
        created_at: NOW,
        seen_at: NOW,
        address: String::new(),
        agent: String::new(),
        expires_at: NOW + DAY,
        refresh: refresh.then(|| bytes("sealed")),
        check_at: refresh.then_some(NOW + 10),
        kept: false,
        sid: String::new(),
    };
    meta.write(Begin { row }).await.unwrap();
}

pub(super) fn waits(label: &str, address: &str) -> DeviceRow {
    DeviceRow {
        hash: bytes(label),
        user_code: bytes(&format!("user {label}")),
        state: State::Waits,
        device: "laptop".into(),
        address: address.into(),
        created_at: NOW,
        expires_at: NOW + 600_000,
        wait: 5_000,
        polled_at: 0,
        principal: String::new(),
        source: String::new(),
        credential: String::new(),
        provider: String::new(),
        subject: String::new(),
        lasts_until: None,
        terminal: String::new(),
    }
}

pub(super) async fn ask(meta: &Meta, label: &str, address: &str) -> Asked {
    let row = waits(label, address);
    meta.write(Ask { row }).await.unwrap()
}

async fn decide(meta: &Meta, label: &str, user: &str, session: &str, approve: bool) -> Decided {
    let decide = Decide {
        user_code: bytes(&format!("user {label}")),
        principal: user.into(),
        session: session.into(),
        approve,
        at: NOW + 1,
    };
    meta.write(decide).await.unwrap()
}

async fn poll(meta: &Meta, label: &str, at: i64) -> Polled {
    let (hash, longer) = (bytes(label), 5_000);
    meta.write(Poll { hash, at, longer }).await.unwrap()
}

fn made(id: &str, of: &DeviceRow, at: i64) -> TerminalRow {
    TerminalRow {
        id: id.into(),
        principal: of.principal.clone(),
        source: of.source.clone(),
        credential: of.credential.clone(),
        provider: of.provider.clone(),
        subject: of.subject.clone(),
        device: of.device.clone(),
        created_at: at,
        seen_at: at,
        address: "10.0.0.9".into(),
        family: bytes(&format!("family {id}")),
        hash: bytes(&format!("{id} 1")),
        previous: None,
        rotated_at: at,
        generation: 1,
        expires_at: at + 30 * DAY,
        ends_at: at + 90 * DAY,
    }
}

/// Asks, approves and fetches.
async fn sign_in(meta: &Meta, id: &str, user: &str, session: &str) -> Redeemed {
    assert_eq!(ask(meta, id, id).await, Asked::Waits);
    assert_eq!(decide(meta, id, user, session, true).await, Decided::Done);
    let Polled::Approved(row) = poll(meta, id, NOW + 2).await else {
        panic!("it was approved")
    };
    let (hash, terminal) = (bytes(id), made(id, &row, NOW + 2));
    meta.write(Redeem { hash, terminal }).await.unwrap()
}

async fn ids(meta: &Meta, user: &str) -> Vec<String> {
    let principal = user.to_owned();
    let rows = meta.read(Of { principal }).await.unwrap();
    rows.into_iter().map(|row| row.id).collect()
}

fn rotate(id: &str, shown: u32, next: u32, at: i64) -> Rotate {
    Rotate {
        family: bytes(&format!("family {id}")),
        shown: bytes(&format!("{id} {shown}")),
        next: bytes(&format!("{id} {next}")),
        at,
        grace: GRACE,
        idle: 30 * DAY,
        address: "10.0.0.1".into(),
    }
}

/// Whether rotating gave the next token.
async fn rotates(meta: &Meta, id: &str, shown: u32, next: u32, at: i64) -> bool {
    let rotated = meta.write(rotate(id, shown, next, at)).await.unwrap();
    matches!(rotated, Rotated::Done(_))
}

/// Decided once, by somebody whose session lives; fetched once; polls that come too soon wait longer.
pub async fn each_is_decided_once_and_fetched_once(meta: Meta) {
    begin(&meta, "s", "ann", "", false).await;
    begin(&meta, "t", "ben", "", false).await;
    assert_eq!(ask(&meta, "a", "x").await, Asked::Waits);
    assert_eq!(ask(&meta, "a", "x").await, Asked::Taken);
    assert_eq!(poll(&meta, "none", NOW).await, Polled::Unknown);
    assert_eq!(poll(&meta, "a", NOW).await, Polled::Waits);
    assert_eq!(poll(&meta, "a", NOW + 4_999).await, Polled::TooFast(10_000));
    assert_eq!(
        poll(&meta, "a", NOW + 14_998).await,
        Polled::TooFast(15_000)
    );
    assert_eq!(poll(&meta, "a", NOW + 30_000).await, Polled::Waits);
    // The clock was set back.
    assert_eq!(poll(&meta, "a", NOW + 1).await, Polled::Waits);
    assert_eq!(
        decide(&meta, "a", "ann", "t", true).await,
        Decided::SignedOut
    );
    assert_eq!(
        decide(&meta, "a", "ann", "gone", true).await,
        Decided::SignedOut
    );
    assert_eq!(
        decide(&meta, "none", "ann", "s", true).await,
        Decided::Unknown
    );
    let (one, other) = tokio::join!(
        decide(&meta, "a", "ann", "s", true),
        decide(&meta, "a", "ben", "t", true)
    );
    assert!(one != other && (one == Decided::Done || other == Decided::Done));
    let Polled::Approved(row) = poll(&meta, "a", NOW + 1).await else {
        panic!("it was approved")
    };
    assert_eq!((&*row.credential, row.lasts_until), ("p", None));
    let redeem = |id: &str| Redeem {
        hash: bytes("a"),
        terminal: made(id, &row, NOW + 2),
    };
    let (one, other) = tokio::join!(meta.write(redeem("1")), meta.write(redeem("2")));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(one != other && (one == Redeemed::Done || other == Redeemed::Done));
    let kept = ids(&meta, &row.principal).await;
    assert_eq!(kept.len(), 1);
    assert_eq!(
        poll(&meta, "a", NOW + 9).await,
        Polled::Spent(row.principal.clone(), kept[0].clone())
    );
    assert_eq!(ask(&meta, "b", "x").await, Asked::Waits);
    assert_eq!(decide(&meta, "b", "ann", "s", false).await, Decided::Done);
    assert_eq!(poll(&meta, "b", NOW + 9).await, Polled::Denied);
    assert_eq!(decide(&meta, "b", "ann", "s", true).await, Decided::Unknown);
    assert_eq!(ask(&meta, "c", "x").await, Asked::Waits);
    assert_eq!(poll(&meta, "c", NOW + 600_000).await, Polled::Expired);
    let before = NOW + 600_001;
    let gone = meta.write(device::Forget { before, limit: 9 }).await;
    assert_eq!(gone.unwrap(), 3);
    let limit = 99;
    let told = format!(
        "{:?}",
        meta.scan(event::List { after: 0, limit }).await.unwrap()
    );
    assert!(
        told.contains("device.approve") && told.contains("device.deny"),
        "{told}"
    );
}

/// So many wait, from one address and in all.
pub async fn so_many_wait(meta: Meta) {
    for n in 0..MOST_OF_ADDRESS {
        assert_eq!(ask(&meta, &format!("a{n}"), "a").await, Asked::Waits);
    }
    assert_eq!(ask(&meta, "more", "a").await, Asked::Full);
    for n in MOST_OF_ADDRESS..MOST_WAITING {
        let address = (n / MOST_OF_ADDRESS).to_string();
        assert_eq!(ask(&meta, &format!("b{n}"), &address).await, Asked::Waits);
    }
    assert_eq!(ask(&meta, "more", "z").await, Asked::Full);
    // Whoever has decided makes room.
    begin(&meta, "s", "ann", "", false).await;
    assert_eq!(decide(&meta, "a0", "ann", "s", false).await, Decided::Done);
    assert_eq!(ask(&meta, "room", "a").await, Asked::Waits);
    assert_eq!(ask(&meta, "more", "a").await, Asked::Full);
    let mut row = waits("late", "a");
    row.created_at = row.expires_at;
    row.expires_at += 600_000;
    assert_eq!(
        meta.write(Ask { row }).await.unwrap(),
        Asked::Waits,
        "the others are over"
    );
}

/// The last token is good, the one before it for a moment while the last was not used; any other ends the terminal.
pub async fn a_token_is_spent_by_use(meta: Meta) {
    begin(&meta, "s", "ann", "", false).await;
    assert_eq!(sign_in(&meta, "a", "ann", "s").await, Redeemed::Done);
    let at = NOW + DAY;
    assert!(rotates(&meta, "a", 1, 2, at).await);
    let id = "a".to_owned();
    let row = meta.read(ById { id }).await.unwrap().unwrap();
    assert_eq!(
        (row.generation, row.seen_at, &*row.address),
        (2, at, "10.0.0.1")
    );
    assert_eq!(row.expires_at, at + 30 * DAY, "it slides");
    assert!(
        rotates(&meta, "a", 1, 3, at + GRACE).await,
        "the second was lost"
    );
    assert!(!rotates(&meta, "a", 1, 4, at + GRACE + 1).await, "too late");
    assert!(ids(&meta, "ann").await.is_empty());
    assert_eq!(
        meta.write(rotate("a", 3, 5, at)).await.unwrap(),
        Rotated::Unknown
    );
    // What was voided, what was spent before, and what nobody got.
    for (label, shown) in [("b", 2), ("c", 1), ("d", 77)] {
        assert_eq!(sign_in(&meta, label, "ann", "s").await, Redeemed::Done);
        assert!(rotates(&meta, label, 1, 2, at).await);
        assert!(rotates(&meta, label, 1, 3, at).await);
        assert!(rotates(&meta, label, 3, 4, at).await);
        let reused = meta.write(rotate(label, shown, 5, at + 1)).await.unwrap();
        assert!(matches!(reused, Rotated::Reused(_)), "{label}");
        assert!(!rotates(&meta, label, 4, 6, at + 1).await, "{label}");
    }
    // Never longer than to its end, and not after it was idle; a clock that is set back forgives nothing.
    assert_eq!(sign_in(&meta, "e", "ann", "s").await, Redeemed::Done);
    for n in 1..=4 {
        assert!(rotates(&meta, "e", n, n + 1, NOW + i64::from(n) * 20 * DAY).await);
    }
    let id = "e".to_owned();
    let row = meta.read(ById { id }).await.unwrap().unwrap();
    assert_eq!(row.expires_at, row.ends_at);
    let over = meta.write(rotate("e", 5, 6, row.ends_at)).await.unwrap();
    assert_eq!(over, Rotated::Over);
    assert!(
        rotates(&meta, "e", 5, 6, NOW).await,
        "the clock was set back"
    );
    assert!(!rotates(&meta, "e", 4, 7, NOW).await);
    assert_eq!(sign_in(&meta, "f", "ann", "s").await, Redeemed::Done);
    let touch = Touch {
        id: "f".into(),
        address: "10.0.0.7".into(),
        at: NOW + 99,
    };
    meta.write(touch).await.unwrap();
    let id = "f".to_owned();
    let row = meta.read(ById { id }).await.unwrap().unwrap();
    assert_eq!((row.seen_at, &*row.address), (NOW + 99, "10.0.0.7"));
    let before = row.expires_at + 1;
    let gone = meta.write(terminal::Forget { before, limit: 9 }).await;
    assert_eq!(gone.unwrap(), 1);
    let limit = 999;
    let told = format!(
        "{:?}",
        meta.scan(event::List { after: 0, limit }).await.unwrap()
    );
    assert_eq!(told.matches("terminal.reuse").count(), 5, "{told}");
}

/// Of two who rotate one token at once, both get one, and only the later one is good; of many with a spent one, none goes on.
pub async fn two_rotate_at_once(meta: Meta) {
    begin(&meta, "s", "ann", "", false).await;
    for round in 0..8 {
        let id = format!("t{round}");
        assert_eq!(sign_in(&meta, &id, "ann", "s").await, Redeemed::Done);
        let (one, other) = tokio::join!(
            meta.write(rotate(&id, 1, 2, NOW + 5)),
            meta.write(rotate(&id, 1, 3, NOW + 5))
        );
        let generation = |rotated: Rotated| match rotated {
            Rotated::Done(row) => row.generation,
            other => panic!("{other:?}"),
        };
        let (one, other) = (generation(one.unwrap()), generation(other.unwrap()));
        assert_eq!(one.min(other), 2, "one after the other");
        assert_eq!(one.max(other), 3);
        let (good, void) = if one > other { (2, 3) } else { (3, 2) };
        let row = meta.read(ById { id: id.clone() }).await.unwrap().unwrap();
        assert_eq!(row.hash, bytes(&format!("{id} {good}")));
        let (one, other) = tokio::join!(
            meta.write(rotate(&id, void, 4, NOW + 6)),
            meta.write(rotate(&id, void, 5, NOW + 6))
        );
        let ends = [one.unwrap(), other.unwrap()];
        assert!(ends.contains(&Rotated::Unknown), "{ends:?}");
        assert!(
            ends.iter().any(|end| matches!(end, Rotated::Reused(_))),
            "{ends:?}"
        );
        assert!(!rotates(&meta, &id, good, 6, NOW + 7).await);
    }
    assert!(ids(&meta, "ann").await.is_empty());
}

/// They end one by one and together, with what was approved and not fetched; with their user; and the oldest of too many.
pub async fn they_end_with_sessions_and_users(meta: Meta) {
    let create = principal::Create {
        name: "ann".into(),
        kind: "user".into(),
        secret_hash: None,
        at: NOW,
    };
    meta.write(create).await.unwrap();
    let end = |which| End {
        principal: "ann".into(),
        which,
        at: NOW + 9,
    };
    begin(&meta, "s", "ann", "", false).await;
    for id in ["a", "b", "c"] {
        assert_eq!(sign_in(&meta, id, "ann", "s").await, Redeemed::Done);
    }
    assert_eq!(meta.write(end(Which::One("b".into()))).await.unwrap(), 1);
    assert_eq!(ids(&meta, "ann").await, ["a", "c"]);
    assert_eq!(ask(&meta, "w", "w").await, Asked::Waits);
    assert_eq!(decide(&meta, "w", "ann", "s", true).await, Decided::Done);
    assert_eq!(meta.write(end(Which::Others("s".into()))).await.unwrap(), 2);
    assert_eq!(poll(&meta, "w", NOW + 9).await, Polled::Denied);
    assert_eq!(sign_in(&meta, "d", "ann", "s").await, Redeemed::Done);
    assert_eq!(meta.write(end(Which::All)).await.unwrap(), 2);
    begin(&meta, "s", "ann", "", false).await;
    for n in 0..=MOST_TERMINALS {
        assert_eq!(
            sign_in(&meta, &format!("m{n:02}"), "ann", "s").await,
            Redeemed::Done
        );
    }
    let kept = ids(&meta, "ann").await;
    assert_eq!((kept.len(), &*kept[0]), (MOST_TERMINALS as usize, "m01"));
    assert_eq!(ask(&meta, "x", "x").await, Asked::Waits);
    assert_eq!(decide(&meta, "x", "ann", "s", true).await, Decided::Done);
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
    meta.write(remove).await.unwrap();
    assert!(ids(&meta, "ann").await.is_empty());
    assert_eq!(poll(&meta, "x", NOW + 9).await, Polled::Unknown);
}

/// The session of an account goes on asking for it while a terminal lives, whatever ends it in the browser; and no longer.
pub async fn a_session_stays_for_terminals_of_its_account(meta: Meta) {
    let due = async || {
        let (at, limit) = (NOW + 10 * DAY, 9);
        let rows = meta.read(Due { at, limit }).await.unwrap();
        rows.into_iter()
            .map(|row| (row.id.clone(), row.kept, row))
            .collect::<Vec<_>>()
    };
    let listed = async |user: &str| {
        let principal = user.to_owned();
        meta.read(session::Of { principal }).await.unwrap().len()
    };
    let end = |which| End {
        principal: "ann".into(),
        which,
        at: NOW + 9,
    };
    begin(&meta, "s", "ann", "corp", true).await;
    assert_eq!(sign_in(&meta, "a", "ann", "s").await, Redeemed::Done);
    begin(&meta, "t", "ann", "corp", true).await;
    // Another one asks.
    assert_eq!(meta.write(end(Which::One("t".into()))).await.unwrap(), 1);
    assert_eq!(due().await.len(), 1);
    assert_eq!(meta.write(end(Which::One("s".into()))).await.unwrap(), 1);
    assert_eq!(listed("ann").await, 0);
    let hash = bytes("s");
    assert_eq!(meta.read(session::ByHash { hash }).await.unwrap(), None);
    let kept = due().await;
    assert!(kept.len() == 1 && kept[0].1);
    assert_eq!(
        kept[0].2.expires_at,
        NOW + 2 + 90 * DAY,
        "as long as the terminal may live"
    );
    assert_eq!(
        decide(&meta, "none", "ann", "s", true).await,
        Decided::SignedOut
    );
    let release = |row: &SessionRow| Release {
        row: row.clone(),
        at: NOW + 9,
    };
    assert!(
        !meta.write(release(&kept[0].2)).await.unwrap(),
        "it is needed"
    );
    // A newer one takes its place, when its time is over.
    begin(&meta, "u", "ann", "corp", true).await;
    let before = NOW + DAY + 1;
    let gone = meta.write(session::Forget { before, limit: 9 }).await;
    assert_eq!(gone.unwrap(), 1);
    let kept = due().await;
    assert!(kept.len() == 1 && kept[0].0 == "u" && kept[0].1, "{kept:?}");
    assert_eq!(meta.write(end(Which::One("a".into()))).await.unwrap(), 1);
    assert!(meta.write(release(&kept[0].2)).await.unwrap());
    assert!(due().await.is_empty());
    // The account is gone: all of it ends.
    begin(&meta, "v", "ann", "corp", true).await;
    assert_eq!(sign_in(&meta, "b", "ann", "v").await, Redeemed::Done);
    let account = Which::Account("corp".into(), "ann".into());
    assert_eq!(meta.write(end(account)).await.unwrap(), 2);
    assert!(due().await.is_empty() && ids(&meta, "ann").await.is_empty());
    // It stayed, and all ends at once.
    begin(&meta, "k", "ann", "corp", true).await;
    assert_eq!(sign_in(&meta, "l", "ann", "k").await, Redeemed::Done);
    assert_eq!(meta.write(end(Which::One("k".into()))).await.unwrap(), 1);
    assert_eq!(due().await.len(), 1);
    assert_eq!(
        meta.write(end(Which::All)).await.unwrap(),
        1,
        "what is kept is not counted"
    );
    assert!(due().await.is_empty() && ids(&meta, "ann").await.is_empty());
    // Approved, and nobody asks any more before it is fetched.
    begin(&meta, "w", "ann", "corp", true).await;
    assert_eq!(ask(&meta, "c", "c").await, Asked::Waits);
    assert_eq!(decide(&meta, "c", "ann", "w", true).await, Decided::Done);
    assert_eq!(meta.write(end(Which::One("w".into()))).await.unwrap(), 1);
    let Polled::Approved(row) = poll(&meta, "c", NOW + 2).await else {
        panic!("it was approved")
    };
    let (hash, terminal) = (bytes("c"), made("c", &row, NOW + 2));
    let redeemed = meta.write(Redeem { hash, terminal }).await.unwrap();
    assert_eq!(redeemed, Redeemed::Unasked);
    // An account that nobody can be asked about is known as long as its session.
    begin(&meta, "y", "ben", "corp", false).await;
    assert_eq!(ask(&meta, "d", "d").await, Asked::Waits);
    assert_eq!(decide(&meta, "d", "ben", "y", true).await, Decided::Done);
    let Polled::Approved(row) = poll(&meta, "d", NOW + 2).await else {
        panic!("it was approved")
    };
    assert_eq!(row.lasts_until, Some(NOW + DAY));
}

/// A user of that name with a session of an account, who has approved what waits under the same name.
pub(super) async fn approved(meta: &Meta, label: &str) {
    let create = principal::Create {
        name: label.into(),
        kind: "user".into(),
        secret_hash: None,
        at: NOW,
    };
    meta.write(create).await.unwrap();
    begin(meta, label, label, "corp", true).await;
    assert_eq!(ask(meta, label, label).await, Asked::Waits);
    assert_eq!(decide(meta, label, label, label, true).await, Decided::Done);
}

/// Fetches it.
pub(super) fn fetch(label: &str) -> Redeem {
    let row = DeviceRow {
        principal: label.into(),
        source: "local".into(),
        provider: "corp".into(),
        subject: label.into(),
        ..waits(label, label)
    };
    let terminal = made(&format!("{label} t"), &row, NOW + 2);
    let hash = bytes(label);
    Redeem { hash, terminal }
}

/// The same as a terminal.
pub(super) async fn fetched(meta: &Meta, label: &str) {
    approved(meta, label).await;
    assert_eq!(meta.write(fetch(label)).await.unwrap(), Redeemed::Done);
}

/// Spends its first token.
pub(super) fn renew(label: &str, next: u32) -> Rotate {
    rotate(&format!("{label} t"), 1, next, NOW + 9)
}

/// Spends a token that nobody got.
pub(super) fn replay(label: &str) -> Rotate {
    rotate(&format!("{label} t"), 77, 78, NOW + 9)
}

/// Ends all that the user has.
pub(super) fn end_all(label: &str) -> End {
    End {
        principal: label.into(),
        which: Which::All,
        at: NOW + 9,
    }
}

/// Ends the session alone.
pub(super) fn end_session(label: &str) -> End {
    End {
        which: Which::One(label.into()),
        ..end_all(label)
    }
}
