//! The log keeps publications in order, and by that gives them their order: it is the sequencer.
//!
//! Invariant: nothing here but the backends' own rooms names a store. What every backend promises is written at
//! `Log`, and `contract` (tests) holds all of them to it.

#[cfg(test)]
mod contract;
#[cfg(feature = "embedded")]
mod embedded;
#[cfg(test)]
pub(crate) mod fixture;
mod memory;
#[cfg(feature = "mongodb")]
pub(crate) mod mongodb;
#[cfg(feature = "redis")]
mod redis;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use thiserror::Error;
use xpush_protocol::{ChannelName, Cursor, Epoch, Namespace};

#[cfg(feature = "embedded")]
pub use self::embedded::Embedded;
pub use self::memory::{Capacity, Memory};
#[cfg(feature = "mongodb")]
pub use self::mongodb::MongoDb;
#[cfg(feature = "redis")]
pub use self::redis::Redis;
use crate::publication::{Draft, Publication};

/// Keeps the publications of channels, in order.
pub trait Log: Send + Sync + 'static {
    /// Puts a draft in line; waits only while the line is full. Drafts of one channel get their offsets in the
    /// order in which they came into line: 1, 2, 3, without a hole.
    ///
    /// What it gives resolves when the log has the publication as durably as it ever will: for a durable log, when
    /// a crash can't take it back. A draft whose publisher and message id the channel has already is not
    /// appended again: it resolves to the place of the first one. Dropping the future takes nothing back.
    fn append<'a>(
        &'a self,
        channel: &'a ChannelName,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Pending, LogError>>;

    /// As `append`, for a log that has answered as soon as it is asked. Gives the draft back where one has to wait: each
    /// log does the one or the other.
    #[allow(clippy::result_large_err, reason = "it is no error: the draft itself is given back")]
    fn append_at_once(
        &self,
        _channel: &ChannelName,
        draft: Draft,
    ) -> Result<Result<Appended, LogError>, Draft> {
        Err(draft)
    }

    /// Whether what it appends is on its way to the other nodes by itself; else the broker has to carry it.
    fn carries(&self) -> bool {
        false
    }

    /// Another node appended up to there, as it said. A hint, which may be wrong: who knows that its own knowledge of
    /// a channel is old need not find it out by being refused.
    fn told(&self, _channel: &ChannelName, _top: Cursor) {}

    /// Whether other nodes append to this channel now, so that their appends and this node's stand in each other's way.
    /// A hint: one node for all of them would do more.
    fn has_rivals(&self, _channel: &ChannelName) -> bool {
        false
    }

    /// A page of what is there, and what that is part of. Never more than the log has made durable.
    fn read<'a>(&'a self, channel: &'a ChannelName, query: Query) -> BoxFuture<'a, Result<Page, LogError>>;

    /// Takes the message of this offset away: what stands there from now on is a `Publication::redacted`, and a retry
    /// of the message still finds it. Resolves when no reader gets it any more, as durably as an append. Gives whether
    /// there was one, deleted already or not.
    ///
    /// It is gone from what the log gives; copies that a store made of its own data (journals, backups) go when the
    /// store lets go of them.
    fn redact<'a>(&'a self, channel: &'a ChannelName, offset: u64) -> BoxFuture<'a, Result<bool, LogError>>;

    /// What there is of a channel. One that was never written to is empty.
    fn extent<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<Extent, LogError>>;

    /// As `extent`, for a channel that somebody listens to: as long as this is asked again within `HOLD`, a log that
    /// forgets idle channels does not forget this one, and its epoch stays what it is.
    fn hold<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<Extent, LogError>> {
        self.extent(channel)
    }

    /// As `extent`, and its `top` is surely not older than what anybody was told before this was asked. A log of
    /// many servers may answer `extent` from one that was deposed without having heard of it; so who is about to
    /// tell a client that its cursor is ahead of the channel asks this first. It may cost a write.
    fn confirm<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<Extent, LogError>> {
        self.extent(channel)
    }

    /// The newest place of each of these channels, in their order; offset 0 where there is none. Asked after the
    /// broker lost its connection, or a node died, to find what was appended and nobody announced.
    fn tops<'a>(&'a self, channels: &'a [ChannelName]) -> BoxFuture<'a, Result<Vec<Cursor>, LogError>> {
        Box::pin(async move {
            let mut tops = Vec::with_capacity(channels.len());
            for channel in channels {
                let Extent { epoch, top, .. } = self.extent(channel).await?;
                tops.push(Cursor { epoch, offset: top });
            }
            Ok(tops)
        })
    }
}

/// How long a channel that somebody listens to is held.
pub const HOLD: Duration = Duration::from_secs(120);

/// An append under way.
pub type Pending = BoxFuture<'static, Result<Appended, LogError>>;

/// An append that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    New {
        epoch: Epoch,
        publication: Arc<Publication>,
    },
    /// The message was there already, at this place.
    Duplicate(Cursor),
}

impl Appended {
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        match self {
            Self::New { epoch, publication } => Cursor { epoch: *epoch, offset: publication.offset },
            Self::Duplicate(cursor) => *cursor,
        }
    }
}

/// The part of a channel that can be read: `first..=top` of this epoch. Empty where `first` is `top + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub epoch: Epoch,
    pub first: u64,
    pub top: u64,
}

/// Which page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    pub from: From,
    /// Publications at most.
    pub limit: usize,
    /// Bytes of payload at most; the first publication is given however large it is.
    pub bytes: usize,
}

impl Query {
    /// As many of these as the page holds.
    fn page(&self, publications: impl Iterator<Item = Arc<Publication>>) -> Vec<Arc<Publication>> {
        let mut room = self.bytes;
        let mut page = Vec::new();
        for publication in publications.take(self.limit) {
            let len = publication.payload.len();
            if len > room && !page.is_empty() {
                break;
            }
            room = room.saturating_sub(len);
            page.push(publication);
        }
        page
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Oldest first, beginning behind this offset (or at the first that is still there).
    After(u64),
    /// Newest first, beginning before this offset, or at the newest.
    Before(Option<u64>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// As it was when the page was read.
    pub extent: Extent,
    /// In the order that was asked for, without a hole.
    pub publications: Vec<Arc<Publication>>,
}

/// How much of a channel is kept. What goes, goes from the old end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    pub count: Option<u64>,
    pub age: Option<Duration>,
}

/// What is kept, for each namespace of a log. One that is not named here keeps everything.
pub type KeepByNamespace = HashMap<Namespace, Keep>;

/// Why the log can't do it.
#[derive(Debug, Clone, Error)]
pub enum LogError {
    /// Worth a retry: a disk that was full may have room again.
    #[error("the log can't be written: {reason}")]
    Unavailable { reason: String },
    /// Worth a retry, later: more comes than can be written.
    #[error("the log is behind: what came {} s ago is not written yet; publish less, or try again", waited.as_secs())]
    Behind { waited: Duration },
    #[error("the log has as many channels as it may ({limit})")]
    TooManyChannels { limit: usize },
    /// At opening.
    #[error("the store in {path} can't be opened: {reason}")]
    Open { path: PathBuf, reason: String },
    /// At opening. No retry helps.
    #[error("{database} can't hold the log: {reason}")]
    Database { database: String, reason: String },
    /// At opening. `store` says which, as a person would.
    #[error(
        "{store} has format {found}; this version of xpush knows {known} at most. Start a version that is as new as the one that wrote it, or name another store"
    )]
    NewerFormat { store: String, found: u32, known: u32 },
    /// What is stored is not what was written.
    #[error("the store is damaged: {reason}")]
    Damaged { reason: String },
}
