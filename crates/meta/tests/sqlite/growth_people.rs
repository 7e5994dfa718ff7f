//! As [`crate::growth`], for people, what they sign in with, what they may, and the audit log.

use std::path::Path;

use wharf_meta::access::binding::{self, Binding};
use wharf_meta::access::group::{self, Member};
use wharf_meta::access::source::{self, Source};
use wharf_meta::access::{By, account, change, standing};
use wharf_meta::audit::{About, Append, BATCH, Cut, EntryRow, Head, HeadRow, Page, Walk};
use wharf_meta::credential::{self, CredentialRow};
use wharf_meta::device::{self, DeviceRow, State};
use wharf_meta::invitation::{self, InvitationRow};
use wharf_meta::session::{self, SessionRow, Which};
use wharf_meta::suite::NOW;
use wharf_meta::terminal::{self, Rotated, TerminalRow};
use wharf_meta::{Bulk, Op, Steps, event, principal, refresh_token};

use crate::growth::{LARGE, SMALL, grown};

fn hash(name: impl AsRef<str>) -> Vec<u8> {
    wharf_meta::suite::digest(name.as_ref())
        .to_string()
        .into_bytes()
}

fn user(n: u32) -> String {
    format!("u{n:06}")
}

fn by() -> By {
    By {
        actor: "root".into(),
        epoch: None,
        at: NOW,
    }
}

fn token(user: String, number: u32) -> CredentialRow {
    CredentialRow {
        id: format!("{user} {number}"),
        kind: "token".into(),
        hash: hash(format!("{user} {number}")),
        name: format!("token {number}"),
        source: "local".into(),
        scopes: None,
        expires_at: Some(NOW + 10_000_000),
        created_at: NOW,
        created_by: user.clone(),
        principal: user,
    }
}

fn session(user: String, number: u32) -> SessionRow {
    SessionRow {
        id: format!("s {user} {number}"),
        hash: hash(format!("s {user} {number}")),
        source: "local".into(),
        credential: String::new(),
        provider: "corp".into(),
        subject: user.clone(),
        sid: format!("sid {user}"),
        created_at: NOW,
        seen_at: NOW,
        address: "10.0.0.1".into(),
        agent: "a browser".into(),
        expires_at: NOW + 10_000_000,
        refresh: Some(vec![7; 32]),
        check_at: Some(NOW + 10_000_000),
        kept: false,
        principal: user,
    }
}

fn terminal(user: String, number: u32) -> TerminalRow {
    TerminalRow {
        id: format!("t {user} {number}"),
        source: "local".into(),
        credential: String::new(),
        provider: "corp".into(),
        subject: user.clone(),
        device: "a laptop".into(),
        created_at: NOW,
        seen_at: NOW,
        address: "10.0.0.1".into(),
        family: hash(format!("family {user} {number}")),
        hash: hash(format!("t {user} {number}")),
        previous: None,
        rotated_at: NOW,
        generation: 1,
        expires_at: NOW + 10_000_000,
        ends_at: NOW + 20_000_000,
        principal: user,
    }
}

/// Approved by the session of the same number.
fn grant(user: &str, number: u32, state: State) -> DeviceRow {
    DeviceRow {
        hash: hash(format!("device {user} {number}")),
        user_code: hash(format!("code {user} {number}")),
        state,
        device: "a laptop".into(),
        address: format!("10.0.{}.{}", number / 40, number % 40),
        created_at: NOW,
        expires_at: NOW + 600_000,
        wait: 5_000,
        polled_at: 0,
        principal: user.into(),
        source: "local".into(),
        credential: String::new(),
        provider: "corp".into(),
        subject: user.into(),
        lasts_until: None,
        terminal: String::new(),
    }
}

fn invitation(name: String) -> InvitationRow {
    InvitationRow {
        id: format!("i {name}"),
        hash: hash(format!("i {name}")),
        expires_at: NOW + 10_000_000,
        created_at: NOW,
        created_by: "root".into(),
        name,
    }
}

fn bound(name: String, namespace: String) -> binding::Put {
    binding::Put {
        binding: Binding {
            namespace,
            kind: "user".into(),
            name,
            role: "reader".into(),
            networks: String::new(),
            tags: String::new(),
            sign_in: String::new(),
            expires_at: 0,
        },
        custom_role: false,
        by: by(),
    }
}

