//! Two clients, over any wire. `Client` is one connection, with answers matched to their commands: for benchmarks and
//! tests, which want to see it break. `Session` goes on over as many connections as it takes, and finds the nodes of a
//! cluster.

#[cfg(feature = "cli")]
mod lookup;
mod sequence;
#[cfg(feature = "cli")]
mod session;
#[cfg(feature = "cli")]
mod wire;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, interval_at},
};
use xpush_protocol::{ClientFrame, Codec, Connect, Connected, ErrorCode, Ping, Pong, ServerFrame};
use xpush_transports::{Closed, Connection, Farewell, Lane, Outgoing, Reader, Writer};

pub use sequence::{Overflow, Sequence, Step};
#[cfg(feature = "cli")]
pub use session::{Acknowledged, Ended, Event, Options, PublishError, Publisher, Session, Start};
#[cfg(feature = "cli")]
pub use wire::{DialError, Server, Via, Visit};

/// Commands that may wait to be written; a caller that is faster waits.
const COMMANDS_CAPACITY: usize = 256;
/// Events that may wait for the caller; a caller that is slower slows the connection down.
const EVENTS_CAPACITY: usize = 256;
/// The driver says this often that it lives: under every server's `ping_interval` that makes sense.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A server that was killed says nothing, on wires without a connection to break: two pings went unanswered.
const SILENCE_LIMIT: Duration = Duration::from_secs(11);
/// The driver's own commands, whose answers nobody waits for; callers count up from 1.
const PING_ID: u32 = u32::MAX;
/// Frames in one write.
const BATCH_LIMIT: usize = 256;

/// One connection to a server.
pub struct Client {
    commands: mpsc::Sender<Call>,
    events: mpsc::Receiver<ServerFrame>,
    /// Events that came while an answer was waited for: they stand before it on the wire.
    early: VecDeque<ServerFrame>,
    driver: JoinHandle<Closed>,
    closed: Option<Closed>,
    next_id: u32,
}

struct Call {
    frame: ClientFrame,
    answer: oneshot::Sender<ServerFrame>,
}

/// Why a command was not done.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("{code}: {message}")]
    Refused { code: ErrorCode, message: String },
    #[error("the connection is closed: {0}")]
    Closed(Closed),
    #[error("the server answered with an unexpected frame: {0}")]
    Unexpected(String),
}

impl Client {
    /// Takes a dialled connection over.
    #[must_use]
    pub fn start(connection: impl Connection, codec: Codec) -> Self {
        let (commands, commands_in) = mpsc::channel(COMMANDS_CAPACITY);
        let (events_out, events) = mpsc::channel(EVENTS_CAPACITY);
        let driver = tokio::spawn(drive(connection, codec, commands_in, events_out));
        Self { commands, events, driver, next_id: 1, early: VecDeque::new(), closed: None }
    }

    /// Says who this is. Further answers to it (`subscribed`) come as events.
    pub async fn connect(&mut self, connect: Connect) -> Result<Connected, ClientError> {
        match self.call(|id| ClientFrame::Connect(Connect { id, ..connect })).await? {
            ServerFrame::Connected(connected) => Ok(connected),
            other => Err(ClientError::Unexpected(format!("{other:?}"))),
        }
    }

    /// Sends a command and waits for its answer.
    pub async fn call(
        &mut self,
        command: impl FnOnce(u32) -> ClientFrame,
    ) -> Result<ServerFrame, ClientError> {
        let frame = command(self.next_id);
        self.next_id = self.next_id.wrapping_add(1).max(1);
        let (answer, answered) = oneshot::channel();
        if self.commands.send(Call { frame, answer }).await.is_err() {
            return Err(self.closed().await);
        }
        let mut answered = answered;
        let answer = loop {
            tokio::select! {
                answer = &mut answered => break answer,
                Some(event) = self.events.recv() => self.early.push_back(event),
            }
        };
        match answer {
            Ok(ServerFrame::Error(error)) => {
                Err(ClientError::Refused { code: error.code, message: error.message })
            }
            Ok(frame) => Ok(frame),
            Err(_) => Err(self.closed().await),
        }
    }

