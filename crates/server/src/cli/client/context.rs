//! `wharf login`, `wharf logout`, `wharf context`: which registries there are, and as whom.
//!
//! Kept in `contexts.toml` in the user's configuration folder, mode 0600, since it holds what one signs in with.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::Client;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::print;

/// Names another file than the usual one.
const FILE_VARIABLE: &str = "WHARF_CONTEXTS";

/// A registry, and as whom.
#[derive(Clone, Deserialize, Serialize)]
pub(in crate::cli) struct Context {
    /// `https://registry.example.com`.
    pub(super) url: String,
    pub(super) user: String,
    /// The password, or a token in its place.
    pub(super) password: String,
    /// Certificate of the authority, if it is none that this machine trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) authority: Option<PathBuf>,
}

/// Where a URL leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// For the `Host` header.
    pub(super) authority: String,
}

impl Context {
    /// Where the registry is.
    pub(in crate::cli) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn place(&self) -> Result<Place, String> {
        place(&self.url)
    }
}

/// Reads a registry as people name it. Without a scheme it is HTTPS, but for this machine, as docker has it.
fn place(text: &str) -> Result<Place, String> {
    let bad = |why: &str| {
        format!("{text:?} is no registry: {why}; write it like registry.example.com:5000")
    };
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let uri: http::Uri = format!("http://{authority}/")
        .parse()
        .map_err(|_| bad("it is no host"))?;
    let parsed = uri
        .authority()
        .filter(|parsed| parsed.as_str() == authority);
    let parsed = parsed.ok_or_else(|| bad("leave out what stands behind the host"))?;
    if authority.contains('@') {
        return Err(bad("the user is named with --username"));
    }
    let host = parsed.host().trim_matches(['[', ']']).to_owned();
    let here = host == "localhost" || host == "::1" || host.starts_with("127.");
    let tls = match scheme {
        Some("https") => true,
        Some("http") => false,
        None => !here,
        Some(_) => return Err(bad("the scheme is https or http")),
    };
    let rest = &authority[parsed.host().len()..];
    let port = match rest.strip_prefix(':') {
        Some(port) => port
            .parse()
            .map_err(|_| bad("the port is no number up to 65535"))?,
        None if tls => 443,
        None => 80,
    };
    if host.is_empty() {
        return Err(bad("there is no host in it"));
    }
    Ok(Place {
        tls,
        host,
        port,
        authority: authority.to_owned(),
    })
}

/// All contexts of this user.
#[derive(Default, Deserialize, Serialize)]
pub(super) struct Contexts {
    /// The one in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, Context>,
}

impl Contexts {
    /// Those in the file; none when there is no file.
    pub(super) fn load() -> Result<Self, Failure> {
        let Some(path) = file() else {
            return Ok(Self::default());
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|_| {
                // Not the parser's own words: they quote the line, and so a password.
                let text = format!(
                    "{} is damaged: correct it, or remove it and log in again",
                    path.display()
                );
                Failure::text(Exit::Usage, text)
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(failed(&path, &error)),
        }
    }

    /// The context of this name, or the one in use.
    pub(super) fn chosen(&self, name: Option<&str>) -> Result<Option<Context>, Failure> {
        let Some(name) = name.or(self.current.as_deref()) else {
            return Ok(None);
        };
        let found = self.context.get(name).cloned();
        found.map(Some).ok_or_else(|| unknown(name))
    }

    fn save(&self) -> Outcome {
        let path = file().ok_or_else(|| {
            Failure::text(
                Exit::Failure,
                format!(
                    "there is no home folder to keep contexts in: name a file in {FILE_VARIABLE}"
                ),
            )
        })?;
        let text = toml::to_string(self).map_err(|error| Failure::new(Exit::Failure, error))?;
        write(&path, &text).map_err(|error| failed(&path, &error))
    }
}

/// Writes beside and renames, so that nobody ever reads half a file, and nobody else reads it at all.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(file) = set(FILE_VARIABLE) {
        return Some(file.into());
    }
    let folder = match set("XDG_CONFIG_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(set("HOME")?).join(".config"),
    };
    Some(folder.join("wharf/contexts.toml"))
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::text(Exit::Failure, format!("{}: {error}", path.display()))
}

