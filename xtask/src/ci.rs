//! `cargo xtask ci`: everything that has to hold before a change lands, in the order in which it fails soonest.
//!
//! Output passes through while it is counted; the last line is `N passed, N failed, N skipped` over all test
//! runners. The first failing step ends the run, after the summary.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{pairs, run, workspace};

/// Arguments of `cargo xtask ci`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these steps
    steps: Vec<String>,
}

/// A step: its name, the command, variables for it.
struct Step {
    name: &'static str,
    command: Vec<String>,
    env: &'static [(&'static str, &'static str)],
}

/// Counts over all test runners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

fn steps() -> Result<Vec<Step>> {
    let step = |name, command: &[&str], env| Step {
        name,
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        env,
    };
    let pair = |name, env| Step {
        name,
        command: pairs::command(),
        env,
    };
    let xtask = std::env::current_exe()?.to_string_lossy().into_owned();
    let deny = workspace::clients_dir()?
        .join("bin/cargo-deny")
        .to_string_lossy()
        .into_owned();
    let release = workspace::target_dir()
        .join("release/wharf")
        .to_string_lossy()
        .into_owned();
    Ok(vec![
        step("fmt", &["cargo", "fmt", "--all", "--check"], &[]),
        step("tidy", &[&xtask, "tidy"], &[]),
        step("spec", &[&xtask, "spec", "--check"], &[]),
        step(
            "clippy",
            &[
                "cargo",
                "clippy",
                "--locked",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
            &[],
        ),
        // What the tests themselves start.
        step(
            "database",
            &[&xtask, "clients", "pg_ctlcluster", "pgbouncer"],
            &[],
        ),
        step("test", &["cargo", "test", "--locked", "--workspace"], &[]),
        // The registry over the other pairs of stores: an S3 service in the process of the tests, a PostgreSQL beside it.
        pair("bucket", &[("WHARF_TEST_STORE", "s3")]),
        pair("postgres", &[("WHARF_TEST_METADATA", "postgres")]),
        pair(
            "both",
            &[
                ("WHARF_TEST_METADATA", "postgres"),
                ("WHARF_TEST_STORE", "s3"),
            ],
        ),
        step(
            "doc",
            &[
                "cargo",
                "doc",
                "--locked",
                "--workspace",
                "--no-deps",
                "--document-private-items",
            ],
            &[("RUSTDOCFLAGS", "-D warnings")],
        ),
        step("clients", &[&xtask, "clients"], &[]),
        step(
            "deny",
            &[&deny, "check", "bans", "licenses", "sources"],
            &[],
        ),
        step(
            "build",
            &[
                "cargo",
                "build",
                "--locked",
                "--release",
                "--package",
                "wharf",
            ],
            &[],
        ),
        // All four pairs of stores under real clients, in no more time than one takes. Files: every client pushes and pulls in
        // plain HTTP over SQLite, and through TLS and nginx over PostgreSQL. A bucket (`minio`, `redirect`): one client for each
        // way to send and fetch bytes, and what a process leaves to the next. What reads through the server asks most of both
        // stores, so `minio` has PostgreSQL; uploads are the same in `redirect`, which has SQLite.
        step(
            "e2e",
            &[&xtask, "e2e", "--binary", &release, "--metadata", "both"],
            &[],
        ),
        step("outside", &[&xtask, "outside", "--wharf", &release], &[]),
        step(
            "minio",
            &[
                &xtask,
                "e2e",
                "--binary",
                &release,
                "--metadata",
                "postgres",
                "--store",
                "minio",
                "--short",
            ],
            &[],
        ),
        step(
            "redirect",
            &[
                &xtask,
                "e2e",
                "--binary",
                &release,
                "--store",
                "minio",
                "--redirect",
                "--short",
            ],
            &[],
        ),
        step(
            "gcs",
            &[
                &xtask,
                "e2e",
                "--binary",
                &release,
                "--store",
                "gcs",
                "--redirect",
                "stored",
                "crane",
                "--short",
            ],
            &[],
        ),
        step(
            "azure",
            &[
                &xtask,
                "e2e",
                "--binary",
                &release,
                "--store",
                "azure",
                "--redirect",
                "stored",
                "crane",
                "--short",
            ],
            &[],
        ),
        step(
            "crash",
            &[
                &xtask, "endure", "crash", "--kills", "200", "--binary", &release,
            ],
            &[],
        ),
        step(
            "collect",
            &[
                &xtask,
                "endure",
                "crash",
                "--greedy",
                "--kills",
                "12",
                "--pair",
                "sqlite-s3",
                "--pair",
                "postgres-files",
                "--pair",
                "postgres-s3",
                "--binary",
                &release,
            ],
            &[],
        ),
        step(
            "power",
            &[
                &xtask, "endure", "power", "--states", "200", "--binary", &release,
            ],
            &[],
        ),
        step(
            "cluster",
            &[&xtask, "cluster", "--seconds", "35", "--binary", &release],
            &[],
        ),
        step(
            "folder",
            &[
                &xtask,
                "cluster",
                "--store",
                "folder",
                "--seconds",
                "20",
                "--binary",
                &release,
            ],
            &[],
        ),
        step(
            "rolling",
            &[
                &xtask,
                "cluster",
                "--rolling",
                "--replicas",
                "2",
                "--seconds",
                "1",
                "--binary",
                &release,
            ],
            &[],
        ),
        step(
            "bench",
            &[
                &xtask, "bench", "--short", "--rounds", "2", "--check", "--binary", &release,
            ],
            &[],
        ),
    ])
}

/// Runs the task.
pub(crate) fn main(args: &Args) -> Result<()> {
    let steps = steps()?;
    if let Some(unknown) = args
        .steps
        .iter()
        .find(|name| !steps.iter().any(|step| step.name == name.as_str()))
    {
        let known: Vec<_> = steps.iter().map(|step| step.name).collect();
        bail!("no step is called {unknown}; known: {}", known.join(", "));
    }
    let mut total = Counts::default();
    let mut times: Vec<(&str, Duration)> = Vec::new();
    let mut skipped: Vec<String> = Vec::new();
    let mut failure = None;
    let all = Instant::now();
    for step in &steps {
        if !args.steps.is_empty() && !args.steps.iter().any(|name| name == step.name) {
            continue;
        }
        println!("\n=== {}: {}", step.name, step.command.join(" "));
        let start = Instant::now();
        let result = step.run(&mut total, &mut skipped);
        times.push((step.name, start.elapsed()));
        if let Err(error) = result {
            failure = Some(error.context(format!("step {}", step.name)));
            break;
        }
    }
    println!("\n=== summary");
    for (name, time) in &times {
        println!("{name:<10} {:7.1} s", time.as_secs_f32());
    }
    println!("{:<10} {:7.1} s", "all", all.elapsed().as_secs_f32());
    for line in &skipped {
        println!("{line}");
    }
    let result = match failure {
        Some(error) => {
            // A step that failed without a failed test (a warning, a finding) is a failure that counts.
            total.failed = total.failed.max(1);
            println!("FAILED: {error:#}");
            Err(error)
        }
        None => Ok(()),
    };
    // Standard error first, so that the counts are the very last line.
    if let Err(error) = result {
        eprintln!("error: {error:#}");
        println!("{}", total.line());
        std::process::exit(1);
    }
    println!("{}", total.line());
    Ok(())
}

impl Step {
    /// Runs it, passing its output through and counting what test runners say.
    fn run(&self, total: &mut Counts, skipped: &mut Vec<String>) -> Result<()> {
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .envs(self.env.iter().copied())
            .current_dir(workspace::root());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", run::line(&command)))?;
        let out = child.stdout.take().context("the step's output")?;
        let mut found = Counts::default();
        for line in BufReader::new(out).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            found.add(&line);
            if line.starts_with("skipped ") {
                skipped.push(line);
            }
        }
        let status = child.wait()?;
        total.passed += found.passed;
        total.failed += found.failed;
        total.skipped += found.skipped;
        if !status.success() {
            bail!("{} ended with {status}", run::line(&command));
        }
        if found.failed > 0 {
            bail!(
                "{} tests failed, although {} ended well",
                found.failed,
                run::line(&command)
            );
        }
        let counts = [
            "test", "bucket", "postgres", "both", "e2e", "outside", "minio", "redirect", "gcs",
            "azure", "crash", "collect", "power", "cluster", "folder", "rolling",
        ];
        if counts.contains(&self.name) && found.passed == 0 {
            bail!("no test was run");
        }
        Ok(())
    }
}

