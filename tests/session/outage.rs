//! The directory is away for a while: who comes in by the application's tokens still does, and is looked at afterwards.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{sync::Semaphore, time::timeout};
use xpush::{
    broker::{self, Inbox},
    client::{Client, ClientError},
    directory::{
        Directory, NewUser,
        store::{self, Commit, CommitError, Entry, Key, Scan, Store, StoreError},
    },
    log::{Capacity, Log, Memory},
    membership,
    metrics::Metrics,
    node::Parts,
    presence,
    webhook::{Answer, Call, CallError, Dial},
};
use xpush_protocol::{AppId, ClientFrame, CloseCode, Codec, Connect, ErrorCode, Ping, UserId};
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

fn node_on(store: &Arc<Switched>) -> TestNode {
    let log: Arc<dyn Log> = Arc::new(Memory::new([].into(), Capacity { channels: 10, bytes: 1 << 20 }));
    TestNode::of(Parts {
        namespaces: namespaces(10),
        limits: Options::default().limits,
        auth: auth(false),
        inbox: Arc::new(Inbox::new("test".parse().unwrap())),
        recent: Arc::clone(&log),
        durable: log,
        directory: Arc::new(Directory::new(Arc::clone(store) as Arc<dyn Store>).with_open_registration(true)),
        broker: Arc::new(broker::Alone),
        membership: Arc::new(membership::Alone::new(node_info("test", 1))),
        presence: Arc::new(presence::InProcess::default()),
        metrics: Arc::new(Metrics::default()),
    })
}

#[tokio::test]
async fn who_comes_in_while_the_directory_is_away_is_looked_at_when_it_is_back() {
    let store = Arc::new(Switched::default());
    let node = node_on(&store);
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

/// Says yes to one call after the other, as it is let.
pub(crate) struct Held {
    pub(crate) called: Semaphore,
    pub(crate) go: Semaphore,
}

impl Held {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { called: Semaphore::new(0), go: Semaphore::new(0) })
    }
}

impl Dial for Held {
    fn call(&self, _: Call) -> BoxFuture<'_, Result<Answer, CallError>> {
        Box::pin(async {
            self.called.add_permits(1);
            self.go.acquire().await.unwrap().forget();
            Ok(Answer { status: 200, body: Bytes::from_static(b"{}") })
        })
    }
}

#[tokio::test]
async fn who_was_let_in_unchecked_and_held_up_by_a_webhook_is_looked_at_when_it_is_in() {
    let store = Arc::new(Switched::default());
    let node = node_on(&store);
    let directory = &node.node.directory;
    let webhook = serde_json::json!({
        "id": "door", "url": "https://hooks.example/", "events": ["before.connect"], "timeout_ms": 30_000,
        "secret": "a-secret-of-the-tests",
    });
    let policy = serde_json::json!({ "webhooks": [webhook] });
    directory.update_app(&AppId::default(), None, None, policy.as_object().cloned()).await.unwrap();
    node.node.webhooks.load(directory).await.unwrap();
    let held = Held::new();
    node.node.webhooks.dial_by(Arc::clone(&held) as Arc<dyn Dial>);

    let connect = |user: &str| {
        let token = Some(token_of(user, serde_json::json!({}), 3600));
        let connection = node.dialer();
        async move {
            let mut client = Client::start(connection.dial().await.unwrap(), Codec::Json);
            client.connect(Connect { token, ..Connect::default() }).await.unwrap();
            loop {
                if let Err(ended) = client.event().await {
                    return ended;
                }
            }
        }
    };
    let is_revoked = |ended: &ClientError| {
        matches!(ended, ClientError::Closed(Closed::ByPeer { code: CloseCode::Revoked, .. }))
    };
    let deactivate = async |user: &str| {
        let user: UserId = user.parse().unwrap();
        directory.ensure_user(&user.app(), &user).await.unwrap();
        directory.deactivate(&user).await.unwrap();
    };
    deactivate("eve").await;
    deactivate("fay").await;
    // Once the last is gone, the changes of all three have been told, and none is left to move anything.
    held.go.add_permits(1);
    let gil = tokio::spawn(connect("gil"));
    held.called.acquire().await.unwrap().forget();
    deactivate("gil").await;
    let ended = timeout(PATIENCE, gil).await.unwrap().unwrap();
    assert!(is_revoked(&ended), "{ended}");

    store.is_away.store(true, Ordering::Relaxed);
    let fay = tokio::spawn(connect("fay"));
    held.called.acquire().await.unwrap().forget();
    let eve = tokio::spawn(connect("eve"));
    held.called.acquire().await.unwrap().forget();
    // The first is in when the directory is back, and found; by then the other one was looked for too, or soon is.
    held.go.add_permits(1);
    store.is_away.store(false, Ordering::Relaxed);
    let ended = timeout(PATIENCE, fay).await.unwrap().unwrap();
    assert!(is_revoked(&ended), "{ended}");
    held.go.add_permits(1);
    let ended = timeout(PATIENCE, eve).await.unwrap().unwrap();
    assert!(is_revoked(&ended), "{ended}");
}
