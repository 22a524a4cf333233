//! One connection of a client: frames out when they are due, frames in as they come.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep_until, timeout},
};
use xpush::client::Visit;
use xpush_protocol::{ClientFrame, CloseCode, Codec, ServerFrame, TransportKind};
use xpush_transports::{Connection, Farewell, Lane, Outgoing, Reader, Writer};

use super::{
    Doors, Phase,
    life::{Life, Turn},
};

/// A server that says nothing for so long is asked whether it is there,
const ASK_AFTER: Duration = Duration::from_millis(400);
/// and is given up after so long: wires without a connection to break tell nothing of a node that was killed.
const DEAD_AFTER: Duration = Duration::from_millis(1200);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The run is over.
    Done,
    /// The node asked its clients to go.
    Drained,
    Lost {
        was_live: bool,
    },
}

/// Takes a dialled connection of whatever wire, and goes on with the client's life.
pub(super) struct Start<D> {
    pub(super) life: Arc<Mutex<Life<D>>>,
    pub(super) phase: watch::Receiver<Phase>,
}

impl<D: Doors> Visit for Start<D> {
    type Output = BoxFuture<'static, Ended>;

    fn visit(self, connection: impl Connection) -> Self::Output {
        Box::pin(async move {
            let mut life = self.life.lock().await;
            let ended = drive(&mut life, self.phase, connection).await;
            life.interrupt(ended == Ended::Drained);
            ended
        })
    }
}

async fn drive<D: Doors>(
    life: &mut Life<D>,
    mut phase: watch::Receiver<Phase>,
    connection: impl Connection,
) -> Ended {
    let (peer, mut reader, mut writer) = connection.split();
    let codec = peer.codec.unwrap_or(Codec::Json);
    let ordered = !matches!(peer.kind, TransportKind::Quic | TransportKind::WebTransport);
    let outgoing = |frame: &ClientFrame| Outgoing { bytes: codec.encode(frame), lane: Lane::Control };
    let mut batch = vec![outgoing(&life.connect(ordered))];
    let mut was_live = false;
    let (mut asked, mut leave_at) = (false, None::<Instant>);
    loop {
        let now = *phase.borrow_and_update();
        if now == Phase::End {
            writer.close(Farewell::new(CloseCode::Normal, "the run is over")).await;
            return Ended::Done;
        }
        if leave_at.is_some_and(|at| at <= Instant::now()) {
            // The next connection begins before this one's goodbye would be heard.
            return Ended::Drained;
        }
        was_live |= life.is_live();
        batch.extend(life.due(now).iter().map(outgoing));
        let silence = life.last_heard.elapsed();
        if silence >= DEAD_AFTER {
            return Ended::Lost { was_live };
        }
        if silence >= ASK_AFTER && !asked {
            asked = true;
            batch.push(outgoing(&Life::<D>::ping()));
        }
        if !batch.is_empty() {
            // A node that is stopped takes nothing, and breaks nothing.
            let written = timeout(DEAD_AFTER, writer.write(&mut batch)).await;
            if !matches!(written, Ok(Ok(()))) {
                return Ended::Lost { was_live };
            }
        }
        let silent_at = life.last_heard + if asked { DEAD_AFTER } else { ASK_AFTER };
        let due = life.next_due().min(silent_at).min(leave_at.unwrap_or(silent_at));
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
            () = sleep_until(due) => {}
            changed = phase.changed() => if changed.is_err() {
                return Ended::Done;
            },
        }
    }
}
