//! What can be done to a membership: invite, add, join, leave, kick, ban, mute, another role.

use std::time::SystemTime;

use xpush_protocol::{ChannelName, Json, UserId};

use super::{Acted, Member, MemberState, Notify, act::Scene};
use crate::directory::{Action, Actor, Directory, DirectoryError, Result, millis, role::Role, text};

/// Bytes of a member's free data: it is read with every list of members.
const DATA_LIMIT: usize = 1024;

/// As what somebody is to come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invitation {
    /// `Active`: he is in at once. `Invited`: he has to accept.
    pub state: MemberState,
    /// `None`: as the invitation that he has says, or a member.
    pub role: Option<Role>,
    /// The channel's top: what was said before is not unread to who is new.
    pub seen: u64,
}

/// New values of a member. `Some(None)` takes one away.
#[derive(Debug, Clone, Default)]
pub struct MemberPatch {
    pub role: Option<Role>,
    /// Milliseconds since 1970.
    pub muted_until: Option<Option<u64>>,
    pub data: Option<Option<Json>>,
    pub notify: Option<Notify>,
}

impl Directory {
    /// Invites or adds somebody. Who is in already stays what he is.
    pub async fn invite(
        &self,
        channel: &ChannelName,
        actor: Actor<'_>,
        user: &UserId,
        invitation: Invitation,
    ) -> Result<Acted> {
        if invitation.state == MemberState::Banned {
            return Err(DirectoryError::Invalid("`state` is `invited` or `active`".into()));
        }
        let limit = self.quotas(&channel.app()).await?.members_per_channel;
        let now = millis(SystemTime::now());
        let plan = |scene: &Scene| {
            scene.require_group()?;
            scene.require(Action::Invite)?;
            match scene.target() {
                Some(target) if target.state == MemberState::Banned => {
                    Err(DirectoryError::Forbidden(format!("{user} is banned; take the ban back first")))
                }
                Some(target) if target.state == MemberState::Active => Ok(Some(target.clone())),
                Some(target) => {
                    scene.require_over(target.role)?;
                    let role = invitation.role.unwrap_or(target.role);
                    scene.require_over(role)?;
                    Ok(Some(Member { role, state: invitation.state, joined: now, ..target.clone() }))
                }
                None => {
                    let role = invitation.role.unwrap_or_default();
                    scene.require_over(role)?;
                    require_place(scene, limit)?;
                    Ok(Some(Member::new(user, role, invitation.state, now, invitation.seen)))
                }
            }
        };
        // Whether there is such a user is for who may invite.
        let found = self.require_channel(channel).await?;
        self.require_action(&found.value, channel, actor, Action::Invite).await?;
        if self.read::<Member>(&Member::key(channel, user)).await?.is_none() {
            self.require_invitable(actor, user).await?;
        }
        self.act(channel, actor, user, plan).await
    }

    /// A user comes in: by an invitation, or where everybody may (`open`: the namespace says so). `seen`: as in
    /// `Invitation`.
    pub async fn join(&self, channel: &ChannelName, user: &UserId, open: bool, seen: u64) -> Result<Acted> {
        let limit = self.quotas(&channel.app()).await?.members_per_channel;
        // Of who is in already, or invited, it is not asked.
        let has_room = self.require_room_for_channel(user).await;
        let now = millis(SystemTime::now());
        self.act(channel, Actor::User(user), user, |scene| match scene.target() {
            Some(target) => match target.state {
                MemberState::Active => Ok(Some(target.clone())),
                MemberState::Banned => {
                    Err(DirectoryError::Forbidden("you are banned from this channel".into()))
                }
                MemberState::Invited => {
                    Ok(Some(Member { state: MemberState::Active, joined: now, ..target.clone() }))
                }
            },
            None if open || scene.channel.value.profile.public => {
                scene.require_group()?;
                has_room.clone()?;
                require_place(scene, limit)?;
                Ok(Some(Member::new(user, Role::Member, MemberState::Active, now, seen)))
            }
            None => Err(DirectoryError::NotFound("channel")),
        })
        .await
    }

