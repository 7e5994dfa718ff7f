//! Clients that show a certificate: who they are by it. Whether it is good (its authority, its times, that nobody revoked it) was
//! looked at by whoever made the connection, and is again while that lasts.
//!
//! Two things can be told of a certificate: a user, by a rule of the configuration ([`CertificateUser`]), and a workload, by rules
//! on an issuer of kind `certificate`. One that tells nothing is no credential: it opened the connection, and that is all.

use std::str::FromStr;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Access;
use super::authenticate::{AuthFailure, BY_CERTIFICATE};
use super::policy::check_user_name;
use super::principal::{Caller, Circumstances, Principal, SignIn};
use crate::workload::{Claims, Report, Seen};

/// Most names of one kind in a certificate that are looked at; more are one too many to be sure of.
pub const MOST_NAMES: usize = 16;

/// What a client's certificate says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Its URIs, as `spiffe://example.org/ns/prod/sa/app`.
    pub uris: Vec<String>,
    /// Its host names.
    pub dns: Vec<String>,
    /// Its e-mail addresses.
    pub emails: Vec<String>,
    /// The common names of its subject.
    pub common_names: Vec<String>,
    /// The organizations of its subject.
    pub organizations: Vec<String>,
    /// The organizational units of its subject.
    pub units: Vec<String>,
    /// The serial number, in hex.
    pub serial: String,
    /// SHA-256 of the whole, in hex.
    pub fingerprint: String,
}

/// Which of a certificate's names is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// A URI of the subject's alternative names.
    Uri,
    /// A host name of the subject's alternative names.
    Dns,
    /// An e-mail address of the subject's alternative names.
    Email,
    /// The subject's common name.
    CommonName,
}

impl NameKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Uri, Self::Dns, Self::Email, Self::CommonName];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uri => "uri",
            Self::Dns => "dns",
            Self::Email => "email",
            Self::CommonName => "cn",
        }
    }
}

impl FromStr for NameKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|one| one.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is none of uri, dns, email and cn"))
    }
}

impl Certificate {
    /// Its names of that kind.
    pub fn names(&self, kind: NameKind) -> &[String] {
        match kind {
            NameKind::Uri => &self.uris,
            NameKind::Dns => &self.dns,
            NameKind::Email => &self.emails,
            NameKind::CommonName => &self.common_names,
        }
    }

    /// As a token would say it. One name is a text and several are a list, which no principal can be named after: a certificate with
    /// two identities has none.
    pub fn claims(&self) -> Claims {
        let mut claims = Map::new();
        for (claim, all) in [
            ("uri", &self.uris),
            ("dns", &self.dns),
            ("email", &self.emails),
            ("cn", &self.common_names),
            ("o", &self.organizations),
            ("ou", &self.units),
        ] {
            match &all[..] {
                [] => continue,
                [one] => claims.insert(claim.into(), json!(one)),
                several => claims.insert(claim.into(), json!(several)),
            };
        }
        for (claim, text) in [("serial", &self.serial), ("fingerprint", &self.fingerprint)] {
            claims.insert(claim.into(), Value::String(text.clone()));
        }
        claims
    }
}

/// Which certificates are a user's: one of its names has this form, and the user is called as the star says, or so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateUser {
    from: NameKind,
    before: String,
    /// `None`: the name is known letter by letter.
    after: Option<String>,
    user: String,
}

impl CertificateUser {
    /// From a form such as `*@example.com`, with one star for the user's name; or from a whole name, and the user's.
    pub fn new(from: NameKind, matches: &str, user: &str) -> Result<Self, String> {
        let (before, after) = match matches.split_once('*') {
            None => (matches, None),
            Some((before, after)) if !after.contains('*') => (before, Some(after.to_owned())),
            Some(_) => return Err("matches: one star at most, for the user's name".into()),
        };
        if matches.is_empty() || matches.chars().any(char::is_control) {
            return Err("matches: write a form such as *@example.com, or a whole name".into());
        }
        match (&after, user.is_empty()) {
            (None, true) => {
                return Err(
                    "user: without a star in `matches`, say whose certificate it is".into(),
                );
            }
            (Some(_), false) => {
                return Err(
                    "user: what the star in `matches` stands for is the user; leave this out"
                        .into(),
                );
            }
            // Everybody whom the authorities have ever named.
            (Some(after), true)
                if before.is_empty() && after.is_empty() && from != NameKind::CommonName =>
            {
                return Err(format!(
                    "matches: a star alone takes any {} for a user's name; write a form such as *@example.com",
                    from.as_str()
                ));
            }
            _ => {}
        }
        if !user.is_empty() {
            check_user_name(user).map_err(|error| format!("user: {error}"))?;
        }
        Ok(Self {
            from,
            before: before.to_owned(),
            after,
            user: user.to_owned(),
        })
    }

