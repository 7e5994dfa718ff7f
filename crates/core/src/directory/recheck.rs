//! Looks whether people of directories are still there: their groups follow, and whoever is gone is out.
//!
//! A job, so one replica does it at a time. An account counts as gone after [`ENOUGH`] negative answers in a row, [`AGAIN`] apart, of a
//! directory that answers; a directory that does not says nothing about anybody, and one that suddenly knows nobody is taken to be set
//! up wrongly.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wharf_meta::access::standing;

use super::Person;
use super::sign_in::{Source, arrival};
use crate::audit;
use crate::error::Result;
use crate::identity::{ArriveError, arrive, depart};
use crate::job::{Job, Step};
use crate::registry::Registry;

/// So many negative answers in a row end an account.
pub const ENOUGH: u32 = 3;
/// An account is looked for again after so long, in ms.
pub const EVERY: i64 = 60 * 60_000;
/// One that was not there is looked for again after so long, in ms.
pub const AGAIN: i64 = 5 * 60_000;
/// Accounts that are looked for in one step.
const BATCH: u32 = 20;
/// If so many were looked for and none was there, the directory or its settings are wrong.
const SUSPICIOUS: usize = 5;
/// Between two steps: a directory has others to serve, too.
const PAUSE: Duration = Duration::from_millis(500);

/// Where a round stands.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Recheck {
    /// Which directory.
    at: usize,
}

impl Job for Recheck {
    const KIND: &'static str = "directory.recheck";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        let Some(source) = registry
            .access
            .directories()
            .sources()
            .get(self.at)
            .cloned()
        else {
            return Ok(Step::Done);
        };
        if look(registry, &source).await? {
            return Ok(Step::Again(PAUSE));
        }
        self.at += 1;
        Ok(Step::More)
    }
}

/// Looks for some accounts of a directory; whether there may be more to look for now.
async fn look(registry: &Registry, source: &Source) -> Result<bool> {
    let now = registry.clock.now_ms();
    let due = standing::Due {
        provider: source.directory.name().to_owned(),
        before: now - EVERY,
        missed_before: now - AGAIN,
        limit: BATCH,
    };
    let due = registry.meta.read(due).await?;
    let mut looked = Vec::new();
    for account in due {
        match source.directory.again(&account.subject).await {
            Ok(person) => looked.push((account, person)),
            Err(fault) => {
                tracing::warn!(directory = source.directory.name(), %fault, "accounts cannot be looked for; trying again later");
                break;
            }
        }
    }
    let (all, found) = (
        looked.len(),
        looked.iter().filter(|(_, person)| person.is_some()).count(),
    );
    if all >= SUSPICIOUS && found == 0 {
        tracing::error!(
            directory = source.directory.name(),
            "none of {all} accounts is there any more: that looks like another base, filter or search account than before, and ends \
             nobody; see `wharf ldap check`"
        );
        return Ok(false);
    }
    for (account, person) in looked {
        settle(registry, source, account, person).await?;
    }
    Ok(all == BATCH as usize)
}

async fn settle(
    registry: &Registry,
    source: &Source,
    account: standing::StandingRow,
    person: Option<Person>,
) -> Result<()> {
    let provider = source.directory.name();
    let check = standing::Check {
        provider: provider.to_owned(),
        subject: account.subject.clone(),
        at: registry.clock.now_ms(),
        found: person.is_some(),
        enough: ENOUGH,
    };
    let gone = registry.meta.write(check).await?;
    let told = |error: &ArriveError| {
        tracing::warn!(user = account.user, directory = provider, %error, "what a directory says of an account could not be taken over");
    };
    if let Some(person) = person {
        if let Err(error) = arrive(registry, &arrival(source, &person)).await {
            told(&error);
        }
    } else if gone && let Err(error) = depart(registry, provider, &account.subject).await {
        told(&error);
    }
    if gone != account.gone_at.is_some() {
        let name = if gone { "account.gone" } else { "account.back" };
        let with = serde_json::json!({"user": account.user, "provider": provider, "subject": account.subject});
        audit::command(registry, name, with).await;
        registry.access.forget(&account.user);
    }
    // Who is gone must not come in by what is remembered here, from the next request on.
    if gone {
        registry.access.directories().forget(&account.user);
    }
    Ok(())
}
