//! The log over a real store: what is in it, what it shows after tampering, how floods are counted.

use std::sync::Arc;

use serde_json::Value;
use wharf_meta::audit::Walk;
use wharf_meta::{Op, Origin, Tx};

use super::*;
use crate::access::{Access, AccessOptions, Changer, Conditions, Granting, Password, SecretKeys};
use crate::clock::Clock as _;
use crate::house::House;
use crate::identity;

/// A statement, as somebody who has the database would run it: an attack, and marked as one.
struct Sql(&'static str);

impl Op for Sql {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> wharf_meta::Result<()> {
        tx.exec(self.0, &[]).await?;
        Ok(())
    }
}

async fn tamper(house: &House, sql: &'static str) {
    house.registry.meta.write(Sql(sql)).await.unwrap();
}

pub(super) async fn entries(house: &House) -> Vec<EntryRow> {
    seal(&house.registry).await.unwrap();
    let walk = Walk {
        after: 0,
        limit: 10_000,
    };
    house.registry.meta.scan(walk).await.unwrap()
}

async fn check(house: &House) -> Report {
    verify(&house.registry, None).await.unwrap()
}

/// What is wrong, and nothing else.
async fn findings(house: &House) -> Vec<(i64, String)> {
    let report = check(house).await;
    assert_eq!(report.bad, report.findings.len() as u64);
    let findings = report.findings.into_iter();
    findings
        .map(|finding| (finding.seq, finding.what))
        .collect()
}

pub(super) fn detail(entry: &EntryRow) -> Value {
    serde_json::from_str(&entry.detail).unwrap()
}

/// A log of some entries about users.
async fn logged() -> House {
    let house = House::new().await;
    for name in ["ann", "ben", "cat", "dan", "eve"] {
        let password = Some(Password::new("wonderland looks"));
        identity::create_user(&house.registry, Changer::Operator, name, password)
            .await
            .unwrap();
    }
    assert_eq!(seal(&house.registry).await.unwrap(), 5);
    house
}

#[tokio::test]
async fn a_log_that_nobody_touched_is_sound_and_says_where_it_ends() {
    let house = logged().await;
    let report = check(&house).await;
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(
        (
            report.entries,
            report.first,
            report.last,
            report.by_other_key
        ),
        (5, 1, 5, 0)
    );
    let noted = (report.last, report.head);
    house.push(b"more").await;
    assert!(!entries(&house).await.is_empty());
    assert!(
        verify(&house.registry, Some(&noted))
            .await
            .unwrap()
            .is_sound()
    );
    let other = (3, noted.1.clone());
    let report = verify(&house.registry, Some(&other)).await.unwrap();
    assert_eq!(report.findings[0].seq, 3);
}

#[tokio::test]
async fn an_empty_log_is_sound() {
    let house = House::new().await;
    let report = check(&house).await;
    assert!(report.is_sound() && report.last == 0, "{report:?}");
}

#[tokio::test]
async fn an_altered_entry_is_named() {
    for sql in [
        "/* tampering */ UPDATE audit_entry SET principal = 'mallory' WHERE seq = 3",
        "/* tampering */ UPDATE audit_entry SET at = at + 1 WHERE seq = 3",
        "/* tampering */ UPDATE audit_entry SET action = 'tag.move' WHERE seq = 3",
        "/* tampering */ UPDATE audit_entry SET detail = '{}' WHERE seq = 3",
        "/* tampering */ UPDATE audit_entry SET address = '10.0.0.1' WHERE seq = 3",
        "/* tampering */ UPDATE audit_entry SET credential = 'x' WHERE seq = 3",
        "/* tampering */ UPDATE audit_entry SET request = 'x' WHERE seq = 3",
        "/* tampering */ UPDATE audit_entry SET repository = 'a' WHERE seq = 3",
        "/* tampering */ UPDATE audit_entry SET tag = '' WHERE seq = 3",
        "/* tampering */ UPDATE audit_entry SET digest = 'sha256:0' WHERE seq = 3",
    ] {
        let house = logged().await;
        tamper(&house, sql).await;
        assert_eq!(
            findings(&house).await,
            [(3, "was changed".to_owned())],
            "{sql}"
        );
    }
}

#[tokio::test]
async fn what_was_deleted_is_named_in_the_middle_at_the_beginning_and_at_the_end() {
    let house = logged().await;
    tamper(
        &house,
        "/* tampering */ DELETE FROM audit_entry WHERE seq = 3",
    )
    .await;
    assert_eq!(findings(&house).await, [(3, "is missing".to_owned())]);
    tamper(
        &house,
        "/* tampering */ DELETE FROM audit_entry WHERE seq = 2",
    )
    .await;
    assert_eq!(
        findings(&house).await,
        [(2, "is missing, with all up to 3".to_owned())]
    );
    let house = logged().await;
    tamper(
        &house,
        "/* tampering */ DELETE FROM audit_entry WHERE seq = 1",
    )
    .await;
    assert_eq!(findings(&house).await, [(1, "is missing".to_owned())]);
    let house = logged().await;
    tamper(
        &house,
        "/* tampering */ DELETE FROM audit_entry WHERE seq > 3",
    )
    .await;
    let cut = "is missing, with all up to 5: the end of the log was cut off";
    assert_eq!(findings(&house).await, [(4, cut.to_owned())]);
    // What comes later hides nothing.
    house.push(b"more").await;
    seal(&house.registry).await.unwrap();
    let found = findings(&house).await;
    assert_eq!(found[0], (4, "is missing, with all up to 5".to_owned()));
    assert!(
        found[1].0 == 6 && found[1].1.contains("was not whole"),
        "{found:?}"
    );
}

#[tokio::test]
async fn the_end_cannot_be_cut_off_with_its_head() {
    let house = logged().await;
    tamper(
        &house,
        "/* tampering */ DELETE FROM audit_entry WHERE seq > 3",
    )
    .await;
    tamper(
        &house,
        "/* tampering */ UPDATE audit_head SET seq = 3, hash = (SELECT hash FROM audit_entry WHERE seq = 3)",
    )
    .await;
    let found = findings(&house).await;
    assert!(
        found.len() == 1 && found[0].1.contains("not written with a key"),
        "{found:?}"
    );
    let house = logged().await;
    tamper(&house, "/* tampering */ DELETE FROM audit_head").await;
    let found = findings(&house).await;
    assert!(
        found
            .iter()
            .any(|(_, what)| what.contains("head of the log is gone")),
        "{found:?}"
    );
}

#[tokio::test]
async fn entries_that_changed_places_are_named() {
    let house = logged().await;
    for sql in [
        "/* tampering */ UPDATE audit_entry SET seq = 99 WHERE seq = 2",
        "/* tampering */ UPDATE audit_entry SET seq = 2 WHERE seq = 4",
        "/* tampering */ UPDATE audit_entry SET seq = 4 WHERE seq = 99",
    ] {
        tamper(&house, sql).await;
    }
    let place = |was: i64| format!("is not in its place: here stands what was entry {was}");
    let found = findings(&house).await;
    assert_eq!(found[..1], [(2, place(4))]);
    assert!(found.contains(&(4, place(2))), "{found:?}");
    assert!(!found.iter().any(|(seq, _)| *seq == 1), "{found:?}");
}

#[tokio::test]
async fn what_was_put_behind_the_end_is_named() {
    let house = logged().await;
    tamper(
        &house,
        "/* tampering */ INSERT INTO audit_entry SELECT 6, at, action, principal, credential, address, request, repository, digest, tag, detail, \
         hash, mac FROM audit_entry WHERE seq = 5",
    )
    .await;
    let found = findings(&house).await;
    assert!(
        found.len() == 1 && found[0].1.contains("behind the head"),
        "{found:?}"
    );
}

/// Whoever has the database, and knows how hashes are made, but not the key.
#[tokio::test]
async fn a_chain_that_was_made_anew_without_the_key_is_found_where_it_begins() {
    let house = logged().await;
    let mut rows = entries(&house).await;
    rows[2].principal = "mallory".to_owned();
    let strangers = SecretKeys::parse(&SecretKeys::make()).unwrap();
    let strangers = LogKeys::new(strangers.of_log());
    let mut before = rows[1].hash.clone();
    for row in &mut rows[2..] {
        strangers.close(row, &before);
        before.clone_from(&row.hash);
    }
    tamper(
        &house,
        "/* tampering */ DELETE FROM audit_entry WHERE seq > 2",
    )
    .await;
    for row in rows.drain(2..) {
        let text = |bytes: &[u8]| verify::hex(bytes);
        let sql = format!(
            "/* tampering */ INSERT INTO audit_entry (seq, at, action, principal, credential, address, request, detail, hash, mac) VALUES \
             ({}, {}, '{}', '{}', '{}', '{}', '{}', '{}', x'{}', x'{}')",
            row.seq,
            row.at,
            row.action,
            row.principal,
            row.credential,
            row.address,
            row.request,
            row.detail,
            text(&row.hash),
            text(&row.mac),
        );
        tamper(&house, Box::leak(sql.into_boxed_str())).await;
    }
    let found = findings(&house).await;
    assert!(
        found[0].0 == 3 && found[0].1.contains("made anew"),
        "{found:?}"
    );
}

/// The key is replaced as for signing keys: the new one signs, and after a while nobody has the old one.
#[tokio::test]
async fn a_replaced_key_leaves_the_log_sound() {
    let mut house = logged().await;
    let new = SecretKeys::make();
    let both = format!(
        "{new}\n{}",
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [7; 32])
    );
    for keys in [both, new] {
        let keys = SecretKeys::parse(&keys).unwrap();
        let access = Access::open(
            AccessOptions::default(),
            keys,
            house.registry.meta.clone(),
            0,
        )
        .await;
        house.registry.access = Arc::new(access.unwrap());
        house.push(&[7; 9]).await;
        house
            .push(format!("{}", house.clock.now_ms()).as_bytes())
            .await;
        seal(&house.registry).await.unwrap();
        house.clock.advance(1_000);
        let report = check(&house).await;
        assert!(report.is_sound(), "{report:?}");
    }
    assert_eq!(check(&house).await.by_other_key, 5);
    // An entry of the old key is not free to be changed.
    tamper(
        &house,
        "/* tampering */ UPDATE audit_entry SET principal = 'mallory' WHERE seq = 2",
    )
    .await;
    assert_eq!(findings(&house).await, [(2, "was changed".to_owned())]);
}

