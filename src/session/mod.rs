//! A session outlives its connection, so a phone that drops off resumes where it stopped.
//!
//! This is what one connection goes through: `entry` lets the client in, `command` does what it asks, `subscription`
//! holds what it listens to, `outbox` keeps what waits for it, and `delivery` writes that to the wire. One task
//! a connection runs all of it; nothing here is detached, and an append that is under way is awaited even when
//! the client is gone.
//!
//! Invariant: nothing about a client needs to survive here for it to come back right. It brings its cursors.

mod apart;
mod command;
mod delivery;
mod entry;
mod outbox;
mod refusal;
mod registry;
mod subscription;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, info_span};
use xpush_protocol::{
    ChannelName, CloseCode, Codec, ErrorCode, Expired, ServerFrame, SessionId, UnsubscribeReason, UserId,
};
use xpush_transports::{CLOSE_DEADLINE, Closed, Connection, Farewell, Peer, Reader, Transport, Writer};

pub(crate) use command::now;
#[cfg(feature = "server")]
pub(crate) use command::payload;
pub use outbox::{DeliveryKey, Outbox};
pub use refusal::Refusal;
pub use registry::{Departed, Entering, LINGER, Sessions};
pub(crate) use subscription::{is_ahead, missed};

use crate::{auth::Rights, node::Node, publication::Publisher};
use apart::Apart;
use registry::Remains;
use subscription::Subscription;

/// Bad frames after which the connection is not worth keeping: somebody speaks another protocol.
const BAD_FRAMES_LIMIT: u32 = 16;

/// A client that takes no answer for so long, while it asks for more than may wait, is not coming back to them.
const SLOW_CONSUMER_DEADLINE: Duration = Duration::from_secs(30);

/// Serves every connection of a transport until it is shut down, and awaits the last of them.
pub async fn serve_all<T: Transport>(node: Arc<Node>, mut transport: T, cancel: CancellationToken) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            connection = transport.accept() => match connection {
                Some(connection) => {
                    sessions.spawn(serve(Arc::clone(&node), connection, cancel.clone()));
                }
                None => break,
            },
            Some(ended) = sessions.join_next() => tell_panic(ended),
        }
    }
    while let Some(ended) = sessions.join_next().await {
        tell_panic(ended);
    }
}

/// One session's panic is one session's end; but it is a bug of ours.
fn tell_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a session panicked");
    }
}

/// Serves one connection until it ends.
pub async fn serve<C: Connection>(node: Arc<Node>, connection: C, cancel: CancellationToken) {
    let (peer, reader, writer) = connection.split();
    let span = info_span!("session", wire = %peer.kind, address = %peer.address);
    let _counted = node.metrics.connected(peer.kind);
    Box::pin(run(node, peer, reader, writer, cancel)).instrument(span).await;
}

async fn run<R: Reader, W: Writer>(
    node: Arc<Node>,
    peer: Peer,
    mut reader: R,
    mut writer: W,
    cancel: CancellationToken,
) {
    // What comes before and after a session's long middle is boxed: it would be a part of it for all that time.
    let entered = tokio::select! {
        entered = Box::pin(entry::enter(&node, &peer, &mut reader)) => entered,
        () = cancel.cancelled() => Err(entry::Turned::away(Farewell::new(CloseCode::Draining, "the node is stopping"))),
    };
    let (mut session, resume) = match entered {
        Ok(session) => session,
        Err(turned) => {
            debug!(reason = %turned.farewell.reason, "turned away");
            // A wire that does not take even this is cut.
            let _ = timeout(CLOSE_DEADLINE, Box::pin(turned.tell(&mut writer))).await;
            Box::pin(writer.close(turned.farewell)).await;
            return;
        }
    };
    let outbox = Arc::clone(&session.outbox);
    let sealer = delivery::Checkpoints::new(&session, &peer);

    let mut in_flight = InFlight::new();
    let mut writing = Apart::new(delivery::write_all(&node, &outbox, sealer, writer));
    let (ended, written) = {
        let reading = Apart::new(session.read_all(resume, &mut reader, &mut in_flight, &cancel));
        tokio::select! {
            ended = reading => (Some(ended), false),
            () = &mut writing => (outbox.farewell(), true),
        }
    };
    // What is under way is awaited: the client may still be there to hear the answers.
    while let Some(answer) = in_flight.next().await {
        answer.iter().for_each(|answer| outbox.push_answer(answer));
    }
    session.broke |= ended.is_none();
    let farewell = ended.unwrap_or_else(|| Closed::Lost("the wire can't be written to".into()).farewell());
    debug!(code = %farewell.code, reason = %farewell.reason, "ended");
    let may_return = farewell.code != CloseCode::Normal || session.broke;
    outbox.close(farewell);
    if !written {
        // The writer says goodbye and lets the wire go; one that is stuck on a client that reads nothing is cut.
        let _ = timeout(CLOSE_DEADLINE, writing).await;
    }
    Box::pin(session.leave(may_return)).await;
}

/// Commands whose answers are under way, bounded by `Limits::in_flight`.
type InFlight = FuturesUnordered<command::Later>;

