//! What a message can be beside its data: an answer, one that is deleted, one that goes by itself.

use std::sync::Arc;

use tokio::time::timeout;
use xpush::{
    broker::{self, Inbox},
    directory::{self, Actor, ChannelProfile, Directory, Expiry, MemberState, NewChannel},
    log::{Capacity, KeepByNamespace, Log, Memory},
    membership,
    metrics::Metrics,
    node::{Deleter, Parts, inbox_of},
    presence,
    publication::DELETED,
};
use xpush_protocol::{
    ChannelName, ClientFrame, Codec, Connect, Cursor, Delete, ErrorCode, EventName, History, Json,
    MAX_MENTIONS, MessageId, Publication, Publish, Published, Send, ServerFrame, Signal, Target, UserId,
};
use xpush_test_servers::until;

use super::{
    code,
    harness::{Options, PATIENCE, TestClient, TestNode, auth, channel, namespaces, node_info, token_of},
    stores::StoredNode,
};

fn message(name: &str, data: &str) -> Publish {
    Publish {
        id: 0,
        channel: channel(name),
        message_id: Some(MessageId::random()),
        event: EventName::default(),
        data: Some(Json::parse(data).unwrap()),
        binary: None,
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    }
}

async fn publish(client: &mut TestClient, message: Publish) -> Result<Published, ErrorCode> {
    match client.call(|id| ClientFrame::Publish(Publish { id, ..message })).await {
        Ok(ServerFrame::Published(published)) => Ok(published),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(code(error)),
    }
}

