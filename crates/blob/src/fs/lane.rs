//! A lane: one piece of state that works off segments on an I/O pool, one job at a time and in order.
//!
//! The state travels with the job, so a writer that is dropped leaves the job to end by itself and to free what it holds.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::segment::Segment;
use crate::error::{Error, Result};
use crate::io::{Pool, Started};

pub(super) type Segments = Vec<Arc<Segment>>;

/// See the module.
pub(super) struct Lane<T> {
    place: Place<T>,
    waiting: Segments,
}

enum Place<T> {
    Idle(T),
    Busy(Started<(T, Segments, Result<()>)>),
    Lost,
}

impl<T: Send + 'static> Lane<T> {
    pub(super) fn new(state: T) -> Self {
        Self {
            place: Place::Idle(state),
            waiting: Vec::new(),
        }
    }

    /// Segments that no job has taken yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_busy(&self) -> bool {
        matches!(self.place, Place::Busy(_))
    }

    pub(super) fn push(&mut self, segment: Arc<Segment>) {
        self.waiting.push(segment);
    }

    /// Starts a job over all that waits. The lane must be idle.
    ///
    /// Takes no place in the pool's queue: a lane has one job at most, and its segments are bounded by the writer.
    pub(super) fn start(
        &mut self,
        pool: &Pool,
        job: impl FnOnce(&mut T, &[Arc<Segment>]) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let mut state = self.take()?;
        let segments = std::mem::take(&mut self.waiting);
        self.place = Place::Busy(pool.start_now(move || {
            let outcome = job(&mut state, &segments);
            (state, segments, outcome)
        }));
        Ok(())
    }

    /// Takes the job's end if it has come: the segments that it is done with, or its error.
    pub(super) fn finished(&mut self) -> Result<Segments> {
        let Place::Busy(started) = &mut self.place else {
            return Ok(Vec::new());
        };
        match started.take() {
            Some(end) => self.end(end),
            None => Ok(Vec::new()),
        }
    }

    /// The same, but waits for it. Never ready when there is no job. Dropping the wait changes nothing.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Segments>> {
        let Place::Busy(started) = &mut self.place else {
            return Poll::Pending;
        };
        let end = ready!(std::pin::Pin::new(started).poll(cx));
        Poll::Ready(self.end(end))
    }

    fn end(&mut self, end: Result<(T, Segments, Result<()>)>) -> Result<Segments> {
        match end {
            Ok((state, segments, outcome)) => {
                self.place = Place::Idle(state);
                outcome.map(|()| segments)
            }
            Err(panicked) => {
                self.place = Place::Lost;
                Err(panicked)
            }
        }
    }

    /// The state, while no job has it.
    pub(super) fn idle(&self) -> Result<&T> {
        match &self.place {
            Place::Idle(state) => Ok(state),
            _ => Err(Error::Poisoned),
        }
    }

    fn take(&mut self) -> Result<T> {
        match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Idle(state) => Ok(state),
            other => {
                self.place = other;
                Err(Error::Poisoned)
            }
        }
    }

    /// Gives the lane up. The state, if it is here; otherwise its job drops it.
    pub(super) fn abandon(&mut self) -> Option<T> {
        match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Idle(state) => Some(state),
            Place::Busy(started) => started.abandon().map(|(state, _, _)| state),
            Place::Lost => None,
        }
    }
}
