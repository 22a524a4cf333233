//! Which messages are to go at a time. It is written before the message is in its log, so nothing that a crash does
//! leaves a message that nobody knows is to go.

use serde::{Deserialize, Serialize};
use xpush_protocol::{AppId, ChannelName, Cursor, MessageId};

use super::{
    Directory, Record, Result,
    record::encode,
    store::{Commit, CommitError, Key, Prefix},
};

const TABLE: &str = "expire";

/// A message that is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    app: AppId,
    channel: ChannelName,
    /// By these two a message is found whose place nobody noted.
    pub message_id: MessageId,
    /// When it was published. Milliseconds since 1970, like `due`.
    pub time: u64,
    pub due: u64,
    /// `None`: it may not be in the log yet, or who put it there died before this was noted.
    pub place: Option<Cursor>,
}

impl Record for Expiry {}

/// Where an expiry stands in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiryKey(Key);

impl ExpiryKey {
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Expiry {
    #[must_use]
    pub fn new(channel: &ChannelName, message_id: MessageId, time: u64, due: u64) -> Self {
        let local = channel.within(&AppId::default());
        Self { app: channel.app(), channel: local, message_id, time, due, place: None }
    }

    #[must_use]
    pub fn channel(&self) -> ChannelName {
        self.channel.within(&self.app)
    }
}

impl Directory {
    /// Resolves when a crash can't take it back.
    pub async fn schedule(&self, expiry: &Expiry) -> Result<ExpiryKey> {
        // A message that is sent again has an entry of its own; the keys stand in the order in which they are due.
        let nonce = MessageId::random();
        let key = Key::new(&[TABLE, &format!("{:020}", expiry.due), nonce.as_str()]);
        self.write(Commit::new().put(key.clone(), encode(expiry))).await?;
        Ok(ExpiryKey(key))
    }

    /// Notes where the message is, as durably as that it is to go.
    pub async fn note_place(&self, key: &ExpiryKey, expiry: Expiry, place: Cursor) -> Result<()> {
        let found = Expiry { place: Some(place), ..expiry };
        self.write(Commit::new().put(key.0.clone(), encode(&found))).await
    }

    /// It is gone, or will never be.
    pub async fn unschedule(&self, key: &ExpiryKey) -> Result<()> {
        self.write(Commit::new().delete(key.0.clone()).soon()).await
    }

    /// What is due by now, in that order, behind `after`.
    pub async fn due(
        &self,
        now: u64,
        after: Option<ExpiryKey>,
        limit: usize,
    ) -> Result<Vec<(ExpiryKey, Expiry)>> {
        let after = after.map(|after| after.0);
        let page = self.list::<Expiry>(Prefix::new(&[TABLE]), after, limit).await?;
        let due = page.into_iter().map(|(key, tagged)| (ExpiryKey(key), tagged.value));
        Ok(due.take_while(|(_, expiry)| expiry.due <= now).collect())
    }

    async fn write(&self, commit: Commit) -> Result<()> {
        self.store.commit(commit).await.map_err(|error| match error {
            // Nothing is expected, so nothing conflicts.
            CommitError::Conflict => {
                super::DirectoryError::Busy("others are changing the same; try again".into())
            }
            CommitError::Store(error) => error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use xpush_protocol::Epoch;

    use super::*;
    use crate::directory::store::Memory;

    fn expiry(channel: &str, due: u64) -> Expiry {
        let app = "shop".parse().unwrap();
        let channel = channel.parse::<ChannelName>().unwrap().within(&app);
        Expiry::new(&channel, MessageId::random(), 5, due)
    }

    #[tokio::test]
    async fn what_is_due_comes_in_its_order_until_it_is_done() {
        let directory = Directory::new(Arc::new(Memory::default()));
        let later = directory.schedule(&expiry("chat:a", 1_000)).await.unwrap();
        let first = expiry("chat:b", 999);
        let soon = directory.schedule(&first).await.unwrap();
        assert_eq!(directory.due(998, None, 10).await.unwrap(), []);
        assert_eq!(directory.due(999, None, 10).await.unwrap(), [(soon.clone(), first.clone())]);
        assert_eq!(first.channel().app().as_str(), "shop");
        let place = Cursor { epoch: Epoch(7), offset: 3 };
        directory.note_place(&soon, first, place).await.unwrap();
        let due = directory.due(2_000, None, 10).await.unwrap();
        assert_eq!((due.len(), due[0].1.place, &due[1].0), (2, Some(place), &later));
        assert_eq!(directory.due(2_000, Some(soon.clone()), 10).await.unwrap().len(), 1);
        directory.unschedule(&soon).await.unwrap();
        assert_eq!(directory.due(2_000, None, 10).await.unwrap().len(), 1);
    }
}
