//! Two apps with the same users, channels and message ids: nothing of one is seen in the other.

use xpush::directory::{Actor, AppPolicy, ChannelProfile, MemberState, NewChannel, Notice, Role};
use xpush_protocol::{
    AppId, ChannelName, ClientFrame, Codec, Connect, ErrorCode, EventName, History, Json, MessageId,
    Presence, Read, Refresh, Resubscribe, Send, ServerFrame, Signal, Target, UserDevice, UserId,
};
use xpush_transports::{Connection as _, Lane, Outgoing, Reader as _, Writer as _};

use super::{
    code,
    harness::{Listener, Options, PATIENCE, TestClient, TestNode, channel, token_in},
    stores::StoredNode,
};

const APPS: [&str; 3] = ["default", "shop", "game"];

fn everything() -> serde_json::Value {
    serde_json::json!({ "**": ["subscribe", "publish", "history", "presence", "send"] })
}

async fn node() -> StoredNode {
    StoredNode::with(Options { anonymous: false, ..Options::default() }).await
}

fn within(name: &str, app: &str) -> ChannelName {
    channel(name).within(&app.parse().unwrap())
}

/// A user of an app, or nobody of it, who may do everything there.
fn of(app: &str, user: Option<&str>) -> Connect {
    Connect { token: Some(token_in(app, user, everything(), 3600)), ..Connect::default() }
}

async fn enter(node: &TestNode, connect: Connect) -> TestClient {
    node.client_with(Codec::Json, connect).await.unwrap()
}

async fn ann(node: &TestNode, app: &str) -> TestClient {
    enter(node, of(app, Some("ann"))).await
}

fn send(to: Target) -> impl FnOnce(u32) -> ClientFrame {
    let data = Some(Json::parse("\"psst\"").unwrap());
    move |id| ClientFrame::Send(Send { id, to, event: EventName::default(), data, binary: None })
}

#[tokio::test]
async fn the_channel_of_one_name_is_another_in_each_app() {
    let node = node().await;
    for name in ["room:a", "live:a", "typing:a"] {
        let mut anns = [ann(&node, APPS[0]).await, ann(&node, APPS[1]).await, ann(&node, APPS[2]).await];
        let message_id: MessageId = "m1".parse().unwrap();
        for ann in &mut anns {
            let subscribed = ann.subscribe(name).await;
            assert_eq!(subscribed.channel.as_str(), name);
            assert!(matches!(subscribed.occupancy, None | Some(1)), "another app's session is counted");
        }
        for (app, ann) in APPS.iter().zip(&mut anns) {
            // The same id of the same user: a duplicate, if it were the same channel.
            let published = ann.publish_as(name, message_id.clone(), app).await.unwrap();
            assert_eq!((published.cursor.offset, published.duplicate), (1, false), "{name} of {app}");
            // With a retention a retry is known.
            let again = ann.publish_as(name, message_id.clone(), app).await.unwrap();
            assert!(again.duplicate || name != "room:a");
        }
        for (app, ann) in APPS.iter().zip(&mut anns) {
            let own = format!("\"{app}\"");
            let first = ann
                .until(|event| match event {
                    ServerFrame::Publication(publication) => Some(publication),
                    ServerFrame::Join(join) => {
                        assert_eq!(join.occupancy, 1, "somebody of another app joined {name}");
                        None
                    }
                    _ => None,
                })
                .await;
            assert_eq!(first.data.as_ref().unwrap().as_str(), own);
            assert_eq!((first.channel.as_str(), first.user.unwrap().as_str()), (name, "ann"));
            ann.publish(name, "last").await.unwrap();
            let (_, next) = ann.publication().await;
            assert!(next == own || next == "\"last\"", "{app} heard {next}");
        }
    }
}

