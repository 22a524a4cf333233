//! What two users are to each other: friends, asked, or blocked.

use serde::{Deserialize, Serialize};
use xpush_protocol::UserId;

use super::{Record, store::Key};

/// How one sees the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FriendState {
    /// He asked, and waits.
    Requested,
    /// He is asked.
    Incoming,
    Friends,
    /// He does not want to hear of the other.
    Blocked,
}

/// One side of what two users are to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Friend {
    pub user: UserId,
    pub state: FriendState,
    /// Milliseconds since 1970.
    pub since: u64,
}

impl Record for Friend {}

impl Friend {
    /// Where `user`'s side is. Both are of one app.
    pub(crate) fn key(user: &UserId, other: &UserId) -> Key {
        Key::new(&["friend", user.app().as_str(), user.local(), other.local()])
    }
}
