//! Messages that are deleted. They are a commit of their own behind that of the appends: within one, what is trimmed and
//! what is written over could be the same.

use std::sync::PoisonError;

use fjall::PersistMode;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use xpush_protocol::ChannelName;

use super::Writer;
use crate::log::{
    LogError,
    embedded::{
        closed, record,
        store::{self, Store},
    },
};

/// A message that is to go.
pub(in super::super) struct Redaction {
    pub(in super::super) channel: ChannelName,
    pub(in super::super) offset: u64,
    pub(in super::super) reply: oneshot::Sender<Result<bool, LogError>>,
    /// Its place in the line, until it is answered.
    pub(in super::super) _place: OwnedSemaphorePermit,
}

impl Redaction {
    pub(super) fn answer(self, answer: Result<bool, LogError>) {
        // Nobody listens if the caller dropped its future. The message is gone all the same.
        let _ = self.reply.send(answer);
    }
}

impl Writer {
    pub(super) fn redact(&mut self, redactions: Vec<Redaction>) {
        // The commit of the appends may have failed just now.
        if let Some(failure) = &self.failure {
            let error = failure.error.clone();
            return redactions.into_iter().for_each(|redaction| redaction.answer(Err(error.clone())));
        }
        let shared = self.shared.clone();
        let store = shared.store.read().unwrap_or_else(PoisonError::into_inner);
        let Some(store) = store.as_ref() else {
            return redactions.into_iter().for_each(|redaction| redaction.answer(Err(closed())));
        };
        let mut batch = store.db.batch().durability(Some(PersistMode::SyncData));
        let mut written = Vec::with_capacity(redactions.len());
        for redaction in redactions {
            match left_of(store, &redaction.channel, redaction.offset) {
                Ok(Some((key, left))) => {
                    batch.insert(&store.publications, key, left);
                    written.push(redaction);
                }
                Ok(None) => redaction.answer(Ok(false)),
                Err(error) => redaction.answer(Err(error)),
            }
        }
        if written.is_empty() {
            return;
        }
        match batch.commit() {
            Ok(()) => written.into_iter().for_each(|redaction| redaction.answer(Ok(true))),
            Err(error) => {
                let error = self.fail(&error);
                written.into_iter().for_each(|redaction| redaction.answer(Err(error.clone())));
            }
        }
    }
}

/// A key and its value.
type Left = (Vec<u8>, Vec<u8>);

/// Under which key what is left of a message is to be written. `None`: there is none.
fn left_of(store: &Store, channel: &ChannelName, offset: u64) -> Result<Option<Left>, LogError> {
    if offset < store.extent(channel)?.first {
        return Ok(None);
    }
    let key = record::publication_key(channel, offset);
    let found = store.publications.get(&key).map_err(|error| store::read_failed(&error))?;
    found.map(|bytes| Ok((key, record::redact(&bytes)?))).transpose()
}
