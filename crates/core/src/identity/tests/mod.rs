//! Credentials over a real store: where they are accepted, what they leave, how they end. Attacks by name.

mod outside;
mod widen;

use std::net::IpAddr;

use wharf_oci::{Authorization, RepositoryName, Scope};

use super::*;
use crate::access::{
    Access, AccessOptions, AuthFailure, Caller, Changer, Circumstances, Decision, Grant,
    Permission, Principal, Proof, Rights, Role, SecretKeys, SignIn, Subject, TokenRequest, Who,
};
use crate::house::House;

const HOUR: i64 = 60 * 60 * 1_000;
const HERE: &str = "10.0.0.1";

async fn lock_robot(registry: &Registry, name: &str, disabled: bool) -> Result<()> {
    let to = RobotChange {
        disabled: Some(disabled),
        ..RobotChange::default()
    };
    change_robot(registry, Changer::Operator, name, to, None).await
}

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

/// `alice` (local, maintainer of `team`), the robot `team+ci` (writer of `team/a`), identity tokens.
struct It {
    house: House,
    robot: Made,
}

impl It {
    async fn new() -> Self {
        let mut house = House::new().await;
        let options = AccessOptions {
            identity_tokens: true,
            ..AccessOptions::default()
        };
        let access = Access::open(
            options,
            SecretKeys::of_tests(),
            house.registry.meta.clone(),
            0,
        )
        .await;
        house.registry.access = std::sync::Arc::new(access.unwrap());
        let grant = |who: &str, role, on: &str| Grant {
            who: Who::parse(who).unwrap(),
            role,
            on: Some(on.into()),
        };
        let rights = Rights {
            grants: vec![
                grant("alice", Role::Maintainer, "team"),
                grant("team+ci", Role::Writer, "team/a"),
                grant("anonymous", Role::Reader, "public"),
            ],
            ..Rights::default()
        };
        house.registry.access.reload(&rights).unwrap();
        let password = Some(Password::new("wonderland looks"));
        create_user(&house.registry, Changer::Operator, "alice", password)
            .await
            .unwrap();
        let new = NewRobot {
            name: "team+ci".into(),
            lifetime: Some(24 * HOUR),
            networks: "10.0.0.0/8".into(),
            ..NewRobot::default()
        };
        let robot = create_robot(&house.registry, Changer::Operator, &new)
            .await
            .unwrap();
        Self { house, robot }
    }

    fn registry(&self) -> &Registry {
        &self.house.registry
    }

    fn came(&self, from: &str) -> Circumstances {
        let address: IpAddr = from.parse().unwrap();
        Circumstances::new(Some(address), self.registry().clock.now_ms())
    }

    async fn ask(&self, with: Authorization, from: &str) -> Result<Caller, AuthFailure> {
        let access = &self.registry().access;
        access.authenticate(Some(&with), self.came(from)).await
    }

    async fn basic(&self, user: &str, secret: &str) -> Result<Caller, AuthFailure> {
        let (user, password) = (user.into(), secret.into());
        self.ask(Authorization::Basic { user, password }, HERE)
            .await
    }

    async fn bearer(&self, secret: &str) -> Result<Caller, AuthFailure> {
        self.ask(Authorization::Bearer(secret.into()), HERE).await
    }

    /// A token for everything that can be asked for, and a refresh token.
    async fn buy(&self, proof: Proof) -> Option<(String, String, Vec<Scope>)> {
        let scopes = "repository:team/a:pull,push,delete repository:team/b:pull,push,delete repository:public/a:pull \
                      registry:catalog:* registry:admin:*";
        let request = TokenRequest {
            proof,
            scopes: Scope::parse_list(scopes),
            offline: true,
        };
        let grant = self.registry().access.grant_token(request, self.came(HERE));
        let grant = grant.await.ok()?;
        let refresh = grant.refresh_token.unwrap().reveal().to_owned();
        Some((grant.token.reveal().to_owned(), refresh, grant.granted))
    }

