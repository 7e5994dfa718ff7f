//! The table of what was measured, and the page that keeps the last one.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};

use super::measure::Figure;
use crate::workspace;

/// What must not grow may grow by this factor from the smallest store to the largest: the noise of a shared machine.
const FLAT: f64 = 1.5;
/// The page. What people wrote below the mark stays.
const PAGE: &str = "docs/reference/growth.md";
const MARK: &str = "<!-- Above: written by the command. Below: by people. -->";

/// Markdown.
pub(super) fn table(sizes: &[u64], figures: &[Figure]) -> String {
    let mut out = String::from("| |");
    for size in sizes {
        let _ = write!(out, " {} |", thousands(*size));
    }
    out.push_str(" unit | largest ÷ smallest |\n|---|");
    out.push_str(&"---:|".repeat(sizes.len()));
    out.push_str("---|---:|\n");
    for figure in figures {
        let _ = write!(out, "| {} |", figure.name);
        for (at, value) in figure.values.iter().enumerate() {
            let _ = write!(out, " {value:.2}");
            if let Some(p99) = figure.p99.get(at) {
                let _ = write!(out, " ({p99:.1})");
            }
            out.push_str(" |");
        }
        let _ = writeln!(out, " {} | {:.2} |", figure.unit, ratio(figure));
    }
    out
}

/// The last value over the first.
fn ratio(figure: &Figure) -> f64 {
    match (figure.values.first(), figure.values.last()) {
        (Some(first), Some(last)) if *first > 0.0 => last / first,
        _ => 1.0,
    }
}

/// Fails when something grew that must not.
pub(super) fn judge(figures: &[Figure]) -> Result<()> {
    let grown: Vec<String> = figures
        .iter()
        .filter(|figure| figure.flat && ratio(figure) > FLAT)
        .map(|figure| format!("{} × {:.2}", figure.name, ratio(figure)))
        .collect();
    if grown.is_empty() {
        return Ok(());
    }
    bail!("grew by more than × {FLAT}: {}", grown.join("; "))
}

/// Writes the page; what stands below its mark stays.
pub(super) fn write(table: &str, sizes: &[u64]) -> Result<()> {
    let path = workspace::root().join(PAGE);
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    let below = old.split_once(MARK).map_or("\n", |(_, below)| below);
    let sizes: Vec<String> = sizes.iter().map(u64::to_string).collect();
    let page = format!(
        "# Growth\n\nWhat requests cost as the store grows. Made by\n\n```sh\ncargo build --release --package wharf\n\
         cargo run --release --package xtask -- grow --write --measure {} -- FOLDER\n```\n\non {}. One client on one \
         connection, unless the line says otherwise; the three stores are served at once and asked in turn, so their \
         ratio means something although the machine's speed drifts. Columns: manifests in the store, each with five blobs \
         and a tag, all in one repository; beside them as many further repositories, and a tenth as many referrers of one \
         manifest. First quartiles, with the 99th percentile in brackets; starts are medians of three.\n\n{table}\n{MARK}{below}",
        sizes.join(","),
        machine(),
    );
    std::fs::write(&path, page).with_context(|| format!("writing {}", path.display()))
}

/// Processor, cores and memory.
fn machine() -> String {
    let line = |file: &str, start: &str| {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(start))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = line("/proc/cpuinfo", "model name").unwrap_or_else(|| "a processor".into());
    let memory = line("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib.div_ceil(1 << 20));
    format!("{cores} cores of {processor}, {memory} GiB of memory")
}

/// With commas.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(values: &[f64], flat: bool) -> Figure {
        Figure {
            name: "push".into(),
            unit: "ms",
            values: values.to_vec(),
            p99: Vec::new(),
            flat,
        }
    }

    #[test]
    fn what_grows_fails_unless_it_may() {
        judge(&[figure(&[1.0, 3.0, 1.4], true), figure(&[1.0, 9.0], false)]).unwrap();
        let error = judge(&[figure(&[1.0, 1.6], true)]).unwrap_err().to_string();
        assert!(error.contains("push × 1.60"), "{error}");
    }

    #[test]
    fn the_table_shows_sizes_values_and_ratio() {
        let table = table(&[10_000, 1_000_000], &[figure(&[1.0, 1.5], true)]);
        assert!(table.contains("| 10,000 | 1,000,000 |"), "{table}");
        assert!(
            table.contains("| push | 1.00 | 1.50 | ms | 1.50 |"),
            "{table}"
        );
    }
}
