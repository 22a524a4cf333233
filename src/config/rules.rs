//! What types can't say: bounds, what goes with what, and who may be let in from where.

use std::{collections::HashSet, fs};

use super::{Config, ConfigError, NamespaceSection, Node, Origins, RetentionKind, Span};
use crate::{
    auth::MIN_SECRET,
    membership::NodeId,
    namespace::{DEFAULT_RECENT_SIZE, DEFAULT_RECENT_TTL},
};

/// A state that a client brings back holds all its subscriptions, and has a bound (`auth::MAX_STATE`).
const MAX_SUBSCRIPTIONS: u32 = 10_000;

/// Frames are held in memory whole, one for each connection that is just sending.
const MAX_FRAME: u64 = 16 << 20;

/// `connect` with a token must fit.
const MIN_FRAME: u64 = 16 << 10;

/// Verifying may have to try all of them.
const MAX_KEYS: usize = 16;

/// `recent` channels are in memory.
const MAX_RECENT_SIZE: usize = 100_000;

/// Shares are computed in floating point, and need no more.
const MAX_WEIGHT: u32 = 1_000_000;

/// As MongoDB has it for a database.
const MAX_NAME: usize = 38;

/// A wire that is silent for as many ping intervals is closed, says the protocol.
const SILENT_INTERVALS: u64 = 3;

/// All of them; the first that is broken is the error.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    limits(config)?;
    for (name, section) in &config.namespaces {
        section.check(&format!("namespaces.{name}"))?;
    }
    origins(config)?;
    tls(config)?;
    auth(config)?;
    node(config)?;
    cluster(config)?;
    public_development(config)
}

fn broken<T>(key: impl Into<String>, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Rule { key: key.into(), problem: problem.into() })
}

fn limits(config: &Config) -> Result<(), ConfigError> {
    let limits = &config.limits;
    if !(MIN_FRAME..=MAX_FRAME).contains(&limits.frame.0) {
        return broken("limits.frame", format!("is {}; 16KiB to 16MiB are possible", limits.frame));
    }
    if limits.data.0 == 0 || limits.data >= limits.frame {
        return broken(
            "limits.data",
            format!(
                "is {}; it must be more than 0 and less than `limits.frame` ({})",
                limits.data, limits.frame
            ),
        );
    }
    if limits.subscriptions > MAX_SUBSCRIPTIONS {
        return broken(
            "limits.subscriptions",
            format!("is {}; {MAX_SUBSCRIPTIONS} at most are possible", limits.subscriptions),
        );
    }
    for (key, is_zero) in [
        ("connections", limits.connections == 0),
        ("connections_per_address", limits.connections_per_address == 0),
        ("subscriptions", limits.subscriptions == 0),
        ("in_flight", limits.in_flight == 0),
        ("publishes_per_second", limits.publishes_per_second == 0),
        ("handshake_deadline", limits.handshake_deadline.millis() == 0),
        ("ping_interval", limits.ping_interval.millis() == 0),
    ] {
        if is_zero {
            return broken(format!("limits.{key}"), "is 0, and then nobody can do anything");
        }
    }
    if limits.idle_deadline.millis() < limits.ping_interval.millis().saturating_mul(SILENT_INTERVALS) {
        return broken(
            "limits.idle_deadline",
            format!(
                "is {}; it must be {SILENT_INTERVALS} times `limits.ping_interval` ({}) at least",
                limits.idle_deadline, limits.ping_interval
            ),
        );
    }
    Ok(())
}

impl NamespaceSection {
    fn check(&self, at: &str) -> Result<(), ConfigError> {
        let Some(retention) = self.retention else {
            return broken(format!("{at}.retention"), "is missing: \"durable\", \"recent\" or \"none\"");
        };
        for (key, is_set, belongs_to, word) in [
            ("size", self.size.is_some(), RetentionKind::Recent, "recent"),
            ("ttl", self.ttl.is_some(), RetentionKind::Recent, "recent"),
            ("keep_count", self.keep_count.is_some(), RetentionKind::Durable, "durable"),
            ("keep_age", self.keep_age.is_some(), RetentionKind::Durable, "durable"),
        ] {
            if is_set && retention != belongs_to {
                return broken(format!("{at}.{key}"), format!("goes with retention = \"{word}\" only"));
            }
        }
        if retention == RetentionKind::None && self.history == Some(true) {
            return broken(format!("{at}.history"), "is not possible with retention = \"none\"");
        }
        if self.size.is_some_and(|size| !(1..=MAX_RECENT_SIZE).contains(&size)) {
            return broken(format!("{at}.size"), format!("must be 1 to {MAX_RECENT_SIZE}"));
        }
        if self.keep_count == Some(0) {
            return broken(format!("{at}.keep_count"), "is 0; use retention = \"none\" to keep nothing");
        }
        for (key, span) in [("ttl", self.ttl), ("keep_age", self.keep_age)] {
            if span.is_some_and(|span| span.millis() == 0) {
                return broken(format!("{at}.{key}"), "is 0; use retention = \"none\" to keep nothing");
            }
        }
        Ok(())
    }

