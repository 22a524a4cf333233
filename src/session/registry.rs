//! Which sessions are here, and which just went: a session outlives its connection for a while, so that a phone
//! that changes its wire finds its private messages and has never left its channels.

mod ending;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use tokio::time::Instant;
use xpush_protocol::{
    AppId, ChannelName, CloseCode, DeviceId, Message, ServerFrame, SessionId, Target, UserDevice, UserId,
};
use xpush_transports::Farewell;

use super::Outbox;
use crate::{broker::Taken, channel::Encoded};

/// How long a session is waited for after its wire broke.
pub const LINGER: Duration = Duration::from_secs(10);
/// Private messages kept for one that is away.
const MAILBOX_CAPACITY: usize = 64;

/// The sessions of this node.
#[derive(Default)]
pub struct Sessions {
    tables: Mutex<Tables>,
    /// Some connection could not be told whether a right is gone: only then are they asked one by one.
    some_unsure: AtomicBool,
}

/// A connection that takes a session over.
#[derive(Clone, Copy)]
pub struct Entering<'a> {
    pub(crate) session: &'a SessionId,
    pub(crate) app: &'a AppId,
    pub(crate) user: Option<&'a UserId>,
    /// On which of the user's devices it is.
    pub(crate) device: Option<&'a DeviceId>,
    pub(crate) connection: u64,
    /// When it began, in milliseconds since 1970.
    pub(crate) since: u64,
    /// Higher than that of every earlier connection of the session.
    pub(crate) generation: u64,
    pub(crate) outbox: &'a Arc<Outbox>,
}

#[derive(Default)]
struct Tables {
    present: HashMap<SessionId, Present>,
    absent: HashMap<SessionId, Absent>,
    by_user: HashMap<UserId, HashSet<SessionId>>,
    /// Connections beside a session's own, by their numbers: nothing private comes to them, and what ends the others ends
    /// them.
    beside: HashMap<u64, Beside>,
    /// What connections that were taken over held: the newer one has until then to take its places up.
    replaced: Vec<(Instant, Departed)>,
}

struct Present {
    connection: u64,
    generation: u64,
    app: AppId,
    user: Option<UserId>,
    device: Option<DeviceId>,
    outbox: Arc<Outbox>,
    /// Its rights have expired: nothing private reaches it.
    muted: bool,
    /// When it began, in milliseconds since 1970.
    since: u64,
    /// It is asked once. If it is here again, it could not go elsewhere.
    asked_to_go: bool,
}

struct Beside {
    app: AppId,
    user: Option<UserId>,
    device: Option<DeviceId>,
    session: SessionId,
    since: u64,
    outbox: Arc<Outbox>,
}

struct Absent {
    connection: u64,
    generation: u64,
    app: AppId,
    user: Option<UserId>,
    device: Option<DeviceId>,
    channels: Vec<ChannelName>,
    mailbox: VecDeque<Arc<Encoded>>,
    until: Instant,
}

/// A connection whose session's time ran out, or goes on by another: it leaves its channels. There is one for every
/// connection that was attached.
pub struct Departed {
    pub session: SessionId,
    pub user: Option<UserId>,
    pub connection: u64,
    pub channels: Vec<ChannelName>,
}

/// What a connection leaves behind.
pub(super) struct Remains<'a> {
    pub(super) session: &'a SessionId,
    pub(super) app: &'a AppId,
    pub(super) user: Option<&'a UserId>,
    pub(super) connection: u64,
    pub(super) channels: Vec<ChannelName>,
    pub(super) messages: VecDeque<Arc<Encoded>>,
    /// The client may come back; else it said goodbye.
    pub(super) may_return: bool,
}

