//! Holds a history against the promises P1 to P4 and P8.
//!
//! It knows nothing of nodes, logs or wires: what clients did and saw goes in, what each node gives of each channel
//! at the end goes in, and every broken promise comes out. Each record is looked at once and costs the same however
//! long the history is, but for a connection's end, which costs the client's channels.
//!
//! What it asks for:
//! - one message an offset and one offset a message, whoever says so: an answer, a delivery, a node's log;
//! - a message stands behind everything that anybody had seen of its channel before it was published;
//! - an acknowledged message is in the log in the end, and what was delivered is too;
//! - a subscriber gets every publication behind its `subscribed` once, in line, over all its connections; it begins
//!   where it stood when it resumes; what it does not get was told as a gap, and gaps are only told of what is gone;
//! - nothing comes to who lost the right, or gave the channel up, more than a second before it was published.
//!
//! What may be: a publish that nobody answered stands in the log once or not at all; where the log may be lost, its
//! epoch changes, and the gap is told.

mod places;
mod reader;
#[cfg(test)]
mod tests;
mod violation;

use std::{collections::HashMap, time::Duration};

use xpush_protocol::Cursor;

pub(crate) use violation::{Broken, Violation};

use crate::history::{ChannelNumber, ClientNumber, Event, Kept, Message, Missing, Record, Stream};
use places::{Places, Source};
use reader::{Came, Outcome, Reader};

/// More of one kind are counted and not kept: one fault may break a promise to everybody.
const KEPT_OF_A_KIND: usize = 100;

/// So many records before the first violation are told: what its client saw of the channel.
const TOLD_OF_THE_FIRST: usize = 60;

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The first of each kind.
    pub(crate) violations: Vec<Violation>,
    /// All of each kind.
    pub(crate) counts: HashMap<&'static str, usize>,
    pub(crate) records: usize,
    pub(crate) published: usize,
    pub(crate) acknowledged: usize,
    /// Acknowledged as having been there already.
    pub(crate) duplicates: usize,
    /// Published, and never answered.
    pub(crate) unknown: usize,
    pub(crate) delivered: usize,
    pub(crate) gaps: usize,
    pub(crate) connections: usize,
    /// What led to the first violation.
    first: Vec<Record>,
}

impl Report {
    /// Fails with what is wrong, if anything is.
    pub(crate) fn assert_clean(&self) {
        let first: Vec<String> = self.violations.iter().take(20).map(ToString::to_string).collect();
        let led: Vec<String> = self.first.iter().map(|record| format!("{record:?}")).collect();
        let counts = &self.counts;
        assert!(
            counts.is_empty(),
            "promises are broken: {counts:?}, first:\n{}\nof {self}{}{}",
            first.join("\n"),
            if led.is_empty() { "" } else { "; what led to the first:\n" },
            led.join("\n")
        );
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { published, acknowledged, duplicates, unknown, delivered, gaps, connections, .. } = self;
        write!(
            f,
            "{published} published, {acknowledged} acknowledged ({duplicates} were there already), \
             {unknown} unknown, {delivered} delivered, {gaps} gaps told, {connections} connections, \
             {} records",
            self.records
        )
    }
}

/// Holds a history, and what the nodes give at the end, against the promises.
pub(crate) fn check(streams: &[Stream], history: &[Record], kept: &[Kept]) -> Report {
    let mut checker = Checker::new(streams);
    for (index, record) in history.iter().enumerate() {
        let clean = checker.report.counts.is_empty();
        checker.take(record);
        if clean && !checker.report.counts.is_empty() {
            checker.report.first = led_to(&history[..=index]);
        }
    }
    checker.finish(history.last().map_or(Duration::ZERO, |record| record.at), kept)
}

/// What the client of the last record saw of its channel before.
fn led_to(history: &[Record]) -> Vec<Record> {
    let Some(last) = history.last() else { return vec![] };
    let is_of = |record: &&Record| {
        record.client == last.client
            && record.event.channel().is_none_or(|channel| Some(channel) == last.event.channel())
    };
    let mut led: Vec<_> = history.iter().rev().filter(is_of).take(TOLD_OF_THE_FIRST).cloned().collect();
    led.reverse();
    led
}

