//! The way to Redis, which the broker, presence and the log of what need not last share: one server, a Sentinel's
//! set, or a Cluster, told apart by the URL alone.
//!
//! `address` reads the URL, `server` keeps a connection to one server and fails at once while that is down, `slots`
//! knows which server of a Cluster has which keys, `link` is what the backends hold. Connections for Pub/Sub
//! (`ear`) are apart: what is heard never waits behind what is asked.
//!
//! Nothing here is the ack point of a durable channel; Redis may lose everything, and what hangs on it must show.

mod address;
mod ear;
mod envelope;
mod keys;
mod link;
mod script;
mod server;
mod slots;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub(crate) use self::{
    ear::{Ear, Heard},
    envelope::{Envelope, placed, without_place},
    keys::Keys,
    link::{Reply, read},
    script::Script,
    server::Server,
};
pub use self::{keys::DEFAULT_PREFIX, link::Link};

/// Where Redis is, and under which names XPUSH keeps its things there.
#[derive(Clone)]
pub struct Settings {
    /// `redis://[user:password@]host[:port][/db]`, `redis+sentinel://…host:port,…/primary[/db]` or
    /// `redis+cluster://…host:port,…`; with TLS `rediss…`.
    pub url: String,
    /// Before every key and topic: two installations can share a Redis.
    pub prefix: String,
}

/// Why Redis does not do it. Texts name addresses, never passwords.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinkError {
    #[error("`redis.url` {problem}; expected {expected}", expected = address::EXPECTED)]
    Url { problem: String },
    #[error("`redis.prefix` must be 1 to {limit} letters, digits, `-`, `_`, `.` and `:`", limit = keys::PREFIX_LIMIT)]
    Prefix,
    #[error("Redis at {address} is out of reach: {reason}")]
    Unreachable { address: String, reason: String },
    #[error("Redis at {address} has version {found}; XPUSH needs 7.0 or newer, so upgrade it")]
    Version { address: String, found: String },
    /// It answered, and said no.
    #[error("Redis refused: {reason}")]
    Refused { reason: String },
}
