//! Grants, groups, roles, namespaces, accounts, and machines that sign in.

use super::{NOW, came, lock_out, remove, robot, told};
use crate::access::account::{self, Link, Unlink};
use crate::access::binding::{self, Binding, DeleteEnded};
use crate::access::group::{self, Member};
use crate::access::source::{self, Source};
use crate::access::workload::{
    DeleteIssuer, DeleteRule, Issuers, PutIssuer, PutRule, Reseal, Rules,
};
use crate::access::{By, namespace, role};
use crate::credential::{self, CreateRobot};
use crate::invitation::{InvitationRow, Put};
use crate::{Meant, Meta, principal};

fn by() -> By {
    By {
        actor: "root".into(),
        epoch: None,
        at: NOW,
    }
}

/// The role on the path of the label; the end makes it another one.
fn binding(label: &str, (kind, name): (&str, &str), role: &str, expires_at: i64) -> Binding {
    Binding {
        namespace: label.into(),
        kind: kind.into(),
        name: name.into(),
        role: role.into(),
        networks: String::new(),
        tags: String::new(),
        sign_in: String::new(),
        expires_at,
    }
}

/// Somebody else, who comes behind the label in each list.
fn other(label: &str) -> String {
    format!("{label}z")
}

fn owner(label: &str, subject: (&str, &str)) -> Binding {
    binding(label, subject, "owner", 0)
}

fn grant(binding: Binding, custom_role: bool) -> binding::Put {
    binding::Put {
        binding,
        custom_role,
        by: by(),
    }
}

fn revoke(binding: Binding) -> binding::Delete {
    binding::Delete { binding, by: by() }
}

fn custom(label: &str) -> binding::Put {
    grant(binding(label, ("user", label), label, 0), true)
}

fn put_role(label: &str, permissions: &str) -> role::Put {
    role::Put {
        name: label.into(),
        permissions: permissions.into(),
        by: by(),
    }
}

fn delete_role(label: &str) -> role::Delete {
    let (name, by) = (label.into(), by());
    role::Delete { name, by }
}

fn put_namespace(label: &str, visibility: &str) -> namespace::Put {
    namespace::Put {
        path: label.into(),
        visibility: visibility.into(),
        by: by(),
    }
}

fn delete_namespace(label: &str) -> namespace::Delete {
    let (path, by) = (label.into(), by());
    namespace::Delete { path, by }
}

fn create_group(label: &str) -> group::Create {
    let (name, by) = (label.into(), by());
    group::Create { name, by }
}

fn delete_group(label: &str) -> group::Delete {
    let (name, by) = (label.into(), by());
    group::Delete { name, by }
}

fn member(label: &str, kind: &str, name: &str) -> Member {
    Member {
        group: label.into(),
        kind: kind.into(),
        name: name.into(),
    }
}

fn join(label: &str, name: &str) -> group::Add {
    let (member, by) = (member(label, "user", name), by());
    group::Add { member, by }
}

fn quit(label: &str, name: &str) -> group::Remove {
    let (member, by) = (member(label, "user", name), by());
    group::Remove { member, by }
}

fn source(label: &str) -> Source {
    Source {
        group: label.into(),
        provider: label.into(),
        name: "a".into(),
    }
}

fn put_source(label: &str) -> source::Put {
    let (source, by) = (source(label), by());
    source::Put { source, by }
}

fn delete_source(label: &str) -> source::Delete {
    let (source, by) = (source(label), by());
    source::Delete { source, by }
}

fn link(label: &str, subject: &str) -> Link {
    Link {
        provider: label.into(),
        subject: subject.into(),
        issuer: String::new(),
        user: label.into(),
        by: by(),
    }
}

fn unlink(label: &str) -> Unlink {
    Unlink {
        provider: label.into(),
        subject: "1".into(),
        user: label.into(),
        by: by(),
    }
}

fn invite(label: &str) -> Put {
    Put {
        row: InvitationRow {
            name: label.into(),
            id: format!("{label} 1"),
            hash: format!("{label} 1").into_bytes(),
            expires_at: NOW + 9,
            created_at: NOW,
            created_by: "root".into(),
        },
    }
}

