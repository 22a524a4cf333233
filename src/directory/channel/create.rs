//! A new channel with its first members, in one commit.

use std::time::SystemTime;

use serde_json::json;
use xpush_protocol::{ChannelName, UserId};

use super::{Channel, ChannelProfile, DIRECT_NAMESPACE, Kind, Life};
use crate::directory::{
    Actor, Directory, DirectoryError, Record, Result, Tagged,
    member::{Member, MemberState, Mine},
    millis, record,
    role::Role,
    store::{Commit, Key},
};
use crate::webhook::HookEvent;

/// Members that a channel begins with, beside who makes it: one commit makes them all.
pub const INITIAL_MEMBERS: usize = 100;

/// A channel to be.
#[derive(Debug, Clone)]
pub struct NewChannel<'a> {
    pub channel: &'a ChannelName,
    pub profile: ChannelProfile,
    /// Who makes it owns it. `None`: a backend does, and nobody.
    pub creator: Option<&'a UserId>,
    pub members: &'a [UserId],
    /// Whether they are in, or have to accept.
    pub state: MemberState,
}

impl Directory {
    /// Makes a channel. Gives it, and who is in it beside its creator.
    pub async fn create_channel(
        &self,
        new: NewChannel<'_>,
        actor: Actor<'_>,
    ) -> Result<(Tagged<Channel>, Vec<UserId>)> {
        let NewChannel { channel, profile, creator, members, state } = new;
        profile.check()?;
        if channel.namespace() == DIRECT_NAMESPACE {
            let message = format!("channels of `{DIRECT_NAMESPACE}` are of two users, and made by them");
            return Err(DirectoryError::NotSupported(message));
        }
        if state == MemberState::Banned {
            return Err(DirectoryError::Invalid("a channel does not begin with bans".into()));
        }
        if members.len() > INITIAL_MEMBERS {
            let message = format!("`members` has {}, {INITIAL_MEMBERS} at most are allowed", members.len());
            return Err(DirectoryError::Invalid(message));
        }
        let mut others: Vec<UserId> = members.to_vec();
        others.sort();
        others.dedup();
        others.retain(|user| Some(user) != creator);
        for user in &others {
            self.require_invitable(actor, user).await?;
        }
        let quotas = self.quotas(&channel.app()).await?;
        if others.len() + usize::from(creator.is_some()) > quotas.members_per_channel {
            let message = format!("the app allows {} members a channel", quotas.members_per_channel);
            return Err(DirectoryError::LimitReached(message));
        }
        if let Some(creator) = creator {
            self.require_room_for_channel(creator).await?;
        }

        let now = millis(SystemTime::now());
        let owner = creator.map(|creator| Member::new(creator, Role::Owner, MemberState::Active, now, 0));
        let others_members = others.iter().map(|user| Member::new(user, Role::Member, state, now, 0));
        let members: Vec<Member> = owner.into_iter().chain(others_members).collect();
        let record = Channel {
            channel: channel.clone(),
            kind: Kind::Group,
            profile,
            creator: creator.cloned(),
            created: now,
            members: u32::try_from(members.len()).unwrap_or(u32::MAX),
            owners: u32::from(creator.is_some()),
            banned: 0,
            pair: None,
            blocked: false,
            life: Life::Live,
        };
        let key = Channel::key(channel);
        self.change(|| async {
            // One that went is there, too.
            if self.read::<Channel>(&key).await?.is_some() {
                return Err(DirectoryError::AlreadyExists("channel"));
            }
            let told =
                || json!({ "channel": channel, "kind": Kind::Group, "creator": creator, "members": others });
            let (app, commit) = (channel.app(), founding(channel, &record, &members));
            Ok((commit.after(self, HookEvent::ChannelCreated, &app, channel.local(), told), ()))
        })
        .await?;
        Ok((self.require_channel(channel).await?, others))
    }

    /// Whether the actor may bring that user into a channel.
    pub(in crate::directory) async fn require_invitable(
        &self,
        actor: Actor<'_>,
        user: &UserId,
    ) -> Result<()> {
        if let Actor::User(by) = actor {
            if !self.user_exists(&user.app(), user).await? {
                return Err(DirectoryError::NotFound("user"));
            }
            if self.blocks(user, by).await? {
                return Err(DirectoryError::Forbidden(format!("you may not invite {user}")));
            }
        }
        self.require_room_for_channel(user).await
    }

    pub(in crate::directory) async fn require_room_for_channel(&self, user: &UserId) -> Result<()> {
        let limit = self.quotas(&user.app()).await?.channels_per_user;
        self.require_room(Mine::prefix(user), limit, "channels a user").await
    }
}

/// Writes a channel that is not there yet, with its members.
pub(super) fn founding(channel: &ChannelName, record: &Channel, members: &[Member]) -> Commit {
    fn put(commit: Commit, key: Key, record: &impl Record) -> Commit {
        commit.put(key, record::encode(record))
    }
    let key = Channel::key(channel);
    let mut commit = put(Commit::new().expect(key.clone(), None), key, record);
    for member in members {
        let user = member.user.within(&channel.app());
        commit = put(commit, Member::key(channel, &user), member);
        commit = put(commit, Mine::key(channel, &user), &Mine { since: member.joined });
    }
    commit
}
