//! `h3` over `quinn`, by `h3`'s public traits: it gets HTTP/3's own streams only, and of each no more than a budget.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use futures_util::future::BoxFuture;
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};
use quinn::{ConnectionError, Dir, ReadError, RecvStream, SendStream, VarInt, WriteError};

use super::{
    error_code::H3_EXCESSIVE_LOAD,
    sessions::Sessions,
    settings,
    sorting::{Http, Sorting},
};

/// What `h3` may read from one stream in its lifetime, since it buffers a frame whole. A CONNECT takes some hundred
/// bytes, SETTINGS a few dozen.
const H3_BUDGET: usize = 64 * 1024;

/// Read off a stream at once.
const CHUNK: usize = 2 * 1024;

pub(super) struct Connection {
    incoming: Sorting,
    opener: Opener,
}

impl Connection {
    pub(super) fn new(connection: &quinn::Connection, sessions: Arc<Sessions>) -> Self {
        Self { incoming: Sorting::new(connection, sessions), opener: Opener::new(connection.clone()) }
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = Receiving;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receiving, ConnectionErrorIncoming>> {
        let sorted = ready!(self.incoming.poll_unidirectional(cx)).map_err(connection_error)?;
        Poll::Ready(Ok(Receiving::new(sorted)))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bidirectional, ConnectionErrorIncoming>> {
        let Http { stream: (send, receive), first } =
            ready!(self.incoming.poll_bidirectional(cx)).map_err(connection_error)?;
        let receiving = Receiving::new(Http { stream: receive, first });
        Poll::Ready(Ok(Bidirectional { sending: Sending::new(send), receiving }))
    }

    fn opener(&self) -> Opener {
        Opener::new(self.opener.connection.clone())
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = Bidirectional;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bidirectional, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// Opens streams. A server's `h3` opens three at its beginning.
pub(super) struct Opener {
    connection: quinn::Connection,
    bidirectional: Option<Opening<(SendStream, RecvStream)>>,
    unidirectional: Option<Opening<SendStream>>,
}

type Opening<S> = BoxFuture<'static, Result<S, ConnectionError>>;

impl Opener {
    fn new(connection: quinn::Connection) -> Self {
        Self { connection, bidirectional: None, unidirectional: None }
    }
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Bidirectional;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bidirectional, StreamErrorIncoming>> {
        let connection = &self.connection;
        let opening = self.bidirectional.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.open_bi().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.bidirectional = None;
        let (send, receive) = opened.map_err(lost)?;
        let receiving = Receiving::new(Http { stream: receive, first: Bytes::new() });
        Poll::Ready(Ok(Bidirectional { sending: Sending::new(send), receiving }))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        let connection = &self.connection;
        let opening = self.unidirectional.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.unidirectional = None;
        Poll::Ready(opened.map(Sending::new).map_err(lost))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(varint(code.value()), reason);
    }
}

pub(super) struct Receiving {
    stream: RecvStream,
    /// Read while the stream was sorted.
    first: Bytes,
    budget: usize,
}

impl Receiving {
    fn new(Http { stream, first }: Http<RecvStream>) -> Self {
        Self { stream, first, budget: H3_BUDGET }
    }
}

impl quic::RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if !self.first.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.first))));
        }
        let mut chunk = [0; CHUNK];
        let len = match ready!(self.stream.poll_read(cx, &mut chunk)) {
            Ok(0) => return Poll::Ready(Ok(None)),
            Ok(len) => len,
            Err(ReadError::Reset(code)) => return Poll::Ready(Err(terminated(code))),
            Err(ReadError::ConnectionLost(error)) => return Poll::Ready(Err(lost(error))),
            Err(error) => return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(error)))),
        };
        let Some(left) = self.budget.checked_sub(len) else {
            // An error: the stream is over already.
            let _ = self.stream.stop(H3_EXCESSIVE_LOAD);
            return Poll::Ready(Err(terminated(H3_EXCESSIVE_LOAD)));
        };
        self.budget = left;
        Poll::Ready(Ok(Some(Bytes::copy_from_slice(&chunk[..len]))))
    }

    fn stop_sending(&mut self, code: u64) {
        // An error: the stream is over already.
        let _ = self.stream.stop(varint(code));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

pub(super) struct Sending {
    stream: SendStream,
    writing: Bytes,
}

impl Sending {
    fn new(stream: SendStream) -> Self {
        Self { stream, writing: Bytes::new() }
    }
}

impl quic::SendStream<Bytes> for Sending {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while !self.writing.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.writing)) {
                Ok(len) => self.writing.advance(len),
                Err(WriteError::Stopped(code)) => return Poll::Ready(Err(terminated(code))),
                Err(WriteError::ConnectionLost(error)) => return Poll::Ready(Err(lost(error))),
                Err(error) => return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(error)))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        let mut data = data.into();
        let bytes = data.copy_to_bytes(data.remaining());
        self.writing = match self.stream.id().dir() {
            Dir::Uni => settings::with_later_drafts(bytes),
            Dir::Bi => bytes,
        };
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let finished = self.stream.finish();
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, code: u64) {
        // An error: the stream is over already.
        let _ = self.stream.reset(varint(code));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

pub(super) struct Bidirectional {
    sending: Sending,
    receiving: Receiving,
}

impl quic::BidiStream<Bytes> for Bidirectional {
    type SendStream = Sending;
    type RecvStream = Receiving;

    fn split(self) -> (Sending, Receiving) {
        (self.sending, self.receiving)
    }
}

impl quic::RecvStream for Bidirectional {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receiving.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.receiving.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.receiving.recv_id()
    }
}

impl quic::SendStream<Bytes> for Bidirectional {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sending.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.sending.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sending.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.sending.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.sending.send_id()
    }
}

fn connection_error(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}

fn lost(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

fn terminated(code: VarInt) -> StreamErrorIncoming {
    StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() }
}

/// All of HTTP/3's codes fit.
fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

// Both are varints of QUIC; the conversion fails above 2^62.
#[allow(clippy::expect_used)]
fn stream_id(id: quinn::StreamId) -> StreamId {
    u64::from(id).try_into().expect("QUIC's stream ids are below 2^62")
}
