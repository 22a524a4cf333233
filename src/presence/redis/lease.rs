//! Keeps this node's lease, puts back what Redis lost, tells it what it could not be told, and takes out the sessions
//! of nodes whose lease ran out.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use xpush_protocol::{ChannelName, Join, Leave, Member, ServerFrame};

use super::{
    News, Shared,
    members::{AT_ONCE, Reaped},
    mirror::Lease,
};
use crate::redis::LinkError;

/// A lease is prolonged so many times before it would run out.
const ROUNDS: u32 = 3;
/// Runs that are remembered. One that is forgotten is told everything once more.
const RUNS_CAPACITY: usize = 4096;

pub(super) struct Keeper {
    shared: Arc<Shared>,
    next: Lease,
    lives_for: Duration,
    /// Leases that had run out a round ago already: after an outage everybody has one round to come back.
    suspects: HashSet<String>,
    /// Runs of Redis's servers that were told everything.
    runs: BTreeSet<Arc<str>>,
    held: Instant,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, instance: u64, lives_for: Duration) -> Self {
        Self {
            shared,
            next: Lease { instance, number: 1 },
            lives_for,
            suspects: HashSet::new(),
            runs: BTreeSet::new(),
            held: Instant::now(),
        }
    }

    /// Goes on until it is cancelled.
    pub(super) async fn run(mut self, mut changed: watch::Receiver<u64>, cancel: CancellationToken) {
        loop {
            tokio::select! {
                held = self.round() => if let Err(error) = held {
                    debug!(%error, "the lease could not be kept");
                },
                () = cancel.cancelled() => return,
            }
            tokio::select! {
                () = sleep(self.lives_for / ROUNDS) => {}
                _ = changed.changed() => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    async fn round(&mut self) -> Result<(), LinkError> {
        let shared = Arc::clone(&self.shared);
        let had = shared.mirror().lease;
        // Before Redis is told anything: what starts behind this look is seen in the next round.
        let runs = shared.members.runs();
        let held = match had {
            Some(lease) => Some((lease, self.hold(lease, false).await?)),
            None => None,
        };
        let (lease, expired) = match held {
            Some((lease, (true, expired))) => (lease, expired),
            _ => {
                // A new one: who takes out what the old one had does not touch what this one has.
                let lease = self.next;
                let (_, expired) = self.hold(lease, true).await?;
                self.next.number += 1;
                shared.mirror().lease = Some(lease);
                if had.is_some() {
                    info!("Redis had given this node's sessions up; they are put back");
                }
                (lease, expired)
            }
        };
        let everything = had.is_some_and(|had| had != lease) || !runs.is_subset(&self.runs);
        self.pay(lease).await?;
        self.put_back(lease, everything).await?;
        // One that is away now and comes back is the same.
        self.runs.extend(runs);
        while self.runs.len() > RUNS_CAPACITY {
            self.runs.pop_first();
        }
        self.unlist_empty(lease).await?;
        let expired: HashSet<String> = expired.into_iter().collect();
        let dead: Vec<_> = expired.intersection(&self.suspects).cloned().collect();
        self.suspects = expired;
        for dead in dead {
            self.reap(lease, &dead).await?;
        }
        Ok(())
    }

    async fn hold(&mut self, lease: Lease, may_begin: bool) -> Result<(bool, Vec<String>), LinkError> {
        let held = self.shared.members.hold(lease, self.lives_for.as_millis() as u64, may_begin).await?;
        self.held = Instant::now();
        Ok(held)
    }

    /// Whether it is time to prolong the lease in the middle of a long work.
    fn is_due(&self) -> bool {
        self.held.elapsed() >= self.lives_for / ROUNDS
    }

    /// Tells of the leaves that could not be told.
    async fn pay(&mut self, lease: Lease) -> Result<(), LinkError> {
        let owed = self.shared.mirror().take_owed();
        let mut failed = None;
        for owed in owed.chunks(AT_ONCE) {
            let leaving: Vec<_> =
                owed.iter().map(|owed| (&owed.channel, &owed.member.session, owed.connection)).collect();
            let left = self.shared.members.leave(lease, &leaving).await;
            let mut news = Vec::new();
            for (owed, left) in owed.iter().cloned().zip(left) {
                match left {
                    // This node's own subscribers were told when it happened.
                    Ok((occupancy, true)) => {
                        news.push(left_news(owed.channel, owed.member, occupancy, false));
                    }
                    Ok((_, false)) => {}
                    Err(error) => {
                        self.shared.mirror().owe(owed);
                        failed = Some(error);
                    }
                }
            }
            self.shared.tell(news).await;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Puts in what Redis was not told, or everything where it may have lost it.
    async fn put_back(&mut self, lease: Lease, everything: bool) -> Result<(), LinkError> {
        let shared = Arc::clone(&self.shared);
        let places = shared.mirror().to_tell(everything);
        let mut failed = None;
        for places in places.chunks(AT_ONCE) {
            if self.is_due() {
                self.hold(lease, false).await?;
            }
            let channels: HashSet<_> = places.iter().map(|(channel, _)| channel.clone()).collect();
            let channels: Vec<_> = channels.into_iter().collect();
            shared.members.list_channels(lease, &channels).await?;
            for channel in &channels {
                shared.mirror().listed(channel, lease);
            }
            let put = shared.members.put(lease, places).await;
            let mut news = Vec::new();
            for ((channel, place), put) in places.iter().zip(put) {
                match put {
                    Ok((occupancy, new)) if shared.was_told(lease, channel, place).await && new => {
                        let join = Join { channel: channel.clone(), member: place.member.clone(), occupancy };
                        news.push(News {
                            channel: channel.clone(),
                            occupancy,
                            frame: ServerFrame::Join(join),
                            // What Redis had had and lost may have been told to have left, here too.
                            here_too: place.is_told,
                        });
                    }
                    Ok(_) => {}
                    Err(error) => failed = Some(error),
                }
            }
            shared.tell(news).await;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Takes channels off the list in which nobody is any more.
    async fn unlist_empty(&self, lease: Lease) -> Result<(), LinkError> {
        let mut empty = self.shared.mirror().take_empty();
        if empty.is_empty() {
            return Ok(());
        }
        let unlisted = self.shared.members.unlist_channels(lease, &empty).await;
        // Somebody may have come meanwhile, and have been listed just before.
        {
            let mirror = self.shared.mirror();
            empty.retain(|channel| !mirror.is_empty(channel));
        }
        self.shared.members.list_channels(lease, &empty).await?;
        unlisted
    }

    /// Takes out the sessions of a node that is not heard of any more.
    async fn reap(&mut self, lease: Lease, dead: &str) -> Result<(), LinkError> {
        let shared = Arc::clone(&self.shared);
        let members = &shared.members;
        let millis = self.lives_for.as_millis() as u64;
        if !members.claim(dead, lease, millis).await? {
            return Ok(());
        }
        let mut sessions = 0;
        loop {
            let channels = members.channels_of(dead).await?;
            if channels.is_empty() {
                break;
            }
            for name in channels {
                let channel = ChannelName::from_scoped(&name).ok();
                if channel.is_none() {
                    warn!(name, "a channel in Redis has no name of ours");
                }
                let mut may_be_more = channel.is_some();
                while let Some(channel) = &channel
                    && may_be_more
                {
                    if self.is_due() {
                        let (lives, _) = self.hold(lease, false).await?;
                        // The claim goes to another, should this node die over it.
                        if !lives || !members.claim(dead, lease, millis).await? {
                            return Ok(());
                        }
                    }
                    let gone;
                    (gone, may_be_more) = members.reap(dead, channel).await?;
                    sessions += gone.len();
                    let news = gone.into_iter().map(|Reaped { member, occupancy }| {
                        left_news(channel.clone(), member, occupancy, true)
                    });
                    shared.tell(news.collect()).await;
                }
                members.reaped(dead, &name).await?;
            }
        }
        members.bury(dead).await?;
        info!(lease = dead, sessions, "a node is gone, and its sessions have left");
        Ok(())
    }
}

fn left_news(channel: ChannelName, member: Member, occupancy: u32, here_too: bool) -> News {
    let leave = Leave { channel: channel.clone(), member, occupancy };
    News { channel, occupancy, frame: ServerFrame::Leave(leave), here_too }
}
