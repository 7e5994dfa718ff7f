//! A terminal from its code to its end, by a clock that a test holds, and what is never shown.

use super::*;
use crate::access::{
    Changer, Conditions, Granting, Presented, Principal, SignIn, Source, TokenFault,
};
use crate::house::House;
use crate::identity;
use crate::session::{self, By, Session};
use wharf_oci::Authorization;

const DAY: i64 = 86_400_000;
const PASSWORD: &str = "wonderland looks";

async fn house() -> House {
    let house = House::new().await;
    house.clock.set(1_795_219_200_000);
    let password = Some(Password::new(PASSWORD));
    identity::create_user(&house.registry, Changer::Operator, "alice", password)
        .await
        .unwrap();
    house
}

fn came(house: &House) -> Circumstances {
    let here = "10.0.0.1".parse().ok();
    Circumstances::new(here, house.registry.clock.now_ms())
}

async fn browser(house: &House) -> Session {
    let alice = Principal::User {
        name: "alice".into(),
        source: Source::Local,
    };
    let (registry, came) = (&house.registry, came(house));
    let secret = session::begin(registry, &alice, By::Password, came, "").await;
    let found = session::find(registry, &secret.unwrap(), came).await;
    found.unwrap().unwrap()
}

async fn granted(house: &House) -> Granted {
    let (registry, session) = (&house.registry, browser(house).await);
    let begun = begin(registry, "laptop", came(house)).await.unwrap();
    let code = begun.user_code.reveal();
    decide(registry, &session, code, true, came(house))
        .await
        .unwrap();
    poll(registry, &begun.device_code, came(house))
        .await
        .unwrap()
}

async fn by_token(house: &House, token: &Password) -> Result<Caller, AuthFailure> {
    let bearer = Authorization::Bearer(token.reveal().to_owned());
    let presented = Presented::from(Some(&bearer));
    house
        .registry
        .access
        .authenticate(presented, came(house))
        .await
}

async fn by_password(house: &House, user: &str, token: &Password) -> Result<Caller, AuthFailure> {
    let basic = Authorization::Basic {
        user: user.to_owned(),
        password: token.reveal().to_owned(),
    };
    let presented = Presented::from(Some(&basic));
    house
        .registry
        .access
        .authenticate(presented, came(house))
        .await
}

async fn again(house: &House, token: &Password) -> Result<Granted, &'static str> {
    let granted = refresh(&house.registry, token, came(house)).await;
    granted.map_err(|error| error.word())
}

#[tokio::test]
async fn a_terminal_is_its_user() {
    let house = house().await;
    let granted = granted(&house).await;
    assert_eq!((&*granted.username, granted.expires_in), ("alice", 900));
    for caller in [
        by_token(&house, &granted.access_token).await.unwrap(),
        by_password(&house, "alice", &granted.access_token)
            .await
            .unwrap(),
    ] {
        assert_eq!(caller.principal.name(), "alice");
        assert_eq!(caller.circumstances.sign_in, SignIn::Terminal);
        assert_eq!(caller.credential.as_deref(), Some(&*granted.terminal));
        assert!(caller.scopes.is_none() && caller.narrow.is_none());
    }
    for (user, token) in [
        ("bob", &granted.access_token),
        ("", &granted.access_token),
        ("alice", &granted.refresh_token),
    ] {
        let refused = by_password(&house, user, token).await.unwrap_err();
        assert!(matches!(refused, AuthFailure::Secret), "{refused:?}");
    }
    let mut broken = granted.access_token.reveal().to_owned();
    broken.pop();
    let refused = by_password(&house, "alice", &Password::new(broken)).await;
    assert!(matches!(
        refused.unwrap_err(),
        AuthFailure::Token(TokenFault::Signature | TokenFault::Malformed)
    ));
}

