//! The table: medians over rounds, ratios within each round, and whether each bar holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use super::figure::{Against, Bar, Better, Case, Figure, Metric, Sample, What};
use super::site::Kind;
use super::stats::median;

/// Everything that was measured for one metric of one case.
pub(crate) struct Line {
    /// The figure's id.
    pub(crate) figure: &'static str,
    /// The figure's title.
    pub(crate) title: &'static str,
    /// The case's name.
    pub(crate) case: &'static str,
    /// The metric.
    pub(crate) metric: Metric,
    index: usize,
    unit_of_work: &'static str,
    bars: Vec<Bar>,
    /// Rounds per contestant.
    rounds: BTreeMap<Kind, Rounds>,
}

#[derive(Default)]
struct Rounds {
    values: Vec<f64>,
    cpu: Vec<f64>,
    resident: Vec<f64>,
    anonymous: Vec<f64>,
}

impl Line {
    /// Empty lines for a case, one per metric.
    pub(crate) fn of(figure: &Figure, case: &dyn Case) -> Vec<Line> {
        case.metrics()
            .iter()
            .enumerate()
            .map(|(index, metric)| Line {
                figure: figure.id,
                title: figure.title,
                case: case.name(),
                metric: *metric,
                index,
                unit_of_work: case.unit_of_work(),
                bars: case
                    .bars()
                    .into_iter()
                    .filter(|bar| match bar.what {
                        What::Value(of) => of == index,
                        What::Cpu => index == 0,
                    })
                    .collect(),
                rounds: BTreeMap::new(),
            })
            .collect()
    }

    /// Adds a round's sample.
    pub(crate) fn add(&mut self, kind: Kind, sample: &Sample) {
        let rounds = self.rounds.entry(kind).or_default();
        rounds.values.push(sample.values[self.index]);
        rounds.cpu.push(sample.usage.cpu / sample.work);
        rounds.resident.push(sample.usage.resident as f64);
        rounds.anonymous.push(sample.usage.anonymous as f64);
    }

    /// What it is called in a record.
    pub(crate) fn key(&self) -> String {
        let mut key = format!("{} {}", self.figure, self.case);
        if !self.metric.name.is_empty() {
            let _ = write!(key, ", {}", self.metric.name);
        }
        key
    }

    fn series(&self, kind: Kind, what: What) -> Option<&[f64]> {
        let rounds = self.rounds.get(&kind)?;
        Some(match what {
            What::Value(_) => &rounds.values,
            What::Cpu => &rounds.cpu,
        })
    }

    /// The median of a contestant.
    pub(crate) fn value(&self, kind: Kind) -> Option<f64> {
        self.series(kind, What::Value(0)).map(median)
    }

    /// The median over rounds of Wharf's value by a rival's.
    pub(crate) fn ratio(&self, rival: Kind) -> Option<f64> {
        let what = What::Value(0);
        Some(ratio(
            self.series(Kind::Wharf, what)?,
            self.series(rival, what)?,
        ))
    }

    /// How good Wharf is beside each rival, as a number that is larger when it is better.
    pub(crate) fn gains(&self) -> Vec<(Kind, f64)> {
        self.rounds
            .keys()
            .filter(|kind| **kind != Kind::Wharf)
            .filter_map(|kind| {
                let ratio = self.ratio(*kind)?;
                Some((
                    *kind,
                    match self.metric.better {
                        Better::More => ratio,
                        Better::Less => 1.0 / ratio,
                    },
                ))
            })
            .collect()
    }

    /// What a bar compares, as a ratio or number; nothing when the other side did not take part.
    fn judge(&self, bar: &Bar, all: &[&Line]) -> Option<f64> {
        let ours = self.series(Kind::Wharf, bar.what)?;
        match bar.against {
            Against::Number => Some(median(ours)),
            Against::Metric(index) => {
                let other = all.iter().find(|line| {
                    line.figure == self.figure && line.case == self.case && line.index == index
                })?;
                Some(ratio(ours, other.series(Kind::Wharf, bar.what)?))
            }
            Against::Rival(kind) => Some(ratio(ours, self.series(kind, bar.what)?)),
            Against::BestPeer => self
                .rounds
                .keys()
                .filter(|kind| kind.is_registry() && **kind != Kind::Wharf)
                .filter_map(|kind| Some(ratio(ours, self.series(*kind, bar.what)?)))
                .reduce(|a, b| if bar.at_least { a.min(b) } else { a.max(b) }),
            Against::Case(name) => {
                let other = all.iter().find(|line| {
                    line.figure == self.figure && line.case == name && line.index == self.index
                })?;
                Some(ratio(ours, other.series(Kind::Wharf, bar.what)?))
            }
        }
    }
}

/// The median of `a/b` over rounds: both of a round were measured close together, whatever the machine did since.
fn ratio(a: &[f64], b: &[f64]) -> f64 {
    let each: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b).collect();
    median(&each)
}

