//! Issuers of tokens and rules on them: what is kept, what a change counts, and what goes with a rule.

use super::NOW;
use crate::access::binding::{self, Binding};
use crate::access::group::{self, Member};
use crate::access::workload::{
    DeleteIssuer, DeleteRule, IssuerRow, Issuers, PutIssuer, PutRule, Reseal, RuleRow, Rules,
    Version, WORKLOAD,
};
use crate::access::{By, Changed, Epoch, STEP};
use crate::{Error, Meant, Meta, Op, event};

fn by() -> By {
    By {
        actor: "root".into(),
        epoch: None,
        at: NOW,
    }
}

fn issuer(name: &str, settings: &str, version: Option<i64>) -> PutIssuer {
    PutIssuer {
        name: name.into(),
        settings: settings.into(),
        secret: None,
        version: version.into(),
        by: by(),
    }
}

fn rule(name: &str, issuer: &str, conditions: &str, version: Option<i64>) -> PutRule {
    PutRule {
        name: name.into(),
        issuer: issuer.into(),
        conditions: conditions.into(),
        version: version.into(),
        by: by(),
    }
}

fn no_rule(name: &str, version: Option<i64>) -> DeleteRule {
    let name = name.into();
    DeleteRule {
        name,
        version: version.into(),
        by: by(),
    }
}