#[tokio::test]
async fn codes_end_in_ten_minutes_and_only_then() {
    let house = house().await;
    let (registry, session) = (&house.registry, browser(&house).await);
    let begun = begin(registry, "", came(&house)).await.unwrap();
    let life = i64::try_from(CODE_LIFE.as_millis()).unwrap();
    house.clock.advance(life - 1);
    let code = begun.user_code.reveal();
    assert!(find(registry, &session, code, came(&house)).await.is_ok());
    assert!(matches!(
        poll(registry, &begun.device_code, came(&house)).await,
        Err(TerminalError::Pending)
    ));
    house.clock.advance(1);
    let late = decide(registry, &session, code, true, came(&house)).await;
    assert!(matches!(late, Err(CodeError::Unknown)), "{late:?}");
    assert!(matches!(
        poll(registry, &begun.device_code, came(&house)).await,
        Err(TerminalError::Expired)
    ));
    forget(registry).await.unwrap();
    assert!(matches!(
        poll(registry, &begun.device_code, came(&house)).await,
        Err(TerminalError::Expired)
    ));
    house.clock.advance(life + 1);
    forget(registry).await.unwrap();
    assert!(matches!(
        poll(registry, &begun.device_code, came(&house)).await,
        Err(TerminalError::Grant(_))
    ));
    // Approved in time, and fetched too late.
    let session = browser(&house).await;
    let begun = begin(registry, "", came(&house)).await.unwrap();
    decide(
        registry,
        &session,
        begun.user_code.reveal(),
        true,
        came(&house),
    )
    .await
    .unwrap();
    house.clock.advance(life);
    assert!(matches!(
        poll(registry, &begun.device_code, came(&house)).await,
        Err(TerminalError::Expired)
    ));
}

#[tokio::test]
async fn expired_and_future_tokens_and_a_clock_that_jumps() {
    let house = house().await;
    let one = granted(&house).await;
    // The access token has a minute of leeway, as all of ours, and no time of grace for uploads.
    house.clock.advance(900_000 + 59_000);
    assert!(by_token(&house, &one.access_token).await.is_ok());
    house.clock.advance(1_000);
    for refused in [
        by_token(&house, &one.access_token).await,
        by_password(&house, "alice", &one.access_token).await,
    ] {
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, AuthFailure::Token(TokenFault::Expired)),
            "{refused:?}"
        );
    }
    let two = again(&house, &one.refresh_token).await.unwrap();
    assert!(by_token(&house, &two.access_token).await.is_ok());
    // A day back: a token of the future is none, what was spent stays spent, what is good goes on.
    let now = house.registry.clock.now_ms();
    house.clock.set(now - DAY);
    let refused = by_token(&house, &two.access_token).await.unwrap_err();
    assert!(
        matches!(refused, AuthFailure::Token(TokenFault::Early)),
        "{refused:?}"
    );
    let three = again(&house, &two.refresh_token).await.unwrap();
    assert!(by_token(&house, &three.access_token).await.is_ok());
    assert_eq!(
        again(&house, &one.refresh_token).await.unwrap_err(),
        "invalid_grant"
    );
    assert!(
        by_token(&house, &three.access_token).await.is_err(),
        "its terminal has ended"
    );
}

/// A host of IPv6 has more addresses than anybody can count.
#[tokio::test]
async fn one_network_takes_so_many_places_and_no_more() {
    let house = house().await;
    let now = house.registry.clock.now_ms();
    let ask = async |address: String| {
        let came = Circumstances::new(address.parse().ok(), now);
        assert!(came.address.is_some(), "{address}");
        begin(&house.registry, "", came).await.map(drop)
    };
    for n in 0..MOST_OF_ADDRESS {
        ask(format!("2001:db8:0:1:{n:x}::{n:x}")).await.unwrap();
    }
    let full = ask("2001:db8:0:1::ffff".to_owned()).await;
    assert!(matches!(full, Err(TerminalError::Full)), "{full:?}");
    for other in ["2001:db8:0:2::1", "192.0.2.1", "::ffff:192.0.2.2"] {
        ask(other.to_owned()).await.unwrap();
    }
}

