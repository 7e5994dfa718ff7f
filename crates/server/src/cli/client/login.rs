//! `wharf login` and `wharf logout`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;

use super::Client;
use super::ask::{ask, ask_hidden, read_password};
use super::context::{Context, Contexts};
use super::docker;
use super::file;
use super::keeper::{Code, Event, Keeper, SignedIn};
use super::place::{Place, place};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::print;
use crate::credential_helper::{Server, check_user};

/// Sign in to a registry: for the commands that manage it, and for docker, podman, helm and oras
///
/// A registry whose people sign in with a browser gives a code and an address: open it on any machine, confirm the code, and this
/// terminal is signed in. Others ask for name and password, as --username and --password-stdin do anywhere. What comes of it is kept
/// in credentials.toml in your configuration folder, which only you can read, with a context for `wharf repo`, `wharf tag` and their
/// like. Where the program docker-credential-wharf is in PATH (a link to wharf), docker's config.json is told to ask it.
#[derive(Debug, Args)]
pub(in crate::cli) struct LoginArgs {
    /// The registry, such as registry.example.com:5000; `http://` in front for one without TLS
    host: String,
    /// Sign in by name and password; the password is asked for if it does not come from standard input
    #[arg(short, long)]
    username: Option<String>,
    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    password_stdin: bool,
    /// Open the address in this machine's browser
    #[arg(long, conflicts_with_all = ["username", "password_stdin"])]
    browser: bool,
    /// The context's name; the registry's if not given
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Certificate file of the authority that signed the registry's certificate, if it is none that this machine trusts
    #[arg(long, value_name = "FILE")]
    authority: Option<PathBuf>,
    /// Leave docker's config.json as it is
    #[arg(long)]
    no_docker: bool,
}

/// Sign out, and forget what one signed in with
///
/// The registry ends what it gave to this terminal, and docker's config.json names no helper for it any more.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogoutArgs {
    /// The context; the one in use if not given
    context: Option<String>,
    /// Leave docker's config.json as it is
    #[arg(long)]
    no_docker: bool,
}

/// `wharf login`.
pub(in crate::cli) fn login(args: LoginArgs) -> Outcome {
    let place = place(&args.host).map_err(|text| Failure::text(Exit::Usage, text))?;
    if args.password_stdin && args.username.is_none() {
        let text = "name the user with --username: standard input holds the password";
        return Err(Failure::text(Exit::Usage, text));
    }
    let authority = args.authority.as_ref().map(std::path::absolute).transpose();
    let authority = authority.map_err(|error| Failure::new(Exit::Usage, error))?;
    let mut context = Context {
        url: url(&place),
        user: String::new(),
        password: None,
        authority,
    };
    // What could not be kept is not asked for.
    let keeper = Keeper::of_user()?;
    let mut contexts = Contexts::load()?;
    keeper.check()?;
    let is_installed = docker::is_installed();
    if is_installed && !args.no_docker {
        docker::check(&place.authority)?;
    }
    let server = context.server()?;
    context.user = match &args.username {
        Some(user) => by_password(&keeper, &server, &context, Some(user), args.password_stdin)?,
        None => {
            let mut tell = |event: Event<'_>| tell(&context.url, args.browser, &event);
            let authority = context.authority.as_deref();
            match keeper.sign_in(server.key(), &context.url, authority, &mut tell)? {
                SignedIn::As(user) => user,
                SignedIn::Not => by_password(&keeper, &server, &context, None, false)?,
                SignedIn::Elsewhere(issuer) => {
                    eprintln!(
                        "{} calls itself {issuer}: sign in there to do it with a browser. Here it is name and password.",
                        context.url
                    );
                    by_password(&keeper, &server, &context, None, false)?
                }
            }
        }
    };
    let name = args.context.unwrap_or_else(|| place.authority.clone());
    let mut told = format!(
        "Signed in to {} as {}; commands use context {name} from now on.\n",
        context.url, context.user
    );
    contexts.put(&name, context);
    contexts.save()?;
    match (args.no_docker, is_installed) {
        (true, _) => {}
        (false, true) => match docker::name(&place.authority) {
            Ok(text) => told.push_str(&text),
            Err(failure) => {
                print(&told)?;
                return Err(failure);
            }
        },
        (false, false) => told.push_str(&docker::advice()),
    }
    print(&told)
}

