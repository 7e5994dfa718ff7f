//! Accounts from outside: whose they are, what counts the epoch up, and what nobody gets by a name alone.

use super::NOW;
use crate::access::account::{
    AccountRow, Arrive, Arrived, Get, GroupsOf, InGroup, IsIn, Link, Linked, MOST_ACCOUNTS, Of,
    Providers, Unlink,
};
use crate::access::source::{self, MOST_SOURCES, Source};
use crate::access::{By, Changed, Epoch, binding, group};
use crate::invitation::{self, InvitationRow};
use crate::tx::Tx;
use crate::{Error, Meta, Op, principal};

fn by() -> By {
    By {
        actor: "root".into(),
        epoch: None,
        at: NOW,
    }
}

/// Busy is an honest answer; callers come again.
async fn write<O: Op + Clone>(meta: &Meta, op: O) -> O::Out {
    loop {
        match meta.write(op.clone()).await {
            Ok(out) => return out,
            Err(Error::Busy(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// `subject` of `corp`, who wishes to be called `wished`.
fn arrive(subject: &str, wished: &str, groups: &[&str]) -> Arrive {
    Arrive {
        provider: "corp".into(),
        subject: subject.into(),
        issuer: "https://corp".into(),
        wished: (!wished.is_empty()).then(|| wished.into()),
        groups: groups.iter().map(|&name| name.into()).collect(),
        telling: vec!["root".into()],
        at: NOW,
    }
}

fn link(user: &str, subject: &str) -> Link {
    Link {
        provider: "corp".into(),
        subject: subject.into(),
        issuer: "https://corp".into(),
        user: user.into(),
        by: by(),
    }
}

fn unlink(user: &str, subject: &str) -> Unlink {
    Unlink {
        provider: "corp".into(),
        subject: subject.into(),
        user: user.into(),
        by: by(),
    }
}

async fn epoch(meta: &Meta) -> i64 {
    meta.read(Epoch).await.unwrap()
}

async fn get(meta: &Meta, subject: &str) -> Option<AccountRow> {
    let get = Get {
        provider: "corp".into(),
        subject: subject.into(),
    };
    meta.read(get).await.unwrap()
}

async fn groups_of(meta: &Meta, user: &str) -> Vec<String> {
    let (user, limit) = (user.to_owned(), 9);
    meta.scan(GroupsOf { user, limit }).await.unwrap()
}

async fn leads(meta: &Meta, group: &str, name: &str) -> Changed {
    let source = Source {
        group: group.into(),
        provider: "corp".into(),
        name: name.into(),
    };
    write(meta, source::Put { source, by: by() }).await
}

/// What was told is kept as told; the epoch counts only what gives somebody something.
pub async fn groups_are_kept_as_told(meta: Meta) {
    let group = group::Create {
        name: "devs".into(),
        by: by(),
    };
    assert_eq!(write(&meta, group).await, Changed::Done);
    assert_eq!(leads(&meta, "none", "eng").await, Changed::Unknown);
    assert_eq!(leads(&meta, "devs", "eng").await, Changed::Done);
    assert_eq!(leads(&meta, "devs", "eng").await, Changed::Same);
    let before = epoch(&meta).await;
    let came = write(&meta, arrive("1", "ann", &["a", "b"])).await;
    assert_eq!(came, Arrived::New("ann".into()));
    assert_eq!(epoch(&meta).await, before, "nothing that counts was told");
    assert_eq!(get(&meta, "1").await.unwrap().groups, ["a", "b"]);
    let came = write(&meta, arrive("1", "ann", &["b", "eng"])).await;
    assert_eq!(came, Arrived::Known("ann".into()));
    assert_eq!(epoch(&meta).await, before + 1);
    assert_eq!(groups_of(&meta, "ann").await, ["devs"]);
    write(&meta, arrive("1", "ann", &["b", "c", "eng"])).await;
    assert_eq!(epoch(&meta).await, before + 1);
    write(&meta, arrive("1", "ann", &["b", "c", "eng", "root"])).await;
    assert_eq!(
        epoch(&meta).await,
        before + 2,
        "the configuration names that one"
    );
    let is_in = |name: &str| IsIn {
        user: "ann".into(),
        provider: "corp".into(),
        name: name.into(),
    };
    assert!(meta.read(is_in("root")).await.unwrap());
    assert!(!meta.read(is_in("a")).await.unwrap());
    let all = InGroup {
        provider: "corp".into(),
        name: "eng".into(),
        after: String::new(),
        limit: 9,
    };
    let all = meta.scan(all).await.unwrap();
    assert_eq!(all, [("1".to_owned(), "ann".to_owned())]);
    write(&meta, arrive("1", "ann", &[])).await;
    assert_eq!(epoch(&meta).await, before + 3);
    assert!(groups_of(&meta, "ann").await.is_empty());
    let gone = source::Delete {
        source: Source {
            group: "devs".into(),
            provider: "corp".into(),
            name: "eng".into(),
        },
        by: by(),
    };
    assert_eq!(write(&meta, gone.clone()).await, Changed::Done);
    assert_eq!(write(&meta, gone).await, Changed::Unknown);
    for n in 0..MOST_SOURCES {
        let name = format!("g{n}");
        assert_eq!(leads(&meta, "devs", &name).await, Changed::Done);
    }
    assert_eq!(leads(&meta, "devs", "more").await, Changed::InUse);
    let delete = group::Delete {
        name: "devs".into(),
        by: by(),
    };
    assert_eq!(write(&meta, delete).await, Changed::Done);
    let of = source::Of {
        group: "devs".into(),
    };
    assert!(meta.scan(of).await.unwrap().is_empty());
    let all = source::List {
        after: None,
        limit: 9,
    };
    assert!(meta.scan(all).await.unwrap().is_empty());
}

/// Nobody becomes somebody by a name, and nobody gets what waits for a name.
pub async fn a_name_gives_nothing(meta: Meta) {
    let local = principal::Create {
        name: "bob".into(),
        kind: "user".into(),
        secret_hash: Some("hash".into()),
        at: NOW,
    };
    assert!(write(&meta, local).await);
    let robot = principal::Create {
        name: "a+ci".into(),
        kind: "robot".into(),
        secret_hash: None,
        at: NOW,
    };
    assert!(write(&meta, robot).await);
    assert_eq!(write(&meta, arrive("1", "bob", &[])).await, Arrived::Taken);
    assert_eq!(write(&meta, arrive("1", "a+ci", &[])).await, Arrived::Taken);
    assert_eq!(write(&meta, link("a+ci", "1")).await, Linked::Robot);
    assert_eq!(write(&meta, arrive("1", "", &[])).await, Arrived::Unknown);
    let granted = binding::Put {
        binding: binding::Binding {
            kind: "user".into(),
            name: "carol".into(),
            role: "reader".into(),
            ..binding::Binding::default()
        },
        custom_role: false,
        by: by(),
    };
    assert_eq!(write(&meta, granted).await, Changed::Done);
    let invited = invitation::Put {
        row: InvitationRow {
            name: "dora".into(),
            id: "1".into(),
            hash: vec![1],
            expires_at: NOW + 1,
            created_at: NOW,
            created_by: "root".into(),
        },
    };
    assert!(write(&meta, invited).await);
    let group = group::Create {
        name: "devs".into(),
        by: by(),
    };
    write(&meta, group).await;
    let member = group::Add {
        member: group::Member {
            group: "devs".into(),
            kind: "user".into(),
            name: "emil".into(),
        },
        by: by(),
    };
    write(&meta, member).await;
    for name in ["carol", "dora", "emil"] {
        let came = write(&meta, arrive("1", name, &[])).await;
        assert_eq!(came, Arrived::Promised, "{name}");
    }
    assert_eq!(write(&meta, link("dora", "1")).await, Linked::Invited);
    // Whoever may say whose an account is says so.
    assert_eq!(write(&meta, link("carol", "1")).await, Linked::Done);
    assert_eq!(write(&meta, link("carol", "1")).await, Linked::Same);
    assert_eq!(
        write(&meta, link("bob", "1")).await,
        Linked::Of("carol".into())
    );
    assert_eq!(
        write(&meta, arrive("1", "x", &[])).await,
        Arrived::Known("carol".into())
    );
    // The same account under another issuer is another one.
    let other = Arrive {
        issuer: "https://other".into(),
        ..arrive("1", "x", &[])
    };
    assert_eq!(
        write(&meta, other).await,
        Arrived::Issuer("https://corp".into())
    );
    let elsewhere = Arrive {
        provider: "club".into(),
        ..arrive("1", "carol", &[])
    };
    assert_eq!(write(&meta, elsewhere).await, Arrived::Taken);
    for n in 2..=MOST_ACCOUNTS {
        let linked = write(&meta, link("carol", &n.to_string())).await;
        assert_eq!(linked, Linked::Done);
    }
    assert_eq!(write(&meta, link("carol", "more")).await, Linked::Full);
    let stale = Link {
        by: By {
            epoch: Some(0),
            ..by()
        },
        ..link("bob", "8")
    };
    assert_eq!(write(&meta, stale).await, Linked::Stale);
    assert_eq!(write(&meta, unlink("bob", "1")).await, Changed::Unknown);
    assert_eq!(write(&meta, unlink("carol", "1")).await, Changed::Done);
    assert_eq!(get(&meta, "1").await, None);
    let providers = Providers {
        from: "a".into(),
        to: "z".into(),
        limit: 2,
    };
    let rows = meta.scan(providers).await.unwrap();
    assert_eq!(rows, vec![("carol".to_owned(), "corp".to_owned()); 2]);
}

/// As an older version removed a user.
#[derive(Clone)]
struct RemoveAlone(&'static str);

impl Op for RemoveAlone {
    type Out = u64;

    async fn run<T: Tx>(&self, tx: &mut T) -> crate::Result<u64> {
        tx.exec(
            "DELETE FROM principal WHERE name = $1",
            crate::vals![self.0],
        )
        .await
    }
}

/// A user who is locked out is not let in, and one who went takes the accounts along.
pub async fn accounts_go_with_their_user(meta: Meta) {
    write(&meta, arrive("1", "ann", &["a"])).await;
    let lock = |disabled| principal::Change {
        name: "ann".into(),
        kind: "user".into(),
        version: crate::Meant::Any,
        disabled: Some(disabled),
        expires_at: None,
        networks: None,
        at: NOW,
    };
    write(&meta, lock(true)).await;
    assert_eq!(
        write(&meta, arrive("1", "ann", &[])).await,
        Arrived::Locked("ann".into())
    );
    assert_eq!(get(&meta, "1").await.unwrap().groups, ["a"]);
    write(&meta, lock(false)).await;
    let all = binding::DeleteOf {
        kind: "user".into(),
        name: "ann".into(),
        by: by(),
    };
    assert_eq!(write(&meta, all).await, Changed::Done);
    assert_eq!(get(&meta, "1").await, None);
    let of = Of { user: "ann".into() };
    assert!(meta.read(of).await.unwrap().is_empty());
    // An older version takes the user alone; whoever gets the name is not whom the account means.
    write(&meta, arrive("2", "ben", &["a"])).await;
    assert_eq!(write(&meta, RemoveAlone("ben")).await, 1);
    let again = principal::Create {
        name: "ben".into(),
        kind: "user".into(),
        secret_hash: None,
        at: NOW + 1,
    };
    assert!(write(&meta, again).await);
    assert_eq!(
        write(&meta, arrive("2", "ben", &["a"])).await,
        Arrived::Unknown
    );
    assert_eq!(
        write(&meta, arrive("2", "ben", &["a"])).await,
        Arrived::Taken
    );
}
