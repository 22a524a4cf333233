//! Whatever comes in: it gets its own typed error, the server goes on, and nobody else notices.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use xpush::{
    auth::{Algorithm, Claims, Signer},
    client::{Server, Via},
};
use xpush_protocol::{ClientFrame, CloseCode, Codec, Connect, ErrorCode, Ping, ServerFrame};
use xpush_transports::Closed;

use super::{
    client::{RawWire, Session, WIRES},
    http::{get, post, request},
    process::{PATIENCE, ServerProcess, run, until},
    websocket::{BINARY, CONTINUATION, Ended, PING, RawSocket, TEXT, encoded},
};

/// Wires that carry any bytes as a frame. A long poll's frames are part of a JSON body: see below.
const FRAME_WIRES: [Via; 3] = [Via::Quic, Via::Webtransport, Via::Websocket];
const FRAME_LIMIT: usize = 1 << 20;
const LARGE_FRAMES: [&str; 2] = ["--set", "limits.frame=1048576"];

/// A client that does nothing wrong: its pings are answered and its publications arrive, all the while.
struct Bystander {
    stop: CancellationToken,
    task: JoinHandle<(u64, Duration)>,
}

impl Bystander {
    async fn start(server: &ServerProcess) -> Self {
        let mut session = Session::open(server, Via::Websocket).await;
        session.subscribe("room:bystander").await.unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while !stopped.is_cancelled() {
                let began = Instant::now();
                session.ping().await;
                count += 1;
                let published = session.publish("room:bystander", count).await.unwrap();
                assert_eq!(session.publication().await, (published.cursor.offset, count.to_string()));
                slowest = slowest.max(began.elapsed());
            }
            session.client.close().await;
            (count, slowest)
        });
        Self { stop, task }
    }

    async fn noticed_nothing(self) {
        self.stop.cancel();
        let (count, slowest) = self.task.await.unwrap();
        assert!(count > 0);
        println!("{count} round trips beside it, the slowest took {slowest:?}");
    }
}

fn deep_json(depth: usize) -> String {
    format!(
        r#"{{"publish":{{"id":9,"channel":"room:a","data":{}{}}}}}"#,
        "[".repeat(depth),
        "]".repeat(depth)
    )
}

