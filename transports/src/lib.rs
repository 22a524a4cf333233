//! The wires. Each room turns one kind of socket into accepted connections that carry frames, and knows nothing
//! above that: no session, no channel, no token.
//!
//! A frame is bytes of one of the two codecs, at most `Settings::frame_limit` long. What every wire promises is
//! written at the traits below and tested by one contract suite (`tests/contract`), which all of them run.
//!
//! Invariant: this crate depends on nothing of ours but the wire contract (`xpush-protocol`).

mod admission;
#[cfg(feature = "longpoll")]
pub mod longpoll;
pub mod memory;
mod patience;
#[cfg(feature = "quic")]
pub mod quic;
#[cfg(any(feature = "websocket", feature = "longpoll"))]
mod refusal;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "quic")]
pub mod udp;
#[cfg(feature = "websocket")]
pub mod websocket;
#[cfg(feature = "webtransport")]
pub mod webtransport;

pub use admission::{Admission, Permit, Refused};
#[cfg(any(feature = "websocket", feature = "longpoll"))]
pub use refusal::host;

use std::{future::Future, net::SocketAddr, sync::Weak, time::Duration};

use bytes::Bytes;
use thiserror::Error;
use xpush_protocol::{CloseCode, Codec, TransportKind};

/// Turns one wire into accepted connections.
pub trait Transport: Send + 'static {
    type Connection: Connection;

    /// The next connection whose wire is up (TLS, upgrade, CONNECT done; Origin and limits checked).
    /// `None`: the transport was shut down. Cancel safe.
    fn accept(&mut self) -> impl Future<Output = Option<Self::Connection>> + Send;
}

/// One live pipe of frames; dies with its socket.
pub trait Connection: Send + 'static {
    type Reader: Reader;
    type Writer: Writer;

    fn peer(&self) -> &Peer;

    fn split(self) -> (Peer, Self::Reader, Self::Writer);
}

/// The frames that come in.
pub trait Reader: Send + 'static {
    /// The next frame: whole, in the order in which the peer sent it, never longer than the limit. Cancel safe.
    /// An error is the end: the first frame did not come within `Settings::handshake_deadline`, nothing came for
    /// `Settings::idle_deadline`, the peer closed, or the wire broke.
    ///
    /// Nothing is read ahead beyond a bounded buffer: a caller that stops reading slows the peer down.
    fn read(&mut self) -> impl Future<Output = Result<Bytes, Closed>> + Send;
}

/// The frames that go out.
pub trait Writer: Send + 'static {
    /// Writes all frames, in order within a lane, in as few writes as the wire allows, and empties the vector.
    /// Waits while the peer does not take them. Not cancel safe: dropped half-way, the connection is of no use.
    fn write(&mut self, frames: &mut Vec<Outgoing>) -> impl Future<Output = Result<(), Closed>> + Send;

    /// A way to write for those who can't wait, until this is gone. `None`: this wire has none.
    fn beside(&self) -> Option<Weak<dyn TryWrite>> {
        None
    }

    /// Ends the connection: what was written is flushed, the peer is told code and reason, and the wire is let
    /// go. Takes at most `CLOSE_DEADLINE`.
    fn close(self, close: Farewell) -> impl Future<Output = ()> + Send;
}

/// Writes what a wire takes at once, while its `Writer` does nothing.
pub trait TryWrite: Send + Sync {
    /// As `Writer::write`, but never waits. `false`: the wire has not taken all of it, or is gone. Then nothing may be
    /// written here before the `Writer` has written what is left, be it nothing, or has learnt why it can't.
    fn try_write(&self, frames: &mut Vec<Outgoing>) -> bool;
}

/// How long a graceful close may take before the wire is cut.
pub const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

/// Who is at the other end, and what the wire agreed on.
#[derive(Debug, Clone)]
pub struct Peer {
    pub kind: TransportKind,
    pub address: SocketAddr,
    /// Agreed on by subprotocol. `None`: the first frame tells (`Codec::detect`).
    pub codec: Option<Codec>,
    /// The page's origin, where the wire carries one.
    pub origin: Option<String>,
    /// Frames of `Lane::Checkpoint` are wanted, one at the end of each write: this wire hands the session's
    /// state to the client, so that any node can go on.
    pub wants_checkpoints: bool,
}

/// A frame on its way out.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub bytes: Bytes,
    pub lane: Lane,
}

/// Which frames may overtake which. Within a lane order holds; a wire with one stream keeps it over all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Answers, and all that is not a publication. First in priority.
    Control,
    /// About a connection that went on without the client's doing: no news by itself. A wire on which each answer
    /// costs the client a request keeps it for a moment, for company; else as `Control`.
    Aside,
    /// Publications as they are made. The number is the channel's: all frames of one channel keep their order, and
    /// channels of different numbers need not wait for each other's lost packets.
    Live(u32),
    /// Publications out of the log, for who is behind. Last in priority: it never delays the others.
    Backfill,
    /// Latest wins: may be lost or overtaken where the wire has datagrams and the frame fits; else as `Live`.
    Ephemeral(u32),
    /// Not a frame: the session's state, as text, behind all frames so far (`Peer::wants_checkpoints`).
    Checkpoint,
}

