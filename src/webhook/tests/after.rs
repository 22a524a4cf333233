use serde_json::{Value, json};

use super::*;
use crate::directory::{PageQuery, store::contract::on_every_store};
use xpush_protocol::{AppId, ErrorCode};

const MESSAGES: &[&str] = &["message.published"];

fn offsets(data: &[Value], channel: &str) -> Vec<u64> {
    let of = |data: &&Value| data["channel"] == channel;
    data.iter().filter(of).map(|data| data["offset"].as_u64().unwrap()).collect()
}

on_every_store!(two_nodes_tell_all_in_order_on_any_store a_dead_letter_is_kept_and_sent_again_on_any_store);

async fn two_nodes_tell_all_in_order_on_any_store(store: Arc<dyn Store>) {
    let hooks = json!([webhook("a", &["message.published", "member.joined"], json!({}))]);
    let world = World::real(store, hooks).await;
    let receiver = Receiver::doing((0..200).map(|_| Does::Wait(Duration::from_millis(2))));
    let mut nodes = [world.running(&receiver).await, world.running(&receiver).await];
    for n in 1..=30 {
        let node = &nodes[n as usize % 2];
        node.publish("room:a", n, true).await;
        let data = || json!({ "channel": "joined", "offset": n });
        let commit =
            Commit::new().after(&node.directory, HookEvent::MemberJoined, &AppId::default(), "room:a", data);
        world.store.commit(commit).await.unwrap();
        // Those of one moment come in either order.
        sleep(Duration::from_millis(2)).await;
    }
    until("all are told", || receiver.taken().iter().filter(|taken| taken.ended).count() >= 60).await;
    for node in &mut nodes {
        node.stop().await;
    }
    for of in ["room:a", "joined"] {
        assert_eq!(offsets(&receiver.data(), of), (1..=30).collect::<Vec<u64>>(), "{of}");
    }
    assert_eq!(keys(&world, "hook").await, 0);
}

async fn a_dead_letter_is_kept_and_sent_again_on_any_store(store: Arc<dyn Store>) {
    let hook = webhook("a", MESSAGES, json!({ "max_attempts": 1 }));
    let world = World::real(store, json!([hook])).await;
    let receiver = Receiver::doing([Does::Answer(500, json!({}))]);
    let mut node = world.running(&receiver).await;
    node.publish("room:a", 1, true).await;
    node.publish("room:a", 2, true).await;
    until("the second is told", || receiver.taken().len() == 2).await;
    node.stop().await;
    let letters = dead(&node).await;
    assert_eq!((letters.len(), letters[0].attempts), (1, 1));
    node.directory.retry_dead_letter(&AppId::default(), &letters[0].id).await.unwrap();
    node.run();
    until("the first is told", || receiver.taken().len() == 3).await;
    node.stop().await;
    assert_eq!(offsets(&receiver.data(), "room:a"), [1, 2, 1]);
    assert!(dead(&node).await.is_empty());
}

async fn dead(node: &TestHooks) -> Vec<DeadLetter> {
    node.directory.dead_letters(&AppId::default(), PageQuery::default()).await.unwrap().items
}

