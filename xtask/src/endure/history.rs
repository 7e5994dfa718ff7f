//! What was asked, what was answered, and what may therefore be the case now.
//!
//! Every blob link, manifest and tag is a register that calls write to. A call that was answered took effect between its
//! begin and its end; one that was not may have, or not. From that follows which values a register may have, and nothing
//! else is accepted.

use std::collections::{BTreeSet, HashMap};

/// Which register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A blob in a repository, by digest.
    Blob,
    /// A manifest in a repository, by digest.
    Manifest,
    /// A tag.
    Tag,
}

/// A register.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) repository: usize,
    /// A digest or a tag.
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(kind: Kind, repository: usize, name: &str) -> Key {
        Key {
            kind,
            repository,
            name: name.to_owned(),
        }
    }
}

/// What a register holds: a digest, or nothing.
pub(crate) type Value = Option<String>;

/// What a call does to registers when it succeeds.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// Writes a value.
    Set(Key, Value),
    /// Takes away every tag of the repository that stands at this manifest.
    Untag(usize, String),
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered that it is done.
    Done,
    /// It was answered that it is not.
    Refused,
    /// There was no answer, or one that leaves it open.
    Unknown,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) begin: u64,
    /// When it was over: no effect comes later.
    pub(crate) end: Option<u64>,
    pub(crate) outcome: Outcome,
    pub(crate) text: String,
    /// The call whose answer the client awaited before it began this one.
    pub(crate) before: Option<usize>,
}

/// Everything that happened.
#[derive(Default)]
pub(crate) struct History {
    clock: u64,
    calls: Vec<Call>,
    writes: HashMap<Key, Vec<(usize, Value)>>,
    untags: HashMap<(usize, String), Vec<usize>>,
}

impl History {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A call begins; its number is its name from now on.
    pub(crate) fn begin(
        &mut self,
        text: String,
        effects: &[Effect],
        before: Option<usize>,
    ) -> usize {
        let call = self.calls.len();
        let begin = self.tick();
        self.calls.push(Call {
            begin,
            end: None,
            outcome: Outcome::Unknown,
            text,
            before,
        });
        for effect in effects {
            match effect {
                Effect::Set(key, value) => self
                    .writes
                    .entry(key.clone())
                    .or_default()
                    .push((call, value.clone())),
                Effect::Untag(repository, digest) => self
                    .untags
                    .entry((*repository, digest.clone()))
                    .or_default()
                    .push(call),
            }
        }
        call
    }

    /// A call is over.
    pub(crate) fn end(&mut self, call: usize, outcome: Outcome) {
        let now = self.tick();
        self.calls[call].end = Some(now);
        self.calls[call].outcome = outcome;
    }

    /// The server is dead: whatever was under way is over, one way or the other.
    pub(crate) fn everything_is_over(&mut self) {
        let now = self.tick();
        for call in self.calls.iter_mut().filter(|call| call.end.is_none()) {
            call.end = Some(now);
        }
    }

    /// A register was read while nothing wrote to it: that is its value from here on.
    pub(crate) fn observed(&mut self, key: &Key, value: Value) {
        let text = format!("seen: {}", value.as_deref().unwrap_or("nothing"));
        let call = self.begin(text, &[Effect::Set(key.clone(), value)], None);
        self.end(call, Outcome::Done);
    }

    /// The time now: calls that begin later have a larger one.
    pub(crate) fn now(&self) -> u64 {
        self.clock
    }

    /// How many calls there were.
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// How many calls nobody knows the outcome of.
    pub(crate) fn interrupted(&self) -> usize {
        let unknown = |call: &&Call| call.outcome == Outcome::Unknown;
        self.calls.iter().filter(unknown).count()
    }

    /// How many of those would have made this blob.
    pub(crate) fn interrupted_pushes(&self, digest: &str) -> usize {
        let of = |(key, calls): (&Key, &Vec<(usize, Value)>)| {
            let made = |(call, value): &&(usize, Value)| {
                value.is_some() && self.calls[*call].outcome == Outcome::Unknown
            };
            match key.kind == Kind::Blob && key.name == digest {
                true => calls.iter().filter(made).count(),
                false => 0,
            }
        };
        self.writes.iter().map(of).sum()
    }

