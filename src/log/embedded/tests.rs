//! What the embedded log promises beyond the contract: it comes back, and says what is wrong.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use futures_util::future::join_all;
use tempfile::TempDir;
use tracing_subscriber::fmt::MakeWriter;
use xpush_protocol::{Binary, Payload};

use super::{
    super::{
        Appended, From, Keep, KeepByNamespace, Log, LogError, Query,
        fixture::{append, channel, draft, keep, offsets},
    },
    Embedded, record,
};
use crate::publication::Draft;

const ALL: Query = Query { from: From::After(0), limit: usize::MAX, bytes: usize::MAX };

fn open(path: &Path) -> Result<Embedded, LogError> {
    Embedded::open(path, KeepByNamespace::new())
}

fn refused(path: &Path) -> String {
    match open(path) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    }
}

/// A store with ten messages in `room:a`.
async fn ten() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path()).unwrap();
    for n in 1..=10 {
        append(&log, &channel("room:a"), draft("ann", n)).await;
    }
    directory
}

#[tokio::test]
async fn a_store_that_is_opened_again_goes_on_where_it_stopped() {
    let directory = ten().await;
    let (first, again);
    {
        let log = open(directory.path()).unwrap();
        first = log.epoch();
        let page = log.read(&channel("room:a"), ALL).await.unwrap();
        assert_eq!((page.extent.epoch, offsets(&page)), (first, (1..=10).collect()));
        let duplicate = append(&log, &channel("room:a"), draft("ann", 7)).await;
        assert!(matches!(duplicate, Appended::Duplicate(cursor) if cursor.offset == 7));
        again = append(&log, &channel("room:a"), draft("ann", 11)).await.cursor();
    }
    assert_eq!(again.offset, 11);
    assert_eq!(open(directory.path()).unwrap().epoch(), first);
}

#[tokio::test]
async fn what_was_deleted_is_gone_when_the_store_is_opened_again() {
    let directory = ten().await;
    let log = open(directory.path()).unwrap();
    assert!(log.redact(&channel("room:a"), 3).await.unwrap());
    drop(log);
    let log = open(directory.path()).unwrap();
    let page = log.read(&channel("room:a"), ALL).await.unwrap();
    assert_eq!(*page.publications[2], draft("ann", 3).into_publication(3).redacted());
    assert_eq!(append(&log, &channel("room:a"), draft("ann", 3)).await.cursor().offset, 3);
    log.close();
    assert!(log.redact(&channel("room:a"), 3).await.is_err(), "it is closed");
}

#[tokio::test]
async fn a_closed_log_takes_nothing_and_has_written_what_it_took() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path()).unwrap();
    let mut pending = Vec::new();
    for n in 1..=1000 {
        pending.push(log.append(&channel("room:a"), draft("ann", n)).await.unwrap());
    }
    log.close();
    assert!(join_all(pending).await.into_iter().all(|appended| appended.is_ok()));
    let late = log.append(&channel("room:a"), draft("ann", 0)).await.err();
    assert!(matches!(late, Some(LogError::Unavailable { .. })));
    assert!(matches!(log.read(&channel("room:a"), ALL).await, Err(LogError::Unavailable { .. })));
    let reopened = open(directory.path()).unwrap();
    assert_eq!(reopened.extent(&channel("room:a")).await.unwrap().top, 1000);
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_of_the_first() {
    let directory = ten().await;
    let _log = open(directory.path()).unwrap();
    let refused = refused(directory.path());
    assert!(
        refused.contains(&format!("another xpush has it open (process {})", std::process::id())),
        "{refused}"
    );
    assert!(refused.contains("store.path"), "{refused}");
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let directory = ten().await;
    fs::write(directory.path().join("STORE"), "format = 7\nepoch = 1\nshape = round\n").unwrap();
    assert!(matches!(open(directory.path()), Err(LogError::NewerFormat { found: 7, known: 1, .. })));
}

