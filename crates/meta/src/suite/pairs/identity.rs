//! Invitations, sessions and terminals.

use super::{NOW, approved, fetch, fetched, remove, renew, told};
use crate::device::{self, Ask, Asked, ByUserCode, Decide, MOST_OF_ADDRESS, Poll};
use crate::invitation::{Accept, InvitationRow, Put, Withdraw};
use crate::session::{
    Begin, Due, End, Forget, ForgetLogouts, Logout, Of, Refuse, Release, Schedule, SessionRow,
    Touch, Which,
};
use crate::suite::terminal::{ask, end_all, end_session, waits};
use crate::{Meta, principal, terminal};

/// Before any other session ends.
const ENDED: i64 = NOW - 1_000;
const DAY: i64 = 86_400_000;

fn invitation(label: &str, id: &str) -> Put {
    Put {
        row: InvitationRow {
            name: label.into(),
            id: format!("{label} {id}"),
            hash: format!("{label} {id}").into_bytes(),
            expires_at: NOW + 9,
            created_at: NOW,
            created_by: "root".into(),
        },
    }
}

async fn invited(meta: &Meta, label: &str) {
    assert!(meta.write(invitation(label, "1")).await.expect("a row"));
}

fn accept(label: &str, password: &str) -> Accept {
    Accept {
        hash: format!("{label} 1").into_bytes(),
        secret_hash: password.into(),
        at: NOW,
    }
}

fn withdraw(label: &str) -> Withdraw {
    let (id, at) = (format!("{label} 1"), NOW);
    Withdraw { id, at }
}

fn create(label: &str) -> principal::Create {
    principal::Create {
        name: label.into(),
        kind: "user".into(),
        secret_hash: None,
        at: NOW,
    }
}

/// Another session of the account that [`approved`] signs in with.
fn another(label: &str, id: &str, expires_at: i64) -> Begin {
    let id = format!("{label} {id}");
    let row = SessionRow {
        hash: id.clone().into_bytes(),
        principal: label.into(),
        source: "local".into(),
        credential: String::new(),
        provider: "corp".into(),
        subject: label.into(),
        created_at: NOW,
        seen_at: NOW,
        address: String::new(),
        agent: String::new(),
        expires_at,
        refresh: Some(b"sealed".to_vec()),
        check_at: Some(NOW),
        kept: false,
        sid: format!("{label} sid"),
        id,
    };
    Begin { row }
}

/// A terminal whose session is over in the browser and still asks, and a session of the same account that has ended.
async fn left(meta: &Meta, label: &str) {
    fetched(meta, label).await;
    meta.write(end_session(label)).await.expect("an end");
    meta.write(another(label, "s", ENDED))
        .await
        .expect("a session");
}

fn forget_sessions() -> Forget {
    let (before, limit) = (ENDED + 1, 50);
    Forget { before, limit }
}

/// A session by its name, whether it is kept or not.
async fn session(meta: &Meta, id: &str) -> Option<SessionRow> {
    due(meta).await.into_iter().find(|row| row.id == id)
}

/// All sessions whose providers are asked.
async fn due(meta: &Meta) -> Vec<SessionRow> {
    let due = Due {
        at: i64::MAX,
        limit: 10_000,
    };
    meta.read(due).await.expect("sessions")
}

/// What comes of it is seen by what is left: one that is over has been read before.
async fn refuse(meta: Meta, id: String) -> String {
    if let Some(row) = session(&meta, &id).await {
        told(meta, Refuse { row, at: NOW + 9 }).await;
    }
    String::new()
}

async fn release(meta: Meta, id: String) -> String {
    if let Some(row) = session(&meta, &id).await {
        told(meta, Release { row, at: NOW + 9 }).await;
    }
    String::new()
}

fn logout(label: &str, jti: &str) -> Logout {
    Logout {
        provider: "corp".into(),
        jti: format!("{label} {jti}"),
        expires_at: NOW + 9,
        sid: Some(format!("{label} sid")),
        subject: None,
        at: NOW,
    }
}

/// A user with a session of the provider, whose name there is known.
async fn signed_in(meta: &Meta, label: &str) {
    meta.write(create(label)).await.expect("a user");
    meta.write(another(label, "s", NOW + DAY))
        .await
        .expect("a session");
}

async fn asked(meta: &Meta, label: &str) {
    signed_in(meta, label).await;
    ask(meta, label, label).await;
}

fn decide(label: &str, approve: bool) -> Decide {
    Decide {
        user_code: format!("user {label}").into_bytes(),
        principal: label.into(),
        session: format!("{label} s"),
        approve,
        at: NOW + 1,
    }
}

fn sign_out(label: &str) -> End {
    End {
        principal: label.into(),
        which: Which::One(format!("{label} s")),
        at: NOW,
    }
}

fn schedule(label: &str, check_at: i64) -> Schedule {
    Schedule {
        id: format!("{label} s"),
        seen: Some(NOW),
        check_at,
        refresh: Some(check_at.to_string().into_bytes()),
    }
}

