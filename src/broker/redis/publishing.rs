//! What goes out. A top that could not be announced is owed: it is announced once Redis is back, as nobody else knows
//! of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use xpush_protocol::{ChannelName, Cursor};

use crate::{
    broker::Carried,
    redis::{Envelope, Link, LinkError, Script},
};

/// Publishes under way; one more waits for them. Some times what one connection needs to be busy.
const UNDER_WAY: usize = 1024;
/// How long a publish takes at most, whatever happens.
const DEADLINE: Duration = Duration::from_secs(2);
/// A top that nobody announced again for so long is forgotten: the log knows it.
const TOP_TTL: Duration = Duration::from_secs(600);
/// Channels whose tops could not be announced. Of more than these, others learn by the next publication.
const OWED_CAPACITY: usize = 16_384;
/// Tops that are announced together once Redis is back.
const OWED_AT_ONCE: usize = 256;
/// How often it is tried.
const OWED_INTERVAL: Duration = Duration::from_millis(500);

pub(super) struct Publishing {
    link: Arc<Link>,
    instance: u64,
    under_way: Semaphore,
    with_top: Script,
    owed: Mutex<HashMap<ChannelName, Cursor>>,
}

impl Publishing {
    pub(super) fn new(link: Arc<Link>, instance: u64) -> Self {
        Self {
            link,
            instance,
            under_way: Semaphore::new(UNDER_WAY),
            with_top: Script::new(include_str!("publish.lua").to_owned()),
            owed: Mutex::default(),
        }
    }

    /// Gives how many connections got it, this node's own included.
    pub(super) async fn publish(&self, carried: &Carried) -> usize {
        let sent = timeout(DEADLINE, async {
            // It is never closed.
            let _permit = self.under_way.acquire().await;
            self.send(carried).await
        });
        match sent.await {
            Ok(Ok(connections)) => connections,
            failed => {
                debug!(topic = %carried.topic(), ?failed, "not published");
                if let Some((channel, cursor)) = top(carried) {
                    self.owe(channel, cursor);
                }
                0
            }
        }
    }

    async fn send(&self, carried: &Carried) -> Result<usize, LinkError> {
        let topic = self.link.keys.topic(&carried.topic());
        let sealed = Envelope::seal(self.instance, carried);
        let Some((channel, cursor)) = top(carried) else {
            let mut publish = ::redis::cmd("SPUBLISH");
            publish.arg(&topic).arg(sealed);
            return self.link.ask(&topic, publish).await;
        };
        let keys = [self.link.keys.of_channel("top", &channel), topic];
        let arguments = |call: &mut ::redis::Cmd, _: &str| {
            let ttl = TOP_TTL.as_millis() as u64;
            call.arg(cursor.epoch.0).arg(cursor.offset).arg(ttl).arg(&sealed);
        };
        self.link.run(&self.with_top, &keys, arguments).await
    }

    fn owe(&self, channel: ChannelName, cursor: Cursor) {
        let mut owed = self.owed();
        if let Some(known) = owed.get_mut(&channel) {
            if known.epoch != cursor.epoch || known.offset < cursor.offset {
                *known = cursor;
            }
        } else if owed.len() < OWED_CAPACITY {
            owed.insert(channel, cursor);
        }
    }

    /// Announces what is owed once Redis is back, until it is cancelled.
    pub(super) async fn pay(&self, cancel: CancellationToken) {
        let mut changed = self.link.changed();
        loop {
            tokio::select! {
                _ = changed.changed() => {}
                () = sleep(OWED_INTERVAL) => {}
                () = cancel.cancelled() => return,
            }
            loop {
                let tops: Vec<_> = {
                    let mut owed = self.owed();
                    let channels: Vec<_> = owed.keys().take(OWED_AT_ONCE).cloned().collect();
                    channels.iter().filter_map(|channel| owed.remove_entry(channel)).collect()
                };
                let sent = join_all(tops.into_iter().map(|(channel, cursor)| async move {
                    let sent = self.send(&Carried::Top { channel: channel.clone(), cursor }).await;
                    if sent.is_err() {
                        self.owe(channel, cursor);
                    }
                    sent.is_ok()
                }));
                // Where one fails, the others of its server would too.
                let sent = sent.await;
                if sent.len() < OWED_AT_ONCE || sent.contains(&false) {
                    break;
                }
            }
        }
    }

    fn owed(&self) -> MutexGuard<'_, HashMap<ChannelName, Cursor>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far it says that the log has a channel.
fn top(carried: &Carried) -> Option<(ChannelName, Cursor)> {
    match carried {
        Carried::Publication { channel, epoch, publication } => {
            Some((channel.clone(), Cursor { epoch: *epoch, offset: publication.offset }))
        }
        Carried::Top { channel, cursor } => Some((channel.clone(), *cursor)),
        _ => None,
    }
}
