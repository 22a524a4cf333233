//! What the embedded stores know of the disk: a folder is one process's, fjall's journals are looked at before fjall
//! does, and a disk that was full is tried again.
//!
//! Invariant: nothing here knows what is stored.

mod folder;
mod handle;
pub(crate) mod journal;

use std::path::PathBuf;

use thiserror::Error;

pub(crate) use self::folder::{catch_up, describe, open_database, probe, take_lock};

/// Why a folder can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum DiskError {
    #[error("{} can't be opened: {reason}", path.display())]
    Open { path: PathBuf, reason: String },
    /// What was acknowledged can't be read any more.
    #[error("{reason}")]
    Damaged { reason: String },
}
