//! What a server sends: answers, which carry the `id` of their command, and events, which carry none.
//!
//! A client ignores a frame, a field or a code that it does not know: newer servers have more of them.

use serde::{Deserialize, Serialize};

use crate::{
    Binary, ChannelName, CloseCode, Cursor, Epoch, ErrorCode, EventName, Json, MessageId, SessionId, UserId,
};

/// A frame from a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum ServerFrame {
    // Answers.
    Connected(Connected),
    Subscribed(Subscribed),
    Unsubscribed(Unsubscribed),
    Published(Published),
    Sent(Sent),
    History(HistoryPage),
    Presence(PresenceList),
    Refreshed(Refreshed),
    Pong(Pong),
    Done(Done),
    Error(Error),
    // Events.
    Publication(Publication),
    Message(Message),
    Signal(ChannelSignal),
    Receipt(Receipt),
    Join(Join),
    Leave(Leave),
    Occupancy(Occupancy),
    Gap(Gap),
    Lag(Lag),
    Draining(Draining),
    Expired(Expired),
    Close(Close),
}

/// The session is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Connected {
    pub id: u32,
    /// The session's address for private messages. The same as before if `state` was taken.
    pub session: SessionId,
    /// Opaque and secret: who brings it back in `connect` goes on with this session, on any node.
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// The node that holds the connection.
    pub node: String,
    /// Seconds until the token expires. Absent: it doesn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u32>,
    /// A client sends some frame, `ping` if nothing else, at least this often (milliseconds); a wire that is
    /// silent for three times as long is closed.
    pub ping_interval: u32,
    pub limits: Limits,
}

/// What the server takes from one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Limits {
    /// The largest frame, in bytes.
    pub frame: u32,
    /// Commands that may wait for their answer at once; the server reads no further until one is answered.
    pub in_flight: u32,
    /// Channels that a session may be subscribed to.
    pub subscriptions: u32,
}

/// The subscription is live from `cursor` on: the first publication that follows has `cursor.offset + 1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Subscribed {
    pub id: u32,
    pub channel: ChannelName,
    pub cursor: Cursor,
    /// The offset of the channel's newest publication: above `cursor.offset`, there is something to catch up.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub top: u64,
    /// What can't be had any more between the cursor that was asked for and `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// The namespace keeps nothing (retention `none`): a publication may be lost or overtaken on the way, and a hole
    /// in the offsets is not waited for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<bool>"))]
    pub ephemeral: bool,
    /// Sessions in the channel, this one included. Absent: the namespace has no presence, or the token does not
    /// grant it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occupancy: Option<u32>,
}

/// The subscription ended: as the answer to `unsubscribe`, or by itself and then with no `id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Unsubscribed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    pub channel: ChannelName,
    pub reason: UnsubscribeReason,
}

/// Why a subscription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum UnsubscribeReason {
    /// The client asked.
    Requested,
    /// The token expired; subscribe again, with the cursor, once it is refreshed.
    TokenExpired,
    /// The right is gone: with the refreshed token, or because the user is no longer a member.
    Revoked,
    /// The log could not be read; subscribe again, with the cursor.
    LogUnavailable,
}

/// The publication is in the log at `cursor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Published {
    pub id: u32,
    pub cursor: Cursor,
    /// The message id was there already; `cursor` is the first one's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<bool>"))]
    pub duplicate: bool,
}

/// The private message was handed to this many sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Sent {
    pub id: u32,
    pub sessions: u32,
}

/// One page of a channel's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct HistoryPage {
    pub id: u32,
    pub channel: ChannelName,
    /// In the order that was asked for.
    pub publications: Vec<Publication>,
    /// The channel's newest.
    pub top: Cursor,
    /// Ask on from here for the next page in the same direction. Absent: this was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Cursor>,
    /// What was asked for and is no longer there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
}

/// Who is in a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct PresenceList {
    pub id: u32,
    pub channel: ChannelName,
    /// At most 1,000; `sessions` and `users` count all.
    pub members: Vec<Member>,
    pub sessions: u32,
    pub users: u32,
}

/// One session in a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Member {
    pub session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
}

/// The session goes on under the new token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Refreshed {
    pub id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Pong {
    pub id: u32,
}

/// The command is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Done {
    pub id: u32,
}

/// A command failed. The session goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Error {
    /// The command's. Absent: the frame was not understood far enough to have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    pub code: ErrorCode,
    /// For a person: what happened, and what to do.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
    /// The same command may succeed later.
    pub retry: bool,
    /// Milliseconds to wait first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

/// A message, in its place in the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Publication {
    pub channel: ChannelName,
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub offset: u64,
    /// Which numbering `offset` is of. Absent: the one that the subscription began with (`subscribed.cursor`), or, on
    /// a page of history, the page's (`top`). A server says it once the channel's epoch changed under somebody who
    /// listens: on a wire of several streams a publication of the new epoch may overtake the `gap` that announces it,
    /// and one of the old epoch may come behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The publisher's id of it.
    pub message_id: MessageId,
    pub event: EventName,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present")]
    pub data: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<Binary>,
    /// The user who published it. Absent: anonymous, or a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// When the server took it: milliseconds since 1970.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub time: u64,
    /// The offset of the message in this channel that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub reply_to: Option<u64>,
}

/// A private message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Message {
    /// The sender's session: an answer goes there. Absent: a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    pub event: EventName,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present")]
    pub data: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<Binary>,
}

/// Somebody's `signal` in the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct ChannelSignal {
    pub channel: ChannelName,
    pub event: EventName,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::present")]
    pub data: Option<Json>,
    /// The sender's session.
    pub session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
}

/// How far a member has come: up to here it has read, or one of its devices has received. A later one never says less.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Receipt {
    pub channel: ChannelName,
    pub user: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub read: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub received: Option<u64>,
}

/// A session came into the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Join {
    pub channel: ChannelName,
    pub member: Member,
    /// Sessions in the channel now.
    pub occupancy: u32,
}

/// A session left the channel, or has not been heard of for its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Leave {
    pub channel: ChannelName,
    pub member: Member,
    pub occupancy: u32,
}

/// In a channel too big for single `join` and `leave` events: the count, once a second while it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Occupancy {
    pub channel: ChannelName,
    pub occupancy: u32,
}

/// The publications `from` to `to` (both included) of `epoch` can't be had any more. What follows begins at
/// `to + 1`. On a wire of several streams it may overtake publications before `from`: it counts once they are there.
/// If `epoch` is not the one of the client's cursor, it counts at once: what was behind that cursor in the old epoch is
/// lost as well, and `to` may be 0: nothing of the new epoch is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Gap {
    pub channel: ChannelName,
    pub epoch: Epoch,
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub from: u64,
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub to: u64,
}

/// The client reads more slowly than the channel speaks: from here on this subscription is read from the log as
/// fast as the client takes it. `behind: 0`: it is live again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Lag {
    pub channel: ChannelName,
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub behind: u64,
}

/// The node will leave: be live elsewhere (another connection, with the resume vector), then close this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Draining {
    /// Milliseconds to wait before reconnecting: the node spreads its clients.
    pub reconnect_in: u32,
    /// Milliseconds until the node closes the connection itself.
    pub close_in: u32,
}

/// The token expired: the subscriptions have ended, and every command but `refresh` and `ping` is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Expired {}

/// The last frame of a connection that the server ends, on a wire that has no close of its own (long-polling). The
/// others carry the same code and reason in their own way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Close {
    pub code: CloseCode,
    pub reason: String,
    /// The client may connect again.
    pub reconnect: bool,
}
