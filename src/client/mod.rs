//! A client for the command line and the benchmarks: one connection over any wire, with answers matched to their
//! commands. It is no SDK; it reconnects only as far as its caller does.

mod sequence;
#[cfg(feature = "cli")]
mod wire;

use std::{collections::HashMap, time::Duration};

use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use xpush_protocol::{ClientFrame, Codec, Connect, Connected, ErrorCode, ServerFrame};
use xpush_transports::{Closed, Connection, Farewell, Lane, Outgoing, Reader, Writer};

pub use sequence::{Overflow, Sequence, Step};
#[cfg(feature = "cli")]
pub use wire::{DialError, Server, Via, Visit};

/// Commands that may wait to be written; a caller that is faster waits.
const COMMANDS_CAPACITY: usize = 256;
/// Events that may wait for the caller; a caller that is slower slows the connection down.
const EVENTS_CAPACITY: usize = 256;
/// Until the server has told its own.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Frames in one write.
const BATCH_LIMIT: usize = 256;

/// One connection to a server.
pub struct Client {
    commands: mpsc::Sender<Call>,
    events: mpsc::Receiver<ServerFrame>,
    driver: JoinHandle<Closed>,
    next_id: u32,
    ping_interval: Duration,
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
        Self { commands, events, driver, next_id: 1, ping_interval: PING_INTERVAL }
    }

    /// Says who this is. Further answers to it (`subscribed`) come as events.
    pub async fn connect(&mut self, connect: Connect) -> Result<Connected, ClientError> {
        match self.call(|id| ClientFrame::Connect(Connect { id, ..connect })).await? {
            ServerFrame::Connected(connected) => {
                self.ping_interval = Duration::from_millis(connected.ping_interval.max(1).into());
                Ok(connected)
            }
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
        match answered.await {
            Ok(ServerFrame::Error(error)) => {
                Err(ClientError::Refused { code: error.code, message: error.message })
            }
            Ok(frame) => Ok(frame),
            Err(_) => Err(self.closed().await),
        }
    }

    /// The next frame that is no answer to a command.
    pub async fn event(&mut self) -> Result<ServerFrame, ClientError> {
        match self.events.recv().await {
            Some(event) => Ok(event),
            None => Err(self.closed().await),
        }
    }

    /// How often the server wants to hear something.
    #[must_use]
    pub fn ping_interval(&self) -> Duration {
        self.ping_interval
    }

    /// Says goodbye and waits until it was heard.
    pub async fn close(self) {
        let Self { commands, events, driver, .. } = self;
        drop((commands, events));
        // A driver that panicked has no goodbye to say.
        let _ = driver.await;
    }

    async fn closed(&mut self) -> ClientError {
        let closed = (&mut self.driver).await;
        ClientError::Closed(closed.unwrap_or_else(|error| Closed::Lost(error.to_string())))
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
    let closed = loop {
        tokio::select! {
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
                match answered_id(&frame).and_then(|id| waiting.remove(&id)) {
                    // Who no longer waits does not want it.
                    Some(answer) => drop(answer.send(frame)),
                    None => if events.send(frame).await.is_err() {
                        break Closed::Lost("closed here".into());
                    },
                }
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
        ServerFrame::Error(x) => x.id,
        _ => None,
    }
}
