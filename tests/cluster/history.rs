//! What clients did and what they saw, as it happened: the one thing that the checker judges by.
//!
//! It is only ever added to. A client notes a publish before it goes out, and what comes in as the wire gave it, before
//! anything sorts it or drops what is double: the order of the records is then one in which things may really have
//! happened.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use xpush_protocol::{ChannelName, Cursor, Epoch};

/// The history grows by so many records. One piece would be copied as it grows: with two million records that took so
/// long that all clients believed their nodes dead.
const PIECE: usize = 1 << 16;

/// A client, for as long as the run lasts, over all its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClientNumber(pub(crate) u32);

/// A channel: its place in `History::channels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChannelNumber(pub(crate) u32);

/// Which message: a publisher numbers its messages, over all its channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Message {
    pub(crate) publisher: ClientNumber,
    pub(crate) number: u32,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.publisher.0, self.number)
    }
}

impl Message {
    /// Out of a message id that `Display` made. A further part makes it another id of the same message.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        let mut parts = id.split('.');
        let publisher = ClientNumber(parts.next()?.parse().ok()?);
        Some(Self { publisher, number: parts.next()?.parse().ok()? })
    }
}

/// A channel, and what is promised of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) name: ChannelName,
    /// Nothing of it may ever be missing, and its epoch stays.
    pub(crate) durable: bool,
}

/// The publications `from` to `to` are gone, as a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) epoch: Epoch,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What happened to one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A publish goes out, for the first time or again.
    Invoked(ChannelNumber, Message),
    Acknowledged {
        channel: ChannelNumber,
        message: Message,
        cursor: Cursor,
        /// It was there already.
        duplicate: bool,
    },
    /// For good: the message must not be there. What may have gone either way is told by nothing.
    Refused(ChannelNumber, Message),
    /// It asks a node to let it go on from where it stands. A connection before this one may serve meanwhile.
    Asked,
    /// The node did: this is the client's connection now. `ordered`: its frames come in the order in which they were
    /// written.
    Connected {
        ordered: bool,
    },
    /// Its end, of whatever kind.
    Lost,
    Subscribed {
        channel: ChannelNumber,
        cursor: Cursor,
        /// The client asked to go on from its cursor, not to begin anew.
        resumed: bool,
        gap: Option<Missing>,
    },
    /// A subscription that the client wants was refused, in a way that no retry mends.
    TurnedAway(ChannelNumber),
    /// Raw: before anything put it in order.
    Delivered {
        channel: ChannelNumber,
        /// As the publication says it. `None`: of the epoch that the subscription began with.
        epoch: Option<Epoch>,
        offset: u64,
        message: Message,
        /// The data is what this message's publisher sent.
        intact: bool,
    },
    Gap(ChannelNumber, Missing),
    /// The subscription is over though the client wants it: it asks again.
    BrokenOff(ChannelNumber),
    /// The client no longer wants it, and the server said that it is over.
    Unsubscribed(ChannelNumber),
    /// The server took note that the client has no right to the channel any more.
    Revoked(ChannelNumber),
    Granted(ChannelNumber),
}

impl Event {
    /// `None`: it is about a client's connection.
    pub(crate) fn channel(&self) -> Option<ChannelNumber> {
        match *self {
            Self::Asked | Self::Connected { .. } | Self::Lost => None,
            Self::Invoked(channel, _)
            | Self::Refused(channel, _)
            | Self::TurnedAway(channel)
            | Self::Gap(channel, _)
            | Self::BrokenOff(channel)
            | Self::Unsubscribed(channel)
            | Self::Revoked(channel)
            | Self::Granted(channel)
            | Self::Acknowledged { channel, .. }
            | Self::Subscribed { channel, .. }
            | Self::Delivered { channel, .. } => Some(channel),
        }
    }
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Since the history began.
    pub(crate) at: Duration,
    pub(crate) client: ClientNumber,
    pub(crate) event: Event,
}

/// A channel as one node gives it at the end, from the oldest that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) channel: ChannelNumber,
    pub(crate) node: usize,
    /// Behind the newest.
    pub(crate) top: Cursor,
    pub(crate) publications: Vec<(u64, Message)>,
}

/// Takes records from all clients.
pub(crate) struct History {
    pub(crate) streams: Vec<Stream>,
    began: Instant,
    /// In pieces. The last one is being filled.
    records: Mutex<Vec<Vec<Record>>>,
}

impl History {
    pub(crate) fn new(streams: Vec<Stream>) -> Arc<Self> {
        Arc::new(Self { streams, began: Instant::now(), records: Mutex::default() })
    }

    pub(crate) fn add(&self, client: ClientNumber, event: Event) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: the times are in the records' order.
        let record = Record { at: self.began.elapsed(), client, event };
        match records.last_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(record),
            _ => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(record);
                records.push(piece);
            }
        }
    }

    /// Since the beginning.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// What happened from then on, so far.
    pub(crate) fn since(&self, from: Duration) -> Vec<Record> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let first = records.partition_point(|piece| piece.last().is_some_and(|last| last.at < from));
        let records = records[first..].iter().flatten();
        records.skip_while(|record| record.at < from).cloned().collect()
    }

    /// All of it, once nobody adds to it any more.
    pub(crate) fn take(&self) -> Vec<Record> {
        let pieces = std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner));
        pieces.into_iter().flatten().collect()
    }
}
