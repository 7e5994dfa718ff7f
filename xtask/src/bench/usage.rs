//! What a server costs: processor time and memory of its process and all below it, read from `/proc`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two looks at the memory: often enough for a peak, too rare to be felt.
const LOOK: Duration = Duration::from_millis(40);

/// What some work cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Seconds of processor time, user and system.
    pub(crate) cpu: f64,
    /// Largest resident memory in bytes while it ran.
    pub(crate) resident: u64,
    /// Largest anonymous memory in bytes while it ran.
    pub(crate) anonymous: u64,
}

/// Measures from its start to [`Meter::stop`].
pub(crate) struct Meter {
    root: u32,
    cpu: f64,
    done: Arc<AtomicBool>,
    peaks: Arc<[AtomicU64; 2]>,
    looker: Option<JoinHandle<()>>,
}

impl Meter {
    /// Starts to measure the process `root` and its descendants.
    pub(crate) fn start(root: u32) -> Meter {
        let done = Arc::new(AtomicBool::new(false));
        let peaks = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let looker = std::thread::spawn({
            let (done, peaks) = (Arc::clone(&done), Arc::clone(&peaks));
            move || {
                while !done.load(Ordering::Relaxed) {
                    let (resident, anonymous) = memory(&tree(root));
                    peaks[0].fetch_max(resident, Ordering::Relaxed);
                    peaks[1].fetch_max(anonymous, Ordering::Relaxed);
                    std::thread::sleep(LOOK);
                }
            }
        });
        Meter {
            root,
            cpu: cpu(&tree(root)),
            done,
            peaks,
            looker: Some(looker),
        }
    }

    /// What was used since the start.
    pub(crate) fn stop(mut self) -> Usage {
        let cpu = cpu(&tree(self.root)) - self.cpu;
        self.done.store(true, Ordering::Relaxed);
        if let Some(looker) = self.looker.take() {
            let _ = looker.join();
        }
        Usage {
            cpu,
            resident: self.peaks[0].load(Ordering::Relaxed),
            anonymous: self.peaks[1].load(Ordering::Relaxed),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

/// A process and all below it.
fn tree(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut at = 0;
    while at < all.len() {
        let pid = all[at];
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        all.extend(
            children
                .split_whitespace()
                .filter_map(|p| p.parse::<u32>().ok()),
        );
        at += 1;
    }
    all
}

/// Anonymous memory in bytes of a process and all below it, at this moment.
pub(crate) fn anonymous(root: u32) -> u64 {
    memory(&tree(root)).1
}

fn memory(pids: &[u32]) -> (u64, u64) {
    let mut sum = (0, 0);
    for pid in pids {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let fields = fields(&text);
        let get = |name| fields.get(name).copied().unwrap_or(0);
        sum.0 += get("VmRSS");
        sum.1 += get("RssAnon");
    }
    sum
}

/// Fields of `/proc/PID/status` that are amounts of memory, in bytes.
fn fields(text: &str) -> HashMap<&str, u64> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
            Some((name, kib * 1024))
        })
        .collect()
}

fn cpu(pids: &[u32]) -> f64 {
    let ticks: u64 = pids
        .iter()
        .filter_map(|pid| ticks(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Seconds that the processors of this machine have worked since it started, for whomever.
pub(crate) fn busy() -> f64 {
    let told = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    worked(&told).unwrap_or(0) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// User, nice, system, interrupts and what they left for later, without idling, waiting for a disk, and what the host took.
fn worked(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    [0, 1, 2, 5, 6]
        .into_iter()
        .map(|at| fields.get(at).copied())
        .sum()
}

/// Fields 14 to 17 of `/proc/PID/stat`: user and system time, its own and that of children that have ended.
fn ticks(stat: &str) -> Option<u64> {
    // The second field is a name in brackets that may hold anything.
    let rest = &stat[stat.rfind(')')? + 1..];
    let fields: Vec<&str> = rest.split_whitespace().collect();
    fields
        .get(11..15)?
        .iter()
        .map(|f| f.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_strange_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 50 60 7 8 20 0 1 0 99";
        assert_eq!(ticks(stat), Some(125));
        assert_eq!(ticks("nothing"), None);
    }

    #[test]
    fn the_machine_works_and_idles() {
        let stat = "cpu  10 2 30 4000 500 6 7 80 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(worked(stat), Some(55));
        assert_eq!(worked("intr 1 2"), None);
        assert!(busy() > 0.0);
    }

    #[test]
    fn amounts_are_bytes() {
        let fields = fields("Name:\tx\nVmRSS:\t    12 kB\nRssAnon:\t 3 kB\nThreads:\t1\n");
        assert_eq!((fields["VmRSS"], fields["RssAnon"]), (12 << 10, 3 << 10));
        assert!(!fields.contains_key("Threads"));
    }

    #[test]
    fn work_of_a_child_is_counted() {
        let meter = Meter::start(std::process::id());
        let mut child = std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"])
            .spawn()
            .unwrap();
        child.wait().unwrap();
        let usage = meter.stop();
        assert!(usage.cpu > 0.0, "{usage:?}");
        assert!(
            usage.anonymous > 0 && usage.resident >= usage.anonymous,
            "{usage:?}"
        );
    }
}
