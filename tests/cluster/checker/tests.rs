//! Histories made by hand: good ones, and each way in which one can be bad.

use std::time::Duration;

use xpush_protocol::{Cursor, Epoch};

use super::{Broken, Report, check};
use crate::history::{ChannelNumber, ClientNumber, Event, Kept, Message, Missing, Record, Stream};

const ROOM: ChannelNumber = ChannelNumber(0);
const LIVE: ChannelNumber = ChannelNumber(1);
const ANN: ClientNumber = ClientNumber(1);
const BOB: ClientNumber = ClientNumber(2);

fn at(offset: u64) -> Cursor {
    Cursor { epoch: Epoch(7), offset }
}

fn message(number: u32) -> Message {
    Message { publisher: ANN, number }
}

/// Writes a history, a tenth of a second a line.
#[derive(Default)]
struct Story(Vec<Record>);

impl Story {
    fn line(mut self, client: ClientNumber, event: Event) -> Self {
        let at = Duration::from_millis(100 * self.0.len() as u64);
        self.0.push(Record { at, client, event });
        self
    }

    fn later(mut self, by: Duration) -> Self {
        if let Some(last) = self.0.last_mut() {
            last.at += by;
        }
        self
    }

    fn connected(self, client: ClientNumber) -> Self {
        self.line(client, Event::Connected { ordered: true })
    }

    fn on_many_streams(self, client: ClientNumber) -> Self {
        self.line(client, Event::Connected { ordered: false })
    }

    fn lost(self, client: ClientNumber) -> Self {
        self.line(client, Event::Lost)
    }

    fn subscribed(self, client: ClientNumber, offset: u64) -> Self {
        self.line(client, Event::Subscribed { channel: ROOM, cursor: at(offset), resumed: false, gap: None })
    }

    fn resumed(self, client: ClientNumber, offset: u64) -> Self {
        self.line(client, Event::Subscribed { channel: ROOM, cursor: at(offset), resumed: true, gap: None })
    }

    fn invoked(self, number: u32) -> Self {
        self.line(ANN, Event::Invoked(ROOM, message(number)))
    }

    fn acknowledged(self, number: u32, offset: u64) -> Self {
        let (message, cursor) = (message(number), at(offset));
        self.line(ANN, Event::Acknowledged { channel: ROOM, message, cursor, duplicate: false })
    }

    fn published(self, number: u32, offset: u64) -> Self {
        self.invoked(number).acknowledged(number, offset)
    }

    fn delivered(self, client: ClientNumber, number: u32, offset: u64) -> Self {
        let event =
            Event::Delivered { channel: ROOM, epoch: None, offset, message: message(number), intact: true };
        self.line(client, event)
    }

    /// The end, with a log that has these messages in this order, as every node gives it.
    fn ends(self, numbers: &[u32]) -> Vec<Broken> {
        self.ends_as(&[numbers, numbers])
    }

    /// The end, with what each node gives.
    fn ends_as(self, nodes: &[&[u32]]) -> Vec<Broken> {
        let kept = |(node, numbers): (usize, &&[u32])| Kept {
            channel: ROOM,
            node,
            top: at(numbers.len() as u64),
            publications: (1..).zip(numbers.iter().map(|number| message(*number))).collect(),
        };
        broken(self.report(&nodes.iter().enumerate().map(kept).collect::<Vec<_>>()))
    }

    fn report(self, kept: &[Kept]) -> Report {
        let stream = |name: &str, durable| Stream { name: name.parse().unwrap(), durable };
        check(&[stream("room:a", true), stream("live:a", false)], &self.0, kept)
    }
}

fn broken(report: Report) -> Vec<Broken> {
    report.violations.into_iter().map(|violation| violation.what).collect()
}

/// One publisher, one subscriber, three messages.
fn good() -> Story {
    Story::default()
        .connected(ANN)
        .connected(BOB)
        .subscribed(BOB, 0)
        .published(1, 1)
        .delivered(BOB, 1, 1)
        .published(2, 2)
        .delivered(BOB, 2, 2)
        .invoked(3)
        .delivered(BOB, 3, 3)
        .acknowledged(3, 3)
}

#[test]
fn what_was_published_and_delivered_once_in_order_is_clean() {
    assert_eq!(good().ends(&[1, 2, 3]), []);
    let report = good().report(&[]);
    assert_eq!((report.published, report.acknowledged, report.delivered), (3, 3, 3));
    report.assert_clean();
}

