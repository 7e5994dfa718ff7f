//! Faults on purpose: a hook before every system call that moves bytes or makes them durable.
//!
//! For tests of this crate, of core and of the endurance driver. A production store has no hook.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

/// The calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Making or opening an upload's file.
    Create,
    /// Writing upload bytes.
    Write,
    /// `fdatasync` of an upload or blob.
    Sync,
    /// Giving an upload the name of a blob.
    Link,
    /// `fsync` of a folder.
    SyncDir,
    /// Reading blob or upload bytes.
    Read,
}

/// Decides what happens before a call. May sleep when the call runs on an I/O thread, which all but warm reads do.
pub trait Fault: Send + Sync + Debug {
    /// `Err` makes the call fail without being made. `path` is relative to the store.
    fn before(&self, step: Step, path: &str) -> io::Result<()>;
}

/// A [`Fault`] that works off a list.
#[derive(Debug, Default)]
pub struct Script(Mutex<VecDeque<Rule>>);

#[derive(Debug)]
struct Rule {
    step: Step,
    skip: u32,
    times: u32,
    action: Action,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Fail(i32),
    Delay(Duration),
}

impl Script {
    /// A hook that does nothing until told to.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `skip` calls of this kind pass, then fails `times` of them with this `errno`.
    pub fn fail(&self, step: Step, skip: u32, times: u32, errno: i32) {
        self.add(step, skip, times, Action::Fail(errno));
    }

    /// Makes the next `times` calls of this kind take longer.
    pub fn delay(&self, step: Step, times: u32, by: Duration) {
        self.add(step, 0, times, Action::Delay(by));
    }

    /// Forgets what is left of the list: the disk is well again.
    pub fn clear(&self) {
        self.rules().clear();
    }

    fn add(&self, step: Step, skip: u32, times: u32, action: Action) {
        self.rules().push_back(Rule {
            step,
            skip,
            times,
            action,
        });
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, VecDeque<Rule>> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Fault for Script {
    fn before(&self, step: Step, _path: &str) -> io::Result<()> {
        let mut rules = self.rules();
        let Some(at) = rules.iter().position(|rule| rule.step == step) else {
            return Ok(());
        };
        let rule = &mut rules[at];
        if rule.skip > 0 {
            rule.skip -= 1;
            return Ok(());
        }
        rule.times = rule.times.saturating_sub(1);
        let (spent, action) = (rule.times == 0, rule.action);
        if spent {
            rules.remove(at);
        }
        drop(rules);
        match action {
            Action::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
            Action::Delay(by) => {
                std::thread::sleep(by);
                Ok(())
            }
        }
    }
}
