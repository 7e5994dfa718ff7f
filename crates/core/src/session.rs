//! Sessions of people in the browser.
//!
//! Called by the pages of `server/src/ui`; `/v2` and the management API take no session at all. What the cookie says is kept as a hash,
//! and looked up with each request, so that a session which was ended, a user who was locked out and a password that was changed
//! count with the next one. Each sign-in makes another secret: none that was there before becomes one.

use std::time::Duration;

use wharf_meta::session::{self, Which};
use wharf_meta::terminal;
use wharf_oci::percent;

pub use wharf_meta::session::MOST_SESSIONS;

use crate::access::{
    Caller, Circumstances, Password, Principal, SecretKind, SignIn, hash_secret, new_secret,
    random_id,
};
use crate::error::Result;
use crate::registry::Registry;

/// Most bytes that are kept of what a browser says it is.
const LONGEST_AGENT: usize = 200;
/// When a session was used is noted so often, in ms.
const SEEN_EVERY: u64 = 60_000;
/// Rows of one step of forgetting.
const STEP: u32 = 50;

/// How long sessions are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRules {
    /// At most.
    pub lifetime: Duration,
    /// Without being used.
    pub idle: Duration,
    /// Between two questions to the provider.
    pub check: Duration,
}

impl Default for SessionRules {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(12 * 3_600),
            idle: Duration::from_secs(2 * 3_600),
            check: Duration::from_secs(600),
        }
    }
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4)
}

/// How somebody signed in.
#[derive(Debug, Clone)]
pub enum By {
    /// With the password.
    Password,
    /// With an account of a provider.
    Account {
        /// The provider.
        provider: String,
        /// The account there.
        subject: String,
        /// What the provider calls its own session; empty where it says nothing.
        sid: String,
        /// With what the provider can be asked for it later.
        refresh: Option<Password>,
    },
}

/// A session that was found good, for one request.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its name in lists.
    pub id: String,
    /// Who it is.
    pub caller: Caller,
    /// What its forms say, which no other site knows.
    pub form: String,
    /// The provider that was signed in with; empty: a password.
    pub provider: String,
}

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownKind {
    /// In a browser.
    Browser,
    /// A terminal.
    Terminal,
}

impl ShownKind {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Terminal => "terminal",
        }
    }
}

/// A session, or a terminal, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Where it is.
    pub kind: ShownKind,
    /// Its name.
    pub id: String,
    /// The provider that was signed in with; empty: a password.
    pub provider: String,
    /// In ms since 1970.
    pub created_at: i64,
    /// When it was used last, in ms since 1970, to the minute.
    pub seen_at: i64,
    /// From where.
    pub address: String,
    /// What the browser says it is; empty for a terminal.
    pub agent: String,
    /// What the terminal's machine is called; empty for a browser.
    pub device: String,
    /// When it ends at the latest, in ms since 1970.
    pub expires_at: i64,
}

/// A secret for a form that is shown before anybody is known.
pub fn form_secret() -> Password {
    new_secret(SecretKind::Session)
}

