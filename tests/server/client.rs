//! The program's own client, over any wire, with the patience of a test.

use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use xpush::client::{Client, ClientError, DialError, Server, Via, Visit};
use xpush_protocol::{
    ChannelName, ClientFrame, Codec, Connect, Connected, Cursor, ErrorCode, Json, MessageId, Ping, Publish,
    Published, ServerFrame, Subscribe, Subscribed,
};
use xpush_transports::{Closed, Connection, Lane, Outgoing, Reader as _, Writer as _};

use super::process::{PATIENCE, ServerProcess};

pub(crate) const WIRES: [Via; 4] = [Via::Quic, Via::Webtransport, Via::Websocket, Via::Longpoll];

pub(crate) fn channel(name: &str) -> ChannelName {
    name.parse().unwrap()
}

pub(crate) fn code(error: &ClientError) -> ErrorCode {
    match error {
        ClientError::Refused { code, .. } => *code,
        other => panic!("{other}"),
    }
}

/// A connected client.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) connected: Connected,
}

impl Session {
    pub(crate) async fn open(server: &ServerProcess, via: Via) -> Self {
        Self::with(server, via, Connect::default()).await.unwrap()
    }

    pub(crate) async fn user(server: &ServerProcess, via: Via, token: &str) -> Result<Self, ClientError> {
        Self::with(server, via, Connect { token: Some(token.into()), ..Connect::default() }).await
    }

    pub(crate) async fn with(
        server: &ServerProcess,
        via: Via,
        connect: Connect,
    ) -> Result<Self, ClientError> {
        let found = Server::discover(&server.url(), &[]).await.unwrap();
        let codec = if via == Via::Longpoll { Codec::Json } else { Codec::MessagePack };
        let mut client = found.dial(via, codec).await.unwrap();
        let connected = timeout(PATIENCE, client.connect(connect)).await.expect("an answer in time")?;
        Ok(Self { client, connected })
    }

    pub(crate) async fn call(
        &mut self,
        command: impl FnOnce(u32) -> ClientFrame,
    ) -> Result<ServerFrame, ClientError> {
        timeout(PATIENCE, self.client.call(command)).await.expect("an answer in time")
    }

    pub(crate) async fn event(&mut self) -> ServerFrame {
        timeout(PATIENCE, self.client.event()).await.expect("an event in time").unwrap()
    }

    pub(crate) async fn subscribe(&mut self, name: &str) -> Result<Subscribed, ClientError> {
        self.subscribe_at(name, None).await
    }

