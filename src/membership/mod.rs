//! Which nodes live, where their clients reach them, and how much they carry.
//!
//! It serves the look-up and the operator. No promise to a client hangs on it: a node that can't be seen here still
//! serves, and two nodes that think differently of who lives do no harm.
//!
//! Invariant: nothing here but the backends' own rooms names a vendor.

mod assign;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::{fmt, str::FromStr, sync::Arc};

use futures_util::future::{self, BoxFuture};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;
use xpush_protocol::Transports;

pub use assign::{appender, assign, surplus};
#[cfg(feature = "zookeeper")]
pub use zookeeper::{Settings as ZooKeeperSettings, ZooKeeper};

/// The nodes that live.
pub trait Membership: Send + Sync + 'static {
    /// All that live as far as is known, in the order of their ids, this one included; and every change. When the
    /// service is out of reach, what was known last.
    fn nodes(&self) -> watch::Receiver<Nodes>;

    /// Tells the others how this node is now.
    fn tell(&self, status: Status);

    /// Whether the service is there, for the operator.
    fn check(&self) -> BoxFuture<'_, Result<(), MembershipError>>;
}

/// The nodes, in the order of their ids.
pub type Nodes = Arc<[NodeInfo]>;

/// Why the nodes can't be told from here. It goes on by itself once the service is back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the list of nodes can't be kept: {reason}")]
pub struct MembershipError {
    pub reason: String,
}

/// A node's name: the operator's, unique in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

/// Why a text is no node's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a node's name is 1 to {MAX_NODE_ID} letters, digits, `-`, `_` and `.`")]
pub struct NodeIdError;

/// As a host's name may be.
const MAX_NODE_ID: usize = 253;

/// One node, as the others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub id: NodeId,
    /// Of this run of the process: the same node started again is another one.
    pub instance: u64,
    pub version: String,
    pub roles: Roles,
    /// How many clients it should have, beside the others' weights.
    pub weight: u32,
    /// Its wires for a page that came by http, and those for one that came by https.
    pub wires: Transports,
    pub secure_wires: Transports,
    /// Where its HTTP API is, without and with TLS.
    pub url: String,
    pub secure_url: String,
    pub status: Status,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// It serves the API and tells clients where to go.
    pub session: bool,
    /// It holds connections.
    pub channel: bool,
}

/// What changes while a node lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Sessions that are connected.
    pub sessions: u32,
    /// Channels that have subscribers there.
    #[serde(default)]
    pub channels: u32,
    /// Users of whom a session is there.
    #[serde(default)]
    pub users: u32,
    /// It leaves, and takes no new clients.
    pub draining: bool,
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        // ZooKeeper and URLs know `.` and `..` as something else.
        let special = text == "." || text == "..";
        if text.is_empty() || text.len() > MAX_NODE_ID || special || !text.bytes().all(allowed) {
            return Err(NodeIdError);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for NodeId {
    type Error = NodeIdError;

    fn try_from(text: String) -> Result<Self, NodeIdError> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.as_str().to_owned()
    }
}

impl NodeId {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl NodeInfo {
    /// Whether new clients may be sent to it.
    #[must_use]
    pub fn takes_clients(&self) -> bool {
        self.roles.channel && !self.status.draining && self.weight > 0
    }
}

/// One node alone.
pub struct Alone(watch::Sender<Nodes>);

impl Alone {
    #[must_use]
    pub fn new(node: NodeInfo) -> Self {
        Self(watch::Sender::new(Arc::new([node])))
    }
}

impl Membership for Alone {
    fn nodes(&self) -> watch::Receiver<Nodes> {
        self.0.subscribe()
    }

    fn tell(&self, status: Status) {
        self.0.send_modify(|nodes| {
            *nodes = nodes.iter().map(|node| NodeInfo { status, ..node.clone() }).collect();
        });
    }

    fn check(&self) -> BoxFuture<'_, Result<(), MembershipError>> {
        Box::pin(future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_name_is_one_word() {
        for good in ["n1", "node-7.eu_1", "a"] {
            assert_eq!(good.parse::<NodeId>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "ü", &"a".repeat(254)] {
            assert_eq!(bad.parse::<NodeId>(), Err(NodeIdError), "{bad}");
        }
    }
}
