use std::cell::{Cell, RefCell};
use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;
use serde_json::{Value, json};
use wharf_testkit::{FakeTerminals, Fault};

use super::device::Pace;
use super::*;

/// A user's folder.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn keeper(&self) -> Keeper {
        Keeper {
            path: self.0.path().join("wharf").join(NAME),
            now: || 1_800_000_000,
        }
    }

    /// The same, so many seconds later.
    fn later<const SECONDS: i64>(&self) -> Keeper {
        Keeper {
            now: || 1_800_000_000 + SECONDS,
            ..self.keeper()
        }
    }

    fn signed_in(&self, server: &FakeTerminals) -> Keeper {
        let keeper = self.keeper();
        let signed_in = keeper.sign_in("here", &server.url, None, &mut |_| {});
        assert!(matches!(signed_in, Ok(SignedIn::As(user)) if user == "alice"));
        keeper
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.keeper().path).unwrap()
    }
}

fn access(good: Result<Option<Good>, Failure>) -> String {
    match good {
        Ok(Some(Good::Access(token))) => token,
        Ok(_) => panic!("no access token"),
        Err(failure) => panic!("{}", failure.error),
    }
}

fn refused<T>(done: Result<T, Failure>) -> String {
    done.err().expect("a refusal").error.to_string()
}

/// Time that passes only while somebody waits.
#[derive(Default)]
struct Waited {
    now: Cell<Duration>,
    pauses: RefCell<Vec<u64>>,
}

impl Pace for Waited {
    fn elapsed(&self) -> Duration {
        self.now.get()
    }

    fn pause(&self, time: Duration) {
        self.now.set(self.now.get() + time);
        self.pauses.borrow_mut().push(time.as_secs());
    }
}

fn device(server: &FakeTerminals, pace: &Waited, told: &mut usize) -> Result<Grant, Failure> {
    let target = Target {
        url: &server.url,
        authority: None,
    };
    let Ok(Found::Device(endpoints)) = oauth::discover(target) else {
        panic!("no endpoints");
    };
    let mut tell = |event: Event<'_>| {
        if let Event::Unanswered(_) = event {
            *told += 1;
        }
    };
    device::sign_in(target, &endpoints, "desk", pace, &mut tell)
}

/// Spec: OIDC-6.
#[test]
fn a_device_is_asked_for_as_often_as_the_registry_wants_it() {
    let (server, pace, mut told) = (FakeTerminals::start(), Waited::default(), 0);
    server.reply(&[
        "authorization_pending",
        "slow_down",
        "authorization_pending",
    ]);
    let grant = device(&server, &pace, &mut told).unwrap();
    assert_eq!((grant.user.as_str(), grant.lasts), ("alice", 900));
    assert_eq!(*pace.pauses.borrow(), [1, 1, 6, 6]);
    let asked = server.asked();
    let code = asked
        .iter()
        .find(|asked| asked.what == "POST /auth/device/code")
        .unwrap();
    assert_eq!(
        (
            code.form["client_id"].as_str(),
            code.form["device"].as_str()
        ),
        ("wharf", "desk")
    );
    let poll = asked.last().unwrap();
    assert_eq!(poll.form["device_code"], "device-1");
    assert_eq!(poll.form["grant_type"], oauth::DEVICE_GRANT);
    assert!(asked.iter().all(|asked| asked.authorization.is_none()));
}

#[test]
fn a_code_outlives_answers_that_do_not_come() {
    let (server, pace, mut told) = (FakeTerminals::start(), Waited::default(), 0);
    for fault in [
        Fault::status(503),
        Fault::Says("garbage".into()),
        Fault::Huge(1 << 20),
        Fault::status(200),
    ] {
        server.fail("/token", fault);
    }
    let garbage = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
    server.fail("/token", Fault::Says(garbage.into()));
    server.reply(&["authorization_pending"]);
    assert!(device(&server, &pace, &mut told).is_ok());
    assert_eq!(*pace.pauses.borrow(), [1, 2, 4, 8, 16, 32, 1]);
    assert_eq!(told, 1, "it is told once");
}

