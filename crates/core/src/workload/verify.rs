//! From a token to a [`Workload`], or why not. In this order: form, issuer, signature, audience, times, rules; so that nothing is
//! told of a token that nobody signed.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::claim::{self, Claims};
use super::issuer::{Algorithm, KeySource, Kind};
use super::jwt::Jwt;
use super::keys::{Fetch, Missing, Ring};
use super::{Issuer, MOST_MATCHES, Trust, Workload, Workloads};

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No token in form.
    #[error("{0}")]
    Malformed(&'static str),
    /// From nobody who is trusted here.
    #[error("its issuer is not trusted here")]
    Issuer,
    /// With an algorithm that its issuer must not use; `none` and shared secrets among them.
    #[error("it is signed with an algorithm that is not allowed for its issuer")]
    Algorithm,
    /// With a key that the issuer does not publish, or not for this.
    #[error("it is signed with a key that its issuer does not publish")]
    Key,
    /// The issuer's keys are not there.
    #[error("the keys of its issuer cannot be fetched now; try again soon")]
    Unreachable(String),
    /// The signature does not fit.
    #[error("its signature is wrong")]
    Signature,
    /// Its cluster was asked and says no.
    #[error("its cluster does not accept it: {0}")]
    Reviewed(String),
    /// For another service.
    #[error(
        "it is for another audience; ask its issuer for one with an audience that is accepted here"
    )]
    Audience,
    /// For several audiences, on behalf of another one.
    #[error("it is for several audiences, and was issued to another one (azp)")]
    Party,
    /// Without end.
    #[error("it has no end (exp), or no beginning (iat); long-lived tokens are not accepted")]
    Unbound,
    /// Longer than its issuer's tokens may live.
    #[error("it lives longer than tokens of its issuer may")]
    Long,
    /// Over.
    #[error("it has expired; ask its issuer for a new one")]
    Expired,
    /// Not yet valid.
    #[error("it is not valid yet; is the clock of a machine wrong?")]
    Early,
    /// A cluster's token that is bound to nothing.
    #[error("it is no bound token of a service account; legacy tokens are not accepted")]
    Legacy,
    /// The principal has no name.
    #[error("no name can be made of it: {0}")]
    Name(String),
    /// No rule matches.
    #[error("no rule matches it; `wharf workload test` says why")]
    Rule,
}

impl Fault {
    /// How much a refusal says of a token that several could have issued: what only one of them found wrong says most.
    fn weight(&self) -> u8 {
        match self {
            Self::Issuer => 0,
            // Clusters often have one address: it is the other's token then.
            Self::Key => 1,
            Self::Signature | Self::Reviewed(_) => 2,
            Self::Unreachable(_) => 3,
            _ => 4,
        }
    }
}

/// Why a token is not accepted, and whose it seems to be. Never quotes the token. In words for whoever shows it: those say nothing of
/// whom this registry trusts, so they are the same whatever is wrong but what the token itself shows everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadFault {
    /// What is wrong.
    pub fault: Fault,
    /// The issuer's name here, and the principal's as far as it is proved.
    pub of: Option<String>,
    /// It is over by what it says itself.
    over: bool,
}

impl std::error::Error for WorkloadFault {}

impl fmt::Display for WorkloadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the workload token is not accepted: ")?;
        match &self.fault {
            Fault::Malformed(_) => self.fault.fmt(f),
            _ if self.over => Fault::Expired.fmt(f),
            _ => f.write_str(
                "its issuer is not trusted here or cannot be asked now, it is for another audience, or no rule matches it; \
                 administrators see which with `wharf workload test` and in the audit log",
            ),
        }
    }
}

impl WorkloadFault {
    /// In words for the audit log.
    pub fn told(&self) -> String {
        let of = self
            .of
            .as_ref()
            .map(|of| format!(" ({of})"))
            .unwrap_or_default();
        let why = match &self.fault {
            Fault::Unreachable(why) => format!(": {why}"),
            _ => String::new(),
        };
        format!(
            "the workload token is not accepted: {}{of}{why}",
            self.fault
        )
    }
}

/// A token that was accepted once.
#[derive(Debug)]
pub(crate) struct Verified {
    workload: Workload,
    issuer: Arc<Issuer>,
    trust: i64,
    generation: u64,
    /// In seconds, with the leeway.
    not_before: i64,
    expires: i64,
    /// Until when what its cluster said counts, in ms.
    until: i64,
}

