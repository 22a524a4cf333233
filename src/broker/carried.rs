//! What travels between nodes, and how it looks on the way.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xpush_protocol::{
    AppId, Binary, ChannelName, Codec, Cursor, DeviceId, Epoch, EventName, Json, Message, MessageId, Payload,
    ServerFrame, SessionId, Target, UserDevice, UserId,
};

use super::Topic;
use crate::{
    membership::NodeId,
    publication::{Draft, Publication, Publisher},
};

/// Something on its way to the other nodes.
#[derive(Debug, Clone, PartialEq)]
pub enum Carried {
    /// A publication that the log has.
    Publication {
        channel: ChannelName,
        epoch: Epoch,
        publication: Arc<Publication>,
    },
    /// The log has the channel up to here; somebody may not have heard of it.
    Top {
        channel: ChannelName,
        cursor: Cursor,
    },
    /// Somebody came or went: `join`, `leave` or `occupancy`.
    Presence {
        channel: ChannelName,
        occupancy: u32,
        frame: ServerFrame,
    },
    /// News of a channel for all who are there, and for nobody later: a signal, a receipt.
    Event {
        channel: ChannelName,
        frame: ServerFrame,
    },
    /// A private message. Every node that gets it tells `from` how many sessions took it (`Accepted`).
    Message {
        /// Whose sessions may take it.
        app: AppId,
        to: Target,
        message: Message,
        from: NodeId,
        request: u64,
    },
    Accepted {
        node: NodeId,
        request: u64,
        sessions: u32,
    },
    /// A session goes on at another node.
    Taken(Taken),
    /// Drafts of one channel for this node to append, in their order. It tells `from` what became of them (`Appended`).
    Append {
        node: NodeId,
        from: NodeId,
        request: u64,
        /// Milliseconds since 1970: one that comes late is not done.
        sent: u64,
        channel: ChannelName,
        drafts: Vec<Draft>,
    },
    /// It takes longer, and comes.
    Appending {
        node: NodeId,
        request: u64,
    },
    Appended {
        node: NodeId,
        request: u64,
        placed: Placed,
    },
}

/// What became of the drafts of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Where they stand, in their order. Behind the last of these nothing was appended that is known of.
    pub places: Vec<Standing>,
    /// The rest would fare no better elsewhere: the log can't keep up.
    pub is_behind: bool,
}

/// Where a draft stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub epoch: u32,
    pub offset: u64,
    /// The message was there already.
    pub duplicate: bool,
}

/// A session goes on at another node: connections of it that began earlier are over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    pub session: SessionId,
    /// Of the connection that took it: older ones have a lower one.
    pub generation: u64,
}

impl Carried {
    /// Whom it concerns.
    #[must_use]
    pub fn topic(&self) -> Topic {
        match self {
            Self::Publication { channel, .. }
            | Self::Top { channel, .. }
            | Self::Event { channel, .. }
            | Self::Presence { channel, .. } => Topic::Channel(channel.clone()),
            Self::Message { to: Target::Session(session), .. } => Topic::Session(session.clone()),
            Self::Message { to: Target::User(user), .. }
            | Self::Message { to: Target::Device(UserDevice { user, .. }), .. } => Topic::User(user.clone()),
            Self::Accepted { node, .. }
            | Self::Append { node, .. }
            | Self::Appending { node, .. }
            | Self::Appended { node, .. } => Topic::Node(node.clone()),
            Self::Taken(taken) => Topic::Session(taken.session.clone()),
        }
    }
}

/// Between an app and a session's id, which has no such character.
const APP_END: char = '\u{1f}';

/// The version of what follows it: nodes of two versions share a broker while a cluster is upgraded, and what is of
/// another version is lost, which the log makes good.
const FORMAT: u8 = 1;

/// On the way. A frame of the protocol travels as its own JSON, so its names are without their app, as its readers know
/// them; data as its publisher wrote it. What says whom it concerns has its app with it.
#[derive(Serialize, Deserialize)]
enum Packed<'a> {
    #[serde(borrow)]
    Publication(PackedPublication<'a>),
    Top {
        #[serde(with = "serde_scoped")]
        channel: ChannelName,
        epoch: u32,
        offset: u64,
    },
    Presence {
        #[serde(with = "serde_scoped")]
        channel: ChannelName,
        occupancy: u32,
        frame: String,
    },
    Message {
        to: PackedTarget,
        frame: String,
        from: NodeId,
        request: u64,
    },
    Accepted {
        node: NodeId,
        request: u64,
        sessions: u32,
    },
    Taken(Taken),
    Append {
        node: NodeId,
        from: NodeId,
        request: u64,
        sent: u64,
        #[serde(with = "serde_scoped")]
        channel: ChannelName,
        #[serde(borrow)]
        drafts: Vec<PackedDraft<'a>>,
    },
    Appending {
        node: NodeId,
        request: u64,
    },
    Appended {
        node: NodeId,
        request: u64,
        placed: Placed,
    },
    Event {
        #[serde(with = "serde_scoped")]
        channel: ChannelName,
        frame: String,
    },
}

