//! WebSocket (RFC 6455), over an HTTP server that somebody else owns: that server hands its requests for
//! `/v1/connect` to the `Upgrader`, and the connections come out of the `Listener`.
//!
//! A frame is a message: text for JSON, binary for MessagePack. Nothing is compressed: most frames are smaller than
//! what a compressor's window would cost each of ten thousand idle connections.
//!
//! The protocol is tungstenite's, but for a server's own messages, which are bytes behind a short header: those pass it by
//! (`buffered`). Its sink copies each into a buffer that a connection keeps for good, once a burst has filled it, and that
//! can't be had back; and it wakes, checks and copies frame by frame what goes out in one write.

mod buffered;
mod connection;
#[cfg(feature = "dial")]
mod dial;
mod stream;
mod upgrade;

pub use connection::{Connection, Reader, Writer};
#[cfg(feature = "dial")]
pub use dial::{DialError, dial};
pub use upgrade::Upgrader;

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Admission, Settings, Transport};

/// Upgraded connections that nobody has accepted yet; further ones wait, and are let go after the handshake's
/// deadline.
const BACKLOG: usize = 256;

/// Makes a transport and what feeds it. Once `cancel` is cancelled, upgrades are refused with 503.
#[must_use]
pub fn listener(settings: Settings, admission: Admission, cancel: CancellationToken) -> (Upgrader, Listener) {
    let (upgraded, accepted) = mpsc::channel(BACKLOG);
    // A child, so that upgrades end as well when the listener is dropped.
    let cancel = cancel.child_token();
    let upgrades = TaskTracker::new();
    let upgrader = Upgrader::new(settings, admission, upgraded, cancel.clone(), upgrades.clone());
    (upgrader, Listener { accepted, cancel, upgrades })
}

/// The server's end.
#[derive(Debug)]
pub struct Listener {
    accepted: mpsc::Receiver<Connection>,
    cancel: CancellationToken,
    /// Upgrades under way. They end at the handshake's deadline or with `cancel`.
    upgrades: TaskTracker,
}

impl Transport for Listener {
    type Connection = Connection;

    async fn accept(&mut self) -> Option<Connection> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {
                self.upgrades.close();
                self.upgrades.wait().await;
                None
            }
            connection = self.accepted.recv() => connection,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
