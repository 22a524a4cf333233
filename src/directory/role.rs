//! What each role may in its channel, and on whom: one table, which everything asks.

use serde::{Deserialize, Serialize};

/// A member's role. Their order is their rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads only.
    Guest,
    #[default]
    Member,
    Admin,
    Owner,
}

/// What one may want to do in a channel, beside reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Publish,
    Invite,
    Kick,
    /// And take a ban back.
    Ban,
    Mute,
    ChangeRole,
    /// The channel's title and what else is its own.
    Update,
    /// Messages of others.
    DeleteMessages,
    DeleteChannel,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Guest, Self::Member, Self::Admin, Self::Owner];

    #[must_use]
    pub fn may(self, action: Action) -> bool {
        let least = match action {
            Action::Publish => Self::Member,
            Action::Invite
            | Action::Kick
            | Action::Ban
            | Action::Mute
            | Action::ChangeRole
            | Action::Update
            | Action::DeleteMessages => Self::Admin,
            Action::DeleteChannel => Self::Owner,
        };
        self >= least
    }

    /// Whether who has this role may act on somebody who has that one, or make somebody one. Owners are equals, and
    /// may all the same: else nobody could take a channel back from one who left the company.
    #[must_use]
    pub fn is_over(self, other: Self) -> bool {
        self == Self::Owner || self > other
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

impl Action {
    pub const ALL: [Self; 9] = [
        Self::Publish,
        Self::Invite,
        Self::Kick,
        Self::Ban,
        Self::Mute,
        Self::ChangeRole,
        Self::Update,
        Self::DeleteMessages,
        Self::DeleteChannel,
    ];
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_role_may_all_that_a_lower_one_may() {
        for action in Action::ALL {
            for pair in Role::ALL.windows(2) {
                assert!(!pair[0].may(action) || pair[1].may(action), "{pair:?} {action:?}");
            }
            assert!(!Role::Guest.may(action) && Role::Owner.may(action), "{action:?}");
        }
        assert!(Role::Member.may(Action::Publish) && !Role::Member.may(Action::Invite));
        assert!(Role::Admin.may(Action::Ban) && !Role::Admin.may(Action::DeleteChannel));
    }

    #[test]
    fn nobody_but_an_owner_is_over_an_equal() {
        for role in Role::ALL {
            assert_eq!(role.is_over(role), role == Role::Owner, "{role:?}");
        }
        assert!(Role::Admin.is_over(Role::Member) && !Role::Member.is_over(Role::Admin));
    }
}
