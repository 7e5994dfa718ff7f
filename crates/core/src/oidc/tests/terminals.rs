//! Terminals of accounts: they end when the provider says that the account is gone, also after the browser's session is over.

use super::*;
use crate::session::Session;
use crate::terminal::{self, Granted};
use wharf_oci::Authorization;

impl Hall {
    fn later(&self, ms: i64) {
        self.house.clock.advance(ms);
        *self.world.now.lock().unwrap() = self.registry().clock.now_ms();
    }

    async fn browser(&self, refresh: bool) -> Session {
        let registry = self.registry();
        let arrived = self.whole(&ann()).await.unwrap();
        let by = By::Account {
            provider: "corp".into(),
            subject: arrived.subject.clone(),
            sid: String::new(),
            refresh: arrived.refresh.clone().filter(|_| refresh),
        };
        let came = Circumstances::new(None, registry.clock.now_ms());
        let secret = session::begin(registry, &arrived.principal, by, came, "").await;
        let found = session::find(registry, &secret.unwrap(), came).await;
        found.unwrap().unwrap()
    }

    async fn terminal(&self, session: &Session) -> Granted {
        let registry = self.registry();
        let came = Circumstances::new(None, registry.clock.now_ms());
        let begun = terminal::begin(registry, "laptop", came).await.unwrap();
        let code = begun.user_code.reveal();
        terminal::decide(registry, session, code, true, came)
            .await
            .unwrap();
        terminal::poll(registry, &begun.device_code, came)
            .await
            .unwrap()
    }

    async fn renewed(&self, token: &Password) -> Option<Granted> {
        let came = Circumstances::new(None, self.registry().clock.now_ms());
        terminal::refresh(self.registry(), token, came).await.ok()
    }

    async fn good(&self, granted: &Granted) -> bool {
        let bearer = Authorization::Bearer(granted.access_token.reveal().to_owned());
        let came = Circumstances::new(None, self.registry().clock.now_ms());
        let access = &self.registry().access;
        access.authenticate(Some(&bearer), came).await.is_ok()
    }
}

#[tokio::test]
async fn the_account_is_asked_about_while_a_terminal_lives_and_takes_it_along() {
    let hall = hall().await;
    let registry = hall.registry();
    let every = i64::try_from(SessionRules::default().check.as_millis()).unwrap();
    let session = hall.browser(true).await;
    let mut granted = hall.terminal(&session).await;
    // The browser's session ends by itself, and its row is forgotten.
    let lifetime = i64::try_from(SessionRules::default().lifetime.as_millis()).unwrap();
    hall.later(lifetime + 86_400_000 + 1);
    session::forget(registry).await.unwrap();
    let listed = session::list(registry, "ann").await.unwrap();
    assert!(
        listed.len() == 1 && listed[0].kind == session::ShownKind::Terminal,
        "{listed:?}"
    );
    for _ in 0..3 {
        hall.later(every);
        assert_eq!(
            check(registry).await.unwrap(),
            1,
            "it goes on to be asked about"
        );
        granted = hall.renewed(&granted.refresh_token).await.unwrap();
        assert!(hall.good(&granted).await);
    }
    // A provider that is down ends nothing.
    *hall.world.broken.lock().unwrap() = Some(Err("down".into()));
    hall.later(every);
    check(registry).await.unwrap();
    assert!(
        hall.renewed(&granted.refresh_token)
            .await
            .is_some_and(|next| {
                granted = next;
                true
            })
    );
    *hall.world.broken.lock().unwrap() = None;
    // The account is gone.
    hall.world.refresh.lock().unwrap().clear();
    hall.later(every);
    check(registry).await.unwrap();
    assert!(!hall.good(&granted).await);
    assert!(hall.renewed(&granted.refresh_token).await.is_none());
    assert!(session::list(registry, "ann").await.unwrap().is_empty());
    hall.later(every);
    assert_eq!(check(registry).await.unwrap(), 0, "and asked about no more");
}