struct Checker<'a> {
    streams: &'a [Stream],
    channels: Vec<Places>,
    clients: HashMap<ClientNumber, Connected>,
    /// Told, to be held against what is kept in the end.
    gaps: HashMap<ChannelNumber, Vec<(ClientNumber, Missing)>>,
    report: Report,
}

/// One client.
#[derive(Default)]
struct Connected {
    ordered: bool,
    readers: HashMap<ChannelNumber, Reader>,
}

impl<'a> Checker<'a> {
    fn new(streams: &'a [Stream]) -> Self {
        let channels = streams.iter().map(|stream| Places::new(stream.durable)).collect();
        Self { streams, channels, clients: HashMap::new(), gaps: HashMap::new(), report: Report::default() }
    }

    fn take(&mut self, record: &Record) {
        let Record { at, client, ref event } = *record;
        self.report.records += 1;
        match *event {
            Event::Invoked(channel, message) => {
                if self.places(channel).invoke(message, at) {
                    self.report.published += 1;
                }
            }
            Event::Acknowledged { channel, message, cursor, duplicate } => {
                self.report.acknowledged += 1;
                self.report.duplicates += usize::from(duplicate);
                self.place(at, channel, message, cursor, Source::Answer);
            }
            Event::Refused(channel, message) => {
                let broken = self.places(channel).refuse(message);
                self.tell(at, channel, broken);
            }
            Event::Asked => {
                let connected = self.clients.entry(client).or_default();
                connected.readers.values_mut().for_each(Reader::ask);
            }
            Event::Connected { ordered } => {
                self.report.connections += 1;
                let connected = self.clients.entry(client).or_default();
                connected.ordered = ordered;
                connected.readers.values_mut().for_each(Reader::go_on);
            }
            Event::Lost => {
                let connected = self.clients.entry(client).or_default();
                connected.readers.values_mut().for_each(Reader::interrupt);
            }
            Event::Subscribed { channel, cursor, resumed, gap } => {
                if let Some(gap) = gap {
                    self.note_gap(channel, client, gap);
                }
                let broken = self.places(channel).see(cursor);
                self.tell(at, channel, broken);
                self.read(at, channel, client, |reader, _, outcome| {
                    reader.subscribed(at, cursor, resumed, gap, outcome);
                });
            }
            Event::TurnedAway(channel) => self.tell(at, channel, [Broken::TurnedAway { client }]),
            Event::Delivered { channel, epoch, offset, message, intact } => {
                self.report.delivered += 1;
                if !intact {
                    self.tell(at, channel, [Broken::Garbled { message }]);
                }
                let invoked = self.places(channel).invoked(message);
                self.read(at, channel, client, |reader, ordered, outcome| {
                    reader.deliver(Came { epoch, offset, message, invoked }, ordered, outcome);
                });
            }
            Event::Gap(channel, gap) => {
                self.note_gap(channel, client, gap);
                let broken = self.places(channel).see(Cursor { epoch: gap.epoch, offset: gap.to });
                self.tell(at, channel, broken);
                self.read(at, channel, client, |reader, ordered, outcome| reader.gap(gap, ordered, outcome));
            }
            Event::BrokenOff(channel) => self.read(at, channel, client, |reader, _, _| reader.break_off(at)),
            Event::Unsubscribed(channel) => self.read(at, channel, client, |reader, _, _| reader.end(at)),
            Event::Revoked(channel) => self.read(at, channel, client, |reader, _, _| reader.revoke(at)),
            Event::Granted(channel) => self.read(at, channel, client, |reader, _, _| reader.grant()),
        }
    }

    fn places(&mut self, channel: ChannelNumber) -> &mut Places {
        &mut self.channels[channel.0 as usize]
    }

    /// Does something to a client's place in a channel, and takes note of what that brings.
    fn read(
        &mut self,
        at: Duration,
        channel: ChannelNumber,
        client: ClientNumber,
        step: impl FnOnce(&mut Reader, bool, &mut Outcome),
    ) {
        let mut outcome = Outcome::default();
        let connected = self.clients.entry(client).or_default();
        let reader = connected.readers.entry(channel).or_insert_with(|| Reader::new(client));
        step(reader, connected.ordered, &mut outcome);
        self.tell(at, channel, outcome.broken);
        for (message, place) in outcome.taken {
            self.place(at, channel, message, place, Source::Delivery);
        }
    }

