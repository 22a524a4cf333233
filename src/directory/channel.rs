//! Channels that have members: what they are called, and who made them.

use serde::{Deserialize, Serialize};
use xpush_protocol::{ChannelName, Json, UserId};

use super::{Record, store::Key};

/// What kind of conversation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Group,
    /// Of two users, once and for all.
    Direct,
}

/// Whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Life {
    #[default]
    Live,
    /// Its members are being removed, some at a time.
    Going,
    /// Its name stays taken: the log may still have what was said, which is not for whoever takes the name next.
    Gone,
}

/// A channel as it is kept. Clients see parts of it, and set fewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    pub channel: ChannelName,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
    /// Everybody of the app may join.
    #[serde(default)]
    pub public: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator: Option<UserId>,
    /// Milliseconds since 1970.
    pub created: u64,
    /// Active and invited ones.
    pub members: u32,
    /// Of them, active owners.
    #[serde(default)]
    pub owners: u32,
    #[serde(default)]
    pub banned: u32,
    /// Of a direct channel: whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<(UserId, UserId)>,
    /// Of a direct channel: one of the two blocks the other. It stands here too, so that one read tells.
    #[serde(default)]
    pub blocked: bool,
    #[serde(default)]
    pub life: Life,
}

impl Record for Channel {}

impl Channel {
    pub(crate) fn key(channel: &ChannelName) -> Key {
        Key::new(&["channel", channel.app().as_str(), channel.local()])
    }

    pub(crate) fn is_live(&self) -> bool {
        self.life == Life::Live
    }
}
