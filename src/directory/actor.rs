//! Who asks for a change.

use xpush_protocol::UserId;

/// Who acts in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor<'a> {
    /// A backend of the app: it has no role, and needs none.
    Backend,
    User(&'a UserId),
}

impl<'a> Actor<'a> {
    #[must_use]
    pub fn user(self) -> Option<&'a UserId> {
        match self {
            Self::Backend => None,
            Self::User(user) => Some(user),
        }
    }

    #[must_use]
    pub fn is(self, user: &UserId) -> bool {
        self.user() == Some(user)
    }
}
