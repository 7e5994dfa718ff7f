//! Who acts, and what a request may use of that.

use std::net::IpAddr;
use std::sync::Arc;

use wharf_oci::Scope;

use super::narrow::Narrow;

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
    /// A robot: a principal of a namespace, for programs.
    Robot {
        /// `<namespace>+<name>`.
        name: Arc<str>,
    },
    /// A machine that showed a token of an issuer which is trusted here.
    Workload {
        /// `<issuer>:<what the token says>`: no user and no robot can have a colon.
        name: Arc<str>,
        /// The rules that its token matches.
        rules: Arc<[Arc<str>]>,
    },
}

impl Principal {
    /// The name for events, logs and upload owners.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => ANONYMOUS,
            Self::User { name, .. } | Self::Robot { name } | Self::Workload { name, .. } => name,
        }
    }

    /// Whether this is nobody in particular.
    pub const fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }
}

/// How a request proved who it comes from. A token from the token endpoint counts as what it was bought with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SignIn {
    /// Not at all.
    #[default]
    Nobody,
    /// With a password.
    Password,
    /// With an API token of a user.
    ApiToken,
    /// With the secret of a robot.
    RobotSecret,
    /// With a token of an issuer that is trusted here.
    Workload,
    /// With a client certificate.
    Certificate,
    /// With a terminal that the user approved.
    Terminal,
}

impl SignIn {
    /// Every way, for tables.
    pub const ALL: [Self; 7] = [
        Self::Nobody,
        Self::Password,
        Self::ApiToken,
        Self::RobotSecret,
        Self::Workload,
        Self::Certificate,
        Self::Terminal,
    ];

    /// The word for conditions and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Password => "password",
            Self::ApiToken => "api-token",
            Self::RobotSecret => "robot-secret",
            Self::Workload => "workload",
            Self::Certificate => "certificate",
            Self::Terminal => "terminal",
        }
    }
}

/// What of a request conditions can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    /// The client's address, through trusted proxies; `None` when it is not known, which satisfies no network.
    pub address: Option<IpAddr>,
    /// When, in ms since 1970.
    pub at: i64,
    /// How the caller signed in.
    pub sign_in: SignIn,
}

impl Circumstances {
    /// Nothing is known, so nothing that has a condition holds: it is the end of all days.
    pub const UNKNOWN: Self = Self {
        address: None,
        at: i64::MAX,
        sign_in: SignIn::Nobody,
    };

    /// A request from an address at a time; how it signs in is seen later.
    pub const fn new(address: Option<IpAddr>, at: i64) -> Self {
        Self {
            address,
            at,
            sign_in: SignIn::Nobody,
        }
    }
}

/// At this time, in ms since 1970, from no known address.
impl From<i64> for Circumstances {
    fn from(at: i64) -> Self {
        Self::new(None, at)
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
    /// What the credential leaves of the principal's rights; `None`: all of them.
    pub narrow: Option<Arc<Narrow>>,
    /// The id of the robot's secret or API token, or of what the bearer token was bought with; `None`: it was none of these.
    pub credential: Option<Arc<str>>,
    /// What conditions can ask for.
    pub circumstances: Circumstances,
}

impl Caller {
    /// A request without credentials.
    pub const fn anonymous() -> Self {
        Self {
            principal: Principal::Anonymous,
            scopes: None,
            expired_since: None,
            narrow: None,
            credential: None,
            circumstances: Circumstances::UNKNOWN,
        }
    }

    /// A principal whose password came with the request.
    pub const fn direct(principal: Principal) -> Self {
        Self {
            principal,
            scopes: None,
            expired_since: None,
            narrow: None,
            credential: None,
            circumstances: Circumstances::UNKNOWN,
        }
    }

    /// The same caller in these circumstances.
    #[must_use]
    pub const fn under(mut self, circumstances: Circumstances) -> Self {
        self.circumstances = circumstances;
        self
    }

    /// Whether the request came without any credential, so that asking for one may help.
    pub const fn came_without_credentials(&self) -> bool {
        self.principal.is_anonymous() && self.scopes.is_none()
    }
}
