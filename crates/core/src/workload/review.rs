//! Asks a cluster about its tokens instead of checking them here (TokenReview of `authentication.k8s.io/v1`, K8SCRED-7): for clusters
//! whose keys cannot be had, and for those that shall say at once when a pod or an account is gone.
//!
//! What the cluster said of a token is kept for [`REVIEWED_FOR`], by the token's hash. While the cluster cannot be asked, whom it knew
//! shortly before is still let in, for [`REVIEW_STALE`]. However many tokens come, so many questions at most are under way.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::Cache;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::claim::Claims;
use super::issuer::{IssuerSettings, origin};
use super::jwt::Jwt;
use super::keys::{Fetch, FetchRequest, PATIENCE, Standing, passed, shortened};
use super::verify::Fault;
use crate::access::Password;

/// A good answer counts for so long, in ms: a deleted pod or account is out after it.
pub const REVIEWED_FOR: i64 = 60_000;
/// A refusal counts for so long, in ms.
pub const REFUSED_FOR: i64 = 15_000;
/// While the cluster cannot be asked, a good answer counts for so long, in ms.
pub const REVIEW_STALE: i64 = 5 * 60_000;
/// A cluster that did not answer is asked again after so long, in ms.
const ASK_AGAIN: i64 = 5_000;
/// Answers that are remembered, of one cluster.
const REMEMBERED: usize = 2_000;
/// Questions under way at once, to one cluster; equal tokens share one.
const LANES: usize = 16;
/// Most requests that wait for one cluster.
const MOST_WAITING: usize = 256;
/// Largest answer, in bytes.
const LARGEST: usize = 64 << 10;
/// Where reviews are asked for, below the cluster's address.
const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// What a cluster said of a token.
struct Reviewed {
    at: i64,
    /// What is proved by it, or why not.
    verdict: Result<Arc<Claims>, String>,
}

#[derive(Default)]
struct State {
    answered_at: Option<i64>,
    failed: Option<(i64, String)>,
}

/// The cluster of one issuer, as far as it was asked.
pub(crate) struct Reviews {
    known: Cache<[u8; 32], Arc<Reviewed>>,
    lanes: [tokio::sync::Mutex<()>; LANES],
    waiting: Semaphore,
    state: Mutex<State>,
}

impl fmt::Debug for Reviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviews").finish_non_exhaustive()
    }
}

/// Who is asked, and with what.
pub(crate) struct Cluster<'a> {
    pub(crate) server: &'a str,
    pub(crate) settings: &'a IssuerSettings,
    pub(crate) bearer: Option<&'a Password>,
    pub(crate) fetch: &'a Arc<dyn Fetch>,
    pub(crate) count: &'a AtomicU64,
}

impl Reviews {
    pub(crate) fn new() -> Self {
        Self {
            known: Cache::new(REMEMBERED),
            lanes: Default::default(),
            waiting: Semaphore::new(MOST_WAITING),
            state: Mutex::default(),
        }
    }

    /// How it stands.
    pub(crate) fn standing(&self) -> Standing {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Standing {
            keys: 0,
            fetched_at: state.answered_at,
            error: state.failed.as_ref().map(|(_, error)| error.clone()),
        }
    }

    /// What is proved of the token, and until when that counts.
    pub(crate) async fn of(
        &self,
        cluster: &Cluster<'_>,
        jwt: &Jwt<'_>,
        now: i64,
    ) -> Result<(Arc<Claims>, i64), Fault> {
        let id: [u8; 32] = Sha256::digest(jwt.text).into();
        if let Some(found) = self.kept(&id, now) {
            return found;
        }
        let busy = || Fault::Unreachable("too many tokens wait for the cluster's review".into());
        let _waits = self.waiting.try_acquire().map_err(|_| busy())?;
        let _lane = self.lanes[usize::from(id[0]) % LANES].lock().await;
        // Somebody may have asked for the same one meanwhile.
        if let Some(found) = self.kept(&id, now) {
            return found;
        }
        let failed = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let recent = |(at, _): &&(i64, String)| !passed(*at, now, ASK_AGAIN);
            state.failed.as_ref().filter(recent).cloned()
        };
        let asked = match failed {
            Some((_, error)) => Err(error),
            None => {
                let asked = ask(cluster, jwt).await;
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                match &asked {
                    Ok(_) => (state.answered_at, state.failed) = (Some(now), None),
                    Err(error) => {
                        let issuer = &cluster.settings.issuer;
                        tracing::warn!(
                            issuer,
                            error,
                            "a cluster could not be asked to review a token"
                        );
                        state.failed = Some((now, error.clone()));
                    }
                }
                asked
            }
        };
        match asked {
            Ok(verdict) => {
                let reviewed = Arc::new(Reviewed { at: now, verdict });
                self.known.insert(id, reviewed.clone());
                reviewed.told()
            }
            Err(error) => match self.known.get(&id).as_deref() {
                Some(Reviewed {
                    at,
                    verdict: Ok(claims),
                }) if !passed(*at, now, REVIEW_STALE) => {
                    Ok((claims.clone(), (now + ASK_AGAIN).min(at + REVIEW_STALE)))
                }
                _ => Err(Fault::Unreachable(error)),
            },
        }
    }

    fn kept(&self, id: &[u8; 32], now: i64) -> Option<Result<(Arc<Claims>, i64), Fault>> {
        let known = self.known.get(id)?;
        let span = match known.verdict.is_ok() {
            true => REVIEWED_FOR,
            false => REFUSED_FOR,
        };
        (!passed(known.at, now, span)).then(|| known.told())
    }
}