async fn delete(client: &mut TestClient, name: &str, offset: u64) -> Result<(), ErrorCode> {
    match client.call(|id| ClientFrame::Delete(Delete { id, channel: channel(name), offset })).await {
        Ok(ServerFrame::Done(_)) => Ok(()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(code(error)),
    }
}

async fn history(client: &mut TestClient, name: &str) -> Vec<Publication> {
    let (cursor, backward, limit) = (None, false, None);
    let history = |id| ClientFrame::History(History { id, channel: channel(name), cursor, backward, limit });
    match client.call(history).await.unwrap() {
        ServerFrame::History(page) => page.publications,
        other => panic!("{other:?}"),
    }
}

async fn next(client: &mut TestClient) -> Publication {
    let next = client.until(|event| match event {
        ServerFrame::Publication(publication) => Some(publication),
        _ => None,
    });
    timeout(PATIENCE, next).await.unwrap()
}

fn text(publication: &Publication) -> (u64, &str, &str) {
    (publication.offset, publication.event.as_str(), publication.data.as_ref().map_or("", Json::as_str))
}

#[tokio::test]
async fn an_answer_says_what_it_answers() {
    let node = StoredNode::start().await;
    let (mut ann, mut bob) = (node.user("ann").await, node.user("bob").await);
    bob.subscribe("room:a").await;
    publish(&mut ann, message("room:a", "1")).await.unwrap();
    publish(&mut ann, Publish { reply_to: Some(1), ..message("room:a", "2") }).await.unwrap();
    assert_eq!((next(&mut bob).await.reply_to, next(&mut bob).await.reply_to), (None, Some(1)));
    assert_eq!(history(&mut bob, "room:a").await[1].reply_to, Some(1));
}

#[tokio::test]
async fn what_is_out_of_bounds_or_reserved_is_refused() {
    let node = StoredNode::start().await;
    let mut ann = node.user("ann").await;
    let many = |n| Publish { mentions: vec!["bob".parse().unwrap(); n], ..message("room:a", "1") };
    publish(&mut ann, many(MAX_MENTIONS)).await.unwrap();
    let reserved: EventName = "xpush.deleted".parse().unwrap();
    for wrong in [
        many(MAX_MENTIONS + 1),
        Publish { reply_to: Some(0), ..message("room:a", "1") },
        Publish { expires_in: Some(0), ..message("room:a", "1") },
        Publish { event: reserved.clone(), ..message("room:a", r#"{"offset":1}"#) },
    ] {
        assert_eq!(publish(&mut ann, wrong).await, Err(ErrorCode::InvalidField));
    }
    let data = Some(Json::parse("1").unwrap());
    let (to, event) = (Target::User("ann".parse().unwrap()), reserved.clone());
    let send = Send { id: 0, to, event, data: data.clone(), binary: None };
    let refused = ann.call(|id| ClientFrame::Send(Send { id, ..send })).await.unwrap_err();
    assert_eq!(code(refused), ErrorCode::InvalidField);
    let signal = Signal { id: 0, channel: channel("room:a"), event: reserved, data };
    let refused = ann.call(|id| ClientFrame::Signal(Signal { id, ..signal })).await.unwrap_err();
    assert_eq!(code(refused), ErrorCode::InvalidField);
}

#[tokio::test]
async fn a_deleted_message_is_gone_and_everybody_hears_of_it_in_order() {
    for name in ["room:a", "live:a"] {
        let node = StoredNode::start().await;
        let (mut ann, mut bob) = (node.user("ann").await, node.user("bob").await);
        let before = bob.subscribe(name).await.cursor;
        publish(&mut ann, Publish { reply_to: Some(7), ..message(name, r#""secret""#) }).await.unwrap();
        publish(&mut ann, message(name, "2")).await.unwrap();
        delete(&mut ann, name, 1).await.unwrap();
        for expected in [(1, "message", r#""secret""#), (2, "message", "2"), (3, DELETED, r#"{"offset":1}"#)]
        {
            assert_eq!(text(&next(&mut bob).await), expected);
        }
        // Once more: nothing is left to do, and nobody hears of it again.
        delete(&mut ann, name, 1).await.unwrap();
        let now = history(&mut ann, name).await;
        let left = [(1, DELETED, "null"), (2, "message", "2"), (3, DELETED, r#"{"offset":1}"#)];
        assert_eq!(now.iter().map(text).collect::<Vec<_>>(), left);
        assert_eq!((now[0].user.as_ref().unwrap().as_str(), now[0].reply_to), ("ann", None));
        assert_eq!(now[2].user.as_ref().unwrap().as_str(), "ann");
        // Who comes back is served from what the channel kept for that.
        let mut carl = node.user("carl").await;
        carl.subscribe_at(name, Some(before)).await.unwrap();
        for expected in left {
            assert_eq!(text(&next(&mut carl).await), expected);
        }
    }
}

#[tokio::test]
async fn one_deletes_ones_own_messages_only() {
    let node = StoredNode::with(Options { anonymous: false, ..Options::default() }).await;
    let (mut ann, mut bob) = (node.user("ann").await, node.user("bob").await);
    publish(&mut ann, message("room:a", r#""ann's""#)).await.unwrap();
    assert_eq!(delete(&mut bob, "room:a", 1).await, Err(ErrorCode::PermissionDenied));
    for nothing in [0, 2, u64::MAX >> 11] {
        assert_eq!(delete(&mut ann, "room:a", nothing).await, Err(ErrorCode::NotFound), "{nothing}");
    }
    assert_eq!(delete(&mut ann, "nowhere:a", 1).await, Err(ErrorCode::UnknownNamespace));
    // Whom the channel is closed to is not told what is there, and deletes nothing of what was once said.
    let elsewhere = token_of("ann", serde_json::json!({ "live:*": ["publish"] }), 3600);
    let connect = Connect { token: Some(elsewhere), ..Connect::default() };
    let mut outside = node.client_with(Codec::Json, connect).await.unwrap();
    for offset in [1, 2] {
        assert_eq!(delete(&mut outside, "room:a", offset).await, Err(ErrorCode::PermissionDenied));
    }
    assert_eq!(text(&history(&mut ann, "room:a").await[0]), (1, "message", r#""ann's""#));
    delete(&mut ann, "room:a", 1).await.unwrap();
    let notice = delete(&mut ann, "room:a", 2).await;
    assert_eq!(notice, Err(ErrorCode::InvalidField), "what tells of a deletion is no message");
}

#[tokio::test]
async fn who_is_nobody_deletes_nothing_and_a_backend_everything_but_what_tells_of_it() {
    let node = StoredNode::start().await;
    let mut nobody = node.client().await;
    publish(&mut nobody, message("room:a", "1")).await.unwrap();
    assert_eq!(delete(&mut nobody, "room:a", 1).await, Err(ErrorCode::PermissionDenied));
    let rights = xpush::auth::Rights::everything();
    let backend = Deleter { rights, user: None, is_backend: true };
    node.node.delete_message(&channel("room:a"), 1, &backend).await.unwrap();
    let notice = node.node.delete_message(&channel("room:a"), 2, &backend).await.unwrap_err();
    assert_eq!(notice.code, ErrorCode::InvalidField);
    let as_ann = Deleter { user: Some("ann".parse().unwrap()), ..backend };
    publish(&mut nobody, message("room:a", "1")).await.unwrap();
    let refused = node.node.delete_message(&channel("room:a"), 3, &as_ann).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn a_message_goes_when_its_time_has_come() {
    let node = StoredNode::start().await;
    let (mut ann, mut bob) = (node.user("ann").await, node.user("bob").await);
    for name in ["room:a", "live:a"] {
        bob.subscribe(name).await;
        publish(&mut ann, Publish { expires_in: Some(200), ..message(name, r#""now""#) }).await.unwrap();
        publish(&mut ann, Publish { expires_in: Some(3_600_000), ..message(name, r#""later""#) })
            .await
            .unwrap();
        assert_eq!(text(&next(&mut bob).await), (1, "message", r#""now""#));
        assert_eq!(text(&next(&mut bob).await), (2, "message", r#""later""#));
        let told = next(&mut bob).await;
        assert_eq!((text(&told), &told.user), ((3, DELETED, r#"{"offset":1}"#), &None));
        let now = history(&mut bob, name).await;
        assert_eq!((text(&now[0]), text(&now[1])), ((1, DELETED, "null"), (2, "message", r#""later""#)));
    }
    let kept_nowhere = Publish { expires_in: Some(200), ..message("typing:a", "1") };
    assert_eq!(publish(&mut ann, kept_nowhere).await, Err(ErrorCode::NotSupported));
}

fn node_on(log: &Arc<Memory>, directory: &Arc<Directory>) -> TestNode {
    TestNode::of(Parts {
        namespaces: namespaces(100),
        limits: Options::default().limits,
        auth: auth(true),
        inbox: Arc::new(Inbox::new("test".parse().unwrap())),
        recent: Arc::clone(log) as Arc<dyn Log>,
        durable: Arc::clone(log) as Arc<dyn Log>,
        directory: Arc::clone(directory),
        broker: Arc::new(broker::Alone),
        membership: Arc::new(membership::Alone::new(node_info("test", 1))),
        presence: Arc::new(presence::InProcess::default()),
        metrics: Arc::new(Metrics::default()),
    })
}

fn stores() -> (Arc<Memory>, Arc<Directory>) {
    let capacity = Capacity { channels: 1000, bytes: 64 << 20 };
    let log = Memory::new(KeepByNamespace::new(), capacity);
    (Arc::new(log), Arc::new(Directory::new(Arc::new(directory::store::Memory::default()))))
}

#[tokio::test]
async fn a_message_goes_also_if_the_node_that_took_it_was_killed() {
    let (log, directory) = stores();
    let node = node_on(&log, &directory);
    let mut ann = node.user("ann").await;
    publish(&mut ann, Publish { expires_in: Some(500), ..message("room:a", r#""x""#) }).await.unwrap();
    node.kill().await;
    let node = node_on(&log, &directory);
    let mut bob = node.user("bob").await;
    until("it is gone", async || text(&history(&mut bob, "room:a").await[0]) == (1, DELETED, "null")).await;
    until("nothing is left to do", async || directory.due(u64::MAX, None, 10).await.unwrap().is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_place_was_never_noted_is_found_and_goes() {
    let (log, directory) = stores();
    let node = node_on(&log, &directory);
    let mut ann = node.user("ann").await;
    let id: MessageId = "lost-1".parse().unwrap();
    publish(&mut ann, message("room:a", "1")).await.unwrap();
    publish(&mut ann, Publish { message_id: Some(id.clone()), ..message("room:a", r#""x""#) }).await.unwrap();
    publish(&mut ann, message("room:a", "3")).await.unwrap();
    let time = history(&mut ann, "room:a").await[1].time;
    let room: ChannelName = channel("room:a");
    // As a crash leaves it behind the append; and one whose append never came.
    directory.schedule(&Expiry::new(&room, id, time, time - 20_000)).await.unwrap();
    let never = Expiry::new(&room, MessageId::random(), time, time - 200_000);
    directory.schedule(&never).await.unwrap();
    until("it is gone", async || text(&history(&mut ann, "room:a").await[1]) == (2, DELETED, "null")).await;
    let others = history(&mut ann, "room:a").await;
    assert_eq!((text(&others[0]), text(&others[2])), ((1, "message", "1"), (3, "message", "3")));
    until("nothing is left to do", async || directory.due(u64::MAX, None, 10).await.unwrap().is_empty())
        .await;
}

#[tokio::test]
async fn a_time_that_was_noted_in_another_epoch_takes_nothing_away() {
    let (log, directory) = stores();
    let node = node_on(&log, &directory);
    let mut ann = node.user("ann").await;
    let published = publish(&mut ann, message("live:a", "1")).await.unwrap();
    let other = Cursor { epoch: xpush_protocol::Epoch(published.cursor.epoch.0 ^ 1), ..published.cursor };
    let expiry = Expiry::new(&channel("live:a"), MessageId::random(), 1, 1);
    let key = directory.schedule(&expiry).await.unwrap();
    directory.note_place(&key, expiry, other).await.unwrap();
    until("it is looked at", async || directory.due(u64::MAX, None, 10).await.unwrap().is_empty()).await;
    assert_eq!(text(&history(&mut ann, "live:a").await[0]), (1, "message", "1"));
}

/// Somebody whose token grants nothing.
async fn person(node: &TestNode, name: &str) -> TestClient {
    let token = Some(token_of(name, serde_json::json!({}), 3600));
    node.client_with(Codec::Json, Connect { token, ..Connect::default() }).await.unwrap()
}

/// A node with a channel that ann owns, and where the others are members.
async fn with_team(members: &[&str]) -> StoredNode {
    let node = StoredNode::with(Options { anonymous: false, ..Options::default() }).await;
    let members: Vec<UserId> = members.iter().map(|name| name.parse().unwrap()).collect();
    let new = NewChannel {
        channel: &channel(TEAM),
        profile: ChannelProfile::default(),
        creator: Some(&"ann".parse().unwrap()),
        members: &members,
        state: MemberState::Active,
    };
    node.node.directory.create_channel(new, Actor::Backend).await.unwrap();
    node
}

const TEAM: &str = "chat:team";

#[tokio::test]
async fn members_delete_their_own_and_who_looks_after_the_channel_all() {
    let node = with_team(&["bob", "carl"]).await;
    let (mut ann, mut bob, mut carl, mut eve) = (
        person(&node, "ann").await,
        person(&node, "bob").await,
        person(&node, "carl").await,
        person(&node, "eve").await,
    );
    for said in ["1", "2", "3"] {
        publish(&mut bob, message(TEAM, said)).await.unwrap();
    }
    assert_eq!(delete(&mut carl, TEAM, 1).await, Err(ErrorCode::PermissionDenied));
    for offset in [1, 9] {
        assert_eq!(delete(&mut eve, TEAM, offset).await, Err(ErrorCode::PermissionDenied));
    }
    delete(&mut bob, TEAM, 1).await.unwrap();
    delete(&mut ann, TEAM, 2).await.unwrap();
    node.node.directory.remove_member(&channel(TEAM), Actor::Backend, &"bob".parse().unwrap()).await.unwrap();
    let gone = delete(&mut bob, TEAM, 3).await;
    assert_eq!(gone, Err(ErrorCode::PermissionDenied), "who is no member any more deletes nothing there");
    let now = history(&mut ann, TEAM).await;
    let events: Vec<_> = now.iter().take(3).map(|there| there.event.as_str()).collect();
    assert_eq!(events, [DELETED, DELETED, "message"]);
}

#[tokio::test]
async fn what_is_deleted_is_no_longer_read_in_an_inbox() {
    let node = with_team(&["bob", "carl"]).await;
    let (mut ann, mut bob) = (person(&node, "ann").await, person(&node, "bob").await);
    let inbox = inbox_of(&"bob".parse().unwrap()).to_string();
    let shows = async |bob: &mut TestClient, words: &str| {
        let told = history(bob, &inbox).await;
        told.iter().any(|told| told.data.as_ref().is_some_and(|data| data.as_str().contains(words)))
    };
    publish(&mut ann, message(TEAM, r#"{"text":"a secret"}"#)).await.unwrap();
    let expires_in = Some(3_600_000);
    let soon_gone = Publish { expires_in, ..message(TEAM, r#"{"text":"for an hour"}"#) };
    publish(&mut ann, soon_gone).await.unwrap();
    publish(&mut ann, message(TEAM, r#"{"text":"the last"}"#)).await.unwrap();
    until("all is told", async || shows(&mut bob, "the last").await).await;
    assert!(shows(&mut bob, "a secret").await && !shows(&mut bob, "for an hour").await);
    delete(&mut ann, TEAM, 1).await.unwrap();
    until("it is gone", async || !shows(&mut bob, "a secret").await).await;
    assert!(shows(&mut bob, "the last").await);
}