    /// Somebody leaves (or declines), or is thrown out.
    pub async fn remove_member(
        &self,
        channel: &ChannelName,
        actor: Actor<'_>,
        user: &UserId,
    ) -> Result<Acted> {
        let alone = |scene: &Scene| scene.is_self && scene.channel.value.members == 1;
        let left = self
            .act(channel, actor, user, |scene| {
                if !scene.is_self {
                    scene.require_group()?;
                    scene.require(Action::Kick)?;
                }
                let member = scene.member()?;
                scene.require_group()?;
                if !scene.is_self {
                    scene.require_over(member.role)?;
                } else if alone(scene) && scene.channel.value.owners > 0 {
                    // Handled below: nobody is left who could own it.
                    return Ok(Some(member.clone()));
                }
                Ok(None)
            })
            .await?;
        if left.is_change() {
            return Ok(left);
        }
        // With the last one, the channel goes; not with somebody who came in just now.
        let found = self.require_channel(channel).await?;
        let deleted = match found.value.members {
            0 | 1 => self.delete_channel(channel, actor, Some(found.version)).await,
            _ => Err(DirectoryError::Stale),
        };
        deleted.map_err(|error| match error {
            DirectoryError::Stale => DirectoryError::Busy("others are changing the same; try again".into()),
            error => error,
        })?;
        Ok(Acted { after: None, ..left })
    }

    /// Somebody is thrown out, and does not come back.
    pub async fn ban(&self, channel: &ChannelName, actor: Actor<'_>, user: &UserId) -> Result<Acted> {
        let limit = self.quotas(&channel.app()).await?.members_per_channel;
        let now = millis(SystemTime::now());
        self.act(channel, actor, user, |scene| {
            scene.require_group()?;
            scene.require(Action::Ban)?;
            if scene.is_self {
                return Err(DirectoryError::Forbidden("nobody bans himself".into()));
            }
            match scene.target() {
                Some(target) if target.state == MemberState::Banned => return Ok(Some(target.clone())),
                Some(target) => scene.require_over(target.role)?,
                None => {}
            }
            if scene.channel.value.banned as usize >= limit {
                return Err(DirectoryError::LimitReached(format!("a channel has {limit} bans at most")));
            }
            // What he was is over, also if the ban is taken back.
            Ok(Some(Member::new(user, Role::Guest, MemberState::Banned, now, 0)))
        })
        .await
    }

    /// Takes a ban back: he may be invited again, or join.
    pub async fn unban(&self, channel: &ChannelName, actor: Actor<'_>, user: &UserId) -> Result<Acted> {
        self.act(channel, actor, user, |scene| {
            scene.require_group()?;
            scene.require(Action::Ban)?;
            match scene.target() {
                Some(target) if target.state == MemberState::Banned => Ok(None),
                _ => Err(DirectoryError::NotFound("ban")),
            }
        })
        .await
    }

    /// Changes a member. Everybody sets his own data, and of what he wants to be told; the rest is for who is above him.
    pub async fn change_member(
        &self,
        channel: &ChannelName,
        actor: Actor<'_>,
        user: &UserId,
        patch: &MemberPatch,
    ) -> Result<Acted> {
        if let Some(Some(data)) = &patch.data {
            text::check_data("data", data, DATA_LIMIT)?;
        }
        self.act(channel, actor, user, |scene| {
            if !scene.is_self {
                // Before it is said whether there is such a member.
                scene.require(if patch.role.is_some() { Action::ChangeRole } else { Action::Mute })?;
            }
            let mut member = scene.member()?.clone();
            patch.apply(scene, &mut member)?;
            Ok(Some(member))
        })
        .await
    }
}

fn require_place(scene: &Scene, limit: usize) -> Result<()> {
    if scene.channel.value.members as usize >= limit {
        return Err(DirectoryError::LimitReached(format!("the app allows {limit} members a channel")));
    }
    Ok(())
}

impl MemberPatch {
    fn apply(&self, scene: &Scene, member: &mut Member) -> Result<()> {
        if let Some(role) = self.role
            && role != member.role
        {
            scene.require_group()?;
            // Everybody may be less than he is.
            if !(scene.is_self && member.state == MemberState::Active && role < member.role) {
                scene.require(Action::ChangeRole)?;
                scene.require_over(member.role)?;
                scene.require_over(role)?;
            }
            member.role = role;
        }
        if let Some(muted_until) = self.muted_until {
            scene.require_group()?;
            scene.require(Action::Mute)?;
            scene.require_over(member.role)?;
            member.muted_until = muted_until;
        }
        if let Some(data) = &self.data {
            if !scene.is_self {
                scene.require(Action::ChangeRole)?;
                scene.require_over(member.role)?;
            }
            member.data.clone_from(data);
        }
        if let Some(notify) = self.notify {
            if !scene.is_self && !scene.is_backend() {
                return Err(DirectoryError::Forbidden("everybody says himself of what he is told".into()));
            }
            member.notify = notify;
        }
        Ok(())
    }
}