impl Reviewed {
    /// What is proved, and until when.
    fn told(&self) -> Result<(Arc<Claims>, i64), Fault> {
        match &self.verdict {
            Ok(claims) => Ok((claims.clone(), self.at + REVIEWED_FOR)),
            Err(why) => Err(Fault::Reviewed(why.clone())),
        }
    }
}

async fn ask(cluster: &Cluster<'_>, jwt: &Jwt<'_>) -> Result<Result<Arc<Claims>, String>, String> {
    let url = format!("{}{PATH}", cluster.server.trim_end_matches('/'));
    origin(&url)?;
    cluster.count.fetch_add(1, Ordering::Relaxed);
    let audiences = &cluster.settings.audiences;
    let question = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": jwt.text, "audiences": audiences},
    });
    let request = FetchRequest {
        url,
        authority: cluster.settings.authority.clone(),
        bearer: cluster.bearer.cloned(),
        post: Some(Password::new(question.to_string())),
        largest: LARGEST,
    };
    let answer = tokio::time::timeout(PATIENCE, cluster.fetch.get(request)).await;
    let answer = answer
        .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))
        .and_then(|answer| answer)
        .map_err(shortened)?;
    if answer.len() > LARGEST {
        return Err(format!("the answer is larger than {} KiB", LARGEST >> 10));
    }
    let verdict = read(&answer, jwt, audiences)?;
    Ok(verdict.map(Arc::new))
}

