//! A user leaves everything: he is deleted.

use xpush_protocol::{ChannelName, UserId};

use super::{Member, MemberState};
use crate::directory::{
    Actor, Directory, DirectoryError, Result,
    channel::Kind,
    page::{Page, PageQuery},
    role::Role,
};

impl Directory {
    /// Takes a user out of all of his channels. Where he was the last owner, the highest of the others is it from then on;
    /// where nobody is left, the channel goes. What he said stays.
    pub async fn leave_everything(&self, user: &UserId) -> Result<()> {
        let app = user.app();
        let mut query = PageQuery::default();
        loop {
            let page = self.conversations(user, query).await?;
            for conversation in page.items {
                let name = conversation.channel.channel.within(&app);
                match self.leave_for_good(&name, user, conversation.channel.kind).await {
                    // Somebody removed him, or the channel, meanwhile.
                    Ok(()) | Err(DirectoryError::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            match page.next {
                Some(next) => query = PageQuery { limit: None, cursor: Some(next) },
                None => return Ok(()),
            }
        }
    }

    async fn leave_for_good(&self, channel: &ChannelName, user: &UserId, kind: Kind) -> Result<()> {
        // The server acts here: the channel's own rules don't hold him.
        let left = self.act(channel, Actor::Backend, user, |scene| scene.member().map(|_| None)).await?;
        let was_owner = left
            .before
            .is_some_and(|member| member.state == MemberState::Active && member.role == Role::Owner);
        let found = self.require_channel(channel).await?;
        if found.value.members == 0 {
            return self.delete_channel(channel, Actor::Backend, None).await;
        }
        if kind == Kind::Direct || !was_owner || found.value.owners > 0 {
            return Ok(());
        }
        let Some(heir) = self.heir(channel).await? else {
            return self.delete_channel(channel, Actor::Backend, None).await;
        };
        let patch = super::MemberPatch { role: Some(Role::Owner), ..Default::default() };
        self.change_member(channel, Actor::Backend, &heir.user.within(&channel.app()), &patch).await?;
        Ok(())
    }

    /// The member of the highest role; of several, who is in for longest.
    async fn heir(&self, channel: &ChannelName) -> Result<Option<Member>> {
        let mut query = PageQuery::default();
        let mut heir: Option<Member> = None;
        loop {
            let Page { items, next } = self.members(channel, &[MemberState::Active], query).await?;
            for member in items {
                let is_better = heir.as_ref().is_none_or(|heir| {
                    (member.role, std::cmp::Reverse(member.joined))
                        > (heir.role, std::cmp::Reverse(heir.joined))
                });
                if is_better {
                    heir = Some(member);
                }
            }
            match next {
                Some(next) => query = PageQuery { limit: None, cursor: Some(next) },
                None => return Ok(heir),
            }
        }
    }
}
