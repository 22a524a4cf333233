//! Takes handshakes, bounded in number and time, and hands each connection to its wire.

use std::{net::SocketAddr, sync::Arc};

use quinn::{Endpoint, Incoming, VarInt, crypto::rustls::HandshakeData};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};
use xpush_protocol::CloseCode;

use crate::{Admission, Permit, Settings, quic};

/// Handshakes under way in all: each may cost some 60 kB, before anybody is known.
const HANDSHAKES: usize = 1024;

/// Those of one address. An office behind one address comes back at once after a restart.
const HANDSHAKES_PER_ADDRESS: usize = 512;

/// More than these under way look like a flood of forged addresses: from here on each client has to prove its own
/// first, which costs it a round trip.
const RETRY_ABOVE: usize = 128;

/// Runs the port.
pub struct Driver {
    endpoint: Endpoint,
    wires: Arc<Wires>,
    /// Counts what is not a connection yet.
    handshakes: Admission,
}

/// What the wires behind the port share.
pub(crate) struct Wires {
    pub(crate) settings: Settings,
    pub(crate) admission: Admission,
    pub(crate) cancel: CancellationToken,
    pub(crate) raw: mpsc::Sender<quic::Connection>,
    #[cfg(feature = "webtransport")]
    pub(crate) sessions: mpsc::Sender<crate::webtransport::Connection>,
}

impl Driver {
    pub(super) fn new(endpoint: Endpoint, wires: Wires) -> Self {
        let handshakes = Admission::new(HANDSHAKES, HANDSHAKES_PER_ADDRESS);
        Self { endpoint, wires: Arc::new(wires), handshakes }
    }

    /// Takes connections until cancelled, then refuses new ones and returns when the last one is over.
    /// Dropped earlier, it cuts the WebTransport sessions; a raw QUIC connection lives as long as its halves.
    pub async fn run(self) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                () = self.wires.cancel.cancelled() => break,
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.welcome(incoming, &mut tasks),
                    None => break,
                },
                Some(done) = tasks.join_next() => report(done),
            }
        }
        // Refused rather than unanswered: their clients try another node at once.
        let refuse = async {
            while let Some(incoming) = self.endpoint.accept().await {
                incoming.refuse();
            }
        };
        let end = async {
            while let Some(done) = tasks.join_next().await {
                report(done);
            }
            self.endpoint.wait_idle().await;
        };
        tokio::select! {
            () = refuse => {}
            () = end => {}
        }
    }

    fn welcome(&self, incoming: Incoming, tasks: &mut JoinSet<()>) {
        let address = incoming.remote_address();
        if self.handshakes.count() > RETRY_ABOVE && !incoming.remote_address_validated() {
            // Fails only for an address that is validated.
            let _ = incoming.retry();
            return;
        }
        let Ok(slot) = self.handshakes.admit(address.ip()) else {
            debug!(%address, "too many handshakes under way");
            incoming.refuse();
            return;
        };
        match incoming.accept() {
            Ok(connecting) => {
                tasks.spawn(greet(connecting, address, slot, self.wires.clone()));
            }
            Err(error) => debug!(%address, %error, "a handshake failed"),
        }
    }
}

/// Finishes a handshake, and serves the connection as far as its wire needs it.
async fn greet(connecting: quinn::Connecting, address: SocketAddr, slot: Permit, wires: Arc<Wires>) {
    let connection = match timeout(wires.settings.handshake_deadline, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return debug!(%address, %error, "a handshake failed"),
        Err(_) => return debug!(%address, "a handshake took too long"),
    };
    match alpn(&connection).as_deref() {
        Some(xpush_protocol::ALPN) => hand_over(connection, &wires).await,
        // Boxed: its state is large, and lives as long as the connection.
        #[cfg(feature = "webtransport")]
        Some(super::ALPN_HTTP) => Box::pin(crate::webtransport::carry(connection, slot, wires)).await,
        // TLS agrees on nothing else.
        other => debug!(%address, ?other, "an unknown protocol"),
    }
    #[cfg(not(feature = "webtransport"))]
    drop(slot);
}

async fn hand_over(connection: quinn::Connection, wires: &Wires) {
    let close = |code: CloseCode, reason: &str| {
        connection.close(VarInt::from_u32(code.number().into()), reason.as_bytes());
    };
    let permit = match wires.admission.admit(connection.remote_address().ip()) {
        Ok(permit) => permit,
        Err(refused) => return close(CloseCode::TooManyConnections, &refused.to_string()),
    };
    tokio::select! {
        () = wires.cancel.cancelled() => close(CloseCode::Draining, "the node leaves"),
        error = connection.closed() => debug!(%error, "gone before it was accepted"),
        room = wires.raw.reserve() => match room {
            Ok(room) => room.send(quic::accepted(connection.clone(), permit, &wires.settings)),
            Err(_) => close(CloseCode::Draining, "the node leaves"),
        },
    }
}

fn alpn(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

fn report(done: Result<(), tokio::task::JoinError>) {
    if let Err(error) = done
        && error.is_panic()
    {
        error!(%error, "a connection's task panicked");
    }
}
