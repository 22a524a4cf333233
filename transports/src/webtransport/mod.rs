//! WebTransport over HTTP/3, as Chromium and Firefox speak it (draft-ietf-webtrans-http3-02) with the settings of
//! later drafts beside it: a page opens a session at `/v1/connect` and has streams and datagrams.
//!
//! Built on `quinn` and `h3`, and not on `h3-quinn`, `h3-webtransport` 0.1.2 and `h3-datagram`, because those
//! - never read the CONNECT stream: a page that closed its session was noticed by the idle time-out only;
//! - can send no close code and reason (hyperium/h3#349);
//! - lose valid clients to a race on SETTINGS, 3 to 10 of 100 with 64 in parallel;
//! - hand every datagram to session 0 (hyperium/h3#345);
//! - let one stalled stream header stop the acceptance of all others.
//!
//! And `h3` by itself buffers a whole HTTP/3 frame, however long. So each incoming stream is sorted by its first
//! bytes before `h3` sees it (`sorting`): a session's streams go to the session as plain QUIC streams, and the few
//! that are HTTP/3's own go to `h3` with a budget (`adapter`).
//!
//! The way of a session: `carrier` serves one QUIC connection, `request` answers a CONNECT, `session` keeps what
//! came of it until either side ends it with a `capsule`.

mod adapter;
mod capsule;
mod carrier;
#[cfg(feature = "dial")]
mod dial;
mod error_code;
mod request;
mod session;
mod sessions;
mod settings;
mod sorting;

pub(crate) use carrier::carry;
#[cfg(feature = "dial")]
pub use dial::{DialError, Dialer, Dialled, dial};

use crate::udp::halves;

pub type Listener = halves::Listener<session::Session>;
pub type Connection = halves::Connection<session::Session>;
pub type Reader = halves::Reader<session::Session>;
pub type Writer = halves::Writer<session::Session>;

/// Where sessions are opened.
pub const PATH: &str = "/v1/connect";