#[derive(Serialize, Deserialize)]
struct PackedPublication<'a> {
    #[serde(with = "serde_scoped")]
    channel: ChannelName,
    epoch: u32,
    offset: u64,
    message_id: MessageId,
    event: EventName,
    binary: bool,
    #[serde(with = "serde_bytes_slice", borrow)]
    data: &'a [u8],
    /// One of the channel's app.
    user: Option<UserId>,
    time: u64,
    /// Last, and left out where it is not: a node that does not know of it reads all the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_to: Option<u64>,
}

/// Whom a private message is for, with the app.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PackedTarget {
    Session(String),
    User(String),
    Device(PackedDevice),
}

#[derive(Serialize, Deserialize)]
struct PackedDevice {
    user: String,
    device: DeviceId,
}

#[derive(Serialize, Deserialize)]
struct PackedDraft<'a> {
    publisher: Publisher,
    message_id: MessageId,
    event: EventName,
    binary: bool,
    #[serde(with = "serde_bytes_slice", borrow)]
    data: &'a [u8],
    /// One of the channel's app.
    user: Option<UserId>,
    time: u64,
    /// As `reply_to` above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    more: Option<PackedMore>,
}

/// What few drafts have.
#[derive(Serialize, Deserialize)]
struct PackedMore {
    reply_to: Option<u64>,
    mentions: Vec<UserId>,
}

impl<'a> PackedDraft<'a> {
    fn new(draft: &'a Draft) -> Self {
        let Draft {
            publisher,
            message_id,
            retriable: _,
            event,
            payload,
            user,
            time,
            reply_to,
            mentions,
            // The node that it came to has seen to that.
            expires_in: _,
        } = draft;
        let has_more = reply_to.is_some() || !mentions.is_empty();
        let (binary, data) = pack(payload);
        Self {
            publisher: publisher.clone(),
            message_id: message_id.clone(),
            event: event.clone(),
            binary,
            data,
            user: user.clone(),
            time: *time,
            more: has_more.then(|| PackedMore { reply_to: *reply_to, mentions: mentions.clone() }),
        }
    }

    fn draft(self, app: &AppId) -> Option<Draft> {
        let Self { publisher, message_id, event, binary, data, user, time, more } = self;
        let (reply_to, mut mentions) =
            more.map_or_else(Default::default, |more| (more.reply_to, more.mentions));
        for mentioned in &mut mentions {
            *mentioned = mentioned.within(app);
        }
        // By the node that sends it on, if by nobody else.
        let retriable = true;
        let (payload, user) = (unpack(binary, data)?, user.map(|user| user.within(app)));
        Some(Draft {
            publisher,
            message_id,
            retriable,
            event,
            payload,
            user,
            time,
            reply_to,
            mentions,
            expires_in: None,
        })
    }
}

impl PackedTarget {
    fn new(app: &AppId, to: &Target) -> Self {
        match to {
            Target::Session(session) if app.is_default() => Self::Session(session.as_str().to_owned()),
            Target::Session(session) => Self::Session(format!("{app}{APP_END}{session}")),
            Target::User(user) => Self::User(user.as_str().to_owned()),
            Target::Device(UserDevice { user, device }) => {
                Self::Device(PackedDevice { user: user.as_str().to_owned(), device: device.clone() })
            }
        }
    }

    fn target(&self) -> Option<(AppId, Target)> {
        match self {
            Self::Session(text) => {
                let (app, session) = match text.split_once(APP_END) {
                    Some((app, session)) => (app.parse().ok()?, session),
                    None => (AppId::default(), text.as_str()),
                };
                Some((app, Target::Session(session.parse().ok()?)))
            }
            Self::User(text) => {
                let user = UserId::from_scoped(text).ok()?;
                Some((user.app(), Target::User(user)))
            }
            Self::Device(PackedDevice { user, device }) => {
                let user = UserId::from_scoped(user).ok()?;
                let device = device.clone();
                Some((user.app(), Target::Device(UserDevice { user, device })))
            }
        }
    }
}

/// Whether it is binary, and its bytes.
fn pack(payload: &Payload) -> (bool, &[u8]) {
    match payload {
        Payload::Json(json) => (false, json.as_str().as_bytes()),
        Payload::Binary(binary) => (true, &binary.0),
    }
}

fn unpack(binary: bool, data: &[u8]) -> Option<Payload> {
    Some(if binary {
        Payload::Binary(Binary(Bytes::copy_from_slice(data)))
    } else {
        Payload::Json(Json::parse(std::str::from_utf8(data).ok()?).ok()?)
    })
}

