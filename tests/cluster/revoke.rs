//! A right that is taken away while a channel is busy: nothing reaches whose it was later than a second after the answer
//! that it is gone, on whichever of three nodes he is.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tokio_util::sync::CancellationToken;
use xpush::client::{Client, ClientError, Via, Visit};
use xpush_protocol::{
    ClientFrame, Codec, Connect, ErrorCode, EventName, Json, Publish, ServerFrame, Subscribe,
};
use xpush_transports::Connection;

use crate::{
    client::Doors,
    load,
    nodes::{self, Node, OPERATOR_KEY, ProcessDoors, call},
};

/// Messages a second, of all publishers together.
const RATE: u32 = 1000;
/// What a debug build carries beside other work.
const SHORT_RATE: u32 = 100;
const PUBLISHERS: u32 = 10;
/// A right that is taken back is gone by then.
const GONE_WITHIN: Duration = Duration::from_secs(1);
/// After the last right is taken: what would still come, comes.
const SETTLE: Duration = Duration::from_secs(3);
/// Between two rights that are taken.
const BETWEEN: Duration = Duration::from_millis(400);
/// Rounds of all ways to take a right.
const ROUNDS: usize = 6;

const CHANNEL: &str = "chat:busy";
const PASSWORD: &str = "a password of the tests";

/// How a right is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The user is deactivated.
    User,
    /// His device is revoked.
    Device,
    /// He is removed from the channel.
    Member,
    /// His login ends, and with it his tokens.
    Token,
}

const WAYS: [Way; 4] = [Way::User, Way::Device, Way::Member, Way::Token];

/// A member who listens.
struct Listener {
    name: String,
    token: String,
    node: usize,
    heard: Arc<std::sync::Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    count: u64,
    last: Option<Instant>,
    /// The subscription, or the connection, was ended by the server.
    ended: Option<Instant>,
}

async fn connected(doors: &ProcessDoors, node: usize, token: &str) -> Result<Client, ClientError> {
    struct Start;
    impl Visit for Start {
        type Output = Client;
        fn visit(self, connection: impl Connection) -> Client {
            Client::start(connection, Codec::MessagePack)
        }
    }
    let mut client = doors.dial(node, Via::Websocket, Codec::MessagePack, Start).await.unwrap();
    client.connect(Connect { token: Some(token.to_owned()), ..Connect::default() }).await?;
    Ok(client)
}

fn subscribe(id: u32) -> ClientFrame {
    ClientFrame::Subscribe(Subscribe { id, channel: CHANNEL.parse().unwrap(), cursor: None, last: None })
}

/// A user with a device, who is logged in.
async fn register(node: &Node, name: &str) -> String {
    let body = json!({ "user": name, "password": PASSWORD, "device": { "device": format!("{name}-phone") } });
    let (status, answer) = call(node.http, "POST", "/v1/users", OPERATOR_KEY, &body).await;
    assert_eq!(status, 201, "{answer}");
    answer["access_token"].as_str().unwrap().to_owned()
}

async fn listen(doors: &ProcessDoors, tasks: &mut JoinSet<()>, listener: &Listener) {
    let mut client = connected(doors, listener.node, &listener.token).await.unwrap();
    client.call(subscribe).await.unwrap();
    let heard = Arc::clone(&listener.heard);
    tasks.spawn(async move {
        loop {
            let event = client.event().await;
            let mut heard = heard.lock().unwrap();
            match event {
                Ok(ServerFrame::Publication(_)) => {
                    heard.count += 1;
                    heard.last = Some(Instant::now());
                }
                Ok(ServerFrame::Unsubscribed(_)) => heard.ended = Some(Instant::now()),
                Ok(_) => {}
                Err(_) => {
                    heard.ended.get_or_insert_with(Instant::now);
                    return;
                }
            }
        }
    });
}

async fn publish(mut client: Client, n: u32, rate: u32, stop: CancellationToken) {
    let every = Duration::from_secs(1) * PUBLISHERS / rate;
    let mut ticks = interval_at(Instant::now() + every * n / PUBLISHERS, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let message = |id| {
        ClientFrame::Publish(Publish {
            id,
            channel: CHANNEL.parse().unwrap(),
            message_id: None,
            event: EventName::default(),
            data: Some(Json::from_value(&"x".repeat(100)).unwrap()),
            binary: None,
            reply_to: None,
            mentions: Vec::new(),
            expires_in: None,
        })
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return client.close().await,
            _ = ticks.tick() => {
                let published = client.call(message).await;
                assert!(matches!(published, Ok(ServerFrame::Published(_))), "{published:?}");
            }
        }
    }
}

