//! The client's end of both wires: it opens the control stream, and reads whatever streams the server opens.
//!
//! Frames of one stream come in order; between streams there is none, as nothing else was promised.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use thiserror::Error;
use tokio::time::timeout;

use super::{
    datagram::{self, Packer},
    frames::{Batch, Chunks, Frames, NoFrame},
    lanes::STREAMS,
    socket,
};
use crate::{
    CLOSE_DEADLINE, Closed, Farewell, Lane, Outgoing, Peer, Settings, patience::Patience, tls::TrustError,
};

/// Streams that a server may open: its lanes, and those that HTTP/3 opens.
pub(crate) const SERVER_STREAMS: u32 = STREAMS as u32 + 3;

/// How long after its streams a connection's own end may come.
const REASON_DEADLINE: Duration = Duration::from_secs(1);

/// Of `CLOSE_DEADLINE`, what the server gets to take the frames that are under way.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// Why a client has no connection.
#[derive(Debug, Error)]
pub enum DialError {
    #[error("{url} is no address of this wire: {reason}")]
    BadUrl { url: String, reason: String },
    #[error("cannot find {host}: {source}")]
    UnknownHost { host: String, source: io::Error },
    #[error("cannot open a UDP socket: {0}")]
    Socket(io::Error),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("the server did not answer in time")]
    Timeout,
    #[error("the connection failed: {0}")]
    Failed(String),
    /// WebTransport only.
    #[error("the server refused with status {0}")]
    Refused(u16),
}

/// A socket that many connections share: each costs some megabytes of receive buffer.
pub(crate) fn endpoint() -> Result<quinn::Endpoint, DialError> {
    // An IPv6 socket reaches both; a machine without IPv6 has none.
    socket::endpoint(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), None)
        .or_else(|_| socket::endpoint(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), None))
        .map_err(DialError::Socket)
}

/// What carries a client's connection.
pub trait Far: Send + Sync + 'static {
    type Incoming: Send + 'static;
    type Outgoing: Send + Sync + 'static;

    /// A stream's next bytes; `None` at its end. Cancel safe. The error is for a person.
    fn chunk(
        stream: &mut Self::Incoming,
        max: usize,
    ) -> impl Future<Output = Result<Option<Bytes>, String>> + Send;

    /// Writes all. The error is for a person.
    fn write(
        stream: &mut Self::Outgoing,
        chunks: Vec<Bytes>,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Ends the stream, and waits until the server has all of it.
    fn flush(stream: &mut Self::Outgoing) -> impl Future<Output = ()> + Send;

    /// A stream that the server opened. Cancel safe.
    fn accept(&self) -> impl Future<Output = Result<Self::Incoming, Closed>> + Send;

    fn read_datagram(&self) -> impl Future<Output = Result<Bytes, Closed>> + Send;

    /// May drop it.
    fn send_datagram(&self, datagram: Bytes);

    /// 0 where the path takes none.
    fn max_datagram(&self) -> usize;

    fn closed(&self) -> impl Future<Output = Closed> + Send;

    /// Tells the server, and lets go.
    fn close(&self, farewell: &Farewell) -> impl Future<Output = ()> + Send;
}

/// A stream as `Frames` reads it.
struct Incoming<F: Far>(F::Incoming);

impl<F: Far> Chunks for Incoming<F> {
    async fn chunk(&mut self, max: usize) -> Result<Option<Bytes>, String> {
        F::chunk(&mut self.0, max).await
    }
}

/// A dialled connection.
pub struct Connection<F: Far> {
    peer: Peer,
    reader: Reader<F>,
    writer: Writer<F>,
}

impl<F: Far> Connection<F> {
    /// `control` is the stream that the client just opened.
    pub(crate) fn new(peer: Peer, far: F, control: (F::Outgoing, F::Incoming), settings: &Settings) -> Self {
        let far = Arc::new(far);
        let mut streams = Streams {
            far: far.clone(),
            open: FuturesUnordered::new(),
            datagram: Bytes::new(),
            limit: settings.frame_limit,
        };
        streams.follow(control.1);
        let reader = Reader { streams, patience: Patience::with_server(settings) };
        Self { peer, reader, writer: Writer { far, control: control.0 } }
    }
}

