//! How a membership changes: by who acts, on whom, in which channel, all three as they are at that moment.

use serde_json::json;
use xpush_protocol::{ChannelName, UserId};

use super::{Member, MemberState, Mine};
use crate::directory::{
    Action, Actor, Change, Directory, DirectoryError, Result, Tagged,
    channel::{Channel, Kind},
    record,
    role::Role,
    store::{Commit, Key},
};
use crate::webhook::HookEvent;

/// What an act is judged by.
pub(super) struct Scene {
    pub(super) channel: Tagged<Channel>,
    pub(super) target: Option<Tagged<Member>>,
    actor: Option<Tagged<Member>>,
    is_backend: bool,
    pub(super) is_self: bool,
}

/// What an act changed. Both the same: nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acted {
    pub before: Option<Member>,
    pub after: Option<Member>,
}

impl Acted {
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.before != self.after
    }
}

impl Directory {
    /// Makes of the target what `plan` says: a member, or none.
    pub(super) async fn act(
        &self,
        channel: &ChannelName,
        actor: Actor<'_>,
        target: &UserId,
        plan: impl Fn(&Scene) -> Result<Option<Member>> + Send + Sync,
    ) -> Result<Acted> {
        let actor_is_foreign = actor.user().is_some_and(|user| user.app() != channel.app());
        if actor_is_foreign || target.app() != channel.app() {
            return Err(DirectoryError::NotFound("channel"));
        }
        let actor_key = actor.user().map(|user| Member::key(channel, user));
        self.change(|| async {
            let found = self.require_channel(channel).await?;
            let target_key = Member::key(channel, target);
            let keys: Vec<Key> = [target_key.clone()].into_iter().chain(actor_key.clone()).collect();
            let mut members = self.read_many::<Member>(&keys).await?.into_iter();
            let scene = Scene {
                channel: found,
                target: members.next().flatten(),
                actor: members.next().flatten(),
                is_backend: actor == Actor::Backend,
                is_self: actor.is(target),
            };
            let after = plan(&scene)?;
            let acted = Acted { before: scene.target.as_ref().map(|target| target.value.clone()), after };
            let commit = if acted.is_change() {
                let mut commit = scene.commit(channel, target, &acted)?;
                if let Some((event, member)) = scene.told(&acted) {
                    commit = commit.after(self, event, &channel.app(), channel.local(), || {
                        let (role, state) = (member.role, acted.after.as_ref().map(|after| after.state));
                        let by = actor.user();
                        json!({ "channel": channel, "user": target, "role": role, "state": state, "by": by })
                    });
                }
                if let (Some(key), Some(actor), false) = (&actor_key, &scene.actor, scene.is_self) {
                    // Whose right is taken away at this moment no longer acts.
                    commit = commit.expect(key.clone(), Some(actor.version));
                }
                commit
            } else {
                Commit::new()
            };
            Ok((commit, acted))
        })
        .await
    }

    /// Whether the actor may do that in the channel. Gives the key and the version of the membership by which he may.
    pub(in crate::directory) async fn require_action(
        &self,
        found: &Channel,
        channel: &ChannelName,
        actor: Actor<'_>,
        action: Action,
    ) -> Result<Option<(Key, u64)>> {
        let Actor::User(user) = actor else { return Ok(None) };
        if user.app() != channel.app() {
            return Err(DirectoryError::NotFound("channel"));
        }
        let key = Member::key(channel, user);
        let member = self.read::<Member>(&key).await?;
        // The two of a direct channel are equals; what it does not have at all is said by who asks.
        if found.kind == Kind::Group || member.is_none() {
            allowed(member.as_ref().map(|member| &member.value), found, action)?;
        }
        Ok(member.map(|member| (key, member.version)))
    }
}

/// Whether this membership lets one do that. To who knows nothing of a channel, there is none.
fn allowed(member: Option<&Member>, channel: &Channel, action: Action) -> Result<Role> {
    match member {
        Some(member) if member.state == MemberState::Active && member.role.may(action) => Ok(member.role),
        Some(member) if member.state == MemberState::Active => {
            Err(DirectoryError::Forbidden(format!("the role `{}` does not allow that", member.role)))
        }
        Some(member) if member.state == MemberState::Invited => {
            Err(DirectoryError::Forbidden("accept the invitation first".into()))
        }
        None if channel.profile.public => Err(DirectoryError::Forbidden("join the channel first".into())),
        _ => Err(DirectoryError::NotFound("channel")),
    }
}

