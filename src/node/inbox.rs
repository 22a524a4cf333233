//! The inbox of a user: a durable channel of its own, in which the user's devices are told what happens in channels
//! that they have not opened (`telling`), and to the user itself. What was missed comes like everything of a durable
//! channel.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use tracing::warn;
use xpush_protocol::{ChannelName, Json, MessageId, Payload, UserId};

use super::Node;
use crate::{
    directory::Notice,
    namespace::INBOX,
    publication::{Draft, Publisher},
    session::{Refusal, now},
};

/// The inbox of a user. An id that no channel's name could hold is written in base64url.
#[must_use]
pub fn inbox_of(user: &UserId) -> ChannelName {
    let local = user.local();
    let plain = format!("{INBOX}:{local}").parse::<ChannelName>();
    // One that begins with a tilde is written out as well, or it could be another's.
    let plain = plain.ok().filter(|_| !local.starts_with('~'));
    let name = plain.or_else(|| format!("{INBOX}:~{}", URL_SAFE_NO_PAD.encode(local)).parse().ok());
    // 128 bytes are 171 characters of base64url, and those are of a channel's alphabet.
    #[allow(clippy::expect_used)]
    name.expect("base64url makes a name").within(&user.app())
}

/// In the inbox: another device of the user has read so far.
#[derive(Serialize)]
struct ReadNotice<'a> {
    channel: &'a ChannelName,
    offset: u64,
}

impl Node {
    /// Tells a user, on all of its devices, what happened to it.
    pub async fn notify(self: &Arc<Self>, user: &UserId, notice: &Notice) {
        self.tell_inbox(user, notice.event(), notice).await;
    }

    /// Tells the user's other devices how far it has read.
    pub(crate) async fn tell_read(self: &Arc<Self>, user: &UserId, channel: &ChannelName, offset: u64) {
        self.tell_inbox(user, "read", &ReadNotice { channel, offset }).await;
    }

    async fn tell_inbox(self: &Arc<Self>, user: &UserId, event: &str, data: &impl Serialize) {
        match self.line_up(user, event, data, None).await {
            Ok(written) => {
                if let Err(error) = written.await {
                    warn!(%user, event, error = error.message, "an inbox could not be told");
                }
            }
            Err(error) => warn!(%user, event, error = error.message, "an inbox could not be told"),
        }
    }

    /// Puts it into the inbox's line. What it gives resolves once it is there. `message_id`: by which it is found again.
    pub(super) async fn line_up(
        self: &Arc<Self>,
        user: &UserId,
        event: &str,
        data: &impl Serialize,
        message_id: Option<MessageId>,
    ) -> Result<super::Publishing, Refusal> {
        let internal = |what: String| Refusal::new(xpush_protocol::ErrorCode::Internal, what);
        let draft = Draft {
            publisher: Publisher::server(),
            retriable: message_id.is_some(),
            message_id: message_id.unwrap_or_else(MessageId::random),
            event: event.parse().map_err(|error: xpush_protocol::NameError| internal(error.to_string()))?,
            payload: Payload::Json(Json::from_value(data).map_err(|error| internal(error.to_string()))?),
            user: None,
            time: now(),
            reply_to: None,
            mentions: Vec::new(),
            expires_in: None,
        };
        self.publish(&inbox_of(user), draft).await
    }
}
