//! Webhooks of the real program, with a receiver that is a server of its own: what it is sent, what its answers do, and
//! what a kill -9 takes (nothing).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use xpush::client::Via;
use xpush_protocol::{Connect, ErrorCode, ServerFrame};

use super::{
    client::{Session, code},
    http::{get, post, post_as, request},
    process::{ServerProcess, run, until},
};

const SECRET: &str = "a-secret-of-the-tests";

/// What it was sent, with the headers in lower case.
#[derive(Debug, Clone)]
struct Delivery {
    headers: BTreeMap<String, String>,
    text: String,
    body: Value,
}

type Answers = dyn Fn(&Delivery) -> (u16, Value) + Send + Sync;

/// An application's server.
struct Receiver {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Delivery>>>,
    answers: Arc<Mutex<Arc<Answers>>>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken: Arc<Mutex<Vec<Delivery>>> = Arc::default();
        let yes: Arc<Answers> = Arc::new(|_| (200, json!({})));
        let answers = Arc::new(Mutex::new(yes));
        let mut tasks = JoinSet::new();
        let (of_taken, of_answers) = (Arc::clone(&taken), Arc::clone(&answers));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&of_taken), Arc::clone(&of_answers)));
            }
        });
        Self { address, taken, answers, _tasks: tasks }
    }

    fn answer(&self, answers: impl Fn(&Delivery) -> (u16, Value) + Send + Sync + 'static) {
        *self.answers.lock().unwrap() = Arc::new(answers);
    }

    fn taken(&self) -> Vec<Delivery> {
        self.taken.lock().unwrap().clone()
    }

    fn of(&self, event: &str) -> Vec<Delivery> {
        self.taken().into_iter().filter(|delivery| delivery.body["event"] == event).collect()
    }

    async fn told(&self, event: &str, count: usize) -> Vec<Delivery> {
        until("it is told", async || self.of(event).len() >= count).await;
        self.of(event)
    }
}

