//! What the kernel knows about this process, under the names that Prometheus's own clients use.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::sample::Writer;

/// Clock ticks per second of `/proc/self/stat`: 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// Reads and writes the figures.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let figures = read();
        let mut out = Writer(encoder);
        let (seconds, bytes) = (Some(&Unit::Seconds), Some(&Unit::Bytes));
        let help = "Processor time used, by the system too";
        out.counter("process_cpu", help, seconds, figures.cpu_seconds)?;
        let help = "When the process started, since 1970";
        out.gauge("process_start_time", help, seconds, figures.start_seconds)?;
        let help = "Memory in use";
        out.gauge(
            "process_resident_memory",
            help,
            bytes,
            figures.resident_bytes,
        )?;
        out.gauge(
            "process_open_fds",
            "Open file descriptors",
            None,
            figures.open_files,
        )?;
        let help = "Most file descriptors that may be open";
        out.gauge("process_max_fds", help, None, figures.most_files)?;
        out.gauge("process_threads", "Threads", None, figures.threads)
    }
}

/// Figures of this process, as far as `/proc` has them; what cannot be read is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Figures {
    resident_bytes: u64,
    open_files: u64,
    most_files: u64,
    threads: u64,
    cpu_seconds: f64,
    start_seconds: f64,
}

fn read() -> Figures {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let page = rustix::param::page_size() as u64;
    let resident = text("/proc/self/statm")
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0);
    let stat = text("/proc/self/stat");
    // The command's name may hold spaces and brackets; the figures follow its last bracket, beginning with the third.
    let figures: Vec<u64> = stat
        .rsplit_once(')')
        .map_or("", |(_, figures)| figures)
        .split_whitespace()
        .map(|figure| figure.parse().unwrap_or(0))
        .collect();
    let figure = |number: usize| figures.get(number - 3).copied().unwrap_or(0);
    let boot: f64 = text("/proc/stat")
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.parse().ok())
        .unwrap_or(0.0);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Figures {
        resident_bytes: resident * page,
        open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        most_files: limit.current.unwrap_or(u64::MAX),
        threads: figure(20),
        cpu_seconds: (figure(14) + figure(15)) as f64 / TICKS,
        start_seconds: boot + figure(22) as f64 / TICKS,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_has_memory_files_threads_and_a_beginning() {
        let figures = super::read();
        assert!(figures.resident_bytes > 100_000, "{figures:?}");
        assert!(
            figures.open_files >= 3 && figures.most_files >= figures.open_files,
            "{figures:?}"
        );
        assert!(figures.threads >= 1, "{figures:?}");
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let age = now.as_secs_f64() - figures.start_seconds;
        // Boot time is known to the second.
        assert!((-2.0..100_000.0).contains(&age), "{figures:?}");
    }
}
