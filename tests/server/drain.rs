//! A server that is asked to leave lets its clients go elsewhere first.

use std::{sync::Arc, time::Instant};

use tokio::sync::Mutex;
use xpush::client::{ClientError, Via};
use xpush_protocol::{CloseCode, Connect, ServerFrame};
use xpush_transports::Closed;

use super::{
    client::{Session, WIRES},
    http::{get, try_get},
    process::{ServerProcess, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_and_every_acknowledgement_holds() {
    let mut server = ServerProcess::start().await;
    let mut told = Vec::new();
    for via in WIRES {
        let mut session = Session::open(&server, via).await;
        session.subscribe("live:news").await.unwrap();
        told.push((via, session));
    }
    // Who publishes while it leaves.
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut publisher = Session::open(&server, Via::Quic).await;
    let publishing = tokio::spawn({
        let acknowledged = Arc::clone(&acknowledged);
        async move {
            for n in 0.. {
                match publisher.publish("room:a", n).await {
                    Ok(published) => acknowledged.lock().await.push((published.cursor.offset, n)),
                    Err(_) => return,
                }
            }
        }
    });
    until("something is acknowledged", async || acknowledged.lock().await.len() > 20).await;
    server.signal("TERM");
    let began = Instant::now();
    for (via, session) in &mut told {
        loop {
            if let ServerFrame::Draining(draining) = session.event().await {
                assert!(draining.reconnect_in < draining.close_in, "{via}: {draining:?}");
                break;
            }
        }
    }
    // While clients are here it serves them, and takes no new ones.
    assert_eq!(get(server.http, "/readyz").await.status, 503);
    assert_eq!(get(server.http, "/readyz").await.json()["draining"], true);
    for via in [Via::Quic, Via::Websocket] {
        match Session::with(&server, via, Connect::default()).await {
            Err(ClientError::Closed(Closed::ByPeer { code, .. })) => assert_eq!(code, CloseCode::Draining),
            Err(other) => panic!("{via}: {other}"),
            Ok(_) => panic!("{via}: a draining server took a new client"),
        }
    }
    // One client stays until it is sent away; the others go.
    let (_, mut stays) = told.swap_remove(2);
    for (_, session) in told {
        session.client.close().await;
    }
    let error = loop {
        if let Err(error) = stays.client.event().await {
            break error;
        }
    };
    match error {
        ClientError::Closed(Closed::ByPeer { code, .. }) => assert_eq!(code, CloseCode::Draining),
        other => panic!("{other}"),
    }
    let status = server.ended().await;
    assert_eq!(status.code(), Some(0), "{}", server.stderr());
    println!("drained in {:?}", began.elapsed());
    publishing.await.unwrap();
    assert!(try_get(server.http, "/healthz").await.is_none());

    server.restart().await;
    let mut reader = Session::open(&server, Via::Websocket).await;
    let acknowledged = acknowledged.lock().await;
    let (last, _) = *acknowledged.last().unwrap();
    let cursor = reader.publish("room:a", "end").await.unwrap().cursor;
    assert!(cursor.offset > last);
    let start = xpush_protocol::Cursor { offset: 0, ..cursor };
    reader.subscribe_at("room:a", Some(start)).await.unwrap();
    for (offset, n) in acknowledged.iter() {
        assert_eq!(reader.publication().await, (*offset, n.to_string()));
    }
}

#[tokio::test]
async fn a_server_without_clients_leaves_at_once() {
    let mut server = ServerProcess::start().await;
    let began = Instant::now();
    server.signal("TERM");
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(began.elapsed().as_secs() < 3, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_interrupt_ends_it_at_once_with_a_goodbye() {
    let mut server = ServerProcess::start().await;
    let mut session = Session::open(&server, Via::Websocket).await;
    let published = session.publish("room:a", 1).await.unwrap();
    server.signal("INT");
    let error = session.client.event().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Closed(Closed::ByPeer { code: CloseCode::Draining, .. })),
        "{error}"
    );
    assert_eq!(server.ended().await.code(), Some(0));
    server.restart().await;
    let page = get(server.http, "/v1/channels/room:a/history").await.json();
    assert_eq!(page["top"]["offset"], published.cursor.offset);
}
