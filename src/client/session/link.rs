//! One connection of a session: frames in and out, and whether the server still lives.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use xpush_protocol::{ClientFrame, CloseCode, Codec, Connect, Connected, Ping, Pong, ServerFrame};
use xpush_transports::{Closed, Connection, Farewell, Lane, Outgoing, Reader, Writer};

use crate::client::{DialError, Server, Via, Visit};

/// Commands that may wait to be written, and frames that may wait to be taken; more wait on the wire.
const QUEUE_CAPACITY: usize = 256;
/// Frames in one write.
const BATCH_LIMIT: usize = 256;
/// A client that only listens says this often that it lives: under every server's `ping_interval` that makes sense.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// A server that takes nothing for as long is as good as dead, whatever it sends.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// `connect` is the first command of every connection.
const CONNECT_ID: u32 = 1;
/// The link's own pings, whose answers nobody else waits for.
const PING_ID: u32 = u32::MAX;
/// Frames that overtook `connected` on a wire of several streams.
const EARLY_CAPACITY: usize = 4096;

/// One connection.
pub(super) struct Link {
    pub(super) via: Via,
    commands: mpsc::Sender<ClientFrame>,
    frames: Frames,
    task: JoinHandle<()>,
}

/// What a server says, and at last why it says no more.
pub(super) type Frames = mpsc::Receiver<Result<ServerFrame, Closed>>;

/// A connection whose session is live.
pub(super) struct Greeted {
    pub(super) link: Link,
    pub(super) connected: Connected,
    /// What came before.
    pub(super) early: Vec<ServerFrame>,
}

/// Why a connection has no session.
pub(super) enum NotGreeted {
    Refused(xpush_protocol::Error),
    Closed(Closed),
}

impl Link {
    /// A connection that has said nothing yet. Gone with `dead_after` of silence once it has.
    pub(super) async fn dial(server: &Server, via: Via, dead_after: Duration) -> Result<Self, DialError> {
        let codec = if via == Via::Longpoll { Codec::Json } else { Codec::MessagePack };
        server.dial_with(via, codec, Start { via, codec, dead_after }).await
    }

    /// Says who this is.
    pub(super) async fn greet(mut self, connect: Connect) -> Result<Greeted, NotGreeted> {
        let mut early = Vec::new();
        // If it is closed already, the reader tells why.
        let _ = self.commands.send(ClientFrame::Connect(Connect { id: CONNECT_ID, ..connect })).await;
        loop {
            match self.next().await {
                Ok(ServerFrame::Connected(connected)) => return Ok(Greeted { link: self, connected, early }),
                Ok(ServerFrame::Error(error)) if error.channel.is_none() => {
                    self.close().await;
                    return Err(NotGreeted::Refused(error));
                }
                Ok(frame) if early.len() < EARLY_CAPACITY => early.push(frame),
                Ok(_) => {
                    return Err(NotGreeted::Closed(Closed::Protocol("`connected` does not come".into())));
                }
                Err(closed) => return Err(NotGreeted::Closed(closed)),
            }
        }
    }

    async fn next(&mut self) -> Result<ServerFrame, Closed> {
        self.frames.recv().await.unwrap_or_else(|| Err(Closed::Lost("the connection has ended".into())))
    }

    /// What came and was not taken.
    pub(super) fn rest(&mut self) -> Vec<ServerFrame> {
        let mut rest = Vec::new();
        while let Ok(Ok(frame)) = self.frames.try_recv() {
            rest.push(frame);
        }
        rest
    }

    /// Where commands go and frames come from. A connection that has ended takes none and says why.
    pub(super) fn halves(&mut self) -> (&mpsc::Sender<ClientFrame>, &mut Frames) {
        (&self.commands, &mut self.frames)
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        let Self { commands, frames, task, .. } = self;
        drop((commands, frames));
        // One that panicked has no goodbye to say.
        let _ = task.await;
    }
}

struct Start {
    via: Via,
    codec: Codec,
    dead_after: Duration,
}

impl Visit for Start {
    type Output = Link;

    fn visit(self, connection: impl Connection) -> Link {
        let (commands, commands_in) = mpsc::channel(QUEUE_CAPACITY);
        let (frames_out, frames) = mpsc::channel(QUEUE_CAPACITY);
        let task = tokio::spawn(drive(connection, self.codec, self.dead_after, commands_in, frames_out));
        Link { via: self.via, commands, frames, task }
    }
}

/// Owns the connection.
async fn drive(
    connection: impl Connection,
    codec: Codec,
    dead_after: Duration,
    mut commands: mpsc::Receiver<ClientFrame>,
    frames: mpsc::Sender<Result<ServerFrame, Closed>>,
) {
    let (_, mut reader, mut writer) = connection.split();
    let mut waiting: Option<ServerFrame> = None;
    let mut batch = Vec::new();
    let mut heard = Instant::now();
    // Nothing may come before `connect`.
    let mut said: Option<Instant> = None;
    let silence = dead_after / 3;
    let mut ticks = interval(silence);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let closed = loop {
        tokio::select! {
            _ = ticks.tick() => {
                let Some(last) = said else { continue };
                if waiting.is_some() {
                    // It is not read: the silence is ours.
                    heard = Instant::now();
                }
                if heard.elapsed() >= dead_after {
                    break Closed::Lost(format!("the server is silent for {} ms", heard.elapsed().as_millis()));
                }
                if heard.elapsed() < silence && last.elapsed() < SIGN_OF_LIFE {
                    continue;
                }
                batch.push(ClientFrame::Ping(Ping { id: PING_ID }));
            }
            count = commands.recv_many(&mut batch, BATCH_LIMIT) => {
                if count == 0 {
                    return writer.close(Farewell::new(CloseCode::Normal, "done")).await;
                }
            }
            permit = frames.reserve(), if waiting.is_some() => {
                if let (Ok(permit), Some(frame)) = (permit, waiting.take()) {
                    permit.send(Ok(frame));
                }
                // Where nobody takes them any more, nobody commands either.
                continue;
            }
            frame = reader.read(), if waiting.is_none() => {
                match frame.map(|bytes| codec.decode::<ServerFrame>(&bytes)) {
                    Ok(Ok(ServerFrame::Pong(Pong { id: PING_ID }))) => {}
                    Ok(Ok(frame)) => waiting = Some(frame),
                    // A newer server says more than is known here.
                    Ok(Err(_)) => {}
                    Err(closed) => break closed,
                }
                heard = Instant::now();
                continue;
            }
        }
        said = Some(Instant::now());
        let encoded = |frame: ClientFrame| Outgoing { bytes: codec.encode(&frame), lane: Lane::Control };
        let mut outgoing = batch.drain(..).map(encoded).collect();
        match timeout(WRITE_LIMIT.max(dead_after), writer.write(&mut outgoing)).await {
            Ok(Ok(())) => {}
            Ok(Err(closed)) => break closed,
            Err(_) => break Closed::Lost("the server takes nothing any more".into()),
        }
    };
    // Before the goodbye, which a dead server is slow to take.
    if let Some(frame) = waiting {
        let _ = frames.send(Ok(frame)).await;
    }
    let farewell = closed.farewell();
    let _ = frames.send(Err(closed)).await;
    drop(frames);
    writer.close(farewell).await;
}
