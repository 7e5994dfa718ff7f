//! The gate that every request to the object store passes: counts and times it, sorts its failure, and after many
//! failures in a row leaves the store alone for some seconds, so that clients hear at once what they would hear anyway
//! and nobody adds to what ails it.

use std::error::Error as StdError;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::store::Figures;

/// Failures in a row after which the store is left alone. Each was retried by the client library already.
const FAILURES: u32 = 8;

/// For how long. Then one request goes through, and decides.
const REST: Duration = Duration::from_secs(5);

/// What services say that have no room, or will not give more of it to this bucket.
const FULL: [&str; 6] = [
    "status code: 507",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
    "QuotaExceeded",
    "InsufficientStorage",
    "storage cap exceeded",
];

/// What services say of a bucket that is not there.
pub(super) const NO_BUCKET: [&str; 3] = [
    "NoSuchBucket",
    "ContainerNotFound",
    "The specified bucket does not exist",
];

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Get,
    Head,
    Put,
    Begin,
    Part,
    Complete,
    Abort,
    Delete,
    List,
}

const NAMES: [(Call, &str); 9] = [
    (Call::Get, "get"),
    (Call::Head, "head"),
    (Call::Put, "put"),
    (Call::Begin, "begin"),
    (Call::Part, "part"),
    (Call::Complete, "complete"),
    (Call::Abort, "abort"),
    (Call::Delete, "delete"),
    (Call::List, "list"),
];

#[derive(Debug)]
pub(super) struct Gate {
    counts: [(AtomicU64, AtomicU64); NAMES.len()],
    failed: AtomicU64,
    refused: AtomicU64,
    in_a_row: AtomicU32,
    /// Nanoseconds after `since` until which requests are refused; 0: they are not.
    closed_until: AtomicU64,
    since: Instant,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            counts: Default::default(),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            in_a_row: AtomicU32::new(0),
            closed_until: AtomicU64::new(0),
            since: Instant::now(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Sends one request. `what` says what it is for, if that has to be told.
    pub(super) async fn pass<T>(
        &self,
        call: Call,
        what: impl Fn() -> String,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        self.admit()?;
        let begun = Instant::now();
        let outcome = request.await;
        let (times, nanos) = &self.counts[call as usize];
        times.fetch_add(1, Ordering::Relaxed);
        let spent = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        nanos.fetch_add(spent, Ordering::Relaxed);
        outcome
            .map_err(|error| self.sort(what(), error))
            .inspect(|_| self.well())
    }

    /// Lets a request through, or not. When a rest is over, one goes first: the next rest begins at once, and its success
    /// ends it.
    pub(super) fn admit(&self) -> Result<()> {
        let until = self.closed_until.load(Ordering::Acquire);
        if until == 0 {
            return Ok(());
        }
        let now = self.now();
        let rest = u64::try_from(REST.as_nanos()).unwrap_or(u64::MAX);
        let first = now >= until
            && self
                .closed_until
                .compare_exchange(until, now + rest, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if first {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(Error::Resting)
    }

    /// The store answered.
    pub(super) fn well(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
        if self.closed_until.swap(0, Ordering::AcqRel) != 0 {
            tracing::info!("the object store answers again");
        }
    }

    /// What a failure means. That something is absent or not allowed is an answer, too.
    pub(super) fn sort(&self, what: String, error: object_store::Error) -> Error {
        use object_store::Error as Store;
        let words = told(&error);
        let any = |of: &[&str]| of.iter().any(|word| words.contains(word));
        let error = match error {
            _ if any(&FULL) => Error::Full {
                what,
                said: said(&words),
            },
            Store::NotFound { .. } if any(&NO_BUCKET) => Error::Refused {
                what,
                source: Box::new(error),
            },
            Store::NotFound { path, .. } => Error::Missing { key: path },
            Store::PermissionDenied { .. }
            | Store::Unauthenticated { .. }
            | Store::Precondition { .. }
            | Store::AlreadyExists { .. }
            | Store::NotSupported { .. }
            | Store::NotImplemented { .. }
            | Store::InvalidPath { .. }
            | Store::UnknownConfigurationKey { .. } => Error::Refused {
                what,
                source: Box::new(error),
            },
            _ if is_refusal(&words) => Error::Refused {
                what,
                source: Box::new(error),
            },
            _ => Error::Unreachable {
                what,
                source: Box::new(error),
            },
        };
        if matches!(error, Error::Unreachable { .. }) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            if self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
                let until = self.now() + u64::try_from(REST.as_nanos()).unwrap_or(0);
                if self.closed_until.swap(until, Ordering::AcqRel) == 0 {
                    tracing::error!(
                        error = words,
                        "the object store fails again and again; it is left alone for {REST:?}"
                    );
                }
            }
        } else {
            self.well();
        }
        error
    }

    /// Whether the last request found no store.
    pub(super) fn has_failed(&self) -> bool {
        self.in_a_row.load(Ordering::Relaxed) != 0
    }

    pub(super) fn is_open(&self) -> bool {
        let until = self.closed_until.load(Ordering::Acquire);
        until != 0 && self.now() < until
    }

    pub(super) fn figures(&self) -> Figures {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Figures {
            work: NAMES
                .iter()
                .zip(&self.counts)
                .map(|((_, name), (times, nanos))| (*name, read(times), read(nanos)))
                .collect(),
            failed: read(&self.failed),
            refused: read(&self.refused),
            open_circuit: self.closed_until.load(Ordering::Acquire) != 0,
        }
    }
}

/// A client error: the store is well, and says no, as it does to what it does not have. 408 and 429 ask for patience instead, and
/// were retried.
fn is_refusal(text: &str) -> bool {
    let client = text.contains("status code: 4")
        && !text.contains("status code: 408")
        && !text.contains("status code: 429");
    client || text.contains("status code: 501")
}

/// What a service says in its XML, or else the end of the words, which is what happened; the beginning is which request of
/// the client library it was.
pub(super) fn said(words: &str) -> String {
    let tagged = |tag: &str| {
        let (_, rest) = words.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once("</")?.0)
    };
    if let Some(code) = tagged("Code") {
        // Azure puts the request's id and the time on lines of their own.
        let plain = |text: &str| {
            let first = text.trim().lines().next().unwrap_or_default();
            first
                .trim_end()
                .replace("&#39;", "'")
                .replace("&quot;", "\"")
        };
        return match tagged("Message").filter(|message| *message != code) {
            Some(message) => format!("{code}: {}", plain(message)),
            None => code.to_owned(),
        };
    }
    let end = words.split_once("  - ").or(words.split_once(" - "));
    let end = end.map_or(words, |(_, end)| end);
    let noise = [
        "HTTP error: ",
        "error sending request: ",
        "Server returned non-2xx status code: ",
    ];
    let end = noise
        .iter()
        .fold(end, |end, noise| end.strip_prefix(noise).unwrap_or(end));
    let flat = end.split_whitespace().collect::<Vec<_>>().join(" ");
    flat.chars().take(300).collect()
}

