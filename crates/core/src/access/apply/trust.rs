//! Whose tokens are trusted, and the rules on them, as part of what shall be there. Secrets are no part of it: an issuer that has one
//! keeps it.

use super::super::role::Permission;
use super::step::Step;
use super::{ApplyError, Judge, Named, Wanted, once};
use crate::access::{Access, ChangeError, Subject};
use crate::workload::{IssuerSettings, RuleSettings};

/// An issuer that shall be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedIssuer {
    /// Its name.
    pub name: String,
    /// What its tokens must be.
    pub settings: IssuerSettings,
}

/// A rule that shall be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedRule {
    /// Its name.
    pub name: String,
    /// Whose tokens.
    pub issuer: String,
    /// What they must say.
    pub settings: RuleSettings,
}

pub(super) fn wanted(
    access: &Access,
    judge: &Judge<'_>,
    wanted: &Wanted,
    named: &mut Named,
    steps: &mut Vec<Step>,
) -> Result<(), ApplyError> {
    let trust = access.workloads().trust();
    for issuer in &wanted.issuers {
        judge.needs(Permission::Admin, "", "change whose tokens are trusted")?;
        once(&mut named.issuers, "issuer", &issuer.name)?;
        issuer.settings.check().map_err(ChangeError::from)?;
        let known = trust.issuers.get(&*issuer.name);
        match known {
            Some(known) if known.settings == issuer.settings => continue,
            Some(known) if known.has_bearer && !known.settings.asks_where(&issuer.settings) => {
                let text = format!(
                    "issuer {} has a bearer token, which is for where its keys come from now; change it with `wharf workload trust \
                     --bearer-file` first",
                    issuer.name
                );
                return Err(ChangeError::Conflict(text).into());
            }
            _ => {}
        }
        access.gives_issuer(judge.changer, &judge.policy, &issuer.name)?;
        steps.push(Step::SetIssuer {
            issuer: Box::new(issuer.clone()),
            known: known.is_some(),
        });
    }
    for rule in &wanted.rules {
        judge.needs(Permission::Admin, "", "change whose tokens are trusted")?;
        once(&mut named.rules, "rule", &rule.name)?;
        named.issuers.insert(rule.issuer.clone());
        let new = wanted.issuers.iter().find(|one| one.name == rule.issuer);
        let known = trust.issuers.get(&*rule.issuer);
        let kind = new
            .map(|one| one.settings.kind)
            .or(known.map(|one| one.settings.kind));
        let Some(kind) = kind else {
            let text = format!("there is no issuer {}; name it, too", rule.issuer);
            return Err(ChangeError::Unknown(text).into());
        };
        rule.settings.check(kind).map_err(ChangeError::from)?;
        let known = trust.rules.get(&*rule.name);
        match known {
            Some(known) if *known.issuer != *rule.issuer => {
                let text = format!(
                    "rule {} is about tokens of issuer {}; remove it first, or take another name",
                    rule.name, known.issuer
                );
                return Err(ChangeError::Conflict(text).into());
            }
            Some(known) if known.settings == rule.settings => continue,
            _ => {}
        }
        judge.gives(&Subject::Workload(rule.name.clone()))?;
        steps.push(Step::SetRule {
            rule: Box::new(rule.clone()),
            known: known.is_some(),
        });
    }
    Ok(())
}

/// Rules and issuers that nobody speaks of; for administrators. Rules go first, with what they were granted.
pub(super) fn too_much(
    access: &Access,
    judge: &Judge<'_>,
    named: &Named,
    steps: &mut Vec<Step>,
) -> Result<(), ApplyError> {
    let trust = access.workloads().trust();
    let mut kept = named.issuers.clone();
    for rule in trust.rules.values() {
        match named.rules.contains(&*rule.name) {
            true => drop(kept.insert(rule.issuer.to_string())),
            false => {
                judge.gives(&Subject::Workload(rule.name.to_string()))?;
                steps.push(Step::RemoveRule(rule.name.to_string()));
            }
        }
    }
    let issuers = trust.issuers.keys().filter(|name| !kept.contains(&***name));
    steps.extend(issuers.map(|name| Step::RemoveIssuer(name.to_string())));
    Ok(())
}

/// All of them, as they would be wanted.
pub(super) fn export(access: &Access) -> (Vec<WantedIssuer>, Vec<WantedRule>) {
    let trust = access.workloads().trust();
    let issuers = trust.issuers.values().map(|issuer| WantedIssuer {
        name: issuer.name.to_string(),
        settings: issuer.settings.clone(),
    });
    let rules = trust.rules.values().map(|rule| WantedRule {
        name: rule.name.to_string(),
        issuer: rule.issuer.to_string(),
        settings: rule.settings.clone(),
    });
    (issuers.collect(), rules.collect())
}
