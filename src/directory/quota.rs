//! How much one user may have. It is counted by a scan before something is added: who adds two at the very same time may
//! have one more. A channel's members are counted by its own record, and exactly.

use xpush_protocol::AppId;

use super::{
    Directory, DirectoryError, Result,
    store::{Prefix, SCAN_LIMIT, Scan},
};

/// What an app allows, as counts.
#[derive(Debug, Clone, Copy)]
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
        let quotas = self.policy(app).await?.quotas;
        Ok(Quotas {
            channels_per_user: quotas.channels_per_user as usize,
            members_per_channel: quotas.members_per_channel as usize,
            friends: quotas.friends as usize,
            groups: quotas.groups as usize,
        })
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
