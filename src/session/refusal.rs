//! Why a command is refused, as it becomes an `error` frame or an HTTP problem.

use xpush_protocol::{ChannelName, Error, ErrorCode};

use crate::{
    auth::{ApiKeyError, StateError, TicketError, TokenError},
    directory::DirectoryError,
    log::LogError,
};

/// Why a command is refused. The session goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: ErrorCode,
    /// For a person: what happened and what to do.
    pub message: String,
    /// Milliseconds after which a retry makes sense.
    pub retry_after: Option<u32>,
}

/// A log that is behind gets so many milliseconds to write what it has.
const RETRY_AFTER_BEHIND: u32 = 1000;

/// Whoever finds it busy comes again in so many milliseconds: what was in line is done then.
const RETRY_AFTER_BUSY: u32 = 1000;

impl Refusal {
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    #[must_use]
    pub fn into_frame(self, id: Option<u32>, channel: Option<ChannelName>) -> Error {
        let Self { code, message, retry_after } = self;
        Error { id, code, message, channel, retry: code.may_retry(), retry_after }
    }
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        let retry_after = matches!(error, LogError::Behind { .. }).then_some(RETRY_AFTER_BEHIND);
        let code = match error {
            LogError::TooManyChannels { .. } => ErrorCode::LimitReached,
            LogError::Damaged { .. } => ErrorCode::Internal,
            LogError::Behind { .. } => ErrorCode::Busy,
            LogError::Unavailable { .. }
            | LogError::Open { .. }
            | LogError::Database { .. }
            | LogError::NewerFormat { .. } => ErrorCode::LogUnavailable,
        };
        Self { retry_after, ..Self::new(code, error.to_string()) }
    }
}

impl From<DirectoryError> for Refusal {
    fn from(error: DirectoryError) -> Self {
        let retry_after = matches!(error, DirectoryError::Busy(_)).then_some(RETRY_AFTER_BUSY);
        Self { retry_after, ..Self::new(error.code(), error.to_string()) }
    }
}

macro_rules! from_auth {
    ($($error:ty),*) => {
        $(impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                Self::new(error.code(), error.to_string())
            }
        })*
    };
}
from_auth!(TokenError, StateError, TicketError, ApiKeyError);
