//! What somebody is in a channel, and what that lets him do: the one read before a subscription or a message that no
//! token grants.

use std::time::SystemTime;

use xpush_protocol::{ChannelName, UserId};

use super::{
    Directory, Result,
    channel::{Channel, Kind},
    member::{Member, MemberState, Notify},
    role::{Action, Role},
};
use crate::{auth::Permission, namespace::Access};

/// What a user is in a channel, or somebody without a name. As it was when it was read: whoever keeps it follows the
/// changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// `None`: there is none of this name, or no more.
    pub channel: Option<ChannelRules>,
    pub member: Option<Membership>,
    /// In a direct channel: one of the two does not want to hear the other.
    pub blocked: bool,
    /// Whether it is a user of the channel's app.
    pub is_user: bool,
}

/// What of a channel rights depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelRules {
    pub kind: Kind,
    /// Everybody of the app may join.
    pub public: bool,
}

/// What of a member rights depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    pub role: Role,
    pub state: MemberState,
    /// Milliseconds since 1970.
    pub muted_until: Option<u64>,
    pub notify: Notify,
}

impl Directory {
    /// By one way to the store and back.
    pub async fn standing(&self, channel: &ChannelName, user: Option<&UserId>) -> Result<Standing> {
        let mut keys = vec![Channel::key(channel)];
        let user = user.filter(|user| user.app() == channel.app());
        keys.extend(user.map(|user| Member::key(channel, user)));
        let entries = self.store.get_many(&keys).await?;
        let mut entries = keys.iter().zip(entries);
        let found = match entries.next() {
            Some((key, Some(entry))) => Some(super::record::decode::<Channel>(key, &entry)?.value),
            _ => None,
        };
        let found = found.filter(Channel::is_live);
        let member = match entries.next() {
            Some((key, Some(entry))) => Some(super::record::decode::<Member>(key, &entry)?.value),
            _ => None,
        };
        Ok(Standing {
            channel: found
                .as_ref()
                .map(|found| ChannelRules { kind: found.kind, public: found.profile.public }),
            blocked: found.as_ref().is_some_and(|found| found.blocked),
            // Of a channel that is going some entries may still be there.
            member: member.filter(|_| found.is_some()).map(|member| member.standing()),
            is_user: user.is_some(),
        })
    }
}

impl Standing {
    /// Whether a channel of a namespace with this access lets him. Token grants come on top.
    #[must_use]
    pub fn may(&self, permission: Permission, access: Access, now: SystemTime) -> bool {
        let is_in = match access {
            Access::Token | Access::Inbox => false,
            Access::Members => self.is_active(),
            Access::Public => self.is_user && !self.is_banned(),
            Access::Anonymous => !self.is_banned(),
        };
        is_in
            && match permission {
                Permission::Subscribe | Permission::History => true,
                // Who blocks somebody is not to be watched by him.
                Permission::Presence => !self.blocked,
                Permission::Publish => !self.blocked && !self.is_muted(now) && self.role_publishes(),
                // It is for addresses, not for channels.
                Permission::Send => false,
            }
    }

    /// Whether he may have a message of this channel deleted. Who deletes his own must still be in.
    #[must_use]
    pub fn may_delete_message(&self, is_own: bool, access: Access, now: SystemTime) -> bool {
        let may_others = self.active().is_some_and(|member| member.role.may(Action::DeleteMessages));
        may_others || (is_own && self.may(Permission::History, access, now))
    }

