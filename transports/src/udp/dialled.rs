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
    end,
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
        let mut ended = None;
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
                        ended = Some(timeout(REASON_DEADLINE, far.closed()).await.unwrap_or(Closed::Lost(what)));
                    }
                },
                Ok(stream) = far.accept() => self.follow(stream),
                Ok(datagram) = far.read_datagram() => self.datagram = datagram,
                closed = end(&ended, far.closed()) => match ended {
                    Some(_) => return Err(closed),
                    // It may have come, with the last frames, after the streams were looked at: they get another look.
                    None => ended = Some(closed),
                },
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

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, poll_fn},
        sync::atomic::{AtomicBool, Ordering},
        task::Poll,
    };

    use futures_util::task::AtomicWaker;
    use xpush_protocol::CloseCode;

    use super::*;
    use crate::{Reader as _, TransportKind};

    /// A server whose last frame and whose close come together, right after the client looked for frames.
    #[derive(Clone, Default)]
    struct Leaving(Arc<(AtomicBool, AtomicWaker)>);

    impl Far for Leaving {
        type Incoming = (Leaving, Option<Bytes>);
        type Outgoing = ();

        async fn chunk(stream: &mut Self::Incoming, _: usize) -> Result<Option<Bytes>, String> {
            poll_fn(|context| {
                let (has_come, reader) = &*stream.0.0;
                reader.register(context.waker());
                if !has_come.load(Ordering::Relaxed) {
                    return Poll::Pending;
                }
                Poll::Ready(stream.1.take().map(Some).ok_or_else(|| "the connection is over".into()))
            })
            .await
        }

        async fn write((): &mut (), _: Vec<Bytes>) -> Result<(), String> {
            Ok(())
        }

        async fn flush((): &mut ()) {}

        async fn accept(&self) -> Result<Self::Incoming, Closed> {
            let (has_come, reader) = &*self.0;
            has_come.store(true, Ordering::Relaxed);
            reader.wake();
            Err(self.closed().await)
        }

        async fn read_datagram(&self) -> Result<Bytes, Closed> {
            pending().await
        }

        fn send_datagram(&self, _: Bytes) {}

        fn max_datagram(&self) -> usize {
            0
        }

        async fn closed(&self) -> Closed {
            Closed::ByPeer { code: CloseCode::Draining, reason: "the node leaves".into() }
        }

        async fn close(&self, _: &Farewell) {}
    }

    #[tokio::test]
    async fn what_came_with_the_close_is_read_before_it_is_told() {
        let server = Leaving::default();
        let last = Bytes::from_static(b"the last frame");
        let mut sent = Batch::default();
        sent.push(&last);
        let sent = sent.into_chunks(None).concat().into();
        let address = "127.0.0.1:1".parse().unwrap();
        let peer =
            Peer { kind: TransportKind::Quic, address, codec: None, origin: None, wants_checkpoints: false };
        let control = ((), (server.clone(), Some(sent)));
        let connection = Connection::new(peer, server, control, &Settings::default());
        let (_, mut reader, _) = crate::Connection::split(connection);
        assert_eq!(reader.read().await, Ok(last));
        assert!(matches!(reader.read().await, Err(Closed::ByPeer { code: CloseCode::Draining, .. })));
    }
}