/// What a form says: made of what the cookie says, which neither another site nor a page tells.
pub fn form_of(secret: &Password) -> String {
    let salted = Password::new(format!("form {}", secret.reveal()));
    let hash = hash_secret(&salted);
    hash[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Plain text of bounded length.
fn plain(text: &str) -> String {
    let text = text.chars().filter(|c| !c.is_control());
    let mut kept = String::new();
    for c in text {
        if kept.len() + c.len_utf8() > LONGEST_AGENT {
            break;
        }
        kept.push(c);
    }
    kept
}

fn address(came: Circumstances) -> String {
    came.address
        .map_or_else(String::new, |address| address.to_string())
}

/// Begins a session of a user who has just signed in; gives what the cookie says.
pub async fn begin(
    registry: &Registry,
    principal: &Principal,
    by: By,
    came: Circumstances,
    agent: &str,
) -> Result<Password> {
    let access = &registry.access;
    let name = principal.name();
    let standing = access.user_standing(name).await?;
    let (source, credential) = standing
        .ok_or_else(|| crate::Error::Internal(format!("{name} signed in and is no user")))?;
    let secret = new_secret(SecretKind::Session);
    let now = registry.clock.now_ms();
    let rules = access.session_rules();
    let none = String::new;
    let (credential, provider, subject, sid, refresh) = match by {
        By::Password => (credential.to_string(), none(), none(), none(), None),
        By::Account {
            provider,
            subject,
            sid,
            refresh,
        } => (none(), provider, subject, sid, refresh),
    };
    let id = random_id();
    let refresh = refresh.map(|token| access.seal_refresh(&id, &token));
    let refresh = refresh.transpose()?;
    let row = session::SessionRow {
        hash: hash_secret(&secret),
        principal: name.to_owned(),
        source: source.as_str().to_owned(),
        credential,
        provider,
        subject,
        sid,
        created_at: now,
        seen_at: now,
        address: address(came),
        agent: plain(agent),
        expires_at: now.saturating_add(ms(rules.lifetime)),
        check_at: refresh
            .is_some()
            .then(|| now.saturating_add(ms(rules.check))),
        refresh,
        kept: false,
        id,
    };
    registry.meta.write(session::Begin { row }).await?;
    Ok(secret)
}

/// The session that a cookie names, if it is good.
pub async fn find(
    registry: &Registry,
    secret: &Password,
    came: Circumstances,
) -> Result<Option<Session>> {
    let access = &registry.access;
    let hash = hash_secret(secret);
    let Some(row) = registry.meta.read(session::ByHash { hash }).await? else {
        return Ok(None);
    };
    let idle = ms(access.session_rules().idle);
    let over = row.expires_at <= came.at || came.at.saturating_sub(row.seen_at) >= idle;
    let standing = access.user_standing(&row.principal).await?;
    let Some((source, credential)) = standing.filter(|_| !over) else {
        return Ok(None);
    };
    // Another password, or somebody else of the same name.
    if source.as_str() != row.source
        || !(row.credential.is_empty() || row.credential == *credential)
    {
        return Ok(None);
    }
    if came.at.abs_diff(row.seen_at) >= SEEN_EVERY {
        let (id, at) = (row.id.clone(), came.at);
        let address = address(came);
        let touch = session::Touch { id, address, at };
        // Whoever is signed in sees their pages on a full disk as well.
        if let Err(error) = registry.meta.write(touch).await {
            tracing::debug!(%error, "the use of a session could not be noted");
        }
    }
    let principal = Principal::User {
        name: row.principal.as_str().into(),
        source,
    };
    let came = Circumstances {
        sign_in: SignIn::Password,
        ..came
    };
    Ok(Some(Session {
        caller: Caller {
            credential: Some(row.id.as_str().into()),
            ..Caller::direct(principal).under(came)
        },
        form: form_of(secret),
        provider: row.provider,
        id: row.id,
    }))
}

/// The sessions and terminals of a user that are not over, the newest first.
pub async fn list(registry: &Registry, user: &str) -> Result<Vec<Shown>> {
    let principal = user.to_owned();
    let rows = registry.meta.read(session::Of { principal }).await?;
    let now = registry.clock.now_ms();
    let idle = ms(registry.access.session_rules().idle);
    let good = rows
        .into_iter()
        .filter(|row| row.expires_at > now && now.saturating_sub(row.seen_at) < idle);
    let mut all: Vec<Shown> = good
        .map(|row| Shown {
            kind: ShownKind::Browser,
            device: String::new(),
            id: row.id,
            provider: row.provider,
            created_at: row.created_at,
            seen_at: row.seen_at,
            address: row.address,
            agent: row.agent,
            expires_at: row.expires_at,
        })
        .collect();
    let principal = user.to_owned();
    let terminals = registry.meta.read(terminal::Of { principal }).await?;
    let terminals = terminals.into_iter().filter(|row| row.expires_at > now);
    all.extend(terminals.map(|row| Shown {
        kind: ShownKind::Terminal,
        device: row.device,
        agent: String::new(),
        id: row.id,
        provider: row.provider,
        created_at: row.created_at,
        seen_at: row.seen_at,
        address: row.address,
        expires_at: row.ends_at,
    }));
    all.sort_by(|one, other| (other.created_at, &other.id).cmp(&(one.created_at, &one.id)));
    Ok(all)
}

async fn end_some(registry: &Registry, user: &str, which: Which) -> Result<usize> {
    let end = session::End {
        principal: user.to_owned(),
        which,
        at: registry.clock.now_ms(),
    };
    let ended = registry.meta.write(end).await?;
    if ended > 0 {
        registry.access.forget_terminal(None);
    }
    Ok(ended)
}

/// Ends one session or terminal of a user; `false`: there is none of that name.
pub async fn end(registry: &Registry, user: &str, id: &str) -> Result<bool> {
    Ok(end_some(registry, user, Which::One(id.to_owned())).await? > 0)
}

/// Ends all sessions and terminals of a user but this one; gives how many.
pub async fn end_others(registry: &Registry, user: &str, id: &str) -> Result<usize> {
    end_some(registry, user, Which::Others(id.to_owned())).await
}

/// Ends all sessions and terminals of a user; gives how many.
pub async fn end_all(registry: &Registry, user: &str) -> Result<usize> {
    end_some(registry, user, Which::All).await
}

/// Ends all sessions that a user began with an account, and all terminals that were approved with it.
pub async fn end_of_account(
    registry: &Registry,
    user: &str,
    provider: &str,
    subject: &str,
) -> Result<usize> {
    let which = Which::Account(provider.to_owned(), subject.to_owned());
    end_some(registry, user, which).await
}

/// A provider's word that somebody signed out there. It names a session of the provider's (`sid`), an account, or both.
#[derive(Debug, Clone)]
pub struct SignedOut {
    /// The provider.
    pub provider: String,
    /// Its session.
    pub sid: Option<String>,
    /// The account; with `sid`, sessions that are of both.
    pub subject: Option<String>,
    /// What the provider calls this word.
    pub jti: String,
    /// Until when the same word counts no second time, in ms since 1970.
    pub until: i64,
}

/// Ends the sessions of which a provider says that they are over, of all users and as all replicas see it; gives of each user how many,
/// or `None` for a word that was heard before.
pub async fn signed_out_elsewhere(
    registry: &Registry,
    word: SignedOut,
) -> Result<Option<Vec<(String, usize)>>> {
    let logout = session::Logout {
        provider: word.provider,
        jti: word.jti,
        expires_at: word.until,
        sid: word.sid,
        subject: word.subject,
        at: registry.clock.now_ms(),
    };
    Ok(registry.meta.write(logout).await?)
}

/// Forgets sessions that are long over, and words that would be too old by now.
pub async fn forget(registry: &Registry) -> Result<()> {
    let before = registry.long_over();
    let words = session::ForgetLogouts {
        before,
        limit: STEP,
    };
    while registry.meta.write(words).await? >= u64::from(STEP) {}
    let step = session::Forget {
        before,
        limit: STEP,
    };
    while registry.meta.write(step).await? >= u64::from(STEP) {}
    Ok(())
}

/// Whether a path may be gone to after signing in: one of this registry, written in one way only. What a browser could take for
/// another host (`//`, `/\`), or what was encoded to hide that, is none.
pub fn is_local_path(path: &str) -> bool {
    let plain = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"\\\"<>`{}|^".contains(&byte));
    let one = path.starts_with('/') && !path.starts_with("//");
    let decoded = percent::decode(path.split(['?', '#']).next().unwrap_or_default());
    let same = decoded.is_ok_and(|decoded| {
        !decoded.starts_with("//")
            && !decoded.contains('\\')
            && !decoded.chars().any(char::is_control)
    });
    path.len() <= 500 && plain && one && same
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::access::{Changer, SignIn};
    use crate::house::House;
    use crate::identity;

    const AGENT: &str = "Browser/1.0";

    async fn house() -> House {
        let house = House::new().await;
        let password = Some(Password::new("wonderland looks"));
        identity::create_user(&house.registry, Changer::Operator, "alice", password)
            .await
            .unwrap();
        house
    }

    fn came(house: &House) -> Circumstances {
        let here = "10.0.0.1".parse().ok();
        Circumstances::new(here, house.registry.clock.now_ms())
    }

    async fn signed_in(house: &House) -> Password {
        let alice = Principal::User {
            name: "alice".into(),
            source: crate::access::Source::Local,
        };
        let came = came(house);
        begin(&house.registry, &alice, By::Password, came, AGENT)
            .await
            .unwrap()
    }

    async fn good(house: &House, secret: &Password) -> bool {
        let found = find(&house.registry, secret, came(house)).await.unwrap();
        found.is_some()
    }

    #[tokio::test]
    async fn a_session_is_over_with_the_next_request() {
        let house = house().await;
        let registry = &house.registry;
        let (one, two, three) = (
            signed_in(&house).await,
            signed_in(&house).await,
            signed_in(&house).await,
        );
        assert_ne!(one, two);
        let found = find(registry, &one, came(&house)).await.unwrap().unwrap();
        assert_eq!(found.caller.principal.name(), "alice");
        assert_eq!(found.caller.circumstances.sign_in, SignIn::Password);
        let all = list(registry, "alice").await.unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!((&*all[0].agent, &*all[0].address), (AGENT, "10.0.0.1"));
        assert!(!end(registry, "bob", &found.id).await.unwrap());
        assert!(good(&house, &one).await);
        assert_eq!(end_others(registry, "alice", &found.id).await.unwrap(), 2);
        assert!(good(&house, &one).await && !good(&house, &two).await);
        assert!(!good(&house, &three).await);
        assert!(end(registry, "alice", &found.id).await.unwrap());
        assert!(!good(&house, &one).await);
        // A password that was changed, a user who is locked out or gone.
        let one = signed_in(&house).await;
        let other = Some(Password::new("another wonderland"));
        identity::set_password(registry, Changer::Operator, "alice", other)
            .await
            .unwrap();
        assert!(!good(&house, &one).await);
        let one = signed_in(&house).await;
        identity::disable_user(registry, Changer::Operator, "alice", true, None)
            .await
            .unwrap();
        assert!(!good(&house, &one).await);
        identity::disable_user(registry, Changer::Operator, "alice", false, None)
            .await
            .unwrap();
        assert!(good(&house, &one).await);
        identity::remove_user(registry, Changer::Operator, "alice", None)
            .await
            .unwrap();
        assert!(!good(&house, &one).await);
        assert!(list(registry, "alice").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn sessions_end_by_themselves_and_are_bounded() {
        let house = house().await;
        let registry = &house.registry;
        let first = signed_in(&house).await;
        house.clock.advance(ms(SessionRules::default().idle));
        assert!(!good(&house, &first).await);
        let kept = signed_in(&house).await;
        let hours = SessionRules::default().lifetime.as_secs() / 3_600;
        for _ in 1..hours {
            house.clock.advance(3_600_000);
            assert!(good(&house, &kept).await, "it is used");
        }
        house.clock.advance(3_600_000);
        assert!(!good(&house, &kept).await, "for so long at most");
        forget(registry).await.unwrap();
        let first = signed_in(&house).await;
        for _ in 0..MOST_SESSIONS {
            house.clock.advance(1);
            signed_in(&house).await;
        }
        let all = list(registry, "alice").await.unwrap();
        assert_eq!(all.len(), MOST_SESSIONS as usize);
        assert!(!good(&house, &first).await, "the oldest went");
    }

    #[test]
    fn only_paths_of_this_registry_are_gone_to() {
        for path in [
            "/",
            "/account/tokens",
            "/account/sessions?a=b",
            "/device?code=A-B",
        ] {
            assert!(is_local_path(path), "{path}");
        }
        for path in [
            "",
            "account",
            "//evil.example",
            "/\\evil.example",
            "/%5cevil.example",
            "/%2fevil.example",
            "https://evil.example",
            "javascript:alert(1)",
            "/a\r\nSet-Cookie: a=b",
            "/a b",
            "/\t/evil.example",
            "/%0d%0aa",
            "\\\\evil.example",
            "/%2F%2Fevil.example",
            "/a%",
        ] {
            assert!(!is_local_path(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_that_is_taken_leads_to_no_other_host(path in "[/\\\\%25cfe.a:?#\t ]{0,12}") {
            if is_local_path(&path) {
                prop_assert!(!path.starts_with("//") && !path.contains('\\'));
            }
        }
    }
}
