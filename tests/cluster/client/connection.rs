//! One connection of a client: frames out when they are due, frames in as they come.

use std::{future::pending, pin::pin, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use xpush::client::{Via, Visit};
use xpush_protocol::{ClientFrame, CloseCode, Codec, ErrorCode, ServerFrame, TransportKind};
use xpush_transports::{Connection, Farewell, Lane, Outgoing, Peer, Reader, Writer};

use super::{
    DIAL_DEADLINE, Doors, Phase, Stage,
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
/// Before a node that leaves is left for another one, when the first could not be had.
const MOVE_PAUSE: Duration = Duration::from_millis(200);

/// Frames that overtook `connected` on a wire of several streams.
const EARLY_CAPACITY: usize = 4096;

/// How a connection ended.
pub(crate) enum Ended {
    /// The run is over.
    Done,
    /// The node asked its clients to go; this is how it goes on.
    Drained(Driving),
    Lost {
        was_live: bool,
    },
}

/// A connection that said hello and was let in; it goes on with the client's life when it is polled.
pub(crate) type Driving = BoxFuture<'static, Ended>;

/// Says hello, and waits for the answer. The error is the node's, if it had one.
pub(crate) type Greet =
    Box<dyn FnOnce(ClientFrame) -> BoxFuture<'static, Result<Driving, Option<ErrorCode>>> + Send>;

/// Takes a dialled connection of whatever wire.
pub(super) struct Start<D> {
    pub(super) life: Arc<Mutex<Life<D>>>,
    pub(super) phase: watch::Receiver<Phase>,
    /// Where it leads.
    pub(super) node: usize,
}

impl<D: Doors> Visit for Start<D> {
    type Output = Greet;

    fn visit(self, connection: impl Connection) -> Greet {
        Box::new(move |hello| {
            Box::pin(async move {
                let greeted = timeout(DEAD_AT_DOOR, greet(connection, &hello)).await;
                let greeted = greeted.map_err(|_| None).flatten()?;
                let driving: Driving = Box::pin(async move {
                    let life = Arc::clone(&self.life);
                    let mut life = life.lock().await;
                    let ended = drive(&mut life, greeted, &self).await;
                    life.interrupt(matches!(ended, Ended::Drained(_)));
                    ended
                });
                Ok(driving)
            })
        })
    }
}

/// A connection whose session is live.
struct Greeted<R, W> {
    peer: Peer,
    reader: R,
    writer: W,
    /// `connected`, and what came before it.
    heard: Vec<ServerFrame>,
}

async fn greet(
    connection: impl Connection,
    hello: &ClientFrame,
) -> Result<Greeted<impl Reader, impl Writer>, Option<ErrorCode>> {
    let (peer, mut reader, mut writer) = connection.split();
    let codec = peer.codec.unwrap_or(Codec::Json);
    let mut batch = vec![Outgoing { bytes: codec.encode(hello), lane: Lane::Control }];
    writer.write(&mut batch).await.map_err(|_| None)?;
    let mut heard = Vec::new();
    while heard.len() < EARLY_CAPACITY {
        let frame = reader.read().await.map_err(|_| None)?;
        let frame = codec.decode::<ServerFrame>(&frame).map_err(|_| None)?;
        if let ServerFrame::Error(error) = &frame
            && error.channel.is_none()
        {
            return Err(Some(error.code));
        }
        let is_in = matches!(frame, ServerFrame::Connected(_));
        heard.push(frame);
        if is_in {
            return Ok(Greeted { peer, reader, writer, heard });
        }
    }
    Err(None)
}

/// A second connection, beside one that serves on.
enum Move {
    Dialling(BoxFuture<'static, Option<Greet>>),
    Greeting(BoxFuture<'static, Result<Driving, Option<ErrorCode>>>),
}

impl Move {
    fn to<D: Doors>(life: &Life<D>, start: Start<D>) -> Self {
        let stage = Arc::clone(&life.stage);
        let (via, codec) = life.wire();
        Self::Dialling(Box::pin(dial(stage, via, codec, start)))
    }
}

/// The start of a connection, if the node can be reached.
pub(super) async fn dial<D: Doors>(
    stage: Arc<Stage<D>>,
    via: Via,
    codec: Codec,
    start: Start<D>,
) -> Option<Greet> {
    let node = start.node;
    timeout(DIAL_DEADLINE, stage.doors.dial(node, via, codec, start)).await.ok()?.ok()
}

async fn drive<D: Doors>(
    life: &mut Life<D>,
    greeted: Greeted<impl Reader, impl Writer>,
    start: &Start<D>,
) -> Ended {
    let Greeted { peer, mut reader, mut writer, heard } = greeted;
    let mut phase = start.phase.clone();
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
    let mut batch = Vec::new();
    let mut was_live = false;
    let (mut asked, mut leave_at) = (false, None::<Instant>);
    let mut moving = None::<Move>;
    life.adopt(start.node, ordered);
    let adopted_at = Instant::now();
    for frame in heard {
        match life.take(frame) {
            Turn::On => {}
            Turn::Leave(after) => leave_at = Some(Instant::now() + after),
            Turn::GiveUp => return Ended::Lost { was_live },
        }
    }
    loop {
        let now = *phase.borrow_and_update();
        // Nobody moves any more while it is waited for that everybody has everything; who is just moving when the run ends
        // comes in first, or it would look as if it had been left outside.
        let may_move = matches!(now, Phase::Gather | Phase::Publish);
        if now == Phase::End && (life.is_live() || adopted_at.elapsed() >= DEAD_AT_DOOR) {
            drop(writes);
            // A wire that takes nothing needs no goodbye.
            let _ = timeout(dead_after, writing).await;
            return Ended::Done;
        }
        if leave_at.is_some_and(|at| at <= Instant::now()) && may_move {
            leave_at = None;
            let node = life.another_node();
            let start = Start { life: Arc::clone(&start.life), phase: phase.clone(), node };
            moving = Some(Move::to(life, start));
        }
        was_live |= life.is_live();
        let dead_after = if was_live { dead_after } else { DEAD_AT_DOOR };
        batch.extend(life.due(now).iter().map(outgoing));
        let silence = life.last_heard.elapsed();
        if silence >= dead_after {
            return lost(life, moving, was_live).await;
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
        if let Some(at) = leave_at.filter(|_| may_move) {
            due = due.min(at);
        }
        if !batch.is_empty() {
            due = due.min(Instant::now() + WRITE_PAUSE);
        }
        tokio::select! {
            frame = reader.read() => {
                let frame = frame.map(|bytes| codec.decode::<ServerFrame>(&bytes));
                let Ok(Ok(frame)) = frame else { return lost(life, moving, was_live).await };
                life.last_heard = Instant::now();
                asked = false;
                match life.take(frame) {
                    Turn::On => {}
                    Turn::Leave(after) => leave_at = Some(Instant::now() + after),
                    Turn::GiveUp => return lost(life, moving, was_live).await,
                }
            }
            moved = on(&mut moving) => match moved {
                Moved::Dialled(greet) => moving = Some(Move::Greeting(greet(life.hello()))),
                Moved::Live(driving) => return Ended::Drained(driving),
                Moved::Not(why) => {
                    life.not_adopted(why);
                    moving = None;
                    leave_at = Some(Instant::now() + MOVE_PAUSE);
                }
            },
            () = &mut writing => return lost(life, moving, was_live).await,
            () = sleep_until(due) => {}
            changed = phase.changed() => if changed.is_err() {
                return Ended::Done;
            },
        }
    }
}

/// How far a move came.
enum Moved {
    Dialled(Greet),
    Live(Driving),
    Not(Option<ErrorCode>),
}

async fn on(moving: &mut Option<Move>) -> Moved {
    match moving {
        Some(Move::Dialling(dialling)) => dialling.await.map_or(Moved::Not(None), Moved::Dialled),
        Some(Move::Greeting(greeting)) => greeting.await.map_or_else(Moved::Not, Moved::Live),
        None => pending().await,
    }
}

/// Nothing comes of this connection; if the next one is about to be let in, that may well be why.
async fn lost<D: Doors>(life: &mut Life<D>, mut moving: Option<Move>, was_live: bool) -> Ended {
    if let Some(Move::Greeting(_)) = moving {
        match on(&mut moving).await {
            Moved::Live(driving) => return Ended::Drained(driving),
            Moved::Not(why) => life.not_adopted(why),
            Moved::Dialled(_) => {}
        }
    }
    Ended::Lost { was_live }
}