    /// Says what holds where the section says nothing.
    pub(super) fn fill(&mut self) {
        if self.retention == Some(RetentionKind::Recent) {
            self.size.get_or_insert(DEFAULT_RECENT_SIZE);
            self.ttl.get_or_insert(Span::seconds(DEFAULT_RECENT_TTL.as_secs()));
        }
        self.presence.get_or_insert(false);
        self.access.get_or_insert_default();
        self.receipts.get_or_insert(false);
        self.history.get_or_insert(self.retention != Some(RetentionKind::None));
    }
}

/// An origin is scheme, host and maybe port (RFC 6454), as browsers send it.
fn origins(config: &Config) -> Result<(), ConfigError> {
    let Origins::List(list) = &config.origins else { return Ok(()) };
    for origin in list {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        if !host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' ', '@'])) {
            return broken(
                "origins",
                format!("has {origin:?}; an origin is a scheme and a host, as in \"https://app.example\""),
            );
        }
    }
    Ok(())
}

fn tls(config: &Config) -> Result<(), ConfigError> {
    let files = match (&config.tls.cert, &config.tls.key) {
        (None, None) => return Ok(()),
        (Some(cert), Some(key)) => [("tls.cert", cert), ("tls.key", key)],
        (Some(_), None) => return broken("tls.key", "is missing; `tls.cert` needs its private key"),
        (None, Some(_)) => return broken("tls.cert", "is missing; `tls.key` needs its certificate"),
    };
    for (key, path) in files {
        if let Err(error) = fs::File::open(path) {
            return broken(key, format!("is {}, which can't be read: {error}", path.display()));
        }
    }
    Ok(())
}

fn auth(config: &Config) -> Result<(), ConfigError> {
    if config.auth.state_secret.as_ref().is_some_and(|secret| secret.expose().len() < MIN_SECRET) {
        return broken("auth.state_secret", format!("has fewer than {MIN_SECRET} characters"));
    }
    if config.auth.keys.len() > MAX_KEYS {
        return broken(
            "auth.keys",
            format!("are {}; {MAX_KEYS} at most are possible", config.auth.keys.len()),
        );
    }
    let mut ids = HashSet::new();
    for id in config.auth.keys.iter().filter_map(|key| key.id.as_ref()) {
        if !ids.insert(id) {
            return broken("auth.keys.id", format!("is {id:?} twice"));
        }
    }
    // Made to be checked; the files of public keys are read.
    config.token_keys()?;
    config.backend_keys()?;
    Ok(())
}

fn node(config: &Config) -> Result<(), ConfigError> {
    if let Err(error) = config.node.name.parse::<NodeId>() {
        return broken("node.name", format!("is {:?}; {error}", config.node.name));
    }
    if config.node.roles.is_empty() {
        return broken("node.roles", "is empty; a node is \"session\", \"channel\" or both");
    }
    if config.node.weight > MAX_WEIGHT {
        return broken("node.weight", format!("is {}; {MAX_WEIGHT} at most is possible", config.node.weight));
    }
    if config.node.host.as_ref().is_some_and(|host| host.is_empty() || host.contains(['/', ' ', '@'])) {
        return broken("node.host", "must be a host's name or address, without scheme, port or path");
    }
    Ok(())
}

/// A cluster is all three of its servers, and what all its nodes must have alike.
fn cluster(config: &Config) -> Result<(), ConfigError> {
    let parts = [
        ("redis.url", config.redis.url.is_some()),
        ("mongodb.url", config.mongodb.url.is_some()),
        ("zookeeper.servers", config.zookeeper.servers.is_some()),
    ];
    if parts.iter().all(|(_, is_set)| !is_set) {
        return Ok(());
    }
    if let Some((key, _)) = parts.iter().find(|(_, is_set)| !is_set) {
        return broken(*key, "is missing; a cluster needs redis.url, mongodb.url and zookeeper.servers");
    }
    if config.node.name == Node::default().name {
        return broken("node.name", "is missing; every node of a cluster has a name of its own");
    }
    if config.auth.state_secret.is_none() {
        return broken("auth.state_secret", "is missing; it must be the same on all nodes of a cluster");
    }
    if config.is_development() {
        return broken(
            "auth.keys",
            "are missing; development keys are of one node, a cluster's nodes share theirs",
        );
    }
    let unspecified =
        [config.listen.http, config.listen.tls].iter().any(|address| address.ip().is_unspecified());
    if unspecified && config.node.host.is_none() {
        return broken("node.host", "is missing; the other nodes have to tell clients where this one is");
    }
    if !config.zookeeper.root.starts_with('/') || config.zookeeper.root.ends_with('/') {
        return broken("zookeeper.root", "must be a path that begins with / and does not end with it");
    }
    for (key, name) in
        [("redis.prefix", &config.redis.prefix), ("mongodb.database", &config.mongodb.database)]
    {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(word) {
            return broken(key, format!("must be 1 to {MAX_NAME} letters, digits, `-` and `_`"));
        }
    }
    Ok(())
}

fn public_development(config: &Config) -> Result<(), ConfigError> {
    let reason = if config.is_development() {
        "no keys are configured, so that the development keys are in use"
    } else if config.is_anonymous() {
        "`auth.anonymous` lets clients in without a token"
    } else {
        return Ok(());
    };
    for (key, address) in [("listen.http", config.listen.http), ("listen.tls", config.listen.tls)] {
        if !address.ip().to_canonical().is_loopback() && !config.development.allow_public {
            return Err(ConfigError::PublicDevelopment { key, address, reason });
        }
    }
    Ok(())
}