/// Takes the right by another node than the one where he is; gives when that was answered.
async fn take(way: Way, nodes: &[Node], listener: &Listener) -> Instant {
    let elsewhere = nodes[(listener.node + 1) % nodes.len()].http;
    let Listener { name, token, .. } = listener;
    let (method, path, bearer) = match way {
        Way::User => ("POST", format!("/v1/users/{name}/deactivate"), OPERATOR_KEY),
        Way::Device => ("DELETE", format!("/v1/users/{name}/devices/{name}-phone"), OPERATOR_KEY),
        Way::Member => ("DELETE", format!("/v1/channels/{CHANNEL}/members/{name}"), OPERATOR_KEY),
        Way::Token => ("POST", "/v1/logout".to_owned(), token.as_str()),
    };
    let body = if method == "POST" { json!({}) } else { Value::Null };
    let (status, answer) = call(elsewhere, method, &path, bearer, &body).await;
    assert!((200..300).contains(&status), "{way:?}: {status} {answer}");
    Instant::now()
}

/// Nobody gets back in by what was taken, at any node.
async fn stays_out(way: Way, doors: &ProcessDoors, listener: &Listener) {
    for node in 0..doors.count() {
        let refused = match connected(doors, node, &listener.token).await {
            Ok(mut client) if way == Way::Member => client.call(subscribe).await.map(|_| ()),
            connected => connected.map(|_| ()),
        };
        let Err(ClientError::Refused { code, .. }) = refused else { panic!("{way:?}: {refused:?}") };
        let expected = if way == Way::Member { ErrorCode::PermissionDenied } else { ErrorCode::InvalidToken };
        assert_eq!(code, expected, "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the whole machine for minutes: ./tests/run cluster"]
async fn a_right_that_is_taken_under_load_is_gone_everywhere_within_a_second() {
    let _alone = nodes::alone().await;
    let (_servers, nodes, doors) = nodes::start_three().await;
    let rate = if load::is_timed() { RATE } else { SHORT_RATE };
    let mut listeners = Vec::new();
    for n in 0..ROUNDS * WAYS.len() + 3 {
        let (name, node) = (format!("listener-{n}"), n % nodes.len());
        let token = register(&nodes[node], &name).await;
        listeners.push(Listener { name, token, node, heard: Arc::default() });
    }
    let mut speakers = Vec::new();
    for n in 0..PUBLISHERS as usize {
        let name = format!("speaker-{n}");
        speakers.push((register(&nodes[0], &name).await, name));
    }
    let names = listeners.iter().map(|listener| &listener.name).chain(speakers.iter().map(|(_, name)| name));
    let members: Vec<_> = names.collect();
    let body = json!({ "channel": CHANNEL, "members": members, "state": "active" });
    let (status, answer) = call(nodes[0].http, "POST", "/v1/channels", OPERATOR_KEY, &body).await;
    assert_eq!(status, 201, "{answer}");

    let (mut listening, mut publishing, stop) = (JoinSet::new(), JoinSet::new(), CancellationToken::new());
    for listener in &listeners {
        listen(&doors, &mut listening, listener).await;
    }
    for (n, (token, _)) in speakers.iter().enumerate() {
        let client = connected(&doors, n % nodes.len(), token).await.unwrap();
        publishing.spawn(publish(client, n as u32, rate, stop.clone()));
    }
    let began = Instant::now();
    sleep(Duration::from_secs(2)).await;
    let mut taken = Vec::new();
    for n in 0..ROUNDS * WAYS.len() {
        // Each way on each of the nodes in turn.
        let way = WAYS[(n + n / WAYS.len()) % WAYS.len()];
        let listener = &listeners[n];
        assert!(listener.heard.lock().unwrap().count > 0, "{} hears nothing", listener.name);
        taken.push((way, listener, take(way, &nodes, listener).await));
        sleep(BETWEEN).await;
    }
    sleep(SETTLE).await;
    let load = began.elapsed();
    stop.cancel();
    while let Some(ended) = publishing.join_next().await {
        ended.unwrap();
    }
    let mut late = 0;
    for way in WAYS {
        let lateness = taken.iter().filter(|(of, ..)| *of == way).map(|(_, listener, at)| {
            let heard = listener.heard.lock().unwrap();
            assert!(heard.ended.is_some(), "{way:?}: {} was never told", listener.name);
            heard.last.map_or(Duration::ZERO, |last| last.saturating_duration_since(*at))
        });
        let lateness: Vec<_> = lateness.collect();
        late += lateness.iter().filter(|lateness| **lateness > GONE_WITHIN).count();
        let (most, count) = (lateness.iter().max().copied().unwrap_or_default(), lateness.len());
        println!("{way:?}: {count} taken; the last delivery at most {most:?} after the answer");
    }
    let heard = listeners[ROUNDS * WAYS.len()].heard.lock().unwrap().count;
    println!("{:.0} messages/s reached who lost nothing", heard as f64 / load.as_secs_f64());
    assert!(
        load::is_timed() && heard as f64 > 0.9 * f64::from(rate) * load.as_secs_f64() || !load::is_timed()
    );
    assert_eq!(late, 0, "deliveries later than {GONE_WITHIN:?} after the answer");
    for (way, listener, _) in &taken {
        stays_out(*way, &doors, listener).await;
    }
    listening.shutdown().await;
}
