//! Kill -9 while messages are published over a real wire: what was acknowledged is there, in order, once.

use std::collections::VecDeque;

use xpush::client::{Server, Via};
use xpush_protocol::{ClientFrame, Codec, Connect, ServerFrame};

use super::{
    client::{RawWire, WIRES, publish},
    http::get,
    process::{ServerProcess, run},
};

const KILLS: u64 = 40;
/// Publishes that wait for their answer at once.
const WINDOW: usize = 48;
const CHANNEL: &str = "room:crash";

/// A publisher that sends again, under the same ids, whatever was not acknowledged.
struct Publisher {
    token: String,
    /// Published and not acknowledged, oldest first.
    waiting: VecDeque<u64>,
    next: u64,
    /// The offset of each message.
    acknowledged: Vec<Option<u64>>,
}

impl Publisher {
    /// Publishes over a new connection until so many more were acknowledged; others are under way then.
    async fn run(&mut self, found: &Server, via: Via, acknowledgements: u64) -> RawWire {
        let mut wire = RawWire::dial(found, via, Codec::Json).await.unwrap();
        let token = Some(self.token.clone());
        wire.send(&ClientFrame::Connect(Connect { token, ..Connect::default() })).await;
        assert!(matches!(wire.next().await, Ok(ServerFrame::Connected(_))));
        for n in self.waiting.clone() {
            Self::publish(&wire, n).await;
        }
        for _ in 0..acknowledgements {
            while self.waiting.len() < WINDOW {
                self.waiting.push_back(self.next);
                self.acknowledged.push(None);
                Self::publish(&wire, self.next).await;
                self.next += 1;
            }
            let published = wire.published().await;
            let n = u64::from(published.id) - 1;
            self.waiting.retain(|waiting| *waiting != n);
            let known = self.acknowledged[n as usize].replace(published.cursor.offset);
            assert_eq!(known, None, "{n} was acknowledged twice");
        }
        wire
    }

    async fn publish(wire: &RawWire, n: u64) {
        let id = format!("message-{n}").parse().unwrap();
        wire.send(&publish(CHANNEL, id, n)(n as u32 + 1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_stands_once_and_in_order() {
    let mut server = ServerProcess::start().await;
    let token = run(&["token", "--user", "ann", "--data", server.data.to_str().unwrap()]).await.stdout;
    let token = String::from_utf8(token).unwrap().trim().to_owned();
    let mut publisher = Publisher { token, waiting: VecDeque::new(), next: 0, acknowledged: Vec::new() };
    for kill in 0..KILLS {
        let via = WIRES[kill as usize % WIRES.len()];
        let found = Server::discover(&server.url(), &[]).await.unwrap();
        // At another point each time: between no answer and a few windows.
        let wire = publisher.run(&found, via, kill * 37 % 113).await;
        server.kill9();
        // Before the server is back: a poll goes on with any node, and would publish beside the next connection.
        drop(wire);
        server.restart().await;
    }
    let found = Server::discover(&server.url(), &[]).await.unwrap();
    let left = publisher.waiting.len() as u64;
    publisher.run(&found, Via::Websocket, left).await;

    let stored = stored(&server).await;
    let published: Vec<u64> = stored.iter().map(|(_, n)| *n).collect();
    // The last window may stand without an acknowledgement.
    let acknowledged = publisher.acknowledged.iter().flatten().count();
    assert!(published.len() >= acknowledged && acknowledged as u64 >= KILLS);
    assert_eq!(published, (0..published.len() as u64).collect::<Vec<_>>(), "in order and once");
    for (n, offset) in publisher.acknowledged.iter().enumerate() {
        if let Some(offset) = offset {
            assert_eq!(stored[n], (*offset, n as u64));
        }
    }
    println!("{acknowledged} acknowledged over {KILLS} kills");
}

/// All offsets and numbers of the channel.
async fn stored(server: &ServerProcess) -> Vec<(u64, u64)> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page =
            get(server.http, &format!("/v1/channels/{CHANNEL}/history?limit=256{cursor}")).await.json();
        for publication in page["publications"].as_array().unwrap() {
            all.push((publication["offset"].as_u64().unwrap(), publication["data"].as_u64().unwrap()));
        }
        let Some(next) = page.get("next") else { return all };
        cursor = format!("&cursor={}:{}", next["epoch"], next["offset"]);
    }
}
