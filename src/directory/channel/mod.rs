//! Channels that have members: what they are called, and who made them.
//!
//! `create` makes one, `direct` the one of two users, `update` reads it and changes what is its own, `remove` has it go.

mod create;
mod direct;
mod remove;
#[cfg(test)]
mod tests;
mod update;

use serde::{Deserialize, Serialize};
use xpush_protocol::{ChannelName, Json, UserId};

pub use create::{INITIAL_MEMBERS, NewChannel};
pub use direct::DIRECT_NAMESPACE;
pub(in crate::directory) use direct::direct_name;
pub use update::{ChannelPatch, Seen};

use super::{Record, Result, store::Key, text};

/// Bytes of a title: a line.
const TITLE_LIMIT: usize = 256;
/// Bytes of a topic: a paragraph.
const TOPIC_LIMIT: usize = 1024;
/// Bytes of an avatar's address.
const AVATAR_LIMIT: usize = 2048;
/// Bytes of free data: it is read with every list.
const DATA_LIMIT: usize = 8 * 1024;

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

/// A channel as it is kept. Clients see parts of it, and set its profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    pub channel: ChannelName,
    pub kind: Kind,
    #[serde(default)]
    pub profile: ChannelProfile,
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

/// What those who may can set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChannelProfile {
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
}

impl Record for Channel {}

impl Channel {
    pub(crate) fn key(channel: &ChannelName) -> Key {
        Key::new(&["channel", channel.app().as_str(), channel.local()])
    }

    pub(crate) fn is_live(&self) -> bool {
        self.life == Life::Live
    }

    /// Of a direct channel: the other of its two.
    #[must_use]
    pub fn other(&self, user: &UserId) -> Option<&UserId> {
        let (one, other) = self.pair.as_ref()?;
        Some(if one.local() == user.local() { other } else { one })
    }
}

impl ChannelProfile {
    fn check(&self) -> Result<()> {
        let Self { title, topic, avatar, data, public: _ } = self;
        title.as_ref().map_or(Ok(()), |title| text::check("title", title, TITLE_LIMIT, false))?;
        topic.as_ref().map_or(Ok(()), |topic| text::check("topic", topic, TOPIC_LIMIT, true))?;
        avatar.as_ref().map_or(Ok(()), |avatar| text::check_address("avatar", avatar, AVATAR_LIMIT))?;
        data.as_ref().map_or(Ok(()), |data| text::check_data("data", data, DATA_LIMIT))
    }
}
