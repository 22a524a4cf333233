//! A session outlives its connection, so a phone that drops off resumes where it stopped.
//!
//! This is what one connection goes through: `entry` lets the client in, `command` does what it asks, `subscription`
//! holds what it listens to, `outbox` keeps what waits for it, and `delivery` writes that to the wire. One task
//! a connection runs all of it, but that a `courier` writes to many in one go; nothing here is detached, and an append
//! that is under way is awaited even when the client is gone.
//!
//! Invariant: nothing about a client needs to survive here for it to come back right. It brings its cursors.

mod apart;
mod command;
mod courier;
mod delivery;
mod entry;
mod outbox;
mod recheck;
mod refusal;
mod registry;
mod said;
mod subscription;

use std::{
    collections::HashMap,
    future::pending,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    task::{JoinSet, consume_budget},
    time::{Instant, Sleep, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, debug_span};
use xpush_protocol::{
    AppId, ChannelName, CloseCode, Codec, DecodeError, ErrorCode, Expired, ServerFrame, SessionId,
    UnsubscribeReason, UserId,
};
use xpush_transports::{CLOSE_DEADLINE, Closed, Connection, Farewell, Peer, Reader, Transport, Writer};

pub(crate) use command::now;
#[cfg(feature = "server")]
pub(crate) use command::payload;
pub(crate) use courier::Couriers;
pub use outbox::{DeliveryKey, Outbox};
pub(crate) use recheck::Recheck;
pub use refusal::Refusal;
pub use registry::{Departed, Entering, LINGER, Sessions};
pub(crate) use said::{check_event, check_extras};
pub(crate) use subscription::{is_ahead, missed};

use crate::{auth::Rights, node::Node, publication::Publisher, rate::Allowance};
use apart::Apart;
use command::{Doing, Done};
use registry::Remains;
use subscription::Subscription;

/// Bad frames after which the connection is not worth keeping: somebody speaks another protocol.
const BAD_FRAMES_LIMIT: u32 = 16;

/// A client that takes no answer for so long, while it asks for more than may wait, is not coming back to them.
const SLOW_CONSUMER_DEADLINE: Duration = Duration::from_secs(30);

/// How often a wait for the end of rights looks at the clock: it may be set, and a machine may sleep.
const CLOCK_LOOK: Duration = Duration::from_secs(60);

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
///
/// An idle connection's futures are most of what it takes. So each stage borrows what this one holds; what comes before
/// and after the long middle is boxed, as it would be a part of it for all that time; and those that last are blocks:
/// an `async fn` has room for its arguments twice.
pub fn serve<C: Connection>(
    node: Arc<Node>,
    connection: C,
    cancel: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let (peer, mut reader, mut writer) = connection.split();
    let peer = Box::new(peer);
    let span = debug_span!("session", wire = %peer.kind, address = %peer.address);
    async move {
        let _counted = node.metrics.connected(peer.kind);
        let entered = Box::pin(enter(&node, &peer, &mut reader, &mut writer, &cancel)).await;
        let (ended, goodbye) = match entered {
            Ok((session, resume)) => {
                if let Some(wire) = writer.beside() {
                    session.outbox.carried_by(node.couriers.carrier(wire));
                }
                let checkpoints = delivery::Checkpoints::new(&session).map(Box::new);
                drop(peer);
                let run = run(session, resume, checkpoints, &mut reader, &mut writer, &cancel);
                let (ended, goodbye) = Box::pin(run).await;
                (Some(ended), goodbye)
            }
            Err(farewell) => (None, Some(Goodbye { farewell, until: Instant::now() + CLOSE_DEADLINE })),
        };
        if let Some(Goodbye { farewell, until }) = goodbye {
            let _ = Box::pin(timeout_at(until, writer.close(farewell))).await;
        }
        if let Some(Ended { session, may_return }) = ended {
            Box::pin(session.leave(may_return)).await;
        }
    }
    .instrument(span)
}

/// Lets the client in, or tells it why not.
async fn enter(
    node: &Arc<Node>,
    peer: &Peer,
    reader: &mut impl Reader,
    writer: &mut impl Writer,
    cancel: &CancellationToken,
) -> Result<(Box<Session>, entry::Resume), Farewell> {
    let entered = tokio::select! {
        entered = entry::enter(node, peer, reader) => entered,
        () = cancel.cancelled() => Err(entry::Turned::away(Farewell::new(CloseCode::Draining, "the node is stopping"))),
    };
    match entered {
        Ok((session, resume)) => Ok((Box::new(session), resume)),
        Err(turned) => {
            debug!(reason = %turned.farewell.reason, "turned away");
            // A wire that does not take even this is cut.
            let _ = timeout(CLOSE_DEADLINE, turned.tell(writer)).await;
            Err(turned.farewell)
        }
    }
}

/// What a session has to do next.
enum Next {
    Frame(Bytes),
    /// An answer that was under way is given.
    Answered,
    /// After what failed, and after rights that may be gone.
    Look,
    Expired,
    Closed(Closed),
    Over(Farewell),
}

/// How far a command got.
enum Begun<'a> {
    Done,
    /// The next one waits until this has come so far.
    First(BoxFuture<'a, Done>),
    Over(Farewell),
}

impl Drop for Session {
    /// Most have left; one that panicked leaves its places here.
    fn drop(&mut self) {
        for (_, subscription) in self.subscriptions.drain() {
            subscription.end(&self.node, &self.outbox);
        }
    }
}

/// Gives the answer of a command, or keeps it in flight.
fn finish(done: Done, outbox: &Outbox, in_flight: &mut InFlight) {
    let answer = match done {
        Done::Now(answer) => answer,
        // Most answers are there at once; only what waits for a disk is kept waiting for.
        Done::Later(mut later) => match (&mut later).now_or_never() {
            Some(answer) => answer,
            None => return in_flight.push(later),
        },
    };
    outbox.answer(answer);
}

/// A session whose connection is over.
struct Ended {
    session: Box<Session>,
    may_return: bool,
}

/// What is left to say, and until when the wire may take it.
struct Goodbye {
    farewell: Farewell,
    until: Instant,
}

/// Serves a session by this connection. Gives the goodbye that is left to say, unless the wire takes none.
fn run<'a>(
    mut session: Box<Session>,
    resume: entry::Resume,
    checkpoints: Option<Box<delivery::Checkpoints>>,
    reader: &'a mut impl Reader,
    writer: &'a mut impl Writer,
    cancel: &'a CancellationToken,
) -> impl Future<Output = (Ended, Option<Goodbye>)> + Send + 'a {
    let (node, outbox) = (Arc::clone(&session.node), Arc::clone(&session.outbox));
    async move {
        let mut in_flight = InFlight::default();
        let mut writing = Apart::new(delivery::write_all(&node, &outbox, checkpoints, writer));
        let (ended, written) = {
            let reading = Apart::new(session.read_all(resume, reader, &mut in_flight, cancel));
            tokio::select! {
                // Where both are over, the answers under way are still written.
                biased;
                ended = reading => (Some(ended), None),
                written = &mut writing => (outbox.farewell(), Some(written)),
            }
        };
        // What is under way is awaited: the client may still be there to hear the answers.
        while let Some(answer) = in_flight.next().await {
            outbox.answer(answer);
        }
        session.broke |= ended.is_none();
        let farewell =
            ended.unwrap_or_else(|| Closed::Lost("the wire can't be written to".into()).farewell());
        debug!(code = %farewell.code, reason = %farewell.reason, "ended");
        let may_return = farewell.code != CloseCode::Normal || session.broke;
        outbox.close(farewell);
        let until = Instant::now() + CLOSE_DEADLINE;
        let farewell = match written {
            Some(written) => written,
            // What waits is still written; a writer that is stuck on a client that reads nothing is cut.
            None => Box::pin(timeout_at(until, writing)).await.unwrap_or(None),
        };
        (Ended { session, may_return }, farewell.map(|farewell| Goodbye { farewell, until }))
    }
}

