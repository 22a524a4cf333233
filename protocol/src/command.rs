//! What a client sends. Each frame is a map with one key, the command's name; the answer carries the same `id`.

use serde::{Deserialize, Serialize};

use crate::{AppId, Binary, ChannelName, Cursor, DeviceId, EventName, Json, MessageId, SessionId, UserId};

/// A frame from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum ClientFrame {
    Connect(Connect),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    Publish(Publish),
    Send(Send),
    Signal(Signal),
    Read(Read),
    Received(Received),
    History(History),
    Presence(Presence),
    Refresh(Refresh),
    Delete(Delete),
    Ping(Ping),
}

impl ClientFrame {
    /// The number that the answer will carry.
    #[must_use]
    pub fn id(&self) -> u32 {
        match self {
            Self::Connect(x) => x.id,
            Self::Subscribe(x) => x.id,
            Self::Unsubscribe(x) => x.id,
            Self::Publish(x) => x.id,
            Self::Send(x) => x.id,
            Self::Signal(x) => x.id,
            Self::Read(x) => x.id,
            Self::Received(x) => x.id,
            Self::History(x) => x.id,
            Self::Presence(x) => x.id,
            Self::Refresh(x) => x.id,
            Self::Delete(x) => x.id,
            Self::Ping(x) => x.id,
        }
    }

    /// Every name that it says is one of that app: clients say local names, and a decoded frame has them as they were
    /// said.
    pub fn enter(&mut self, app: &AppId) {
        if app.is_default() {
            return;
        }
        // Field by field, so that one that is added is thought of.
        match self {
            Self::Connect(connect) => connect.enter(app),
            Self::Subscribe(Subscribe { id: _, channel, cursor: _, last: _ })
            | Self::Unsubscribe(Unsubscribe { id: _, channel })
            | Self::Signal(Signal { id: _, channel, event: _, data: _ })
            | Self::Read(Read { id: _, channel, offset: _ })
            | Self::Received(Received { id: _, channel, offset: _ })
            | Self::Delete(Delete { id: _, channel, offset: _ })
            | Self::History(History { id: _, channel, cursor: _, backward: _, limit: _ })
            | Self::Presence(Presence { id: _, channel }) => *channel = channel.within(app),
            Self::Publish(publish) => publish.enter(app),
            Self::Send(Send { id: _, to, event: _, data: _, binary: _ }) => *to = to.within(app),
            Self::Refresh(Refresh { id: _, token: _ }) | Self::Ping(Ping { id: _ }) => {}
        }
    }
}

/// The first frame of every connection. Answered by `connected`, then by one `subscribed` (or `error`) for each
/// of `subscriptions`, with this frame's `id`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(deny_unknown_fields)]
pub struct Connect {
    pub id: u32,
    /// Who this is and what it may do. Absent: anonymous, where the server allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What `POST /v1/tickets` gave, in the place of the token that it was given for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// What the last `connected` gave: the same session goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The resume vector: every channel with the cursor behind the last publication that was taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<Vec<Resubscribe>>"))]
    pub subscriptions: Vec<Resubscribe>,
    /// Take the state's identity, but none of its subscriptions: a connection that only sends, beside the
    /// session's own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<bool>"))]
    pub detached: bool,
    /// The client's name and version, for the operator's logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

impl Connect {
    /// As `ClientFrame::enter`.
    pub fn enter(&mut self, app: &AppId) {
        let Self { id: _, token: _, ticket: _, state: _, subscriptions, detached: _, agent: _ } = self;
        for Resubscribe { channel, cursor: _ } in subscriptions {
            *channel = channel.within(app);
        }
    }
}

impl Publish {
    fn enter(&mut self, app: &AppId) {
        let Self {
            id: _,
            channel,
            message_id: _,
            event: _,
            data: _,
            binary: _,
            reply_to: _,
            mentions,
            expires_in: _,
        } = self;
        *channel = channel.within(app);
        for user in mentions {
            *user = user.within(app);
        }
    }
}

/// One entry of a resume vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(deny_unknown_fields)]
pub struct Resubscribe {
    pub channel: ChannelName,
    /// Absent: from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// Answered by `subscribed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    pub id: u32,
    pub channel: ChannelName,
    /// Resume behind this place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// Without a cursor: begin with the last this many publications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
}

/// Answered by `unsubscribed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    pub id: u32,
    pub channel: ChannelName,
}

