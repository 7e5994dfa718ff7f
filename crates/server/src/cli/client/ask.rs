//! What a person is asked for.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use crate::cli::exit::{Exit, Failure};

/// The first line of standard input, as `--password-stdin` of other tools has it.
pub(super) fn read_password() -> Result<String, Failure> {
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

pub(super) fn ask(question: &str) -> Result<String, Failure> {
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
pub(super) fn ask_hidden(question: &str) -> Result<String, Failure> {
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
