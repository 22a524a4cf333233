//! Who is in a channel, and as what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xpush_protocol::{ChannelName, DeviceId, Json, UserId};

use super::{Record, role::Role, standing::Membership, store::Key};

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

impl Member {
    pub(crate) fn key(channel: &ChannelName, user: &UserId) -> Key {
        Key::new(&["member", channel.app().as_str(), channel.local(), user.local()])
    }

    pub(crate) fn standing(&self) -> Membership {
        let Self { role, state, muted_until, notify, .. } = *self;
        Membership { role, state, muted_until, notify }
    }
}
