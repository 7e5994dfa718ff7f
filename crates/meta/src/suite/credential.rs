//! Local users, robots, their secrets, and when those were used.

use super::NOW;
use crate::access::{By, Changed};
use crate::credential::{
    Add, Added, ByHash, ById, CreateRobot, CredentialRow, Extend, Forget, Of, RemovePrincipal,
    Revoke, Rotate, Use,
};
use crate::refresh_token::{self, MOST_REFRESH_TOKENS};
use crate::{Meant, Meta, principal};

fn secret(principal: &str, number: i64) -> CredentialRow {
    CredentialRow {
        id: format!("{principal}.{number}"),
        kind: "token".into(),
        principal: principal.into(),
        source: "local".into(),
        name: format!("number {number}"),
        hash: format!("{principal} {number}").into_bytes(),
        scopes: None,
        expires_at: Some(NOW + 1_000 * number),
        created_at: NOW + number,
        created_by: "root".into(),
    }
}

/// Nothing yet.
fn change(name: &str, kind: &str) -> principal::Change {
    principal::Change {
        name: name.into(),
        kind: kind.into(),
        version: Meant::Any,
        disabled: None,
        expires_at: None,
        networks: None,
        at: NOW,
    }
}

async fn ids(meta: &Meta, principal: &str) -> Vec<(String, Option<i64>)> {
    let of = Of {
        principal: principal.into(),
        limit: 9,
    };
    let listed = meta.read(of).await.unwrap().into_iter();
    listed.map(|(row, _)| (row.id, row.expires_at)).collect()
}

async fn user(meta: &Meta, name: &str) -> bool {
    let create = principal::Create {
        name: name.into(),
        kind: "user".into(),
        secret_hash: Some(format!("hash of {name}")),
        at: NOW,
    };
    meta.write(create).await.unwrap()
}

/// Listed by kind and name; who is locked out has no secret until let in again, not even a new one.
pub async fn local_users(meta: Meta) {
    for name in ["b", "a", "c"] {
        assert!(user(&meta, name).await);
    }
    let robot = CreateRobot {
        secret: secret("b+x", 1),
        expires_at: NOW + 9,
        networks: "10.0.0.0/8".into(),
    };
    assert!(meta.write(robot).await.unwrap());
    let list = async |kind: &str, after: &str, until: Option<&str>| {
        let list = principal::List {
            kind: kind.into(),
            after: after.into(),
            until: until.map(str::to_owned),
            limit: 2,
        };
        let rows = meta.read(list).await.unwrap();
        rows.into_iter().map(|row| row.name).collect::<Vec<_>>()
    };
    assert_eq!(list("user", "", None).await, ["a", "b"]);
    assert_eq!(list("user", "b", None).await, ["c"]);
    assert_eq!(list("user", "", Some("b")).await, ["a"]);
    assert_eq!(list("robot", "", None).await, ["b+x"]);

    let get = async || {
        let row = meta.read(principal::Get { name: "a".into() }).await;
        let row = row.unwrap().unwrap();
        (row.secret_hash, row.disabled_at)
    };
    let disable = async |name: &str, disabled: bool, at: i64| {
        let change = principal::Change {
            disabled: Some(disabled),
            at,
            ..change(name, "user")
        };
        meta.write(change).await.unwrap() == principal::Changed::Done
    };
    assert!(disable("a", true, NOW).await);
    assert!(disable("a", true, NOW + 7).await);
    assert_eq!(get().await, (None, Some(NOW)));
    assert!(disable("a", false, NOW).await && disable("a", false, NOW).await);
    assert_eq!(get().await, (Some("hash of a".into()), None));
    assert!(disable("a", true, NOW).await);
    let set = principal::SetSecret {
        name: "a".into(),
        hash: "new".into(),
        at: NOW,
    };
    assert!(meta.write(set).await.unwrap());
    assert_eq!(get().await, (None, Some(NOW)));
    assert!(disable("a", false, NOW).await);
    assert_eq!(get().await, (Some("new".into()), None));
    assert!(!disable("none", true, NOW).await);
    assert!(!disable("b+x", true, NOW).await, "a robot is no user");
}

