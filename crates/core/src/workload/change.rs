//! Making, changing and removing issuers and rules. For administrators of the registry, since a trusted issuer can sign for
//! anybody whom a rule on its tokens lets in.

use wharf_meta::Meant;
use wharf_meta::access::workload as rows;

use super::issuer::{IssuerSettings, SettingError};
use super::load::purpose;
use super::rule::RuleSettings;
use super::{MOST_ISSUERS, MOST_RULES};
use crate::access::{
    Access, Change, ChangeError, Changer, Password, Permission, Policy, Subject, check_word,
};

/// Longest name, in bytes: tokens carry it.
const LONGEST_NAME: usize = 63;
/// Longest bearer token, in bytes.
const LONGEST_BEARER: usize = 16 << 10;

/// What becomes of the secret with which an issuer's keys are fetched.
#[derive(Debug, Clone)]
pub enum Bearer {
    /// It stays.
    Keep,
    /// There is none from now on.
    Forget,
    /// It is this one.
    Set(Password),
}

/// What names of principals, which begin with their issuer's, would be taken for.
pub(super) const TAKEN: [&str; 6] = [
    "user",
    "robot",
    "group",
    "workload",
    "anonymous",
    "signed-in",
];

impl From<SettingError> for ChangeError {
    fn from(error: SettingError) -> Self {
        Self::Field(error.field, error.reason)
    }
}

impl Access {
    /// Makes an issuer or changes it, if it is the version that is meant.
    pub async fn put_issuer(
        &self,
        changer: Changer<'_>,
        name: &str,
        settings: &IssuerSettings,
        bearer: &Bearer,
        version: impl Into<Meant>,
        at: i64,
    ) -> Result<Change, ChangeError> {
        let version = version.into();
        let what = || "change whose tokens are trusted".to_owned();
        self.needs(changer, Permission::Admin, "", what)?;
        named(name)?;
        if TAKEN.contains(&name) {
            let reason = format!("{name:?} is a word of grants; take another name");
            return Err(ChangeError::Field("name", reason));
        }
        settings.check()?;
        let trust = self.workloads.trust();
        let known = trust.issuers.get(name);
        if known.is_none() && trust.issuers.len() >= MOST_ISSUERS {
            let text =
                format!("there are {MOST_ISSUERS} issuers already, and there can be no more");
            return Err(ChangeError::Conflict(text));
        }
        // What it is shown to must be what it was given for.
        if let (Bearer::Keep, Some(known)) = (bearer, known)
            && known.has_bearer
            && !known.settings.asks_where(settings)
        {
            let reason =
                "the keys come from elsewhere now: give the token again, or say that there is none";
            return Err(ChangeError::Field("bearer", reason.to_owned()));
        }
        let rules_fit = || {
            let trust = self.workloads.trust();
            trust.rules_of(name).try_for_each(|rule| {
                let fits = rule.settings.check(settings.kind);
                fits.map_err(|error| {
                    ChangeError::Conflict(format!(
                        "rule {} would not do for such an issuer: {}",
                        rule.name, error.reason
                    ))
                })
            })
        };
        let secret = match bearer {
            Bearer::Forget => None,
            Bearer::Keep => self.workloads.kept(self.meta()?, name).await?,
            Bearer::Set(token) => {
                let text = token.reveal();
                if text.is_empty()
                    || text.len() > LONGEST_BEARER
                    || !text.bytes().all(|byte| byte.is_ascii_graphic())
                {
                    let reason = format!("write 1 to {LONGEST_BEARER} visible ASCII characters");
                    return Err(ChangeError::Field("bearer", reason));
                }
                Some(
                    self.workloads
                        .sealing
                        .seal(&purpose(name), text.as_bytes())?,
                )
            }
        };
        let text = json(settings)?;
        let changed = self.change(changer, at, |policy, by| {
            changer.needs(policy, Permission::Admin, "", what)?;
            rules_fit()?;
            self.gives_issuer(changer, policy, name)?;
            Ok(rows::PutIssuer {
                name: name.to_owned(),
                settings: text.clone(),
                secret: secret.clone(),
                version: version.clone(),
                by,
            })
        });
        changed
            .await
            .map_err(|failed| failed.or(|| unknown("issuer", name)))
    }

    /// Removes an issuer that has no rules, if it is of that version.
    pub async fn remove_issuer(
        &self,
        changer: Changer<'_>,
        name: &str,
        version: impl Into<Meant>,
        at: i64,
    ) -> Result<Change, ChangeError> {
        let version = version.into();
        let changed = self.change(changer, at, |policy, by| {
            let what = || "change whose tokens are trusted".to_owned();
            changer.needs(policy, Permission::Admin, "", what)?;
            let name = name.to_owned();
            let version = version.clone();
            Ok(rows::DeleteIssuer { name, version, by })
        });
        let changed = changed
            .await
            .map_err(|failed| failed.or(|| unknown("issuer", name)));
        changed.map_err(|error| match error {
            ChangeError::InUse(_) => ChangeError::Conflict(format!(
                "there are rules on tokens of issuer {name}; remove them first (`wharf workload list` shows them)"
            )),
            error => error,
        })
    }