fn create_user(label: &str) -> principal::Create {
    principal::Create {
        name: label.into(),
        kind: "user".into(),
        secret_hash: None,
        at: NOW,
    }
}

fn create_robot(label: &str) -> CreateRobot {
    CreateRobot {
        secret: super::secret(label, 1),
        expires_at: NOW + 9,
        networks: String::new(),
    }
}

fn extend(label: &str, expires_at: i64) -> credential::Extend {
    credential::Extend {
        name: label.into(),
        expires_at,
        at: NOW,
    }
}

fn issuer(label: &str, settings: &str) -> PutIssuer {
    PutIssuer {
        name: label.into(),
        settings: format!("{{\"it\":\"{settings}\"}}"),
        secret: Some(b"sealed".to_vec()),
        version: Meant::Any,
        by: by(),
    }
}

fn delete_issuer(label: &str) -> DeleteIssuer {
    DeleteIssuer {
        name: label.into(),
        version: Meant::Any,
        by: by(),
    }
}

fn reseal(label: &str, to: &str) -> Reseal {
    Reseal {
        name: label.into(),
        from: b"sealed".to_vec(),
        to: Some(to.into()),
    }
}

fn rule(label: &str, conditions: &str) -> PutRule {
    PutRule {
        name: label.into(),
        issuer: label.into(),
        conditions: format!("{{\"it\":\"{conditions}\"}}"),
        version: Meant::Any,
        by: by(),
    }
}

fn delete_rule(label: &str) -> DeleteRule {
    DeleteRule {
        name: label.into(),
        version: Meant::Any,
        by: by(),
    }
}

async fn ruled(meta: &Meta, label: &str) {
    told(meta.clone(), issuer(label, "a")).await;
    told(meta.clone(), rule(label, "a")).await;
}

/// A group that owns the path, with one in it.
async fn owners(meta: &Meta, label: &str) {
    told(meta.clone(), create_group(label)).await;
    told(meta.clone(), join(label, label)).await;
    told(meta.clone(), grant(owner(label, ("group", label)), false)).await;
}

/// Two users who own the path.
async fn two_owners(meta: &Meta, label: &str) {
    told(meta.clone(), create_user(label)).await;
    for name in [label, &other(label)] {
        told(meta.clone(), grant(owner(label, ("user", name)), false)).await;
    }
}

/// What others left ends as well, so that nothing is to be told of it.
async fn forget_ended(meta: Meta, _: String) -> String {
    let (before, by) = (NOW, by());
    told(meta, DeleteEnded { before, by }).await;
    String::new()
}

fn ended(label: &str) -> Binding {
    binding(label, ("user", label), "reader", NOW - 1)
}

