//! Several nodes on one database, at once.

use std::collections::BTreeMap;

use futures_util::future::{join, join_all};

use super::{
    ALL,
    server::{connect, database, server},
};
use crate::log::{
    Appended, KeepByNamespace, Log,
    fixture::{append, channel, draft, offsets},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_race_in_one_channel_leave_no_hole() {
    let (server, database) = (server().await, database());
    let room = channel("room:a");
    let mut tasks = Vec::new();
    for node in 0..3 {
        let log = connect(&server, &database, KeepByNamespace::new()).await;
        for task in 0..4 {
            let (log, room) = (log.clone(), room.clone());
            tasks.push(tokio::spawn(async move {
                let mut appended = Vec::new();
                for chunk in 0..10 {
                    let mut pending = Vec::new();
                    for n in 0..5 {
                        let draft = draft(&format!("p{node}-{task}"), chunk * 5 + n);
                        pending.push(log.append(&room, draft).await.unwrap());
                    }
                    appended.extend(join_all(pending).await.into_iter().map(Result::unwrap));
                }
                appended
            }));
        }
    }
    let mut by_offset = BTreeMap::new();
    for task in join_all(tasks).await {
        let mut last = 0;
        for appended in task.unwrap() {
            let Appended::New { publication, .. } = appended else { panic!("it is new") };
            assert!(publication.offset > last, "one publisher's publications stand in its order");
            last = publication.offset;
            assert_eq!(by_offset.insert(publication.offset, publication), None);
        }
    }
    let log = connect(&server, &database, KeepByNamespace::new()).await;
    let page = log.read(&room, ALL).await.unwrap();
    assert_eq!(offsets(&page), (1..=600).collect::<Vec<_>>());
    assert_eq!(page.publications, by_offset.into_values().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_sent_to_two_nodes_at_once_stands_once() {
    let (server, database) = (server().await, database());
    let room = channel("room:a");
    let one = connect(&server, &database, KeepByNamespace::new()).await;
    let other = connect(&server, &database, KeepByNamespace::new()).await;
    for n in 1..=100 {
        let (a, b) =
            join(append(&*one, &room, draft("ann", n)), append(&*other, &room, draft("ann", n))).await;
        assert_eq!((a.cursor().offset, b.cursor().offset), (n, n));
        let is_new = |appended: &Appended| matches!(appended, Appended::New { .. });
        assert!(is_new(&a) != is_new(&b), "{a:?}, {b:?}");
    }
    assert_eq!(offsets(&one.read(&room, ALL).await.unwrap()), (1..=100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_one_database_have_one_epoch() {
    let (server, database) = (server().await, database());
    let logs = (0..4).map(|_| connect(&server, &database, KeepByNamespace::new()));
    let epochs: Vec<_> = join_all(logs).await.iter().map(|log| log.epoch()).collect();
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
    let other = connect(&server, &super::server::database(), KeepByNamespace::new()).await;
    assert_ne!(other.epoch(), epochs[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_knows_old_news_is_refused_and_looks_again() {
    let (server, database) = (server().await, database());
    let room = channel("room:a");
    let stale = connect(&server, &database, KeepByNamespace::new()).await;
    let other = connect(&server, &database, KeepByNamespace::new()).await;
    append(&*stale, &room, draft("ann", 1)).await;
    for n in 2..=20 {
        append(&*other, &room, draft("ann", n)).await;
    }
    assert_eq!(append(&*stale, &room, draft("ann", 21)).await.cursor().offset, 21);
    assert_eq!(append(&*stale, &room, draft("ann", 22)).await.cursor().offset, 22);
    assert_eq!(append(&*other, &room, draft("ann", 21)).await.cursor().offset, 21);
}
