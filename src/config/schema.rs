//! What can be configured, and what holds where nothing is said. The keys of the file are the fields here.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use xpush_protocol::{AppId, Namespace};

use super::unit::{Size, Span};
use crate::{
    auth::{Algorithm, GrantsByPattern},
    namespace::Access,
};

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which pages may connect.
    pub origins: Origins,
    pub node: Node,
    pub listen: Listen,
    pub public_urls: PublicUrls,
    pub tls: Tls,
    pub store: Store,
    pub limits: Limits,
    pub auth: Auth,
    pub log: Log,
    /// What the nodes of a cluster share: all three, or none for a node alone.
    pub redis: Redis,
    pub mongodb: MongoDb,
    pub zookeeper: ZooKeeper,
    pub webhooks: Webhooks,
    pub development: Development,
    pub namespaces: BTreeMap<Namespace, NamespaceSection>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// What clients and operators see; unique in a cluster.
    pub name: String,
    pub roles: Vec<Role>,
    /// How many clients it should have, beside the other nodes' weights. 0: no new ones.
    pub weight: u32,
    /// The host by which clients reach it. Absent: the address it listens on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// From the wish to leave until its clients have to be elsewhere.
    pub drain: Span,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves the API and tells clients which node to use.
    Session,
    /// Holds connections.
    Channel,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `redis://`, `redis+sentinel://`, `redis+cluster://`, or with `rediss` over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
    /// Before all keys and channels.
    pub prefix: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MongoDb {
    /// `mongodb://` or `mongodb+srv://`, of a replica set or a sharded cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
    pub database: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZooKeeper {
    /// `host:port`, with commas between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers: Option<String>,
    /// The path under which everything is.
    pub root: String,
    /// `user:password` (digest). Absent: the nodes are open to whoever reaches the servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Secret>,
    /// A node that is silent for as long is gone.
    pub session_timeout: Span,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// TCP: the HTTP API, WebSocket, long-polling, the pages.
    pub http: SocketAddr,
    /// The same over TLS (TCP), and WebTransport and QUIC (UDP).
    pub tls: SocketAddr,
}

/// What `GET /v1/transports` gives, where the listening addresses are not what clients can reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublicUrls {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webtransport: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longpoll: Option<String>,
}

/// PEM files. Without them the server signs its own certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The directory of the embedded log and of what the server makes for itself.
    pub path: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest frame, either way.
    pub frame: Size,
    /// The largest data of a message.
    pub data: Size,
    pub connections: usize,
    /// One address may be a whole company behind a NAT.
    pub connections_per_address: usize,
    /// Of one session.
    pub subscriptions: u32,
    /// Publishes of one session that wait for their answer.
    pub in_flight: u32,
    /// Of one session.
    pub publishes_per_second: u32,
    /// From the first byte of a wire to its first frame.
    pub handshake_deadline: Span,
    /// A wire that is silent for as long is closed.
    pub idle_deadline: Span,
    /// How often a client says something.
    pub ping_interval: Span,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Clients of this machine need no token. Absent: so it is as long as there are no keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<bool>,
    /// Seals what clients bring back; the same on all nodes, 32 characters at least. Absent: one of this node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_secret: Option<Secret>,
    /// What verifies tokens. None: development mode.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<TokenKey>,
    /// Who is let in as a backend.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_keys: Vec<BackendKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKey {
    /// The `kid` of its tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub algorithm: Algorithm,
    /// For HS256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// For the others, in PEM form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_file: Option<PathBuf>,
    /// The `aud` that its tokens must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The `iss` that its tokens must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The app that its tokens are of.
    #[serde(default)]
    pub app: AppId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendKey {
    pub id: String,
    /// Of the whole key, in hexadecimal.
    pub sha256: String,
    /// Absent: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<GrantsByPattern>,
    /// The app that it is of. Without `grants`, a key of the default app is the operator's.
    #[serde(default)]
    pub app: AppId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `info`, or per module: `info,xpush::session=debug`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// What this server calls by itself: webhooks, and the keys of token issuers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhooks {
    /// Networks that may be called though they are not public, as in `10.0.0.0/8`; these without TLS too.
    pub allow_private: Vec<IpNet>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Development {
    /// Let other machines reach a server that runs with development keys.
    pub allow_public: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamespaceSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionKind>,
    /// For `recent`: publications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// For `recent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// For `durable`: publications. Absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_count: Option<u64>,
    /// For `durable`. Absent: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_age: Option<Span>,
    /// Absent: no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<bool>,
    /// Absent: if anything is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<bool>,
    /// Who may use its channels without a grant in a token. Absent: nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Members see how far each other has read. Absent: no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetentionKind {
    None,
    Recent,
    Durable,
}

/// `"same-host"`, `"any"`, or a list of origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    SameHost,
    Any,
    List(Vec<String>),
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub(super) String);

