//! Changing rights, over real rows: who may give what, what must stay, and when it counts.

use wharf_meta::{Meta, SqliteOptions, principal};
use wharf_oci::RepositoryName;

use super::super::*;
use super::NOW;

pub(super) struct Hall {
    _folder: tempfile::TempDir,
    pub(super) meta: Meta,
    pub(super) access: Access,
}

impl Hall {
    pub(super) async fn new(rights: Rights) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (meta, _) = Meta::open(SqliteOptions::new(folder.path().join("meta.db"))).unwrap();
        let options = AccessOptions {
            rights,
            ..AccessOptions::default()
        };
        let access = Access::open(options, SecretKeys::of_tests(), meta.clone(), NOW)
            .await
            .unwrap();
        Self {
            _folder: folder,
            meta,
            access,
        }
    }

    /// Over the admin socket.
    pub(super) async fn grant(&self, line: &str) -> Result<Change, ChangeError> {
        self.grant_as(Changer::Operator, line).await
    }

    /// `WHO ROLE PATH`, an empty path being everywhere.
    async fn grant_as(&self, changer: Changer<'_>, line: &str) -> Result<Change, ChangeError> {
        self.access.grant(changer, &granting(line), NOW).await
    }

    async fn revoke(&self, line: &str) -> Result<Vec<Binding>, ChangeError> {
        self.revoke_as(Changer::Operator, line).await
    }

    async fn revoke_as(
        &self,
        changer: Changer<'_>,
        line: &str,
    ) -> Result<Vec<Binding>, ChangeError> {
        let Granting {
            subject, role, on, ..
        } = granting(line);
        let role = Some(role.as_str());
        self.access.revoke(changer, &subject, role, &on, NOW).await
    }

    pub(super) fn may(&self, who: &str, permission: Permission, on: &str) -> bool {
        let name = RepositoryName::parse(on).unwrap();
        self.access.allow(&user(who), permission, Some(&name))
    }
}

pub(super) fn granting(line: &str) -> Granting {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap().to_owned();
    Granting {
        subject: word().parse().unwrap(),
        role: word(),
        on: words.next().unwrap_or_default().to_owned(),
        conditions: Conditions::default(),
    }
}

pub(super) fn user(name: &str) -> Caller {
    let principal = match name {
        "anonymous" => Principal::Anonymous,
        name => Principal::User {
            name: name.into(),
            source: Source::Local,
        },
    };
    Caller::direct(principal).under(Circumstances {
        address: None,
        at: NOW,
        sign_in: SignIn::Password,
    })
}

/// One that reads all rows does so for everybody who waits meanwhile.
#[tokio::test]
async fn many_changes_at_once_are_read_together() {
    let hall = Hall::new(Rights::default()).await;
    let other = Access::open(
        AccessOptions::default(),
        SecretKeys::of_tests(),
        hall.meta.clone(),
        NOW,
    );
    let other = Arc::new(other.await.unwrap());
    for n in 0..5 {
        hall.grant(&format!("u{n} writer team/a")).await.unwrap();
    }
    let loads = || load::loads::LOADS.with(std::cell::Cell::get);
    let before = loads();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let other = other.clone();
        all.spawn(async move { other.rights.refresh().await });
    }
    for outcome in all.join_all().await {
        outcome.unwrap();
    }
    assert_eq!(loads() - before, 1);
    let name = RepositoryName::parse("team/a/x").unwrap();
    assert!(other.allow(&user("u4"), Permission::Push, Some(&name)));
}

#[tokio::test]
async fn a_change_counts_when_it_is_acknowledged_and_outlives_the_process() {
    let hall = Hall::new(Rights::default()).await;
    assert!(!hall.may("alice", Permission::Push, "team/a/x"));
    assert_eq!(
        hall.grant("alice writer team/a").await.unwrap(),
        Change::Made
    );
    assert!(hall.may("alice", Permission::Push, "team/a/x"));
    assert!(!hall.may("alice", Permission::Push, "team/ab"));
    assert_eq!(
        hall.grant("alice writer team/a/").await.unwrap(),
        Change::Same
    );
    let again = Access::open(
        AccessOptions::default(),
        SecretKeys::of_tests(),
        hall.meta.clone(),
        NOW,
    );
    let again = again.await.unwrap();
    let name = RepositoryName::parse("team/a").unwrap();
    assert!(again.allow(&user("alice"), Permission::Push, Some(&name)));

    // A reload of the configuration keeps the rows.
    let rights = Rights {
        anonymous: Role::Reader,
        ..Rights::default()
    };
    hall.access.reload(&rights).unwrap();
    assert!(hall.may("anonymous", Permission::Pull, "x"));
    assert!(hall.may("alice", Permission::Push, "team/a"));
    assert_eq!(hall.revoke("alice writer team/a").await.unwrap().len(), 1);
    assert!(!hall.may("alice", Permission::Push, "team/a"));
    assert!(hall.may("anonymous", Permission::Pull, "x"));
    let error = hall.revoke("alice writer team/a").await.unwrap_err();
    assert!(matches!(error, ChangeError::Unknown(_)), "{error}");
}

