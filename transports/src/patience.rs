//! How long a reader waits for its peer. Every wire that has no timer of its own counts like this, so that the two
//! deadlines mean the same on all of them.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::{Closed, Settings};

/// The deadline of whoever is to speak next. It outlives a cancelled read.
#[derive(Debug)]
pub(crate) struct Patience {
    until: Instant,
    idle: Duration,
    spoke: bool,
}

impl Patience {
    /// For a server's reader: the first frame is due within the handshake's deadline.
    pub(crate) fn with_stranger(settings: &Settings) -> Self {
        Self {
            until: Instant::now() + settings.handshake_deadline,
            idle: settings.idle_deadline,
            spoke: false,
        }
    }

    /// For a client's reader: it chose its server, and waits for an answer as for any other frame.
    #[cfg(feature = "dial")]
    pub(crate) fn with_server(settings: &Settings) -> Self {
        Self { until: Instant::now() + settings.idle_deadline, idle: settings.idle_deadline, spoke: true }
    }

    #[cfg(feature = "websocket")]
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    #[cfg(feature = "websocket")]
    pub(crate) fn idle(&self) -> Duration {
        self.idle
    }

    /// Whether the first frame came.
    #[cfg(feature = "websocket")]
    pub(crate) fn spoke(&self) -> bool {
        self.spoke
    }

    /// A frame came.
    pub(crate) fn renew(&mut self) {
        self.spoke = true;
        self.until = Instant::now() + self.idle;
    }

    /// The event, or what it means that it did not come. What is ready already comes before the deadline: a
    /// caller that was late itself does not blame the peer.
    pub(crate) async fn wait<T>(&self, event: impl Future<Output = T>) -> Result<T, Closed> {
        timeout_at(self.until, event).await.map_err(|_| self.verdict())
    }

    /// What it means that the deadline is over.
    pub(crate) fn verdict(&self) -> Closed {
        if self.spoke { Closed::Idle } else { Closed::HandshakeTimeout }
    }
}
