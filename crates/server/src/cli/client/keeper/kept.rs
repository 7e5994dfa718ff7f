//! What the credentials file says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::credential_helper::Server;

/// Most credentials in one file.
const MOST: usize = 1_000;
/// What the file begins with.
const HEAD: &str = "# Secrets: what this user signed in to registries with. Kept by `wharf login` and docker-credential-wharf, which write it\n\
                    # anew at each change.\n\n";

/// All that this user signed in with.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Kept {
    /// By [`Server::key`].
    #[serde(default)]
    registry: BTreeMap<String, Registry>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    /// As the client named it that stored something, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    /// As whom docker and its like act; nobody when it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// By user.
    #[serde(default)]
    credential: BTreeMap<String, Credential>,
}

/// What somebody signed in with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(in crate::cli) enum Credential {
    /// A password, or a token in its place, that stays as it is.
    Password { secret: String },
    /// Tokens of a terminal, which are others after each use.
    Terminal(Box<Terminal>),
}

/// A terminal that was signed in by device.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Terminal {
    /// `https://registry.example.com`.
    pub(super) url: String,
    /// Certificate of the authority, if it is none that this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) authority: Option<PathBuf>,
    /// Paths of the registry's endpoints.
    pub(super) token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoke: Option<String>,
    /// Buys the next tokens, once; nothing when the registry has signed this terminal out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refresh: Option<String>,
    /// What requests are made with.
    pub(super) access: String,
    /// When it was asked for and when it ends, in seconds since 1970.
    pub(super) from: i64,
    pub(super) ends: i64,
    /// SHA-256 of the access token before, which a client may still hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<String>,
}

/// A secret that can be used now.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::cli) enum Good {
    Password(String),
    Access(String),
}

impl Good {
    /// The value of an `Authorization` header.
    pub(in crate::cli) fn authorization(&self, user: &str) -> String {
        match self {
            Self::Password(secret) => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")))
            }
            Self::Access(token) => format!("Bearer {token}"),
        }
    }

    /// What goes where a password is asked for.
    pub(in crate::cli) fn into_text(self) -> String {
        match self {
            Self::Password(text) | Self::Access(text) => text,
        }
    }
}

impl Terminal {
    /// The access token, if it may be used without a look at how long it lasts.
    ///
    /// Not from the second half of its life on, so that what begins with it has time; nor when the clock says that it is not
    /// there yet.
    pub(super) fn fresh(&self, now: i64) -> Option<Good> {
        let half = self.from + (self.ends - self.from) / 2;
        (self.refresh.is_some() && (self.from..half).contains(&now))
            .then(|| Good::Access(self.access.clone()))
    }

    /// The access token, if the registry would still take it.
    pub(super) fn lasting(&self, now: i64) -> Option<Good> {
        (self.refresh.is_some() && now < self.ends).then(|| Good::Access(self.access.clone()))
    }

    /// Whether a secret is one that clients got from here.
    fn gave(&self, secret: &str) -> bool {
        secret == self.access || self.before.as_deref() == Some(&hash(secret))
    }
}

/// How one is signed in, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum How {
    Terminal,
    Password,
    Out,
}

impl How {
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Password => "password",
            Self::Out => "signed out",
        }
    }
}

pub(super) fn hash(secret: &str) -> String {
    let digest = Sha256::digest(secret.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Kept {
    pub(super) fn read(text: &str) -> Option<Self> {
        toml::from_str(text).ok()
    }

    pub(super) fn render(&self) -> Result<String, toml::ser::Error> {
        Ok(format!("{HEAD}{}", toml::to_string(self)?))
    }

    /// Under which name and as whom docker and its like act there: what was stored for exactly this server, else for its host.
    pub(in crate::cli) fn chosen(&self, server: &Server) -> Option<(&str, &str)> {
        let find = |key: &str| {
            let (key, registry) = self.registry.get_key_value(key)?;
            let user = registry.user.as_deref()?;
            registry
                .credential
                .contains_key(user)
                .then_some((key.as_str(), user))
        };
        find(server.key()).or_else(|| find(server.host()))
    }

    /// All that clients could ask for, by the name that they gave it: server and user.
    pub(in crate::cli) fn listed(&self) -> BTreeMap<&str, &str> {
        let all = self.registry.iter().filter_map(|(key, registry)| {
            let user = registry.user.as_deref()?;
            self.how(key, user).filter(|how| *how != How::Out)?;
            Some((registry.server.as_deref().unwrap_or(key), user))
        });
        all.collect()
    }

    pub(super) fn get(&self, key: &str, user: &str) -> Option<&Credential> {
        self.registry.get(key)?.credential.get(user)
    }

    pub(super) fn terminal(&mut self, key: &str, user: &str) -> Option<&mut Terminal> {
        match self.registry.get_mut(key)?.credential.get_mut(user)? {
            Credential::Terminal(terminal) => Some(terminal),
            Credential::Password { .. } => None,
        }
    }

    /// How this user is signed in there; nothing when nothing is kept.
    pub(in crate::cli) fn how(&self, key: &str, user: &str) -> Option<How> {
        Some(match self.get(key, user)? {
            Credential::Password { .. } => How::Password,
            Credential::Terminal(terminal) if terminal.refresh.is_some() => How::Terminal,
            Credential::Terminal(_) => How::Out,
        })
    }

    /// Keeps something, and lets docker and its like use it. Gives what was there before.
    pub(super) fn put(
        &mut self,
        key: &str,
        user: &str,
        credential: Credential,
    ) -> Result<Option<Credential>, String> {
        let all: usize = self
            .registry
            .values()
            .map(|registry| registry.credential.len())
            .sum();
        let registry = self.registry.entry(key.to_owned()).or_default();
        if all >= MOST && !registry.credential.contains_key(user) {
            return Err(format!(
                "it holds {MOST} credentials already; `wharf logout` takes one away"
            ));
        }
        registry.user = Some(user.to_owned());
        Ok(registry.credential.insert(user.to_owned(), credential))
    }

    /// As [`Self::put`], for a client that names the server in its way. What it got from here stays as it is.
    pub(super) fn store(
        &mut self,
        server: &Server,
        named: &str,
        user: &str,
        secret: String,
    ) -> Result<Option<Credential>, String> {
        let key = server.key();
        if self
            .terminal(key, user)
            .is_some_and(|terminal| terminal.gave(&secret))
        {
            return Ok(None);
        }
        let before = self.put(key, user, Credential::Password { secret })?;
        if let Some(registry) = self.registry.get_mut(key) {
            registry.server = Some(named.to_owned());
        }
        Ok(before)
    }

    /// Forgets somebody. Whoever else is signed in there does not become the one that docker and its like act as.
    pub(super) fn erase(&mut self, key: &str, user: &str) -> Option<Credential> {
        let registry = self.registry.get_mut(key)?;
        let gone = registry.credential.remove(user);
        registry.user.take_if(|chosen| chosen == user);
        if registry.credential.is_empty() {
            self.registry.remove(key);
        }
        gone
    }
}
