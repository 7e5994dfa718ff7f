//! `cargo xtask profile FIGURE`: where the server's time goes in one figure, as a flame graph.
//!
//! `perf` samples the server while a case runs once; its stacks are folded and drawn here. Without `--binary` the server
//! is built anew with frame pointers, in a target folder of its own, so that stacks are whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::figure::Scale;
use super::run::Plan;
use super::site::{Kind, Programs};
use super::{figures, many_files};
use crate::e2e::process::Watchdog;
use crate::{run, workspace};

/// Arguments of `cargo xtask profile`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The figure: p1, p2, …
    figure: String,
    /// Only the case whose name contains this; the first one when it is not given
    #[arg(long)]
    only: Option<String>,
    /// The server; built with frame pointers when it is not given
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Seconds of a measurement that has no natural end
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

/// Runs the task.
pub(crate) fn main(args: &Args) -> Result<()> {
    let perf = run::find("perf").context("no perf: apt-get install linux-perf")?;
    let mut figures = figures::all();
    let Some(at) = figures.iter().position(|figure| figure.id == args.figure) else {
        bail!(
            "no figure is called {}: see cargo xtask bench --list",
            args.figure
        );
    };
    let mut figure = figures.swap_remove(at);
    figure.cases.retain(|case| {
        args.only
            .as_ref()
            .is_none_or(|text| case.name().contains(text))
    });
    figure.cases.truncate(1);
    ensure!(!figure.cases.is_empty(), "no case has that name");
    let binary = match &args.binary {
        Some(binary) => binary
            .canonicalize()
            .with_context(|| format!("no program at {}", binary.display()))?,
        None => build()?,
    };
    let dir = std::env::temp_dir().join(format!("wharf-profile-{}", std::process::id()));
    std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
    let watchdog = Watchdog::start(&dir, false)?;
    many_files();
    let data = workspace::target_dir().join(format!("profile-{}.data", args.figure));
    let programs = Programs::new(vec![(Kind::Wharf, binary)]);
    let plan = Plan {
        programs: &programs,
        scale: Scale {
            short: false,
            seconds: args.seconds,
        },
        rounds: 1,
        dir: &dir,
        only: None,
        sampler: Some(Sampler {
            perf: &perf,
            data: &data,
        }),
    };
    plan.figure(&figure)?;
    drop(watchdog);
    let script = run::read(
        Command::new(&perf)
            .args(["script", "-F", "comm,ip,sym", "-i"])
            .arg(&data)
            .stderr(Stdio::null()),
    )?;
    let folded = fold(&script);
    ensure!(!folded.is_empty(), "perf saw nothing: {}", data.display());
    let title = format!("{} {}", figure.id, figure.cases[0].name());
    let base = workspace::target_dir().join(format!("profile-{}", args.figure));
    let lines: String = folded
        .iter()
        .map(|(stack, count)| format!("{} {count}\n", stack.join(";")))
        .collect();
    std::fs::write(base.with_extension("folded"), lines)?;
    std::fs::write(base.with_extension("svg"), draw(&title, &folded))?;
    println!("{}", base.with_extension("svg").display());
    for (name, share) in leaves(&folded).into_iter().take(25) {
        println!("{:5.1} %  {name}", share * 100.0);
    }
    Ok(())
}

fn build() -> Result<PathBuf> {
    let target = workspace::target_dir().join("profile");
    run::check(
        Command::new("cargo")
            .args(["build", "--release", "--package", "wharf", "--target-dir"])
            .arg(&target)
            .env("RUSTFLAGS", "-C force-frame-pointers=yes")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only")
            .current_dir(workspace::root()),
    )?;
    Ok(target.join("release/wharf"))
}

/// Samples a process until it ends.
#[derive(Clone, Copy)]
pub(crate) struct Sampler<'a> {
    perf: &'a Path,
    data: &'a Path,
}

impl Sampler<'_> {
    /// Begins with `pid`; ends with it.
    pub(crate) fn start(self, pid: u32) -> Result<Child> {
        // The software clock is there on every machine, virtual ones included.
        Command::new(self.perf)
            .args(["record", "-q", "-e", "cpu-clock", "-F", "999", "-g", "-p"])
            .arg(pid.to_string())
            .arg("-o")
            .arg(self.data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting perf")
    }
}

/// Stacks from the outermost call inwards, and how often each was seen.
type Folded = BTreeMap<Vec<String>, u64>;

/// Reads what `perf script` prints: a name, then the stack from the innermost call, then an empty line.
fn fold(script: &str) -> Folded {
    let mut folded = Folded::new();
    for block in script.split("\n\n") {
        let mut lines = block.lines().filter(|line| !line.trim().is_empty());
        let Some(thread) = lines.next() else { continue };
        let mut stack: Vec<String> = lines
            .map(|line| {
                let line = line.trim();
                let name = line.split_once(' ').map_or(line, |(_, name)| name.trim());
                plain(name)
            })
            .collect();
        if stack.is_empty() {
            continue;
        }
        stack.push(thread.trim().to_owned());
        stack.reverse();
        *folded.entry(stack).or_default() += 1;
    }
    folded
}

