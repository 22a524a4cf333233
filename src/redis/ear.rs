//! A connection for Pub/Sub: what is heard never waits behind what is asked.

use std::sync::Arc;

use ::redis::{
    Pipeline, PushInfo, PushKind, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
};

use super::{LinkError, Server, link::read};

/// Topics that are subscribed to in one go, so that a thousand of them are no single long answer.
const AT_ONCE: usize = 256;

/// What comes over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Message {
        topic: Vec<u8>,
        body: Vec<u8>,
    },
    /// The server let go of a topic: because it was asked to, or because the topic's slot went elsewhere.
    Left(Vec<u8>),
    /// Nothing more will come.
    Lost,
}

/// A connection on which topics are heard.
pub(crate) struct Ear {
    connection: MultiplexedConnection,
}

impl Ear {
    /// `heard` is called where the connection is read: it must not wait.
    pub(crate) async fn open(
        server: &Arc<Server>,
        heard: impl Fn(Heard) + Send + Sync + 'static,
    ) -> Result<Self, LinkError> {
        let push = move |push: PushInfo| {
            if let Some(what) = understand(push) {
                heard(what);
            }
            Ok::<_, ()>(())
        };
        Ok(Self { connection: server.connect_again(push).await? })
    }

    /// Resolves when all of them are heard.
    pub(crate) async fn subscribe(&mut self, topics: &[String]) -> Result<(), LinkError> {
        self.each("SSUBSCRIBE", topics).await
    }

    pub(crate) async fn unsubscribe(&mut self, topics: &[String]) -> Result<(), LinkError> {
        self.each("SUNSUBSCRIBE", topics).await
    }

    /// Whether it still answers.
    pub(crate) async fn ping(&mut self) -> Result<(), LinkError> {
        let mut ping = Pipeline::new();
        ping.cmd("PING");
        self.send(&ping).await
    }

    /// One command for each topic, as a Cluster wants no two slots in one; all of them on the way together.
    async fn each(&mut self, command: &str, topics: &[String]) -> Result<(), LinkError> {
        for topics in topics.chunks(AT_ONCE) {
            let mut commands = Pipeline::new();
            for topic in topics {
                commands.cmd(command).arg(topic);
            }
            self.send(&commands).await?;
        }
        Ok(())
    }

    async fn send(&mut self, commands: &Pipeline) -> Result<(), LinkError> {
        let answered = self.connection.req_packed_commands(commands, 0, commands.len()).await;
        let replies = answered.map_err(|error| LinkError::Unreachable {
            address: "a subscription's server".into(),
            reason: error.to_string(),
        })?;
        replies.into_iter().try_for_each(|reply| read::<Value>(reply).map(drop))
    }
}

fn understand(push: PushInfo) -> Option<Heard> {
    let mut texts = push.data.into_iter().map(|value| match value {
        Value::BulkString(bytes) => bytes,
        Value::SimpleString(text) => text.into_bytes(),
        _ => Vec::new(),
    });
    match push.kind {
        PushKind::SMessage => Some(Heard::Message { topic: texts.next()?, body: texts.next()? }),
        PushKind::SUnsubscribe => Some(Heard::Left(texts.next()?)),
        PushKind::Disconnection => Some(Heard::Lost),
        _ => None,
    }
}
