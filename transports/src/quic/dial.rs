//! A client of raw QUIC.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use quinn::{RecvStream, SendStream, VarInt, crypto::rustls::QuicClientConfig};
use tokio::time::timeout;
use url::Url;
use xpush_protocol::TransportKind;

use super::closed;
pub use crate::udp::dialled::DialError;
use crate::{
    Closed, Farewell, Peer, Settings,
    tls::Trust,
    udp::{
        address_of,
        dialled::{self, Far, SERVER_STREAMS},
        tuning,
    },
};

pub type Dialled = dialled::Connection<FarWire>;

/// Dials once: `quic://host:port`.
pub async fn dial(url: &str, trust: &Trust, settings: &Settings) -> Result<Dialled, DialError> {
    Dialer::new(trust, settings)?.dial(url).await
}

/// Dials from one socket, as often as wanted.
#[derive(Debug, Clone)]
pub struct Dialer {
    endpoint: quinn::Endpoint,
    settings: Settings,
}

impl Dialer {
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(trust: &Trust, settings: &Settings) -> Result<Self, DialError> {
        let tls = trust.client_config(xpush_protocol::ALPN)?;
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| DialError::Failed(error.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(tuning::client(settings, SERVER_STREAMS)));
        let mut endpoint = dialled::endpoint()?;
        endpoint.set_default_client_config(config);
        Ok(Self { endpoint, settings: settings.clone() })
    }

    pub async fn dial(&self, url: &str) -> Result<Dialled, DialError> {
        timeout(self.settings.handshake_deadline, self.connect(url)).await.map_err(|_| DialError::Timeout)?
    }

    async fn connect(&self, url: &str) -> Result<Dialled, DialError> {
        let (host, address) = resolve(url).await?;
        let failed = |error: &dyn std::error::Error| DialError::Failed(error.to_string());
        let connecting = self.endpoint.connect(address, &host).map_err(|error| failed(&error))?;
        let connection = connecting.await.map_err(|error| failed(&error))?;
        let control = connection.open_bi().await.map_err(|error| failed(&error))?;
        let peer = Peer {
            kind: TransportKind::Quic,
            address: address_of(&connection),
            codec: None,
            origin: None,
            wants_checkpoints: false,
        };
        Ok(Dialled::new(peer, FarWire(connection), control, &self.settings))
    }
}

/// The name to verify, and the address.
async fn resolve(text: &str) -> Result<(String, SocketAddr), DialError> {
    let bad = |reason: &str| DialError::BadUrl { url: text.into(), reason: reason.into() };
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if url.scheme() != "quic" {
        return Err(bad("it must begin with quic://"));
    }
    let host = url.host_str().ok_or_else(|| bad("it has no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port().ok_or_else(|| bad("it has no port"))?;
    let unknown = |source| DialError::UnknownHost { host: host.clone(), source };
    let first = tokio::net::lookup_host((host.as_str(), port)).await.map_err(unknown)?.next();
    let address = first.ok_or_else(|| unknown(std::io::ErrorKind::NotFound.into()))?;
    Ok((host, address))
}

/// A QUIC connection of its own, from the client's side.
pub struct FarWire(quinn::Connection);

impl Far for FarWire {
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
        // Too large for a path that shrank, or the connection is over: the next read tells.
        let _ = self.0.send_datagram(datagram);
    }

    fn max_datagram(&self) -> usize {
        self.0.max_datagram_size().unwrap_or_default()
    }

    async fn closed(&self) -> Closed {
        closed(self.0.closed().await)
    }

    async fn close(&self, farewell: &Farewell) {
        let code = VarInt::from_u32(farewell.code.number().into());
        self.0.close(code, farewell.short_reason().as_bytes());
    }
}
