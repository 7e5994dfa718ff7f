//! Bodies of answers: nothing, bytes in memory, or a stream whose length is known beforehand.
//!
//! Handlers build them; `service` hands them to hyper. A body never grows in memory: a stream is pulled frame by frame,
//! only as fast as the client takes it. Where the connection has a lane for files, the frames of a blob are stretches of its
//! file rather than bytes. A stream that gives fewer or more bytes than announced breaks the connection,
//! since a short answer that looks whole is the worst one (invariant 6).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_core::Stream;
use http_body::{Frame, SizeHint};
use wharf_blob::ByteStream;
use wharf_core::access::Meter;
use wharf_oci::{ErrorEntry, RepositoryName};

use super::sendfile::{Lane, Piece};

/// What went wrong while an answer was being sent. It is logged; the client sees a broken connection.
pub type SendError = Box<dyn StdError + Send + Sync>;

/// Where the bytes of a streamed body come from.
pub enum Source {
    /// A blob, or a part of it.
    Blob(ByteStream),
    /// Anything else.
    Stream(Pin<Box<dyn Stream<Item = Result<Bytes, SendError>> + Send>>),
}

impl Source {
    /// Any stream.
    pub fn stream<S, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<SendError> + 'static,
    {
        Self::Stream(Box::pin(Boxed { stream }))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        lane: Option<&Arc<Lane>>,
    ) -> Poll<Option<Result<Piece, SendError>>> {
        let piece = match self {
            Self::Blob(blob) => match lane.filter(|lane| lane.is_open()) {
                Some(lane) => ready!(blob.poll_piece(cx)).map(|piece| {
                    Ok(match piece? {
                        wharf_blob::Piece::Bytes(bytes) => bytes.into(),
                        wharf_blob::Piece::Window(window) => Piece::in_file(window, lane),
                    })
                }),
                None => ready!(Pin::new(blob).poll_next(cx)).map(|bytes| Ok(bytes?.into())),
            },
            Self::Stream(stream) => {
                ready!(stream.as_mut().poll_next(cx)).map(|bytes| bytes.map(Piece::from))
            }
        };
        Poll::Ready(piece)
    }
}

/// The body of an answer, and what the log wants to know about the request.
pub struct Body {
    kind: Kind,
    facts: Option<Box<Facts>>,
    meter: Option<Box<Meter>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Error(Box<ErrorDoc>),
    Stream { source: Source, left: u64 },
    Parts { parts: VecDeque<Part>, left: u64 },
}

enum Part {
    Bytes(Bytes),
    Stream { source: Source, left: u64 },
}

/// What only the handler knows about a request, for the log line and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Who asked, as the registry calls them.
    pub principal: Option<Cow<'static, str>>,
    /// The repository that was asked about.
    pub repository: Option<RepositoryName>,
}

/// The entries of a JSON error, before it is written.
#[derive(Clone, Debug)]
pub(super) struct ErrorDoc {
    pub(super) entries: Vec<ErrorEntry>,
}

impl ErrorDoc {
    /// The JSON (ERR-1). The first entry without a detail names the request (ERR-5).
    pub(super) fn render(mut self, request_id: Option<&str>) -> Bytes {
        if let (Some(id), Some(entry)) = (request_id, self.entries.first_mut())
            && entry.detail.is_none()
        {
            entry.detail = Some(format!("request {id}"));
        }
        wharf_oci::error::body(&self.entries).into()
    }
}

impl Body {
    const fn of(kind: Kind) -> Self {
        Self {
            kind,
            facts: None,
            meter: None,
        }
    }

