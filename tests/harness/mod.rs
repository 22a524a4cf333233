//! A node with everything it has in production but the sockets: the memory transport. Dropped, it is gone.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use xpush::{
    auth::{Algorithm, ApiKeys, Auth, Claims, Key, Signer, StateSealer, Verifier},
    broker::{self, Inbox},
    client::{Client, ClientError},
    directory::{self, Directory},
    log::{Capacity, Keep, Log, Memory},
    membership::{self, NodeInfo, Roles, Status},
    metrics::Metrics,
    namespace::{Access, Namespaces, Policy, Retention},
    node::{Limits, Node, Parts},
    presence,
    publication::{Draft, Publisher},
    session::serve_all,
};
use xpush_protocol::{
    ChannelName, ClientFrame, Codec, Connect, Connected, Cursor, EventName, Json, MessageId, Payload,
    Publish, Published, Resubscribe, ServerFrame, Subscribe, Subscribed, Transports,
};
use xpush_transports::{Admission, Connection, Lane, Outgoing, Reader as _, Settings, Writer as _, memory};

/// Generous: a test waits this long for what has to happen, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Signs the tokens, and seals the states.
pub const SECRET: &[u8; 32] = b"a secret of the tests, 32 bytes!";

pub struct TestNode {
    pub node: Arc<Node>,
    dialer: memory::Dialer,
    cancel: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

pub struct Options {
    pub anonymous: bool,
    pub limits: Limits,
    pub recent_size: u64,
    /// Of the namespace `open`, which there is only then.
    pub open: Option<Access>,
}

impl Default for Options {
    fn default() -> Self {
        let limits = Limits {
            frame: 64 * 1024,
            data: 32 * 1024,
            in_flight: 64,
            subscriptions: 100,
            publishes_per_second: 0,
            ping_interval: Duration::from_secs(15),
        };
        Self { anonymous: true, limits, recent_size: 100, open: None }
    }
}

impl TestNode {
    /// A node whose channels, those of `room`, are kept in memory. What a message costs here is its way through the
    /// node alone.
    pub fn in_memory() -> Self {
        let keep = Keep { count: Some(1000), age: None };
        let capacity = Capacity { channels: 10_000, bytes: 64 << 20 };
        Self::on(Arc::new(Memory::new(HashMap::from([("room".parse().unwrap(), keep)]), capacity)))
    }

    /// A node on this log. Its channels are those of `room`, without presence: nobody is told who comes and goes.
    pub fn on(log: Arc<dyn Log>) -> Self {
        let keep = Keep { count: None, age: None };
        let policy = Policy { retention: Retention::Durable { keep }, history: true, ..Policy::default() };
        Self::of(Parts {
            namespaces: [("room".parse().unwrap(), policy)].into_iter().collect(),
            limits: Options::default().limits,
            auth: auth(true),
            inbox: Arc::new(Inbox::new("test".parse().unwrap())),
            recent: Arc::clone(&log),
            durable: log,
            directory: in_memory_directory(),
            broker: Arc::new(broker::Alone),
            membership: Arc::new(membership::Alone::new(node_info("test", 1))),
            presence: Arc::new(presence::InProcess::default()),
            metrics: Arc::new(Metrics::default()),
        })
    }

    /// A node of the given parts.
    pub fn of(parts: Parts) -> Self {
        let node = Node::new(parts);
        let cancel = CancellationToken::new();
        let (dialer, listener) =
            memory::listener(Settings::default(), Admission::new(10_000, 10_000), cancel.clone());
        let tasks = vec![
            tokio::spawn(serve_all(Arc::clone(&node), listener, cancel.clone())),
            tokio::spawn(Arc::clone(&node).tend(cancel.clone())),
        ];
        Self { node, dialer, cancel, tasks }
    }

    /// Stops it; every goodbye is said.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
    }