fn unknown(name: &str) -> Failure {
    Failure::text(
        Exit::Usage,
        format!(
            "there is no context {name}; `wharf context list` shows those that there are, `wharf login` makes one"
        ),
    )
}

/// Sign in to a registry, for the commands that manage it
///
/// Asks it who you are, and keeps what you signed in with in a context: a file that only you can read. From then on `wharf repo`,
/// `wharf tag` and their like talk to that registry. For images, `docker login` and its like are needed as before.
#[derive(Debug, Args)]
pub(in crate::cli) struct LoginArgs {
    /// The registry, such as registry.example.com:5000; `http://` in front for one without TLS
    host: String,
    /// Who you are; asked for if not given
    #[arg(short, long)]
    username: Option<String>,
    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    password_stdin: bool,
    /// The context's name; the registry's if not given
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Certificate file of the authority that signed the registry's certificate, if it is none that this machine trusts
    #[arg(long, value_name = "FILE")]
    authority: Option<PathBuf>,
}

/// Forget what one signed in with
#[derive(Debug, Args)]
pub(in crate::cli) struct LogoutArgs {
    /// The context; the one in use if not given
    context: Option<String>,
}

/// What can be done with contexts.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ContextCommand {
    /// List the registries that one is signed in to; a star marks the one in use
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the names of all contexts, for completions
    #[command(hide = true)]
    Names,
    /// Let commands talk to another registry from now on
    Use {
        /// The context's name; `-` for none: commands then look for a data folder on this machine
        name: String,
    },
}

/// `wharf login`.
pub(in crate::cli) fn login(args: LoginArgs) -> Outcome {
    let place = place(&args.host).map_err(|text| Failure::text(Exit::Usage, text))?;
    let scheme = if place.tls { "https" } else { "http" };
    let user = match args.username {
        Some(user) => user,
        None if args.password_stdin => {
            let text = "name the user with --username: standard input holds the password";
            return Err(Failure::text(Exit::Usage, text));
        }
        None => ask("User name: ")?,
    };
    if user.is_empty() || user.contains(':') {
        let text = "a user name is not empty and holds no colon";
        return Err(Failure::text(Exit::Usage, text));
    }
    let password = match args.password_stdin {
        true => read_password()?,
        false => ask_hidden("Password: ")?,
    };
    let authority = args.authority.map(std::path::absolute).transpose();
    let authority = authority.map_err(|error| Failure::new(Exit::Usage, error))?;
    let context = Context {
        url: format!("{scheme}://{}", place.authority),
        user,
        password,
        authority,
    };
    let me = Client::Remote(Box::new(context.clone())).get("/api/v1/me")?;
    let name = args.context.unwrap_or(place.authority);
    let mut contexts = Contexts::load()?;
    let told = format!(
        "Signed in to {} as {}; commands use context {name} from now on.\n",
        context.url,
        me["name"].as_str().unwrap_or(&context.user)
    );
    contexts.context.insert(name.clone(), context);
    contexts.current = Some(name);
    contexts.save()?;
    print(&told)
}

/// `wharf logout`.
pub(in crate::cli) fn logout(args: &LogoutArgs) -> Outcome {
    let mut contexts = Contexts::load()?;
    let name = args.context.clone().or_else(|| contexts.current.clone());
    let name = name.ok_or_else(|| {
        Failure::text(
            Exit::Usage,
            "no context is in use; `wharf context list` shows those that there are",
        )
    })?;
    contexts
        .context
        .remove(&name)
        .ok_or_else(|| unknown(&name))?;
    if contexts.current.as_ref() == Some(&name) {
        contexts.current = None;
    }
    contexts.save()?;
    print(&format!("Context {name} is forgotten.\n"))
}