/// Spec: OIDC-6.
#[test]
fn each_way_to_fail_has_its_own_words() {
    for (error, words) in [
        (
            "access_denied",
            "refused in the browser; run `wharf login http://127.0.0.1",
        ),
        ("expired_token", "nobody has confirmed it; run `wharf login"),
        ("invalid_grant", "no longer known there"),
        ("invalid_request", "signs nobody in: it is invalid_request"),
    ] {
        let (server, pace, mut told) = (FakeTerminals::start(), Waited::default(), 0);
        server.reply(&[error]);
        let text = refused(device(&server, &pace, &mut told));
        assert!(text.contains(words), "{text}");
    }
    let (server, pace, mut told) = (FakeTerminals::start(), Waited::default(), 0);
    server.confirm_as(None);
    let text = refused(device(&server, &pace, &mut told));
    assert!(text.contains("nobody has confirmed it"), "{text}");
    assert_eq!(pace.now.get(), Duration::from_secs(600));
    let (server, pace) = (FakeTerminals::start(), Waited::default());
    server.fail("/token", Fault::redirect("http://127.0.0.1:9/token"));
    let text = refused(device(&server, &pace, &mut told));
    assert!(text.contains("not followed with a secret"), "{text}");
}

#[test]
fn a_registry_without_the_device_flow_asks_for_a_password() {
    let found = |server: &FakeTerminals| {
        oauth::discover(Target {
            url: &server.url,
            authority: None,
        })
    };
    let server = FakeTerminals::start();
    for fault in [
        Fault::status(404),
        Fault::status(401),
        Fault::status(200),
        Fault::redirect("/v2/"),
    ] {
        server.fail("/.well-known/oauth-authorization-server", fault);
        assert_eq!(found(&server).unwrap(), Found::Password);
    }
    server.fail(
        "/.well-known/oauth-authorization-server",
        Fault::status(503),
    );
    assert!(refused(found(&server)).contains("try again"));
    server.fail(
        "/.well-known/oauth-authorization-server",
        Fault::Huge(1 << 20),
    );
    assert!(refused(found(&server)).contains("larger than 64 KiB"));
    // Secrets go nowhere else.
    for elsewhere in [
        "https://evil.example/token",
        "http://127.0.0.1:1/token",
        "token",
        "http://127.0.0.1",
    ] {
        server.set_metadata("token_endpoint", json!(elsewhere));
        assert!(
            refused(found(&server)).contains("token_endpoint is not at"),
            "{elsewhere}"
        );
    }
    server.set_metadata("issuer", json!("https://reg.example"));
    assert_eq!(
        found(&server).unwrap(),
        Found::Elsewhere("https://reg.example".into())
    );
    server.set_metadata("device_authorization_endpoint", Value::Null);
    assert_eq!(found(&server).unwrap(), Found::Password);
}