/// A clock that somebody sets forward by months, and back when they see it: what seemed to be over meanwhile is as it was.
#[tokio::test]
async fn a_clock_that_is_set_forward_ends_nothing_for_good() {
    let house = house().await;
    let registry = &house.registry;
    let clear = async || {
        identity::forget_ended(registry).await.unwrap();
        session::forget(registry).await.unwrap();
        forget(registry).await.unwrap();
    };
    clear().await;
    let one = granted(&house).await;
    let waits = begin(registry, "", came(&house)).await.unwrap();
    let alice = Principal::User {
        name: "alice".into(),
        source: Source::Local,
    };
    let cookie = session::begin(registry, &alice, By::Password, came(&house), "").await;
    let cookie = cookie.unwrap();
    let new = identity::NewInvitation {
        name: "bob".into(),
        ..identity::NewInvitation::default()
    };
    let invited = identity::invite(registry, Changer::Operator, &new)
        .await
        .unwrap();
    let new = identity::NewToken {
        user: "alice".into(),
        name: "laptop".into(),
        scopes: Vec::new(),
        lifetime: Some(DAY),
    };
    let token = identity::create_token(registry, Changer::Operator, &new)
        .await
        .unwrap();
    let until = registry.clock.now_ms() + DAY;
    let granting = Granting {
        subject: "alice".parse().unwrap(),
        role: "reader".into(),
        on: "team".into(),
        conditions: Conditions {
            expires_at: Some(until),
            ..Conditions::default()
        },
    };
    let access = &registry.access;
    let now = registry.clock.now_ms();
    access
        .grant(Changer::Operator, &granting, now)
        .await
        .unwrap();

    house.clock.set(now + 200 * DAY);
    for _ in 0..3 {
        clear().await;
        house.clock.advance(60_000);
    }
    house.clock.set(now + 3 * 60_000);
    clear().await;
    assert!(again(&house, &one.refresh_token).await.is_ok());
    let found = session::find(registry, &cookie, came(&house)).await;
    assert!(found.unwrap().is_some());
    assert!(by_password(&house, "alice", &token.secret).await.is_ok());
    let listed = access
        .policy()
        .bindings()
        .any(|binding| binding.conditions.expires_at == Some(until) && binding.origin.is_row());
    assert!(listed, "a grant went");
    let password = Password::new("a looking glass");
    identity::accept_invitation(registry, Some(came(&house)), &invited.secret, password)
        .await
        .unwrap();
    let waiting = poll(registry, &waits.device_code, came(&house)).await;
    assert!(
        matches!(waiting, Err(TerminalError::Pending)),
        "{waiting:?}"
    );

    // What has really passed is forgotten.
    house.clock.advance(200 * DAY);
    clear().await;
    assert_eq!(
        again(&house, &one.refresh_token).await.unwrap_err(),
        "invalid_grant"
    );
    assert!(matches!(
        poll(registry, &waits.device_code, came(&house)).await,
        Err(TerminalError::Grant(_))
    ));
    let row = wharf_meta::credential::Of {
        principal: "alice".into(),
        limit: 9,
    };
    assert!(registry.meta.read(row).await.unwrap().is_empty());
    let left = access
        .policy()
        .bindings()
        .any(|binding| binding.conditions.expires_at.is_some());
    assert!(!left, "a grant stays for ever");
}

#[tokio::test]
async fn a_lost_answer_is_given_again_for_half_a_minute() {
    let house = house().await;
    let grace = i64::try_from(GRACE.as_millis()).unwrap();
    let one = granted(&house).await;
    let lost = again(&house, &one.refresh_token).await.unwrap();
    house.clock.advance(grace);
    let two = again(&house, &one.refresh_token).await.unwrap();
    assert!(by_token(&house, &two.access_token).await.is_ok());
    house.clock.advance(1);
    // The time runs from the first use on, and does not begin anew.
    assert_eq!(
        again(&house, &one.refresh_token).await.unwrap_err(),
        "invalid_grant"
    );
    assert!(by_token(&house, &two.access_token).await.is_err());
    assert!(by_token(&house, &lost.access_token).await.is_err());
}

