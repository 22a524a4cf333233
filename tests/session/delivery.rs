//! What is published arrives: once, in order, and after any absence.

use std::time::Duration;

use tokio::time::timeout;
use xpush_protocol::{
    ClientFrame, Codec, Connect, ErrorCode, History, MessageId, Resubscribe, ServerFrame, Unsubscribe,
};
use xpush_transports::{Connection as _, Lane, Outgoing, Reader as _, Writer as _};

use super::{
    code,
    harness::{Options, PATIENCE, channel},
    stores::StoredNode,
};

#[tokio::test]
async fn what_one_publishes_the_others_receive_in_either_codec() {
    let node = StoredNode::start().await;
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
    let node = StoredNode::start().await;
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
    let node = StoredNode::start().await;
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

/// Nothing else happens on the node that could wake whom somebody forgot to wake.
#[tokio::test]
async fn a_long_absence_from_one_channel_is_made_up_for_beside_channels_that_were_silent() {
    let node = StoredNode::start().await;
    let mut writer = node.client().await;
    let first = writer.publish("room:a", 1).await.unwrap().cursor;
    for n in 2..=1000 {
        writer.publish("room:a", n).await.unwrap();
    }
    let silent = ["room:b", "room:c", "room:d"].map(channel);
    let silent = silent.into_iter().map(|channel| Resubscribe { channel, cursor: None });
    let mut subscriptions = vec![Resubscribe { channel: channel("room:a"), cursor: Some(first) }];
    subscriptions.extend(silent);
    let connect = Connect { subscriptions, ..Connect::default() };
    let mut reader = node.client_with(Codec::Json, connect).await.unwrap();
    for n in 2..=1000 {
        assert_eq!(reader.publication().await.0, n);
    }
}

#[tokio::test]
async fn what_is_no_longer_kept_is_named_as_a_gap() {
    let node = StoredNode::with(Options { recent_size: 10, ..Options::default() }).await;
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
    let node = StoredNode::start().await;
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
    let node = StoredNode::start().await;
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
async fn history_is_paged_in_both_directions() {
    let node = StoredNode::start().await;
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
async fn a_restarted_node_has_every_acknowledged_message() {
    let node = StoredNode::start().await;
    let mut client = node.client().await;
    let mut last = None;
    for n in 1..=50 {
        last = Some(client.publish("room:a", n).await.unwrap().cursor);
    }
    let folder = node.stop().await;
    let node = StoredNode::in_folder(folder, Options::default()).await;
    let mut client = node.client().await;
    let cursor = xpush_protocol::Cursor { offset: 10, ..last.unwrap() };
    client.subscribe_at("room:a", Some(cursor)).await.unwrap();
    for n in 11..=50 {
        assert_eq!(client.publication().await, (n, n.to_string()));
    }
}

#[tokio::test]
async fn many_publishers_of_one_channel_are_seen_in_one_order() {
    let node = StoredNode::start().await;
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
    let node = StoredNode::start().await;
    let mut reader = node.client().await;
    reader.subscribe("room:a").await;
    for n in 1..=50 {
        let draft = xpush::publication::Draft {
            publisher: xpush::publication::Publisher::backend("test"),
            message_id: MessageId::random(),
            retriable: true,
            event: xpush_protocol::EventName::default(),
            payload: xpush_protocol::Payload::Json(xpush_protocol::Json::parse("1").unwrap()),
            user: None,
            time: 0,
            reply_to: None,
            mentions: Vec::new(),
            expires_in: None,
        };
        let publishing = node.node.publish(&channel("room:a"), draft).await.unwrap();
        drop(publishing);
        assert_eq!(reader.publication().await.0, n);
    }
}

#[tokio::test]
async fn an_ended_subscription_does_not_touch_the_next_one() {
    let node = StoredNode::start().await;
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