#[tokio::test]
async fn history_and_presence_are_of_ones_own_app() {
    let node = node().await;
    let mut shop = ann(&node, "shop").await;
    shop.subscribe("room:a").await;
    shop.publish("room:a", "secret").await.unwrap();
    let mut game = ann(&node, "game").await;
    let history = |id| {
        let (cursor, limit) = (None, None);
        ClientFrame::History(History { id, channel: channel("room:a"), cursor, backward: false, limit })
    };
    let ServerFrame::History(page) = game.call(history).await.unwrap() else { panic!("it is a page") };
    assert!(page.publications.is_empty() && page.top.offset == 0);
    let presence = |id| ClientFrame::Presence(Presence { id, channel: channel("room:a") });
    let ServerFrame::Presence(list) = game.call(presence).await.unwrap() else { panic!("it is a list") };
    assert_eq!((list.sessions, list.users, list.members.len()), (0, 0, 0));
    let ServerFrame::Presence(list) = shop.call(presence).await.unwrap() else { panic!("it is a list") };
    assert_eq!((list.sessions, list.members[0].user.as_ref().unwrap().as_str()), (1, "ann"));
}

#[tokio::test]
async fn nobody_is_reached_across_the_border() {
    let node = node().await;
    let mut shop = ann(&node, "shop").await;
    let (game, nobody) = (enter(&node, of("game", Some("bob"))).await, enter(&node, of("game", None)).await);
    let bob: UserId = "bob".parse().unwrap();
    let device = UserDevice { user: bob.clone(), device: "phone".parse().unwrap() };
    for to in [
        Target::User(bob.clone()),
        Target::Device(device),
        // A session's id is known to whoever was told it; it opens nothing.
        Target::Session(game.connected.session.clone()),
        Target::Session(nobody.connected.session.clone()),
    ] {
        assert_eq!(code(shop.call(send(to)).await.unwrap_err()), ErrorCode::NotConnected);
    }
    let mut own = enter(&node, of("shop", Some("bob"))).await;
    for to in [Target::User(bob), Target::Session(own.connected.session.clone())] {
        let ServerFrame::Sent(sent) = shop.call(send(to)).await.unwrap() else { panic!("it is sent") };
        assert_eq!(sent.sessions, 1);
        own.until(|event| matches!(event, ServerFrame::Message(_)).then_some(())).await;
    }
}

#[tokio::test]
async fn who_is_away_is_not_reached_across_the_border_either() {
    let node = node().await;
    let (_, mut reader, mut writer) = node.dial().await.split();
    let bytes = Codec::Json.encode(&ClientFrame::Connect(Connect { id: 1, ..of("game", None) }));
    writer.write(&mut vec![Outgoing { bytes, lane: Lane::Control }]).await.unwrap();
    let frame = tokio::time::timeout(PATIENCE, reader.read()).await.unwrap().unwrap();
    let ServerFrame::Connected(away) = Codec::Json.decode(&frame).unwrap() else { panic!("it is let in") };
    drop((reader, writer));
    let to = || Target::Session(away.session.clone());
    let mut shop = ann(&node, "shop").await;
    assert_eq!(code(shop.call(send(to())).await.unwrap_err()), ErrorCode::NotConnected);
    let mut own = ann(&node, "game").await;
    own.call(send(to())).await.unwrap();
    let mut back = enter(&node, Connect { state: Some(away.state), ..of("game", None) }).await;
    assert_eq!(back.connected.session, away.session);
    let message = |event| if let ServerFrame::Message(message) = event { Some(message) } else { None };
    assert_eq!(back.until(message).await.session, Some(own.connected.session));
}

#[tokio::test]
async fn a_state_of_one_app_is_nothing_in_another() {
    let node = node().await;
    for user in [None, Some("ann")] {
        let mut shop = enter(&node, of("shop", user)).await;
        shop.subscribe("room:a").await;
        let state = Some(shop.connected.state.clone());
        for detached in [false, true] {
            let game = enter(&node, Connect { state: state.clone(), detached, ..of("game", user) }).await;
            assert_ne!(game.connected.session, shop.connected.session, "{user:?}");
        }
        // The session was not taken over: it still hears.
        shop.publish("room:a", 1).await.unwrap();
        shop.publication().await;
        let again = enter(&node, Connect { state, ..of("shop", user) }).await;
        assert_eq!(again.connected.session, shop.connected.session);
    }
}

