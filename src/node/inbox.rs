//! The inbox of a user: a durable channel of its own, in which the user's devices are told what happens in channels
//! that they have not opened, and to the user itself. What was missed comes like everything of a durable channel.
//!
//! Messages are told after they are acknowledged, by a bounded queue: what it has no room for, or what a crash takes,
//! is missed in the inbox alone; the list of one's channels with its unread counts is always right.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{FutureExt as _, StreamExt as _, future::join_all, stream::FuturesUnordered};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use tokio::{sync::mpsc, time::timeout};
use tracing::{debug, warn};
use xpush_protocol::{ChannelName, EventName, Json, MessageId, Payload, UserId};

use super::Node;
use crate::{
    directory::Notice,
    namespace::INBOX,
    publication::{Draft, Publisher},
    session::{Refusal, now},
};

/// Messages whose members are not told yet. Full means that the store can't keep up with the inboxes: then some are
/// not told.
const UNTOLD_CAPACITY: usize = 4096;
/// Members of a channel whose inboxes are told of each message. In a larger one only those who are mentioned are.
const TOLD_MEMBERS: usize = 256;
/// Messages whose inboxes are being written at once.
const TELLING: usize = 64;
/// Bytes of a preview: a line on a phone's screen.
const PREVIEW: usize = 160;
/// A store that does not answer for as long is not waited for: the rest waits behind it.
const TELL_DEADLINE: Duration = Duration::from_secs(30);

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

/// A message that is in its log, and that members of its channel are to hear of.
#[derive(Debug, Clone)]
pub(super) struct Untold {
    channel: ChannelName,
    offset: u64,
    user: Option<UserId>,
    event: EventName,
    preview: Option<String>,
    mentions: Vec<UserId>,
    /// It is not a message but tells that this one was deleted.
    deletes: Option<u64>,
}

/// What waits to be told.
pub(super) struct Inboxes {
    untold: mpsc::Sender<Untold>,
    waiting: Mutex<Option<mpsc::Receiver<Untold>>>,
}

impl Default for Inboxes {
    fn default() -> Self {
        let (untold, waiting) = mpsc::channel(UNTOLD_CAPACITY);
        Self { untold, waiting: Mutex::new(Some(waiting)) }
    }
}

/// In the inbox: a message in one of the user's channels.
#[derive(Serialize)]
struct MessageNotice<'a> {
    channel: &'a ChannelName,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a UserId>,
    event: &'a EventName,
    #[serde(skip_serializing_if = "Option::is_none")]
    preview: Option<&'a str>,
}

/// In the inbox: another device of the user has read so far.
#[derive(Serialize)]
struct ReadNotice<'a> {
    channel: &'a ChannelName,
    offset: u64,
}

impl Untold {
    /// `draft`: as it was published. Its place is not known yet.
    pub(super) fn new(channel: &ChannelName, draft: &Draft) -> Self {
        Self {
            channel: channel.clone(),
            offset: 0,
            user: draft.user.clone(),
            event: draft.event.clone(),
            // It would be read in the inbox when it is gone elsewhere.
            preview: if draft.expires_in.is_none() { preview(&draft.payload) } else { None },
            mentions: draft.mentions.clone(),
            deletes: draft.deletes(),
        }
    }
}

/// The id in an inbox of what is told of this message.
fn notice_id(channel: &ChannelName, offset: u64) -> Option<MessageId> {
    let digest = digest(&SHA256, channel.local().as_bytes());
    let channel = URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16]);
    format!("{channel}:{offset}").parse().ok()
}

/// The beginning of what a person would read.
fn preview(payload: &Payload) -> Option<String> {
    let Payload::Json(json) = payload else { return None };
    let value: serde_json::Value = serde_json::from_str(json.as_str()).ok()?;
    let text = value.as_str().or_else(|| value.get("text")?.as_str())?;
    let end = (0..=PREVIEW.min(text.len())).rev().find(|at| text.is_char_boundary(*at))?;
    Some(text[..end].to_owned())
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
    async fn line_up(
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

    /// A message is in its log: its channel's members are to hear of it.
    pub(super) fn told_of(&self, untold: Untold, offset: u64) {
        if self.inboxes.untold.try_send(Untold { offset, ..untold }).is_err() {
            self.metrics.inbox_missed();
        }
    }

    /// Tells the members what was published, in the order in which it was.
    pub(super) async fn tell_inboxes(self: &Arc<Self>) {
        let waiting = self.inboxes.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        // There is one `tend`.
        let Some(mut waiting) = waiting else { return };
        let mut telling = FuturesUnordered::new();
        loop {
            tokio::select! {
                untold = waiting.recv(), if telling.len() < TELLING => match untold {
                    Some(untold) => {
                        let written = self.tell_message(untold).await;
                        telling.push(written);
                    }
                    None => return,
                },
                Some(()) = telling.next() => {}
            }
        }
    }

    /// Puts one message into the inboxes' lines. What it gives resolves once it is in all of them.
    async fn tell_message(self: &Arc<Self>, untold: Untold) -> impl Future<Output = ()> + use<> {
        let mut written = Vec::new();
        match self.hearers(&untold).await {
            Ok(hearers) => {
                let Untold { channel, offset, user, event, preview, deletes, .. } = &untold;
                let may_preview = self.directory.policy(&channel.app()).await.is_ok_and(|app| app.preview);
                let preview = preview.as_deref().filter(|_| may_preview);
                let offset = deletes.unwrap_or(*offset);
                let id = notice_id(channel, offset);
                for (hearer, what) in hearers {
                    let user = user.as_ref();
                    let notice = MessageNotice { channel, offset, user, event, preview };
                    match self.line_up(&hearer, what, &notice, id.clone()).await {
                        Ok(publishing) if deletes.is_some() => {
                            written.push(self.retract(&hearer, publishing));
                        }
                        Ok(publishing) => written.push(publishing),
                        Err(error) => debug!(user = %hearer, error = error.message, "not told"),
                    }
                }
            }
            Err(error) => {
                debug!(channel = %untold.channel, error = error.message, "its members can't be told")
            }
        }
        async move {
            let _ = timeout(TELL_DEADLINE, join_all(written)).await;
        }
    }

    /// A message was deleted, so what the inbox has of it goes too. `said_again`: under the id of that, which so is found.
    /// If it is not there, what is there now says that the message was deleted.
    fn retract(self: &Arc<Self>, user: &UserId, said_again: super::Publishing) -> super::Publishing {
        let (node, inbox) = (Arc::clone(self), inbox_of(user));
        let retracted = async move {
            let (place, was_there) = said_again.await?;
            if was_there {
                node.redact(&inbox, place.offset, None).await?;
            }
            Ok((place, was_there))
        };
        retracted.boxed()
    }

    /// Who hears of a message, and as what.
    async fn hearers(&self, untold: &Untold) -> Result<Vec<(UserId, &'static str)>, Refusal> {
        let Untold { channel, offset, user, mentions, deletes, .. } = untold;
        if let (Some(author), None) = (user, deletes) {
            // Who writes has read what was there.
            self.directory.mark_read(channel, author, *offset).await?;
        }
        let members = self.directory.hearers(channel, mentions, TOLD_MEMBERS).await?;
        let all = members.iter().filter_map(|(member, notify)| {
            let is_mentioned = mentions.contains(member);
            let what = if is_mentioned { "mention" } else { "message" };
            // What was told once is taken back from everybody.
            (deletes.is_some() || notify.hears(is_mentioned)).then(|| (member.clone(), what))
        });
        Ok(all.filter(|(member, _)| deletes.is_some() || Some(member) != user.as_ref()).collect())
    }
}