    /// The next frame that is no answer to a command.
    pub async fn event(&mut self) -> Result<ServerFrame, ClientError> {
        if let Some(event) = self.early.pop_front() {
            return Ok(event);
        }
        match self.events.recv().await {
            Some(event) => Ok(event),
            None => Err(self.closed().await),
        }
    }

    /// Says goodbye and waits until it was heard.
    pub async fn close(self) {
        let Self { commands, events, driver, closed, .. } = self;
        drop((commands, events));
        if closed.is_none() {
            // A driver that panicked has no goodbye to say.
            let _ = driver.await;
        }
    }

    async fn closed(&mut self) -> ClientError {
        let closed = match self.closed.take() {
            Some(closed) => closed,
            None => (&mut self.driver).await.unwrap_or_else(|error| Closed::Lost(error.to_string())),
        };
        ClientError::Closed(self.closed.insert(closed).clone())
    }
}

/// Owns the connection: writes commands, hands each answer to who waits for it and all else to the caller.
async fn drive(
    connection: impl Connection,
    codec: Codec,
    mut commands: mpsc::Receiver<Call>,
    events: mpsc::Sender<ServerFrame>,
) -> Closed {
    let (_, mut reader, mut writer) = connection.split();
    let mut waiting: HashMap<u32, oneshot::Sender<ServerFrame>> = HashMap::new();
    let mut calls = Vec::new();
    // Not before the connection is greeted: `connect` comes first.
    let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    let mut heard = Instant::now();
    let closed = loop {
        tokio::select! {
            _ = pings.tick() => {
                if heard.elapsed() > SILENCE_LIMIT {
                    break Closed::Lost("the server is silent".into());
                }
                let ping = codec.encode(&ClientFrame::Ping(Ping { id: PING_ID }));
                if let Err(closed) = writer.write(&mut vec![Outgoing { bytes: ping, lane: Lane::Control }]).await {
                    break closed;
                }
            }
            count = commands.recv_many(&mut calls, BATCH_LIMIT) => {
                if count == 0 {
                    writer.close(Farewell::new(xpush_protocol::CloseCode::Normal, "done")).await;
                    return Closed::Lost("closed here".into());
                }
                let mut batch = calls.drain(..).map(|Call { frame, answer }| {
                    waiting.insert(frame.id(), answer);
                    Outgoing { bytes: codec.encode(&frame), lane: Lane::Control }
                }).collect();
                if let Err(closed) = writer.write(&mut batch).await {
                    break closed;
                }
            }
            frame = reader.read() => {
                let frame = match frame.map(|bytes| codec.decode::<ServerFrame>(&bytes)) {
                    Ok(Ok(frame)) => frame,
                    Ok(Err(error)) => break Closed::Protocol(error),
                    Err(closed) => break closed,
                };
                if matches!(frame, ServerFrame::Pong(Pong { id: PING_ID })) {
                    heard = Instant::now();
                    continue;
                }
                match answered_id(&frame).and_then(|id| waiting.remove(&id)) {
                    // Who no longer waits does not want it.
                    Some(answer) => drop(answer.send(frame)),
                    None => if events.send(frame).await.is_err() {
                        break Closed::Lost("closed here".into());
                    },
                }
                // After the caller took it: the time that a slow one takes is not the server's silence.
                heard = Instant::now();
            }
        }
    };
    writer.close(closed.farewell()).await;
    closed
}

fn answered_id(frame: &ServerFrame) -> Option<u32> {
    match frame {
        ServerFrame::Connected(x) => Some(x.id),
        ServerFrame::Subscribed(x) => Some(x.id),
        ServerFrame::Unsubscribed(x) => x.id,
        ServerFrame::Published(x) => Some(x.id),
        ServerFrame::Sent(x) => Some(x.id),
        ServerFrame::History(x) => Some(x.id),
        ServerFrame::Presence(x) => Some(x.id),
        ServerFrame::Refreshed(x) => Some(x.id),
        ServerFrame::Pong(x) => Some(x.id),
        ServerFrame::Done(x) => Some(x.id),
        ServerFrame::Error(x) => x.id,
        _ => None,
    }
}
