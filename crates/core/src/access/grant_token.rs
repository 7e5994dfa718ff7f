//! What the token endpoint does (§4.3); `server/src/v2/token.rs` speaks HTTP for it.

use std::sync::Arc;

use wharf_oci::auth::AuthorizationError;
use wharf_oci::{Authorization, RepositoryName, Scope};

use super::Access;
use super::authenticate::{AuthFailure, BY_CERTIFICATE, BY_WORKLOAD, read_authorization};
use super::certificate::Certificate;
use super::decide::covers;
use super::machine_secret::{Form, form};
use super::principal::{Caller, Circumstances, Principal};
use super::rate::RateKind;
use super::role::Permission;
use super::secret::{Password, is_refresh_token, new_refresh_token, stored_form};
use super::store::RefreshTokenRow;
use super::terminal::BY_TERMINAL;
use super::token::sanitise;

/// Most resources that one token can name. Containerd and BuildKit ask for the union of what one operation touches, a
/// handful; the bound keeps tokens below common header limits (TOK-8).
pub const MOST_SCOPES: usize = 50;
/// Most bytes of scopes in one token.
pub const LONGEST_SCOPES: usize = 4 << 10;

/// How the client says who it is.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Not at all.
    Nobody,
    /// User and password; both empty is nobody.
    Password {
        /// The user.
        name: String,
        /// The password.
        password: Password,
    },
    /// By the certificate of its connection; it may be nobody's.
    Certificate(Arc<Certificate>),
    /// An identity token that this endpoint gave out before.
    RefreshToken(Password),
    /// A token of another issuer, to be exchanged for one of ours (RFC 8693).
    Workload(Password),
}

impl Proof {
    /// The proof in the values of the `Authorization` headers of a request to the token endpoint.
    ///
    /// What names no scheme of ours counts as nobody: Ollama signs every token request in a form of its own. A bearer
    /// token is refused: one token must not buy another with other scopes.
    pub fn from_header<'a>(
        values: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, AuthFailure> {
        match read_authorization(values) {
            Ok(None | Some(Authorization::Other(_)))
            | Err(AuthFailure::Malformed(AuthorizationError::NoScheme)) => Ok(Self::Nobody),
            Ok(Some(Authorization::Basic { user, password })) => Ok(Self::Password {
                name: user,
                password: Password::new(password),
            }),
            Ok(Some(Authorization::Bearer(_))) => Err(AuthFailure::Scheme("bearer".into())),
            Err(failure) => Err(failure),
        }
    }
}

/// A request for a token.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// Who asks.
    pub proof: Proof,
    /// What for. Nothing is fine: `docker login` asks so (TOK-3).
    pub scopes: Vec<Scope>,
    /// Whether an identity token is asked for too.
    pub offline: bool,
}

/// A token and what goes with it.
#[derive(Debug, Clone)]
pub struct TokenGrant {
    /// The bearer token.
    pub token: Password,
    /// Its life in seconds.
    pub expires_in: u64,
    /// When it was issued, in ms since 1970, cut to the second.
    pub issued_at: i64,
    /// What it is good for at this moment.
    pub granted: Vec<Scope>,
    /// An identity token, if one was asked for and may be given.
    pub refresh_token: Option<Password>,
    /// To whom, for the log.
    pub principal: Principal,
    /// The id of the credential that was proved, or how the principal signed in without one.
    pub credential: String,
}

/// Why no token is given.
#[derive(Debug, thiserror::Error)]
pub enum TokenRefusal {
    /// 401, 429 or 503, as the failure says.
    #[error(transparent)]
    Auth(#[from] AuthFailure),
    /// 400: more than [`MOST_SCOPES`] or [`LONGEST_SCOPES`].
    #[error(
        "a token can name at most {MOST_SCOPES} repositories in {LONGEST_SCOPES} bytes; ask for several tokens"
    )]
    TooManyScopes,
}

/// Who asks for a token.
struct Proved {
    caller: Caller,
    credential: String,
    /// The identity token that showed it.
    held: Option<Password>,
    /// How long a token may stand for it at most, in seconds.
    session: i64,
}

impl From<crate::Error> for TokenRefusal {
    fn from(error: crate::Error) -> Self {
        Self::Auth(error.into())
    }
}

