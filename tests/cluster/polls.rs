//! No sticky sessions: clients whose every poll comes to another node get every message once, also while one of the
//! nodes dies.

use std::time::Duration;

use tokio::time::sleep;
use xpush::client::{Via, Visit};
use xpush_protocol::Codec;
use xpush_transports::{Settings, longpoll};

use crate::{
    balancer::Balancer,
    client::Doors,
    load,
    measure::Times,
    nodes::{self, ProcessDoors},
    run::Workload,
};

const CLIENTS: u32 = 30;
const RATE: f64 = 60.0;
const BEFORE: Duration = Duration::from_secs(8);
const DOWN: Duration = Duration::from_secs(4);

/// Polls go to the balancer; all else to the nodes' own doors.
struct Balanced {
    nodes: ProcessDoors,
    polls: String,
}

impl Doors for Balanced {
    fn count(&self) -> usize {
        self.nodes.count()
    }

    async fn dial<V>(&self, node: usize, via: Via, codec: Codec, visitor: V) -> Result<V::Output, String>
    where
        V: Visit + Send,
        V::Output: Send,
    {
        if via != Via::Longpoll {
            return self.nodes.dial(node, via, codec, visitor).await;
        }
        let settings = Settings { frame_limit: 1 << 20, ..Settings::default() };
        let dialled =
            longpoll::dial(&self.polls, &settings, None).await.map_err(|error| error.to_string())?;
        Ok(visitor.visit(dialled))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the whole machine for minutes: ./tests/run cluster"]
async fn polls_that_go_round_the_nodes_bring_every_message_once() {
    let _alone = nodes::alone().await;
    let (_servers, mut nodes, doors) = nodes::start_three().await;
    let balancer = Balancer::before(nodes.iter().map(|node| node.http).collect()).await;
    let workload = Workload {
        rooms: 12,
        lives: 3,
        clients: CLIENTS,
        rate: RATE,
        wires: vec![
            (Via::Longpoll, Codec::Json),
            (Via::Longpoll, Codec::Json),
            (Via::Websocket, Codec::Json),
        ],
        // A `refresh` beside a poll may come to another node, and is not for the session there.
        losing_rights: 0,
        ..load::workload(u64::from(std::process::id()))
    };
    let polls = format!("{}/v1/poll", balancer.url());
    let running = workload.start(Balanced { nodes: doors, polls }).await;
    let connections = running.connections();
    running.publish();
    sleep(BEFORE).await;
    assert_eq!(running.connections(), connections, "going round the nodes breaks no connection");
    nodes[0].kill9();
    sleep(DOWN).await;
    nodes[0].start().await;
    sleep(BEFORE).await;
    let outcome = running.finish().await;
    let sent = balancer.sent();
    println!("requests to each node: {sent:?}; {}\n{}", outcome.report, Times::of(&outcome.records));
    outcome.report.assert_clean();
    assert_eq!(outcome.report.unknown, 0);
    assert!(sent.iter().all(|&count| count > 100), "every node had its part of the polls: {sent:?}");
}
