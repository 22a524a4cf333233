//! The way of a publication through this node: into its log's line, and once the log has it, to the subscribers, the
//! other nodes and the inboxes of its channel's members.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use tokio::{runtime::Handle, time::Instant};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::trace;
use xpush_protocol::{ChannelName, Cursor, ErrorCode};

use super::{Node, Publishing, gate::rules_of, telling::Untold};
use crate::{
    broker::Carried,
    log::{Appended, LogError},
    namespace::{Access, Policy, Retention},
    publication::Draft,
    session::Refusal,
};

impl Node {
    /// Puts a message in line for its channel. What it gives resolves once the message is as durable as its
    /// namespace promises; then it is on its way to the subscribers too.
    pub async fn publish(
        self: &Arc<Self>,
        channel: &ChannelName,
        draft: Draft,
    ) -> Result<Publishing, Refusal> {
        let draft = match self.publish_at_once(channel, draft) {
            Ok(published) => return Ok(ready(published).boxed()),
            Err(draft) => draft,
        };
        match draft.expires_in {
            Some(expires_in) => self.publish_expiring(channel, draft, expires_in).await,
            None => self.publish_in_line(channel, draft).await,
        }
    }

    pub(super) async fn publish_in_line(
        self: &Arc<Self>,
        channel: &ChannelName,
        draft: Draft,
    ) -> Result<Publishing, Refusal> {
        let policy = self.policy(channel)?;
        if self.webhooks.must_mark(policy, channel) {
            Box::pin(self.webhooks.mark(&self.directory, &**self.log(policy), channel)).await?;
        }
        let told = self.tells_members(policy, channel).then(|| Untold::new(channel, &draft));
        let publishing = if matches!(policy.retention, Retention::Durable { .. }) && self.is_in_cluster() {
            self.publish_routed(policy, channel, draft).await?
        } else {
            self.publish_here(policy, channel, draft, ()).await?
        };
        let Some(told) = told else { return Ok(publishing) };
        let node = Arc::clone(self);
        Ok(self.carry_on(async move {
            let published = publishing.await?;
            if let (cursor, false) = published {
                node.told_of(told, cursor.offset);
            }
            Ok(published)
        }))
    }

    /// Whether the members of the channel hear of its messages in their inboxes.
    fn tells_members(&self, policy: &Policy, channel: &ChannelName) -> bool {
        let has_members = |access| matches!(access, Access::Members | Access::Public);
        matches!(policy.retention, Retention::Durable { .. })
            && match self.directory.known_policy(&channel.app()) {
                Some(of_app) => has_members(rules_of(policy, channel, &of_app).access),
                None => has_members(policy.access),
            }
    }

    /// As `publish`, where there is nothing to wait for. Gives the draft back where there is.
    #[allow(clippy::result_large_err, reason = "it is no error: the draft itself is given back")]
    pub fn publish_at_once(
        self: &Arc<Self>,
        channel: &ChannelName,
        draft: Draft,
    ) -> Result<Result<(Cursor, bool), Refusal>, Draft> {
        let policy = match self.policy(channel) {
            Ok(policy) => policy,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if draft.payload.len() > self.limits.data {
            let message =
                format!("the data has {} bytes, {} are allowed", draft.payload.len(), self.limits.data);
            return Ok(Err(Refusal::new(ErrorCode::TooLarge, message)));
        }
        // Its time has to be noted first, or that the channel has messages to be told of.
        if draft.expires_in.is_some() || self.webhooks.must_mark(policy, channel) {
            return Err(draft);
        }
        let (log, began) = (self.log(policy), Instant::now());
        let appended = log.append_at_once(channel, draft)?;
        Ok(self.published(channel, began, appended, log.carries()))
    }

    /// Has this node append it. `until_appended` is dropped once the log has answered.
    pub(super) async fn publish_here(
        self: &Arc<Self>,
        policy: &Policy,
        channel: &ChannelName,
        draft: Draft,
        until_appended: impl Send + 'static,
    ) -> Result<Publishing, Refusal> {
        let began = Instant::now();
        let log = self.log(policy);
        let carried = log.carries();
        let mut pending = log.append(channel, draft).await?;
        let (node, channel) = (Arc::clone(self), channel.clone());
        // It may have answered already.
        if let Some(appended) = (&mut pending).now_or_never() {
            return Ok(ready(node.published(&channel, began, appended, carried)).boxed());
        }
        Ok(self.carry_on(async move {
            let appended = pending.await;
            drop(until_appended);
            node.published(&channel, began, appended, carried)
        }))
    }

    /// What waits for a disk is no longer its publisher's alone: whoever waits for it does the rest, and a task of the
    /// node's where nobody does any more.
    fn carry_on(
        self: &Arc<Self>,
        publishing: impl Future<Output = Result<(Cursor, bool), Refusal>> + Send + 'static,
    ) -> Publishing {
        let (node, rest, counted) = (Arc::clone(self), Some(publishing.boxed()), self.publishing.token());
        UnderWay { node, rest, _counted: counted }.boxed()
    }

    /// Goes on by itself, whether or not somebody waits for it: for who begins many before the first is waited for, or
    /// has more to do than to publish.
    pub(super) fn by_itself(
        &self,
        publishing: impl Future<Output = Result<(Cursor, bool), Refusal>> + Send + 'static,
    ) -> Publishing {
        let task = self.publishing.spawn(publishing);
        let lost =
            |error| Refusal::new(ErrorCode::Internal, format!("the publish was not finished: {error}"));
        async move { task.await.unwrap_or_else(|error| Err(lost(error))) }.boxed()
    }

    /// What is left to do once the log has answered: the publication is on its way to the subscribers.
    pub(super) fn published(
        self: &Arc<Self>,
        channel: &ChannelName,
        began: Instant,
        appended: Result<Appended, LogError>,
        carried: bool,
    ) -> Result<(Cursor, bool), Refusal> {
        let appended = appended.inspect_err(|_| self.metrics.append_failed())?;
        self.metrics.appended(began.elapsed());
        let cursor = appended.cursor();
        let Appended::New { epoch, publication } = appended else {
            // Who appended it may have died before it told anybody.
            self.announce(Carried::Top { channel: channel.clone(), cursor });
            return Ok((cursor, true));
        };
        trace!(%channel, offset = cursor.offset, "published");
        if self.webhooks.are_some()
            && let Ok(policy) = self.policy(channel)
        {
            self.webhooks.published(policy, channel);
        }
        self.channels.deliver(channel, epoch, &publication);
        if !carried {
            self.announce(Carried::Publication { channel: channel.clone(), epoch, publication });
        }
        Ok((cursor, false))
    }
}

/// A publication that is on its way, and gets there: with a task for each it would be woken twice.
struct UnderWay {
    node: Arc<Node>,
    /// `None`: it is done, or it panicked.
    rest: Option<BoxFuture<'static, Result<(Cursor, bool), Refusal>>>,
    /// The node waits for it before it ends.
    _counted: TaskTrackerToken,
}

impl Future for UnderWay {
    type Output = Result<(Cursor, bool), Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(mut rest) = self.rest.take() else { return Poll::Pending };
        let published = rest.poll_unpin(cx);
        if published.is_pending() {
            self.rest = Some(rest);
        }
        published
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // Without a runtime the process is at its end.
        if let Some(rest) = self.rest.take()
            && Handle::try_current().is_ok()
        {
            self.node.publishing.spawn(rest);
        }
    }
}
