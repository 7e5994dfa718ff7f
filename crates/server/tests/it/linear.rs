//! Decides whether what many clients were told could have come from one registry that does one thing at a time.
//!
//! A history is a list of operations with the moments of call and answer. It is linearizable when the operations can be
//! put in an order that respects those moments and in which a sequential [`Model`] could give the very answers
//! that were given. The search is Wing and Gong's, with the states that have already failed remembered.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// What an object does when nobody else is there.
pub(crate) trait Model: Clone + Eq + Hash {
    /// What can be asked.
    type Op: Debug;
    /// What it answers.
    type Answer: Debug;

    /// Does it, and tells whether this could have been the answer. What happens by itself, the answer shows.
    fn gives(&mut self, op: &Self::Op, answer: &Self::Answer) -> bool;
}

/// An operation as a client saw it.
#[derive(Debug)]
pub(crate) struct Event<O, A> {
    /// What was asked.
    pub(crate) op: O,
    /// What came back.
    pub(crate) answer: A,
    /// When it was asked, on a clock that all clients share and that never stands still.
    pub(crate) called: u64,
    /// When the answer was there.
    pub(crate) answered: u64,
}

/// Most events of one history: one bit each.
pub(crate) const MAX_EVENTS: usize = 128;

/// An order that explains the history, or the longest beginning of one that was found.
pub(crate) fn linearize<M: Model>(
    start: M,
    history: &[Event<M::Op, M::Answer>],
) -> Result<Vec<usize>, Vec<usize>> {
    assert!(history.len() <= MAX_EVENTS, "too long a history");
    let mut search = Search {
        history,
        failed: HashSet::new(),
        order: Vec::new(),
        best: Vec::new(),
    };
    if search.from(0, start) {
        Ok(search.order)
    } else {
        Err(search.best)
    }
}

struct Search<'a, M: Model> {
    history: &'a [Event<M::Op, M::Answer>],
    /// Done events and the state after them from which no way leads on.
    failed: HashSet<(u128, M)>,
    order: Vec<usize>,
    best: Vec<usize>,
}

impl<M: Model> Search<'_, M> {
    fn from(&mut self, done: u128, state: M) -> bool {
        if self.order.len() > self.best.len() {
            self.best.clone_from(&self.order);
        }
        if self.order.len() == self.history.len() {
            return true;
        }
        if self.failed.contains(&(done, state.clone())) {
            return false;
        }
        let open = || (0..self.history.len()).filter(|at| done & (1 << at) == 0);
        // Whatever was called after another open one had its answer comes later than that one.
        let horizon = open()
            .map(|at| self.history[at].answered)
            .min()
            .expect("an open event");
        let next: Vec<usize> = open()
            .filter(|at| self.history[*at].called < horizon)
            .collect();
        for at in next {
            let mut after = state.clone();
            let event = &self.history[at];
            if !after.gives(&event.op, &event.answer) {
                continue;
            }
            self.order.push(at);
            if self.from(done | 1 << at, after) {
                return true;
            }
            self.order.pop();
        }
        self.failed.insert((done, state));
        false
    }
}

/// A register, with histories whose verdict is known.
mod tests {
    use super::{Event, Model, linearize};

    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Register(u32);

    #[derive(Debug)]
    enum Op {
        Write(u32),
        Read,
    }

    impl Model for Register {
        type Op = Op;
        type Answer = u32;

        fn gives(&mut self, op: &Op, answer: &u32) -> bool {
            if let Op::Write(value) = op {
                self.0 = *value;
            }
            self.0 == *answer
        }
    }

    fn verdict(events: &[(Op, u32, u64, u64)]) -> bool {
        let history: Vec<_> = events
            .iter()
            .map(|(op, answer, called, answered)| Event {
                op: match op {
                    Op::Write(value) => Op::Write(*value),
                    Op::Read => Op::Read,
                },
                answer: *answer,
                called: *called,
                answered: *answered,
            })
            .collect();
        linearize(Register(0), &history).is_ok()
    }

    #[test]
    fn a_read_during_a_write_may_see_either_value() {
        for seen in [0, 1] {
            assert!(verdict(&[(Op::Write(1), 1, 1, 4), (Op::Read, seen, 2, 3)]));
        }
    }

    #[test]
    fn a_read_after_a_write_must_see_it() {
        assert!(!verdict(&[(Op::Write(1), 1, 1, 2), (Op::Read, 0, 3, 4)]));
    }

    #[test]
    fn what_was_seen_is_not_unseen() {
        let events = [
            (Op::Write(1), 1, 1, 8),
            (Op::Read, 1, 2, 3),
            (Op::Read, 0, 4, 5),
        ];
        assert!(!verdict(&events));
    }

    #[test]
    fn nobody_sees_what_nobody_wrote() {
        assert!(!verdict(&[(Op::Write(1), 1, 1, 4), (Op::Read, 2, 2, 3)]));
    }
}
