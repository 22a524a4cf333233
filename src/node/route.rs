//! Where many nodes append to one channel, they stand in each other's way: then one of them appends for all.
//!
//! A publication goes into this node's own log at once; or, while the log says that the channel has rivals and another
//! node is its appender, to that one through the broker, a batch at a time. Of one channel only one of the two is under
//! way at any moment, and one batch at most: so the messages of a connection keep their order. On any doubt a batch is
//! appended here; if it was appended there too, its message ids make one of the two a duplicate.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep, timeout},
};
use xpush_protocol::{ChannelName, Cursor, Epoch, ErrorCode};

use super::{
    Node, Publishing,
    silence::{Asking, Silences},
};
use crate::{
    broker::{Answers, Carried, Placed, Requested, Standing},
    log::LogError,
    membership::{NodeId, NodeInfo, appender},
    namespace::{Policy, Retention},
    publication::Draft,
    session::{Refusal, now},
};

/// Publications that go to another node together.
const BATCH: usize = 256;
/// And their bytes; the first goes however large it is.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes that wait to be sent, or for an answer. Who has one more waits.
const WAITING_BYTES: usize = 32 << 20;
/// What a publication costs beside its data.
const PUBLICATION_BYTES: usize = 512;
/// A node that was asked and says nothing for so long is silent.
const PATIENCE: Duration = Duration::from_secs(2);
/// So it says something that often: what a log is slow to take here, it would be no faster to take there too.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);
/// Drafts that come later than this were appended by who sent them, long ago; of a channel that keeps little the ids may
/// be gone again.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// What waited for so long is given up, as by a log: its publisher has sent it again since.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(10);
/// Batches of other nodes that are being appended; one more waits in the inbox.
const SERVED_AT_ONCE: usize = 256;

/// The node that is to append.
pub(super) struct Appender {
    pub(super) id: NodeId,
    pub(super) instance: u64,
}

/// Why an appender gave no answer.
enum Unanswered {
    /// It says nothing, or nobody is there.
    Silent,
    /// The broker did not bring it the question.
    Unreached,
    /// Somebody else found out that no answer will come.
    GivenUp,
}

/// Which way each channel's publications go, of those that have any under way.
pub(super) struct Routes {
    ways: Mutex<HashMap<ChannelName, Way>>,
    places: Arc<Semaphore>,
    silences: Silences,
    serving: Arc<Semaphore>,
}

#[derive(Default)]
struct Way {
    /// Appends under way that went into the log here.
    here: usize,
    /// What goes to another node, while a task sends it.
    lane: Option<VecDeque<Waiting>>,
    /// Nothing is under way here any more.
    settled: Arc<Notify>,
}

struct Waiting {
    draft: Draft,
    began: Instant,
    reply: oneshot::Sender<Result<(Cursor, bool), Refusal>>,
    _place: OwnedSemaphorePermit,
}

/// An append that is under way here, until it is dropped.
struct Here {
    node: Arc<Node>,
    channel: ChannelName,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            ways: Mutex::default(),
            places: Arc::new(Semaphore::new(WAITING_BYTES)),
            silences: Silences::default(),
            serving: Arc::new(Semaphore::new(SERVED_AT_ONCE)),
        }
    }
}

impl Routes {
    /// Gives whether the channel's publications go into the log here.
    fn begin_here(&self, channel: &ChannelName) -> bool {
        let mut ways = self.ways();
        let way = ways.entry(channel.clone()).or_default();
        let is_free = way.lane.is_none();
        way.here += usize::from(is_free);
        is_free
    }

    fn end_here(&self, channel: &ChannelName) {
        let mut ways = self.ways();
        let Some(way) = ways.get_mut(channel) else { return };
        way.here -= 1;
        if way.here > 0 {
            return;
        }
        if way.lane.is_some() {
            way.settled.notify_one();
        } else {
            ways.remove(channel);
        }
    }

    /// Gives whether there is no task yet that sends it.
    fn put_in_lane(&self, channel: &ChannelName, waiting: Waiting) -> bool {
        let mut ways = self.ways();
        let lane = &mut ways.entry(channel.clone()).or_default().lane;
        let is_new = lane.is_none();
        lane.get_or_insert_default().push_back(waiting);
        is_new
    }

    /// Waits until nothing is under way here. Only the task that sends may ask.
    async fn settled(&self, channel: &ChannelName) {
        loop {
            let settled = match self.ways().get(channel) {
                Some(way) if way.here > 0 => Arc::clone(&way.settled),
                _ => return,
            };
            settled.notified().await;
        }
    }

