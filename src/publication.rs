//! A message in its place in a channel: immutable from the moment the log has it, so it is shared, never copied.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use xpush_protocol::{
    self as protocol, ChannelName, Epoch, EventName, MessageId, Payload, SessionId, UserId,
};

/// A message that the log has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    pub offset: u64,
    pub message_id: MessageId,
    pub event: EventName,
    pub payload: Payload,
    /// Whom the subscribers see as its author. `None`: anonymous, or a backend.
    pub user: Option<UserId>,
    /// Milliseconds since 1970, by the clock of the node that took it.
    pub time: u64,
    /// The offset of the message in the same channel that this one answers. What its publisher says: it may be gone, or
    /// never have been.
    pub reply_to: Option<u64>,
}

impl Publication {
    /// As clients see it. `epoch`: `None` where they know it already.
    #[must_use]
    pub fn to_frame(&self, channel: &ChannelName, epoch: Option<Epoch>) -> protocol::Publication {
        let (data, binary) = self.payload.clone().into_fields();
        protocol::Publication {
            channel: channel.clone(),
            offset: self.offset,
            epoch,
            message_id: self.message_id.clone(),
            event: self.event.clone(),
            data,
            binary,
            user: self.user.clone(),
            time: self.time,
            reply_to: self.reply_to,
        }
    }
}

/// A message on its way into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub publisher: Publisher,
    pub message_id: MessageId,
    /// Whether the publisher knows the message's id, and so may send it again. A log in memory need not remember any
    /// other.
    pub retriable: bool,
    pub event: EventName,
    pub payload: Payload,
    pub user: Option<UserId>,
    pub time: u64,
    pub reply_to: Option<u64>,
    /// Whose inbox is to tell of it. No log keeps them.
    pub mentions: Vec<UserId>,
}

impl Draft {
    #[must_use]
    pub fn into_publication(self, offset: u64) -> Publication {
        let Self {
            publisher: _,
            message_id,
            retriable: _,
            event,
            payload,
            user,
            time,
            reply_to,
            mentions: _,
        } = self;
        Publication { offset, message_id, event, payload, user, time, reply_to }
    }
}

/// In whose name a message id is unique: two publishers may use the same id for different messages.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Publisher(Arc<str>);

impl Publisher {
    #[must_use]
    pub fn user(user: &UserId) -> Self {
        // With its app: two of that name are two.
        Self(format!("u:{}", user.as_str()).into())
    }

    /// An anonymous client is known by its session.
    #[must_use]
    pub fn session(session: &SessionId) -> Self {
        Self(format!("s:{session}").into())
    }

    /// A backend is known by the id of its API key.
    #[must_use]
    pub fn backend(key_id: &str) -> Self {
        Self(format!("k:{key_id}").into())
    }

    /// What the server itself has to say, as in inboxes.
    #[must_use]
    pub fn server() -> Self {
        Self("x:".into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// As another node wrote it.
impl From<String> for Publisher {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Publisher> for String {
    fn from(publisher: Publisher) -> Self {
        publisher.as_str().to_owned()
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
