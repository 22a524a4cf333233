//! What becomes of a client whose connection is not, or no longer, on the node that it polls.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use xpush_protocol::CloseCode;
use xpush_transports::{Closed, Farewell, Lane, Outgoing, Reader as _, Writer as _};

use crate::{CONNECT, Node, accept, connect, post, refused, state, within, write, write_in};

#[tokio::test]
async fn another_node_goes_on_from_the_checkpoint() {
    let (mut one, mut other) = (Node::new(), Node::new());
    let (_reader, _writer, first) = one.connect().await;
    let poll = json!({"state": first, "frames": [{"ping": {"id": 2}}]});
    let (answer, (mut reader, _writer)) = tokio::join!(post(&other.poller, &poll), async {
        let (reader, mut writer) = accept(&mut other.listener).await;
        write(&mut writer, &["\"again\""], "c1b").await;
        (reader, writer)
    });
    assert_eq!(reader.read().await.unwrap(), r#"{"connect":{"id":0,"state":"c1"}}"#);
    assert_eq!(reader.read().await.unwrap(), r#"{"ping":{"id":2}}"#);
    assert_eq!(answer["frames"], json!(["again"]));
    let second = state(&answer);
    assert!(second.ends_with(".1.c1b") && second[..32] != first[..32], "{second}");
}

/// Or a client whose polls go to another node each time would poll as fast as it can.
#[tokio::test(start_paused = true)]
async fn that_another_node_answers_is_no_news_by_itself() {
    let (mut one, mut other) = (Node::new(), Node::new());
    let (_reader, _writer, first) = one.connect().await;
    let poll = json!({"state": first});
    let began = Instant::now();
    let (answer, mut writer) = tokio::join!(post(&other.poller, &poll), async {
        let (_, mut writer) = accept(&mut other.listener).await;
        write_in(Lane::Aside, &mut writer, &["\"here\"", "\"subscribed\""], "c2").await;
        writer
    });
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
    assert_eq!(answer["frames"], json!(["here", "subscribed"]));
    assert!(state(&answer).ends_with(".1.c2"));

    // It goes with what is news, and before it.
    let began = Instant::now();
    let poll = json!({"state": state(&answer)});
    let (answer, ()) = tokio::join!(post(&other.poller, &poll), async {
        write_in(Lane::Aside, &mut writer, &["\"aside\""], "c3").await;
        write(&mut writer, &["\"news\""], "c4").await;
    });
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(answer["frames"], json!(["aside", "news"]));
    assert!(state(&answer).ends_with(".2.c4"));

    // However late they are, they wait no longer; and a poll that finds them waiting brings them at once.
    let began = Instant::now();
    let poll = json!({"state": state(&answer)});
    let (answer, ()) = tokio::join!(post(&other.poller, &poll), async {
        sleep(Duration::from_secs(5)).await;
        write_in(Lane::Aside, &mut writer, &["\"late\""], "c5").await;
    });
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(answer["frames"], json!(["late"]));
    assert!(state(&answer).ends_with(".3.c5"));
    write_in(Lane::Aside, &mut writer, &["\"waiting\""], "c6").await;
    sleep(Duration::from_secs(5)).await;
    let began = Instant::now();
    let answer = post(&other.poller, &json!({"state": state(&answer)})).await;
    assert_eq!((began.elapsed(), &answer["frames"]), (Duration::ZERO, &json!(["waiting"])));

    // Who does not wait is told at once.
    let poll = json!({"state": state(&answer), "wait": 0});
    write_in(Lane::Aside, &mut writer, &["\"aside\""], "c7").await;
    let answer = post(&other.poller, &poll).await;
    assert_eq!(answer["frames"], json!(["aside"]));
    assert!(state(&answer).ends_with(".5.c7"));
}

#[tokio::test]
async fn a_state_without_a_checkpoint_is_of_no_use_elsewhere() {
    let (mut one, other) = (Node::new(), Node::new());
    let first = post(&one.poller, &json!({"frames": [connect()], "wait": 0})).await;
    assert_eq!(first["frames"], json!([]));
    let (mut reader, mut writer) = accept(&mut one.listener).await;
    assert_eq!(reader.read().await.unwrap(), CONNECT);
    let poll = json!({"state": state(&first)});
    assert_eq!(refused(&other.poller, poll.to_string()).await, (400, "invalid_state".into()));
    // Where it is known, it is as good as any.
    let (answer, ()) = tokio::join!(post(&one.poller, &poll), write(&mut writer, &["1"], "c1"));
    assert_eq!(answer["frames"], json!([1]));
}

#[tokio::test]
async fn frames_that_are_sent_to_another_node_are_answered_there() {
    let (mut one, mut other) = (Node::new(), Node::new());
    let (_reader, _writer, first) = one.connect().await;
    let sent = json!({
        "state": first,
        "send": true,
        "frames": [{"publish": {"id": 0}}, {"ping": {"id": 5}}, {"ping": {"id": 6}}],
    });
    let (answer, end) = tokio::join!(post(&other.poller, &sent), async {
        let (mut reader, mut writer) = accept(&mut other.listener).await;
        let connect = r#"{"connect":{"id":0,"state":"c1","detached":true}}"#;
        assert_eq!(reader.read().await.unwrap(), connect);
        for frame in [r#"{"publish":{"id":0}}"#, r#"{"ping":{"id":5}}"#, r#"{"ping":{"id":6}}"#] {
            assert_eq!(reader.read().await.unwrap(), frame);
        }
        write(&mut writer, &[r#"{"connected":{"id":0}}"#, r#"{"pong":{"id":5}}"#], "c1").await;
        write(&mut writer, &[r#"{"error":{"id":6,"code":"busy"}}"#], "c1").await;
        let end = reader.read().await;
        within(writer.close(Farewell::new(CloseCode::Normal, ""))).await;
        end
    });
    assert_eq!(answer, json!({"frames": [{"pong": {"id": 5}}, {"error": {"id": 6, "code": "busy"}}]}));
    assert!(matches!(end, Err(Closed::ByPeer { code: CloseCode::Normal, .. })), "{end:?}");
}

#[tokio::test]
async fn frames_that_nobody_answers_are_read_to_the_last_before_the_request_is_answered() {
    let (mut one, mut other) = (Node::new(), Node::new());
    let (_reader, _writer, first) = one.connect().await;
    let frames: Vec<_> = (0..64).map(|n| json!({"publish": {"id": 0, "n": n}})).collect();
    let sent = json!({"state": first, "send": true, "frames": frames});
    let poller = other.poller.clone();
    let request = tokio::spawn(async move { post(&poller, &sent).await });
    let (mut reader, mut writer) = accept(&mut other.listener).await;
    assert!(reader.read().await.unwrap().starts_with(br#"{"connect":"#));
    // A real session says this before it reads on, and its writer may see the request's end before its reader does.
    write(&mut writer, &[r#"{"connected":{"id":0}}"#], "c1").await;
    for frame in frames {
        assert_eq!(reader.read().await.unwrap(), frame.to_string());
    }
    let end = reader.read().await.unwrap_err();
    assert!(matches!(end, Closed::ByPeer { code: CloseCode::Normal, .. }), "{end:?}");
    assert!(!request.is_finished(), "it waits for the session's end");
    // What is said last is still told, and the connection's own end is not the client's.
    write(&mut writer, &[r#"{"error":{"id":0,"code":"busy"}}"#], "c1").await;
    within(writer.close(end.farewell())).await;
    assert_eq!(request.await.unwrap(), json!({"frames": [{"error": {"id": 0, "code": "busy"}}]}));
}

#[tokio::test]
async fn a_session_that_turns_sent_frames_away_says_so_in_the_answer() {
    let (mut one, mut other) = (Node::new(), Node::new());
    let (_reader, _writer, first) = one.connect().await;
    let sent = json!({"state": first, "send": true, "frames": [{"publish": {"id": 0}}]});
    let (answer, ()) = tokio::join!(post(&other.poller, &sent), async {
        let (_reader, writer) = accept(&mut other.listener).await;
        within(writer.close(Farewell::new(CloseCode::Draining, "the node leaves"))).await;
    });
    let close = json!({"close": {"code": 4001, "reason": "the node leaves", "reconnect": true}});
    assert_eq!(answer, json!({ "frames": [close] }));
}

#[tokio::test]
async fn frames_that_were_sent_to_a_session_that_vanishes_are_to_be_sent_again() {
    let (mut one, mut other) = (Node::new(), Node::new());
    let (_reader, _writer, first) = one.connect().await;
    let sent = json!({"state": first, "send": true, "frames": [{"publish": {"id": 0}}]}).to_string();
    let (refusal, ()) = tokio::join!(refused(&other.poller, sent), async {
        let (_reader, mut writer) = accept(&mut other.listener).await;
        write(&mut writer, &[r#"{"connected":{"id":0}}"#], "c1").await;
    });
    assert_eq!(refusal, (503, "busy".into()));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_slow_with_sent_frames_reads_on_after_the_request_was_answered() {
    let (mut one, mut other) = (Node::new(), Node::new());
    let (_reader, _writer, first) = one.connect().await;
    let frames = json!([{"ping": {"id": 5}}, {"publish": {"id": 0}}]);
    let sent = json!({"state": first, "send": true, "frames": frames});
    let begun = Instant::now();
    let (answer, (mut reader, mut writer)) = tokio::join!(post(&other.poller, &sent), async {
        let (mut reader, mut writer) = accept(&mut other.listener).await;
        assert!(reader.read().await.unwrap().starts_with(br#"{"connect":"#));
        assert_eq!(reader.read().await.unwrap(), r#"{"ping":{"id":5}}"#);
        write(&mut writer, &[r#"{"pong":{"id":5}}"#], "c1").await;
        (reader, writer)
    });
    assert_eq!(answer, json!({"frames": [{"pong": {"id": 5}}]}));
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert_eq!(reader.read().await.unwrap(), r#"{"publish":{"id":0}}"#);
    assert!(matches!(reader.read().await, Err(Closed::ByPeer { code: CloseCode::Normal, .. })));
    // Nobody asks for it any more, but it is no reason to read no further.
    let mut nothing = vec![Outgoing { bytes: Bytes::from_static(b"1"), lane: Lane::Control }];
    assert!(timeout(Duration::from_secs(1), writer.write(&mut nothing)).await.is_err());
}

#[tokio::test]
async fn a_state_from_before_the_last_two_answers_begins_anew() {
    let mut node = Node::new();
    let (mut old_reader, mut writer, first) = node.connect().await;
    let mut newest = first.clone();
    for number in ["2", "3"] {
        let poll = json!({ "state": newest });
        let frames = [number];
        let (answer, ()) = tokio::join!(post(&node.poller, &poll), write(&mut writer, &frames, number));
        newest = state(&answer);
    }
    let poll = json!({ "state": first });
    let (answer, mut reader) = tokio::join!(post(&node.poller, &poll), async {
        let (reader, mut writer) = accept(&mut node.listener).await;
        write(&mut writer, &["\"again\""], "c1b").await;
        reader
    });
    assert_eq!(answer["frames"], json!(["again"]));
    assert_eq!(reader.read().await.unwrap(), r#"{"connect":{"id":0,"state":"c1"}}"#);
    assert!(matches!(old_reader.read().await, Err(Closed::Lost(_))));
    let mut nothing = vec![Outgoing { bytes: Bytes::from_static(b"4"), lane: Lane::Control }];
    assert!(matches!(writer.write(&mut nothing).await, Err(Closed::Lost(_))));
}

#[tokio::test]
async fn a_session_that_closes_tells_the_poll_and_gives_no_state() {
    let mut node = Node::new();
    let (_reader, writer, first) = node.connect().await;
    let poll = json!({ "state": first });
    let farewell = Farewell::new(CloseCode::Draining, "the node leaves");
    let (answer, ()) = tokio::join!(post(&node.poller, &poll), writer.close(farewell));
    let close = json!({"close": {"code": 4001, "reason": "the node leaves", "reconnect": true}});
    assert_eq!(answer, json!({ "frames": [close] }));
}

#[tokio::test]
async fn a_session_that_wrote_why_it_closes_is_not_contradicted() {
    let mut node = Node::new();
    let (_reader, mut writer, first) = node.connect().await;
    let poll = json!({ "state": first });
    let close = r#"{"close":{"code":4502,"reason":"no token","reconnect":false}}"#;
    let (answer, ()) = tokio::join!(post(&node.poller, &poll), async {
        write(&mut writer, &["1", close], "c2").await;
        within(writer.close(Farewell::new(CloseCode::Normal, ""))).await;
    });
    assert_eq!(answer, json!({"frames": [1, serde_json::from_str::<Value>(close).unwrap()]}));
}

#[tokio::test]
async fn a_session_that_vanishes_is_to_be_asked_for_again() {
    let mut node = Node::new();
    let (reader, writer, first) = node.connect().await;
    let poll = json!({ "state": first }).to_string();
    let (refusal, ()) = tokio::join!(refused(&node.poller, poll), async {
        tokio::task::yield_now().await;
        drop((reader, writer));
    });
    assert_eq!(refusal, (503, "busy".into()));
}