pairs! {
    "grant, grant the same": |meta, label| drop((meta, label));
        told(meta, grant(owner(&label, ("user", &label)), false)); told(meta, grant(owner(&label, ("user", &label)), false));
    "take a grant from one of two owners, take the other's": |meta, label| two_owners(&meta, &label).await;
        told(meta, revoke(owner(&label, ("user", &label)))); told(meta, revoke(owner(&label, ("user", &other(&label)))));
    "take a grant from one of two owners, lock the other out": |meta, label| two_owners(&meta, &label).await;
        told(meta, revoke(owner(&label, ("user", &other(&label))))); told(meta, lock_out(&label));
    "take a grant from one of two owners, remove the other": |meta, label| two_owners(&meta, &label).await;
        told(meta, revoke(owner(&label, ("user", &other(&label))))); told(meta, remove(&label, "user"));
    "grant a role, remove it": |meta, label| told(meta, put_role(&label, "pull")).await;
        told(meta, custom(&label)); told(meta, delete_role(&label));
    "change a role, change it as well": |meta, label| told(meta, put_role(&label, "pull")).await;
        told(meta, put_role(&label, "push")); told(meta, put_role(&label, "delete"));
    "change a role, remove it": |meta, label| told(meta, put_role(&label, "pull")).await;
        told(meta, put_role(&label, "push")); told(meta, delete_role(&label));
    "make a namespace, remove it": |meta, label| told(meta, put_namespace(&label, "public")).await;
        told(meta, put_namespace(&label, "private")); told(meta, delete_namespace(&label));
    "grant on a namespace, remove it": |meta, label| told(meta, put_namespace(&label, "public")).await;
        told(meta, grant(owner(&label, ("user", &label)), false)); told(meta, delete_namespace(&label));
    "grant to a group, remove it": |meta, label| { told(meta.clone(), create_group(&label)).await;
        told(meta, grant(owner(&label, ("user", &other(&label))), false)).await; };
        told(meta, grant(owner(&label, ("group", &label)), false)); told(meta, delete_group(&label));
    "make a group, make it as well": |meta, label| drop((meta, label));
        told(meta, create_group(&label)); told(meta, create_group(&label));
    "put somebody into a group, remove it": |meta, label| told(meta, create_group(&label)).await;
        told(meta, join(&label, &label)); told(meta, delete_group(&label));
    "the last of a group that owns leaves, an owner is taken the grant": |meta, label| { owners(&meta, &label).await;
        told(meta, grant(owner(&label, ("user", &other(&label))), false)).await; };
        told(meta, quit(&label, &label)); told(meta, revoke(owner(&label, ("user", &other(&label)))));
    "the last of a group leaves, another one comes": |meta, label| owners(&meta, &label).await;
        told(meta, quit(&label, &label)); told(meta, join(&label, &other(&label)));
    "forget grants that ended, forget them as well": |meta, label| told(meta, grant(ended(&label), false)).await;
        forget_ended(meta, label); forget_ended(meta, label);
    "forget grants that ended, grant one": |meta, label| told(meta, grant(ended(&label), false)).await;
        forget_ended(meta, label); told(meta, grant(ended(&label), false));
    "give a group a source, remove it": |meta, label| told(meta, create_group(&label)).await;
        told(meta, put_source(&label)); told(meta, delete_group(&label));
    "give a group a source, give it the same": |meta, label| told(meta, create_group(&label)).await;
        told(meta, put_source(&label)); told(meta, put_source(&label));
    "take a source from a group, somebody of it comes": |meta, label| { told(meta.clone(), create_group(&label)).await;
        told(meta, put_source(&label)).await; };
        told(meta, delete_source(&label)); told(meta, came(&label, "1"));
    "take a source from a group, take it as well": |meta, label| { told(meta.clone(), create_group(&label)).await;
        told(meta, put_source(&label)).await; };
        told(meta, delete_source(&label)); told(meta, delete_source(&label));
    "link an account, link another one": |meta, label| drop((meta, label));
        told(meta, link(&label, "1")); told(meta, link(&label, "2"));
    "link an account, it comes": |meta, label| drop((meta, label));
        told(meta, link(&label, "1")); told(meta, came(&label, "1"));
    "link an account, make a user of that name": |meta, label| drop((meta, label));
        told(meta, link(&label, "1")); told(meta, create_user(&label));
    "link an account, make a robot of that name": |meta, label| drop((meta, label));
        told(meta, link(&label, "1")); told(meta, create_robot(&label));
    "link an account, invite somebody of that name": |meta, label| drop((meta, label));
        told(meta, link(&label, "1")); told(meta, invite(&label));
    "link an account, unlink it": |meta, label| told(meta, link(&label, "1")).await;
        told(meta, link(&label, "2")); told(meta, unlink(&label));
    "unlink an account, it comes": |meta, label| told(meta, link(&label, "1")).await;
        told(meta, unlink(&label)); told(meta, came(&label, "1"));
    "unlink an account, remove its user": |meta, label| told(meta, link(&label, "1")).await;
        told(meta, unlink(&label)); told(meta, remove(&label, "user"));
    "an account comes, somebody of that name is invited": |meta, label| drop((meta, label));
        told(meta, came(&label, "1")); told(meta, invite(&label));
    "an account comes, its name is granted something": |meta, label| drop((meta, label));
        told(meta, came(&label, "1")); told(meta, grant(owner(&label, ("user", &label)), false));
    "an account comes, make a user of that name": |meta, label| drop((meta, label));
        told(meta, came(&label, "1")); told(meta, create_user(&label));
    "make a robot, make a user of that name": |meta, label| drop((meta, label));
        told(meta, create_robot(&label)); told(meta, create_user(&label));
    "move the end of a robot, move it elsewhere": |meta, label| robot(&meta, &label).await;
        told(meta, extend(&label, NOW + 20)); told(meta, extend(&label, NOW + 30));
    "move the end of a robot, remove it": |meta, label| robot(&meta, &label).await;
        told(meta, extend(&label, NOW + 20)); told(meta, remove(&label, "robot"));
    "change an issuer, change it as well": |meta, label| told(meta, issuer(&label, "a")).await;
        told(meta, issuer(&label, "b")); told(meta, issuer(&label, "c"));
    "change an issuer, seal its secret anew": |meta, label| told(meta, issuer(&label, "a")).await;
        told(meta, PutIssuer { secret: Some(b"other".to_vec()), ..issuer(&label, "a") }); told(meta, reseal(&label, "again"));
    "seal an issuer's secret anew, seal it as well": |meta, label| told(meta, issuer(&label, "a")).await;
        told(meta, reseal(&label, "again")); told(meta, reseal(&label, "once more"));
    "make a rule, remove its issuer": |meta, label| told(meta, issuer(&label, "a")).await;
        told(meta, rule(&label, "a")); told(meta, delete_issuer(&label));
    "remove a rule, remove its issuer": |meta, label| ruled(&meta, &label).await;
        told(meta, delete_rule(&label)); told(meta, delete_issuer(&label));
    "remove a rule, grant it something": |meta, label| ruled(&meta, &label).await;
        told(meta, delete_rule(&label)); told(meta, grant(binding(&label, ("workload", &label), "reader", 0), false));
    "remove a rule, change it": |meta, label| ruled(&meta, &label).await;
        told(meta, delete_rule(&label)); told(meta, rule(&label, "b"));
}