/// One client's identity and subscriptions, while a connection serves it.
struct Session {
    node: Arc<Node>,
    id: SessionId,
    /// Tells this connection's leases and registration from those of an older or newer one of the same session.
    connection: u64,
    /// Tells other nodes which of two connections of this session is the newer one.
    generation: u64,
    /// A connection beside the session's own, which only sends.
    detached: bool,
    rights: Rights,
    /// What gave the rights, shared with who writes the state that goes to the client.
    token: Arc<Mutex<Option<String>>>,
    outbox: Arc<Outbox>,
    subscriptions: HashMap<ChannelName, Subscription>,
    /// In whose name its message ids are unique, and its publishes counted.
    publisher: Publisher,
    bad_frames: u32,
    expired: bool,
    /// The wire broke, other than by a goodbye.
    broke: bool,
}

impl Session {
    fn user(&self) -> Option<&UserId> {
        self.rights.user()
    }

    /// How long the rights still hold. `None`: without end.
    fn rights_left(&self) -> Option<Duration> {
        self.rights.expires().map(|at| at.duration_since(SystemTime::now()).unwrap_or_default())
    }

    fn codec(&self) -> Codec {
        self.outbox.codec()
    }

    /// Takes commands until the connection ends, and gives the reason.
    async fn read_all(
        &mut self,
        resume: entry::Resume,
        reader: &mut impl Reader,
        in_flight: &mut InFlight,
        cancel: &CancellationToken,
    ) -> Farewell {
        let outbox = Arc::clone(&self.outbox);
        let limit = self.node.limits.in_flight;
        tokio::select! {
            // Boxed, and gone with its state before the connection is idle.
            () = Box::pin(self.resume(resume)) => {}
            () = outbox.closing() => {}
            () = cancel.cancelled() => {}
        }
        loop {
            if let Some(farewell) = outbox.farewell() {
                return farewell;
            }
            let expiry = self.expiry();
            let next = async {
                match timeout(SLOW_CONSUMER_DEADLINE, outbox.room()).await {
                    Ok(()) => Some(reader.read().await),
                    Err(_) => None,
                }
            };
            tokio::select! {
                Some(answer) = in_flight.next() => answer.iter().for_each(|answer| outbox.push_answer(answer)),
                frame = next, if in_flight.len() < limit => match frame {
                    Some(Ok(frame)) => {
                        if let Some(farewell) = self.take(&frame, in_flight).await {
                            return farewell;
                        }
                    }
                    None => {
                        let reason = "asked for more answers than it took";
                        return Farewell::new(CloseCode::SlowConsumer, reason);
                    }
                    Some(Err(closed)) => {
                        self.broke = !matches!(closed, Closed::ByPeer { code: CloseCode::Normal, .. });
                        return closed.farewell();
                    }
                },
                () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {
                    Box::pin(self.expire()).await;
                }
                () = outbox.attention() => Box::pin(self.end_failed()).await,
                () = cancel.cancelled() => return Farewell::new(CloseCode::Draining, "the node is stopping"),
            }
        }
    }

    /// One frame of the client's.
    async fn take(&mut self, frame: &[u8], in_flight: &mut InFlight) -> Option<Farewell> {
        match self.codec().decode_command(frame) {
            Ok(command) => {
                if let Some(mut later) = self.command(command).await {
                    // Most answers are there at once; only what waits for a disk is kept waiting for.
                    match (&mut later).now_or_never() {
                        Some(answer) => answer.iter().for_each(|answer| self.outbox.push_answer(answer)),
                        None => in_flight.push(later),
                    }
                }
                None
            }
            Err(error) => {
                self.bad_frames += 1;
                let refusal = Refusal::new(error.code, error.message);
                self.outbox.push_answer(&ServerFrame::Error(refusal.into_frame(error.id, None)));
                (self.bad_frames >= BAD_FRAMES_LIMIT).then(|| {
                    Farewell::new(
                        CloseCode::ProtocolError,
                        format!("{BAD_FRAMES_LIMIT} frames could not be read"),
                    )
                })
            }
        }
    }

    /// When the rights end.
    fn expiry(&self) -> Option<Instant> {
        if self.expired { None } else { self.rights_left().map(|left| Instant::now() + left) }
    }

    /// The rights ended: so do the subscriptions, while the connection stays for a `refresh`.
    async fn expire(&mut self) {
        self.expired = true;
        self.node.sessions.mute(&self.id, self.connection, true);
        self.end_subscriptions(UnsubscribeReason::TokenExpired, |_| true).await;
        self.outbox.push_answer(&ServerFrame::Expired(Expired {}));
    }

    fn refuse_expired(&self) -> Result<(), Refusal> {
        if self.expired {
            return Err(Refusal::new(
                ErrorCode::TokenExpired,
                "the token expired; send `refresh` with a new one",
            ));
        }
        Ok(())
    }

    /// The connection is over. A session that may return keeps its places for `LINGER`.
    async fn leave(mut self, may_return: bool) {
        let mut channels = Vec::new();
        for (name, subscription) in self.subscriptions.drain() {
            subscription.end(&self.node, &self.outbox);
            channels.push(name);
        }
        if self.detached {
            return;
        }
        let messages = self.outbox.take_messages();
        let departed = self.node.sessions.detach(Remains {
            session: &self.id,
            user: self.rights.user(),
            connection: self.connection,
            channels,
            messages,
            may_return,
        });
        if let Some(departed) = departed {
            self.node.depart(departed).await;
        }
    }
}
