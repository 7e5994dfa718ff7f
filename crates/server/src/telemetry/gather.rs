//! Where log lines go: request lines are gathered and written many at a time, all others at once.
//!
//! A write per request would cost a third of answering it, and the lock around it makes threads wait for each other's
//! disk. Order stays: whatever is written at once takes what was gathered with it. A kill loses [`PAUSE`] of request lines
//! at most. Used by `log` alone; it never drops a line, and never holds more than [`MOST`].

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// The target of request lines.
pub(super) const REQUEST: &str = "wharf::request";
/// How long the first of some gathered lines waits.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes that are gathered at most; whoever brings more writes them himself.
const MOST: usize = 256 * 1024;

/// Makes the writers of lines.
#[derive(Clone)]
pub(super) struct Gather(Arc<Shared>);

struct Shared {
    /// Locked before `gathered`, so that lines keep their order.
    out: Mutex<Box<dyn Write + Send>>,
    gathered: Mutex<Vec<u8>>,
    came: Condvar,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gather {
    /// Lines to `out`. Without a thread to write what is gathered, all lines are written at once.
    pub(super) fn new(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let gather = Self(Arc::new(Shared {
            out: Mutex::new(Box::new(out)),
            gathered: Mutex::new(Vec::new()),
            came: Condvar::new(),
        }));
        let shared = Arc::downgrade(&gather.0);
        std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || {
                while let Some(shared) = shared.upgrade() {
                    let gathered = lock(&shared.gathered);
                    // Now and then without lines, to see whether anybody still logs.
                    let (gathered, _) = shared
                        .came
                        .wait_timeout_while(gathered, Duration::from_secs(1), |lines| {
                            lines.is_empty()
                        })
                        .unwrap_or_else(PoisonError::into_inner);
                    let some = !gathered.is_empty();
                    drop(gathered);
                    if some {
                        std::thread::sleep(PAUSE);
                        shared.write(&[]);
                    }
                }
            })?;
        Ok(gather)
    }
}

impl Gather {
    /// Writes what waits.
    pub(super) fn flush(&self) {
        self.0.write(&[]);
    }
}

impl Shared {
    /// Writes what was gathered, then `line`. Nobody can be told of an error.
    fn write(&self, line: &[u8]) {
        let mut out = lock(&self.out);
        let mut lines = std::mem::take(&mut *lock(&self.gathered));
        if lines.is_empty() {
            let _ = out.write_all(line);
            return;
        }
        lines.extend_from_slice(line);
        let _ = out.write_all(&lines);
        // The space is for the next ones, unless lines came meanwhile and have their own.
        lines.clear();
        let mut gathered = lock(&self.gathered);
        if gathered.is_empty() {
            *gathered = lines;
        }
    }

    fn gather(&self, line: &[u8]) {
        let mut gathered = lock(&self.gathered);
        let first = gathered.is_empty();
        gathered.extend_from_slice(line);
        let full = gathered.len() >= MOST;
        drop(gathered);
        if full {
            self.write(&[]);
        } else if first {
            self.came.notify_one();
        }
    }
}

/// Takes one line.
pub(super) struct Line<'a> {
    shared: &'a Shared,
    later: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if self.later {
            self.shared.gather(line);
        } else {
            self.shared.write(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Gather {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            shared: &self.0,
            later: false,
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line {
            shared: &self.0,
            later: meta.target() == REQUEST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).push(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(lock(&self.0).concat()).unwrap()
        }
    }

    fn line(gather: &Gather, later: bool, text: &str) {
        let shared = &gather.0;
        write!(Line { shared, later }, "{text}").unwrap();
    }

    #[test]
    fn gathered_lines_are_written_soon_and_together() {
        let kept = Kept::default();
        let gather = Gather::new(kept.clone()).unwrap();
        let lines: String = (0..1_000).map(|n| format!("{n}\n")).collect();
        for each in lines.split_inclusive('\n') {
            line(&gather, true, each);
        }
        let start = std::time::Instant::now();
        while kept.text().len() < lines.len() && start.elapsed() < Duration::from_secs(30) {
            std::thread::yield_now();
        }
        assert_eq!(kept.text(), lines);
        assert!(lock(&kept.0).len() < 1_000);
    }

    #[test]
    fn order_is_kept_and_the_bound_too() {
        let kept = Kept::default();
        let gather = Gather::new(kept.clone()).unwrap();
        line(&gather, true, "request\n");
        line(&gather, false, "error\n");
        // Written at once, with what came before.
        assert_eq!(kept.text(), "request\nerror\n");
        let long = "x".repeat(MOST);
        line(&gather, true, &long);
        assert!(kept.text().ends_with(&long));
    }
}