#[test]
fn an_unanswered_publish_may_stand_once_or_not_at_all() {
    let story = || good().invoked(4);
    assert_eq!(story().ends(&[1, 2, 3]), []);
    assert_eq!(story().delivered(BOB, 4, 4).ends(&[1, 2, 3, 4]), []);
    assert_eq!(story().report(&[]).unknown, 1);
}

#[test]
fn a_retry_that_is_told_the_first_ones_place_is_clean() {
    assert_eq!(good().published(2, 2).ends(&[1, 2, 3]), []);
    let elsewhere = Broken::AnsweredElsewhere { message: message(2), stands: at(2), answered: at(3) };
    assert!(good().published(2, 3).ends(&[1, 2, 3]).contains(&elsewhere));
}

#[test]
fn a_message_at_two_places_is_found() {
    let found = good().published(2, 4).delivered(BOB, 2, 4).ends(&[1, 2, 3, 2]);
    assert!(
        found.contains(&Broken::StandsTwice { message: message(2), first: at(2), second: at(4) }),
        "{found:?}"
    );
}

#[test]
fn two_messages_at_one_place_are_found() {
    let found = good().published(4, 3).ends(&[1, 2, 3]);
    let reused = Broken::OffsetReused { at: at(3), first: message(3), second: message(4) };
    assert!(found.contains(&reused), "{found:?}");
    assert!(found.contains(&Broken::AcknowledgedLost { message: message(4), at: at(3) }), "{found:?}");
}

#[test]
fn an_acknowledged_message_that_the_log_lost_is_found() {
    let found = good().published(4, 4).ends(&[1, 2, 3]);
    assert_eq!(found, [Broken::AcknowledgedLost { message: message(4), at: at(4) }]);
}

#[test]
fn a_message_that_was_seen_and_is_not_in_the_log_is_found() {
    let found = good().invoked(4).delivered(BOB, 4, 4).ends(&[1, 2, 3]);
    assert!(found.contains(&Broken::Phantom { at: at(4), message: message(4) }), "{found:?}");
}

#[test]
fn a_message_that_stands_before_what_was_known_when_it_was_published_is_found() {
    let story = Story::default().connected(ANN).published(1, 2).published(2, 1);
    let before = Broken::BeforeItsPast { message: message(2), at: at(1), past: 2 };
    assert!(story.ends(&[2, 1]).contains(&before));
    // Also where only a subscriber's beginning told of the past.
    let story = Story::default().connected(BOB).subscribed(BOB, 1).connected(ANN).published(1, 1);
    assert!(story.ends(&[1]).contains(&Broken::BeforeItsPast { message: message(1), at: at(1), past: 1 }));
}

#[test]
fn a_hole_and_a_double_are_found() {
    let story = || Story::default().connected(BOB).subscribed(BOB, 0).published(1, 1).published(2, 2);
    let found = story().delivered(BOB, 2, 2).ends(&[1, 2]);
    assert_eq!(found, [Broken::Hole { client: BOB, expected: 1, came: 2 }]);
    let found = story().delivered(BOB, 1, 1).delivered(BOB, 1, 1).delivered(BOB, 2, 2).ends(&[1, 2]);
    assert_eq!(found, [Broken::DeliveredTwice { client: BOB, offset: 1 }]);
}

#[test]
fn a_wire_of_many_streams_may_bring_them_in_any_order_but_once() {
    let story = || {
        let story = Story::default().on_many_streams(BOB).published(1, 1).published(2, 2);
        story.delivered(BOB, 2, 2).subscribed(BOB, 0)
    };
    assert_eq!(story().delivered(BOB, 1, 1).ends(&[1, 2]), []);
    let missed = Broken::Missed { client: BOB, stood: Some(at(0)), top: at(2) };
    assert_eq!(story().ends(&[1, 2]), [missed]);
    let found = story().delivered(BOB, 1, 1).delivered(BOB, 2, 2).ends(&[1, 2]);
    assert_eq!(found, [Broken::DeliveredTwice { client: BOB, offset: 2 }]);
}

#[test]
fn a_subscriber_that_stayed_and_missed_the_last_one_is_found() {
    let story = good().published(4, 4);
    let missed = Broken::Missed { client: BOB, stood: Some(at(3)), top: at(4) };
    assert_eq!(story.ends(&[1, 2, 3, 4]), [missed]);
}

