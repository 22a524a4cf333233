//! What waits in the outbox goes to the wire, as many frames a write as there are; and who fell behind is read from
//! the log, a page at a time, between the writes, as fast as the client takes it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::consume_budget;
use tracing::{debug, warn};
use xpush_protocol::{AppId, ChannelName, Cursor, Gap, Lag, ServerFrame, SessionId, UserId};
use xpush_transports::{Farewell, Lane, Outgoing, Writer};

use super::{Outbox, Session, now, outbox::Behind, subscription::missed};
use crate::{
    auth::SessionState,
    log::{From, Query},
    node::Node,
};

/// A page of the log for one that is behind: what may wait in memory for a client that does not read.
const CATCH_UP_PAGE: Query = Query { from: From::After(0), limit: 256, bytes: 32 * 1024 };

/// Writes until the wire breaks, or until the outbox is closed and all was said: but the goodbye, which it gives.
pub(super) fn write_all<'a>(
    node: &'a Node,
    outbox: &'a Arc<Outbox>,
    checkpoints: Option<Box<Checkpoints>>,
    writer: &'a mut impl Writer,
) -> impl Future<Output = Option<Farewell>> + Send + 'a {
    let mut batch = Vec::new();
    async move {
        loop {
            let mut taken = outbox.take(&mut batch, checkpoints.is_some()).await;
            if let Some(behind) = taken.behind {
                // Boxed: most of an idle connection's life its state would be room for nothing.
                let read = Box::pin(catch_up(node, outbox, behind, &mut batch)).await;
                // The state speaks of what is in the batch: of this channel, that is more than was queued.
                for position in taken.positions.iter_mut().filter(|(name, _)| *name == read.0) {
                    position.1 = Some(read.1);
                }
            }
            node.metrics.delivered(taken.delivered);
            if taken.farewell.is_some() {
                return taken.farewell;
            }
            if batch.is_empty() && !taken.unwritten {
                continue;
            }
            if let Some(checkpoints) = &checkpoints {
                batch.push(checkpoints.at(node, taken.positions));
            }
            if let Err(closed) = writer.write(&mut batch).await {
                debug!(%closed, "the wire broke while it was written to");
                return None;
            }
            // A wire may take all at once, and there may always be more.
            consume_budget().await;
        }
    }
}

/// Reads one page from the log for a subscription that is behind. Gives where it then stands.
async fn catch_up(
    node: &Node,
    outbox: &Outbox,
    behind: Behind,
    batch: &mut Vec<Outgoing>,
) -> (ChannelName, Cursor) {
    let Behind { key, channel, mut cursor, tell } = behind;
    let name = channel.name();
    let query = Query { from: From::After(cursor.offset), ..CATCH_UP_PAGE };
    let page = match channel.read_behind(cursor, query).await {
        Ok(page) => page,
        Err(error) => {
            warn!(channel = %name, %error, "a subscription that is behind can't be read from the log, and ends");
            outbox.fail(key);
            return (name.clone(), cursor);
        }
    };
    let extent = page.extent;
    if tell {
        node.metrics.lagged();
        let lag = Lag { channel: name.clone(), behind: extent.top.saturating_sub(cursor.offset) };
        push(outbox, batch, Lane::Control, &ServerFrame::Lag(lag));
    }
    let before = batch.len();
    let same_epoch = cursor.epoch == extent.epoch;
    let mut publications = page.publications;
    if let Some(gap) = gap(name, cursor, extent) {
        node.metrics.gap();
        cursor = Cursor { epoch: gap.epoch, offset: gap.to };
        push(outbox, batch, Lane::Backfill, &ServerFrame::Gap(gap));
        if !same_epoch {
            // The page was asked for in the numbers of another epoch; the next one begins where this one does.
            publications.clear();
        }
    }
    let nothing = publications.is_empty() && batch.len() == before;
    let told = channel.told_epoch(extent.epoch);
    for publication in &publications {
        cursor.offset = publication.offset;
        push(outbox, batch, Lane::Backfill, &ServerFrame::Publication(publication.to_frame(name, told)));
    }
    outbox.advance(key, cursor, publications.len() as u64);
    if channel.try_go_live(outbox, key, cursor) {
        if outbox.take_lag_told(key) {
            push(outbox, batch, Lane::Control, &ServerFrame::Lag(Lag { channel: name.clone(), behind: 0 }));
        }
    } else if !outbox.take_frames(key, cursor) {
        outbox.still_behind(key, nothing);
    }
    (name.clone(), cursor)
}

/// What a subscription at this cursor can't have any more.
fn gap(name: &ChannelName, cursor: Cursor, extent: crate::log::Extent) -> Option<Gap> {
    // A cursor beyond the top is one of a publication that the log is about to show: nothing is missing.
    missed(name, cursor, extent).unwrap_or(None)
}

fn push(outbox: &Outbox, batch: &mut Vec<Outgoing>, lane: Lane, frame: &ServerFrame) {
    batch.push(Outgoing { bytes: outbox.codec().encode(frame), lane });
}

/// Makes the state that goes to a client whose wire has no lasting connection: all that any node needs to go on.
pub(super) struct Checkpoints {
    session: SessionId,
    app: AppId,
    user: Option<UserId>,
    token: Arc<Mutex<Option<String>>>,
    generation: u64,
}

impl Checkpoints {
    /// `None`: the wire does not want them.
    pub(super) fn new(session: &Session) -> Option<Self> {
        Some(Self {
            token: Arc::clone(session.token.as_ref()?),
            session: session.id.clone(),
            app: session.app().clone(),
            user: session.user().cloned(),
            generation: session.generation,
        })
    }

    fn at(&self, node: &Node, vector: Vec<(ChannelName, Option<Cursor>)>) -> Outgoing {
        let Self { session, app, user, token, generation } = self;
        let token = token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = SessionState {
            session: session.clone(),
            user: user.clone(),
            token,
            vector,
            issued: now() / 1000,
            generation: *generation,
            app: app.clone(),
        };
        Outgoing { bytes: node.seal_state(&state).into(), lane: Lane::Checkpoint }
    }
}
