//! Raw QUIC, for programs that need no browser: ALPN `xpush/1`, the same frames on the same streams as WebTransport
//! and a third less memory a connection. Its application close code is the `CloseCode`'s number.

#[cfg(feature = "dial")]
mod dial;

use bytes::Bytes;
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};
use xpush_protocol::TransportKind;

#[cfg(feature = "dial")]
pub use dial::{DialError, Dialer, Dialled, dial};

use crate::{
    Closed, Farewell, Peer, Permit, Settings,
    udp::{
        address_of,
        halves::{self, Link, close_code},
    },
};

pub type Listener = halves::Listener<Wire>;
pub type Connection = halves::Connection<Wire>;
pub type Reader = halves::Reader<Wire>;
pub type Writer = halves::Writer<Wire>;

/// A QUIC connection of its own.
pub struct Wire(quinn::Connection);

/// A connection whose handshake is done.
pub(crate) fn accepted(connection: quinn::Connection, permit: Permit, settings: &Settings) -> Connection {
    let peer = Peer {
        kind: TransportKind::Quic,
        address: address_of(&connection),
        codec: None,
        origin: None,
        wants_checkpoints: false,
    };
    Connection::new(peer, Wire(connection), permit, settings.clone())
}

impl Link for Wire {
    fn quic(&self) -> &quinn::Connection {
        &self.0
    }

    fn stream_prefix(&self) -> &[u8] {
        &[]
    }

    fn datagram_prefix(&self) -> &[u8] {
        &[]
    }

    /// The first one. Further ones stay where they are: unread, and within the connection's window.
    async fn accept_control(&self) -> Result<(SendStream, RecvStream), Closed> {
        self.0.accept_bi().await.map_err(closed)
    }

    async fn read_datagram(&self) -> Result<Bytes, Closed> {
        self.0.read_datagram().await.map_err(closed)
    }

    async fn closed(&self) -> Closed {
        closed(self.0.closed().await)
    }

    async fn close(&self, farewell: &Farewell) {
        self.cut(farewell);
    }

    fn cut(&self, farewell: &Farewell) {
        let code = VarInt::from_u32(farewell.code.number().into());
        self.0.close(code, farewell.short_reason().as_bytes());
    }
}

pub(crate) fn closed(error: ConnectionError) -> Closed {
    match error {
        ConnectionError::ApplicationClosed(close) => Closed::ByPeer {
            code: close_code(close.error_code.into_inner()),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        error => Closed::Lost(error.to_string()),
    }
}
