//! What can be wrong with a history: one kind for each way to break a promise.

use std::{fmt, time::Duration};

use xpush_protocol::{ChannelName, Cursor};

use crate::history::{ClientNumber, Message, Missing};

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// When it was seen; the end of the history for what only the end shows.
    pub(crate) at: Duration,
    pub(crate) channel: ChannelName,
    pub(crate) what: Broken,
}

/// How it was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// One offset, two messages (P2).
    OffsetReused { at: Cursor, first: Message, second: Message },
    /// One message, two offsets (P3).
    StandsTwice { message: Message, first: Cursor, second: Cursor },
    /// An answer names another place than the message has (P3).
    AnsweredElsewhere { message: Message, stands: Cursor, answered: Cursor },
    /// Acknowledged, and not in the log (P1).
    AcknowledgedLost { message: Message, at: Cursor },
    /// Published after somebody had seen `past`, and stands before it (P2).
    BeforeItsPast { message: Message, at: Cursor, past: u64 },
    /// Refused for good, and there all the same.
    RefusedYetThere { message: Message },
    /// Nobody published this here.
    Invented { message: Message },
    /// The data is another's.
    Garbled { message: Message },
    /// A publication came where an earlier one should have, and no gap was told (P4).
    Hole { client: ClientNumber, expected: u64, came: u64 },
    /// A publication of another epoch came, and no gap that begins it was told; or a gap began one that was over (P4).
    ForeignEpoch { client: ClientNumber, stood: Cursor, came: Cursor },
    /// A publication came again, to a subscription that had it (P3).
    DeliveredTwice { client: ClientNumber, offset: u64 },
    /// The subscription goes on elsewhere than where the client stood, and no gap was told (P4).
    ResumedElsewhere { client: ClientNumber, stood: Cursor, resumed: Cursor },
    /// A subscription that should have lasted was refused (P4).
    TurnedAway { client: ClientNumber },
    /// A gap in a channel that keeps everything, or of what is still kept.
    FalseGap { client: ClientNumber, gap: Missing },
    /// A durable channel's epoch is another one than before.
    EpochChanged { before: Cursor, now: Cursor },
    /// At the end, a subscriber that stayed does not have what the log has (P2, P4).
    Missed { client: ClientNumber, stood: Option<Cursor>, top: Cursor },
    /// A subscriber saw what the log does not have (P1, P2).
    Phantom { at: Cursor, message: Message },
    /// The log as a node tells it has a hole.
    HoleInLog { node: usize, expected: u64, found: u64 },
    /// Two nodes tell of different logs.
    NodesDiffer { node: usize, first: Cursor, second: Cursor },
    /// It came to who had lost the right more than a second before it was published (P8).
    Leaked { client: ClientNumber, message: Message },
    /// A subscription was begun by who has no right to it (P8).
    LetIn { client: ClientNumber },
    /// It came to a client that had no subscription.
    Unasked { client: ClientNumber, message: Message },
}

impl Broken {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::OffsetReused { .. } => "OffsetReused",
            Self::StandsTwice { .. } => "StandsTwice",
            Self::AnsweredElsewhere { .. } => "AnsweredElsewhere",
            Self::AcknowledgedLost { .. } => "AcknowledgedLost",
            Self::BeforeItsPast { .. } => "BeforeItsPast",
            Self::RefusedYetThere { .. } => "RefusedYetThere",
            Self::Invented { .. } => "Invented",
            Self::Garbled { .. } => "Garbled",
            Self::Hole { .. } => "Hole",
            Self::ForeignEpoch { .. } => "ForeignEpoch",
            Self::DeliveredTwice { .. } => "DeliveredTwice",
            Self::ResumedElsewhere { .. } => "ResumedElsewhere",
            Self::TurnedAway { .. } => "TurnedAway",
            Self::FalseGap { .. } => "FalseGap",
            Self::EpochChanged { .. } => "EpochChanged",
            Self::Missed { .. } => "Missed",
            Self::Phantom { .. } => "Phantom",
            Self::HoleInLog { .. } => "HoleInLog",
            Self::NodesDiffer { .. } => "NodesDiffer",
            Self::Leaked { .. } => "Leaked",
            Self::LetIn { .. } => "LetIn",
            Self::Unasked { .. } => "Unasked",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s {}: {:?}", self.at.as_secs_f64(), self.channel, self.what)
    }
}
