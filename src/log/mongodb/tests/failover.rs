//! A set of three of which members die or freeze while it is written to.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use xpush_protocol::ChannelName;
use xpush_test_servers::{Mongo, until};

use super::{
    super::{line::APPEND_LIMIT, store::WRITE_LIMIT},
    ALL,
    server::{connect, database},
};
use crate::{
    log::{
        Appended, KeepByNamespace, Log, LogError, MongoDb,
        fixture::{channel, draft},
    },
    publication::Publication,
};

const CHANNELS: u64 = 20;
const TASKS: u64 = 4;

/// No append may take longer: it is given up when it has waited so long, as soon as a write under way is done. And as
/// long again, twice, for a machine that is busy with other tests.
pub(super) const BOUND: Duration =
    APPEND_LIMIT.saturating_add(WRITE_LIMIT.saturating_mul(2)).saturating_mul(3);

fn room(n: u64) -> ChannelName {
    channel(&format!("room:{}", n % CHANNELS))
}

/// Those that append until they are stopped, each its own messages, and again and again until one is acknowledged.
struct Appending {
    tasks: JoinSet<Vec<(ChannelName, Appended)>>,
    stop: Arc<AtomicBool>,
}

impl Appending {
    fn start(logs: &[Arc<MongoDb>]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let log = logs[task as usize % logs.len()].clone();
            let stop = stop.clone();
            tasks.spawn(async move {
                let mut acknowledged = Vec::new();
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let room = room(task + n);
                    let appended = append_at_last(&log, &room, &format!("p{task}"), n).await;
                    acknowledged.push((room, appended));
                }
                acknowledged
            });
        }
        Self { tasks, stop }
    }

    async fn stop(self) -> Vec<(ChannelName, Appended)> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.concat()
    }
}

async fn append_at_last(log: &MongoDb, room: &ChannelName, publisher: &str, n: u64) -> Appended {
    loop {
        let begun = Instant::now();
        let appended = match log.append(room, draft(publisher, n)).await {
            Ok(pending) => pending.await,
            Err(error) => Err(error),
        };
        assert!(begun.elapsed() < BOUND, "it took {:?}", begun.elapsed());
        match appended {
            Ok(appended) => return appended,
            Err(LogError::Unavailable { .. } | LogError::Behind { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Each that was acknowledged stands at its place, and no channel has a hole or a message twice.
async fn check(log: &MongoDb, acknowledged: Vec<(ChannelName, Appended)>) {
    let mut stored = HashMap::new();
    for n in 0..CHANNELS {
        let page = log.read(&room(n), ALL).await.unwrap();
        assert_eq!(page.publications.len() as u64, page.extent.top, "{}", room(n));
        stored.insert(room(n), page.publications);
    }
    let mut count = 0;
    for (room, appended) in acknowledged {
        let offset = appended.cursor().offset;
        let found: &Arc<Publication> = &stored[&room][offset as usize - 1];
        if let Appended::New { publication, .. } = appended {
            assert_eq!(*found, publication);
        }
        count += 1;
    }
    // Each was retried until it was acknowledged, so nothing else is there.
    assert_eq!(stored.values().map(Vec::len).sum::<usize>(), count);
}

async fn appended_so_far(log: &MongoDb) -> u64 {
    let rooms: Vec<_> = (0..CHANNELS).map(room).collect();
    log.tops(&rooms).await.map_or(0, |tops| tops.iter().map(|cursor| cursor.offset).sum())
}

async fn more_is_appended(log: &MongoDb) {
    let mut before = 0;
    until("appends to go through", async || {
        if before == 0 {
            before = appended_so_far(log).await;
        }
        before > 0 && appended_so_far(log).await > before + 100
    })
    .await;
}

async fn three_logs(set: &Mongo) -> Vec<Arc<MongoDb>> {
    let database = database();
    let mut logs = Vec::new();
    for _ in 0..3 {
        logs.push(connect(set, &database, KeepByNamespace::new()).await);
    }
    logs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_primary_is_killed() {
    let mut set = Mongo::start(3).await;
    let logs = three_logs(&set).await;
    let appending = Appending::start(&logs);
    for _ in 0..2 {
        more_is_appended(&logs[0]).await;
        let primary = set.primary().await;
        set.kill(primary);
        more_is_appended(&logs[0]).await;
        set.restart(primary).await;
    }
    let acknowledged = appending.stop().await;
    check(&logs[0], acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_primary_freezes() {
    let set = Mongo::start(3).await;
    let logs = three_logs(&set).await;
    let appending = Appending::start(&logs);
    more_is_appended(&logs[0]).await;
    let primary = set.primary().await;
    set.pause(primary);
    more_is_appended(&logs[0]).await;
    // It still has what was sent to it before.
    set.resume(primary);
    more_is_appended(&logs[0]).await;
    let acknowledged = appending.stop().await;
    check(&logs[0], acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_are_refused_in_time_while_nobody_answers() {
    let set = Mongo::start(3).await;
    let logs = three_logs(&set).await;
    let appending = Appending::start(&logs);
    more_is_appended(&logs[0]).await;
    set.pause_all();
    let begun = Instant::now();
    let refused = match logs[0].append(&room(0), draft("late", 1)).await {
        Ok(pending) => pending.await,
        Err(error) => Err(error),
    };
    assert!(matches!(refused, Err(LogError::Unavailable { .. })), "{refused:?}");
    assert!(begun.elapsed() < BOUND, "it took {:?}", begun.elapsed());
    let read = logs[0].extent(&room(0)).await;
    assert!(matches!(read, Err(LogError::Unavailable { .. })), "{read:?}");
    set.resume_all();
    let late = append_at_last(&logs[0], &room(0), "late", 1).await;
    more_is_appended(&logs[0]).await;
    let mut acknowledged = appending.stop().await;
    acknowledged.push((room(0), late));
    check(&logs[0], acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_server_left_appends_are_refused_at_once_and_a_log_can_be_closed() {
    let mut set = Mongo::start(1).await;
    let log = connect(&set, &database(), KeepByNamespace::new()).await;
    append_at_last(&log, &room(0), "ann", 1).await;
    set.kill_all();
    let mut took = Duration::ZERO;
    for n in 2..=4 {
        let begun = Instant::now();
        let refused = log.append(&room(0), draft("ann", n)).await.unwrap().await;
        assert!(matches!(refused, Err(LogError::Unavailable { .. })), "{refused:?}");
        took = begun.elapsed();
    }
    // The first ones may have been under way. Then it is known that there is none.
    assert!(took < APPEND_LIMIT, "it took {took:?}");
    let pending = log.append(&room(1), draft("ann", 5)).await.unwrap();
    log.close().await;
    assert!(matches!(pending.await, Err(LogError::Unavailable { .. })));
}
