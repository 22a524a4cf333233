//! What the members of a channel may, without a grant in a token; what they hear of it; and when that ends.

use std::time::Duration;

use tokio::time::timeout;
use xpush::{
    directory::{Actor, ChannelProfile, Invitation, MemberPatch, MemberState, NewChannel, Notice, Role},
    node::inbox_of,
};
use xpush_protocol::{
    ClientFrame, Codec, Connect, ErrorCode, EventName, Json, Publication, Publish, Read, Received,
    ServerFrame, Signal, UnsubscribeReason, UserId,
};

use super::{
    code,
    harness::{Options, PATIENCE, TestClient, TestNode, channel, token_of},
    stores::StoredNode,
};

const ROOM: &str = "chat:team";

fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

/// Somebody whose token grants nothing.
async fn person(node: &TestNode, name: &str) -> TestClient {
    let token = Some(token_of(name, serde_json::json!({}), 3600));
    node.client_with(Codec::Json, Connect { token, ..Connect::default() }).await.unwrap()
}

/// A node with a channel that ann owns, and where the others are members.
async fn with_room(members: &[&str]) -> StoredNode {
    let node = StoredNode::with(Options { anonymous: false, ..Options::default() }).await;
    let members: Vec<UserId> = members.iter().map(|name| user(name)).collect();
    let new = NewChannel {
        channel: &channel(ROOM),
        profile: ChannelProfile::default(),
        creator: Some(&user("ann")),
        members: &members,
        state: MemberState::Active,
    };
    node.node.directory.create_channel(new, Actor::Backend).await.unwrap();
    node
}

async fn remove(node: &TestNode, name: &str) {
    node.node.directory.remove_member(&channel(ROOM), Actor::Backend, &user(name)).await.unwrap();
}

fn ended(event: ServerFrame) -> Option<UnsubscribeReason> {
    if let ServerFrame::Unsubscribed(ended) = event { Some(ended.reason) } else { None }
}

fn publication(event: ServerFrame) -> Option<Publication> {
    if let ServerFrame::Publication(publication) = event { Some(publication) } else { None }
}