impl Sessions {
    /// A connection takes the session over: an older one of it is told so, and what waited for it is handed on.
    pub(crate) fn attach(&self, entering: Entering<'_>) {
        let Entering { session, app, user, device, connection, since, generation, outbox } = entering;
        let mut tables = self.tables();
        if let Some(user) = user {
            tables.by_user.entry(user.clone()).or_default().insert(session.clone());
        }
        if let Some(absent) = tables.absent.remove(session) {
            hand_on(&absent.mailbox, outbox);
            // What is not taken up anew is left.
            let Absent { connection, user, channels, .. } = absent;
            let departed = Departed { session: session.clone(), user, connection, channels };
            tables.replaced.push((Instant::now() + LINGER, departed));
        }
        let asked_to_go = tables.present.get(session).is_some_and(|older| older.asked_to_go);
        let present = Present {
            connection,
            generation,
            app: app.clone(),
            user: user.cloned(),
            device: device.cloned(),
            since,
            outbox: Arc::clone(outbox),
            muted: false,
            asked_to_go,
        };
        if let Some(older) = tables.present.insert(session.clone(), present) {
            hand_on(&older.outbox.take_messages(), outbox);
            older
                .outbox
                .close(Farewell::new(CloseCode::Replaced, "another connection took the session over"));
        }
    }

    /// A connection beside a session's own begins.
    pub(crate) fn attach_beside(&self, entering: Entering<'_>) {
        let Entering { session, app, user, device, connection, since, outbox, .. } = entering;
        let (app, user, device) = (app.clone(), user.cloned(), device.cloned());
        let (session, outbox) = (session.clone(), Arc::clone(outbox));
        self.tables().beside.insert(connection, Beside { app, user, device, session, since, outbox });
    }

    pub(super) fn detach_beside(&self, connection: u64) {
        self.tables().beside.remove(&connection);
    }

    /// A connection is gone. Gives whose channels are to be left now, if the session will not return.
    pub(super) fn detach(&self, remains: Remains<'_>) -> Option<Departed> {
        let Remains { session, app, user, connection, channels, mut messages, may_return } = remains;
        let mut tables = self.tables();
        match tables.present.get(session) {
            Some(present) if present.connection == connection => {}
            newer => {
                // Taken over meanwhile: what came in between the two is the newer one's, or waits for the next.
                match newer {
                    Some(newer) => hand_on(&messages, &newer.outbox),
                    None => tables.keep(session, messages),
                }
                let user = user.cloned();
                let departed = Departed { session: session.clone(), user, connection, channels };
                tables.replaced.push((Instant::now() + LINGER, departed));
                return None;
            }
        }
        let (generation, device) =
            tables.present.remove(session).map_or((0, None), |present| (present.generation, present.device));
        if !may_return {
            tables.forget_user(user, session);
            return Some(Departed { session: session.clone(), user: user.cloned(), connection, channels });
        }
        messages.truncate(MAILBOX_CAPACITY);
        let until = Instant::now() + LINGER;
        let (app, user) = (app.clone(), user.cloned());
        let absent = Absent { connection, generation, app, user, device, channels, mailbox: messages, until };
        tables.absent.insert(session.clone(), absent);
        None
    }

    /// A session goes on at another node: what is left of it here ends. Gives the private messages that wait for it, and
    /// whose app's it is.
    pub(crate) fn hand_over(&self, taken: &Taken) -> (AppId, Vec<Message>) {
        let mut tables = self.tables();
        let session = &taken.session;
        let (mut whose, mut waiting) = (AppId::default(), VecDeque::new());
        if tables.present.get(session).is_some_and(|present| present.generation < taken.generation)
            && let Some(present) = tables.present.remove(session)
        {
            (whose, waiting) = (present.app, present.outbox.take_messages());
            tables.forget_user(present.user.as_ref(), session);
            let reason = "the session goes on at another node";
            present.outbox.close(Farewell::new(CloseCode::Replaced, reason));
        }
        if tables.absent.get(session).is_some_and(|absent| absent.generation < taken.generation)
            && let Some(absent) = tables.absent.remove(session)
        {
            let Absent { connection, app, user, channels, mailbox, .. } = absent;
            tables.forget_user(user.as_ref(), session);
            whose = app;
            waiting.extend(mailbox);
            let departed = Departed { session: session.clone(), user, connection, channels };
            // Only once the other node has taken its places up, or it would leave and join.
            tables.replaced.push((Instant::now() + LINGER, departed));
        }
        (whose, waiting.iter().filter_map(|waiting| waiting.message()).collect())
    }

