//! A client's session outlives its connections: whatever happens to the server, what is published stands once, and
//! comes once and in order.

use std::{io::Write as _, process::Stdio};

use tokio::{net::TcpListener, time::timeout};
use xpush::client::{Ended, Event, Options, PublishError, Publisher, Session, Start, Via};
use xpush_protocol::{Cursor, ErrorCode, EventName, Json, MessageId, Payload};

use super::{
    client::{WIRES, channel},
    process::{PATIENCE, ServerProcess, run, until, xpush},
};

fn options(server: &ServerProcess, via: Via) -> Options {
    Options { bases: vec![server.url()], via: Some(via), ..Options::default() }
}

async fn event(session: &mut Session) -> Result<Event, Ended> {
    timeout(PATIENCE, session.event()).await.expect("an event in time")
}

/// The next event that this picks; others are passed over.
async fn find<T>(session: &mut Session, pick: impl Fn(&Event) -> Option<T>) -> T {
    loop {
        let event = event(session).await.unwrap();
        if let Some(found) = pick(&event) {
            return found;
        }
    }
}

fn number(event: &Event) -> Option<u32> {
    match event {
        Event::Publication(publication) => Some(publication.data.as_ref()?.as_str().parse().unwrap()),
        Event::Gap(gap) => panic!("{gap:?}"),
        Event::Refused { .. } | Event::CursorLost { .. } => panic!("{event:?}"),
        _ => None,
    }
}

async fn publish(publisher: &Publisher, name: &str, n: u32) -> Result<Cursor, PublishError> {
    let payload = Payload::Json(Json::from_value(&n).unwrap());
    let published = publisher.publish(channel(name), MessageId::random(), EventName::default(), payload);
    Ok(timeout(PATIENCE, published).await.expect("an answer in time")?.cursor)
}

async fn subscribe(session: &mut Session, name: &str, start: Start) -> Cursor {
    session.publisher().subscribe(channel(name), start).await.unwrap();
    find(session, |event| match event {
        Event::Subscribed { cursor, .. } => Some(*cursor),
        _ => None,
    })
    .await
}

fn is_connected(event: &Event) -> Option<()> {
    matches!(event, Event::Connected { .. }).then_some(())
}

