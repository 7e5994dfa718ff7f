//! Credentials over a real store: where they are accepted, what they leave, how they end. Attacks by name.

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

/// Somebody over the network who signed in with a password, or with a credential that leaves this.
async fn as_whom(it: &It, secret: &str) -> Caller {
    it.basic("alice", secret).await.unwrap()
}

/// No credential makes one that may more, or lives on as a password: not by making, rotating, changing or resetting.
#[tokio::test]
async fn attack_a_credential_widens_itself() {
    let it = It::new().await;
    let registry = it.registry();
    let grant = |who: &str, role, on: &str| Grant {
        who: Who::parse(who).unwrap(),
        role,
        on: Some(on.into()),
    };
    let rights = Rights {
        grants: vec![
            grant("alice", Role::Admin, ""),
            grant("team+ci", Role::Writer, "team/a"),
            grant("carol", Role::Maintainer, "team"),
            grant("team+waiting", Role::Maintainer, "team"),
            grant("mia", Role::Owner, "team"),
        ],
        ..Rights::default()
    };
    registry.access.reload(&rights).unwrap();
    let password = as_whom(&it, "wonderland looks").await;
    let narrow = it
        .token("narrow", &["manage-robots,manage-bindings:team"])
        .await;
    let narrow = as_whom(&it, narrow.secret.reveal()).await;
    let whole = it.token("whole", &[]).await;
    let whole = as_whom(&it, whole.secret.reveal()).await;
    let refused = |error: IdentityError| {
        let kept = matches!(
            error,
            IdentityError::Rights(ChangeError::NotHeld { .. } | ChangeError::Denied { .. })
                | IdentityError::ByPassword(_)
        );
        assert!(kept, "{error}");
    };
    let of_alice = || NewToken {
        user: "alice".into(),
        name: "another".into(),
        ..NewToken::default()
    };
    let named = |name: &str| NewRobot {
        name: name.into(),
        ..NewRobot::default()
    };
    for token in [&narrow, &whole] {
        let by = Changer::Caller(token);
        // No token makes a token, or becomes a password.
        refused(create_token(registry, by, &of_alice()).await.unwrap_err());
        refused(set_password(registry, by, "alice", None).await.unwrap_err());
    }
    let by = Changer::Caller(&narrow);
    // Grants can be older than whom they are for, and be more than the token.
    refused(create_user(registry, by, "carol", None).await.unwrap_err());
    refused(
        create_robot(registry, by, &named("team+waiting"))
            .await
            .unwrap_err(),
    );
    refused(
        rotate_robot(registry, by, "team+ci", 0, None)
            .await
            .unwrap_err(),
    );
    let open = RobotChange {
        networks: Some(String::new()),
        ..RobotChange::default()
    };
    refused(
        change_robot(registry, by, "team+ci", open, None)
            .await
            .unwrap_err(),
    );
    let writes = NewRobot {
        bindings: vec![RobotBinding {
            role: "writer".into(),
            on: "team/b".into(),
            conditions: crate::access::Conditions::default(),
        }],
        ..named("team+b")
    };
    refused(create_robot(registry, by, &writes).await.unwrap_err());
    assert!(
        get_robot(registry, "team+b").await.is_err(),
        "nothing is left of it"
    );
    // Elsewhere than its scope, not even an empty one.
    refused(
        create_robot(registry, by, &named("other+x"))
            .await
            .unwrap_err(),
    );
    // What adds nothing is done.
    create_robot(registry, by, &named("team+empty"))
        .await
        .unwrap();
    refused(create_user(registry, by, "dave", None).await.unwrap_err());
    let by = Changer::Caller(&whole);
    create_user(registry, by, "dave", None).await.unwrap();
    refused(
        create_token(
            registry,
            by,
            &NewToken {
                user: "dave".into(),
                name: "x".into(),
                ..NewToken::default()
            },
        )
        .await
        .unwrap_err(),
    );
    // The same by password, or by a token that leaves all.
    for able in [&password, &whole] {
        let by = Changer::Caller(able);
        rotate_robot(registry, by, "team+ci", 0, None)
            .await
            .unwrap();
        set_password(registry, by, "dave", None).await.unwrap();
    }
    let by = Changer::Caller(&password);
    create_token(registry, by, &of_alice()).await.unwrap();
    set_password(registry, by, "alice", None).await.unwrap();
    // Who signed in with the old password may go on until told otherwise by the next request, and no longer.
    assert!(it.basic("alice", "wonderland looks").await.is_err());
}

/// What was bought at the token endpoint is no password either, and one that has ended makes nothing.
#[tokio::test]
async fn attack_a_bought_token_makes_credentials() {
    let it = It::new().await;
    let registry = it.registry();
    let secret = Password::new("wonderland looks");
    let (bought, ..) = it.buy(proof("alice", &secret)).await.unwrap();
    let caller = it.bearer(&bought).await.unwrap();
    let ended = Caller {
        expired_since: Some(0),
        ..Caller::direct(caller.principal.clone()).under(caller.circumstances)
    };
    let new = NewToken {
        user: "alice".into(),
        name: "x".into(),
        ..NewToken::default()
    };
    for caller in [&caller, &ended] {
        let by = Changer::Caller(caller);
        let made = create_token(registry, by, &new).await;
        assert!(
            matches!(made, Err(IdentityError::ByPassword(_))),
            "{made:?}"
        );
        let set = set_password(registry, by, "alice", None).await;
        assert!(matches!(set, Err(IdentityError::ByPassword(_))), "{set:?}");
        let robot = NewRobot {
            name: "team+x".into(),
            ..NewRobot::default()
        };
        assert!(create_robot(registry, by, &robot).await.is_err());
    }
}

