//! Pages of a channel's log, for who asks for them.

use std::sync::Arc;

use xpush_protocol::{ChannelName, Cursor, ErrorCode, HistoryPage};

use super::Node;
use crate::{
    log::{From, Query},
    publication::Publication,
    session::{Refusal, is_ahead, missed},
};

/// Publications in a page of history, at most and if not asked for.
const HISTORY_LIMIT: u16 = 256;
const HISTORY_DEFAULT: u16 = 50;
/// Bytes of payload in a page of history, as far as they fit into a frame.
const HISTORY_BYTES: usize = 1 << 20;
/// In a page's frame: what is not a publication.
const FRAME_OVERHEAD: usize = 1024;
/// In a publication's JSON: its fields' names, numbers and punctuation.
const PUBLICATION_OVERHEAD: usize = 200;

/// Which page of history.
#[derive(Debug, Clone, Copy, Default)]
pub struct HistoryQuery {
    pub cursor: Option<Cursor>,
    pub backward: bool,
    pub limit: Option<u16>,
}

impl Node {
    /// A page of a channel's log; its `id` is 0.
    pub async fn history(&self, channel: &ChannelName, query: HistoryQuery) -> Result<HistoryPage, Refusal> {
        let policy = self.policy(channel)?;
        if !policy.history {
            let message = format!("the namespace `{}` has no history", channel.namespace());
            return Err(Refusal::new(ErrorCode::NotSupported, message));
        }
        let HistoryQuery { cursor, backward, limit } = query;
        let limit = limit.unwrap_or(HISTORY_DEFAULT);
        if !(1..=HISTORY_LIMIT).contains(&limit) {
            return Err(Refusal::new(ErrorCode::InvalidField, format!("`limit` is 1 to {HISTORY_LIMIT}")));
        }
        let log = self.log(policy);
        let gap = match cursor {
            Some(cursor) => {
                let mut extent = log.extent(channel).await?;
                if is_ahead(cursor, extent) {
                    extent = log.confirm(channel).await?;
                }
                // Backward, a place in this epoch misses nothing: what is no longer kept is the end.
                if backward && cursor.epoch == extent.epoch { None } else { missed(channel, cursor, extent)? }
            }
            None => None,
        };
        let from = if backward {
            // A place in another epoch is none in this one: begin at the newest.
            From::Before(cursor.filter(|_| gap.is_none()).map(|cursor| cursor.offset))
        } else {
            From::After(gap.as_ref().map_or(cursor.map_or(0, |cursor| cursor.offset), |gap| gap.to))
        };
        let mut page = log.read(channel, Query { from, limit: limit.into(), bytes: HISTORY_BYTES }).await?;
        page.publications.truncate(fitting(channel, &page.publications, self.limits.frame));
        let extent = page.extent;
        let next = page.publications.last().and_then(|last| {
            let more = if backward { last.offset > extent.first } else { last.offset < extent.top };
            more.then_some(Cursor { epoch: extent.epoch, offset: last.offset })
        });
        Ok(HistoryPage {
            id: 0,
            channel: channel.clone(),
            publications: page
                .publications
                .iter()
                .map(|publication| publication.to_frame(channel, None))
                .collect(),
            top: Cursor { epoch: extent.epoch, offset: extent.top },
            next,
            gap,
        })
    }
}

/// How many of these publications fit into one frame, one at least: a single one always does.
fn fitting(channel: &ChannelName, publications: &[Arc<Publication>], frame: usize) -> usize {
    let mut left = frame.saturating_sub(FRAME_OVERHEAD);
    let fits = |publication: &&Arc<Publication>| {
        let user = publication.user.as_ref().map_or(0, |user| user.local().len());
        let names =
            channel.local().len() + publication.message_id.as_str().len() + publication.event.as_str().len();
        // Base64 makes four of three.
        let size = publication.payload.len().div_ceil(3) * 4 + names + user + PUBLICATION_OVERHEAD;
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    };
    publications.iter().take_while(fits).count().max(1).min(publications.len())
}