/// A channel's name with its app.
mod serde_scoped {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use xpush_protocol::ChannelName;

    pub(super) fn serialize<S: Serializer>(name: &ChannelName, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ChannelName, D::Error> {
        ChannelName::from_scoped(<&str>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Bytes as bytes, not as a list of numbers, and read without a copy.
mod serde_bytes_slice {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de [u8], D::Error> {
        <&[u8]>::deserialize(deserializer)
    }
}

impl Carried {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // JSON is text.
        let frame = |frame: &ServerFrame| String::from_utf8_lossy(&Codec::Json.encode(frame)).into_owned();
        let packed = match self {
            Self::Publication { channel, epoch, publication } => {
                let (binary, data) = pack(&publication.payload);
                Packed::Publication(PackedPublication {
                    channel: channel.clone(),
                    epoch: epoch.0,
                    offset: publication.offset,
                    message_id: publication.message_id.clone(),
                    event: publication.event.clone(),
                    binary,
                    data,
                    user: publication.user.clone(),
                    time: publication.time,
                    reply_to: publication.reply_to,
                })
            }
            Self::Top { channel, cursor } => {
                Packed::Top { channel: channel.clone(), epoch: cursor.epoch.0, offset: cursor.offset }
            }
            Self::Presence { channel, occupancy, frame: told } => {
                Packed::Presence { channel: channel.clone(), occupancy: *occupancy, frame: frame(told) }
            }
            Self::Event { channel, frame: told } => {
                Packed::Event { channel: channel.clone(), frame: frame(told) }
            }
            Self::Message { app, to, message, from, request } => Packed::Message {
                to: PackedTarget::new(app, to),
                frame: frame(&ServerFrame::Message(message.clone())),
                from: from.clone(),
                request: *request,
            },
            Self::Accepted { node, request, sessions } => {
                Packed::Accepted { node: node.clone(), request: *request, sessions: *sessions }
            }
            Self::Taken(taken) => Packed::Taken(taken.clone()),
            Self::Append { node, from, request, sent, channel, drafts } => Packed::Append {
                node: node.clone(),
                from: from.clone(),
                request: *request,
                sent: *sent,
                channel: channel.clone(),
                drafts: drafts.iter().map(PackedDraft::new).collect(),
            },
            Self::Appending { node, request } => Packed::Appending { node: node.clone(), request: *request },
            Self::Appended { node, request, placed } => {
                Packed::Appended { node: node.clone(), request: *request, placed: placed.clone() }
            }
        };
        let mut bytes = vec![FORMAT];
        // The type has nothing that MessagePack could not hold, and a vector takes every byte.
        #[allow(clippy::expect_used)]
        rmp_serde::encode::write(&mut bytes, &packed).expect("it can be written");
        bytes
    }

    /// `None`: no node of this version wrote that.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&FORMAT, packed) = bytes.split_first()? else { return None };
        Some(match rmp_serde::from_slice(packed).ok()? {
            Packed::Publication(PackedPublication {
                channel,
                epoch,
                offset,
                message_id,
                event,
                binary,
                data,
                user,
                time,
                reply_to,
            }) => {
                let (payload, user) = (unpack(binary, data)?, user.map(|user| user.within(&channel.app())));
                let publication =
                    Arc::new(Publication { offset, message_id, event, payload, user, time, reply_to });
                Self::Publication { channel, epoch: Epoch(epoch), publication }
            }
            Packed::Top { channel, epoch, offset } => {
                Self::Top { channel, cursor: Cursor { epoch: Epoch(epoch), offset } }
            }
            Packed::Presence { channel, occupancy, frame } => {
                Self::Presence { channel, occupancy, frame: Codec::Json.decode(frame.as_bytes()).ok()? }
            }
            Packed::Event { channel, frame } => {
                Self::Event { channel, frame: Codec::Json.decode(frame.as_bytes()).ok()? }
            }
            Packed::Message { to, frame, from, request } => {
                let ServerFrame::Message(message) = Codec::Json.decode(frame.as_bytes()).ok()? else {
                    return None;
                };
                let (app, to) = to.target()?;
                Self::Message { app, to, message, from, request }
            }
            Packed::Accepted { node, request, sessions } => Self::Accepted { node, request, sessions },
            Packed::Taken(taken) => Self::Taken(taken),
            Packed::Append { node, from, request, sent, channel, drafts } => {
                let app = channel.app();
                let drafts = drafts.into_iter().map(|draft| draft.draft(&app)).collect::<Option<_>>()?;
                Self::Append { node, from, request, sent, channel, drafts }
            }
            Packed::Appending { node, request } => Self::Appending { node, request },
            Packed::Appended { node, request, placed } => Self::Appended { node, request, placed },
        })
    }
}