async fn keys(world: &World, table: &str) -> usize {
    use crate::directory::store::{Prefix, Scan};
    world.store.scan(Scan::of(Prefix::new(&[table]))).await.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn messages_are_told_once_in_the_order_of_their_channel() {
    let world = World::with(json!([webhook("a", MESSAGES, json!({}))])).await;
    let receiver = Receiver::doing([]);
    let node = world.running(&receiver).await;
    for n in 1..=100 {
        node.publish(if n % 2 == 0 { "room:even" } else { "room:odd" }, n, true).await;
    }
    until("all are told", || receiver.taken().len() == 100).await;
    let in_order: Vec<u64> = (1..=50).collect();
    assert_eq!(offsets(&receiver.data(), "room:even"), in_order);
    assert_eq!(offsets(&receiver.data(), "room:odd"), in_order);
    let first = &receiver.taken()[0];
    assert_eq!((first.url.as_str(), first.attempt.as_str()), ("https://a.example/in", "1"));
    assert_eq!(first.body["event"], "message.published");
    assert_eq!((&first.body["app"], &first.body["hook"]), (&json!("default"), &json!("a")));
    assert_eq!((&first.body["data"]["data"], &first.body["data"]["event"]), (&json!(1), &json!("message")));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_after_pauses_that_grow_to_a_bound() {
    let hook = webhook("a", MESSAGES, json!({ "max_attempts": 20 }));
    let world = World::with(json!([hook])).await;
    let script = (0..14).map(|n| if n % 2 == 0 { Does::Fail } else { Does::Answer(503, json!({})) });
    let receiver = Receiver::doing(script);
    let node = world.running(&receiver).await;
    node.publish("room:a", 1, true).await;
    node.publish("room:a", 2, true).await;
    until("both are told", || receiver.taken().len() == 16).await;
    let taken = receiver.taken();
    let pauses: Vec<_> = taken.windows(2).map(|two| two[1].at - two[0].at).collect();
    for (n, pause) in pauses[..14].iter().enumerate() {
        let most = Duration::from_secs(1 << n).min(Duration::from_secs(300));
        let slack = Duration::from_millis(100);
        assert!(*pause >= most / 2 - slack && *pause <= most + slack, "{n}: {pause:?} of {most:?}");
    }
    assert_eq!(taken[13].attempt, "14");
    // The second waited for the first.
    assert_eq!(offsets(&receiver.data(), "room:a"), [vec![1; 15], vec![2]].concat());
    let ids: Vec<_> = taken.iter().map(|taken| taken.body["id"].clone()).collect();
    assert!(ids[..15].iter().all(|id| *id == ids[0]) && ids[15] != ids[0]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_webhook_holds_up_nobody_else() {
    let slow = webhook("slow", MESSAGES, json!({}));
    let other = webhook("other", MESSAGES, json!({}));
    let world = World::with(json!([slow, other])).await;
    struct Half(Arc<Receiver>);
    impl Dial for Half {
        fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, CallError>> {
            if call.target.origin().contains("slow") {
                return Box::pin(std::future::pending());
            }
            self.0.call(call)
        }
    }
    let receiver = Receiver::doing([]);
    let directory = Arc::new(Directory::new(Arc::clone(&world.store)));
    let mut hooks = Webhooks::new(Arc::clone(&directory.hooks));
    hooks.clock = clock;
    hooks.dial_by(Arc::new(Half(Arc::clone(&receiver))));
    let mut node =
        TestHooks { hooks: Arc::new(hooks), directory, log: Arc::clone(&world.log), running: None };
    node.hooks.load(&node.directory).await.unwrap();
    node.run();
    for n in 0..200 {
        node.publish(&format!("room:{n}"), n, true).await;
    }
    until("the other is told of all", || receiver.taken().len() == 200).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_never_taken_becomes_a_dead_letter_and_the_channel_goes_on() {
    let hook = webhook("a", MESSAGES, json!({ "max_attempts": 3 }));
    let world = World::with(json!([hook])).await;
    let receiver = Receiver::doing([]);
    let node = world.running(&receiver).await;
    node.publish("room:a", 1, true).await;
    until("the first is told", || receiver.taken().len() == 1).await;
    let id = text(&receiver.taken()[0].body["id"]);
    let second = format!("{}2", &id[..id.len() - 1]);
    receiver.poison(&second);
    for n in 2..=4 {
        node.publish("room:a", n, true).await;
    }
    until("those behind it are told", || receiver.data().last().unwrap()["offset"] == 4).await;
    assert_eq!(offsets(&receiver.data(), "room:a"), [1, 2, 2, 2, 3, 4]);
    let letters = dead(&node).await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.hook.as_str(), letter.subject.as_str(), letter.attempts), ("a", "room:a", 3));
    assert_eq!((&letter.delivery, letter.error.as_str()), (&second, "it answered 500"));

    // Sent again it fails again, and is a dead letter again; cured, it is told with the id that it had.
    let app = AppId::default();
    node.directory.retry_dead_letter(&app, &letter.id).await.unwrap();
    assert!(dead(&node).await.is_empty());
    until("it failed again", || receiver.taken().len() == 9).await;
    sleep(Duration::from_secs(1)).await;
    let again = dead(&node).await;
    assert_eq!((again.len(), &again[0].delivery), (1, &second));
    receiver.cure();
    node.directory.retry_dead_letter(&app, &again[0].id).await.unwrap();
    until("it is told", || receiver.taken().len() == 10).await;
    let last = receiver.taken().pop().unwrap();
    assert_eq!((&last.body["id"], &last.body["data"]["offset"]), (&json!(second), &json!(2)));
    assert_eq!(last.body["data"]["data"], 2);
    assert!(dead(&node).await.is_empty());
    for id in [&letter.id, "nonsense"] {
        let gone = node.directory.retry_dead_letter(&app, id).await.unwrap_err();
        assert_eq!(gone.code(), ErrorCode::NotFound);
        assert_eq!(
            node.directory.delete_dead_letter(&app, id).await.unwrap_err().code(),
            ErrorCode::NotFound
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_of_one_app_and_can_be_deleted() {
    let hook = || json!([webhook("a", MESSAGES, json!({ "max_attempts": 1 }))]);
    let world = World::with(hook()).await;
    world.set("shop", hook()).await;
    let receiver = Receiver::doing([Does::Fail]);
    let node = world.running(&receiver).await;
    node.publish("room:a", 1, true).await;
    until("it failed", || receiver.taken().len() == 1).await;
    sleep(Duration::from_secs(1)).await;
    let letters = dead(&node).await;
    let shop: AppId = "shop".parse().unwrap();
    assert!(node.directory.dead_letters(&shop, PageQuery::default()).await.unwrap().items.is_empty());
    assert!(node.directory.retry_dead_letter(&shop, &letters[0].id).await.is_err());
    assert!(node.directory.delete_dead_letter(&shop, &letters[0].id).await.is_err());
    node.directory.delete_dead_letter(&AppId::default(), &letters[0].id).await.unwrap();
    assert!(dead(&node).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_acknowledged_right_before_a_crash_is_told_by_another_node() {
    let world = World::with(json!([webhook("a", MESSAGES, json!({}))])).await;
    let receiver = Receiver::doing([]);
    // It never comes to telling anybody.
    let dying = world.node(&receiver).await;
    for n in 1..=3 {
        dying.publish("room:a", n, false).await;
    }
    drop(dying);
    let _other = world.running(&receiver).await;
    until("all are told", || receiver.taken().len() == 3).await;
    assert_eq!(offsets(&receiver.data(), "room:a"), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_killed_under_way_loses_nothing_and_keeps_the_order() {
    let world = World::with(json!([webhook("a", MESSAGES, json!({}))])).await;
    let slow = || (0..40).map(|_| Does::Wait(Duration::from_millis(200)));
    let receiver = Receiver::doing(slow());
    let mut killed = world.running(&receiver).await;
    let other = world.running(&receiver).await;
    for n in 1..=20 {
        killed.publish("room:a", n, true).await;
    }
    until("some are told", || receiver.taken().len() == 7).await;
    killed.kill().await;
    other.publish("room:a", 21, true).await;
    until("all are told", || receiver.data().iter().any(|data| data["offset"] == 21)).await;
    let told = offsets(&receiver.data(), "room:a");
    let first_times: Vec<_> =
        (1..=21).map(|n| told.iter().position(|offset| *offset == n).unwrap()).collect();
    assert!(first_times.is_sorted(), "{told:?}");
    assert!(told.len() < 21 + 32, "what was noted is not told again: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_hands_over_at_once() {
    let world = World::with(json!([webhook("a", MESSAGES, json!({ "timeout_ms": 30_000 }))])).await;
    let receiver = Receiver::doing((0..9).map(|_| Does::Wait(Duration::from_secs(10))));
    let mut node = world.running(&receiver).await;
    for n in 1..=3 {
        node.publish("room:a", n, true).await;
    }
    until("the second is being told", || receiver.taken().len() == 2).await;
    node.stop().await;
    let began = Instant::now();
    let _next = world.running(&receiver).await;
    until("it goes on", || receiver.taken().len() == 3).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    until("all are told", || receiver.taken().iter().filter(|taken| taken.ended).count() == 3).await;
    assert_eq!(offsets(&receiver.data(), "room:a"), [1, 2, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn of_several_nodes_one_tells_a_channel_at_a_time() {
    let world = World::with(json!([webhook("a", MESSAGES, json!({}))])).await;
    let receiver = Receiver::doing((0..500).map(|_| Does::Wait(Duration::from_millis(50))));
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(world.running(&receiver).await);
    }
    for n in 1..=60 {
        nodes[n as usize % 3].publish("room:a", n, true).await;
        sleep(Duration::from_millis(40)).await;
    }
    until("all are told", || receiver.taken().iter().filter(|taken| taken.ended).count() == 60).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(offsets(&receiver.data(), "room:a"), (1..=60).collect::<Vec<u64>>());
    let taken = receiver.taken();
    let spans = taken.windows(2).map(|two| two[1].at - two[0].at);
    assert!(spans.into_iter().all(|span| span >= Duration::from_millis(50)), "never two at once");
}

#[tokio::test(start_paused = true)]
async fn what_was_before_a_webhook_is_not_told() {
    let world = World::with(json!([webhook("a", MESSAGES, json!({}))])).await;
    let receiver = Receiver::doing([]);
    let node = world.running(&receiver).await;
    node.publish("room:a", 1, true).await;
    until("it is told", || receiver.taken().len() == 1).await;
    sleep(Duration::from_secs(60)).await;
    let hooks = json!([webhook("a", MESSAGES, json!({})), webhook("b", MESSAGES, json!({}))]);
    world.set("default", hooks).await;
    node.hooks.policies_changed();
    sleep(Duration::from_secs(1)).await;
    node.publish("room:a", 2, true).await;
    until("both are told of the second", || receiver.taken().len() == 3).await;
    sleep(Duration::from_secs(60)).await;
    let of_b = |taken: &Taken| taken.url.starts_with("https://b.");
    let told: Vec<_> =
        receiver.taken().into_iter().filter(of_b).map(|taken| taken.body["data"]["offset"].clone()).collect();
    assert_eq!(told, [json!(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_was_disabled_is_not_told_of_that_time() {
    let with = |disabled: bool| json!([webhook("a", MESSAGES, json!({ "disabled": disabled }))]);
    let world = World::with(with(false)).await;
    let receiver = Receiver::doing([]);
    let node = world.running(&receiver).await;
    node.publish("room:a", 1, true).await;
    until("it is told", || receiver.taken().len() == 1).await;
    world.set("default", with(true)).await;
    node.hooks.policies_changed();
    sleep(Duration::from_secs(120)).await;
    node.publish("room:a", 2, true).await;
    sleep(Duration::from_secs(10)).await;
    world.set("default", with(false)).await;
    node.hooks.policies_changed();
    sleep(Duration::from_secs(10)).await;
    node.publish("room:a", 3, true).await;
    until("it is told again", || receiver.taken().len() == 2).await;
    assert_eq!(offsets(&receiver.data(), "room:a"), [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn channels_that_are_quiet_leave_nothing_behind_and_can_wake() {
    let world = World::with(json!([webhook("a", MESSAGES, json!({}))])).await;
    let receiver = Receiver::doing([]);
    let node = world.running(&receiver).await;
    node.publish("room:a", 1, true).await;
    until("it is told", || receiver.taken().len() == 1).await;
    assert_eq!((keys(&world, "hook-mark").await, keys(&world, "hook-line").await), (1, 1));
    sleep(Duration::from_secs(30 * 60)).await;
    assert_eq!((keys(&world, "hook-mark").await, keys(&world, "hook-line").await), (0, 0));
    node.publish("room:a", 2, true).await;
    until("it is told", || receiver.taken().len() == 2).await;
    assert_eq!(offsets(&receiver.data(), "room:a"), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_is_of_no_interest_is_not_marked() {
    let world = World::with(json!([webhook("a", &["member.joined"], json!({}))])).await;
    let node = world.node(&Receiver::doing([])).await;
    assert!(!node.hooks.must_mark(&durable(), &fixture::channel("room:a")));
    world.set("default", json!([webhook("a", MESSAGES, json!({}))])).await;
    node.hooks.load(&node.directory).await.unwrap();
    assert!(node.hooks.must_mark(&durable(), &fixture::channel("room:a")));
    assert!(!node.hooks.must_mark(&durable(), &fixture::channel("inbox:ann")));
    assert!(!node.hooks.must_mark(&Policy::default(), &fixture::channel("room:a")));
    let shop = fixture::channel("room:a").within(&"shop".parse().unwrap());
    assert!(!node.hooks.must_mark(&durable(), &shop), "another app's");
}

#[tokio::test(start_paused = true)]
async fn what_happens_is_told_in_the_order_in_which_it_did() {
    let world = World::with(json!([webhook("a", &["member.joined", "member.left"], json!({}))])).await;
    let receiver = Receiver::doing([Does::Fail, Does::Fail]);
    let node = world.running(&receiver).await;
    let app = AppId::default();
    for n in 0..40 {
        let event = if n % 2 == 0 { HookEvent::MemberJoined } else { HookEvent::MemberLeft };
        let commit = Commit::new().after(&node.directory, event, &app, "room:a", || json!({ "n": n })).after(
            &node.directory,
            HookEvent::UserRegistered,
            &app,
            "ann",
            || unreachable!("nobody wants it"),
        );
        world.store.commit(commit).await.unwrap();
        // Those of one moment come in either order.
        std::thread::sleep(Duration::from_millis(1));
    }
    until("all are told", || receiver.taken().len() == 42).await;
    let told: Vec<_> = receiver.data().into_iter().map(|data| data["n"].as_u64().unwrap()).collect();
    assert_eq!(told, [vec![0, 0], (0..40).collect()].concat());
    assert_eq!(receiver.taken()[41].body["event"], "member.left");
    sleep(Duration::from_secs(1)).await;
    assert_eq!((keys(&world, "hook").await, keys(&world, "hook-line").await), (0, 0), "nothing is left");
}