/// What is proved of a token.
pub(super) struct Proof<'a> {
    pub(super) claims: Cow<'a, Claims>,
    generation: u64,
    until: i64,
}

/// When a token counts, in seconds, with the leeway.
struct Times {
    not_before: i64,
    expires: i64,
}

/// Whoever was let in, and for how long a token of ours may stand for that.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    pub(crate) workload: Workload,
    /// What a token of ours names: it dies with its issuer and rules.
    pub(crate) credential: String,
}

impl Workloads {
    /// Whether there is anybody whose tokens could be accepted.
    pub(crate) fn any(&self) -> bool {
        !self.trust.load().issuers.is_empty()
    }

    /// Whether such a token was accepted and still is, without computing anything.
    pub(crate) fn remembered(&self, token: &str, now: i64) -> Option<Admitted> {
        let id: [u8; 32] = Sha256::digest(token).into();
        let known = self.known.get(&id)?;
        let trust = self.trust.load();
        let seconds = now.div_euclid(1_000);
        let generation = known
            .issuer
            .ring
            .generation(now, &self.fetch, &self.fetches);
        let stands = known.trust == trust.version
            && generation == Some(known.generation)
            && now < known.until
            && (known.not_before..known.expires).contains(&seconds);
        if !stands {
            return None;
        }
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(admitted(&trust, &known.workload, &known.issuer))
    }

    /// Who has this token.
    pub(crate) async fn verify(&self, token: &str, now: i64) -> Result<Admitted, WorkloadFault> {
        let refused = |fault, over| WorkloadFault {
            fault,
            of: None,
            over,
        };
        let jwt = Jwt::read(token).map_err(|fault| refused(fault, false))?;
        // By the token alone, so that the answer is the same whoever is trusted.
        let times = ["exp", "nbf", "iat"].map(|name| jwt.time(name));
        let over = matches!(times[0], Ok(Some(end)) if end <= now.div_euclid(1_000));
        if let Some(fault) = times.into_iter().find_map(Result::err) {
            return Err(refused(fault, false));
        }
        let trust = self.trust();
        let kid = jwt.kid.as_deref();
        let (first, rest): (Vec<_>, Vec<_>) = trusted(&trust, &jwt)
            .into_iter()
            .partition(|issuer| issuer.ring.has(kid, now));
        let mut worst = refused(Fault::Issuer, over);
        // Who has the key is asked first, and alone: others of the same address may be slow, or not there.
        for issuers in [first, rest] {
            let tries = issuers.iter().map(|issuer| {
                let tried = self.by(&trust, issuer, &jwt, now);
                Box::pin(tried) as Attempt<'_>
            });
            match first_good(tries.collect()).await {
                Ok(verified) => {
                    let id: [u8; 32] = Sha256::digest(token).into();
                    let admitted = admitted(&trust, &verified.workload, &verified.issuer);
                    self.known.insert(id, Arc::new(verified));
                    return Ok(admitted);
                }
                Err(faults) => {
                    for (fault, of) in faults {
                        if fault.weight() > worst.fault.weight() {
                            worst = WorkloadFault { fault, of, over };
                        }
                    }
                }
            }
        }
        Err(worst)
    }

    /// By this issuer; or why not, and of whom.
    async fn by(
        &self,
        trust: &Trust,
        issuer: &Arc<Issuer>,
        jwt: &Jwt<'_>,
        now: i64,
    ) -> Result<Verified, Refusal> {
        let of = |fault| (fault, Some(format!("issuer {}", issuer.name)));
        if matches!(issuer.settings.keys, KeySource::Review(_)) {
            // A cluster is not asked about what would be refused whatever it says.
            stands(issuer, jwt, &jwt.claims, now).map_err(of)?;
        }
        let proof = self.proved(issuer, jwt, now).await.map_err(of)?;
        let times = stands(issuer, jwt, &proof.claims, now).map_err(of)?;
        let name = name(issuer, &proof.claims).map_err(of)?;
        let rules = trust.rules_of(&issuer.name);
        let kind = issuer.settings.kind;
        let matching = rules.filter(|rule| rule.settings.unmet(kind, &proof.claims).is_empty());
        let rules: Vec<Arc<str>> = matching
            .take(MOST_MATCHES)
            .map(|rule| rule.name.clone())
            .collect();
        if rules.is_empty() {
            return Err((Fault::Rule, Some(name)));
        }
        Ok(Verified {
            workload: Workload {
                name: name.into(),
                rules: rules.into(),
            },
            issuer: issuer.clone(),
            trust: trust.version,
            generation: proof.generation,
            not_before: times.not_before,
            expires: times.expires,
            until: proof.until,
        })
    }