    /// As a process that is killed: no goodbye, and nothing that was in its memory is there any more.
    pub async fn kill(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            // It was aborted, or had ended before.
            let _ = task.await;
        }
    }

    /// What connections are made with, also after this is gone: then they are refused.
    pub fn dialer(&self) -> memory::Dialer {
        self.dialer.clone()
    }

    /// A connection that has said nothing yet.
    pub async fn dial(&self) -> memory::Connection {
        self.dialer.dial().await.unwrap()
    }

    pub async fn client(&self) -> TestClient {
        self.client_with(Codec::Json, Connect::default()).await.unwrap()
    }

    pub async fn client_with(&self, codec: Codec, connect: Connect) -> Result<TestClient, ClientError> {
        let mut client = Client::start(self.dial().await, codec);
        let connected = timeout(PATIENCE, client.connect(connect)).await.unwrap()?;
        Ok(TestClient { client, connected })
    }

    /// Somebody who listens to this channel, without the work of a `TestClient`.
    pub async fn listener(&self, name: &str) -> Listener<memory::Connection> {
        Listener::subscribed(self.dial().await, name).await
    }

    pub async fn user(&self, name: &str) -> TestClient {
        let connect = Connect { token: Some(token(name, "**", 3600)), ..Connect::default() };
        self.client_with(Codec::Json, connect).await.unwrap()
    }
}

/// Of each retention one: `room` lasts, `live` keeps so many, `typing` none.
pub fn namespaces(recent_size: u64) -> Namespaces {
    let keep = Keep { count: None, age: None };
    let policy = |retention| Policy { retention, presence: true, history: true, ..Policy::default() };
    let (size, ttl) = (recent_size as usize, Duration::from_secs(60));
    [
        ("room", policy(Retention::Durable { keep })),
        ("chat", Policy { access: Access::Members, receipts: true, ..policy(Retention::Durable { keep }) }),
        ("inbox", Policy::of_inboxes()),
        ("live", policy(Retention::Recent { size, ttl })),
        ("typing", Policy { presence: false, history: false, ..policy(Retention::None) }),
    ]
    .into_iter()
    .map(|(name, policy)| (name.parse().unwrap(), policy))
    .collect()
}

pub fn in_memory_directory() -> Arc<Directory> {
    Arc::new(Directory::new(Arc::new(directory::store::Memory::default())))
}

/// What signs the tokens of an app.
fn secret_of(app: &str) -> Vec<u8> {
    if app == "default" { SECRET.to_vec() } else { format!("{SECRET:?}, of {app}").into_bytes() }
}

/// Who may come in: with tokens of `token`, and without, if `anonymous`.
pub fn auth(anonymous: bool) -> Auth {
    Auth {
        verifier: Verifier::new(
            ["default", "shop", "game"]
                .map(|app| {
                    let key = Key::new(Algorithm::Hs256, &secret_of(app)).unwrap();
                    key.of_app(app.parse().unwrap())
                })
                .into(),
        ),
        api_keys: ApiKeys::default(),
        sealer: StateSealer::new(SECRET),
        loopback_anonymous: anonymous,
    }
}

