//! Who is online, told to whom it concerns: a user is online as long as a device of it listens to its inbox, and its
//! friends who are online hear when that begins and ends.
//!
//! It is news of the moment, in no log: who comes later asks.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{
    StreamExt as _,
    stream::{self, FuturesUnordered},
};
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::debug;
use xpush_protocol::{ChannelName, DeviceId, EventName, Json, Message, SessionId, Target, UserId};

use super::Node;
use crate::namespace::INBOX;

/// Comings and goings that are not told yet. Beyond it some are not: who asks is told right.
const NEWS_CAPACITY: usize = 1024;

/// Users of whom is told at once: a node that hangs holds up what is told of these alone.
const TELLING: usize = 16;
/// Friends of one user who are sent to at once. Each may wait for a node that hangs.
const SENDING: usize = 64;

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

impl News {
    fn user(&self) -> &UserId {
        match self {
            Self::Presence { user, .. } | Self::Seen { user, .. } => user,
        }
    }
}

/// News of users who are being told of: they come after that, in the order in which they came.
struct Behind<T> {
    of: HashMap<UserId, VecDeque<T>>,
    waiting: usize,
}

impl<T> Default for Behind<T> {
    fn default() -> Self {
        Self { of: HashMap::new(), waiting: 0 }
    }
}

impl<T> Behind<T> {
    /// Gives it back if it is to be told now.
    fn take(&mut self, user: &UserId, news: T) -> Option<T> {
        match self.of.get_mut(user) {
            Some(behind) => {
                behind.push_back(news);
                self.waiting += 1;
                None
            }
            None => {
                self.of.insert(user.clone(), VecDeque::new());
                Some(news)
            }
        }
    }

    /// What was told of the user is done: this is next.
    fn done(&mut self, user: &UserId) -> Option<T> {
        let next = self.of.get_mut(user).and_then(VecDeque::pop_front);
        if next.is_some() {
            self.waiting -= 1;
        } else {
            self.of.remove(user);
        }
        next
    }
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
        let (mut behind, mut telling) = (Behind::default(), FuturesUnordered::new());
        loop {
            let has_room = telling.len() < TELLING && behind.waiting < NEWS_CAPACITY;
            let next = tokio::select! {
                news = waiting.recv(), if has_room => match news {
                    Some(news) => behind.take(&news.user().clone(), news),
                    None => return,
                },
                Some(user) = telling.next() => behind.done(&user),
            };
            if let Some(news) = next {
                telling.push(self.tell_news(news));
            }
        }
    }

    /// Gives the user back.
    async fn tell_news(&self, news: News) -> UserId {
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
        user.clone()
    }

    async fn tell_friends(&self, user: &UserId, online: bool) {
        let friends = match self.directory.may_see_presence(user).await {
            Ok(friends) => friends,
            Err(error) => return debug!(%user, %error, "friends can't be told"),
        };
        let state = if online { "online" } else { "offline" };
        let data = PresenceNews { user, state };
        let (Ok(event), Ok(data)) = (EVENT.parse::<EventName>(), Json::from_value(&data)) else { return };
        let sending = stream::iter(friends).for_each_concurrent(SENDING, |friend| {
            let (event, data) = (event.clone(), Some(data.clone()));
            let message = Message { session: None, user: None, event, data, binary: None };
            async move {
                // Who is not connected does not miss it.
                let _ = self.send(&friend.app(), Target::User(friend), message).await;
            }
        });
        sending.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_of_one_user_wait_for_one_another_and_for_nobody_else() {
        let (ann, bob): (UserId, UserId) = ("ann".parse().unwrap(), "bob".parse().unwrap());
        let mut behind = Behind::default();
        assert_eq!(behind.take(&ann, 1), Some(1));
        assert_eq!((behind.take(&ann, 2), behind.take(&ann, 3)), (None, None));
        assert_eq!(behind.take(&bob, 4), Some(4));
        assert_eq!((behind.waiting, behind.done(&ann)), (2, Some(2)));
        assert_eq!((behind.done(&bob), behind.done(&ann), behind.done(&ann)), (None, Some(3), None));
        assert!(behind.of.is_empty() && behind.waiting == 0);
        assert_eq!(behind.take(&ann, 5), Some(5));
    }
}
