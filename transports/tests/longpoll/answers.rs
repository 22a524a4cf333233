//! What becomes of an answer, and of the request that it answered, when one of them is lost.

use std::{future::Future as _, pin::pin, task::Poll, time::Duration};

use futures_util::poll;
use serde_json::json;
use xpush_transports::{Admission, Closed, Reader as _, Settings};

use crate::{Node, post, state, write};

#[tokio::test]
async fn an_answer_that_was_lost_is_sent_again_and_its_request_is_not_taken_twice() {
    let mut node = Node::new();
    let (mut reader, mut writer, first) = node.connect().await;
    let poll = json!({"state": first, "frames": [{"ping": {"id": 2}}]});
    let (lost, ()) = tokio::join!(post(&node.poller, &poll), write(&mut writer, &["1", "2"], "c2"));
    assert_eq!(lost["frames"], json!([1, 2]));

    assert_eq!(post(&node.poller, &poll).await, lost);
    assert_eq!(post(&node.poller, &poll).await, lost);

    let poll = json!({"state": state(&lost), "frames": [{"ping": {"id": 3}}]});
    let (next, ()) = tokio::join!(post(&node.poller, &poll), write(&mut writer, &["3"], "c3"));
    assert_eq!(next["frames"], json!([3]));
    assert!(state(&next).ends_with(".c3"));
    assert_eq!(reader.read().await.unwrap(), r#"{"ping":{"id":2}}"#);
    assert_eq!(reader.read().await.unwrap(), r#"{"ping":{"id":3}}"#);
}

#[tokio::test]
async fn an_answer_to_a_request_that_was_given_up_is_kept() {
    let mut node = Node::new();
    let (_reader, mut writer, first) = node.connect().await;
    let poll = json!({ "state": first });
    {
        let mut given_up = pin!(post(&node.poller, &poll));
        assert!(poll!(&mut given_up).is_pending());
        write(&mut writer, &["1"], "c2").await;
    }
    let again = post(&node.poller, &poll).await;
    assert_eq!(again["frames"], json!([1]));
}

#[tokio::test]
async fn a_write_waits_for_the_next_poll_when_the_one_before_was_given_up() {
    let mut node = Node::new();
    let (_reader, mut writer, first) = node.connect().await;
    let poll = json!({ "state": first });
    {
        let mut given_up = pin!(post(&node.poller, &poll));
        assert!(poll!(&mut given_up).is_pending());
    }
    let mut writes = pin!(write(&mut writer, &["1"], "c2"));
    assert!(poll!(&mut writes).is_pending());
    let (answer, ()) = tokio::join!(post(&node.poller, &poll), writes);
    assert_eq!(answer["frames"], json!([1]));
}

#[tokio::test]
async fn a_request_that_was_answered_before_there_was_room_for_it_is_taken_when_it_is_repeated() {
    const FRAMES: u32 = 64;
    let mut node = Node::new();
    let (mut reader, mut writer, first) = node.connect().await;
    let many: Vec<_> = (0..FRAMES).collect();
    let poll = json!({"state": first, "frames": many});
    let (second, ()) = tokio::join!(post(&node.poller, &poll), write(&mut writer, &["1"], "c2"));

    // The queue is full but for one.
    let poll = json!({"state": state(&second), "frames": [1000, 1001]});
    {
        let mut given_up = pin!(post(&node.poller, &poll));
        assert!(poll!(&mut given_up).is_pending());
        write(&mut writer, &["2"], "c3").await;
        assert!(poll!(&mut given_up).is_pending(), "it waits until its frames are taken");
    }
    let mut repeated = pin!(post(&node.poller, &poll));
    assert!(poll!(&mut repeated).is_pending());
    for number in 0..FRAMES {
        assert_eq!(reader.read().await.unwrap(), number.to_string());
    }
    let answer = repeated.await;
    assert_eq!(answer["frames"], json!([2]));
    assert_eq!(post(&node.poller, &poll).await, answer);
    assert_eq!(reader.read().await.unwrap(), "1000");
    assert_eq!(reader.read().await.unwrap(), "1001");
    let mut next = pin!(reader.read());
    assert!(poll!(&mut next).is_pending());
}

#[tokio::test]
async fn a_poll_with_nothing_to_say_gets_its_state_back() {
    let mut node = Node::new();
    let (_reader, mut writer, first) = node.connect().await;
    let poll = json!({"state": first, "wait": 0});
    assert_eq!(post(&node.poller, &poll).await, json!({"state": first, "frames": []}));
    let (answer, ()) = tokio::join!(post(&node.poller, &poll), write(&mut writer, &["1"], "c2"));
    assert_eq!(answer["frames"], json!([1]));
}

#[tokio::test]
async fn a_newer_poll_supersedes_the_one_that_hangs() {
    let mut node = Node::new();
    let (_reader, mut writer, first) = node.connect().await;
    let poll = json!({ "state": first });
    let (older, newer, ()) = tokio::join!(post(&node.poller, &poll), post(&node.poller, &poll), async {
        tokio::task::yield_now().await;
        write(&mut writer, &["1"], "c2").await;
    });
    assert_eq!(older, json!({"state": first, "frames": []}));
    assert_eq!(newer["frames"], json!([1]));
}

#[tokio::test]
async fn frames_can_be_sent_beside_a_poll_that_hangs() {
    let mut node = Node::new();
    let (mut reader, mut writer, first) = node.connect().await;
    let poll = json!({ "state": first });
    let mut hangs = pin!(post(&node.poller, &poll));
    assert!(poll!(&mut hangs).is_pending());
    let sent = json!({"state": first, "send": true, "frames": [{"ping": {"id": 2}}, {"ping": {"id": 3}}]});
    assert_eq!(post(&node.poller, &sent).await, json!({"frames": []}));
    assert_eq!(reader.read().await.unwrap(), r#"{"ping":{"id":2}}"#);
    assert_eq!(reader.read().await.unwrap(), r#"{"ping":{"id":3}}"#);
    assert!(poll!(&mut hangs).is_pending());
    write(&mut writer, &["1"], "c2").await;
    assert_eq!(hangs.await["frames"], json!([1]));
}

#[tokio::test]
async fn a_poll_that_hangs_is_a_sign_of_life() {
    let settings = Settings { idle_deadline: Duration::from_millis(200), ..Settings::default() };
    let mut node = Node::start(settings, Admission::new(10, 10));
    let (mut reader, _writer, first) = node.connect().await;
    let poll = json!({"state": first, "wait": 1});
    {
        let mut reads = pin!(reader.read());
        let mut hangs = pin!(post(&node.poller, &poll));
        let outcome = std::future::poll_fn(|cx| match (hangs.as_mut().poll(cx), reads.as_mut().poll(cx)) {
            (Poll::Ready(answer), Poll::Pending) => Poll::Ready(Ok(answer)),
            (_, Poll::Ready(end)) => Poll::Ready(Err(end)),
            _ => Poll::Pending,
        })
        .await;
        assert_eq!(outcome.unwrap()["frames"], json!([]));
    }
    assert_eq!(reader.read().await, Err(Closed::Idle));
}