#[tokio::test]
async fn one_cannot_grant_what_one_does_not_have() {
    let hall = Hall::new(Rights::default()).await;
    hall.grant("olga owner team").await.unwrap();
    let olga = user("olga");
    let olga = Changer::Caller(&olga);
    for line in [
        "bob owner team",
        "bob writer team/a",
        "group-less reader team",
    ] {
        hall.grant_as(olga, line).await.unwrap();
    }
    // Above her namespace, beside it, and more than she has.
    for line in ["bob reader ", "bob reader teams", "bob reader other/team"] {
        let error = hall.grant_as(olga, line).await.unwrap_err();
        assert!(
            matches!(error, ChangeError::Denied { .. }),
            "{line}: {error}"
        );
    }
    let error = hall.grant_as(olga, "bob admin team").await.unwrap_err();
    let told = error.to_string();
    assert!(
        matches!(&error, ChangeError::NotHeld { missing, .. }
            if *missing == [Permission::Admin].into_iter().collect()),
        "{error}"
    );
    assert!(told.contains("olga") && told.contains("on team"), "{told}");

    // May grant, and no more than that.
    let clerk = [
        Permission::ManageBindings,
        Permission::Pull,
        Permission::Catalog,
    ];
    let clerk = Some(clerk.into_iter().collect());
    let operator = Changer::Operator;
    hall.access
        .set_role(operator, "clerk", clerk, NOW)
        .await
        .unwrap();
    hall.grant("carl clerk team").await.unwrap();
    let carl = user("carl");
    let carl = Changer::Caller(&carl);
    hall.grant_as(carl, "dave reader team").await.unwrap();
    let error = hall.grant_as(carl, "carl writer team").await.unwrap_err();
    assert!(matches!(error, ChangeError::NotHeld { .. }), "{error}");
    let error = hall.revoke_as(carl, "bob owner team").await.unwrap_err();
    assert!(matches!(error, ChangeError::NotHeld { .. }), "{error}");

    // What ends cannot be handed on for good.
    let until = Granting {
        conditions: Conditions {
            expires_at: Some(NOW + 1_000),
            ..Conditions::default()
        },
        ..granting("eve owner team")
    };
    hall.access.grant(operator, &until, NOW).await.unwrap();
    assert!(hall.may("eve", Permission::ManageBindings, "team"));
    let eve = user("eve");
    let eve = Changer::Caller(&eve);
    let error = hall.grant_as(eve, "eve reader team").await.unwrap_err();
    assert!(matches!(error, ChangeError::NotHeld { .. }), "{error}");
    // A writer manages nothing.
    let bob = user("dave");
    let error = hall
        .grant_as(Changer::Caller(&bob), "dave reader team")
        .await
        .unwrap_err();
    assert!(matches!(error, ChangeError::Denied { .. }), "{error}");
    // Groups and roles are the administrators', who have everything.
    let error = hall
        .access
        .set_group(olga, "g", true, NOW)
        .await
        .unwrap_err();
    assert!(matches!(error, ChangeError::Denied { .. }), "{error}");
    let all = Some(Role::Admin.permissions());
    let error = hall
        .access
        .set_role(olga, "all", all, NOW)
        .await
        .unwrap_err();
    assert!(matches!(error, ChangeError::Denied { .. }), "{error}");
}

/// The right to grant is gone by the time the transaction runs: it is decided anew, by the rows.
#[tokio::test]
async fn a_grant_by_somebody_who_was_revoked_meanwhile_is_refused() {
    let hall = Hall::new(Rights::default()).await;
    hall.grant("olga owner team").await.unwrap();
    hall.grant("otto owner team").await.unwrap();
    // Another process takes it away; this one has not heard of it.
    let other = Access::open(
        AccessOptions::default(),
        SecretKeys::of_tests(),
        hall.meta.clone(),
        NOW,
    );
    let other = other.await.unwrap();
    let (subject, role) = (Subject::User("olga".into()), Some("owner"));
    let gone = other.revoke(Changer::Operator, &subject, role, "team", NOW);
    assert_eq!(gone.await.unwrap().len(), 1);
    assert!(hall.may("olga", Permission::ManageBindings, "team"));
    let olga = user("olga");
    let error = hall
        .grant_as(Changer::Caller(&olga), "eve owner team")
        .await
        .unwrap_err();
    assert!(matches!(error, ChangeError::Denied { .. }), "{error}");
    assert!(
        !hall.may("olga", Permission::ManageBindings, "team"),
        "heard of it by that"
    );
}