    async fn token(&self, name: &str, scopes: &[&str]) -> Made {
        let new = NewToken {
            user: "alice".into(),
            name: name.into(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            lifetime: Some(24 * HOUR),
        };
        create_token(self.registry(), Changer::Operator, &new)
            .await
            .unwrap()
    }

    fn may(&self, caller: &Caller, permission: Permission, on: &str) -> bool {
        let decided = self
            .registry()
            .access
            .decide(caller, permission, Some(&name(on)));
        decided == Decision::Allow
    }
}

fn proof(user: &str, secret: &Password) -> Proof {
    Proof::Password {
        name: user.into(),
        password: secret.clone(),
    }
}

#[tokio::test]
async fn a_robot_signs_in_with_basic_bearer_and_at_the_token_endpoint() {
    let it = It::new().await;
    let secret = it.robot.secret.reveal();
    let (bought, refresh, granted) = it.buy(proof("team+ci", &it.robot.secret)).await.unwrap();
    let again = it
        .buy(Proof::RefreshToken(Password::new(&refresh)))
        .await
        .unwrap();
    assert_eq!(again.1, refresh, "refresh tokens never rotate");
    for caller in [
        it.basic("team+ci", secret).await.unwrap(),
        it.bearer(secret).await.unwrap(),
        it.bearer(&bought).await.unwrap(),
        it.bearer(&again.0).await.unwrap(),
    ] {
        let robot = Principal::Robot {
            name: "team+ci".into(),
        };
        assert_eq!(caller.principal, robot);
        assert_eq!(caller.circumstances.sign_in, SignIn::RobotSecret);
        assert!(it.may(&caller, Permission::Push, "team/a"));
        assert!(!it.may(&caller, Permission::Delete, "team/a"));
        assert!(!it.may(&caller, Permission::Pull, "team/b"));
        assert!(
            it.may(&caller, Permission::Pull, "public/a"),
            "as anybody may"
        );
    }
    let granted: Vec<_> = granted.iter().map(Scope::to_string).collect();
    assert_eq!(
        granted,
        [
            "repository:team/a:pull,push",
            "repository:public/a:pull",
            "registry:catalog:*"
        ]
    );
}

#[tokio::test]
async fn an_api_token_signs_in_wherever_the_password_does() {
    let it = It::new().await;
    let made = it.token("laptop", &[]).await;
    let secret = made.secret.reveal();
    let (bought, ..) = it.buy(proof("alice", &made.secret)).await.unwrap();
    let (as_identity, ..) = it
        .buy(Proof::RefreshToken(made.secret.clone()))
        .await
        .unwrap();
    for caller in [
        it.basic("alice", secret).await.unwrap(),
        it.bearer(secret).await.unwrap(),
        it.bearer(&bought).await.unwrap(),
        it.bearer(&as_identity).await.unwrap(),
    ] {
        assert_eq!(caller.principal.name(), "alice");
        assert_eq!(caller.circumstances.sign_in, SignIn::ApiToken);
        assert!(it.may(&caller, Permission::Delete, "team/b"));
        assert!(!it.may(&caller, Permission::Pull, "other"));
    }
    let by_password = it.basic("alice", "wonderland looks").await.unwrap();
    assert_eq!(by_password.circumstances.sign_in, SignIn::Password);
}

/// The same everywhere: scopes that are stored but not enforced were a flaw of Quay's and Harbor's robots.
#[tokio::test]
async fn attack_scopes_stored_but_not_enforced() {
    let it = It::new().await;
    let made = it.token("reads a", &["reader:team/a"]).await;
    let (bought, refresh, granted) = it.buy(proof("alice", &made.secret)).await.unwrap();
    let (again, ..) = it
        .buy(Proof::RefreshToken(Password::new(&refresh)))
        .await
        .unwrap();
    let granted: Vec<_> = granted.iter().map(Scope::to_string).collect();
    assert_eq!(granted, ["repository:team/a:pull", "registry:catalog:*"]);
    let access = &it.registry().access;
    for caller in [
        it.basic("alice", made.secret.reveal()).await.unwrap(),
        it.bearer(made.secret.reveal()).await.unwrap(),
        it.bearer(&bought).await.unwrap(),
        it.bearer(&again).await.unwrap(),
    ] {
        assert!(it.may(&caller, Permission::Pull, "team/a"));
        // Scope widening at the token endpoint: both tokens were asked for all of these.
        for (permission, on) in [
            (Permission::Push, "team/a"),
            (Permission::Delete, "team/a"),
            (Permission::Pull, "team/b"),
            (Permission::Push, "team/b"),
            (Permission::Pull, "public/a"),
        ] {
            let decided = access.decide(&caller, permission, Some(&name(on)));
            assert_eq!(decided, Decision::Denied, "{permission} {on}");
        }
        // What a mount asks of its source, and what lists show.
        assert!(!access.allow(&caller, Permission::Pull, Some(&name("team/b"))));
        let listed = access.prefixes_for(&caller, Permission::Catalog);
        assert_eq!(listed.unwrap(), ["team/a"]);
        let upload = Caller {
            expired_since: Some(1),
            ..caller
        };
        assert_ne!(
            access.decide_upload(&upload, "alice", &name("team/b")),
            Decision::Allow
        );
    }
}

#[tokio::test]
async fn a_token_loses_what_its_user_loses() {
    let it = It::new().await;
    let made = it.token("all of team", &["maintainer:team", "admin"]).await;
    let caller = it.bearer(made.secret.reveal()).await.unwrap();
    assert!(it.may(&caller, Permission::Delete, "team/a"));
    assert!(
        !it.may(&caller, Permission::Admin, "team/a"),
        "never more than the user"
    );
    it.registry().access.reload(&Rights::default()).unwrap();
    assert!(!it.may(&caller, Permission::Pull, "team/a"));
}

#[tokio::test]
async fn what_was_bought_dies_with_the_credential() {
    let it = It::new().await;
    let made = it.token("laptop", &[]).await;
    let (bought, refresh, _) = it.buy(proof("alice", &made.secret)).await.unwrap();
    let whose = revoke_token(it.registry(), &made.id).await.unwrap();
    assert_eq!(whose, "alice");
    assert!(it.basic("alice", made.secret.reveal()).await.is_err());
    assert!(it.bearer(made.secret.reveal()).await.is_err());
    assert!(it.bearer(&bought).await.is_err());
    // Replayed refresh tokens.
    assert!(
        it.buy(Proof::RefreshToken(Password::new(&refresh)))
            .await
            .is_none()
    );
    assert!(it.buy(Proof::RefreshToken(made.secret)).await.is_none());
    assert!(it.basic("alice", "wonderland looks").await.is_ok());
    assert!(revoke_token(it.registry(), &made.id).await.is_err());
}

#[tokio::test]
async fn a_new_secret_overlaps_with_the_old_one_and_no_longer() {
    let it = It::new().await;
    let first = it.robot.secret.clone();
    let (bought, ..) = it.buy(proof("team+ci", &first)).await.unwrap();
    let rotate = async || {
        rotate_robot(
            it.registry(),
            Changer::Operator,
            "team+ci",
            HOUR,
            Some(48 * HOUR),
        )
        .await
        .unwrap()
        .secret
    };
    let good = async |secret: &Password| it.basic("team+ci", secret.reveal()).await.is_ok();
    let second = rotate().await;
    assert!(good(&first).await && good(&second).await && it.bearer(&bought).await.is_ok());
    it.house.clock.advance(HOUR);
    assert!(!good(&first).await && good(&second).await);
    assert!(it.bearer(&bought).await.is_err(), "bought with the old one");
    let third = rotate().await;
    let fourth = rotate().await;
    assert!(!good(&second).await, "two at most");
    assert!(good(&third).await && good(&fourth).await);
    it.house.clock.advance(49 * HOUR);
    assert!(!good(&fourth).await, "robots end");
}

#[tokio::test]
async fn attack_a_robots_secret_from_another_network() {
    let it = It::new().await;
    let (bought, ..) = it.buy(proof("team+ci", &it.robot.secret)).await.unwrap();
    let basic = Authorization::Basic {
        user: "team+ci".into(),
        password: it.robot.secret.reveal().into(),
    };
    let ways = [
        basic,
        Authorization::Bearer(it.robot.secret.reveal().into()),
        Authorization::Bearer(bought),
    ];
    for way in ways {
        assert!(it.ask(way.clone(), "192.0.2.1").await.is_err());
        assert!(it.ask(way.clone(), "fd00::1").await.is_err());
        let nowhere = Circumstances::new(None, it.registry().clock.now_ms());
        let access = &it.registry().access;
        assert!(access.authenticate(Some(&way), nowhere).await.is_err());
        assert!(it.ask(way, "10.255.0.1").await.is_ok());
    }
}

#[tokio::test]
async fn attack_a_good_secret_under_another_name() {
    let it = It::new().await;
    let made = it.token("laptop", &[]).await;
    for user in ["admin", "team+ci", "", "Alice", "alice ", "bob"] {
        assert!(
            it.basic(user, made.secret.reveal()).await.is_err(),
            "{user}"
        );
        assert!(it.buy(proof(user, &made.secret)).await.is_none(), "{user}");
    }
    let secret = it.robot.secret.reveal();
    for user in ["alice", "team", "team/a+ci", "team+CI"] {
        assert!(it.basic(user, secret).await.is_err(), "{user}");
    }
    // A refresh token is no bearer token, and the id in a token is no secret.
    let (_, refresh, _) = it.buy(proof("alice", &made.secret)).await.unwrap();
    assert!(it.bearer(&refresh).await.is_err());
    assert!(it.bearer(&made.id).await.is_err());
    assert!(
        it.basic("alice", &format!("credential.{}", made.id))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn who_is_locked_out_or_removed_takes_everything_along() {
    let it = It::new().await;
    let made = it.token("laptop", &[]).await;
    let (bought, refresh, _) = it.buy(proof("alice", &made.secret)).await.unwrap();
    let password = async || it.basic("alice", "wonderland looks").await.is_ok();
    let others = async || {
        let refresh = Proof::RefreshToken(Password::new(&refresh));
        [
            it.basic("alice", made.secret.reveal()).await.is_ok(),
            it.bearer(&bought).await.is_ok(),
            it.buy(refresh).await.is_some(),
        ]
    };
    assert!(password().await);
    assert_eq!(others().await, [true; 3]);
    disable_user(it.registry(), Changer::Operator, "alice", true, None)
        .await
        .unwrap();
    assert!(!password().await);
    let bearer = it.bearer(&bought).await;
    assert!(bearer.is_err() && it.bearer(made.secret.reveal()).await.is_err());
    disable_user(it.registry(), Changer::Operator, "alice", false, None)
        .await
        .unwrap();
    assert!(password().await && it.bearer(&bought).await.is_ok());
    remove_user(it.registry(), Changer::Operator, "alice", None)
        .await
        .unwrap();
    assert_eq!(others().await, [false; 3]);
    // Another person may be behind that name now.
    let chosen = Some(Password::new("wonderland looks"));
    create_user(it.registry(), Changer::Operator, "alice", chosen)
        .await
        .unwrap();
    assert_eq!(others().await, [false; 3]);

    lock_robot(it.registry(), "team+ci", true).await.unwrap();
    assert!(it.bearer(it.robot.secret.reveal()).await.is_err());
    lock_robot(it.registry(), "team+ci", false).await.unwrap();
    assert!(it.bearer(it.robot.secret.reveal()).await.is_ok());
    remove_robot(it.registry(), Changer::Operator, "team+ci", None)
        .await
        .unwrap();
    assert!(it.bearer(it.robot.secret.reveal()).await.is_err());
}

#[tokio::test]
async fn a_new_password_leaves_tokens_alone_and_ends_the_old_password() {
    let it = It::new().await;
    let made = it.token("laptop", &[]).await;
    let old = Password::new("wonderland looks");
    let (bought, ..) = it.buy(proof("alice", &old)).await.unwrap();
    let new = set_password(it.registry(), Changer::Operator, "alice", None)
        .await
        .unwrap();
    assert!(it.basic("alice", old.reveal()).await.is_err());
    assert!(it.bearer(&bought).await.is_err());
    assert!(it.basic("alice", new.reveal()).await.is_ok());
    assert!(it.bearer(made.secret.reveal()).await.is_ok());
}

/// From one address each wrong guess costs more; whoever comes from elsewhere is not held up.
#[tokio::test]
async fn attack_brute_force_from_many_addresses_locks_nobody_out() {
    let it = It::new().await;
    let guess = async |from: String, password: String| {
        let with = Authorization::Basic {
            user: "alice".into(),
            password,
        };
        it.ask(with, &from).await
    };
    for host in 1..=3 {
        let from = format!("192.0.2.{host}");
        for number in 0..5 {
            let answer = guess(from.clone(), format!("guess {number}")).await;
            assert!(matches!(answer, Err(AuthFailure::Password)), "{answer:?}");
        }
        for right in [false, true] {
            let password = if right { "wonderland looks" } else { "guess 6" };
            let answer = guess(from.clone(), password.into()).await;
            assert!(
                matches!(answer, Err(AuthFailure::Guessing { .. })),
                "{answer:?}"
            );
        }
    }
    assert!(it.basic("alice", "wonderland looks").await.is_ok());
    // Tokens are no passwords: a program on the same machine goes on.
    let made = it.token("laptop", &[]).await;
    assert!(
        guess("192.0.2.1".into(), made.secret.reveal().into())
            .await
            .is_ok()
    );
    it.house.clock.advance(2_000);
    assert!(
        guess("192.0.2.1".into(), "wonderland looks".into())
            .await
            .is_ok()
    );
    // Whoever does not exist is slowed down like whoever does.
    let unknown = async |number: u32| {
        let with = Authorization::Basic {
            user: "nobody".into(),
            password: format!("guess {number}"),
        };
        it.ask(with, "192.0.2.9").await.unwrap_err().reason()
    };
    for number in 0..5 {
        assert_eq!(unknown(number).await, "password");
    }
    assert_eq!(unknown(5).await, "guessing");
}

#[tokio::test]
async fn the_last_use_is_told_with_its_address() {
    let it = It::new().await;
    let used = async || {
        let robots = list_robots(it.registry(), Some("team"), "", 9)
            .await
            .unwrap();
        robots[0].1[0].used.clone()
    };
    assert_eq!(used().await, None);
    let started = it.registry().clock.now_ms();
    it.bearer(it.robot.secret.reveal()).await.unwrap();
    while used().await.is_none() {
        tokio::task::yield_now().await;
    }
    it.house.clock.advance(59_000);
    it.bearer(it.robot.secret.reveal()).await.unwrap();
    assert_eq!(used().await, Some((started, HERE.into())));
    it.house.clock.advance(1_000);
    it.bearer(it.robot.secret.reveal()).await.unwrap();
    while used().await.unwrap().0 == started {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn lists_show_what_there_is_and_no_secret() {
    let it = It::new().await;
    let made = it.token("reads a", &["reader:team/a"]).await;
    let tokens = list_tokens(it.registry(), "alice").await.unwrap();
    assert_eq!(tokens.len(), 1);
    assert_eq!((&tokens[0].id, &*tokens[0].name), (&made.id, "reads a"));
    assert_eq!(tokens[0].scopes.as_deref(), Some("pull,catalog:team/a"));
    assert!(!format!("{tokens:?} {made:?}").contains(made.secret.reveal()));
    for below in ["team/a+x", "team-b+x", "team+a"] {
        let name = below.to_owned();
        let new = NewRobot {
            name,
            ..NewRobot::default()
        };
        create_robot(it.registry(), Changer::Operator, &new)
            .await
            .unwrap();
    }
    let names = async |namespace: Option<&str>| {
        let robots = list_robots(it.registry(), namespace, "", 9).await.unwrap();
        robots
            .into_iter()
            .map(|(row, _)| row.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(Some("team")).await, ["team+a", "team+ci"]);
    assert_eq!(names(None).await.len(), 4);
    let users = list_users(it.registry(), "", 9).await.unwrap();
    assert_eq!(users.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_with_the_way_out() {
    let it = It::new().await;
    let registry = it.registry();
    let told = |error: IdentityError, part: &str| {
        let text = error.to_string();
        assert!(text.contains(part), "{text}");
    };
    for (user, part) in [
        ("", "empty"),
        ("anonymous", "reserved"),
        ("a:b", "colon"),
        ("team+x", "robot"),
        ("alice", "taken"),
        ("team+ci", "robot"),
    ] {
        told(
            create_user(registry, Changer::Operator, user, None)
                .await
                .unwrap_err(),
            part,
        );
    }
    let weak = Some(Password::new("Password1"));
    told(
        create_user(registry, Changer::Operator, "bob", weak)
            .await
            .unwrap_err(),
        "tried first",
    );
    for name in [
        "ci",
        "Team+ci",
        "team+",
        "+ci",
        "team+a b",
        "team+$(id)",
        "team+a/b",
        "team/../x+a",
        "team+ci'",
    ] {
        let new = NewRobot {
            name: name.into(),
            ..NewRobot::default()
        };
        told(
            create_robot(registry, Changer::Operator, &new)
                .await
                .unwrap_err(),
            "<namespace>+<name>",
        );
    }
    let robot = |lifetime: i64, networks: &str| NewRobot {
        name: "team+new".into(),
        lifetime: Some(lifetime),
        networks: networks.into(),
        ..NewRobot::default()
    };
    for (new, part) in [
        (robot(366 * DAY, ""), "auth.longest_lifetime"),
        (robot(0, ""), "longer than nothing"),
        (
            NewRobot {
                reads: Some("other".into()),
                ..robot(DAY, "")
            },
            "does not lie in team",
        ),
        (robot(DAY, "10.0.0.0/99"), "10.0.0.0/8"),
        (
            NewRobot {
                name: "team+ci".into(),
                ..robot(DAY, "")
            },
            "already",
        ),
    ] {
        told(
            create_robot(registry, Changer::Operator, &new)
                .await
                .unwrap_err(),
            part,
        );
    }
    registry.access.bootstrap_admin(None, 0).await.unwrap();
    told(
        disable_user(registry, Changer::Operator, "admin", true, None)
            .await
            .unwrap_err(),
        "last administrator",
    );
    told(
        remove_user(registry, Changer::Operator, "admin", None)
            .await
            .unwrap_err(),
        "cannot be removed",
    );
    told(
        remove_user(registry, Changer::Operator, "team+ci", None)
            .await
            .unwrap_err(),
        "no local user",
    );
    told(
        set_password(registry, Changer::Operator, "team+ci", None)
            .await
            .unwrap_err(),
        "no local user",
    );
    told(
        remove_robot(registry, Changer::Operator, "team+none", None)
            .await
            .unwrap_err(),
        "no robot",
    );
    let rotate = rotate_robot(
        registry,
        Changer::Operator,
        "team+ci",
        LONGEST_OVERLAP_MS + 1,
        None,
    )
    .await;
    told(rotate.unwrap_err(), "30 days");
    let token = |user: &str, name: &str, scope: &str| NewToken {
        user: user.into(),
        name: name.into(),
        scopes: vec![scope.into()],
        lifetime: None,
    };
    for (new, part) in [
        (token("nobody", "x", "reader"), "no user"),
        (token("team+ci", "x", "reader"), "no user"),
        (token("alice", "", "reader"), "name"),
        (token("alice", "x", "flyer"), "reader:team/a"),
    ] {
        told(
            create_token(registry, Changer::Operator, &new)
                .await
                .unwrap_err(),
            part,
        );
    }
    create_token(registry, Changer::Operator, &token("alice", "x", "reader"))
        .await
        .unwrap();
    let twice = create_token(registry, Changer::Operator, &token("alice", "x", "reader")).await;
    told(twice.unwrap_err(), "already");
}

/// Grants for a name before it exists, and after it is gone: whoever gets the name later begins with nothing.
#[tokio::test]
async fn a_robot_reads_what_it_was_made_for_and_takes_it_along() {
    let it = It::new().await;
    let make = async |reads: Option<&str>| {
        let new = NewRobot {
            name: "team+pull".into(),
            reads: reads.map(str::to_owned),
            ..NewRobot::default()
        };
        let made = create_robot(it.registry(), Changer::Operator, &new)
            .await
            .unwrap();
        it.bearer(made.secret.reveal()).await.unwrap()
    };
    let caller = make(Some("team/b")).await;
    assert!(it.may(&caller, Permission::Pull, "team/b/x"));
    assert!(!it.may(&caller, Permission::Push, "team/b/x"));
    assert!(!it.may(&caller, Permission::Pull, "team/a"));
    remove_robot(it.registry(), Changer::Operator, "team+pull", None)
        .await
        .unwrap();
    let caller = make(None).await;
    assert!(!it.may(&caller, Permission::Pull, "team/b/x"));
}
