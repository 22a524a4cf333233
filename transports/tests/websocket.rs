//! What WebSocket promises beyond the contract: the handshake, and what a foreign or hostile peer may do.

#![cfg(all(feature = "websocket", feature = "dial"))]
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod server;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest as _,
        protocol::{
            CloseFrame,
            frame::{
                Frame,
                coding::{CloseCode as WireCode, Data, OpCode},
            },
        },
    },
};
use tokio_util::sync::CancellationToken;
use xpush_protocol::{CloseCode, Codec, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK};
use xpush_transports::{
    Admission, Closed, Connection as _, Farewell, Lane, Outgoing, Peer, Reader as _, Settings,
    Transport as _, Writer as _,
    websocket::{self, Listener, Reader, Writer},
};

const HELLO: &str = "\"hello\"";

struct Node {
    listener: Listener,
    server: server::Server,
}

type Response = http::Response<Option<Vec<u8>>>;

impl Node {
    async fn start(settings: Settings, admission: Admission) -> Self {
        let (upgrader, listener) = websocket::listener(settings, admission, CancellationToken::new());
        let server = server::Server::start(move |peer, request| {
            let response = upgrader.upgrade(peer, request);
            async move { response }
        })
        .await;
        Self { listener, server }
    }

    async fn new() -> Self {
        Self::start(Settings::default(), Admission::new(100, 100)).await
    }

    /// Asks for a WebSocket with these headers: a socket, or the refusal.
    async fn ask(
        &self,
        headers: &[(&'static str, &str)],
    ) -> Result<(WebSocketStream<TcpStream>, Response), Response> {
        let mut request = format!("ws://{}/v1/connect", self.server.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let socket = TcpStream::connect(self.server.address).await.unwrap();
        match client_async(request, socket).await {
            Ok(answer) => Ok(answer),
            Err(Error::Http(response)) => Err(*response),
            Err(error) => panic!("{error}"),
        }
    }

    async fn accept(&mut self) -> (Peer, Reader, Writer) {
        self.listener.accept().await.unwrap().split()
    }

    /// A connection of the JSON codec whose first frame was read.
    async fn connect(&mut self) -> (WebSocketStream<TcpStream>, Reader, Writer) {
        let (mut client, _) = self.ask(&[("sec-websocket-protocol", SUBPROTOCOL_JSON)]).await.unwrap();
        client.send(Message::text(HELLO)).await.unwrap();
        let (_, mut reader, writer) = self.accept().await;
        assert_eq!(reader.read().await.unwrap(), HELLO);
        (client, reader, writer)
    }
}

fn outgoing(frame: &'static [u8]) -> Vec<Outgoing> {
    vec![Outgoing { bytes: Bytes::from_static(frame), lane: Lane::Control }]
}

fn reason(response: &Response) -> (u16, String) {
    let body: serde_json::Value = serde_json::from_slice(response.body().as_deref().unwrap()).unwrap();
    assert!(!body["detail"].as_str().unwrap().is_empty());
    (response.status().as_u16(), body["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_first_subprotocol_that_is_known_is_agreed_on() {
    let mut node = Node::new().await;
    for (offer, codec) in [
        (SUBPROTOCOL_JSON, Codec::Json),
        (SUBPROTOCOL_MSGPACK, Codec::MessagePack),
        ("mqtt, xpush.v1.msgpack,xpush.v1.json", Codec::MessagePack),
    ] {
        let (_client, response) = node.ask(&[("sec-websocket-protocol", offer)]).await.unwrap();
        assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], codec.subprotocol());
        assert_eq!(node.accept().await.0.codec, Some(codec));
    }
    let (_client, response) = node.ask(&[]).await.unwrap();
    assert!(!response.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL));
    assert_eq!(node.accept().await.0.codec, None);

    let refusal = node.ask(&[("sec-websocket-protocol", "mqtt, xpush.v9.json")]).await.unwrap_err();
    assert_eq!(reason(&refusal), (400, "not_supported".into()));
}

#[tokio::test]
async fn each_frame_goes_as_the_kind_of_message_that_it_is() {
    let mut node = Node::new().await;
    let (mut client, _) = node.ask(&[]).await.unwrap();
    let (_, mut reader, mut writer) = node.accept().await;
    client.send(Message::binary(&b"\x81\xa1a\x01"[..])).await.unwrap();
    assert_eq!(reader.read().await.unwrap(), &b"\x81\xa1a\x01"[..]);
    writer.write(&mut outgoing(b"\x81\xa1b\x01")).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(&b"\x81\xa1b\x01"[..]));
    writer.write(&mut outgoing(b"{}")).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("{}"));
}