fn is_disconnected(event: &Event) -> Option<()> {
    matches!(event, Event::Disconnected { .. }).then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbered_messages_come_once_and_in_order_over_kills() {
    const KILLS: u32 = 3;
    const BETWEEN_KILLS: u32 = 40;
    let mut server = ServerProcess::start().await;
    let mut readers = Vec::new();
    let mut writers = Vec::new();
    let (progress, read) = tokio::sync::watch::channel([0_u32; WIRES.len()]);
    for (at, via) in WIRES.into_iter().enumerate() {
        let name = format!("room:{via}");
        let mut session = Session::start(options(&server, via));
        subscribe(&mut session, &name, Start::Now).await;
        let progress = progress.clone();
        readers.push(tokio::spawn(async move {
            let mut moves = 0;
            for expected in 1..=(KILLS + 1) * BETWEEN_KILLS {
                loop {
                    let event = event(&mut session).await.unwrap();
                    moves += u32::from(is_connected(&event).is_some());
                    if let Some(n) = number(&event) {
                        assert_eq!(n, expected, "{via}");
                        break;
                    }
                }
                progress.send_modify(|read| read[at] = expected);
            }
            session.close().await;
            moves
        }));
        let options = options(&server, via);
        writers.push(tokio::spawn(async move {
            let session = Session::start(options);
            let publisher = session.publisher();
            for n in 1..=(KILLS + 1) * BETWEEN_KILLS {
                publish(&publisher, &name, n).await.unwrap();
            }
            session.close().await;
        }));
    }
    for kill in 1..=KILLS {
        until("each wire has read some", async || {
            read.borrow().iter().all(|read| *read >= kill * BETWEEN_KILLS - BETWEEN_KILLS / 2)
        })
        .await;
        server.kill9();
        server.restart().await;
    }
    for task in writers {
        task.await.unwrap();
    }
    for task in readers {
        assert!(task.await.unwrap() >= 1, "it came back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_silent_is_taken_for_dead_and_one_that_leaves_is_left() {
    let mut server = ServerProcess::start().await;
    for via in WIRES {
        let name = format!("room:{via}");
        let mut session = Session::start(options(&server, via));
        let publisher = session.publisher();
        subscribe(&mut session, &name, Start::Now).await;
        publish(&publisher, &name, 1).await.unwrap();
        assert_eq!(find(&mut session, number).await, 1);

        server.signal("STOP");
        find(&mut session, is_disconnected).await;
        server.signal("CONT");
        find(&mut session, is_connected).await;
        publish(&publisher, &name, 2).await.unwrap();
        assert_eq!(find(&mut session, number).await, 2, "{via}");

        server.signal("TERM");
        // Published while it leaves, or is away: acknowledged all the same.
        let during = tokio::spawn({
            let (publisher, name) = (publisher.clone(), name.clone());
            async move { publish(&publisher, &name, 3).await }
        });
        let mut read = Vec::new();
        loop {
            let event = event(&mut session).await.unwrap();
            read.extend(number(&event));
            if is_disconnected(&event).is_some() {
                break;
            }
        }
        server.ended().await;
        server.restart().await;
        publish(&publisher, &name, 4).await.unwrap();
        during.await.unwrap().unwrap();
        while read.len() < 2 {
            read.push(find(&mut session, number).await);
        }
        assert_eq!(read, [3, 4], "{via}");
        session.close().await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_passed_over() {
    let server = ServerProcess::start().await;
    // One refuses, one takes connections and says nothing.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = |address: std::net::SocketAddr| format!("http://{address}");
    let bases = vec![url(closed.local_addr().unwrap()), url(silent.local_addr().unwrap()), server.url()];
    let mut session = Session::start(Options { bases, via: None, ..Options::default() });
    let via = find(&mut session, |event| match event {
        Event::Connected { via, .. } => Some(*via),
        _ => None,
    })
    .await;
    assert_eq!(via, Via::Quic, "the first that works");
    publish(&session.publisher(), "room:a", 1).await.unwrap();
    session.close().await;
}

#[tokio::test]
async fn a_cursor_beyond_what_the_servers_have_is_given_up_after_some_attempts() {
    let server = ServerProcess::start().await;
    let mut session = Session::start(options(&server, Via::Websocket));
    let publisher = session.publisher();
    let cursor = publish(&publisher, "room:a", 1).await.unwrap();
    let ahead = Cursor { offset: 9, ..cursor };
    publisher.subscribe(channel("room:a"), Start::Behind(ahead)).await.unwrap();
    let lost = find(&mut session, |event| match event {
        Event::CursorLost { cursor, .. } => Some(*cursor),
        Event::Subscribed { .. } => panic!("{event:?}"),
        _ => None,
    })
    .await;
    assert_eq!(lost, ahead);
    let at = find(&mut session, |event| match event {
        Event::Subscribed { cursor, .. } => Some(*cursor),
        _ => None,
    })
    .await;
    assert_eq!(at, cursor);
    publish(&publisher, "room:a", 2).await.unwrap();
    assert_eq!(find(&mut session, number).await, 2);

    // One that the servers come to have meanwhile is kept.
    let ahead = Cursor { offset: 3, ..cursor };
    publisher.unsubscribe(channel("room:a")).await.unwrap();
    publisher.subscribe(channel("room:a"), Start::Behind(ahead)).await.unwrap();
    for n in 3..=4 {
        publish(&publisher, "room:a", n).await.unwrap();
    }
    assert_eq!(find(&mut session, number).await, 4);
    session.close().await;
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_tried_again() {
    let server = ServerProcess::start().await;
    for via in WIRES {
        let mut session = Session::start(options(&server, via));
        let publisher = session.publisher();
        publisher.subscribe(channel("nowhere:a"), Start::Now).await.unwrap();
        let code = find(&mut session, |event| match event {
            Event::Refused { code, .. } => Some(*code),
            _ => None,
        })
        .await;
        assert_eq!(code, ErrorCode::UnknownNamespace, "{via}");
        let refused = publish(&publisher, "nowhere:a", 1).await.unwrap_err();
        assert!(
            matches!(refused, PublishError::Refused { code: ErrorCode::UnknownNamespace, .. }),
            "{refused}"
        );
        session.close().await;
        assert_eq!(publish(&publisher, "room:a", 1).await, Err(PublishError::Ended(Ended::Closed)));

        let forged = Options { token: Some("a.b.c".into()), ..options(&server, via) };
        let mut session = Session::start(forged);
        let Err(Ended::Refused(why)) = event(&mut session).await else { panic!("{via}: it is refused") };
        assert!(why.contains("invalid_token"), "{why}");
        let refused = publish(&session.publisher(), "room:a", 1).await.unwrap_err();
        assert_eq!(refused, PublishError::Ended(Ended::Refused(why)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_survive_their_server() {
    const LINES: u32 = 60;
    let mut server = ServerProcess::start().await;
    let url = server.url();
    let command = |words: &[&str]| {
        let mut command = xpush();
        command.args(words).args(["--server", &url]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let count = LINES.to_string();
    let subscriber =
        command(&["subscribe", "room:lines", "--last", "0", "--count", &count, "--via", "websocket"]);
    until("it is subscribed", async || {
        super::http::get(server.http, "/v1/channels/room:lines/presence").await.json()["sessions"] == 1
    })
    .await;
    let mut publisher = command(&["publish", "room:lines", "-"]);
    let mut stdin = publisher.stdin.take().unwrap();
    let top = async |server: &ServerProcess| {
        super::http::get(server.http, "/v1/channels/room:lines/history").await.json()["top"]["offset"]
            .as_u64()
    };
    for n in 1..=LINES {
        writeln!(stdin, "{n}").unwrap();
        if n % 20 == 0 {
            until("some are published", async || top(&server).await >= Some(u64::from(n) - 10)).await;
            server.kill9();
            server.restart().await;
        }
    }
    drop(stdin);
    for child in [publisher, subscriber] {
        let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        let output = timeout(PATIENCE, output).await.unwrap().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.contains("xpush: connected to "), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), LINES as usize);
    }
    let output = run(&["history", "room:lines", "--all", "--server", &url]).await;
    let numbers: Vec<u32> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["data"].as_u64().unwrap() as u32)
        .collect();
    assert_eq!(numbers, (1..=LINES).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_abandoned_session_leaves_nothing_behind() {
    let server = ServerProcess::start().await;
    let mut session = Session::start(options(&server, Via::Websocket));
    subscribe(&mut session, "room:a", Start::Now).await;
    let sessions = async || {
        super::http::get(server.http, "/v1/channels/room:a/presence").await.json()["sessions"].as_u64()
    };
    assert_eq!(sessions().await, Some(1));
    drop(session);
    until("it is gone", async || sessions().await == Some(0)).await;
}