impl Scene {
    pub(super) fn target(&self) -> Option<&Member> {
        self.target.as_ref().map(|target| &target.value)
    }

    /// The target, if it is a member or invited.
    pub(super) fn member(&self) -> Result<&Member> {
        self.target().filter(|target| target.counts()).ok_or(DirectoryError::NotFound("member"))
    }

    /// What a direct channel does not have.
    pub(super) fn require_group(&self) -> Result<()> {
        if self.channel.value.kind == Kind::Group {
            return Ok(());
        }
        Err(DirectoryError::NotSupported("a direct channel is of its two users, always".into()))
    }

    /// Whether who acts may do this in the channel.
    pub(super) fn require(&self, action: Action) -> Result<()> {
        if self.is_backend {
            return Ok(());
        }
        allowed(self.actor.as_ref().map(|actor| &actor.value), &self.channel.value, action).map(drop)
    }

    /// Whether who acts may do it to somebody of this role, or make somebody that.
    pub(super) fn require_over(&self, role: Role) -> Result<()> {
        if self.is_backend || self.actor.as_ref().is_some_and(|actor| actor.value.role.is_over(role)) {
            return Ok(());
        }
        Err(DirectoryError::Forbidden(format!("that is for who is above the role `{role}`")))
    }

    pub(super) fn is_backend(&self) -> bool {
        self.is_backend
    }

    /// Writes what the act made of the target: the member, the way back to it, and the channel's counts.
    fn commit(&self, channel: &ChannelName, target: &UserId, acted: &Acted) -> Result<Commit> {
        let (before, after) = (acted.before.as_ref(), acted.after.as_ref());
        let counted = self.counted(before, after)?;
        let (channel_key, key) = (Channel::key(channel), Member::key(channel, target));
        let mine = Mine::key(channel, target);
        let mut commit = Commit::new()
            .expect(channel_key.clone(), Some(self.channel.version))
            .expect(key.clone(), self.target.as_ref().map(|target| target.version));
        if counted != self.channel.value {
            commit = commit.put(channel_key, record::encode(&counted));
        }
        commit = match after {
            Some(after) => commit.put(key, record::encode(after)),
            None => commit.delete(key),
        };
        commit = match after.filter(|after| after.counts()) {
            Some(after) => commit.put(mine, record::encode(&Mine { since: after.joined })),
            None => commit.delete(mine),
        };
        Ok(commit.tell(&Change::Member {
            app: channel.app(),
            channel: channel.clone(),
            user: target.clone(),
        }))
    }

    /// What webhooks are told of it: who comes in, and who is in no more.
    fn told<'a>(&self, acted: &'a Acted) -> Option<(HookEvent, &'a Member)> {
        let is_in = |member: &&Member| member.state == MemberState::Active;
        match (acted.before.as_ref().filter(is_in), acted.after.as_ref().filter(is_in)) {
            (None, Some(after)) => Some((HookEvent::MemberJoined, after)),
            (Some(before), None) if self.is_self => Some((HookEvent::MemberLeft, before)),
            (Some(before), None) => Some((HookEvent::MemberKicked, before)),
            _ => None,
        }
    }

    /// The channel with its counts as they are then.
    fn counted(&self, before: Option<&Member>, after: Option<&Member>) -> Result<Channel> {
        let mut channel = self.channel.value.clone();
        for (member, step) in [(before, -1), (after, 1)] {
            let Some(member) = member else { continue };
            let count = |count: &mut u32, counts: bool| {
                if counts {
                    *count = count.saturating_add_signed(step);
                }
            };
            count(&mut channel.members, member.counts());
            count(&mut channel.banned, member.state == MemberState::Banned);
            count(&mut channel.owners, member.is_owner());
        }
        let had_owner = self.channel.value.owners > 0;
        if had_owner && channel.owners == 0 && !self.is_backend {
            let message = "the last owner makes somebody else an owner first, or deletes the channel";
            return Err(DirectoryError::Forbidden(message.into()));
        }
        Ok(channel)
    }
}

impl Member {
    fn is_owner(&self) -> bool {
        self.state == MemberState::Active && self.role == Role::Owner
    }
}
