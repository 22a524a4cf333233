//! A node that came back, or was added, has hardly any clients, and those that are elsewhere have no reason to move. So
//! who has more than its share asks some of its own to go, a few at a time.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;
use xpush_protocol::{Draining, ServerFrame};

use super::Node;
use crate::membership::{NodeInfo, surplus};

/// After a node came or went its clients are on their way, and counts are old.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// Of its sessions a node asks one in so many to go each second.
const ONE_IN: usize = 20;
/// Within this time, spread over it, they go.
const SPREAD: Duration = Duration::from_secs(1);
/// What a client is told that need not go: nobody closes its connection.
const NO_HURRY: Duration = Duration::from_secs(60);

/// Since when the nodes are the same.
pub(super) struct Balance {
    nodes: Vec<u64>,
    since: Instant,
}

impl Default for Balance {
    fn default() -> Self {
        Self { nodes: Vec::new(), since: Instant::now() }
    }
}

impl Balance {
    fn is_settled(&mut self, nodes: &[NodeInfo]) -> bool {
        let now: Vec<u64> =
            nodes.iter().filter(|node| node.takes_clients()).map(|node| node.instance).collect();
        if now != self.nodes {
            *self = Self { nodes: now, since: Instant::now() };
        }
        self.since.elapsed() >= SETTLED_AFTER
    }
}

impl Node {
    /// Asks some sessions to go elsewhere, if there are more here than this node's share. To be called every second.
    pub(super) fn balance(&self, balance: &mut Balance) {
        let nodes = self.membership.nodes().borrow().clone();
        if !balance.is_settled(&nodes) {
            return;
        }
        let sessions = self.sessions.count();
        let surplus = surplus(&nodes, &self.id, sessions);
        if surplus == 0 {
            return;
        }
        let count = surplus.min(sessions.div_ceil(ONE_IN));
        info!(
            sessions,
            surplus, count, "more sessions than this node's share; some are asked to go elsewhere"
        );
        let (spread, close_in) = (SPREAD.as_millis() as usize, NO_HURRY.as_millis() as u32);
        self.sessions.ask_to_go(count, |index| {
            ServerFrame::Draining(Draining { reconnect_in: (spread * index / count) as u32, close_in })
        });
    }
}