    /// The call of this number.
    pub(crate) fn call(&self, number: usize) -> &Call {
        &self.calls[number]
    }

    /// Every register that a call ever named, in a fixed order.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.writes.keys().cloned().collect();
        keys.sort();
        keys
    }

    /// Registers that calls since this time named.
    pub(crate) fn touched(&self, since: u64) -> Vec<Key> {
        let recent = |calls: &[(usize, Value)]| {
            calls
                .last()
                .is_some_and(|(call, _)| self.calls[*call].begin > since)
        };
        let mut keys: Vec<Key> = self
            .writes
            .iter()
            .filter(|(_, calls)| recent(calls))
            .map(|(key, _)| key.clone())
            .collect();
        keys.sort();
        keys
    }

    /// What the register may hold, as seen by somebody for whom each call is as `view` says.
    pub(crate) fn possible(&self, key: &Key, view: &View<'_>) -> BTreeSet<Value> {
        let nothing = (0, Some(0), Outcome::Done);
        let seen = |call: &usize| {
            let seen = view.of(*call, &self.calls[*call]);
            (self.calls[*call].begin, seen.0, seen.1)
        };
        let mut writes = vec![(nothing, None)];
        for (call, value) in self.writes.get(key).into_iter().flatten() {
            writes.push((seen(call), value.clone()));
        }
        let latest_sure = writes
            .iter()
            .filter(|((_, _, outcome), _)| *outcome == Outcome::Done)
            .map(|((begin, ..), _)| *begin)
            .max()
            .unwrap_or(0);
        let mut possible = BTreeSet::new();
        for ((begin, end, outcome), value) in writes {
            let undone = end.is_some_and(|end| end < latest_sure);
            if outcome == Outcome::Refused || undone {
                continue;
            }
            let untags = match (&value, key.kind) {
                (Some(digest), Kind::Tag) => self.untags.get(&(key.repository, digest.clone())),
                _ => None,
            };
            let mut stays = true;
            for untag in untags.into_iter().flatten().map(seen) {
                let (untag_begin, untag_end, untag_outcome) = untag;
                let before = untag_end.is_some_and(|untag_end| untag_end < begin);
                if untag_outcome == Outcome::Refused || before {
                    continue;
                }
                possible.insert(None);
                let after = end.is_some_and(|end| untag_begin > end);
                if untag_outcome == Outcome::Done && after {
                    stays = false;
                }
            }
            if stays {
                possible.insert(value);
            }
        }
        possible
    }

    /// Everything about a register, a line for each call.
    pub(crate) fn tell(&self, key: &Key, view: &View<'_>) -> String {
        let mut calls: Vec<usize> = self
            .writes
            .get(key)
            .into_iter()
            .flatten()
            .map(|(call, value)| {
                let digest = value.clone().unwrap_or_default();
                let untags = self.untags.get(&(key.repository, digest));
                std::iter::once(*call).chain(untags.into_iter().flatten().copied())
            })
            .flat_map(Iterator::collect::<Vec<_>>)
            .collect();
        calls.sort_unstable();
        calls.dedup();
        let mut text = format!("{key:?}:");
        for number in calls {
            let call = &self.calls[number];
            let (end, outcome) = view.of(number, call);
            text.push_str(&format!(
                "\n    #{number} from {} to {end:?} {outcome:?}: {}",
                call.begin, call.text
            ));
        }
        text
    }
}

/// Which answers count.
pub(crate) enum View<'a> {
    /// All that the client has heard.
    Client,
    /// Those that had left the server at some moment: calls for which this is false had not.
    Sent(&'a (dyn Fn(usize) -> bool + Sync)),
}