/// A symbol without the hash that old Rust names end with.
fn plain(name: &str) -> String {
    match name.rsplit_once("::h") {
        Some((front, hash)) if hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()) => {
            front.to_owned()
        }
        _ => name.to_owned(),
    }
}

/// Innermost calls and their share of all samples, the largest first.
fn leaves(folded: &Folded) -> Vec<(String, f64)> {
    let total: u64 = folded.values().sum();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (stack, count) in folded {
        if let Some(leaf) = stack.last() {
            *counts.entry(leaf).or_default() += count;
        }
    }
    let mut shares: Vec<(String, f64)> = counts
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count as f64 / total as f64))
        .collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
}

/// Picture's width in pixels.
const WIDTH: f64 = 1400.0;
/// A box's height.
const HEIGHT: usize = 17;

/// Draws boxes: as wide as the share of samples, callers below what they call.
fn draw(title: &str, folded: &Folded) -> String {
    let total: u64 = folded.values().sum();
    let deepest = folded.keys().map(Vec::len).max().unwrap_or(0);
    let height = (deepest + 2) * HEIGHT;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"monospace\" font-size=\"11\">\n<text x=\"4\" y=\"13\">{}: {total} samples</text>\n",
        escape(title)
    );
    let stacks: Vec<(&[String], u64)> = folded.iter().map(|(s, n)| (&s[..], *n)).collect();
    boxes(&mut text, &stacks, 0, 0, total, height);
    text.push_str("</svg>\n");
    text
}

/// One level of boxes over stacks that are equal below it; they are sorted, so equal ones are neighbours.
fn boxes(
    text: &mut String,
    stacks: &[(&[String], u64)],
    level: usize,
    from: u64,
    total: u64,
    height: usize,
) {
    let (mut at, mut x) = (0, from);
    while at < stacks.len() {
        let Some(name) = stacks[at].0.get(level) else {
            x += stacks[at].1;
            at += 1;
            continue;
        };
        let same = stacks[at..]
            .iter()
            .take_while(|(stack, _)| stack.get(level) == Some(name))
            .count();
        let count: u64 = stacks[at..at + same].iter().map(|(_, n)| n).sum();
        let width = count as f64 / total as f64 * WIDTH;
        // What is narrower than half a pixel cannot be seen, nor can what lies above it.
        if width >= 0.5 {
            let left = x as f64 / total as f64 * WIDTH;
            let top = height - (level + 1) * HEIGHT;
            let colour = name.bytes().fold(7_u32, |hash, b| {
                hash.wrapping_mul(31).wrapping_add(u32::from(b))
            });
            let share = count as f64 / total as f64 * 100.0;
            let shown: String = name.chars().take((width / 7.0) as usize).collect();
            let _ = writeln!(
                text,
                "<g><title>{0} {share:.2} %</title><rect x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{1}\" fill=\"hsl({2},70%,{3}%)\" stroke=\"white\" stroke-width=\"0.3\"/><text x=\"{4:.1}\" y=\"{5}\">{6}</text></g>",
                escape(name),
                HEIGHT - 1,
                colour % 50,
                60 + colour / 50 % 15,
                left + 2.0,
                top + 12,
                escape(&shown)
            );
            boxes(text, &stacks[at..at + same], level + 1, x, total, height);
        }
        x += count;
        at += same;
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "wharf \n\t    1462a inner<T>::h0123456789abcdef\n\t    20 outer\n\nwharf \n\t 99 outer\n\nwharf \n\t 1462a inner<T>::h0123456789abcdef\n\t 20 outer\n\n";

    #[test]
    fn stacks_are_folded_from_the_outside() {
        let folded = fold(SCRIPT);
        let stack = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(folded.len(), 2);
        assert_eq!(folded[&stack(&["wharf", "outer", "inner<T>"])], 2);
        assert_eq!(folded[&stack(&["wharf", "outer"])], 1);
        let leaves = leaves(&folded);
        assert_eq!(leaves[0].0, "inner<T>");
        assert!((leaves[0].1 - 2.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn boxes_are_as_wide_as_their_share() {
        let picture = draw("t", &fold(SCRIPT));
        assert!(
            picture.contains("<title>wharf 100.00 %</title>"),
            "{picture}"
        );
        assert!(
            picture.contains("<title>inner&lt;T&gt; 66.67 %</title>"),
            "{picture}"
        );
        assert_eq!(picture.matches("<rect").count(), 3);
        assert!(picture.contains("width=\"933.3\""), "{picture}");
    }
}
