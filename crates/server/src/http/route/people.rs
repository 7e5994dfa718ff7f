//! Addresses of the pages for people: `/auth` to sign in and out, `/account` for what is theirs, `/device` for their terminals; and those
//! by which terminals find them.

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
    /// `/auth/oidc/{provider}/signed-out`: back from signing out at the provider.
    SignedOut(String),
    /// `/auth/oidc/{provider}/backchannel-logout`: the provider says that somebody signed out there.
    Backchannel(String),
    /// `/account/tokens`.
    Tokens,
    /// `/account/sessions`.
    Sessions,
    /// `/device`: where one confirms that a terminal signs in.
    Device,
    /// `/auth/device/code`: where a terminal asks for it.
    DeviceCode,
    /// `/auth/revoke`: where a terminal says that it is done.
    Revoke,
    /// `/.well-known/oauth-authorization-server`: where terminals find the others.
    Metadata,
}

impl PeopleRoute {
    /// Takes a path apart.
    pub fn parse(path: &str) -> Option<Self> {
        Some(match path {
            "/auth/login" => Self::Login,
            "/auth/logout" => Self::Logout,
            "/account" | "/account/tokens" => Self::Tokens,
            "/account/sessions" => Self::Sessions,
            "/device" => Self::Device,
            "/auth/device/code" => Self::DeviceCode,
            "/auth/revoke" => Self::Revoke,
            "/.well-known/oauth-authorization-server" => Self::Metadata,
            _ => {
                let (name, step) = path.strip_prefix("/auth/oidc/")?.split_once('/')?;
                if !wharf_core::access::is_word(name) {
                    return None;
                }
                match step {
                    "start" => Self::Start(name.to_owned()),
                    "callback" => Self::Callback(name.to_owned()),
                    "signed-out" => Self::SignedOut(name.to_owned()),
                    "backchannel-logout" => Self::Backchannel(name.to_owned()),
                    _ => return None,
                }
            }
        })
    }

    /// The methods that it knows.
    pub const fn methods(&self) -> &'static [Method] {
        match self {
            Self::Login | Self::Tokens | Self::Sessions | Self::Device => {
                &[Method::GET, Method::HEAD, Method::POST]
            }
            Self::Logout | Self::Backchannel(_) | Self::DeviceCode | Self::Revoke => {
                &[Method::POST]
            }
            Self::Metadata => &[Method::GET, Method::HEAD],
            Self::Start(_) | Self::Callback(_) | Self::SignedOut(_) => &[Method::GET],
        }
    }

    /// The template of the address.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Login => "/auth/login",
            Self::Logout => "/auth/logout",
            Self::Start(_) => "/auth/oidc/{provider}/start",
            Self::Callback(_) => "/auth/oidc/{provider}/callback",
            Self::SignedOut(_) => "/auth/oidc/{provider}/signed-out",
            Self::Backchannel(_) => "/auth/oidc/{provider}/backchannel-logout",
            Self::Tokens => "/account/tokens",
            Self::Sessions => "/account/sessions",
            Self::Device => "/device",
            Self::DeviceCode => "/auth/device/code",
            Self::Revoke => "/auth/revoke",
            Self::Metadata => "/.well-known/oauth-authorization-server",
        }
    }
}
