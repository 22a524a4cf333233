//! XPUSH: realtime messages for people on any device, self-hosted.
//!
//! A message's way through this crate, and the order to read it in: a transport accepts a connection, `session`
//! turns its bytes into commands and checks what they may do, `node` puts a publish into the `log`, which gives it
//! its place, the `broker` carries it to every node with subscribers, and `channel` hands it to each subscriber's
//! `session::Outbox`, out of which a courier or the session itself writes it to the wire.
//!
//! Invariant: nothing in the core names a vendor or a transport. Backends are features, and only the program wires
//! them; `cargo check --lib --no-default-features` proves it.

pub mod auth;
pub mod broker;
pub mod channel;
pub mod client;
pub mod config;
pub mod directory;
#[cfg(feature = "embedded")]
mod disk;
#[cfg(feature = "server")]
pub mod http;
pub mod log;
pub mod membership;
pub mod metrics;
#[cfg(feature = "mongodb")]
mod mongodb;
pub mod namespace;
pub mod node;
pub mod presence;
pub mod publication;
pub mod rate;
#[cfg(feature = "redis")]
pub mod redis;
pub mod session;
pub mod webhook;
