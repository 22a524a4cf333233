//! Messages that go at a time of their own. That they are to go is in the directory before they are in their log, so it
//! outlives every node; when the time has come some node deletes them as anybody's message is deleted.
//!
//! Each node does its share of what is due, by the keys. What the node whose share it is does not do in time, as it may
//! be gone, all others do: done twice, it is done once.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;
use tracing::warn;
use xpush_protocol::{ChannelName, Cursor, ErrorCode};

use super::{Node, Publishing, tend::every};
use crate::{
    directory::{Expiry, ExpiryKey},
    log::{From, Query},
    publication::Draft,
    session::{Refusal, now},
};

/// How often it is looked what is due: a message is read for as much longer than it was to be.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(250);
/// What is overdue for so many milliseconds is everybody's: with the interval, less than a second.
const TAKE_OVER: u64 = 500;
/// What is read of the directory at once.
const EXPIRY_BATCH: usize = 256;
/// Messages that are being deleted at once.
const EXPIRY_CONCURRENCY: usize = 32;
/// A message whose place was not noted is looked for when it is overdue for so many milliseconds: until then who
/// published it is waited for.
const LOOK_FOR: u64 = 10_000;
/// How often such messages are looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// One that is not there by so many milliseconds after its time never came into the log: no append takes as long.
const GIVE_UP: u64 = 120_000;
/// Pages of a log that are looked through for one message.
const LOOK_PAGES: usize = 64;
/// By so many milliseconds the clocks of two nodes may differ.
const CLOCKS: u64 = 60_000;

impl Node {
    /// Publishes what is to go at its time. The time is noted first: whatever a crash interrupts, a message that is in
    /// the log has its time in the directory.
    pub(super) async fn publish_expiring(
        self: &Arc<Self>,
        channel: &ChannelName,
        draft: Draft,
        expires_in: u32,
    ) -> Result<Publishing, Refusal> {
        let policy = self.policy(channel)?;
        if policy.retention.is_ephemeral() {
            let message = format!(
                "messages of the namespace `{}` can't expire: nothing of them is kept",
                channel.namespace()
            );
            return Err(Refusal::new(ErrorCode::NotSupported, message));
        }
        let due = draft.time.saturating_add(expires_in.into());
        let expiry = Expiry::new(channel, draft.message_id.clone(), draft.time, due);
        let key = self.directory.schedule(&expiry).await?;
        let publishing = match self.publish_in_line(channel, draft).await {
            Ok(publishing) => publishing,
            Err(refusal) => {
                self.forget_expiry(&key, &refusal).await;
                return Err(refusal);
            }
        };
        let node = Arc::clone(self);
        Ok(self.by_itself(async move {
            let published = publishing.await;
            match &published {
                Ok((place, _)) => {
                    if let Err(error) = node.directory.note_place(&key, expiry, *place).await {
                        warn!(%error, "where a message is that will expire can't be noted; it will be looked for");
                    }
                }
                Err(refusal) => node.forget_expiry(&key, refusal).await,
            }
            published
        }))
    }

    /// A message was refused. One that may be in the log all the same keeps its time.
    async fn forget_expiry(&self, key: &ExpiryKey, refusal: &Refusal) {
        if !refusal.code.may_retry() {
            // If it stays, it is looked for in vain, and given up.
            let _ = self.directory.unschedule(key).await;
        }
    }

    /// Deletes messages when their time has come.
    pub(super) async fn tend_expiries(self: &Arc<Self>) {
        let mut ticks = every(EXPIRY_INTERVAL);
        let (mut looked, mut lost) = (Instant::now(), false);
        loop {
            ticks.tick().await;
            let look = looked.elapsed() >= LOOK_INTERVAL;
            if look {
                looked = Instant::now();
            }
            match self.expire_due(look).await {
                Ok(()) => lost = false,
                Err(error) if !lost => {
                    warn!(error = error.message, "what is due can't be read; messages expire once it can");
                    lost = true;
                }
                Err(_) => {}
            }
        }
    }

    /// One round. `look`: for messages, too, whose place was not noted.
    pub(super) async fn expire_due(self: &Arc<Self>, look: bool) -> Result<(), Refusal> {
        let mut after = None;
        loop {
            let due = self.directory.due(now(), after.take(), EXPIRY_BATCH).await?;
            let is_all = due.len() < EXPIRY_BATCH;
            after = due.last().map(|(key, _)| key.clone());
            let each = stream::iter(due);
            each.for_each_concurrent(EXPIRY_CONCURRENCY, |(key, expiry)| async move {
                self.expire(&key, &expiry, look).await;
            })
            .await;
            if is_all {
                return Ok(());
            }
        }
    }

    async fn expire(self: &Arc<Self>, key: &ExpiryKey, expiry: &Expiry, look: bool) {
        let overdue = now().saturating_sub(expiry.due);
        if overdue < TAKE_OVER && !self.is_share(key) {
            return;
        }
        let channel = expiry.channel();
        let is_done = match self.take_away(&channel, expiry, overdue, look).await {
            Ok(is_done) => is_done,
            Err(refusal) if refusal.code.may_retry() => false,
            Err(refusal) => {
                warn!(%channel, error = refusal.message, "a message can't expire");
                true
            }
        };
        if is_done && let Err(error) = self.directory.unschedule(key).await {
            warn!(%channel, %error, "a message that has expired will be looked at once more");
        }
    }

    /// Whether nothing is left to do.
    async fn take_away(
        self: &Arc<Self>,
        channel: &ChannelName,
        expiry: &Expiry,
        overdue: u64,
        look: bool,
    ) -> Result<bool, Refusal> {
        let place = match expiry.place {
            Some(place) => place,
            None if !look || overdue < LOOK_FOR => return Ok(false),
            None => match self.find(channel, expiry).await? {
                Some(place) => place,
                None => return Ok(overdue >= GIVE_UP),
            },
        };
        let log = self.log(self.policy(channel)?);
        // Another epoch's message of that offset is another message.
        if log.extent(channel).await?.epoch == place.epoch {
            self.redact(channel, place.offset, None).await?;
        }
        Ok(true)
    }

    /// The message whose place nobody noted, if it is there.
    async fn find(&self, channel: &ChannelName, expiry: &Expiry) -> Result<Option<Cursor>, Refusal> {
        let log = self.log(self.policy(channel)?);
        let mut before = None;
        for _ in 0..LOOK_PAGES {
            let query = Query { from: From::Before(before), limit: EXPIRY_BATCH, bytes: 1 << 20 };
            let page = log.read(channel, query).await?;
            let is_it = |message_id, time| message_id == &expiry.message_id && time == expiry.time;
            if let Some(found) = page.publications.iter().find(|there| is_it(&there.message_id, there.time)) {
                return Ok(Some(Cursor { epoch: page.extent.epoch, offset: found.offset }));
            }
            match page.publications.last() {
                Some(oldest) if oldest.time.saturating_add(CLOCKS) >= expiry.time => {
                    before = Some(oldest.offset);
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Whether it is this node that is to do it. Where the nodes do not agree on who is there, two do it or all.
    fn is_share(&self, key: &ExpiryKey) -> bool {
        let nodes = self.membership.nodes();
        let nodes = nodes.borrow();
        let mut ids: Vec<_> = nodes.iter().map(|node| node.id.as_str()).collect();
        ids.sort_unstable();
        let mut hasher = DefaultHasher::new();
        key.as_str().hash(&mut hasher);
        let turn = usize::try_from(hasher.finish() % ids.len().max(1) as u64).unwrap_or(0);
        ids.get(turn).is_none_or(|id| *id == self.id.as_str())
    }
}
