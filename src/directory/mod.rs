//! The directory: apps, users, devices, groups, channels and members, read and received cursors. What outlives every
//! connection and is no message.
//!
//! `store` keeps it, as an ordered map; `record` reads and changes one typed entry of that. Each other room is one noun
//! with its rules. A change that takes something away from somebody who may be connected is written together with a
//! `change`, which every node follows, so that the right is gone everywhere within a second.
//!
//! Invariant: no vendor, no transport, no HTTP. Who may ask for something is checked by the caller of a room, unless it
//! depends on what the room keeps (a member's role): then here, in the same commit.

#[cfg(test)]
mod account_tests;
mod actor;
mod answer;
mod api_key;
mod app;
mod change;
mod channel;
mod cursor;
mod device;
mod error;
mod expiry;
mod farewell;
#[cfg(test)]
mod fixture;
mod friend;
mod group;
mod hearing;
#[cfg(test)]
mod hiccup_tests;
mod login;
mod member;
mod notice;
mod oidc;
mod page;
mod password;
mod policy;
mod profile;
mod quota;
pub(crate) mod record;
mod role;
mod signing;
mod standing;
pub mod store;
mod text;
mod user;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

pub use actor::Actor;
pub use answer::Known;
pub use api_key::{KeyInfo, NewKey};
pub use app::App;
pub use change::{Change, ChangeFeed};
pub use channel::{
    Channel, ChannelPatch, ChannelProfile, DIRECT_NAMESPACE, INITIAL_MEMBERS, Kind, NewChannel, Seen,
};
pub use device::{Device, DeviceChange, DeviceSaid, Push};
pub use error::DirectoryError;
pub use expiry::{Expiry, ExpiryKey};
pub use friend::{Befriended, Friend, FriendState};
pub use group::{GROUP_USERS, Group};
pub use login::{NewUser, Tokens};
pub use member::{Acted, Conversation, Invitation, Member, MemberPatch, MemberState, Notify, Receipt};
pub use notice::Notice;
pub use page::{Page, PageQuery};
pub use policy::{AppPolicy, Issuer, LoginMode, NamespaceRules, PresenceShown, Quotas, Registration};
pub use profile::{OwnProfile, Profile, ProfileChange};
pub(crate) use record::Record;
pub use record::Tagged;
pub use role::{Action, Role};
pub use standing::{ChannelRules, Membership, Standing};
use store::{Commit, CommitError, Store};
pub use user::SearchField;

use crate::webhook;

/// Answers of rooms.
pub type Result<T> = std::result::Result<T, DirectoryError>;

/// Apps, users and channels with their members.
pub struct Directory {
    pub(crate) store: Arc<dyn Store>,
    /// Whether everybody may register in the default app, as long as its policy says nothing.
    open_registration: bool,
    policies: app::Policies,
    keys_held: api_key::KeysHeld,
    signing: signing::SigningKeys,
    passwords: password::Passwords,
    issuer_keys: oidc::IssuerKeys,
    /// Whom to tell of what is changed here.
    pub(crate) hooks: Arc<webhook::Table>,
}

impl Directory {
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            open_registration: false,
            policies: app::Policies::default(),
            keys_held: api_key::KeysHeld::default(),
            signing: signing::SigningKeys::default(),
            passwords: password::Passwords::default(),
            issuer_keys: oidc::IssuerKeys::default(),
            hooks: Arc::default(),
        }
    }

    /// As a developer wants it: everybody may register in the default app.
    #[must_use]
    pub fn with_open_registration(self, open: bool) -> Self {
        Self { open_registration: open, ..self }
    }

    /// Commits what expects nothing.
    async fn commit(&self, commit: Commit) -> Result<()> {
        self.store.commit(commit).await.map_err(|error| match error {
            CommitError::Conflict => DirectoryError::Busy("others are changing the same; try again".into()),
            CommitError::Store(error) => error.into(),
        })
    }
}

/// Milliseconds since 1970, as records have times.
fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
