//! One WebSocket, split into a half that reads and one that writes.
//!
//! Both halves work on one protocol machine behind a short lock: reading may have to write (a pong), and a lock is
//! smaller than a channel and a task for each of ten thousand idle connections. Closing takes the machine out, which
//! ends the reader as well.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::{CapacityError, ProtocolError},
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};
use xpush_protocol::{CloseCode, Codec};

use super::{buffered::Buffered, stream::Stream};
use crate::{CLOSE_DEADLINE, Closed, Farewell, Outgoing, Peer, Permit, TryWrite, patience::Patience};

/// Allocated for every connection, idle ones included; larger frames grow it for as long as they are read.
const READ_BUFFER: usize = 128;

/// A client's frames of one write are joined up to this size before they go to the socket.
const WRITE_BUFFER: usize = 16 * 1024;

/// What a server's protocol machine has to say itself, to a peer that does not read: beyond it only the newest ping is
/// answered.
const CONTROL_BUFFER: usize = 2 * WRITE_BUFFER;

/// Pings that a peer may miss before it is idle. A browser's page can't ping by itself, but its browser answers.
const PINGS_BEFORE_IDLE: u32 = 3;

/// Either end of a WebSocket.
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    reader: Reader,
    writer: Writer,
}

#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    codec: Option<Codec>,
    patience: Patience,
    /// Without a message for this long, the peer is asked whether it lives.
    ping_after: Duration,
    ping_at: Instant,
    /// Goes off when one of the two may be due. Each message defers them, but not this: it is set anew when it goes
    /// off, not in the timer's lists with each message.
    alarm: Pin<Box<Sleep>>,
}

#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    machine: Mutex<Machine>,
    /// The place is taken until both halves are gone.
    _permit: Option<Permit>,
}

#[derive(Debug)]
struct Machine {
    /// `None`: closed from this end.
    socket: Option<WebSocketStream<Buffered>>,
    role: Role,
    answered_close: bool,
    /// Of a read that waits. The socket's own waker is lost when the socket is taken out.
    reader: Option<Waker>,
    /// A write waits, with its waker in the socket: nobody else may flush, it would take that place.
    writing: bool,
}

impl Connection {
    /// `read` is what the HTTP side had read already.
    pub(super) async fn new(
        stream: Stream,
        read: Vec<u8>,
        role: Role,
        frame_limit: usize,
        peer: Peer,
        patience: Patience,
        permit: Option<Permit>,
    ) -> Self {
        let mut config = config(frame_limit);
        if role == Role::Server {
            config = config.max_write_buffer_size(CONTROL_BUFFER);
        }
        let stream = Buffered::new(stream);
        let socket = WebSocketStream::from_partially_read(stream, read, role, Some(config)).await;
        Self::of(socket, role, peer, patience, permit)
    }

    pub(super) fn of(
        socket: WebSocketStream<Buffered>,
        role: Role,
        peer: Peer,
        patience: Patience,
        permit: Option<Permit>,
    ) -> Self {
        let machine =
            Machine { socket: Some(socket), role, answered_close: false, reader: None, writing: false };
        let shared = Arc::new(Shared { machine: Mutex::new(machine), _permit: permit });
        let ping_after = patience.idle() / PINGS_BEFORE_IDLE;
        let ping_at = Instant::now() + ping_after;
        let alarm = Box::pin(sleep_until(patience.until().min(ping_at)));
        let reader =
            Reader { shared: Arc::clone(&shared), codec: peer.codec, patience, ping_after, ping_at, alarm };
        Self { peer, reader, writer: Writer { shared } }
    }
}

/// Limits hold for a message however it is cut into fragments.
pub(super) fn config(frame_limit: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(frame_limit))
        .max_frame_size(Some(frame_limit))
}

impl crate::Connection for Connection {
    type Reader = Reader;
    type Writer = Writer;

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn split(self) -> (Peer, Reader, Writer) {
        (self.peer, self.reader, self.writer)
    }
}

