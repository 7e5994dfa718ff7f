//! Whether the accounts of sessions are still there, asked of their providers from time to time.
//!
//! Called once every few seconds in each process; whoever moves a session's next time has it to ask. A provider that
//! grants nothing more (`invalid_grant`) ends the session; with the last one of an account the account is gone, and with it its terminals
//! and what its groups gave. A provider that does not answer ends nothing.
//! A session that is over in the browser goes on being asked about while terminals of its account live.

use wharf_meta::session::{Due, DueBeyond, Refuse, Schedule, SessionRow};

use super::flow::arrival;
use super::id_token::{Expected, verify};
use super::provider::Denied;
use super::{OidcError, People};
use crate::access::Password;
use crate::error::Result;
use crate::identity::{self, ArriveError};
use crate::registry::Registry;
use crate::session;

/// Most sessions of one round.
const MOST: u32 = 20;

/// Asks about the sessions that are due; gives how many these were.
pub async fn check(registry: &Registry) -> Result<usize> {
    let (at, limit) = (registry.clock.now_ms(), MOST);
    let mut due = registry.meta.read(Due { at, limit }).await?;
    // A clock that was ahead and was put right would keep providers unasked until then. Twice the time, since the clock of the replica
    // that wrote it may be a little ahead of this one.
    let beyond = at.saturating_add(interval(registry).saturating_mul(2));
    due.extend(registry.meta.read(DueBeyond { beyond, limit }).await?);
    let count = due.len();
    for row in due {
        one(registry, row).await?;
    }
    Ok(count)
}

/// Time between two looks at a session, in ms.
fn interval(registry: &Registry) -> i64 {
    let every = registry.access.session_rules().check.as_millis();
    i64::try_from(every).unwrap_or(i64::MAX / 4)
}

async fn one(registry: &Registry, row: SessionRow) -> Result<()> {
    let next = registry.clock.now_ms() + interval(registry);
    let take = Schedule {
        id: row.id.clone(),
        seen: row.check_at,
        check_at: next,
        refresh: None,
    };
    if !registry.meta.write(take).await? {
        return Ok(());
    }
    // It stayed for terminals; without them nobody is to be asked about.
    if row.kept {
        let at = registry.clock.now_ms();
        let row = row.clone();
        if registry
            .meta
            .write(wharf_meta::session::Release { row, at })
            .await?
        {
            return Ok(());
        }
    }
    let people = &registry.access.people;
    let sealed = row.refresh.as_deref();
    let Some(token) = sealed.and_then(|sealed| people.open_refresh(&row.id, sealed)) else {
        // Nobody could say any more that the account is gone.
        tracing::warn!(
            user = row.principal,
            provider = row.provider,
            "a session ends, since what its provider is asked with was sealed with a secret key that is not here"
        );
        return end(registry, &row).await;
    };
    if let Some(anew) = people.seal_anew(&row.id, sealed, &token)? {
        let kept = Schedule {
            id: row.id.clone(),
            seen: Some(next),
            check_at: next,
            refresh: Some(anew),
        };
        registry.meta.write(kept).await?;
    }
    match ask(registry, people, &row, &token, next).await {
        Ok(()) => {}
        Err(OidcError::Refused { .. }) => refused(registry, &row).await?,
        Err(OidcError::Arrive(ArriveError::Store(error)) | OidcError::Store(error)) => {
            return Err(error);
        }
        Err(OidcError::Arrive(error)) => {
            tracing::info!(user = row.principal, provider = row.provider, %error, "an account counts no longer");
            end(registry, &row).await?;
        }
        Err(OidcError::Provider { reason, .. } | OidcError::Proof { reason, .. }) => {
            tracing::warn!(
                provider = row.provider,
                reason,
                "a provider could not be asked for an account; its sessions go on"
            );
        }
        // It went from the configuration, and takes its sessions along.
        Err(OidcError::Unknown | OidcError::Flow(_)) => end(registry, &row).await?,
    }
    Ok(())
}

/// Asks the provider, and believes what it says now.
async fn ask(
    registry: &Registry,
    people: &People,
    row: &SessionRow,
    token: &Password,
    next: i64,
) -> std::result::Result<(), OidcError> {
    let provider = people.provider(&row.provider)?;
    let now = registry.clock.now_ms();
    let (document, ring) = provider.document(people, now).await?;
    let form = vec![
        ("grant_type", "refresh_token".to_owned()),
        ("refresh_token", token.reveal().to_owned()),
    ];
    let tokens = match provider.tokens(&people.web, &document, form).await {
        Ok(tokens) => tokens,
        Err(Denied::Says(error)) if error == "invalid_grant" => {
            return Err(OidcError::Refused {
                provider: row.provider.clone(),
                reason: error,
            });
        }
        // Said about us, and not about the account.
        Err(Denied::Says(reason) | Denied::Down(reason)) => return Err(provider.down(reason)),
    };
    // Before anything else is judged: what was shown may be good no more, and to show it again would look as if the account were gone.
    if let Some(token) = &tokens.refresh_token {
        let kept = Schedule {
            id: row.id.clone(),
            seen: Some(next),
            check_at: next,
            refresh: Some(people.seal_refresh(&row.id, &Password::new(token))?),
        };
        let kept = registry.meta.write(kept).await;
        kept.map_err(crate::Error::from)?;
    }
    let settings = &provider.settings;
    let expected = Expected {
        issuer: &settings.issuer,
        client_id: &settings.client_id,
        nonce: None,
        now,
    };
    let claims = match &tokens.id_token {
        Some(id_token) => {
            let claims = verify(id_token, &expected, &ring, &people.fetch, &people.fetches).await;
            claims.map_err(|reason| OidcError::Proof {
                provider: row.provider.clone(),
                reason,
            })?
        }
        None => serde_json::Map::from_iter([("sub".to_owned(), row.subject.clone().into())]),
    };
    let told = tokens.id_token.is_some() || document.userinfo_endpoint.is_some();
    if told {
        let arrival = arrival(
            people,
            provider,
            &document,
            claims,
            tokens.access_token.as_deref(),
        );
        let mut arrival = arrival.await?;
        if arrival.subject != row.subject {
            return Err(OidcError::Proof {
                provider: row.provider.clone(),
                reason: "it tells of another account (sub)".to_owned(),
            });
        }
        // Nobody is made a user without being there.
        arrival.wished = None;
        let user = identity::arrive(registry, &arrival).await?;
        if user.name() != row.principal {
            // The account is another user's by now.
            return Err(OidcError::Flow("another user"));
        }
    }
    Ok(())
}

/// The provider grants nothing for this session any more. It does so when the account is gone, and when somebody signed out there or the
/// provider's own session was too old; so the others of the account are asked for themselves, and with the last one it is gone.
async fn refused(registry: &Registry, row: &SessionRow) -> Result<()> {
    let refuse = Refuse {
        row: row.clone(),
        at: registry.clock.now_ms(),
    };
    if !registry.meta.write(refuse).await? {
        return Ok(());
    }
    tracing::info!(
        user = row.principal,
        provider = row.provider,
        "a provider says that an account is gone"
    );
    end(registry, row).await?;
    match identity::depart(registry, &row.provider, &row.subject).await {
        Err(ArriveError::Store(error)) => Err(error),
        _ => Ok(()),
    }
}

async fn end(registry: &Registry, row: &SessionRow) -> Result<()> {
    let (user, provider) = (&row.principal, &row.provider);
    session::end_of_account(registry, user, provider, &row.subject).await?;
    Ok(())
}
