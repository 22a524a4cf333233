//! The directory is away for a while: who comes in by the application's tokens still does, and is looked at afterwards.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::BoxFuture;
use tokio::time::timeout;
use xpush::{
    broker::{self, Inbox},
    client::ClientError,
    directory::{
        Directory, NewUser,
        store::{self, Commit, CommitError, Entry, Key, Scan, Store, StoreError},
    },
    log::{Capacity, Log, Memory},
    membership,
    metrics::Metrics,
    node::Parts,
    presence,
};
use xpush_protocol::{ClientFrame, CloseCode, Codec, Connect, ErrorCode, Ping, UserId};
use xpush_transports::Closed;

use super::{
    code,
    harness::{Options, PATIENCE, TestNode, auth, namespaces, node_info, token_of},
};

/// A store that can be away.
#[derive(Default)]
struct Switched {
    inner: store::Memory,
    is_away: AtomicBool,
}

impl Switched {
    fn check(&self) -> Result<(), StoreError> {
        let away = || StoreError::Unavailable("it is away, for a test".into());
        if self.is_away.load(Ordering::Relaxed) { Err(away()) } else { Ok(()) }
    }
}

impl Store for Switched {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(async move {
            self.check()?;
            self.inner.get(key).await
        })
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
        Box::pin(async move {
            self.check()?;
            self.inner.get_many(keys).await
        })
    }

    fn scan<'a>(&'a self, scan: Scan) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>> {
        Box::pin(async move {
            self.check()?;
            self.inner.scan(scan).await
        })
    }

    fn commit<'a>(&'a self, commit: Commit) -> BoxFuture<'a, Result<(), CommitError>> {
        Box::pin(async move {
            self.check()?;
            self.inner.commit(commit).await
        })
    }
}

#[tokio::test]
async fn who_comes_in_while_the_directory_is_away_is_looked_at_when_it_is_back() {
    let store = Arc::new(Switched::default());
    let log: Arc<dyn Log> = Arc::new(Memory::new([].into(), Capacity { channels: 10, bytes: 1 << 20 }));
    let node = TestNode::of(Parts {
        namespaces: namespaces(10),
        limits: Options::default().limits,
        auth: auth(false),
        inbox: Arc::new(Inbox::new("test".parse().unwrap())),
        recent: Arc::clone(&log),
        durable: log,
        directory: Arc::new(
            Directory::new(Arc::clone(&store) as Arc<dyn Store>).with_open_registration(true),
        ),
        broker: Arc::new(broker::Alone),
        membership: Arc::new(membership::Alone::new(node_info("test", 1))),
        presence: Arc::new(presence::InProcess::default()),
        metrics: Arc::new(Metrics::default()),
    });
    let directory = &node.node.directory;
    let [ann, eve]: [UserId; 2] = ["ann", "eve"].map(|name| name.parse().unwrap());
    let password = Some("correct horse".to_owned());
    directory.register(&ann, &NewUser { password, ..NewUser::default() }, false).await.unwrap();
    let own = directory.login(&ann, "correct horse", None).await.unwrap().access_token;
    directory.ensure_user(&eve.app(), &eve).await.unwrap();
    directory.deactivate(&eve).await.unwrap();
    let connect = async |token: String| {
        node.client_with(Codec::Json, Connect { token: Some(token), ..Connect::default() }).await
    };
    let of_application = |user| token_of(user, serde_json::json!({}), 3600);
    assert_eq!(code(connect(of_application("eve")).await.err().unwrap()), ErrorCode::InvalidToken);
    connect(own.clone()).await.unwrap();

    store.is_away.store(true, Ordering::Relaxed);
    let mut bob = connect(of_application("bob")).await.unwrap();
    let mut eve = connect(of_application("eve")).await.unwrap();
    // A token of the server's own is worth what the directory says of its login, and nothing without it.
    let refused = connect(own.clone()).await.err().unwrap();
    assert_eq!(code(refused), ErrorCode::DirectoryUnavailable);

    // They stay as long as it is away.
    for client in [&mut bob, &mut eve] {
        client.call(|id| ClientFrame::Ping(Ping { id })).await.unwrap();
    }

    store.is_away.store(false, Ordering::Relaxed);
    let ended = timeout(PATIENCE, async {
        loop {
            if let Err(error) = eve.client.event().await {
                return error;
            }
        }
    });
    let ended = ended.await.unwrap();
    let is_revoked = matches!(ended, ClientError::Closed(Closed::ByPeer { code: CloseCode::Revoked, .. }));
    assert!(is_revoked, "{ended}");
    bob.call(|id| ClientFrame::Ping(Ping { id })).await.unwrap();
    connect(own).await.unwrap();
}
