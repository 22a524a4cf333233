//! What the embedded store promises beyond the contract: it comes back, and says what is wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use fjall::Readable;
use futures_util::future::join_all;
use xpush_test_servers::until;

use super::{
    super::{Commit, CommitError, Key, Prefix, Scan, Store, StoreError},
    Embedded,
    database::{Database, Folder},
};
use crate::disk::journal;

fn key(name: &str) -> Key {
    Key::new(&["user", "app", name])
}

async fn put(store: &Embedded, name: &str, value: &str) {
    store.commit(Commit::new().put(key(name), value.to_owned())).await.unwrap();
}

async fn version(store: &Embedded, name: &str) -> Option<u64> {
    store.get(&key(name)).await.unwrap().map(|entry| entry.version)
}

async fn names(store: &Embedded) -> Vec<String> {
    let page = store.scan(Scan::of(Prefix::new(&["user", "app"]))).await.unwrap();
    page.iter().map(|(key, _)| key.component(2).to_owned()).collect()
}

fn refused(path: &Path) -> String {
    match Embedded::open(path) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    }
}

/// What a crash leaves: the files as they are, while the store is open.
fn crashed(path: &Path) -> tempfile::TempDir {
    let left = tempfile::tempdir().unwrap();
    journal::tests::crash(path, left.path());
    left
}

/// The journal that is written to; there is one as long as little is written.
fn journal(folder: &Path) -> PathBuf {
    let mut journals = journal::journals(&folder.join("database")).unwrap();
    assert_eq!(journals.len(), 1);
    journals.remove(0)
}

fn written(folder: &Path) -> Vec<u8> {
    journal::tests::written(&folder.join("database"))
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    for n in 0..20 {
        let commit = Commit::new().put(key(&format!("{n:02}")), "1").put(key(&format!("{n:02}b")), "1");
        store.commit(if n % 2 == 0 { commit } else { commit.soon() }).await.unwrap();
    }
    store.commit(Commit::new().delete(key("07")).delete(key("07b"))).await.unwrap();
    let (before, last) = (names(&store).await, version(&store, "19b").await);
    assert_eq!(before.len(), 38);
    let left = crashed(folder.path());
    let again = Embedded::open(left.path()).unwrap();
    assert_eq!(names(&again).await, before);
    assert_eq!(version(&again, "19b").await, last);
}

#[tokio::test]
async fn a_commit_that_a_crash_cuts_at_any_byte_is_there_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    drop(Embedded::open(folder.path()).unwrap());
    let start = written(folder.path()).len();
    let store = Embedded::open(folder.path()).unwrap();
    let expires = SystemTime::now() + Duration::from_secs(3600);
    let commit = Commit::new().put(key("a"), "1").put_until(key("b"), "1", expires);
    store.commit(commit).await.unwrap();
    let written = written(folder.path());
    let left = crashed(folder.path());
    drop(store);
    let end = written.len();
    assert!(end > start);
    for cut in (start..end).step_by(5).chain([end - 1]) {
        let mut torn = written[..cut].to_vec();
        if cut % 2 == 0 {
            // As it is in a file that was made longer before.
            torn.resize(end + 1000, 0);
        }
        fs::write(journal(left.path()), torn).unwrap();
        let again = Embedded::open(left.path()).unwrap();
        assert_eq!(names(&again).await, Vec::<String>::new(), "cut at {cut}");
    }
    fs::write(journal(left.path()), written).unwrap();
    assert_eq!(names(&Embedded::open(left.path()).unwrap()).await, ["a", "b"]);
}

#[tokio::test]
async fn a_bad_byte_before_what_was_acknowledged_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    put(&store, "a", "some value of the first").await;
    put(&store, "b", "1").await;
    drop(store);
    let mut written = written(folder.path());
    let at = written.windows(4).position(|bytes| bytes == b"some").unwrap();
    written[at] ^= 0x40;
    fs::write(journal(folder.path()), written).unwrap();
    assert!(matches!(Embedded::open(folder.path()), Err(StoreError::Damaged(_))));
}

#[tokio::test]
async fn versions_go_on_behind_those_that_were_given_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut given = Vec::new();
    for _ in 0..4 {
        let store = Embedded::open(folder.path()).unwrap();
        put(&store, "ann", "same").await;
        given.push(version(&store, "ann").await.unwrap());
        store.commit(Commit::new().delete(key("ann"))).await.unwrap();
    }
    let mut distinct = given.clone();
    distinct.dedup();
    assert_eq!(distinct.len(), 4);
    assert!(given.is_sorted());
    let store = Embedded::open(folder.path()).unwrap();
    put(&store, "ann", "same").await;
    let stale = Commit::new().expect(key("ann"), Some(given[3])).delete(key("ann"));
    assert_eq!(store.commit(stale).await, Err(CommitError::Conflict));
}

