//! A client of WebTransport, on `web-transport-quinn`: an implementation that shares nothing with the server's.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::timeout;
use url::Url;
use web_transport_quinn::{
    Client, ClientError, ConnectError, RecvStream, SendStream, Session, SessionError, WebTransportError,
    proto::{ConnectError as NotConnected, ConnectRequest},
};
use xpush_protocol::{Codec, TransportKind};

pub use crate::udp::dialled::DialError;
use crate::{
    Closed, Farewell, Peer, Settings, quic,
    tls::Trust,
    udp::{
        ALPN_HTTP, address_of,
        dialled::{self, Far, SERVER_STREAMS},
        tuning,
    },
};

pub type Dialled = dialled::Connection<FarSession>;

/// How long to wait for the server's side of a close.
const GOODBYE: Duration = Duration::from_secs(1);

/// Dials once: `https://host:port/v1/connect`.
pub async fn dial(
    url: &str,
    codec: Option<Codec>,
    trust: &Trust,
    settings: &Settings,
) -> Result<Dialled, DialError> {
    Dialer::new(trust, settings)?.dial(url, codec).await
}

/// Dials from one socket, as often as wanted.
#[derive(Debug, Clone)]
pub struct Dialer {
    client: Client,
    settings: Settings,
}

impl Dialer {
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(trust: &Trust, settings: &Settings) -> Result<Self, DialError> {
        let tls = trust.client_config(ALPN_HTTP)?;
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| DialError::Failed(error.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(tuning::client(settings, SERVER_STREAMS)));
        Ok(Self { client: Client::new(dialled::endpoint()?, config), settings: settings.clone() })
    }

    /// `codec` is offered as the only subprotocol; without one the first frame tells.
    pub async fn dial(&self, url: &str, codec: Option<Codec>) -> Result<Dialled, DialError> {
        let bad = |reason: String| DialError::BadUrl { url: url.into(), reason };
        let parsed = Url::parse(url).map_err(|error| bad(error.to_string()))?;
        if parsed.scheme() != "https" {
            return Err(bad("it must begin with https://".into()));
        }
        let mut request = ConnectRequest::new(parsed);
        if let Some(codec) = codec {
            request = request.with_protocol(codec.subprotocol());
        }
        timeout(self.settings.handshake_deadline, self.connect(request))
            .await
            .map_err(|_| DialError::Timeout)?
    }

    async fn connect(&self, request: ConnectRequest) -> Result<Dialled, DialError> {
        let session = self.client.connect(request).await.map_err(refused)?;
        let control = session.open_bi().await.map_err(|error| DialError::Failed(error.to_string()))?;
        let peer = Peer {
            kind: TransportKind::WebTransport,
            address: address_of(&session),
            codec: session.protocol().and_then(Codec::from_subprotocol),
            origin: None,
            wants_checkpoints: false,
        };
        Ok(Dialled::new(peer, FarSession(session), control, &self.settings))
    }
}

fn refused(error: ClientError) -> DialError {
    match error {
        ClientError::HttpError(
            ConnectError::ErrorStatus(status)
            | ConnectError::ProtoError(NotConnected::WrongStatus(Some(status))),
        ) => DialError::Refused(status.as_u16()),
        error => DialError::Failed(error.to_string()),
    }
}

/// A session from the client's side.
pub struct FarSession(Session);

impl Far for FarSession {
    type Incoming = RecvStream;
    type Outgoing = SendStream;

    async fn chunk(stream: &mut RecvStream, max: usize) -> Result<Option<Bytes>, String> {
        let chunk = stream.read_chunk(max, true).await.map_err(|error| error.to_string())?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }

    async fn write(stream: &mut SendStream, mut chunks: Vec<Bytes>) -> Result<(), String> {
        stream.write_all_chunks(&mut chunks).await.map_err(|error| error.to_string())
    }

    async fn flush(stream: &mut SendStream) {
        // Errors: it is over, and there is nothing to flush.
        let _ = stream.finish();
        let _ = stream.stopped().await;
    }

    async fn accept(&self) -> Result<RecvStream, Closed> {
        self.0.accept_uni().await.map_err(closed)
    }

    async fn read_datagram(&self) -> Result<Bytes, Closed> {
        self.0.read_datagram().await.map_err(closed)
    }

    fn send_datagram(&self, datagram: Bytes) {
        // Too large for a path that shrank, or the session is over: the next read tells.
        let _ = self.0.send_datagram(datagram);
    }

    fn max_datagram(&self) -> usize {
        self.0.max_datagram_size()
    }

    async fn closed(&self) -> Closed {
        closed(self.0.closed().await)
    }

    async fn close(&self, farewell: &Farewell) {
        self.0.close(farewell.code.number().into(), farewell.short_reason().as_bytes());
        let _ = timeout(GOODBYE, self.0.closed()).await;
    }
}

fn closed(error: SessionError) -> Closed {
    match error {
        SessionError::WebTransportError(WebTransportError::Closed(code, reason)) => {
            Closed::ByPeer { code: crate::udp::halves::close_code(code.into()), reason }
        }
        SessionError::ConnectionError(error) => quic::closed(error),
        error => Closed::Lost(error.to_string()),
    }
}