/// What the answer proves of the token; outside: why it is no answer.
fn read(
    answer: &[u8],
    jwt: &Jwt<'_>,
    audiences: &[String],
) -> Result<Result<Claims, String>, String> {
    #[derive(Deserialize)]
    struct Review {
        kind: String,
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        #[serde(default)]
        authenticated: bool,
        #[serde(default)]
        user: User,
        #[serde(default)]
        audiences: Vec<String>,
        #[serde(default)]
        error: String,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct User {
        username: String,
        uid: String,
        groups: Vec<String>,
        extra: BTreeMap<String, Vec<String>>,
    }
    let review = serde_json::from_slice::<Review>(answer);
    let review = review.ok().filter(|review| review.kind == "TokenReview");
    let status = review
        .ok_or_else(|| "the answer is no TokenReview; is this a kube-apiserver?".to_owned())?
        .status;
    if !status.authenticated {
        // A sentence of somebody else, shown to administrators.
        let why = status
            .error
            .replace(jwt.text, "…")
            .replace(char::is_control, " ");
        return Ok(Err(match why.is_empty() {
            true => "it says nothing more".to_owned(),
            false => shortened(why),
        }));
    }
    // A cluster that knows no audiences names none, and would take a token for itself.
    let accepted: Vec<&String> = status
        .audiences
        .iter()
        .filter(|one| audiences.contains(one))
        .collect();
    if accepted.is_empty() {
        return Ok(Err(
            "it is accepted there, but for none of our audiences".to_owned()
        ));
    }
    let user = status.user;
    let account = user.username.strip_prefix("system:serviceaccount:");
    let Some((namespace, account)) = account.and_then(|both| both.split_once(':')) else {
        return Ok(Err("it is of no service account".to_owned()));
    };
    if jwt.claims.get("sub").and_then(Value::as_str) != Some(&user.username) {
        return Ok(Err(
            "its subject is not the user that it is accepted for".to_owned()
        ));
    }
    // Nothing of what the token says itself but its times: those were looked at.
    let mut bound = Map::new();
    bound.insert("namespace".into(), namespace.into());
    bound.insert(
        "serviceaccount".into(),
        json!({"name": account, "uid": user.uid}),
    );
    for what in ["pod", "node"] {
        let extra = |end: &str| {
            let values = user
                .extra
                .get(&format!("authentication.kubernetes.io/{what}-{end}"))?;
            values.first().cloned()
        };
        if let Some(name) = extra("name") {
            bound.insert(what.into(), json!({"name": name, "uid": extra("uid")}));
        }
    }
    let mut claims = Claims::new();
    for name in ["iss", "iat", "nbf", "exp"] {
        if let Some(value) = jwt.claims.get(name) {
            claims.insert(name.into(), value.clone());
        }
    }
    claims.insert("aud".into(), json!(accepted));
    claims.insert("kubernetes.io".into(), bound.into());
    claims.insert("sub".into(), user.username.as_str().into());
    claims.insert("username".into(), user.username.into());
    claims.insert("uid".into(), user.uid.into());
    claims.insert("groups".into(), user.groups.into());
    claims.insert("extra".into(), json!(user.extra));
    Ok(Ok(claims))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::super::claim::find;
    use super::*;

    const USER: &str = "system:serviceaccount:prod:default";

    fn token() -> String {
        let body = json!({"iss": "i", "sub": USER, "exp": 9, "groups": ["system:masters"], "kubernetes.io": {"namespace": "kube-system"}});
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(json!({"alg": "RS256"})), part(body))
    }

    fn said(status: Value) -> Result<Result<Claims, String>, String> {
        let token = token();
        let answer = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "status": status});
        read(
            answer.to_string().as_bytes(),
            &Jwt::read(&token).unwrap(),
            &["reg".to_owned()],
        )
    }

    fn status(user: &str, audiences: &[&str]) -> Value {
        json!({"authenticated": true, "audiences": audiences, "user": {
            "username": user, "uid": "u-1", "groups": ["system:serviceaccounts"],
            "extra": {"authentication.kubernetes.io/pod-name": ["p"], "authentication.kubernetes.io/pod-uid": ["u-2"]},
        }})
    }

    #[test]
    fn rules_see_what_the_cluster_says_and_nothing_of_the_token() {
        let claims = said(status(USER, &["other", "reg"])).unwrap().unwrap();
        let text = |path| find(&claims, path).cloned().unwrap_or_default();
        assert_eq!(text("kubernetes.io.namespace"), "prod");
        assert_eq!(text("kubernetes.io.serviceaccount.uid"), "u-1");
        assert_eq!(text("kubernetes.io.pod.name"), "p");
        assert_eq!(text("kubernetes.io.node.name"), Value::Null);
        assert_eq!(text("groups"), json!(["system:serviceaccounts"]));
        assert_eq!((text("aud"), text("exp")), (json!(["reg"]), json!(9)));
    }

    #[test]
    fn an_answer_that_proves_nothing_is_a_refusal() {
        for (status, why) in [
            (
                json!({"authenticated": false, "error": "expired"}),
                "expired",
            ),
            (
                json!({"error": format!("bad token {}\n", token())}),
                "bad token … ",
            ),
            (json!({}), "it says nothing more"),
            (status(USER, &[]), "none of our audiences"),
            (
                status(USER, &["https://kubernetes.default.svc"]),
                "none of our audiences",
            ),
            (status("admin", &["reg"]), "no service account"),
            (
                status("system:serviceaccount:prod", &["reg"]),
                "no service account",
            ),
            (
                status("system:serviceaccount:dev:default", &["reg"]),
                "its subject is not",
            ),
        ] {
            let refused = said(status).unwrap().unwrap_err();
            assert!(refused.contains(why), "{why}: {refused}");
        }
        let token = token();
        let jwt = Jwt::read(&token).unwrap();
        for none in [
            "",
            "{}",
            "[]",
            r#"{"kind":"Status","status":"Failure"}"#,
            r#"{"kind":"SubjectAccessReview","status":{"authenticated":true}}"#,
        ] {
            assert!(
                read(none.as_bytes(), &jwt, &["reg".to_owned()]).is_err(),
                "{none}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(text in "\\PC{0,80}", user in "(system:serviceaccount:)?[a-z:]{0,12}", many in 0..40_usize) {
            let token = token();
            let jwt = Jwt::read(&token).unwrap();
            let whole = json!({"kind": "TokenReview", "status": status(&user, &vec![&*text; many])}).to_string();
            for answer in [text.as_bytes(), whole.as_bytes(), &whole.as_bytes()[..whole.len() / 2]] {
                if let Ok(Ok(claims)) = read(answer, &jwt, std::slice::from_ref(&text)) {
                    prop_assert_eq!(&claims["sub"], USER);
                }
            }
        }
    }
}