impl<F: Far> crate::Connection for Connection<F> {
    type Reader = Reader<F>;
    type Writer = Writer<F>;

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn split(self) -> (Peer, Reader<F>, Writer<F>) {
        (self.peer, self.reader, self.writer)
    }
}

/// Reads all streams of the server and its datagrams.
pub struct Reader<F: Far> {
    streams: Streams<F>,
    patience: Patience,
}

struct Streams<F: Far> {
    far: Arc<F>,
    /// One read of each stream: bounded by the streams that the server may open. They outlive a cancelled read.
    open: FuturesUnordered<NextFrame<F>>,
    /// What is left of the last datagram.
    datagram: Bytes,
    limit: usize,
}

type NextFrame<F> = Pin<Box<dyn Future<Output = (Frames<Incoming<F>>, Result<Bytes, NoFrame>)> + Send>>;

impl<F: Far> Streams<F> {
    fn follow(&mut self, stream: F::Incoming) {
        self.read_on(Frames::new(Incoming(stream), self.limit));
    }

    fn read_on(&mut self, mut stream: Frames<Incoming<F>>) {
        self.open.push(Box::pin(async move {
            let frame = stream.next().await;
            (stream, frame)
        }));
    }

    async fn next(&mut self) -> Result<Bytes, Closed> {
        loop {
            if let Some(frame) = datagram::take(&mut self.datagram, self.limit)? {
                return Ok(frame);
            }
            let far = self.far.clone();
            tokio::select! {
                // What the server sent before it closed is read before the close is told.
                biased;
                Some((stream, frame)) = self.open.next() => match frame {
                    Ok(frame) => {
                        self.read_on(stream);
                        return Ok(frame);
                    }
                    Err(NoFrame::Broken(closed)) => return Err(closed),
                    // The server ends its streams before it says why it closes.
                    Err(NoFrame::Finished) => {}
                    Err(NoFrame::Lost(what)) => {
                        return Err(timeout(REASON_DEADLINE, far.closed()).await.unwrap_or(Closed::Lost(what)));
                    }
                },
                stream = far.accept() => self.follow(stream?),
                datagram = far.read_datagram() => self.datagram = datagram?,
                closed = far.closed() => return Err(closed),
            }
        }
    }
}

impl<F: Far> crate::Reader for Reader<F> {
    async fn read(&mut self) -> Result<Bytes, Closed> {
        let frame = self.patience.wait(self.streams.next()).await??;
        self.patience.renew();
        Ok(frame)
    }
}

/// Writes the control stream, and datagrams.
pub struct Writer<F: Far> {
    far: Arc<F>,
    control: F::Outgoing,
}

impl<F: Far> crate::Writer for Writer<F> {
    async fn write(&mut self, frames: &mut Vec<Outgoing>) -> Result<(), Closed> {
        let mut batch = Batch::default();
        let mut datagrams = Packer::new(&[], self.far.max_datagram());
        for frame in frames.drain(..) {
            match frame.lane {
                Lane::Checkpoint => {}
                Lane::Ephemeral(_) if datagrams.push(&frame.bytes) => {}
                _ => batch.push(&frame.bytes),
            }
        }
        for datagram in datagrams.finish() {
            self.far.send_datagram(datagram);
        }
        if batch.is_empty() {
            return Ok(());
        }
        match F::write(&mut self.control, batch.into_chunks(None)).await {
            Ok(()) => Ok(()),
            Err(what) => Err(timeout(REASON_DEADLINE, self.far.closed()).await.unwrap_or(Closed::Lost(what))),
        }
    }

    async fn close(mut self, farewell: Farewell) {
        let _ = timeout(FLUSH_DEADLINE, F::flush(&mut self.control)).await;
        let _ = timeout(CLOSE_DEADLINE - FLUSH_DEADLINE, self.far.close(&farewell)).await;
    }
}
