//! Clients that show a certificate instead of a token: the rules on issuers of kind `certificate`. Their signature is no matter of
//! this module, since the connection would not be there without it.

use std::sync::Arc;

use quick_cache::sync::Cache;

use super::claim;
use super::issuer::Kind;
use super::report::{Judged, Report};
use super::{MOST_MATCHES, Workload, Workloads};
use crate::access::{Certificate, CertificateFault};

/// What rules said of a certificate, by its fingerprint, and as of which rules.
pub(super) type Shown = Cache<String, (i64, Option<Workload>)>;

impl Workloads {
    /// Who shows this certificate; `None`: no rule matches it.
    pub(crate) fn by_certificate(
        &self,
        certificate: &Certificate,
    ) -> Result<Option<Workload>, CertificateFault> {
        let trust = self.trust.load();
        let known = self.shown.get(&certificate.fingerprint);
        if let Some((_, found)) = known.filter(|(version, _)| *version == trust.version) {
            return Ok(found);
        }
        let issuers = trust.issuers.values();
        let mut issuers = issuers.filter(|issuer| issuer.settings.kind == Kind::Certificate);
        let mut found = None;
        if let Some(first) = issuers.next() {
            let claims = certificate.claims();
            for issuer in std::iter::once(first).chain(issuers) {
                let matching = trust
                    .rules_of(&issuer.name)
                    .filter(|rule| rule.settings.unmet(Kind::Certificate, &claims).is_empty());
                let rules: Vec<Arc<str>> = matching
                    .take(MOST_MATCHES)
                    .map(|rule| rule.name.clone())
                    .collect();
                if rules.is_empty() {
                    continue;
                }
                if found.is_some() {
                    return Err(CertificateFault::Several);
                }
                let name = claim::name(&issuer.name, &issuer.settings.principal, &claims);
                let name = name.map_err(|error| CertificateFault::Name(error.to_string()))?;
                found = Some(Workload {
                    name: name.into(),
                    rules: rules.into(),
                });
            }
        }
        let known = (trust.version, found.clone());
        self.shown.insert(certificate.fingerprint.clone(), known);
        Ok(found)
    }

    /// What each rule on certificates says of this one.
    pub(crate) fn judge_certificate(&self, certificate: &Certificate, report: &mut Report) {
        let trust = self.trust.load();
        let claims = certificate.claims();
        for issuer in trust.issuers.values() {
            if issuer.settings.kind != Kind::Certificate {
                continue;
            }
            for rule in trust.rules_of(&issuer.name) {
                report.rules.push(Judged {
                    rule: rule.name.to_string(),
                    issuer: issuer.name.to_string(),
                    unmet: rule.settings.unmet(Kind::Certificate, &claims),
                });
            }
        }
    }
}