#[test]
fn a_subscriber_that_resumes_goes_on_where_it_stood() {
    let away = || good().lost(BOB).published(4, 4).published(5, 5).connected(BOB);
    let all = [1, 2, 3, 4, 5];
    assert_eq!(away().resumed(BOB, 3).delivered(BOB, 4, 4).delivered(BOB, 5, 5).ends(&all), []);
    let elsewhere = |offset| Broken::ResumedElsewhere { client: BOB, stood: at(3), resumed: at(offset) };
    assert_eq!(away().resumed(BOB, 4).delivered(BOB, 5, 5).ends(&all), [elsewhere(4)]);
    let early = away().resumed(BOB, 2).delivered(BOB, 3, 3).delivered(BOB, 4, 4).delivered(BOB, 5, 5);
    assert_eq!(early.ends(&all), [elsewhere(2)]);
    // Anew is another matter.
    assert_eq!(away().subscribed(BOB, 5).ends(&all), []);
    // Who never comes back was lost.
    assert_eq!(away().ends(&all), [Broken::Missed { client: BOB, stood: Some(at(3)), top: at(5) }]);
    assert_eq!(away().line(BOB, Event::TurnedAway(ROOM)).ends(&all)[0], Broken::TurnedAway { client: BOB });
}

#[test]
fn what_comes_while_a_subscriber_moves_comes_again_where_it_goes_on() {
    let moving = || good().line(BOB, Event::Asked).published(4, 4).delivered(BOB, 4, 4).connected(BOB);
    let all = [1, 2, 3, 4];
    assert_eq!(moving().resumed(BOB, 3).delivered(BOB, 4, 4).ends(&all), []);
    let missed = Broken::Missed { client: BOB, stood: Some(at(3)), top: at(4) };
    assert_eq!(moving().resumed(BOB, 3).ends(&all), [missed]);
    let elsewhere = Broken::ResumedElsewhere { client: BOB, stood: at(3), resumed: at(4) };
    assert_eq!(moving().resumed(BOB, 4).ends(&all), [elsewhere]);
    let twice = moving().resumed(BOB, 3).delivered(BOB, 4, 4).delivered(BOB, 4, 4).ends(&all);
    assert_eq!(twice, [Broken::DeliveredTwice { client: BOB, offset: 4 }]);
}

#[test]
fn who_left_misses_nothing_and_gets_nothing() {
    let story = || good().line(BOB, Event::Unsubscribed(ROOM)).published(4, 4);
    assert_eq!(story().ends(&[1, 2, 3, 4]), []);
    // What was under way when it left may still come.
    assert_eq!(story().delivered(BOB, 4, 4).ends(&[1, 2, 3, 4]), []);
    let late = good().line(BOB, Event::Unsubscribed(ROOM)).invoked(4).later(Duration::from_secs(2));
    let found = late.acknowledged(4, 4).delivered(BOB, 4, 4).ends(&[1, 2, 3, 4]);
    assert_eq!(found, [Broken::Unasked { client: BOB, message: message(4) }]);
    assert_eq!(
        good().connected(ANN).delivered(ANN, 3, 3).ends(&[1, 2, 3]),
        [Broken::Unasked { client: ANN, message: message(3) }]
    );
}

#[test]
fn a_right_that_was_revoked_is_gone_within_a_second() {
    let revoked = || good().line(BOB, Event::Revoked(ROOM));
    let all = [1, 2, 3, 4];
    assert_eq!(revoked().published(4, 4).delivered(BOB, 4, 4).ends(&all), []);
    let late = || revoked().invoked(4).later(Duration::from_millis(1001)).acknowledged(4, 4);
    let leaked = Broken::Leaked { client: BOB, message: message(4) };
    assert_eq!(late().delivered(BOB, 4, 4).ends(&all), [leaked]);
    let let_in = revoked().published(4, 4).subscribed(BOB, 4).later(Duration::from_secs(1));
    assert_eq!(let_in.ends(&all), [Broken::LetIn { client: BOB }]);
    let again = late().line(BOB, Event::Granted(ROOM)).resumed(BOB, 3).delivered(BOB, 4, 4);
    assert_eq!(again.ends(&all), []);
}

#[test]
fn what_was_refused_must_not_be_there() {
    let story = || good().invoked(4).line(ANN, Event::Refused(ROOM, message(4)));
    assert_eq!(story().ends(&[1, 2, 3]), []);
    assert!(story().ends(&[1, 2, 3, 4]).contains(&Broken::RefusedYetThere { message: message(4) }));
}

#[test]
fn what_nobody_published_and_what_is_not_as_it_was_published_is_found() {
    assert!(good().delivered(BOB, 9, 4).ends(&[1, 2, 3]).contains(&Broken::Invented { message: message(9) }));
    let event =
        Event::Delivered { channel: ROOM, epoch: None, offset: 4, message: message(4), intact: false };
    let found = good().published(4, 4).line(BOB, event).ends(&[1, 2, 3, 4]);
    assert_eq!(found, [Broken::Garbled { message: message(4) }]);
}

