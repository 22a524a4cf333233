//! A right that may be gone: what a session asks the directory about again, and what it then ends.

use std::sync::Arc;

use xpush_protocol::{ChannelName, CloseCode, UnsubscribeReason};
use xpush_transports::Farewell;

use super::Session;
use crate::{auth::Permission, directory::DirectoryError};

/// Channels that are remembered one by one; of more, all are looked at.
const CHANNELS: usize = 64;

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recheck {
    /// Whether the user, its device and its login still stand.
    Account,
    /// Whether the user may still be in this channel.
    Channel(ChannelName),
    /// All of that, for every channel.
    Everything,
}

/// What waits to be looked at.
#[derive(Debug, Default)]
pub(super) struct Rechecks {
    account: bool,
    /// Nothing was said to be taken from this session: something may be.
    everything: bool,
    every_channel: bool,
    channels: Vec<ChannelName>,
}

impl Rechecks {
    pub(super) fn add(&mut self, recheck: &Recheck) {
        match recheck {
            Recheck::Account => self.account = true,
            Recheck::Channel(channel) if self.channels.len() < CHANNELS => {
                if !self.channels.contains(channel) {
                    self.channels.push(channel.clone());
                }
            }
            Recheck::Channel(_) => self.every_channel = true,
            Recheck::Everything => {
                self.everything = true;
                self.every_channel = true;
            }
        }
    }

    fn concern(&self, channel: &ChannelName) -> bool {
        self.every_channel || self.channels.contains(channel)
    }
}

impl Session {
    /// Looks at what may be gone. Gives the goodbye, if it is the account.
    ///
    /// Where the directory can't be asked, a session of a login is sent away, to ask again when it is back: it was told that
    /// something was taken, and must not go on as if nothing had been. One of the application's token looks again then; and
    /// so do all where nobody knows whether anything was taken.
    pub(super) async fn recheck(&mut self) -> Option<Farewell> {
        let rechecks = self.outbox.take_rechecks()?;
        let node = Arc::clone(&self.node);
        // When all look at once they take turns: who logs in wants the directory too.
        let _turn = if rechecks.everything { node.recheck_turns.acquire().await.ok() } else { None };
        if (rechecks.account || rechecks.everything)
            && let Err(error) = node.admit(&self.rights).await
        {
            match error {
                DirectoryError::Store(_) | DirectoryError::Busy(_) if !rechecks.account => {
                    self.note_unsure();
                    return None;
                }
                DirectoryError::Store(_) | DirectoryError::Busy(_) => {
                    return Some(Farewell::new(CloseCode::Internal, error.to_string()));
                }
                error => return Some(Farewell::new(CloseCode::Revoked, error.to_string())),
            }
        }
        let concerned = self.subscriptions.keys().filter(|name| rechecks.concern(name));
        let concerned: Vec<_> = concerned.cloned().collect();
        self.end_forbidden(concerned, rechecks.everything).await;
        None
    }

    /// Ends those of these subscriptions that the rights no longer allow, and shows presence where they still do. One of
    /// which the directory can't say it now is looked at again later if `may_wait`; else it ends, to be begun anew by the
    /// client and asked about then.
    pub(super) async fn end_forbidden(&mut self, names: Vec<ChannelName>, may_wait: bool) {
        let (mut forbidden, mut unknown) = (Vec::new(), Vec::new());
        for name in names {
            match self.require(Permission::Subscribe, &name).await {
                Ok(()) => {}
                Err(refusal) if !refusal.code.may_retry() => {
                    forbidden.push(name);
                    continue;
                }
                Err(_) if may_wait => {
                    self.note_unsure();
                    continue;
                }
                Err(_) => {
                    unknown.push(name);
                    continue;
                }
            }
            let shown = self.require(Permission::Presence, &name).await.is_ok();
            if let Some(subscription) = self.subscriptions.get(&name) {
                subscription.show_presence(shown);
            }
        }
        for (names, reason) in
            [(forbidden, UnsubscribeReason::Revoked), (unknown, UnsubscribeReason::LogUnavailable)]
        {
            if !names.is_empty() {
                self.end_subscriptions(reason, |name| names.contains(name)).await;
            }
        }
    }

    /// Another look, once the directory can say.
    fn note_unsure(&self) {
        self.outbox.note_unsure();
        self.node.sessions.note_unsure();
    }
}
