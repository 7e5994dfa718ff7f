//! Ratios that were measured once and must not collapse: `xtask/bench.json`, written by `--record`, held by `--check`.
//!
//! A short run on a busy machine is noisy, so only a ratio below half of the recorded one counts, and only when it is
//! still there in a second run of that figure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::table::{Line, number};
use crate::workspace;

/// Below this part of the recorded ratio it has collapsed.
const COLLAPSED: f64 = 0.5;

/// Per line and rival: how many times better Wharf was.
pub(crate) type Record = BTreeMap<String, BTreeMap<String, f64>>;

fn file() -> PathBuf {
    workspace::root().join("xtask/bench.json")
}

/// What is recorded.
pub(crate) fn read() -> Result<Record> {
    let file = file();
    let text = std::fs::read_to_string(&file).with_context(|| {
        format!(
            "{}: make it with `cargo xtask bench --short --record`",
            file.display()
        )
    })?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))
}

/// Records what these lines show, and leaves all others as they are.
pub(crate) fn write(lines: &[Line]) -> Result<()> {
    let mut record = read().unwrap_or_default();
    for line in lines {
        let gains = line
            .gains()
            .into_iter()
            .filter(|(_, gain)| gain.is_finite())
            .map(|(kind, gain)| (kind.name().to_owned(), (gain * 100.0).round() / 100.0))
            .collect::<BTreeMap<_, _>>();
        if !gains.is_empty() {
            record.insert(line.key(), gains);
        }
    }
    Ok(std::fs::write(
        file(),
        serde_json::to_string_pretty(&record)? + "\n",
    )?)
}

/// Sentences about what has collapsed, each with the figure's id.
pub(crate) fn collapsed(lines: &[Line], record: &Record) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for line in lines {
        for (kind, gain) in line.gains() {
            let Some(known) = record.get(&line.key()).and_then(|r| r.get(kind.name())) else {
                continue;
            };
            if gain < known * COLLAPSED {
                let sentence = format!(
                    "{}: {} × {}, recorded {}",
                    line.key(),
                    number(gain),
                    kind.name(),
                    number(*known)
                );
                found.push((line.figure, sentence));
            }
        }
    }
    found
}