impl Counts {
    /// Adds what a closing line of cargo's runner or of our own says.
    fn add(&mut self, line: &str) {
        let number = |word: &str| -> usize {
            line.find(word)
                .and_then(|at| {
                    line[..at]
                        .trim_end()
                        .rsplit(|c: char| !c.is_ascii_digit())
                        .next()
                })
                .and_then(|digits| digits.parse().ok())
                .unwrap_or(0)
        };
        if line.starts_with("test result: ") {
            self.passed += number(" passed");
            self.failed += number(" failed");
            self.skipped += number(" ignored");
        } else if line.starts_with(|c: char| c.is_ascii_digit())
            && line.contains(" passed, ")
            && line.ends_with(" skipped")
        {
            self.passed += number(" passed");
            self.failed += number(" failed");
            self.skipped += number(" skipped");
        }
    }

    /// The closing line.
    fn line(self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 12 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.01s");
        counts.add("43 passed, 2 failed, 5 skipped");
        counts.add("test passed, 7 failed");
        counts.add("running 3 tests");
        assert_eq!(
            counts,
            Counts {
                passed: 55,
                failed: 3,
                skipped: 7
            }
        );
        assert_eq!(counts.line(), "55 passed, 3 failed, 7 skipped");
    }

    #[test]
    fn a_failing_or_empty_step_fails() {
        let step = |name, script: &str| Step {
            name,
            command: vec!["sh".into(), "-c".into(), script.into()],
            env: &[],
        };
        let run = |step: Step| step.run(&mut Counts::default(), &mut Vec::new());
        assert!(run(step("fmt", "true")).is_ok());
        assert!(run(step("fmt", "exit 1")).is_err());
        assert!(run(step("test", "true")).is_err());
        assert!(run(step("test", "echo 1 passed, 0 failed, 0 skipped")).is_ok());
        assert!(run(step("test", "echo 1 passed, 1 failed, 0 skipped")).is_err());
    }
}
