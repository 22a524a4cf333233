//! A channel goes: at once for everybody, and then its members are removed, some in a commit. Whoever asks again goes on
//! where that stopped.

use serde_json::json;
use xpush_protocol::ChannelName;

use super::{Channel, Kind, Life};
use crate::directory::{
    Action, Actor, Change, Directory, DirectoryError, Result, Tagged,
    member::{Member, Mine},
    record,
    store::Commit,
};
use crate::webhook::HookEvent;

/// Members that one commit removes: two keys each, well within a store's transaction.
const REMOVED_AT_ONCE: usize = 200;

impl Directory {
    /// Deletes a channel, if it is still the version that is expected. Its name is not given again.
    pub async fn delete_channel(
        &self,
        channel: &ChannelName,
        actor: Actor<'_>,
        expected: Option<u64>,
    ) -> Result<()> {
        let key = Channel::key(channel);
        let was_there = self
            .change(|| async {
                let found = self.read::<Channel>(&key).await?;
                let found = found.filter(|found| found.value.life != Life::Gone);
                let Some(found) = found else { return Err(DirectoryError::NotFound("channel")) };
                if found.value.life == Life::Going {
                    // Somebody began it, and may have died.
                    return Ok((Commit::new(), false));
                }
                let asking = actor;
                let actor = self.require_action(&found.value, channel, actor, Action::DeleteChannel);
                let actor = actor.await?;
                if found.value.kind == Kind::Direct && actor.is_some() {
                    let message = "a direct channel is both users' own; block the other to end it";
                    return Err(DirectoryError::NotSupported(message.into()));
                }
                if expected.is_some_and(|expected| expected != found.version) {
                    return Err(DirectoryError::Stale);
                }
                let mut commit = Commit::new().expect(key.clone(), Some(found.version));
                if let Some((key, version)) = actor {
                    commit = commit.expect(key, Some(version));
                }
                let going = Channel { life: Life::Going, ..found.value };
                let change = Change::Channel { app: channel.app(), channel: channel.clone() };
                let by = asking.user();
                let commit = commit.put(key.clone(), record::encode(&going)).tell(&change).after(
                    self,
                    HookEvent::ChannelDeleted,
                    &channel.app(),
                    channel.local(),
                    || json!({ "channel": channel, "by": by }),
                );
                Ok((commit, true))
            })
            .await?;
        self.sweep(channel).await?;
        if was_there { Ok(()) } else { Err(DirectoryError::NotFound("channel")) }
    }

    /// Removes the members of a channel that is going.
    pub(in crate::directory) async fn sweep(&self, channel: &ChannelName) -> Result<()> {
        let app = channel.app();
        let mut are_left = true;
        while are_left {
            are_left = self
                .change(|| async {
                    let page = self.list::<Member>(Member::prefix(channel), None, REMOVED_AT_ONCE).await?;
                    let are_left = page.len() == REMOVED_AT_ONCE;
                    let remove = |commit: Commit, (key, member): (_, Tagged<Member>)| {
                        let user = member.value.user.within(&app);
                        commit.delete(key).delete(Mine::key(channel, &user))
                    };
                    Ok((page.into_iter().fold(Commit::new(), remove), are_left))
                })
                .await?;
        }
        let key = Channel::key(channel);
        self.change(|| async {
            let found = self.read::<Channel>(&key).await?;
            let Some(found) = found.filter(|found| found.value.life == Life::Going) else {
                return Ok((Commit::new(), ()));
            };
            let gone = Channel {
                profile: super::ChannelProfile::default(),
                creator: None,
                members: 0,
                owners: 0,
                banned: 0,
                pair: None,
                life: Life::Gone,
                ..found.value
            };
            let commit = Commit::new().expect(key.clone(), Some(found.version));
            Ok((commit.put(key.clone(), record::encode(&gone)), ()))
        })
        .await
    }
}
