//! How much one user, or one channel, may have. Each is counted by a scan before something is added: who adds two at
//! the very same time may have one more, but for the members of a channel, which its record counts.

use xpush_protocol::{AppId, UserId};

use super::{
    Directory, DirectoryError, Result,
    store::{Key, Prefix, SCAN_LIMIT, Scan},
};

/// What an app allows its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quotas {
    /// Channels that one user is in, or invited to.
    pub(crate) channels_per_user: usize,
    /// Active and invited ones. So many may be banned too.
    pub(crate) members_per_channel: usize,
    /// Friends, requests and blocks of one user.
    pub(crate) friends: usize,
    /// Groups of one user.
    pub(crate) groups: usize,
}

impl Directory {
    /// What holds in an app.
    pub(crate) async fn quotas(&self, app: &AppId) -> Result<Quotas> {
        let said = self.policy(app).await?.quotas;
        let number = |most: u32| usize::try_from(most).unwrap_or(usize::MAX);
        Ok(Quotas {
            channels_per_user: number(said.channels_per_user),
            members_per_channel: number(said.members_per_channel),
            friends: number(said.friends),
            groups: number(said.groups),
        })
    }

    /// Whether there is such a user.
    pub(crate) async fn is_known(&self, user: &UserId) -> Result<bool> {
        let key = Key::new(&["user", user.app().as_str(), user.local()]);
        Ok(self.store.get(&key).await?.is_some())
    }

    /// Refuses one more where there are `limit` under the prefix.
    pub(crate) async fn require_room(&self, prefix: Prefix, limit: usize, of: &str) -> Result<()> {
        let mut count = 0;
        let mut after = None;
        while count < limit {
            let page_limit = (limit - count).min(SCAN_LIMIT);
            let scan = Scan { after, limit: page_limit, ..Scan::of(prefix.clone()) };
            let page = self.store.scan(scan).await?;
            count += page.len();
            if page.len() < page_limit {
                return Ok(());
            }
            after = page.last().map(|(key, _)| key.clone());
        }
        Err(DirectoryError::LimitReached(format!("the app allows {limit} {of}")))
    }
}