impl Default for Config {
    fn default() -> Self {
        let namespace = |name: &str, section| name.parse().map(|name| (name, section)).ok();
        let durable = NamespaceSection {
            retention: Some(RetentionKind::Durable),
            presence: Some(true),
            ..NamespaceSection::default()
        };
        let recent =
            NamespaceSection { retention: Some(RetentionKind::Recent), ..NamespaceSection::default() };
        let none = NamespaceSection { retention: Some(RetentionKind::None), ..NamespaceSection::default() };
        let members =
            NamespaceSection { access: Some(Access::Members), receipts: Some(true), ..durable.clone() };
        let namespaces = [
            namespace("chat", members.clone()),
            namespace("dm", members),
            namespace("room", durable),
            namespace("live", recent),
            namespace("typing", none),
        ];
        Self {
            origins: Origins::SameHost,
            node: Node::default(),
            listen: Listen::default(),
            public_urls: PublicUrls::default(),
            tls: Tls::default(),
            store: Store::default(),
            limits: Limits::default(),
            auth: Auth::default(),
            log: Log::default(),
            redis: Redis::default(),
            mongodb: MongoDb::default(),
            zookeeper: ZooKeeper::default(),
            webhooks: Webhooks::default(),
            development: Development::default(),
            namespaces: namespaces.into_iter().flatten().collect(),
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: "local".into(),
            roles: vec![Role::Session, Role::Channel],
            weight: 100,
            host: None,
            drain: Span::seconds(5),
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self { url: None, prefix: "xpush".into() }
    }
}

impl Default for MongoDb {
    fn default() -> Self {
        Self { url: None, database: "xpush".into() }
    }
}

impl Default for ZooKeeper {
    fn default() -> Self {
        Self { servers: None, root: "/xpush".into(), auth: None, session_timeout: Span::seconds(6) }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self { http: ([127, 0, 0, 1], 8080).into(), tls: ([127, 0, 0, 1], 8443).into() }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { path: "./data".into() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame: Size::kibibytes(64),
            data: Size::kibibytes(32),
            connections: 100_000,
            connections_per_address: 20_000,
            subscriptions: 5_000,
            in_flight: 256,
            publishes_per_second: 10_000,
            handshake_deadline: Span::seconds(10),
            idle_deadline: Span::seconds(45),
            ping_interval: Span::seconds(15),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

impl Secret {
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}

impl Serialize for Origins {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::SameHost => serializer.serialize_str("same-host"),
            Self::Any => serializer.serialize_str("any"),
            Self::List(list) => list.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Origins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Origins;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"same-host\", \"any\" or a list of origins")
            }

            /// Environment variables and flags write a list with commas.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Origins, E> {
                Ok(match text {
                    "same-host" => Origins::SameHost,
                    "any" => Origins::Any,
                    list => Origins::List(list.split(',').map(|origin| origin.trim().to_owned()).collect()),
                })
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Origins, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(Origins::List)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