/// How a node without sockets tells of itself.
pub fn node_info(name: &str, instance: u64) -> NodeInfo {
    let wires = || Transports {
        version: String::new(),
        node: name.into(),
        transports: vec![],
        certificate_hashes: vec![],
    };
    NodeInfo {
        id: name.parse().unwrap(),
        instance,
        version: String::new(),
        roles: Roles { session: true, channel: true },
        weight: 1,
        wires: wires(),
        secure_wires: wires(),
        url: String::new(),
        secure_url: String::new(),
        status: Status::default(),
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A token for all channels that the pattern matches, which ends in so many seconds.
pub fn token(user: &str, pattern: &str, seconds: i64) -> String {
    let all = ["subscribe", "publish", "history", "presence", "send"];
    token_of(user, serde_json::json!({ pattern: all }), seconds)
}

/// A token for an hour, to listen to these channels, to read all, and to publish to all.
pub fn token_to_listen(user: &str, listens: &[&str]) -> String {
    let mut grants = serde_json::json!({ "**": ["publish", "history"] });
    for channel in listens {
        grants[channel] = serde_json::json!(["subscribe"]);
    }
    token_of(user, grants, 3600)
}

/// A token with these grants.
pub fn token_of(user: &str, channels: serde_json::Value, seconds: i64) -> String {
    token_in("default", Some(user), channels, seconds)
}

/// A token of an app: `shop` or `game`, or the default one.
pub fn token_in(app: &str, user: Option<&str>, channels: serde_json::Value, seconds: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let mut claims = serde_json::json!({
        "exp": now + seconds,
        "channels": channels,
    });
    if let Some(user) = user {
        claims["sub"] = user.into();
    }
    let claims: Claims = serde_json::from_value(claims).unwrap();
    Signer::new(Algorithm::Hs256, None, &secret_of(app)).unwrap().sign(&claims).unwrap()
}

pub fn channel(name: &str) -> ChannelName {
    name.parse().unwrap()
}

/// A message of 128 bytes, as an application's users send them.
pub fn draft(message_id: MessageId) -> Draft {
    let data = r#"{"text":"What is said here is as long as what people mostly say in a chat, so it is what counts","by":"ann","mood":null,"n":[7]}"#;
    Draft {
        publisher: Publisher::backend("test"),
        message_id,
        retriable: true,
        event: EventName::default(),
        payload: Payload::Json(Json::parse(data).unwrap()),
        user: Some("ann".parse().unwrap()),
        time: 1_700_000_000_000,
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    }
}

/// Takes frames off a wire, and does no more with them.
pub struct Listener<C: Connection> {
    reader: C::Reader,
    /// Dropped, the connection would end.
    _writer: C::Writer,
}

impl<C: Connection> Listener<C> {
    /// Begins a connection; its answers are the first frames.
    pub async fn connect(connection: C, connect: Connect) -> Self {
        let (_, reader, mut writer) = connection.split();
        let bytes = Codec::Json.encode(&ClientFrame::Connect(Connect { id: 1, ..connect }));
        writer.write(&mut vec![Outgoing { bytes, lane: Lane::Control }]).await.unwrap();
        Self { reader, _writer: writer }
    }

    /// Begins a connection that listens to this channel from now on; the next frame is a publication.
    pub async fn subscribed(connection: C, name: &str) -> Self {
        let subscriptions = vec![Resubscribe { channel: channel(name), cursor: None }];
        let mut listener = Self::connect(connection, Connect { subscriptions, ..Connect::default() }).await;
        let (connected, subscribed) = (listener.frame().await, listener.frame().await);
        assert!(connected.starts_with(b"{\"connected") && subscribed.starts_with(b"{\"subscribed"));
        listener
    }

    pub async fn frame(&mut self) -> Bytes {
        self.reader.read().await.unwrap()
    }
}

/// A client that gives up on nothing before `PATIENCE`.
pub struct TestClient {
    pub client: Client,
    pub connected: Connected,
}

impl TestClient {
    pub async fn call(
        &mut self,
        command: impl FnOnce(u32) -> ClientFrame,
    ) -> Result<ServerFrame, ClientError> {
        timeout(PATIENCE, self.client.call(command)).await.expect("an answer in time")
    }

    pub async fn event(&mut self) -> ServerFrame {
        timeout(PATIENCE, self.client.event()).await.expect("an event in time").unwrap()
    }

    pub async fn subscribe(&mut self, name: &str) -> Subscribed {
        self.subscribe_at(name, None).await.unwrap()
    }

    pub async fn subscribe_at(
        &mut self,
        name: &str,
        cursor: Option<Cursor>,
    ) -> Result<Subscribed, ClientError> {
        let channel = channel(name);
        let frame = |id| ClientFrame::Subscribe(Subscribe { id, channel, cursor, last: None });
        match self.call(frame).await? {
            ServerFrame::Subscribed(subscribed) => Ok(subscribed),
            other => panic!("{other:?}"),
        }
    }

    pub async fn publish(
        &mut self,
        name: &str,
        data: impl serde::Serialize,
    ) -> Result<Published, ClientError> {
        self.publish_as(name, MessageId::random(), data).await
    }

    pub async fn publish_as(
        &mut self,
        name: &str,
        message_id: MessageId,
        data: impl serde::Serialize,
    ) -> Result<Published, ClientError> {
        let (channel, message_id) = (channel(name), Some(message_id));
        let data = Some(Json::from_value(&data).unwrap());
        let event = EventName::default();
        let frame = |id| {
            ClientFrame::Publish(Publish {
                id,
                channel,
                message_id,
                event,
                data,
                binary: None,
                reply_to: None,
                mentions: Vec::new(),
                expires_in: None,
            })
        };
        match self.call(frame).await? {
            ServerFrame::Published(published) => Ok(published),
            other => panic!("{other:?}"),
        }
    }

    /// The next publication's offset and data; other events are passed over.
    pub async fn publication(&mut self) -> (u64, String) {
        loop {
            if let ServerFrame::Publication(publication) = self.event().await {
                return (publication.offset, publication.data.unwrap().as_str().to_owned());
            }
        }
    }

    /// The next event for which `pick` gives something.
    pub async fn until<T>(&mut self, pick: impl Fn(ServerFrame) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.event().await) {
                return picked;
            }
        }
    }
}
