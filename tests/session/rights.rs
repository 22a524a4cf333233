//! What a client may do, what ends it, and what a bad frame gets.

use tokio::time::timeout;
use xpush_protocol::{
    ClientFrame, CloseCode, Codec, Connect, ErrorCode, History, Refresh, ServerFrame, Unsubscribe,
    UnsubscribeReason,
};
use xpush_transports::{Closed, Connection as _, Lane, Outgoing, Reader as _, Writer as _};

use super::{
    code,
    harness::{Options, PATIENCE, channel, token},
    stores::StoredNode,
};

#[tokio::test]
async fn rights_end_with_the_token_and_come_back_with_a_new_one() {
    let node = StoredNode::with(Options { anonymous: false, ..Options::default() }).await;
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
async fn a_detached_connection_does_not_answer_for_the_sessions_token() {
    let node = StoredNode::with(Options { anonymous: false, ..Options::default() }).await;
    let connect = Connect { token: Some(token("ann", "room:*", 60)), ..Connect::default() };
    let ann = node.client_with(Codec::Json, connect.clone()).await.unwrap();
    let beside = Connect { state: Some(ann.connected.state.clone()), detached: true, ..connect };
    let mut beside = node.client_with(Codec::Json, beside).await.unwrap();
    let narrower = token("ann", "room:b", 60);
    let refused = beside.call(|id| ClientFrame::Refresh(Refresh { id, token: narrower })).await.unwrap_err();
    assert_eq!(code(refused), ErrorCode::NotSupported);
    beside.publish("room:a", 1).await.unwrap();
}

#[tokio::test]
async fn nobody_comes_in_without_a_token_where_one_is_needed() {
    let node = StoredNode::with(Options { anonymous: false, ..Options::default() }).await;
    let refused = node.client_with(Codec::Json, Connect::default()).await.err().unwrap();
    assert_eq!(code(refused), ErrorCode::Unauthenticated);
    let connect = Connect { token: Some("a.b.c".into()), ..Connect::default() };
    assert_eq!(code(node.client_with(Codec::Json, connect).await.err().unwrap()), ErrorCode::InvalidToken);
}

#[tokio::test]
async fn each_bad_command_gets_its_own_code_and_the_session_goes_on() {
    let node = StoredNode::start().await;
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
    let node = StoredNode::start().await;
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
