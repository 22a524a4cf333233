//! What the tests of channels and contacts begin with.

use std::sync::Arc;

use xpush_protocol::{AppId, ChannelName, Json, UserId};

use super::{
    Actor, Channel, ChannelProfile, Directory, MemberState, NewChannel, PageQuery, Result, Tagged,
    store::Store,
};

pub(super) fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

pub(super) fn channel(name: &str) -> ChannelName {
    name.parse().unwrap()
}

pub(super) fn data(text: &str) -> Json {
    Json::parse(text).unwrap()
}

pub(super) fn all() -> PageQuery {
    PageQuery { limit: Some(200), cursor: None }
}

/// A directory in which these users are known.
pub(super) async fn directory_of(store: Arc<dyn Store>, users: &[&str]) -> Directory {
    let directory = Directory::new(store);
    for name in users {
        directory.ensure_user(&AppId::default(), &user(name)).await.unwrap();
    }
    directory
}

impl Directory {
    /// A channel of this owner, with these active members.
    pub(super) async fn make(&self, name: &str, owner: &str, members: &[&str]) -> Result<Tagged<Channel>> {
        let (channel, owner) = (channel(name), user(owner));
        let members: Vec<UserId> = members.iter().map(|name| user(name)).collect();
        let new = NewChannel {
            channel: &channel,
            profile: ChannelProfile::default(),
            creator: Some(&owner),
            members: &members,
            state: MemberState::Active,
        };
        Ok(self.create_channel(new, Actor::User(&owner)).await?.0)
    }
}