/// A provider's own session that was too old says nothing about those that were begun since.
#[tokio::test]
async fn what_one_session_is_refused_the_others_are_not() {
    let hall = hall().await;
    let registry = hall.registry();
    let every = i64::try_from(SessionRules::default().check.as_millis()).unwrap();
    let old = hall.browser(true).await;
    let granted = hall.terminal(&old).await;
    let refresh = hall.world.refresh.lock().unwrap().clone();
    let new = hall.browser(true).await;
    let browsers = async || -> Vec<String> {
        let listed = session::list(registry, "ann").await.unwrap();
        let browsers = listed.into_iter();
        let browsers = browsers.filter(|one| one.kind == session::ShownKind::Browser);
        browsers.map(|one| one.id).collect()
    };
    assert_eq!(browsers().await.len(), 2);
    hall.world
        .refresh
        .lock()
        .unwrap()
        .retain(|token, _| !refresh.contains_key(token));
    hall.later(every);
    assert_eq!(check(registry).await.unwrap(), 2);
    assert_eq!(browsers().await, [new.id]);
    let granted = hall.renewed(&granted.refresh_token).await;
    assert!(hall.good(&granted.unwrap()).await);
    hall.world.refresh.lock().unwrap().clear();
    hall.later(every);
    assert_eq!(check(registry).await.unwrap(), 1);
    assert!(session::list(registry, "ann").await.unwrap().is_empty());
}

#[tokio::test]
async fn nobody_is_asked_about_after_the_last_terminal_has_ended() {
    let hall = hall().await;
    let registry = hall.registry();
    let every = i64::try_from(SessionRules::default().check.as_millis()).unwrap();
    let session = hall.browser(true).await;
    let granted = hall.terminal(&session).await;
    assert!(session::end(registry, "ann", &session.id).await.unwrap());
    hall.later(every);
    let before = hall.world.asked.lock().unwrap().len();
    assert_eq!(check(registry).await.unwrap(), 1);
    assert!(hall.world.asked.lock().unwrap().len() > before);
    terminal::revoke(registry, &granted.refresh_token)
        .await
        .unwrap();
    hall.later(every);
    let before = hall.world.asked.lock().unwrap().len();
    assert_eq!(
        check(registry).await.unwrap(),
        1,
        "it is looked at once more"
    );
    assert_eq!(
        hall.world.asked.lock().unwrap().len(),
        before,
        "without asking anybody"
    );
    hall.later(every);
    assert_eq!(check(registry).await.unwrap(), 0);
}

#[tokio::test]
async fn somebody_else_of_the_same_name_has_nothing_of_it() {
    let hall = hall().await;
    let session = hall.browser(true).await;
    let granted = hall.terminal(&session).await;
    assert!(hall.good(&granted).await);
    identity::remove_user(hall.registry(), Changer::Operator, "ann", None)
        .await
        .unwrap();
    assert!(!hall.good(&granted).await);
    let session = hall.browser(true).await;
    assert_eq!(session.caller.principal.name(), "ann");
    assert!(!hall.good(&granted).await);
    assert!(hall.renewed(&granted.refresh_token).await.is_none());
}

/// What nobody can be asked about counts no longer than it would in the browser.
#[tokio::test]
async fn without_anything_to_ask_with_a_terminal_ends_with_its_session() {
    let hall = hall().await;
    let session = hall.browser(false).await;
    let granted = hall.terminal(&session).await;
    let life = i64::try_from(SessionRules::default().lifetime.as_millis()).unwrap();
    hall.later(life - 1_000);
    let granted = hall.renewed(&granted.refresh_token).await.unwrap();
    assert!(hall.good(&granted).await);
    hall.later(1_000);
    assert!(!hall.good(&granted).await);
    assert!(hall.renewed(&granted.refresh_token).await.is_none());
}