    /// What the issuer vouches for: by its signature all of the token, by its review what the cluster says.
    pub(super) async fn proved<'a>(
        &self,
        issuer: &Issuer,
        jwt: &'a Jwt<'_>,
        now: i64,
    ) -> Result<Proof<'a>, Fault> {
        let allowed = jwt
            .algorithm
            .parse()
            .is_ok_and(|algorithm: Algorithm| issuer.settings.algorithms.contains(&algorithm));
        if !allowed {
            return Err(Fault::Algorithm);
        }
        let reviewed = issuer.ring.review(jwt, now, &self.fetch, &self.fetches);
        match reviewed.await {
            Some(reviewed) => reviewed.map(|(claims, until)| Proof {
                claims: Cow::Owned((*claims).clone()),
                generation: 0,
                until,
            }),
            None => Ok(Proof {
                generation: self.signed(issuer, jwt, now).await?,
                claims: Cow::Borrowed(&jwt.claims),
                until: i64::MAX,
            }),
        }
    }

    /// Whether the issuer signed it; the number of the keys by which that is so.
    async fn signed(&self, issuer: &Issuer, jwt: &Jwt<'_>, now: i64) -> Result<u64, Fault> {
        let allowed = &issuer.settings.algorithms;
        let signed = signed_by(&issuer.ring, allowed, jwt, now, &self.fetch, &self.fetches).await;
        if matches!(signed, Ok(_) | Err(Fault::Signature)) {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
        signed
    }

    /// How many seconds a token of ours may stand for this at most.
    pub(crate) fn session(&self, credential: &str) -> Option<i64> {
        let issuer = credential.split(['=', ';']).next()?;
        let trust = self.trust.load();
        trust
            .issuers
            .get(issuer)
            .map(|issuer| issuer.settings.session.into())
    }

    /// Whoever bought a token of ours with one of theirs, as long as that issuer and a rule by which it was let in are as they were.
    pub(crate) fn by_credential(&self, name: &str, credential: &str) -> Option<Workload> {
        let trust = self.trust.load();
        let mut parts = credential.split(';').map(|part| part.split_once('='));
        let (issuer, print) = parts.next()??;
        let issuer = trust
            .issuers
            .get(issuer)
            .filter(|issuer| issuer.print == print)?;
        let stands = |(rule, print): (&str, &str)| {
            let rule = trust.rules.get(rule)?;
            (rule.print == print && rule.issuer == issuer.name).then(|| rule.name.clone())
        };
        let rules: Vec<Arc<str>> = parts
            .take(MOST_MATCHES)
            .flatten()
            .filter_map(stands)
            .collect();
        (!rules.is_empty()).then(|| Workload {
            name: name.into(),
            rules: rules.into(),
        })
    }
}

/// Whether a token is signed with one of these keys, by an algorithm that is allowed; the number of the keys by which that is so.
pub(crate) async fn signed_by(
    ring: &Arc<Ring>,
    allowed: &[Algorithm],
    jwt: &Jwt<'_>,
    now: i64,
    fetch: &Arc<dyn Fetch>,
    count: &Arc<AtomicU64>,
) -> Result<u64, Fault> {
    let algorithm: Algorithm = jwt.algorithm.parse().map_err(|_| Fault::Algorithm)?;
    if !allowed.contains(&algorithm) {
        return Err(Fault::Algorithm);
    }
    let kid = jwt.kid.as_deref();
    let found = ring.find(kid, now, fetch, count).await;
    let (keys, generation) = found.map_err(|missing| match missing {
        Missing::Unknown => Fault::Key,
        Missing::Unreachable(why) => Fault::Unreachable(why),
    })?;
    let key = keys
        .find(kid)
        .filter(|key| key.fits(algorithm))
        .ok_or(Fault::Key)?;
    let good = jsonwebtoken::crypto::verify(
        jwt.signature,
        jwt.message.as_bytes(),
        &key.key,
        algorithm.of_library(),
    );
    match good {
        Ok(true) => Ok(generation),
        _ => Err(Fault::Signature),
    }
}

/// A refusal, and of whom.
type Refusal = (Fault, Option<String>);
/// One issuer's look at a token, under way.
type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Verified, Refusal>> + Send + 'a>>;

