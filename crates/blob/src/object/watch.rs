//! What answers of the service tell beside what was asked for: its time, where the bucket is, and that it is full.
//!
//! Stands between the client library and its connections, for every service. Must never change a request, nor an answer of
//! success.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use http::StatusCode;
use http::header::DATE;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

/// The time of a service that goes well is looked at so often.
const LOOK: Duration = Duration::from_secs(60);

/// Most of a full store's words that are kept, in bytes.
const WORDS: usize = 1000;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    skew: Mutex<Option<(Instant, i64)>>,
    region: Mutex<Option<String>>,
}

impl Seen {
    /// Seconds by which this machine's clock was ahead of the service's when that was last seen; negative: behind.
    pub(super) fn skew(&self) -> Option<i64> {
        let skew = self.skew.lock().unwrap_or_else(PoisonError::into_inner);
        skew.map(|(_, skew)| skew)
    }

    /// Where the bucket is, as the service said when it refused something.
    pub(super) fn region(&self) -> Option<String> {
        let region = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        region.clone()
    }

    fn note(&self, answer: &HttpResponse) {
        let well = answer.status().is_success();
        if !well && let Some(region) = header(answer, "x-amz-bucket-region") {
            let mut known = self.region.lock().unwrap_or_else(PoisonError::into_inner);
            *known = Some(region.to_owned());
        }
        let mut skew = self.skew.lock().unwrap_or_else(PoisonError::into_inner);
        if well && skew.is_some_and(|(at, _)| at.elapsed() < LOOK) {
            return;
        }
        if let Some(date) = header(answer, DATE.as_str()).and_then(|date| date.parse().ok()) {
            // What the library signs with, and nobody else's idea of the time, is what the service compares with its own.
            *skew = Some((Instant::now(), between(SystemTime::now(), date)));
        }
    }
}

fn header<'a>(answer: &'a HttpResponse, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// Seconds by which `ours` is ahead.
fn between(ours: SystemTime, theirs: httpdate::HttpDate) -> i64 {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match ours.duration_since(SystemTime::from(theirs)) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

/// Makes connections that are watched.
#[derive(Debug)]
pub(super) struct Watcher(pub(super) Arc<Seen>);

impl HttpConnector for Watcher {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        let seen = self.0.clone();
        Ok(HttpClient::new(Watched { inner, seen }))
    }
}

#[derive(Debug)]
struct Watched {
    inner: HttpClient,
    seen: Arc<Seen>,
}

/// No room: asking again makes none, so the library must not.
#[derive(Debug, thiserror::Error)]
#[error("status code: 507: {0}")]
struct NoRoom(String);

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.inner.execute(request).await?;
        self.seen.note(&answer);
        if answer.status() != StatusCode::INSUFFICIENT_STORAGE {
            return Ok(answer);
        }
        let words = answer.into_body().bytes().await.unwrap_or_default();
        let words = String::from_utf8_lossy(words.get(..WORDS).unwrap_or(&words)).into_owned();
        Err(HttpError::new(HttpErrorKind::Unknown, NoRoom(words)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_or_behind() {
        let date: httpdate::HttpDate = "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap();
        let theirs = SystemTime::from(date);
        let later = |seconds| theirs + Duration::from_secs(seconds);
        assert_eq!(between(later(100), date), 100);
        assert_eq!(between(theirs - Duration::from_secs(3600), date), -3600);
    }

    #[test]
    fn a_service_that_goes_well_is_looked_at_now_and_then_and_one_that_refuses_always() {
        let seen = Seen::default();
        let answer = |status: u16, date: &str| {
            let answer = http::Response::builder().status(status).header(DATE, date);
            let answer = answer.header("x-amz-bucket-region", "eu-west-1");
            answer.body(String::new().into()).unwrap()
        };
        seen.note(&answer(200, "Sun, 06 Nov 1994 08:49:37 GMT"));
        let first = seen.skew().unwrap();
        assert!(first > 900_000_000 && seen.region().is_none(), "{first}");
        seen.note(&answer(200, "Sat, 06 Nov 2094 08:49:37 GMT"));
        assert_eq!(seen.skew(), Some(first));
        seen.note(&answer(403, "Sat, 06 Nov 2094 08:49:37 GMT"));
        assert!(seen.skew().unwrap() < 0);
        assert_eq!(seen.region().as_deref(), Some("eu-west-1"));
    }
}
