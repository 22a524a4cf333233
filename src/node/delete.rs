//! Messages that are deleted: first the log lets go of what was said, then a publication in the same channel tells
//! everybody who has it. Whoever is there, comes back or reads later hears of it in its order, and what nodes kept for
//! those who come back goes with it.

use std::{sync::Arc, time::SystemTime};

use xpush_protocol::{ChannelName, ErrorCode, UserId};

use super::Node;
use crate::{
    auth::{Permission, Rights},
    log::{From, Query},
    publication::{Draft, Publication},
    session::{Refusal, now},
};

/// Who wants a message deleted.
#[derive(Debug, Clone)]
pub struct Deleter {
    pub rights: Rights,
    /// Whose own messages it may delete. `None`: nobody's.
    pub user: Option<UserId>,
    /// A backend deletes whatever it could publish.
    pub is_backend: bool,
}

impl Node {
    /// Deletes a message that somebody may delete. Once it is answered no log gives it any more. If it is not answered,
    /// or refused as something that may be tried again, it may be half done: done again, it is done.
    pub async fn delete_message(
        self: &Arc<Self>,
        channel: &ChannelName,
        offset: u64,
        deleter: &Deleter,
    ) -> Result<(), Refusal> {
        if channel.app() != *deleter.rights.app() {
            return Err(may_not(channel));
        }
        let policy = self.rules(channel).await?;
        let log = self.log(&policy);
        let standing = match &deleter.user {
            Some(user) => self.directory.standing(channel, Some(user)).await?,
            None => crate::directory::Standing::default(),
        };
        let may = |is_own| {
            if deleter.is_backend && deleter.user.is_none() {
                return deleter.rights.allows(Permission::Publish, channel);
            }
            let granted = [Permission::Subscribe, Permission::History, Permission::Publish]
                .into_iter()
                .any(|permission| deleter.rights.allows(permission, channel));
            (is_own && granted) || standing.may_delete_message(is_own, policy.access, SystemTime::now())
        };
        // Who could not even delete an own message is not told what is there.
        if !may(deleter.is_backend || deleter.user.is_some()) {
            return Err(may_not(channel));
        }
        let from = From::After(offset.checked_sub(1).ok_or_else(|| not_found(channel, offset))?);
        let page = log.read(channel, Query { from, limit: 1, bytes: 0 }).await?;
        let there = page.publications.into_iter().next().filter(|there| there.offset == offset);
        let there: Arc<Publication> = there.ok_or_else(|| not_found(channel, offset))?;
        if !may(there.user.is_some() && there.user == deleter.user) {
            return Err(may_not(channel));
        }
        if there.deletes().is_some() {
            let message = format!("{offset} is no message: it tells that one was deleted");
            return Err(Refusal::new(ErrorCode::InvalidField, message));
        }
        let (node, name, user) = (Arc::clone(self), channel.clone(), deleter.user.clone());
        // Once begun it is finished, even if who asked is gone.
        let task = self.publishing.spawn(async move { node.redact(&name, offset, user).await });
        let lost =
            |error| Refusal::new(ErrorCode::Internal, format!("the deletion was not finished: {error}"));
        match task.await.unwrap_or_else(|error| Err(lost(error)))? {
            true => Ok(()),
            false => Err(not_found(channel, offset)),
        }
    }

    /// Takes a message away and tells everybody. Gives whether there was one. `user`: who deleted it.
    pub(super) async fn redact(
        self: &Arc<Self>,
        channel: &ChannelName,
        offset: u64,
        user: Option<UserId>,
    ) -> Result<bool, Refusal> {
        let policy = self.policy(channel)?;
        if !self.log(policy).redact(channel, offset).await? {
            return Ok(false);
        }
        // Once it is said nothing is left to do; whoever says it again is told where it stands.
        let published = Box::pin(self.publish(channel, Draft::deletion(offset, user, now()))).await?;
        published.await?;
        Ok(true)
    }
}

fn may_not(channel: &ChannelName) -> Refusal {
    let message = format!(
        "in {channel} one may delete one's own messages, and those of others as an admin or an owner"
    );
    Refusal::new(ErrorCode::PermissionDenied, message)
}

fn not_found(channel: &ChannelName, offset: u64) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("{channel} has no message {offset}, or no longer"))
}