fn no_issuer(name: &str) -> DeleteIssuer {
    DeleteIssuer {
        name: name.into(),
        version: Meant::Any,
        by: by(),
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

async fn issuers(meta: &Meta) -> Vec<IssuerRow> {
    let mut all: Vec<IssuerRow> = Vec::new();
    loop {
        let after = all.last().map_or_else(String::new, |row| row.name.clone());
        let page = meta.scan(Issuers { after, limit: 1 }).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

async fn rules(meta: &Meta) -> Vec<RuleRow> {
    let mut all: Vec<RuleRow> = Vec::new();
    loop {
        let after = all.last().map_or_else(String::new, |row| row.name.clone());
        let page = meta.scan(Rules { after, limit: 1 }).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

async fn counts(meta: &Meta) -> (i64, i64) {
    (
        meta.read(Epoch).await.unwrap(),
        meta.read(Version).await.unwrap(),
    )
}

/// Each change counts the epoch up and is an event without the secret; nothing else does.
pub async fn issuers_and_rules_are_kept(meta: Meta) {
    assert_eq!(counts(&meta).await, (0, 0));
    let sealed = PutIssuer {
        secret: Some(b"sealed".to_vec()),
        ..issuer("prod", "{\"a\":1}", None)
    };
    assert_eq!(write(&meta, sealed.clone()).await, Changed::Done);
    assert_eq!(write(&meta, sealed.clone()).await, Changed::Same);
    assert_eq!(write(&meta, issuer("dev", "{}", None)).await, Changed::Done);
    assert_eq!(
        write(&meta, rule("r", "none", "[]", None)).await,
        Changed::Unknown
    );
    assert_eq!(
        write(&meta, rule("r", "prod", "[]", None)).await,
        Changed::Done
    );
    assert_eq!(
        write(&meta, rule("r", "prod", "[]", None)).await,
        Changed::Same
    );
    assert_eq!(
        write(&meta, rule("r", "dev", "[]", None)).await,
        Changed::InUse
    );
    assert_eq!(
        write(&meta, rule("s", "dev", "[]", None)).await,
        Changed::Done
    );
    assert_eq!(counts(&meta).await, (4, 4));
    let kept = issuers(&meta).await;
    let names: Vec<_> = kept.iter().map(|row| (&*row.name, row.version)).collect();
    assert_eq!(names, [("dev", 1), ("prod", 1)]);
    assert_eq!(
        (&*kept[1].settings, kept[1].secret.as_deref()),
        ("{\"a\":1}", Some(&b"sealed"[..]))
    );
    assert_eq!((kept[1].created_at, &*kept[1].created_by), (NOW, "root"));
    let names: Vec<_> = rules(&meta)
        .await
        .into_iter()
        .map(|row| (row.name, row.issuer))
        .collect();
    assert_eq!(
        names,
        [("r".into(), "prod".into()), ("s".into(), "dev".into())]
    );
    // Another right is none of theirs.
    let create = group::Create {
        name: "g".into(),
        by: by(),
    };
    write(&meta, create).await;
    assert_eq!(counts(&meta).await, (5, 4));
    assert_eq!(write(&meta, no_issuer("prod")).await, Changed::InUse);
    assert_eq!(write(&meta, no_rule("r", None)).await, Changed::Done);
    assert_eq!(write(&meta, no_rule("r", None)).await, Changed::Unknown);
    assert_eq!(write(&meta, no_issuer("prod")).await, Changed::Done);
    assert_eq!(write(&meta, no_issuer("prod")).await, Changed::Unknown);
    assert_eq!(counts(&meta).await, (7, 7));
    let (after, limit) = (0, 100);
    let told = meta.scan(event::List { after, limit }).await.unwrap();
    let told: Vec<String> = told.into_iter().map(|row| row.payload).collect();
    let told = told.join("\n");
    assert!(
        told.contains("workload issuer") && told.contains("workload rule"),
        "{told}"
    );
    assert!(!told.contains("sealed"), "{told}");
    // What is long stands in the log by its digest.
    let long = format!("{{\"jwks\":\"{}\"}}", "k".repeat(100_000));
    write(&meta, issuer("dev", &long, None)).await;
    let many: Vec<String> = (0..5_000).map(|n| format!("\"value {n}\"")).collect();
    let many = format!("[{}]", many.join(","));
    write(&meta, rule("s", "dev", &many, None)).await;
    let (after, limit) = (0, 100);
    let told = meta.scan(event::List { after, limit }).await.unwrap();
    for row in told {
        assert!(row.payload.len() < 2_000, "{}", row.payload);
    }
    let reseal = |from: &[u8], to: Option<&[u8]>| Reseal {
        name: "prod".into(),
        from: from.to_vec(),
        to: to.map(<[u8]>::to_vec),
    };
    assert!(!write(&meta, reseal(b"sealed", None)).await);
    write(&meta, sealed).await;
    assert!(!write(&meta, reseal(b"other", None)).await);
    assert!(write(&meta, reseal(b"sealed", Some(b"again"))).await);
    assert!(write(&meta, reseal(b"again", None)).await);
    assert_eq!(issuers(&meta).await[1].secret, None);
}

/// What somebody changed meanwhile is not overwritten.
pub async fn a_change_is_meant_for_one_version_of_them(meta: Meta) {
    assert_eq!(
        write(&meta, issuer("a", "{}", Some(1))).await,
        Changed::Differs
    );
    assert_eq!(
        write(&meta, issuer("a", "{}", Some(0))).await,
        Changed::Done
    );
    assert_eq!(
        write(&meta, issuer("a", "{}", Some(0))).await,
        Changed::Differs
    );
    assert_eq!(
        write(&meta, issuer("a", "{\"b\":1}", Some(1))).await,
        Changed::Done
    );
    assert_eq!(issuers(&meta).await[0].version, 2);
    assert_eq!(
        write(&meta, rule("r", "a", "[]", Some(3))).await,
        Changed::Differs
    );
    assert_eq!(
        write(&meta, rule("r", "a", "[]", Some(0))).await,
        Changed::Done
    );
    assert_eq!(
        write(&meta, rule("r", "a", "[1]", Some(1))).await,
        Changed::Done
    );
    assert_eq!(write(&meta, no_rule("r", Some(1))).await, Changed::Differs);
    assert_eq!(write(&meta, no_rule("r", Some(2))).await, Changed::Done);
    let gone = DeleteIssuer {
        version: Some(1).into(),
        ..no_issuer("a")
    };
    assert_eq!(write(&meta, gone).await, Changed::Differs);
    let gone = DeleteIssuer {
        version: Some(2).into(),
        ..no_issuer("a")
    };
    assert_eq!(write(&meta, gone).await, Changed::Done);
    // Whoever decided on rights that are others by now looks again.
    let stale = PutIssuer {
        by: By {
            epoch: Some(0),
            ..by()
        },
        ..issuer("a", "{}", None)
    };
    assert_eq!(write(&meta, stale).await, Changed::Stale);
}

fn bound(rule: &str, namespace: &str) -> binding::Put {
    binding::Put {
        binding: Binding {
            namespace: namespace.into(),
            kind: WORKLOAD.into(),
            name: rule.into(),
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

async fn held(meta: &Meta) -> usize {
    let (after, limit) = (None, 1_000);
    meta.scan(binding::List { after, limit })
        .await
        .unwrap()
        .len()
}

/// However much it was, in steps; the rule itself goes last.
pub async fn a_rule_takes_what_it_had_along(meta: Meta) {
    write(&meta, issuer("a", "{}", None)).await;
    for name in ["r", "s"] {
        write(&meta, rule(name, "a", "[]", None)).await;
    }
    for n in 0..STEP + 2 {
        write(&meta, bound("r", &format!("n{n}"))).await;
    }
    write(&meta, bound("s", "n")).await;
    write(
        &meta,
        group::Create {
            name: "g".into(),
            by: by(),
        },
    )
    .await;
    for name in ["r", "s"] {
        let member = Member {
            group: "g".into(),
            kind: WORKLOAD.into(),
            name: name.into(),
        };
        write(&meta, group::Add { member, by: by() }).await;
    }
    assert_eq!(write(&meta, no_rule("r", None)).await, Changed::More);
    assert_eq!((held(&meta).await, rules(&meta).await.len()), (3, 2));
    assert_eq!(write(&meta, no_rule("r", None)).await, Changed::Done);
    assert_eq!((held(&meta).await, rules(&meta).await.len()), (1, 1));
    let (after, limit) = (None, 9);
    let members = meta.scan(group::Members { after, limit }).await.unwrap();
    let names: Vec<_> = members.into_iter().map(|member| member.name).collect();
    assert_eq!(names, ["s"]);
    // Nothing is granted to a rule that is gone: whoever gets its name later would find it.
    assert_eq!(write(&meta, bound("r", "late")).await, Changed::Unknown);
    let member = Member {
        group: "g".into(),
        kind: WORKLOAD.into(),
        name: "r".into(),
    };
    assert_eq!(
        write(&meta, group::Add { member, by: by() }).await,
        Changed::Unknown
    );
}

/// A rule is nobody who could look after a namespace: the last user who owns it stays, whatever else is in the group.
pub async fn rules_keep_no_namespace(meta: Meta) {
    write(&meta, issuer("a", "{}", None)).await;
    write(&meta, rule("r", "a", "[]", None)).await;
    write(
        &meta,
        group::Create {
            name: "g".into(),
            by: by(),
        },
    )
    .await;
    let member = |kind: &str, name: &str| Member {
        group: "g".into(),
        kind: kind.into(),
        name: name.into(),
    };
    for member in [member("user", "alice"), member(WORKLOAD, "r")] {
        assert_eq!(
            write(&meta, group::Add { member, by: by() }).await,
            Changed::Done
        );
    }
    let mut owner = bound("g", "team");
    owner.binding.kind = "group".into();
    owner.binding.role = "owner".into();
    assert_eq!(write(&meta, owner).await, Changed::Done);
    let remove = |member: Member| group::Remove { member, by: by() };
    let last = write(&meta, remove(member("user", "alice"))).await;
    assert_eq!(last, Changed::Last("team".into()));
    assert_eq!(
        write(&meta, remove(member(WORKLOAD, "r"))).await,
        Changed::Done
    );
}
