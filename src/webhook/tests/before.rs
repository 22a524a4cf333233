use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use xpush_protocol::{ErrorCode, SessionId};

use super::*;
use crate::{auth::Rights, publication::Draft, session::Refusal};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn asking(
    event: &str,
    change: Value,
    script: impl IntoIterator<Item = Does>,
) -> (TestHooks, Arc<Receiver>) {
    let receiver = Receiver::doing(script);
    let node = World::with(json!([webhook("rule", &[event], change)])).await.node(&receiver).await;
    (node, receiver)
}

async fn publish(node: &TestHooks) -> Result<Draft, Refusal> {
    let channel = fixture::channel("room:a");
    node.hooks.before_publish(&Rights::everything(), &channel, fixture::draft("ann", 7)).await
}

#[tokio::test(start_paused = true)]
async fn a_publish_may_be_refused_with_a_reason() {
    let no = |message: Value| Does::Answer(200, json!({ "allow": false, "message": message }));
    let long = "ä".repeat(1000);
    let (node, receiver) = asking(
        "before.publish",
        json!({}),
        [no(json!("no\u{7} swearing")), no(json!(long)), no(Value::Null)],
    )
    .await;
    assert!(node.hooks.asks_before_publish(&Rights::everything()));
    let refusal = publish(&node).await.unwrap_err();
    assert_eq!(refusal, Refusal::new(ErrorCode::Refused, "no swearing"));
    assert!(publish(&node).await.unwrap_err().message.len() <= 300);
    assert_eq!(publish(&node).await.unwrap_err().message, "the application refuses it");
    let body = &receiver.taken()[0].body;
    assert_eq!(body["event"], "before.publish");
    let asked = json!({ "channel": "room:a", "message_id": "7", "event": "message", "data": 7 });
    assert_eq!(body["data"], asked);
}

