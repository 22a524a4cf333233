//! What a store that is away for a moment does not take from anybody.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::{BoxFuture, ready};
use xpush_protocol::UserId;

use super::{
    Directory, DirectoryError, NewUser,
    store::{Commit, CommitError, Entry, Key, Memory, Scan, Store, StoreError},
};

/// A store that for a while does not say who somebody is.
#[derive(Default)]
struct Hiccup {
    store: Memory,
    is_away: AtomicBool,
}

impl Store for Hiccup {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        if key.component(0) == "user" && self.is_away.load(Ordering::Relaxed) {
            return Box::pin(ready(Err(StoreError::Unavailable("it hiccups".into()))));
        }
        self.store.get(key)
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
        self.store.get_many(keys)
    }

    fn scan<'a>(&'a self, scan: Scan) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>> {
        self.store.scan(scan)
    }

    fn commit<'a>(&'a self, commit: Commit) -> BoxFuture<'a, Result<(), CommitError>> {
        self.store.commit(commit)
    }
}

#[tokio::test]
async fn a_refresh_token_is_good_again_once_the_store_is_back() {
    let store = Arc::new(Hiccup::default());
    let directory = Directory::new(Arc::clone(&store) as Arc<dyn Store>).with_open_registration(true);
    let ann: UserId = "ann".parse().unwrap();
    directory.register(&ann, &NewUser::default(), true).await.unwrap();
    let tokens = directory.login_as(&ann, None).await.unwrap();
    store.is_away.store(true, Ordering::Relaxed);
    let away = directory.refresh(&tokens.refresh_token).await;
    assert!(matches!(away, Err(DirectoryError::Store(StoreError::Unavailable(_)))), "{away:?}");
    store.is_away.store(false, Ordering::Relaxed);
    let tokens = directory.refresh(&tokens.refresh_token).await.unwrap();
    directory.delete_user(&ann, None).await.unwrap();
    let gone = directory.refresh(&tokens.refresh_token).await;
    assert!(matches!(gone, Err(DirectoryError::InvalidToken(_))), "{gone:?}");
}