#[tokio::test]
async fn a_store_with_a_part_missing_is_refused() {
    let directory = ten().await;
    let store = fs::read(directory.path().join("STORE")).unwrap();
    fs::remove_file(directory.path().join("STORE")).unwrap();
    assert!(refused(directory.path()).contains("`STORE` is gone"));
    fs::write(directory.path().join("STORE"), "").unwrap();
    assert!(refused(directory.path()).contains("doesn't say what `format` is"));
    fs::write(directory.path().join("STORE"), store).unwrap();
    fs::remove_dir_all(directory.path().join("database")).unwrap();
    assert!(refused(directory.path()).contains("`database` is gone"));
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(refused(&file).contains("can't be opened"));
    assert!(refused(&file.join("below")).contains("can't be opened"));
}

#[test]
fn a_store_whose_making_was_cut_short_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    // Before the move, and after it.
    fs::create_dir(directory.path().join("database.new")).unwrap();
    fs::write(directory.path().join("database.new/0.jnl"), "torn").unwrap();
    drop(open(directory.path()).unwrap());
    fs::remove_file(directory.path().join("STORE")).unwrap();
    drop(open(directory.path()).unwrap());
    assert!(directory.path().join("STORE").exists());
}

/// Puts the ids of the ten where a version before digests had them.
fn as_of_before_digests(store: &Path) {
    let db = fjall::Database::builder(store.join("database")).open().unwrap();
    let open = |name| db.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap();
    let (ids, messages) = (open("ids"), open("messages"));
    for n in 1..=10 {
        let (room, draft) = (channel("room:a"), draft("ann", n));
        let publisher = draft.publisher.as_str();
        ids.remove(record::message_key(&room, publisher, &draft.message_id)).unwrap();
        let name = record::message_name(&room, publisher, &draft.message_id);
        messages.insert(name, record::encode_offset(n)).unwrap();
    }
    assert!(ids.first_key_value().is_none());
}

#[tokio::test]
async fn a_retry_finds_what_an_older_version_wrote() {
    let directory = ten().await;
    as_of_before_digests(directory.path());
    let room = channel("room:a");
    {
        let log = open(directory.path()).unwrap();
        let duplicate = append(&log, &room, draft("ann", 7)).await;
        assert!(matches!(duplicate, Appended::Duplicate(cursor) if cursor.offset == 7));
        for n in [11, 11, 12] {
            append(&log, &room, draft("ann", n)).await;
        }
        assert_eq!(log.extent(&room).await.unwrap().top, 12);
    }
    // What is trimmed is forgotten, in either place.
    let log = Embedded::open(directory.path(), keep("room", Keep { count: Some(1), age: None })).unwrap();
    while log.extent(&room).await.unwrap().first < 12 {}
    for (n, offset) in [(12, 12), (7, 13), (11, 14)] {
        assert_eq!(append(&log, &room, draft("ann", n)).await.cursor().offset, offset);
    }
    drop(log);
    // One that an older version trimmed, which left its digest where it was.
    let db = fjall::Database::builder(directory.path().join("database")).open().unwrap();
    let ids = db.keyspace("ids", fjall::KeyspaceCreateOptions::default).unwrap();
    let gone = draft("ann", 1);
    let key = record::message_key(&room, gone.publisher.as_str(), &gone.message_id);
    ids.insert(key, record::encode_offset(1)).unwrap();
    drop((ids, db));
    let log = open(directory.path()).unwrap();
    assert_eq!(append(&log, &room, gone).await.cursor().offset, 15);
}

