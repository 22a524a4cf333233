//! What was taken away from somebody, told to every node by the store itself: no broker has to be there for a right to
//! be gone.
//!
//! A change is written in the commit that takes the right away, under the time of its writer, and expires by itself.
//! Nodes read on from where they were, and a little before that: clocks differ, and commits take a while to be seen.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use xpush_protocol::{AppId, ChannelName, DeviceId, SessionId, UserId};

use super::{
    Directory, Record, Result, record,
    store::{Commit, Key, Prefix, SCAN_LIMIT, Scan},
};

/// How far back is read again: well over what the clocks of two nodes differ, and what a store may take for a commit,
/// whose change stands under the time at which it was planned.
const OVERLAP: Duration = Duration::from_secs(30);
/// How often all of that is read. What comes that late is rare, and need not be known at once.
const WHOLE_INTERVAL: Duration = Duration::from_secs(1);
/// How far back is read at other times: nearly every commit is seen within it.
const RECENT: Duration = Duration::from_secs(2);

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
        let key = Key::new(&["change", &place_at(now), SessionId::random().as_str()]);
        self.put_until(key, record::encode(change), now + KEPT)
    }
}

/// Where changes of that time stand.
fn place_at(time: SystemTime) -> String {
    format!("{:015}", time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis())
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
    /// When the whole overlap was read last.
    read_whole: Option<Instant>,
    missed: bool,
}

impl Default for ChangeFeed {
    /// From now on, and a little before.
    fn default() -> Self {
        Self { seen: HashSet::new(), read_until: SystemTime::now(), read_whole: None, missed: false }
    }
}

impl ChangeFeed {
    /// What came since the last call. An error gives nothing, and the next call makes up for it, if it is not too late:
    /// then `take_missed` says so.
    pub async fn next(&mut self, directory: &Directory) -> Result<Vec<Change>> {
        let (now, until, began) = (SystemTime::now(), self.read_until, Instant::now());
        let is_whole = self.read_whole.is_none_or(|at| at.elapsed() >= WHOLE_INTERVAL);
        let changes = since(directory, until, if is_whole { OVERLAP } else { RECENT }).await?;
        let keys: HashSet<Key> = changes.keys().cloned().collect();
        let new = changes.into_iter().filter(|(key, _)| !self.seen.contains(key)).map(|(_, change)| change);
        let new = new.collect();
        if is_whole {
            // What stood before is never read again.
            self.seen = keys;
            self.read_whole = Some(began);
        } else {
            self.seen.extend(keys);
        }
        self.read_until = now;
        self.missed |= now.duration_since(until).unwrap_or_default() + OVERLAP > KEPT;
        Ok(new)
    }

    /// Whether a call was longer after the one before than changes are kept: then anything may have changed.
    pub fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }
}

/// The changes from `overlap` before `until` on.
async fn since(directory: &Directory, until: SystemTime, overlap: Duration) -> Result<HashMap<Key, Change>> {
    let from = until.checked_sub(overlap).unwrap_or(UNIX_EPOCH);
    let mut after = Some(Key::new(&["change", &place_at(from)]));
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
            return Ok(changes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::directory::store::Memory;

    #[tokio::test]
    async fn a_change_of_a_slow_commit_and_a_late_clock_is_given_once() {
        let directory = Directory::new(Arc::new(Memory::default()));
        let (mut feed, change) = (ChangeFeed::default(), Change::App { app: "shop".parse().unwrap() });
        assert!(feed.next(&directory).await.unwrap().is_empty());
        let now = SystemTime::now();
        let key = Key::new(&["change", &place_at(now - OVERLAP * 2 / 3), "late"]);
        let late = Commit::new().put_until(key, record::encode(&change), now + KEPT);
        directory.store.commit(late).await.unwrap();
        let recent = Change::App { app: "bank".parse().unwrap() };
        directory.tell(&recent).await.unwrap();
        feed.read_whole = Some(Instant::now());
        assert_eq!(feed.next(&directory).await.unwrap(), [recent]);
        feed.read_whole = None;
        assert_eq!(feed.next(&directory).await.unwrap(), [change]);
        assert!(feed.next(&directory).await.unwrap().is_empty());
        feed.read_whole = None;
        assert!(feed.next(&directory).await.unwrap().is_empty());
    }
}