    /// What goes next. Where it is nothing, the channel has no lane any more.
    fn next_batch(&self, channel: &ChannelName) -> VecDeque<Waiting> {
        let mut ways = self.ways();
        let mut batch = VecDeque::new();
        let Some(lane) = ways.get_mut(channel).and_then(|way| way.lane.as_mut()) else { return batch };
        let mut bytes = 0;
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Some(waiting) = lane.pop_front() else { break };
            bytes += waiting.draft.payload.len();
            batch.push_back(waiting);
        }
        if batch.is_empty() {
            ways.remove(channel);
        }
        batch
    }

    /// Whoever comes back has to show again that it appends.
    pub(super) fn forget_gone(&self, nodes: &[NodeInfo]) {
        self.silences.keep(|instance| nodes.iter().any(|node| node.instance == instance));
    }

    fn ways(&self) -> MutexGuard<'_, HashMap<ChannelName, Way>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.node.routes.end_here(&self.channel);
    }
}

/// Takes note of what this says of the appender, and gives what it did of so many.
fn judge(mut asking: Asking<'_>, answered: Result<Placed, Unanswered>, asked: usize) -> Placed {
    match &answered {
        Ok(placed) if placed.is_behind || placed.places.len() >= asked => asking.heard(),
        Ok(_) | Err(Unanswered::Silent) => asking.silent(),
        Err(Unanswered::Unreached) => asking.unreached(),
        Err(Unanswered::GivenUp) => drop(asking),
    }
    answered.unwrap_or_default()
}

impl Node {
    /// Publishes to a channel that other nodes may append to as well.
    pub(super) async fn publish_routed(
        self: &Arc<Self>,
        policy: &Policy,
        channel: &ChannelName,
        draft: Draft,
    ) -> Result<Publishing, Refusal> {
        let began = Instant::now();
        if self.appender_elsewhere(channel).is_none() && self.routes.begin_here(channel) {
            let here = Here { node: Arc::clone(self), channel: channel.clone() };
            return self.publish_here(policy, channel, draft, here).await;
        }
        let bytes = (PUBLICATION_BYTES + draft.payload.len()).min(WAITING_BYTES) as u32;
        let place = Arc::clone(&self.routes.places).acquire_many_owned(bytes).await;
        // They are never closed.
        let place = place.map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { draft, began, reply, _place: place };
        if self.routes.put_in_lane(channel, waiting) {
            self.publishing.spawn(Arc::clone(self).empty_lane(channel.clone()));
        }
        let lost = "the publish was not finished: its task ended";
        Ok(Box::pin(
            async move { answer.await.unwrap_or_else(|_| Err(Refusal::new(ErrorCode::Internal, lost))) },
        ))
    }

    /// The node that is to append to this channel, if it is not this one.
    fn appender_elsewhere(&self, channel: &ChannelName) -> Option<Appender> {
        if !self.durable.has_rivals(channel) {
            return None;
        }
        let nodes = self.membership.nodes().borrow().clone();
        let own = nodes.iter().find(|node| node.id == self.id)?;
        // Another version may not know how.
        let able = nodes
            .iter()
            .filter(|node| node.version == own.version && !self.routes.silences.is_silent(node.instance));
        let chosen = appender(able, channel.as_str()).filter(|node| node.id != self.id)?;
        Some(Appender { id: chosen.id.clone(), instance: chosen.instance })
    }

    /// Sends what is in a channel's lane, until there is nothing.
    async fn empty_lane(self: Arc<Self>, channel: ChannelName) {
        loop {
            self.routes.settled(&channel).await;
            let mut batch = self.routes.next_batch(&channel);
            if batch.is_empty() {
                return;
            }
            // Where too many answers are waited for already, that is no fault of the appender.
            if let Some(appender) = self.appender_elsewhere(&channel)
                && let Some(answers) = self.inbox.expect_appended()
                && let Some(mut asking) = self.routes.silences.ask(&appender)
            {
                let answered = self.ask_to_append(&appender, &mut asking, answers, &channel, &batch).await;
                let Placed { places, is_behind } = judge(asking, answered, batch.len());
                for Standing { epoch, offset, duplicate } in places {
                    let Some(Waiting { reply, .. }) = batch.pop_front() else { break };
                    let cursor = Cursor { epoch: Epoch(epoch), offset };
                    // Who does not listen to the channel hears of the other node's appends nowhere else.
                    self.durable.told(&channel, cursor);
                    self.metrics.routed();
                    // Nobody listens if the publisher is gone. The publication stands all the same.
                    let _ = reply.send(Ok((cursor, duplicate)));
                }
                if is_behind {
                    // Beside the other node, this one would only stand in its way.
                    for Waiting { began, reply, .. } in batch.drain(..) {
                        self.metrics.append_failed();
                        let _ = reply.send(Err(LogError::Behind { waited: began.elapsed() }.into()));
                    }
                }
            }
            self.append_here(&channel, batch).await;
        }
    }