/// The end of the rights, waited for.
#[derive(Default)]
struct Expiry {
    at: Option<SystemTime>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Expiry {
    /// The rights end then, or never.
    fn follow(&mut self, at: Option<SystemTime>) {
        if self.at != at {
            *self = Self { at, sleep: None };
        }
    }

    /// Cancel safe.
    async fn over(&mut self) {
        while let Some(at) = self.at {
            let left = || at.duration_since(SystemTime::now()).unwrap_or_default();
            let look = || Box::pin(sleep(left().min(CLOCK_LOOK)));
            self.sleep.get_or_insert_with(look).await;
            self.sleep = None;
            if left().is_zero() {
                return;
            }
        }
        pending::<()>().await;
    }
}

/// Commands whose answers are under way, bounded by `Limits::in_flight`. Made with the first of them: most sessions never
/// have one.
#[derive(Default)]
struct InFlight(Option<FuturesUnordered<command::Later>>);

impl InFlight {
    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, FuturesUnordered::len)
    }

    fn push(&mut self, later: command::Later) {
        self.0.get_or_insert_default().push(later);
    }

    /// `None`: there is none.
    async fn next(&mut self) -> Option<Option<ServerFrame>> {
        self.0.as_mut()?.next().await
    }

    /// Does something, however long it takes, while these go on: what they publish waits for nothing else.
    async fn beside<T>(&mut self, mut doing: BoxFuture<'_, T>, outbox: &Outbox) -> T {
        loop {
            tokio::select! {
                biased;
                done = &mut doing => return done,
                Some(answer) = self.next() => outbox.answer(answer),
            }
        }
    }
}

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
    /// What gave the rights, shared with who writes the state that goes to the client. `None`: this wire's client gets none.
    token: Option<Arc<Mutex<Option<String>>>>,
    outbox: Arc<Outbox>,
    subscriptions: HashMap<ChannelName, Subscription>,
    /// In whose name its message ids are unique, and how much it may publish. Once it publishes.
    publisher: Option<Box<(Publisher, Arc<Allowance>)>>,
    bad_frames: u32,
    expired: bool,
    /// The wire broke, other than by a goodbye.
    broke: bool,
}

