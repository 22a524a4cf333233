//! The program's own client, over any wire, with the patience of a test.

use tokio::time::timeout;
use xpush::client::{Client, ClientError, Server, Via};
use xpush_protocol::{
    ChannelName, ClientFrame, Codec, Connect, Connected, Cursor, ErrorCode, Json, MessageId, Ping, Publish,
    Published, ServerFrame, Subscribe, Subscribed,
};

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
    move |id| ClientFrame::Publish(Publish { id, channel, message_id, event, data, binary: None })
}