/// An error with all that caused it: the client library tells the reason at the end of the chain.
pub(super) fn told(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down() -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: "connection refused".into(),
        }
    }

    async fn ask(gate: &Gate, outcome: object_store::Result<()>) -> Result<()> {
        gate.pass(Call::Head, || "asking".to_owned(), async { outcome })
            .await
    }

    #[tokio::test]
    async fn a_store_that_fails_again_and_again_is_left_alone() {
        let gate = Gate::new();
        for _ in 0..FAILURES {
            let error = ask(&gate, Err(down())).await.unwrap_err();
            assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        }
        let error = ask(&gate, Ok(())).await.unwrap_err();
        assert!(matches!(error, Error::Resting), "{error}");
        assert!(gate.figures().open_circuit && gate.figures().refused == 1);
        // The rest is over: one goes through and fails, which is enough for the next rest; then one succeeds.
        gate.closed_until.store(1, Ordering::Release);
        ask(&gate, Err(down())).await.unwrap_err();
        assert!(matches!(ask(&gate, Ok(())).await, Err(Error::Resting)));
        gate.closed_until.store(1, Ordering::Release);
        ask(&gate, Ok(())).await.unwrap();
        ask(&gate, Ok(())).await.unwrap();
        assert!(!gate.figures().open_circuit);
    }

    #[tokio::test]
    async fn a_full_store_is_told_from_one_that_is_ill() {
        let gate = Gate::new();
        for _ in 0..3 * FAILURES {
            for words in [
                "HTTP error: status code: 507: <Error><Code>XMinioStorageFull</Code></Error>",
                "Server returned non-2xx status code: 403 Forbidden: <Code>QuotaExceeded</Code>",
            ] {
                let full = object_store::Error::Generic {
                    store: "S3",
                    source: words.into(),
                };
                let error = ask(&gate, Err(full)).await.unwrap_err();
                assert!(matches!(error, Error::Full { .. }), "{error}");
                let told = error.to_string();
                assert!(told.contains("is full") && !told.contains("<"), "{told}");
            }
        }
        assert!(!gate.figures().open_circuit);
    }

    #[test]
    fn what_is_told_is_what_happened_and_not_where_in_the_library() {
        let xml = "x <Error><Code>AccessDenied</Code><Message>no</Message></Error>";
        assert_eq!(said(xml), "AccessDenied: no");
        let refused = "Generic S3 error: Error performing GET http://h/b/k in 3s, after 7 retries, max_retries: 7, \
                       retry_timeout: 25s  - HTTP error: error sending request: client error (Connect): Connection refused";
        assert_eq!(said(refused), "client error (Connect): Connection refused");
    }

    #[tokio::test]
    async fn what_is_absent_or_forbidden_is_an_answer() {
        let gate = Gate::new();
        for _ in 0..3 * FAILURES {
            let absent = object_store::Error::NotFound {
                path: "blobs/x".into(),
                source: "404".into(),
            };
            let error = ask(&gate, Err(absent)).await.unwrap_err();
            assert!(matches!(error, Error::Missing { .. }), "{error}");
            let refused = object_store::Error::Generic {
                store: "S3",
                source: "Server returned non-2xx status code: 400 Bad Request: InvalidPart".into(),
            };
            let error = ask(&gate, Err(refused)).await.unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{error}");
        }
        assert!(!gate.figures().open_circuit);
    }
}
