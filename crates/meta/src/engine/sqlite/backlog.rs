//! What waits for the writer, and how long the writer waits for more.
//!
//! A caller that has just been answered often comes back at once, with the next step of a push. A commit that begins
//! before is missed by it, and on a slow disk that costs a whole sync; so the writer gives those whom it answered a part
//! of a sync's time to return. Called by the writer thread alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::writer::{Commit, Message, Work};

/// Less is not worth going to sleep for.
const SHORTEST: Duration = Duration::from_micros(20);

pub(super) struct Backlog {
    queue: mpsc::Receiver<Message>,
    synced: VecDeque<Box<dyn Work>>,
    relaxed: VecDeque<Box<dyn Work>>,
    /// No more than a batch takes: the queue is what has a bound and is counted.
    most: usize,
    waker: Waker,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Backlog {
    /// To be made by the writer thread, which is the one that waits.
    pub(super) fn new(queue: mpsc::Receiver<Message>, most: usize) -> Backlog {
        Backlog {
            queue,
            synced: VecDeque::new(),
            relaxed: VecDeque::new(),
            most,
            waker: Waker::from(Arc::new(Unpark(std::thread::current()))),
        }
    }

    /// Until there is work; `false`: the store is closed, and all was taken.
    pub(super) fn wait(&mut self) -> bool {
        while self.len() == 0 {
            match self.queue.blocking_recv() {
                Some(message) => self.add(message),
                None => return false,
            }
        }
        true
    }

    /// The next operation that this kind of commit takes, of those that wait now.
    pub(super) fn next(&mut self, commit: Commit) -> Option<Box<dyn Work>> {
        loop {
            let next = match commit {
                Commit::Relaxed => self.relaxed.pop_front(),
                Commit::Synced => self.synced.pop_front().or_else(|| self.relaxed.pop_front()),
            };
            if next.is_some() {
                return next;
            }
            if self.len() >= self.most {
                return None;
            }
            let message = self.queue.try_recv().ok()?;
            self.add(message);
        }
    }

    /// Whether anything waits that need not be synced.
    pub(super) fn has_relaxed(&self) -> bool {
        !self.relaxed.is_empty()
    }

    /// Takes what waits, and waits until so many more have come, or for so long.
    pub(super) fn gather(&mut self, returning: usize, at_most: Duration) {
        while self.len() < self.most
            && let Ok(message) = self.queue.try_recv()
        {
            self.add(message);
        }
        let wanted = self.most.min(self.len() + returning);
        let end = Instant::now() + at_most;
        while self.len() < wanted {
            let left = end.saturating_duration_since(Instant::now());
            if left < SHORTEST {
                return;
            }
            let mut context = Context::from_waker(&self.waker);
            match self.queue.poll_recv(&mut context) {
                Poll::Ready(Some(message)) => self.add(message),
                Poll::Ready(None) => return,
                Poll::Pending => std::thread::park_timeout(left),
            }
        }
    }

    fn len(&self) -> usize {
        self.synced.len() + self.relaxed.len()
    }

    fn add(&mut self, message: Message) {
        match message {
            Message::Work(work) if work.relaxed() => self.relaxed.push_back(work),
            Message::Work(work) => self.synced.push_back(work),
            // What was accepted is still done.
            Message::Close => self.queue.close(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tx::{SqliteTx, Writes};
    use super::*;
    use crate::error::Result;

    struct Nothing {
        relaxed: bool,
    }

    impl Work for Nothing {
        fn name(&self) -> &'static str {
            "Nothing"
        }

        fn writes(&self) -> Writes {
            Writes::One
        }

        fn frees(&self) -> bool {
            false
        }

        fn relaxed(&self) -> bool {
            self.relaxed
        }

        fn run(&mut self, _: &mut SqliteTx<'_>) -> Result<()> {
            Ok(())
        }

        fn answer(self: Box<Self>, _: Result<()>) {}
    }

    fn work(relaxed: bool) -> Message {
        Message::Work(Box::new(Nothing { relaxed }))
    }

    fn make() -> (mpsc::Sender<Message>, Backlog) {
        let (send, queue) = mpsc::channel(64);
        (send, Backlog::new(queue, 8))
    }

    /// Minutes, for a test that would hang.
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn those_who_return_are_waited_for_and_no_longer() {
        let (send, mut backlog) = make();
        send.try_send(work(false)).ok().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3 {
                    std::thread::sleep(Duration::from_millis(10));
                    send.try_send(work(false)).ok().unwrap();
                }
            });
            // One waits already, three come back.
            backlog.gather(3, LONG);
            assert_eq!(backlog.len(), 4);
        });
        let start = Instant::now();
        backlog.gather(1, Duration::from_millis(20));
        assert!(start.elapsed() >= Duration::from_millis(10), "it waited");
        assert_eq!(backlog.len(), 4, "nobody came");
        // Nobody was answered, so nobody is waited for.
        backlog.gather(0, LONG);
        // A batch takes no more.
        (0..9).for_each(|_| send.try_send(work(false)).ok().unwrap());
        backlog.gather(100, LONG);
        assert_eq!(backlog.len(), 8);
    }

    #[test]
    fn a_commit_without_a_sync_takes_only_what_needs_none() {
        let (send, mut backlog) = make();
        for relaxed in [false, true, false, true] {
            send.try_send(work(relaxed)).ok().unwrap();
        }
        let mut take = |commit| backlog.next(commit).map(|work| work.relaxed());
        assert_eq!(take(Commit::Relaxed), Some(true));
        assert_eq!(take(Commit::Relaxed), Some(true));
        assert_eq!(take(Commit::Relaxed), None);
        assert_eq!(take(Commit::Synced), Some(false));
        send.try_send(work(true)).ok().unwrap();
        assert_eq!(take(Commit::Synced), Some(false));
        assert_eq!(take(Commit::Synced), Some(true), "it rides along");
        assert_eq!(take(Commit::Synced), None);
    }

    #[test]
    fn what_was_accepted_is_done_before_the_end() {
        let (send, mut backlog) = make();
        send.try_send(work(true)).ok().unwrap();
        send.try_send(Message::Close).ok().unwrap();
        assert!(backlog.wait());
        backlog.gather(1, LONG);
        assert!(backlog.next(Commit::Relaxed).is_some());
        assert!(!backlog.wait());
        assert!(send.try_send(work(true)).is_err());
    }
}
