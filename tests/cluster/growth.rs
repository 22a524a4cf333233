//! A cluster is restarted and grows while all clients publish.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::{Instant, sleep};
use xpush_protocol::{Ticket, TicketRequest};
use xpush_test_servers::until;

use crate::{
    harness, load,
    measure::{Away, Times},
    nodes::{self, Node, Signal},
};

/// A client whose node is restarted is live elsewhere within this time, 99 times of 100.
const INTERRUPTED_FOR: Duration = Duration::from_secs(1);
/// A node that was started takes clients within this time.
const TAKES_CLIENTS_WITHIN: Duration = Duration::from_secs(5);
/// Between two restarts, and around them.
const PAUSE: Duration = Duration::from_secs(2);
/// Users whose look-ups are compared.
const USERS: usize = 1000;
const LOOK_UPS_AT_ONCE: usize = 16;

/// Asks a node where users should go.
async fn look_up(http: &Client<HttpConnector, Full<Bytes>>, node: &Node, user: &str) -> Ticket {
    let token = Some(harness::token_to_listen(user, &[]));
    let body = serde_json::to_vec(&TicketRequest { token, avoid: None }).unwrap();
    let request = Request::post(format!("{}/v1/tickets", node.url())).body(Full::from(body)).unwrap();
    let answer = http.request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

async fn look_all_up(http: &Client<HttpConnector, Full<Bytes>>, node: &Node) -> HashMap<usize, String> {
    let found = Mutex::new(HashMap::new());
    let look_up = async |user| {
        let node = look_up(http, node, &format!("u{user}")).await.node;
        found.lock().unwrap().insert(user, node);
    };
    stream::iter(0..USERS).for_each_concurrent(LOOK_UPS_AT_ONCE, look_up).await;
    found.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the whole machine for minutes: ./tests/run cluster"]
async fn a_node_that_is_added_takes_its_share_and_a_rolling_restart_costs_nothing() {
    let _alone = nodes::alone().await;
    let (servers, mut nodes, doors) = nodes::start_three().await;
    let running = load::workload(u64::from(std::process::id())).start(doors.clone()).await;
    running.publish();
    sleep(PAUSE).await;

    // One more.
    let http = Client::builder(TokioExecutor::new()).build_http();
    let before = look_all_up(&http, &nodes[0]).await;
    let mut fourth = Node::new("n4", &servers.shared);
    let began = Instant::now();
    fourth.spawn();
    until("the new node to be looked up", async || {
        let mut users = 0..20;
        loop {
            let Some(user) = users.next() else { return false };
            if look_up(&http, &nodes[0], &format!("u{user}")).await.node == "n4" {
                return true;
            }
        }
    })
    .await;
    let found_after = began.elapsed();
    fourth.ready().await;
    doors.add(&fourth);
    let took = began.elapsed();
    let after = look_all_up(&http, &nodes[0]).await;
    let moved = before.iter().filter(|(user, node)| after[user] != **node).count();
    println!(
        "the new node was looked up {found_after:.1?} after its start and took clients after {took:.1?}; {moved} of \
         {USERS} look-ups moved"
    );
    let limit = USERS as f64 * 1.5 / 4.0;
    assert!(moved > 0 && (moved as f64) <= limit, "{moved} of {USERS} look-ups moved, {limit} may");
    assert!(!load::is_timed() || took <= TAKES_CLIENTS_WITHIN, "it took {took:?}");

    // All of them, one after the other.
    nodes.push(fourth);
    for node in &mut nodes {
        sleep(PAUSE).await;
        node.signal(Signal::Terminate);
        node.ended().await;
        node.start().await;
    }
    sleep(PAUSE).await;
    let outcome = running.finish().await;
    let drained = Away::of(outcome.recoveries.iter().filter(|recovery| recovery.drained));
    let broken = outcome.recoveries.iter().filter(|recovery| !recovery.drained).count();
    println!("{}\n{}", outcome.report, Times::of(&outcome.records));
    println!("{drained}; {broken} times it was cut off");
    outcome.report.assert_clean();
    assert_eq!(outcome.report.unknown, 0);
    assert!(drained.count() > 0, "the nodes asked their clients to go");
    assert!(!load::is_timed() || drained.p99() < INTERRUPTED_FOR, "{drained}");
}
