//! The one task: a session with ZooKeeper, and another one after it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use zookeeper_client::{Client, Error, SessionState, StateWatcher};

use super::{Known, notice::Notice, registration::Registration, roster::Roster};
use crate::membership::MembershipError;

/// The pause before servers that don't answer are tried again: up to this, doubled at each failure.
const BACK_OFF_FIRST: Duration = Duration::from_millis(200);
const BACK_OFF_LIMIT: Duration = Duration::from_secs(5);
/// The pause before what failed within a session is tried again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// For taking this node off the list: its session's end does it as well, only later.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// Registers this node and follows the others until it is stopped.
pub(super) async fn keep(known: Arc<Known>, stop: CancellationToken) {
    let mut notice = Notice::default();
    let mut limit = BACK_OFF_FIRST;
    loop {
        let connected = tokio::select! {
            () = stop.cancelled() => return,
            connected = known.place.connect() => connected,
        };
        match connected {
            Ok(client) => {
                notice.right("ZooKeeper answers again");
                limit = BACK_OFF_FIRST;
                known.lost.send_replace(None);
                tokio::select! {
                    () = stop.cancelled() => return leave(&known, &client).await,
                    state = serve(&known, &client) => {
                        known.note_lost(format!("the session ended ({state}); a new one follows"));
                        notice.wrong(format!(
                            "the ZooKeeper session ended ({state}): this node is off the others' list until it \
                             has a new one"
                        ));
                    }
                }
            }
            Err(error) => {
                known.note_lost(format!("{error}"));
                // Not the reason: it differs from try to try.
                debug!(%error, "ZooKeeper was tried");
                notice.wrong(format!(
                    "ZooKeeper at {} does not answer: this node serves on with the nodes that it knows, and tries \
                     again",
                    known.place
                ));
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(jitter(limit)) => limit = (limit * 2).min(BACK_OFF_LIMIT),
                }
            }
        }
    }
}

/// Everything that one session does, until it ends.
async fn serve(known: &Known, client: &Client) -> SessionState {
    let registration = Box::pin(Registration::new(known, client).keep());
    let roster = Box::pin(Roster::new(known, client).keep());
    let config = Box::pin(follow_config(known, client));
    let never = tokio::select! {
        state = watch_link(known, client) => return state,
        never = registration => never,
        never = roster => never,
        never = config => never,
    };
    match never {}
}

/// Notes whether the session is connected, until it ends.
async fn watch_link(known: &Known, client: &Client) -> SessionState {
    let mut notice = Notice::default();
    let mut states = client.state_watcher();
    let mut state = client.state();
    while !state.is_terminated() {
        if state == SessionState::SyncConnected {
            known.lost.send_replace(None);
            notice.right("ZooKeeper answers again");
        } else {
            known.note_lost("the connection is lost; another server is tried".into());
            notice.wrong(
                "the connection to ZooKeeper is lost: this node serves on with the nodes it knows".into(),
            );
        }
        state = states.changed().await;
    }
    state
}

/// The next time that the session is connected again.
pub(super) async fn reconnected(states: &mut StateWatcher) {
    while states.changed().await != SessionState::SyncConnected {}
}

async fn follow_config(known: &Known, client: &Client) -> Infallible {
    let mut notice = Notice::default();
    loop {
        if let Err(error) = read_config(known, client, &mut notice).await {
            notice.wrong(format!("{} can't be read: {error}", known.place.config()));
            sleep(RETRY_PAUSE).await;
        }
    }
}

/// Reads it, and waits until it has to be read again.
async fn read_config(known: &Known, client: &Client, notice: &mut Notice) -> Result<(), Error> {
    let path = known.place.config();
    let mut states = client.state_watcher();
    let (text, watcher) = match client.get_and_watch_data(&path).await {
        Ok((data, _, watcher)) => match String::from_utf8(data) {
            Ok(text) => (Some(text), watcher),
            Err(error) => {
                notice.wrong(format!("{path} is no UTF-8 ({error}): what it was before stands"));
                (known.config.borrow().clone(), watcher)
            }
        },
        Err(Error::NoNode) => match client.check_and_watch_stat(&path).await? {
            (None, watcher) => (None, watcher),
            // It was made in between.
            (Some(_), _) => return Ok(()),
        },
        Err(error) => return Err(error),
    };
    known.config.send_if_modified(|config| {
        let changed = *config != text;
        *config = text;
        changed
    });
    tokio::select! {
        _ = watcher.changed() => {}
        () = reconnected(&mut states) => {}
    }
    Ok(())
}

/// Takes this node off the list, where that can be done at once.
async fn leave(known: &Known, client: &Client) {
    if client.state() != SessionState::SyncConnected {
        return;
    }
    let path = known.place.node(&known.id);
    let left = timeout(LEAVE_LIMIT, async {
        match client.check_stat(&path).await? {
            // Another's record is not ours to remove.
            Some(stat) if stat.ephemeral_owner == client.session_id().0 => {
                client.delete(&path, Some(stat.version)).await
            }
            _ => Ok(()),
        }
    });
    match left.await {
        Ok(Ok(())) => debug!("off the list of nodes"),
        Ok(Err(_)) | Err(_) => info!("this node stays on the list of nodes until its ZooKeeper session ends"),
    }
}

/// Anything from half of it to all of it, so that nodes that lost ZooKeeper together don't come back together.
fn jitter(limit: Duration) -> Duration {
    // Without randomness from the system it is all of it.
    let part = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
    limit.mul_f64(0.5 + part / 2.0)
}

impl Known {
    fn note_lost(&self, reason: String) {
        let reason = format!("ZooKeeper at {}: {reason}", self.place);
        self.lost.send_replace(Some(MembershipError { reason }));
    }
}
