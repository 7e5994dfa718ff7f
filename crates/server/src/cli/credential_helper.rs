//! `wharf credential-helper`: what docker, podman, helm, oras and their like run to sign in.
//!
//! Also what the program is when it is called `docker-credential-wharf`. Requests come on standard input, answers go to standard
//! output, and so do errors: there clients look for them.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::client::keeper::Keeper;
use super::exit::{Exit, Failure, Outcome};
use super::print;
use crate::credential_helper::{
    Credentials, LARGEST_REQUEST, NOT_FOUND, PROGRAM, Refused, read_server, read_store,
};

/// Answer docker, podman, helm and oras that ask for credentials
///
/// The protocol of docker's credential helpers: a request on standard input, an answer or an error on standard output, 1 when there
/// is no answer. Clients run it as docker-credential-wharf, which is this same program under another name; `wharf login` tells them
/// to. What is kept lies in credentials.toml in your configuration folder, which only you can read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ln -s /usr/local/bin/wharf /usr/local/bin/docker-credential-wharf
  echo registry.example.com | wharf credential-helper get
  wharf credential-helper list")]
pub(super) struct HelperArgs {
    /// What is asked for
    action: Action,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    /// Name and secret for the registry on standard input
    Get,
    /// Keep what standard input holds: {"ServerURL": …, "Username": …, "Secret": …}
    Store,
    /// Forget the registry on standard input, and sign out there
    Erase,
    /// All registries with the names of their users
    List,
    /// The program's version
    Version,
}

/// Whether the program was called by the helper's name.
pub(super) fn is_called(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name());
    name.and_then(OsStr::to_str) == Some(PROGRAM)
}

pub(super) fn run(args: &HelperArgs) -> Outcome {
    match answer(args.action) {
        Ok(text) => print(&text),
        // Clients read standard output alone.
        Err(failure) => {
            print(&format!("{}\n", failure.error))?;
            Err(Failure::silent(failure.exit))
        }
    }
}

fn answer(action: Action) -> Result<String, Failure> {
    let keeper = Keeper::of_user();
    Ok(match action {
        Action::Version => format!("{PROGRAM} (wharf) {}\n", env!("CARGO_PKG_VERSION")),
        Action::List => format!("{}\n", json!(keeper?.load()?.listed())),
        Action::Get => {
            let (server_url, server) = read_server(&input()?).map_err(refused)?;
            let keeper = keeper?;
            let absent = || Failure::text(Exit::Failure, NOT_FOUND);
            let kept = keeper.load()?;
            let (key, user) = kept.chosen(&server).ok_or_else(absent)?;
            let good = keeper.good(key, user, None)?.ok_or_else(absent)?;
            let credentials = Credentials {
                server_url,
                username: user.to_owned(),
                secret: good.into_text(),
            };
            credentials.render()
        }
        Action::Store => {
            let (sent, server) = read_store(&input()?).map_err(refused)?;
            keeper?.store(&server, &sent.server_url, &sent.username, sent.secret)?;
            String::new()
        }
        Action::Erase => {
            let (_, server) = read_server(&input()?).map_err(refused)?;
            let keeper = keeper?;
            let kept = keeper.load()?;
            if let Some((key, user)) = kept.chosen(&server)
                && let Err(failure) = keeper.erase(key, user)?
            {
                eprintln!("warning: the registry could not be told: {}", failure.error);
            }
            String::new()
        }
    })
}

fn refused(refused: Refused) -> Failure {
    Failure::new(Exit::Failure, refused)
}

fn input() -> Result<Vec<u8>, Failure> {
    let input = std::io::stdin().lock();
    if input.is_terminal() {
        let text = "clients write to standard input, and here is a terminal; try: echo registry.example.com | wharf credential-helper get";
        return Err(Failure::text(Exit::Usage, text));
    }
    let mut request = Vec::new();
    let read = input
        .take(LARGEST_REQUEST as u64 + 1)
        .read_to_end(&mut request);
    let read = read.map_err(|error| format!("cannot read standard input: {error}"));
    read.map_err(|text| Failure::text(Exit::Failure, text))?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_name_decides() {
        let is = |name: &str| is_called(Some(&name.into()));
        assert!(is("/usr/local/bin/docker-credential-wharf") && is("docker-credential-wharf"));
        assert!(
            !is("wharf")
                && !is("/docker-credential-wharf/wharf")
                && !is("docker-credential-wharf2")
        );
        assert!(!is_called(None));
    }
}