/// Why the server ends a connection, as it is told to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    pub code: CloseCode,
    /// For a person; at most `REASON_LIMIT` bytes of it are sent.
    pub reason: String,
}

/// WebSocket's control frames hold 125 bytes, of which the code takes two.
pub const REASON_LIMIT: usize = 123;

impl Farewell {
    #[must_use]
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// The reason as far as every wire can carry it, cut between characters.
    #[must_use]
    pub fn short_reason(&self) -> &str {
        let mut end = self.reason.len().min(REASON_LIMIT);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        &self.reason[..end]
    }
}

/// Why a connection is over, as its reader or writer finds out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Closed {
    /// The peer said so. A code that is none of ours (a browser that navigated away) is `Normal`.
    #[error("the peer closed the connection: {code} {reason}")]
    ByPeer { code: CloseCode, reason: String },
    #[error("no first frame came in time")]
    HandshakeTimeout,
    #[error("nothing came for too long")]
    Idle,
    #[error("a frame of {size} bytes came, {limit} are allowed")]
    FrameTooLarge { size: u64, limit: usize },
    /// The bytes are not what the wire's protocol allows.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// The wire broke: reset, timed out, gone.
    #[error("the connection was lost: {0}")]
    Lost(String),
}

impl Closed {
    /// What the peer should be told, where the wire still stands.
    #[must_use]
    pub fn farewell(&self) -> Farewell {
        let code = match self {
            Self::ByPeer { .. } | Self::Lost(_) => CloseCode::Normal,
            Self::HandshakeTimeout => CloseCode::HandshakeTimeout,
            Self::Idle => CloseCode::Idle,
            Self::FrameTooLarge { .. } => CloseCode::FrameTooLarge,
            Self::Protocol(_) => CloseCode::ProtocolError,
        };
        Farewell::new(code, self.to_string())
    }
}

/// What holds for every connection of every wire.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest frame, in bytes, either way.
    pub frame_limit: usize,
    /// From the first byte of a wire to its first frame.
    pub handshake_deadline: Duration,
    /// Without any frame from the peer.
    pub idle_deadline: Duration,
    pub origins: Origins,
}

impl Peer {
    /// Whether it is a page of another machine, whatever address it is seen with.
    #[must_use]
    pub fn is_foreign_page(&self) -> bool {
        let authority =
            |origin: &str| origin.split_once("://").map(|(_, authority)| authority_is_loopback(authority));
        self.origin.as_deref().is_some_and(|origin| authority(origin) != Some(true))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            frame_limit: 64 * 1024,
            handshake_deadline: Duration::from_secs(10),
            idle_deadline: Duration::from_secs(45),
            origins: Origins::SameHost,
        }
    }
}

/// Which pages may connect. A request without an Origin is no page, and passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    Any,
    /// Pages of the host that they connect to (whatever the port), and those of a loopback host to a loopback host.
    SameHost,
    /// These (`https://app.example`), beside those of `SameHost`.
    List(Vec<String>),
}

impl Origins {
    /// `host` is the request's Host or `:authority`.
    #[must_use]
    pub fn allow(&self, origin: Option<&str>, host: &str) -> bool {
        let Some(origin) = origin else { return true };
        match self {
            Self::Any => true,
            Self::List(list) if list.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) => true,
            Self::List(_) | Self::SameHost => {
                let Some((_, authority)) = origin.split_once("://") else { return false };
                let (page, server) = (hostname(authority), hostname(host));
                page.eq_ignore_ascii_case(server) || (is_loopback(page) && is_loopback(server))
            }
        }
    }
}

/// Whether an authority (`localhost:8080`) names this machine and no other. A name that only leads here does not: a
/// page from elsewhere may have been given such a name (DNS rebinding).
#[must_use]
pub fn authority_is_loopback(authority: &str) -> bool {
    is_loopback(hostname(authority))
}

/// An authority without its port.
fn hostname(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_may_connect_to_its_own_host_only() {
        let same = Origins::SameHost;
        assert!(same.allow(None, "chat.example"));
        assert!(same.allow(Some("https://chat.example"), "chat.example:8443"));
        assert!(same.allow(Some("http://localhost:8080"), "127.0.0.1:8443"));
        assert!(same.allow(Some("http://[::1]:8080"), "localhost:8443"));
        assert!(!same.allow(Some("https://evil.example"), "chat.example"));
        assert!(!same.allow(Some("null"), "chat.example"));
        assert!(!same.allow(Some("https://evil.example"), "localhost:8080"));
        assert!(
            Origins::List(vec!["https://app.example".into()])
                .allow(Some("https://app.example"), "chat.example")
        );
        assert!(!Origins::List(vec![]).allow(Some("https://app.example"), "chat.example"));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(Farewell::new(CloseCode::Normal, "ü".repeat(100)).short_reason(), "ü".repeat(61));
    }
}
