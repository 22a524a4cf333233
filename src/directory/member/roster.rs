//! Lists: who is in a channel, who is banned, how far each has read; and in which channels somebody is.

use std::collections::BTreeMap;

use serde::Serialize;
use xpush_protocol::{ChannelName, DeviceId, UserId};

use super::{Member, MemberState, Mine};
use crate::directory::{
    Directory, Result,
    channel::Channel,
    page::{Page, PageQuery},
};

/// A channel as one of its members, or somebody invited, has it in his list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    pub channel: Channel,
    pub member: Member,
}

/// How far a member is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    pub user: UserId,
    pub read: u64,
    pub received: BTreeMap<DeviceId, u64>,
}

impl Directory {
    /// Members of these states, in the order of their ids.
    pub async fn members(
        &self,
        channel: &ChannelName,
        states: &[MemberState],
        query: PageQuery,
    ) -> Result<Page<Member>> {
        let page = self.page::<Member>(Member::prefix(channel), query).await?;
        Ok(page.filter_map(|_, member| states.contains(&member.state).then_some(member)))
    }

    /// One member, whatever its state.
    pub async fn member(&self, channel: &ChannelName, user: &UserId) -> Result<Option<Member>> {
        Ok(self.read::<Member>(&Member::key(channel, user)).await?.map(|member| member.value))
    }

    pub async fn receipts(&self, channel: &ChannelName, query: PageQuery) -> Result<Page<Receipt>> {
        let page = self.page::<Member>(Member::prefix(channel), query).await?;
        Ok(page.filter_map(|_, Member { user, state, read, received, .. }| {
            (state == MemberState::Active).then_some(Receipt { user, read, received })
        }))
    }

    /// The channels that a user is in, or invited to, in the order of their names.
    pub async fn conversations(&self, user: &UserId, query: PageQuery) -> Result<Page<Conversation>> {
        let app = user.app();
        let page = self.page::<Mine>(Mine::prefix(user), query).await?;
        let names = page.keys().filter_map(|key| key.component(3).parse::<ChannelName>().ok());
        let names: Vec<ChannelName> = names.map(|name| name.within(&app)).collect();
        let (channels, members): (Vec<_>, Vec<_>) =
            names.iter().map(|name| (Channel::key(name), Member::key(name, user))).unzip();
        let channels = self.read_many::<Channel>(&channels).await?;
        let members = self.read_many::<Member>(&members).await?;
        let items = channels.into_iter().zip(members).filter_map(|(channel, member)| {
            let (channel, member) = (channel?.value, member?.value);
            // One that is going is still in the index for a moment.
            (channel.is_live() && member.counts()).then_some(Conversation { channel, member })
        });
        Ok(Page { items: items.collect(), next: page.next() })
    }
}