#[tokio::test]
async fn one_key_that_many_write_at_once_has_one_value_also_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    let expires = |n: u64| SystemTime::now() + Duration::from_secs(1000 + n % 3);
    let commits = (0..200_u64).map(|n| match n % 4 {
        0 => Commit::new().delete(key("ann")),
        1 => Commit::new().put(key("ann"), n.to_string()),
        _ => Commit::new().put_until(key("ann"), n.to_string(), expires(n)),
    });
    let done = join_all(commits.map(|commit| store.commit(commit))).await;
    assert!(done.into_iter().all(|done| done.is_ok()));
    put(&store, "bob", "1").await;
    let before = store.get(&key("ann")).await.unwrap();
    drop(store);
    let store = Embedded::open(folder.path()).unwrap();
    assert_eq!(store.get(&key("ann")).await.unwrap(), before);
    drop(store);
    // And at most one expiry.
    let folder = Folder::open(folder.path()).unwrap();
    let database = Database::open(&folder).unwrap();
    let expiring = database.db.snapshot().iter(&database.expiring).count();
    let expires = before.and_then(|entry| entry.expires);
    assert_eq!(expiring, usize::from(expires.is_some()));
}

#[tokio::test]
async fn what_has_expired_goes_from_the_disk_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    let (soon, late) = (Duration::from_millis(1), Duration::from_secs(3600));
    let mut commits = Vec::new();
    for n in 0..1200 {
        let commit = Commit::new().put_until(key(&n.to_string()), "1", SystemTime::now() + soon);
        commits.push(store.commit(commit));
    }
    assert!(join_all(commits).await.into_iter().all(|done| done.is_ok()));
    // Another value since then has another expiry, or none.
    let later = Commit::new().put(key("1"), "2").put_until(key("2"), "2", SystemTime::now() + late);
    store.commit(later).await.unwrap();
    drop(store);
    // A store that was not open for a while begins with it.
    let store = Embedded::open(folder.path()).unwrap();
    let stored = || {
        let database = store.shared.database.read().unwrap();
        let database = database.as_ref().unwrap();
        let snapshot = database.db.snapshot();
        (snapshot.iter(&database.entries).count(), snapshot.iter(&database.expiring).count())
    };
    until("what has expired to go", async || stored() == (2, 1)).await;
    assert_eq!(names(&store).await, ["1", "2"]);
}

#[tokio::test]
async fn a_closed_store_takes_nothing_and_has_written_what_it_took() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    let commits = (0..100).map(|n| store.commit(Commit::new().put(key(&n.to_string()), "1")));
    let mut commits: Vec<_> = commits.collect();
    // Each is in line when it was asked once.
    for commit in &mut commits {
        assert!(futures_util::poll!(commit).is_pending());
    }
    store.close();
    assert!(join_all(commits).await.into_iter().all(|done| done.is_ok()));
    let late = store.commit(Commit::new().put(key("late"), "1")).await;
    assert!(matches!(late, Err(CommitError::Store(StoreError::Unavailable(_)))));
    assert!(matches!(store.get(&key("1")).await, Err(StoreError::Unavailable(_))));
    assert_eq!(names(&Embedded::open(folder.path()).unwrap()).await.len(), 100);
}

#[tokio::test]
async fn a_commit_whose_future_was_dropped_is_done_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    let mut commit = store.commit(Commit::new().put(key("ann"), "1"));
    assert!(futures_util::poll!(&mut commit).is_pending());
    drop(commit);
    put(&store, "bob", "1").await;
    assert_eq!(names(&store).await, ["ann", "bob"]);
}

#[test]
fn a_second_process_is_refused_and_told_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let _store = Embedded::open(folder.path()).unwrap();
    let refused = refused(folder.path());
    assert!(
        refused.contains(&format!("another xpush has it open (process {})", std::process::id())),
        "{refused}"
    );
    assert!(refused.contains("store.path"), "{refused}");
}

#[test]
fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    {
        let folder = Folder::open(folder.path()).unwrap();
        let database = Database::open(&folder).unwrap();
        database.meta.insert("format", 7_u32.to_be_bytes()).unwrap();
    }
    let refused = refused(folder.path());
    assert!(refused.contains("has format 7; this version of xpush knows 1 at most"), "{refused}");
}

#[test]
fn a_path_that_is_no_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(refused(&file).contains("can't be opened"));
    assert!(refused(&file.join("below")).contains("can't be opened"));
}

#[test]
fn a_store_whose_making_was_cut_short_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("database.new")).unwrap();
    fs::write(folder.path().join("database.new/0.jnl"), "torn").unwrap();
    drop(Embedded::open(folder.path()).unwrap());
    assert!(!folder.path().join("database.new").exists());
    drop(Embedded::open(folder.path()).unwrap());
}
