//! Finds a server's wires, and dials one of them.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy, rt::TokioExecutor};
use thiserror::Error;
use xpush_protocol::{Codec, TransportKind, Transports};
use xpush_transports::{Connection, Settings, longpoll, quic, tls::Trust, websocket, webtransport};

use super::Client;

/// A list of wires, or of nodes, is short.
const DOCUMENT_LIMIT: usize = 64 * 1024;

/// Which wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Via {
    Quic,
    Webtransport,
    Websocket,
    Longpoll,
}

impl Via {
    fn kind(self) -> TransportKind {
        match self {
            Self::Quic => TransportKind::Quic,
            Self::Webtransport => TransportKind::WebTransport,
            Self::Websocket => TransportKind::WebSocket,
            Self::Longpoll => TransportKind::LongPoll,
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().as_str())
    }
}

/// Why a server can't be reached.
#[derive(Debug, Error)]
pub enum DialError {
    #[error("{0} is no http: or https: URL of a server")]
    Url(String),
    #[error("a certificate hash is 32 bytes in base64, as /v1/transports gives it")]
    Hash,
    #[error("no XPUSH server answers at {url}: {reason}. Is it running? `xpush serve` starts one")]
    Unreachable { url: String, reason: String },
    #[error("the server has no {0}")]
    NoSuchWire(Via),
    #[error("no connection over {via} to {url}: {reason}")]
    Failed { via: Via, url: String, reason: String },
}

/// A server, and the wires it has.
#[derive(Debug, Clone)]
pub struct Server {
    wires: Transports,
    trust: Trust,
    settings: Settings,
    /// One UDP socket for all connections over it.
    quic: OnceLock<quic::Dialer>,
    webtransport: OnceLock<webtransport::Dialer>,
}

/// Takes a connection of whichever wire it is.
pub trait Visit {
    type Output;
    fn visit(self, connection: impl Connection) -> Self::Output;
}

impl Server {
    /// Asks a server which wires it has. With `hashes`, an https server's certificate is known by them.
    pub async fn discover(base: &str, hashes: &[String]) -> Result<Self, DialError> {
        let base = Base::new(base, hashes)?;
        Self::new(base.transports().await?, base.trust)
    }

    /// A server whose wires were told by somebody who is trusted in this way.
    pub(super) fn new(wires: Transports, trust: Trust) -> Result<Self, DialError> {
        // What was told over loopback, or over TLS that was checked, is to be believed.
        let trust =
            if wires.certificate_hashes.is_empty() { trust } else { by_hash(&wires.certificate_hashes)? };
        let settings = Settings { frame_limit: 1 << 20, ..Settings::default() };
        Ok(Self { wires, trust, settings, quic: OnceLock::new(), webtransport: OnceLock::new() })
    }

    #[must_use]
    pub fn wires(&self) -> &Transports {
        &self.wires
    }

    /// A connection that has said nothing yet.
    pub async fn dial(&self, via: Via, codec: Codec) -> Result<Client, DialError> {
        struct Start(Codec);
        impl Visit for Start {
            type Output = Client;
            fn visit(self, connection: impl Connection) -> Client {
                Client::start(connection, self.0)
            }
        }
        self.dial_with(via, codec, Start(codec)).await
    }