    /// What the appender made of a batch.
    async fn ask_to_append(
        &self,
        appender: &Appender,
        asking: &mut Asking<'_>,
        mut answers: Answers<'_, Option<Placed>>,
        channel: &ChannelName,
        batch: &VecDeque<Waiting>,
    ) -> Result<Placed, Unanswered> {
        let asked = Carried::Append {
            node: appender.id.clone(),
            from: self.id.clone(),
            request: answers.request,
            sent: now(),
            channel: channel.clone(),
            drafts: batch.iter().map(|waiting| waiting.draft.clone()).collect(),
        };
        let began = Instant::now();
        let listeners = match timeout(PATIENCE, self.broker.publish(asked)).await {
            Ok(Ok(listeners)) => listeners,
            Ok(Err(_)) | Err(_) => return Err(Unanswered::Unreached),
        };
        if listeners == 0 {
            return Err(Unanswered::Silent);
        }
        while began.elapsed() < GIVEN_UP_AFTER {
            let answer = tokio::select! {
                biased;
                answer = timeout(PATIENCE, answers.next()) => answer.ok().flatten(),
                () = self.routes.silences.in_vain(appender.instance, began) => return Err(Unanswered::GivenUp),
            };
            match answer {
                Some(Some(placed)) => return Ok(placed),
                // It lives, and is slow.
                Some(None) => asking.heard(),
                None => return Err(Unanswered::Silent),
            }
        }
        Ok(Placed { is_behind: true, ..Placed::default() })
    }

    async fn append_here(self: &Arc<Self>, channel: &ChannelName, batch: VecDeque<Waiting>) {
        let mut under_way = Vec::with_capacity(batch.len());
        for Waiting { draft, began, reply, _place } in batch {
            let publishing = match self.policy(channel) {
                _ if began.elapsed() >= GIVEN_UP_AFTER => {
                    let why = "the message waited too long for its turn; send it again";
                    Err(Refusal::new(ErrorCode::LogUnavailable, why))
                }
                Ok(policy) => self.publish_here(policy, channel, draft, _place).await,
                Err(refusal) => Err(refusal),
            };
            under_way.push((reply, publishing.map(|publishing| self.by_itself(publishing))));
        }
        for (reply, publishing) in under_way {
            let published = match publishing {
                Ok(publishing) => publishing.await,
                Err(refusal) => Err(refusal),
            };
            // As above.
            let _ = reply.send(published);
        }
    }

    /// Appends what other nodes want appended here.
    pub(super) async fn append_for_others(self: &Arc<Self>) {
        let Some(mut requested) = self.inbox.requested() else { return };
        while let Some(requested) = requested.recv().await {
            let Ok(served) = Arc::clone(&self.routes.serving).acquire_owned().await else { return };
            let node = Arc::clone(self);
            self.publishing.spawn(async move {
                let (from, request) = (requested.from.clone(), requested.request);
                let mut appending = pin!(node.append_for(requested));
                let placed = loop {
                    tokio::select! {
                        placed = &mut appending => break placed,
                        () = sleep(SIGN_OF_LIFE) => {}
                    }
                    // Lost, like the answer: who asked appends it too, and it stands once.
                    let _ = node.broker.publish(Carried::Appending { node: from.clone(), request }).await;
                };
                let _ = node.broker.publish(Carried::Appended { node: from, request, placed }).await;
                drop(served);
            });
        }
    }

    async fn append_for(self: &Arc<Self>, requested: Requested) -> Placed {
        let Requested { sent, channel, drafts, .. } = requested;
        let mut placed = Placed { places: Vec::with_capacity(drafts.len()), is_behind: false };
        let is_stale = now().saturating_sub(sent) > STALE_AFTER.as_millis() as u64;
        let policy = self.policy(&channel);
        let Ok(policy @ Policy { retention: Retention::Durable { .. }, .. }) = policy else { return placed };
        if is_stale {
            return placed;
        }
        let mut under_way = Vec::with_capacity(drafts.len());
        let mut refused = None;
        for draft in drafts {
            match self.publish_here(policy, &channel, draft, ()).await {
                Ok(publishing) => under_way.push(self.by_itself(publishing)),
                Err(refusal) => {
                    refused = Some(refusal);
                    break;
                }
            }
        }
        for publishing in under_way {
            match publishing.await {
                Ok((Cursor { epoch, offset }, duplicate)) => {
                    placed.places.push(Standing { epoch: epoch.0, offset, duplicate });
                }
                Err(refusal) => {
                    refused = Some(refusal);
                    break;
                }
            }
        }
        // Why else it can't be appended here, whoever sent it finds out for itself.
        placed.is_behind = refused.is_some_and(|refusal| refusal.code == ErrorCode::Busy);
        placed
    }
}
