//! Who acts, and what a request may use of that.

use std::sync::Arc;

use wharf_oci::Scope;

/// The name under which nobody in particular is recorded. No user can have it.
pub const ANONYMOUS: &str = "anonymous";

/// Where a user is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// In the metadata store, with an argon2id hash.
    Local,
    /// In the htpasswd file, with a bcrypt hash.
    Htpasswd,
}

impl Source {
    /// The word for logs and tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Htpasswd => "htpasswd",
        }
    }
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody in particular.
    Anonymous,
    /// A user who proved who they are.
    User {
        /// Unique over all sources: a local user hides one of the same name in the htpasswd file.
        name: Arc<str>,
        /// Where the user is kept.
        source: Source,
    },
}

impl Principal {
    /// The name for events, logs and upload owners.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => ANONYMOUS,
            Self::User { name, .. } => name,
        }
    }

    /// Whether this is nobody in particular.
    pub const fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }
}

/// A principal as one request presents it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who acts.
    pub principal: Principal,
    /// What the bearer token was asked for; `None` when the request carries no token, and then only the principal's
    /// own rights count.
    pub scopes: Option<Arc<[Scope]>>,
    /// When the token ended, in ms since 1970, if it did so less than the upload grace ago. Such a caller is refused
    /// everything but going on with an upload of its own (AUTH-20).
    pub expired_since: Option<i64>,
}

impl Caller {
    /// A request without credentials.
    pub const fn anonymous() -> Self {
        Self {
            principal: Principal::Anonymous,
            scopes: None,
            expired_since: None,
        }
    }

    /// A principal whose password came with the request.
    pub const fn direct(principal: Principal) -> Self {
        Self {
            principal,
            scopes: None,
            expired_since: None,
        }
    }

    /// Whether the request came without any credential, so that asking for one may help.
    pub const fn came_without_credentials(&self) -> bool {
        self.principal.is_anonymous() && self.scopes.is_none()
    }
}
