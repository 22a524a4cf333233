//! What the nodes of these tests stand on: the embedded store or, where `xpush-test-servers` runs the tests, what a
//! cluster shares.

use std::{
    collections::HashMap,
    env,
    ops::Deref,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::task::spawn_blocking;
use xpush::{
    broker::{self, Broker, Inbox},
    directory::{
        Directory,
        store::{self, Store},
    },
    log::{self, Capacity, Embedded, Keep, KeepByNamespace, Log, Memory, MongoDb},
    membership,
    metrics::Metrics,
    namespace::{Namespaces, Policy, Retention},
    node::Parts,
    presence::{self, Presence},
    redis::{Link, Settings},
};

use crate::harness::{Options, TestNode, auth, namespaces, node_info};

/// A node that keeps what it is told.
pub(crate) struct StoredNode {
    node: TestNode,
    stores: Stores,
    folder: TempDir,
}

impl Deref for StoredNode {
    type Target = TestNode;

    fn deref(&self) -> &TestNode {
        &self.node
    }
}

impl StoredNode {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), options).await
    }

    /// Where another one may have been before: it finds what that one kept.
    pub(crate) async fn in_folder(folder: TempDir, options: Options) -> Self {
        let open = options.open.map(|access| {
            let retention = Retention::Durable { keep: Keep { count: None, age: None } };
            ("open".parse().unwrap(), Policy { retention, access, history: true, ..Policy::default() })
        });
        let all = namespaces(options.recent_size);
        let namespaces: Namespaces =
            all.iter().map(|(name, policy)| (name.clone(), *policy)).chain(open).collect();
        let recent = Keep { count: Some(options.recent_size), age: Some(Duration::from_secs(60)) };
        let none = Keep { count: Some(0), age: None };
        let kept_shortly =
            HashMap::from([("live".parse().unwrap(), recent), ("typing".parse().unwrap(), none)]);
        let inbox = Arc::new(Inbox::new("test".parse().unwrap()));
        let stores = match Shared::of(folder.path()) {
            Some(shared) => shared.open(&namespaces, kept_shortly, &inbox).await,
            None => Stores::alone(folder.path(), &namespaces, kept_shortly),
        };
        let node = TestNode::of(Parts {
            namespaces,
            limits: options.limits,
            auth: auth(options.anonymous),
            inbox,
            recent: Arc::clone(&stores.recent),
            durable: Arc::clone(&stores.durable),
            directory: Arc::new(Directory::new(Arc::clone(&stores.directory))),
            broker: Arc::clone(&stores.broker),
            membership: Arc::new(membership::Alone::new(node_info("test", 1))),
            presence: Arc::clone(&stores.presence),
            metrics: Arc::new(Metrics::default()),
        });
        Self { node, stores, folder }
    }

    /// Stops the node and gives its folder, for another to start in.
    pub(crate) async fn stop(self) -> TempDir {
        self.node.stop().await;
        if let Some((log, directory)) = self.stores.of_this_machine {
            spawn_blocking(move || {
                log.close();
                directory.close();
            })
            .await
            .unwrap();
        }
        self.folder
    }
}

struct Stores {
    recent: Arc<dyn Log>,
    durable: Arc<dyn Log>,
    directory: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    presence: Arc<dyn Presence>,
    /// Has to be closed before another one opens it.
    of_this_machine: Option<(Arc<Embedded>, Arc<store::Embedded>)>,
}

impl Stores {
    fn alone(folder: &Path, namespaces: &Namespaces, kept_shortly: KeepByNamespace) -> Self {
        let log = Arc::new(Embedded::open(&folder.join("log"), namespaces.keep()).unwrap());
        let directory = Arc::new(store::Embedded::open(&folder.join("directory")).unwrap());
        let capacity = Capacity { channels: 10_000, bytes: 64 << 20 };
        Self {
            recent: Arc::new(Memory::new(kept_shortly, capacity)),
            durable: Arc::clone(&log) as Arc<dyn Log>,
            directory: Arc::clone(&directory) as Arc<dyn Store>,
            broker: Arc::new(broker::Alone),
            presence: Arc::new(presence::InProcess::default()),
            of_this_machine: Some((log, directory)),
        }
    }
}

/// Servers, and the part of them that is one node's.
struct Shared {
    redis: Settings,
    mongodb: String,
    database: String,
}

impl Shared {
    fn of(folder: &Path) -> Option<Self> {
        let (redis, mongodb) =
            (env::var("XPUSH_TEST_NODE_REDIS__URL").ok()?, env::var("XPUSH_TEST_NODE_MONGODB__URL").ok()?);
        let name = folder.file_name().unwrap().to_str().unwrap().replace('.', "");
        Some(Self { redis: Settings { url: redis, prefix: name.clone() }, mongodb, database: name })
    }

    async fn open(
        self,
        namespaces: &Namespaces,
        kept_shortly: KeepByNamespace,
        inbox: &Arc<Inbox>,
    ) -> Stores {
        /// Of a node's life: who comes back is another one.
        static INSTANCE: AtomicU64 = AtomicU64::new(1);
        let instance = INSTANCE.fetch_add(1, Ordering::Relaxed);
        let link = Link::connect(&self.redis).await.unwrap();
        let broker: Arc<dyn Broker> = broker::Redis::start(Arc::clone(&link), Arc::clone(inbox), instance);
        let presence =
            presence::Redis::start(Arc::clone(&link), Arc::clone(inbox), Arc::clone(&broker), instance);
        Stores {
            recent: Arc::new(log::Redis::new(link, instance, kept_shortly)),
            durable: Arc::new(
                MongoDb::connect(&self.mongodb, &self.database, namespaces.keep()).await.unwrap(),
            ),
            directory: Arc::new(store::MongoDb::connect(&self.mongodb, &self.database).await.unwrap()),
            broker,
            presence,
            of_this_machine: None,
        }
    }
}