/// `wharf context`.
pub(in crate::cli) fn run(command: &ContextCommand) -> Outcome {
    let mut contexts = Contexts::load()?;
    match command {
        ContextCommand::List { json } => {
            let is_current = |name: &str| contexts.current.as_deref() == Some(name);
            if *json {
                let rows = contexts.context.iter().map(|(name, context)| {
                    serde_json::json!({
                        "name": name,
                        "url": context.url,
                        "user": context.user,
                        "in_use": is_current(name),
                    })
                });
                let rows: Vec<_> = rows.collect();
                return print(&format!("{:#}\n", serde_json::Value::from(rows)));
            }
            let rows = contexts.context.iter().map(|(name, context)| {
                let star = if is_current(name) { "*" } else { " " };
                format!("{star} {name:<32} {:<16} {}\n", context.user, context.url)
            });
            print(&rows.collect::<String>())
        }
        ContextCommand::Names => {
            let names = contexts.context.keys().map(|name| format!("{name}\n"));
            print(&names.collect::<String>())
        }
        ContextCommand::Use { name } if name == "-" => {
            contexts.current = None;
            contexts.save()?;
            print("No context is in use: commands look for a data folder on this machine.\n")
        }
        ContextCommand::Use { name } => {
            let context = contexts.context.get(name).ok_or_else(|| unknown(name))?;
            let told = format!("Commands talk to {} as {}.\n", context.url, context.user);
            contexts.current = Some(name.clone());
            contexts.save()?;
            print(&told)
        }
    }
}

/// The first line of standard input, as `--password-stdin` of other tools has it.
fn read_password() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin()
        .lock()
        .take(64 << 10)
        .read_to_string(&mut text);
    read.map_err(|error| {
        Failure::text(Exit::Usage, format!("cannot read standard input: {error}"))
    })?;
    let password = text.lines().next().unwrap_or_default().to_owned();
    match password.is_empty() {
        true => Err(Failure::text(
            Exit::Usage,
            "standard input holds no password",
        )),
        false => Ok(password),
    }
}

fn ask(question: &str) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let text = "nobody can be asked here: use --username and --password-stdin";
        return Err(Failure::text(Exit::Usage, text));
    }
    eprint!("{question}");
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    read.map_err(|error| Failure::text(Exit::Usage, format!("cannot read: {error}")))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks without showing what is typed.
fn ask_hidden(question: &str) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).ok();
    if let Some(mode) = &before {
        let mut hidden = mode.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        let _ = tcsetattr(&stdin, OptionalActions::Flush, &hidden);
    }
    let answer = ask(question);
    if let Some(mode) = &before {
        let _ = tcsetattr(&stdin, OptionalActions::Flush, mode);
        eprintln!();
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn registries_are_read_as_people_name_them() {
        let read = |text: &str| {
            let place = place(text).unwrap();
            (place.tls, place.host, place.port)
        };
        assert_eq!(read("reg.example"), (true, "reg.example".into(), 443));
        assert_eq!(read("reg.example:5000"), (true, "reg.example".into(), 5000));
        assert_eq!(
            read("https://reg.example/"),
            (true, "reg.example".into(), 443)
        );
        assert_eq!(
            read("http://reg.example"),
            (false, "reg.example".into(), 80)
        );
        assert_eq!(read("localhost:5000"), (false, "localhost".into(), 5000));
        assert_eq!(read("127.0.0.1:1"), (false, "127.0.0.1".into(), 1));
        assert_eq!(read("https://[::1]:5"), (true, "::1".into(), 5));
        for wrong in [
            "", "ftp://x", "x/y", "a b", "u:p@x", "x:99999", "http://", "x?y",
        ] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_owner_can_read_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/contexts.toml");
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
    }
}