    /// No bytes.
    pub const fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    /// Bytes in memory.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Self::empty()
        } else {
            Self::of(Kind::Full(bytes))
        }
    }

    /// A stream of exactly `len` bytes. An error in it, or another length, breaks the connection.
    pub fn stream<S, E>(stream: S, len: u64) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<SendError> + 'static,
    {
        Self::streamed(Source::stream(stream), len)
    }

    /// `len` bytes of a blob, as [`Body::stream`].
    pub fn blob(bytes: ByteStream, len: u64) -> Self {
        Self::streamed(Source::Blob(bytes), len)
    }

    fn streamed(source: Source, left: u64) -> Self {
        if left == 0 {
            return Self::empty();
        }
        Self::of(Kind::Stream { source, left })
    }

    /// Pieces one after another: bytes, then a source of the given length, as often as needed (BGET-6).
    pub fn parts(pieces: Vec<(Bytes, Option<(Source, u64)>)>) -> Self {
        let mut parts = VecDeque::with_capacity(pieces.len() * 2);
        let mut left = 0;
        for (bytes, source) in pieces {
            left += bytes.len() as u64;
            if !bytes.is_empty() {
                parts.push_back(Part::Bytes(bytes));
            }
            if let Some((source, len)) = source
                && len > 0
            {
                left += len;
                parts.push_back(Part::Stream { source, left: len });
            }
        }
        Self::of(Kind::Parts { parts, left })
    }

    pub(super) fn error(doc: ErrorDoc) -> Self {
        Self::of(Kind::Error(Box::new(doc)))
    }

    /// Tells the log what the handler found out.
    #[must_use]
    pub fn with_facts(mut self, facts: Facts) -> Self {
        self.facts = Some(Box::new(facts));
        self
    }

    /// Adds facts to a body that stands already.
    pub fn set_facts(&mut self, facts: Facts) {
        self.facts = Some(Box::new(facts));
    }

    /// Has the bytes counted that go out.
    pub fn set_meter(&mut self, meter: Meter) {
        self.meter = Some(Box::new(meter));
    }

    pub(super) fn take_meter(&mut self) -> Option<Box<Meter>> {
        self.meter.take()
    }

    pub(super) fn take_facts(&mut self) -> Option<Box<Facts>> {
        self.facts.take()
    }

    /// Writes an error's JSON, now that the request id is known.
    pub(super) fn render(&mut self, request_id: &str) {
        if matches!(self.kind, Kind::Error(_))
            && let Kind::Error(doc) = std::mem::replace(&mut self.kind, Kind::Empty)
        {
            self.kind = Kind::Full(doc.render(Some(request_id)));
        }
    }

    /// Whether frames come from a stream, so that sending takes its time.
    pub(super) fn is_streamed(&self) -> bool {
        matches!(self.kind, Kind::Stream { .. } | Kind::Parts { .. })
    }

    /// Whether this is an error whose JSON has not been written.
    pub(super) fn is_error(&self) -> bool {
        matches!(self.kind, Kind::Error(_))
    }

    /// Bytes that are still to come. Zero for an error that has not been written.
    pub fn remaining(&self) -> u64 {
        match &self.kind {
            Kind::Empty | Kind::Error(_) => 0,
            Kind::Full(bytes) => bytes.len() as u64,
            Kind::Stream { left, .. } | Kind::Parts { left, .. } => *left,
        }
    }

    /// The next frame. With a lane, frames may lie in files.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        lane: Option<&Arc<Lane>>,
    ) -> Poll<Option<Result<Piece, SendError>>> {
        if matches!(self.kind, Kind::Error(_)) {
            // Only a body that never went through the transport comes here: a handler's unit test.
            if let Kind::Error(doc) = std::mem::replace(&mut self.kind, Kind::Empty) {
                return Poll::Ready(Some(Ok(doc.render(None).into())));
            }
        }
        match &mut self.kind {
            Kind::Empty | Kind::Error(_) => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(bytes.into())))
            }
            Kind::Stream { source, left } => {
                let item = ready!(poll_exact(source, left, cx, lane));
                if item.is_none() {
                    self.kind = Kind::Empty;
                }
                Poll::Ready(item)
            }
            Kind::Parts { parts, left } => {
                while let Some(part) = parts.front_mut() {
                    match part {
                        Part::Bytes(bytes) => {
                            let bytes = std::mem::take(bytes);
                            *left -= bytes.len() as u64;
                            parts.pop_front();
                            return Poll::Ready(Some(Ok(bytes.into())));
                        }
                        Part::Stream {
                            source,
                            left: of_part,
                        } => match ready!(poll_exact(source, of_part, cx, lane)) {
                            Some(Ok(piece)) => {
                                *left -= piece.remaining() as u64;
                                return Poll::Ready(Some(Ok(piece)));
                            }
                            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                            None => {
                                parts.pop_front();
                            }
                        },
                    }
                }
                self.kind = Kind::Empty;
                Poll::Ready(None)
            }
        }
    }
}