impl View<'_> {
    /// The end and the outcome of a call.
    pub(crate) fn of(&self, number: usize, call: &Call) -> (Option<u64>, Outcome) {
        match self {
            // The client still waited for the answer before.
            View::Sent(sent) if call.before.is_some_and(|before| !sent(before)) => {
                (Some(call.begin), Outcome::Refused)
            }
            View::Sent(sent) if call.outcome == Outcome::Done && !sent(number) => {
                (None, Outcome::Unknown)
            }
            _ => (call.end, call.outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag() -> Key {
        Key::new(Kind::Tag, 0, "t")
    }

    fn set(value: &str) -> Vec<Effect> {
        vec![Effect::Set(tag(), Some(value.to_owned()))]
    }

    fn values(history: &History) -> Vec<String> {
        let possible = history.possible(&tag(), &View::Client);
        possible
            .into_iter()
            .map(|value| value.unwrap_or("-".to_owned()))
            .collect()
    }

    fn did(history: &mut History, effects: &[Effect], outcome: Outcome) -> usize {
        let call = history.begin(String::new(), effects, None);
        history.end(call, outcome);
        call
    }

    #[test]
    fn the_last_answered_write_counts_and_an_open_one_may() {
        let mut history = History::default();
        assert_eq!(values(&history), ["-"]);
        did(&mut history, &set("a"), Outcome::Done);
        assert_eq!(values(&history), ["a"]);
        did(&mut history, &set("b"), Outcome::Done);
        assert_eq!(values(&history), ["b"]);
        did(&mut history, &set("c"), Outcome::Refused);
        assert_eq!(values(&history), ["b"]);
        let open = history.begin(String::new(), &set("d"), None);
        assert_eq!(values(&history), ["b", "d"]);
        history.everything_is_over();
        assert_eq!(values(&history), ["b", "d"]);
        history.observed(&tag(), Some("b".into()));
        assert_eq!(values(&history), ["b"], "{open} can't come later");
    }

    #[test]
    fn of_two_at_once_either_may_be_the_last() {
        let mut history = History::default();
        let (a, b) = (
            history.begin(String::new(), &set("a"), None),
            history.begin(String::new(), &set("b"), None),
        );
        history.end(a, Outcome::Done);
        assert_eq!(values(&history), ["a", "b"]);
        history.end(b, Outcome::Done);
        assert_eq!(values(&history), ["a", "b"]);
        did(&mut history, &set("c"), Outcome::Done);
        assert_eq!(values(&history), ["c"]);
    }

    #[test]
    fn a_deleted_manifest_takes_its_tags_along_and_no_others() {
        let untag = |digest: &str| vec![Effect::Untag(0, digest.to_owned())];
        let mut history = History::default();
        did(&mut history, &untag("a"), Outcome::Done);
        did(&mut history, &set("a"), Outcome::Done);
        assert_eq!(values(&history), ["a"], "it was deleted before");
        did(&mut history, &untag("b"), Outcome::Done);
        did(&mut history, &untag("a"), Outcome::Refused);
        assert_eq!(values(&history), ["a"]);
        let open = history.begin(String::new(), &untag("a"), None);
        assert_eq!(values(&history), ["-", "a"]);
        history.end(open, Outcome::Done);
        assert_eq!(values(&history), ["-"]);
    }

    #[test]
    fn what_had_not_left_the_server_may_or_may_not_be() {
        let mut history = History::default();
        let a = did(&mut history, &set("a"), Outcome::Done);
        let b = did(&mut history, &set("b"), Outcome::Done);
        let c = history.begin(String::new(), &set("c"), Some(b));
        history.end(c, Outcome::Done);
        let seen = |sent: &(dyn Fn(usize) -> bool + Sync)| {
            let possible = history.possible(&tag(), &View::Sent(sent));
            possible
                .into_iter()
                .map(|value| value.unwrap_or("-".to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            seen(&|_| false),
            ["-", "a", "b"],
            "c waited for the answer to b"
        );
        assert_eq!(seen(&|call| call == a), ["a", "b"]);
        assert_eq!(seen(&|call| call == a || call == b), ["b", "c"]);
    }
}