#[tokio::test]
async fn what_is_too_old_goes_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    {
        let log = open(directory.path()).unwrap();
        for n in 1..=3000 {
            let time = if n <= 2500 { n } else { u64::MAX };
            drop(log.append(&channel("room:a"), Draft { time, ..draft("ann", n) }).await.unwrap());
            drop(log.append(&channel("room:b"), Draft { time: n, ..draft("ann", n) }).await.unwrap());
            drop(log.append(&channel("chat:a"), Draft { time: n, ..draft("ann", n) }).await.unwrap());
        }
    }
    let age = std::time::Duration::from_secs(60);
    let log = Embedded::open(directory.path(), keep("room", Keep { count: None, age: Some(age) })).unwrap();
    let trimmed = async |name: &str, first| {
        loop {
            let page = log.read(&channel(name), ALL).await.unwrap();
            assert_eq!(offsets(&page), (page.extent.first..=page.extent.top).collect::<Vec<_>>());
            if page.extent.first == first {
                return page.extent;
            }
        }
    };
    trimmed("room:a", 2501).await;
    assert_eq!(trimmed("room:b", 3001).await.top, 3000);
    assert_eq!(log.extent(&channel("chat:a")).await.unwrap().first, 1);
    // An empty channel still counts on, and so it does after the next start.
    assert_eq!(append(&log, &channel("room:b"), draft("ann", 1)).await.cursor().offset, 3001);
    drop(log);
    let log = open(directory.path()).unwrap();
    assert_eq!(append(&log, &channel("room:b"), draft("ann", 2)).await.cursor().offset, 3002);
}

#[tokio::test]
async fn what_is_too_old_goes_in_every_app() {
    let directory = tempfile::tempdir().unwrap();
    let apps = ["default", "shop", "game"].map(|app| channel("room:a").within(&app.parse().unwrap()));
    {
        let log = open(directory.path()).unwrap();
        for (room, n) in apps.iter().flat_map(|room| (1..=100).map(move |n| (room, n))) {
            drop(log.append(room, Draft { time: n, ..draft("ann", n) }).await.unwrap());
        }
    }
    let age = std::time::Duration::from_secs(60);
    let log = Embedded::open(directory.path(), keep("room", Keep { count: None, age: Some(age) })).unwrap();
    for room in &apps {
        while log.extent(room).await.unwrap().first < 101 {}
    }
}

#[tokio::test]
async fn a_channel_that_holds_far_too_much_is_trimmed_in_steps() {
    let directory = tempfile::tempdir().unwrap();
    {
        let log = open(directory.path()).unwrap();
        for n in 1..=5000 {
            drop(log.append(&channel("room:a"), draft("ann", n)).await.unwrap());
        }
    }
    let log = Embedded::open(directory.path(), keep("room", Keep { count: Some(10), age: None })).unwrap();
    while log.extent(&channel("room:a")).await.unwrap().first < 4991 {}
    assert_eq!(append(&log, &channel("room:a"), draft("ann", 1)).await.cursor().offset, 5001);
}

/// What is said while a store is opened.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Said {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn open_listening(path: &Path) -> (Result<Embedded, LogError>, String) {
    let said = Said::default();
    let subscriber = tracing_subscriber::fmt().with_writer(said.clone()).with_ansi(false).finish();
    let log = tracing::subscriber::with_default(subscriber, || open(path));
    let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    (log, said)
}

/// The journal that is written to; there is one as long as little is written.
fn journal(store: &Path) -> PathBuf {
    let mut journals = crate::disk::journal::journals(&store.join("database")).unwrap();
    assert_eq!(journals.len(), 1);
    journals.remove(0)
}

fn written(store: &Path) -> Vec<u8> {
    crate::disk::journal::tests::written(&store.join("database"))
}

#[tokio::test]
async fn a_journal_that_was_found_is_written_over_or_appended_to() {
    let directory = ten().await;
    let len = || fs::metadata(journal(directory.path())).unwrap().len();
    for n in 11..=13 {
        let before = written(directory.path());
        let log = open(directory.path()).unwrap();
        let opened = len();
        // Not every system lets a process have another handle of its own file.
        assert!(opened == 64 * 1024 * 1024 || opened == before.len() as u64, "{opened}");
        append(&log, &channel("room:a"), draft("ann", n)).await;
        assert!(written(directory.path()).starts_with(&before), "it goes on behind what is there");
        assert_eq!(len(), opened.max(written(directory.path()).len() as u64));
        let left = tempfile::tempdir().unwrap();
        crate::disk::journal::tests::crash(directory.path(), left.path());
        let (again, said) = open_listening(left.path());
        assert_eq!(again.unwrap().extent(&channel("room:a")).await.unwrap().top, n);
        assert_eq!(said, "");
    }
}