/// How a bar reads.
fn words(bar: &Bar, line: &Line, all: &[&Line]) -> String {
    let sign = if bar.at_least { "≥" } else { "≤" };
    let what = if bar.what == What::Cpu { "CPU " } else { "" };
    match bar.against {
        Against::Rival(kind) => format!("{what}{sign} {} × {}", bar.factor, kind.name()),
        Against::BestPeer => format!("{what}{sign} {} × best peer", bar.factor),
        Against::Case(name) => format!("{what}{sign} {} × {name}", bar.factor),
        Against::Number => format!("{what}{sign} {} {}", bar.factor, line.metric.unit),
        Against::Metric(index) => {
            let other = all.iter().find(|other| {
                other.figure == line.figure && other.case == line.case && other.index == index
            });
            let name = other.map_or("", |other| other.metric.name);
            format!("{what}{sign} {} × {name}", bar.factor)
        }
    }
}

/// The whole table, in Markdown.
pub(crate) fn render(lines: &[&Line]) -> String {
    let rivals: Vec<Kind> = {
        let mut all: Vec<Kind> = lines
            .iter()
            .flat_map(|line| line.rounds.keys().copied())
            .filter(|kind| *kind != Kind::Wharf)
            .collect();
        all.sort();
        all.dedup();
        all
    };
    let mut rows = Vec::new();
    let mut head = vec!["figure".to_owned(), "Wharf".to_owned()];
    head.extend(rivals.iter().map(|kind| format!("× {}", kind.name())));
    head.extend(
        [
            "bar",
            "holds",
            "server CPU per unit",
            "resident / anonymous MB",
        ]
        .map(str::to_owned),
    );
    rows.push(head);
    let mut last = "";
    for line in lines {
        if line.figure != last {
            let mut row = vec![format!("**{}** {}", line.figure.to_uppercase(), line.title)];
            row.resize(rows[0].len(), String::new());
            rows.push(row);
            last = line.figure;
        }
        rows.push(row(line, lines, &rivals));
    }
    aligned(&rows)
}

fn row(line: &Line, all: &[&Line], rivals: &[Kind]) -> Vec<String> {
    let mut name = line.case.to_owned();
    if !line.metric.name.is_empty() {
        let _ = write!(name, ", {}", line.metric.name);
    }
    let mut row = vec![
        name,
        line.value(Kind::Wharf).map_or_else(String::new, |value| {
            format!("{} {}", number(value), line.metric.unit)
        }),
    ];
    for kind in rivals {
        row.push(match (line.ratio(*kind), line.value(*kind)) {
            (Some(ratio), Some(value)) => format!("{} ({})", number(ratio), number(value)),
            (None, Some(value)) => format!("({})", number(value)),
            _ => String::new(),
        });
    }
    let mut bars = Vec::new();
    let mut holds = Vec::new();
    for bar in &line.bars {
        bars.push(words(bar, line, all));
        holds.push(match line.judge(bar, all) {
            None => "–".to_owned(),
            Some(found) => {
                let good = if bar.at_least {
                    found >= bar.factor
                } else {
                    found <= bar.factor
                };
                format!("{} {}", if good { "yes" } else { "NO" }, number(found))
            }
        });
    }
    row.push(bars.join("; "));
    row.push(holds.join("; "));
    if line.index > 0 {
        row.extend([String::new(), String::new()]);
        return row;
    }
    let mut cpu = Vec::new();
    let mut memory = Vec::new();
    for (kind, rounds) in &line.rounds {
        let label = if *kind == Kind::Wharf {
            ""
        } else {
            kind.name()
        };
        cpu.push(
            format!("{label} {}", time(median(&rounds.cpu)))
                .trim()
                .to_owned(),
        );
        memory.push(
            format!(
                "{label} {:.0} / {:.0}",
                median(&rounds.resident) / 1e6,
                median(&rounds.anonymous) / 1e6
            )
            .trim()
            .to_owned(),
        );
    }
    row.push(format!("per {}: {}", line.unit_of_work, cpu.join(", ")));
    row.push(memory.join(", "));
    row
}