    /// Makes a rule or changes it, if it is the version that is meant.
    pub async fn put_rule(
        &self,
        changer: Changer<'_>,
        name: &str,
        issuer: &str,
        settings: &RuleSettings,
        version: impl Into<Meant>,
        at: i64,
    ) -> Result<Change, ChangeError> {
        let version = version.into();
        let what = || "change whose tokens are trusted".to_owned();
        self.needs(changer, Permission::Admin, "", what)?;
        named(name)?;
        let trust = self.workloads.trust();
        let fits = || match self.workloads.trust().issuers.get(issuer) {
            None => Err(ChangeError::Unknown(unknown("issuer", issuer))),
            Some(known) => Ok(settings.check(known.settings.kind)?),
        };
        if !trust.rules.contains_key(name) && trust.rules.len() >= MOST_RULES {
            let text = format!("there are {MOST_RULES} rules already, and there can be no more");
            return Err(ChangeError::Conflict(text));
        }
        let conditions = json(settings)?;
        let changed = self.change(changer, at, |policy, by| {
            changer.needs(policy, Permission::Admin, "", what)?;
            fits()?;
            changer.holds_of(policy, &Subject::Workload(name.to_owned()))?;
            Ok(rows::PutRule {
                name: name.to_owned(),
                issuer: issuer.to_owned(),
                conditions: conditions.clone(),
                version: version.clone(),
                by,
            })
        });
        let changed = changed
            .await
            .map_err(|failed| failed.or(|| unknown("issuer", issuer)));
        changed.map_err(|error| match error {
            ChangeError::InUse(_) => ChangeError::Conflict(format!(
                "rule {name} is about tokens of another issuer; remove it first, or take another name"
            )),
            error => error,
        })
    }

    /// Removes a rule with all that was granted to it, if it is of that version.
    pub async fn remove_rule(
        &self,
        changer: Changer<'_>,
        name: &str,
        version: impl Into<Meant>,
        at: i64,
    ) -> Result<Change, ChangeError> {
        let version = version.into();
        let changed = self.change(changer, at, |policy, by| {
            let what = || "change whose tokens are trusted".to_owned();
            changer.needs(policy, Permission::Admin, "", what)?;
            changer.holds_of(policy, &Subject::Workload(name.to_owned()))?;
            let name = name.to_owned();
            let version = version.clone();
            Ok(rows::DeleteRule { name, version, by })
        });
        changed
            .await
            .map_err(|failed| failed.or(|| unknown("rule", name)))
    }
}

impl Access {
    /// Whoever says what an issuer's tokens must be can have them signed, and so gives what rules on them hold.
    pub(crate) fn gives_issuer(
        &self,
        changer: Changer<'_>,
        policy: &Policy,
        issuer: &str,
    ) -> Result<(), ChangeError> {
        let trust = self.workloads.trust();
        trust.rules_of(issuer).try_for_each(|rule| {
            changer.holds_of(policy, &Subject::Workload(rule.name.to_string()))
        })
    }
}

impl super::Workloads {
    /// An issuer's secret as it is kept, sealed.
    async fn kept(&self, meta: &wharf_meta::Meta, name: &str) -> crate::Result<Option<Vec<u8>>> {
        // The name before it: pages begin behind one.
        let mut after = String::new();
        loop {
            let page = meta.scan(rows::Issuers { after, limit: 100 }).await?;
            let Some(last) = page.last() else {
                return Ok(None);
            };
            after = last.name.clone();
            if let Some(row) = page.into_iter().find(|row| row.name == name) {
                return Ok(row.secret);
            }
        }
    }
}

fn named(name: &str) -> Result<(), ChangeError> {
    let wrong = |reason: &str| Err(ChangeError::Field("name", format!("{name:?}: {reason}")));
    match check_word(name) {
        Err(reason) => wrong(reason),
        Ok(()) if name.len() > LONGEST_NAME => wrong("the name is longer than 63 bytes"),
        Ok(()) => Ok(()),
    }
}

fn unknown(what: &str, name: &str) -> String {
    format!("there is no {what} {name}; `wharf workload list` shows those that there are")
}

fn json(settings: &impl serde::Serialize) -> Result<String, ChangeError> {
    serde_json::to_string(settings)
        .map_err(|error| ChangeError::Store(crate::Error::Internal(error.to_string())))
}
