//! What nobody waits for, and somebody has to look after: holes in a channel, sessions that did not return, counts of
//! big channels, channels of a log that forgets.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use xpush_protocol::{Occupancy, ServerFrame};

use super::Node;
use crate::{log::HOLD, namespace::Retention};

/// How often holes, departures and big channels' counts are looked at.
const TEND_INTERVAL: Duration = Duration::from_millis(250);
/// How long a publication may be under way before the log is read for it.
const HOLE_PATIENCE: Duration = Duration::from_millis(200);
impl Node {
    /// Looks after what nobody waits for: holes, sessions that did not return, counts of big channels.
    pub async fn tend(self: Arc<Self>, cancel: CancellationToken) {
        let mut ticks = interval(TEND_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut counted, mut held) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = cancel.cancelled() => return,
            }
            for departed in self.sessions.take_departed(Instant::now()) {
                self.depart(departed).await;
            }
            let tell_counts = counted.elapsed() >= Duration::from_secs(1);
            let hold = held.elapsed() >= HOLD / 4;
            for channel in self.channels.all() {
                if let Err(error) = channel.repair(HOLE_PATIENCE).await {
                    warn!(channel = %channel.name(), %error, "a hole can't be read from the log yet");
                }
                if hold && !matches!(channel.policy().retention, Retention::Durable { .. }) {
                    // What can go wrong here goes wrong for the next publisher too, who is told.
                    let _ = channel.log().hold(channel.name()).await;
                }
                if tell_counts && let Some(occupancy) = channel.take_occupancy() {
                    let channel_name = channel.name().clone();
                    channel.tell_presence(&ServerFrame::Occupancy(Occupancy {
                        channel: channel_name,
                        occupancy,
                    }));
                }
            }
            if tell_counts {
                counted = Instant::now();
            }
            if hold {
                held = Instant::now();
            }
        }
    }
}
