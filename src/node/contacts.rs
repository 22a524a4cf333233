//! Who is online, told to whom it concerns: a user is online as long as a device of it listens to its inbox, and its
//! friends who are online hear when that begins and ends.
//!
//! It is news of the moment, in no log: who comes later asks.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::mpsc;
use tracing::debug;
use xpush_protocol::{ChannelName, DeviceId, EventName, Json, Message, SessionId, Target, UserId};

use super::Node;
use crate::namespace::INBOX;

/// Comings and goings that are not told yet. Beyond it some are not: who asks is told right.
const NEWS_CAPACITY: usize = 1024;

/// The event of the private message that tells of it.
const EVENT: &str = "xpush.presence";

/// What waits to be told.
pub(super) struct Contacts {
    news: mpsc::Sender<News>,
    waiting: Mutex<Option<mpsc::Receiver<News>>>,
}

enum News {
    /// A user came, with the first of its sessions, or went with the last.
    Presence { user: UserId, online: bool },
    /// A session of the user began, on this device.
    Seen { user: UserId, device: DeviceId, session: SessionId },
}

/// As friends get it.
#[derive(Serialize)]
struct PresenceNews<'a> {
    user: &'a UserId,
    state: &'static str,
}

impl Default for Contacts {
    fn default() -> Self {
        let (news, waiting) = mpsc::channel(NEWS_CAPACITY);
        Self { news, waiting: Mutex::new(Some(waiting)) }
    }
}

impl Node {
    /// Somebody came into a channel, or left it. If it is an inbox, its user came or went with the first of its
    /// sessions, or the last.
    pub(super) fn note_user(&self, channel: &ChannelName, user: Option<&UserId>, occupancy: u32, came: bool) {
        let Some(user) = user.filter(|_| channel.namespace() == INBOX) else { return };
        if occupancy == u32::from(came) {
            // The member of a list is named as its app knows it.
            let user = user.within(&channel.app());
            let _ = self.contacts.news.try_send(News::Presence { user, online: came });
        }
    }

    /// A session of a user began, maybe on a device that is known.
    pub(super) fn note_seen(&self, user: &UserId, device: Option<&DeviceId>, session: &SessionId) {
        let Some(device) = device else { return };
        let seen = News::Seen { user: user.clone(), device: device.clone(), session: session.clone() };
        // Missed, the device was last seen a little earlier.
        let _ = self.contacts.news.try_send(seen);
    }

    /// Tells the friends of who comes and goes, and notes when they did.
    pub(super) async fn tell_contacts(self: &Arc<Self>) {
        let waiting = self.contacts.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        // There is one `tend`.
        let Some(mut waiting) = waiting else { return };
        while let Some(news) = waiting.recv().await {
            let (user, device) = match &news {
                News::Presence { user, online } => {
                    self.tell_friends(user, *online).await;
                    (user, None)
                }
                News::Seen { user, device, session } => (user, Some((device, session))),
            };
            if let Err(error) = self.directory.saw(user, device).await {
                debug!(%user, %error, "when a user was seen can't be kept");
            }
        }
    }

    async fn tell_friends(&self, user: &UserId, online: bool) {
        let friends = match self.directory.may_see_presence(user).await {
            Ok(friends) => friends,
            Err(error) => return debug!(%user, %error, "friends can't be told"),
        };
        let state = if online { "online" } else { "offline" };
        let data = PresenceNews { user, state };
        let (Ok(event), Ok(data)) = (EVENT.parse::<EventName>(), Json::from_value(&data)) else { return };
        for friend in friends {
            let (event, data) = (event.clone(), Some(data.clone()));
            let message = Message { session: None, user: None, event, data, binary: None };
            // Who is not connected does not miss it.
            let _ = self.send(&friend.app(), Target::User(friend), message).await;
        }
    }
}