#[test]
fn nodes_that_tell_of_different_logs_are_found() {
    let found = good().ends_as(&[&[1, 2, 3], &[1, 2]]);
    assert_eq!(found, [Broken::NodesDiffer { node: 1, first: at(3), second: at(2) }]);
    let found = good().ends_as(&[&[1, 2, 3], &[1, 3, 2]]);
    assert!(found.iter().any(|broken| matches!(broken, Broken::OffsetReused { .. })), "{found:?}");
}

#[test]
fn a_log_with_a_hole_is_found() {
    let kept =
        Kept { channel: ROOM, node: 0, top: at(3), publications: vec![(1, message(1)), (3, message(3))] };
    let found = broken(good().report(&[kept]));
    assert!(found.contains(&Broken::HoleInLog { node: 0, expected: 2, found: 3 }), "{found:?}");
    let kept =
        Kept { channel: ROOM, node: 0, top: at(3), publications: vec![(1, message(1)), (2, message(2))] };
    let found = broken(good().report(&[kept]));
    assert!(found.contains(&Broken::HoleInLog { node: 0, expected: 3, found: 4 }), "{found:?}");
}

#[test]
fn a_durable_channel_tells_no_gap_and_keeps_its_epoch() {
    let gap = Missing { epoch: Epoch(7), from: 4, to: 4 };
    let found = good().published(4, 4).line(BOB, Event::Gap(ROOM, gap)).ends(&[1, 2, 3, 4]);
    assert_eq!(found, [Broken::FalseGap { client: BOB, gap }]);
    let now = Cursor { epoch: Epoch(8), offset: 0 };
    let event = Event::Subscribed { channel: ROOM, cursor: now, resumed: false, gap: None };
    assert!(good().line(BOB, event).ends(&[1, 2, 3]).contains(&Broken::EpochChanged { before: at(3), now }));
}

fn old(offset: u64) -> Cursor {
    Cursor { epoch: Epoch(1), offset }
}

fn new(offset: u64) -> Cursor {
    Cursor { epoch: Epoch(2), offset }
}

/// In the channel of a log that may be lost.
impl Story {
    fn published_at(self, number: u32, cursor: Cursor) -> Self {
        let message = message(number);
        self.line(ANN, Event::Invoked(LIVE, message))
            .line(ANN, Event::Acknowledged { channel: LIVE, message, cursor, duplicate: false })
    }

    fn subscribed_at(self, cursor: Cursor, gap: Option<Missing>) -> Self {
        self.line(BOB, Event::Subscribed { channel: LIVE, cursor, resumed: gap.is_some(), gap })
    }

    /// As one that says its epoch, or does not.
    fn came(self, number: u32, epoch: Option<Epoch>, offset: u64) -> Self {
        let message = message(number);
        self.line(BOB, Event::Delivered { channel: LIVE, epoch, offset, message, intact: true })
    }

    fn told_the_loss(self) -> Self {
        self.line(BOB, Event::Gap(LIVE, LOSS))
    }

    /// Bob has two of the old log, of which a third was published; it was lost, and two came after that.
    fn two_logs(self) -> Self {
        self.subscribed_at(old(0), None)
            .published_at(1, old(1))
            .came(1, None, 1)
            .published_at(2, old(2))
            .came(2, None, 2)
            .published_at(3, old(3))
            .published_at(4, new(1))
            .published_at(5, new(2))
    }

    fn ends_with_two(self) -> Vec<Broken> {
        let publications = vec![(1, message(4)), (2, message(5))];
        broken(self.report(&[Kept { channel: LIVE, node: 0, top: new(2), publications }]))
    }
}

const LOSS: Missing = Missing { epoch: Epoch(2), from: 1, to: 0 };
const TOLD: Option<Epoch> = Some(Epoch(2));

#[test]
fn a_log_that_may_be_lost_is_excused_by_the_gap_that_was_told() {
    let story = || Story::default().connected(BOB).two_logs();
    assert_eq!(story().told_the_loss().came(4, TOLD, 1).came(5, TOLD, 2).ends_with_two(), []);
    let foreign = Broken::ForeignEpoch { client: BOB, stood: old(2), came: new(1) };
    assert!(story().came(4, TOLD, 1).ends_with_two().contains(&foreign));
    // Who does not say its epoch is taken for one of the old log.
    let twice = Broken::DeliveredTwice { client: BOB, offset: 1 };
    assert!(story().came(4, None, 1).ends_with_two().contains(&twice));
    let foreign = Broken::ForeignEpoch { client: BOB, stood: new(0), came: old(1) };
    assert!(story().told_the_loss().came(4, None, 1).ends_with_two().contains(&foreign));
}