/// `{"publish":{"id":9,"channel":"room:a","data":[[[…]]]}}` in MessagePack.
fn deep_messagepack(depth: usize) -> Vec<u8> {
    let mut frame = b"\x81\xa7publish\x83\xa2id\x09\xa7channel\xa6room:a\xa4data".to_vec();
    frame.extend(vec![0x91; depth]);
    frame.push(0xc0);
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_frame_gets_its_own_error_and_the_session_goes_on() {
    let server = ServerProcess::with(&LARGE_FRAMES).await;
    let bystander = Bystander::start(&server).await;
    let long = format!(r#"{{"subscribe":{{"id":9,"channel":"room:{}"}}}}"#, "x".repeat(10_000));
    let cases: Vec<(Vec<u8>, ErrorCode, Option<u32>)> = [
        (r#"{"publish":"#, ErrorCode::Malformed, None),
        ("[]", ErrorCode::InvalidField, None),
        ("{}", ErrorCode::InvalidField, None),
        (r#"{"fly":{"id":9}}"#, ErrorCode::UnknownCommand, Some(9)),
        (r#"{"ping":{"id":"nine"}}"#, ErrorCode::InvalidField, None),
        (r#"{"ping":{"id":-1}}"#, ErrorCode::InvalidField, None),
        (r#"{"ping":{"id":9,"more":1}}"#, ErrorCode::InvalidField, Some(9)),
        (r#"{"publish":{"id":9,"channel":7,"data":1}}"#, ErrorCode::InvalidField, Some(9)),
        (r#"{"subscribe":{"id":9,"channel":"room:../etc"}}"#, ErrorCode::InvalidName, Some(9)),
        (r#"{"subscribe":{"id":9,"channel":"room:a\u0000b"}}"#, ErrorCode::InvalidName, Some(9)),
        (r#"{"subscribe":{"id":9,"channel":"room:a\r\nb"}}"#, ErrorCode::InvalidName, Some(9)),
        (&long, ErrorCode::InvalidName, Some(9)),
        (&deep_json(100_000), ErrorCode::TooDeep, Some(9)),
    ]
    .into_iter()
    .map(|(frame, code, id)| (frame.as_bytes().to_vec(), code, id))
    .collect();
    for via in FRAME_WIRES {
        let mut wire = RawWire::session(&server, via, Codec::Json).await;
        for (frame, code, id) in &cases {
            wire.raw(frame.clone()).await;
            let error = wire.refusal().await;
            let shown = String::from_utf8_lossy(&frame[..frame.len().min(60)]).into_owned();
            assert_eq!((error.code, error.id), (*code, *id), "{via}: {shown}: {}", error.message);
            assert!(error.message.len() < 1000, "{}", error.message.len());
        }
        wire.send(&ClientFrame::Ping(Ping { id: 5 })).await;
        assert!(matches!(wire.next().await, Ok(ServerFrame::Pong(pong)) if pong.id == 5));
        // Who goes on like that speaks another protocol.
        for _ in cases.len()..16 {
            wire.raw("{").await;
        }
        let closed = wire.end().await;
        assert!(matches!(closed, Closed::ByPeer { code: CloseCode::ProtocolError, .. }), "{via}: {closed}");

        let mut wire = RawWire::session(&server, via, Codec::MessagePack).await;
        for (frame, code) in [
            (deep_messagepack(100_000), ErrorCode::TooDeep),
            (b"\x81\xa4ping\x81\xa2id\xa1x".to_vec(), ErrorCode::InvalidField),
            (b"\x81\xa3fly\x81\xa2id\x09".to_vec(), ErrorCode::UnknownCommand),
            (b"\x81\xa4ping".to_vec(), ErrorCode::Malformed),
            // Arrays, maps and texts of four billion, and nothing behind the count.
            (b"\xdd\xff\xff\xff\xff".to_vec(), ErrorCode::Malformed),
            (b"\xdf\xff\xff\xff\xff".to_vec(), ErrorCode::Malformed),
            (b"\x81\xdb\xff\xff\xff\xff".to_vec(), ErrorCode::Malformed),
        ] {
            wire.raw(frame.clone()).await;
            let error = wire.refusal().await;
            assert_eq!(error.code, code, "{via}: {:x?}: {}", &frame[..frame.len().min(8)], error.message);
        }
        wire.send(&ClientFrame::Ping(Ping { id: 5 })).await;
        assert!(matches!(wire.next().await, Ok(ServerFrame::Pong(_))));
    }
    bystander.noticed_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_over_the_limit_and_a_first_frame_that_is_no_connect_end_the_connection() {
    let server = ServerProcess::start().await;
    let bystander = Bystander::start(&server).await;
    for via in FRAME_WIRES {
        let mut wire = RawWire::session(&server, via, Codec::Json).await;
        wire.raw(vec![b' '; (64 << 10) + 1]).await;
        let closed = wire.end().await;
        assert!(matches!(closed, Closed::ByPeer { code: CloseCode::FrameTooLarge, .. }), "{via}: {closed}");
        assert!(!CloseCode::FrameTooLarge.may_reconnect());

        for (frame, code) in [
            ("{", ErrorCode::Malformed),
            (r#"{"ping":{"id":3}}"#, ErrorCode::OutOfOrder),
            ("\u{1}", ErrorCode::Malformed),
        ] {
            let mut wire = RawWire::open(&server, via, Codec::Json).await;
            wire.raw(frame).await;
            assert_eq!(wire.refusal().await.code, code, "{via}: {frame}");
            let closed = wire.end().await;
            assert!(
                matches!(closed, Closed::ByPeer { code: CloseCode::ProtocolError, .. }),
                "{via}: {closed}"
            );
        }
    }
    bystander.noticed_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_frames_that_break_its_rules_end_the_connection() {
    let server = ServerProcess::with(&LARGE_FRAMES).await;
    let bystander = Bystander::start(&server).await;
    let ended = async |frames: Vec<Vec<u8>>| {
        let mut socket = RawSocket::session(server.http).await;
        for frame in frames {
            socket.raw(&frame).await;
        }
        socket.end().await
    };
    let closed = |ended: &Ended, wanted: u16| matches!(ended, Ended::Closed { code, .. } if *code == wanted);
    for (what, frames) in [
        ("a continuation of nothing", vec![encoded(CONTINUATION, true, b"x")]),
        ("a message within a message", vec![encoded(TEXT, false, b"{"), encoded(TEXT, true, b"{}")]),
        ("an unknown opcode", vec![encoded(3, true, b"")]),
        ("a ping in pieces", vec![encoded(PING, false, b"")]),
        ("a long ping", vec![encoded(PING, true, &[0; 126])]),
        ("no mask", vec![vec![0x81, 2, b'{', b'}']]),
        ("a reserved bit", vec![vec![0xc1, 0x80, 0, 0, 0, 0]]),
        ("text that is none", vec![encoded(TEXT, true, b"\xff\xfe")]),
    ] {
        let ended = ended(frames).await;
        assert!(closed(&ended, 4500), "{what}: {ended:?}");
    }
    // By its length alone, before any of it comes.
    let announced = [&[0x82, 0xff][..], &(FRAME_LIMIT as u64 + 1).to_be_bytes(), &[0; 4]].concat();
    let over = ended(vec![announced]).await;
    assert!(closed(&over, 4501), "{over:?}");
    let endless = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    let over = ended(vec![endless]).await;
    assert!(closed(&over, 4501) || closed(&over, 4500), "{over:?}");
    bystander.noticed_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_tiny_fragments_come_to_an_end() {
    let arguments = ["--set", "limits.idle_deadline=4s", "--set", "limits.ping_interval=1s"];
    let server = ServerProcess::with(&arguments).await;
    let bystander = Bystander::start(&server).await;
    // One byte each: the limit of a frame counts them together. Empty ones: they are no sign of life, as an answer
    // to a ping would be.
    for (payload, wanted) in [(&b"x"[..], CloseCode::FrameTooLarge), (b"", CloseCode::Idle)] {
        let mut socket = RawSocket::session(server.http).await;
        socket.answers_pings = false;
        socket.frame(TEXT, false, payload).await;
        let fragments = encoded(CONTINUATION, false, payload).repeat(1000);
        let deadline = Instant::now() + PATIENCE;
        let ended = loop {
            socket.raw(&fragments).await;
            if let Ok(ended) = timeout(Duration::from_millis(1), socket.end()).await {
                break ended;
            }
            assert!(Instant::now() < deadline, "they never end");
        };
        match ended {
            Ended::Closed { code, .. } => assert_eq!(code, wanted.number()),
            // What was still under way resets the connection.
            Ended::Cut => {}
        }
    }
    bystander.noticed_nothing().await;
}

/// Who claims to be ann, and how that is refused.
async fn bad_tokens(server: &ServerProcess) -> Vec<(String, ErrorCode)> {
    let secret = server.dev_key("token_secret");
    let sign = |claims: Value| {
        let claims: Claims = serde_json::from_value(claims).unwrap();
        Signer::new(Algorithm::Hs256, None, secret.as_bytes()).unwrap().sign(&claims).unwrap()
    };
    let everything = json!({ "**": ["subscribe", "publish"] });
    let good = sign(json!({ "sub": "ann", "exp": 4_000_000_000_u64, "channels": everything }));
    let parts: Vec<&str> = good.split('.').collect();
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let none = encode(r#"{"alg":"none","typ":"JWT"}"#);
    let stronger = parts[1].replace('A', "B");
    let elsewhere = tempfile::tempdir().unwrap();
    let forged = run(&["token", "--user", "ann", "--data", elsewhere.path().to_str().unwrap()]).await;
    vec![
        (String::from_utf8(forged.stdout).unwrap().trim().to_owned(), ErrorCode::InvalidToken),
        (format!("{none}.{}.", parts[1]), ErrorCode::InvalidToken),
        (format!("{none}.{}.{}", parts[1], parts[2]), ErrorCode::InvalidToken),
        (format!("{}.{stronger}.{}", parts[0], parts[2]), ErrorCode::InvalidToken),
        (format!("{}.{}.", parts[0], parts[1]), ErrorCode::InvalidToken),
        (format!("{}.{}.{}", encode(r#"{"alg":"RS256"}"#), parts[1], parts[2]), ErrorCode::InvalidToken),
        (
            sign(json!({ "sub": "ann", "exp": 1_000_000_000, "channels": everything })),
            ErrorCode::TokenExpired,
        ),
        (
            sign(json!({ "sub": "ann", "nbf": 4_000_000_000_u64, "channels": everything })),
            ErrorCode::InvalidToken,
        ),
        ("x".repeat(10_000), ErrorCode::InvalidToken),
        (String::new(), ErrorCode::InvalidToken),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_ours_lets_nobody_in() {
    let server = ServerProcess::start().await;
    let bystander = Bystander::start(&server).await;
    for (token, code) in bad_tokens(&server).await {
        for via in WIRES {
            let mut wire = RawWire::open(&server, via, Codec::Json).await;
            wire.send(&ClientFrame::Connect(Connect {
                id: 1,
                token: Some(token.clone()),
                ..Connect::default()
            }))
            .await;
            let error = wire.refusal().await;
            assert_eq!(error.code, code, "{via}: {token:.80}: {}", error.message);
            assert!(token.is_empty() || !error.message.contains(&token), "the token is repeated");
            let closed = wire.end().await;
            assert!(
                matches!(closed, Closed::ByPeer { code: CloseCode::Unauthenticated, .. }),
                "{via}: {closed}"
            );
        }
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let answer = request(server.http, "GET", "/v1/channels/room:a/history", &headers, "").await;
        assert_eq!((answer.status, answer.code()), (401, code.to_string()));
    }
    bystander.noticed_nothing().await;
}

#[tokio::test]
async fn a_page_of_elsewhere_is_refused_on_every_wire_over_tcp() {
    let server = ServerProcess::start().await;
    for origin in ["https://evil.example", "null", "http://127.0.0.1.evil.example", "", "file://"] {
        let refused = RawSocket::try_open(server.http, &[("origin", origin)]).await;
        let refused = refused.err().unwrap_or_else(|| panic!("{origin:?} was let in"));
        assert_eq!((refused.status, refused.code().as_str()), (403, "permission_denied"), "{origin:?}");
        let body = json!({ "frames": [{ "connect": { "id": 1 } }] });
        let answer = request(server.http, "POST", "/v1/poll", &[("origin", origin)], body.to_string()).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "permission_denied"), "{origin:?}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert!(RawSocket::try_open(server.http, &[("origin", "http://localhost:3000")]).await.is_ok());
    let headers = [("sec-websocket-protocol", "chat, xpush.v9.json")];
    let refused = RawSocket::try_open(server.http, &headers).await.err().unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (400, "not_supported"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_that_is_none_is_refused_and_an_old_one_misses_nothing() {
    let server = ServerProcess::start().await;
    let other = ServerProcess::start().await;
    let bystander = Bystander::start(&server).await;
    let poll = async |body: Value| post(server.http, "/v1/poll", &body).await;
    let connect = json!({ "connect": { "id": 1 } });

    for (body, status, code) in [
        ("".to_owned(), 400, "malformed"),
        ("{".to_owned(), 400, "malformed"),
        ("7".to_owned(), 400, "malformed"),
        (r#"{"frames":[{"connect":{"id":1}}],"more":1}"#.to_owned(), 400, "malformed"),
        (r#"{"frames":{}}"#.to_owned(), 400, "malformed"),
        (r#"{}"#.to_owned(), 400, "out_of_order"),
        (r#"{"send":true,"frames":[{"ping":{"id":1}}]}"#.to_owned(), 400, "invalid_field"),
        (r#"{"state":"garbage"}"#.to_owned(), 400, "invalid_state"),
        (r#"{"state":"0123456789abcdef0123456789abcdef.1."}"#.to_owned(), 400, "invalid_state"),
        (format!(r#"{{"state":"{}"}}"#, "x".repeat(10_000)), 400, "invalid_state"),
        (format!(r#"{{"frames":[{}]}}"#, vec![r#"{"ping":{"id":1}}"#; 65].join(",")), 413, "too_large"),
        (format!(r#"{{"frames":[{}{}]}}"#, "[".repeat(100_000), "]".repeat(100_000)), 413, "too_large"),
        (format!(r#"{{"frames":[{{{}}}]}}"#, " ".repeat(1 << 20)), 413, "too_large"),
    ] {
        let answer = request(server.http, "POST", "/v1/poll", &[], &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body:.60}");
    }
    // Of another installation, and one that was never given out: begun anew, and refused by the session.
    let foreign = post(other.http, "/v1/poll", &json!({ "frames": [connect] })).await.json()["state"].clone();
    for state in [foreign, json!("0123456789abcdef0123456789abcdef.7.bm9uc2Vuc2U")] {
        let answer = poll(json!({ "state": state, "wait": 1 })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut answer = answer.json();
        assert_eq!(answer["frames"][0]["error"]["code"], "invalid_state", "{answer}");
        // The goodbye comes with it, or with the next poll.
        if let Some(state) = answer.get("state") {
            answer = poll(json!({ "state": state, "wait": 5 })).await.json();
        }
        let frames = answer["frames"].as_array().unwrap();
        let end = frames.iter().find_map(|frame| frame.get("close"));
        assert!(end.is_some_and(|close| close["reconnect"] == false), "{answer}");
        assert!(answer.get("state").is_none(), "{answer}");
    }
    // A bad frame is the session's, as on the other wires.
    let answer =
        poll(json!({ "frames": [connect, { "fly": { "id": 2 } }, { "ping": { "id": 3 } }], "wait": 1 }))
            .await
            .json();
    let mut frames = answer["frames"].as_array().unwrap().clone();
    let mut state = answer["state"].clone();
    while frames.iter().all(|frame| frame.get("pong").is_none()) {
        let answer = poll(json!({ "state": state, "wait": 1 })).await.json();
        frames.extend(answer["frames"].as_array().unwrap().clone());
        state = answer["state"].clone();
    }
    assert!(frames.iter().any(|frame| frame["error"]["code"] == "unknown_command"), "{frames:?}");

    // Stale: an older answer's state, twice over. What it has not seen comes again.
    let begin =
        json!({ "frames": [connect, { "subscribe": { "id": 2, "channel": "room:stale" } }], "wait": 1 });
    let mut answer = poll(begin).await.json();
    while !answer.to_string().contains(r#""subscribed""#) {
        answer = poll(json!({ "state": answer["state"], "wait": 1 })).await.json();
    }
    let old = answer["state"].clone();
    let mut state = old.clone();
    let mut writer = Session::open(&server, Via::Websocket).await;
    for round in 1..=3 {
        writer.publish("room:stale", round).await.unwrap();
        let mut seen = Vec::new();
        while seen.last() != Some(&round) {
            let answer = poll(json!({ "state": state, "wait": 5 })).await.json();
            let frames = answer["frames"].as_array().unwrap();
            seen.extend(frames.iter().filter_map(|frame| frame["publication"]["data"].as_u64()));
            state = answer["state"].clone();
            assert!(state.is_string(), "{answer}");
        }
    }
    let mut seen = Vec::new();
    state = old;
    while seen.last() != Some(&3) {
        let answer = poll(json!({ "state": state, "wait": 5 })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        let frames = answer["frames"].as_array().unwrap();
        seen.extend(frames.iter().filter_map(|frame| frame["publication"]["data"].as_u64()));
        state = answer["state"].clone();
    }
    assert_eq!(seen, [1, 2, 3]);
    bystander.noticed_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_address_stops_at_its_limit() {
    let server = ServerProcess::with(&["--set", "limits.connections_per_address=12"]).await;
    let bystander = Bystander::start(&server).await;
    let found = Server::discover(&server.url(), &[]).await.unwrap();
    let mut held = Vec::new();
    while held.len() < 11 {
        held.push(RawWire::dial(&found, Via::Quic, Codec::Json).await.unwrap());
        let wire = held.last_mut().unwrap();
        wire.send(&ClientFrame::Connect(Connect { id: 1, ..Connect::default() })).await;
        assert!(matches!(wire.next().await, Ok(ServerFrame::Connected(_))));
    }
    for _ in 0..20 {
        let refused = RawSocket::try_open(server.http, &[]).await.err().expect("a place too many");
        assert_eq!((refused.status, refused.code().as_str()), (429, "limit_reached"));
        assert_eq!(refused.json()["retry"], true);
        let answer = post(server.http, "/v1/poll", &json!({ "frames": [{ "connect": { "id": 1 } }] })).await;
        assert_eq!((answer.status, answer.code().as_str()), (429, "limit_reached"));
        if let Ok(mut wire) = RawWire::dial(&found, Via::Quic, Codec::Json).await {
            let closed = wire.end().await;
            assert!(matches!(closed, Closed::ByPeer { code: CloseCode::TooManyConnections, .. }), "{closed}");
        }
    }
    held.clear();
    until("there are places again", async || RawSocket::try_open(server.http, &[]).await.is_ok()).await;
    bystander.noticed_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_protocol_are_shrugged_off() {
    let mut server = ServerProcess::start().await;
    let bystander = Bystander::start(&server).await;
    let noise: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let huge = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let shapes: [&[u8]; 7] = [
        &noise,
        b"GET / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST /v1/publish HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\xff\xff\xff\xff",
        b"\x16\x03\x01\xff\xff",
        huge.as_bytes(),
    ];
    for address in [server.http, server.tls] {
        for shape in shapes {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The server may hang up before it has all of it.
            let _ = stream.write_all(shape).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end in time");
        }
    }
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for n in 0..2000_usize {
        // Every first byte once and more, so that long headers are among them.
        let mut datagram = noise[n..n + 1 + n % 1400].to_vec();
        datagram[0] = n as u8;
        let _ = udp.send_to(&datagram, server.tls).await;
    }
    assert!(server.is_running());
    for via in WIRES {
        let mut session = Session::open(&server, via).await;
        session.ping().await;
    }
    assert_eq!(get(server.http, "/healthz").await.status, 200);
    bystander.noticed_nothing().await;
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let arguments = ["--set", "limits.handshake_deadline=1s"];
    let server = ServerProcess::with(&arguments).await;
    let mut socket = RawSocket::open(server.http).await;
    let ended = socket.end().await;
    assert!(matches!(ended, Ended::Closed { code: 4003, .. }), "{ended:?}");
    // Pings are no first frame.
    let mut socket = RawSocket::open(server.http).await;
    socket.frame(PING, true, b"").await;
    let ended = socket.end().await;
    assert!(matches!(ended, Ended::Closed { code: 4003, .. }), "{ended:?}");
    for via in [Via::Quic, Via::Webtransport] {
        let mut wire = RawWire::open(&server, via, Codec::Json).await;
        let closed = wire.end().await;
        assert!(
            matches!(closed, Closed::ByPeer { code: CloseCode::HandshakeTimeout, .. }),
            "{via}: {closed}"
        );
    }
    // Headers that never end.
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end in time");
    // A frame of another kind than was agreed on.
    let headers = [("sec-websocket-protocol", "xpush.v1.json")];
    let mut socket =
        RawSocket::try_open(server.http, &headers).await.unwrap_or_else(|refused| panic!("{refused:?}"));
    socket.frame(BINARY, true, b"\x81\xa7connect\x81\xa2id\x01").await;
    let ended = socket.end().await;
    assert!(matches!(ended, Ended::Closed { code: 4500, .. }), "{ended:?}");
}
