//! How fast jobs go on: as if they were alone when they are, slowly while requests wait, and at once while the disk is full,
//! since it is jobs that free it.

use std::time::Duration;

/// Idle, a job leaves the stores alone for as long as it used them...
const IDLE: u32 = 1;
/// ... and for so many times as long while others wait for the writer.
const BUSY: u32 = 8;
/// A pause is no longer than this, so that a job gets on at any load.
const LONGEST: Duration = Duration::from_millis(500);

/// The pause after a step that took so long, with so many operations waiting for the writer.
pub(super) fn pause(took: Duration, waiting: u64, full: bool) -> Duration {
    if full {
        return Duration::ZERO;
    }
    let factor = if waiting > 0 { BUSY } else { IDLE };
    (took * factor).min(LONGEST)
}

/// The wait before a job is tried again that has failed so many times: doubled each time, up to an hour, and spread so that
/// many do not come back together. `random` is any number.
pub(super) fn back_off(failures: i64, random: u32) -> Duration {
    let doubled = u32::try_from(failures.clamp(1, 11) - 1).unwrap_or(0);
    let whole = Duration::from_secs(5 << doubled).min(Duration::from_secs(3_600));
    whole / 2 + whole.mul_f64(f64::from(random) / f64::from(u32::MAX)) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_give_way_and_hurry_when_the_disk_is_full() {
        let took = Duration::from_millis(4);
        let idle = pause(took, 0, false);
        assert!(pause(took, 3, false) > idle && idle >= took);
        assert_eq!(pause(took, 3, true), Duration::ZERO);
        assert_eq!(pause(Duration::from_secs(60), 3, false), LONGEST);
    }

    #[test]
    fn failures_wait_longer_each_time_and_not_all_alike() {
        let (least, most) = (|n| back_off(n, 0), |n| back_off(n, u32::MAX));
        for failures in 1..10 {
            assert!(least(failures) < most(failures));
            assert!(most(failures) <= least(failures + 1) * 2);
            assert!(least(failures) < least(failures + 1));
        }
        assert_eq!(most(1), Duration::from_secs(5));
        assert_eq!(most(1_000), Duration::from_secs(3_600));
    }
}
