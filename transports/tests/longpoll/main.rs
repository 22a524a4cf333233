//! What long-polling promises beyond the contract: it is a protocol of its own, over requests that get lost.
//!
//! Most tests call the poller without a socket: hanging up is then to drop the future.

#![cfg(all(feature = "longpoll", feature = "dial"))]
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod answers;
mod nodes;
mod requests;
#[path = "../server/mod.rs"]
mod server;

use std::{future::Future, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use xpush_protocol::{Codec, TransportKind};
use xpush_transports::{
    Admission, Connection as _, Lane, Outgoing, Reader as _, Settings, Transport as _, Writer as _,
    longpoll::{self, Listener, Poller, Reader, Writer},
};

const CONNECT: &str = r#"{"connect":{"id":1}}"#;

struct Node {
    poller: Poller,
    listener: Listener,
    cancel: CancellationToken,
}

impl Node {
    fn start(settings: Settings, admission: Admission) -> Self {
        let cancel = CancellationToken::new();
        let (poller, listener) = longpoll::listener(settings, admission, cancel.clone());
        Self { poller, listener, cancel }
    }

    fn new() -> Self {
        Self::start(Settings::default(), Admission::new(1000, 1000))
    }

    /// A session that was begun, with its first answer: `welcome` and the checkpoint `c1`.
    async fn connect(&mut self) -> (Reader, Writer, String) {
        let poller = self.poller.clone();
        let first = tokio::spawn(async move { post(&poller, &json!({"frames": [connect()]})).await });
        let (mut reader, mut writer) = accept(&mut self.listener).await;
        assert_eq!(reader.read().await.unwrap(), CONNECT);
        write(&mut writer, &["\"welcome\""], "c1").await;
        let answer = first.await.unwrap();
        assert_eq!(answer["frames"], json!(["welcome"]));
        (reader, writer, state(&answer))
    }
}

async fn accept(listener: &mut Listener) -> (Reader, Writer) {
    let (peer, reader, writer) = listener.accept().await.unwrap().split();
    assert_eq!((peer.kind, peer.codec), (TransportKind::LongPoll, Some(Codec::Json)));
    assert!(peer.wants_checkpoints);
    (reader, writer)
}

fn connect() -> Value {
    serde_json::from_str(CONNECT).unwrap()
}

fn state(answer: &Value) -> String {
    answer["state"].as_str().expect("a state").to_owned()
}

async fn write(writer: &mut Writer, frames: &[&str], checkpoint: &str) {
    write_in(Lane::Control, writer, frames, checkpoint).await;
}

async fn write_in(lane: Lane, writer: &mut Writer, frames: &[&str], checkpoint: &str) {
    let frame = |text: &str, lane| Outgoing { bytes: Bytes::copy_from_slice(text.as_bytes()), lane };
    let mut outgoing: Vec<_> = frames.iter().map(|text| frame(text, lane)).collect();
    outgoing.push(frame(checkpoint, Lane::Checkpoint));
    writer.write(&mut outgoing).await.unwrap();
}

fn request(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post("/v1/poll").header(header::HOST, "chat.example").body(Full::new(body.into())).unwrap()
}

async fn respond(poller: &Poller, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
    poller.poll(SocketAddr::from(([127, 0, 0, 1], 1)), request).await
}

async fn body(response: Response<Full<Bytes>>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

async fn post(poller: &Poller, poll: &Value) -> Value {
    let response = respond(poller, request(poll.to_string())).await;
    assert_eq!(response.status(), StatusCode::OK, "{}", body(response).await);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    body(response).await
}

/// The refusal's status and code.
async fn refused(poller: &Poller, text: impl Into<Bytes>) -> (u16, String) {
    let response = respond(poller, request(text)).await;
    let status = response.status().as_u16();
    let body = body(response).await;
    assert!(body["retry"].is_boolean() && body["detail"].is_string(), "{body}");
    (status, body["code"].as_str().unwrap().to_owned())
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("it happens in time")
}
