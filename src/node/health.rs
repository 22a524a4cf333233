//! How the backends are, for the operator's machines.

use std::{fmt::Display, time::Duration};

use tokio::time::timeout;
use xpush_protocol::ChannelName;

use super::Node;

/// A backend that takes longer to say that it is there is as good as gone.
const CHECK_DEADLINE: Duration = Duration::from_secs(2);
/// A channel that nobody writes to: reading where it stands asks the store and nothing more.
const PROBE: &str = "probe:readiness";

/// What each backend says: nothing, or why it can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub log: Result<(), String>,
    pub broker: Result<(), String>,
    pub membership: Result<(), String>,
}

impl Node {
    /// Asks every backend.
    pub async fn health(&self) -> Health {
        let probe: Option<ChannelName> = PROBE.parse().ok();
        let log = async {
            match &probe {
                Some(channel) => self.durable.extent(channel).await.map(drop),
                None => Ok(()),
            }
        };
        let (log, broker, membership) =
            tokio::join!(within(log), within(self.broker.check()), within(self.membership.check()));
        let health = Health { log, broker, membership };
        self.metrics.backends(&health);
        health
    }

    /// Whether this node is of use to new clients: a node alone needs its log. In a cluster all nodes have the same
    /// backends, and what still works without one of them is more than no node at all.
    #[must_use]
    pub fn is_ready(&self, health: &Health) -> bool {
        !self.is_draining() && (self.is_in_cluster() || health.log.is_ok())
    }
}

async fn within<E: Display>(check: impl Future<Output = Result<(), E>>) -> Result<(), String> {
    match timeout(CHECK_DEADLINE, check).await {
        Ok(checked) => checked.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", CHECK_DEADLINE.as_secs())),
    }
}
