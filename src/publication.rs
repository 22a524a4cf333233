//! A message in its place in a channel: immutable from the moment the log has it, so it is shared, never copied.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use serde::{Deserialize, Serialize};
use xpush_protocol::{
    self as protocol, ChannelName, Epoch, EventName, Json, MessageId, Payload, SessionId, UserId,
};

/// What a deleted message's event becomes, and the event of the publication that tells of the deletion.
pub const DELETED: &str = "xpush.deleted";

/// The data of that publication.
#[derive(Serialize, Deserialize)]
struct Deletion {
    offset: u64,
}

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
    /// What is left of it once it is deleted: its place, its id, whose it was and when.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self {
            offset: self.offset,
            message_id: self.message_id.clone(),
            event: deleted_event(),
            payload: nothing(),
            user: self.user.clone(),
            time: self.time,
            reply_to: None,
        }
    }

    /// Which message it says was deleted. Clients can't publish this event, so it is the server that says so.
    #[must_use]
    pub fn deletes(&self) -> Option<u64> {
        deleted_offset(&self.event, &self.payload)
    }

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
    /// Milliseconds from `time` on after which it goes. The node that takes it sees to that, and no log keeps it.
    pub expires_in: Option<u32>,
}

impl Draft {
    /// Tells who has the message of this offset that it was deleted. However often it is said, it stands once. `user`:
    /// who deleted it; `None`: a backend, or its time was over.
    #[must_use]
    pub fn deletion(offset: u64, user: Option<UserId>, time: u64) -> Self {
        // A number is always written, and makes an id of visible characters.
        #[allow(clippy::expect_used)]
        let (message_id, data) = (
            format!("deleted-{offset}").parse().expect("it is an id"),
            Json::from_value(&Deletion { offset }).expect("it is JSON"),
        );
        Self {
            publisher: Publisher::server(),
            message_id,
            retriable: true,
            event: deleted_event(),
            payload: Payload::Json(data),
            user,
            time,
            reply_to: None,
            mentions: Vec::new(),
            expires_in: None,
        }
    }

    /// As `Publication::deletes`.
    #[must_use]
    pub fn deletes(&self) -> Option<u64> {
        deleted_offset(&self.event, &self.payload)
    }

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
            expires_in: _,
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
        static SERVER: LazyLock<Arc<str>> = LazyLock::new(|| "x:".into());
        Self(Arc::clone(&SERVER))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The event of what was deleted.
#[must_use]
pub fn deleted_event() -> EventName {
    #[allow(clippy::expect_used)]
    static EVENT: LazyLock<EventName> = LazyLock::new(|| DELETED.parse().expect("it is an event's name"));
    EVENT.clone()
}

fn deleted_offset(event: &EventName, payload: &Payload) -> Option<u64> {
    let Payload::Json(data) = payload else { return None };
    let is_one = event.as_str() == DELETED;
    is_one.then(|| serde_json::from_str::<Deletion>(data.as_str()).ok().map(|deletion| deletion.offset))?
}

/// The data of what was deleted.
fn nothing() -> Payload {
    #[allow(clippy::expect_used)]
    static NULL: LazyLock<Json> = LazyLock::new(|| Json::parse("null").expect("it is JSON"));
    Payload::Json(NULL.clone())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::fixture::draft;

    #[test]
    fn what_is_left_of_a_deleted_message_says_nothing() {
        let user = Some("ann".parse().unwrap());
        let whole = Draft { user, reply_to: Some(3), ..draft("ann", 7) }.into_publication(9);
        let left = whole.redacted();
        assert_eq!((left.offset, &left.message_id, left.time), (9, &whole.message_id, whole.time));
        assert_eq!((left.event.as_str(), &left.user, left.reply_to), (DELETED, &whole.user, None));
        assert_eq!(left.payload, nothing());
        assert_eq!(left.redacted(), left);
        assert_eq!((whole.deletes(), left.deletes()), (None, None));
    }

    #[test]
    fn a_deletion_says_which_message_it_is_of_and_is_one_message() {
        let (first, again) = (Draft::deletion(42, None, 1), Draft::deletion(42, None, 2));
        assert_eq!((&first.publisher, &first.message_id), (&again.publisher, &again.message_id));
        assert_ne!(first.message_id, Draft::deletion(43, None, 1).message_id);
        assert_eq!(first.into_publication(50).deletes(), Some(42));
    }
}