#[tokio::test]
async fn a_write_that_is_cut_at_any_byte_is_cut_off_and_said_and_costs_nothing_before() {
    let directory = ten().await;
    let mut ends = vec![written(directory.path()).len()];
    {
        let log = open(directory.path()).unwrap();
        for n in 11..=13 {
            append(&log, &channel("room:a"), draft("ann", n)).await;
            ends.push(written(directory.path()).len());
        }
    }
    let written = written(directory.path());
    assert_eq!(written.len(), ends[3]);
    // Copied for each cut: without the zeros at its end.
    fs::write(journal(directory.path()), &written).unwrap();
    for cut in ends[0]..=ends[3] {
        let torn = tempfile::tempdir().unwrap();
        crate::disk::journal::tests::crash(directory.path(), torn.path());
        let mut bytes = written[..cut].to_vec();
        // Every other one as it is where the file was made longer before: zeros instead of an end.
        if cut % 2 == 0 {
            bytes.resize(written.len() + 1000, 0);
        }
        fs::write(journal(torn.path()), bytes).unwrap();
        let (log, said) = open_listening(torn.path());
        let log = log.unwrap();
        let page = log.read(&channel("room:a"), ALL).await.unwrap();
        let whole_commits = ends.iter().filter(|end| **end <= cut).count() as u64;
        assert_eq!(offsets(&page), (1..=9 + whole_commits).collect::<Vec<_>>(), "cut at {cut}");
        assert_eq!(said.contains("is cut off"), !ends.contains(&cut), "cut at {cut}: {said}");
        let next = append(&log, &channel("room:a"), draft("ann", 100)).await;
        assert_eq!(next.cursor().offset, 10 + whole_commits);
    }
}

#[tokio::test]
async fn a_bad_byte_before_what_was_acknowledged_is_not_taken_for_a_torn_write() {
    let directory = ten().await;
    let written = written(directory.path());
    // Any byte but those of the last commit, which can't be told from a torn one.
    let last = written.windows(4).rposition(|bytes| bytes == b"FJL\x03").unwrap();
    let before_last = written[..last].windows(4).rposition(|bytes| bytes == b"FJL\x03").unwrap();
    for at in (0..before_last + 4).step_by(7) {
        let mut bytes = written.clone();
        bytes[at] ^= 0x40;
        fs::write(journal(directory.path()), bytes).unwrap();
        let error = open(directory.path()).err();
        assert!(matches!(error, Some(LogError::Damaged { .. })), "byte {at}: {error:?}");
    }
    fs::write(journal(directory.path()), &written).unwrap();
    let log = open(directory.path()).unwrap();
    assert_eq!(log.extent(&channel("room:a")).await.unwrap().top, 10);
}

#[tokio::test]
async fn a_write_that_has_a_hole_is_cut_off() {
    // Without a sync the disk may have a later page and not an earlier one.
    let directory = ten().await;
    let whole = written(directory.path()).len();
    {
        let log = open(directory.path()).unwrap();
        let payload = Payload::Binary(Binary(vec![7; 3000].into()));
        append(&log, &channel("room:a"), Draft { payload, ..draft("ann", 11) }).await;
    }
    let mut bytes = written(directory.path());
    bytes[whole + 1000..whole + 2000].fill(0);
    fs::write(journal(directory.path()), bytes).unwrap();
    let (log, said) = open_listening(directory.path());
    assert!(said.contains("is cut off"), "{said}");
    assert_eq!(log.unwrap().extent(&channel("room:a")).await.unwrap().top, 10);
}