#[test]
fn on_many_streams_a_new_log_may_overtake_its_gap_and_the_old_one_be_late() {
    let story = || Story::default().on_many_streams(BOB).two_logs();
    assert_eq!(
        story().came(4, TOLD, 1).told_the_loss().came(3, None, 3).came(5, TOLD, 2).ends_with_two(),
        []
    );
    let twice = Broken::DeliveredTwice { client: BOB, offset: 1 };
    let found = story().came(4, TOLD, 1).came(4, TOLD, 1).told_the_loss().came(5, TOLD, 2);
    let late = story().told_the_loss().came(4, TOLD, 1).came(4, TOLD, 1).came(5, TOLD, 2);
    assert_eq!([found, late].map(Story::ends_with_two), [[twice.clone()], [twice]]);
    let missed = Broken::Missed { client: BOB, stood: Some(old(2)), top: new(2) };
    assert_eq!(story().came(4, TOLD, 1).came(5, TOLD, 2).ends_with_two(), [missed]);
}

#[test]
fn a_subscription_that_broke_off_goes_on_where_it_stood() {
    let broken_off = || Story::default().on_many_streams(BOB).two_logs().line(BOB, Event::BrokenOff(LIVE));
    let again = |story: Story| story.subscribed_at(new(0), Some(LOSS));
    // The answer is overtaken by what it begins, which does not say its epoch: the log's is the subscription's.
    let story = again(broken_off().came(4, None, 1)).came(5, None, 2);
    assert_eq!(story.ends_with_two(), []);
    let elsewhere = Broken::ResumedElsewhere { client: BOB, stood: old(2), resumed: new(1) };
    let found = broken_off().subscribed_at(new(1), Some(LOSS)).came(5, None, 2).ends_with_two();
    assert_eq!(found, [elsewhere]);
    let missed = Broken::Missed { client: BOB, stood: Some(new(0)), top: new(2) };
    assert_eq!(again(broken_off()).ends_with_two(), [missed]);
    // Or by the gap, of a log that was lost behind it.
    let behind = Event::Subscribed { channel: LIVE, cursor: old(2), resumed: true, gap: None };
    let story = broken_off().told_the_loss().line(BOB, behind).came(4, TOLD, 1).came(5, TOLD, 2);
    assert_eq!(story.ends_with_two(), []);
}

#[test]
fn what_was_under_way_when_a_subscription_broke_off_may_come_beside_the_next_one() {
    let again = |story: Story| {
        let behind = Event::Subscribed { channel: LIVE, cursor: new(0), resumed: true, gap: None };
        story.line(BOB, Event::BrokenOff(LIVE)).line(BOB, behind)
    };
    let story = || Story::default().on_many_streams(BOB).subscribed_at(new(0), None).published_at(4, new(1));
    let late = again(story()).came(4, None, 1).came(4, None, 1).published_at(5, new(2)).came(5, None, 2);
    assert_eq!(late.ends_with_two(), []);
    let twice = Broken::DeliveredTwice { client: BOB, offset: 2 };
    let story = again(story()).came(4, None, 1).published_at(5, new(2)).came(5, None, 2).came(5, None, 2);
    assert_eq!(story.ends_with_two(), [twice]);
}

#[test]
fn a_gap_over_what_is_still_kept_is_found() {
    let cursor = |offset| Cursor { epoch: Epoch(1), offset };
    let gap = Missing { epoch: Epoch(1), from: 1, to: 1 };
    let subscribed = Event::Subscribed { channel: LIVE, cursor: cursor(0), resumed: false, gap: None };
    let acknowledged =
        Event::Acknowledged { channel: LIVE, message: message(1), cursor: cursor(1), duplicate: false };
    let story = || {
        Story::default()
            .connected(BOB)
            .line(BOB, subscribed.clone())
            .line(ANN, Event::Invoked(LIVE, message(1)))
            .line(ANN, acknowledged.clone())
            .line(BOB, Event::Gap(LIVE, gap))
    };
    let kept = |publications| [Kept { channel: LIVE, node: 0, top: cursor(1), publications }];
    assert_eq!(broken(story().report(&kept(vec![]))), []);
    let found = broken(story().report(&kept(vec![(1, message(1))])));
    assert_eq!(found, [Broken::FalseGap { client: BOB, gap }]);
}
