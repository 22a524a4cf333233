//! What a user is told in his inbox of what happened to him, wherever his devices are.

use serde::{Deserialize, Serialize};
use xpush_protocol::{ChannelName, UserId};

use super::{friend::FriendState, role::Role};

/// One thing that happened to a user. Names are written as their app knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Notice {
    /// Somebody, or a backend, wants him in a channel, or put him there.
    Invite {
        channel: ChannelName,
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<UserId>,
    },
    Kick {
        channel: ChannelName,
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<UserId>,
    },
    Ban {
        channel: ChannelName,
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<UserId>,
    },
    Role {
        channel: ChannelName,
        role: Role,
    },
    /// A request (`incoming`), or that it was accepted (`friends`).
    Friend {
        user: UserId,
        state: FriendState,
    },
}

impl Notice {
    /// The name of the inbox's event.
    #[must_use]
    pub fn event(&self) -> &'static str {
        match self {
            Self::Invite { .. } => "invite",
            Self::Kick { .. } => "kick",
            Self::Ban { .. } => "ban",
            Self::Role { .. } => "role",
            Self::Friend { .. } => "friend",
        }
    }
}
