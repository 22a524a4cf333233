//! A disk that fills up costs no acknowledged message, and the log goes on when there is room again.
//!
//! The test runs itself once more in a mount namespace of its own, where it may mount a small disk. That goes
//! when the process does, however it ends.
#![cfg(all(feature = "embedded", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, process::Command, time::Duration};

use tokio::time::timeout;
use xpush::{
    log::{Appended, Embedded, From, KeepByNamespace, Log, LogError, Query},
    publication::{Draft, Publisher},
};
use xpush_protocol::{Binary, ChannelName, MessageId, Payload};

/// Set in the process that has a disk of its own.
const DISK: &str = "XPUSH_FULL_DISK";

/// What is freed later.
const BALLAST_BYTES: usize = 16 * 1024 * 1024;

const PATIENCE: Duration = Duration::from_secs(60);

fn draft(n: u64) -> Draft {
    Draft {
        publisher: Publisher::backend("ann"),
        message_id: n.to_string().parse().unwrap(),
        retriable: true,
        event: "message".parse().unwrap(),
        payload: Payload::Binary(Binary(noise(n).take(20_000).collect())),
        user: None,
        time: 0,
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    }
}

/// Bytes that no compression makes fewer.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mix = |x: u64| (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (0..).map(move |i| (mix(mix(i + (seed << 32))) >> 56) as u8)
}

async fn append(log: &Embedded, room: &ChannelName, n: u64) -> Result<Appended, LogError> {
    log.append(room, draft(n)).await?.await
}

/// The message ids in order; the offsets are 1, 2, 3.
async fn read(log: &Embedded, room: &ChannelName) -> Vec<u64> {
    let query = Query { from: From::After(0), limit: usize::MAX, bytes: usize::MAX };
    let page = log.read(room, query).await.unwrap();
    assert!(page.publications.iter().zip(1..).all(|(publication, offset)| publication.offset == offset));
    let number = |id: &MessageId| id.as_str().parse().unwrap();
    page.publications.iter().map(|publication| number(&publication.message_id)).collect()
}

async fn fill_and_free(disk: &Path) {
    let room: ChannelName = "room:a".parse().unwrap();
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![1; BALLAST_BYTES]).unwrap();
    let store = disk.join("store");
    let log = Embedded::open(&store, KeepByNamespace::new()).unwrap();

    let (mut n, mut places) = (0, Vec::new());
    let error = loop {
        n += 1;
        match append(&log, &room, n).await {
            Ok(appended) => places.push((n, appended.cursor().offset)),
            Err(error) => break error,
        }
    };
    println!("{error} after {} messages", places.len());
    assert!(matches!(&error, LogError::Unavailable { reason }
        if reason.contains("the disk is full") && reason.contains(store.to_str().unwrap())));
    assert!(places.len() > 100);

    // Full for longer: it fails at once, it can be read, and it holds what it acknowledged.
    for later in n + 1..n + 100 {
        assert!(matches!(append(&log, &room, later).await, Err(LogError::Unavailable { .. })));
    }
    let acknowledged: Vec<_> = places.iter().map(|(n, _)| *n).collect();
    assert_eq!(read(&log, &room).await, acknowledged);

    fs::remove_file(ballast).unwrap();
    // The publisher sends again the one that failed, until it is taken, and goes on.
    let again = async {
        loop {
            match append(&log, &room, n).await {
                Ok(appended) => break appended.cursor().offset,
                Err(LogError::Unavailable { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    places.push((n, timeout(PATIENCE, again).await.unwrap()));
    for n in n + 1000..n + 1010 {
        places.push((n, append(&log, &room, n).await.unwrap().cursor().offset));
    }
    check(&log, &room, &places).await;
    drop(log);
    check(&Embedded::open(&store, KeepByNamespace::new()).unwrap(), &room, &places).await;
}

/// Everything acknowledged is at its place; what else is there was sent, and stands once.
async fn check(log: &Embedded, room: &ChannelName, places: &[(u64, u64)]) {
    let read = read(log, room).await;
    for (n, offset) in places {
        assert_eq!(read[*offset as usize - 1], *n);
    }
    assert!(read.is_sorted_by(|a, b| a < b), "in order, once");
}

#[test]
fn a_journal_that_finds_no_room_loses_nothing_and_goes_on_by_itself() {
    on_a_disk_of("32m", "a_journal_that_finds_no_room_loses_nothing_and_goes_on_by_itself");
}

/// A table is written when 32 MiB have gathered in memory, beside the journal that holds them still.
#[test]
fn a_table_that_finds_no_room_loses_nothing_and_is_written_later() {
    on_a_disk_of("72m", "a_table_that_finds_no_room_loses_nothing_and_is_written_later");
}

fn on_a_disk_of(size: &str, test: &str) {
    if let Ok(disk) = std::env::var(DISK) {
        tokio::runtime::Runtime::new().unwrap().block_on(fill_and_free(Path::new(&disk)));
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@""#;
    let status = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh", size])
        .args([disk.path(), &std::env::current_exe().unwrap()])
        .args(["--exact", test, "--nocapture"])
        .env(DISK, disk.path())
        .status()
        .unwrap();
    assert!(status.success());
}