#[tokio::test]
async fn a_terminal_ends_when_nobody_uses_it_and_after_its_longest_life() {
    let house = house().await;
    let rules = TerminalRules::default();
    let one = granted(&house).await;
    house.clock.advance(ms(rules.idle));
    assert_eq!(
        again(&house, &one.refresh_token).await.unwrap_err(),
        "invalid_grant"
    );
    assert!(by_token(&house, &one.access_token).await.is_err());
    let mut token = granted(&house).await.refresh_token;
    let days = i64::try_from(rules.lifetime.as_secs() / 86_400).unwrap();
    for _ in 0..days - 1 {
        house.clock.advance(DAY);
        token = again(&house, &token).await.unwrap().refresh_token;
    }
    let last = again(&house, &token).await.unwrap();
    house.clock.advance(DAY);
    assert!(
        again(&house, &last.refresh_token).await.is_err(),
        "for so long at most"
    );
    forget(&house.registry).await.unwrap();
    assert!(
        session::list(&house.registry, "alice")
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn lists_show_terminals_and_what_ends_them_counts_at_once() {
    let house = house().await;
    let registry = &house.registry;
    let one = granted(&house).await;
    house.clock.advance(1);
    let two = granted(&house).await;
    let all = session::list(registry, "alice").await.unwrap();
    let terminals: Vec<_> = all
        .iter()
        .filter(|one| one.kind == session::ShownKind::Terminal)
        .collect();
    assert_eq!(terminals.len(), 2);
    assert_eq!(
        (&*terminals[0].id, &*terminals[0].device),
        (&*two.terminal, "laptop")
    );
    assert!(by_token(&house, &one.access_token).await.is_ok());
    assert!(!session::end(registry, "bob", &one.terminal).await.unwrap());
    assert!(
        session::end(registry, "alice", &one.terminal)
            .await
            .unwrap()
    );
    assert!(by_token(&house, &one.access_token).await.is_err());
    assert!(by_token(&house, &two.access_token).await.is_ok());
    revoke(registry, &two.access_token).await.unwrap();
    assert!(
        by_token(&house, &two.access_token).await.is_ok(),
        "only its refresh token says that"
    );
    revoke(registry, &two.refresh_token).await.unwrap();
    assert!(by_token(&house, &two.access_token).await.is_err());
    let three = granted(&house).await;
    let password = Some(Password::new("another wonderland"));
    identity::set_password(registry, Changer::Operator, "alice", password)
        .await
        .unwrap();
    assert!(by_token(&house, &three.access_token).await.is_err());
    assert_eq!(
        again(&house, &three.refresh_token).await.unwrap_err(),
        "invalid_grant"
    );
}

#[tokio::test]
async fn of_too_many_terminals_the_oldest_ends_at_once() {
    let house = house().await;
    let first = granted(&house).await;
    assert!(by_token(&house, &first.access_token).await.is_ok());
    for _ in 1..MOST_TERMINALS {
        house.clock.advance(1);
        granted(&house).await;
    }
    assert!(by_token(&house, &first.access_token).await.is_ok());
    house.clock.advance(1);
    let last = granted(&house).await;
    assert!(by_token(&house, &first.access_token).await.is_err());
    assert!(by_token(&house, &last.access_token).await.is_ok());
}

/// What was committed and never told: the process ended between.
#[tokio::test]
async fn a_crash_between_commit_and_answer_costs_nobody_their_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let now = 1_795_219_200_000;
    let token = {
        let house = House::open(folder.path()).await;
        house.clock.set(now);
        let password = Some(Password::new(PASSWORD));
        identity::create_user(&house.registry, Changer::Operator, "alice", password)
            .await
            .unwrap();
        let one = granted(&house).await;
        again(&house, &one.refresh_token).await.unwrap();
        house.registry.meta.close().await;
        one.refresh_token
    };
    let house = House::open(folder.path()).await;
    house.clock.set(now + 29_000);
    let next = again(&house, &token).await.unwrap();
    assert!(by_token(&house, &next.access_token).await.is_ok());
    assert!(again(&house, &next.refresh_token).await.is_ok());
}

#[tokio::test]
async fn many_who_rotate_one_token_leave_one_that_is_good_or_none() {
    let house = house().await;
    let one = granted(&house).await;
    let again = || again(&house, &one.refresh_token);
    let all = tokio::join!(again(), again(), again(), again());
    let got: Vec<_> = [all.0, all.1, all.2, all.3]
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let mut good = 0;
    // Each but the last was voided; whichever of these comes ends it for all.
    for one in got.iter().rev() {
        if refresh(&house.registry, &one.refresh_token, came(&house))
            .await
            .is_ok()
        {
            good += 1;
        }
    }
    assert!(good <= 1, "{good}");
    assert!(by_token(&house, &one.access_token).await.is_err());
}

#[tokio::test]
async fn what_was_read_while_it_changed_is_not_remembered() {
    let house = house().await;
    let one = granted(&house).await;
    for _ in 0..50 {
        let (found, _) = tokio::join!(by_token(&house, &one.access_token), async {
            house.registry.access.forget_terminal(Some(&one.terminal))
        });
        found.unwrap();
    }
    let (_, ended) = tokio::join!(
        by_token(&house, &one.access_token),
        session::end_all(&house.registry, "alice")
    );
    ended.unwrap();
    assert!(by_token(&house, &one.access_token).await.is_err());
}

#[tokio::test]
async fn no_error_and_no_debug_shows_a_secret() {
    let house = house().await;
    let (registry, session) = (&house.registry, browser(&house).await);
    let begun = begin(registry, "laptop", came(&house)).await.unwrap();
    let code = begun.user_code.reveal().to_owned();
    let early = poll(registry, &begun.device_code, came(&house))
        .await
        .unwrap_err();
    let wrong = find(registry, &session, "BBBBBBBB", came(&house))
        .await
        .unwrap_err();
    decide(registry, &session, &code, true, came(&house))
        .await
        .unwrap();
    let granted = poll(registry, &begun.device_code, came(&house))
        .await
        .unwrap();
    let garbage = refresh(registry, &begun.device_code, came(&house))
        .await
        .unwrap_err();
    let shown =
        format!("{begun:?} {early:?} {early} {wrong:?} {wrong} {granted:?} {garbage:?} {garbage}");
    for secret in [
        &begun.device_code,
        &granted.access_token,
        &granted.refresh_token,
        &begun.user_code,
    ] {
        assert!(!shown.contains(secret.reveal()), "{shown}");
    }
}
