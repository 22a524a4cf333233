//! What was taken away from somebody, told to every node by the store itself: no broker has to be there for a right to
//! be gone.
//!
//! A change is written in the commit that takes the right away, under the time of its writer, and expires by itself.
//! Nodes read on from where they were, and a little before that: clocks differ, and commits take a while to be seen.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use xpush_protocol::{AppId, ChannelName, DeviceId, SessionId, UserId};

use super::{
    Directory, Record, Result, record,
    store::{Commit, Key, Prefix, SCAN_LIMIT, Scan},
};

/// How far back is read again: more than clocks differ and a commit takes.
const OVERLAP: Duration = Duration::from_secs(5);

/// How long a change is kept for nodes that could not read. One that was away for longer checks all of its sessions.
pub(crate) const KEPT: Duration = Duration::from_secs(600);

/// Something that sessions, anywhere, may have to stop for. Names are local to `app`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The user was deactivated, deleted, or all of its tokens were taken back.
    User { app: AppId, user: UserId },
    /// A device was revoked.
    Device { app: AppId, user: UserId, device: DeviceId },
    /// One login ended: by a logout, a refresh token that was used twice, or a login elsewhere.
    Login { app: AppId, user: UserId, login: String },
    /// A member's role, mute or ban changed, it was removed or blocked.
    Member { app: AppId, channel: ChannelName, user: UserId },
    /// The channel's rules changed, or it is gone.
    Channel { app: AppId, channel: ChannelName },
    /// The app's policy or keys changed, or it is gone.
    App { app: AppId },
    /// A session of the user began where the app allows one (of the user, or of the device): the others end.
    Entered {
        app: AppId,
        user: UserId,
        /// `None`: one session of the user; else one of this device.
        device: Option<DeviceId>,
        session: SessionId,
        /// When it began, in milliseconds since 1970. Of two the later one stays.
        at: u64,
    },
}

impl Record for Change {}

impl Commit {
    /// Tells every node, with this commit.
    #[must_use]
    pub(crate) fn tell(self, change: &Change) -> Self {
        let now = SystemTime::now();
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let key = Key::new(&["change", &format!("{millis:015}"), SessionId::random().as_str()]);
        self.put_until(key, record::encode(change), now + KEPT)
    }
}

impl Directory {
    /// Tells every node something that no other change of the directory goes with.
    pub async fn tell(&self, change: &Change) -> Result<()> {
        self.change(|| async { Ok((Commit::new().tell(change), ())) }).await
    }
}

/// Follows the changes from now on.
#[derive(Debug)]
pub struct ChangeFeed {
    /// Keys that were given already, of the time that is read again.
    seen: HashSet<Key>,
    read_until: SystemTime,
    missed: bool,
}

impl Default for ChangeFeed {
    /// From now on, and a little before.
    fn default() -> Self {
        Self { seen: HashSet::new(), read_until: SystemTime::now(), missed: false }
    }
}

impl ChangeFeed {
    /// What came since the last call. An error gives nothing, and the next call makes up for it, if it is not too late:
    /// then `take_missed` says so.
    pub async fn next(&mut self, directory: &Directory) -> Result<Vec<Change>> {
        let (now, until) = (SystemTime::now(), self.read_until);
        let (changes, keys) = self.since(directory, until).await?;
        let new = changes.into_iter().filter(|(key, _)| !self.seen.contains(key)).map(|(_, change)| change);
        let new = new.collect();
        self.seen = keys;
        self.read_until = now;
        self.missed |= now.duration_since(until).unwrap_or_default() + OVERLAP > KEPT;
        Ok(new)
    }

    /// Whether a call was longer after the one before than changes are kept: then anything may have changed.
    pub fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }

    async fn since(
        &self,
        directory: &Directory,
        until: SystemTime,
    ) -> Result<(HashMap<Key, Change>, HashSet<Key>)> {
        let from = until.checked_sub(OVERLAP).unwrap_or(UNIX_EPOCH);
        let millis = from.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut after = Some(Key::new(&["change", &format!("{millis:015}")]));
        let mut changes = HashMap::new();
        loop {
            let scan = Scan { after, ..Scan::of(Prefix::new(&["change"])) };
            let page = directory.store.scan(scan).await?;
            let is_last = page.len() < SCAN_LIMIT;
            after = page.last().map(|(key, _)| key.clone());
            for (key, entry) in page {
                // One of a newer version is not for us.
                if let Ok(tagged) = record::decode::<Change>(&key, &entry) {
                    changes.insert(key, tagged.value);
                }
            }
            if is_last {
                let keys = changes.keys().cloned().collect();
                return Ok((changes, keys));
            }
        }
    }
}
