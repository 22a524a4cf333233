//! Sessions that come and go: what this node listens to for them, which others of the user end, and who is told.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{debug, warn};
use xpush_protocol::{ChannelName, DeviceId, Join, Leave, ServerFrame, SessionId, UserId};

use super::Node;
use crate::{
    broker::{Carried, Taken, Topic},
    channel::PRESENCE_EVENTS_LIMIT,
    directory::{Change, LoginMode},
    session::{Departed, Entering},
};

/// Beyond it a connection begins without its app's login mode: the store is away.
const LOGIN_MODE_PATIENCE: Duration = Duration::from_millis(500);

impl Node {
    /// A connection takes a session over, from an older one here or, if the session was known before, anywhere.
    pub(crate) async fn attach(&self, entering: Entering<'_>, known: bool) {
        let Entering { session, user, device, since, generation, .. } = entering;
        self.sessions.attach(entering);
        if let Some(user) = user {
            self.enforce_login_mode(user, device, session, since).await;
            self.note_seen(user, device, session);
        }
        let of_session = self.broker.listen(Topic::Session(session.clone()));
        let of_user = user.map(|user| self.broker.listen(Topic::User(user.clone())));
        let of_user = async {
            if let Some(of_user) = of_user {
                of_user.await;
            }
        };
        tokio::join!(of_session, of_user);
        if known {
            // Where it can't be told, the older connection ends by itself, when its wire does.
            let _ = self.broker.publish(Carried::Taken(Taken { session: session.clone(), generation })).await;
        }
    }

    /// Where the app allows one session of a user, or of a device, the others end: here at once, elsewhere once they
    /// hear of it.
    async fn enforce_login_mode(
        &self,
        user: &UserId,
        device: Option<&DeviceId>,
        session: &SessionId,
        since: u64,
    ) {
        // Nobody is kept out, or waiting, for a store that is away.
        let policy = match timeout(LOGIN_MODE_PATIENCE, self.directory.policy(&user.app())).await {
            Ok(Ok(policy)) => policy,
            Ok(Err(error)) => return debug!(%user, %error, "the app's login mode is not known"),
            Err(_) => return debug!(%user, "the app's login mode is not known in time"),
        };
        let device = match (policy.login, device) {
            (LoginMode::PerUser, _) => None,
            (LoginMode::PerDevice, Some(device)) => Some(device.clone()),
            (LoginMode::PerDevice, None) | (LoginMode::Many, _) => return,
        };
        self.sessions.end_others(user, device.as_ref(), session, since);
        let (app, session) = (user.app(), session.clone());
        let entered = Change::Entered { app, user: user.clone(), device, session, at: since };
        if let Err(error) = self.directory.tell(&entered).await {
            warn!(%user, %error, "other nodes were not told to end the user's other sessions");
        }
    }

    /// Listens to a channel; `unlisten` has to follow.
    pub(crate) async fn listen(&self, channel: &ChannelName) {
        self.broker.listen(Topic::Channel(channel.clone())).await;
    }

    pub(crate) fn unlisten(&self, channel: &ChannelName) {
        self.broker.unlisten(&Topic::Channel(channel.clone()));
    }

    /// A session is no longer in a channel by this connection.
    pub(crate) async fn leave(&self, channel: &ChannelName, session: &SessionId, connection: u64) {
        if let Some(left) = self.presence.leave(channel, session, connection).await {
            let (member, occupancy) = (left.member, left.occupancy);
            self.note_user(channel, member.user.as_ref(), occupancy, false);
            let leave = Leave { channel: channel.clone(), member, occupancy };
            self.tell_presence(channel.clone(), occupancy, ServerFrame::Leave(leave)).await;
        }
    }

    /// A connection whose session will not return, or goes on by another, leaves its channels.
    pub(crate) async fn depart(&self, departed: Departed) {
        self.broker.unlisten(&Topic::Session(departed.session.clone()));
        if let Some(user) = &departed.user {
            self.broker.unlisten(&Topic::User(user.clone()));
        }
        for channel in &departed.channels {
            self.leave(channel, &departed.session, departed.connection).await;
        }
    }

    pub(crate) async fn tell_join(&self, join: Join) {
        self.note_user(&join.channel, join.member.user.as_ref(), join.occupancy, true);
        self.tell_presence(join.channel.clone(), join.occupancy, ServerFrame::Join(join)).await;
    }

    /// Tells all who are in a channel, here and elsewhere, something that is in no log.
    pub(crate) async fn tell_channel(&self, channel: ChannelName, frame: ServerFrame) {
        self.channels.tell(&channel, &frame);
        // Lost, it is what it may be: news that was of use for a moment.
        let _ = self.broker.publish(Carried::Event { channel, frame }).await;
    }

    async fn tell_presence(&self, channel: ChannelName, occupancy: u32, frame: ServerFrame) {
        self.channels.tell_presence(&channel, occupancy, &frame);
        // Of a big channel the others are told once a second, by `tend`, unless nobody is left here to count.
        if occupancy <= PRESENCE_EVENTS_LIMIT || self.channels.get(&channel).is_none() {
            // Lost, it is one event that subscribers elsewhere don't see; the list of members is right.
            let _ = self.broker.publish(Carried::Presence { channel, occupancy, frame }).await;
        }
    }
}