    /// The membership, if it is more than an invitation or a ban.
    #[must_use]
    pub fn active(&self) -> Option<&Membership> {
        self.member.as_ref().filter(|member| member.state == MemberState::Active)
    }

    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active().is_some()
    }

    #[must_use]
    pub fn is_banned(&self) -> bool {
        self.member.is_some_and(|member| member.state == MemberState::Banned)
    }

    #[must_use]
    pub fn is_muted(&self, now: SystemTime) -> bool {
        let now = super::millis(now);
        self.member.is_some_and(|member| member.muted_until.is_some_and(|until| until > now))
    }

    /// In a public channel one need not be a member.
    fn role_publishes(&self) -> bool {
        self.active().is_none_or(|member| member.role.may(Action::Publish))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000)
    }

    fn member(role: Role, state: MemberState) -> Standing {
        let member = Membership { role, state, muted_until: None, notify: Notify::All };
        let channel = ChannelRules { kind: Kind::Group, public: false };
        Standing { channel: Some(channel), member: Some(member), blocked: false, is_user: true }
    }

    fn may(standing: &Standing, access: Access) -> Vec<Permission> {
        let may = |permission: &Permission| standing.may(*permission, access, now());
        Permission::ALL.into_iter().filter(may).collect()
    }

    const READS: [Permission; 3] = [Permission::Subscribe, Permission::History, Permission::Presence];
    const ALL: [Permission; 4] =
        [Permission::Subscribe, Permission::Publish, Permission::History, Permission::Presence];

    #[test]
    fn a_members_channel_is_for_active_members_as_their_role_says() {
        assert_eq!(may(&member(Role::Guest, MemberState::Active), Access::Members), READS);
        for role in [Role::Member, Role::Admin, Role::Owner] {
            assert_eq!(may(&member(role, MemberState::Active), Access::Members), ALL);
            for state in [MemberState::Invited, MemberState::Banned] {
                assert_eq!(may(&member(role, state), Access::Members), []);
            }
        }
        assert_eq!(may(&Standing::default(), Access::Members), []);
    }

    #[test]
    fn a_public_channel_is_for_every_user_who_is_not_banned() {
        let stranger = Standing { is_user: true, ..Standing::default() };
        assert_eq!(may(&stranger, Access::Public), ALL);
        assert_eq!(may(&Standing::default(), Access::Public), []);
        assert_eq!(may(&Standing::default(), Access::Anonymous), ALL);
        for access in [Access::Public, Access::Anonymous] {
            assert_eq!(may(&member(Role::Member, MemberState::Banned), access), []);
            assert_eq!(may(&member(Role::Guest, MemberState::Active), access), READS);
            assert_eq!(may(&member(Role::Member, MemberState::Invited), access), ALL);
        }
    }

    #[test]
    fn no_standing_opens_a_channel_of_tokens_or_an_inbox() {
        for access in [Access::Token, Access::Inbox] {
            assert_eq!(may(&member(Role::Owner, MemberState::Active), access), []);
        }
    }

    #[test]
    fn who_is_muted_reads_on_until_he_may_speak_again() {
        let mut muted = member(Role::Admin, MemberState::Active);
        muted.member.as_mut().unwrap().muted_until = Some(1_000_001);
        assert_eq!(may(&muted, Access::Members), READS);
        muted.member.as_mut().unwrap().muted_until = Some(1_000_000);
        assert_eq!(may(&muted, Access::Members), ALL);
    }

    #[test]
    fn who_is_blocked_neither_writes_nor_watches() {
        let blocked = Standing { blocked: true, ..member(Role::Member, MemberState::Active) };
        assert_eq!(may(&blocked, Access::Members), [Permission::Subscribe, Permission::History]);
    }

    #[test]
    fn own_messages_are_deleted_by_members_and_those_of_others_by_admins() {
        let of = |role| member(role, MemberState::Active);
        assert!(of(Role::Member).may_delete_message(true, Access::Members, now()));
        assert!(!of(Role::Member).may_delete_message(false, Access::Members, now()));
        assert!(of(Role::Admin).may_delete_message(false, Access::Members, now()));
        let gone = member(Role::Admin, MemberState::Banned);
        assert!(!gone.may_delete_message(true, Access::Members, now()));
        assert!(!gone.may_delete_message(false, Access::Members, now()));
    }
}