    fn place(
        &mut self,
        at: Duration,
        channel: ChannelNumber,
        message: Message,
        cursor: Cursor,
        source: Source,
    ) {
        let mut broken = Vec::new();
        self.places(channel).place(message, cursor, source, &mut broken);
        self.tell(at, channel, broken);
    }

    fn note_gap(&mut self, channel: ChannelNumber, client: ClientNumber, gap: Missing) {
        self.report.gaps += 1;
        self.gaps.entry(channel).or_default().push((client, gap));
    }

    fn tell(&mut self, at: Duration, channel: ChannelNumber, broken: impl IntoIterator<Item = Broken>) {
        for what in broken {
            let count = self.report.counts.entry(what.kind()).or_default();
            *count += 1;
            if *count <= KEPT_OF_A_KIND {
                let channel = self.streams[channel.0 as usize].name.clone();
                self.report.violations.push(Violation { at, channel, what });
            }
        }
    }

    /// Nothing happens any more: everybody has to have everything.
    fn finish(mut self, at: Duration, kept: &[Kept]) -> Report {
        let mut tops: HashMap<ChannelNumber, &Kept> = HashMap::new();
        for kept in kept {
            self.take_log(at, kept);
            match tops.get(&kept.channel) {
                Some(first) => {
                    if first.top != kept.top || first.publications != kept.publications {
                        let (node, second) = (kept.node, kept.top);
                        self.tell(at, kept.channel, [Broken::NodesDiffer { node, first: first.top, second }]);
                    }
                }
                None => drop(tops.insert(kept.channel, kept)),
            }
        }
        for (&channel, kept) in &tops {
            let broken = self.compare(channel, kept);
            self.tell(at, channel, broken);
        }
        let readers = self.clients.values().flat_map(|connected| &connected.readers);
        let missed: Vec<_> = readers
            .filter_map(|(channel, reader)| Some((*channel, reader.check_end(tops.get(channel)?.top)?)))
            .collect();
        for (channel, broken) in missed {
            self.tell(at, channel, [broken]);
        }
        self.report.unknown = self.channels.iter().map(Places::unanswered).sum();
        self.report
    }

    /// What a node has of a channel.
    fn take_log(&mut self, at: Duration, kept: &Kept) {
        let Kept { channel, node, top, ref publications } = *kept;
        // Of a durable channel nothing goes; else what went, went from the old end.
        let durable = self.streams[channel.0 as usize].durable;
        let first =
            if durable { 1 } else { publications.first().map_or(top.offset + 1, |(offset, _)| *offset) };
        let mut expected = first;
        for &(offset, message) in publications {
            if offset != expected {
                self.tell(at, channel, [Broken::HoleInLog { node, expected, found: offset }]);
            }
            expected = offset + 1;
            self.place(at, channel, message, Cursor { offset, ..top }, Source::Log);
        }
        if expected != top.offset + 1 {
            self.tell(at, channel, [Broken::HoleInLog { node, expected, found: top.offset + 1 }]);
        }
    }

    /// What was said of a channel, against what its log has in the end.
    fn compare(&self, channel: ChannelNumber, kept: &Kept) -> Vec<Broken> {
        let places = &self.channels[channel.0 as usize];
        let durable = self.streams[channel.0 as usize].durable;
        let top = kept.top;
        let first = kept.publications.first().map_or(top.offset + 1, |(offset, _)| *offset);
        let found = |at: Cursor| {
            let index = at.offset.checked_sub(first)?;
            kept.publications.get(usize::try_from(index).ok()?).map(|(_, message)| *message)
        };
        // Where the log may be lost, or lets go of what is old, only what is of this time is asked for.
        let is_due = |at: Cursor| durable || (at.epoch == top.epoch && at.offset >= first);
        let mut broken = Vec::new();
        for (message, at) in places.answered() {
            if is_due(at) && (at.epoch != top.epoch || found(at) != Some(message)) {
                broken.push(Broken::AcknowledgedLost { message, at });
            }
        }
        for (message, at) in places.only_seen() {
            if is_due(at) && (at.epoch != top.epoch || found(at) != Some(message)) {
                broken.push(Broken::Phantom { at, message });
            }
        }
        for &(client, gap) in self.gaps.get(&channel).into_iter().flatten() {
            if durable || (gap.epoch == top.epoch && gap.to >= first) {
                broken.push(Broken::FalseGap { client, gap });
            }
        }
        broken
    }
}
