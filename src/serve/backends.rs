//! The logs, the broker, presence and membership: on this machine alone, or those that a cluster shares.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use xpush::{
    broker::{self, Broker, Inbox},
    config::Config,
    log::{Capacity, Embedded, Keep, KeepByNamespace, Log, Memory},
    membership::{self, Membership, NodeInfo},
    namespace::{Namespaces, Retention},
    presence::{self, Presence},
};

/// Channels in memory at once, over all namespaces without a durable log.
const MEMORY_CHANNELS: usize = 1_000_000;
/// Bytes of messages in memory at once, over the same namespaces: half of what the smallest machine that one would
/// rent has, so that the connections and the store fit beside it.
const MEMORY_BYTES: usize = 256 << 20;

/// What a node stands on.
pub(super) struct Backends {
    pub(super) recent: Arc<dyn Log>,
    pub(super) durable: Arc<dyn Log>,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) presence: Arc<dyn Presence>,
    pub(super) membership: Arc<dyn Membership>,
    /// What all nodes watch, if there is such a thing.
    pub(super) document: Option<watch::Receiver<Option<String>>>,
    /// How each is left, in order.
    closing: Vec<BoxFuture<'static, ()>>,
}

impl Backends {
    /// Those that the configuration names.
    pub(super) async fn start(
        config: &Config,
        namespaces: &Namespaces,
        inbox: &Arc<Inbox>,
        node: NodeInfo,
    ) -> anyhow::Result<Self> {
        let _ = inbox;
        Self::alone(config, namespaces, node)
    }

    /// An embedded store, and nobody else.
    fn alone(config: &Config, namespaces: &Namespaces, node: NodeInfo) -> anyhow::Result<Self> {
        let store = Arc::new(Embedded::open(&config.store.path.join("log"), namespaces.keep())?);
        let capacity = Capacity { channels: MEMORY_CHANNELS, bytes: MEMORY_BYTES };
        Ok(Self {
            recent: Arc::new(Memory::new(kept_shortly(namespaces), capacity)),
            durable: Arc::clone(&store) as Arc<dyn Log>,
            broker: Arc::new(broker::Alone),
            presence: Arc::new(presence::InProcess::default()),
            membership: Arc::new(membership::Alone::new(node)),
            document: None,
            closing: vec![Box::pin(async move {
                // It fails only if closing panicked, and then it is as closed as it will be.
                let _ = tokio::task::spawn_blocking(move || store.close()).await;
            })],
        })
    }

    /// Leaves all of them, once nobody uses them any more.
    pub(super) async fn close(self) {
        for closing in self.closing {
            closing.await;
        }
    }
}

/// What the log of what need not last is told to keep.
fn kept_shortly(namespaces: &Namespaces) -> KeepByNamespace {
    let keep = namespaces.iter().filter_map(|(name, policy)| {
        let keep = match policy.retention {
            Retention::None => Keep { count: Some(0), age: None },
            Retention::Recent { size, ttl } => Keep { count: Some(size as u64), age: Some(ttl) },
            Retention::Durable { .. } => return None,
        };
        Some((name.clone(), keep))
    });
    keep.collect::<HashMap<_, _>>()
}
