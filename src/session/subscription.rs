//! What a session listens to. A subscription always begins behind some cursor and is read from the log up to where
//! the channel stands; one that begins there is live at once. To resume and to lag are the same thing.

use std::sync::Arc;

use xpush_protocol::{
    ChannelName, Cursor, ErrorCode, Gap, Join, Member, ServerFrame, Subscribed, UnsubscribeReason,
    Unsubscribed,
};

use super::{DeliveryKey, Outbox, Recheck, Refusal, Session};
use crate::{
    auth::Permission,
    channel::{Channel, SubscriberKey},
    log::Extent,
    node::Node,
};

/// A session's place in a channel.
pub(super) struct Subscription {
    channel: Arc<Channel>,
    subscriber: SubscriberKey,
    delivery: DeliveryKey,
}

impl Subscription {
    /// Whether joins and leaves are told.
    pub(super) fn show_presence(&self, shown: bool) {
        self.channel.show_presence(self.subscriber, shown && self.channel.policy().presence);
    }

    /// Takes the session out of the fan-out; its presence is another matter.
    pub(super) fn end(self, node: &Node, outbox: &Outbox) {
        // First: the place in the channel is another's as soon as it is given back.
        outbox.end(self.delivery);
        node.channels.leave(&self.channel, self.subscriber);
        node.unlisten(self.channel.name());
    }
}

impl Session {
    /// Subscribes, and answers `subscribed` or `error` with this id.
    pub(super) async fn subscribe_or_tell(
        &mut self,
        id: u32,
        name: ChannelName,
        cursor: Option<Cursor>,
        last: Option<u32>,
    ) {
        if let Err(refusal) = self.subscribe(id, &name, cursor, last).await {
            self.outbox.give_up(&name);
            self.outbox.push_answer(&ServerFrame::Error(refusal.into_frame(Some(id), Some(name))));
        }
    }

    async fn subscribe(
        &mut self,
        id: u32,
        name: &ChannelName,
        cursor: Option<Cursor>,
        last: Option<u32>,
    ) -> Result<(), Refusal> {
        self.refuse_expired()?;
        let changes = self.node.changes();
        self.require(Permission::Subscribe, name).await?;
        let node = Arc::clone(&self.node);
        let policy = node.policy(name)?;
        if self.detached {
            return Err(Refusal::new(ErrorCode::NotSupported, "a detached connection only sends"));
        }
        if self.subscriptions.contains_key(name) {
            return Err(Refusal::new(ErrorCode::AlreadySubscribed, format!("already subscribed to {name}")));
        }
        if self.subscriptions.len() >= node.limits.subscriptions {
            let message = format!("a session may have {} subscriptions", node.limits.subscriptions);
            return Err(Refusal::new(ErrorCode::LimitReached, message));
        }
        node.webhooks.before_subscribe(&self.rights, &self.id, name).await?;
        let presence = policy.presence && self.require(Permission::Presence, name).await.is_ok();
        if last.is_none() {
            // With it the answer is not the same elsewhere: then the client has to ask again.
            self.outbox.resume([(name.clone(), cursor)]);
        }

        // In the fan-out before the log is read: a publication could fall between.
        let delivery = self.outbox.reserve();
        let (channel, subscriber) = node
            .channels
            .enter(name, policy, node.log(policy), |channel| channel.add(&self.outbox, delivery, presence));
        // Noted before anything is waited for: a session that ends meanwhile finds what to clean up.
        let subscription = Subscription { channel: Arc::clone(&channel), subscriber, delivery };
        self.subscriptions.insert(name.clone(), subscription);
        node.listen(name).await;
        let start = match start(&channel, cursor, last).await {
            Ok(start) => start,
            Err(refusal) => {
                if let Some(subscription) = self.subscriptions.remove(name) {
                    subscription.end(&node, &self.outbox);
                }
                return Err(refusal);
            }
        };
        let mut occupancy = None;
        if policy.presence {
            let member = Member { session: self.id.clone(), user: self.user().cloned() };
            let joined = node.presence.join(name, member.clone(), self.connection).await;
            occupancy = presence.then_some(joined.occupancy);
            if joined.new {
                node.tell_join(Join { channel: name.clone(), member, occupancy: joined.occupancy }).await;
            }
        }
        let answer = ServerFrame::Subscribed(Subscribed {
            id,
            channel: name.clone(),
            cursor: start.cursor,
            top: start.top,
            gap: start.gap,
            ephemeral: policy.retention.is_ephemeral(),
            occupancy,
        });
        self.outbox.begin(delivery, channel, subscriber, start.cursor, &answer);
        if node.changes() != changes {
            // The right may have been taken while nobody could have told this subscription.
            self.outbox.ask_recheck(&Recheck::Channel(name.clone()));
        }
        Ok(())
    }