/// A number with three digits that count.
pub(crate) fn number(value: f64) -> String {
    if value.is_nan() {
        return "–".to_owned();
    }
    let size = value.abs();
    if size >= 1000.0 {
        let whole = format!("{value:.0}");
        let mut text = String::new();
        for (at, digit) in whole.chars().enumerate() {
            if at > 0 && (whole.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 0.1 || size == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// Seconds with a unit that fits.
fn time(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.1} µs", seconds * 1e6)
    } else if seconds < 0.1 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

fn aligned(rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if at == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Everything that was measured, for other programs.
pub(crate) fn json(lines: &[Line]) -> Result<String> {
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| {
            let contestants: serde_json::Map<String, Value> = line
                .rounds
                .iter()
                .map(|(kind, rounds)| {
                    let value = json!({
                        "rounds": rounds.values,
                        "median": median(&rounds.values),
                        "cpu_seconds_per_unit": median(&rounds.cpu),
                        "resident_bytes": median(&rounds.resident),
                        "anonymous_bytes": median(&rounds.anonymous),
                    });
                    (kind.name().to_owned(), value)
                })
                .collect();
            json!({
                "key": line.key(),
                "unit": line.metric.unit,
                "unit_of_work": line.unit_of_work,
                "contestants": contestants,
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&lines)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::super::figure::{at_least, at_most, metric};
    use super::super::usage::Usage;
    use super::*;

    fn line(case: &'static str, bars: &[Bar], better: Better, rounds: &[(Kind, &[f64])]) -> Line {
        let mut line = Line {
            figure: "p0",
            title: "a test",
            case,
            metric: metric("", "k/s", better),
            index: 0,
            unit_of_work: "request",
            bars: bars.to_vec(),
            rounds: BTreeMap::new(),
        };
        for (kind, values) in rounds {
            for value in *values {
                let sample = Sample {
                    values: vec![*value],
                    work: 10.0,
                    usage: Usage {
                        cpu: *value / 1e5,
                        resident: 3_000_000,
                        anonymous: 2_000_000,
                    },
                };
                line.add(*kind, &sample);
            }
        }
        line
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was twice as fast in the second round.
        let line = line(
            "c",
            &[],
            Better::More,
            &[
                (Kind::Wharf, &[10.0, 20.0, 11.0]),
                (Kind::Nginx, &[20.0, 40.0, 22.0]),
            ],
        );
        assert_eq!(line.ratio(Kind::Nginx), Some(0.5));
        assert_eq!(line.value(Kind::Wharf), Some(11.0));
        assert_eq!(line.ratio(Kind::Distribution), None);
    }

    #[test]
    fn a_gain_is_larger_when_latency_is_smaller() {
        let line = line(
            "c",
            &[],
            Better::Less,
            &[(Kind::Wharf, &[2.0]), (Kind::Distribution, &[6.0])],
        );
        assert_eq!(line.gains(), [(Kind::Distribution, 3.0)]);
    }

    #[test]
    fn bars_are_judged() {
        let bars = [
            at_least(0.8, Against::Rival(Kind::Nginx)),
            at_least(6.0, Against::Rival(Kind::Distribution)),
            at_least(1.1, Against::BestPeer),
            at_most(1.2, Against::Rival(Kind::Nginx)).of(What::Cpu),
            at_least(0.7, Against::Case("other")),
            at_most(20.0, Against::Number),
            at_least(8.0, Against::Rival(Kind::Zot)),
        ];
        let both = [
            line(
                "c",
                &bars,
                Better::More,
                &[
                    (Kind::Wharf, &[70.0]),
                    (Kind::Nginx, &[100.0]),
                    (Kind::Distribution, &[10.0]),
                    (Kind::Angos, &[65.0]),
                ],
            ),
            line("other", &[], Better::More, &[(Kind::Wharf, &[80.0])]),
        ];
        let lines: Vec<&Line> = both.iter().collect();
        let found: Vec<_> = bars.iter().map(|bar| both[0].judge(bar, &lines)).collect();
        assert_eq!(found[0], Some(0.7));
        assert_eq!(found[1], Some(7.0));
        assert!((found[2].unwrap() - 70.0 / 65.0).abs() < 1e-9);
        assert!((found[3].unwrap() - 0.7).abs() < 1e-9);
        assert_eq!(found[4], Some(0.875));
        assert_eq!(found[5], Some(70.0));
        assert_eq!(found[6], None);
        let text = render(&lines);
        assert!(
            text.contains("NO 0.70; yes 7.00; NO 1.08; yes 0.70; yes 0.88; NO 70.0; –"),
            "{text}"
        );
        assert!(text.contains("3 / 2, nginx 3 / 2"), "{text}");
        let widths: std::collections::HashSet<_> =
            text.lines().map(|l| l.chars().count()).collect();
        assert_eq!(widths.len(), 1, "{text}");
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [
            0.0,
            0.0123,
            0.456,
            7.891,
            45.67,
            456.7,
            1234.5,
            1_234_567.0,
            f64::NAN,
        ]
        .map(number);
        assert_eq!(
            shown,
            [
                "0.00",
                "0.012",
                "0.46",
                "7.89",
                "45.7",
                "457",
                "1,234",
                "1,234,567",
                "–"
            ]
        );
        assert_eq!(time(12.34e-6), "12.3 µs");
        assert_eq!(time(0.0123), "12.30 ms");
        assert_eq!(time(0.87), "0.87 s");
    }
}
