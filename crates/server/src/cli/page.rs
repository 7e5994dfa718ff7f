//! The page `docs/reference/cli.md`, made from the definition of the command line.

use std::fmt::Write as _;

use clap::CommandFactory as _;

use super::{Cli, Exit};

/// The whole page.
pub(super) fn reference() -> String {
    let mut out = String::from(include_str!("page_head.md"));
    // The page must not depend on the terminal of whoever makes it.
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut sections = String::new();
    describe(&mut command, &mut sections);
    out.push_str(&sections);
    out.push_str("\n## Exit codes\n\n| code | meaning |\n|---|---|\n| 0 | done |\n");
    for (exit, meaning) in Exit::ALL {
        let _ = writeln!(out, "| {} | {meaning} |", exit as u8);
    }
    out
}

fn describe(command: &mut clap::Command, out: &mut String) {
    let name = command.get_bin_name().unwrap_or("wharf").to_owned();
    let help = command.render_long_help().to_string();
    let lines: Vec<_> = help.trim_end().lines().map(str::trim_end).collect();
    let _ = write!(out, "\n## `{name}`\n\n```text\n{}\n```\n", lines.join("\n"));
    for inner in command.get_subcommands_mut() {
        if !inner.is_hide_set() && inner.get_name() != "help" {
            describe(inner, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_reference_page_of_the_command_line_is_current() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
        let page = reference();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stored == page,
            "docs/reference/cli.md is stale: run `UPDATE_DOCS=1 cargo test -p wharf --lib reference`"
        );
    }
}
