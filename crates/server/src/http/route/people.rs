//! Addresses of the pages for people: `/auth` to sign in and out, `/account` for what is theirs.

use http::Method;

/// Which page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeopleRoute {
    /// `/auth/login`.
    Login,
    /// `/auth/logout`.
    Logout,
    /// `/auth/oidc/{provider}/start`: to the provider.
    Start(String),
    /// `/auth/oidc/{provider}/callback`: and back.
    Callback(String),
    /// `/account/tokens`.
    Tokens,
    /// `/account/sessions`.
    Sessions,
}

impl PeopleRoute {
    /// Takes a path apart.
    pub fn parse(path: &str) -> Option<Self> {
        Some(match path {
            "/auth/login" => Self::Login,
            "/auth/logout" => Self::Logout,
            "/account" | "/account/tokens" => Self::Tokens,
            "/account/sessions" => Self::Sessions,
            _ => {
                let (name, step) = path.strip_prefix("/auth/oidc/")?.split_once('/')?;
                if !wharf_core::access::is_word(name) {
                    return None;
                }
                match step {
                    "start" => Self::Start(name.to_owned()),
                    "callback" => Self::Callback(name.to_owned()),
                    _ => return None,
                }
            }
        })
    }

    /// The methods that it knows.
    pub const fn methods(&self) -> &'static [Method] {
        match self {
            Self::Login | Self::Tokens | Self::Sessions => {
                &[Method::GET, Method::HEAD, Method::POST]
            }
            Self::Logout => &[Method::POST],
            Self::Start(_) | Self::Callback(_) => &[Method::GET],
        }
    }

    /// The template of the address.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Login => "/auth/login",
            Self::Logout => "/auth/logout",
            Self::Start(_) => "/auth/oidc/{provider}/start",
            Self::Callback(_) => "/auth/oidc/{provider}/callback",
            Self::Tokens => "/account/tokens",
            Self::Sessions => "/account/sessions",
        }
    }
}
