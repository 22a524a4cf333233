//! Messages that are deleted at one node, or whose time comes when the node that took them is dead: gone on all.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;
use xpush::{
    client::{Client, Via, Visit},
    publication::DELETED,
};
use xpush_protocol::{
    ClientFrame, Codec, Connect, Cursor, Delete, Epoch, EventName, History, Json, MessageId, Publication,
    Publish, ServerFrame, Subscribe,
};
use xpush_test_servers::until;
use xpush_transports::Connection;

use crate::{
    client::Doors as _,
    harness,
    nodes::{self, ProcessDoors},
};

const ROOM: &str = "room:a";
const PATIENCE: Duration = Duration::from_secs(60);
/// Until the messages expire: the node that takes them is dead by then.
const EXPIRES_IN: u32 = 4_000;
const EXPIRING: u32 = 20;

struct Start;
impl Visit for Start {
    type Output = Client;
    fn visit(self, connection: impl Connection) -> Client {
        Client::start(connection, Codec::Json)
    }
}

async fn ann(doors: &ProcessDoors, node: usize) -> Client {
    let mut client = doors.dial(node, Via::Websocket, Codec::Json, Start).await.unwrap();
    let token = Some(harness::token_to_listen("ann", &[ROOM]));
    client.connect(Connect { token, ..Connect::default() }).await.unwrap();
    client
}

async fn subscribe(client: &mut Client, cursor: Option<Cursor>) -> Cursor {
    let channel = ROOM.parse().unwrap();
    match client.call(|id| ClientFrame::Subscribe(Subscribe { id, channel, cursor, last: None })).await {
        Ok(ServerFrame::Subscribed(subscribed)) => subscribed.cursor,
        other => panic!("{other:?}"),
    }
}

async fn publish(client: &mut Client, data: &str, expires_in: Option<u32>) -> Cursor {
    let publish = |id| {
        ClientFrame::Publish(Publish {
            id,
            channel: ROOM.parse().unwrap(),
            message_id: Some(MessageId::random()),
            event: EventName::default(),
            data: Some(Json::from_value(&data).unwrap()),
            binary: None,
            reply_to: None,
            mentions: Vec::new(),
            expires_in,
        })
    };
    match client.call(publish).await {
        Ok(ServerFrame::Published(published)) => published.cursor,
        other => panic!("{other:?}"),
    }
}

async fn next(client: &mut Client) -> Publication {
    loop {
        let event = timeout(PATIENCE, client.event()).await.expect("it comes").unwrap();
        if let ServerFrame::Publication(publication) = event {
            return publication;
        }
    }
}

async fn history(client: &mut Client) -> Vec<Publication> {
    let (channel, cursor, backward) = (ROOM.parse().unwrap(), None, false);
    let history = |id| ClientFrame::History(History { id, channel, cursor, backward, limit: Some(256) });
    match client.call(history).await {
        Ok(ServerFrame::History(page)) => page.publications,
        other => panic!("{other:?}"),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_at_one_node_is_gone_at_all() {
    let _alone = nodes::alone().await;
    let (_servers, _nodes, doors) = nodes::start_three().await;
    let (mut first, mut second, mut third) =
        (ann(&doors, 0).await, ann(&doors, 1).await, ann(&doors, 2).await);
    let begin = subscribe(&mut second, None).await;
    publish(&mut first, "secret", None).await;
    let heard = next(&mut second).await;
    assert_eq!((heard.offset, heard.data.unwrap().as_str()), (1, r#""secret""#));
    let (channel, offset) = (ROOM.parse().unwrap(), 1);
    let done = third.call(|id| ClientFrame::Delete(Delete { id, channel, offset })).await.unwrap();
    assert!(matches!(done, ServerFrame::Done(_)), "{done:?}");
    for client in [&mut first, &mut second, &mut third] {
        let left = &history(client).await[0];
        assert_eq!((left.event.as_str(), left.data.as_ref().unwrap().as_str()), (DELETED, "null"));
    }
    let told = next(&mut second).await;
    assert_eq!((told.event.as_str(), told.data.unwrap().as_str()), (DELETED, r#"{"offset":1}"#));
    // This node handed the message out, and keeps what it handed out for those who come back.
    let mut back = ann(&doors, 1).await;
    subscribe(&mut back, Some(Cursor { epoch: Epoch(begin.epoch.0), offset: 0 })).await;
    let left = next(&mut back).await;
    assert_eq!((left.offset, left.event.as_str(), left.data.unwrap().as_str()), (1, DELETED, "null"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_whose_node_was_killed_go_when_their_time_has_come() {
    let _alone = nodes::alone().await;
    let (_servers, mut nodes, doors) = nodes::start_three().await;
    let (mut first, mut second) = (ann(&doors, 0).await, ann(&doors, 1).await);
    let mut due = 0;
    for n in 0..EXPIRING {
        publish(&mut first, &format!("secret {n}"), Some(EXPIRES_IN)).await;
        due = now() + u64::from(EXPIRES_IN);
    }
    publish(&mut first, "stays", None).await;
    nodes[0].kill9();
    let there = async |client: &mut Client| {
        let said = |there: &&Publication| there.event.as_str() != DELETED;
        history(client).await.iter().filter(said).count()
    };
    assert!(there(&mut second).await > 1, "the machine is so slow that they went before they were looked at");
    let began = Instant::now();
    until("they are gone", async || there(&mut second).await == 1).await;
    println!(
        "gone {} ms after the last was due, {:?} after the kill",
        now().saturating_sub(due),
        began.elapsed()
    );
    // Nodes that did it twice said it once.
    until("all is told", async || history(&mut second).await.len() == 2 * EXPIRING as usize + 1).await;
}