    /// Whose certificates have such a name, as far as the name of a user can be made of it.
    fn user<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let Some(after) = &self.after else {
            return (name == self.before).then_some(&*self.user);
        };
        let star = name.strip_prefix(&*self.before)?.strip_suffix(&**after)?;
        // Neither a part of a path nor of an address stands for a whole name.
        (!star.contains(['@', '/']) && check_user_name(star).is_ok()).then_some(star)
    }

    /// The one user of whom these rules say that a certificate is theirs.
    fn of(rules: &[Self], certificate: &Certificate) -> Result<Option<String>, CertificateFault> {
        let mut found: Option<&str> = None;
        for rule in rules {
            for name in certificate.names(rule.from) {
                match (rule.user(name), found) {
                    (Some(user), Some(other)) if user != other => {
                        return Err(CertificateFault::Several);
                    }
                    (Some(user), _) => found = Some(user),
                    (None, _) => {}
                }
            }
        }
        Ok(found.map(str::to_owned))
    }
}

/// Why a certificate is not accepted for anybody, though its authority is trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Rules find two principals in it.
    #[error(
        "the client certificate has more than one identity by the rules of this registry; use one with a single identity"
    )]
    Several,
    /// The user is not there, or locked out.
    #[error("the client certificate names a user who is unknown here or may not sign in")]
    User,
    /// It is beside a token that was bought with another.
    #[error("this token is good only beside the client certificate that it was bought with")]
    Other,
    /// A rule that should name a principal cannot.
    #[error("the client certificate is not accepted: {0}")]
    Name(String),
}

impl Access {
    /// Puts other rules on whose certificates are users' in force, from the next request on.
    pub fn know_certificates(&self, rules: Vec<CertificateUser>) {
        self.certificates.store(Arc::new(rules));
    }

    /// Looks at a certificate and tells who would come with it, if its authority is trusted: for administrators.
    pub async fn report_certificate(&self, certificate: &Certificate, now: i64) -> Report {
        let mut report = Report::default();
        for kind in NameKind::ALL {
            for name in certificate.names(kind) {
                report.seen.push(Seen {
                    what: format!("{} {name:?}", kind.as_str()),
                    wrong: None,
                });
            }
        }
        self.workloads.judge_certificate(certificate, &mut report);
        let wrong = match self.by_certificate(certificate, now.into()).await {
            Ok(Some((caller, _))) => {
                let rules = report.rules.iter().filter(|rule| rule.unmet.is_empty());
                let rules = rules.map(|rule| rule.rule.clone()).collect();
                report.principal = Some((caller.principal.name().to_owned(), rules));
                None
            }
            Ok(None) => Some(
                "no `[[tls.clients.user]]` and no rule matches it: it opens connections, and is nobody's"
                    .to_owned(),
            ),
            Err(failure) => Some(failure.to_string()),
        };
        report.seen.push(Seen {
            what: "whose it is".into(),
            wrong,
        });
        report
    }

