//! What the tests of every log write, and how they look at it.

use xpush_protocol::{ChannelName, Json, Payload};

use super::{Appended, Keep, KeepByNamespace, Log, Page};
use crate::publication::{Draft, Publisher};

pub(crate) fn channel(name: &str) -> ChannelName {
    name.parse().unwrap()
}

/// The message `n` of this publisher: its id and its data say which it is.
pub(crate) fn draft(publisher: &str, n: u64) -> Draft {
    Draft {
        publisher: Publisher::backend(publisher),
        message_id: n.to_string().parse().unwrap(),
        retriable: true,
        event: "message".parse().unwrap(),
        payload: Payload::Json(Json::from_value(&n).unwrap()),
        user: None,
        time: 1_700_000_000_000,
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    }
}

pub(crate) fn keep(namespace: &str, keep: Keep) -> KeepByNamespace {
    [(namespace.parse().unwrap(), keep)].into()
}

pub(crate) async fn append(log: &dyn Log, channel: &ChannelName, draft: Draft) -> Appended {
    log.append(channel, draft).await.unwrap().await.unwrap()
}

pub(crate) fn offsets(page: &Page) -> Vec<u64> {
    page.publications.iter().map(|publication| publication.offset).collect()
}
