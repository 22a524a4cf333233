//! The lasting connection that the session sees.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use xpush_protocol::{Close, Codec, ServerFrame, TransportKind};

use super::{
    FRAMES_PER_REQUEST,
    exchange::{Exchange, Over},
    state::PollId,
};
use crate::{CLOSE_DEADLINE, Closed, Farewell, Lane, Outgoing, Peer, Permit};

/// One request's frames, and the `connect` that is put before them where a session is taken up again.
const QUEUE_CAPACITY: usize = 1 + FRAMES_PER_REQUEST;

/// The connections of this node. An entry lives as long as its connection's writer; admission bounds them.
#[derive(Debug, Clone, Default)]
pub(super) struct Exchanges(Arc<Mutex<HashMap<PollId, Arc<Exchange>>>>);

/// The server's end of a client that polls.
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    reader: Reader,
    writer: Writer,
}

#[derive(Debug)]
pub struct Reader {
    exchange: Arc<Exchange>,
    queue: mpsc::Receiver<Bytes>,
    idle_deadline: Duration,
    _permit: Arc<Permit>,
}

#[derive(Debug)]
pub struct Writer {
    exchange: Arc<Exchange>,
    exchanges: Exchanges,
    _permit: Arc<Permit>,
}

impl Exchanges {
    pub(super) fn get(&self, id: PollId) -> Option<Arc<Exchange>> {
        self.map().get(&id).filter(|exchange| !exchange.over()).map(Arc::clone)
    }

    /// A new connection, and where its polls go.
    pub(super) fn open(
        &self,
        id: PollId,
        address: SocketAddr,
        origin: Option<String>,
        idle_deadline: Duration,
        permit: Permit,
    ) -> (Arc<Exchange>, Connection) {
        let (sender, queue) = mpsc::channel(QUEUE_CAPACITY);
        let exchange = Arc::new(Exchange::new(id, sender));
        self.map().insert(id, Arc::clone(&exchange));
        let permit = Arc::new(permit);
        let peer = Peer {
            kind: TransportKind::LongPoll,
            address,
            codec: Some(Codec::Json),
            origin,
            wants_checkpoints: true,
        };
        let reader =
            Reader { exchange: Arc::clone(&exchange), queue, idle_deadline, _permit: Arc::clone(&permit) };
        let writer = Writer { exchange: Arc::clone(&exchange), exchanges: self.clone(), _permit: permit };
        (exchange, Connection { peer, reader, writer })
    }

    fn map(&self) -> MutexGuard<'_, HashMap<PollId, Arc<Exchange>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl crate::Connection for Connection {
    type Reader = Reader;
    type Writer = Writer;

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn split(self) -> (Peer, Reader, Writer) {
        (self.peer, self.reader, self.writer)
    }
}

impl crate::Reader for Reader {
    /// The first frame came with the connection, so there is no handshake to wait for.
    async fn read(&mut self) -> Result<Bytes, Closed> {
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    frame = self.queue.recv() => frame.ok_or_else(|| Closed::Lost("the connection has ended".into())),
                    why = self.exchange.reader_ended() => Err(why),
                }
            };
            match timeout_at(self.exchange.patience(self.idle_deadline), next).await {
                Ok(frame) => return frame,
                Err(_) if self.exchange.patience(self.idle_deadline) <= Instant::now() => {
                    return Err(Closed::Idle);
                }
                // The client was heard meanwhile.
                Err(_) => {}
            }
        }
    }
}

impl crate::Writer for Writer {
    async fn write(&mut self, frames: &mut Vec<Outgoing>) -> Result<(), Closed> {
        let mut checkpoint = None;
        let mut answer = Vec::with_capacity(frames.len());
        let mut is_news = false;
        for Outgoing { bytes, lane } in frames.drain(..) {
            if lane == Lane::Checkpoint {
                checkpoint = Some(String::from_utf8_lossy(&bytes).into_owned());
            } else {
                is_news |= lane != Lane::Aside;
                answer.push(bytes);
            }
        }
        if !is_news {
            let put = self.exchange.put_aside(answer, checkpoint);
            return put.map_err(|Over| Closed::Lost("the client is gone".into()));
        }
        // The session has said why it ends: the client need not ask for more.
        let last = answer.last().is_some_and(|frame| frame.starts_with(br#"{"close":"#));
        self.answer(answer, checkpoint, last).await.map_err(|Over| Closed::Lost("the client is gone".into()))
    }

    async fn close(self, close: Farewell) {
        let frame = ServerFrame::Close(Close {
            code: close.code,
            reason: close.short_reason().to_owned(),
            reconnect: close.code.may_reconnect(),
        });
        // It fails if the session's own last frame said it already; and who does not poll in time is not told.
        let _ = timeout(CLOSE_DEADLINE, self.answer(vec![Codec::Json.encode(&frame)], None, true)).await;
    }
}

impl Writer {
    async fn answer(
        &self,
        mut frames: Vec<Bytes>,
        mut checkpoint: Option<String>,
        last: bool,
    ) -> Result<(), Over> {
        while !self.exchange.answer(&mut frames, &mut checkpoint, last)? {
            self.exchange.changed().await;
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.exchanges.map().remove(&self.exchange.id());
        self.exchange.end_writer();
    }
}
