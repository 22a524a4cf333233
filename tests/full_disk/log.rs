//! A disk that fills up costs no acknowledged message, and the log goes on when there is room again.

use std::{fs, path::PathBuf};

use tokio::time::timeout;
use xpush::{
    log::{Appended, Embedded, From, KeepByNamespace, Log, LogError, Query},
    publication::{Draft, Publisher},
};
use xpush_protocol::{Binary, ChannelName, MessageId, Payload};

use super::{BALLAST_BYTES, PATIENCE, noise, on_a_disk_of};

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

async fn fill_and_free(disk: PathBuf) {
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
    on_a_disk_of(
        "32m",
        "log::a_journal_that_finds_no_room_loses_nothing_and_goes_on_by_itself",
        fill_and_free,
    );
}

/// A table is written when 32 MiB have gathered in memory, beside the journal that holds them still.
#[test]
fn a_table_that_finds_no_room_loses_nothing_and_is_written_later() {
    on_a_disk_of("72m", "log::a_table_that_finds_no_room_loses_nothing_and_is_written_later", fill_and_free);
}