/// An invitation is good once, for a time, for a password that will do, and while whoever invited may still do so.
#[tokio::test]
async fn an_invitation_is_good_once_and_while_its_maker_stands() {
    let it = It::new().await;
    let registry = it.registry();
    let grant = |who: &str, role, on: &str| Grant {
        who: Who::parse(who).unwrap(),
        role,
        on: Some(on.into()),
    };
    let rights = Rights {
        grants: vec![grant("alice", Role::Admin, "")],
        ..Rights::default()
    };
    registry.access.reload(&rights).unwrap();
    let alice = as_whom(&it, "wonderland looks").await;
    let by = Changer::Caller(&alice);
    let new = |name: &str| NewInvitation {
        name: name.into(),
        bindings: vec![("writer".into(), "team/a".into())],
        ..NewInvitation::default()
    };
    let chosen = || Password::new("a looking glass");
    let accept = async |made: &Made, password: &str| {
        accept_invitation(registry, &made.secret, Password::new(password)).await
    };
    let gone = |outcome: Result<String>| match outcome {
        Err(IdentityError::Unknown(text)) => text,
        other => panic!("{other:?}"),
    };
    let made = invite(registry, by, &new("bob")).await.unwrap();
    // It is no password and no token, and what is made up is answered like what was used.
    assert!(it.basic("bob", made.secret.reveal()).await.is_err());
    assert!(it.bearer(made.secret.reveal()).await.is_err());
    let weak = accept(&made, "Password1").await;
    assert!(matches!(weak, Err(IdentityError::Password(_))), "{weak:?}");
    let text = gone(accept_invitation(registry, &Password::new("guess"), chosen()).await);
    let other = new_secret(SecretKind::Invitation);
    assert_eq!(
        gone(accept_invitation(registry, &other, chosen()).await),
        text
    );
    assert_eq!(accept(&made, "a looking glass").await.unwrap(), "bob");
    assert_eq!(gone(accept(&made, "another glass").await), text, "replayed");
    let bob = it.basic("bob", "a looking glass").await.unwrap();
    assert!(it.may(&bob, Permission::Push, "team/a/x"));
    let taken = invite(registry, by, &new("bob")).await;
    assert!(matches!(taken, Err(IdentityError::Taken(_))), "{taken:?}");

    // A second one ends the first.
    let first = invite(registry, by, &new("carol")).await.unwrap();
    let second = invite(registry, by, &new("carol")).await.unwrap();
    assert_eq!(gone(accept(&first, "a looking glass").await), text);
    let listed = list_invitations(registry, "", 9).await.unwrap();
    let names: Vec<_> = listed.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["carol"]);

    // Whoever invited is locked out, then let in, then no administrator any more.
    let root = create_user(registry, Changer::Operator, "root", None);
    root.await.unwrap();
    registry.access.bootstrap_admin(None, 0).await.unwrap();
    let lock = async |disabled: bool| {
        disable_user(registry, Changer::Operator, "alice", disabled, None)
            .await
            .unwrap();
    };
    lock(true).await;
    assert_eq!(gone(accept(&second, "a looking glass").await), text);
    lock(false).await;
    registry.access.reload(&Rights::default()).unwrap();
    assert_eq!(gone(accept(&second, "a looking glass").await), text);
    registry.access.reload(&rights).unwrap();

    // Two at once: one of them is carol.
    let (one, two) = tokio::join!(
        accept(&second, "the first password"),
        accept(&second, "the second password")
    );
    let won = [&one, &two].map(Result::is_ok);
    assert_ne!(won[0], won[1], "{one:?} {two:?}");
    let first = it.basic("carol", "the first password").await.is_ok();
    let other = it.basic("carol", "the second password").await.is_ok();
    assert_eq!([first, other], won);

    // Taken back, or ended: with what was granted to a name that nobody has.
    let holds = |name: &str| {
        let policy = registry.access.policy();
        let subject = Subject::User(name.into());
        policy.bindings().iter().any(|one| one.subject == subject)
    };
    let made = invite(registry, by, &new("dave")).await.unwrap();
    assert!(holds("dave"));
    withdraw_invitation(registry, by, &made.id).await.unwrap();
    assert!(!holds("dave"));
    assert_eq!(gone(accept(&made, "a looking glass").await), text);
    let made = invite(registry, by, &new("erin")).await.unwrap();
    it.house.clock.advance(7 * 24 * HOUR);
    assert_eq!(
        gone(accept(&made, "a looking glass").await),
        text,
        "it has ended"
    );
    it.house.clock.advance(1);
    forget_invitations(registry).await.unwrap();
    assert!(!holds("erin") && holds("bob"));
    assert!(list_invitations(registry, "", 9).await.unwrap().is_empty());

    // Nobody invites to more than they have, and then nothing is left.
    let narrow = it.token("narrow", &["admin:team"]).await;
    let narrow = as_whom(&it, narrow.secret.reveal()).await;
    let refused = invite(registry, Changer::Caller(&narrow), &new("finn")).await;
    assert!(
        matches!(refused, Err(IdentityError::Rights(_))),
        "{refused:?}"
    );
    let unknown = NewInvitation {
        groups: vec!["nobodys".into()],
        ..new("finn")
    };
    assert!(invite(registry, by, &unknown).await.is_err());
    assert!(list_invitations(registry, "", 9).await.unwrap().is_empty());
    assert!(!holds("finn"));
}