    /// A connection of any wire, for who can take every kind.
    pub async fn dial_with<V: Visit>(
        &self,
        via: Via,
        codec: Codec,
        visitor: V,
    ) -> Result<V::Output, DialError> {
        let wire = self.wires.transports.iter().find(|endpoint| endpoint.kind == via.kind());
        let url = &wire.ok_or(DialError::NoSuchWire(via))?.url;
        let failed = |reason: String| DialError::Failed { via, url: url.clone(), reason };
        let settings = &self.settings;
        let tls = |alpn: bool| {
            let mut tls = self.trust.client_config(b"http/1.1").map_err(|error| failed(error.to_string()))?;
            if !alpn {
                tls.alpn_protocols.clear();
            }
            Ok::<_, DialError>(Arc::new(tls))
        };
        Ok(match via {
            Via::Quic => {
                let dialer = once(&self.quic, || quic::Dialer::new(&self.trust, settings));
                let dialled = match dialer {
                    Ok(dialer) => dialer.dial(url).await,
                    Err(error) => Err(error),
                };
                visitor.visit(dialled.map_err(|error| failed(error.to_string()))?)
            }
            Via::Webtransport => {
                let dialer = once(&self.webtransport, || webtransport::Dialer::new(&self.trust, settings));
                let dialled = match dialer {
                    Ok(dialer) => dialer.dial(url, Some(codec)).await,
                    Err(error) => Err(error),
                };
                visitor.visit(dialled.map_err(|error| failed(error.to_string()))?)
            }
            Via::Websocket => {
                let tls = if url.starts_with("wss:") { Some(tls(true)?) } else { None };
                let dialled = websocket::dial(url, Some(codec), settings, tls).await;
                visitor.visit(dialled.map_err(|error| failed(error.to_string()))?)
            }
            Via::Longpoll => {
                let tls = if url.starts_with("https:") { Some(tls(false)?) } else { None };
                let dialled = longpoll::dial(url, settings, tls).await;
                visitor.visit(dialled.map_err(|error| failed(error.to_string()))?)
            }
        })
    }
}

/// Where a server's HTTP API is, and how it is known.
pub(super) struct Base<'a> {
    url: &'a str,
    pub(super) trust: Trust,
}

impl<'a> Base<'a> {
    /// With `hashes`, an https server's certificate is known by them.
    pub(super) fn new(url: &'a str, hashes: &[String]) -> Result<Self, DialError> {
        let url = url.trim_end_matches('/');
        let trust = match url.split_once("://") {
            // Nothing is encrypted, so nothing has to be trusted: not even the system's authorities are needed.
            Some(("http", _)) => Trust::CertificateHashes(vec![]),
            Some(("https", _)) if hashes.is_empty() => Trust::System,
            Some(("https", _)) => by_hash(hashes)?,
            _ => return Err(DialError::Url(url.into())),
        };
        Ok(Self { url, trust })
    }

    /// Which wires there are.
    pub(super) async fn transports(&self) -> Result<Transports, DialError> {
        let (status, body) = self.request(Method::GET, "/v1/transports", Bytes::new()).await?;
        if !status.is_success() {
            return Err(self.unreachable(format!("it answers {status}")));
        }
        self.read(&body)
    }

    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), DialError> {
        self.exchange(method, path, body).await.map_err(|reason| self.unreachable(reason))
    }

    pub(super) fn read<T: serde::de::DeserializeOwned>(&self, body: &[u8]) -> Result<T, DialError> {
        let not_understood = |error| self.unreachable(format!("its answer is not understood: {error}"));
        serde_json::from_slice(body).map_err(not_understood)
    }

    pub(super) fn unreachable(&self, reason: String) -> DialError {
        DialError::Unreachable { url: self.url.into(), reason }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let mut tls = self.trust.client_config(b"http/1.1").map_err(|error| error.to_string())?;
        // The connector sets the protocols itself.
        tls.alpn_protocols.clear();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = legacy::Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let response = client.request(request).await.map_err(|error| chain(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), DOCUMENT_LIMIT)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    }
}

/// What the cell holds, made at the first call that succeeds.
fn once<T, E>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
    match cell.get() {
        Some(made) => Ok(made),
        None => make().map(|made| cell.get_or_init(|| made)),
    }
}

fn by_hash(hashes: &[String]) -> Result<Trust, DialError> {
    let parse = |hash: &String| STANDARD.decode(hash).ok()?.try_into().ok();
    let hashes: Option<Vec<[u8; 32]>> = hashes.iter().map(parse).collect();
    Ok(Trust::CertificateHashes(hashes.ok_or(DialError::Hash)?))
}

/// An error with its causes: the outermost alone seldom says anything.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
