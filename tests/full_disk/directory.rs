//! The same for the directory: what was committed stands, at versions that nothing else has.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use tokio::time::timeout;
use xpush::directory::store::{Commit, CommitError, Embedded, Key, Prefix, Scan, Store, StoreError};

use super::{BALLAST_BYTES, PATIENCE, noise, on_a_disk_of};

fn key(n: u64) -> Key {
    Key::new(&["user", "app", &format!("{n:06}")])
}

fn value(n: u64) -> Vec<u8> {
    noise(n).take(20_000).collect()
}

async fn put(store: &Embedded, n: u64) -> Result<(), CommitError> {
    store.commit(Commit::new().expect(key(n), None).put(key(n), value(n))).await
}

async fn fill_and_free(disk: PathBuf) {
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![1; BALLAST_BYTES]).unwrap();
    let path = disk.join("store");
    let store = Embedded::open(&path).unwrap();

    let mut n = 0;
    let error = loop {
        n += 1;
        if let Err(error) = put(&store, n).await {
            break error;
        }
    };
    println!("{error} after {n} entries");
    assert!(matches!(&error, CommitError::Store(StoreError::Unavailable(reason))
        if reason.contains("the disk is full") && reason.contains(path.to_str().unwrap())));
    assert!(n > 100);

    // Full for longer: it fails at once, it can be read, and it holds what it acknowledged.
    for later in n + 1..n + 100 {
        assert!(matches!(put(&store, later).await, Err(CommitError::Store(StoreError::Unavailable(_)))));
    }
    check(&store, 1..n).await;

    fs::remove_file(ballast).unwrap();
    let again = async {
        loop {
            match put(&store, n).await {
                // What failed may have reached the disk all the same.
                Ok(()) | Err(CommitError::Conflict) => break,
                Err(CommitError::Store(StoreError::Unavailable(_))) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, again).await.unwrap();
    for n in n + 1000..n + 1010 {
        put(&store, n).await.unwrap();
    }
    check(&store, (1..=n).chain(n + 1000..n + 1010)).await;
    drop(store);
    check_at(&path, (1..=n).chain(n + 1000..n + 1010)).await;
}

async fn check_at(path: &Path, written: impl Iterator<Item = u64>) {
    check(&Embedded::open(path).unwrap(), written).await;
}

/// All that was acknowledged is there as it was written, and no version is there twice.
async fn check(store: &Embedded, written: impl Iterator<Item = u64>) {
    for n in written {
        let entry = store.get(&key(n)).await.unwrap().unwrap();
        assert_eq!(entry.value, value(n), "{n}");
    }
    let (mut versions, mut after) = (HashSet::new(), None);
    loop {
        let scan = Scan { limit: 100, after, ..Scan::of(Prefix::new(&["user", "app"])) };
        let page = store.scan(scan).await.unwrap();
        assert!(page.iter().all(|(_, entry)| versions.insert(entry.version)), "each is of one write");
        after = page.last().map(|(key, _)| key.clone());
        if page.len() < 100 {
            return;
        }
    }
}

#[test]
fn a_journal_that_finds_no_room_loses_nothing_and_goes_on_by_itself() {
    let test = "directory::a_journal_that_finds_no_room_loses_nothing_and_goes_on_by_itself";
    on_a_disk_of("32m", test, fill_and_free);
}

/// A table is written when 16 MiB have gathered in memory, beside the journal that holds them still.
#[test]
fn a_table_that_finds_no_room_loses_nothing_and_is_written_later() {
    let test = "directory::a_table_that_finds_no_room_loses_nothing_and_is_written_later";
    on_a_disk_of("56m", test, fill_and_free);
}