fn member(group: &str, name: String) -> Member {
    Member {
        group: group.into(),
        kind: "user".into(),
        name,
    }
}

fn arrive(n: u32) -> account::Arrive {
    account::Arrive {
        provider: "corp".into(),
        subject: format!("subject {n}"),
        issuer: "https://corp".into(),
        wished: Some(format!("c{n:06}")),
        groups: vec!["everybody".into(), format!("g{n:06}")],
        telling: vec!["everybody".into()],
        at: NOW,
    }
}

fn entry(seq: i64) -> EntryRow {
    EntryRow {
        seq,
        at: NOW + seq / 3,
        action: "tag.move".into(),
        principal: user((seq % 97) as u32),
        credential: "password".into(),
        address: "10.0.0.1".into(),
        request: format!("r{seq}"),
        repository: (seq % 3 != 0).then(|| format!("team/r{}", seq % 89)),
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
        mac: (seq * 3 + cut_seq).to_be_bytes().to_vec(),
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

/// Entries for each of everything else.
const ENTRIES: u32 = 10;

/// A store with so many people, each with one of everything; and one user with as much as a user may have, in any store.
fn filled(folder: &Path, count: u32) -> Bulk {
    let mut bulk = Bulk::open(&folder.join("meta.db"), 64).unwrap();
    bulk.run(&group::Create {
        name: "all".into(),
        by: by(),
    })
    .unwrap();
    for n in 0..count {
        let name = user(n);
        let made = bulk.run(&principal::Create {
            name: name.clone(),
            kind: "user".into(),
            secret_hash: Some("hash".into()),
            at: NOW,
        });
        assert!(made.unwrap());
        let row = token(name.clone(), 0);
        let added = bulk.run(&credential::Add {
            row: row.clone(),
            local: true,
            most: 9,
        });
        assert!(matches!(added.unwrap(), credential::Added::Done));
        bulk.run(&refresh_token::Create {
            hash: hash(format!("r {name}")),
            subject: name.clone(),
            credential: row.id,
            created_at: NOW,
        })
        .unwrap();
        bulk.run(&session::Begin {
            row: session(name.clone(), 0),
        })
        .unwrap();
        let ask = device::Ask {
            row: grant(&name, n, State::Waits),
        };
        if n < 100 {
            assert_eq!(bulk.run(&ask).unwrap(), device::Asked::Waits);
        }
        bulk.run(&invitation::Put {
            row: invitation(format!("i{n:06}")),
        })
        .unwrap();
        bulk.run(&bound(name.clone(), format!("team{n}"))).unwrap();
        bulk.run(&bound(name.clone(), "everybody".into())).unwrap();
        bulk.run(&group::Create {
            name: format!("g{n:06}"),
            by: by(),
        })
        .unwrap();
        for group in ["all".into(), format!("g{n:06}")] {
            bulk.run(&group::Add {
                member: member(&group, name.clone()),
                by: by(),
            })
            .unwrap();
        }
        bulk.run(&source::Put {
            source: Source {
                provider: "corp".into(),
                name: format!("g{n:06}"),
                group: format!("g{n:06}"),
            },
            by: by(),
        })
        .unwrap();
        let arrived = bulk.run(&arrive(n)).unwrap();
        assert!(format!("{arrived:?}").contains("c0"), "{arrived:?}");
        bulk.run(&session::Logout {
            provider: "corp".into(),
            jti: format!("jti {n}"),
            expires_at: NOW + 10_000_000,
            sid: Some("another".into()),
            subject: None,
            at: NOW,
        })
        .unwrap();
    }
    let last = i64::from(count * ENTRIES);
    let mut after = 0;
    while after < last {
        let part = (last - after).min(BATCH as i64);
        assert!(bulk.run(&append(after, part)).unwrap());
        after += part;
    }
    bulk
}

/// A terminal as it comes to be: asked for, approved, fetched.
fn signs_in(bulk: &mut Bulk, costs: &mut Vec<(&'static str, Steps)>, name: &str, number: u32) {
    let mut cost = |name, steps| costs.push((name, steps));
    let row = grant("", 100_000 + number, State::Waits);
    let (hash, user_code) = (row.hash.clone(), row.user_code.clone());
    let (asked, steps) = bulk.measure(&device::Ask { row }).unwrap();
    assert_eq!(asked, device::Asked::Waits);
    cost("asking for a code", steps);
    let by_code = device::ByUserCode {
        user_code: user_code.clone(),
    };
    let (found, steps) = bulk.measure(&by_code).unwrap();
    assert!(found.is_some());
    cost("a code that is typed", steps);
    let decide = device::Decide {
        user_code,
        principal: name.into(),
        session: session(name.into(), 0).id,
        approve: true,
        at: NOW,
    };
    let (decided, steps) = bulk.measure(&decide).unwrap();
    assert_eq!(decided, device::Decided::Done);
    cost("a code that is confirmed", steps);
    let poll = device::Poll {
        hash: hash.clone(),
        at: NOW,
        longer: 5_000,
    };
    let (polled, steps) = bulk.measure(&poll).unwrap();
    assert!(matches!(polled, device::Polled::Approved(_)), "{polled:?}");
    cost("a poll", steps);
    let redeem = device::Redeem {
        hash,
        terminal: terminal(name.into(), number),
    };
    let (redeemed, steps) = bulk.measure(&redeem).unwrap();
    assert_eq!(redeemed, device::Redeemed::Done);
    cost("a code that is fetched", steps);
}

/// What each operation costs in a store with `count` of everything.
fn costs(count: u32) -> Vec<(&'static str, Steps)> {
    let folder = tempfile::tempdir().unwrap();
    let mut bulk = filled(folder.path(), count);
    let mut costs = Vec::new();
    let half = count / 2;
    let name = user(half);
    signs_in(&mut bulk, &mut costs, &name, 1);
    fn cost<O: Op>(
        bulk: &mut Bulk,
        costs: &mut Vec<(&'static str, Steps)>,
        name: &'static str,
        op: O,
    ) -> O::Out {
        let (out, steps) = bulk.measure(&op).unwrap();
        costs.push((name, steps));
        out
    }
    macro_rules! cost {
        ($name:literal, $op:expr) => {
            cost(&mut bulk, &mut costs, $name, $op)
        };
    }

    // Sessions and terminals.
    let row = session(name.clone(), 0);
    let found = session::ByHash {
        hash: row.hash.clone(),
    };
    assert!(cost!("a session by its cookie", found).is_some());
    let of = session::Of {
        principal: name.clone(),
    };
    assert_eq!(cost!("a user's sessions", of).len(), 1);
    let due = session::Due { at: NOW, limit: 20 };
    assert_eq!(cost!("sessions that are due: none", due).len(), 0);
    let due = session::Due {
        at: NOW + 20_000_000,
        limit: 20,
    };
    assert_eq!(cost!("sessions that are due", due).len(), 20);
    let ahead = session::DueBeyond {
        beyond: NOW + 20_000_000,
        limit: 20,
    };
    cost!("sessions that are due too late", ahead);
    let touch = session::Touch {
        id: row.id.clone(),
        address: "10.0.0.2".into(),
        at: NOW + 1,
    };
    cost!("a session that is used", touch);
    let begin = session::Begin {
        row: session(name.clone(), 1),
    };
    cost!("a sign-in", begin);
    let forget = session::Forget {
        before: NOW,
        limit: 100,
    };
    assert_eq!(cost!("sessions that have ended: none", forget), 0);
    let word = session::Logout {
        provider: "corp".into(),
        jti: "new".into(),
        expires_at: NOW + 10_000_000,
        sid: Some(row.sid.clone()),
        subject: None,
        at: NOW,
    };
    assert!(cost!("a provider ends a session", word).is_some());
    let forget = session::ForgetLogouts {
        before: NOW,
        limit: 100,
    };
    assert_eq!(cost!("words that are too old: none", forget), 0);
    let held = terminal(name.clone(), 1);
    let found = terminal::ByFamily {
        family: held.family.clone(),
    };
    assert!(cost!("a terminal by its token", found).is_some());
    let found = terminal::ById {
        id: held.id.clone(),
    };
    assert!(cost!("a terminal by its id", found).is_some());
    let of = terminal::Of {
        principal: name.clone(),
    };
    assert_eq!(cost!("a user's terminals", of).len(), 1);
    let rotate = terminal::Rotate {
        family: held.family.clone(),
        shown: held.hash.clone(),
        next: hash("next"),
        at: NOW + 1,
        grace: 30_000,
        idle: 10_000_000,
        address: "10.0.0.2".into(),
    };
    let rotated = cost!("a refresh token", rotate);
    assert!(matches!(rotated, Rotated::Done(_)), "{rotated:?}");
    let forget = terminal::Forget {
        before: NOW,
        limit: 100,
    };
    cost!("terminals that have ended: none", forget);
    let forget = device::Forget {
        before: NOW,
        limit: 100,
    };
    cost!("codes that are over: none", forget);
    let end = session::End {
        principal: name.clone(),
        which: Which::All,
        at: NOW,
    };
    assert!(cost!("all sessions and terminals of a user end", end) > 0);

    // Secrets.
    let found = credential::ByHash {
        hash: hash(format!("{name} 0")),
    };
    assert!(cost!("a secret", found).is_some());
    let of = credential::Of {
        principal: name.clone(),
        limit: 50,
    };
    assert_eq!(cost!("a user's tokens", of).len(), 1);
    let add = credential::Add {
        row: token(name.clone(), 1),
        local: true,
        most: 9,
    };
    cost!("a new token", add);
    let used = credential::Use {
        id: format!("{name} 1"),
        at: NOW + 1,
        address: "10.0.0.1".into(),
    };
    cost!("a token that is used", used);
    let revoke = credential::Revoke {
        id: format!("{name} 1"),
        at: NOW,
    };
    assert!(cost!("a token that is revoked", revoke).is_some());
    let forget = credential::Forget {
        ended_before: NOW,
        limit: 100,
    };
    cost!("secrets that have ended: none", forget);
    let get = refresh_token::Get {
        hash: hash(format!("r {name}")),
    };
    assert!(cost!("a refresh token of a user", get).is_some());

    // People.
    let get = principal::Get { name: name.clone() };
    assert!(cost!("a user", get).is_some());
    let list = principal::List {
        kind: "user".into(),
        after: name.clone(),
        until: None,
        limit: 50,
    };
    assert_eq!(cost!("a page of users", list).len(), 50);
    let get = account::Get {
        provider: "corp".into(),
        subject: format!("subject {half}"),
    };
    assert!(cost!("an account", get).is_some());
    let of = account::Of {
        user: format!("c{half:06}"),
    };
    assert_eq!(cost!("a user's accounts", of).len(), 1);
    let of = account::GroupsOf {
        user: format!("c{half:06}"),
        limit: 50,
    };
    assert_eq!(cost!("the groups of a user's accounts", of).len(), 1);
    let is_in = account::IsIn {
        user: format!("c{half:06}"),
        provider: "corp".into(),
        name: "everybody".into(),
    };
    assert!(cost!("whether somebody is in a provider's group", is_in));
    let again = account::Arrive {
        at: NOW + 1,
        ..arrive(half)
    };
    cost!("an account signs in again", again);
    let other = account::Arrive {
        groups: vec!["everybody".into(), "another".into()],
        at: NOW + 2,
        ..arrive(half)
    };
    cost!("an account comes with another group", other);
    let new = account::Arrive {
        subject: "new".into(),
        wished: Some("new".into()),
        ..arrive(half)
    };
    cost!("a new account", new);
    let due = standing::Due {
        provider: "corp".into(),
        before: NOW - 1,
        missed_before: NOW - 1,
        limit: 20,
    };
    cost!("accounts to be asked about: none", due);
    let check = standing::Check {
        provider: "corp".into(),
        subject: format!("subject {half}"),
        at: NOW + 1,
        found: true,
        enough: 3,
    };
    cost!("an account is still there", check);
    let found = invitation::ByHash {
        hash: hash(format!("i i{half:06}")),
    };
    assert!(cost!("an invitation", found).is_some());
    let list = invitation::List {
        after: format!("i{half:06}"),
        limit: 50,
    };
    assert_eq!(cost!("a page of invitations", list).len(), 50);
    let ended = invitation::Ended {
        before: NOW,
        limit: 50,
    };
    assert_eq!(cost!("invitations that have ended: none", ended).len(), 0);

    // Rights.
    let list = binding::List {
        after: Some(bound(name.clone(), "everybody".into()).binding),
        limit: 50,
    };
    assert_eq!(cost!("a page of grants", list).len(), 50);
    let on = binding::On {
        namespace: "everybody".into(),
        subject: Some(("user".into(), name.clone())),
        limit: 50,
    };
    assert_eq!(cost!("somebody's grants on a namespace", on).len(), 1);
    let of = binding::Of {
        kind: "user".into(),
        name: name.clone(),
        limit: 50,
    };
    assert_eq!(cost!("a user's grants", of).len(), 2);
    cost!("a grant", bound(name.clone(), "new".into()));
    let delete = binding::Delete {
        binding: bound(name.clone(), "new".into()).binding,
        by: by(),
    };
    cost!("a grant that is taken back", delete);
    let list = group::List {
        after: format!("g{half:06}"),
        limit: 50,
    };
    assert_eq!(cost!("a page of groups", list).len(), 50);
    let members = group::Members {
        after: Some(member("all", name.clone())),
        limit: 50,
    };
    assert_eq!(cost!("a page of members", members).len(), 50);
    let of = group::Of {
        kind: "user".into(),
        name: name.clone(),
        limit: 50,
    };
    assert_eq!(cost!("a user's groups", of).len(), 2);
    let remove = group::Remove {
        member: member("all", name.clone()),
        by: by(),
    };
    cost!("a member leaves", remove);
    let since = change::Since {
        epoch: i64::from(count),
        limit: 50,
    };
    cost!("changes of rights since an epoch", since);
    let disable = principal::Change {
        name: name.clone(),
        kind: "user".into(),
        version: wharf_meta::Meant::Any,
        disabled: Some(true),
        expires_at: None,
        networks: None,
        at: NOW,
    };
    cost!("a user is disabled", disable);
    let remove = credential::RemovePrincipal {
        name: name.clone(),
        kind: "user".into(),
        version: wharf_meta::Meant::Any,
        by: by(),
    };
    cost!("a user is removed", remove);

    // The log.
    let last = i64::from(count * ENTRIES);
    let middle = NOW + last / 6;
    let page = |about, latest_first| Page {
        about,
        from: if latest_first { (0, 0) } else { (middle, 0) },
        until: if latest_first {
            (middle, 0)
        } else {
            (i64::MAX, 0)
        },
        latest_first,
        limit: 2,
    };
    for (name, latest) in [
        ("a page of the log", false),
        ("the same, latest first", true),
    ] {
        let rows = cost(&mut bulk, &mut costs, name, page(About::Everything, latest));
        assert_eq!(rows.len(), 2);
    }
    let of = |n: u32| About::Principal(user(n));
    for (name, latest) in [
        ("somebody's entries", false),
        ("the same, latest first", true),
    ] {
        let rows = cost(&mut bulk, &mut costs, name, page(of(7), latest));
        assert_eq!(rows.len(), 2);
    }
    let on = || About::Repository("team/r7".into());
    for (name, latest) in [
        ("a repository's entries", false),
        ("the same, latest first", true),
    ] {
        let rows = cost(&mut bulk, &mut costs, name, page(on(), latest));
        assert_eq!(rows.len(), 2);
    }
    let nobody = page(About::Principal("nobody".into()), true);
    assert_eq!(cost!("nobody's entries", nobody).len(), 0);
    let walk = Walk {
        after: last / 2,
        limit: 50,
    };
    assert_eq!(cost!("a part of the log that is checked", walk).len(), 50);
    cost!("the head of the log", Head);
    let next = event::Next {
        consumer: "audit".into(),
        limit: 50,
    };
    assert_eq!(cost!("events that are to be sealed", next).len(), 50);
    assert!(cost!("entries that are sealed", append(last, 50)));
    let cut = Cut {
        expected: head(last + 50, 0).mac,
        head: head(last + 50, 100),
    };
    assert!(cost!("entries that are cut off", cut));
    bulk.finish().unwrap();
    costs
}

#[test]
fn no_operation_on_people_costs_more_among_many() {
    let grown = grown(costs(SMALL), costs(LARGE));
    assert!(grown.is_empty(), "{}", grown.join("\n"));
}
