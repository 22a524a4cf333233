//! What WebTransport promises beyond the contract of all wires: statuses, pooled streams, datagrams, and bounds
//! that hold before anybody is known. The clients are `web-transport-quinn`, and bare QUIC for what no sane client
//! does.

#![cfg(all(feature = "webtransport", feature = "dial"))]
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, header::ORIGIN};
use quinn::VarInt;
use web_transport_quinn::{
    Client, ClientBuilder, ClientError, ConnectError, RecvStream, SendStream, Session, SessionError,
    WebTransportError,
    proto::{ConnectError as NotConnected, ConnectRequest},
};
use xpush_protocol::{CloseCode, Codec, get_varint, put_varint};
use xpush_transports::{
    Admission, Closed, Connection as _, Farewell, Lane, Outgoing, Peer, Reader as _, Settings,
    Transport as _, Writer as _,
    webtransport::{Listener, PATH, Reader, Writer},
};

#[path = "contract/port.rs"]
mod port;

use port::Port;

/// A test that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

struct Server {
    listener: Listener,
    address: std::net::SocketAddr,
    port: Port,
}

impl Server {
    fn start(settings: Settings, admission: Admission) -> Self {
        let (udp, port) = Port::open(settings, admission);
        Self { listener: udp.webtransport, address: udp.local_addr, port }
    }

    fn with_defaults() -> Self {
        Self::start(Settings::default(), Admission::new(1000, 1000))
    }

    fn client(&self) -> Client {
        ClientBuilder::new().with_server_certificate_hashes(vec![self.port.hash.to_vec()]).unwrap()
    }

    fn request(&self, path: &str) -> ConnectRequest {
        ConnectRequest::new(url::Url::parse(&format!("https://{}{path}", self.address)).unwrap())
    }

    async fn accept(&mut self) -> (Peer, Reader, Writer) {
        in_time(self.listener.accept()).await.unwrap().split()
    }

    /// A session whose control stream is open.
    async fn connect(&mut self) -> (Page, (Reader, Writer)) {
        let session = in_time(self.client().connect(self.request(PATH))).await.unwrap();
        let (mut send, receive) = session.open_bi().await.unwrap();
        send.write_all(&framed(b"hello")).await.unwrap();
        let (_, mut reader, writer) = self.accept().await;
        assert_eq!(in_time(reader.read()).await.unwrap(), "hello");
        (Page { session, send, _receive: receive }, (reader, writer))
    }

