//! A wire within one process: for tests of what stands above the wires, which then need no socket, and as the
//! plainest reading of the contract.
//!
//! Frames are handed over as they are. What a socket's buffers hold back, a bounded channel does here.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Weak},
};

use bytes::Bytes;
use thiserror::Error;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use xpush_protocol::{Codec, TransportKind};

use crate::{
    Admission, CLOSE_DEADLINE, Closed, Farewell, Outgoing, Peer, Permit, Refused, Settings, Transport,
    TryWrite, patience::Patience,
};

/// Frames on their way, each direction. Few, so that a test of a slow reader need not write much.
const PIPE_CAPACITY: usize = 64;

/// Dialled connections that nobody has accepted yet; further ones wait.
const BACKLOG: usize = 64;

/// Makes a transport and what dials it.
#[must_use]
pub fn listener(settings: Settings, admission: Admission, cancel: CancellationToken) -> (Dialer, Listener) {
    let (dialled, accepted) = mpsc::channel(BACKLOG);
    (Dialer { settings, admission, dialled, cancel: cancel.clone() }, Listener { accepted, cancel })
}

/// The server's end.
#[derive(Debug)]
pub struct Listener {
    accepted: mpsc::Receiver<Connection>,
    cancel: CancellationToken,
}

/// What a client dials with.
#[derive(Debug, Clone)]
pub struct Dialer {
    settings: Settings,
    admission: Admission,
    dialled: mpsc::Sender<Connection>,
    cancel: CancellationToken,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DialError {
    #[error("nobody accepts connections any more")]
    ShutDown,
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Either end of a connection.
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    reader: Reader,
    writer: Writer,
}

#[derive(Debug)]
pub struct Reader {
    pipe: mpsc::Receiver<Parcel>,
    frame_limit: usize,
    /// `None` at the client's end: a test's client may be as patient as it likes.
    patience: Option<Patience>,
    _permit: Option<Permit>,
}

#[derive(Debug)]
pub struct Writer {
    pipe: Arc<mpsc::Sender<Parcel>>,
}

#[derive(Debug)]
enum Parcel {
    Frame(Bytes),
    Close(Farewell),
}

impl Dialer {
    /// Connects; waits while the backlog is full.
    pub async fn dial(&self) -> Result<Connection, DialError> {
        if self.cancel.is_cancelled() {
            return Err(DialError::ShutDown);
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let permit = self.admission.admit(address.ip())?;
        let peer = Peer {
            kind: TransportKind::Memory,
            address,
            codec: None::<Codec>,
            origin: None,
            wants_checkpoints: false,
        };
        let (to_server, from_client) = mpsc::channel(PIPE_CAPACITY);
        let (to_client, from_server) = mpsc::channel(PIPE_CAPACITY);
        let frame_limit = self.settings.frame_limit;
        let server = Connection {
            peer: peer.clone(),
            reader: Reader {
                pipe: from_client,
                frame_limit,
                patience: Some(Patience::with_stranger(&self.settings)),
                _permit: Some(permit),
            },
            writer: Writer { pipe: Arc::new(to_client) },
        };
        self.dialled.send(server).await.map_err(|_| DialError::ShutDown)?;
        let reader = Reader { pipe: from_server, frame_limit, patience: None, _permit: None };
        Ok(Connection { peer, reader, writer: Writer { pipe: Arc::new(to_server) } })
    }
}

impl Transport for Listener {
    type Connection = Connection;

    async fn accept(&mut self) -> Option<Connection> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => None,
            connection = self.accepted.recv() => connection,
        }
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
    async fn read(&mut self) -> Result<Bytes, Closed> {
        let parcel = match &self.patience {
            Some(patience) => patience.wait(self.pipe.recv()).await?,
            None => self.pipe.recv().await,
        };
        match parcel {
            Some(Parcel::Frame(frame)) if frame.len() > self.frame_limit => {
                Err(Closed::FrameTooLarge { size: frame.len() as u64, limit: self.frame_limit })
            }
            Some(Parcel::Frame(frame)) => {
                if let Some(patience) = &mut self.patience {
                    patience.renew();
                }
                Ok(frame)
            }
            Some(Parcel::Close(Farewell { code, reason })) => Err(Closed::ByPeer { code, reason }),
            None => Err(gone()),
        }
    }
}

impl crate::Writer for Writer {
    async fn write(&mut self, frames: &mut Vec<Outgoing>) -> Result<(), Closed> {
        for frame in frames.drain(..) {
            self.pipe.send(Parcel::Frame(frame.bytes)).await.map_err(|_| gone())?;
        }
        Ok(())
    }

    fn beside(&self) -> Option<Weak<dyn TryWrite>> {
        Some(Arc::downgrade(&self.pipe) as _)
    }

    async fn close(self, close: Farewell) {
        let reason = close.short_reason().to_owned();
        let parcel = Parcel::Close(Farewell { code: close.code, reason });
        // A peer that is gone, or reads nothing until the deadline, is not told.
        let _ = timeout(CLOSE_DEADLINE, self.pipe.send(parcel)).await;
    }
}

impl TryWrite for mpsc::Sender<Parcel> {
    fn try_write(&self, frames: &mut Vec<Outgoing>) -> bool {
        let taken =
            frames.iter().take_while(|frame| self.try_send(Parcel::Frame(frame.bytes.clone())).is_ok());
        let taken = taken.count();
        frames.drain(..taken);
        frames.is_empty()
    }
}

fn gone() -> Closed {
    Closed::Lost("the other end was dropped".into())
}