async fn serve(mut stream: TcpStream, taken: Arc<Mutex<Vec<Delivery>>>, answers: Arc<Mutex<Arc<Answers>>>) {
    let mut bytes = Vec::new();
    loop {
        let Some(delivery) = read(&mut stream, &mut bytes).await else { return };
        taken.lock().unwrap().push(delivery.clone());
        let answers = Arc::clone(&answers.lock().unwrap());
        let (status, body) = answers(&delivery);
        let body = body.to_string();
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Delivery> {
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let header = |line: &str| {
                let (name, value) = line.split_once(": ")?;
                Some((name.to_lowercase(), value.to_owned()))
            };
            let headers: BTreeMap<_, _> = head.lines().skip(1).filter_map(header).collect();
            let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let text = String::from_utf8(bytes[end + 4..end + 4 + length].to_vec()).unwrap();
                bytes.drain(..end + 4 + length);
                let body = serde_json::from_str(&text).unwrap();
                return Some(Delivery { headers, text, body });
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    }
}

/// HMAC-SHA256 as RFC 2104 writes it, by a digest alone.
fn hmac(key: &[u8], message: &[u8]) -> String {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |byte: u8| block.map(|of_key| of_key ^ byte).to_vec();
    let inner = digest(&SHA256, &[pad(0x36), message.to_vec()].concat());
    let outer = digest(&SHA256, &[pad(0x5c), inner.as_ref().to_vec()].concat());
    outer.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A server that may call this machine; `allowed` says so in its configuration.
async fn server(allowed: &str) -> ServerProcess {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("xpush.toml");
    std::fs::write(&config, format!("[webhooks]\nallow_private = [{allowed}]\n")).unwrap();
    let data = folder.path().join("data");
    let path = config.to_str().unwrap().to_owned();
    ServerProcess::in_directory(folder, data, &["--config", &path]).await
}

async fn patch(server: &ServerProcess, webhooks: Value) -> super::http::Response {
    let body = json!({ "policy": { "webhooks": webhooks } }).to_string();
    let headers = [("content-type", "application/json")];
    request(server.http, "PATCH", "/v1/apps/default", &headers, body).await
}

/// The default app has this webhook, and every node knows it.
async fn with_webhook(server: &ServerProcess, receiver: &Receiver, events: &[&str], change: Value) {
    let url = format!("http://{}/hooks", receiver.address);
    let mut webhook = json!({ "id": "test", "url": url, "events": events, "secret": SECRET });
    webhook.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    // Asked for by a connect, which shows when the webhook is known.
    webhook["events"].as_array_mut().unwrap().push(json!("before.connect"));
    let answer = patch(server, json!([webhook])).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.text().contains(SECRET), "a secret is never shown");
    until("the webhook is known", async || {
        Session::open(server, Via::Websocket).await.client.close().await;
        !receiver.of("before.connect").is_empty()
    })
    .await;
}

async fn token(server: &ServerProcess, user: &str) -> String {
    let data = server.data.to_str().unwrap();
    let output = run(&["token", "--data", data, "--user", user]).await;
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn publish(server: &ServerProcess, n: u64) {
    let body = json!({ "channels": ["room:a"], "data": n });
    let answer = post(server.http, "/v1/publish", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn numbers(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.body["data"]["data"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_told_with_a_signature_that_anybody_can_check() {
    let (server, receiver) = (server("\"127.0.0.1/32\"").await, Receiver::start().await);
    with_webhook(&server, &receiver, &["message.published"], json!({})).await;
    let mut ann = Session::user(&server, Via::Websocket, &token(&server, "ann").await).await.unwrap();
    ann.publish("room:a", "hello").await.unwrap();
    let told = receiver.told("message.published", 1).await.remove(0);
    let data = &told.body["data"];
    assert_eq!(
        (&data["channel"], &data["user"], &data["data"]),
        (&json!("room:a"), &json!("ann"), &json!("hello"))
    );
    assert_eq!((&told.body["app"], &told.body["hook"]), (&json!("default"), &json!("test")));
    assert_eq!(told.headers["xpush-event"], "message.published");
    assert_eq!(told.headers["xpush-delivery"], told.body["id"].as_str().unwrap());
    assert_eq!(told.headers["host"], receiver.address.to_string());
    let signature = &told.headers["xpush-signature"];
    let (time, made) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    assert_eq!(made, hmac(SECRET.as_bytes(), format!("{time}.{}", told.text).as_bytes()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(time.parse().unwrap()) < 120);
    let shown = get(server.http, "/v1/apps/default").await;
    assert!(shown.text().contains("message.published") && !shown.text().contains(SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_right_after_an_acknowledgement_loses_no_delivery() {
    let (mut server, receiver) = (server("\"127.0.0.1/32\"").await, Receiver::start().await);
    with_webhook(&server, &receiver, &["message.published"], json!({ "timeout_ms": 500 })).await;
    let mut next = 0;
    for _ in 0..3 {
        for _ in 0..5 {
            publish(&server, next).await;
            next += 1;
        }
        server.kill9();
        server.restart().await;
    }
    publish(&server, next).await;
    until("the last one is told", async || {
        receiver.of("message.published").last().is_some_and(|last| last.body["data"]["data"] == next)
    })
    .await;
    let told = receiver.of("message.published");
    let mut first_times = Vec::new();
    for n in numbers(&told) {
        if !first_times.contains(&n) {
            first_times.push(n);
        }
    }
    assert_eq!(first_times, (0..=next).collect::<Vec<_>>(), "each, and in order: {:?}", numbers(&told));
    // What came twice came with the id that it had.
    let mut ids: Vec<_> = told.iter().map(|delivery| delivery.headers["xpush-delivery"].clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len() as u64, next + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_is_refused_or_changed_by_the_application() {
    let (server, receiver) = (server("\"127.0.0.0/8\"").await, Receiver::start().await);
    with_webhook(&server, &receiver, &["before.publish", "before.subscribe"], json!({})).await;
    receiver.answer(|delivery| match delivery.body["data"]["data"].as_str() {
        Some("bad") => (200, json!({ "allow": false, "message": "not here" })),
        Some("rude") => (200, json!({ "event": "checked", "data": "****" })),
        _ if delivery.body["data"]["channel"] == "room:secret" => (200, json!({ "allow": false })),
        _ => (204, Value::Null),
    });
    let token = token(&server, "ann").await;
    let mut ann = Session::user(&server, Via::Websocket, &token).await.unwrap();
    ann.subscribe("room:a").await.unwrap();
    assert_eq!(code(&ann.subscribe("room:secret").await.unwrap_err()), ErrorCode::Refused);
    let refused = ann.publish("room:a", "bad").await.unwrap_err();
    assert!(refused.to_string().contains("not here") && code(&refused) == ErrorCode::Refused);
    for data in ["rude", "fine"] {
        ann.publish("room:a", data).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 2 {
        if let ServerFrame::Publication(publication) = ann.event().await {
            seen.push((publication.event.to_string(), publication.data.unwrap().as_str().to_owned()));
        }
    }
    assert_eq!(seen[0], ("checked".into(), "\"****\"".into()));
    assert_eq!(seen[1].1, "\"fine\"");

    // By HTTP a user is asked about as well; a backend is the application itself.
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let body = json!({ "channels": ["room:a"], "data": "bad" });
    let answer = post_as(server.http, "/v1/publish", &headers, &body).await;
    assert_eq!((answer.status, &answer.json()["results"][0]["error"]["code"]), (403, &json!("refused")));
    assert_eq!(post(server.http, "/v1/publish", &body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_is_refused_by_the_application_and_by_its_silence() {
    let (server, receiver) = (server("\"127.0.0.1/32\"").await, Receiver::start().await);
    with_webhook(&server, &receiver, &[], json!({ "timeout_ms": 500 })).await;
    receiver.answer(|delivery| (200, json!({ "allow": delivery.body["data"]["user"] != "bob" })));
    let (ann, bob) = (token(&server, "ann").await, token(&server, "bob").await);
    Session::user(&server, Via::Websocket, &ann).await.unwrap();
    let refused = Session::user(&server, Via::Websocket, &bob).await.err().unwrap();
    assert_eq!(code(&refused), ErrorCode::Refused);
    receiver.answer(|_| (500, Value::Null));
    let refused = Session::with(&server, Via::Quic, Connect::default()).await.err().unwrap();
    assert_eq!(code(&refused), ErrorCode::Busy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_delivered_is_seen_and_sent_again() {
    let (server, receiver) = (server("\"127.0.0.1/32\"").await, Receiver::start().await);
    with_webhook(&server, &receiver, &["message.published"], json!({ "max_attempts": 1 })).await;
    receiver.answer(|delivery| (if delivery.body["data"]["data"] == 1 { 500 } else { 200 }, Value::Null));
    for n in 1..=2 {
        publish(&server, n).await;
    }
    receiver.told("message.published", 2).await;
    let mut letters = Vec::new();
    until("it is a dead letter", async || {
        let page = get(server.http, "/v1/webhooks/dead?limit=10").await;
        assert_eq!(page.status, 200, "{page:?}");
        letters = page.json()["items"].as_array().unwrap().clone();
        !letters.is_empty()
    })
    .await;
    let letter = &letters[0];
    assert_eq!(
        (letters.len(), &letter["hook"], &letter["error"]),
        (1, &json!("test"), &json!("it answered 500"))
    );
    assert_eq!(letter["data"]["data"], 1);
    let path = format!("/v1/webhooks/dead/{}", letter["id"].as_str().unwrap());
    // A user has no say in it, and who sees that there are some can't tell whose.
    let bearer = format!("Bearer {}", token(&server, "ann").await);
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(request(server.http, "GET", "/v1/webhooks/dead", &headers, "").await.status, 403);
    assert_eq!(request(server.http, "DELETE", &path, &headers, "").await.status, 403);
    receiver.answer(|_| (200, Value::Null));
    assert_eq!(post(server.http, &format!("{path}/retry"), &json!({})).await.status, 202);
    let told = receiver.told("message.published", 3).await;
    assert_eq!((numbers(&told), &told[2].body["id"]), (vec![1, 2, 1], &letter["delivery"]));
    assert_eq!(post(server.http, &format!("{path}/retry"), &json!({})).await.status, 404);
    assert_eq!(request(server.http, "DELETE", &path, &[], "").await.status, 404);
    assert_eq!(get(server.http, "/v1/webhooks/dead?cursor=%21").await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_channels_and_members_are_told_of() {
    let (server, receiver) = (server("\"127.0.0.1/32\"").await, Receiver::start().await);
    let events = [
        "user.registered",
        "user.deleted",
        "channel.created",
        "channel.deleted",
        "member.joined",
        "member.left",
        "member.kicked",
    ];
    with_webhook(&server, &receiver, &events, json!({})).await;
    let register = |user: &str| json!({ "user": user, "password": "correct horse battery" });
    for user in ["ann", "bob"] {
        let answer = post(server.http, "/v1/users", &register(user)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let create = json!({ "channel": "chat:team", "as": "ann", "public": true });
    let answer = post(server.http, "/v1/channels", &create).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    for step in ["join", "leave", "join", "kick"] {
        let (method, path, body) = match step {
            "join" => ("POST", "/v1/channels/chat:team/join", json!({ "as": "bob" })),
            "leave" => ("DELETE", "/v1/channels/chat:team/members/bob?as=bob", Value::Null),
            _ => ("DELETE", "/v1/channels/chat:team/members/bob?as=ann", Value::Null),
        };
        let headers = [("content-type", "application/json")];
        let (headers, body) =
            if body.is_null() { (&headers[..0], String::new()) } else { (&headers[..], body.to_string()) };
        let answer = request(server.http, method, path, headers, body).await;
        assert!((200..300).contains(&answer.status), "{step}: {answer:?}");
    }
    assert!(request(server.http, "DELETE", "/v1/channels/chat:team", &[], "").await.status < 300);
    assert!(request(server.http, "DELETE", "/v1/users/bob", &[], "").await.status < 300);
    receiver.told("user.deleted", 1).await;
    receiver.told("channel.deleted", 1).await;
    let users: Vec<_> =
        receiver.of("user.registered").iter().map(|told| told.body["data"]["user"].clone()).collect();
    // Two users are of two orders.
    assert!(users.len() == 2 && users.contains(&json!("ann")) && users.contains(&json!("bob")), "{users:?}");
    assert_eq!(receiver.of("user.deleted")[0].body["data"]["user"], "bob");
    let of_channel: Vec<_> = receiver
        .taken()
        .iter()
        .filter(|told| told.body["data"]["channel"] == "chat:team")
        .map(|told| told.body["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        of_channel,
        [
            "channel.created",
            "member.joined",
            "member.left",
            "member.joined",
            "member.kicked",
            "channel.deleted"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_within_the_operators_network_is_not_called() {
    let (server, receiver) = (server("").await, Receiver::start().await);
    let url = format!("http://{}/", receiver.address);
    let webhook = json!({ "id": "test", "url": url, "events": ["message.published", "before.connect"], "secret": SECRET, "max_attempts": 1 });
    assert_eq!(patch(&server, json!([webhook])).await.status, 200);
    until("nobody comes in unasked", async || {
        Session::with(&server, Via::Websocket, Connect::default()).await.is_err()
    })
    .await;
    publish(&server, 1).await;
    until("it is a dead letter", async || {
        let page = get(server.http, "/v1/webhooks/dead").await.json();
        let error = page["items"][0]["error"].as_str().unwrap_or_default().to_owned();
        error.contains("not a public address")
    })
    .await;
    assert!(receiver.taken().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_webhook_is_refused_by_the_name_of_the_field() {
    let server = server("").await;
    let good =
        json!({ "id": "a", "url": "https://a.example/", "events": ["message.published"], "secret": SECRET });
    for (field, value) in [
        ("url", json!("https://ann:pass@a.example/")),
        ("events", json!(["everything"])),
        ("secret", json!("short")),
        ("timeout_ms", json!(1)),
        ("admin", json!(true)),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let answer = patch(&server, json!([bad])).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_field"), "{field}: {answer:?}");
    }
    assert_eq!(patch(&server, json!([good])).await.status, 200);
}
