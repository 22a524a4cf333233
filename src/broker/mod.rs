//! The broker carries what concerns a topic to the other nodes that asked for it. It may lose anything and never
//! decides order: a channel sees what is missing by the offsets and by its top, and reads it from the log.
//!
//! Invariant: nothing here but the backends' own rooms names a vendor.

mod carried;
#[cfg(test)]
mod contract;
mod inbox;
#[cfg(feature = "redis")]
mod redis;

use std::fmt;

use futures_util::future::{self, BoxFuture};
use thiserror::Error;
use xpush_protocol::{ChannelName, Cursor, SessionId, UserId};

pub use carried::{Carried, Placed, Standing, Taken};
pub(crate) use inbox::Answers;
pub use inbox::{Inbox, Requested};
#[cfg(feature = "redis")]
pub use redis::Redis;

use crate::membership::NodeId;

/// Carries things to the other nodes. What comes from them goes into the node's `Inbox`.
pub trait Broker: Send + Sync + 'static {
    /// Hands a thing to every other node that listens to its topic. Gives how many that were, as far as it knows; an
    /// error means that it may not have been handed to anybody. Bounded in time.
    fn publish(&self, carried: Carried) -> BoxFuture<'_, Result<usize, BrokerError>>;

    /// Listens to a topic, from the call on; resolves when what is published from then on arrives, or when the
    /// broker is out of reach (then `Inbox::doubt` follows once it is back). Every call has to be taken back by one
    /// of `unlisten`, whether the future was awaited or not.
    fn listen(&self, topic: Topic) -> BoxFuture<'_, ()>;

    fn unlisten(&self, topic: &Topic);

    /// Where these channels stand by the tops that were announced (`Carried::Publication`, `Carried::Top`), in their
    /// order. `None`: no top is known, which says nothing.
    fn tops<'a>(
        &'a self,
        channels: &'a [ChannelName],
    ) -> BoxFuture<'a, Result<Vec<Option<Cursor>>, BrokerError>>;

    /// Whether there may be other nodes. If not, nothing is lost between them.
    fn reaches_others(&self) -> bool {
        true
    }

    /// Whether it is there, for the operator.
    fn check(&self) -> BoxFuture<'_, Result<(), BrokerError>>;
}

/// What one can listen to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    Channel(ChannelName),
    Session(SessionId),
    User(UserId),
    Node(NodeId),
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(channel) => write!(f, "channel {channel}"),
            Self::Session(session) => write!(f, "session {session}"),
            Self::User(user) => write!(f, "user {user}"),
            Self::Node(node) => write!(f, "node {node}"),
        }
    }
}

/// Why the broker can't do it. It goes on by itself once it is back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the broker does not answer: {reason}")]
pub struct BrokerError {
    pub reason: String,
}

/// One node alone: there is nobody else.
#[derive(Debug, Default)]
pub struct Alone;

impl Broker for Alone {
    fn publish(&self, _: Carried) -> BoxFuture<'_, Result<usize, BrokerError>> {
        Box::pin(future::ready(Ok(0)))
    }

    fn listen(&self, _: Topic) -> BoxFuture<'_, ()> {
        Box::pin(future::ready(()))
    }

    fn unlisten(&self, _: &Topic) {}

    fn tops<'a>(
        &'a self,
        channels: &'a [ChannelName],
    ) -> BoxFuture<'a, Result<Vec<Option<Cursor>>, BrokerError>> {
        Box::pin(future::ready(Ok(vec![None; channels.len()])))
    }

    fn reaches_others(&self) -> bool {
        false
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(future::ready(Ok(())))
    }
}
