//! What the kernel knows about this process.

/// Figures of this process, as far as `/proc` has them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Process {
    /// Resident memory in bytes.
    pub(super) resident_bytes: u64,
    /// Open file descriptors.
    pub(super) open_files: u64,
    /// Processor time, user and system, in seconds.
    pub(super) cpu_seconds: f64,
}

/// Clock ticks per second of `/proc/self/stat`: 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// Reads the figures; what cannot be read is zero.
pub(super) fn read() -> Process {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let page = rustix::param::page_size() as u64;
    let resident = text("/proc/self/statm")
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0);
    let stat = text("/proc/self/stat");
    // The command's name may hold spaces and brackets; the figures follow its last bracket.
    let figures = stat.rsplit_once(')').map_or("", |(_, figures)| figures);
    let ticks: u64 = figures
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    Process {
        resident_bytes: resident * page,
        open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        cpu_seconds: ticks as f64 / TICKS,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_has_memory_and_files() {
        let process = super::read();
        assert!(process.resident_bytes > 100_000, "{process:?}");
        assert!(process.open_files >= 3, "{process:?}");
    }
}
