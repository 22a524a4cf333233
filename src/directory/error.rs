//! Why the directory does not do what it is asked.

use thiserror::Error;
use xpush_protocol::ErrorCode;

use super::store::StoreError;

/// Why the directory does not do what it is asked. `what` is as a person would say it: `user`, `channel`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DirectoryError {
    #[error("there is no such {0}")]
    NotFound(&'static str),
    #[error("there is such a {0} already")]
    AlreadyExists(&'static str),
    /// With the reason, and what would be needed.
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Invalid(String),
    /// The kind of channel does not do that.
    #[error("{0}")]
    NotSupported(String),
    /// A bound of the app or of the server, by its name.
    #[error("{0}")]
    LimitReached(String),
    #[error("it changed since it was read; read it again")]
    Stale,
    #[error("the user or the password is wrong")]
    InvalidCredentials,
    /// A token of ours that is over, used twice or taken back.
    #[error("{0}")]
    InvalidToken(String),
    /// Others change it all the time; or all hashing is taken.
    #[error("{0}")]
    Busy(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DirectoryError {
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::AlreadyExists(_) => ErrorCode::AlreadyExists,
            Self::Forbidden(_) => ErrorCode::PermissionDenied,
            Self::Invalid(_) => ErrorCode::InvalidField,
            Self::NotSupported(_) => ErrorCode::NotSupported,
            Self::LimitReached(_) => ErrorCode::LimitReached,
            Self::Stale => ErrorCode::PreconditionFailed,
            Self::InvalidCredentials => ErrorCode::InvalidCredentials,
            Self::InvalidToken(_) => ErrorCode::InvalidToken,
            Self::Busy(_) => ErrorCode::Busy,
            Self::Store(StoreError::Unavailable(_)) => ErrorCode::DirectoryUnavailable,
            Self::Store(StoreError::Damaged(_) | StoreError::Refused(_)) => ErrorCode::Internal,
            Self::Store(StoreError::TooLarge(_)) => ErrorCode::TooLarge,
        }
    }
}