#[test]
fn what_a_registry_says_cannot_write_over_the_terminal() {
    let server = FakeTerminals::start();
    let answer = |code: &Value| {
        let body = code.to_string();
        Fault::Says(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let good = json!({"device_code": "d", "user_code": "AB", "verification_uri": "https://x/device", "expires_in": 9});
    for (field, value) in [
        ("user_code", json!("\u{1b}[2J")),
        ("user_code", json!("")),
        ("verification_uri", json!("javascript:alert(1)")),
        ("verification_uri", json!("https://x/\u{202e}")),
        ("device_code", json!("a\r\nb")),
        ("expires_in", json!("soon")),
    ] {
        let mut code = good.clone();
        code[field] = value;
        server.fail("/auth/device/code", answer(&code));
        let told = refused(device(&server, &Waited::default(), &mut 0));
        assert!(
            told.contains("cannot be read") && !told.contains('\u{1b}'),
            "{told}"
        );
    }
}

#[test]
fn a_token_is_used_for_half_its_life_and_then_renewed() {
    let (home, server) = (Home::new(), FakeTerminals::start());
    let keeper = home.signed_in(&server);
    let mode = std::fs::metadata(&keeper.path)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(access(keeper.good("here", "alice", None)), "access-1");
    assert_eq!(
        access(home.later::<449>().good("here", "alice", None)),
        "access-1"
    );
    assert_eq!(server.rotations(), (0, 0));
    assert_eq!(
        access(home.later::<450>().good("here", "alice", None)),
        "access-2"
    );
    assert_eq!(
        access(home.later::<450>().good("here", "alice", None)),
        "access-2"
    );
    assert_eq!(server.rotations(), (1, 0));
    // The clock was set back: nobody knows how old the token is.
    assert_eq!(access(keeper.good("here", "alice", None)), "access-3");
    // Refused, whatever its age.
    assert_eq!(
        access(keeper.good("here", "alice", Some("access-3"))),
        "access-4"
    );
    assert_eq!(
        access(keeper.good("here", "alice", Some("access-3"))),
        "access-4"
    );
    assert!(keeper.good("here", "bob", None).unwrap().is_none());
    assert!(keeper.good("there", "alice", None).unwrap().is_none());
    let names: Vec<_> = std::fs::read_dir(keeper.path.parent().unwrap())
        .unwrap()
        .collect();
    assert_eq!(names.len(), 3, "the file and two locks: {names:?}");
}

#[test]
fn an_answer_that_was_lost_is_asked_for_again() {
    let (home, server) = (Home::new(), FakeTerminals::start());
    home.signed_in(&server);
    server.fail("/token", Fault::Cut);
    server.fail("/token", Fault::status(502));
    assert_eq!(
        access(home.later::<600>().good("here", "alice", None)),
        "access-3"
    );
    assert_eq!((server.rotations(), server.ended()), ((3, 1), 0));
    assert_eq!(
        access(home.later::<1500>().good("here", "alice", None)),
        "access-4"
    );
}

#[test]
fn a_registry_that_is_away_takes_nothing_from_a_token_that_lasts() {
    let (home, server) = (Home::new(), FakeTerminals::start());
    home.signed_in(&server);
    let down = || (0..3).for_each(|_| server.fail("/token", Fault::status(503)));
    down();
    assert_eq!(
        access(home.later::<899>().good("here", "alice", None)),
        "access-1"
    );
    down();
    let told = refused(home.later::<900>().good("here", "alice", None));
    assert!(
        told.contains("status 503") && told.contains(&server.url),
        "{told}"
    );
    down();
    refused(home.later::<500>().good("here", "alice", Some("access-1")));
    assert_eq!(
        access(home.later::<900>().good("here", "alice", None)),
        "access-2"
    );
}

#[test]
fn whoever_was_signed_out_is_told_how_to_sign_in_and_no_server_is_asked_again() {
    let (home, server) = (Home::new(), FakeTerminals::start());
    home.signed_in(&server);
    server.end();
    for _ in 0..2 {
        let told = refused(home.later::<600>().good("here", "alice", None));
        let wanted = format!(
            "alice was signed out by {0}: run `wharf login {0}`",
            server.url
        );
        assert_eq!(told, wanted);
    }
    assert_eq!(server.rotations().0, 1);
    let kept = home.keeper().load().unwrap();
    assert_eq!(kept.how("here", "alice"), Some(How::Out));
    assert!(kept.listed().is_empty());
    assert!(
        !home.text().contains("wharf_terminal_"),
        "what is over is not kept"
    );
    home.signed_in(&server);
    assert_eq!(
        home.keeper().load().unwrap().how("here", "alice"),
        Some(How::Terminal)
    );
}

#[test]
fn what_is_replaced_or_erased_is_ended_at_the_registry() {
    let (home, server) = (Home::new(), FakeTerminals::start());
    home.signed_in(&server);
    let keeper = home.signed_in(&server);
    let revoked: Vec<_> = server
        .asked()
        .into_iter()
        .filter(|asked| asked.what == "POST /auth/revoke")
        .collect();
    assert_eq!(revoked.len(), 1);
    assert_eq!(revoked[0].form["token"], "wharf_terminal_1");
    assert_eq!(server.ended(), 1);
    keeper.put_password("here", "bob", "of bob".into()).unwrap();
    keeper.erase("here", "alice").unwrap().unwrap();
    assert_eq!(server.ended(), 2);
    let kept = keeper.load().unwrap();
    assert_eq!(kept.chosen(&"here".parse().unwrap()), Some(("here", "bob")));
    assert!(kept.how("here", "alice").is_none());
    // A registry that is away is told of, and nothing is kept.
    home.signed_in(&server);
    server.fail("/auth/revoke", Fault::status(500));
    let told = refused(keeper.erase("here", "alice").unwrap());
    assert!(told.contains("status 500"), "{told}");
    let kept = keeper.load().unwrap();
    assert!(kept.how("here", "alice").is_none());
    assert_eq!(
        kept.chosen(&"here".parse().unwrap()),
        None,
        "bob is not chosen for them"
    );
}

#[test]
fn a_client_that_stores_what_it_got_changes_nothing() {
    let (home, server) = (Home::new(), FakeTerminals::start());
    let keeper = home.signed_in(&server);
    let here = "here".parse().unwrap();
    access(home.later::<600>().good("here", "alice", None));
    for got in ["access-1", "access-2"] {
        keeper
            .store(&here, "https://here", "alice", got.into())
            .unwrap();
        assert_eq!(
            keeper.load().unwrap().how("here", "alice"),
            Some(How::Terminal),
            "{got}"
        );
    }
    keeper
        .store(&here, "https://here", "alice", "a password".into())
        .unwrap();
    let kept = keeper.load().unwrap();
    assert_eq!(kept.how("here", "alice"), Some(How::Password));
    assert_eq!(
        kept.listed().into_iter().collect::<Vec<_>>(),
        [("https://here", "alice")]
    );
    assert_eq!(server.ended(), 1, "the terminal is not left behind");
}

#[test]
fn a_damaged_file_is_told_without_its_secrets_and_stays() {
    let (home, server) = (Home::new(), FakeTerminals::start());
    let keeper = home.signed_in(&server);
    for text in [
        "[registry.here.credential.alice.password]\nsecret = hidden\n",
        "[registry.here]\nunknown = \"hidden\"\n",
    ] {
        std::fs::write(&keeper.path, text).unwrap();
        for told in [
            refused(keeper.good("here", "alice", None)),
            refused(keeper.put_password("here", "alice", "other".into())),
            refused(keeper.check()),
        ] {
            assert!(
                told.contains("credentials.toml is damaged") && !told.contains("hidden"),
                "{told}"
            );
        }
        assert_eq!(home.text(), text);
    }
}

#[test]
fn what_could_not_be_kept_is_not_asked_for() {
    let (home, server) = (Home::new(), FakeTerminals::start());
    let keeper = home.signed_in(&server);
    // Rights do not stop root, a folder in the way does.
    let mark = &hash("here")[..16];
    let blocked = keeper.path.with_file_name(format!("renew-{mark}.new"));
    std::fs::create_dir(&blocked).unwrap();
    assert_eq!(
        access(home.later::<600>().good("here", "alice", None)),
        "access-1"
    );
    let told = refused(home.later::<900>().good("here", "alice", None));
    assert!(told.contains("credentials.toml"), "{told}");
    assert_eq!(server.rotations(), (0, 0), "nothing was spent");
    std::fs::remove_dir(blocked).unwrap();
    assert_eq!(
        access(home.later::<900>().good("here", "alice", None)),
        "access-2"
    );
}

#[test]
fn the_file_has_an_end() {
    let home = Home::new();
    let keeper = home.keeper();
    let filled = keeper.change(|kept| {
        (0..1_000).try_for_each(|n| {
            let credential = Credential::Password { secret: "s".into() };
            kept.put(&format!("host-{n}"), "alice", credential)
                .map(drop)
        })
    });
    filled.unwrap();
    let told = refused(keeper.put_password("one-more", "alice", "s".into()));
    assert!(told.contains("1000 credentials"), "{told}");
    keeper
        .put_password("host-1", "alice", "another".into())
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_kept_is_read_again(key in "[ -~]{0,20}", user in "[^\\p{Cc}]{1,20}", secret in "\\PC{0,40}") {
        let mut kept = Kept::default();
        kept.put(&key, &user, Credential::Password { secret: secret.clone() }).map_err(TestCaseError::fail)?;
        let read = Kept::read(&kept.render().unwrap()).ok_or_else(|| TestCaseError::fail("damaged"))?;
        let Some(Credential::Password { secret: again }) = read.get(&key, &user) else {
            return Err(TestCaseError::fail("nothing is there"));
        };
        prop_assert_eq!(again, &secret);
    }
}
