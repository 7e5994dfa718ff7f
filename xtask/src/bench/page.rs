//! `docs/reference/performance.md`: each figure's last table between its markers; the words around them are written by
//! hand and stay.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::site::{Kind, Programs};
use super::table::{self, Line};
use crate::{run, workspace};

const PAGE: &str = "docs/reference/performance.md";

/// Puts what was measured into the page.
pub(crate) fn write(lines: &[Line], programs: &Programs) -> Result<()> {
    let file = workspace::root().join(PAGE);
    let mut text = std::fs::read_to_string(&file).with_context(|| format!("reading {PAGE}"))?;
    text = replace(&text, "machine", &machine(programs))?;
    let mut ids: Vec<&str> = lines.iter().map(|line| line.figure).collect();
    ids.dedup();
    for id in ids {
        let rows: Vec<&Line> = lines.iter().filter(|line| line.figure == id).collect();
        text = replace(&text, id, &table::render(&rows))?;
    }
    std::fs::write(&file, text).with_context(|| format!("writing {PAGE}"))
}

/// `text` with `content` between the two markers of `name`.
fn replace(text: &str, name: &str, content: &str) -> Result<String> {
    let begin = format!("<!-- bench:{name} -->\n");
    let end = "<!-- end -->";
    let from = text
        .find(&begin)
        .with_context(|| format!("{PAGE} lacks the line {begin:?}"))?
        + begin.len();
    let to = from
        + text[from..]
            .find(end)
            .with_context(|| format!("{PAGE}: no {end:?} after {begin:?}"))?;
    Ok(format!(
        "{}\n{}\n\n{}",
        &text[..from],
        content.trim_end(),
        &text[to..]
    ))
}

/// The machine and the programs, as a list.
fn machine(programs: &Programs) -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([':', ' ', '\t']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut text =
        format!("- {cores} cores of {model}, shared by client and server; Linux {kernel}\n");
    for (kind, flag) in [
        (Kind::Wharf, "--version"),
        (Kind::Nginx, "-v"),
        (Kind::Distribution, "--version"),
    ] {
        let Ok(program) = programs.path(kind) else {
            continue;
        };
        let Ok(output) = Command::new(program).arg(flag).output() else {
            continue;
        };
        let all = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&all);
        let line = line.lines().next().unwrap_or_default();
        // Distribution prints its own path in front.
        let version = line
            .rsplit('/')
            .next()
            .filter(|_| kind != Kind::Wharf)
            .unwrap_or(line);
        text += &format!("- {}: {}\n", kind.name(), version.trim());
    }
    if let Some(wrk) = run::find("wrk") {
        let output = Command::new(wrk).arg("-v").output();
        let said = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        let version = said.unwrap_or_default();
        let version: Vec<&str> = version.split_whitespace().take(2).collect();
        text += &format!("- load: our own client, and {}\n", version.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = "a\n<!-- bench:p1 -->\nold\n<!-- end -->\nb\n<!-- bench:p2 -->\n<!-- end -->\n";
        let once = replace(text, "p1", "new\n").unwrap();
        assert_eq!(
            once,
            "a\n<!-- bench:p1 -->\n\nnew\n\n<!-- end -->\nb\n<!-- bench:p2 -->\n<!-- end -->\n"
        );
        assert_eq!(replace(&once, "p1", "new\n").unwrap(), once);
        assert!(replace(text, "p3", "x").is_err());
    }
}
