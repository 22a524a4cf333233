//! This node's own record, for as long as one session lives.

use std::{convert::Infallible, future::pending, mem, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, info, warn};
use zookeeper_client::{Client, CreateMode, Error, OneshotWatcher};

use super::{Known, notice::Notice, roster::read_record, session::RETRY_PAUSE};
use crate::membership::{NodeInfo, Status};

/// A new count of sessions is written this often at most: every write is read by every node.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// A record of this node's name that outlives so many time-outs of a session belongs to somebody who lives: an
/// earlier run that ended would be gone.
const PATIENCE_TIMEOUTS: u32 = 2;
/// While two nodes have one name, it is said this often.
const REMIND_INTERVAL: Duration = Duration::from_secs(60);

/// Keeps this node registered.
pub(super) struct Registration<'a> {
    known: &'a Known,
    client: &'a Client,
    path: String,
    status: watch::Receiver<Status>,
    /// What the others read now, and since when. `None`: it has to be written.
    written: Option<(Status, Instant)>,
}

impl<'a> Registration<'a> {
    pub(super) fn new(known: &'a Known, client: &'a Client) -> Self {
        let path = known.place.node(&known.id);
        Self { known, client, path, status: known.status.subscribe(), written: None }
    }

    pub(super) async fn keep(mut self) -> Infallible {
        let mut notice = Notice::default();
        loop {
            let Err(error) = self.hold().await;
            notice.wrong(format!("this node can't be registered as {}: {error}", self.path));
            self.written = None;
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn hold(&mut self) -> Result<Infallible, Error> {
        loop {
            self.claim().await?;
            info!(node = %self.known.id, "registered in ZooKeeper");
            self.tell().await?;
            warn!(node = %self.known.id, "this node's record in ZooKeeper was removed; it is written again");
        }
    }

    /// Returns when the record is this session's.
    async fn claim(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let mut is_said = false;
        let mut warn_at = began + self.client.session_timeout() * PATIENCE_TIMEOUTS;
        loop {
            let me = self.known.me();
            match self
                .client
                .create(&self.path, &record(&me), &self.known.place.create(CreateMode::Ephemeral))
                .await
            {
                Ok(_) => {
                    self.written = Some((me.status, Instant::now()));
                    return Ok(());
                }
                Err(Error::NoNode) => {
                    let directory = self.known.place.create(CreateMode::Persistent);
                    self.client.mkdir(&self.known.place.nodes(), &directory).await?;
                    continue;
                }
                Err(Error::NodeExists) => {}
                Err(error) => return Err(error),
            }
            let (data, stat, watcher) = match self.client.get_and_watch_data(&self.path).await {
                Ok(read) => read,
                Err(Error::NoNode) => continue,
                Err(error) => return Err(error),
            };
            if stat.ephemeral_owner == self.client.session_id().0 {
                // It was written, and only the answer was lost.
                self.written = None;
                return Ok(());
            }
            let other = read_record(&self.known.id, &data).ok();
            if other.as_ref().is_some_and(|other| other.instance == me.instance) {
                // Of a session that this process had before, and that the servers have not given up yet.
                match self.client.delete(&self.path, Some(stat.version)).await {
                    Ok(()) | Err(Error::NoNode | Error::BadVersion) => continue,
                    Err(error) => return Err(error),
                }
            }
            if !mem::replace(&mut is_said, true) {
                info!(node = %self.known.id, "an earlier run of this node is still registered; waiting for its end");
            }
            self.wait_for(watcher, other.as_ref(), began, &mut warn_at).await;
        }
    }

    /// Waits until somebody else's record may be gone.
    async fn wait_for(
        &self,
        watcher: OneshotWatcher,
        other: Option<&NodeInfo>,
        began: Instant,
        warn_at: &mut Instant,
    ) {
        let changed = watcher.changed();
        tokio::pin!(changed);
        loop {
            tokio::select! {
                _ = &mut changed => return,
                () = sleep_until(*warn_at) => {}
            }
            let url = other.map_or("not known", |other| &other.url);
            warn!(
                node = %self.known.id, other = url, seconds = began.elapsed().as_secs(),
                "another process is registered under this node's name and lives. Two nodes must not have one name: \
                 give one of them another, or end the other one if it should be gone. Until then this node serves, \
                 but the others don't know it"
            );
            *warn_at = Instant::now() + REMIND_INTERVAL;
        }
    }

    /// Writes how this node is, until its record is no longer there.
    async fn tell(&mut self) -> Result<(), Error> {
        loop {
            let (stat, watcher) = self.client.check_and_watch_stat(&self.path).await?;
            if stat.is_none_or(|stat| stat.ephemeral_owner != self.client.session_id().0) {
                return Ok(());
            }
            let touched = watcher.changed();
            tokio::pin!(touched);
            loop {
                tokio::select! {
                    // Most likely by ourselves.
                    _ = &mut touched => break,
                    () = self.due() => {}
                }
                let me = self.known.me();
                match self.client.set_data(&self.path, &record(&me), None).await {
                    Ok(_) => self.written = Some((me.status, Instant::now())),
                    Err(Error::NoNode) => return Ok(()),
                    Err(error) => return Err(error),
                }
                debug!(sessions = me.status.sessions, draining = me.status.draining, "told the others");
            }
        }
    }

    /// Waits until the record has to be written: at once when this node begins or ceases to leave. Cancel safe.
    async fn due(&mut self) {
        loop {
            let wanted = *self.status.borrow_and_update();
            let Some((written, at)) = self.written else { return };
            if written.draining != wanted.draining {
                return;
            }
            let changed = async {
                if self.status.changed().await.is_err() {
                    pending::<()>().await;
                }
            };
            if written == wanted {
                changed.await;
            } else {
                tokio::select! {
                    () = changed => {}
                    () = sleep_until(at + STATUS_INTERVAL) => return,
                }
            }
        }
    }
}

fn record(node: &NodeInfo) -> Vec<u8> {
    serde_json::to_vec(node).expect("a node's record has string keys only")
}