#[tokio::test]
async fn a_message_of_the_other_kind_breaks_the_protocol() {
    let mut node = Node::new().await;
    let (mut client, mut reader, _writer) = node.connect().await;
    client.send(Message::binary(&b"\x81\xa1a\x01"[..])).await.unwrap();
    assert!(matches!(reader.read().await, Err(Closed::Protocol(_))));
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused() {
    let mut node = Node::new().await;
    let refusal = node.ask(&[("origin", "https://evil.example")]).await.unwrap_err();
    assert_eq!(reason(&refusal), (403, "permission_denied".into()));
    let (_client, _) = node.ask(&[("origin", "http://localhost:3000")]).await.unwrap();
    assert_eq!(node.accept().await.0.origin.as_deref(), Some("http://localhost:3000"));
}

#[tokio::test]
async fn connections_over_the_limit_are_refused_with_a_reason() {
    let node = Node::start(Settings::default(), Admission::new(1, 1)).await;
    let _first = node.ask(&[]).await.unwrap();
    let refusal = node.ask(&[]).await.unwrap_err();
    assert_eq!(reason(&refusal), (429, "limit_reached".into()));
}

#[tokio::test]
async fn a_request_for_no_websocket_is_refused() {
    let (upgrader, _listener) =
        websocket::listener(Settings::default(), Admission::new(9, 9), CancellationToken::new());
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let complete = || {
        Request::get("/v1/connect")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let response = upgrader.upgrade(peer, complete().body(()).unwrap());
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    // RFC 6455, section 1.3.
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    for missing in ["connection", "upgrade", "sec-websocket-version", "sec-websocket-key"] {
        let mut request = complete().body(()).unwrap();
        request.headers_mut().remove(missing);
        let response = upgrader.upgrade(peer, request);
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{missing}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(br#"{"type":"about:blank","title":"Bad Request""#), "{body:?}");
    }
    assert_eq!(upgrader.upgrade(peer, complete().method("POST").body(()).unwrap()).status(), 400);
}

#[tokio::test]
async fn a_frame_that_announces_too_much_is_refused_before_it_comes() {
    let mut node = Node::new().await;
    let (mut client, mut reader, writer) = node.connect().await;
    // A masked text frame of 1 GiB, of which nothing follows.
    let mut head = vec![0x81, 0xff];
    head.extend_from_slice(&(1_u64 << 30).to_be_bytes());
    head.extend_from_slice(&[1, 2, 3, 4]);
    client.get_mut().write_all(&head).await.unwrap();
    let closed = reader.read().await.unwrap_err();
    assert_eq!(closed, Closed::FrameTooLarge { size: 1 << 30, limit: 64 * 1024 });
    let closing = tokio::spawn(writer.close(closed.farewell()));
    let Some(Ok(Message::Close(Some(frame)))) = client.next().await else { panic!("a close") };
    assert_eq!(u16::from(frame.code), 4501);
    drop(client);
    closing.await.unwrap();
}

#[tokio::test]
async fn fragments_count_together() {
    let settings = Settings { frame_limit: 4096, ..Settings::default() };
    let mut node = Node::start(settings, Admission::new(9, 9)).await;
    let fragment = |number: usize, last: bool| {
        let kind = if number == 0 { Data::Text } else { Data::Continue };
        Message::Frame(Frame::message(vec![b'1'; 1024], OpCode::Data(kind), last))
    };
    let (mut client, mut reader, _writer) = node.connect().await;
    for number in 0..4 {
        client.send(fragment(number, number == 3)).await.unwrap();
    }
    assert_eq!(reader.read().await.unwrap().len(), 4096);
    for number in 0..5 {
        client.send(fragment(number, false)).await.unwrap();
    }
    assert_eq!(reader.read().await, Err(Closed::FrameTooLarge { size: 5 * 1024, limit: 4096 }));
}

#[tokio::test]
async fn a_peer_that_only_answers_pings_is_alive() {
    const IDLE: Duration = Duration::from_millis(600);
    let settings = Settings { idle_deadline: IDLE, ..Settings::default() };
    let mut node = Node::start(settings, Admission::new(9, 9)).await;
    let (mut client, mut reader, _writer) = node.connect().await;
    let mut pings = 0;
    let listens = timeout(IDLE * 3, async {
        while let Some(Ok(Message::Ping(_))) = client.next().await {
            pings += 1;
        }
    });
    let (listened, end) = tokio::join!(listens, timeout(IDLE * 3, reader.read()));
    assert!(listened.is_err() && end.is_err(), "the connection lives: {end:?}");
    assert!(pings > 3, "{pings} pings");
    // Now it answers nothing.
    assert_eq!(reader.read().await, Err(Closed::Idle));
}

#[tokio::test]
async fn a_ping_is_answered_but_is_no_first_frame() {
    let settings = Settings { handshake_deadline: Duration::from_millis(500), ..Settings::default() };
    let mut node = Node::start(settings, Admission::new(9, 9)).await;
    let (mut client, _) = node.ask(&[]).await.unwrap();
    let (_, mut reader, _writer) = node.accept().await;
    let pings = async {
        for _ in 0..100 {
            client.send(Message::Ping(Bytes::from_static(b"x"))).await.unwrap();
            let pong = Message::Pong(Bytes::from_static(b"x"));
            assert_eq!(client.next().await.unwrap().unwrap(), pong);
        }
        std::future::pending().await
    };
    let end = tokio::select! {
        end = reader.read() => end,
        end = pings => end,
    };
    assert_eq!(end, Err(Closed::HandshakeTimeout));
}

#[tokio::test]
async fn nothing_is_compressed_even_if_it_is_offered() {
    let mut node = Node::new().await;
    let offer = ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");
    let (mut client, response) = node.ask(&[offer]).await.unwrap();
    assert!(!response.headers().contains_key(header::SEC_WEBSOCKET_EXTENSIONS));
    let (_, mut reader, _writer) = node.accept().await;
    let mut compressed = Frame::message(&b"{}"[..], OpCode::Data(Data::Text), true);
    compressed.header_mut().rsv1 = true;
    client.send(Message::Frame(compressed)).await.unwrap();
    assert!(matches!(reader.read().await, Err(Closed::Protocol(_))));
}

#[tokio::test]
async fn a_code_that_is_not_ours_is_a_normal_end() {
    let mut node = Node::new().await;
    for (code, seen) in [
        (Some(WireCode::Normal), CloseCode::Normal),
        (Some(WireCode::Away), CloseCode::Normal),
        (Some(WireCode::Library(4001)), CloseCode::Draining),
        (Some(WireCode::Library(4777)), CloseCode::Other(4777)),
        (None, CloseCode::Normal),
    ] {
        let (mut client, mut reader, _writer) = node.connect().await;
        let frame = code.map(|code| CloseFrame { code, reason: "bye".into() });
        client.send(Message::Close(frame)).await.unwrap();
        let Err(Closed::ByPeer { code, .. }) = reader.read().await else { panic!("a close") };
        assert_eq!(code, seen);
        // It is answered, though nobody closes this end.
        assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
    }
}

#[tokio::test]
async fn what_is_written_goes_out_in_one_piece() {
    let mut node = Node::new().await;
    let (client, _reader, mut writer) = node.connect().await;
    let mut socket = client.into_inner();
    let mut frames: Vec<_> = (0..50).flat_map(|_| outgoing(b"{\"a\":1}")).collect();
    writer.write(&mut frames).await.unwrap();
    let mut bytes = [0; 1024];
    socket.readable().await.unwrap();
    assert_eq!(socket.read(&mut bytes).await.unwrap(), 50 * 9);
}

#[tokio::test]
async fn a_reader_ends_when_its_writer_closes() {
    let mut node = Node::new().await;
    let (client, mut reader, writer) = node.connect().await;
    let reads = tokio::spawn(async move { reader.read().await });
    tokio::task::yield_now().await;
    let closing = tokio::spawn(writer.close(Farewell::new(CloseCode::Normal, "")));
    assert!(matches!(reads.await.unwrap(), Err(Closed::Lost(_))));
    drop(client);
    closing.await.unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_let_go_is_cut_off() {
    let mut node = Node::new().await;
    let (client, _reader, writer) = node.connect().await;
    timeout(Duration::from_secs(10), writer.close(Farewell::new(CloseCode::Normal, ""))).await.unwrap();
    drop(client);
}

/// Serves one connection over a stream that is not a TCP socket, as TLS is not.
async fn over_any_stream<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(ours: S, theirs: S) {
    let (upgrader, mut listener) =
        websocket::listener(Settings::default(), Admission::new(9, 9), CancellationToken::new());
    let serves = tokio::spawn(async move {
        let service = service_fn(move |request| {
            let response = upgrader.upgrade(SocketAddr::from(([127, 0, 0, 1], 1)), request);
            async move { Ok::<_, std::convert::Infallible>(response) }
        });
        let http = hyper::server::conn::http1::Builder::new();
        http.serve_connection(TokioIo::new(ours), service).with_upgrades().await.unwrap();
    });
    let (mut client, _) = client_async("ws://localhost/v1/connect", theirs).await.unwrap();
    client.send(Message::text(HELLO)).await.unwrap();
    let (_, mut reader, mut writer) = listener.accept().await.unwrap().split();
    assert_eq!(reader.read().await.unwrap(), HELLO);
    writer.write(&mut outgoing(b"{}")).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("{}"));
    serves.await.unwrap();
}

#[tokio::test]
async fn any_stream_will_do() {
    let (ours, theirs) = tokio::io::duplex(1024);
    over_any_stream(ours, theirs).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    over_any_stream(listener.accept().await.unwrap().0, theirs).await;
}

#[tokio::test]
async fn a_dialler_learns_why_it_was_refused() {
    let node = Node::start(Settings::default(), Admission::new(0, 0)).await;
    let url = format!("ws://{}/v1/connect", node.server.address);
    let refused = websocket::dial(&url, None, &Settings::default(), None).await.unwrap_err();
    let websocket::DialError::Refused { status: 429, body } = refused else { panic!("{refused}") };
    assert!(body.contains("limit_reached"), "{body}");
    for url in ["http://localhost/", "ws:/x", "", "wss://localhost:1/"] {
        assert!(websocket::dial(url, None, &Settings::default(), None).await.is_err(), "{url}");
    }
}