#[tokio::test]
async fn the_last_owner_and_administrator_stay() {
    let hall = Hall::new(Rights::default()).await;
    hall.grant("olga owner team").await.unwrap();
    let error = hall.revoke("olga owner team").await.unwrap_err();
    assert!(error.to_string().contains("last owner of team"), "{error}");
    hall.grant("otto owner team").await.unwrap();
    hall.revoke("olga owner team").await.unwrap();
    // An administrator by row is the last one as long as nobody was made at a first start.
    hall.grant("anna admin ").await.unwrap();
    let error = hall.revoke("anna admin ").await.unwrap_err();
    assert!(error.to_string().contains("last administrator"), "{error}");
    let born = principal::Create {
        name: ADMIN.into(),
        kind: "user".into(),
        secret_hash: None,
        at: NOW,
    };
    hall.meta.write(born).await.unwrap();
    hall.revoke("anna admin ").await.unwrap();
    let error = hall.revoke("admin admin ").await.unwrap_err();
    assert!(error.to_string().contains("by birth"), "{error}");
    // With the namespace all grants on it go.
    let operator = Changer::Operator;
    let gone = hall.access.remove_namespace(operator, "team", NOW).await;
    assert_eq!(gone.unwrap(), Change::Made);
    assert!(!hall.may("otto", Permission::Pull, "team"));
}

#[tokio::test]
async fn groups_roles_and_namespaces_count_at_once() {
    let hall = Hall::new(Rights::default()).await;
    let (access, operator) = (&hall.access, Changer::Operator);
    let error = hall.grant("group:dev writer team").await.unwrap_err();
    assert!(
        error.to_string().contains("wharf group create dev"),
        "{error}"
    );
    access.set_group(operator, "dev", true, NOW).await.unwrap();
    hall.grant("group:dev writer team").await.unwrap();
    let alice = Subject::User("alice".into());
    let member = async |within| {
        access
            .set_member(operator, "dev", &alice, within, NOW)
            .await
    };
    assert!(!hall.may("alice", Permission::Push, "team"));
    assert_eq!(member(true).await.unwrap(), Change::Made);
    assert!(hall.may("alice", Permission::Push, "team"));
    assert_eq!(member(false).await.unwrap(), Change::Made);
    assert!(!hall.may("alice", Permission::Push, "team"));
    member(true).await.unwrap();
    access.set_group(operator, "dev", false, NOW).await.unwrap();
    assert!(!hall.may("alice", Permission::Push, "team"));

    let scan = |words: &str| Some(Permissions::parse(words).unwrap());
    access
        .set_role(operator, "scan", scan("pull"), NOW)
        .await
        .unwrap();
    hall.grant("alice scan team").await.unwrap();
    assert!(hall.may("alice", Permission::Pull, "team"));
    assert!(!hall.may("alice", Permission::Delete, "team"));
    access
        .set_role(operator, "scan", scan("pull,delete"), NOW)
        .await
        .unwrap();
    assert!(hall.may("alice", Permission::Delete, "team"));
    let error = access
        .set_role(operator, "scan", None, NOW)
        .await
        .unwrap_err();
    assert!(matches!(error, ChangeError::InUse(_)), "{error}");
    for name in ["writer", "none", "Scan", ""] {
        let error = access.set_role(operator, name, scan("pull"), NOW).await;
        assert!(matches!(error, Err(ChangeError::Wrong(_))), "{name}");
    }
    // What everybody holds cannot become more than everybody may be.
    hall.grant("signed-in scan open").await.unwrap();
    let error = access
        .set_role(operator, "scan", scan("pull,admin"), NOW)
        .await;
    assert!(matches!(error, Err(ChangeError::Wrong(_))));

    for (visibility, anonymous, signed_in) in [
        (Visibility::Public, true, true),
        (Visibility::Internal, false, true),
        (Visibility::Private, false, false),
    ] {
        access
            .set_namespace(operator, "lib", visibility, NOW)
            .await
            .unwrap();
        assert_eq!(hall.may("anonymous", Permission::Pull, "lib/x"), anonymous);
        assert_eq!(hall.may("bob", Permission::Pull, "lib/x"), signed_in);
        assert!(!hall.may("bob", Permission::Push, "lib/x"));
        assert!(!hall.may("bob", Permission::Pull, "library"));
    }
}

