use xpush_protocol::{Json, MessageId};

use super::*;

const NOTHING: [u64; 0] = [];

fn room() -> ChannelName {
    "room:a".parse().unwrap()
}

fn cursor(epoch: u32, offset: u64) -> Cursor {
    Cursor { epoch: Epoch(epoch), offset }
}

fn subscribed(at: Cursor) -> Subscribed {
    let (gap, ephemeral, occupancy) = Default::default();
    Subscribed { id: 1, channel: room(), cursor: at, top: at.offset, gap, ephemeral, occupancy }
}

fn publication(offset: u64) -> Publication {
    Publication {
        channel: room(),
        offset,
        epoch: None,
        message_id: MessageId::random(),
        event: xpush_protocol::EventName::default(),
        data: Some(Json::parse("1").unwrap()),
        binary: None,
        user: None,
        time: 0,
        reply_to: None,
    }
}

fn error(code: ErrorCode) -> xpush_protocol::Error {
    let (id, channel, retry_after) = Default::default();
    xpush_protocol::Error { id, code, message: String::new(), channel, retry: code.may_retry(), retry_after }
}

/// A subscription behind the first publication.
fn begun() -> Channels {
    let mut channels = Channels::default();
    assert!(channels.add(room(), Start::Behind(cursor(1, 1))));
    channels.subscribed(subscribed(cursor(1, 1)), &mut Vec::new()).unwrap();
    channels
}

/// The offsets that come of it.
fn take(channels: &mut Channels, offset: u64) -> Vec<u64> {
    let mut out = Vec::new();
    channels.publication(publication(offset), &mut out).unwrap();
    offsets(out)
}

fn offsets(events: Vec<Event>) -> Vec<u64> {
    let offset = |event| match event {
        Event::Publication(publication) => Some(publication.offset),
        _ => None,
    };
    events.into_iter().filter_map(offset).collect()
}

#[test]
fn what_comes_before_its_subscribed_is_held() {
    let mut channels = Channels::default();
    channels.add(room(), Start::Now);
    assert_eq!(take(&mut channels, 3), NOTHING);
    assert_eq!(take(&mut channels, 1), NOTHING);
    let mut out = Vec::new();
    channels.subscribed(subscribed(cursor(1, 1)), &mut out).unwrap();
    assert_eq!(offsets(out), NOTHING);
    assert_eq!(take(&mut channels, 2), [2, 3]);
}

#[test]
fn nothing_comes_twice_when_a_connection_takes_over() {
    let mut channels = begun();
    assert_eq!(channels.vector(), [Resubscribe { channel: room(), cursor: Some(cursor(1, 1)) }]);
    // It comes over the old one, behind the new one's back.
    assert_eq!(take(&mut channels, 2), [2]);
    channels.begin();
    assert_eq!(take(&mut channels, 2), NOTHING);
    let mut out = Vec::new();
    let gap = Some(Gap { channel: room(), epoch: Epoch(1), from: 1, to: 1 });
    channels.subscribed(Subscribed { gap, ..subscribed(cursor(1, 1)) }, &mut out).unwrap();
    assert_eq!(out, [Event::Subscribed { channel: room(), cursor: cursor(1, 2), top: 1 }]);
    assert_eq!(take(&mut channels, 3), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_the_log_failed_goes_on_where_it_stopped() {
    let mut channels = begun();
    assert_eq!(take(&mut channels, 2), [2]);
    let mut out = Vec::new();
    let reason = UnsubscribeReason::LogUnavailable;
    channels.unsubscribed(Unsubscribed { id: None, channel: room(), reason }, &mut out);
    assert_eq!(take(&mut channels, 3), NOTHING);
    for failures in 1..=20 {
        tokio::time::sleep_until(channels.next_due().unwrap()).await;
        assert_eq!(channels.take_due().unwrap().into_iter().collect::<Vec<_>>(), [room()]);
        assert_eq!(channels.subscribe(&room(), 7).unwrap().cursor, Some(cursor(1, 2)), "{failures}");
        channels.refused(&room(), error(ErrorCode::LogUnavailable), &mut out);
    }
    assert_eq!(out, [], "that is not for the application");
    channels.subscribed(subscribed(cursor(1, 2)), &mut out).unwrap();
    assert_eq!(take(&mut channels, 3), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_is_given_up_after_some_attempts_only() {
    let mut channels = begun();
    channels.begin();
    let mut out = Vec::new();
    for _ in 1..AHEAD_ATTEMPTS {
        channels.refused(&room(), error(ErrorCode::CursorAhead), &mut out);
        assert_eq!((&out[..], channels.subscribe(&room(), 7).unwrap().cursor), (&[][..], Some(cursor(1, 1))));
    }
    channels.refused(&room(), error(ErrorCode::CursorAhead), &mut out);
    assert_eq!(out, [Event::CursorLost { channel: room(), cursor: cursor(1, 1) }]);
    assert_eq!(channels.subscribe(&room(), 7).unwrap().cursor, None);
}

#[tokio::test(start_paused = true)]
async fn a_hole_that_nobody_fills_breaks_the_connection() {
    let mut channels = begun();
    assert_eq!(take(&mut channels, 3), NOTHING);
    tokio::time::sleep_until(channels.next_due().unwrap()).await;
    assert!(channels.take_due().is_err());
    channels.begin();
    assert_eq!(channels.next_due(), None);
    assert_eq!(channels.vector()[0].cursor, Some(cursor(1, 1)));
}

#[test]
fn an_epoch_that_changes_between_two_subscriptions_breaks_the_connection() {
    let mut channels = begun();
    assert!(channels.subscribed(subscribed(cursor(2, 0)), &mut Vec::new()).is_err());
    channels.begin();
    assert!(channels.subscribed(subscribed(cursor(2, 0)), &mut Vec::new()).is_ok());
}

#[test]
fn the_vector_is_as_long_as_a_frame_may_be() {
    let mut channels = Channels::default();
    for n in 0..5000 {
        channels.add(format!("room:{n}").parse().unwrap(), Start::Now);
    }
    channels.add(room(), Start::Last(3));
    let vector = channels.vector();
    let json = serde_json::to_vec(&vector).unwrap();
    assert!(
        vector.len() > 100 && json.len() <= VECTOR_BYTES,
        "{} entries, {} bytes",
        vector.len(),
        json.len()
    );
    assert!(vector.iter().all(|entry| entry.channel != room()), "only a command of its own can say `last`");
}