    /// Whether private messages reach this connection's session.
    pub(super) fn mute(&self, session: &SessionId, connection: u64, muted: bool) {
        let mut tables = self.tables();
        if let Some(present) =
            tables.present.get_mut(session).filter(|present| present.connection == connection)
        {
            present.muted = muted;
        }
    }

    /// The sessions that were waited for in vain.
    pub fn take_departed(&self, now: Instant) -> Vec<Departed> {
        let mut tables = self.tables();
        let over: Vec<_> =
            tables.absent.iter().filter(|(_, a)| a.until <= now).map(|(id, _)| id.clone()).collect();
        let (replaced, waiting) =
            std::mem::take(&mut tables.replaced).into_iter().partition(|(until, _)| *until <= now);
        tables.replaced = waiting;
        let replaced: Vec<(Instant, Departed)> = replaced;
        let absent: Vec<_> = over
            .into_iter()
            .filter_map(|session| {
                let absent = tables.absent.remove(&session)?;
                tables.forget_user(absent.user.as_ref(), &session);
                let Absent { connection, user, channels, .. } = absent;
                Some(Departed { session, user, connection, channels })
            })
            .collect();
        replaced.into_iter().map(|(_, departed)| departed).chain(absent).collect()
    }

    /// Hands a private message to whom it is for, if that is one of this app. Gives how many sessions took it.
    pub fn send(&self, app: &AppId, to: &Target, message: ServerFrame) -> u32 {
        let message = Arc::new(Encoded::new(&message));
        let mut tables = self.tables();
        match to {
            Target::Session(session) if !tables.is_of(session, app) => 0,
            Target::Session(session) => u32::from(tables.hand(session, &message)),
            Target::User(user) if !user.is_of(app) => 0,
            Target::User(user) => {
                let sessions = tables.by_user.get(user).cloned().unwrap_or_default();
                sessions.iter().map(|session| u32::from(tables.hand(session, &message))).sum()
            }
            Target::Device(UserDevice { user, .. }) if !user.is_of(app) => 0,
            Target::Device(UserDevice { user, device }) => {
                let sessions = tables.by_user.get(user).cloned().unwrap_or_default();
                let on_it = |session: &&SessionId| tables.device_of(session) == Some(device);
                let sessions: Vec<_> = sessions.iter().filter(on_it).collect();
                sessions.into_iter().map(|session| u32::from(tables.hand(session, &message))).sum()
            }
        }
    }

    /// Tells every session something that it must not miss, each its own.
    pub fn tell_all(&self, mut frame: impl FnMut(usize) -> ServerFrame) {
        for (index, present) in self.tables().present.values().enumerate() {
            present.outbox.push_answer(&frame(index));
        }
    }

    /// Tells so many sessions, of those that it was not told before.
    pub(crate) fn ask_to_go(&self, count: usize, mut frame: impl FnMut(usize) -> ServerFrame) {
        let mut tables = self.tables();
        let not_asked = tables.present.values_mut().filter(|present| !present.asked_to_go);
        for (index, present) in not_asked.take(count).enumerate() {
            present.asked_to_go = true;
            present.outbox.push_answer(&frame(index));
        }
    }

