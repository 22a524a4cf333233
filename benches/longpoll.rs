//! How long a poll that hangs takes to bring a publication: from the publish until the client has read the whole answer,
//! over HTTP and the loopback. Beside it the same over WebSocket, where the news needs no answer to a request.

#[path = "../tests/harness/mod.rs"]
mod harness;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Extension, Router, extract::Request, routing::any};
use criterion::{Criterion, criterion_group, criterion_main};
use harness::{Listener, TestNode, channel, draft};
use tokio::{runtime::Runtime, sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use xpush::{
    http::{PeerAddress, server::Server},
    session::serve_all,
};
use xpush_protocol::MessageId;
use xpush_transports::{Admission, Connection, Settings, longpoll, websocket};

const LOBBY: &str = "room:lobby";
/// From an answer until the client's next poll hangs at the server, many times over.
const UNTIL_IT_HANGS: Duration = Duration::from_millis(2);

/// Serves the two wires on a port of the loopback, and gives its address.
async fn serve(node: &TestNode) -> SocketAddr {
    let cancel = CancellationToken::new();
    let admission = Admission::new(10, 10);
    let (upgrader, websockets) = websocket::listener(Settings::default(), admission.clone(), cancel.clone());
    let (poller, polls) = longpoll::listener(Settings::default(), admission.clone(), cancel.clone());
    tokio::spawn(serve_all(Arc::clone(&node.node), websockets, cancel.clone()));
    tokio::spawn(serve_all(Arc::clone(&node.node), polls, cancel.clone()));
    let connect = move |Extension(PeerAddress(peer)): Extension<PeerAddress>, request: Request| async move {
        upgrader.upgrade(peer, request)
    };
    let poll = move |Extension(PeerAddress(peer)): Extension<PeerAddress>, request: Request| async move {
        poller.poll(peer, request).await
    };
    let router = Router::new().route("/v1/connect", any(connect)).route("/v1/poll", any(poll));
    let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into(), None, admission).await.expect("a port");
    let address = server.local_address().expect("it is bound");
    tokio::spawn(server.run(router, cancel));
    address
}

/// When each publication is there. It always listens, so a client that polls has a poll under way.
fn arrivals(mut listener: Listener<impl Connection>) -> mpsc::Receiver<Instant> {
    let (arrived, arrivals) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            listener.frame().await;
            if arrived.send(Instant::now()).await.is_err() {
                return;
            }
        }
    });
    arrivals
}

async fn wake(node: &TestNode, arrivals: &mut mpsc::Receiver<Instant>) -> Duration {
    sleep(UNTIL_IT_HANGS).await;
    let began = Instant::now();
    let publishing = node.node.publish(&channel(LOBBY), draft(MessageId::random())).await;
    publishing.expect("it is in line").await.expect("it is published");
    arrivals.recv().await.expect("it listens") - began
}

fn measure(c: &mut Criterion, name: &str, runtime: &Runtime, node: &TestNode, connection: impl Connection) {
    let listener = runtime.block_on(Listener::subscribed(connection, LOBBY));
    let mut arrivals = runtime.block_on(async { arrivals(listener) });
    c.bench_function(name, |b| {
        b.iter_custom(|times| {
            runtime.block_on(async {
                let mut took = Duration::ZERO;
                for _ in 0..times {
                    took += wake(node, &mut arrivals).await;
                }
                took
            })
        });
    });
}

fn wake_ups(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let (node, address) = runtime.block_on(async {
        let node = TestNode::in_memory();
        let address = serve(&node).await;
        (node, address)
    });
    let settings = Settings::default();
    let (poll, connect) = (format!("http://{address}/v1/poll"), format!("ws://{address}/v1/connect"));
    let polling = runtime.block_on(longpoll::dial(&poll, &settings, None)).expect("a client");
    measure(c, "longpoll/a poll that hangs", &runtime, &node, polling);
    let pushed = runtime.block_on(websocket::dial(&connect, None, &settings, None)).expect("a connection");
    measure(c, "longpoll/a WebSocket", &runtime, &node, pushed);
}

criterion_group!(benches, wake_ups);
criterion_main!(benches);
