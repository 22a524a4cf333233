//! Long-polling, for networks and browsers that let nothing else through: one lasting connection behind many HTTP
//! requests, served at `POST /v1/poll` of an HTTP server that somebody else owns.
//!
//! Any node can answer any poll. Each answer gives the client a state: where its connection is (poll id), the number
//! of the answer, and the session's checkpoint. A node that knows the poll id goes on with the connection; one that
//! does not makes a connection anew, whose first frame is a `connect` with that checkpoint.
//!
//! An answer is kept until the next poll, which carries the answer's number, confirms it; a poll with the number
//! before is a client that missed the answer, and gets it once more. The frames of a request are taken once for
//! each answer: a repeated request whose answer is already there is not taken again. A request that is repeated
//! before there was an answer is taken again, and what it publishes is told apart by its message ids.
//!
//! Invariant: a checkpoint is opaque here. Whether it is genuine, the session says.

mod connection;
#[cfg(feature = "dial")]
mod dial;
mod exchange;
mod poller;
mod request;
mod state;

pub use connection::{Connection, Reader, Writer};
#[cfg(feature = "dial")]
pub use dial::{ClientReader, ClientWriter, DialError, Dialled, dial};
pub use poller::Poller;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Admission, Settings, Transport};

/// How long a poll hangs at most: many proxies cut a request that is silent for 30 seconds.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(25);

/// Frames of one request. A connection's queue holds as many, so that a request is taken whole or not at all.
pub(crate) const FRAMES_PER_REQUEST: usize = 64;

/// New connections that nobody has accepted yet; further ones wait.
const BACKLOG: usize = 256;

/// Makes a transport and what feeds it. Once `cancel` is cancelled, no connection is made; polls of those that
/// there are go on.
#[must_use]
pub fn listener(settings: Settings, admission: Admission, cancel: CancellationToken) -> (Poller, Listener) {
    let (opened, accepted) = mpsc::channel(BACKLOG);
    let cancel = cancel.child_token();
    (Poller::new(settings, admission, opened, cancel.clone()), Listener { accepted, cancel })
}

/// The server's end.
#[derive(Debug)]
pub struct Listener {
    accepted: mpsc::Receiver<Connection>,
    cancel: CancellationToken,
}

impl Transport for Listener {
    type Connection = Connection;

    async fn accept(&mut self) -> Option<Connection> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => None,
            connection = self.accepted.recv() => connection,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
