//! Scripts that complete command lines: clap's, and in them a question to `wharf` for the names of contexts, which no script can
//! know.

use clap_complete::Shell;

/// What prints one name in each line, and nothing when there are none.
const NAMES: &str = "wharf context names 2>/dev/null";

/// The script of clap with the names of contexts where `--context` wants one. Shells that have no place for it get the script as it is.
pub(super) fn with_contexts(shell: Shell, script: &str) -> String {
    match shell {
        Shell::Bash => bash(script),
        Shell::Zsh => zsh(script),
        Shell::Fish => fish(script),
        _ => script.to_owned(),
    }
}

/// `--context)` is followed by the line that completes its value as a file.
fn bash(script: &str) -> String {
    let files = "COMPREPLY=($(compgen -f \"${cur}\"))";
    let names = format!("COMPREPLY=($(compgen -W \"$({NAMES})\" -- \"${{cur}}\"))");
    let mut wanted = false;
    let lines = script.lines().map(|line| {
        let found = std::mem::replace(&mut wanted, line.trim() == "--context)");
        match found {
            true => line.replace(files, &names) + "\n",
            false => line.to_owned() + "\n",
        }
    });
    lines.collect()
}

/// `'--context=[…]:NAME:_default'`, where braces hold what is run for the candidates.
fn zsh(script: &str) -> String {
    let ask = format!("{{compadd -- ${{(f)\"$({NAMES})\"}}}}");
    let lines = script.lines().map(|line| {
        let wanted = line.trim_start().starts_with("'--context=[");
        match (wanted, line.find(":NAME:_default'")) {
            (true, Some(at)) => {
                let rest = &line[at + ":NAME:_default".len()..];
                format!("{}:NAME:{ask}{rest}\n", &line[..at])
            }
            _ => line.to_owned() + "\n",
        }
    });
    lines.collect()
}

/// One line for each command that has the option; the last word of it says that a value follows.
fn fish(script: &str) -> String {
    let lines = script.lines().map(|line| {
        let wanted = line.contains(" -l context ") && line.ends_with(" -r");
        match wanted {
            true => format!("{line} -f -a \"({NAMES})\"\n"),
            false => line.to_owned() + "\n",
        }
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Each place where the script wants a context asks for the names, and no other place does.
    #[test]
    fn every_context_is_asked_for_in_each_shell() {
        let mut counts = Vec::new();
        for (shell, mark) in [
            (Shell::Bash, "--context)"),
            (Shell::Zsh, "'--context=["),
            (Shell::Fish, " -l context "),
        ] {
            let mut out = Vec::new();
            let mut command = super::super::Cli::command();
            clap_complete::generate(shell, &mut command, "wharf", &mut out);
            let plain = String::from_utf8(out).unwrap();
            let script = with_contexts(shell, &plain);
            let wanted = plain.matches(mark).count();
            let asked = script.matches(NAMES).count();
            assert!(
                wanted > 20 && wanted == asked,
                "{shell}: {asked} of {wanted}"
            );
            assert_eq!(plain.lines().count(), script.lines().count());
            counts.push(wanted);
        }
        // They differ in what they make of aliases, and of commands that are three words deep.
        assert!(
            counts.iter().all(|count| count.abs_diff(counts[0]) <= 4),
            "{counts:?}"
        );
    }
}