    /// Sessions that have a connection here.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tables().present.len()
    }

    /// Users of whom a session is here, or just was.
    #[must_use]
    pub fn count_users(&self) -> usize {
        self.tables().by_user.len()
    }

    /// Those of an app, in no order, each with how many sessions it has.
    #[must_use]
    pub fn users(&self, app: &AppId) -> Vec<(UserId, usize)> {
        let tables = self.tables();
        let users = tables.by_user.iter().filter(|(user, _)| user.is_of(app));
        users.map(|(user, sessions)| (user.clone(), sessions.len())).collect()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn is_of(&self, session: &SessionId, app: &AppId) -> bool {
        let present = self.present.get(session).map(|present| &present.app);
        present.or_else(|| self.absent.get(session).map(|absent| &absent.app)) == Some(app)
    }

    fn hand(&mut self, session: &SessionId, message: &Arc<Encoded>) -> bool {
        if let Some(present) = self.present.get(session) {
            return !present.muted && present.outbox.push_message(message);
        }
        let Some(absent) = self.absent.get_mut(session) else { return false };
        let fits = absent.mailbox.len() < MAILBOX_CAPACITY;
        if fits {
            absent.mailbox.push_back(Arc::clone(message));
        }
        fits
    }

    fn device_of(&self, session: &SessionId) -> Option<&DeviceId> {
        let of_absent = || self.absent.get(session).and_then(|absent| absent.device.as_ref());
        self.present.get(session).map_or_else(of_absent, |present| present.device.as_ref())
    }

    /// For a session that is away.
    fn keep(&mut self, session: &SessionId, messages: VecDeque<Arc<Encoded>>) {
        if let Some(absent) = self.absent.get_mut(session) {
            absent.mailbox.extend(messages);
            absent.mailbox.truncate(MAILBOX_CAPACITY);
        }
    }

    fn forget_user(&mut self, user: Option<&UserId>, session: &SessionId) {
        let Some(user) = user else { return };
        if let Some(sessions) = self.by_user.get_mut(user) {
            sessions.remove(session);
            if sessions.is_empty() {
                self.by_user.remove(user);
            }
        }
    }
}

/// What waited for a session goes to its newer connection, as far as there is room.
fn hand_on(messages: &VecDeque<Arc<Encoded>>, outbox: &Outbox) {
    for message in messages {
        if !outbox.push_message(message) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use xpush_protocol::{Codec, Draining};

    use super::*;

    #[test]
    fn what_is_for_a_device_reaches_the_sessions_of_that_user_on_it() {
        let sessions = Sessions::default();
        let (ann, bob): (UserId, UserId) = ("ann".parse().unwrap(), "bob".parse().unwrap());
        let (phone, laptop): (DeviceId, DeviceId) = ("phone".parse().unwrap(), "laptop".parse().unwrap());
        let places = [
            (&ann, Some(&phone)),
            (&ann, Some(&phone)),
            (&ann, Some(&laptop)),
            (&ann, None),
            (&bob, Some(&phone)),
        ];
        for (user, device) in places {
            sessions.attach(Entering {
                session: &SessionId::random(),
                app: &AppId::default(),
                user: Some(user),
                device,
                connection: 1,
                since: 0,
                generation: 1,
                outbox: &Arc::new(Outbox::new(Codec::Json)),
            });
        }
        let reached = |user: &UserId, device: &DeviceId| {
            let to = Target::Device(UserDevice { user: user.clone(), device: device.clone() });
            let (session, event, data, binary) = Default::default();
            let message = Message { session, user: None, event, data, binary };
            sessions.send(&AppId::default(), &to, ServerFrame::Message(message))
        };
        assert_eq!((reached(&ann, &phone), reached(&ann, &laptop)), (2, 1));
        assert_eq!((reached(&bob, &phone), reached(&bob, &laptop)), (1, 0));
    }

    #[test]
    fn a_session_is_asked_to_go_once_even_if_it_comes_back() {
        let sessions = Sessions::default();
        let ids = [SessionId::random(), SessionId::random(), SessionId::random()];
        let enter = |session, connection| {
            let outbox = Arc::new(Outbox::new(Codec::Json));
            let entering = Entering {
                session,
                app: &AppId::default(),
                user: None,
                device: None,
                connection,
                since: 0,
                generation: connection,
                outbox: &outbox,
            };
            sessions.attach(entering);
        };
        ids.iter().for_each(|session| enter(session, 1));
        let ask = |count| {
            let mut asked = 0;
            sessions.ask_to_go(count, |index| {
                assert_eq!(index, asked);
                asked += 1;
                ServerFrame::Draining(Draining { reconnect_in: 0, close_in: 0 })
            });
            asked
        };
        assert_eq!(ask(2), 2);
        ids.iter().for_each(|session| enter(session, 2));
        assert_eq!((ask(2), ask(2)), (1, 0));
    }
}