impl crate::Reader for Reader {
    async fn read(&mut self) -> Result<Bytes, Closed> {
        loop {
            let Some(message) = poll_fn(|cx| self.poll_message(cx)).await else {
                if self.patience.until() <= Instant::now() {
                    return Err(self.patience.verdict());
                }
                self.ping_at = Instant::now() + self.ping_after;
                poll_fn(|cx| self.shared.machine().ping(cx)).await;
                continue;
            };
            let frame = match message? {
                Message::Text(text) => Some((Codec::Json, Bytes::from(text))),
                Message::Binary(bytes) => Some((Codec::MessagePack, bytes)),
                Message::Close(frame) => {
                    // The answer is queued already. A peer that does not take it is gone all the same.
                    poll_fn(|cx| self.shared.machine().flush(cx)).await;
                    return Err(by_peer(frame));
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
            };
            self.ping_at = Instant::now() + self.ping_after;
            if let Some((codec, bytes)) = frame {
                if self.codec.is_some_and(|agreed| agreed != codec) {
                    return Err(Closed::Protocol("the message is not of the subprotocol's kind".into()));
                }
                self.patience.renew();
                return Ok(bytes);
            }
            // Who pings without ever sending a first frame does not hold its place with it.
            if self.patience.spoke() {
                self.patience.renew();
            }
        }
    }
}

impl Reader {
    /// `None`: the peer is to be asked whether it lives, or was waited for in vain.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Closed>>> {
        if let Poll::Ready(message) = self.shared.machine().poll_read(cx) {
            return Poll::Ready(Some(message));
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let due = self.patience.until().min(self.ping_at);
            if due <= Instant::now() {
                return Poll::Ready(None);
            }
            self.alarm.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl crate::Writer for Writer {
    async fn write(&mut self, frames: &mut Vec<Outgoing>) -> Result<(), Closed> {
        poll_fn(|cx| self.shared.machine().poll_write(cx, frames)).await
    }

    fn beside(&self) -> Option<Weak<dyn TryWrite>> {
        Some(Arc::downgrade(&self.shared) as _)
    }

    async fn close(self, close: Farewell) {
        let Some(socket) = self.shared.machine().take() else { return };
        // Past the deadline the wire is cut, and the peer sees that.
        let _ = timeout(CLOSE_DEADLINE, say_goodbye(socket, close)).await;
    }
}

/// Tells why, then waits for the peer to have read it: a socket that is let go while bytes still come in is reset,
/// and a reset overtakes what was written last.
async fn say_goodbye(mut socket: WebSocketStream<Buffered>, close: Farewell) {
    let reason = close.short_reason().into();
    let frame = CloseFrame { code: close.code.number().into(), reason };
    // A failure means that the peer is gone or closes itself; there is nobody to tell.
    let _ = socket.send(Message::Close(Some(frame))).await;
    let stream = socket.get_mut();
    if stream.shutdown().await.is_ok() {
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    }
}

impl TryWrite for Shared {
    fn try_write(&self, frames: &mut Vec<Outgoing>) -> bool {
        self.machine().try_write(frames)
    }
}

impl Shared {
    fn machine(&self) -> MutexGuard<'_, Machine> {
        // A panic inside the socket's code ends the session, and with it the connection.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Closed>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Err(closed_here())) };
        match socket.poll_next_unpin(cx) {
            Poll::Ready(Some(message)) => {
                // Nothing may follow the answer to a close.
                self.answered_close |= matches!(message, Ok(Message::Close(_)));
                Poll::Ready(message.map_err(closed))
            }
            Poll::Ready(None) => Poll::Ready(Err(Closed::Lost("the connection has ended".into()))),
            Poll::Pending => {
                if !self.reader.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    self.reader = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, frames: &mut Vec<Outgoing>) -> Poll<Result<(), Closed>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Err(closed_here())) };
        if self.answered_close {
            // A write that waited is in the way of the answer; and that it is accepted tells not that it is sent.
            ready!(socket.poll_flush_unpin(cx)).map_err(closed)?;
            ready!(socket.get_mut().poll_behind(cx)).map_err(|error| closed(Error::Io(error)))?;
            return Poll::Ready(Err(Closed::Lost("the peer has closed".into())));
        }
        self.writing = true;
        loop {
            if self.role == Role::Server && write_now(socket, frames)? {
                break;
            }
            // What the protocol itself has to say, and what is left of the frames before, goes first.
            ready!(socket.poll_flush_unpin(cx)).map_err(closed)?;
            if frames.is_empty() {
                break;
            }
            // A client's are masked.
            while self.role == Role::Client && !frames.is_empty() {
                ready!(socket.poll_ready_unpin(cx)).map_err(closed)?;
                socket.start_send_unpin(message(frames.remove(0).bytes)).map_err(closed)?;
            }
        }
        self.writing = false;
        Poll::Ready(Ok(()))
    }

    /// A server's frames, as far as the socket takes them at once. Gives whether it took all.
    fn try_write(&mut self, frames: &mut Vec<Outgoing>) -> bool {
        match &mut self.socket {
            Some(socket) if self.role == Role::Server && !self.answered_close => {
                write_now(socket, frames).unwrap_or_else(|_| {
                    // How far it came, nobody knows.
                    self.take();
                    false
                })
            }
            _ => false,
        }
    }

    /// Asks the peer for a sign of life; ready at once. An error is left to the read that follows.
    fn ping(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(socket) = &mut self.socket {
            let _ = socket.start_send_unpin(Message::Ping(Bytes::new()));
        }
        self.flush(cx)
    }

    /// Sends what is queued as far as it goes; ready at once. A write that waits will send it anyway.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(socket) =
            self.socket.as_mut().filter(|socket| !self.writing || !socket.get_ref().is_behind())
        {
            let _ = socket.poll_flush_unpin(cx);
        }
        Poll::Ready(())
    }

    fn take(&mut self) -> Option<WebSocketStream<Buffered>> {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        self.socket.take()
    }
}

/// A server's frames are bytes behind a short header, and need nothing of the protocol's machine: what that one has to
/// say is accepted by `Buffered` as a whole. All that wait go out in one write. Gives whether nothing is left of them.
fn write_now(socket: &mut WebSocketStream<Buffered>, frames: &mut Vec<Outgoing>) -> Result<bool, Closed> {
    let stream = socket.get_mut();
    while !stream.is_behind() {
        if frames.is_empty() {
            return Ok(true);
        }
        let written = stream.write_frames(frames).map_err(|error| closed(Error::Io(error)))?;
        frames.drain(..written);
    }
    Ok(false)
}

fn message(frame: Bytes) -> Message {
    let kind = match Codec::detect(&frame) {
        Codec::Json => Data::Text,
        Codec::MessagePack => Data::Binary,
    };
    Message::Frame(Frame::message(frame, OpCode::Data(kind), true))
}

fn by_peer(frame: Option<CloseFrame>) -> Closed {
    let (number, reason) =
        frame.map_or((0, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
    // Below 4000 are WebSocket's own: a page that was left, a tab that was closed.
    let code =
        if (4000..5000).contains(&number) { CloseCode::from_number(number) } else { CloseCode::Normal };
    Closed::ByPeer { code, reason }
}

fn closed(error: Error) -> Closed {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            Closed::FrameTooLarge { size: size as u64, limit: max_size }
        }
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing)
        | Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_) => Closed::Lost(error.to_string()),
        error => Closed::Protocol(error.to_string()),
    }
}

fn closed_here() -> Closed {
    Closed::Lost("it was closed from this end".into())
}
