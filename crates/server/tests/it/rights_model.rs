//! Rights once more, told without any cleverness, and compared over HTTP with a server: random namespaces, roles, groups, bindings with
//! conditions, users, robots, machines and narrowed tokens, asked by password, by certificate, by token and by what the token endpoint sells for them.
//!
//! `WHARF_SEED` and `WHARF_WORLDS` ask for other worlds, and for more.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Method;
use serde_json::json;
use wharf_core::access::{
    Changer, Conditions, Granting, Permission, Permissions, Role, SignIn, Subject, Visibility,
};
use wharf_core::clock::ManualClock;
use wharf_core::identity::{NewRobot, NewToken, create_robot, create_token};
use wharf_core::workload::{Bearer, Condition, IssuerSettings, KeySource, Kind, RuleSettings};
use wharf_oci::percent::encode_query;
use wharf_testkit::content::seeded_bytes;
use wharf_testkit::{Client, Image, TestOptions, TestServer, TokenKey, Version};

use crate::api_support::Cards;
use crate::model::number;

/// 2026-11-21, in ms.
const NOW: i64 = 1_795_219_200_000;
const HOUR: i64 = 3_600_000;
/// So many worlds if no other number is asked for, and so many questions in each.
const WORLDS: u64 = 3;
const QUESTIONS: usize = 700;

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const ROBOTS: [&str; 2] = ["team/a+ci", "b+bot"];
/// Rules on machines: one that shows a token, and one that shows a certificate.
const MACHINES: [&str; 2] = ["workload:builds", "workload:hosts"];
const GROUPS: [&str; 2] = ["one", "two"];
const PLACES: [&str; 5] = ["team", "team/a", "team/ab", "b", ""];
const REPOSITORIES: [&str; 5] = ["team/a", "team/a/x", "team/ab", "b/y", "c"];
const TAGS: [&str; 3] = ["v1", "v2", "latest"];

/// Bytes that make choices.
struct Dice {
    bytes: Vec<u8>,
    at: usize,
}

impl Dice {
    fn new(seed: u64) -> Self {
        let bytes = seeded_bytes(seed, 1 << 16).to_vec();
        Self { bytes, at: 0 }
    }

