//! Whose a stream is. Its first bytes tell: 0x41 (bidirectional) or 0x54 (unidirectional) and a session's id stand
//! before a session's stream; all others are HTTP/3's.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream, FuturesUnordered},
};
use quinn::{ConnectionError, RecvStream, SendStream};
use tokio::time::timeout;
use xpush_protocol::get_varint;

use super::{error_code::BUFFERED_STREAM_REJECTED, sessions::Sessions};

const SESSION_BIDIRECTIONAL: u64 = 0x41;
const SESSION_UNIDIRECTIONAL: u64 = 0x54;

/// How long a stream may take to say whose it is. Those that take long hold up nobody else.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);

/// A stream of HTTP/3 with the bytes that were read off it already.
pub(super) struct Http<S> {
    pub(super) stream: S,
    pub(super) first: Bytes,
}

type Incoming<S> = BoxStream<'static, Result<S, ConnectionError>>;
/// Bounded by the streams that the peer may open.
type Headers<S> = FuturesUnordered<BoxFuture<'static, Option<Http<S>>>>;

/// Takes a connection's streams, and keeps those of HTTP/3.
pub(super) struct Sorting {
    bidirectional: Incoming<(SendStream, RecvStream)>,
    bidirectional_headers: Headers<(SendStream, RecvStream)>,
    unidirectional: Incoming<RecvStream>,
    unidirectional_headers: Headers<RecvStream>,
    sessions: Arc<Sessions>,
}

impl Sorting {
    pub(super) fn new(connection: &quinn::Connection, sessions: Arc<Sessions>) -> Self {
        let bidirectional = stream::unfold(connection.clone(), |connection| async {
            Some((connection.accept_bi().await, connection))
        });
        let unidirectional = stream::unfold(connection.clone(), |connection| async {
            Some((connection.accept_uni().await, connection))
        });
        Self {
            bidirectional: bidirectional.boxed(),
            bidirectional_headers: FuturesUnordered::new(),
            unidirectional: unidirectional.boxed(),
            unidirectional_headers: FuturesUnordered::new(),
            sessions,
        }
    }

    pub(super) fn poll_bidirectional(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Http<(SendStream, RecvStream)>, ConnectionError>> {
        let sessions = &self.sessions;
        poll(&mut self.bidirectional, &mut self.bidirectional_headers, cx, |stream| {
            Box::pin(in_time(sort_bidirectional(stream, sessions.clone())))
        })
    }

    pub(super) fn poll_unidirectional(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Http<RecvStream>, ConnectionError>> {
        poll(&mut self.unidirectional, &mut self.unidirectional_headers, cx, |stream| {
            Box::pin(in_time(sort_unidirectional(stream)))
        })
    }
}

fn poll<S>(
    incoming: &mut Incoming<S>,
    headers: &mut Headers<S>,
    cx: &mut Context<'_>,
    sort: impl Fn(S) -> BoxFuture<'static, Option<Http<S>>>,
) -> Poll<Result<Http<S>, ConnectionError>> {
    loop {
        while let Poll::Ready(Some(sorted)) = headers.poll_next_unpin(cx) {
            if let Some(http) = sorted {
                return Poll::Ready(Ok(http));
            }
        }
        match ready!(incoming.poll_next_unpin(cx)) {
            Some(Ok(stream)) => headers.push(sort(stream)),
            Some(Err(error)) => return Poll::Ready(Err(error)),
            // The stream has no end but its errors.
            None => return Poll::Pending,
        }
    }
}

/// A stream that does not say whose it is is let go.
async fn in_time<S>(header: impl Future<Output = Option<Http<S>>>) -> Option<Http<S>> {
    timeout(HEADER_DEADLINE, header).await.ok().flatten()
}

async fn sort_bidirectional(
    (send, mut receive): (SendStream, RecvStream),
    sessions: Arc<Sessions>,
) -> Option<Http<(SendStream, RecvStream)>> {
    let mut first = BytesMut::new();
    if read_varint(&mut receive, &mut first).await? == SESSION_BIDIRECTIONAL {
        let session = read_varint(&mut receive, &mut first).await?;
        sessions.bidirectional(session, (send, receive));
        return None;
    }
    Some(Http { stream: (send, receive), first: first.freeze() })
}

async fn sort_unidirectional(mut receive: RecvStream) -> Option<Http<RecvStream>> {
    let mut first = BytesMut::new();
    if read_varint(&mut receive, &mut first).await? == SESSION_UNIDIRECTIONAL {
        // Our clients' commands come on the control stream. An error: it is over already.
        let _ = receive.stop(BUFFERED_STREAM_REJECTED);
        return None;
    }
    Some(Http { stream: receive, first: first.freeze() })
}

/// Reads no byte beyond the integer, and keeps what it read in `seen`. `None`: the stream is over.
async fn read_varint(stream: &mut RecvStream, seen: &mut BytesMut) -> Option<u64> {
    let start = seen.len();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte).await.ok()?;
        seen.extend_from_slice(&byte);
        if let Ok(value) = get_varint(&mut &seen[start..]) {
            return Some(value);
        }
    }
}