/// Whoever names a version changes that one and no other; of two at once one does.
pub async fn a_change_is_meant_for_one_version(meta: Meta) {
    let robot = CreateRobot {
        secret: secret("b+x", 1),
        expires_at: NOW + 9,
        networks: String::new(),
    };
    assert!(meta.write(robot).await.unwrap());
    let get = async || {
        let row = meta.read(principal::Get { name: "b+x".into() }).await;
        row.unwrap().unwrap()
    };
    let first = get().await;
    let to = |networks: &str| principal::Change {
        version: Some(first.version()).into(),
        networks: Some(networks.into()),
        ..change("b+x", "robot")
    };
    let tasks = ["10.0.0.0/8", "11.0.0.0/8"].map(|networks| {
        let (meta, change) = (meta.clone(), to(networks));
        async move { meta.write(change).await.unwrap() }
    });
    let outcomes = super::concurrent::all(tasks).await;
    let done = outcomes
        .iter()
        .filter(|one| **one == principal::Changed::Done);
    assert_eq!(done.count(), 1, "{outcomes:?}");
    assert!(outcomes.contains(&principal::Changed::Differs));
    let second = get().await;
    assert_ne!(first.version(), second.version());
    let later = principal::Change {
        expires_at: Some(NOW + 99),
        ..change("b+x", "robot")
    };
    assert_eq!(meta.write(later).await.unwrap(), principal::Changed::Done);
    let third = get().await;
    assert_eq!(
        (third.expires_at, third.networks),
        (Some(NOW + 99), second.networks)
    );
    let none = meta.write(change("b+y", "robot")).await.unwrap();
    assert_eq!(none, principal::Changed::Unknown);
}

/// As many as one may have, each name once, none for who is not there; gone with their user.
pub async fn api_tokens(meta: Meta) {
    let add = async |row: CredentialRow, local: bool| {
        let most = 3;
        meta.write(Add { row, local, most }).await.unwrap()
    };
    assert_eq!(add(secret("a", 1), true).await, Added::Unknown);
    assert!(user(&meta, "a").await);
    assert_eq!(add(secret("a", 1), true).await, Added::Done);
    let same_name = CredentialRow {
        name: "number 1".into(),
        ..secret("a", 2)
    };
    assert_eq!(add(same_name, true).await, Added::Refused);
    let narrow = CredentialRow {
        scopes: Some("pull:team".into()),
        expires_at: None,
        ..secret("a", 2)
    };
    assert_eq!(add(narrow.clone(), true).await, Added::Done);
    assert_eq!(add(secret("a", 3), true).await, Added::Done);
    assert_eq!(add(secret("a", 4), true).await, Added::Refused);
    // Who is locked out gets nothing new.
    assert!(user(&meta, "b").await);
    let lock_out = principal::Change {
        disabled: Some(true),
        ..change("b", "user")
    };
    assert_eq!(
        meta.write(lock_out).await.unwrap(),
        principal::Changed::Done
    );
    assert_eq!(add(secret("b", 1), true).await, Added::Unknown);
    // Whoever is kept elsewhere has no row here.
    assert_eq!(add(secret("elsewhere", 1), false).await, Added::Done);

    let hash = narrow.hash.clone();
    assert_eq!(
        meta.read(ByHash { hash }).await.unwrap().as_ref(),
        Some(&narrow)
    );
    let id = narrow.id.clone();
    assert_eq!(
        meta.read(ById { id }).await.unwrap().as_ref(),
        Some(&narrow)
    );
    let hash = b"another".to_vec();
    assert_eq!(meta.read(ByHash { hash }).await.unwrap(), None);
    assert!(!format!("{narrow:?}").contains("hash"), "nothing is shown");

    let revoke = async |id: &str| {
        meta.write(Revoke {
            id: id.into(),
            at: NOW,
        })
        .await
        .unwrap()
    };
    assert_eq!(revoke("a.2").await.as_deref(), Some("a"));
    assert_eq!(revoke("a.2").await, None);
    let left: Vec<_> = ids(&meta, "a")
        .await
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(left, ["a.1", "a.3"]);
    let remove = async |kind: &str| {
        let by = By {
            actor: "root".into(),
            epoch: None,
            at: NOW,
        };
        let (name, kind, version) = ("a".into(), kind.into(), Meant::Any);
        let op = RemovePrincipal {
            name,
            kind,
            version,
            by,
        };
        meta.write(op).await.unwrap() == Changed::Done
    };
    assert!(!remove("robot").await);
    assert_eq!(ids(&meta, "a").await.len(), 2);
    assert!(remove("user").await && !remove("user").await);
    assert!(ids(&meta, "a").await.is_empty());
    assert_eq!(ids(&meta, "elsewhere").await.len(), 1);
}

