//! What nobody waits for, and somebody has to look after: holes in a channel, publications that nobody announced,
//! sessions that did not return, counts of big channels, channels of a log that forgets.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use xpush_protocol::{ChannelName, Occupancy, ServerFrame};

use super::{Node, balance::Balance};
use crate::{
    broker::Carried,
    channel::Channel,
    log::{HOLD, Log},
    membership::{Nodes, Status},
    namespace::Retention,
};

/// How often holes, departures and big channels' counts are looked at.
const TEND_INTERVAL: Duration = Duration::from_millis(250);
/// How long a publication may be under way before the log is read for it.
const HOLE_PATIENCE: Duration = Duration::from_millis(200);
/// How often the channels' tops are compared.
const COMPARE_INTERVAL: Duration = Duration::from_secs(2);
/// Channels whose logs are asked in one call.
const COMPARE_CHUNK: usize = 1000;
/// A node that died may have a write under way that its store takes a little later: so much later the channels are
/// compared once more.
const LATE_WRITE: Duration = Duration::from_secs(10);
/// Reads of the log, and departures, that are under way at once.
const TEND_CONCURRENCY: usize = 32;
/// How often the backends are asked whether they are there.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// How often the others are told how many sessions are here.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

impl Node {
    /// Looks after what nobody waits for, until `cancel`.
    pub async fn tend(self: Arc<Self>, cancel: CancellationToken) {
        let webhooks = self.webhooks.run(&self.directory, &self.durable, &cancel);
        let tending = async {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = async { tokio::join!(self.tend_channels(), self.tend_sessions(), self.compare(), self.watch_nodes(), self.watch_backends(), self.append_for_others(), self.follow_changes(), self.tell_inboxes(), self.tell_contacts(), self.tend_expiries()); } => {}
            }
        };
        // What a webhook is just told is awaited a little.
        tokio::join!(tending, Box::pin(webhooks));
    }

    async fn tend_channels(&self) {
        let mut ticks = every(TEND_INTERVAL);
        let (mut counted, mut held) = (Instant::now(), Instant::now());
        loop {
            ticks.tick().await;
            let tell_counts = counted.elapsed() >= Duration::from_secs(1);
            let hold = held.elapsed() >= HOLD / 4;
            let each = stream::iter(self.channels.all());
            each.for_each_concurrent(TEND_CONCURRENCY, |channel| {
                self.tend_channel(channel, hold, tell_counts)
            })
            .await;
            if tell_counts {
                counted = Instant::now();
            }
            if hold {
                held = Instant::now();
            }
        }
    }

    async fn tend_channel(&self, channel: Arc<Channel>, hold: bool, tell_counts: bool) {
        if let Err(error) = channel.repair(HOLE_PATIENCE).await {
            warn!(channel = %channel.name(), %error, "a hole can't be read from the log yet");
        }
        if hold && !matches!(channel.policy().retention, Retention::Durable { .. }) {
            // What can go wrong here goes wrong for the next publisher too, who is told.
            let _ = channel.log().hold(channel.name()).await;
        }
        if tell_counts && let Some(occupancy) = channel.take_occupancy() {
            let name = channel.name().clone();
            let frame = ServerFrame::Occupancy(Occupancy { channel: name.clone(), occupancy });
            channel.tell_presence(&frame);
            // Told again when it changes.
            let _ = self.broker.publish(Carried::Presence { channel: name, occupancy, frame }).await;
        }
    }

    async fn tend_sessions(&self) {
        let mut ticks = every(TEND_INTERVAL);
        let (mut told, mut balance) = (Instant::now(), Balance::default());
        loop {
            ticks.tick().await;
            let departed = stream::iter(self.sessions.take_departed(Instant::now()));
            departed.for_each_concurrent(TEND_CONCURRENCY, |departed| self.depart(departed)).await;
            if told.elapsed() >= STATUS_INTERVAL {
                told = Instant::now();
                self.membership.tell(self.status());
                self.balance(&mut balance);
            }
        }
    }

    /// How this node is, for the others.
    #[must_use]
    pub fn status(&self) -> Status {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Status {
            sessions: count(self.sessions.count()),
            channels: count(self.channels.count()),
            users: count(self.sessions.count_users()),
            draining: self.is_draining(),
        }
    }

    /// Finds what was published and never came: by the tops, every `COMPARE_INTERVAL`; by the logs, at once when
    /// something happened that may have swallowed tops as well.
    async fn compare(&self) {
        if !self.is_in_cluster() {
            return;
        }
        let mut ticks = every(COMPARE_INTERVAL);
        let mut turn = 0;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.announce_untold().await;
                    self.compare_tops(&mut turn).await;
                }
                () = self.inbox.doubted() => self.compare_logs().await,
            }
        }
    }

    /// `turn`: while the broker is away, the logs are looked at instead, some of them each time.
    async fn compare_tops(&self, turn: &mut usize) {
        let (durable, recent) = self.active();
        self.compare_with_log(&self.recent, &recent).await;
        if durable.is_empty() {
            return;
        }
        let Ok(tops) = self.broker.tops(&durable).await else {
            let chunks = durable.chunks(COMPARE_CHUNK);
            *turn = (*turn + 1) % chunks.len();
            for chunk in chunks.skip(*turn).take(1) {
                self.compare_with_log(&self.durable, chunk).await;
            }
            return;
        };
        let mut unknown = Vec::new();
        for (name, top) in durable.into_iter().zip(tops) {
            match (top, self.channels.get(&name)) {
                (Some(top), Some(channel)) => channel.note_top(top),
                (None, Some(_)) => unknown.push(name),
                (_, None) => {}
            }
        }
        self.find_tops(&unknown).await;
    }

    /// Channels without a top, as after the broker's memory was lost: the log says where they stand, and everybody
    /// is told.
    async fn find_tops(&self, channels: &[ChannelName]) {
        for chunk in channels.chunks(COMPARE_CHUNK) {
            let tops = match self.durable.tops(chunk).await {
                Ok(tops) => tops,
                Err(error) => return warn!(%error, "the tops of channels can't be read from the log yet"),
            };
            let each = stream::iter(chunk.iter().zip(tops));
            each.for_each_concurrent(TEND_CONCURRENCY, async |(name, cursor)| {
                if let Some(channel) = self.channels.get(name) {
                    channel.note_top(cursor);
                    // If it can't be told now, it is unknown the next time too.
                    let _ = self.broker.publish(Carried::Top { channel: name.clone(), cursor }).await;
                }
            })
            .await;
        }
    }

    async fn compare_logs(&self) {
        let (durable, recent) = self.active();
        info!(channels = durable.len() + recent.len(), "comparing the channels with their logs");
        self.compare_with_log(&self.durable, &durable).await;
        self.compare_with_log(&self.recent, &recent).await;
    }

    async fn compare_with_log(&self, log: &Arc<dyn Log>, channels: &[ChannelName]) {
        for chunk in channels.chunks(COMPARE_CHUNK) {
            match log.tops(chunk).await {
                Ok(tops) => {
                    for (name, top) in chunk.iter().zip(tops) {
                        if let Some(channel) = self.channels.get(name) {
                            channel.note_top(top);
                        }
                    }
                }
                Err(error) => {
                    warn!(%error, "the channels can't be compared with their log yet");
                    // It has to be done; the next tick is soon enough.
                    self.inbox.doubt();
                    tokio::time::sleep(TEND_INTERVAL).await;
                    return;
                }
            }
        }
    }

    /// The channels with subscribers here whose holes are filled: durable, and recent.
    fn active(&self) -> (Vec<ChannelName>, Vec<ChannelName>) {
        let kept =
            self.channels.all().into_iter().filter(|channel| !channel.policy().retention.is_ephemeral());
        let (durable, recent): (Vec<_>, Vec<_>) =
            kept.partition(|channel| matches!(channel.policy().retention, Retention::Durable { .. }));
        let names =
            |channels: Vec<Arc<Channel>>| channels.iter().map(|channel| channel.name().clone()).collect();
        (names(durable), names(recent))
    }

    /// For the metrics.
    async fn watch_backends(&self) {
        let mut ticks = every(HEALTH_INTERVAL);
        // Some are still on their way when a node starts.
        ticks.reset();
        let mut before = None;
        loop {
            ticks.tick().await;
            let health = self.health().await;
            if before.as_ref() != Some(&health) {
                for (backend, checked) in
                    [("log", &health.log), ("broker", &health.broker), ("membership", &health.membership)]
                {
                    if let Err(error) = checked {
                        warn!(backend, %error, "a backend can't be used: what needs it is refused, all else goes on");
                    }
                }
                if before.is_some()
                    && health.log.is_ok()
                    && health.broker.is_ok()
                    && health.membership.is_ok()
                {
                    info!("all backends can be used again");
                }
                before = Some(health);
            }
        }
    }

    /// A node that died may have appended what it told nobody.
    async fn watch_nodes(&self) {
        let mut nodes = self.membership.nodes();
        let mut known: Nodes = nodes.borrow_and_update().clone();
        let mut again = None::<Instant>;
        loop {
            let late = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = nodes.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    let now = nodes.borrow_and_update().clone();
                    let gone = known.iter().filter(|old| !now.iter().any(|new| new.instance == old.instance));
                    let gone: Vec<_> = gone.map(|node| node.id.as_str()).collect();
                    if !gone.is_empty() {
                        info!(?gone, "nodes are gone");
                        self.inbox.doubt();
                        again = Some(Instant::now() + LATE_WRITE);
                    }
                    self.routes.forget_gone(&now);
                    known = now;
                }
                () = late => {
                    again = None;
                    self.inbox.doubt();
                }
            }
        }
    }
}

pub(super) fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