/// Answered by `published` once the publication is as durable as its namespace promises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// 0: no answer is wanted, unless it is an error.
    pub id: u32,
    pub channel: ChannelName,
    /// The publisher's id of this message: sent again with the same one, it stands once in the log. Absent: a
    /// retry may stand twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    #[serde(default)]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<EventName>"))]
    pub event: EventName,
    /// The data, if it is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present")]
    pub data: Option<Json>,
    /// The data, if it is bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<Binary>,
    /// The offset of the message in this channel that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub reply_to: Option<u64>,
    /// Users whose inbox tells them of it: `MAX_MENTIONS` at most. They are not kept with the message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<Vec<UserId>>"))]
    pub mentions: Vec<UserId>,
    /// Milliseconds from now until the server deletes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u32>,
}

/// Users that one message may mention: each of them costs a publication in an inbox.
pub const MAX_MENTIONS: usize = 20;

/// A private message, to whoever is connected now. Answered by `sent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(deny_unknown_fields)]
pub struct Send {
    pub id: u32,
    pub to: Target,
    #[serde(default)]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<EventName>"))]
    pub event: EventName,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present")]
    pub data: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<Binary>,
}

/// Whom a private message is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Session(SessionId),
    /// Every session of this user.
    User(UserId),
    /// Every session of this user that signed in on this device.
    Device(UserDevice),
}

/// A device of a user: another user may have one of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct UserDevice {
    pub user: UserId,
    pub device: DeviceId,
}

/// Something that is of use now or not at all (typing, a position), to everybody who is in the channel: it is in no log
/// and has no offset. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// 0: no answer is wanted, unless it is an error.
    pub id: u32,
    pub channel: ChannelName,
    pub event: EventName,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present")]
    pub data: Option<Json>,
}

/// The user has read the channel up to this offset, on whichever device. It never goes back. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// 0: no answer is wanted, unless it is an error.
    pub id: u32,
    pub channel: ChannelName,
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub offset: u64,
}

/// This device has the channel up to this offset. It never goes back. Answered by `done`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct Received {
    /// 0: no answer is wanted, unless it is an error.
    pub id: u32,
    pub channel: ChannelName,
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub offset: u64,
}

impl Target {
    /// The same of that app's users. A session's id is the same everywhere.
    #[must_use]
    pub fn within(&self, app: &AppId) -> Self {
        match self {
            Self::Session(session) => Self::Session(session.clone()),
            Self::User(user) => Self::User(user.within(app)),
            Self::Device(UserDevice { user, device }) => {
                Self::Device(UserDevice { user: user.within(app), device: device.clone() })
            }
        }
    }
}

/// Answered by `history`: one page of a channel's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(deny_unknown_fields)]
pub struct History {
    pub id: u32,
    pub channel: ChannelName,
    /// Forward: the page begins behind it. Backward: it ends before it. Absent: at the oldest, or at the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// Newest first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<bool>"))]
    pub backward: bool,
    /// 1 to 256; absent: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u16>,
}

/// Answered by `presence`: who is in a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct Presence {
    pub id: u32,
    pub channel: ChannelName,
}

/// Deletes a message: its own author may, and who looks after the channel. Answered by `done` once it is gone from the
/// log; who has it is told by a publication of the event `xpush.deleted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct Delete {
    pub id: u32,
    pub channel: ChannelName,
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub offset: u64,
}

/// A new token for a live session, of the same user. Answered by `refreshed`; what the new token no longer
/// grants ends at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    pub id: u32,
    pub token: String,
}

/// Answered by `pong`: the wire is alive, and this long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct Ping {
    pub id: u32,
}