/// The first that succeeds, all being under way at once; or how all failed.
async fn first_good(mut attempts: Vec<Attempt<'_>>) -> Result<Verified, Vec<Refusal>> {
    let mut failed = Vec::new();
    std::future::poll_fn(|context| {
        let mut at = 0;
        while at < attempts.len() {
            match attempts[at].as_mut().poll(context) {
                Poll::Pending => at += 1,
                Poll::Ready(Ok(verified)) => return Poll::Ready(Ok(verified)),
                Poll::Ready(Err(error)) => {
                    failed.push(error);
                    drop(attempts.remove(at));
                }
            }
        }
        match attempts.is_empty() {
            true => Poll::Ready(Err(std::mem::take(&mut failed))),
            false => Poll::Pending,
        }
    })
    .await
}

/// The issuers who say exactly what the token says.
pub(super) fn trusted(trust: &Trust, jwt: &Jwt<'_>) -> Vec<Arc<Issuer>> {
    let named = jwt.issuer();
    let all = trust.issuers.values();
    let same = all
        .filter(|issuer| issuer.settings.kind != Kind::Certificate)
        .filter(|issuer| Some(&*issuer.settings.issuer) == named);
    same.cloned().collect()
}

fn admitted(trust: &Trust, workload: &Workload, issuer: &Issuer) -> Admitted {
    let mut credential = format!("{}={}", issuer.name, issuer.print);
    for rule in workload
        .rules
        .iter()
        .filter_map(|rule| trust.rules.get(rule))
    {
        credential.push_str(&format!(";{}={}", rule.name, rule.print));
    }
    Admitted {
        workload: workload.clone(),
        credential,
    }
}

/// Whether a token that the issuer signed is for us, now, and of the form that is asked for.
fn stands(issuer: &Issuer, jwt: &Jwt<'_>, claims: &Claims, now: i64) -> Result<Times, Fault> {
    audience(issuer, jwt)?;
    let times = times(issuer, jwt, now)?;
    if issuer.settings.kind == Kind::Kubernetes {
        bound(claims)?;
    }
    Ok(times)
}

pub(super) fn audience(issuer: &Issuer, jwt: &Jwt<'_>) -> Result<(), Fault> {
    let ours = |one: &str| issuer.settings.audiences.iter().any(|our| our == one);
    let named = jwt.audiences();
    if !named.iter().any(|one| ours(one)) {
        return Err(Fault::Audience);
    }
    // Clusters issue to pods and know no parties.
    let party = match jwt.claims.get("azp") {
        None => issuer.settings.kind == Kind::Kubernetes,
        Some(party) => party.as_str().is_some_and(ours),
    };
    match named.len() > 1 && !party {
        true => Err(Fault::Party),
        false => Ok(()),
    }
}

pub(super) fn check_times(issuer: &Issuer, jwt: &Jwt<'_>, now: i64) -> Result<(), Fault> {
    times(issuer, jwt, now).map(|_| ())
}

fn times(issuer: &Issuer, jwt: &Jwt<'_>, now: i64) -> Result<Times, Fault> {
    let now = now.div_euclid(1_000);
    let leeway = i64::from(issuer.settings.leeway);
    let (Some(end), Some(issued)) = (jwt.time("exp")?, jwt.time("iat")?) else {
        return Err(Fault::Unbound);
    };
    let begin = jwt.time("nbf")?.unwrap_or(issued).max(issued);
    let times = Times {
        not_before: begin - leeway,
        expires: end + leeway,
    };
    if end - issued > i64::from(issuer.settings.longest_life) {
        return Err(Fault::Long);
    }
    match now {
        now if now >= times.expires => Err(Fault::Expired),
        now if now < times.not_before => Err(Fault::Early),
        _ => Ok(times),
    }
}

/// Whether it is a bound token of a service account (K8SCRED-6), whose subject and claims say the same.
pub(super) fn bound(claims: &Claims) -> Result<(), Fault> {
    let text = |path| claim::find(claims, path).and_then(Value::as_str);
    let namespace = text("kubernetes.io.namespace").ok_or(Fault::Legacy)?;
    let account = text("kubernetes.io.serviceaccount.name").ok_or(Fault::Legacy)?;
    let subject = format!("system:serviceaccount:{namespace}:{account}");
    match text("sub") == Some(&*subject) {
        true => Ok(()),
        false => Err(Fault::Legacy),
    }
}

pub(super) fn name(issuer: &Issuer, claims: &Claims) -> Result<String, Fault> {
    let made = claim::name(&issuer.name, &issuer.settings.principal, claims);
    made.map_err(|error| Fault::Name(error.to_string()))
}
