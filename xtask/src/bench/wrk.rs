//! `wrk`, which asks for small things faster than any client of ours: one thread, 16 connections.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::content::MANIFEST;
use super::site::Site;
use crate::run;

/// What it measured.
#[derive(Debug, PartialEq)]
pub(crate) struct Wrk {
    /// Requests.
    pub(crate) requests: f64,
    /// Per second.
    pub(crate) rate: f64,
}

/// Asks for `paths` in turn over 16 connections.
pub(crate) fn run(
    site: &Site,
    paths: &[String],
    authorization: Option<&str>,
    seconds: f64,
) -> Result<Wrk> {
    let program = run::find("wrk").context("no wrk: cargo xtask clients wrk")?;
    let script = site.dir.join("wrk.lua");
    std::fs::write(&script, lua(paths, authorization))?;
    // wrk knows whole seconds only.
    let duration = format!("{}s", seconds.ceil().max(1.0));
    let text = run::read(
        Command::new(program)
            .args(["-t1", "-c16", "-d", &duration, "-s"])
            .arg::<&Path>(script.as_ref())
            .arg(format!("http://{}", site.address)),
    )?;
    parse(&text).with_context(|| format!("what wrk printed:\n{text}"))
}

/// Requests are made once, so that the script costs next to nothing.
fn lua(paths: &[String], authorization: Option<&str>) -> String {
    let header = authorization.map_or_else(String::new, |value| {
        format!("wrk.headers[\"Authorization\"] = \"{value}\"\n")
    });
    let list: String = paths.iter().map(|p| format!("\"{p}\",\n")).collect();
    format!(
        "wrk.headers[\"Accept\"] = \"{MANIFEST}\"\n{header}local paths = {{\n{list}}}\nlocal requests = {{}}\nlocal at = 0\nfunction init(args)\n  for i, path in ipairs(paths) do requests[i] = wrk.format(\"GET\", path) end\nend\nfunction request()\n  at = at % #requests + 1\n  return requests[at]\nend\n"
    )
}

fn parse(text: &str) -> Result<Wrk> {
    let after = |word: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(word))
            .map(str::trim)
    };
    ensure!(
        after("Non-2xx or 3xx responses:").is_none(),
        "some answers were errors"
    );
    let rate = after("Requests/sec:").context("no rate")?.parse()?;
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .context("no count")?
        .0
        .parse()?;
    Ok(Wrk { requests, rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Running 1s test @ http://127.0.0.1:1\n  1 threads and 16 connections\n  Thread Stats   Avg      Stdev     Max   +/- Stdev\n  71862 requests in 1.10s, 40.02MB read\nRequests/sec:  65344.41\nTransfer/sec:     36.39MB\n";

    #[test]
    fn its_words_are_understood() {
        assert_eq!(
            parse(TEXT).unwrap(),
            Wrk {
                requests: 71862.0,
                rate: 65344.41
            }
        );
        let bad = TEXT.replace(
            "Requests/sec",
            "  Non-2xx or 3xx responses: 7\nRequests/sec",
        );
        assert!(parse(&bad).is_err());
        assert!(parse("unable to connect").is_err());
    }

    #[test]
    fn the_script_asks_for_each_path_with_the_header() {
        let text = lua(&["/a".to_owned(), "/b".to_owned()], Some("Bearer x"));
        assert!(text.contains("\"/a\",\n\"/b\",\n"));
        assert!(text.contains("wrk.headers[\"Authorization\"] = \"Bearer x\""));
        assert!(!lua(&[], None).contains("Authorization"));
    }
}
