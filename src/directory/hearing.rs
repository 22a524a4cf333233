//! Who hears of a message in a channel that has members.

use xpush_protocol::{ChannelName, UserId};

use super::{
    Channel, Directory, Friend, FriendState, Member, MemberState, Notify, PresenceShown, Result,
    store::{Key, Prefix},
};

/// Members read at once.
const PAGE: usize = 256;

/// Friends that hear whether somebody is online.
const TOLD_FRIENDS: usize = 1000;

impl Directory {
    /// The friends of a user: who hears that it came or went.
    pub async fn may_see_presence(&self, user: &UserId) -> Result<Vec<UserId>> {
        let app = user.app();
        if self.policy(&app).await?.presence == PresenceShown::Nobody {
            return Ok(Vec::new());
        }
        let prefix = Prefix::new(&["friend", app.as_str(), user.local()]);
        let page = self.list::<Friend>(prefix, None, TOLD_FRIENDS).await?;
        let friends = page.into_iter().map(|(_, friend)| friend.value);
        let friends = friends.filter(|friend| friend.state == FriendState::Friends);
        Ok(friends.map(|friend| friend.user.within(&app)).collect())
    }

    /// The channel's active members with what they want to hear; of a channel with more than `most`, only those that are
    /// mentioned.
    pub async fn hearers(
        &self,
        channel: &ChannelName,
        mentioned: &[UserId],
        most: usize,
    ) -> Result<Vec<(UserId, Notify)>> {
        let Some(found) = self.read::<Channel>(&Channel::key(channel)).await? else { return Ok(Vec::new()) };
        let app = channel.app();
        if found.value.members as usize > most {
            let keys: Vec<Key> = mentioned.iter().map(|user| Member::key(channel, user)).collect();
            let members = self.read_many::<Member>(&keys).await?;
            let named = mentioned.iter().zip(members);
            let active = named.filter_map(|(user, member)| {
                let member = member?.value;
                (member.state == MemberState::Active).then(|| (user.clone(), member.notify))
            });
            return Ok(active.collect());
        }
        let prefix = || Prefix::new(&["member", app.as_str(), channel.local()]);
        let mut hearers = Vec::new();
        let mut after = None;
        loop {
            let page = self.list::<Member>(prefix(), after, PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|(key, _)| key.clone());
            let active = page.into_iter().map(|(_, member)| member.value);
            let active = active.filter(|member| member.state == MemberState::Active);
            hearers.extend(active.map(|member| (member.user.within(&app), member.notify)));
            if is_last {
                return Ok(hearers);
            }
        }
    }
}