#[tokio::test]
async fn what_the_configuration_grants_is_listed_and_stays() {
    let hall = Hall::new(Rights {
        anonymous: Role::Reader,
        htpasswd: Role::Writer,
        grants: vec![Grant {
            who: Who::User("alice".into()),
            role: Role::Maintainer,
            on: Some("team".into()),
        }],
        ..Rights::default()
    })
    .await;
    let error = hall.revoke("alice maintainer team").await.unwrap_err();
    assert!(
        matches!(error, ChangeError::ReadOnly(_)) && error.to_string().contains("[[access.grant]]"),
        "{error}"
    );
    let error = hall.revoke("anonymous reader ").await.unwrap_err();
    assert!(error.to_string().contains("access.anonymous"), "{error}");
    hall.grant("alice maintainer team").await.unwrap();
    let policy = hall.access.policy();
    let told = |binding: &&Binding| format!("{binding}: {}", binding.origin);
    let listed: Vec<_> = policy
        .bindings_on("team/x", false)
        .iter()
        .map(told)
        .collect();
    assert_eq!(
        listed,
        [
            "admin is admin everywhere: built in",
            "anonymous is reader everywhere: configuration: access.anonymous",
            "every user of the htpasswd file is writer everywhere: configuration: access.htpasswd.role",
            "alice is maintainer on team: configuration: [[access.grant]]",
            "alice is maintainer on team: granted by operator",
        ]
    );
    // The row goes, what it says stays by the configuration.
    hall.revoke("alice maintainer team").await.unwrap();
    assert!(hall.may("alice", Permission::Delete, "team"));
}

#[tokio::test]
async fn grants_that_cannot_be_meant_are_refused_with_the_way_out() {
    let hall = Hall::new(Rights::default()).await;
    hall.access
        .set_role(
            Changer::Operator,
            "scan",
            Some(Permissions::parse("read-audit").unwrap()),
            NOW,
        )
        .await
        .unwrap();
    for (line, words) in [
        ("alice fly team", "no role \"fly\""),
        ("alice none team", "revoke"),
        ("alice reader Team", "write a path"),
        ("anonymous admin team", "maintainer is the most"),
        ("signed-in owner team", "maintainer is the most"),
        ("anonymous scan team", "maintainer is the most"),
        ("team/a+ci reader team", "belongs to team/a"),
        ("team/a+ci reader ", "belongs to team/a"),
        ("group:nobody reader team", "no group nobody"),
    ] {
        let error = hall.grant(line).await.unwrap_err().to_string();
        assert!(error.contains(words), "{line}: {error}");
    }
    hall.grant("team/a+ci writer team/a/b").await.unwrap();
    let condition = async |conditions| {
        let granting = Granting {
            conditions,
            ..granting("alice owner team")
        };
        let made = hall.access.grant(Changer::Operator, &granting, NOW).await;
        made.unwrap_err().to_string()
    };
    let none = Conditions::default();
    let past = condition(Conditions {
        expires_at: Some(NOW),
        ..none.clone()
    });
    assert!(past.await.contains("has passed"));
    let tags = condition(Conditions {
        tags: Some("v*".parse().unwrap()),
        ..none.clone()
    });
    assert!(tags.await.contains("more than tags"));
    // Signing in would cost a right.
    let nobody = condition(Conditions {
        sign_in: Some(SignIn::Nobody),
        ..none
    });
    assert!(nobody.await.contains("sign_in"));
}

#[tokio::test]
async fn an_explanation_names_what_is_missing_and_who_could_give_it() {
    let hall = Hall::new(Rights::default()).await;
    hall.grant("olga owner team").await.unwrap();
    let from = Granting {
        conditions: Conditions {
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            ..Conditions::default()
        },
        ..granting("alice writer team/a")
    };
    hall.access
        .grant(Changer::Operator, &from, NOW)
        .await
        .unwrap();
    let policy = hall.access.policy();
    let name = RepositoryName::parse("team/a/app").unwrap();
    let ask = |caller: &Caller| policy.explain(caller, Permission::Push, Some(&name), None);
    let away = ask(&user("alice"));
    assert!(!away.allowed && away.by.is_none());
    assert_eq!(away.unmet.len(), 1);
    assert_eq!(away.unmet[0].1, Unmet::Network);
    let names: Vec<_> = away.grantors.iter().map(Subject::to_string).collect();
    assert_eq!(names, ["olga", "admin"], "the nearest first");
    let mut home = user("alice");
    home.circumstances.address = Some("10.1.1.1".parse().unwrap());
    let home = ask(&home);
    assert!(home.allowed && home.unmet.is_empty() && home.grantors.is_empty());
    assert_eq!(
        home.by.unwrap().to_string(),
        "alice is writer on team/a (from 10.0.0.0/8)"
    );
}

