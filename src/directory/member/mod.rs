//! Who is in a channel, and as what.
//!
//! `act` is the one way by which a membership changes: it reads the channel, who acts and who is acted on, and commits
//! only if they are still that. `change` has the acts, `roster` lists, `leave` takes a user out of everything.

mod act;
mod change;
mod leave;
mod roster;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xpush_protocol::{ChannelName, DeviceId, Json, UserId};

pub use act::Acted;
pub use change::{Invitation, MemberPatch};
pub use roster::{Conversation, Receipt};

use super::{
    Record,
    role::Role,
    standing::Membership,
    store::{Key, Prefix},
};

/// Whether he is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    Active,
    /// He may join.
    Invited,
    /// He may not.
    Banned,
}

/// Of which messages a member wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Notify {
    #[default]
    All,
    Mentions,
    None,
}

impl Notify {
    /// Whether a message is told, that mentions the member or does not.
    #[must_use]
    pub fn hears(self, is_mentioned: bool) -> bool {
        match self {
            Self::All => true,
            Self::Mentions => is_mentioned,
            Self::None => false,
        }
    }
}

/// A member as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub user: UserId,
    pub role: Role,
    pub state: MemberState,
    /// Milliseconds since 1970: when this state began.
    pub joined: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
    /// Milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<u64>,
    #[serde(default)]
    pub notify: Notify,
    /// He has seen everything up to this offset.
    #[serde(default)]
    pub read: u64,
    /// What has reached each of his devices.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub received: BTreeMap<DeviceId, u64>,
}

impl Record for Member {}

/// That a user is in a channel, or invited: found by the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mine {
    pub(crate) since: u64,
}

impl Record for Mine {}

impl Member {
    /// A member who has seen everything up to `seen`: what was said before him is not unread.
    pub(crate) fn new(user: &UserId, role: Role, state: MemberState, now: u64, seen: u64) -> Self {
        Self {
            user: user.clone(),
            role,
            state,
            joined: now,
            data: None,
            muted_until: None,
            notify: Notify::default(),
            read: seen,
            received: BTreeMap::new(),
        }
    }

    pub(crate) fn key(channel: &ChannelName, user: &UserId) -> Key {
        Key::new(&["member", channel.app().as_str(), channel.local(), user.local()])
    }

    pub(crate) fn prefix(channel: &ChannelName) -> Prefix {
        Prefix::new(&["member", channel.app().as_str(), channel.local()])
    }

    pub(crate) fn standing(&self) -> Membership {
        let Self { role, state, muted_until, notify, .. } = *self;
        Membership { role, state, muted_until, notify }
    }

    /// Who counts as a member: who is in, and who may come in.
    pub(crate) fn counts(&self) -> bool {
        self.state != MemberState::Banned
    }
}

impl Mine {
    pub(crate) fn key(channel: &ChannelName, user: &UserId) -> Key {
        Key::new(&["mine", channel.app().as_str(), user.local(), channel.local()])
    }

    pub(crate) fn prefix(user: &UserId) -> Prefix {
        Prefix::new(&["mine", user.app().as_str(), user.local()])
    }
}