/// Just after the terminal of [`fetched`] ends, unless it is used.
fn forget_terminals() -> terminal::Forget {
    let (before, limit) = (NOW + 3 + 30 * DAY, 10_000);
    terminal::Forget { before, limit }
}

/// How many it forgets is also others' doing.
async fn forget(meta: Meta, _: String) -> String {
    told(meta, forget_terminals()).await;
    String::new()
}

async fn forget_ended(meta: Meta, _: String) -> String {
    told(meta, forget_sessions()).await;
    String::new()
}

fn touch(label: &str, at: i64) -> Touch {
    Touch {
        id: format!("{label} s"),
        address: at.to_string(),
        at,
    }
}

fn touch_terminal(label: &str, at: i64) -> terminal::Touch {
    terminal::Touch {
        id: format!("{label} t"),
        address: at.to_string(),
        at,
    }
}

fn forget_logouts() -> ForgetLogouts {
    let (before, limit) = (NOW + 10, 10_000);
    ForgetLogouts { before, limit }
}

async fn forget_words(meta: Meta, _: String) -> String {
    told(meta, forget_logouts()).await;
    String::new()
}

/// Another request from the same address.
fn request(label: &str, name: &str) -> Ask {
    let row = waits(&format!("{label} {name}"), label);
    Ask { row }
}

/// So many wait of the address that one more may.
async fn crowded(meta: &Meta, label: &str) {
    for number in 1..MOST_OF_ADDRESS {
        assert_eq!(
            ask(meta, &format!("{label} r{number}"), label).await,
            Asked::Waits
        );
    }
}

fn poll(label: &str, at: i64) -> Poll {
    let (hash, longer) = (label.into(), 5_000);
    Poll { hash, at, longer }
}

/// Two requests that the user has said yes to, the one that ends first made last.
async fn approved_twice(meta: &Meta, label: &str) {
    approved(meta, label).await;
    let row = device::DeviceRow {
        expires_at: NOW + 9,
        ..waits(&format!("{label}2"), label)
    };
    told(meta.clone(), Ask { row }).await;
    let decide = Decide {
        user_code: format!("user {label}2").into_bytes(),
        session: label.into(),
        ..decide(label, true)
    };
    told(meta.clone(), decide).await;
}

/// Also those of others.
async fn forget_requests(meta: Meta, _: String) -> String {
    let (before, limit) = (i64::MAX, 10_000);
    told(meta, device::Forget { before, limit }).await;
    String::new()
}

