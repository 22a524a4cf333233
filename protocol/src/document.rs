//! The bodies of the HTTP requests that clients of every kind make: which node to use, which wires there are, and a
//! poll; and of every HTTP request that is refused.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{ChannelName, Error, ErrorCode};

/// The wires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    WebTransport,
    Quic,
    WebSocket,
    LongPoll,
    /// Within one process, for tests.
    Memory,
}

impl TransportKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebTransport => "webtransport",
            Self::Quic => "quic",
            Self::WebSocket => "websocket",
            Self::LongPoll => "longpoll",
            Self::Memory => "memory",
        }
    }
}

impl std::fmt::Display for TransportKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `GET /v1/transports`: what is there, best first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Transports {
    pub version: String,
    pub node: String,
    pub transports: Vec<Endpoint>,
    /// SHA-256 of each certificate that the node may show, in base64; empty where a public authority signed it.
    /// A browser takes them as `serverCertificateHashes`.
    pub certificate_hashes: Vec<String>,
}

/// One wire's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Endpoint {
    pub kind: TransportKind,
    /// `https:`, `quic:`, `ws:` or `wss:`, `http:` or `https:`.
    pub url: String,
}

/// `POST /v1/tickets`: which node to use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(deny_unknown_fields)]
pub struct TicketRequest {
    /// As in `connect`. Absent: anonymous, where the server allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A node that the client could not reach, or that just left it: another one is named, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avoid: Option<String>,
}

/// A node to use, and the ticket to show there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Ticket {
    /// Stands in `connect` for the token that it was given for.
    pub ticket: String,
    /// Seconds.
    pub expires_in: u32,
    pub node: String,
    pub wires: Transports,
    /// Where the next ticket can be had: base URLs, of the answering node first.
    pub nodes: Vec<String>,
}

/// `GET /v1/nodes`: the nodes that live, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct NodeList {
    pub nodes: Vec<NodeEntry>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct NodeEntry {
    pub id: String,
    pub version: String,
    /// `session`, `channel`.
    pub roles: Vec<String>,
    pub weight: u32,
    /// Sessions that are connected.
    pub sessions: u32,
    /// Channels with subscribers there.
    #[serde(default)]
    pub channels: u32,
    /// Users of whom a session is there.
    #[serde(default)]
    pub users: u32,
    pub draining: bool,
    /// Where its HTTP API is.
    pub url: String,
    pub wires: Transports,
}

/// Why an HTTP request is refused: RFC 9457's problem details, with the fields of an `error` frame beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct Problem {
    /// `about:blank`: the status says what kind it is, and `code` which exactly.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    pub status: u16,
    /// For a person: what happened, and what to do.
    pub detail: String,
    pub code: ErrorCode,
    /// The same request may succeed later.
    pub retry: bool,
    /// Milliseconds to wait first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
}

impl Problem {
    pub const CONTENT_TYPE: &str = "application/problem+json";

    /// What the error of a command is as the answer to a request. `title` is the reason phrase of `status`.
    #[must_use]
    pub fn new(status: u16, title: &str, error: Error) -> Self {
        let Error { id: _, code, message: detail, channel, retry, retry_after } = error;
        let (kind, title) = ("about:blank".to_owned(), title.to_owned());
        Self { kind, title, status, detail, code, retry, retry_after, channel }
    }
}

/// `POST /v1/poll`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
#[serde(deny_unknown_fields)]
pub struct PollRequest {
    /// What the last answer gave. Absent: a new session, whose `connect` is the first of `frames`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Client frames, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<Vec<crate::ClientFrame>>"))]
    pub frames: Vec<Box<RawValue>>,
    /// Only hand the frames over, beside a poll that waits: the answer is empty and has no state, and what the
    /// frames bring comes with that poll.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<bool>"))]
    pub send: bool,
    /// Seconds to wait where there is nothing to say, 25 at most and if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<u8>,
}

/// The answer to a poll.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(optional_fields))]
pub struct PollAnswer {
    /// To be sent with the next poll, which confirms this answer. Absent: the session ended, or `send` was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Server frames, in order.
    #[cfg_attr(feature = "typescript", ts(as = "Vec<crate::ServerFrame>"))]
    pub frames: Vec<Box<RawValue>>,
}
