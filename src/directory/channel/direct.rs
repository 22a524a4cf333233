//! The direct channel of two users: one and the same from both sides, whoever opens it first.
//!
//! Its name is made of the two ids, so that two who open it at once make the same commit, of which one succeeds. Only
//! this room makes channels of its namespace: nobody can be there before the two.

use std::time::SystemTime;

use base64::Engine as _;
use ring::digest::{Context, SHA256};
use serde_json::json;
use xpush_protocol::{ChannelName, UserId};

use super::{Channel, ChannelProfile, Kind, Life, create::founding};
use crate::directory::{
    Actor, Directory, DirectoryError, Result, Tagged,
    friend::{Friend, FriendState},
    member::{Member, MemberState},
    millis,
    role::Role,
    store::Commit,
};
use crate::webhook::HookEvent;

/// The namespace of direct channels.
pub const DIRECT_NAMESPACE: &str = "dm";

impl Directory {
    /// The direct channel of these two, which is made if there is none. Gives also whether it was.
    pub async fn open_direct(
        &self,
        actor: Actor<'_>,
        user: &UserId,
        other: &UserId,
    ) -> Result<(Tagged<Channel>, bool)> {
        let name = direct_name(user, other)?;
        let key = Channel::key(&name);
        // The most frequent case needs no more than this read.
        if let Some(present) = self.channel(&name).await? {
            return Ok((present, false));
        }
        if matches!(actor, Actor::User(_)) && !self.user_exists(&other.app(), other).await? {
            return Err(DirectoryError::NotFound("user"));
        }
        self.require_room_for_channel(user).await?;
        self.require_room_for_channel(other).await?;
        let friend_keys = [Friend::key(user, other), Friend::key(other, user)];
        let created = self
            .change(|| async {
                if let Some(present) = self.read::<Channel>(&key).await? {
                    return if present.value.is_live() {
                        Ok((Commit::new(), false))
                    } else {
                        Err(DirectoryError::NotFound("channel"))
                    };
                }
                let friends = self.read_many::<Friend>(&friend_keys).await?;
                if friends.iter().flatten().any(|friend| friend.value.state == FriendState::Blocked) {
                    let message = format!("there is no direct channel with {other}");
                    return Err(DirectoryError::Forbidden(message));
                }
                let now = millis(SystemTime::now());
                let (one, two) = sorted(user, other);
                let members =
                    [one, two].map(|user| Member::new(user, Role::Member, MemberState::Active, now, 0));
                let record = Channel {
                    channel: name.clone(),
                    kind: Kind::Direct,
                    profile: ChannelProfile::default(),
                    creator: Some(user.clone()),
                    created: now,
                    members: 2,
                    owners: 0,
                    banned: 0,
                    pair: Some((one.clone(), two.clone())),
                    blocked: false,
                    life: Life::Live,
                };
                let mut commit = founding(&name, &record, &members);
                // Who blocks the other meanwhile is not passed by.
                for (key, friend) in friend_keys.iter().zip(friends) {
                    commit = commit.expect(key.clone(), friend.map(|friend| friend.version));
                }
                let commit = commit.after(
                    self,
                    HookEvent::ChannelCreated,
                    &name.app(),
                    name.local(),
                    || json!({ "channel": name, "kind": Kind::Direct, "creator": user, "members": [other] }),
                );
                Ok((commit, true))
            })
            .await?;
        Ok((self.require_channel(&name).await?, created))
    }
}

/// The name of the channel of these two.
pub(in crate::directory) fn direct_name(user: &UserId, other: &UserId) -> Result<ChannelName> {
    if user == other {
        return Err(DirectoryError::Invalid("a direct channel is of two users".into()));
    }
    if user.app() != other.app() {
        return Err(DirectoryError::NotFound("user"));
    }
    let (one, two) = sorted(user, other);
    let mut hash = Context::new(&SHA256);
    // The length keeps `a`, `bc` and `ab`, `c` apart.
    hash.update(&(one.local().len() as u64).to_be_bytes());
    hash.update(one.local().as_bytes());
    hash.update(two.local().as_bytes());
    let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash.finish());
    let name = format!("{DIRECT_NAMESPACE}:{hash}").parse::<ChannelName>();
    let name = name.map_err(|error| DirectoryError::Invalid(error.to_string()))?;
    Ok(name.within(&user.app()))
}

fn sorted<'a>(user: &'a UserId, other: &'a UserId) -> (&'a UserId, &'a UserId) {
    if user.local() < other.local() { (user, other) } else { (other, user) }
}