#[tokio::test(start_paused = true)]
async fn a_publish_may_be_changed_by_one_webhook_after_the_other() {
    let hooks = json!([
        webhook("first", &["before.publish"], json!({})),
        webhook("second", &["before.publish"], json!({})),
    ]);
    let receiver = Receiver::doing([
        Does::Answer(200, json!({ "event": "checked", "data": { "text": "****" } })),
        Does::Answer(204, json!({})),
        Does::Answer(200, json!({ "binary": "aGk=" })),
    ]);
    let node = World::with(hooks).await.node(&receiver).await;
    let draft = publish(&node).await.unwrap();
    assert_eq!(draft.event.as_str(), "checked");
    assert_eq!(draft.payload.clone().into_fields().0.unwrap().as_str(), r#"{"text":"****"}"#);
    assert_eq!(receiver.data()[1]["data"], json!({ "text": "****" }), "the second sees what the first made");
    let draft = publish(&node).await.unwrap();
    assert_eq!(draft.payload.into_fields().1.unwrap().0, "hi");
    assert_eq!(receiver.data()[3]["binary"], "aGk=");
    assert!(receiver.data()[3].get("data").is_none());
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_a_failure_and_not_a_yes() {
    let nonsense = [
        Does::Answer(200, json!("yes")),
        Does::Answer(200, json!({ "allowed": true })),
        Does::Answer(200, json!({ "data": 1, "binary": "aGk=" })),
        Does::Answer(200, json!({ "event": "xpush.deleted" })),
    ];
    for answer in nonsense {
        let (node, _) = asking("before.publish", json!({}), [answer]).await;
        assert_eq!(publish(&node).await.unwrap_err().code, ErrorCode::Busy);
    }
    let (node, _) = asking("before.connect", json!({}), [Does::Answer(200, json!({ "data": 1 }))]).await;
    let connected = node.hooks.before_connect(&Rights::everything(), ADDRESS, None).await;
    assert_eq!(connected.unwrap_err().code, ErrorCode::Busy);
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_fails_holds_closed_or_open_as_the_app_says() {
    let failures = || {
        [
            Does::Fail,
            Does::Answer(500, json!({})),
            Does::Answer(302, json!({})),
            Does::Wait(Duration::from_secs(60)),
        ]
    };
    let (closed, _) = asking("before.publish", json!({ "timeout_ms": 500 }), failures()).await;
    for _ in 0..4 {
        let refusal = publish(&closed).await.unwrap_err();
        assert_eq!((refusal.code, refusal.retry_after), (ErrorCode::Busy, Some(1000)));
        assert!(refusal.code.may_retry() && !refusal.message.contains("example"));
    }
    let (open, _) =
        asking("before.publish", json!({ "timeout_ms": 500, "on_failure": "open" }), failures()).await;
    for _ in 0..4 {
        assert_eq!(publish(&open).await.unwrap(), fixture::draft("ann", 7));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_time_out() {
    let slow = (0..200).map(|_| Does::Wait(Duration::from_secs(60)));
    let (node, receiver) = asking("before.publish", json!({ "timeout_ms": 700 }), slow).await;
    let began = Instant::now();
    // More than are asked at once: those that wait for their turn wait no longer either.
    let all = futures_util::future::join_all((0..100).map(|_| publish(&node)));
    let under_way = async {
        sleep(Duration::from_millis(600)).await;
        receiver.taken().len()
    };
    let (all, under_way) = tokio::join!(all, under_way);
    assert!(all.iter().all(|published| published.is_err()));
    assert_eq!(began.elapsed(), Duration::from_millis(700));
    assert_eq!(under_way, 64, "so many at once");
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_again_and_again_is_left_alone_for_a_while() {
    let (node, receiver) = asking("before.publish", json!({}), (0..6).map(|_| Does::Fail)).await;
    for _ in 0..20 {
        assert!(publish(&node).await.is_err());
    }
    assert_eq!(receiver.taken().len(), 5);
    sleep(Duration::from_secs(5)).await;
    for _ in 0..3 {
        assert!(publish(&node).await.is_err());
    }
    assert_eq!(receiver.taken().len(), 6, "one tries");
    sleep(Duration::from_secs(5)).await;
    for _ in 0..3 {
        assert!(publish(&node).await.is_ok());
    }
    assert_eq!(receiver.taken().len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_answer_and_leaves_nobody_alone() {
    let no = (0..20).map(|_| Does::Answer(200, json!({ "allow": false })));
    let (node, receiver) = asking("before.publish", json!({}), no).await;
    for _ in 0..20 {
        assert_eq!(publish(&node).await.unwrap_err().code, ErrorCode::Refused);
    }
    assert_eq!(receiver.taken().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn connects_and_subscribes_are_asked_about_and_only_what_the_app_named() {
    let no = || Does::Answer(200, json!({ "allow": false, "message": "not you" }));
    let (node, receiver) = asking("before.connect", json!({}), [no()]).await;
    let rights = Rights::everything();
    assert!(!node.hooks.asks_before_publish(&rights));
    let connected = node.hooks.before_connect(&rights, ADDRESS, Some("test/1")).await;
    assert_eq!(connected.unwrap_err(), Refusal::new(ErrorCode::Refused, "not you"));
    assert_eq!(receiver.data()[0], json!({ "address": "127.0.0.1", "agent": "test/1" }));
    let (session, channel) = (SessionId::random(), fixture::channel("room:a"));
    node.hooks.before_subscribe(&rights, &session, &channel).await.unwrap();
    assert_eq!(receiver.taken().len(), 1);
    let (node, receiver) = asking("before.subscribe", json!({}), [no()]).await;
    assert!(node.hooks.before_subscribe(&rights, &session, &channel).await.is_err());
    assert_eq!(receiver.data()[0], json!({ "channel": "room:a", "session": session }));
    let shop = rights.within("shop".parse().unwrap());
    node.hooks.before_subscribe(&shop, &session, &channel).await.unwrap();
}