    /// A QUIC connection that speaks no HTTP/3 yet.
    async fn bare(&self) -> quinn::Connection {
        let trust = xpush_transports::tls::Trust::CertificateHashes(vec![self.port.hash]);
        let tls = trust.client_config(b"h3").unwrap();
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut endpoint = quinn::Endpoint::client((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        in_time(endpoint.connect(self.address, "localhost").unwrap()).await.unwrap()
    }
}

/// The client's end of a session.
struct Page {
    session: Session,
    send: SendStream,
    _receive: RecvStream,
}

fn framed(frame: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(frame.len() as u64, &mut bytes);
    bytes.extend_from_slice(frame);
    bytes
}

/// All of a stream's frames.
async fn frames_of(stream: &mut RecvStream) -> Vec<Bytes> {
    let mut bytes = Bytes::from(in_time(stream.read_to_end(1 << 24)).await.unwrap());
    let mut frames = Vec::new();
    while let Ok(len) = get_varint(&mut bytes) {
        frames.push(bytes.split_to(usize::try_from(len).unwrap()));
    }
    frames
}

fn status(result: Result<Session, ClientError>) -> u16 {
    match result {
        Ok(_) => 200,
        Err(ClientError::HttpError(ConnectError::ProtoError(NotConnected::WrongStatus(Some(status))))) => {
            status.as_u16()
        }
        Err(error) => panic!("neither a session nor a status: {error}"),
    }
}

#[tokio::test]
async fn a_refusal_has_a_status() {
    let server = Server::start(Settings::default(), Admission::new(1, 1));
    let client = server.client();
    let connect = |request: ConnectRequest| in_time(client.connect(request));
    assert_eq!(status(connect(server.request("/v1/other")).await), 404);
    let of_origin = |origin: &'static str| {
        server.request("/v1/connect?token=x").with_header(ORIGIN, HeaderValue::from_static(origin))
    };
    assert_eq!(status(connect(of_origin("https://evil.example")).await), 403);
    let session = connect(of_origin("http://localhost:8080")).await.unwrap();
    assert_eq!(status(connect(of_origin("http://localhost:8080")).await), 429);
    drop(session);
}

#[tokio::test]
async fn the_subprotocol_is_agreed_on() {
    let mut server = Server::with_defaults();
    let offer = ["other/1", Codec::MessagePack.subprotocol(), Codec::Json.subprotocol()].map(str::to_owned);
    let request = server
        .request(PATH)
        .with_protocols(offer)
        .with_header(ORIGIN, HeaderValue::from_static("http://127.0.0.1:8080"));
    let session = in_time(server.client().connect(request)).await.unwrap();
    assert_eq!(session.protocol(), Some(Codec::MessagePack.subprotocol()));
    let (peer, _reader, _writer) = server.accept().await;
    assert_eq!(peer.codec, Some(Codec::MessagePack));
    assert_eq!(peer.origin.as_deref(), Some("http://127.0.0.1:8080"));
}

#[tokio::test]
async fn a_close_tells_code_and_reason_to_the_page() {
    let mut server = Server::with_defaults();
    let (page, (_reader, writer)) = server.connect().await;
    let closing = writer.close(Farewell::new(CloseCode::Draining, "the node leaves – ü"));
    let (closed, ()) = tokio::join!(in_time(page.session.closed()), in_time(closing));
    let SessionError::WebTransportError(WebTransportError::Closed(code, reason)) = closed else {
        panic!("{closed}")
    };
    assert_eq!((code, reason.as_str()), (4001, "the node leaves – ü"));
}

#[tokio::test]
async fn a_close_tells_code_and_reason_to_the_server() {
    let mut server = Server::with_defaults();
    // 7 is none of our codes: a page may close with any.
    for (code, known) in [(4001, CloseCode::Draining), (7, CloseCode::Normal), (0, CloseCode::Normal)] {
        let (page, (mut reader, _writer)) = server.connect().await;
        page.session.close(code, "tschüs".as_bytes());
        let closed = in_time(reader.read()).await;
        assert_eq!(closed, Err(Closed::ByPeer { code: known, reason: "tschüs".into() }));
    }
}

#[tokio::test]
async fn a_session_ends_when_the_server_drops_it() {
    let mut server = Server::with_defaults();
    let (page, halves) = server.connect().await;
    drop(halves);
    in_time(page.session.closed()).await;
}

#[tokio::test]
async fn many_channels_share_few_streams_and_keep_their_order() {
    const FRAMES: u32 = 600;
    const CHANNELS: u32 = 25;
    let mut server = Server::with_defaults();
    let (page, (_reader, mut writer)) = server.connect().await;
    for batch in 0..FRAMES / 50 {
        let mut frames: Vec<_> = (batch * 50..(batch + 1) * 50)
            .map(|number| Outgoing {
                bytes: format!("{} {number}", number % CHANNELS).into(),
                lane: if number % CHANNELS == 0 { Lane::Backfill } else { Lane::Live(number % CHANNELS) },
            })
            .collect();
        writer.write(&mut frames).await.unwrap();
    }
    let closing = tokio::spawn(writer.close(Farewell::new(CloseCode::Normal, "")));
    let mut streams: HashMap<u32, usize> = HashMap::new();
    let mut last: HashMap<u32, u32> = HashMap::new();
    let mut read = 0;
    for stream in 0..5 {
        let mut receive = in_time(page.session.accept_uni()).await.unwrap();
        for frame in frames_of(&mut receive).await {
            let text = std::str::from_utf8(&frame).unwrap();
            let (channel, number) = text.split_once(' ').unwrap();
            let (channel, number): (u32, u32) = (channel.parse().unwrap(), number.parse().unwrap());
            assert_eq!(
                *streams.entry(channel).or_insert(stream),
                stream,
                "channel {channel} has two streams"
            );
            let before = last.insert(channel, number);
            assert!(
                before.is_none_or(|before| before + CHANNELS == number),
                "channel {channel} out of order"
            );
            read += 1;
        }
    }
    assert_eq!(read, FRAMES);
    in_time(closing).await.unwrap();
}

#[tokio::test]
async fn what_is_ephemeral_goes_as_a_datagram_if_it_fits() {
    let mut server = Server::with_defaults();
    let (page, (_reader, mut writer)) = server.connect().await;
    let ephemeral = |bytes: Bytes| Outgoing { bytes, lane: Lane::Ephemeral(1) };
    let large = Bytes::from(vec![b'x'; 4000]);
    let mut frames = vec![
        ephemeral(Bytes::from_static(b"one")),
        ephemeral(large.clone()),
        ephemeral(Bytes::from_static(b"two")),
    ];
    writer.write(&mut frames).await.unwrap();
    let datagram = in_time(page.session.read_datagram()).await.unwrap();
    assert_eq!(datagram, [framed(b"one"), framed(b"two")].concat());
    tokio::spawn(writer.close(Farewell::new(CloseCode::Normal, "")));
    let mut stream = in_time(page.session.accept_uni()).await.unwrap();
    assert_eq!(frames_of(&mut stream).await, [large]);
}

#[tokio::test]
async fn the_pages_datagrams_are_read_beside_its_control_stream() {
    let mut server = Server::with_defaults();
    let (mut page, (mut reader, _writer)) = server.connect().await;
    let datagram = [framed(b"one"), framed(b"two")].concat();
    page.session.send_datagram(datagram.into()).unwrap();
    assert_eq!(in_time(reader.read()).await.unwrap(), "one");
    assert_eq!(in_time(reader.read()).await.unwrap(), "two");
    page.send.write_all(&framed(b"three")).await.unwrap();
    assert_eq!(in_time(reader.read()).await.unwrap(), "three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_sessions_in_parallel_all_connect() {
    const SESSIONS: usize = 64;
    let mut server = Server::with_defaults();
    let client = server.client();
    let mut dials = tokio::task::JoinSet::new();
    for _ in 0..SESSIONS {
        let (client, request) = (client.clone(), server.request(PATH));
        dials.spawn(async move { client.connect(request).await });
    }
    let mut accepted = Vec::new();
    for _ in 0..SESSIONS {
        accepted.push(server.accept().await);
    }
    let sessions = in_time(dials.join_all()).await;
    assert_eq!(sessions.iter().filter(|session| session.is_ok()).count(), SESSIONS);
}

#[tokio::test]
async fn a_second_bidirectional_stream_is_refused() {
    let mut server = Server::with_defaults();
    let (page, _halves) = server.connect().await;
    for _ in 0..40 {
        // Each is let go of, so that there is always room for the next one.
        let (mut send, mut receive) = in_time(page.session.open_bi()).await.unwrap();
        // An error: it was stopped already.
        let _ = send.write_all(b"x").await;
        assert!(in_time(receive.read(&mut [0])).await.is_err());
    }
}

/// The server's settings, as (id, value).
async fn settings_of(connection: &quinn::Connection) -> HashMap<u64, u64> {
    loop {
        let mut stream = in_time(connection.accept_uni()).await.unwrap();
        let mut bytes = BytesMut::new();
        loop {
            let chunk = in_time(stream.read_chunk(1024, true)).await.unwrap().unwrap();
            bytes.extend_from_slice(&chunk.bytes);
            let mut rest = &bytes[..];
            if get_varint(&mut rest) != Ok(0) {
                break; // QPACK's
            }
            let (Ok(4), Ok(len)) = (get_varint(&mut rest), get_varint(&mut rest)) else { continue };
            if rest.len() as u64 >= len {
                let mut settings = HashMap::new();
                while let (Ok(id), Ok(value)) = (get_varint(&mut rest), get_varint(&mut rest)) {
                    settings.insert(id, value);
                }
                return settings;
            }
        }
    }
}

#[tokio::test]
async fn the_settings_are_those_that_browsers_want() {
    let server = Server::with_defaults();
    let connection = server.bare().await;
    let settings = settings_of(&connection).await;
    // Extended CONNECT, datagrams, WebTransport of draft 02.
    for id in [0x08, 0x33, 0x2b60_3742] {
        assert_eq!(settings.get(&id), Some(&1), "{id:#x} in {settings:?}");
    }
}

#[tokio::test]
async fn http_buffers_no_more_than_its_budget() {
    let server = Server::with_defaults();
    let connection = server.bare().await;
    // HEADERS of 200 MB.
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    let mut bytes = Vec::new();
    put_varint(1, &mut bytes);
    put_varint(200 << 20, &mut bytes);
    send.write_all(&bytes).await.unwrap();
    let refused = in_time(async {
        loop {
            if let Err(error) = send.write_all(&[0; 4096]).await {
                return error;
            }
        }
    });
    match refused.await {
        quinn::WriteError::Stopped(code) => assert_eq!(code, VarInt::from_u32(0x107)),
        quinn::WriteError::ConnectionLost(_) => {}
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_connection_without_a_session_is_let_go() {
    let settings = Settings { handshake_deadline: Duration::from_millis(300), ..Settings::default() };
    let server = Server::start(settings, Admission::new(1000, 1000));
    let connection = server.bare().await;
    in_time(connection.closed()).await;
}
