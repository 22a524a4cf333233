//! Who is there, and what is said to one alone.

use tokio::time::timeout;
use xpush::client::ClientError;
use xpush_protocol::{
    ClientFrame, CloseCode, Codec, Connect, ErrorCode, Presence, Refresh, Resubscribe, Send, ServerFrame,
    Target,
};
use xpush_transports::{Closed, Connection as _, Lane, Outgoing, Reader as _, Writer as _};

use super::{
    code,
    harness::{Options, PATIENCE, channel, token, token_of},
    stores::StoredNode,
};

#[tokio::test]
async fn two_users_speak_privately_and_a_third_does_not_hear_it() {
    let node = StoredNode::with(Options { anonymous: false, ..Options::default() }).await;
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
    let node = StoredNode::start().await;
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
    let node = StoredNode::start().await;
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
    let node = StoredNode::start().await;
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
async fn who_comes_back_without_a_channel_has_left_it() {
    let node = StoredNode::start().await;
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
    let node = StoredNode::with(Options { anonymous: false, ..Options::default() }).await;
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
    let node = StoredNode::with(Options { anonymous: false, ..Options::default() }).await;
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
