//! A channel's own fields, read and changed.

use xpush_protocol::{ChannelName, Json};

use super::{Channel, Kind};
use crate::directory::{
    Action, Actor, Change, Directory, DirectoryError, Result, Tagged,
    member::{Member, MemberState},
    record,
    store::Commit,
};

/// New values. `Some(None)` takes one away.
#[derive(Debug, Clone, Default)]
pub struct ChannelPatch {
    pub title: Option<Option<String>>,
    pub topic: Option<Option<String>>,
    pub avatar: Option<Option<String>>,
    pub data: Option<Option<Json>>,
    pub public: Option<bool>,
}

/// A channel as somebody sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub channel: Tagged<Channel>,
    /// Who looks, if he is in or invited.
    pub member: Option<Member>,
}

impl Directory {
    /// A channel that is there.
    pub async fn channel(&self, channel: &ChannelName) -> Result<Option<Tagged<Channel>>> {
        let found = self.read::<Channel>(&Channel::key(channel)).await?;
        Ok(found.filter(|found| found.value.is_live()))
    }

    pub(in crate::directory) async fn require_channel(
        &self,
        channel: &ChannelName,
    ) -> Result<Tagged<Channel>> {
        self.channel(channel).await?.ok_or(DirectoryError::NotFound("channel"))
    }

    /// A channel, for those who may know of it: its members and whom they invited; for everybody who is not banned where
    /// one may join. `open` says that its namespace lets everybody in.
    pub async fn see_channel(&self, channel: &ChannelName, actor: Actor<'_>, open: bool) -> Result<Seen> {
        let not_found = DirectoryError::NotFound("channel");
        let Actor::User(user) = actor else {
            return Ok(Seen { channel: self.require_channel(channel).await?, member: None });
        };
        if user.app() != channel.app() {
            return Err(not_found);
        }
        let found = self.require_channel(channel).await?;
        let member = self.read::<Member>(&Member::key(channel, user)).await?.map(|member| member.value);
        match member {
            Some(member) if member.state == MemberState::Banned => Err(not_found),
            None if !open && !found.value.profile.public => Err(not_found),
            member => Ok(Seen { channel: found, member }),
        }
    }

    /// Refuses who may not do that in the channel.
    pub async fn require_role(&self, channel: &ChannelName, actor: Actor<'_>, action: Action) -> Result<()> {
        let found = self.require_channel(channel).await?;
        self.require_action(&found.value, channel, actor, action).await.map(drop)
    }

    /// Changes a channel's own fields, if it is still the version that is expected.
    pub async fn update_channel(
        &self,
        channel: &ChannelName,
        actor: Actor<'_>,
        patch: &ChannelPatch,
        expected: Option<u64>,
    ) -> Result<Tagged<Channel>> {
        self.change(|| async {
            let found = self.require_channel(channel).await?;
            let actor = self.require_action(&found.value, channel, actor, Action::Update).await?;
            if found.value.kind == Kind::Direct {
                let message = "a direct channel has no title and no rules of its own";
                return Err(DirectoryError::NotSupported(message.into()));
            }
            if expected.is_some_and(|expected| expected != found.version) {
                return Err(DirectoryError::Stale);
            }
            let mut changed = found.value.clone();
            patch.apply(&mut changed);
            changed.profile.check()?;
            if changed == found.value {
                return Ok((Commit::new(), ()));
            }
            let key = Channel::key(channel);
            let mut commit = Commit::new().expect(key.clone(), Some(found.version));
            if let Some((key, version)) = actor {
                commit = commit.expect(key, Some(version));
            }
            commit = commit.put(key, record::encode(&changed));
            if changed.profile.public != found.value.profile.public {
                commit = commit.tell(&Change::Channel { app: channel.app(), channel: channel.clone() });
            }
            Ok((commit, ()))
        })
        .await?;
        self.require_channel(channel).await
    }
}

impl ChannelPatch {
    fn apply(&self, channel: &mut Channel) {
        let profile = &mut channel.profile;
        let Self { title, topic, avatar, data, public } = self.clone();
        profile.title = title.unwrap_or(profile.title.take());
        profile.topic = topic.unwrap_or(profile.topic.take());
        profile.avatar = avatar.unwrap_or(profile.avatar.take());
        profile.data = data.unwrap_or(profile.data.take());
        profile.public = public.unwrap_or(profile.public);
    }
}