    fn below(&mut self, most: usize) -> usize {
        let mut two = [0; 2];
        for byte in &mut two {
            *byte = self.bytes[self.at % self.bytes.len()];
            self.at += 1;
        }
        usize::from(u16::from_le_bytes(two)) % most
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// One time in so many.
    fn rarely(&mut self, often: usize) -> bool {
        self.below(often) == 0
    }
}

/// A line of rights.
#[derive(Debug)]
struct Line {
    who: String,
    permissions: Permissions,
    on: String,
    ended: bool,
    /// Whether it counts from this machine.
    near: bool,
    tags: Option<&'static str>,
    sign_in: Option<SignIn>,
}

/// What is about tags in a question.
#[derive(Debug, Clone, Copy)]
enum About {
    Nothing,
    Every,
    One(&'static str),
}

/// Who asks.
#[derive(Debug, Clone)]
struct Asker {
    /// `""` is nobody.
    name: String,
    sign_in: SignIn,
    /// What the credential leaves: permissions and where.
    narrow: Option<(Permissions, &'static str)>,
    /// What a token was asked for, whatever its holder may: repository (`""`: the catalog) and permission.
    sold: Option<Vec<(&'static str, Permission)>>,
}

#[derive(Debug, Default)]
struct World {
    lines: Vec<Line>,
    members: BTreeSet<(&'static str, &'static str)>,
}

/// By the segments of paths, and not by their letters.
fn lies_in(path: &str, prefix: &str) -> bool {
    let path: Vec<_> = path.split('/').collect();
    let prefix: Vec<_> = prefix.split('/').collect();
    prefix == [""] || path.starts_with(&prefix)
}

fn matches(pattern: &str, tag: &str) -> bool {
    match pattern {
        "v*" => tag.starts_with('v'),
        "*" => true,
        exact => exact == tag,
    }
}

impl World {
    /// Whether the principal holds it, whatever the credential.
    fn holds(&self, asker: &Asker, permission: Permission, path: &str, about: About) -> bool {
        self.lines.iter().any(|line| {
            let own = match line.who.as_str() {
                "anonymous" => true,
                "signed-in" => !asker.name.is_empty(),
                who => match who.strip_prefix("group:") {
                    Some(group) => {
                        let home = asker.name.split_once('+').map(|(home, _)| home);
                        let member = |one: &(&str, &str)| *one == (group, asker.name.as_str());
                        // A group leads a robot nowhere but home.
                        self.members.iter().any(member)
                            && home.is_none_or(|home| lies_in(path, home))
                    }
                    None => who == asker.name,
                },
            };
            let tagged = match (line.tags, about) {
                (None, _) | (Some(_), About::Nothing) => true,
                (Some(_), About::Every) => false,
                (Some(pattern), About::One(tag)) => matches(pattern, tag),
            };
            let signed = line.sign_in.is_none_or(|way| way == asker.sign_in);
            own && line.permissions.contains(permission)
                && lies_in(path, &line.on)
                && !line.ended
                && line.near
                && tagged
                && signed
        })
    }

    /// Whether the caller is let in.
    fn may(&self, asker: &Asker, permission: Permission, path: &'static str, about: About) -> bool {
        let left = asker
            .narrow
            .as_ref()
            .is_none_or(|(permissions, on)| permissions.contains(permission) && lies_in(path, on));
        // Whoever is about to push may look with the same token.
        let covers = |one: &(&str, Permission)| {
            one.0 == path
                && (one.1 == permission
                    || permission == Permission::Pull && one.1 == Permission::Push)
        };
        let paid = asker
            .sold
            .as_ref()
            .is_none_or(|sold| sold.iter().any(covers));
        left && paid && self.holds(asker, permission, path, about)
    }

    /// The repositories that a list shows: those of which the caller may be told.
    fn listed(&self, asker: &Asker) -> Vec<&'static str> {
        let mut all = REPOSITORIES.to_vec();
        let paid = asker.sold.as_ref();
        let paid = paid.is_none_or(|sold| sold.contains(&("", Permission::Catalog)));
        let plain = Asker {
            sold: None,
            ..asker.clone()
        };
        all.retain(|path| paid && self.may(&plain, Permission::Catalog, path, About::Nothing));
        all.sort_unstable();
        all
    }

    fn lists(&self, asker: &Asker) -> bool {
        let paid = asker.sold.as_ref();
        let paid = paid.is_none_or(|sold| sold.contains(&("", Permission::Catalog)));
        let plain = Asker {
            sold: None,
            ..asker.clone()
        };
        // Somewhere, be there a repository or not: below what is granted and left.
        let somewhere = PLACES.iter().chain(&REPOSITORIES);
        let mut somewhere = somewhere.filter(|place| !place.is_empty());
        paid && somewhere.any(|place| self.may(&plain, Permission::Catalog, place, About::Nothing))
    }
}

/// The rules on machines, and the key that signs the tokens of one of them.
async fn trust(server: &TestServer) -> TokenKey {
    let access = &server.app().registry.access;
    let (root, forget) = (Changer::Operator, Bearer::Forget);
    let key = TokenKey::new("one");
    let mut tokens = IssuerSettings::new(Kind::Oidc, "https://ci.example", vec!["wharf".into()]);
    tokens.keys = KeySource::Static(json!({"keys": [key.jwk]}).to_string());
    let cards = IssuerSettings::new(Kind::Certificate, "", Vec::new());
    for (rule, issuer, settings, claim, value) in [
        ("builds", "ci", tokens, "sub", "build"),
        ("hosts", "cards", cards, "dns", "host.example.com"),
    ] {
        let made = access.put_issuer(root, issuer, &settings, &forget, None, NOW);
        made.await.expect("an issuer");
        let settings = RuleSettings {
            conditions: vec![Condition::equal(claim, value)],
        };
        let made = access.put_rule(root, rule, issuer, &settings, None, NOW);
        made.await.expect("a rule");
    }
    key
}

/// Makes a random world in a server.
async fn make(server: &TestServer, dice: &mut Dice) -> World {
    let access = &server.app().registry.access;
    let mut world = World::default();
    let root = Changer::Operator;
    let most: Vec<Permission> = Permission::ALL
        .into_iter()
        .filter(|one| *one != Permission::Admin)
        .collect();
    let mut roles: Vec<(String, Permissions)> = Role::ALL
        .into_iter()
        .filter(|role| !matches!(role, Role::None | Role::Admin))
        .map(|role| (role.to_string(), role.permissions()))
        .collect();
    for name in ["first", "second", "third"] {
        let some: Permissions = (0..=dice.below(3)).map(|_| *dice.one(&most)).collect();
        let made = access.set_role(root, name, Some(some), NOW).await;
        made.expect("a role");
        roles.push((name.into(), some));
    }
    for group in GROUPS {
        access
            .set_group(root, group, true, NOW)
            .await
            .expect("a group");
        for who in USERS.into_iter().chain(ROBOTS).chain(MACHINES) {
            if dice.rarely(3) {
                let subject: Subject = who.parse().expect("somebody");
                let added = access.set_member(root, group, &subject, true, NOW).await;
                added.expect("a member");
                world.members.insert((group, who));
            }
        }
    }
    for place in PLACES.into_iter().filter(|place| !place.is_empty()) {
        let visibility = *dice.one(&[
            None,
            None,
            Some(Visibility::Private),
            Some(Visibility::Internal),
            Some(Visibility::Public),
        ]);
        let Some(visibility) = visibility else {
            continue;
        };
        let set = access.set_namespace(root, place, visibility, NOW).await;
        set.expect("a namespace");
        let who = match visibility {
            Visibility::Private => continue,
            Visibility::Internal => "signed-in",
            Visibility::Public => "anonymous",
        };
        world.lines.push(Line {
            who: who.into(),
            permissions: Role::Reader.permissions(),
            on: place.into(),
            ended: false,
            near: true,
            tags: None,
            sign_in: None,
        });
    }
    let whom: Vec<String> = USERS
        .into_iter()
        .chain(USERS)
        .chain(ROBOTS)
        .chain(MACHINES)
        .chain(["anonymous", "signed-in"])
        .map(str::to_owned)
        .chain(GROUPS.map(|group| format!("group:{group}")))
        .collect();
    let mut made = 0;
    for _ in 0..18 {
        let who = dice.one(&whom).clone();
        let (role, permissions) = dice.one(&roles).clone();
        let on = *dice.one(&PLACES);
        let ended = dice.rarely(5);
        let near = !dice.rarely(5);
        let tags = dice.rarely(4).then(|| *dice.one(&["v*", "latest", "*"]));
        let ways = &SignIn::ALL[1..];
        let sign_in = dice.rarely(5).then(|| *dice.one(ways));
        let network = if near { "127.0.0.0/8" } else { "10.0.0.0/8" };
        let conditions = Conditions {
            expires_at: ended.then_some(NOW + HOUR),
            networks: match near && dice.rarely(2) {
                true => Vec::new(),
                false => vec![network.parse().expect("a network")],
            },
            tags: tags.map(|text| text.parse().expect("a pattern")),
            sign_in,
        };
        let granting = Granting {
            subject: who.parse().expect("somebody"),
            role,
            on: on.into(),
            conditions,
        };
        // A robot beyond its home, everybody as owner: such are refused, and are no lines.
        if access.grant(root, &granting, NOW).await.is_ok() {
            made += 1;
            world.lines.push(Line {
                who,
                permissions,
                on: on.into(),
                ended,
                near,
                tags,
                sign_in,
            });
        }
    }
    assert!(made >= 5, "{made}");
    world
}

/// Everybody with everything that they can hold.
async fn askers(
    server: &TestServer,
    cards: &Cards,
    key: &TokenKey,
    dice: &mut Dice,
) -> Vec<(Asker, Client)> {
    let registry = &server.app().registry;
    let base = server.admin(Version::Http1).anonymous();
    let plain = |name: &str, sign_in| Asker {
        name: name.to_owned(),
        sign_in,
        narrow: None,
        sold: None,
    };
    let mut all = vec![(plain("", SignIn::Nobody), base.clone())];
    for user in USERS {
        all.push((
            plain(user, SignIn::Password),
            base.clone().with_basic(user, "x"),
        ));
        let mail = format!("email:{user}@example.com");
        let card = cards.show(server, Version::Http1, &mail);
        all.push((plain(user, SignIn::Certificate), card));
        for n in 0..2 {
            let words = *dice.one(&[
                "pull",
                "pull,push",
                "pull,push,delete,catalog",
                "catalog,read-settings",
            ]);
            let on = *dice.one(&PLACES);
            let permissions = words.split(',').map(|word| word.parse::<Permission>());
            let permissions: Result<Permissions, _> = permissions.collect();
            let narrow = (n > 0).then(|| (permissions.expect("permissions"), on));
            let scope = match on {
                "" => words.to_owned(),
                on => format!("{words}:{on}"),
            };
            let new = NewToken {
                user: user.into(),
                name: format!("number {n}"),
                scopes: narrow.iter().map(|_| scope.clone()).collect(),
                lifetime: None,
            };
            let made = create_token(registry, Changer::Operator, &new).await;
            let secret = made.expect("a token").secret.reveal().to_owned();
            let asker = Asker {
                narrow,
                ..plain(user, SignIn::ApiToken)
            };
            all.push((asker, base.clone().with_basic(user, &secret)));
        }
    }
    for robot in ROBOTS {
        let new = NewRobot {
            name: robot.into(),
            ..NewRobot::default()
        };
        let made = create_robot(registry, Changer::Operator, &new).await;
        let secret = made.expect("a robot").secret.reveal().to_owned();
        all.push((
            plain(robot, SignIn::RobotSecret),
            base.clone().with_basic(robot, &secret),
        ));
    }
    let now = registry.clock.now_ms() / 1_000;
    let says = json!({"iss": "https://ci.example", "sub": "build", "aud": "wharf", "iat": now, "exp": now + 3_600});
    let [builds, hosts] = MACHINES;
    let build = base.clone().with_basic("x", &key.sign(&says));
    all.push((plain(builds, SignIn::Workload), build));
    let host = cards.show(server, Version::Http1, "dns:host.example.com");
    all.push((plain(hosts, SignIn::Certificate), host));
    // What the token endpoint sells to each of them, for what they hold or not: that is asked at each request.
    for at in 0..all.len() {
        let (asker, client) = all[at].clone();
        let mut asked = Vec::new();
        let mut query = String::new();
        for repository in REPOSITORIES {
            let mut words = Vec::new();
            for (word, permission) in [
                ("pull", Permission::Pull),
                ("push", Permission::Push),
                ("delete", Permission::Delete),
            ] {
                if !dice.rarely(4) {
                    words.push(word);
                    asked.push((repository, permission));
                }
            }
            let scope = format!("repository:{repository}:{}", words.join(","));
            query.push_str(&format!("&scope={}", encode_query(&scope)));
        }
        if dice.rarely(2) {
            query.push_str("&scope=registry:catalog:*");
            asked.push(("", Permission::Catalog));
        }
        let answer = client.get(&format!("/token?service=x{query}")).send().await;
        let token = answer.expect_status(200).json()["token"]
            .as_str()
            .expect("a token")
            .to_owned();
        let sold = Asker {
            sold: Some(asked),
            ..asker
        };
        // Shown as it was bought: what a certificate bought is worth nothing without it.
        all.push((sold, client.with_token(&token)));
    }
    all
}

/// What became of a question: whether they were let in, and what they were told.
async fn ask(client: &Client, method: Method, path: &str) -> (bool, u16, Vec<String>) {
    let answer = client.request(method, path).body("").send().await;
    let status = answer.status.as_u16();
    assert!(status < 500, "{answer}");
    let body = (status == 200 && path.contains("_catalog")).then(|| answer.json());
    let names = body
        .as_ref()
        .and_then(|body| body["repositories"].as_array());
    let names = names.into_iter().flatten().filter_map(|name| name.as_str());
    let names = names.map(str::to_owned).collect();
    (!matches!(status, 401 | 403), status, names)
}

/// Gives how many blobs were mounted.
async fn compare(seed: u64) -> usize {
    let clock = Arc::new(ManualClock::at(NOW));
    let cards = Cards::new();
    let server = TestServer::start(TestOptions {
        tls: true,
        config: cards.config(),
        htpasswd: USERS.iter().map(|user| (*user, "x")).collect(),
        htpasswd_role: Some("none"),
        clock: Some(clock.clone()),
        ..TestOptions::default()
    })
    .await;
    let admin = server.admin(Version::Http1);
    let image = Image::random();
    let mut marks = Vec::new();
    for repository in REPOSITORIES {
        // A blob that is nowhere else.
        let mark = Image::random().config;
        let path = format!("/v2/{repository}/blobs/uploads/?digest={}", mark.digest);
        let pushed = admin
            .post(&path)
            .header("content-type", "application/octet-stream");
        pushed
            .body(mark.bytes.clone())
            .send()
            .await
            .expect_status(201);
        marks.push(mark.digest);
        for tag in TAGS {
            admin.push_image(repository, tag, &image).await;
        }
    }
    let mut dice = Dice::new(seed);
    let key = trust(&server).await;
    let world = make(&server, &mut dice).await;
    // What was to end has ended.
    clock.advance(2 * HOUR);
    let askers = askers(&server, &cards, &key, &mut dice).await;
    let (digest, absent) = (
        &image.manifest.digest,
        "sha256:".to_owned() + &"0".repeat(64),
    );
    let blob = &image.config.digest;
    let (mut inside, mut outside, mut mounts) = (0, 0, 0);
    let mut taken = BTreeSet::new();
    for question in 0..QUESTIONS {
        let (asker, client) = dice.one(&askers).clone();
        let (path, other) = (*dice.one(&REPOSITORIES), *dice.one(&REPOSITORIES));
        let tag = *dice.one(&TAGS);
        use About::{Every, Nothing, One};
        use Permission::{Catalog, Delete, Pull, Push, ReadSettings};
        let kind = dice.below(10);
        let bearer = asker.sold.is_some();
        let may = |permission, about| world.may(&asker, permission, path, about);
        let (method, target, expected) = match kind {
            0 => (
                Method::GET,
                format!("/v2/{path}/manifests/{tag}"),
                may(Pull, One(tag)),
            ),
            1 => (
                Method::GET,
                format!("/v2/{path}/manifests/{digest}"),
                may(Pull, Nothing),
            ),
            2 => (
                Method::HEAD,
                format!("/v2/{path}/blobs/{blob}"),
                may(Pull, Nothing),
            ),
            3 => (
                Method::POST,
                format!("/v2/{path}/blobs/uploads/"),
                may(Push, Nothing),
            ),
            4 => (
                Method::GET,
                format!("/v2/{path}/tags/list"),
                may(Pull, Nothing),
            ),
            5 => (
                Method::PUT,
                format!("/v2/{path}/manifests/{tag}"),
                may(Push, One(tag)),
            ),
            // Nothing is there to be deleted, so that the next one finds the same.
            6 => (
                Method::DELETE,
                format!("/v2/{path}/manifests/{absent}"),
                may(Delete, Every),
            ),
            7 => (
                Method::DELETE,
                format!("/v2/{path}/blobs/{absent}"),
                may(Delete, Every),
            ),
            8 => (Method::GET, "/v2/_catalog".to_owned(), world.lists(&asker)),
            _ if bearer => continue,
            _ => {
                let seen = may(Pull, Nothing) || may(Catalog, Nothing);
                let settings = may(ReadSettings, Nothing);
                match dice.rarely(2) {
                    true => (Method::GET, format!("/api/v1/repositories/{path}"), seen),
                    false => (
                        Method::GET,
                        format!("/api/v1/robots?namespace={path}"),
                        settings,
                    ),
                }
            }
        };
        let (let_in, status, names) = ask(&client, method.clone(), &target).await;
        // The management API says of what may not be seen that it is not there.
        let let_in = let_in && !(target.starts_with("/api/") && status == 404);
        let told = || {
            format!(
                "WHARF_SEED={seed}, question {question}: {method} {target} as {asker:?}: {status}; {world:#?}"
            )
        };
        assert_eq!(let_in, expected, "{}", told());
        if kind == 8 && let_in {
            assert_eq!(names, world.listed(&asker), "{}", told());
        }
        *(if let_in { &mut inside } else { &mut outside }) += 1;
        // A blob of another repository is taken only by whoever may read it there; once here, it is here.
        if kind == 3 && let_in && path != other && !taken.contains(&(path, other)) {
            let at = REPOSITORIES.iter().position(|name| *name == other);
            let mark = &marks[at.expect("a repository")];
            let target = format!("/v2/{path}/blobs/uploads/?mount={mark}&from={other}");
            let (_, status, _) = ask(&client, Method::POST, &target).await;
            // Of the source the user is asked, and not what the token was sold for.
            let user = Asker {
                sold: None,
                ..asker.clone()
            };
            let expected = match world.may(&user, Pull, other, Nothing) {
                true => 201,
                false => 202,
            };
            assert_eq!(status, expected, "{target}: {}", told());
            if status == 201 {
                taken.insert((path, other));
                mounts += 1;
            }
        }
    }
    assert!(
        inside > QUESTIONS / 40 && outside > QUESTIONS / 40,
        "{seed}: {inside} in, {outside} out"
    );
    mounts
}

/// Spec: AUTH-7, SCOPE-2, CAT-2.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_lets_in_exactly_whom_the_independent_model_does() {
    let first = number("WHARF_SEED", 1);
    let mut mounts = 0;
    for seed in first..first + number("WHARF_WORLDS", WORLDS) {
        mounts += compare(seed).await;
    }
    assert!(mounts > 0, "no world let anybody mount anything");
}
