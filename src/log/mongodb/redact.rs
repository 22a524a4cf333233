//! Messages that are deleted: what is left of one takes its place, in the same document. Done twice, it is done once; so
//! whoever does not know what became of it may ask again.

use mongodb::{bson::doc, options::Hint};
use xpush_protocol::ChannelName;

use super::{
    failure::{Failure, within},
    record::{self, Key},
    store::{Store, WRITE_LIMIT},
};
use crate::{mongodb::majority, publication::DELETED};

impl Store {
    /// Whether there was one. Answered once a majority has it in its journals: no later primary gives the message back.
    pub(super) async fn redact(&self, channel: &ChannelName, offset: u64) -> Result<bool, Failure> {
        let key = Key::new(channel);
        let left = doc! {
            "$set": { "event": DELETED, "data": "null" },
            "$unset": { "binary": "", "reply_to": "" },
        };
        let update = self
            .messages
            .update_one(key.range(offset, offset), left)
            .hint(Hint::Keys(record::by_offset()))
            .write_concern(majority());
        Ok(within(WRITE_LIMIT, update.into_future()).await?.matched_count > 0)
    }
}