#[tokio::test]
async fn members_need_no_grant_and_others_get_in_by_none() {
    let node = with_room(&["bob"]).await;
    let (mut ann, mut bob, mut eve) =
        (person(&node, "ann").await, person(&node, "bob").await, person(&node, "eve").await);
    ann.subscribe(ROOM).await;
    assert_eq!(bob.publish(ROOM, "hello").await.unwrap().cursor.offset, 1);
    assert_eq!(ann.publication().await, (1, "\"hello\"".into()));
    assert_eq!(code(eve.subscribe_at(ROOM, None).await.unwrap_err()), ErrorCode::PermissionDenied);
    assert_eq!(code(eve.publish(ROOM, 1).await.unwrap_err()), ErrorCode::PermissionDenied);
    // Who was refused is let in as soon as he is a member.
    let invitation = Invitation { state: MemberState::Active, role: Some(Role::Guest), seen: 0 };
    node.node.directory.invite(&channel(ROOM), Actor::Backend, &user("eve"), invitation).await.unwrap();
    eve.subscribe(ROOM).await;
    assert_eq!(code(eve.publish(ROOM, 1).await.unwrap_err()), ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn who_is_removed_hears_no_more_and_says_no_more() {
    let node = with_room(&["bob"]).await;
    let mut bob = person(&node, "bob").await;
    bob.subscribe(ROOM).await;
    bob.publish(ROOM, 1).await.unwrap();
    remove(&node, "bob").await;
    assert_eq!(bob.until(ended).await, UnsubscribeReason::Revoked);
    assert_eq!(code(bob.publish(ROOM, 2).await.unwrap_err()), ErrorCode::PermissionDenied);
    assert_eq!(code(bob.subscribe_at(ROOM, None).await.unwrap_err()), ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn a_channel_that_is_deleted_ends_for_all() {
    let node = with_room(&["bob"]).await;
    let mut people = [person(&node, "ann").await, person(&node, "bob").await];
    for person in &mut people {
        person.subscribe(ROOM).await;
    }
    node.node.directory.delete_channel(&channel(ROOM), Actor::Backend, None).await.unwrap();
    for person in &mut people {
        assert_eq!(person.until(ended).await, UnsubscribeReason::Revoked);
    }
}

#[tokio::test]
async fn a_mute_ends_what_one_says_and_not_what_one_hears() {
    let node = with_room(&["bob"]).await;
    let mut bob = person(&node, "bob").await;
    bob.subscribe(ROOM).await;
    bob.publish(ROOM, 1).await.unwrap();
    let mute = MemberPatch { muted_until: Some(Some(u64::MAX / 2)), ..MemberPatch::default() };
    let directory = &node.node.directory;
    directory.change_member(&channel(ROOM), Actor::Backend, &user("bob"), &mute).await.unwrap();
    let refused = async {
        loop {
            if let Err(refused) = bob.publish(ROOM, "still").await {
                return code(refused);
            }
        }
    };
    assert_eq!(timeout(PATIENCE, refused).await.unwrap(), ErrorCode::PermissionDenied);
    let last = person(&node, "ann").await.publish(ROOM, "last").await.unwrap().cursor.offset;
    assert_eq!(bob.until(|event| publication(event).filter(|it| it.offset == last)).await.offset, last);
}

#[tokio::test]
async fn a_signal_reaches_who_is_there_and_stands_in_no_log() {
    let node = with_room(&["bob"]).await;
    let (mut ann, mut bob) = (person(&node, "ann").await, person(&node, "bob").await);
    ann.subscribe(ROOM).await;
    let signal = |id| {
        let (event, data) = ("typing".parse().unwrap(), Some(Json::parse("true").unwrap()));
        ClientFrame::Signal(Signal { id, channel: channel(ROOM), event, data })
    };
    assert!(matches!(bob.call(signal).await.unwrap(), ServerFrame::Done(_)));
    let heard =
        ann.until(|event| if let ServerFrame::Signal(heard) = event { Some(heard) } else { None }).await;
    assert_eq!((heard.event.as_str(), heard.user), ("typing", Some(user("bob"))));
    assert_eq!(heard.session, bob.connected.session);
    assert_eq!(bob.publish(ROOM, 1).await.unwrap().cursor.offset, 1);
    let mut eve = person(&node, "eve").await;
    assert_eq!(code(eve.call(signal).await.unwrap_err()), ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn what_is_read_is_told_to_the_others_and_to_ones_own_devices() {
    let node = with_room(&["bob"]).await;
    let (mut ann, mut bob, mut phone) =
        (person(&node, "ann").await, person(&node, "bob").await, person(&node, "bob").await);
    ann.subscribe(ROOM).await;
    phone.subscribe("inbox:bob").await;
    for n in 1..=3 {
        ann.publish(ROOM, n).await.unwrap();
    }
    let read = |offset| move |id| ClientFrame::Read(Read { id, channel: channel(ROOM), offset });
    assert!(matches!(bob.call(read(2)).await.unwrap(), ServerFrame::Done(_)));
    // It never goes back, and never beyond what there is.
    bob.call(read(1)).await.unwrap();
    assert_eq!(code(bob.call(read(4)).await.unwrap_err()), ErrorCode::CursorAhead);
    bob.call(|id| ClientFrame::Received(Received { id, channel: channel(ROOM), offset: 3 })).await.unwrap();
    let receipt = |event| if let ServerFrame::Receipt(receipt) = event { Some(receipt) } else { None };
    let first = ann.until(receipt).await;
    assert_eq!((first.user.clone(), first.read, first.received), (user("bob"), Some(2), None));
    let second = ann.until(receipt).await;
    assert_eq!((second.read, second.received), (None, Some(3)));
    let told = phone.until(|event| publication(event).filter(|it| it.event.as_str() == "read")).await;
    assert_eq!(told.data.unwrap().as_str(), r#"{"channel":"chat:team","offset":2}"#);
    let member = node.node.directory.member(&channel(ROOM), &user("bob")).await.unwrap().unwrap();
    assert_eq!(member.read, 2);
    // Who writes has read.
    let until_read = async {
        while node.node.directory.member(&channel(ROOM), &user("ann")).await.unwrap().unwrap().read < 3 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, until_read).await.unwrap();
}

#[tokio::test]
async fn the_inbox_tells_of_channels_that_are_not_open_and_of_what_was_missed() {
    let node = with_room(&["bob", "cid"]).await;
    let mut ann = person(&node, "ann").await;
    let mut bob = person(&node, "bob").await;
    let begin = bob.subscribe("inbox:bob").await.cursor;
    let publish = |id| {
        ClientFrame::Publish(Publish {
            id,
            channel: channel(ROOM),
            message_id: None,
            event: EventName::default(),
            data: Some(Json::parse(r#"{"text":"lunch?"}"#).unwrap()),
            binary: None,
            reply_to: None,
            mentions: vec![user("cid")],
            expires_in: None,
        })
    };
    ann.call(publish).await.unwrap();
    let told = bob.until(publication).await;
    assert_eq!(told.event.as_str(), "message");
    let expected = r#"{"channel":"chat:team","offset":1,"user":"ann","event":"message","preview":"lunch?"}"#;
    assert_eq!(told.data.unwrap().as_str(), expected);
    let mut cid = person(&node, "cid").await;
    let mentioned = cid.subscribe_at("inbox:cid", Some(xpush_protocol::Cursor { offset: 0, ..begin })).await;
    mentioned.unwrap();
    assert_eq!(cid.until(publication).await.event.as_str(), "mention");
    // What she said is news to her other devices.
    let mut phone = person(&node, "ann").await;
    let said = phone.subscribe_at("inbox:ann", Some(xpush_protocol::Cursor { offset: 0, ..begin })).await;
    said.unwrap();
    assert_eq!(phone.until(publication).await.data.unwrap().as_str(), expected);
    // Away, and back with its cursor.
    drop(bob);
    let notice = Notice::Role { channel: channel(ROOM), role: Role::Admin };
    node.node.notify(&user("bob"), &notice).await;
    let mut bob = person(&node, "bob").await;
    bob.subscribe_at("inbox:bob", Some(begin)).await.unwrap();
    let events = [bob.until(publication).await.event, bob.until(publication).await.event];
    assert_eq!(events.map(|event| event.as_str().to_owned()), ["message", "role"]);
}

#[tokio::test]
async fn an_inbox_is_read_by_its_user_and_written_by_the_server() {
    let node = with_room(&[]).await;
    let mut eve = person(&node, "eve").await;
    for name in ["inbox:ann", "inbox:~YW5u", "inbox:nobody"] {
        assert_eq!(code(eve.subscribe_at(name, None).await.unwrap_err()), ErrorCode::PermissionDenied);
    }
    assert_eq!(code(eve.publish("inbox:eve", 1).await.unwrap_err()), ErrorCode::PermissionDenied);
    eve.subscribe("inbox:eve").await;
    // Ids that are no channel's name have an inbox of their own, and nobody else's.
    let inboxes = ["ann", "~YW5u", "ä", "~", "a b"].map(|name| inbox_of(&user(name)));
    let distinct: std::collections::HashSet<_> = inboxes.iter().collect();
    assert_eq!(distinct.len(), inboxes.len());
}

#[tokio::test]
async fn friends_hear_who_comes_and_goes() {
    let node = with_room(&[]).await;
    let directory = &node.node.directory;
    for name in ["ann", "bob"] {
        directory.ensure_user(&xpush_protocol::AppId::default(), &user(name)).await.unwrap();
    }
    directory.befriend(&user("ann"), &user("bob")).await.unwrap();
    directory.befriend(&user("bob"), &user("ann")).await.unwrap();
    let mut ann = person(&node, "ann").await;
    ann.subscribe("inbox:ann").await;
    let told = |event| match event {
        ServerFrame::Message(message) if message.event.as_str() == "xpush.presence" => message.data,
        _ => None,
    };
    let mut bob = person(&node, "bob").await;
    bob.subscribe("inbox:bob").await;
    assert_eq!(ann.until(told).await.as_str(), r#"{"user":"bob","state":"online"}"#);
    bob.call(|id| {
        ClientFrame::Unsubscribe(xpush_protocol::Unsubscribe { id, channel: channel("inbox:bob") })
    })
    .await
    .unwrap();
    assert_eq!(ann.until(told).await.as_str(), r#"{"user":"bob","state":"offline"}"#);
}

#[tokio::test]
async fn a_later_session_ends_the_earlier_ones_where_there_may_be_one() {
    let node = with_room(&[]).await;
    let (mut first, second) = (person(&node, "ann").await, person(&node, "ann").await);
    let at = std::time::SystemTime::now() + Duration::from_secs(1);
    let at = at.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let entered = xpush::directory::Change::Entered {
        app: xpush_protocol::AppId::default(),
        user: user("ann"),
        device: None,
        session: second.connected.session.clone(),
        at,
    };
    node.node.directory.tell(&entered).await.unwrap();
    let closed = timeout(PATIENCE, async {
        loop {
            if let Err(error) = first.client.event().await {
                return error;
            }
        }
    });
    let closed = closed.await.unwrap();
    assert!(format!("{closed:?}").contains("SignedInElsewhere"), "{closed:?}");
    let mut second = second;
    second.call(|id| ClientFrame::Ping(xpush_protocol::Ping { id })).await.unwrap();
}

#[tokio::test]
async fn a_namespace_that_is_open_to_everybody_needs_no_login_and_opens_no_other() {
    let open = Some(xpush::namespace::Access::Anonymous);
    let node = StoredNode::with(Options { anonymous: false, open, ..Options::default() }).await;
    let mut guest = node.client_with(Codec::Json, Connect::default()).await.unwrap();
    guest.subscribe("open:square").await;
    guest.publish("open:square", "hello").await.unwrap();
    assert_eq!(guest.publication().await, (1, "\"hello\"".into()));
    for name in ["room:a", "chat:a", "inbox:ann"] {
        assert_eq!(code(guest.subscribe_at(name, None).await.unwrap_err()), ErrorCode::PermissionDenied);
        assert_eq!(code(guest.publish(name, 1).await.unwrap_err()), ErrorCode::PermissionDenied);
    }
    // Who has a name, and is banned, is no better off than nobody.
    let mut ann = person(&node, "ann").await;
    ann.subscribe("open:square").await;
}

#[tokio::test]
async fn a_public_namespace_is_for_users_and_not_for_nobody() {
    let open = Some(xpush::namespace::Access::Public);
    let node = StoredNode::with(Options { anonymous: false, open, ..Options::default() }).await;
    let refused = node.client_with(Codec::Json, Connect::default()).await.err().unwrap();
    assert_eq!(code(refused), ErrorCode::Unauthenticated);
    let mut ann = person(&node, "ann").await;
    ann.subscribe("open:square").await;
    ann.publish("open:square", "hello").await.unwrap();
    let keep_out = node.node.directory.ban(&channel("open:square"), Actor::Backend, &user("ann")).await;
    // A channel that nobody made has no members, and so no bans.
    keep_out.unwrap_err();
}

#[tokio::test]
async fn who_is_blocked_sends_as_if_nobody_were_there() {
    let node = with_room(&[]).await;
    let all = serde_json::json!({ "**": ["send"], "user:*": ["send"] });
    let token = Some(token_of("eve", all, 3600));
    let mut eve = node.client_with(Codec::Json, Connect { token, ..Connect::default() }).await.unwrap();
    let mut ann = person(&node, "ann").await;
    let send = |id| {
        let (to, event) = (xpush_protocol::Target::User(user("ann")), EventName::default());
        let data = Some(Json::parse("1").unwrap());
        ClientFrame::Send(xpush_protocol::Send { id, to, event, data, binary: None })
    };
    eve.call(send).await.unwrap();
    ann.until(|event| matches!(event, ServerFrame::Message(_)).then_some(())).await;
    node.node.directory.block(&user("ann"), &user("eve")).await.unwrap();
    assert_eq!(code(eve.call(send).await.unwrap_err()), ErrorCode::NotConnected);
}

#[tokio::test]
async fn no_grant_opens_an_inbox() {
    let node = with_room(&[]).await;
    let all = serde_json::json!({ "**": ["subscribe", "publish", "history", "presence"] });
    let token = Some(token_of("eve", all, 3600));
    let mut eve = node.client_with(Codec::Json, Connect { token, ..Connect::default() }).await.unwrap();
    eve.subscribe("room:a").await;
    assert_eq!(code(eve.subscribe_at("inbox:ann", None).await.unwrap_err()), ErrorCode::PermissionDenied);
    for inbox in ["inbox:ann", "inbox:eve"] {
        assert_eq!(code(eve.publish(inbox, 1).await.unwrap_err()), ErrorCode::PermissionDenied);
    }
    eve.subscribe("inbox:eve").await;
}

#[tokio::test]
async fn a_connection_beside_the_sessions_own_ends_with_the_user() {
    let node = with_room(&[]).await;
    let ann = user("ann");
    node.node.directory.ensure_user(&xpush_protocol::AppId::default(), &ann).await.unwrap();
    let token = Some(token_of("ann", serde_json::json!({ "room:*": ["publish"] }), 3600));
    let connect = Connect { token, detached: true, ..Connect::default() };
    let mut beside = node.client_with(Codec::Json, connect).await.unwrap();
    beside.publish("room:a", 1).await.unwrap();
    node.node.directory.deactivate(&ann).await.unwrap();
    let closed = timeout(PATIENCE, async {
        loop {
            if let Err(error) = beside.client.event().await {
                return error;
            }
        }
    });
    let closed = closed.await.unwrap();
    assert!(format!("{closed:?}").contains("Revoked"), "{closed:?}");
}
