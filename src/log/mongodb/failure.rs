//! What a failure says of the work that failed: that it was never begun, or that nobody knows.

use std::time::Duration;

use mongodb::error::{Error, ErrorKind};
use tokio::time::timeout;

use super::super::LogError;
use crate::mongodb::describe;

#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// No server takes it, so nothing was sent: what waits behind it would fare no better.
    Unreachable(String),
    /// It may be done, or undone, or be done yet.
    Unknown(String),
    /// What is stored is not what was written.
    Damaged(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let reason = describe(&error);
        match *error.kind {
            ErrorKind::ServerSelection { .. } | ErrorKind::Authentication { .. } | ErrorKind::Shutdown => {
                Self::Unreachable(reason)
            }
            _ => Self::Unknown(reason),
        }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Damaged { reason } => Self::Damaged(reason),
            error => Self::Unknown(error.to_string()),
        }
    }
}

impl From<Failure> for LogError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable(reason) | Failure::Unknown(reason) => Self::Unavailable { reason },
            Failure::Damaged(reason) => Self::Damaged { reason },
        }
    }
}

/// Gives the work up when it takes longer. The driver closes the connection of what was given up.
pub(super) async fn within<T, E: Into<Failure>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(Failure::Unknown(format!("MongoDB gave no answer within {} s", limit.as_secs()))),
    }
}
