//! The two halves of a server's connection. Raw QUIC and a WebTransport session differ in how streams and
//! datagrams are marked and in how they end (`Link`); everything else is the same and is here.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use tokio::{
    sync::{Mutex, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use xpush_protocol::CloseCode;

use super::{
    datagram, end,
    frames::{Frames, NoFrame},
    lanes::Lanes,
};
use crate::{CLOSE_DEADLINE, Closed, Farewell, Outgoing, Peer, Permit, Settings, patience::Patience};

/// Of `CLOSE_DEADLINE`, what the peer gets to take the frames that are under way; the rest is for the farewell.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// How long after its streams a connection's own end may come. Streams and closes overtake each other.
const REASON_DEADLINE: Duration = Duration::from_secs(1);

/// What carries one connection.
pub trait Link: Send + Sync + 'static {
    fn quic(&self) -> &quinn::Connection;

    /// The bytes that stand first on each stream that we open.
    fn stream_prefix(&self) -> &[u8];

    /// The bytes that stand first in each datagram.
    fn datagram_prefix(&self) -> &[u8];

    /// The stream that the client opened for its commands. Cancel safe.
    fn accept_control(&self) -> impl Future<Output = Result<(SendStream, RecvStream), Closed>> + Send;

    /// A datagram, without the prefix. It may wait without end once the connection is over. Cancel safe.
    fn read_datagram(&self) -> impl Future<Output = Result<Bytes, Closed>> + Send;

    /// Why it is over, once it is. Cancel safe.
    fn closed(&self) -> impl Future<Output = Closed> + Send;

    /// Tells the peer, and lets go.
    fn close(&self, farewell: &Farewell) -> impl Future<Output = ()> + Send;

    /// Lets go now.
    fn cut(&self, farewell: &Farewell);
}

/// Both halves' common ground; the connection ends when both are gone.
pub(super) struct Shared<L> {
    pub(super) link: L,
    /// Whichever half needs the control stream first accepts it for both. An async lock: accepting waits for the
    /// peer, and the other half then waits for the same.
    control: Mutex<Control>,
    _permit: Permit,
}

#[derive(Default)]
struct Control {
    writer: Option<SendStream>,
    reader: Option<RecvStream>,
}

impl<L: Link> Shared<L> {
    pub(super) async fn control_writer(&self) -> Result<SendStream, Closed> {
        let mut control = self.control.lock().await;
        if let Some(writer) = control.writer.take() {
            return Ok(writer);
        }
        let (writer, reader) = self.link.accept_control().await?;
        control.reader = Some(reader);
        Ok(writer)
    }

    async fn control_reader(&self) -> Result<RecvStream, Closed> {
        let mut control = self.control.lock().await;
        if let Some(reader) = control.reader.take() {
            return Ok(reader);
        }
        let (writer, reader) = self.link.accept_control().await?;
        control.writer = Some(writer);
        Ok(reader)
    }

    /// Why a stream broke: the connection's own end, which may come a moment later.
    pub(super) async fn why(&self, what: String) -> Closed {
        timeout(REASON_DEADLINE, self.link.closed()).await.unwrap_or(Closed::Lost(what))
    }
}

/// One accepted connection.
pub struct Connection<L: Link> {
    peer: Peer,
    shared: Arc<Shared<L>>,
    settings: Settings,
}

impl<L: Link> Connection<L> {
    pub(crate) fn new(peer: Peer, link: L, permit: Permit, settings: Settings) -> Self {
        let shared = Shared { link, control: Mutex::default(), _permit: permit };
        Self { peer, shared: Arc::new(shared), settings }
    }
}

impl<L: Link> crate::Connection for Connection<L> {
    type Reader = Reader<L>;
    type Writer = Writer<L>;

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn split(self) -> (Peer, Reader<L>, Writer<L>) {
        let reader = Reader {
            shared: self.shared.clone(),
            control: None,
            datagram: Bytes::new(),
            limit: self.settings.frame_limit,
            patience: Patience::with_stranger(&self.settings),
        };
        (self.peer, reader, Writer { shared: self.shared, lanes: Lanes::new() })
    }
}

