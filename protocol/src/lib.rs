//! What every XPUSH client and server share, and nothing else: names, frames, codes, codecs.
//!
//! Invariant: nothing in this crate does I/O, knows a transport's wire or keeps state. Bytes come in, types go
//! out; past this door nobody checks a name or a length again. `docs/PROTOCOL.md` is the prose of this crate.

mod code;
mod codec;
mod command;
mod document;
mod event;
mod name;
mod payload;
mod transcode;
#[cfg(feature = "typescript")]
pub mod typescript;
mod varint;

pub use code::{CloseCode, ErrorCode};
pub use codec::{Codec, DecodeError, MAX_DEPTH};
pub use command::{
    ClientFrame, Connect, Delete, History, MAX_MENTIONS, Ping, Presence, Publish, Read, Received, Refresh,
    Resubscribe, Send, Signal, Subscribe, Target, Unsubscribe, UserDevice,
};
pub use document::{
    Endpoint, NodeEntry, NodeList, PollAnswer, PollRequest, Problem, Ticket, TicketRequest, TransportKind,
    Transports,
};
pub use event::{
    ChannelSignal, Close, Connected, Done, Draining, Error, Expired, Gap, HistoryPage, Join, Lag, Leave,
    Limits, Member, Message, Occupancy, Pong, PresenceList, Publication, Published, Receipt, Refreshed, Sent,
    ServerFrame, Subscribed, UnsubscribeReason, Unsubscribed,
};
pub use name::{
    AppId, ChannelName, Cursor, DeviceId, Epoch, EventName, MessageId, NameError, Namespace, SessionId,
    UserId,
};
pub use payload::{Binary, Json, Payload, PayloadError};
pub use varint::{VarintError, get_varint, put_varint, varint_len};

/// The ALPN protocol id of raw QUIC.
pub const ALPN: &[u8] = b"xpush/1";
/// The WebSocket and WebTransport subprotocol whose frames are JSON.
pub const SUBPROTOCOL_JSON: &str = "xpush.v1.json";
/// The WebSocket and WebTransport subprotocol whose frames are MessagePack.
pub const SUBPROTOCOL_MSGPACK: &str = "xpush.v1.msgpack";
