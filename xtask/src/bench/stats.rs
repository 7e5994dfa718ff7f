//! Numbers out of samples: medians over rounds, percentiles of latencies.

use std::time::Duration;

/// The middle value; the mean of the two in the middle of an even count. NaN when there is none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Counts per step of latency, each step 1/16 of its power of two: 6 % exact over any range, 8 KiB whatever the load.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

/// Steps per power of two.
const STEPS: u64 = 16;

impl Histogram {
    /// An empty one.
    pub(crate) fn new() -> Histogram {
        Histogram {
            counts: vec![0; (64 * STEPS) as usize],
            total: 0,
        }
    }

    /// Counts one latency.
    pub(crate) fn add(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[step(nanos)] += 1;
        self.total += 1;
    }

    /// Adds what another thread has counted.
    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// How many were counted.
    pub(crate) fn count(&self) -> u64 {
        self.total
    }

    /// Milliseconds that `percent` of all latencies do not exceed; NaN when nothing was counted.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let wanted = (self.total as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (step, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper(step as u64) as f64 / 1e6;
            }
        }
        f64::NAN
    }
}

/// The step that a number falls into: the number itself up to 16, then its first five binary digits.
fn step(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = u64::from(63 - value.leading_zeros()) - 4;
    ((shift + 1) * STEPS + (value >> shift) - STEPS) as usize
}

/// The largest number of a step.
fn upper(step: u64) -> u64 {
    if step < STEPS {
        return step;
    }
    let (shift, digits) = (step / STEPS - 1, step % STEPS + STEPS);
    (((u128::from(digits) + 1) << shift) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[f64::NAN, 7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_step_holds_its_numbers_and_is_narrow() {
        let mut last = 0;
        for value in (0..5000).chain([1 << 20, (1 << 40) + 12345, u64::MAX]) {
            let at = step(value);
            assert!(at >= last && at < 64 * STEPS as usize, "{value}");
            assert!(upper(at as u64) >= value, "{value}");
            assert!(
                upper(at as u64) - value <= value / 16,
                "{value}: {}",
                upper(at as u64)
            );
            last = at;
        }
    }

    #[test]
    fn percentiles_of_a_known_set() {
        let mut all = Histogram::new();
        let mut tail = Histogram::new();
        for n in 1..=99 {
            all.add(Duration::from_micros(n * 10));
        }
        tail.add(Duration::from_millis(500));
        all.merge(&tail);
        assert_eq!(all.count(), 100);
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.07;
        assert!(near(all.percentile(50.0), 0.5), "{}", all.percentile(50.0));
        assert!(near(all.percentile(99.0), 0.99));
        assert!(near(all.percentile(100.0), 500.0));
        assert!(Histogram::new().percentile(50.0).is_nan());
    }
}