    pub(crate) async fn subscribe_at(
        &mut self,
        name: &str,
        cursor: Option<Cursor>,
    ) -> Result<Subscribed, ClientError> {
        let channel = channel(name);
        match self.call(|id| ClientFrame::Subscribe(Subscribe { id, channel, cursor, last: None })).await? {
            ServerFrame::Subscribed(subscribed) => Ok(subscribed),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn publish(
        &mut self,
        name: &str,
        data: impl serde::Serialize,
    ) -> Result<Published, ClientError> {
        self.publish_as(name, MessageId::random(), data).await
    }

    pub(crate) async fn publish_as(
        &mut self,
        name: &str,
        message_id: MessageId,
        data: impl serde::Serialize,
    ) -> Result<Published, ClientError> {
        let frame = publish(name, message_id, data);
        match self.call(frame).await? {
            ServerFrame::Published(published) => Ok(published),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn ping(&mut self) {
        let answer = self.call(|id| ClientFrame::Ping(Ping { id })).await.unwrap();
        assert!(matches!(answer, ServerFrame::Pong(_)), "{answer:?}");
    }

    /// The next publication's offset and data; other events are passed over.
    pub(crate) async fn publication(&mut self) -> (u64, String) {
        loop {
            if let ServerFrame::Publication(publication) = self.event().await {
                return (publication.offset, publication.data.unwrap().as_str().to_owned());
            }
        }
    }
}

pub(crate) fn publish(
    name: &str,
    message_id: MessageId,
    data: impl serde::Serialize,
) -> impl FnOnce(u32) -> ClientFrame {
    let (channel, message_id) = (channel(name), Some(message_id));
    let data = Some(Json::from_value(&data).unwrap());
    let event = xpush_protocol::EventName::default();
    move |id| {
        ClientFrame::Publish(Publish {
            id,
            channel,
            message_id,
            event,
            data,
            binary: None,
            reply_to: None,
            mentions: Vec::new(),
            expires_in: None,
        })
    }
}

/// One connection whose frames the test writes itself, over whichever wire.
pub(crate) struct RawWire {
    codec: Codec,
    out: mpsc::Sender<Bytes>,
    frames: mpsc::Receiver<Result<Bytes, Closed>>,
    /// Gone with this: what is still queued is not sent by a ghost.
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl RawWire {
    pub(crate) async fn open(server: &ServerProcess, via: Via, codec: Codec) -> Self {
        let found = Server::discover(&server.url(), &[]).await.unwrap();
        Self::dial(&found, via, codec).await.unwrap()
    }

    pub(crate) async fn dial(found: &Server, via: Via, codec: Codec) -> Result<Self, DialError> {
        found.dial_with(via, codec, Pump(codec)).await
    }

    /// Connected as nobody.
    pub(crate) async fn session(server: &ServerProcess, via: Via, codec: Codec) -> Self {
        let mut wire = Self::open(server, via, codec).await;
        wire.send(&ClientFrame::Connect(Connect { id: 1, ..Connect::default() })).await;
        let answer = wire.next().await.unwrap();
        assert!(matches!(answer, ServerFrame::Connected(_)), "{answer:?}");
        wire
    }

    pub(crate) async fn send(&self, frame: &ClientFrame) -> bool {
        self.raw(self.codec.encode(frame)).await
    }

    /// False if the connection is gone.
    pub(crate) async fn raw(&self, bytes: impl Into<Bytes>) -> bool {
        timeout(PATIENCE, self.out.send(bytes.into())).await.expect("room in time").is_ok()
    }

    pub(crate) async fn next(&mut self) -> Result<ServerFrame, Closed> {
        let lost = || Closed::Lost("the reader is gone".into());
        let frame = timeout(PATIENCE, self.frames.recv()).await.expect("a frame in time");
        Ok(self.codec.decode(&frame.ok_or_else(lost)??).unwrap())
    }

    /// The next answer to a publish, which has to be an acknowledgement; events are passed over.
    pub(crate) async fn published(&mut self) -> Published {
        loop {
            match self.next().await.unwrap() {
                ServerFrame::Published(published) => return published,
                ServerFrame::Error(error) => panic!("{error:?}"),
                _ => {}
            }
        }
    }

    /// The next `error`; other frames are passed over.
    pub(crate) async fn refusal(&mut self) -> xpush_protocol::Error {
        loop {
            if let ServerFrame::Error(error) = self.next().await.unwrap() {
                return error;
            }
        }
    }

    /// How it ends; what comes before is passed over.
    pub(crate) async fn end(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.next().await {
                return closed;
            }
        }
    }
}

struct Pump(Codec);

impl Visit for Pump {
    type Output = RawWire;

    fn visit(self, connection: impl Connection) -> RawWire {
        const QUEUE: usize = 64;
        let (_, mut reader, mut writer) = connection.split();
        let (out, mut outgoing) = mpsc::channel(QUEUE);
        let (incoming, frames) = mpsc::channel(QUEUE);
        let reading = tokio::spawn(async move {
            loop {
                let frame = reader.read().await;
                let ended = frame.is_err();
                if incoming.send(frame).await.is_err() || ended {
                    return;
                }
            }
        });
        let writing = tokio::spawn(async move {
            while let Some(bytes) = outgoing.recv().await {
                if writer.write(&mut vec![Outgoing { bytes, lane: Lane::Control }]).await.is_err() {
                    return;
                }
            }
        });
        let tasks = [reading, writing].map(AbortOnDropHandle::new);
        RawWire { codec: self.0, out, frames, _tasks: tasks }
    }
}