#[tokio::test]
async fn what_is_resumed_is_ones_own_apps() {
    let node = node().await;
    let mut shop = ann(&node, "shop").await;
    let cursor = shop.subscribe("room:a").await.cursor;
    shop.publish("room:a", "of the shop").await.unwrap();
    let subscriptions = vec![Resubscribe { channel: channel("room:a"), cursor: Some(cursor) }];
    let connect = |app| Connect { subscriptions: subscriptions.clone(), ..of(app, Some("ann")) };
    let mut game = enter(&node, connect("game")).await;
    game.until(|event| matches!(event, ServerFrame::Subscribed(_)).then_some(())).await;
    game.publish("room:a", "of the game").await.unwrap();
    assert_eq!(game.publication().await.1, "\"of the game\"");
    let mut shop = enter(&node, connect("shop")).await;
    assert_eq!(shop.publication().await.1, "\"of the shop\"");
}

#[tokio::test]
async fn a_session_does_not_move_to_another_app() {
    let node = node().await;
    for user in [None, Some("ann")] {
        let mut shop = enter(&node, of("shop", user)).await;
        let other = token_in("game", user, everything(), 60);
        let refused = shop.call(|id| ClientFrame::Refresh(Refresh { id, token: other })).await.unwrap_err();
        assert_eq!(code(refused), ErrorCode::PermissionDenied);
        let own = token_in("shop", user, everything(), 60);
        shop.call(|id| ClientFrame::Refresh(Refresh { id, token: own })).await.unwrap();
    }
}

#[tokio::test]
async fn members_of_one_app_are_none_of_another() {
    let node = node().await;
    let (shop, bob): (AppId, UserId) = ("shop".parse().unwrap(), "bob".parse().unwrap());
    for app in ["shop", "game"] {
        let app: AppId = app.parse().unwrap();
        node.node.directory.create_app(&app, app.as_str(), AppPolicy::default()).await.unwrap();
    }
    let ann_of_shop = "ann".parse::<UserId>().unwrap().within(&shop);
    let new = NewChannel {
        channel: &within("chat:team", "shop"),
        profile: ChannelProfile::default(),
        creator: Some(&ann_of_shop),
        members: &[bob.within(&shop)],
        state: MemberState::Active,
    };
    node.node.directory.create_channel(new, Actor::Backend).await.unwrap();
    let person = |app: &str, user: &str| {
        let token = Some(token_in(app, Some(user), serde_json::json!({}), 3600));
        Connect { token, ..Connect::default() }
    };
    let mut ann = enter(&node, person("shop", "ann")).await;
    let mut bobs = [enter(&node, person("shop", "bob")).await, enter(&node, person("game", "bob")).await];
    for bob in &mut bobs {
        bob.subscribe("inbox:bob").await;
    }
    ann.subscribe("chat:team").await;
    let [own, other] = &mut bobs;
    let read = |id| ClientFrame::Read(Read { id, channel: channel("chat:team"), offset: 1 });
    let signal = |id| {
        let (event, data) = ("typing".parse().unwrap(), None);
        ClientFrame::Signal(Signal { id, channel: channel("chat:team"), event, data })
    };
    assert_eq!(code(other.publish("chat:team", 1).await.unwrap_err()), ErrorCode::PermissionDenied);
    assert_eq!(code(other.subscribe_at("chat:team", None).await.unwrap_err()), ErrorCode::PermissionDenied);
    assert_eq!(code(other.call(signal).await.unwrap_err()), ErrorCode::PermissionDenied);
    assert_eq!(code(other.call(read).await.unwrap_err()), ErrorCode::PermissionDenied);
    ann.publish("chat:team", "for the shop").await.unwrap();
    let notice = |event| if let ServerFrame::Publication(notice) = event { Some(notice) } else { None };
    let told = own.until(notice).await;
    assert_eq!((told.channel.as_str(), told.event.as_str()), ("inbox:bob", "message"));
    assert!(!told.data.unwrap().as_str().contains("shop\\u001f"));
    // What the other inbox hears first is its own: nothing came before it.
    let game = "game".parse().unwrap();
    let news = Notice::Role { channel: channel("chat:team"), role: Role::Member };
    node.node.notify(&bob.within(&game), &news).await;
    assert_eq!(other.until(notice).await.offset, 1);
}

