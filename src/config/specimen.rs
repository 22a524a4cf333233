//! A configuration in which every key is set: what keys there are, and of what kind each is, is read from it, so
//! there is no second list to forget.

use ipnet::IpNet;
use toml::{Table, Value};
use xpush_protocol::AppId;

use super::schema::{
    Auth, BackendKey, Config, Development, Limits, Listen, Log, LogFormat, MongoDb, NamespaceSection, Node,
    Origins, PublicUrls, Redis, RetentionKind, Role, Secret, Store, Tls, TokenKey, Webhooks, ZooKeeper,
};
use super::unit::Span;
use crate::auth::{Algorithm, Permissions};

/// Every key with some value.
pub(super) fn specimen() -> Table {
    let text = || Some(String::new());
    // No `..Default::default()` where a key is optional: one that is added must be set here.
    let namespace = NamespaceSection {
        retention: Some(RetentionKind::Recent),
        size: Some(1),
        ttl: Some(Span::seconds(1)),
        keep_count: Some(1),
        keep_age: Some(Span::seconds(1)),
        presence: Some(true),
        history: Some(true),
        access: Some(crate::namespace::Access::Token),
        receipts: Some(false),
    };
    let config = Config {
        origins: Origins::List(vec![String::new()]),
        node: Node {
            name: String::new(),
            roles: vec![Role::Channel],
            weight: 1,
            host: text(),
            drain: Span::seconds(1),
        },
        listen: Listen::default(),
        public_urls: PublicUrls { webtransport: text(), quic: text(), websocket: text(), longpoll: text() },
        tls: Tls { cert: Some("".into()), key: Some("".into()) },
        store: Store { path: "".into() },
        limits: Limits::default(),
        auth: Auth {
            anonymous: Some(true),
            state_secret: Some(Secret(String::new())),
            keys: vec![TokenKey {
                id: text(),
                algorithm: Algorithm::Hs256,
                secret: Some(Secret(String::new())),
                public_key: text(),
                public_key_file: Some("".into()),
                audience: text(),
                issuer: text(),
                app: AppId::default(),
            }],
            api_keys: vec![BackendKey {
                id: String::new(),
                sha256: String::new(),
                grants: Some([("room:*".to_owned(), Permissions::ALL)].into()),
                app: AppId::default(),
            }],
        },
        log: Log { level: String::new(), format: LogFormat::Text },
        redis: Redis { url: Some(Secret(String::new())), prefix: String::new() },
        mongodb: MongoDb { url: Some(Secret(String::new())), database: String::new() },
        zookeeper: ZooKeeper {
            servers: text(),
            root: String::new(),
            auth: Some(Secret(String::new())),
            session_timeout: Span::seconds(1),
        },
        webhooks: Webhooks { allow_private: vec![IpNet::default()] },
        development: Development { allow_public: true },
        namespaces: "any".parse().map(|name| (name, namespace)).into_iter().collect(),
    };
    match Value::try_from(config) {
        Ok(Value::Table(table)) => table,
        _ => Table::new(),
    }
}
