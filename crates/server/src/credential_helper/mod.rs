//! What docker, podman, helm, oras and their like ask the program `docker-credential-NAME`, and what it answers.
//!
//! Called by `cli/credential_helper.rs` and by `wharf login`. Forms only: nothing is read, sent or kept here; that is in
//! `cli/client/keeper`. Nothing here quotes a secret.

mod docker;
mod server;

use serde::{Deserialize, Serialize};

pub use self::docker::{Changed, ConfigError, LARGEST_CONFIG, forget_helper, name_helper};
pub use self::server::{Server, ServerError};

/// What clients call the program, and what stands in their configuration for it.
pub const HELPER: &str = "wharf";
/// The program's name.
pub const PROGRAM: &str = "docker-credential-wharf";
/// Largest request, in bytes: a name, and a token that was bought elsewhere.
pub const LARGEST_REQUEST: usize = 64 << 10;
/// Longest user name, in bytes.
pub const LONGEST_USER: usize = 512;
/// By these words, on standard output and with the exit code 1, clients know that nothing is kept for a registry.
pub const NOT_FOUND: &str = "credentials not found in native keychain";

/// Why a request is refused. Clients know some of the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More than is read.
    #[error("the request is larger than {} KiB, which no client sends", LARGEST_REQUEST >> 10)]
    Large,
    /// No text.
    #[error("the request is no UTF-8 text")]
    Text,
    /// No registry.
    #[error("no credentials server URL")]
    NoServer,
    /// No user.
    #[error("no credentials username")]
    NoUser,
    /// None that could be signed in with.
    #[error("Username: {0}")]
    User(&'static str),
    /// No secret that could be sent.
    #[error("Secret: it holds control characters, which no header can carry")]
    Secret,
    /// No JSON of this kind.
    #[error(
        "standard input holds no credentials: {0}; write {{\"ServerURL\": …, \"Username\": …, \"Secret\": …}}"
    )]
    Form(String),
    /// What is there is no registry.
    #[error("{0}")]
    Server(#[from] ServerError),
}

/// Credentials, as clients write and read them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Credentials {
    /// As the client named it.
    #[serde(rename = "ServerURL", default)]
    pub server_url: String,
    /// `<token>` says that the secret is an identity token.
    #[serde(default)]
    pub username: String,
    /// Password or token.
    #[serde(default)]
    pub secret: String,
}

impl Credentials {
    /// As clients read them, with an end of line.
    pub fn render(&self) -> String {
        // No text can fail to become JSON.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// Reads what `get` and `erase` are told: a registry, perhaps with an end of line, and as the client named it.
///
/// # Errors
/// When it is none.
pub fn read_server(input: &[u8]) -> Result<(String, Server), Refused> {
    if input.len() > LARGEST_REQUEST {
        return Err(Refused::Large);
    }
    let text = std::str::from_utf8(input)
        .map_err(|_| Refused::Text)?
        .trim();
    if text.is_empty() {
        return Err(Refused::NoServer);
    }
    Ok((text.to_owned(), text.parse()?))
}

/// Reads what `store` is told.
///
/// # Errors
/// When something is missing, or could not be used. Never quotes what was read.
pub fn read_store(input: &[u8]) -> Result<(Credentials, Server), Refused> {
    if input.len() > LARGEST_REQUEST {
        return Err(Refused::Large);
    }
    // What serde says may quote what it read, which may be a secret.
    let told = |error: serde_json::Error| match error.classify() {
        serde_json::error::Category::Data => Refused::Form("a field is of another type".into()),
        _ if input.trim_ascii().is_empty() => Refused::Form("it is empty".into()),
        _ => Refused::Form(format!("no JSON at line {}", error.line())),
    };
    let mut read: Credentials = serde_json::from_slice(input).map_err(told)?;
    read.server_url = read.server_url.trim().to_owned();
    if read.server_url.is_empty() {
        return Err(Refused::NoServer);
    }
    check_user(&read.username)?;
    if read.secret.chars().any(char::is_control) {
        return Err(Refused::Secret);
    }
    let server = read.server_url.parse()?;
    Ok((read, server))
}

/// Whether this can be a user's name in Basic credentials, and a line on a terminal.
///
/// # Errors
/// When it cannot.
pub fn check_user(user: &str) -> Result<(), Refused> {
    if user.is_empty() {
        return Err(Refused::NoUser);
    }
    if user.len() > LONGEST_USER {
        return Err(Refused::User("it is longer than any user's name"));
    }
    if user.contains(':') || user.chars().any(char::is_control) {
        return Err(Refused::User(
            "a user name holds no colon and no control characters",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