fn url(place: &Place) -> String {
    let scheme = if place.tls { "https" } else { "http" };
    format!("{scheme}://{}", place.authority)
}

/// Asks for what is missing, and the registry whether it is right. Gives the user.
fn by_password(
    keeper: &Keeper,
    server: &Server,
    context: &Context,
    user: Option<&String>,
    is_piped: bool,
) -> Result<String, Failure> {
    let user = match user {
        Some(user) => user.clone(),
        None => ask("User name: ")?,
    };
    if check_user(&user).is_err() {
        let text = "a user name is not empty and holds no colon";
        return Err(Failure::text(Exit::Usage, text));
    }
    let password = match is_piped {
        true => read_password()?,
        false => ask_hidden("Password: ")?,
    };
    let tried = Context {
        user: user.clone(),
        password: Some(password.clone()),
        ..context.clone()
    };
    Client::Remote(Box::new(tried)).get("/api/v1/me")?;
    keeper.put_password(server.key(), &user, password)?;
    Ok(user)
}

/// What happens while somebody signs in elsewhere.
fn tell(url: &str, browser: bool, event: &Event<'_>) {
    let code = match event {
        Event::Code(code) => code,
        Event::Unanswered(failure) => {
            return eprintln!("{}\nThe code stays good; asking again.", failure.error);
        }
    };
    eprint!("{}", text(url, code));
    if browser && !open(code.complete.as_ref().unwrap_or(&code.uri)) {
        eprintln!("No browser could be started here: set BROWSER, or open the address yourself.");
    }
}

fn text(url: &str, code: &Code) -> String {
    let minutes = code.lasts.as_secs().div_ceil(60);
    let (uri, user_code) = (&code.uri, &code.user_code);
    let address = match &code.complete {
        Some(complete) => format!(
            "Open this address in a browser, on any machine:\n\n  {complete}\n\nand confirm the code that it shows: {user_code}\n\
             (or type the code at {uri})"
        ),
        None => format!(
            "Open this address in a browser, on any machine:\n\n  {uri}\n\nand type the code: {user_code}"
        ),
    };
    format!(
        "To sign in to {url}:\n{address}\nIt is good for {minutes} min. Waiting; Ctrl-C gives up.\n"
    )
}

/// Starts a browser and does not wait for it.
fn open(address: &str) -> bool {
    let usual = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let program = file::set("BROWSER").unwrap_or_else(|| usual.into());
    let started = Command::new(program)
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    started.is_ok()
}

/// `wharf logout`.
pub(in crate::cli) fn logout(args: &LogoutArgs) -> Outcome {
    let mut contexts = Contexts::load()?;
    let (name, context) = contexts.take(args.context.as_deref())?;
    let mut told = format!("Context {name} is forgotten.\n");
    let server = context.server()?;
    if context.password.is_none() && !contexts.shares(&server, &context.user) {
        let keeper = Keeper::of_user()?;
        if let Err(failure) = keeper.erase(server.key(), &context.user)? {
            eprintln!(
                "warning: {} could not be told, so what it gave to this terminal stays good there until its time is over, or until you \
                 end it on the page of your sessions: {}",
                context.url, failure.error
            );
        }
        if !args.no_docker && keeper.load()?.chosen(&server).is_none() {
            match docker::forget(&server) {
                Ok(text) => told.push_str(&text),
                Err(failure) => eprintln!("warning: {}", failure.error),
            }
        }
    }
    contexts.save()?;
    print(&told)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_person_is_told_where_to_go_and_what_to_compare() {
        let mut code = Code {
            device_code: "hidden".into(),
            user_code: "ABCD-EFGH".into(),
            uri: "https://reg.example/device".into(),
            complete: Some("https://reg.example/device?user_code=ABCD-EFGH".into()),
            lasts: Duration::from_secs(600),
            interval: Duration::from_secs(5),
        };
        let told = text("https://reg.example", &code);
        for part in [
            "/device?user_code=ABCD-EFGH",
            "shows: ABCD-EFGH",
            "at https://reg.example/device)",
            "10 min",
        ] {
            assert!(told.contains(part), "{told}");
        }
        code.complete = None;
        let told = text("https://reg.example", &code);
        assert!(
            told.contains("type the code: ABCD-EFGH") && !told.contains("hidden"),
            "{told}"
        );
    }
}