impl Access {
    /// Issues a token to whoever asks from there and then.
    ///
    /// The token carries what was asked for, not what is granted: rights are asked for at each use, so one that comes
    /// later counts too, and one that goes is gone at once. Anonymous without any right gets a token as well (TOK-1).
    pub async fn grant_token(
        &self,
        request: TokenRequest,
        came: impl Into<Circumstances>,
    ) -> Result<TokenGrant, TokenRefusal> {
        let came = came.into();
        let now = came.at;
        let scopes = sanitise(&request.scopes);
        let length: usize = scopes.iter().map(|scope| scope.to_string().len()).sum();
        if scopes.len() > MOST_SCOPES || length > LONGEST_SCOPES {
            return Err(TokenRefusal::TooManyScopes);
        }
        let proved = self.prove(&request.proof, came).await;
        let nobody = Caller::anonymous().under(came);
        let who = proved.as_ref().map_or(&nobody, |proved| &proved.caller);
        self.admit(RateKind::Token, who, None, &[])
            .map_err(AuthFailure::from)?;
        let Proved {
            caller,
            credential,
            held,
            session,
        } = proved?;
        let subject = if caller.principal.is_anonymous() {
            ""
        } else {
            caller.principal.name()
        };
        let pushes = |scope: &Scope| {
            scope.kind == "repository" && (scope.allows("push") || scope.allows("delete"))
        };
        let seconds = if scopes.iter().any(pushes) {
            self.push_token_seconds
        } else {
            self.token_seconds
        };
        // The client's token may end long before: that is what pushes that take their time are for (OIDC-3).
        let seconds = seconds.min(session);
        // What is shown anew each time needs nothing that lasts.
        let lasting = !matches!(caller.principal, Principal::Workload { .. })
            && !credential.starts_with(BY_CERTIFICATE)
            // A terminal has a refresh token of its own, which is spent by use; none that is not comes of it.
            && !credential.starts_with(BY_TERMINAL);
        let token = self
            .tokens
            .issue(subject, &credential, &scopes, now, seconds)?;
        let refresh_token = match held {
            // Never another one: clients do not store a second one while pulling.
            Some(held) => request.offline.then_some(held),
            None if request.offline && self.identity_tokens && !subject.is_empty() && lasting => {
                let made = new_refresh_token();
                let row = RefreshTokenRow {
                    subject: subject.into(),
                    credential,
                    created_at: now,
                };
                let kept = self
                    .secrets
                    .create_refresh_token(stored_form(made.reveal()), row)
                    .await;
                // A full or broken disk keeps nobody from pulling: the token is good without one.
                kept.is_ok().then_some(made)
            }
            None => None,
        };
        Ok(TokenGrant {
            token,
            expires_in: seconds.unsigned_abs(),
            issued_at: now - now.rem_euclid(1_000),
            granted: self.granted(&caller, &scopes),
            refresh_token,
            credential: caller.origin("").credential,
            principal: caller.principal,
        })
    }

    async fn prove(&self, proof: &Proof, came: Circumstances) -> Result<Proved, AuthFailure> {
        let (caller, credential, held) = match proof {
            Proof::Nobody => (Caller::anonymous().under(came), String::new(), None),
            Proof::Password { name, password } => {
                let (caller, credential) = self.sign_in(name, password.reveal(), came).await?;
                (caller, credential, None)
            }
            Proof::Certificate(certificate) => {
                let (caller, credential) = self.nobody(Some(certificate), came).await?;
                (caller, credential, None)
            }
            Proof::RefreshToken(token) => {
                let (caller, credential) = self.redeem(token, came).await?;
                (caller, credential, Some(token.clone()))
            }
            Proof::Workload(token) => {
                let (caller, credential) = self.by_workload(token.reveal(), came).await?;
                (caller, credential, None)
            }
        };
        let session = credential.strip_prefix(BY_WORKLOAD);
        let session = session.and_then(|credential| self.workloads.session(credential));
        Ok(Proved {
            caller,
            credential,
            held,
            session: session.unwrap_or(i64::MAX),
        })
    }

    /// Who holds an identity token. It dies with the password with which it was made.
    async fn redeem(
        &self,
        token: &Password,
        came: Circumstances,
    ) -> Result<(Caller, String), AuthFailure> {
        // Some clients send whatever they keep for a registry as an identity token.
        if form(token.reveal()) == Form::Whole {
            let found = self.by_secret(token.reveal(), came).await?;
            return found.ok_or(AuthFailure::Secret);
        }
        if !self.identity_tokens || !is_refresh_token(token.reveal()) {
            return Err(AuthFailure::RefreshToken);
        }
        let hash = stored_form(token.reveal());
        let row = self
            .secrets
            .refresh_token(hash.clone())
            .await?
            .ok_or(AuthFailure::RefreshToken)?;
        match self
            .with_credential(&row.subject, &row.credential, came)
            .await?
        {
            Some(caller) => Ok((caller, row.credential)),
            None => {
                // It is refused whether its row can be removed now or not.
                if let Err(error) = self.secrets.delete_refresh_token(hash).await {
                    tracing::warn!(%error, "an identity token that ended could not be removed");
                }
                Err(AuthFailure::RefreshToken)
            }
        }
    }

    /// What of the scopes the caller holds at this moment, action by action.
    fn granted(&self, caller: &Caller, scopes: &[Scope]) -> Vec<Scope> {
        let policy = self.policy();
        let actions = [
            ("pull", Permission::Pull),
            ("push", Permission::Push),
            ("delete", Permission::Delete),
        ];
        let registry = [Permission::Catalog, Permission::Admin];
        let narrow = |scope: &Scope| {
            let repository = RepositoryName::parse(&scope.name).ok();
            let actions = if scope.kind == "repository" {
                let held = |permission| policy.allow(caller, permission, repository.as_ref());
                let held = actions
                    .iter()
                    .filter(|(action, permission)| scope.allows(action) && held(*permission));
                held.map(|(action, _)| (*action).to_owned())
                    .collect::<Vec<_>>()
            } else {
                let asked = |permission: &Permission| {
                    covers(std::slice::from_ref(scope), *permission, None)
                };
                let held = registry
                    .iter()
                    .any(|p| asked(p) && policy.allow(caller, *p, None));
                held.then(|| "*".to_owned()).into_iter().collect()
            };
            (!actions.is_empty()).then(|| Scope {
                actions,
                ..scope.clone()
            })
        };
        scopes.iter().filter_map(narrow).collect()
    }

    /// The rights as of this moment.
    pub fn policy(&self) -> Arc<super::Policy> {
        self.rights.load_full()
    }
}
