//! What every store promises, as tests, and how the rooms above are tested on every store.
//!
//! A test of a room is an `async fn` of a fresh store, named to the macro, which makes one test a store of it:
//!
//! ```ignore
//! use crate::directory::store::contract::on_every_store;
//!
//! on_every_store!(two_users_become_friends a_blocked_user_is_refused);
//!
//! async fn two_users_become_friends(store: Arc<dyn Store>) {
//!     let directory = Directory::new(store);
//!     …
//! }
//! ```
//!
//! They are `two_users_become_friends::memory`, `::embedded` and `::mongodb`.

use std::{any::Any, sync::Arc};

use super::{Memory, Store};

/// An empty store, and what must live as long.
pub(crate) type Opened = (Arc<dyn Store>, Box<dyn Any + Send>);

macro_rules! on_every_store {
    ($($test:ident)*) => {
        $(
            mod $test {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn memory() {
                    let (store, _guard) = $crate::directory::store::contract::memory().await;
                    super::$test(store).await;
                }
            }
        )*
    };
}
pub(crate) use on_every_store;

pub(crate) async fn memory() -> Opened {
    (Arc::new(Memory::default()), Box::new(()))
}

on_every_store!(what_was_written_is_read);

async fn what_was_written_is_read(store: Arc<dyn Store>) {
    use super::{Commit, Key};
    let key = Key::new(&["user", "app", "ann"]);
    store.commit(Commit::new().expect(key.clone(), None).put(key.clone(), "1")).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, "1");
}
