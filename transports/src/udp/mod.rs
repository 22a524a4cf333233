//! One UDP port for two wires: browsers speak HTTP/3 on it (`webtransport`), native programs plain QUIC (`quic`).
//! The handshake's ALPN tells which.
//!
//! What both have in common is here too: how frames stand on streams and in datagrams (`frames`, `datagram`), which
//! stream carries which lane (`lanes`), and the two halves of a connection (`halves`). A frame on a stream is its
//! length as a QUIC varint, then its bytes. The client opens one bidirectional stream, the control stream; the
//! server opens a handful of long-lived unidirectional ones, when it first needs them. Never a stream a message:
//! browsers break on that, and each stream costs both ends memory.

mod datagram;
#[cfg(feature = "dial")]
pub(crate) mod dialled;
mod driver;
mod frames;
pub(crate) mod halves;
mod lanes;
mod socket;
pub(crate) mod tuning;

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use driver::Driver;
pub(crate) use driver::Wires;
#[cfg(feature = "webtransport")]
pub(crate) use tuning::raise_for_http;

use crate::{Admission, Closed, Settings, quic, tls::Certificates};

/// Connections whose wire is up and that nobody has accepted yet. Full means that the node is busy: further
/// handshakes wait, and then time out.
const BACKLOG: usize = 64;

/// The ALPN of HTTP/3 (RFC 9114, section 3.1).
#[cfg(feature = "webtransport")]
pub(crate) const ALPN_HTTP: &[u8] = b"h3";

/// A bound port and what comes out of it.
pub struct Udp {
    pub local_addr: SocketAddr,
    pub quic: quic::Listener,
    #[cfg(feature = "webtransport")]
    pub webtransport: crate::webtransport::Listener,
    /// To be run: nothing is accepted without it.
    pub driver: Driver,
}

/// Why a port can't be bound.
#[derive(Debug, Error)]
pub enum BindError {
    #[error("UDP port {} of {} is taken; is another server running there?", .0.port(), .0.ip())]
    Taken(SocketAddr),
    #[error("cannot bind UDP {address}: {source}")]
    Io { address: SocketAddr, source: io::Error },
    #[error("the certificate's TLS cannot carry QUIC: {0}")]
    Tls(String),
}

/// Binds a port; 0 takes any. `cancel` ends accepting; see `Driver::run` for what follows.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn bind(
    address: SocketAddr,
    certificates: &Arc<Certificates>,
    settings: Settings,
    admission: Admission,
    cancel: CancellationToken,
) -> Result<Udp, BindError> {
    let config = tuning::server(certificates, &settings).map_err(BindError::Tls)?;
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken(address),
        _ => BindError::Io { address, source },
    };
    let endpoint = socket::endpoint(address, Some(config)).map_err(failed)?;
    let local_addr = endpoint.local_addr().map_err(failed)?;
    let (raw, accepted) = mpsc::channel(BACKLOG);
    let quic = quic::Listener::new(accepted, cancel.clone());
    #[cfg(feature = "webtransport")]
    let (sessions, accepted) = mpsc::channel(BACKLOG);
    let driver = Driver::new(
        endpoint,
        Wires {
            settings,
            admission,
            cancel: cancel.clone(),
            raw,
            #[cfg(feature = "webtransport")]
            sessions,
        },
    );
    Ok(Udp {
        local_addr,
        quic,
        #[cfg(feature = "webtransport")]
        webtransport: crate::webtransport::Listener::new(accepted, cancel),
        driver,
    })
}

/// Where the peer is. An IPv6 socket that serves IPv4 too shows mapped addresses; everybody else means IPv4.
pub(crate) fn address_of(connection: &quinn::Connection) -> SocketAddr {
    let address = connection.remote_address();
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// How a connection ended: as it is known already, or as `closed` will tell.
async fn end(known: &Option<Closed>, closed: impl Future<Output = Closed>) -> Closed {
    match known {
        Some(known) => known.clone(),
        None => closed.await,
    }
}
