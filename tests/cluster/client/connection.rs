//! One connection of a client: frames out when they are due, frames in as they come.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use xpush::client::Visit;
use xpush_protocol::{ClientFrame, CloseCode, Codec, ServerFrame, TransportKind};
use xpush_transports::{Connection, Farewell, Lane, Outgoing, Reader, Writer};

use super::{
    DIAL_DEADLINE, Doors, Phase,
    life::{Life, Turn},
};

/// A client that has nothing to say asks a silent server three times before it gives it up.
const QUESTIONS: u32 = 3;
/// What is sent beside a hanging poll goes one request after the other, and each waits for its answer.
const DEAD_AFTER_POLLS: Duration = Duration::from_secs(4);
/// Until a client is live it has nothing to lose, and the node much to do.
const DEAD_AT_DOOR: Duration = Duration::from_secs(6);
/// Batches that wait for the wire.
const WRITES_CAPACITY: usize = 8;
/// Before what found no place there is tried again.
const WRITE_PAUSE: Duration = Duration::from_millis(20);

/// How a connection ended.
pub(crate) enum Ended {
    /// The run is over.
    Done,
    /// The node asked its clients to go; this is how it goes on, if it was to be had.
    Drained(Option<Driving>),
    Lost {
        was_live: bool,
    },
}

/// A connection that begins when it is polled.
pub(crate) type Driving = BoxFuture<'static, Ended>;

/// Takes a dialled connection of whatever wire, and goes on with the client's life.
pub(super) struct Start<D> {
    pub(super) life: Arc<Mutex<Life<D>>>,
    pub(super) phase: watch::Receiver<Phase>,
    /// Where to go when this node asks to.
    pub(super) elsewhere: usize,
}

impl<D: Doors> Visit for Start<D> {
    type Output = Driving;

    fn visit(self, connection: impl Connection) -> Self::Output {
        Box::pin(async move {
            let next = Self {
                life: Arc::clone(&self.life),
                phase: self.phase.clone(),
                elsewhere: self.elsewhere + 1,
            };
            let mut life = self.life.lock().await;
            let ended = drive(&mut life, self.phase, connection, self.elsewhere, next).await;
            life.interrupt(matches!(ended, Ended::Drained(_)));
            ended
        })
    }
}

async fn drive<D: Doors>(
    life: &mut Life<D>,
    mut phase: watch::Receiver<Phase>,
    connection: impl Connection,
    elsewhere: usize,
    next: Start<D>,
) -> Ended {
    let (peer, mut reader, mut writer) = connection.split();
    let codec = peer.codec.unwrap_or(Codec::Json);
    let ordered = !matches!(peer.kind, TransportKind::Quic | TransportKind::WebTransport);
    let dead_after = life.stage.dead_after;
    let dead_after =
        if peer.kind == TransportKind::LongPoll { dead_after.max(DEAD_AFTER_POLLS) } else { dead_after };
    let ask_after = dead_after / QUESTIONS;
    let outgoing = |frame: &ClientFrame| Outgoing { bytes: codec.encode(frame), lane: Lane::Control };
    // Beside the reading: a wire that takes nothing must not keep what comes from being taken.
    let (writes, mut to_write) = mpsc::channel::<Vec<Outgoing>>(WRITES_CAPACITY);
    let mut writing = pin!(async move {
        while let Some(mut batch) = to_write.recv().await {
            if writer.write(&mut batch).await.is_err() {
                return;
            }
        }
        writer.close(Farewell::new(CloseCode::Normal, "the run is over")).await;
    });
    let mut batch = vec![outgoing(&life.connect(ordered))];
    let mut was_live = false;
    let (mut asked, mut leave_at) = (false, None::<Instant>);
    let stage = Arc::clone(&life.stage);
    let (via, codec_wanted) = life.wire();
    // Polled once the client is to leave: until there is a new connection, the old one serves.
    let mut moving = pin!(timeout(DIAL_DEADLINE, async move {
        let nodes = stage.doors.count();
        stage.doors.dial(elsewhere % nodes, via, codec_wanted, next).await
    }));
    loop {
        let now = *phase.borrow_and_update();
        if now == Phase::End {
            drop(writes);
            // A wire that takes nothing needs no goodbye.
            let _ = timeout(dead_after, writing).await;
            return Ended::Done;
        }
        let is_leaving = leave_at.is_some_and(|at| at <= Instant::now());
        was_live |= life.is_live();
        let dead_after = if was_live { dead_after } else { DEAD_AT_DOOR };
        batch.extend(life.due(now).iter().map(outgoing));
        let silence = life.last_heard.elapsed();
        if silence >= dead_after {
            return Ended::Lost { was_live };
        }
        if silence >= ask_after && !asked {
            asked = true;
            batch.push(outgoing(&Life::<D>::ping()));
        }
        if !batch.is_empty()
            && let Ok(place) = writes.try_reserve()
        {
            place.send(std::mem::take(&mut batch));
        }
        let silent_at = life.last_heard + if asked { dead_after } else { ask_after };
        let mut due = life.next_due().min(silent_at);
        if let Some(at) = leave_at.filter(|_| !is_leaving) {
            due = due.min(at);
        }
        if !batch.is_empty() {
            due = due.min(Instant::now() + WRITE_PAUSE);
        }
        tokio::select! {
            frame = reader.read() => {
                let frame = frame.map(|bytes| codec.decode::<ServerFrame>(&bytes));
                let Ok(Ok(frame)) = frame else { return Ended::Lost { was_live } };
                life.last_heard = Instant::now();
                asked = false;
                match life.take(frame) {
                    Turn::On => {}
                    Turn::Leave(after) => leave_at = Some(Instant::now() + after),
                    Turn::GiveUp => return Ended::Lost { was_live },
                }
            }
            dialled = &mut moving, if is_leaving => {
                return Ended::Drained(dialled.ok().and_then(Result::ok));
            }
            () = &mut writing => return Ended::Lost { was_live },
            () = sleep_until(due) => {}
            changed = phase.changed() => if changed.is_err() {
                return Ended::Done;
            },
        }
    }
}
