//! One server for the tests that run at one time, and a database for each.

use std::{
    any::Any,
    process,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::Mutex;
use xpush_test_servers::Mongo;

use crate::log::{KeepByNamespace, MongoDb, contract::Opened};

/// It stops with the last test that holds it: nothing ever drops what is static.
static SERVER: Mutex<Weak<Mongo>> = Mutex::const_new(Weak::new());

pub(crate) async fn server() -> Arc<Mongo> {
    let mut server = SERVER.lock().await;
    if let Some(server) = server.upgrade() {
        return server;
    }
    let started = Arc::new(Mongo::start(1).await);
    *server = Arc::downgrade(&started);
    started
}

/// A name that no other test has.
pub(crate) fn database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(super) async fn connect(server: &Mongo, database: &str, keep: KeepByNamespace) -> Arc<MongoDb> {
    Arc::new(MongoDb::connect(&server.url(), database, keep).await.unwrap())
}

/// A log for the contract's tests.
pub(in crate::log) async fn open(keep: KeepByNamespace) -> Opened {
    let server = server().await;
    let log = connect(&server, &database(), keep).await;
    (log, Box::new(server) as Box<dyn Any>)
}
