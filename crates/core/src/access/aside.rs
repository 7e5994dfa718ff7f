//! Long computations in threads that step back for all others, so that pulls do not notice who signs in beside them.
//!
//! The system gives these threads a processor only while nobody else wants it, and takes it back at once: being merely nicer leaves
//! them theirs for some milliseconds whenever somebody else wakes up (`xtask grow --rights` shows both). A machine that never rests
//! would let them wait for ever, so what has no answer after [`STARVED`] is computed in an ordinary thread, too.

use std::sync::Arc;
use std::time::Duration;

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// A computation takes some 20 ms when it gets a processor, and a few may be before it.
const STARVED: Duration = Duration::from_secs(1);
/// How long a thread waits for the next computation.
const KEEP: Duration = Duration::from_secs(1);

/// The threads. Dropping it waits for nothing.
#[derive(Debug)]
pub(super) struct Aside {
    back: Threads,
    /// As many ordinary ones, for what was starved.
    ordinary: Threads,
}

impl Aside {
    /// So many compute at once, the others wait in their order.
    pub(super) fn new(threads: usize) -> crate::Result<Self> {
        Ok(Self {
            back: Threads::new("aside", threads, step_back)?,
            ordinary: Threads::new("aside-ordinary", threads, || {})?,
        })
    }

    /// `None`: the computation panicked, or no thread could begin.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Fn() -> T + Send + Sync + 'static,
    ) -> Option<T> {
        let work = Arc::new(work);
        let again = work.clone();
        let mut back = self.back.begin(move || work())?;
        if let Ok(done) = tokio::time::timeout(STARVED, &mut back).await {
            return done.ok();
        }
        let mut ordinary = self.ordinary.begin(move || again())?;
        let done = tokio::select! {
            done = &mut back => done,
            done = &mut ordinary => done,
        };
        // Whichever has not begun need not.
        back.abort();
        ordinary.abort();
        done.ok()
    }
}

/// Threads that begin when there is something to do, and end when there is not.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Threads {
    fn new(name: &str, most: usize, begin: fn()) -> crate::Result<Self> {
        let runtime = Builder::new_current_thread()
            .thread_name(name)
            .max_blocking_threads(most.max(1))
            .thread_keep_alive(KEEP)
            .on_thread_start(begin)
            .build();
        let failed = |error| crate::Error::Internal(format!("no threads for passwords: {error}"));
        Ok(Self(Some(runtime.map_err(failed)?)))
    }

    fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        Some(self.0.as_ref()?.spawn_blocking(work))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// On Linux a policy is the thread's own. Where it is refused everything works, only not as smoothly.
fn step_back() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::mpsc;

    use thread_priority::thread_schedule_policy;

    fn steps_back() -> bool {
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        thread_schedule_policy() == Ok(idle)
    }

    #[tokio::test]
    async fn its_threads_step_back_and_no_others() {
        let aside = Aside::new(1).unwrap();
        assert_eq!(aside.run(steps_back).await, Some(true));
        assert!(!steps_back());
        let ordinary = tokio::task::spawn_blocking(steps_back).await;
        assert!(!ordinary.unwrap());
    }

    #[tokio::test]
    async fn a_panic_ends_one_computation() {
        let aside = Aside::new(1).unwrap();
        assert_eq!(aside.run(|| -> u8 { panic!("for this test") }).await, None);
        assert_eq!(aside.run(|| 7).await, Some(7));
    }

    /// Its only thread is held, as by a machine that never rests.
    #[tokio::test]
    async fn who_gets_no_processor_is_computed_all_the_same() {
        let aside = Aside::new(1).unwrap();
        let (free, held) = mpsc::channel::<()>();
        let holds = aside.back.begin(move || held.recv()).unwrap();
        assert_eq!(aside.run(steps_back).await, Some(false));
        drop(free);
        assert!(holds.await.unwrap().is_err());
    }
}