pairs! {
    "accept an invitation, accept it as well": |meta, label| invited(&meta, &label).await;
        told(meta, accept(&label, "a")); told(meta, accept(&label, "b"));
    "accept an invitation, withdraw it": |meta, label| invited(&meta, &label).await;
        told(meta, accept(&label, "a")); told(meta, withdraw(&label));
    "accept an invitation, make a user of that name": |meta, label| invited(&meta, &label).await;
        told(meta, accept(&label, "a")); told(meta, create(&label));
    "accept an invitation, invite again": |meta, label| invited(&meta, &label).await;
        told(meta, accept(&label, "a")); told(meta, invitation(&label, "2"));
    "invite, make a user of that name": |meta, label| drop((meta, label));
        told(meta, invitation(&label, "1")); told(meta, create(&label));
    "invite, invite the same": |meta, label| drop((meta, label));
        told(meta, invitation(&label, "1")); told(meta, invitation(&label, "2"));
    "begin a session, begin another": |meta, label| { meta.write(create(&label)).await.expect("a user"); };
        told(meta, another(&label, "a", NOW + DAY)); told(meta, another(&label, "b", NOW + DAY));
    "begin a session, end all": |meta, label| signed_in(&meta, &label).await;
        told(meta, another(&label, "b", NOW + DAY)); told(meta, end_all(&label));
    "begin a session, its user goes": |meta, label| signed_in(&meta, &label).await;
        told(meta, another(&label, "b", NOW + DAY)); told(meta, remove(&label, "user"));
    "forget sessions that ended, end all": |meta, label| left(&meta, &label).await;
        forget_ended(meta, label); told(meta, end_all(&label));
    "forget sessions that ended, forget them as well": |meta, label| left(&meta, &label).await;
        forget_ended(meta, label); forget_ended(meta, label);
    "forget sessions that ended, their provider refuses one that is kept": |meta, label| left(&meta, &label).await;
        forget_ended(meta, label); refuse(meta, label);
    "forget sessions that ended, release one that is kept": |meta, label| left(&meta, &label).await;
        forget_ended(meta, label); release(meta, label);
    "a provider refuses a session, a terminal is fetched": |meta, label| approved(&meta, &label).await;
        refuse(meta, label); told(meta, fetch(&label));
    "a provider ends a session, it says so again": |meta, label| signed_in(&meta, &label).await;
        told(meta, logout(&label, "1")); told(meta, logout(&label, "1"));
    "a provider ends a session, it says so in other words": |meta, label| signed_in(&meta, &label).await;
        told(meta, logout(&label, "1")); told(meta, logout(&label, "2"));
    "a provider ends a session, the user ends it": |meta, label| signed_in(&meta, &label).await;
        told(meta, logout(&label, "1")); told(meta, sign_out(&label));
    "a provider ends a session, it refuses it": |meta, label| signed_in(&meta, &label).await;
        told(meta, logout(&label, "1")); refuse(meta, format!("{label} s"));
    "say yes to a terminal, say no": |meta, label| asked(&meta, &label).await;
        told(meta, decide(&label, true)); told(meta, decide(&label, false));
    "say yes to a terminal, end the session": |meta, label| asked(&meta, &label).await;
        told(meta, decide(&label, true)); told(meta, sign_out(&label));
    "ask a provider about a session, ask as well": |meta, label| signed_in(&meta, &label).await;
        told(meta, schedule(&label, NOW + 1)); told(meta, schedule(&label, NOW + 2));
    "ask a provider about a session, end it": |meta, label| signed_in(&meta, &label).await;
        told(meta, schedule(&label, NOW + 1)); told(meta, sign_out(&label));
    "spend a refresh token, forget terminals that ended": |meta, label| fetched(&meta, &label).await;
        told(meta, renew(&label, 2)); forget(meta, label);
    "a terminal is used, it spends its refresh token": |meta, label| fetched(&meta, &label).await;
        told(meta, touch_terminal(&label, NOW + 5)); told(meta, renew(&label, 2));
    "a terminal is used, end all that its user has": |meta, label| fetched(&meta, &label).await;
        told(meta, touch_terminal(&label, NOW + 5)); told(meta, end_all(&label));
    "a session is used, it is used elsewhere": |meta, label| signed_in(&meta, &label).await;
        told(meta, touch(&label, NOW + 5)); told(meta, touch(&label, NOW + 6));
    "a session is used, it ends": |meta, label| signed_in(&meta, &label).await;
        told(meta, touch(&label, NOW + 5)); told(meta, sign_out(&label));
    "forget what providers said, one says it again": |meta, label| { signed_in(&meta, &label).await;
        told(meta, logout(&label, "1")).await; };
        forget_words(meta, label); told(meta, logout(&label, "1"));
    "forget what providers said, forget it as well": |meta, label| { signed_in(&meta, &label).await;
        told(meta, logout(&label, "1")).await; };
        forget_words(meta, label); forget_words(meta, label);
    "ask for a terminal, ask with the same code": |meta, label| drop((meta, label));
        told(meta, request(&label, "a")); told(meta, request(&label, "a"));
    "ask for a terminal where one more may, ask for another": |meta, label| crowded(&meta, &label).await;
        told(meta, request(&label, "a")); told(meta, request(&label, "b"));
    "poll, say yes": |meta, label| asked(&meta, &label).await;
        told(meta, poll(&label, NOW + 5)); told(meta, decide(&label, true));
    "poll, poll too soon": |meta, label| asked(&meta, &label).await;
        told(meta, poll(&label, NOW + 5)); told(meta, poll(&label, NOW + 6));
    "poll, fetch the terminal": |meta, label| approved(&meta, &label).await;
        told(meta, poll(&label, NOW + 5)); told(meta, fetch(&label));
    "forget requests, say yes to one": |meta, label| asked(&meta, &label).await;
        forget_requests(meta, label); told(meta, decide(&label, true));
    "forget requests, fetch one": |meta, label| approved(&meta, &label).await;
        forget_requests(meta, label); told(meta, fetch(&label));
    "forget requests, end all that their user has": |meta, label| approved_twice(&meta, &label).await;
        forget_requests(meta, label); told(meta, end_all(&label));
    "forget requests, their user goes": |meta, label| approved_twice(&meta, &label).await;
        forget_requests(meta, label); told(meta, remove(&label, "user"));
}

async fn look(meta: &Meta, label: &str) -> Vec<String> {
    super::people(meta, label).await
}

/// What is seen of sessions and terminals.
pub(super) async fn seen(meta: &Meta, label: &str) -> Vec<String> {
    let principal = label.to_owned();
    let of = Of {
        principal: principal.clone(),
    };
    let mut seen = Vec::new();
    for row in meta.read(of).await.expect("sessions") {
        let text = format!("session {} {:?} {}", row.id, row.check_at, row.seen_at);
        seen.push(text);
    }
    let ours = [label.to_owned(), format!("{label} s")];
    let kept = due(meta).await.into_iter().filter(|row| row.kept);
    let mut kept: Vec<String> = kept.map(|row| row.id).collect();
    kept.retain(|id| ours.contains(id));
    kept.sort_unstable();
    seen.extend(kept.into_iter().map(|id| format!("kept {id}")));
    let of = terminal::Of { principal };
    for row in meta.read(of).await.expect("terminals") {
        let text = format!("terminal {} {} {}", row.id, row.generation, row.seen_at);
        seen.push(text);
    }
    for name in [label.to_owned(), format!("{label}2")] {
        let user_code = format!("user {name}").into_bytes();
        let row = meta.read(ByUserCode { user_code }).await.expect("a read");
        if let Some(row) = row {
            seen.push(format!("{:?} {} {}", row.state, row.wait, row.polled_at));
        }
    }
    seen
}