#[tokio::test]
async fn what_is_cut_off_for_its_age_leaves_a_log_that_can_be_checked() {
    let house = logged().await;
    house.clock.advance(1_000 * 3_600);
    house.push(b"later").await;
    seal(&house.registry).await.unwrap();
    house.rule(|rules| rules.audit.keep = 1_800_000);
    house.run::<Cut>().await;
    let left = entries(&house).await;
    assert_eq!(left.first().map(|entry| entry.seq), Some(6));
    let last = left.last().unwrap();
    assert_eq!(last.action, "audit.cut");
    assert_eq!(
        (
            detail(last)["entries"].clone(),
            detail(last)["through"].clone()
        ),
        (5.into(), 5.into())
    );
    let report = check(&house).await;
    assert!(report.is_sound() && report.first == 6, "{report:?}");
    // The cut itself cannot be moved.
    tamper(
        &house,
        "/* tampering */ DELETE FROM audit_entry WHERE seq = 6",
    )
    .await;
    tamper(&house, "/* tampering */ UPDATE audit_head SET cut_seq = 6").await;
    assert!(!check(&house).await.is_sound());
    let before = entries(&house).await.len();
    house.clock.advance(1_000 * 86_400);
    house.run::<Cut>().await;
    assert_eq!(
        entries(&house).await.len(),
        before,
        "nothing is cut before somebody has looked"
    );
    // For good.
    let house = logged().await;
    house.rule(|rules| rules.audit.keep = 0);
    house.clock.advance(1_000 * 86_400 * 10_000);
    house.run::<Cut>().await;
    assert_eq!(entries(&house).await.len(), 5);
}

