//! One session: its end of streams and datagrams (`Session`), and what watches its CONNECT stream until either side
//! ends it (`Keeper`).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use h3::server::RequestStream;
use quinn::{RecvStream, SendStream};
use tokio::{
    sync::{Mutex as AsyncMutex, oneshot, watch},
    time::{Instant, sleep_until},
};
use xpush_protocol::put_varint;

use super::{
    adapter::{Bidirectional, Receiving, Sending},
    capsule::{Capsules, Close},
    carrier::Step,
    error_code::from_http,
    sessions::{self, Datagrams, Inlet, Sessions},
};
use crate::{
    Closed, Farewell, quic,
    udp::halves::{Link, close_code},
};

/// What stands before a unidirectional stream of a session, before the session's id.
const UNIDIRECTIONAL: u64 = 0x54;

/// How long a peer may take to end its side of a session after we ended ours.
const GOODBYE: Duration = Duration::from_secs(1);

/// One session of a WebTransport connection.
pub struct Session {
    connection: quinn::Connection,
    stream_prefix: Bytes,
    datagram_prefix: Bytes,
    /// Gone once it answered. An async lock: it is held by the one half that waits.
    control: AsyncMutex<Option<oneshot::Receiver<sessions::Bidirectional>>>,
    datagrams: Arc<Datagrams>,
    /// A session is closed once. Dropped with the session's halves: that ends it too.
    farewell: Mutex<Option<oneshot::Sender<Farewell>>>,
    ended: watch::Receiver<Option<Closed>>,
}

/// Keeps a session until it ends.
pub(super) struct Keeper {
    id: u64,
    connection: quinn::Connection,
    sessions: Arc<Sessions>,
    farewell: oneshot::Receiver<Farewell>,
    ended: watch::Sender<Option<Closed>>,
}

/// Registers a session; its CONNECT may be answered then.
pub(super) fn open(id: u64, connection: quinn::Connection, sessions: Arc<Sessions>) -> (Session, Keeper) {
    let (to_control, control) = oneshot::channel();
    let datagrams = Arc::new(Datagrams::default());
    sessions.register(id, Inlet { control: Some(to_control), datagrams: Arc::clone(&datagrams) });
    let (say, farewell) = oneshot::channel();
    let (end, ended) = watch::channel(None);
    let session = Session {
        connection: connection.clone(),
        stream_prefix: varints(&[UNIDIRECTIONAL, id]),
        datagram_prefix: varints(&[id / 4]),
        control: AsyncMutex::new(Some(control)),
        datagrams,
        farewell: Mutex::new(Some(say)),
        ended,
    };
    (session, Keeper { id, connection, sessions, farewell, ended: end })
}

fn varints(values: &[u64]) -> Bytes {
    let mut bytes = BytesMut::new();
    values.iter().for_each(|value| put_varint(*value, &mut bytes));
    bytes.freeze()
}

impl Link for Session {
    fn quic(&self) -> &quinn::Connection {
        &self.connection
    }

    fn stream_prefix(&self) -> &[u8] {
        &self.stream_prefix
    }

    fn datagram_prefix(&self) -> &[u8] {
        &self.datagram_prefix
    }

    async fn accept_control(&self) -> Result<(SendStream, RecvStream), Closed> {
        let mut control = self.control.lock().await;
        let stream = match &mut *control {
            Some(waiting) => waiting.await.ok(),
            None => None,
        };
        *control = None;
        drop(control);
        match stream {
            Some(stream) => Ok(stream),
            None => Err(self.closed().await),
        }
    }

    async fn read_datagram(&self) -> Result<Bytes, Closed> {
        Ok(self.datagrams.pop().await)
    }

    async fn closed(&self) -> Closed {
        let mut ended = self.ended.clone();
        let closed = match ended.wait_for(Option::is_some).await {
            Ok(closed) => closed.clone(),
            // The carrier was dropped: the node stops at once.
            Err(_) => None,
        };
        closed.unwrap_or_else(|| Closed::Lost("the node stopped".into()))
    }

    async fn close(&self, farewell: &Farewell) {
        let say = self.farewell.lock().unwrap_or_else(PoisonError::into_inner).take();
        // An error: it ended already.
        if say.is_some_and(|say| say.send(farewell.clone()).is_ok()) {
            self.closed().await;
        }
    }

    /// The keeper ends it when this is dropped; the QUIC connection may carry others.
    fn cut(&self, _: &Farewell) {}
}

impl Keeper {
    /// Runs until the session is over.
    pub(super) fn keep(mut self, stream: RequestStream<Bidirectional, Bytes>) -> BoxFuture<'static, Step> {
        Box::pin(async move {
            let (mut sending, mut receiving) = stream.split();
            let closed = self.watch(&mut sending, &mut receiving).await;
            // Errors from here on: whoever it was for is gone.
            let _ = self.ended.send(Some(closed));
            let _ = sending.finish().await;
            receiving.stop_sending(h3::error::Code::H3_NO_ERROR);
            Step::Ended
        })
    }

    async fn watch(
        &mut self,
        sending: &mut RequestStream<Sending, Bytes>,
        receiving: &mut RequestStream<Receiving, Bytes>,
    ) -> Closed {
        let mut capsules = Capsules::default();
        let mut goodbye = None;
        loop {
            tokio::select! {
                farewell = &mut self.farewell, if goodbye.is_none() => {
                    goodbye = Some(Instant::now() + GOODBYE);
                    say(sending, farewell.ok()).await;
                }
                data = receiving.recv_data() => match data {
                    Ok(Some(data)) => match capsules.push(data) {
                        Ok(None) => {}
                        Ok(Some(close)) => return by_peer(close),
                        Err(_) => return Closed::Protocol("a capsule is too long".into()),
                    },
                    Ok(None) => return by_peer(Close { code: 0, reason: String::new() }),
                    Err(error) => return self.why(&error.to_string()).await,
                },
                () = until(goodbye) => return Closed::Lost("the session was closed here".into()),
            }
        }
    }

    /// Why the CONNECT stream broke.
    async fn why(&self, what: &str) -> Closed {
        match tokio::time::timeout(GOODBYE, self.connection.closed()).await {
            Ok(quinn::ConnectionError::ApplicationClosed(close)) => {
                // Some clients close the whole connection with the session's code.
                let code = from_http(close.error_code.into_inner());
                let reason = String::from_utf8_lossy(&close.reason).into_owned();
                by_peer(Close { code: code.unwrap_or_default(), reason })
            }
            Ok(error) => quic::closed(error),
            Err(_) => Closed::Lost(what.to_owned()),
        }
    }
}

/// However it ends, an answer that could not be sent included.
impl Drop for Keeper {
    fn drop(&mut self) {
        self.sessions.forget(self.id);
    }
}

/// Tells the peer why, if there is a reason, and ends our side. A peer that takes nothing is left after `GOODBYE`.
async fn say(sending: &mut RequestStream<Sending, Bytes>, farewell: Option<Farewell>) {
    let said = tokio::time::timeout(GOODBYE, async {
        if let Some(farewell) = farewell {
            let capsule = Close::encode(farewell.code.number().into(), farewell.short_reason());
            sending.send_data(capsule).await?;
        }
        sending.finish().await
    });
    // Errors: the stream is over, and the peer knows.
    let _ = said.await;
}

fn by_peer(close: Close) -> Closed {
    Closed::ByPeer { code: close_code(close.code.into()), reason: close.reason }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