    /// Who shows this certificate, and what stands for it in a token; `None`: nobody in particular.
    pub(super) async fn by_certificate(
        &self,
        certificate: &Certificate,
        came: Circumstances,
    ) -> Result<Option<(Caller, String)>, AuthFailure> {
        let user = CertificateUser::of(&self.certificates.load(), certificate)?;
        let workload = self.workloads.by_certificate(certificate)?;
        let sign_in = SignIn::Certificate;
        let came = Circumstances { sign_in, ..came };
        let principal = match (user, workload) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(CertificateFault::Several.into()),
            (Some(name), None) => {
                let user = self.users.find(&name).await?;
                let user = user.filter(|user| user.source().is_some() && user.stands(came));
                let user = user.ok_or(CertificateFault::User)?;
                if self.is_lost(&user).await? {
                    return Err(CertificateFault::User.into());
                }
                user.principal()
            }
            (None, Some(workload)) => Principal::Workload {
                name: workload.name,
                rules: workload.rules,
            },
        };
        let caller = Caller {
            credential: Some(format!("{BY_CERTIFICATE}{}", certificate.serial).into()),
            ..Caller::direct(principal).under(came)
        };
        let bought = format!("{BY_CERTIFICATE}{}", certificate.fingerprint);
        Ok(Some((caller, bought)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn email(all: &[&str]) -> Certificate {
        Certificate {
            emails: all.iter().map(|one| (*one).to_owned()).collect(),
            ..Certificate::default()
        }
    }

    fn rules(all: &[(NameKind, &str, &str)]) -> Vec<CertificateUser> {
        let one = |(from, matches, user): &(NameKind, &str, &str)| {
            CertificateUser::new(*from, matches, user).unwrap()
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn a_star_is_the_user() {
        let rules = rules(&[
            (NameKind::Email, "*@example.com", ""),
            (NameKind::Uri, "spiffe://corp/people/*", ""),
            (NameKind::CommonName, "Old Laptop", "bob"),
        ]);
        let of = |certificate: &Certificate| CertificateUser::of(&rules, certificate).unwrap();
        assert_eq!(of(&email(&["alice@example.com"])).as_deref(), Some("alice"));
        for nobody in [
            "alice@example.com.evil.org",
            "alice@evil.org",
            "alice@evil.org@example.com",
            "@example.com",
            "a/b@example.com",
            "alice\0@example.com",
        ] {
            assert_eq!(of(&email(&[nobody])), None, "{nobody:?}");
        }
        let uri = Certificate {
            uris: vec!["spiffe://corp/people/alice".into()],
            ..Certificate::default()
        };
        assert_eq!(of(&uri).as_deref(), Some("alice"));
        let laptop = |name: &str| Certificate {
            common_names: vec![name.into()],
            ..Certificate::default()
        };
        assert_eq!(of(&laptop("Old Laptop")).as_deref(), Some("bob"));
        assert_eq!(of(&laptop("Old Laptop 2")), None);
    }

    #[test]
    fn two_identities_are_none() {
        let rules = rules(&[
            (NameKind::Email, "*@example.com", ""),
            (NameKind::CommonName, "*", ""),
        ]);
        let of = |certificate: &Certificate| CertificateUser::of(&rules, certificate);
        let both = email(&["alice@example.com", "bob@example.com"]);
        assert_eq!(of(&both), Err(CertificateFault::Several));
        let mut mixed = email(&["alice@example.com"]);
        mixed.common_names = vec!["bob".into()];
        assert_eq!(of(&mixed), Err(CertificateFault::Several));
        mixed.common_names = vec!["alice".into()];
        assert_eq!(of(&mixed), Ok(Some("alice".into())));
        let claims = both.claims();
        assert!(
            claims["email"].is_array(),
            "no principal is named after a list"
        );
        assert_eq!(mixed.claims()["email"], "alice@example.com");
    }

    #[test]
    fn what_a_rule_must_be() {
        for (from, matches, user, word) in [
            (NameKind::Email, "", "", "matches"),
            (NameKind::Email, "*", "", "star alone"),
            (NameKind::Email, "*@*", "", "one star"),
            (NameKind::Email, "alice@example.com", "", "user"),
            (NameKind::Email, "*@example.com", "bob", "user"),
            (NameKind::CommonName, "x", "a:b", "user"),
        ] {
            let error = CertificateUser::new(from, matches, user).unwrap_err();
            assert!(error.contains(word), "{matches:?}: {error}");
        }
        assert_eq!(
            "mail".parse::<NameKind>().unwrap_err(),
            "\"mail\" is none of uri, dns, email and cn"
        );
    }

    proptest! {
        /// Whatever a certificate says: a user's name is a user's name, and stands where the star is.
        #[test]
        fn no_name_makes_another_user(name in ".{0,40}", local in "[a-z]{1,8}") {
            let rule = CertificateUser::new(NameKind::Email, "*@example.com", "").unwrap();
            if let Some(user) = rule.user(&name) {
                prop_assert!(check_user_name(user).is_ok());
                prop_assert_eq!(format!("{user}@example.com"), name);
            }
            let whole = format!("{local}@example.com");
            prop_assert_eq!(rule.user(&whole), Some(&*local));
        }
    }
}
