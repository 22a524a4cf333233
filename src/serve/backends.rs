//! The logs, the broker, presence and membership: on this machine alone, or those that a cluster shares.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};
use xpush::{
    broker::{self, Broker, Inbox},
    config::Config,
    directory::{
        DirectoryError,
        store::{self, Store, StoreError},
    },
    log::{self, Capacity, Embedded, Keep, KeepByNamespace, Log, LogError, Memory, MongoDb},
    membership::{self, Membership, NodeInfo, ZooKeeper, ZooKeeperSettings},
    namespace::{Namespaces, Retention},
    node::Node,
    presence::{self, Presence},
    redis::{self, LinkError},
};

/// Channels in memory at once, over all namespaces without a durable log.
const MEMORY_CHANNELS: usize = 1_000_000;
/// Bytes of messages in memory at once, over the same namespaces: half of what the smallest machine that one would
/// rent has, so that the connections and the store fit beside it.
const MEMORY_BYTES: usize = 256 << 20;

/// Between two tries to reach a server at the start.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a node stands on.
pub(super) struct Backends {
    pub(super) recent: Arc<dyn Log>,
    pub(super) durable: Arc<dyn Log>,
    pub(super) directory: Arc<dyn Store>,
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
        match Servers::of(config) {
            Some(servers) => Self::clustered(config, servers, namespaces, inbox, node).await,
            None => Self::alone(config, namespaces, node),
        }
    }

    /// What a cluster shares. A server that is missing is waited for: it may be on its way up as well.
    async fn clustered(
        config: &Config,
        servers: Servers<'_>,
        namespaces: &Namespaces,
        inbox: &Arc<Inbox>,
        node: NodeInfo,
    ) -> anyhow::Result<Self> {
        let Servers { redis, mongodb, zookeeper } = servers;
        let instance = node.instance;
        let settings = redis::Settings { url: redis.into(), prefix: config.redis.prefix.clone() };
        let link = waiting(
            "Redis",
            |error| matches!(error, LinkError::Unreachable { .. }),
            async || redis::Link::connect(&settings).await,
        )
        .await?;
        let database = &config.mongodb.database;
        let durable = waiting(
            "MongoDB",
            |error| matches!(error, LogError::Unavailable { .. }),
            async || MongoDb::connect(mongodb, database, namespaces.keep()).await,
        )
        .await?;
        let durable = Arc::new(durable);
        let directory = waiting(
            "MongoDB",
            |error| matches!(error, StoreError::Unavailable(_)),
            async || store::MongoDb::connect(mongodb, database).await,
        )
        .await?;
        let directory = Arc::new(directory);
        let recent = Arc::new(log::Redis::new(Arc::clone(&link), instance, kept_shortly(namespaces)));
        let broker = broker::Redis::start(Arc::clone(&link), Arc::clone(inbox), instance);
        let presence = presence::Redis::start(
            Arc::clone(&link),
            Arc::clone(inbox),
            Arc::clone(&broker) as Arc<dyn Broker>,
            instance,
        );
        let settings = ZooKeeperSettings {
            servers: zookeeper.into(),
            root: config.zookeeper.root.clone(),
            auth: config.zookeeper.auth.as_ref().map(|auth| auth.expose().to_owned()),
            session_timeout: config.zookeeper.session_timeout.duration(),
        };
        let membership = ZooKeeper::start(settings, node)?;
        let closing: Vec<BoxFuture<'static, ()>> = vec![
            {
                let membership = Arc::clone(&membership);
                Box::pin(async move { membership.close().await })
            },
            {
                let presence = Arc::clone(&presence);
                Box::pin(async move { presence.close().await })
            },
            {
                let broker = Arc::clone(&broker);
                Box::pin(async move { broker.close().await })
            },
            {
                let recent = Arc::clone(&recent);
                Box::pin(async move { recent.close().await })
            },
            {
                let durable = Arc::clone(&durable);
                Box::pin(async move { durable.close().await })
            },
            {
                let directory = Arc::clone(&directory);
                Box::pin(async move { directory.close().await })
            },
            Box::pin(async move { link.close().await }),
        ];
        let document = Some(membership.config());
        Ok(Self { recent, durable, directory, broker, presence, membership, document, closing })
    }

    /// An embedded store, and nobody else.
    fn alone(config: &Config, namespaces: &Namespaces, node: NodeInfo) -> anyhow::Result<Self> {
        let log = Arc::new(Embedded::open(&config.store.path.join("log"), namespaces.keep())?);
        let directory = Arc::new(store::Embedded::open(&config.store.path.join("directory"))?);
        let capacity = Capacity { channels: MEMORY_CHANNELS, bytes: MEMORY_BYTES };
        Ok(Self {
            recent: Arc::new(Memory::new(kept_shortly(namespaces), capacity)),
            durable: Arc::clone(&log) as Arc<dyn Log>,
            directory: Arc::clone(&directory) as Arc<dyn Store>,
            broker: Arc::new(broker::Alone),
            presence: Arc::new(presence::InProcess::default()),
            membership: Arc::new(membership::Alone::new(node)),
            document: None,
            closing: vec![Box::pin(async move {
                // It fails only if closing panicked, and then it is as closed as it will be.
                let close = move || {
                    log.close();
                    directory.close();
                };
                let _ = tokio::task::spawn_blocking(close).await;
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

/// Where a cluster's servers are.
struct Servers<'a> {
    redis: &'a str,
    mongodb: &'a str,
    zookeeper: &'a str,
}

impl<'a> Servers<'a> {
    /// The configuration has all of them, or none.
    fn of(config: &'a Config) -> Option<Self> {
        Some(Self {
            redis: config.redis.url.as_ref()?.expose(),
            mongodb: config.mongodb.url.as_ref()?.expose(),
            zookeeper: config.zookeeper.servers.as_deref()?,
        })
    }
}

/// Waits until it is known which webhooks there are: nobody shall come in unasked.
pub(super) async fn loaded(node: &Node) -> anyhow::Result<()> {
    let is_away = |error: &DirectoryError| matches!(error, DirectoryError::Store(StoreError::Unavailable(_)));
    Ok(waiting("the directory", is_away, async || node.webhooks.load(&node.directory).await).await?)
}

/// Starts a backend. While its server is missing it is tried again, which is said once.
async fn waiting<T, E>(
    what: &str,
    may_come: impl Fn(&E) -> bool,
    mut start: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, E>
where
    E: std::error::Error,
{
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        match start().await {
            Err(error) if may_come(&error) => {
                if !told {
                    warn!(%error, "{what} can't be used yet; this node starts once it can");
                    told = true;
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            started => {
                if told && started.is_ok() {
                    info!("{what} can be used now");
                }
                return started;
            }
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
