//! What a session promises, whatever the wire: here over the memory transport.

mod harness;

use std::time::Duration;

use harness::{Options, PATIENCE, TestNode, channel, token, token_of};
use tokio::time::timeout;
use xpush::client::ClientError;
use xpush_protocol::{
    ClientFrame, CloseCode, Codec, Connect, ErrorCode, History, MessageId, Presence, Refresh, Resubscribe,
    Send, ServerFrame, Target, Unsubscribe, UnsubscribeReason,
};
use xpush_transports::{Closed, Connection as _, Lane, Outgoing, Reader as _, Writer as _};

fn code(error: ClientError) -> ErrorCode {
    match error {
        ClientError::Refused { code, .. } => code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_one_publishes_the_others_receive_in_either_codec() {
    let node = TestNode::start();
    for name in ["room:a", "live:a", "typing:a"] {
        let mut json = node.client().await;
        let mut messagepack = node.client_with(Codec::MessagePack, Connect::default()).await.unwrap();
        json.subscribe(name).await;
        messagepack.subscribe(name).await;
        let published = json.publish(name, serde_json::json!({"text": "hi"})).await.unwrap();
        assert_eq!(published.cursor.offset, 1);
        for client in [&mut json, &mut messagepack] {
            assert_eq!(client.publication().await, (1, r#"{"text":"hi"}"#.to_owned()));
        }
    }
}

#[tokio::test]
async fn a_retry_stands_once_and_gets_the_first_ones_place() {
    let node = TestNode::start();
    for name in ["room:a", "live:a"] {
        let mut client = node.client().await;
        let id = MessageId::random();
        let first = client.publish_as(name, id.clone(), 1).await.unwrap();
        let state = Some(client.connected.state.clone());
        client.client.close().await;
        // An anonymous publisher is its session: it comes back with its state.
        let connect = Connect { state, ..Connect::default() };
        let mut client = node.client_with(Codec::Json, connect).await.unwrap();
        let retry = client.publish_as(name, id, 1).await.unwrap();
        assert_eq!((retry.cursor, retry.duplicate), (first.cursor, true));
        assert_eq!(client.publish(name, 2).await.unwrap().cursor.offset, 2);
    }
}

#[tokio::test]
async fn a_resumed_session_receives_what_it_missed() {
    let node = TestNode::start();
    let mut writer = node.client().await;
    let mut reader = node.client().await;
    let subscribed = reader.subscribe("room:a").await;
    writer.publish("room:a", 1).await.unwrap();
    assert_eq!(reader.publication().await.0, 1);
    let (session, state) = (reader.connected.session.clone(), Some(reader.connected.state.clone()));
    drop(reader);
    for n in 2..=1000 {
        writer.publish("room:a", n).await.unwrap();
    }
    let cursor = xpush_protocol::Cursor { offset: 1, ..subscribed.cursor };
    let subscriptions = vec![Resubscribe { channel: channel("room:a"), cursor: Some(cursor) }];
    let connect = Connect { state, subscriptions, ..Connect::default() };
    let mut reader = node.client_with(Codec::Json, connect).await.unwrap();
    assert_eq!(reader.connected.session, session);
    for n in 2..=1000 {
        assert_eq!(reader.publication().await, (n, n.to_string()));
    }
    writer.publish("room:a", "live").await.unwrap();
    assert_eq!(reader.publication().await.0, 1001);
}

#[tokio::test]
async fn what_is_no_longer_kept_is_named_as_a_gap() {
    let node = TestNode::with(Options { recent_size: 10, ..Options::default() });
    let mut client = node.client().await;
    let start = client.subscribe("live:a").await.cursor;
    let unsubscribe = |id| ClientFrame::Unsubscribe(Unsubscribe { id, channel: channel("live:a") });
    client.call(unsubscribe).await.unwrap();
    for n in 1..=30 {
        client.publish("live:a", n).await.unwrap();
    }
    let subscribed = client.subscribe_at("live:a", Some(start)).await.unwrap();
    let gap = subscribed.gap.unwrap();
    assert_eq!((gap.from, gap.to, subscribed.cursor.offset, subscribed.top), (1, 20, 20, 30));
    assert_eq!(client.publication().await, (21, "21".into()));
}

#[tokio::test]
async fn a_cursor_of_a_lost_epoch_gets_a_gap_and_one_from_the_future_an_error() {
    let node = TestNode::start();
    let mut client = node.client().await;
    let cursor = client.publish("live:a", 1).await.unwrap().cursor;
    let lost = xpush_protocol::Cursor { epoch: xpush_protocol::Epoch(cursor.epoch.0 ^ 1), offset: 77 };
    let subscribed = client.subscribe_at("live:a", Some(lost)).await.unwrap();
    let gap = subscribed.gap.unwrap();
    assert_eq!((gap.epoch, gap.from, gap.to), (cursor.epoch, 1, 0));
    assert_eq!(client.publication().await.0, 1);
    let future = xpush_protocol::Cursor { offset: 99, ..client.publish("room:b", 1).await.unwrap().cursor };
    assert_eq!(code(client.subscribe_at("room:b", Some(future)).await.unwrap_err()), ErrorCode::CursorAhead);
}

#[tokio::test]
async fn a_client_that_stops_reading_lags_and_then_gets_all_of_it() {
    let node = TestNode::start();
    let (_, mut slow, mut slow_writer) = node.dial().await.split();
    let mut frames: Vec<_> = [r#"{"connect":{"id":1}}"#, r#"{"subscribe":{"id":2,"channel":"room:a"}}"#]
        .map(|text| Outgoing { bytes: text.into(), lane: Lane::Control })
        .into();
    slow_writer.write(&mut frames).await.unwrap();
    let mut writer = node.client().await;
    let mut other = node.client().await;
    other.subscribe("room:a").await;
    let data = "x".repeat(1000);
    for n in 1..=1000 {
        writer.publish("room:a", &data).await.unwrap();
        assert_eq!(other.publication().await.0, n);
    }
    let (mut expected, mut lagged) = (1, false);
    while expected <= 1000 {
        let frame = timeout(PATIENCE, slow.read()).await.unwrap().unwrap();
        match Codec::Json.decode::<ServerFrame>(&frame).unwrap() {
            ServerFrame::Publication(publication) => {
                assert_eq!(publication.offset, expected);
                expected += 1;
            }
            ServerFrame::Lag(lag) => lagged |= lag.behind > 0,
            _ => {}
        }
    }
    assert!(lagged, "a megabyte does not fit in an outbox");
}

#[tokio::test]
async fn two_users_speak_privately_and_a_third_does_not_hear_it() {
    let node = TestNode::with(Options { anonymous: false, ..Options::default() });
    let mut ann = node.user("ann").await;
    let mut bob = node.user("bob").await;
    let data = Some(xpush_protocol::Json::parse("\"psst\"").unwrap());
    let send = |to: Target| {
        let (event, data) = (xpush_protocol::EventName::default(), data.clone());
        move |id| ClientFrame::Send(Send { id, to, event, data, binary: None })
    };
    ann.call(send(Target::User("bob".parse().unwrap()))).await.unwrap();
    let from = bob
        .until(|event| match event {
            ServerFrame::Message(message) => Some(message),
            _ => None,
        })
        .await;
    assert_eq!(from.user.unwrap().as_str(), "ann");
    bob.call(send(Target::Session(from.session.unwrap()))).await.unwrap();
    ann.until(|event| matches!(event, ServerFrame::Message(_)).then_some(())).await;
    let nobody = ann.call(send(Target::User("carl".parse().unwrap()))).await.unwrap_err();
    assert_eq!(code(nobody), ErrorCode::NotConnected);
}

#[tokio::test]
async fn a_private_message_waits_for_a_session_whose_wire_broke() {
    let node = TestNode::start();
    let mut ann = node.client().await;
    // A wire that breaks says nothing; a client's own close would be a goodbye.
    let (_, mut reader, mut writer) = node.dial().await.split();
    let connect = Outgoing { bytes: r#"{"connect":{"id":1}}"#.into(), lane: Lane::Control };
    writer.write(&mut vec![connect]).await.unwrap();
    let frame = timeout(PATIENCE, reader.read()).await.unwrap().unwrap();
    let ServerFrame::Connected(bob) = Codec::Json.decode(&frame).unwrap() else { panic!() };
    let (session, state) = (bob.session, bob.state);
    drop((reader, writer));
    let to = Target::Session(session);
    let data = Some(xpush_protocol::Json::parse("1").unwrap());
    ann.call(|id| {
        ClientFrame::Send(Send { id, to, event: xpush_protocol::EventName::default(), data, binary: None })
    })
    .await
    .unwrap();
    let connect = Connect { state: Some(state), ..Connect::default() };
    let mut bob = node.client_with(Codec::Json, connect).await.unwrap();
    bob.until(|event| matches!(event, ServerFrame::Message(_)).then_some(())).await;
}

#[tokio::test]
async fn joins_and_leaves_are_told_and_counted() {
    let node = TestNode::start();
    let mut ann = node.client().await;
    assert_eq!(ann.subscribe("room:a").await.occupancy, Some(1));
    let mut bob = node.client().await;
    assert_eq!(bob.subscribe("room:a").await.occupancy, Some(2));
    let join = |event| if let ServerFrame::Join(join) = event { Some(join) } else { None };
    let session = bob.connected.session.clone();
    let joined = loop {
        let joined = ann.until(join).await;
        if joined.member.session == session {
            break joined;
        }
    };
    assert_eq!(joined.occupancy, 2);
    let list =
        ann.call(|id| ClientFrame::Presence(Presence { id, channel: channel("room:a") })).await.unwrap();
    assert!(matches!(list, ServerFrame::Presence(list) if list.sessions == 2 && list.members.len() == 2));
    bob.client.close().await;
    let leave = |event| if let ServerFrame::Leave(leave) = event { Some(leave) } else { None };
    let left = ann.until(leave).await;
    assert_eq!((left.member.session, left.occupancy), (session, 1));
}

#[tokio::test]
async fn a_newer_connection_takes_the_session_over_and_nobody_leaves() {
    let node = TestNode::start();
    let mut watcher = node.client().await;
    watcher.subscribe("room:a").await;
    let mut old = node.client().await;
    let cursor = old.subscribe("room:a").await.cursor;
    let subscriptions = vec![Resubscribe { channel: channel("room:a"), cursor: Some(cursor) }];
    let connect = Connect { state: Some(old.connected.state.clone()), subscriptions, ..Connect::default() };
    let mut new = node.client_with(Codec::Json, connect).await.unwrap();
    assert_eq!(new.connected.session, old.connected.session);
    let closed = loop {
        match timeout(PATIENCE, old.client.event()).await.unwrap() {
            Ok(_) => {}
            Err(closed) => break closed,
        }
    };
    assert!(
        matches!(closed, ClientError::Closed(Closed::ByPeer { code: CloseCode::Replaced, .. })),
        "{closed}"
    );
    watcher.publish("room:a", 1).await.unwrap();
    assert_eq!(new.publication().await.0, 1);
    let leave = watcher.until(|event| match event {
        ServerFrame::Publication(_) => Some(false),
        ServerFrame::Leave(_) => Some(true),
        _ => None,
    });
    assert!(!leave.await);
}

#[tokio::test]
async fn history_is_paged_in_both_directions() {
    let node = TestNode::start();
    let mut client = node.client().await;
    for n in 1..=120 {
        client.publish("room:a", n).await.unwrap();
    }
    for backward in [false, true] {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let frame = |id| {
                let limit = Some(50);
                ClientFrame::History(History { id, channel: channel("room:a"), cursor, backward, limit })
            };
            let ServerFrame::History(page) = client.call(frame).await.unwrap() else { panic!() };
            assert_eq!(page.top.offset, 120);
            seen.extend(page.publications.iter().map(|publication| publication.offset));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let mut expected: Vec<u64> = (1..=120).collect();
        if backward {
            expected.reverse();
        }
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn rights_end_with_the_token_and_come_back_with_a_new_one() {
    let node = TestNode::with(Options { anonymous: false, ..Options::default() });
    let connect = Connect { token: Some(token("ann", "room:*", 1)), ..Connect::default() };
    let mut ann = node.client_with(Codec::Json, connect).await.unwrap();
    let cursor = ann.subscribe("room:a").await.cursor;
    let ended = |event| if let ServerFrame::Unsubscribed(ended) = event { Some(ended.reason) } else { None };
    assert_eq!(ann.until(ended).await, UnsubscribeReason::TokenExpired);
    ann.until(|event| matches!(event, ServerFrame::Expired(_)).then_some(())).await;
    assert_eq!(code(ann.publish("room:a", 1).await.unwrap_err()), ErrorCode::TokenExpired);
    let other = token("bob", "room:*", 60);
    let refused = ann.call(|id| ClientFrame::Refresh(Refresh { id, token: other })).await.unwrap_err();
    assert_eq!(code(refused), ErrorCode::PermissionDenied);
    let fresh = token("ann", "room:a", 60);
    ann.call(|id| ClientFrame::Refresh(Refresh { id, token: fresh })).await.unwrap();
    ann.subscribe_at("room:a", Some(cursor)).await.unwrap();
    assert_eq!(ann.publish("room:a", 1).await.unwrap().cursor.offset, 1);
    assert_eq!(code(ann.publish("room:b", 1).await.unwrap_err()), ErrorCode::PermissionDenied);
    let narrower = token("ann", "room:b", 60);
    ann.call(|id| ClientFrame::Refresh(Refresh { id, token: narrower })).await.unwrap();
    assert_eq!(ann.until(ended).await, UnsubscribeReason::Revoked);
}

#[tokio::test]
async fn nobody_comes_in_without_a_token_where_one_is_needed() {
    let node = TestNode::with(Options { anonymous: false, ..Options::default() });
    let refused = node.client_with(Codec::Json, Connect::default()).await.err().unwrap();
    assert_eq!(code(refused), ErrorCode::Unauthenticated);
    let connect = Connect { token: Some("a.b.c".into()), ..Connect::default() };
    assert_eq!(code(node.client_with(Codec::Json, connect).await.err().unwrap()), ErrorCode::InvalidToken);
}

#[tokio::test]
async fn each_bad_command_gets_its_own_code_and_the_session_goes_on() {
    let node = TestNode::start();
    let mut client = node.client().await;
    assert_eq!(code(client.publish("nowhere:a", 1).await.unwrap_err()), ErrorCode::UnknownNamespace);
    assert_eq!(code(client.publish("room:a", "x".repeat(40_000)).await.unwrap_err()), ErrorCode::TooLarge);
    client.subscribe("room:a").await;
    assert_eq!(code(client.subscribe_at("room:a", None).await.unwrap_err()), ErrorCode::AlreadySubscribed);
    let unsubscribe = |id| ClientFrame::Unsubscribe(Unsubscribe { id, channel: channel("room:b") });
    assert_eq!(code(client.call(unsubscribe).await.unwrap_err()), ErrorCode::NotSubscribed);
    let again = client.call(|id| ClientFrame::Connect(Connect { id, ..Connect::default() })).await;
    assert_eq!(code(again.unwrap_err()), ErrorCode::OutOfOrder);
    let no_history = |id| {
        let (cursor, limit) = (None, None);
        ClientFrame::History(History { id, channel: channel("typing:a"), cursor, backward: false, limit })
    };
    assert_eq!(code(client.call(no_history).await.unwrap_err()), ErrorCode::NotSupported);
    assert_eq!(client.publish("room:a", 1).await.unwrap().cursor.offset, 1);
}

#[tokio::test]
async fn too_many_frames_that_are_none_end_the_connection() {
    let node = TestNode::start();
    let (_, mut reader, mut writer) = node.dial().await.split();
    let frame = |text: &'static str| Outgoing { bytes: text.into(), lane: Lane::Control };
    let mut frames = vec![frame(r#"{"connect":{"id":1}}"#)];
    frames.extend((0..20).map(|_| frame("{nonsense")));
    writer.write(&mut frames).await.unwrap();
    let closed = loop {
        match timeout(PATIENCE, reader.read()).await.unwrap() {
            Ok(_) => {}
            Err(closed) => break closed,
        }
    };
    assert!(matches!(closed, Closed::ByPeer { code: CloseCode::ProtocolError, .. }), "{closed}");
}

#[tokio::test]
async fn a_restarted_node_has_every_acknowledged_message() {
    let node = TestNode::start();
    let mut client = node.client().await;
    let mut last = None;
    for n in 1..=50 {
        last = Some(client.publish("room:a", n).await.unwrap().cursor);
    }
    let folder = node.stop().await;
    let node = TestNode::in_folder(folder, Options::default());
    let mut client = node.client().await;
    let cursor = xpush_protocol::Cursor { offset: 10, ..last.unwrap() };
    client.subscribe_at("room:a", Some(cursor)).await.unwrap();
    for n in 11..=50 {
        assert_eq!(client.publication().await, (n, n.to_string()));
    }
}

#[tokio::test]
async fn many_publishers_of_one_channel_are_seen_in_one_order() {
    let node = TestNode::start();
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = node.client().await;
        reader.subscribe("room:a").await;
        readers.push(reader);
    }
    let mut writers = Vec::new();
    for writer in 0..8 {
        let mut client = node.client().await;
        writers.push(tokio::spawn(async move {
            for n in 0..50 {
                client.publish("room:a", format!("{writer}-{n}")).await.unwrap();
            }
        }));
    }
    let mut seen = Vec::new();
    for reader in &mut readers {
        let mut one = Vec::new();
        for offset in 1..=400 {
            let (got, data) = reader.publication().await;
            assert_eq!(got, offset);
            one.push(data);
        }
        seen.push(one);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    for writer in writers {
        timeout(Duration::from_secs(60), writer).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_publish_whose_caller_is_gone_reaches_the_subscribers_all_the_same() {
    let node = TestNode::start();
    let mut reader = node.client().await;
    reader.subscribe("room:a").await;
    for n in 1..=50 {
        let draft = xpush::publication::Draft {
            publisher: xpush::publication::Publisher::backend("test"),
            message_id: MessageId::random(),
            event: xpush_protocol::EventName::default(),
            payload: xpush_protocol::Payload::Json(xpush_protocol::Json::parse("1").unwrap()),
            user: None,
            time: 0,
        };
        let publishing = node.node.publish(&channel("room:a"), draft).await.unwrap();
        drop(publishing);
        assert_eq!(reader.publication().await.0, n);
    }
}

#[tokio::test]
async fn who_comes_back_without_a_channel_has_left_it() {
    let node = TestNode::start();
    let mut watcher = node.client().await;
    watcher.subscribe("room:a").await;
    let (_, mut reader, mut writer) = node.dial().await.split();
    let frame = |text: &'static str| Outgoing { bytes: text.into(), lane: Lane::Control };
    let mut frames =
        vec![frame(r#"{"connect":{"id":1}}"#), frame(r#"{"subscribe":{"id":2,"channel":"room:a"}}"#)];
    writer.write(&mut frames).await.unwrap();
    let mut state = None;
    loop {
        let frame = timeout(PATIENCE, reader.read()).await.unwrap().unwrap();
        match Codec::Json.decode(&frame).unwrap() {
            ServerFrame::Connected(connected) => state = Some(connected.state),
            ServerFrame::Subscribed(_) => break,
            _ => {}
        }
    }
    // The wire breaks, and the session comes back, but not to this channel.
    drop((reader, writer));
    let back = node.client_with(Codec::Json, Connect { state, ..Connect::default() }).await.unwrap();
    let leave = |event| if let ServerFrame::Leave(leave) = event { Some(leave) } else { None };
    assert_eq!(watcher.until(leave).await.member.session, back.connected.session);
}

#[tokio::test]
async fn a_refreshed_token_may_lose_the_sight_of_who_is_there() {
    let node = TestNode::with(Options { anonymous: false, ..Options::default() });
    let mut ann = node.user("ann").await;
    ann.subscribe("room:a").await;
    let narrower = token_of("ann", serde_json::json!({ "room:*": ["subscribe", "publish"] }), 60);
    ann.call(|id| ClientFrame::Refresh(Refresh { id, token: narrower })).await.unwrap();
    let mut bob = node.user("bob").await;
    bob.subscribe("room:a").await;
    bob.publish("room:a", 1).await.unwrap();
    let own = ann.connected.session.clone();
    let seen = ann.until(|event| match event {
        ServerFrame::Publication(_) => Some(false),
        ServerFrame::Join(join) => (join.member.session != own).then_some(true),
        _ => None,
    });
    assert!(!seen.await, "the join of another was told");
}

#[tokio::test]
async fn an_expired_session_gets_no_private_messages() {
    let node = TestNode::with(Options { anonymous: false, ..Options::default() });
    let connect = Connect { token: Some(token("eve", "**", 1)), ..Connect::default() };
    let mut eve = node.client_with(Codec::Json, connect).await.unwrap();
    eve.until(|event| matches!(event, ServerFrame::Expired(_)).then_some(())).await;
    let mut ann = node.user("ann").await;
    let data = Some(xpush_protocol::Json::parse("1").unwrap());
    let event = xpush_protocol::EventName::default();
    let to = Target::User("eve".parse().unwrap());
    let sent = ann.call(|id| ClientFrame::Send(Send { id, to, event, data, binary: None })).await;
    assert_eq!(code(sent.unwrap_err()), ErrorCode::NotConnected);
}

#[tokio::test]
async fn an_ended_subscription_does_not_touch_the_next_one() {
    let node = TestNode::start();
    let mut client = node.client().await;
    let begin = client.publish("room:a", "x".repeat(1000)).await.unwrap().cursor;
    for _ in 0..300 {
        client.publish("room:a", "x".repeat(1000)).await.unwrap();
    }
    let begin = xpush_protocol::Cursor { offset: 0, ..begin };
    // `room:a` is far behind and being read from the log when it is left for `room:b`.
    for n in 1..=30 {
        client.subscribe_at("room:a", Some(begin)).await.unwrap();
        client
            .call(|id| ClientFrame::Unsubscribe(Unsubscribe { id, channel: channel("room:a") }))
            .await
            .unwrap();
        let name = format!("room:b{n}");
        client.subscribe(&name).await;
        client.publish(&name, n).await.unwrap();
        let got = client
            .until(|event| match event {
                ServerFrame::Publication(publication) if publication.channel.as_str() == name => {
                    Some(publication)
                }
                _ => None,
            })
            .await;
        assert_eq!(got.offset, 1);
    }
}