async fn look(meta: &Meta, label: &str) -> Vec<String> {
    let mut all = super::people(meta, label).await;
    all.extend(seen(meta, label).await);
    all
}

/// What is seen of rights.
pub(super) async fn seen(meta: &Meta, label: &str) -> Vec<String> {
    let mut seen = Vec::new();
    let (namespace, limit) = (label.to_owned(), 9);
    let on = binding::On {
        namespace,
        subject: None,
        limit,
    };
    for row in meta.scan(on).await.expect("bindings") {
        let it = row.binding;
        seen.push(format!("{} {} is {}", it.kind, it.name, it.role));
    }
    let name = label.to_owned();
    let role = meta.read(role::Get { name }).await.expect("a role");
    let path = label.to_owned();
    let place = meta.read(namespace::Get { path }).await;
    seen.push(format!("{role:?} {:?}", place.expect("a namespace")));
    let group = label.to_owned();
    let members = meta.read(group::In { group, limit }).await;
    seen.push(format!("{:?}", members.expect("members")));
    let group = label.to_owned();
    let sources = meta.read(source::Of { group }).await.expect("sources");
    seen.push(format!("{sources:?}"));
    let user = label.to_owned();
    for row in meta.read(account::Of { user }).await.expect("accounts") {
        seen.push(format!("{} {:?}", row.subject, row.groups));
    }
    // What stands just before the label, and what follows.
    let (after, limit) = (label[..label.len() - 1].to_owned(), 50);
    let rows = meta.read(Issuers { after, limit }).await.expect("issuers");
    for row in rows.into_iter().filter(|row| row.name == label) {
        let secret = row.secret.unwrap_or_default();
        let secret = String::from_utf8_lossy(&secret).into_owned();
        seen.push(format!("{} {secret} {}", row.settings, row.version));
    }
    let after = label[..label.len() - 1].to_owned();
    let rows = meta.read(Rules { after, limit }).await.expect("rules");
    for row in rows.into_iter().filter(|row| row.name == label) {
        seen.push(format!("{} {}", row.conditions, row.version));
    }
    seen
}
