//! What becomes of a token, step by step, for whoever set up a rule and wonders.

use std::sync::Arc;

use super::claim::Claims;
use super::issuer::{KeySource, Kind};
use super::jwt::Jwt;
use super::verify::{Fault, audience, bound, check_times, name, trusted};
use super::{Issuer, Trust, Workloads};

/// One rule's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The rule.
    pub rule: String,
    /// Whose tokens it is about.
    pub issuer: String,
    /// Why it does not match; empty: it does.
    pub unmet: Vec<String>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What was looked at.
    pub what: String,
    /// What is wrong; `None`: it is as it must be.
    pub wrong: Option<String>,
}

/// What becomes of a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Who it would be, and by which rules, if it is accepted.
    pub principal: Option<(String, Vec<String>)>,
    /// The steps, as far as they could be taken.
    pub seen: Vec<Seen>,
    /// All rules of its issuer; of all issuers if none is trusted.
    pub rules: Vec<Judged>,
}

impl Workloads {
    /// Looks at a token and tells everything, also of what nobody signed: for administrators.
    pub async fn report(&self, token: &str, now: i64) -> Report {
        let mut report = Report::default();
        let jwt = match Jwt::read(token) {
            Ok(jwt) => jwt,
            Err(fault) => {
                report.step("form", Err(fault));
                return report;
            }
        };
        report.step("form", Ok(()));
        let trust = self.trust();
        let issuers = trusted(&trust, &jwt);
        if issuers.is_empty() {
            let named = jwt.issuer().unwrap_or_default();
            let shown: String = named.chars().take(200).collect();
            let known: Vec<&str> = trust
                .issuers
                .values()
                .map(|one| &*one.settings.issuer)
                .collect();
            report.seen.push(Seen {
                what: "issuer".into(),
                wrong: Some(format!(
                    "the token's is {shown:?}, and trusted are {}; it has to be the same letter by letter",
                    match known.is_empty() {
                        true => "none".to_owned(),
                        false => known.join(", "),
                    }
                )),
            });
        }
        for issuer in &issuers {
            self.of(&mut report, &trust, issuer, &jwt, now).await;
        }
        report
    }

    async fn of(
        &self,
        report: &mut Report,
        trust: &Trust,
        issuer: &Arc<Issuer>,
        jwt: &Jwt<'_>,
        now: i64,
    ) {
        let first = report.seen.len();
        report.step(&format!("issuer {}", issuer.name), Ok(()));
        let what = match &issuer.settings.keys {
            KeySource::Review(_) => "the cluster's review",
            _ => "signature",
        };
        let proof = self.proved(issuer, jwt, now).await;
        report.step(what, proof.as_ref().map(|_| ()).map_err(Clone::clone));
        let claims = proof.as_ref().map_or(&jwt.claims, |proof| &*proof.claims);
        report.step("audience", audience(issuer, jwt));
        report.step("times", check_times(issuer, jwt, now));
        if issuer.settings.kind == Kind::Kubernetes {
            report.step("bound to a service account", bound(claims));
        }
        let name = name(issuer, claims);
        report.step("name", name.clone().map(|_| ()));
        let matching = report.judge(trust, issuer, claims);
        let good = report.seen[first..].iter().all(|seen| seen.wrong.is_none());
        if let (true, false, Ok(name), None) = (good, matching.is_empty(), name, &report.principal)
        {
            report.principal = Some((name, matching));
        }
    }
}

impl Report {
    fn step(&mut self, what: &str, outcome: Result<(), Fault>) {
        let wrong = outcome.err().map(|fault| match &fault {
            Fault::Unreachable(why) => format!("{fault}: {why}"),
            _ => fault.to_string(),
        });
        let what = what.to_owned();
        self.seen.push(Seen { what, wrong });
    }

    fn judge(&mut self, trust: &Trust, issuer: &Issuer, claims: &Claims) -> Vec<String> {
        let mut matching = Vec::new();
        for rule in trust.rules_of(&issuer.name) {
            let unmet = rule.settings.unmet(issuer.settings.kind, claims);
            if unmet.is_empty() && matching.len() < super::MOST_MATCHES {
                matching.push(rule.name.to_string());
            }
            self.rules.push(Judged {
                rule: rule.name.to_string(),
                issuer: issuer.name.to_string(),
                unmet,
            });
        }
        matching
    }
}