impl Session {
    fn user(&self) -> Option<&UserId> {
        self.rights.user()
    }

    fn app(&self) -> &AppId {
        self.rights.app()
    }

    /// How long the rights still hold. `None`: without end.
    fn rights_left(&self) -> Option<Duration> {
        self.rights.expires().map(|at| at.duration_since(SystemTime::now()).unwrap_or_default())
    }

    fn codec(&self) -> Codec {
        self.outbox.codec()
    }

    /// Takes commands until the connection ends, and gives the reason.
    fn read_all<'a>(
        &'a mut self,
        resume: entry::Resume,
        reader: &'a mut impl Reader,
        in_flight: &'a mut InFlight,
        cancel: &'a CancellationToken,
    ) -> impl Future<Output = Farewell> + Send + 'a {
        let outbox = Arc::clone(&self.outbox);
        let limit = self.node.limits.in_flight;
        async move {
            // Waited for once, not anew after each frame: to begin and to end a wait is work, in lists that all sessions
            // share.
            let mut cancelled = pin!(cancel.cancelled());
            let mut expiry = Expiry::default();
            tokio::select! {
                // Boxed, and gone with its state before the connection is idle.
                () = Box::pin(self.resume(resume)) => {}
                () = outbox.closing() => {}
                () = &mut cancelled => {}
            }
            loop {
                expiry.follow(if self.expired { None } else { self.rights.expires() });
                // A block of its own: what it waits with is gone before anything is done.
                let next = async {
                    let frame = async {
                        if !outbox.has_room() {
                            // Boxed: most clients never come here.
                            Box::pin(timeout(SLOW_CONSUMER_DEADLINE, outbox.room())).await.ok()?;
                        }
                        Some(reader.read().await)
                    };
                    tokio::select! {
                        biased;
                        () = &mut cancelled => Next::Over(Farewell::new(CloseCode::Draining, "the node is stopping")),
                        () = outbox.attention() => outbox.farewell().map_or(Next::Look, Next::Over),
                        Some(answer) = in_flight.next(), if in_flight.len() > 0 => {
                            outbox.answer(answer);
                            Next::Answered
                        }
                        () = expiry.over() => Next::Expired,
                        frame = frame, if in_flight.len() < limit => match frame {
                            Some(Ok(frame)) => Next::Frame(frame),
                            Some(Err(closed)) => Next::Closed(closed),
                            None => {
                                let reason = "asked for more answers than it took";
                                Next::Over(Farewell::new(CloseCode::SlowConsumer, reason))
                            }
                        },
                    }
                };
                match next.await {
                    Next::Frame(frame) => {
                        match self.begin(&frame, &outbox, in_flight) {
                            Begun::Done => {}
                            Begun::First(first) => {
                                finish(in_flight.beside(first, &outbox).await, &outbox, in_flight);
                            }
                            Begun::Over(farewell) => return farewell,
                        }
                        // Frames may be there without end, and nothing that is done with one need ever wait.
                        consume_budget().await;
                    }
                    Next::Answered => {}
                    Next::Look => {
                        let look = async {
                            self.end_failed().await;
                            self.recheck().await
                        };
                        if let Some(farewell) = in_flight.beside(look.boxed(), &outbox).await {
                            return farewell;
                        }
                    }
                    Next::Expired => in_flight.beside(self.expire().boxed(), &outbox).await,
                    Next::Closed(closed) => {
                        self.broke = !matches!(closed, Closed::ByPeer { code: CloseCode::Normal, .. });
                        return closed.farewell();
                    }
                    Next::Over(farewell) => return farewell,
                }
            }
        }
    }

    /// Begins what a frame of the client's asks for; most of it is done with that.
    fn begin(&mut self, frame: &[u8], outbox: &Outbox, in_flight: &mut InFlight) -> Begun<'_> {
        let mut command = match self.codec().decode_command(frame) {
            Ok(command) => command,
            Err(error) => return self.take_bad(error).map_or(Begun::Done, Begun::Over),
        };
        // The door: past it every name is one of the session's app.
        command.enter(self.app());
        match self.command(command) {
            Doing::First(first) => Begun::First(first),
            Doing::So(done) => {
                finish(done, outbox, in_flight);
                Begun::Done
            }
        }
    }

    fn take_bad(&mut self, error: DecodeError) -> Option<Farewell> {
        self.bad_frames += 1;
        let refusal = Refusal::new(error.code, error.message);
        self.outbox.push_answer(&ServerFrame::Error(refusal.into_frame(error.id, None)));
        (self.bad_frames >= BAD_FRAMES_LIMIT).then(|| {
            Farewell::new(CloseCode::ProtocolError, format!("{BAD_FRAMES_LIMIT} frames could not be read"))
        })
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
            self.node.sessions.detach_beside(self.connection);
            return;
        }
        let messages = self.outbox.take_messages();
        let departed = self.node.sessions.detach(Remains {
            session: &self.id,
            app: self.rights.app(),
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