/// Reads the control stream and datagrams.
pub struct Reader<L: Link> {
    shared: Arc<Shared<L>>,
    control: Option<Frames<RecvStream>>,
    /// What is left of the last datagram.
    datagram: Bytes,
    limit: usize,
    patience: Patience,
}

impl<L: Link> Reader<L> {
    async fn next(
        shared: &Shared<L>,
        control: &mut Option<Frames<RecvStream>>,
        datagram: &mut Bytes,
        limit: usize,
    ) -> Result<Bytes, Closed> {
        let mut ended = None;
        loop {
            if let Some(frame) = datagram::take(datagram, limit)? {
                return Ok(frame);
            }
            tokio::select! {
                // What the client sent before it closed is read before the close is told.
                biased;
                frame = Self::command(shared, control, limit) => return frame,
                Ok(next) = shared.link.read_datagram() => *datagram = next,
                closed = end(&ended, shared.link.closed()) => match ended {
                    Some(_) => return Err(closed),
                    // It may have come, with the last frames, after they were looked for: once more.
                    None => ended = Some(closed),
                },
            }
        }
    }

    async fn command(
        shared: &Shared<L>,
        control: &mut Option<Frames<RecvStream>>,
        limit: usize,
    ) -> Result<Bytes, Closed> {
        let frames = match control {
            Some(frames) => frames,
            // What happens once is boxed: its state would be a part of every idle connection's.
            None => control.insert(Frames::new(Box::pin(shared.control_reader()).await?, limit)),
        };
        match frames.next().await {
            Ok(frame) => Ok(frame),
            Err(NoFrame::Broken(closed)) => Err(closed),
            Err(NoFrame::Lost(what)) => Err(Box::pin(shared.why(what)).await),
            // A client that ends its stream goes; it may still say why.
            Err(NoFrame::Finished) => Err(Box::pin(timeout(CLOSE_DEADLINE, shared.link.closed()))
                .await
                .unwrap_or(Closed::ByPeer { code: CloseCode::Normal, reason: String::new() })),
        }
    }
}

impl<L: Link> crate::Reader for Reader<L> {
    async fn read(&mut self) -> Result<Bytes, Closed> {
        let next = Self::next(&self.shared, &mut self.control, &mut self.datagram, self.limit);
        let frame = self.patience.wait(next).await??;
        self.patience.renew();
        Ok(frame)
    }
}

/// Writes the control stream, the pooled streams and datagrams.
pub struct Writer<L: Link> {
    shared: Arc<Shared<L>>,
    lanes: Lanes,
}

impl<L: Link> crate::Writer for Writer<L> {
    async fn write(&mut self, frames: &mut Vec<Outgoing>) -> Result<(), Closed> {
        self.lanes.write(&self.shared, frames).await
    }

    async fn close(mut self, farewell: Farewell) {
        if timeout(FLUSH_DEADLINE, self.lanes.flush()).await.is_err() {
            self.lanes.reset();
        }
        let rest = CLOSE_DEADLINE - FLUSH_DEADLINE;
        if timeout(rest, self.shared.link.close(&farewell)).await.is_err() {
            self.shared.link.cut(&farewell);
        }
    }
}

/// Hands out connections whose wire is up.
pub struct Listener<L: Link> {
    accepted: mpsc::Receiver<Connection<L>>,
    cancel: CancellationToken,
}

impl<L: Link> Listener<L> {
    pub(crate) fn new(accepted: mpsc::Receiver<Connection<L>>, cancel: CancellationToken) -> Self {
        Self { accepted, cancel }
    }
}

impl<L: Link> crate::Transport for Listener<L> {
    type Connection = Connection<L>;

    async fn accept(&mut self) -> Option<Connection<L>> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => None,
            connection = self.accepted.recv() => connection,
        }
    }
}

/// One of our codes, or `Normal`: browsers and libraries have codes of their own for going away.
pub(crate) fn close_code(number: u64) -> CloseCode {
    match u16::try_from(number) {
        Ok(ours @ 4000..5000) => CloseCode::from_number(ours),
        _ => CloseCode::Normal,
    }
}