    pub(super) async fn unsubscribe(&mut self, id: u32, name: ChannelName) -> ServerFrame {
        match self.subscriptions.remove(&name) {
            Some(subscription) => {
                subscription.end(&self.node, &self.outbox);
                self.node.leave(&name, &self.id, self.connection).await;
                let reason = UnsubscribeReason::Requested;
                ServerFrame::Unsubscribed(Unsubscribed { id: Some(id), channel: name, reason })
            }
            None => {
                let refusal = Refusal::new(ErrorCode::NotSubscribed, format!("not subscribed to {name}"));
                ServerFrame::Error(refusal.into_frame(Some(id), Some(name)))
            }
        }
    }

    /// Ends the subscriptions that `which` picks, and tells the client.
    pub(super) async fn end_subscriptions(
        &mut self,
        reason: UnsubscribeReason,
        which: impl Fn(&ChannelName) -> bool,
    ) {
        let names: Vec<_> = self.subscriptions.keys().filter(|name| which(name)).cloned().collect();
        for name in names {
            if let Some(subscription) = self.subscriptions.remove(&name) {
                subscription.end(&self.node, &self.outbox);
                self.node.leave(&name, &self.id, self.connection).await;
                self.outbox.push_answer(&ServerFrame::Unsubscribed(Unsubscribed {
                    id: None,
                    channel: name,
                    reason,
                }));
            }
        }
    }

    /// Ends the subscriptions that the log could not be read for: the client may begin them anew, with its cursor.
    pub(super) async fn end_failed(&mut self) {
        let failed = self.outbox.take_failed();
        self.end_subscriptions(UnsubscribeReason::LogUnavailable, |name| failed.contains(name)).await;
    }

    /// Whether the token grants it, or the directory.
    pub(super) async fn require(&self, permission: Permission, channel: &ChannelName) -> Result<(), Refusal> {
        self.node.require(&self.rights, permission, channel).await
    }

    /// As `require`, where nobody has to be asked.
    pub(super) fn decided(
        &self,
        permission: Permission,
        channel: &ChannelName,
    ) -> Option<Result<(), Refusal>> {
        self.node.decided(&self.rights, permission, channel)
    }
}

/// Where a subscription begins, and what it can't have.
struct Start {
    cursor: Cursor,
    top: u64,
    gap: Option<Gap>,
}

async fn start(channel: &Channel, wanted: Option<Cursor>, last: Option<u32>) -> Result<Start, Refusal> {
    let delivered = channel.delivered().await?;
    if wanted.is_none() && last.is_none() {
        return Ok(Start { cursor: delivered, top: delivered.offset, gap: None });
    }
    let mut extent = match wanted {
        Some(wanted) => channel.extent_at(wanted).await?,
        None => channel.log().extent(channel.name()).await?,
    };
    if wanted.is_some_and(|wanted| is_ahead(wanted, extent)) {
        extent = channel.log().confirm(channel.name()).await?;
    }
    let Extent { epoch, first, top } = extent;
    let at = |offset| Cursor { epoch, offset };
    let Some(wanted) = wanted else {
        let back = top.saturating_sub(u64::from(last.unwrap_or_default()));
        return Ok(Start { cursor: at(back.max(first - 1)), top, gap: None });
    };
    match missed(channel.name(), wanted, extent)? {
        Some(gap) => Ok(Start { cursor: at(gap.to), top, gap: Some(gap) }),
        None => Ok(Start { cursor: wanted, top, gap: None }),
    }
}

/// Beyond what the log has: of another installation, or told by somebody who knows more than who gave the extent.
pub(crate) fn is_ahead(cursor: Cursor, extent: Extent) -> bool {
    cursor.epoch == extent.epoch && cursor.offset > extent.top
}

/// What a reader at this cursor can't have any more.
pub(crate) fn missed(channel: &ChannelName, cursor: Cursor, extent: Extent) -> Result<Option<Gap>, Refusal> {
    let Extent { epoch, first, top } = extent;
    let gap = |from| Gap { channel: channel.clone(), epoch, from, to: first - 1 };
    if cursor.epoch != epoch {
        return Ok(Some(gap(1)));
    }
    if is_ahead(cursor, extent) {
        let message = format!("the cursor {cursor} of {channel} is beyond its newest publication, {top}");
        return Err(Refusal::new(ErrorCode::CursorAhead, message));
    }
    Ok((cursor.offset + 1 < first).then(|| gap(cursor.offset + 1)))
}