#[tokio::test]
async fn one_apps_haste_is_not_anothers_limit() {
    let mut options = Options { anonymous: false, ..Options::default() };
    options.limits.publishes_per_second = 1;
    let node = StoredNode::with(options).await;
    let (mut shop, mut game) = (ann(&node, "shop").await, ann(&node, "game").await);
    let refused = async {
        loop {
            if let Err(refused) = shop.publish("room:a", 1).await {
                return code(refused);
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, refused).await.unwrap(), ErrorCode::RateLimited);
    game.publish("room:a", 1).await.unwrap();
}

#[tokio::test]
async fn the_name_of_an_app_is_in_no_frame_and_can_be_in_none() {
    let node = node().await;
    let subscriptions = ["room:a", "live:a"].map(|name| Resubscribe { channel: channel(name), cursor: None });
    let connect = Connect { subscriptions: subscriptions.to_vec(), ..of("shop", Some("ann")) };
    let mut raw = Listener::connect(node.dial().await, connect).await;
    let mut ann = ann(&node, "shop").await;
    ann.subscribe("room:a").await;
    ann.publish("room:a", "last").await.unwrap();
    loop {
        let frame = raw.frame().await;
        let text = std::str::from_utf8(&frame).unwrap();
        assert!(!text.contains('\u{1f}') && !text.contains("\\u001f"), "{text}");
        if text.contains("\"last\"") {
            break;
        }
    }
    for (codec, frame) in [
        (Codec::Json, br#"{"subscribe":{"id":2,"channel":"game\u001froom:a"}}"#.to_vec()),
        (Codec::Json, br#"{"history":{"id":2,"channel":"default\u001froom:a"}}"#.to_vec()),
        (Codec::Json, br#"{"send":{"id":2,"to":{"user":"game\u001fbob"},"data":1}}"#.to_vec()),
        (
            Codec::Json,
            br#"{"publish":{"id":2,"channel":"room:a","mentions":["game\u001fbob"],"data":1}}"#.to_vec(),
        ),
        (Codec::MessagePack, b"\x81\xa9subscribe\x82\xa2id\x02\xa7channel\xadgame\x1froom:abc".to_vec()),
        (Codec::MessagePack, b"\x81\xa8presence\x82\xa2id\x02\xa7channel\xabgame\x1froom:a".to_vec()),
    ] {
        let (_, mut reader, mut writer) = node.dial().await.split();
        let connect = codec.encode(&ClientFrame::Connect(Connect { id: 1, ..of("shop", Some("ann")) }));
        let frames = [connect, frame.into()].map(|bytes| Outgoing { bytes, lane: Lane::Control });
        writer.write(&mut frames.to_vec()).await.unwrap();
        let mut answers = Vec::new();
        while answers.len() < 2 {
            let answer = tokio::time::timeout(PATIENCE, reader.read()).await.unwrap().unwrap();
            answers.push(codec.decode::<ServerFrame>(&answer).unwrap());
        }
        let refused = &answers[1];
        assert!(
            matches!(refused, ServerFrame::Error(error) if error.code == ErrorCode::InvalidName),
            "{refused:?}"
        );
    }
}
