//! The wires over HTTP, behind TLS: `wss:` and `https:`, on one port that prefers HTTP/2.

#![cfg(all(feature = "websocket", feature = "longpoll", feature = "dial", feature = "tls"))]
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::ClientConfig;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use xpush_protocol::Codec;
use xpush_transports::{
    Admission, Closed, Connection, Lane, Outgoing, Reader as _, Settings, Transport, Writer as _,
    longpoll::{self, Poller},
    tls::{Certificates, Trust, system_clock},
    websocket::{self, Upgrader},
};

struct Node {
    address: SocketAddr,
    websockets: websocket::Listener,
    polls: longpoll::Listener,
    trust: Arc<ClientConfig>,
    _certificates: TempDir,
    _tasks: JoinSet<()>,
}

impl Node {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates::self_signed(directory.path(), &[], system_clock()).unwrap();
        let hash = STANDARD.decode(&certificates.hashes()[0]).unwrap().try_into().unwrap();
        let trust = Arc::new(Trust::CertificateHashes(vec![hash]).client_config(b"other").unwrap());
        let tls = TlsAcceptor::from(Arc::new(certificates.server_config(&[b"h2", b"http/1.1"])));
        let (admission, cancel) = (Admission::new(9, 9), CancellationToken::new());
        let (upgrader, websockets) =
            websocket::listener(Settings::default(), admission.clone(), cancel.clone());
        let (poller, polls) = longpoll::listener(Settings::default(), admission, cancel);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, tls, upgrader, poller));
        Self { address, websockets, polls, trust, _certificates: directory, _tasks: tasks }
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, upgrader: Upgrader, poller: Poller) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, peer) = listener.accept().await.unwrap();
        let (tls, upgrader, poller) = (tls.clone(), upgrader.clone(), poller.clone());
        connections.spawn(async move {
            let Ok(stream) = tls.accept(socket).await else { return };
            let service = service_fn(move |request: Request<Incoming>| {
                let (upgrader, poller) = (upgrader.clone(), poller.clone());
                async move {
                    Ok::<_, Infallible>(match request.uri().path() {
                        "/v1/connect" => upgrader.upgrade(peer, request),
                        _ => poller.poll(peer, request).await,
                    })
                }
            });
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn frame(text: &'static str) -> Vec<Outgoing> {
    vec![Outgoing { bytes: Bytes::from_static(text.as_bytes()), lane: Lane::Control }]
}

/// A frame each way.
async fn greet(client: impl Connection, listener: &mut impl Transport) {
    let (_, mut from_server, mut to_server) = client.split();
    to_server.write(&mut frame("\"hello\"")).await.unwrap();
    let (_, mut from_client, mut to_client) = listener.accept().await.unwrap().split();
    assert_eq!(from_client.read().await.unwrap(), "\"hello\"");
    to_client.write(&mut frame("\"welcome\"")).await.unwrap();
    assert_eq!(from_server.read().await.unwrap(), "\"welcome\"");
}

#[tokio::test]
async fn a_websocket_is_had_over_tls() {
    let mut node = Node::start().await;
    let url = format!("wss://localhost:{}/v1/connect", node.address.port());
    let settings = Settings::default();
    let client = websocket::dial(&url, Some(Codec::Json), &settings, Some(node.trust.clone())).await.unwrap();
    greet(client, &mut node.websockets).await;
    assert!(matches!(websocket::dial(&url, None, &settings, None).await, Err(websocket::DialError::NoTls)));
}

#[tokio::test]
async fn polls_are_had_over_tls() {
    let mut node = Node::start().await;
    let url = format!("https://localhost:{}/v1/poll", node.address.port());
    let client = longpoll::dial(&url, &Settings::default(), Some(node.trust.clone())).await.unwrap();
    greet(client, &mut node.polls).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_ends_it() {
    let node = Node::start().await;
    let stranger = Arc::new(Trust::CertificateHashes(vec![[0; 32]]).client_config(b"").unwrap());
    let url = format!("wss://localhost:{}/v1/connect", node.address.port());
    let refused = websocket::dial(&url, None, &Settings::default(), Some(stranger.clone())).await;
    assert!(matches!(refused, Err(websocket::DialError::Io(_))), "{refused:?}");
    let url = format!("https://localhost:{}/v1/poll", node.address.port());
    let client = longpoll::dial(&url, &Settings::default(), Some(stranger)).await.unwrap();
    let (_, mut reader, mut writer) = client.split();
    writer.write(&mut frame("\"hello\"")).await.unwrap();
    assert!(matches!(reader.read().await, Err(Closed::Lost(_))));
}