#[tokio::test]
async fn only_those_who_really_could_grant_it_are_named() {
    let hall = Hall::new(Rights::default()).await;
    let role = |name: &str, words: &str| {
        let permissions: Vec<Permission> = words.split(' ').map(|w| w.parse().unwrap()).collect();
        (
            name.to_owned(),
            permissions.into_iter().collect::<Permissions>(),
        )
    };
    for (name, permissions) in [
        role("granter", "manage-bindings"),
        role("giver", "manage-bindings pull"),
    ] {
        let made = hall
            .access
            .set_role(Changer::Operator, &name, Some(permissions), NOW);
        made.await.unwrap();
    }
    for line in [
        "olga owner team",
        "gina granter team",
        "pete giver team",
        "else owner other",
    ] {
        hall.grant(line).await.unwrap();
    }
    let until = Granting {
        conditions: Conditions {
            expires_at: Some(NOW + 1_000),
            ..Conditions::default()
        },
        ..granting("tom owner team/a")
    };
    let made = hall.access.grant(Changer::Operator, &until, NOW).await;
    made.unwrap();
    let policy = hall.access.policy();
    let on = RepositoryName::parse("team/a/app").unwrap();
    for (permission, wanted) in [
        (Permission::Push, vec!["olga", "admin"]),
        (Permission::Pull, vec!["olga", "pete", "admin"]),
        (Permission::Admin, vec!["admin"]),
    ] {
        let told = policy.explain(&user("nobody"), permission, Some(&on), None);
        let names: Vec<_> = told.grantors.iter().map(Subject::to_string).collect();
        assert_eq!(names, wanted, "{permission}");
    }
    // As the check of a grant has it.
    for (who, could) in [("gina", false), ("tom", false), ("olga", true)] {
        let caller = user(who);
        let line = "nobody reader team/a/app";
        let granted = hall.grant_as(Changer::Caller(&caller), line).await;
        assert_eq!(granted.is_ok(), could, "{who}: {granted:?}");
    }
}

#[tokio::test]
async fn a_group_gives_a_robot_nothing_beyond_its_home() {
    let hall = Hall::new(Rights::default()).await;
    let robot = "team/a+ci".parse::<Subject>().unwrap();
    for (group, role, on) in [
        ("all", "writer", ""),
        ("near", "maintainer", "team/a/b"),
        ("far", "owner", "other"),
    ] {
        let access = &hall.access;
        let made = access.set_group(Changer::Operator, group, true, NOW).await;
        made.unwrap();
        let joined = access.set_member(Changer::Operator, group, &robot, true, NOW);
        joined.await.unwrap();
        hall.grant(&format!("group:{group} {role} {on}"))
            .await
            .unwrap();
    }
    let ci = Caller::direct(Principal::Robot {
        name: "team/a+ci".into(),
    });
    let policy = hall.access.policy();
    for (permission, on, wanted) in [
        (Permission::Push, "team/a", true),
        (Permission::Push, "team/a/x", true),
        (Permission::Delete, "team/a/b/c", true),
        (Permission::Delete, "team/a/x", false),
        (Permission::Push, "team", false),
        (Permission::Pull, "team/ab", false),
        (Permission::Pull, "other/app", false),
    ] {
        let name = RepositoryName::parse(on).unwrap();
        let told = policy.explain(&ci, permission, Some(&name), None);
        let may = policy.allow(&ci, permission, Some(&name));
        assert_eq!((may, told.allowed), (wanted, wanted), "{permission} {on}");
    }
    assert!(!policy.allow(&ci, Permission::Push, None), "not everywhere");
    assert!(
        policy.allow(&ci, Permission::Catalog, None),
        "its home is a part"
    );
    let listed = |permission| policy.prefixes_for(&ci, permission).unwrap();
    assert_eq!(listed(Permission::Catalog), ["team/a"]);
    assert_eq!(listed(Permission::Delete), ["team/a/b"]);
    assert_eq!(listed(Permission::ManageBindings), [""; 0]);
    let bindings = policy.bindings_of(&ci.principal);
    let on: Vec<_> = bindings.iter().map(|one| &*one.on).collect();
    assert_eq!(on, ["", "team/a/b"]);
}