pin_project_lite::pin_project! {
    /// A stream with its errors boxed.
    struct Boxed<S> {
        #[pin]
        stream: S,
    }
}

impl<S, E> Stream for Boxed<S>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: Into<SendError>,
{
    type Item = Result<Bytes, SendError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.project()
            .stream
            .poll_next(cx)
            .map(|item| item.map(|result| result.map_err(Into::into)))
    }
}

/// The next bytes of a stream that must give exactly `left` more.
fn poll_exact(
    source: &mut Source,
    left: &mut u64,
    cx: &mut Context<'_>,
    lane: Option<&Arc<Lane>>,
) -> Poll<Option<Result<Piece, SendError>>> {
    if *left == 0 {
        return Poll::Ready(None);
    }
    Poll::Ready(Some(match ready!(source.poll_next(cx, lane)) {
        Some(Ok(piece)) => match left.checked_sub(piece.remaining() as u64) {
            Some(rest) => {
                *left = rest;
                Ok(piece)
            }
            None => Err("the source of an answer gave more bytes than announced".into()),
        },
        Some(Err(error)) => Err(error),
        None => Err(format!("the source of an answer ended {left} bytes early").into()),
    }))
}

impl http_body::Body for Body {
    type Data = Piece;
    type Error = SendError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, SendError>>> {
        self.poll_data(cx, None)
            .map(|item| item.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        !self.is_error() && self.remaining() == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_error() {
            SizeHint::default()
        } else {
            SizeHint::with_exact(self.remaining())
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Error(_) => "error",
            Kind::Stream { .. } => "stream",
            Kind::Parts { .. } => "parts",
        };
        write!(f, "Body({kind}, {} bytes left)", self.remaining())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use wharf_oci::ErrorCode;

    use super::*;
    use crate::http::ApiError;

    /// A stream of ready items.
    struct Items(VecDeque<Result<Bytes, std::io::Error>>);

    impl Stream for Items {
        type Item = Result<Bytes, std::io::Error>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    fn items(pieces: &[&'static str]) -> Items {
        Items(pieces.iter().map(|piece| Ok((*piece).into())).collect())
    }

    async fn collected(body: Body) -> Result<Bytes, SendError> {
        body.collect().await.map(|all| all.to_bytes())
    }

    #[tokio::test]
    async fn streams_must_have_the_announced_length() {
        let body = Body::stream(items(&["ab", "cd"]), 4);
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(4));
        assert_eq!(collected(body).await.unwrap(), "abcd");
        let short = collected(Body::stream(items(&["ab"]), 4)).await;
        assert!(short.unwrap_err().to_string().contains("2 bytes early"));
        let long = collected(Body::stream(items(&["abcde"]), 4)).await;
        assert!(long.unwrap_err().to_string().contains("more bytes"));
    }

    #[tokio::test]
    async fn parts_follow_each_other() {
        let body = Body::parts(vec![
            ("<".into(), Some((Source::stream(items(&["a", "b"])), 2))),
            ("|".into(), Some((Source::stream(items(&["c"])), 1))),
            (">".into(), None),
        ]);
        assert_eq!(body.remaining(), 6);
        assert_eq!(collected(body).await.unwrap(), "<ab|c>");
    }

    #[tokio::test]
    async fn a_broken_part_breaks_the_body() {
        let mut broken = items(&["a"]);
        broken.0.push_back(Err(std::io::Error::other("disk")));
        let body = Body::parts(vec![("<".into(), Some((Source::stream(broken), 9)))]);
        assert_eq!(collected(body).await.unwrap_err().to_string(), "disk");
    }

    /// Spec: ERR-1, ERR-5.
    #[tokio::test]
    async fn errors_name_the_request() {
        let mut response = ApiError::new(ErrorCode::BlobUnknown, "no such blob").into_response();
        assert_eq!(response.headers()["content-type"], "application/json");
        response.body_mut().render("r-1");
        assert_eq!(
            collected(response.into_body()).await.unwrap(),
            r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no such blob","detail":"request r-1"}]}"#
        );
    }
}
