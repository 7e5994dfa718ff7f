//! Providers whose refresh tokens are good once; and what a browser may bring back.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::*;
use super::*;
use crate::access::{Circumstances, SecretKeys};
use crate::session::{self, By, SessionRules};

/// The world, where each refresh token is good once and brings the next.
#[derive(Debug)]
struct Rotating(Arc<World>);

impl Web for Rotating {
    fn ask(&self, ask: Ask) -> Asked<'_> {
        Box::pin(async move {
            let field = |wanted: &str| {
                let form = ask.form.as_ref()?;
                let found = form.0.iter().find(|(name, _)| *name == wanted);
                found.map(|(_, value)| value.clone())
            };
            let shown = field("refresh_token");
            let (status, body) = self.0.ask(ask).await?;
            let (200, Some(shown)) = (status, shown) else {
                return Ok((status, body));
            };
            let mut kept = self.0.refresh.lock().unwrap();
            let person = kept.remove(&shown).unwrap();
            let next = format!("{shown}+");
            kept.insert(next.clone(), person);
            let mut tokens: Value = serde_json::from_slice(&body).unwrap();
            tokens["refresh_token"] = next.into();
            Ok((status, tokens.to_string().into_bytes()))
        })
    }
}

#[tokio::test]
async fn a_refresh_token_that_came_with_a_bad_proof_is_kept_all_the_same() {
    let hall = hall_by(|world| Arc::new(Rotating(world))).await;
    let registry = hall.registry();
    let arrived = hall.whole(&ann()).await.unwrap();
    let by = By::Account {
        provider: "corp".into(),
        subject: arrived.subject,
        sid: arrived.sid,
        refresh: arrived.refresh,
    };
    let came = Circumstances::new(None, registry.clock.now_ms());
    let begun = session::begin(registry, &arrived.principal, by, came, "").await;
    begun.unwrap();
    let every = i64::try_from(SessionRules::default().check.as_millis()).unwrap();
    let look = async || {
        hall.house.clock.advance(every);
        *hall.world.now.lock().unwrap() = registry.clock.now_ms();
        assert_eq!(check(registry).await.unwrap(), 1);
        session::list(registry, "ann").await.unwrap().len()
    };
    assert_eq!(look().await, 1);
    // Its clock is wrong, or its new key not known yet, or its userinfo down: nothing is proved, and the token it gave is the one that counts.
    hall.tamper(|claims| {
        claims["iat"] = json!(0);
        None
    });
    assert_eq!(look().await, 1);
    hall.tamper(|claims| {
        claims.as_object_mut().unwrap().remove("groups");
        None
    });
    assert_eq!(look().await, 1);
    hall.tamper(|_| None);
    assert_eq!(look().await, 1);
    assert_eq!(look().await, 1);
    let rotated: Vec<_> = hall.world.refresh.lock().unwrap().keys().cloned().collect();
    assert!(
        rotated.len() == 1 && rotated[0].ends_with("+++++"),
        "{rotated:?}"
    );
    hall.world.refresh.lock().unwrap().clear();
    assert_eq!(look().await, 0, "gone is gone");
}

/// What was noted while the clock was a month ahead keeps no account from being asked about once it is right again.
#[tokio::test]
async fn a_clock_that_was_ahead_puts_off_no_question() {
    let hall = hall().await;
    let registry = hall.registry();
    let arrived = hall.whole(&ann()).await.unwrap();
    let by = By::Account {
        provider: "corp".into(),
        subject: arrived.subject,
        sid: arrived.sid,
        refresh: arrived.refresh,
    };
    let now = registry.clock.now_ms();
    let came = Circumstances::new(None, now);
    let begun = session::begin(registry, &arrived.principal, by, came, "").await;
    begun.unwrap();
    hall.house.clock.set(now + 30 * 86_400_000);
    assert_eq!(check(registry).await.unwrap(), 1);
    hall.house.clock.set(now + 1_000);
    *hall.world.now.lock().unwrap() = now + 1_000;
    assert_eq!(check(registry).await.unwrap(), 1);
    assert_eq!(check(registry).await.unwrap(), 0, "once is enough");
}

/// The session would go on for as long as it likes: nobody can ask about its account any more.
#[tokio::test]
async fn a_session_ends_when_nobody_can_open_what_its_provider_is_asked_with() {
    let hall = hall().await;
    let registry = hall.registry();
    let arrived = hall.whole(&ann()).await.unwrap();
    let by = By::Account {
        provider: "corp".into(),
        subject: arrived.subject,
        sid: arrived.sid,
        refresh: arrived.refresh.clone(),
    };
    let came = Circumstances::new(None, registry.clock.now_ms());
    let begun = session::begin(registry, &arrived.principal, by, came, "").await;
    begun.unwrap();
    let every = i64::try_from(SessionRules::default().check.as_millis()).unwrap();
    hall.house.clock.advance(every);
    *hall.world.now.lock().unwrap() = registry.clock.now_ms();
    assert_eq!(check(registry).await.unwrap(), 1);
    let due = wharf_meta::session::Due {
        at: i64::MAX,
        limit: 2,
    };
    let row = registry.meta.read(due).await.unwrap().pop().unwrap();
    let other = people(vec![SecretKeys::make()]);
    let token = arrived.refresh.unwrap();
    let lost = wharf_meta::session::Schedule {
        id: row.id.clone(),
        seen: row.check_at,
        check_at: registry.clock.now_ms(),
        refresh: Some(other.seal_refresh(&row.id, &token).unwrap()),
    };
    assert!(registry.meta.write(lost).await.unwrap());
    assert_eq!(check(registry).await.unwrap(), 1);
    assert!(session::list(registry, "ann").await.unwrap().is_empty());
}

fn people(keys: Vec<String>) -> People {
    People::new(
        vec![settings("corp", CORP)],
        Arc::new(SecretKeys::parse(&keys.join("\n")).unwrap()),
        Arc::new(NoWeb),
        Arc::new(crate::workload::NoFetch),
    )
}

/// So that the earlier key can be taken away once each session was asked about.
#[test]
fn what_an_earlier_key_sealed_is_sealed_with_the_first() {
    let (old, new) = (SecretKeys::make(), SecretKeys::make());
    let (before, both) = (people(vec![old.clone()]), people(vec![new.clone(), old]));
    let token = Password::new("token");
    let sealed = before.seal_refresh("1", &token).unwrap();
    let anew = both.seal_anew("1", Some(&sealed), &token).unwrap().unwrap();
    assert_eq!(both.seal_anew("1", Some(&anew), &token).unwrap(), None);
    let after = people(vec![new]);
    assert_eq!(after.open_refresh("1", &anew).unwrap().reveal(), "token");
    assert!(after.open_refresh("1", &sealed).is_none());
}

proptest! {
    #[test]
    fn whatever_a_browser_brings_back_is_refused_or_understood(text in "\\PC{0,200}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let people = People::new(
            vec![settings("corp", CORP)],
            Arc::new(SecretKeys::of_tests()),
            Arc::new(NoWeb),
            Arc::new(crate::workload::NoFetch),
        );
        runtime.block_on(async {
            let opened = flow::opened(&people, "corp", Some(&Password::new(text)), 0);
            assert!(opened.is_err());
        });
    }
}