/// Beyond a bound the oldest goes; all go with their principal, and those of others stay.
pub async fn refresh_tokens(meta: Meta) {
    let hash = |subject: &str, number: u32| format!("{subject} {number}").into_bytes();
    let make = async |subject: &str, number: u32| {
        let create = refresh_token::Create {
            hash: hash(subject, number),
            subject: subject.into(),
            credential: "password".into(),
            created_at: NOW + i64::from(number),
        };
        meta.write(create).await.unwrap();
    };
    let there = async |subject: &str, number: u32| {
        let hash = hash(subject, number);
        let row = meta.read(refresh_token::Get { hash }).await.unwrap();
        row.is_some()
    };
    assert!(user(&meta, "a").await);
    make("b", 0).await;
    for number in 0..=MOST_REFRESH_TOKENS {
        make("a", number).await;
    }
    assert!(!there("a", 0).await && there("a", 1).await && there("b", 0).await);
    let remove = RemovePrincipal {
        name: "a".into(),
        kind: "user".into(),
        version: Meant::Any,
        by: By {
            actor: "root".into(),
            epoch: None,
            at: NOW,
        },
    };
    assert_eq!(meta.write(remove).await.unwrap(), Changed::Done);
    assert!(!there("a", MOST_REFRESH_TOKENS).await && there("b", 0).await);
}

/// A robot has two secrets at most, and the older one ends when it is told to, or earlier.
pub async fn robots(meta: Meta) {
    let create = |number: i64| CreateRobot {
        secret: secret("team+ci", number),
        expires_at: NOW + 50_000,
        networks: "10.0.0.0/8".into(),
    };
    assert!(meta.write(create(1)).await.unwrap());
    assert!(!meta.write(create(2)).await.unwrap(), "the name is taken");
    let name = "team+ci".to_owned();
    let row = meta.read(principal::Get { name }).await.unwrap().unwrap();
    assert_eq!(
        (&*row.kind, row.secret_hash, row.expires_at, &*row.networks),
        ("robot", None, Some(NOW + 50_000), "10.0.0.0/8")
    );
    assert_eq!(row.created_by, "root");
    let rotate = async |number: i64, until: i64| {
        let row = secret("team+ci", number);
        meta.write(Rotate { row, until }).await.unwrap()
    };
    let held = async || {
        let held = ids(&meta, "team+ci").await.into_iter();
        held.map(|(id, end)| (id, end.unwrap() - NOW))
            .collect::<Vec<_>>()
    };
    assert!(rotate(3, NOW + 500).await);
    let two = [("team+ci.1".into(), 500), ("team+ci.3".into(), 3_000)];
    assert_eq!(held().await, two);
    assert!(rotate(4, NOW + 9_999_999).await);
    let two = [("team+ci.3".into(), 3_000), ("team+ci.4".into(), 4_000)];
    assert_eq!(held().await, two, "an end never moves away");
    let none = Rotate {
        row: secret("team+none", 1),
        until: NOW,
    };
    assert!(!meta.write(none).await.unwrap());
    let extend = async |name: &str| {
        let (name, expires_at) = (name.into(), NOW + 60_000);
        meta.write(Extend {
            name,
            expires_at,
            at: NOW,
        })
        .await
        .unwrap()
    };
    assert!(extend("team+ci").await && !extend("team+none").await);
}

/// The last use is kept, whatever order notes come in, and goes with its credential.
pub async fn uses(meta: Meta) {
    assert!(user(&meta, "a").await);
    let (row, local, most) = (secret("a", 1), true, 9);
    meta.write(Add { row, local, most }).await.unwrap();
    let used = async || {
        let of = Of {
            principal: "a".into(),
            limit: 9,
        };
        meta.read(of).await.unwrap().remove(0).1
    };
    assert_eq!(used().await, None);
    for (at, address) in [(NOW + 5, "10.0.0.5"), (NOW + 3, "10.0.0.3")] {
        let (id, address) = ("a.1".into(), address.into());
        meta.write(Use { id, at, address }).await.unwrap();
        assert_eq!(used().await, Some((NOW + 5, "10.0.0.5".into())));
    }
    let id = "a.1".to_owned();
    meta.write(Revoke { id, at: NOW }).await.unwrap();
    let (row, local, most) = (secret("a", 1), true, 9);
    meta.write(Add { row, local, most }).await.unwrap();
    assert_eq!(used().await, None);
}

/// What ended long ago is forgotten, the first that ended first; what never ends stays.
pub async fn ends(meta: Meta) {
    for number in [3, 1, 2, 9] {
        let expires_at = (number < 9).then_some(NOW + number);
        let (local, most) = (false, 9);
        let row = CredentialRow {
            expires_at,
            ..secret("a", number)
        };
        meta.write(Add { row, local, most }).await.unwrap();
    }
    let forget = async |ended_before: i64, limit: u32| {
        let forget = Forget {
            ended_before,
            limit,
        };
        meta.write(forget).await.unwrap()
    };
    assert_eq!(forget(NOW + 1, 9).await, 0);
    assert_eq!(forget(NOW + 9, 1).await, 1);
    let left: Vec<_> = ids(&meta, "a")
        .await
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(left, ["a.2", "a.3", "a.9"]);
    assert_eq!(forget(i64::MAX, 9).await, 2);
    assert_eq!(ids(&meta, "a").await.len(), 1);
}