#[tokio::test]
async fn a_long_log_is_cut_in_batches_to_its_last_entry_and_goes_on() {
    let house = House::new().await;
    for n in 0..250 {
        house.push(format!("blob {n}").as_bytes()).await;
    }
    assert_eq!(seal(&house.registry).await.unwrap(), 250);
    house.clock.advance(1_000 * 10_000);
    house.rule(|rules| rules.audit.keep = 1_000);
    house.run::<Cut>().await;
    let left = entries(&house).await;
    assert_eq!(
        left.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        [251]
    );
    assert!(check(&house).await.is_sound());
}

#[tokio::test]
async fn changes_say_who_from_where_by_which_rule_and_what_was_before() {
    let house = House::new().await;
    let registry = &house.registry;
    let origin = Origin {
        actor: "alice".into(),
        credential: "abc".into(),
        address: "10.0.0.7".into(),
        request: "req-1".into(),
        rule: "alice is owner of team".to_owned().into(),
    };
    let granting = |role: &str| Granting {
        subject: "user:bob".parse().or_else(|_| "bob".parse()).unwrap(),
        role: role.into(),
        on: "team/a".into(),
        conditions: Conditions::default(),
    };
    let work = async {
        registry
            .access
            .grant(Changer::Operator, &granting("writer"), 5)
            .await
            .unwrap();
        let password = Some(Password::new("wonderland looks"));
        identity::create_user(registry, Changer::Operator, "bob", password)
            .await
            .unwrap();
        let token = identity::NewToken {
            user: "bob".into(),
            name: "ci".into(),
            scopes: vec!["reader:team/a".into()],
            lifetime: None,
        };
        let made = identity::create_token(registry, Changer::Operator, &token)
            .await
            .unwrap();
        identity::revoke_token(registry, &made.id).await.unwrap();
        identity::disable_user(registry, Changer::Operator, "bob", true, None)
            .await
            .unwrap();
        let subject = granting("writer").subject;
        registry
            .access
            .revoke(Changer::Operator, &subject, None, "team/a", 6)
            .await
            .unwrap();
        made
    };
    let made = origin.scope(work).await;
    let log = entries(&house).await;
    let actions: Vec<_> = log.iter().map(|entry| entry.action.as_str()).collect();
    let expected = [
        "access.change",
        "principal.create",
        "credential.create",
        "credential.remove",
        "principal.change",
        "access.change",
    ];
    assert_eq!(actions, expected);
    for entry in &log {
        let came = (
            &*entry.principal,
            &*entry.credential,
            &*entry.address,
            &*entry.request,
        );
        assert_eq!(came, ("alice", "abc", "10.0.0.7", "req-1"), "{entry:?}");
        assert_eq!(detail(entry)["rule"], "alice is owner of team");
        // No secret, and no hash of one.
        let text = &entry.detail;
        for secret in ["wonderland", "argon2", made.secret.reveal(), "hash"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    assert_eq!(log[0].repository.as_deref(), Some("team/a"));
    assert_eq!(
        (
            detail(&log[0])["before"].clone(),
            detail(&log[0])["after"]["role"].clone()
        ),
        (Value::Null, "writer".into())
    );
    assert_eq!(detail(&log[5])["before"]["role"], "writer");
    assert_eq!(detail(&log[2])["after"]["id"], made.id);
    assert_eq!(detail(&log[3])["before"]["id"], made.id);
    let disabled = |entry: &EntryRow, when: &str| detail(entry)[when]["disabled"].clone();
    assert_eq!(
        (disabled(&log[4], "before"), disabled(&log[4], "after")),
        (false.into(), true.into())
    );
}

#[tokio::test]
async fn the_log_is_asked_by_time_principal_repository_and_action() {
    let house = House::new().await;
    let registry = &house.registry;
    for (n, (who, repository, kind)) in [
        ("ann", "team/a", Kind::Read),
        ("ben", "team/a", Kind::SignIn),
        ("ann", "team/b", Kind::Refuse),
        ("ann", "teams", Kind::TagMove),
        ("ben", "team", Kind::TagDelete),
    ]
    .into_iter()
    .enumerate()
    {
        let one = Happened {
            kind,
            at: 100 + n as i64,
            repository: Some(repository.into()),
            digest: None,
            tag: None,
            payload: serde_json::json!({}),
            origin: Origin {
                actor: who.into(),
                ..Origin::default()
            },
        };
        record(registry, vec![one]).await.unwrap();
    }
    let ask = async |query: Query| {
        let query = Query {
            limit: 100,
            ..query
        };
        let page = page(registry, &query).await.unwrap();
        assert_eq!(page.next, None);
        page.entries
            .iter()
            .map(|entry| entry.at - 100)
            .collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    let all = Query::default;
    assert_eq!(ask(all()).await, [0, 1, 2, 3, 4]);
    assert_eq!(
        ask(Query {
            latest_first: true,
            ..all()
        })
        .await,
        [4, 3, 2, 1, 0]
    );
    assert_eq!(
        ask(Query {
            since: Some(102),
            ..all()
        })
        .await,
        [2, 3, 4]
    );
    assert_eq!(
        ask(Query {
            until: Some(102),
            ..all()
        })
        .await,
        [0, 1]
    );
    assert_eq!(
        ask(Query {
            since: Some(101),
            until: Some(103),
            latest_first: true,
            ..all()
        })
        .await,
        [2, 1]
    );
    assert_eq!(
        ask(Query {
            principal: some("ann"),
            ..all()
        })
        .await,
        [0, 2, 3]
    );
    assert_eq!(
        ask(Query {
            principal: some("ann"),
            since: Some(101),
            latest_first: true,
            ..all()
        })
        .await,
        [3, 2]
    );
    assert_eq!(
        ask(Query {
            repository: some("team/a"),
            ..all()
        })
        .await,
        [0, 1]
    );
    assert_eq!(
        ask(Query {
            repository: some("team/a"),
            principal: some("ben"),
            ..all()
        })
        .await,
        [1]
    );
    assert_eq!(
        ask(Query {
            namespace: some("team"),
            ..all()
        })
        .await,
        [0, 1, 2, 4]
    );
    assert_eq!(
        ask(Query {
            action: some("tag"),
            ..all()
        })
        .await,
        [3, 4]
    );
    assert_eq!(
        ask(Query {
            action: some("tag.move"),
            ..all()
        })
        .await,
        [3]
    );
    assert_eq!(
        ask(Query {
            action: some("ta"),
            ..all()
        })
        .await,
        [0; 0]
    );
    assert_eq!(
        ask(Query {
            within: Some(vec!["team/b".into(), "teams".into()]),
            ..all()
        })
        .await,
        [2, 3]
    );
    assert_eq!(
        ask(Query {
            within: Some(Vec::new()),
            ..all()
        })
        .await,
        [0; 0]
    );
    for latest_first in [false, true] {
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let query = Query {
                namespace: some("team"),
                latest_first,
                after,
                limit: 1,
                ..all()
            };
            let page = page(registry, &query).await.unwrap();
            seen.extend(page.entries.iter().map(|entry| entry.at - 100));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if latest_first {
            seen.reverse();
        }
        assert_eq!(seen, [0, 1, 2, 4]);
    }
}

#[tokio::test]
async fn reading_the_log_is_in_the_log() {
    let house = logged().await;
    let query = Query {
        principal: Some("ann".into()),
        limit: 10,
        ..Query::default()
    };
    let origin = Origin {
        actor: "auditor".into(),
        ..Origin::default()
    };
    read(&house.registry, &query, origin).await.unwrap();
    let last = entries(&house).await.pop().unwrap();
    assert_eq!(
        (last.action.as_str(), last.principal.as_str()),
        ("audit.read", "auditor")
    );
    assert_eq!(detail(&last)["principal"], "ann");
}

/// Two processes at once, and writers beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_that_seal_at_once_make_one_chain() {
    let house = Arc::new(House::new().await);
    let writer = |from: usize| {
        let house = house.clone();
        tokio::spawn(async move {
            for n in from..from + 100 {
                house.push(format!("blob {n}").as_bytes()).await;
            }
        })
    };
    let writers = [writer(0), writer(1_000)];
    let sealer = || {
        let house = house.clone();
        tokio::spawn(async move {
            for _ in 0..60 {
                seal(&house.registry).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    for task in [sealer(), sealer()].into_iter().chain(writers) {
        task.await.unwrap();
    }
    let log = entries(&house).await;
    assert_eq!(log.len(), 200);
    assert!(log.iter().zip(1..).all(|(entry, seq)| entry.seq == seq));
    assert!(check(&house).await.is_sound());
}
